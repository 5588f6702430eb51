//! The house rules that a compiler does not know: floors, sizes, headers, names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every area with its floor. A module imports only from floors below its own, or from its own area.
const FLOORS: &[(&str, u32)] = &[
    ("base", 0),
    ("wire", 1),
    ("config", 1),
    ("snapshot", 2),
    ("decide", 3),
    ("observe", 4),
    ("net", 4),
    ("control", 5),
    ("dns", 6),
    ("proxy", 6),
    ("redpacket", 6),
    ("admin", 6),
    ("router", 7),
    ("drill", 8),
    ("cli", 9),
];

const MAX_CODE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 60;
/// Functions that are a table or a text, not a train of thought.
const TABLES: &[&str] =
    &["src/proxy/reply.rs: words", "src/cli/demo/plan.rs: guide", "src/redpacket/model/code.rs: row"];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                walk(&entry, into);
            } else if entry.extension().is_some_and(|e| e == "rs") {
                into.push(entry);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut paths);
    paths.sort();
    paths.into_iter().map(|p| (p.clone(), fs::read_to_string(&p).unwrap())).collect()
}

fn area_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
    (first != "lib" && first != "main").then_some(first)
}

/// The part of a file before its tests, without comments: what counts as code.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|l| l.trim() != "#[cfg(test)]")
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with("//"))
}

/// The areas that a file names after `crate::`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code(text) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let inner = rest.strip_prefix('{').map_or_else(|| vec![rest], |list| list.split(',').collect());
            for name in inner {
                let name: String = name.trim().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if FLOORS.iter().any(|(area, _)| *area == name) {
                    found.push(name);
                }
            }
        }
    }
    found
}

#[test]
fn modules_import_only_from_floors_below() {
    let floors: BTreeMap<&str, u32> = FLOORS.iter().copied().collect();
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let Some(area) = area_of(&path) else { continue };
        let Some(&floor) = floors.get(area.as_str()) else {
            breaches.push(format!("{}: `{area}` has no floor; give it one in tests/house.rs", path.display()));
            continue;
        };
        for import in imports(&text) {
            if import != area && floors[import.as_str()] >= floor {
                breaches.push(format!("{}: `{area}` (floor {floor}) imports `{import}`", path.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn files_say_what_they_do_and_stay_small() {
    let mut breaches = Vec::new();
    for (path, text) in sources() {
        let header = text.lines().take_while(|l| l.starts_with("//!")).count();
        if header == 0 && path.file_name().is_some_and(|n| n != "lib.rs") {
            breaches.push(format!("{}: no `//!` header", path.display()));
        }
        if header > 15 && path.file_name().is_some_and(|n| n != "lib.rs") {
            breaches.push(format!("{}: a header of {header} lines; 15 are enough", path.display()));
        }
        let lines = code(&text).count();
        if lines > MAX_CODE_LINES {
            breaches.push(format!("{}: {lines} code lines; split by idea", path.display()));
        }
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

/// The functions of a file that opens none inside another: each with the lines from its head to the brace that ends it, in
/// the same column as its head.
fn functions(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    // Its column, its name, its lines so far.
    let mut open: Option<(String, String, usize)> = None;
    for line in text.lines().take_while(|l| l.trim() != "#[cfg(test)]") {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let is_code = !line.trim().is_empty() && !line.trim().starts_with("//");
        match &mut open {
            Some((column, _, lines)) => {
                *lines += usize::from(is_code);
                if line.strip_prefix(column.as_str()).is_some_and(|l| l == "}" || l.ends_with(';') && *lines == 1) {
                    found.extend(open.take().map(|(_, name, lines)| (name, lines)));
                }
            }
            None if is_code => {
                let head = line.split_once("fn ").filter(|(before, _)| {
                    before.split_whitespace().all(|w| {
                        w.starts_with("pub")
                            || w.starts_with("in")
                            || w.ends_with(')')
                            || ["const", "async", "unsafe", "extern"].contains(&w)
                    })
                });
                let Some((_, rest)) = head else { continue };
                let name = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !line.ends_with(['}', ';']) {
                    open = Some((indent, name, 1));
                }
            }
            None => {}
        }
    }
    found
}

#[test]
fn functions_stay_small() {
    let sources = sources();
    // Modules for tests alone may tell a story of any length.
    let told: Vec<String> = sources
        .iter()
        .flat_map(|(_, text)| text.split("#[cfg(test)]\n").skip(1))
        .filter_map(|after| after.lines().next()?.split_once("mod ")?.1.strip_suffix(';').map(str::to_owned))
        .collect();
    let (mut breaches, mut seen) = (Vec::new(), 0);
    for (path, text) in &sources {
        let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
        if path.with_extension("").iter().any(|part| told.iter().any(|name| part == name.as_str())) {
            continue;
        }
        for (name, lines) in functions(text) {
            seen += 1;
            let place = format!("{place}: {name}");
            if lines > MAX_FUNCTION_LINES && !TABLES.contains(&place.as_str()) {
                breaches.push(format!("{place} has {lines} lines; split by idea"));
            }
        }
    }
    assert!(seen > 1_000, "{seen} functions found: the search is broken");
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn modules_have_names_of_the_domain() {
    let banned = ["utils", "util", "common", "helpers", "helper", "manager", "globals", "misc", "handler_main"];
    let found: Vec<_> = sources()
        .into_iter()
        .map(|(p, _)| p)
        .filter(|p| banned.contains(&p.file_stem().unwrap().to_str().unwrap()))
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn metric_names_follow_the_rule_and_the_docs() {
    let mut seen = std::collections::BTreeSet::new();
    for metric in springtide::observe::names::ALL.iter().copied().flatten() {
        assert!(seen.insert(metric.name), "{} stands twice", metric.name);
        assert!(metric.name.starts_with("springtide_"), "{}", metric.name);
        let counter = metric.kind == springtide::observe::names::Kind::Counter;
        assert_eq!(counter, metric.name.ends_with("_total"), "{}: counters, and only they, end in _total", metric.name);
        assert!(!metric.labels.iter().any(|l| l.contains("user")), "{}: a user is never a label", metric.name);
    }
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md")).unwrap();
    assert_eq!(docs, springtide::observe::names::markdown(), "run: springtide docs metrics > docs/METRICS.md");
}
