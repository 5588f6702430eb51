//! The edge: listeners with their certificates, and routes, none of them dead.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::Checker;
use super::names::Names;
use crate::base::ids::ServiceId;
use crate::base::units::show_duration;
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::Or;
use crate::config::model::{Action, Balance, Listener, ListenerTls, PathMatch, Route, RouteMatch, Service, UserKey};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;
use crate::config::words::{File, HeaderName, UrlPath};

pub(super) fn listeners(root: &Root, checker: &mut Checker<'_>) -> Vec<Listener> {
    Names::collect("listener", root.listener.0.iter().map(|l| l.name.as_ref()), checker);
    let listener = |said: &Said<raw::Listener>, checker: &mut Checker<'_>| {
        if let Some(listen) = said.listen.as_ref().filter(|l| l.0.is_empty() && l.clean) {
            checker.error(
                Code::BadValue,
                listen.span,
                "this listener listens nowhere",
                "for example `listen = \"0.0.0.0:8080\"`",
            );
        }
        Listener {
            name: said.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            listen: said.listen.iter().flat_map(|l| &l.0).map(|l| l.0).collect(),
            tls: said.tls.as_ref().and_then(|tls| certificates(tls, checker)),
            trusted: said.trusted.0.iter().map(|p| p.0).collect(),
        }
    };
    root.listener.0.iter().map(|said| listener(said, checker)).collect()
}

fn certificates(said: &Said<raw::ListenerTls>, checker: &mut Checker<'_>) -> Option<ListenerTls> {
    let (certs, keys) = (said.certs.as_ref()?, said.keys.as_ref()?);
    if certs.0.len() != keys.0.len() && said.clean {
        let message = format!("{} and {}", count(certs.0.len(), "certificate"), count(keys.0.len(), "key"));
        let finding = Finding::error(Code::Conflict, keys.span, message).related(certs.span, "for these certificates");
        checker.notes.push(finding.hint("`keys` has the key of each of `certs`, in the same order"));
    }
    if certs.0.is_empty() && said.clean {
        let hint = "add a certificate, or leave `tls` out to speak plaintext";
        checker.error(Code::BadValue, certs.span, "TLS without a certificate", hint);
    }
    let mut read = |files: &[Said<File>]| files.iter().map(|file| checker.file(file)).collect::<Vec<PathBuf>>();
    let (certs, keys) = (read(&certs.0), read(&keys.0));
    Some(ListenerTls { pairs: certs.into_iter().zip(keys).collect() })
}

fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

pub(super) fn routes(root: &Root, work: &Names, services: &[Service], checker: &mut Checker<'_>) -> Vec<Route> {
    let mut taken: HashMap<&str, Span> = HashMap::new();
    for name in root.route.0.iter().filter_map(|r| r.name.as_ref()) {
        if let Some(first) = taken.insert(&name.0, name.span) {
            checker.twice(name.span, first, format!("route `{}` stands twice", name.0));
        }
    }
    let mut used: HashSet<String> = taken.keys().map(|name| (*name).to_owned()).collect();
    let routes: Vec<Route> = root.route.0.iter().map(|said| route(said, work, services, &mut used, checker)).collect();
    dead(root, &routes, checker);
    routes
}

fn route(
    said: &Said<raw::Route>,
    work: &Names,
    services: &[Service],
    used: &mut HashSet<String>,
    checker: &mut Checker<'_>,
) -> Route {
    let action = action(said, work, services, checker);
    let stem = said.service.as_ref().map_or("respond", |s| s.0.as_str());
    let name = said.name.as_ref().map_or_else(|| derived(stem, used), |n| n.0.clone());
    Route {
        name,
        matches: matches(&said.matches, checker),
        action,
        user: said.user.0.clone(),
        deadline: said.deadline.as_ref().map(|d| d.0),
        retry_keyed: said.retry_keyed.0,
        hedge: false,
        max_body: said.max_body.0,
    }
}

