//! Routes of the edge: what each does, and that it goes together.

use std::collections::{HashMap, HashSet};

use super::change::{self, Way};
use super::names::Names;
use super::{Checker, files, matching, securing, sharing};
use crate::base::ids::ServiceId;
use crate::base::units::show_duration;
use crate::config::diag::{Code, Finding, Span};
use crate::config::model::{Action, Balance, Listener, Route, RouteMatch, Segment, Service, UserKey};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

pub(super) fn routes(
    root: &Root,
    work: &Names,
    services: &[Service],
    listeners: &[Listener],
    checker: &mut Checker<'_>,
) -> Vec<Route> {
    let mut taken: HashMap<&str, Span> = HashMap::new();
    for name in root.route.0.iter().filter_map(|r| r.name.as_ref()) {
        if let Some(first) = taken.insert(&name.0, name.span) {
            checker.twice(name.span, first, format!("route `{}` stands twice", name.0));
        }
    }
    let mut used: HashSet<String> = taken.keys().map(|name| (*name).to_owned()).collect();
    let mut routes: Vec<Route> =
        root.route.0.iter().map(|said| route(said, work, services, &mut used, checker)).collect();
    // A listener that was not understood may well ask for certificates.
    let listeners = if root.listener.0.iter().all(|l| l.clean) { listeners } else { &[] };
    for (route, said) in routes.iter_mut().zip(&root.route.0) {
        route.requires = said.require.as_ref().and_then(|require| securing::requirement(require, listeners, checker));
    }
    matching::dead(root, &routes, checker);
    matching::crossing(root, &routes, checker);
    routes
}

fn route(
    said: &Said<raw::Route>,
    work: &Names,
    services: &[Service],
    used: &mut HashSet<String>,
    checker: &mut Checker<'_>,
) -> Route {
    let matches = matching::matches(&said.matches, checker);
    let action = action(said, &matches, work, services, checker);
    let is_forwarding = matches!(action, Action::Forward(_) | Action::Split(_));
    let rewrite = said.rewrite.as_ref().map(|r| (r.span, "rewritten"));
    let mirrored = said.mirror.as_ref().map(|m| (m.span, "mirrored"));
    for (span, what) in rewrite.into_iter().chain(mirrored).filter(|_| !is_forwarding && said.clean) {
        let hint = "leave it out, or name a `service`";
        checker.error(Code::Conflict, span, format!("this route forwards nothing that could be {what}"), hint);
    }
    let stem = match &action {
        Action::Redirect(_) => "redirect",
        Action::Split(_) => "split",
        Action::Files(_) => "files",
        Action::Forward(_) | Action::Respond { .. } => said.service.as_ref().map_or("respond", |s| s.0.as_str()),
    };
    let name = said.name.as_ref().map_or_else(|| derived(stem, used), |n| n.0.clone());
    let user = user(said, &matches, checker);
    Route {
        name,
        rewrite: said.rewrite.as_ref().map(|r| change::rewrite(r, &matches, checker)).unwrap_or_default(),
        request_headers: change::headers(&said.headers.request, Way::Request, checker),
        response_headers: change::headers(&said.headers.response, Way::Response, checker),
        mirror: said.mirror.as_ref().and_then(|mirror| sharing::mirror(mirror, work, checker)),
        matches,
        requires: None,
        action,
        user,
        deadline: said.deadline.as_ref().map(|d| d.0),
        retry_keyed: said.retry_keyed.0,
        hedge: said.hedge.0,
        max_body: said.max_body.0,
    }
}

/// Who the user is. One that is a part of the path must be a part of this route's.
fn user(said: &Said<raw::Route>, matches: &RouteMatch, checker: &mut Checker<'_>) -> UserKey {
    let UserKey::Path(name, _) = &said.user.0 else { return said.user.0.clone() };
    let place = matches.path.segments().position(|s| matches!(s, Segment::Variable(variable) if variable == name));
    if place.is_none() && said.user.clean {
        let message = format!("the path of this route has no part `{{{name}}}`");
        let hint = format!("for example `match = {{ path_prefix = \"/v1/packets/{{{name}}}\" }}`");
        checker.error(Code::UnknownName, said.user.span, message, hint);
    }
    UserKey::Path(name.clone(), place.unwrap_or_default())
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

fn action(
    said: &Said<raw::Route>,
    matches: &RouteMatch,
    work: &Names,
    services: &[Service],
    checker: &mut Checker<'_>,
) -> Action {
    let nothing = Action::Respond { status: 404, content_type: String::new(), body: String::new() };
    let wishes = [
        said.service.as_ref().map(|s| (s.span, "service")),
        said.split.as_ref().map(|s| (s.span, "split")),
        said.respond.as_ref().map(|s| (s.span, "respond")),
        said.redirect.as_ref().map(|s| (s.span, "redirect")),
        said.files.as_ref().map(|s| (s.span, "files")),
    ];
    let wishes: Vec<(Span, &str)> = wishes.into_iter().flatten().collect();
    if let [(first, one), (second, other), ..] = wishes.as_slice() {
        let (message, label) = match (*one, *other) {
            ("service", "split") => ("this route forwards in two ways", "to this service"),
            ("service", _) => ("this route both answers and forwards", "to this service"),
            _ => ("this route answers in two ways", "in this one"),
        };
        let finding = Finding::error(Code::Conflict, *second, message).related(*first, label);
        checker.notes.push(finding.hint(format!("keep `{one}` or `{other}`")));
        return nothing;
    }
    if let Some(name) = &said.service {
        let Some(index) = work.resolve(&name.0, name.span, checker) else { return nothing };
        if let Some(service) = services.get(index) {
            fits(said, service, checker);
        }
        return Action::Forward(ServiceId::new(index));
    }
    if let Some(said_split) = &said.split {
        let Some(split) = sharing::split(said_split, work, checker) else { return nothing };
        for service in split.sides.iter().filter_map(|(id, _)| services.get(id.index())) {
            fits(said, service, checker);
        }
        return Action::Split(split);
    }
    if let Some(respond) = &said.respond {
        return Action::Respond {
            status: respond.status.0 as u16,
            content_type: content_type(&respond.content_type, checker),
            body: respond.body.0.clone(),
        };
    }
    if let Some(said) = &said.files {
        return files::files(said, matches, checker).map_or(nothing, |files| Action::Files(Box::new(files)));
    }
    if let Some(redirect) = &said.redirect {
        return Action::Redirect(change::redirect(redirect, Some(matches), checker));
    }
    if checker.whole && said.clean {
        let hint = "add `service = \"...\"`, or `respond = { status = 404 }`";
        checker.error(Code::MissingKey, said.span, "this route does not say what to do", hint);
    }
    nothing
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
    if said.hedge.0 && service.balance == Balance::UserHome {
        let message = format!("service `{}` has one home for each user: nobody else can be asked", service.name);
        checker.error(Code::Conflict, said.hedge.span, message, "leave `hedge` out");
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
