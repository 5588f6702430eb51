//! Forwarding: a backend is chosen, asked, and if that fails, perhaps another one.
//!
//! All that is decided is decided in `decide`: where to go, how long to wait, whether to try again. Here it is done, and
//! its end is counted, exactly once a try. The deadline runs from the head of a request to the head of its response; a
//! body that is still on its way to the backend stops the clock as long as it moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use super::Caller;
use super::counted::Counted;
use super::download::{self, Line, Out};
use super::h1::tunnel::{self, Theirs};
use super::h2::connect;
use super::limit::Retrying;
use super::pool::h1::{Ask, Failure as LineFailure};
use super::pool::h2::Purpose;
use super::pool::{NoLine, Pool};
use super::reply::Reason;
use super::session;
use super::stages::X_REQUEST_ID;
use super::tally::{Entry, Try};
use super::trace::Trace;
use super::upload::{Inbound, Progress, STALL, Source, Upload};
use super::worker::{Sight, Worker};
use crate::base::clock::Mono;
use crate::base::ids::{BackendId, DatacenterId, ServiceId};
use crate::config::{Balance, HomeDown, Protocol, Route, Service};
use crate::decide::balance::{self, NoChoice, Wanted, user};
use crate::decide::deadline::{self, By, Deadline};
use crate::decide::retry::{self, Case, Failure};
use crate::decide::tried::Tried;
use crate::net::stage::{Next, Stage};
use crate::snapshot::load::Outcome;
use crate::snapshot::topology::Backend;
use crate::wire::h1::write;
use crate::wire::head::{self, Marks, Upgrade, Way};
use crate::wire::{forwarded, host};

mod hedge;

/// How long connecting may take, TLS and all, within this node's datacenter and to another one (EDGE 3h has 100 ms and
/// 500 ms for TCP alone; below 1 s each means that the first SYN has to be answered).
const CONNECT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(750));

/// Who asks, where `spec` goes by that.
fn user_for(spec: &Service, route: &Route, entry: &Entry, head: &Parts) -> Option<u64> {
    let is_by_user = matches!(spec.balance, Balance::UserHash | Balance::Maglev | Balance::UserHome);
    is_by_user.then(|| user::identify_for(spec, &route.user, head.uri.path(), &head.headers, entry.from)).flatten()
}

/// Forwards a request to `service`.
///
/// # Errors
/// The reason why no backend has answered.
pub(super) async fn forward(
    worker: &Arc<Worker>,
    sight: &Arc<Sight>,
    entry: &mut Entry,
    head: &mut Parts,
    inbound: Inbound,
    route: &Route,
    service: ServiceId,
) -> Result<Response<Out>, Reason> {
    let spec = sight.snapshot.topology.service(service);
    let deadline = time_for(route, spec, entry, head);
    let user = user_for(spec, route, entry, head);
    let seat = spec.session.as_ref().and_then(|session| session::read(session, &head.headers));
    let is_repeatable = retry::is_repeatable(&head.method, &head.headers, route.retry_keyed);
    let is_upgrading = asks_to_upgrade(entry, head)?;
    let upstream = sight.kit(service).upstream.as_ref();
    let way = entry.route.and_then(|route| sight.view.way(route)).filter(|way| way.needs_fields());
    let may_write = upstream.is_none() && way.is_none() && !entry.client.peer.trusted;
    let may_write = may_write && spec.protocol == Protocol::Http1;
    let hop = if may_write { Hop::Written(head.version) } else { Hop::InFields };
    let mut is_nameless = rewrite(head, entry, is_upgrading, hop)?;
    if let Some(change) = way.and_then(|way| way.change.as_ref()) {
        change.of_request(head)?;
        is_nameless &= !change.names_host();
    }
    if let Some(upstream) = upstream {
        return Box::pin(within(&**upstream, entry, head, inbound, route.max_body, deadline.budget)).await;
    }
    let (source, began) = if inbound.is_end_stream() {
        (Source::Empty, entry.began)
    } else {
        (Box::pin(Source::of(inbound, route.max_body, &mut entry.received)).await?, worker.now())
    };
    if let Some(mirror) = way.and_then(|way| way.mirror.as_ref()).filter(|_| !is_upgrading) {
        mirror.copy(worker, sight, head, &source);
    }
    let until = began + deadline.budget;
    // Whom a nameless request asks, it names.
    let is_hedged = !is_nameless && hedge::may(route, spec, &head.method, &source, is_upgrading);
    let mut errand = Errand {
        worker,
        sight,
        service,
        head,
        hop,
        is_nameless,
        source,
        deadline,
        until,
        is_repeatable,
        is_upgrading,
        is_hedged,
        seat,
        retrying: None,
    };
    let answered = errand.run(entry, user, began).await;
    entry.has_unread_body = errand.source.progress() != Progress::Sent;
    entry.received = errand.source.taken();
    answered
}

