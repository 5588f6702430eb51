//! What a request passes, in order: the whole pipeline, as plain functions.
//!
//! The order matters: what is cheap and refuses comes before what is dear. A stage gives the request on, or ends it with
//! a [`Reason`]; the friendly reply is made in one place, and so are the metrics and the access line.

use std::sync::Arc;

use http::header::{ALLOW, ALT_SVC};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;

use super::download::Out;
use super::files::{self, Shelf};
use super::h2::connect;
use super::log::Told;
use super::reply::{Reason, Taste, refuse};
use super::serve::Client;
use super::tally::{Entry, Id};
use super::trace::Trace;
use super::upload::Inbound;
use super::worker::{Answer, Sight};
use super::{Caller, change, forward};
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::ids::ServiceId;
use crate::config::{Action, Route};
use crate::decide::balance::user;
use crate::decide::requirement;
use crate::decide::route::Ask;
use crate::net::stage::{Next, Stage};
use crate::wire::head::Marks;
use crate::wire::{forwarded, host, path};

/// The stages, in the order in which a request passes them.
pub const PIPELINE: [(&str, &str); 5] = [
    ("identify", "takes the snapshot that holds for the whole request; gives the request an id and finds its client"),
    ("route", "checks host and path, normalises the path, finds the route and whether the client may take it"),
    // Further stages go here, in this order: limit (by user and route), shed (by load and class), cache.
    ("filter", "the embedder's stages, in the order in which they were given"),
    ("act", "answers by itself, or forwards: chooses a backend, sends, retries, streams"),
    ("finish", "metrics and the access line, when the response has gone out or broken off"),
];

/// The id of a request, as it is passed on and as it is accepted from trusted peers.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is accepted.
const ID_BYTES: usize = 128;
/// A request that has passed so many hops of ours runs in a circle.
const HOPS: usize = 8;

/// Takes one request through all stages.
pub(super) async fn pass(client: &Arc<Client>, head: &mut Parts, inbound: Inbound) -> Response<Out> {
    let mut entry = identify(client, head);
    let taste = if entry.marks.has(Marks::TASTE) { Taste::of(&head.headers) } else { Taste::default() };
    let sight = Arc::clone(&entry.sight);
    entry.has_unread_body = !inbound.is_end_stream();
    let (was_connect, answered) = (connect::was_connect(&head.extensions), inbound.answered());
    let response = match route(&mut entry, head) {
        Err(reason) => Err(reason),
        Ok(Some(elsewhere)) => Ok(*elsewhere),
        Ok(None) if client.worker.stages.filters.is_empty() => match act(&entry, &sight, head) {
            Ok(Act::Forward(route, to)) => {
                forward::forward(&client.worker, &sight, &mut entry, head, inbound, route, to).await
            }
            Ok(Act::Answer(answer)) => Ok(answer.response()),
            Ok(Act::Away(elsewhere)) => Ok(*elsewhere),
            Ok(Act::Show(shelf)) => Box::pin(files::serve(shelf, &mut entry, head)).await,
            Err(reason) => Err(reason),
        },
        // Boxed, so that who has no filters keeps no room for them.
        Ok(None) => Box::pin(filter(&mut entry, head, inbound)).await,
    };
    let response = response.and_then(|response| if was_connect { connect::judge(response) } else { Ok(response) });
    let mut response = response.unwrap_or_else(|reason| turn_away(&mut entry, reason, taste));
    if let Some(change) = entry.route.and_then(|id| sight.view.way(id)).and_then(|way| way.change.as_ref()) {
        change.of_response(response.headers_mut());
    }
    if let Some(answered) = answered {
        answered.set();
    }
    finish(entry, response, was_connect)
}

/// Answers a request whose head could not be read: no stage has seen it.
pub(super) fn refuse_unread(client: &Arc<Client>, reason: Reason) -> Response<Out> {
    let (mut head, ()) = Request::new(()).into_parts();
    // Neither was read; the access line should not claim any.
    head.method = Method::from_bytes(b"-").unwrap_or_default();
    head.uri = Uri::from_static("*");
    let mut entry = identify(client, &head);
    entry.has_unread_body = true;
    let response = turn_away(&mut entry, reason, Taste::default());
    finish(entry, response, false)
}

