//! What routes change: that it can be done, and cannot break the framing or lie about the hop.

use super::Checker;
use crate::config::diag::{Code, Finding, Span};
use crate::config::guess::did_you_mean;
use crate::config::kinds::{By, Keyed, List};
use crate::config::model::{HeaderEdits, PathChange, PathMatch, Redirect, Rewrite, RouteMatch, Segment};
use crate::config::raw;
use crate::config::reader::{Kind, Said};
use crate::config::words::{HeaderName, Host, Text, UrlPath};

/// Statuses that send clients elsewhere (RFC 9110 section 15.4).
const REDIRECTS: [u32; 5] = [301, 302, 303, 307, 308];
/// Variables that a new path may use (ours: a bound for what a request can make of it).
const MAX_USES: usize = 8;

/// Headers that nobody may edit: they frame a message, or belong to one hop (RFC 9110 section 7.6.1).
const OF_THE_HOP: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers of requests in which this hop speaks for itself.
const OURS: [&str; 5] = ["via", "forwarded", "x-request-id", "x-deadline-ms", "grpc-timeout"];

/// Which way headers go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Response,
}

/// `matches` is what the route matches; `None`: a listener's redirect, which matches everything.
pub(super) fn redirect(
    said: &Said<raw::Redirect>,
    matches: Option<&RouteMatch>,
    checker: &mut Checker<'_>,
) -> Redirect {
    if !REDIRECTS.contains(&said.status.0) {
        let finding = Finding::error(Code::BadValue, said.status.span, format!("{} redirects nobody", said.status.0));
        checker.notes.push(finding.expected("301, 302, 303, 307 or 308"));
    }
    let everything = RouteMatch::default();
    let of = matches.unwrap_or(&everything);
    let redirect = Redirect {
        status: said.status.0 as u16,
        scheme: said.scheme.as_ref().map(|s| s.value),
        host: said.host.as_ref().map(bracketed),
        port: said.port.as_ref().map(|p| p.0 as u16),
        path: path(said.path.as_ref(), said.path_prefix.as_ref(), of, checker),
        query: said.query.as_ref().map(|query| query_text(query, checker)),
    };
    let stays = redirect.scheme.is_none() && redirect.host.is_none() && redirect.port.is_none();
    if stays && redirect.path.is_none() && redirect.query.is_none() && said.clean {
        let hint = "say where to: `scheme`, `host`, `port`, `path`, `path_prefix` or `query`";
        checker.error(Code::MissingKey, said.span, "this redirects to where it came from", hint);
    }
    if let (true, PathMatch::Prefix(from), Some(PathChange::Prefix(to))) = (stays, &of.path, &redirect.path)
        && to.starts_with(&format!("{}/", from.trim_end_matches('/')))
    {
        let message = format!("{to} is below {from} and is redirected again");
        let span = said.path_prefix.as_ref().map_or(said.span, |p| p.span);
        checker.error(Code::Conflict, span, message, "redirect to somewhere that this route does not match");
    }
    redirect
}

pub(super) fn rewrite(said: &Said<raw::Rewrite>, of: &RouteMatch, checker: &mut Checker<'_>) -> Rewrite {
    Rewrite {
        path: path(said.path.as_ref(), said.path_prefix.as_ref(), of, checker),
        host: said.host.as_ref().map(bracketed),
    }
}

/// A host as it stands in a URL.
fn bracketed(host: &Said<Host>) -> String {
    if host.0.contains(':') { format!("[{}]", host.0) } else { host.0.clone() }
}

fn query_text(said: &Said<Text>, checker: &mut Checker<'_>) -> String {
    if !said.0.bytes().all(|b| b.is_ascii_graphic() && b != b'#') || said.0.starts_with('?') {
        let hint = "as it stands in a request, without `?`: printable ASCII, everything else as %XX";
        checker.error(Code::BadValue, said.span, "this is not a query", hint);
    }
    said.0.clone()
}

fn path(
    whole: Option<&Said<UrlPath>>,
    prefix: Option<&Said<UrlPath>>,
    of: &RouteMatch,
    checker: &mut Checker<'_>,
) -> Option<PathChange> {
    if let (Some(whole), Some(prefix)) = (whole, prefix) {
        let finding = Finding::error(Code::Conflict, prefix.span, "a path is replaced whole, or its prefix is");
        checker.notes.push(finding.related(whole.span, "here first").hint("keep `path` or `path_prefix`"));
    }
    if let Some(prefix) = prefix.filter(|_| of.path.is_exact()) {
        let hint = "match a `path_prefix`, or replace the whole `path`";
        checker.error(Code::Conflict, prefix.span, "this route matches no prefix that could be replaced", hint);
    }
    for said in whole.iter().chain(&prefix) {
        template(said, &of.path, checker);
    }
    let change = whole.map(|p| PathChange::Whole(p.0.clone()));
    change.or_else(|| prefix.map(|p| PathChange::Prefix(p.0.clone())))
}

