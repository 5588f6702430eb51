//! Static files of a route: whether what it names is there, and can be read.

use std::path::Path;

use super::{Checker, Look};
use crate::config::diag::{Code, Finding, Span};
use crate::config::model::{Files, RouteMatch};
use crate::config::raw;
use crate::config::reader::Said;
use crate::config::words::Text;

/// The files of a route that matches `matches`.
pub(super) fn files(said: &Said<raw::Files>, matches: &RouteMatch, checker: &mut Checker<'_>) -> Option<Files> {
    let root = checker.folder(said.root.as_ref()?);
    if checker.look == Look::AtFiles && root.is_dir() && std::fs::read_dir(&root).is_err() {
        let finding =
            Finding::error(Code::MissingFile, said.span, format!("the folder {} cannot be read", root.display()));
        checker
            .notes
            .push(finding.hint("the user that runs this needs to read it, and the folders above it to be entered"));
    }
    if !matches.methods.is_empty() && !matches.methods.iter().any(|m| m == "GET") {
        let hint = "leave `method` out: other methods get 405 by themselves";
        checker.warn(Code::Doubtful, said.span, "files are read with GET and HEAD, and this route takes no GET", hint);
    }
    for index in &said.index.0 {
        inner(index, "an index", checker);
    }
    let mut there = |name: &Option<Said<Text>>, what: &str| {
        let name = name.as_ref()?;
        if inner(name, what, checker) {
            present(&root, name, checker);
        }
        Some(name.0.clone())
    };
    let (fallback, not_found) = (there(&said.fallback, "a fallback"), there(&said.not_found, "a page"));
    if let (Some(first), Some(second)) = (&said.fallback, &said.not_found) {
        let finding = Finding::error(Code::Conflict, second.span, "with a fallback nothing is ever missing");
        checker.notes.push(finding.related(first.span, "the fallback").hint("keep `fallback` or `not_found`"));
    }
    if let Some(value) = said.cache_control.as_ref().filter(|v| http::HeaderValue::from_str(&v.0).is_err()) {
        checker.error(Code::BadValue, value.span, "this cannot stand in a header", "for example \"max-age=3600\"");
    }
    let mut seen: Vec<(&str, Span)> = Vec::new();
    for coding in &said.precompressed.0 {
        match seen.iter().find(|(name, _)| *name == coding.as_str()) {
            Some((name, first)) => checker.twice(coding.span, *first, format!("`{name}` stands twice")),
            None => seen.push((coding.as_str(), coding.span)),
        }
    }
    Some(Files {
        root,
        index: said.index.0.iter().map(|name| name.0.clone()).collect(),
        preload: said.preload.0,
        memory: said.memory.0,
        precompressed: said.precompressed.0.iter().map(|coding| coding.value).collect(),
        cache_control: said.cache_control.as_ref().map(|value| value.0.clone()),
        fallback,
        not_found,
        hidden: said.hidden.0,
    })
}

/// Whether `name` is one below the root.
fn inner(name: &Said<Text>, what: &str, checker: &mut Checker<'_>) -> bool {
    let is_inner =
        name.0.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    if !is_inner {
        let hint = "without a slash before it and without `..`, for example \"index.html\"";
        checker.error(
            Code::BadValue,
            name.span,
            format!("`{}` is not the name of {what} below the root", name.0),
            hint,
        );
    }
    is_inner
}

fn present(root: &Path, name: &Said<Text>, checker: &mut Checker<'_>) {
    let path = root.join(&name.0);
    if checker.look == Look::AtFiles && root.is_dir() && !path.is_file() {
        let finding = Finding::error(Code::MissingFile, name.span, format!("there is no file {}", path.display()));
        checker.notes.push(finding.hint("it is looked for below `root`"));
    }
}
