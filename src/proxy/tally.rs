//! Accounts that close themselves: a request and each of its tries are reported exactly once, however they end.
//!
//! [`Try`] is what the health core hears of a backend; [`Entry`] is what operators hear of a request: its metrics and its
//! access line. Both are moved into the body of a response that is streamed, and dropping either is an ending too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::log::{self, Told};
use super::reply::Reason;
use super::serve::Client;
use super::trace::{Asking, Trace};
use super::worker::Sight;
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::base::ids::{BackendId, RouteId};
use crate::observe::access::{Access, Side};
use crate::snapshot::load::Outcome;
use crate::wire::head::Marks;

/// Least latency that a failure counts as (EDGE 3a).
const PENALTY_MIN: Duration = Duration::from_secs(1);
/// Most: beyond it a backend would stay out of favour for minutes.
const PENALTY_MAX: Duration = Duration::from_secs(10);
/// A failure counts as this many times the median of its service.
const PENALTY_FACTOR: f64 = 10.0;

/// nginx's status for a client that left; nobody but the log ever sees it.
const CLIENT_GONE: u16 = 499;

/// One try at one backend.
pub(super) struct Try {
    client: Arc<Client>,
    sight: Arc<Sight>,
    backend: BackendId,
    began: Mono,
    answered: Option<(Outcome, Duration)>,
    /// Octets of bodies: to the backend, and from it.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// What its span will say; only where the request's trace is exported.
    span: Option<Box<Asking>>,
    is_open: bool,
}

impl Try {
    /// Begins, for the request of `entry`: `is_hedge` beside another one.
    pub(super) fn begin(entry: &Entry, sight: &Arc<Sight>, backend: BackendId, is_hedge: bool, now: Mono) -> Self {
        sight.snapshot.topology.backend(backend).load.begin();
        let (client, sight) = (Arc::clone(&entry.client), Arc::clone(sight));
        let span = entry.recorded().map(|(trace, told)| {
            let id = client.worker.wits().rng.next_u64().max(1);
            Asking::new(trace, told, id, entry.tries + u32::from(is_hedge), is_hedge)
        });
        Self { client, sight, backend, began: now, answered: None, sent: 0, received: 0, span, is_open: true }
    }

    /// The id of its span; 0 where it has none.
    pub(super) fn span(&self) -> u64 {
        self.span.as_ref().map_or(0, |span| span.id())
    }

    /// The head of the response is there with this status, and says `outcome`. From here on the try is under way still, but
    /// its latency is known: how long a body takes depends on its length and on the client. To connect took `connect`, where
    /// it was done; so far `sent` octets of a body were sent.
    pub(super) fn answered(
        &mut self,
        status: StatusCode,
        connect: Option<Duration>,
        outcome: Outcome,
        sent: u64,
        now: Mono,
    ) {
        self.answered = Some((outcome, now.since(self.began)));
        self.sent = sent;
        if let Some(span) = &mut self.span {
            span.answered(status, connect);
        }
    }

    /// Ends as the head of the response said.
    pub(super) fn end(mut self, now: Mono) {
        let (outcome, took) = self.answered.unwrap_or((Outcome::Cancelled, Duration::ZERO));
        self.report(outcome, took, now);
    }

    /// Is given up because another try was faster.
    pub(super) fn outrun(mut self, now: Mono) {
        self.is_open = false;
        let backend = self.sight.snapshot.topology.backend(self.backend);
        backend.load.outrun(now.since(self.began), now);
        self.sight.kit(backend.service).tried(Outcome::Cancelled);
        self.sight.pool(self.backend).toll.ended(Outcome::Cancelled, Duration::ZERO, self.sent, self.received);
        self.tell(Outcome::Cancelled, true, now);
    }

    /// Ends as a failure, before or after the head.
    pub(super) fn fail(mut self, outcome: Outcome, now: Mono) {
        let took = now.since(self.began);
        self.report(outcome, took, now);
    }

    fn report(&mut self, outcome: Outcome, took: Duration, now: Mono) {
        self.is_open = false;
        let backend = self.sight.snapshot.topology.backend(self.backend);
        let penalty = if outcome == Outcome::Ok { PENALTY_MIN } else { self.penalty(now) };
        backend.load.end(outcome, took, penalty, now);
        let kit = self.sight.kit(backend.service);
        kit.tried(outcome);
        if let Some((_, head)) = self.answered {
            kit.latency.note(head);
        }
        self.sight.pool(self.backend).toll.ended(outcome, took, self.sent, self.received);
        if matches!(outcome, Outcome::Refused | Outcome::Reset | Outcome::Timeout) {
            self.client.worker.published.alarm().ring();
        }
        self.tell(outcome, false, now);
    }

