//! Stage two: what was said, checked as a whole, is what it means. Both `springtide check` and a reload come through here.
//!
//! Each part notes what it finds and goes on. Where the file had syntax errors, or a part could not be read, nothing
//! that refers to it is called unknown: a first mistake invents no second one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::diag::{Code, Finding, Findings, Notes, Severity, Span};
use super::model::Config;
use super::raw::Root;
use super::reader::{Item, Kind, Reader, Said};
use super::words::File;

mod backends;
mod change;
mod edge;
mod files;
mod guarding;
mod health;
mod logging;
mod matching;
mod names;
mod places;
mod pools;
mod routing;
mod securing;
mod sharing;
mod sockets;
mod steering;
mod syntax;
mod transports;
mod zoning;

/// Largest file that is read (ours: some 100,000 backends).
const MAX_BYTES: u64 = 16 << 20;

/// Reads, decodes and checks the file at `path`, and that the files it names exist.
///
/// # Errors
/// Everything that is wrong with it, warnings among it.
pub fn load(path: &Path) -> Result<Config, Findings> {
    let whole = |message: String| {
        let mut notes = Notes::default();
        notes.push(Finding::about_file(Code::Unreadable, message));
        Findings::new(path, "", notes)
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| whole(format!("cannot be read: {e}")))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| whole(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(whole(format!("is larger than {} MiB", MAX_BYTES >> 20)));
    }
    match String::from_utf8(bytes) {
        Ok(text) => examine(&text, path, Look::AtFiles),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let mut notes = Notes::default();
            notes.push(Finding::error(Code::Syntax, (at..at).into(), "the file is not UTF-8 from here on"));
            Err(Findings::new(path, &String::from_utf8_lossy(error.as_bytes()), notes))
        }
    }
}

/// Decodes and checks `text` as if it stood at `path`. Reads no file.
///
/// # Errors
/// Everything that is wrong with it, warnings among it.
pub fn parse(text: &str, path: &Path) -> Result<Config, Findings> {
    examine(text, path, Look::Nowhere)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    AtFiles,
    Nowhere,
}

fn examine(text: &str, path: &Path, look: Look) -> Result<Config, Findings> {
    let mut notes = Notes::default();
    let readable = syntax::readable(text, &Root::repeats(), &mut notes);
    let whole = !notes.failed();
    let (tree, _) = DeTable::parse_recoverable(&readable);
    let tree = DeValue::Table(tree.into_inner());
    let item = Item { span: Span::default(), name: "this file", value: &tree };
    let config = Root::read(item, &mut Reader::new(&mut notes, whole)).map(|root| {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        meaning(&root, path, &mut Checker { notes: &mut notes, folder, look, whole })
    });
    let findings = Findings::new(path, text, notes);
    match config {
        Some(config) if findings.iter().all(|f| f.severity == Severity::Warning) => {
            Ok(Config { warnings: findings, ..config })
        }
        _ => Err(findings),
    }
}

fn meaning(root: &Root, path: &Path, checker: &mut Checker<'_>) -> Config {
    let places = places::names(root, checker);
    let datacenters = places::datacenters(root, checker);
    let work = health::names(root, checker);
    let services = health::services(root, &places, checker);
    let discovery = backends::discovery(root, &places, &services, checker);
    let node = places::node(root, &places, checker);
    let admin = places::admin(root, checker);
    let dns = steering::dns(root, &places, &work, &datacenters, checker);
    let listeners = edge::listeners(root, checker);
    let routes = routing::routes(root, &work, &services, &listeners, checker);
    edge::promises(root, &listeners, checker);
    sockets::collisions(root, checker);
    idle(root, checker);
    Config {
        path: path.to_owned(),
        node,
        admin,
        health: health::rules(root, checker),
        datacenters,
        geo: places::geo(root, checker),
        discovery,
        services,
        dns,
        listeners,
        routes,
        log: logging::log(root, checker),
        trace: logging::trace(root, checker),
        warnings: Findings::default(),
    }
}

