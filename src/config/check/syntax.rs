//! Syntax errors in words for a person: where the file stops being TOML, and what to write instead.

use toml::de::Error;

use crate::config::diag::{Code, Finding, Notes, Span};

/// Notes the parser's errors, the first one of each line: what follows it in the same line is mostly its echo.
pub(super) fn explain(text: &str, errors: &[Error], notes: &mut Notes) {
    let mut lines = std::collections::HashSet::new();
    let mut errors: Vec<_> = errors.iter().map(|e| (Span::from(e.span().unwrap_or_default()), e.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (span, message) in errors {
        let from = line_start(text, span.start);
        if lines.insert(from) {
            let line = text.get(from..).and_then(|t| t.lines().next()).unwrap_or_default();
            let said = text.get(span.start..span.end).unwrap_or_default();
            notes.push(
                Finding::error(Code::Syntax, span, headline(message, said)).maybe_hint(remedy(message, line, said)),
            );
        }
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|t| t.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn headline(message: &str, said: &str) -> String {
    if message == "duplicate key" { format!("`{said}` is said twice") } else { message.to_owned() }
}

/// What to do about the parser's error, told by its message and the line that it stands in.
fn remedy(message: &str, line: &str, said: &str) -> Option<String> {
    let has = |words: &str| message.contains(words);
    let value = line.split_once('=').map(|(_, value)| value.split('#').next().unwrap_or_default().trim());
    Some(if has("duplicate key") && line.trim_start().starts_with('[') && !line.trim_start().starts_with("[[") {
        format!("a section that repeats has double brackets: `[[{said}]]`")
    } else if has("duplicate key") {
        "keep one of the two".into()
    } else if has("must be quoted") || has("literal string") && value.is_some_and(|v| !v.contains(['"', '\''])) {
        let value = value.unwrap_or(said);
        if value.is_empty() || value.contains(['"', '\'', '[', '{']) {
            "strings stand in quotes: \"...\"".into()
        } else {
            format!("strings stand in quotes: \"{value}\"")
        }
    } else if has("basic string") || has("opening quote") || has("closing quote") {
        "a string begins and ends with the same quote, in the same line".into()
    } else if has("unclosed array table") {
        "a section that repeats ends with two brackets: `]]`".into()
    } else if has("unclosed array") {
        "the list needs its `]`".into()
    } else if has("unclosed inline table") {
        "the table needs its `}`".into()
    } else if has("unclosed table") {
        "the header needs its `]`".into()
    } else if has("missing comma") {
        "entries are separated by commas".into()
    } else if has("missing value") || has("key with no value") || has("missing assignment") {
        "write `key = value`".into()
    } else if has("unquoted key") {
        "keys are letters, digits, `-` and `_`; others stand in quotes".into()
    } else if has("leading zero") {
        "numbers have no leading zero; put codes in quotes".into()
    } else {
        return None;
    })
}
