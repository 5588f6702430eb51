//! A request's place in a trace: it continues its client's or begins one, and is the parent of what backends do for it.

use std::io::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::log::Told;
use crate::base::clock::{Mono, Wall};
use crate::base::entropy::Rng;
use crate::base::ids::BackendId;
use crate::config::{self, Follow, Protocol};
use crate::observe::access::Access;
use crate::observe::span::{self, Attempt, Place};
use crate::snapshot::Topology;
use crate::snapshot::load::Outcome;
use crate::wire::trace_context::{Parent, may_pass};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// One request's.
#[derive(Debug)]
pub(super) struct Trace {
    /// What its backends are told: they were asked by this request.
    own: Parent,
    /// The span that asked, where it is a part of its client's trace.
    parent: Option<u64>,
    /// Only where it is exported.
    record: Option<Record>,
}

/// What is kept of a request whose spans are exported.
#[derive(Debug)]
struct Record {
    /// When it began, by both clocks: all spans of a request are told by one look at the wall clock.
    wall: Wall,
    mono: Mono,
    /// The `tracestate` that came with it.
    state: Option<HeaderValue>,
}

impl Record {
    /// `at` in nanoseconds of Unix time.
    fn unix(&self, at: Mono) -> u64 {
        self.wall.0.saturating_mul(1_000_000).saturating_add(at.nanos().saturating_sub(self.mono.nanos()))
    }
}

impl Trace {
    /// Of a request with `headers`, from a client that is trusted or not.
    pub(super) fn begin(rule: &config::Trace, is_trusted: bool, headers: &HeaderMap, rng: &mut Rng) -> Self {
        let span = rng.next_u64().max(1);
        let told = (is_trusted || rule.follow == Follow::All).then(|| parent(headers)).flatten();
        if let Some(parent) = told {
            return Self { own: Parent { span, ..parent }, parent: Some(parent.span), record: None };
        }
        let trace = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64().max(1));
        Self { own: Parent { trace, span, is_sampled: rng.chance(rule.sample) }, parent: None, record: None }
    }

    /// Has its spans be exported, if it is one of those that are recorded. It began at `wall`, which is `mono`.
    pub(super) fn record(&mut self, headers: &HeaderMap, wall: impl FnOnce() -> Wall, mono: Mono) {
        if self.own.is_sampled {
            let state = self.parent.and_then(|_| headers.get(TRACESTATE)).filter(|_| may_go_on(headers)).cloned();
            self.record = Some(Record { wall: wall(), mono, state });
        }
    }

    /// Whether its spans are exported.
    pub(super) const fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Tells a backend with `headers` who asks.
    pub(super) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.own.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        if self.parent.is_none() || !may_go_on(headers) {
            headers.remove(TRACESTATE);
        }
    }

    /// Takes back what was told of this request: each of its tries has a span of its own, and tells that.
    pub(super) fn leave_to_tries(headers: &mut HeaderMap) {
        headers.remove(TRACEPARENT);
    }

    /// What a backend is told that is asked by the try with this span.
    fn of_try(&self, span: u64) -> Parent {
        Parent { span, ..self.own }
    }

    /// The same, as a line of a head.
    pub(super) fn tell(&self, span: u64, out: &mut Vec<u8>) {
        // Into memory: this cannot fail.
        let _ = write!(out, "traceparent: {}\r\n", self.of_try(span));
    }

    /// The same, as a field.
    pub(super) fn field(&self, span: u64) -> Option<(HeaderName, HeaderValue)> {
        Some((TRACEPARENT, HeaderValue::try_from(self.of_try(span).to_string()).ok()?))
    }

    /// Trace and span, for the log.
    pub(super) fn id(&self) -> String {
        format!("{:032x}-{:016x}", self.own.trace, self.own.span)
    }

    /// Writes the request's span, if it is exported.
    pub(super) fn write(&self, access: &Access<'_>, is_failed: bool, took: Duration, out: &mut Vec<u8>) {
        let Some(record) = &self.record else { return };
        let place = Place {
            trace: self.own.trace,
            id: self.own.span,
            parent: self.parent,
            state: record.state.as_ref().map(HeaderValue::as_bytes).unwrap_or_default(),
            began: record.unix(record.mono),
            took,
        };
        span::server(&place, access, is_failed, out);
    }
}

/// What the span of a try will say.
#[derive(Debug)]
pub(super) struct Asking {
    own: Parent,
    /// The request's span.
    parent: u64,
    record: Record,
    method: Method,
    uri: Uri,
    host: String,
    number: u32,
    is_hedge: bool,
    status: Option<StatusCode>,
    connect: Option<Duration>,
}

