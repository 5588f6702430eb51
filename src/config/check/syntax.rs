//! Where a file stops being TOML: in words for a person, all places at once, and the rest of the file still read.
//!
//! A line that cannot be read is blanked out and the file read again, until what remains is TOML. Blanks keep every
//! offset, so that later findings stand where they belong. A broken header takes its section with it, because its
//! keys would fall to the section above; an open bracket is looked up, because the parser notices it far below.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::de::{DeTable, Error};

use crate::config::diag::{Code, Finding, Notes, Span};

/// How often a file is read at most (ours: beyond that many layers of mistakes nobody reads on).
const PASSES: usize = 32;

/// The part of `text` that is TOML, with blanks for the rest. Notes what is blanked.
pub(super) fn readable<'t>(text: &'t str, repeats: &[String], notes: &mut Notes) -> Cow<'t, str> {
    let begins = text.find(|c: char| !c.is_whitespace()).unwrap_or(0);
    if text.get(begins..).is_some_and(|t| t.starts_with('{')) {
        let finding = Finding::error(Code::Syntax, Span { start: begins, end: begins + 1 }, "this looks like JSON");
        notes.push(finding.hint("a configuration is TOML: `[section]` and `key = value`"));
        return Cow::Borrowed("");
    }
    let mut left = Cow::Borrowed(text);
    for _ in 0..PASSES {
        let (_, errors) = DeTable::parse_recoverable(&left);
        let blanks = match open_end(&left) {
            _ if errors.is_empty() => break,
            Some(at) => vec![unended(&left, at, notes)],
            None => lines(&left, &errors, repeats, notes),
        };
        let less = blanked(&left, &blanks);
        if less == left {
            break;
        }
        left = Cow::Owned(less);
    }
    left
}

/// Notes the first error of each line, what follows it there is mostly its echo; gives what to blank.
fn lines(text: &str, errors: &[Error], repeats: &[String], notes: &mut Notes) -> Vec<Span> {
    let mut first: BTreeMap<usize, (Span, &str)> = BTreeMap::new();
    for error in errors {
        let span = Span::from(error.span().unwrap_or(text.len()..text.len()));
        let entry = first.entry(line_start(text, span.start)).or_insert((span, error.message()));
        if span.start < entry.0.start {
            *entry = (span, error.message());
        }
    }
    first.into_iter().map(|(from, (span, message))| unreadable(text, from, span, message, repeats, notes)).collect()
}

/// Notes a list, table or text that does not end; gives what to blank: up to the next line that begins something else.
fn unended(text: &str, at: usize, notes: &mut Notes) -> Span {
    let (what, close, length) = match text.get(at..).and_then(|t| t.chars().next()) {
        Some('[') => ("list", "`]`", 1),
        Some('{') => ("table", "`}`", 1),
        Some('"') => ("text", "`\"\"\"`", 3),
        _ => ("text", "`\'\'\'`", 3),
    };
    let finding =
        Finding::error(Code::Syntax, Span { start: at, end: at + length }, format!("this {what} does not end"));
    notes.push(finding.expected(format!("{close} somewhere after it")));
    let mut end = next_line(text, at);
    while end < text.len() && !begins_something(line_at(text, end)) {
        end = next_line(text, end);
    }
    Span { start: line_start(text, at), end }
}

/// Notes one line that cannot be read; gives what to blank.
fn unreadable(text: &str, from: usize, span: Span, message: &str, repeats: &[String], notes: &mut Notes) -> Span {
    let line = line_at(text, from);
    let span = unquoted(line, from, span, message);
    let said = text.get(span.start..span.end).unwrap_or_default();
    let (headline, expected) = headline(message, said);
    let finding = Finding::error(Code::Syntax, span, headline).maybe_hint(remedy(message, text, from, span, repeats));
    notes.push(match expected {
        Some(expected) => finding.expected(expected),
        None => finding,
    });
    let mut end = next_line(text, from);
    if line.trim_start().starts_with('[') {
        while end < text.len() && !line_at(text, end).trim_start().starts_with('[') {
            end = next_line(text, end);
        }
    }
    Span { start: from, end }
}

/// The whole of a value without quotes, of which the parser names a part.
fn unquoted(line: &str, from: usize, span: Span, message: &str) -> Span {
    let value = line.split_once('=').map(|(key, value)| (key.len() + 1, value.split('#').next().unwrap_or_default()));
    let Some((at, value)) = value.filter(|(_, v)| !v.contains(['"', '\'', '[', '{', ','])) else { return span };
    let start = from + at + (value.len() - value.trim_start().len());
    let end = start + value.trim().len();
    let whole =
        message.contains("must be quoted") || message.contains("invalid float") || message.contains("invalid boolean");
    if whole && start <= span.start && span.end <= end && start < end { Span { start, end } } else { span }
}

/// The outermost bracket in a value, or the quotes of a text of several lines, that nothing ends.
fn open_end(text: &str) -> Option<usize> {
    let mut open: Vec<usize> = Vec::new();
    let (mut in_value, mut rest, mut at) = (false, text, 0);
    while let Some(c) = rest.chars().next() {
        let step = match c {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '\'' => string(rest, c),
            _ => c.len_utf8(),
        };
        match c {
            '\n' if open.is_empty() => in_value = false,
            '=' => in_value = true,
            '[' | '{' if in_value => open.push(at),
            ']' | '}' => drop(open.pop()),
            '"' | '\'' if step == 0 => {
                open.push(at);
                break;
            }
            _ => {}
        }
        at += step;
        rest = rest.get(step..).unwrap_or_default();
    }
    open.first().copied()
}