    /// Tells its span, where it has one.
    fn tell(&mut self, outcome: Outcome, was_outrun: bool, now: Mono) {
        let Some(span) = self.span.take() else { return };
        let topology = &self.sight.snapshot.topology;
        self.client
            .worker
            .spans
            .add(|out| span.write(topology, self.backend, (outcome, was_outrun), (self.began, now), out));
    }

    /// What a failure counts as. Against the median, not the backend's own average: that would grow tenfold with each one.
    fn penalty(&self, now: Mono) -> Duration {
        let topology = &self.sight.snapshot.topology;
        let service = topology.backend(self.backend).service;
        let mut latencies: Vec<f64> =
            topology.members_anywhere(service).map(|id| topology.backend(id).load.latency_ns(now)).collect();
        latencies.sort_by(f64::total_cmp);
        let median = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
        Duration::from_nanos((median * PENALTY_FACTOR) as u64).clamp(PENALTY_MIN, PENALTY_MAX)
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if self.is_open {
            // Nobody waits for it any more. What its head said still holds; without a head it says nothing.
            let (outcome, took) = self.answered.unwrap_or((Outcome::Cancelled, Duration::ZERO));
            let now = self.client.worker.now();
            self.report(outcome, took, now);
        }
    }
}

/// A request's id, in logs here and at backends.
pub(super) enum Id {
    /// Made here: 128 random bits in hexadecimal.
    Ours([u8; 32]),
    /// Taken over from a trusted peer.
    Theirs(HeaderValue),
}

impl Id {
    /// Of these bits.
    pub(super) fn new(high: u64, low: u64) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bits = (u128::from(high) << 64) | u128::from(low);
        Self::Ours(std::array::from_fn(|i| HEX[(bits >> (124 - 4 * i)) as usize & 15]))
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        let octets = match self {
            Self::Ours(digits) => &digits[..],
            Self::Theirs(value) => value.as_bytes(),
        };
        std::str::from_utf8(octets).unwrap_or_default()
    }

    /// As a field.
    pub(super) fn value(&self) -> HeaderValue {
        match self {
            Self::Ours(digits) => HeaderValue::from_bytes(digits).unwrap_or(HeaderValue::from_static("-")),
            Self::Theirs(value) => value.clone(),
        }
    }
}

/// One request.
pub(super) struct Entry {
    pub(super) client: Arc<Client>,
    pub(super) sight: Arc<Sight>,
    /// When its head was read.
    pub(super) began: Mono,
    /// When it was last heard of.
    pub(super) seen: Mono,
    pub(super) id: Id,
    /// What its head has.
    pub(super) marks: Marks,
    /// Whom it came from.
    pub(super) from: IpAddr,
    pub(super) route: Option<RouteId>,
    pub(super) status: u16,
    pub(super) reason: Option<Reason>,
    /// The last backend asked.
    pub(super) backend: Option<BackendId>,
    pub(super) tries: u32,
    /// Octets of bodies: from the client that were read, and to it that were passed on.
    pub(super) received: u64,
    sent: u64,
    /// What the access line says of its head; kept only where somebody listens.
    pub(super) line: Option<Box<Told>>,
    /// Where it stands in a trace; only where requests are traced.
    pub(super) trace: Option<Box<Trace>>,
    /// A body that nobody has read stands between this request and the next one on its connection.
    pub(super) has_unread_body: bool,
    /// What a 405 has to say in `Allow`.
    pub(super) allow: Option<HeaderValue>,
    is_open: bool,
}

impl Entry {
    /// Begins.
    pub(super) fn new(client: &Arc<Client>, sight: Arc<Sight>, id: Id, from: IpAddr, now: Mono) -> Self {
        client.pulse.begin();
        Self {
            client: Arc::clone(client),
            sight,
            began: now,
            seen: now,
            id,
            marks: Marks::default(),
            from,
            route: None,
            status: 0,
            reason: None,
            backend: None,
            tries: 0,
            received: 0,
            sent: 0,
            line: None,
            trace: None,
            has_unread_body: false,
            allow: None,
            is_open: true,
        }
    }

    /// Its id as text.
    pub(super) fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Its response is whole, and was when it was last heard of.
    pub(super) fn end_as_seen(self) {
        let seen = self.seen;
        self.end(seen);
    }

    /// Its response has gone out, or as much of it as there will be.
    pub(super) fn end(mut self, now: Mono) {
        self.report(now);
    }

    fn report(&mut self, now: Mono) {
        self.is_open = false;
        self.client.pulse.end();
        let took = now.since(self.began);
        let status = if self.reason == Some(Reason::ClientGone) { CLIENT_GONE } else { self.status };
        match self.route.and_then(|route| self.sight.route(route)) {
            Some(meters) => meters.ended(status, self.reason, (self.received, self.sent), took),
            None => self.client.worker.meters.ended(self.reason),
        }
        if let Some(told) = &self.line {
            self.tell(told, status, took);
        }
    }