/// A name for a route that has none: that of its service, with a number from the second on.
fn derived(stem: &str, used: &mut HashSet<String>) -> String {
    let mut name = stem.to_owned();
    let mut number = 2_usize;
    while !used.insert(name.clone()) {
        name = format!("{stem}-{number}");
        number += 1;
    }
    name
}

fn action(said: &Said<raw::Route>, work: &Names, services: &[Service], checker: &mut Checker<'_>) -> Action {
    let nothing = Action::Respond { status: 404, content_type: String::new(), body: String::new() };
    match (&said.service, &said.respond) {
        (Some(name), None) => {
            let Some(index) = work.resolve(&name.0, name.span, checker) else { return nothing };
            if let Some(service) = services.get(index) {
                fits(said, service, checker);
            }
            Action::Forward(ServiceId::new(index))
        }
        (None, Some(respond)) => Action::Respond {
            status: respond.status.0 as u16,
            content_type: content_type(&respond.content_type, checker),
            body: respond.body.0.clone(),
        },
        (Some(service), Some(respond)) => {
            let finding = Finding::error(Code::Conflict, respond.span, "this route both answers and forwards");
            checker.notes.push(finding.related(service.span, "to this service").hint("keep `service` or `respond`"));
            nothing
        }
        (None, None) => {
            if checker.whole && said.clean {
                let hint = "add `service = \"...\"`, or `respond = { status = 404 }`";
                checker.error(Code::MissingKey, said.span, "this route does not say what to do", hint);
            }
            nothing
        }
    }
}

/// Whether route and service go together.
fn fits(said: &Said<raw::Route>, service: &Service, checker: &mut Checker<'_>) {
    if service.balance == Balance::UserHome && said.user.0 == UserKey::Client && said.user.clean {
        let message =
            format!("service `{}` has a home for each user, and this route does not say who the user is", service.name);
        let span = if said.user.written { said.user.span } else { said.service.as_ref().map_or(said.span, |s| s.span) };
        let hint = "add `user = \"header:x-user-id\"` or `user = \"cookie:NAME\"`: an address is nobody's identity";
        checker.error(Code::Conflict, span, message, hint);
    }
    if let (Some(deadline), Some(per_try)) = (&said.deadline, service.retry.per_try)
        && per_try > deadline.0
    {
        let message =
            format!("one try of service `{}` may take {}, longer than this", service.name, show_duration(per_try));
        checker.warn(Code::Doubtful, deadline.span, message, "shorten `retry.per_try` of the service");
    }
}

fn content_type(said: &Said<crate::config::words::Text>, checker: &mut Checker<'_>) -> String {
    if http::HeaderValue::from_str(&said.0).is_err() || !said.0.contains('/') {
        let message = format!("`{}` is not a content type", said.0);
        checker.error(Code::BadValue, said.span, message, "for example \"application/json\"");
    }
    said.0.clone()
}

fn matches(said: &raw::Match, checker: &mut Checker<'_>) -> RouteMatch {
    let path = match (&said.path, &said.path_prefix) {
        (Some(path), Some(prefix)) => {
            let finding = Finding::error(Code::Conflict, prefix.span, "a route matches one path or all below a prefix");
            checker.notes.push(finding.related(path.span, "here first").hint("keep `path` or `path_prefix`"));
            PathMatch::default()
        }
        (Some(path), None) => PathMatch::Exact(plain(path, checker)),
        (None, Some(prefix)) => {
            let path = plain(prefix, checker);
            let trimmed = path.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.to_owned() })
        }
        (None, None) => PathMatch::default(),
    };
    let mut methods: Vec<String> = said.method.0.iter().map(|m| m.0.clone()).collect();
    methods.sort();
    methods.dedup();
    let mut headers: Vec<(String, Option<String>)> = Vec::new();
    for (name, value) in &said.header.entries {
        let Some(HeaderName(lower)) = HeaderName::of(&name.value) else {
            let message = format!("`{}` is not the name of a header", name.value);
            checker.error(Code::BadValue, name.span, message, "letters, digits and `-`, without the colon");
            continue;
        };
        if lower == "host" {
            checker.error(Code::Conflict, name.span, "the host is not matched as a header", "use `host`");
        }
        if headers.iter().any(|(other, _)| *other == lower) {
            checker.error(
                Code::Duplicate,
                name.span,
                format!("header `{lower}` stands twice"),
                "their case does not count",
            );
        }
        let wanted = match &value.value {
            Or::One(text) => Some(text.0.clone()),
            Or::Other(_) => None,
        };
        if wanted.as_deref().is_some_and(|v| http::HeaderValue::from_str(v).is_err() || v.trim() != v) {
            checker.error(
                Code::BadValue,
                value.span,
                "no header can have this value",
                "visible characters, no space at either end",
            );
        }
        headers.push((lower, wanted));
    }
    headers.sort();
    RouteMatch { host: said.host.as_ref().map(|h| h.0.clone()), path, methods, headers }
}