/// Whether the request asks for WebSocket. A server may go on as if it had not been asked (RFC 9110 section 7.8), as we do with
/// everything else.
///
/// # Errors
/// CONNECT has asked for it in a way that is none, and is not to be answered like a GET.
fn asks_to_upgrade(entry: &Entry, head: &Parts) -> Result<bool, Reason> {
    let was_connect = connect::was_connect(&head.extensions);
    let version = if was_connect { Version::HTTP_11 } else { head.version };
    let asks = entry.marks.has(Marks::UPGRADE)
        && head::upgrade(&head.method, version, &head.headers) == Some(Upgrade::WebSocket);
    if was_connect && !asks { Err(Reason::Upgrade) } else { Ok(asks) }
}

/// How long the request may take. Its fields are looked at only where one of them says so.
fn time_for(route: &Route, service: &Service, entry: &Entry, head: &Parts) -> Deadline {
    let asks_for_time = entry.marks.has(Marks::DEADLINE) || entry.marks.has(Marks::GRPC_TIMEOUT);
    let asked = if asks_for_time { &head.headers } else { &HeaderMap::new() };
    deadline::deadline(route.deadline, service.deadline, asked)
}

/// The address of `backend` as a host.
pub(super) fn address_of(backend: &Backend) -> HeaderValue {
    HeaderValue::try_from(backend.spec.address.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// How the backend is told of this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hop {
    /// By fields among the others.
    InFields,
    /// By lines that are written behind them, for a client of this version.
    Written(Version),
}

/// Makes a client's head ours: without what belonged to its hop, with what belongs to this one. Whether it names no host, as
/// HTTP/1.0 may.
fn rewrite(head: &mut Parts, entry: &Entry, is_upgrading: bool, hop: Hop) -> Result<bool, Reason> {
    let (peer, mut is_nameless) = (&entry.client.peer, false);
    if head.version > Version::HTTP_11 {
        head::join_cookies(&mut head.headers);
    }
    head::strip(&mut head.headers, Way::Request { trusted: peer.trusted }, is_upgrading);
    if hop == Hop::InFields || head.uri.authority().is_some() || !head.headers.contains_key(HOST) {
        let said = host::of(&head.uri, &head.headers, head.version).map_err(|_| Reason::BadRequest)?.said.to_owned();
        is_nameless = said.is_empty();
        if !is_nameless {
            let host = HeaderValue::from_str(&said).map_err(|_| Reason::BadRequest)?;
            head.headers.insert(HOST, host);
        }
        if head.uri.authority().is_some() {
            let path = head.uri.path_and_query().cloned();
            head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        }
        if hop == Hop::InFields {
            forwarded::stamp(&mut head.headers, peer, &said, head.version);
        }
    }
    if let Some(trace) = &entry.trace {
        trace.pass_on(&mut head.headers);
    }
    match hop {
        Hop::InFields => drop(head.headers.insert(X_REQUEST_ID, entry.id.value())),
        Hop::Written(_) => {
            if entry.marks.has(Marks::REQUEST_ID) {
                head.headers.remove(X_REQUEST_ID);
            }
            if entry.marks.has(Marks::DEADLINE) {
                head.headers.remove(deadline::X_DEADLINE_MS);
            }
        }
    }
    head.version = Version::HTTP_11;
    Ok(is_nameless)
}

/// Lets an upstream in this process answer.
async fn within(
    upstream: &dyn Stage,
    entry: &mut Entry,
    head: &mut Parts,
    inbound: Inbound,
    limit: u64,
    budget: Duration,
) -> Result<Response<Out>, Reason> {
    if inbound.size_hint().lower() > limit {
        return Err(Reason::BodyTooLarge);
    }
    let (nothing, ()) = Request::new(()).into_parts();
    let mut head = std::mem::replace(head, nothing);
    head.extensions.insert(Caller::of(entry));
    deadline::pass_on(&mut head.headers, budget);
    let read = Arc::new(AtomicU64::new(0));
    let body = if inbound.is_end_stream() {
        inbound.into_body()
    } else {
        Counted::of(inbound.into_limited_body(limit), &read)
    };
    let request = Request::from_parts(head, body);
    let answered = tokio::time::timeout(budget, upstream.handle(request, Next::end())).await;
    entry.received = read.load(Relaxed);
    let (mut head, body) = answered.map_err(|_| Reason::Timeout)?.into_parts();
    entry.seen = entry.client.worker.now();
    head::strip(&mut head.headers, Way::Response, false);
    Ok(Response::from_parts(head, Out::boxed(body)))
}

/// A request on its way, for as many tries as it takes.
struct Errand<'a> {
    worker: &'a Arc<Worker>,
    sight: &'a Arc<Sight>,
    service: ServiceId,
    head: &'a mut Parts,
    hop: Hop,
    is_nameless: bool,
    source: Source,
    deadline: Deadline,
    until: Mono,
    is_repeatable: bool,
    is_upgrading: bool,
    /// A second backend may be asked beside one that is slow.
    is_hedged: bool,
    /// Where the client says that it was answered before.
    seat: Option<u64>,
    /// Held while a retry waits for an answer.
    retrying: Option<Retrying>,
}

