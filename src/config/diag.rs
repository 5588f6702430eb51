//! Findings: what is wrong with a configuration, where it stands, what was expected, and what to do.
//!
//! Both stages report into [`Notes`]; nobody stops at the first. [`Findings`] sorts them by place and renders them with
//! their source lines. Lines and columns count from 1, columns in characters. What is kept and shown is bounded.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Findings kept while reading; beyond them they are only counted (ours).
const KEPT: usize = 1_000;
/// Findings rendered; beyond them their number is said (ours: nobody reads more at once).
const SHOWN: usize = 100;

/// Whether a configuration with this finding may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It may not.
    Error,
    /// It may, but somebody should look.
    Warning,
}

/// What kind of mistake a finding is about; stable, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The file cannot be read at all.
    Unreadable,
    /// Not TOML.
    Syntax,
    /// A key that means nothing here.
    UnknownKey,
    /// A key that a later version will understand.
    NotAvailable,
    /// A key that has to be there.
    MissingKey,
    /// A number where a string is wanted, and the like.
    WrongType,
    /// A value that cannot be understood.
    BadValue,
    /// A value beyond its limits.
    OutOfRange,
    /// A name that refers to nothing.
    UnknownName,
    /// Said twice.
    Duplicate,
    /// Two things that cannot both hold.
    Conflict,
    /// A file that is not there.
    MissingFile,
    /// Allowed, and hardly meant.
    Doubtful,
}

impl Code {
    /// The code as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::NotAvailable => "not-available",
            Self::MissingKey => "missing-key",
            Self::WrongType => "wrong-type",
            Self::BadValue => "bad-value",
            Self::OutOfRange => "out-of-range",
            Self::UnknownName => "unknown-name",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::MissingFile => "missing-file",
            Self::Doubtful => "doubtful",
        }
    }
}

/// Bytes of the source, from `start` up to but without `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end.max(range.start) }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of mistake.
    pub code: Code,
    /// Where; `None` where it is about the file as a whole.
    pub span: Option<Span>,
    /// Line, from 1; 0 without a place.
    pub line: usize,
    /// Column in characters, from 1; 0 without a place.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was expected there.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Another place that it has to do with, and how.
    pub related: Option<(Span, String)>,
}

impl Finding {
    /// An error at `span`.
    pub(in crate::config) fn error(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            span: Some(span),
            line: 0,
            column: 0,
            message: message.into(),
            expected: None,
            hint: None,
            related: None,
        }
    }

    /// A warning at `span`.
    pub(in crate::config) fn warning(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// An error about the file as a whole.
    pub(in crate::config) fn about_file(code: Code, message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(code, Span::default(), message) }
    }

    /// With what was expected there.
    pub(in crate::config) fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: Some(expected.into()), ..self }
    }

    /// With what to do.
    pub(in crate::config) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With what to do, if that is known.
    pub(in crate::config) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint: hint.or(self.hint.clone()), ..self }
    }

    /// With another place that it has to do with.
    pub(in crate::config) fn related(self, span: Span, how: impl Into<String>) -> Self {
        Self { related: Some((span, how.into())), ..self }
    }

    fn render(&self, renderer: &Renderer, path: &str, text: &str) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code.as_str());
        let mut group: Group<'_> = match self.span {
            None => title.element(Origin::path(path)),
            Some(span) => title.element(self.snippet(span, path, text)),
        };
        if self.span.is_none()
            && let Some(expected) = &self.expected
        {
            group = group.element(Level::NOTE.message(expected.as_str()));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }

    /// Only the lines that matter, so that rendering does not walk the whole file for each finding.
    fn snippet<'a>(
        &'a self,
        span: Span,
        path: &'a str,
        text: &'a str,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let span = clamp(span, text);
        let related = self.related.as_ref().map(|(other, how)| (clamp(*other, text), how.as_str()));
        let first = related.as_ref().map_or(span.start, |(other, _)| other.start.min(span.start));
        let last = related.as_ref().map_or(span.end, |(other, _)| other.end.max(span.end));
        let from = text.get(..first).and_then(|t| t.rfind('\n')).map_or(0, |at| at + 1);
        let to = text.get(last..).and_then(|t| t.find('\n')).map_or(text.len(), |at| last + at);
        let line = text.get(..from).map_or(1, |t| t.matches('\n').count() + 1);
        let inside = |s: Span| s.start.saturating_sub(from)..s.end.saturating_sub(from);
        let primary =
            AnnotationKind::Primary.span(inside(span)).label(self.expected.as_deref().map(|e| format!("expected {e}")));
        let snippet = Snippet::source(text.get(from..to).unwrap_or_default()).line_start(line).path(path);
        let snippet = snippet.annotation(primary);
        match related {
            Some((other, how)) => snippet.annotation(AnnotationKind::Context.span(inside(other)).label(how)),
            None => snippet,
        }
    }
}