    /// Where its trace is exported: that, and what is told of its head.
    pub(super) fn recorded(&self) -> Option<(&Trace, &Told)> {
        self.trace.as_deref().filter(|trace| trace.is_recorded()).zip(self.line.as_deref())
    }

    /// Writes its line and its span, as far as they are wanted.
    fn tell(&self, told: &Told, status: u16, took: Duration) {
        let log = self.sight.snapshot.topology.config.log.access.as_ref();
        let share = log.and_then(|log| {
            let is_worth_it = self.tries > 1
                || took >= log.slow
                || matches!(status, 429 | CLIENT_GONE..)
                || (self.reason.is_some() && status < 400);
            Some((log, told.share(log, is_worth_it)?))
        });
        let recorded = self.recorded();
        if share.is_none() && recorded.is_none() {
            return;
        }
        let trace = self.trace.as_ref().map(|trace| trace.id());
        let access = self.access(told, status, took, trace.as_deref());
        if let Some((log, sample)) = share {
            let access = Access { sample, ..access };
            self.client.worker.sheet.add(|out| log::write(&access, log.format, out));
        }
        if let Some((trace, _)) = recorded {
            self.client.worker.spans.add(|out| trace.write(&access, self.reason.is_some(), took, out));
        }
    }

    fn access<'a>(&'a self, told: &'a Told, status: u16, took: Duration, trace: Option<&'a str>) -> Access<'a> {
        let topology = &self.sight.snapshot.topology;
        let config = &topology.config;
        let backend = self.backend.map(|id| topology.backend(id));
        let own = if backend.is_some() { "answered" } else { "local" };
        let mut access = Access {
            at: SystemClock.wall(),
            id: self.id(),
            trace,
            client: self.from,
            method: "-",
            host: "",
            path: "",
            protocol: "",
            upgrade: None,
            is_tls: self.client.peer.tls,
            tls: self.client.tls,
            status,
            reason: self.reason.map_or(own, Reason::as_str),
            received: self.received,
            sent: self.sent,
            route: self.route.and_then(|id| config.routes.get(id.index())).map(|r| r.name.as_str()),
            service: backend.map(|b| topology.service(b.service).name.as_str()),
            datacenter: backend
                .and_then(|b| config.datacenters.get(b.spec.datacenter.index()))
                .map(|d| d.name.as_str()),
            backend: backend.map(|b| b.spec.address),
            tries: self.tries,
            is_hedged: false,
            user: None,
            queue: told.asked.map(|at| at.since(self.began)),
            connect: None,
            first_byte: told.first_byte.map(|at| at.since(self.began)),
            took,
            aborted: self.aborted(),
            referer: None,
            agent: None,
            sample: 1.0,
        };
        told.fill(&mut access);
        access
    }

    /// Who broke off a body that was under way, by the reason alone.
    fn aborted(&self) -> Option<Side> {
        match self.reason? {
            // Who is cut did not leave.
            Reason::ClientGone if self.client.worker.open.is_over() => Some(Side::Edge),
            Reason::ClientGone | Reason::BodyStalled => Some(Side::Client),
            Reason::Truncated => Some(Side::Backend),
            _ => None,
        }
    }

    /// A backend is asked.
    pub(super) fn asks(&mut self, backend: BackendId, now: Mono) {
        self.tries += 1;
        self.backend = Some(backend);
        if let Some(told) = &mut self.line {
            (told.asked, told.connect) = (Some(now), None);
        }
    }

    /// Whether a second backend was asked beside the last one, and which of the two it is whose answer counts.
    pub(super) fn hedged(&mut self, was_hedged: bool, backend: BackendId) {
        self.tries += u32::from(was_hedged);
        self.backend = Some(backend);
        if let Some(told) = &mut self.line {
            told.is_hedged |= was_hedged;
        }
    }

    /// The head of a backend's answer is there; to connect took so long, where it was done.
    pub(super) fn answered(&mut self, connect: Option<Duration>, now: Mono) {
        self.seen = now;
        if let Some(told) = &mut self.line {
            (told.first_byte, told.connect) = (Some(now), connect);
        }
    }

    /// It was the client that broke off, whatever came of it.
    pub(super) fn blame_client(&mut self) {
        if let Some(told) = &mut self.line {
            told.aborted = Some(Side::Client);
        }
    }

    /// `octets` of the response's body are passed on.
    pub(super) fn passed(&mut self, octets: usize) {
        self.sent += octets as u64;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.is_open {
            self.reason.get_or_insert(Reason::ClientGone);
            let now = self.client.worker.now();
            self.report(now);
        }
    }
}