impl Asking {
    /// Of the try `number` of a request.
    pub(super) fn new(trace: &Trace, told: &Told, id: u64, number: u32, is_hedge: bool) -> Box<Self> {
        let (wall, mono) = trace.record.as_ref().map_or((Wall(0), Mono::ZERO), |r| (r.wall, r.mono));
        let state = trace.record.as_ref().and_then(|r| r.state.clone());
        Box::new(Self {
            own: trace.of_try(id),
            parent: trace.own.span,
            record: Record { wall, mono, state },
            method: told.method.clone(),
            uri: told.uri.clone(),
            host: told.host.clone(),
            number,
            is_hedge,
            status: None,
            connect: None,
        })
    }

    /// Its id.
    pub(super) const fn id(&self) -> u64 {
        self.own.span
    }

    /// The head of an answer is there.
    pub(super) fn answered(&mut self, status: StatusCode, connect: Option<Duration>) {
        (self.status, self.connect) = (Some(status), connect);
    }

    /// Writes it: a try at `backend` that lasted `times`.
    pub(super) fn write(
        &self,
        topology: &Topology,
        backend: BackendId,
        (outcome, was_outrun): (Outcome, bool),
        (began, ended): (Mono, Mono),
        out: &mut Vec<u8>,
    ) {
        let backend = topology.backend(backend);
        let service = topology.service(backend.service);
        let datacenter = topology.config.datacenters.get(backend.spec.datacenter.index());
        let place = Place {
            trace: self.own.trace,
            id: self.own.span,
            parent: Some(self.parent),
            state: self.record.state.as_ref().map(HeaderValue::as_bytes).unwrap_or_default(),
            began: self.record.unix(began),
            took: ended.since(began),
        };
        let attempt = Attempt {
            method: self.method.as_str(),
            path: self.uri.path(),
            host: &self.host,
            is_tls: service.tls.is_some(),
            version: if service.protocol == Protocol::Http2 { "2" } else { "1.1" },
            backend: backend.spec.address,
            service: &service.name,
            datacenter: datacenter.map_or("", |d| d.name.as_str()),
            number: self.number,
            is_hedge: self.is_hedge,
            status: self.status.map(|status| status.as_u16()),
            outcome: if was_outrun { "outrun" } else { outcome.as_str() },
            is_failure: !matches!(outcome, Outcome::Ok | Outcome::Cancelled | Outcome::Pressure),
            connect: self.connect,
        };
        span::client(&place, &attempt, out);
    }
}

/// Whether a `tracestate` among `headers` may go on.
fn may_go_on(headers: &HeaderMap) -> bool {
    may_pass(headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes))
}

/// Who asked, where it is said once.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut said = headers.get_all(TRACEPARENT).iter();
    let (first, second) = (said.next()?, said.next());
    second.is_none().then(|| Parent::parse(first.as_bytes())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn passed(follow: Follow, is_trusted: bool, parents: &[&'static str]) -> (String, Option<String>) {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(TRACEPARENT, HeaderValue::from_static(parent));
        }
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        let rule = config::Trace { sample: 0.0, follow, export: None };
        Trace::begin(&rule, is_trusted, &headers, &mut Rng::seeded(1)).pass_on(&mut headers);
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_owned());
        (text(TRACEPARENT).unwrap(), text(TRACESTATE))
    }

    #[test]
    fn a_trace_goes_on_for_those_who_may_and_begins_anew_for_all_others() {
        for (follow, is_trusted) in [(Follow::All, false), (Follow::Trusted, true)] {
            let (parent, state) = passed(follow, is_trusted, &[THEIRS]);
            assert!(parent.starts_with(&THEIRS[..36]) && parent.ends_with("-01"), "the same trace, recorded: {parent}");
            assert_ne!(parent[36..52], THEIRS[36..52], "another span");
            assert_eq!(state.as_deref(), Some("a=1"));
        }
        for (follow, is_trusted, parents) in [
            (Follow::Trusted, false, &[THEIRS][..]),
            (Follow::All, true, &[THEIRS, THEIRS]),
            (Follow::All, true, &["00-1"]),
            (Follow::All, true, &[]),
        ] {
            let (parent, state) = passed(follow, is_trusted, parents);
            assert!(!parent.starts_with(&THEIRS[..36]) && parent.ends_with("-00"), "{parent}");
            assert_eq!(state, None, "what belongs to a trace that ended here");
        }
    }
}