/// Whether a new path is one, and made of what was matched.
fn template(said: &Said<UrlPath>, of: &PathMatch, checker: &mut Checker<'_>) {
    if said.0.contains(['?', '#', '*']) || said.0.split('/').any(|s| s == "." || s == "..") {
        let hint = "the path alone, without query, `*`, `.` and `..`; a variable is `{name}`";
        checker.error(Code::BadValue, said.span, format!("`{}` cannot be a path", said.0), hint);
        return;
    }
    let known: Vec<&str> = of.variables().collect();
    let change = PathMatch::Exact(said.0.clone());
    for segment in change.segments() {
        match segment {
            Segment::Literal(text) if text.contains(['{', '}']) => {
                let hint = "a variable stands for a whole segment: \"/v1/gifts/{id}\"";
                checker.error(Code::BadValue, said.span, format!("`{text}` is no segment of a path"), hint);
            }
            Segment::Variable(name) | Segment::Rest(name) if !known.contains(&name) => {
                let message = format!("`match` has no variable `{name}`");
                let finding = Finding::error(Code::UnknownName, said.span, message);
                let guess = did_you_mean(name, known.iter().copied());
                let named = || format!("name it there, for example `path = \"/v1/gifts/{{{name}}}\"`");
                let others = || format!("its variables: {}", known.join(", "));
                let hint = guess.unwrap_or_else(|| if known.is_empty() { named() } else { others() });
                checker.notes.push(finding.hint(hint));
            }
            _ => {}
        }
    }
    if change.variables().count() > MAX_USES {
        let finding = Finding::error(Code::OutOfRange, said.span, "too many variables");
        checker.notes.push(finding.expected(format!("at most {MAX_USES}")));
    }
}

pub(super) fn headers(said: &Said<raw::HeaderEdits>, way: Way, checker: &mut Checker<'_>) -> HeaderEdits {
    let mut remove: Vec<String> = Vec::new();
    for name in &said.remove.0 {
        allowed(&name.0, name.span, way, checker);
        remove.push(name.0.clone());
    }
    let mut set: Vec<(String, String)> = Vec::new();
    for (name, value) in names(&said.set, way, checker) {
        if set.iter().any(|(other, _)| *other == name) {
            checker.error(
                Code::Duplicate,
                value.span,
                format!("header `{name}` stands twice"),
                "their case does not count",
            );
        }
        set.push((name, header_value(value, checker)));
    }
    let mut add: Vec<(String, String)> = Vec::new();
    for (name, values) in names::<_, List<Text, 16>, 64>(&said.add, way, checker) {
        add.extend(values.0.iter().map(|value| (name.clone(), header_value(value, checker))));
    }
    HeaderEdits { remove, set, add }
}

fn names<'s, B: By, T: Kind, const MAX: usize>(
    said: &'s Keyed<B, T, MAX>,
    way: Way,
    checker: &mut Checker<'_>,
) -> Vec<(String, &'s Said<T>)> {
    let mut list = Vec::new();
    for (key, value) in &said.entries {
        if let Some(HeaderName(name)) = HeaderName::of(&key.value) {
            allowed(&name, key.span, way, checker);
            list.push((name, value));
        } else {
            let message = format!("`{}` is not the name of a header", key.value);
            checker.error(Code::BadValue, key.span, message, "letters, digits and `-`, without the colon");
        }
    }
    list
}

fn header_value(said: &Said<Text>, checker: &mut Checker<'_>) -> String {
    if http::HeaderValue::from_str(&said.0).is_err() || said.0.trim() != said.0 || said.0.len() > 8_192 {
        let hint = "visible characters, no space at either end, at most 8 KiB";
        checker.error(Code::BadValue, said.span, "no header can have this value", hint);
    }
    said.0.clone()
}

/// Notes a header that must not be touched.
fn allowed(name: &str, span: Span, way: Way, checker: &mut Checker<'_>) {
    let is_request = way == Way::Request;
    let (message, hint) = if OF_THE_HOP.contains(&name) || name.starts_with("proxy-") {
        (format!("`{name}` frames a message or belongs to one hop"), "each hop writes its own: leave it alone")
    } else if is_request && (OURS.contains(&name) || name.starts_with("x-forwarded-")) {
        (
            format!("`{name}` is what this hop says of itself and of the client"),
            "backends get it from here: leave it alone",
        )
    } else if is_request && name == "host" {
        ("the host is not edited as a header".into(), "use `rewrite = { host = \"...\" }`")
    } else {
        return;
    };
    checker.error(Code::Conflict, span, message, hint);
}