/// A span within `text`, on boundaries of characters, within one line.
fn clamp(span: Span, text: &str) -> Span {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.floor_char_boundary(span.end.clamp(start, text.len()));
    let line_end = text.get(start..end).and_then(|t| t.find('\n')).map_or(end, |at| start + at);
    Span { start, end: line_end }
}

/// What both stages report into.
#[derive(Debug, Default)]
pub(in crate::config) struct Notes {
    list: Vec<Finding>,
    unkept: usize,
}

impl Notes {
    /// Adds a finding.
    pub(in crate::config) fn push(&mut self, finding: Finding) {
        if self.list.len() < KEPT {
            self.list.push(finding);
        } else {
            self.unkept += 1;
        }
    }

    /// Whether an error was found.
    pub(in crate::config) fn failed(&self) -> bool {
        self.list.iter().any(|f| f.severity == Severity::Error)
    }

    /// How many findings there are by now.
    pub(in crate::config) fn count(&self) -> usize {
        self.list.len() + self.unkept
    }
}

/// Everything that was found in one file, by place.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    path: PathBuf,
    text: Arc<str>,
    list: Vec<Finding>,
    unkept: usize,
}

impl Findings {
    pub(in crate::config) fn new(path: &Path, text: &str, notes: Notes) -> Self {
        let mut list = notes.list;
        list.sort_by_key(|f| (f.span.map(|s| s.start), f.severity));
        list.dedup();
        let mut lines = Lines::new(text);
        for finding in &mut list {
            if let Some(span) = finding.span {
                (finding.line, finding.column) = lines.at(span.start);
            }
        }
        let text = if list.is_empty() { Arc::default() } else { Arc::from(text) };
        Self { path: path.to_owned(), text, list, unkept: notes.unkept }
    }

    /// The file that they are about.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of them, by place.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Finding> {
        self.list.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many errors and how many warnings.
    pub fn count(&self) -> (usize, usize) {
        let errors = self.list.iter().filter(|f| f.severity == Severity::Error).count();
        (errors + self.unkept, self.list.len() - errors)
    }

    /// Whether the file could not be read at all.
    pub fn unreadable(&self) -> bool {
        self.list.iter().any(|f| f.code == Code::Unreadable)
    }

    /// All of them for a person, at most 100, with a summary in the last line.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let path = self.path.display().to_string();
        let mut out = String::new();
        for finding in self.list.iter().take(SHOWN) {
            out.push_str(&finding.render(&renderer, &path, &self.text));
            out.push_str("\n\n");
        }
        let (errors, warnings) = self.count();
        let more = (errors + warnings).saturating_sub(SHOWN);
        if more > 0 {
            let _ = writeln!(out, "{more} more are not shown");
        }
        let _ = writeln!(out, "{path}: {}, {}", plural(errors, "error"), plural(warnings, "warning"));
        out
    }

    /// All of them for a program.
    pub fn to_json(&self) -> serde_json::Value {
        let mut lines = Lines::new(&self.text);
        let list: Vec<_> = self
            .list
            .iter()
            .map(|f| {
                let related = f.related.as_ref().map(|(span, how)| {
                    let (line, column) = lines.at(span.start);
                    serde_json::json!({ "line": line, "column": column, "message": how })
                });
                serde_json::json!({
                    "severity": f.severity, "code": f.code, "line": f.line, "column": f.column,
                    "message": f.message, "expected": f.expected, "hint": f.hint, "related": related,
                })
            })
            .collect();
        let (errors, warnings) = self.count();
        serde_json::json!({ "file": self.path, "errors": errors, "warnings": warnings, "findings": list })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Findings {}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Offsets to lines and columns; counts on from the last answer where offsets come in order, as sorted findings do.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    last: (usize, usize, usize),
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, last: (0, 0, 1) }
    }

    fn at(&mut self, offset: usize) -> (usize, usize) {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let (from, column) = match self.last {
            (last_line, from, column) if last_line == line && from <= offset => (from, column),
            _ => (start, 1),
        };
        let column = column + self.text.get(from..offset).map_or(0, |t| t.chars().count());
        self.last = (line, offset, column);
        (line, column)
    }
}