/// A path as requests have it once they are normalised: anything else would never match.
fn plain(said: &Said<UrlPath>, checker: &mut Checker<'_>) -> String {
    let path = &said.0;
    if let Some(at) = path.find(['?', '#']) {
        let rest = path.get(at..).unwrap_or_default();
        let message = format!("a path is matched without `{rest}`");
        checker.error(Code::BadValue, said.span, message, format!("write \"{}\"", path.get(..at).unwrap_or_default()));
    } else if path.contains('*') {
        let below = path.split('*').next().unwrap_or_default().trim_end_matches('/');
        let below = if below.is_empty() { "/" } else { below };
        let hint = format!("to match all below a path: `path_prefix = \"{below}\"`");
        checker.error(Code::BadValue, said.span, "`*` is matched as it stands", hint);
    } else if path.split('/').skip(1).any(|segment| segment == "." || segment == "..") {
        checker.error(
            Code::BadValue,
            said.span,
            "no request has `.` or `..` as a segment",
            "write the path that it leads to",
        );
    } else if path.contains("//") {
        checker.warn(Code::Doubtful, said.span, "this path has an empty segment", "requests hardly have `//`");
    }
    path.clone()
}

/// Notes routes that no request can reach, because an earlier one takes the same. Who has more conditions is asked first,
/// so that only one with as many can take everything.
fn dead(root: &Root, routes: &[Route], checker: &mut Checker<'_>) {
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, (route, said)) in routes.iter().zip(&root.route.0).enumerate() {
        let span = if said.matches.written { said.matches.span } else { said.span };
        if !said.clean {
            continue;
        }
        let m = &route.matches;
        let headers: Vec<&str> = m.headers.iter().map(|(name, _)| name.as_str()).collect();
        let earlier = seen.entry(format!("{:?} {:?} {headers:?}", m.host, m.path)).or_default();
        let taken = |i: &&usize| routes.get(**i).is_some_and(|other| covers(&other.matches, m));
        if let Some(first) = earlier.iter().find(taken).and_then(|i| Some((routes.get(*i)?, root.route.0.get(*i)?))) {
            let at = if first.1.matches.written { first.1.matches.span } else { first.1.span };
            let message = format!("no request reaches route `{}`: route `{}` takes them", route.name, first.0.name);
            checker.twice(span, at, message);
        } else if earlier.len() < MAX_ALIKE {
            earlier.push(index);
        }
    }
}

/// Routes for one host, path and set of headers that are compared with one another (ours: a bound for the worst file).
const MAX_ALIKE: usize = 64;

/// Whether `earlier` leaves nothing to `later`, where host, path and names of headers are the same.
fn covers(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    let methods = earlier.methods.is_empty() == later.methods.is_empty()
        && later.methods.iter().all(|m| earlier.methods.contains(m));
    let mut headers = earlier.headers.iter().zip(&later.headers);
    methods && headers.all(|((_, wide), (_, narrow))| wide.is_none() || wide == narrow)
}