/// Warns of what has no effect.
fn idle(root: &Root, checker: &mut Checker<'_>) {
    if !checker.whole || checker.notes.failed() {
        return;
    }
    if root.dns.is_none() && root.listener.0.is_empty() {
        let message = "nothing listens: neither `[dns]` nor a `[[listener]]` is there";
        let finding = Finding { severity: Severity::Warning, ..Finding::about_file(Code::Doubtful, message) };
        checker.notes.push(finding.hint("add a `[[listener]]` for HTTP, or `[dns]` for the name server"));
    }
    if let (Some(listener), true) = (root.listener.0.first(), root.route.0.is_empty()) {
        let finding =
            Finding::warning(Code::Doubtful, listener.span, "there is no `[[route]]`: every request gets 404");
        checker.notes.push(finding.hint("add a `[[route]]` with `service = \"...\"` or `respond = { ... }`"));
    }
    if let (Some(route), true) = (root.route.0.first(), root.listener.0.is_empty()) {
        let finding = Finding::warning(Code::Doubtful, route.span, "there is no `[[listener]]`: no request comes here");
        checker.notes.push(finding.hint("add a `[[listener]]` with `name` and `listen`"));
    }
    let routed = |name: &str| {
        root.route.0.iter().any(|route| {
            let sides =
                route.split.iter().flat_map(|s| &s.services).flat_map(|s| &s.entries).map(|(side, _)| &side.value);
            let mirror = route.mirror.iter().filter_map(|m| m.service.as_ref()).map(|s| &s.0);
            sides.chain(mirror).chain(route.service.iter().map(|s| &s.0)).any(|s| s == name)
        })
    };
    let steered = |name: &str| {
        let steers = root.dns.iter().flat_map(|d| &d.steer.0);
        steers.filter_map(|s| s.services.as_ref()).flat_map(|s| &s.0).any(|s| s.0 == name)
    };
    for service in &root.service.0 {
        if let Some(name) = service.name.as_ref().filter(|n| !routed(&n.0) && !steered(&n.0)) {
            let message = format!("no route and no steered name refers to service `{}`", name.0);
            checker.notes.push(Finding::warning(Code::Doubtful, name.span, message));
        }
    }
}

/// What every part of the second stage works with.
struct Checker<'n> {
    notes: &'n mut Notes,
    folder: PathBuf,
    look: Look,
    /// Whether the tree holds all that the file says.
    whole: bool,
}

impl Checker<'_> {
    fn error(&mut self, code: Code, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.notes.push(Finding::error(code, span, message).hint(hint));
    }

    fn warn(&mut self, code: Code, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.notes.push(Finding::warning(code, span, message).hint(hint));
    }

    /// Notes that what stands at `span` stood at `first` already.
    fn twice(&mut self, span: Span, first: Span, message: impl Into<String>) {
        self.notes.push(Finding::error(Code::Duplicate, span, message).related(first, "here first"));
    }

    /// A path, resolved against the configuration's folder, after a look whether a folder is there.
    fn folder(&mut self, said: &Said<File>) -> PathBuf {
        let path = self.folder.join(&said.0);
        if self.look == Look::AtFiles && !path.is_dir() {
            let finding =
                Finding::error(Code::MissingFile, said.span, format!("there is no folder {}", path.display()));
            self.notes.push(finding.hint("relative paths start at the folder of the configuration"));
        }
        path
    }

    /// A path, resolved against the configuration's folder, after a look whether a file is there.
    fn file(&mut self, said: &Said<File>) -> PathBuf {
        let path = self.folder.join(&said.0);
        if self.look == Look::AtFiles && !path.is_file() {
            let finding = Finding::error(Code::MissingFile, said.span, format!("there is no file {}", path.display()));
            self.notes.push(finding.hint("relative paths start at the folder of the configuration"));
        }
        path
    }
}

#[cfg(test)]
mod tests;