/// Where a try goes.
#[derive(Clone, Copy)]
struct Leg<'a> {
    backend: BackendId,
    datacenter: DatacenterId,
    pool: &'a Arc<Pool>,
    /// How long to wait for a connection.
    connect: Duration,
    /// How long to wait for the head of the response.
    patience: Duration,
    /// The span of the try; 0 where it is not told.
    span: u64,
}

/// How a try failed, for everybody who wants to know.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// What the client is told if it was the last one.
    reason: Reason,
    /// What the backend's counters are told.
    outcome: Outcome,
    /// What may come next; `None`: nothing, it was not the backend's fault.
    failure: Option<Failure>,
}

impl Fault {
    const fn of_backend(reason: Reason, outcome: Outcome, failure: Failure) -> Self {
        Self { reason, outcome, failure: Some(failure) }
    }

    const fn of_others(reason: Reason) -> Self {
        Self { reason, outcome: Outcome::Cancelled, failure: None }
    }
}

impl From<NoLine> for Fault {
    fn from(no_line: NoLine) -> Self {
        match no_line {
            NoLine::Backend(outcome) => Self::of_backend(Reason::Unreachable, outcome, Failure::Connect),
            NoLine::Full => Self { reason: Reason::Busy, outcome: Outcome::Cancelled, failure: Some(Failure::Full) },
            NoLine::Exhausted => Self::of_others(Reason::Busy),
            NoLine::Misconfigured => Self::of_others(Reason::Internal),
        }
    }
}