/// How long the string is that `text` begins with; one without an end takes its line, or in triple quotes is 0.
fn string(text: &str, quote: char) -> usize {
    let triple: String = [quote; 3].iter().collect();
    if text.starts_with(&triple) {
        return text.get(3..).and_then(|t| t.find(&triple)).map_or(0, |at| at + 6);
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a line is a header, or `key = ...`.
fn begins_something(line: &str) -> bool {
    let line = line.trim();
    let bare = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_. ".contains(c));
    let header = line.split('#').next().unwrap_or_default().trim();
    let header = header.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let header = header.map(|h| h.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(h));
    header.is_some_and(bare) || line.split_once('=').is_some_and(|(key, _)| bare(key.trim()))
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn next_line(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|t| t.find('\n')).map_or(text.len(), |newline| at + newline + 1)
}

fn line_at(text: &str, start: usize) -> &str {
    text.get(start..).and_then(|t| t.lines().next()).unwrap_or_default()
}

fn blanked(text: &str, blanks: &[Span]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for blank in blanks.iter().filter(|b| b.end > b.start) {
        let start = blank.start.max(from);
        out.push_str(text.get(from..start).unwrap_or_default());
        out.extend(text.get(start..blank.end).unwrap_or_default().bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        from = blank.end.max(from);
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// The parser's message in our words, with what it expected if that says something.
fn headline(message: &str, said: &str) -> (String, Option<String>) {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    match what {
        "duplicate key" => (format!("`{said}` is said twice"), None),
        "string values must be quoted" if said.trim().is_empty() => ("a value is missing".into(), None),
        "string values must be quoted" | "invalid float" | "invalid boolean" => {
            (format!("`{said}` is not a value"), None)
        }
        "unexpected key or value" => ("the line should end here".into(), None),
        "unclosed table" | "unclosed array table" => ("this header does not end".into(), Some(expected.into())),
        "invalid basic string" | "invalid literal string" => ("this string does not end".into(), Some(expected.into())),
        _ if matches!(expected, "" | "nothing" | "literal string") => (what.into(), None),
        _ => (what.into(), Some(expected.into())),
    }
}

/// What to do about it, told by the parser's message and the line that it stands in.
fn remedy(message: &str, text: &str, from: usize, span: Span, repeats: &[String]) -> Option<String> {
    let line = line_at(text, from);
    let has = |words: &str| message.contains(words);
    let said = text.get(span.start..span.end).unwrap_or_default().trim().trim_end_matches(['}', ']', ',', ';', ' ']);
    let next = text.get(span.start..).and_then(|t| t.chars().next());
    let trimmed = line.trim_start();
    let key = trimmed.split([':', '=', ' ']).next().unwrap_or_default();
    Some(if has("duplicate key") && trimmed.starts_with('[') && !trimmed.starts_with("[[") {
        let name = trimmed.trim_start_matches('[').split(']').next().unwrap_or_default().trim();
        if repeats.iter().any(|r| r == name) {
            format!("a section that repeats has double brackets: `[[{name}]]`")
        } else {
            "this section stands once: keep its keys under one header".into()
        }
    } else if has("duplicate key") {
        "keep one of the two".into()
    } else if trimmed.starts_with("- ") {
        "a list stands in brackets: `[\"...\", \"...\"]`".into()
    } else if trimmed.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')) && !key.contains('"') {
        format!("TOML writes `{key} = ...`")
    } else if matches!(next, Some(',' | ';')) && has("unexpected key or value") || line.trim_end().ends_with(';') {
        "lines end without a comma or semicolon".into()
    } else if has("must be quoted") && said.is_empty() {
        format!("write `{key} = ...`, or leave the key out")
    } else if has("must be quoted") || has("invalid float") || has("invalid boolean") {
        quoted(said)
    } else if has("literal string") || has("basic string") || has("opening quote") {
        "a string begins and ends with the same quote, in the same line".into()
    } else if has("escaped value") {
        "a backslash in double quotes begins an escape: write it twice, or use single quotes".into()
    } else if has("unclosed array table") {
        "a section that repeats ends with two brackets: `]]`".into()
    } else if has("unclosed table") {
        "the header needs its `]`".into()
    } else if has("missing comma") {
        "entries are separated by commas".into()
    } else if has("missing value") || has("key with no value") || has("missing assignment") {
        "write `key = value`".into()
    } else if has("unexpected key or value") {
        "one `key = value` a line".into()
    } else if has("unquoted key") {
        "keys are letters, digits, `-` and `_`; others stand in quotes".into()
    } else if has("leading zero") {
        "numbers have no leading zero; put codes in quotes".into()
    } else {
        return None;
    })
}

/// What somebody meant who wrote a word without quotes.
fn quoted(said: &str) -> String {
    match said.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => "write `true`".into(),
        "false" | "no" | "off" => "write `false`".into(),
        "null" | "none" | "nil" => "leave the key out".into(),
        _ if said.contains(['"', '\'']) => "strings stand in quotes: \"...\"".into(),
        _ => format!("strings stand in quotes: \"{said}\""),
    }
}