fn turn_away(entry: &mut Entry, reason: Reason, taste: Taste) -> Response<Out> {
    entry.reason = Some(reason);
    entry.seen = entry.client.worker.now();
    let mut response = refuse(reason, taste, entry.id(), entry.has_unread_body, &mut entry.client.worker.wits().rng);
    if let Some(allow) = entry.allow.take() {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn identify(client: &Arc<Client>, head: &Parts) -> Entry {
    let worker = &client.worker;
    let sight = worker.sight();
    let accepted = client.peer.trusted.then(|| head.headers.get(X_REQUEST_ID).filter(|id| is_valid_id(id))).flatten();
    let made = || {
        let rng = &mut worker.wits().rng;
        Id::new(rng.next_u64(), rng.next_u64())
    };
    let id = accepted.cloned().map_or_else(made, Id::Theirs);
    let config = &sight.snapshot.topology.config;
    let trusted = config.listeners.get(client.listener.index()).map_or(&[][..], |listener| &listener.trusted);
    let from = client.peer.client(&head.headers, trusted);
    let mut entry = Entry::new(client, sight, id, from, worker.now());
    entry.marks = Marks::of(&head.headers);
    worker.meters.asked(head.version);
    let config = &entry.sight.snapshot.topology.config;
    if let Some(rule) = &config.trace {
        let mut trace = Trace::begin(rule, client.peer.trusted, &head.headers, &mut worker.wits().rng);
        if rule.export.is_some() {
            trace.record(&head.headers, || SystemClock.wall(), entry.began);
        }
        entry.trace = Some(Box::new(trace));
    }
    if config.log.access.is_some() || entry.trace.as_ref().is_some_and(|trace| trace.is_recorded()) {
        entry.line = Some(Told::new(head, worker.wits().rng.next_u64()));
    }
    entry
}

/// Letters, digits and the marks of UUIDs, trace ids and addresses: nothing that a log or JSON would have to escape.
fn is_valid_id(id: &HeaderValue) -> bool {
    let is_fine = |&b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b);
    (1..=ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_fine)
}

/// Finds the route. What comes back otherwise is where the whole listener sends its clients.
fn route(entry: &mut Entry, head: &mut Parts) -> Result<Option<Box<Response<Out>>>, Reason> {
    if head.method == Method::CONNECT {
        entry.allow = Some(HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        return Err(Reason::Method);
    }
    if entry.marks.has(Marks::VIA) && forwarded::hops(&head.headers) >= HOPS {
        return Err(Reason::Loop);
    }
    let normal = match path::normalise(head.uri.path()) {
        Ok(std::borrow::Cow::Owned(normal)) => Some(normal),
        Ok(std::borrow::Cow::Borrowed(_)) => None,
        Err(_) => return Err(Reason::BadRequest),
    };
    let is_ascii = |query: &str| query.bytes().all(|b| b.is_ascii_graphic());
    let is_http = |scheme: &str| matches!(scheme, "http" | "https");
    // HTTP/1 was read that strictly already.
    if head.version > Version::HTTP_11
        && !(head.uri.query().is_none_or(is_ascii) && head.uri.scheme_str().is_none_or(is_http))
    {
        return Err(Reason::BadRequest);
    }
    // `http://host?query` and, over HTTP/2, `?query` have a path that is not written.
    let is_bare = || head.uri.path_and_query().is_some_and(|target| !target.as_str().starts_with('/'));
    if let Some(normal) = normal.or_else(|| is_bare().then(|| "/".to_owned())) {
        set_path(head, &normal)?;
    }
    if let Some(detour) = entry.sight.view.detour(entry.client.listener)
        && let Some(elsewhere) = change::send_away(detour, head, &entry.client.peer)?
    {
        return Ok(Some(elsewhere));
    }
    let host = host::of(&head.uri, &head.headers, head.version).map_err(|_| Reason::BadRequest)?;
    let ask = Ask {
        host: host.said,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        method: &head.method,
        headers: &head.headers,
    };
    let Some(found) = entry.sight.view.routes.find(&ask) else {
        let methods = entry.sight.view.routes.methods_allowed(&ask);
        if methods.is_empty() {
            return Err(Reason::NoRoute);
        }
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        entry.allow = methods.join(", ").parse().ok();
        return Err(Reason::Method);
    };
    entry.route = Some(found.route);
    entry.sight.route(found.route).iter().for_each(|kit| kit.in_flight.up());
    if let Some(told) = &mut entry.line {
        let route = entry.sight.snapshot.topology.config.routes.get(found.route.index());
        told.user = route.and_then(|route| user::identify(&route.user, head.uri.path(), &head.headers, entry.from));
    }
    // Asked of the connection and never of a field: whatever host a request names, this is who sends it.
    if let Some(requires) = entry.sight.view.way(found.route).and_then(|way| way.requires.as_ref()) {
        let shown = entry.client.peer.certificate.as_ref();
        if !requirement::is_met(requires, shown.map(|shown| &shown.holder)) {
            return Err(Reason::Certificate);
        }
    }
    Ok(None)
}

/// Replaces the path and keeps the query.
pub(super) fn set_path(head: &mut Parts, path: &str) -> Result<(), Reason> {
    let joined = match head.uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(joined.map_err(|_| Reason::BadRequest)?);
    head.uri = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

async fn filter(entry: &mut Entry, head: &mut Parts, inbound: Inbound) -> Result<Response<Out>, Reason> {
    let (nothing, ()) = Request::new(()).into_parts();
    let mut head = std::mem::replace(head, nothing);
    let stages = Arc::clone(&entry.client.worker.stages);
    head.headers.insert(X_REQUEST_ID, entry.id.value());
    head.extensions.insert(Caller::of(entry));
    let response = chain(&stages.filters, entry).run(Request::from_parts(head, inbound.into_body())).await;
    Ok(response.map(Out::boxed))
}

/// The way through `filters` to the last stage. Filters see friendly replies, not reasons.
fn chain<'a>(filters: &'a [Arc<dyn Stage>], entry: &'a mut Entry) -> Next<'a> {
    match filters.split_first() {
        Some((first, rest)) => Next::new(move |request| first.handle(request, chain(rest, entry))),
        None => Next::new(move |request| {
            Box::pin(async move {
                let (mut head, body) = request.into_parts();
                let taste = Taste::of(&head.headers);
                entry.marks = Marks::of(&head.headers);
                let (sight, worker) = (Arc::clone(&entry.sight), Arc::clone(&entry.client.worker));
                let response = match act(entry, &sight, &head) {
                    Ok(Act::Forward(route, to)) => {
                        forward::forward(&worker, &sight, entry, &mut head, Inbound::Boxed(body), route, to).await
                    }
                    Ok(Act::Answer(answer)) => Ok(answer.response()),
                    Ok(Act::Away(elsewhere)) => Ok(*elsewhere),
                    Ok(Act::Show(shelf)) => Box::pin(files::serve(shelf, entry, &head)).await,
                    Err(reason) => Err(reason),
                };
                response.unwrap_or_else(|reason| turn_away(entry, reason, taste)).map(Out::into_body)
            })
        }),
    }
}

/// What a route does with a request.
enum Act<'s> {
    Forward(&'s Route, ServiceId),
    Answer(&'s Answer),
    Away(Box<Response<Out>>),
    Show(&'s Arc<Shelf>),
}

fn act<'s>(entry: &Entry, sight: &'s Sight, head: &Parts) -> Result<Act<'s>, Reason> {
    let id = entry.route.ok_or(Reason::NoRoute)?;
    let route = sight.snapshot.topology.config.routes.get(id.index()).ok_or(Reason::NoRoute)?;
    match route.action {
        Action::Forward(service) => Ok(Act::Forward(route, service)),
        Action::Split(_) => Ok(Act::Forward(route, side(entry, sight, head, route)?)),
        Action::Redirect(_) => {
            let detour = sight.view.way(id).and_then(|way| way.detour.as_ref()).ok_or(Reason::Internal)?;
            change::send_away(detour, head, &entry.client.peer)?.map(Act::Away).ok_or(Reason::Loop)
        }
        Action::Files(_) => {
            sight.view.way(id).and_then(|way| way.shelf.as_ref()).map(Act::Show).ok_or(Reason::Internal)
        }
        Action::Respond { .. } => {
            sight.route(id).and_then(|kit| kit.answer.as_ref()).map(Act::Answer).ok_or(Reason::Internal)
        }
    }
}

/// The service that has this request, of those that share the route's.
fn side(entry: &Entry, sight: &Sight, head: &Parts, route: &Route) -> Result<ServiceId, Reason> {
    let id = entry.route.ok_or(Reason::NoRoute)?;
    let sides = sight.view.way(id).and_then(|way| way.sides.as_ref()).ok_or(Reason::Internal)?;
    let user = user::identify(&route.user, head.uri.path(), &head.headers, entry.from);
    let choice = sides.choose(&head.headers, entry.from, user, &mut entry.client.worker.wits().rng);
    let choice = choice.ok_or(Reason::NoBackend)?;
    if let Some(kit) = sight.route(id) {
        kit.shared(&choice);
    }
    Ok(choice.service)
}

fn finish(mut entry: Entry, mut response: Response<Out>, was_connect: bool) -> Response<Out> {
    entry.status = match response.status() {
        // What the client is told of a tunnel that it asked for by CONNECT.
        StatusCode::SWITCHING_PROTOCOLS if was_connect => StatusCode::OK.as_u16(),
        status => status.as_u16(),
    };
    if let Some(alt_svc) = entry.client.way.and_then(|way| entry.sight.alt_svc(way)) {
        response.headers_mut().insert(ALT_SVC, alt_svc.clone());
    }
    if let Out::Whole(Some(bytes)) = response.body() {
        entry.passed(bytes.len());
    }
    if let Some(entry) = response.body_mut().watch(entry) {
        entry.end_as_seen();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_only_harmless_ones_are_accepted() {
        assert_eq!(Id::new(0x0123_4567_89ab_cdef, 0xf).as_str(), "0123456789abcdef000000000000000f");
        for good in ["a", "4bf92f3577b34da6a3ce929d0e0e4736", "01J9-x_y.z:1/2+3=@"] {
            assert!(is_valid_id(&HeaderValue::from_static(good)), "{good}");
        }
        for bad in ["", "a b", "a\"b", "a\\b", "<a>", "{}"] {
            assert!(!is_valid_id(&HeaderValue::from_static(bad)), "{bad}");
        }
        assert!(!is_valid_id(&HeaderValue::from_str(&"a".repeat(ID_BYTES + 1)).unwrap()));
    }
}