impl<'a> Errand<'a> {
    fn spec(&self) -> &'a Service {
        self.sight.snapshot.topology.service(self.service)
    }

    fn is_home(&self) -> bool {
        self.spec().balance == Balance::UserHome
    }

    /// Whether nobody but the user's home may answer: nobody else takes a note for it.
    fn is_bound(&self) -> bool {
        self.is_home() && self.spec().homing.down == HomeDown::Refuse
    }

    /// `began`: when the clock of the deadline was started.
    async fn run(&mut self, entry: &mut Entry, user: Option<u64>, began: Mono) -> Result<Response<Out>, Reason> {
        let local = self.sight.snapshot.topology.config.node.datacenter;
        let wanted = Wanted { service: self.service, local, user, seat: self.seat };
        let mut tried = Tried::new();
        let (mut last, mut now) = (None, began);
        loop {
            let leg = match self.choose(&wanted, &mut tried, now) {
                Ok(leg) => leg,
                Err(reason) => return Err(last.unwrap_or(reason)),
            };
            if let Some(before) = tried.last() {
                self.pause(before.datacenter == leg.datacenter, tried.count() - 1, now).await;
                now = self.worker.now();
            }
            let asked = self.ask(entry, leg, &wanted, &mut tried, now).await;
            let hedge::Asked { leg, mut attempt, answer, .. } = asked;
            let fault = match answer {
                Ok((response, line)) => {
                    now = self.worker.now();
                    entry.answered(line.connect(), now);
                    let (outcome, failure) = retry::classify(response.status(), response.headers());
                    attempt.answered(response.status(), line.connect(), outcome, self.source.taken(), now);
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return self.switch(response, line, attempt);
                    }
                    let (mut head, ()) = response.into_parts();
                    match download::carry(line, self.source.witness(), leg.pool, self.worker, attempt, now).await {
                        Ok(body) => match failure {
                            Some(failure) if self.may_retry(&leg, failure, outcome, &mut tried, now) => {
                                self.sight.kit(self.service).retried(failure);
                                continue;
                            }
                            _ => {
                                head::strip(&mut head.headers, Way::Response, false);
                                // The version is ours, not the backend's (RFC 9110 section 2.5).
                                head.version = Version::HTTP_11;
                                if failure.is_none() {
                                    self.seat_at(&leg, entry, &mut head.headers);
                                }
                                return Ok(Response::from_parts(head, body));
                            }
                        },
                        Err(broken) => {
                            attempt = broken;
                            self.fault(LineFailure::Broken, &leg)
                        }
                    }
                }
                Err(fault) => fault,
            };
            now = self.worker.now();
            attempt.fail(fault.outcome, now);
            let Some(failure) = fault.failure else { return Err(fault.reason) };
            let reason = if self.is_home() && failure != Failure::Full { Reason::HomeDown } else { fault.reason };
            if !self.may_retry(&leg, failure, fault.outcome, &mut tried, now) {
                return Err(reason);
            }
            last = Some(reason);
            self.sight.kit(self.service).retried(failure);
        }
    }

    /// One try at `leg`; where the route says so, perhaps with a second one beside it.
    async fn ask(
        &mut self,
        entry: &mut Entry,
        leg: Leg<'a>,
        wanted: &Wanted,
        tried: &mut Tried,
        now: Mono,
    ) -> hedge::Asked<'a> {
        entry.asks(leg.backend, now);
        let attempt = Try::begin(entry, self.sight, leg.backend, false, now);
        let leg = Leg { span: attempt.span(), ..leg };
        if leg.span > 0 {
            Trace::leave_to_tries(&mut self.head.headers);
        }
        if self.is_nameless {
            // HTTP/1.1 has to name a host, and some refuse an empty one: the backend's own address, as nginx does.
            let backend = self.sight.snapshot.topology.backend(leg.backend);
            self.head.headers.insert(HOST, address_of(backend));
        }
        if self.hop == Hop::InFields || entry.marks.has(Marks::GRPC_TIMEOUT) {
            deadline::pass_on(&mut self.head.headers, self.until.since(now));
        }
        if self.is_hedged {
            let asked = Box::pin(hedge::race(self, entry, leg, attempt, wanted, tried, now)).await;
            entry.hedged(asked.was_hedged, asked.leg.backend);
            return asked;
        }
        let answer = self.attempt(&leg, entry, now).await;
        hedge::Asked { leg, attempt, answer, was_hedged: false }
    }

    /// Where the next try goes.
    fn choose(&self, wanted: &Wanted, tried: &mut Tried, now: Mono) -> Result<Leg<'a>, Reason> {
        let (sight, snapshot) = (self.sight, &self.sight.snapshot);
        let policy = &self.spec().retry;
        let wits = &mut *self.worker.wits();
        if tried.is_untouched() {
            wits.budgets.of(snapshot.topology.edition, self.service, self.worker.workers).earn(policy.budget, now);
        }
        let choice = balance::choose(snapshot, wanted, tried, &mut wits.turn, now, &mut wits.rng);
        let choice = choice.map_err(|none| match none {
            NoChoice::NoBackend => Reason::NoBackend,
            NoChoice::HomeDown(_) => Reason::HomeDown,
            NoChoice::NoUser => Reason::NoUser,
            NoChoice::Full => {
                sight.kit(self.service).limited.refused();
                Reason::Busy
            }
        })?;
        let is_local = wanted.local.is_none_or(|local| local == choice.datacenter);
        if !is_local {
            sight.kit(self.service).spilled(choice.datacenter);
        }
        let remaining = self.until.since(now);
        let has_more =
            self.is_repeatable && !self.is_bound() && tried.count() + 1 < policy.tries && self.source.repeatable();
        // Only home decides: it is waited for as long as leaves time for a note, however fast it usually is.
        let expected_ns = if choice.reason == balance::Reason::Home { f64::INFINITY } else { choice.expected_ns };
        Ok(Leg {
            backend: choice.backend,
            datacenter: choice.datacenter,
            pool: sight.pool(choice.backend),
            connect: if is_local { CONNECT.0 } else { CONNECT.1 }.min(remaining),
            patience: retry::per_try_timeout(policy, expected_ns, has_more, remaining),
            span: 0,
        })
    }

    /// Whether a failed try is followed by another; if so, it is paid for.
    fn may_retry(&mut self, leg: &Leg<'_>, failure: Failure, outcome: Outcome, tried: &mut Tried, now: Mono) -> bool {
        if failure == Failure::Full {
            return tried.pass(leg.backend);
        }
        tried.note(leg.backend, leg.datacenter, outcome);
        let remaining = self.until.since(now);
        let case = Case {
            failure,
            tries: tried.count(),
            repeatable: self.is_repeatable,
            replayable: self.source.repeatable(),
            home: self.is_bound(),
            remaining,
            expected: Duration::ZERO,
        };
        if retry::judge(&self.spec().retry, &case).is_err() {
            return false;
        }
        self.retrying = None;
        let (serial, limit) = (self.sight.snapshot.topology.edition, self.spec().limits.retries);
        let retrying = Retrying::begin(self.sight, self.service, limit, self.worker.workers);
        let is_paid =
            |_: &Retrying| self.worker.wits().budgets.of(serial, self.service, self.worker.workers).spend(now);
        self.retrying = retrying.filter(is_paid);
        self.retrying.is_some()
    }

    /// Tells the client whose answer this is, where it is to come back there and does not know it.
    fn seat_at(&self, leg: &Leg<'_>, entry: &Entry, headers: &mut HeaderMap) {
        let Some(session) = &self.spec().session else { return };
        let seat = self.sight.snapshot.topology.backend(leg.backend).seat;
        if self.seat != Some(seat) {
            session::write(session, seat, entry.client.peer.tls, headers);
        }
    }

    async fn pause(&self, is_same_datacenter: bool, retries_before: u32, now: Mono) {
        let remaining = self.until.since(now);
        let pause = retry::pause(retries_before, is_same_datacenter, remaining, &mut self.worker.wits().rng);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    /// One try: a connection, the request, the head of the response.
    async fn attempt(&self, leg: &Leg<'_>, entry: &Entry, now: Mono) -> Result<(Response<()>, Line), Fault> {
        let left = self.until.since(now);
        // Boxed is what hardly any request needs, so that none keeps room for it.
        if leg.pool.is_h2() {
            return Box::pin(self.over_stream(leg, entry, now)).await;
        }
        // What becomes a tunnel has a connection of its own.
        let mut may_reuse = !self.is_upgrading;
        loop {
            let whom = || Some(entry.client.ends());
            let idle = if may_reuse { leg.pool.idle(whom, now) } else { None };
            let was_idle = idle.is_some();
            let mut line = match idle {
                Some(line) => line,
                None => Box::pin(leg.pool.dial(whom, leg.connect, now)).await?,
            };
            line.arm(self.worker.instant(now + leg.patience));
            let upload = self.upload()?;
            let ask = Ask {
                method: &self.head.method,
                target: self.head.uri.path_and_query().map_or("/", |target| target.as_str()),
                headers: &self.head.headers,
            };
            let more = |out: &mut Vec<u8>| self.tell(out, entry, leg, left);
            match line.send(&ask, more, upload, self.late(leg.patience)).await {
                Ok(head) => {
                    let mut response = Response::new(());
                    (*response.status_mut(), *response.headers_mut()) = (head.status, head.headers);
                    return Ok((response, Line::H1(line)));
                }
                // It had been closed while it was idle: nothing happened, and it says nothing about the backend.
                Err(LineFailure::Unsent) if was_idle => {}
                // It was closed in the same moment in which we wrote. That may be repeated if anything may.
                Err(LineFailure::Broken) if was_idle && self.is_repeatable && self.source.repeatable() => {
                    may_reuse = false;
                }
                Err(failure) => return Err(self.fault(failure, leg)),
            }
        }
    }

    /// Writes what the backend is told of this hop, where fields don't say it.
    fn tell(&self, out: &mut Vec<u8>, entry: &Entry, leg: &Leg<'_>, left: Duration) {
        if let Some(trace) = entry.trace.as_ref().filter(|_| leg.span > 0) {
            trace.tell(leg.span, out);
        }
        let Hop::Written(version) = self.hop else { return };
        let host = self.head.headers.get(HOST).filter(|_| !self.is_nameless);
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        forwarded::write(out, &entry.client.peer, host, version);
        out.extend_from_slice(b"x-request-id: ");
        out.extend_from_slice(entry.id.as_str().as_bytes());
        // Where a field had to be rewritten, both were.
        if !entry.marks.has(Marks::GRPC_TIMEOUT) {
            out.extend_from_slice(b"\r\nx-deadline-ms: ");
            write::number(out, deadline::left_ms(left));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// One try over HTTP/2. Where WebSocket is asked for, by extended CONNECT, to a backend that has said that it takes that.
    async fn over_stream(&self, leg: &Leg<'_>, entry: &Entry, now: Mono) -> Result<(Response<()>, Line), Fault> {
        let purpose = if self.is_upgrading { Purpose::Tunnels } else { Purpose::Requests };
        let stream = leg.pool.stream(purpose, leg.connect, now).await?;
        let mut request = self.request()?;
        if self.is_upgrading {
            if !stream.takes_connect(leg.connect).await {
                return Err(Fault::of_others(Reason::NoUpgrade));
            }
            connect::ask(&mut request);
        }
        if let Some((name, value)) =
            entry.trace.as_ref().filter(|_| leg.span > 0).and_then(|trace| trace.field(leg.span))
        {
            request.headers_mut().insert(name, value);
        }
        let until = self.worker.instant(now + leg.patience);
        let sent = stream.send(request, until, self.late(leg.patience)).await;
        let (mut response, timer) = sent.map_err(|f| self.fault(f, leg))?;
        if self.is_upgrading && !connect::agree(&mut response, &self.head.headers) {
            return Err(BROKEN);
        }
        let (head, body) = response.into_parts();
        Ok((Response::from_parts(head, ()), Line::H2 { body, stream, timer }))
    }

    fn upload(&self) -> Result<Upload, Fault> {
        self.source.upload().ok_or(Fault::of_others(Reason::Broken))
    }

    /// The request for one try over HTTP/2.
    fn request(&self) -> Result<Request<Upload>, Fault> {
        let mut request = Request::new(self.upload()?);
        request.method_mut().clone_from(&self.head.method);
        request.headers_mut().clone_from(&self.head.headers);
        *request.uri_mut() = self.absolute().ok_or(Fault::of_others(Reason::BadRequest))?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        Ok(request)
    }

    /// The target for HTTP/2, which has no `Host`.
    fn absolute(&self) -> Option<Uri> {
        let mut parts = self.head.uri.clone().into_parts();
        parts.scheme = Some(if self.spec().tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(self.head.headers.get(HOST)?.as_bytes()).ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Asked when patience has run out: until when to go on waiting. For a body on its way to the backend; and for the backend
    /// itself, where another try could not be paid for: to be left for nobody does nobody good.
    fn late(&self, patience: Duration) -> impl FnMut() -> Option<tokio::time::Instant> {
        let (source, worker) = (&self.source, self.worker);
        let may_wait = move |now: Mono| {
            let can_pay = || {
                let budgets = &mut worker.wits().budgets;
                budgets.of(self.sight.snapshot.topology.edition, self.service, worker.workers).can_pay(now)
            };
            (now < self.until && !can_pay()).then(|| worker.instant(self.until.min(now + patience)))
        };
        let mut before = (0, worker.now());
        move || {
            let now = worker.now();
            let (bytes, is_ours) = match source.progress() {
                Progress::Sent => return may_wait(now),
                Progress::AtClient(bytes) => (bytes, true),
                Progress::AtBackend(bytes) => (bytes, false),
            };
            if bytes != before.0 {
                before = (bytes, now);
            }
            let allowed = if is_ours { STALL } else { patience };
            (now.since(before.1) < allowed).then(|| worker.instant(now + patience.min(STALL)))
        }
    }

    fn fault(&self, failure: LineFailure, leg: &Leg<'_>) -> Fault {
        if let Some(error) = self.source.fault() {
            return Fault::of_others(error.into());
        }
        match failure {
            LineFailure::Unsent => Fault::of_backend(Reason::Broken, Outcome::Reset, Failure::Unprocessed),
            // It says so itself, and it is no failure: HTTP/2 servers close connections in this way.
            LineFailure::Unprocessed => {
                Fault { reason: Reason::Broken, outcome: Outcome::Cancelled, failure: Some(Failure::Unprocessed) }
            }
            LineFailure::Broken => BROKEN,
            LineFailure::Late if matches!(self.source.progress(), Progress::AtClient(_)) => {
                Fault::of_others(Reason::BodyStalled)
            }
            // A client that gives a backend less time than we would must not be able to shut it out.
            LineFailure::Late if self.deadline.by == By::Client && leg.patience >= self.deadline.budget / 2 => {
                Fault { outcome: Outcome::Cancelled, ..LATE }
            }
            LineFailure::Late => LATE,
        }
    }

    /// The backend has agreed to change protocols.
    fn switch(&self, mut response: Response<()>, line: Line, attempt: Try) -> Result<Response<Out>, Reason> {
        let theirs = match line {
            Line::H1(line) => Some(Theirs::Line(line)),
            Line::H2 { stream, .. } => {
                response.extensions_mut().remove::<OnUpgrade>().map(|upgrade| Theirs::Stream(upgrade, stream))
            }
        };
        let Some(theirs) = theirs else { return Err(Self::unasked(attempt, self.worker.now())) };
        // To something else than what was asked for, it is not agreed.
        let said = response.headers().get(UPGRADE).map(HeaderValue::as_bytes);
        let is_asked = said.is_some_and(|said| said.eq_ignore_ascii_case(b"websocket"));
        // Nobody else looks at the proof of a key that we have made.
        let is_ours = connect::was_connect(&self.head.extensions);
        let is_proven = !is_ours || connect::is_proven(&self.head.headers, response.headers());
        if !self.is_upgrading || !is_asked || !is_proven {
            return Err(Self::unasked(attempt, self.worker.now()));
        }
        let (mut head, ()) = response.into_parts();
        head::strip(&mut head.headers, Way::Response, true);
        tunnel::put(&mut head.extensions, theirs, attempt);
        Ok(Response::from_parts(head, Out::full(Bytes::new())))
    }

    /// Nobody had asked for another protocol.
    fn unasked(attempt: Try, now: Mono) -> Reason {
        attempt.fail(Outcome::Reset, now);
        Reason::Broken
    }
}

const BROKEN: Fault = Fault::of_backend(Reason::Broken, Outcome::Reset, Failure::Reset);
const LATE: Fault = Fault::of_backend(Reason::Timeout, Outcome::Timeout, Failure::Timeout);
