//! What a route changes on the way: paths and hosts towards backends, headers both ways, and where clients are sent instead.
//!
//! Compiled with the view of a topology; a request of a route that changes nothing looks at one `None`. Edits come after
//! what belongs to a hop has been removed and written, so that nothing a client sends can undo them.

use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::download::Out;
use super::reply::Reason;
use super::stages::set_path;
use crate::config::{HeaderEdits, Listener, Redirect, Route, RouteMatch, Scheme};
use crate::decide::route::change::{Detour, NewPath, Place};
use crate::wire::forwarded::{Peer, X_FORWARDED_PROTO};
use crate::wire::host;

/// What a route changes.
#[derive(Debug)]
pub(super) struct Change {
    path: Option<NewPath>,
    host: Option<HeaderValue>,
    request: Edits,
    response: Edits,
}

/// Headers to change, in this order.
#[derive(Debug)]
struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Change {
    /// What `route` changes; `None`: nothing.
    pub(super) fn of(route: &Route) -> Option<Box<Self>> {
        let rewrite = &route.rewrite;
        let is_idle = rewrite.path.is_none()
            && rewrite.host.is_none()
            && route.request_headers.is_empty()
            && route.response_headers.is_empty();
        (!is_idle).then(|| {
            Box::new(Self {
                path: rewrite.path.as_ref().map(|path| NewPath::of(path, &route.matches)),
                host: rewrite.host.as_ref().and_then(|host| host.parse().ok()),
                request: Edits::of(&route.request_headers),
                response: Edits::of(&route.response_headers),
            })
        })
    }

    /// Makes of a request what backends see.
    ///
    /// # Errors
    /// The new path is longer than any server takes.
    pub(super) fn of_request(&self, head: &mut Parts) -> Result<(), Reason> {
        if let Some(path) = self.path.as_ref().and_then(|path| path.apply(head.uri.path())) {
            set_path(head, &path).map_err(|_| Reason::TargetTooLong)?;
        }
        if let Some(host) = &self.host {
            head.headers.insert(HOST, host.clone());
        }
        self.request.apply(&mut head.headers);
        Ok(())
    }

    /// Whether it says what the host is.
    pub(super) const fn names_host(&self) -> bool {
        self.host.is_some()
    }

    /// Makes of a response's headers what clients see.
    pub(super) fn of_response(&self, headers: &mut HeaderMap) {
        self.response.apply(headers);
    }
}

impl Edits {
    /// The configuration's check lets nothing through that is no header.
    fn of(said: &HeaderEdits) -> Self {
        let pairs = |list: &[(String, String)]| {
            list.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
        };
        Self {
            remove: said.remove.iter().filter_map(|name| name.parse().ok()).collect(),
            set: pairs(&said.set),
            add: pairs(&said.add),
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Where a route, or a listener, sends its clients.
pub(super) fn detour(redirect: &Redirect, of: &RouteMatch) -> Box<Detour> {
    Box::new(Detour::of(redirect, of))
}

/// Where a listener sends everybody.
pub(super) fn detour_of(listener: &Listener) -> Option<Box<Detour>> {
    listener.redirect.as_ref().map(|redirect| detour(redirect, &RouteMatch::default()))
}

/// Sends a client elsewhere. `None`: it is there already.
///
/// # Errors
/// The host cannot be read, or is wanted and not there.
pub(super) fn send_away(detour: &Detour, head: &Parts, peer: &Peer) -> Result<Option<Box<Response<Out>>>, Reason> {
    let host = host::of(&head.uri, &head.headers, head.version).map_err(|_| Reason::BadRequest)?;
    let asked = Place {
        scheme: scheme(&head.headers, peer),
        host: host.name,
        port: host.port,
        path: head.uri.path(),
        query: head.uri.query(),
    };
    let Some(location) = detour.location(&asked) else { return Ok(None) };
    let mut response = Response::new(Out::full(bytes::Bytes::new()));
    // The configuration's check lets nothing else through.
    *response.status_mut() = StatusCode::from_u16(detour.status()).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
    let location = HeaderValue::try_from(location).map_err(|_| Reason::BadRequest)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(Some(Box::new(response)))
}

/// What the client speaks: with us, or with who stands before us and is believed.
pub(super) fn scheme(headers: &HeaderMap, peer: &Peer) -> Scheme {
    let said = headers.get(X_FORWARDED_PROTO).filter(|_| peer.trusted);
    let said = said.map_or(peer.scheme().as_bytes(), HeaderValue::as_bytes);
    if said.eq_ignore_ascii_case(b"https") { Scheme::Https } else { Scheme::Http }
}
