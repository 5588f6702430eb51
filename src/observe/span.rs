//! What spans say, in the words of OpenTelemetry's semantic conventions for HTTP (stable since 1.23). Pure: facts in, octets out.
//!
//! A request is a server span; each try at a backend is a client span below it. What the conventions have no word for is
//! `springtide.*`. As in the access log, the query of a target is not told. A failure of a server span is a failure of this
//! side (5xx, or an answer that broke off); what a client got wrong is none.

use std::net::SocketAddr;
use std::time::Duration;

use super::access::Access;
use crate::wire::otlp::{Attributes, Kind, Span};

/// Methods that are named; any other is `_OTHER`, lest clients make up names of spans.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Where a span stands in its trace, and when it was.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The trace.
    pub trace: u128,
    /// Its own id.
    pub id: u64,
    /// Whose it is a part of.
    pub parent: Option<u64>,
    /// The `tracestate` that came with the request.
    pub state: &'a [u8],
    /// When it began, in nanoseconds of Unix time.
    pub began: u64,
    /// How long it took.
    pub took: Duration,
}

impl<'a> Place<'a> {
    fn span(&self, kind: Kind, name: &'a str, is_error: bool) -> Span<'a> {
        let took = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        Span {
            trace: self.trace,
            id: self.id,
            // The parent of a request is its client's; that of a try is our own.
            parent: self.parent.map(|parent| (parent, kind == Kind::Server)),
            state: self.state,
            name,
            kind,
            began: self.began,
            ended: self.began.saturating_add(took),
            is_error,
        }
    }
}

/// Writes the span of a request; `is_failed`: `access.reason` says what kept it from an answer.
pub fn server(place: &Place<'_>, access: &Access<'_>, is_failed: bool, out: &mut Vec<u8>) {
    let (method, is_known) = named(access.method);
    let verb = if is_known { method } else { "HTTP" };
    let name = access.route.map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
    let is_error = access.status >= 500 || (is_failed && access.aborted.is_some_and(|side| side.as_str() != "client"));
    place.span(Kind::Server, &name, is_error).write(out, |add| {
        asked(add, access.method);
        add.text("url.scheme", if access.is_tls { b"https" } else { b"http" });
        add.text("url.path", access.path.as_bytes());
        if let Some(route) = access.route {
            add.text("http.route", route.as_bytes());
        }
        // A client that left before an answer has got none.
        if access.status != 499 {
            add.count("http.response.status_code", u64::from(access.status));
        }
        host(add, access.host);
        add.text("client.address", access.client.to_string().as_bytes());
        add.text("network.protocol.version", version(access.protocol).as_bytes());
        if let Some(agent) = access.agent {
            add.text("user_agent.original", agent);
        }
        if is_failed {
            add.text("error.type", access.reason.as_bytes());
        } else if access.status >= 500 {
            add.text("error.type", access.status.to_string().as_bytes());
        }
        if let Some(tls) = access.tls {
            add.text("tls.protocol.version", tls.version().as_bytes());
        }
        add.count("http.request.body.size", access.received);
        add.count("http.response.body.size", access.sent);
        add.text("springtide.request.id", access.id.as_bytes());
        add.count("springtide.tries", u64::from(access.tries));
        add.flag("springtide.hedged", access.is_hedged);
        let names = [
            ("springtide.service", access.service),
            ("springtide.datacenter", access.datacenter),
            ("springtide.upgrade", access.upgrade),
            ("springtide.aborted", access.aborted.map(super::access::Side::as_str)),
        ];
        for (key, name) in names.into_iter().filter_map(|(key, name)| Some((key, name?))) {
            add.text(key, name.as_bytes());
        }
        if let Some(backend) = access.backend {
            add.text("springtide.backend", backend.to_string().as_bytes());
        }
    });
}

/// One try at a backend.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The request's method.
    pub method: &'a str,
    /// The path that was asked for, without the query.
    pub path: &'a str,
    /// The host that the request named.
    pub host: &'a str,
    /// Whether TLS was spoken.
    pub is_tls: bool,
    /// `1.1` or `2`.
    pub version: &'a str,
    /// Who was asked.
    pub backend: SocketAddr,
    /// Of which service.
    pub service: &'a str,
    /// Where.
    pub datacenter: &'a str,
    /// Which try of the request it was, from 1.
    pub number: u32,
    /// Whether it was made beside another one.
    pub is_hedge: bool,
    /// What was answered.
    pub status: Option<u16>,
    /// How it ended, in the words of `springtide_proxy_upstream_tries_total`.
    pub outcome: &'a str,
    /// Whether that says that something failed.
    pub is_failure: bool,
    /// How long it took to connect, where that had to be done.
    pub connect: Option<Duration>,
}

/// Writes the span of a try.
pub fn client(place: &Place<'_>, attempt: &Attempt<'_>, out: &mut Vec<u8>) {
    let (method, is_known) = named(attempt.method);
    let is_error = attempt.is_failure || attempt.status.is_some_and(|status| status >= 400);
    place.span(Kind::Client, if is_known { method } else { "HTTP" }, is_error).write(out, |add| {
        asked(add, attempt.method);
        let scheme = if attempt.is_tls { "https" } else { "http" };
        add.text("url.full", format!("{scheme}://{}{}", attempt.host, attempt.path).as_bytes());
        add.text("server.address", attempt.backend.ip().to_string().as_bytes());
        add.count("server.port", u64::from(attempt.backend.port()));
        add.text("network.protocol.version", attempt.version.as_bytes());
        if let Some(status) = attempt.status {
            add.count("http.response.status_code", u64::from(status));
        }
        match attempt.status {
            _ if attempt.is_failure => add.text("error.type", attempt.outcome.as_bytes()),
            Some(status) if status >= 400 => add.text("error.type", status.to_string().as_bytes()),
            _ => {}
        }
        if attempt.number > 1 && !attempt.is_hedge {
            add.count("http.request.resend_count", u64::from(attempt.number - 1));
        }
        add.text("springtide.service", attempt.service.as_bytes());
        add.text("springtide.datacenter", attempt.datacenter.as_bytes());
        add.text("springtide.backend", attempt.backend.to_string().as_bytes());
        add.count("springtide.try.number", u64::from(attempt.number));
        add.flag("springtide.try.hedge", attempt.is_hedge);
        add.text("springtide.try.outcome", attempt.outcome.as_bytes());
        if let Some(connect) = attempt.connect {
            add.real("springtide.try.connect_seconds", connect.as_secs_f64());
        }
    });
}

fn named(method: &str) -> (&str, bool) {
    if METHODS.contains(&method) { (method, true) } else { ("_OTHER", false) }
}

fn asked(add: &mut Attributes<'_>, method: &str) {
    let (name, is_known) = named(method);
    add.text("http.request.method", name.as_bytes());
    if !is_known {
        add.text("http.request.method_original", method.as_bytes());
    }
}

/// The host that was asked for, and the port where one was named.
fn host(add: &mut Attributes<'_>, said: &str) {
    let (name, port) = match said.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') && !port.contains(']') => (name, port.parse::<u16>().ok()),
        _ => (said, None),
    };
    if !name.is_empty() {
        add.text("server.address", name.trim_matches(['[', ']']).as_bytes());
    }
    if let Some(port) = port {
        add.count("server.port", u64::from(port));
    }
}

/// `1.1` of `HTTP/1.1`, and `2` of `HTTP/2.0`.
fn version(protocol: &str) -> &str {
    let version = protocol.strip_prefix("HTTP/").unwrap_or(protocol);
    match version {
        "2.0" | "3.0" => version.trim_end_matches(".0"),
        _ => version,
    }
}
