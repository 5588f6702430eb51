//! What one worker holds: the way it sees the current snapshot, its pools, its accounts, its connections.
//!
//! A worker is a thread with a runtime of its own and shares nothing with the others but the snapshot and the backends'
//! counters. What a request needs is found by index in [`Sight`], which is made once a generation: no hashing, no locks
//! that anybody else could hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode, Version};
use metrics::{Counter, Gauge};
use tokio::time::Instant;

use super::admit::Handshakes;
use super::download::Out;
use super::drain::{Crowd, Open, Order};
use super::files::Readers;
use super::h2::Abuse;
use super::limit::Limited;
use super::log::Sheet;
use super::meter::{Count, Level, Spread, Toll};
use super::pool::{Counts, Gate, Key, Pool};
use super::reply::{REASONS, Reason};
use super::spans::Spans;
use super::{Stages, view};
use crate::base::clock::{Clock, Mono, SystemClock};
use crate::base::entropy::Rng;
use crate::base::ids::{BackendId, DatacenterId, ListenerId, RouteId, ServiceId};
use crate::config::{Action, Config, Route, Service};
use crate::decide::balance::Turn;
use crate::decide::hedge::Hedges;
use crate::decide::retry::{Budgets, Failure};
use crate::decide::split::{Choice, Why};
use crate::net::stage::Stage;
use crate::observe::names::proxy as names;
use crate::snapshot::load::{OUTCOMES, Outcome};
use crate::snapshot::views::Slot;
use crate::snapshot::{Published, Snapshot, Topology};
use crate::wire::date;

/// One worker.
pub(super) struct Worker {
    pub(super) published: Arc<Published>,
    pub(super) stages: Arc<Stages>,
    /// How many workers there are: budgets are divided by it.
    pub(super) workers: usize,
    pub(super) open: Open,
    /// Those over HTTP/3.
    pub(super) far: Open,
    pub(super) handshakes: Handshakes,
    pub(super) meters: Meters,
    /// Its lines for the access log.
    pub(super) sheet: Arc<Sheet>,
    /// Its spans, for who exports them.
    pub(super) spans: Arc<Spans>,
    pub(super) abuse: Abuse,
    pub(super) readers: Readers,
    wits: Mutex<Wits>,
    sight: Mutex<Arc<Sight>>,
    /// Where the edge is reached over QUIC.
    ways: Arc<[Doorway]>,
    /// The generation that it acts on, for whoever asks from outside.
    generation: Arc<AtomicU64>,
    zero: (Instant, Mono),
    date: Mutex<[u8; 29]>,
}

/// A place where the edge is reached over QUIC too.
#[derive(Clone, Debug)]
pub(super) struct Doorway {
    /// The name of the listener.
    pub(super) listener: Arc<str>,
    pub(super) port: u16,
}

/// What a worker's decisions keep from one request to the next.
pub(super) struct Wits {
    pub(super) rng: Rng,
    pub(super) turn: Turn,
    pub(super) budgets: Budgets,
    pub(super) hedges: Hedges,
}

/// Handles of metrics that depend on nothing.
pub(super) struct Meters {
    pub(super) connections: Gauge,
    pub(super) tunnels: Gauge,
    pub(super) tunnel_bytes: Counter,
    pub(super) handshakes_failed: Counter,
    /// By what the client speaks: h1, h2, h3.
    protocols: [Count; 3],
    /// Of requests that no route took.
    reasons: [Count; REASONS.len()],
}

/// Where the version of HTTP stands among [`PROTOCOLS`].
const fn protocol_of(version: Version) -> usize {
    match version {
        Version::HTTP_2 => 1,
        Version::HTTP_3 => 2,
        _ => 0,
    }
}

/// What clients speak, as metrics say it.
const PROTOCOLS: [&str; 3] = ["h1", "h2", "h3"];

impl Meters {
    /// Counts a request of a client that speaks `version`.
    pub(super) fn asked(&self, version: Version) {
        self.protocols[protocol_of(version)].one();
    }

    /// A request that no route took has ended, for `reason`.
    pub(super) fn ended(&self, reason: Option<Reason>) {
        if let Some(count) = reason.and_then(|reason| self.reasons.get(reason as usize)) {
            count.one();
        }
    }
}

/// The world of one generation, as one worker sees it.
pub(super) struct Sight {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) view: Arc<view::View>,
    fixture: Arc<Fixture>,
}

/// What goes with a topology rather than with a generation.
struct Fixture {
    serial: u64,
    routes: Vec<RouteKit>,
    services: Vec<ServiceKit>,
    pools: Vec<Arc<Pool>>,
    /// By listener and protocol.
    guests: Vec<[Guests; PROTOCOLS.len()]>,
    /// By way: what clients are told of it, if anything.
    alt_svc: Vec<Option<HeaderValue>>,
}

/// The connections of one listener that speak one protocol.
pub(super) struct Guests {
    open: Gauge,
    came: Count,
}

impl Guests {
    /// One more has come; whoever keeps what this gives says when it has gone.
    pub(super) fn welcome(&self) -> Gauge {
        self.came.one();
        self.open.increment(1.0);
        self.open.clone()
    }
}

/// What belongs to a route.
pub(super) struct RouteKit {
    name: Box<str>,
    /// What it answers by itself.
    pub(super) answer: Option<Answer>,
    /// By first digit of the status: 1xx to 5xx.
    requests: [Count; 5],
    /// Those among them that got no answer of a backend, or not all of it, by why. Made as they come: there are many reasons,
    /// and a route sees few of them.
    refused: Mutex<Vec<(Reason, Count)>>,
    duration: Spread,
    /// Octets of bodies.
    received: Count,
    sent: Count,
    pub(super) in_flight: Level,
    /// By side and by why; empty where nothing is split.
    shares: Vec<[Count; Why::ALL.len()]>,
}

impl RouteKit {
    /// A request has ended: with this status, for this reason where no backend's answer came to its end, with bodies of so many
    /// octets in and out.
    pub(super) fn ended(&self, status: u16, reason: Option<Reason>, bodies: (u64, u64), took: Duration) {
        self.in_flight.down();
        if let Some(class) = self.requests.get(usize::from(status / 100).wrapping_sub(1)) {
            class.one();
        }
        self.duration.note(took);
        self.received.add(bodies.0);
        self.sent.add(bodies.1);
        if let Some(reason) = reason {
            self.refused(reason);
        }
    }

    fn refused(&self, reason: Reason) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = refused.iter().find(|(known, _)| *known == reason) {
            return count.one();
        }
        let count = Count::new(names::REFUSED.counter(&[&self.name, reason.as_str()]));
        count.one();
        refused.push((reason, count));
    }

    fn of(route: &Route, topology: &Topology) -> Self {
        let name = route.name.as_str();
        Self {
            name: name.into(),
            requests: ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| Count::new(names::REQUESTS.counter(&[name, class]))),
            refused: Mutex::default(),
            answer: Answer::of(&route.action),
            duration: Spread::new(names::REQUEST_DURATION.histogram(&[name])),
            received: Count::new(names::RECEIVED.counter(&[name])),
            sent: Count::new(names::SENT.counter(&[name])),
            in_flight: Level::new(names::IN_FLIGHT.gauge(&[name])),
            shares: shares_of(route, topology),
        }
    }

    fn flush(&self) {
        self.requests.iter().chain([&self.received, &self.sent]).for_each(Count::flush);
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(_, count)| count.flush());
        self.duration.flush();
        self.in_flight.flush();
        self.shares.iter().flatten().for_each(Count::flush);
    }

    /// Counts a request on its side of a split.
    pub(super) fn shared(&self, choice: &Choice) {
        if let Some(count) = self.shares.get(choice.side).and_then(|side| side.get(choice.why as usize)) {
            count.one();
        }
    }
}

/// An answer that is always the same.
#[derive(Clone)]
pub(super) struct Answer {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

impl Answer {
    /// As a response.
    pub(super) fn response(&self) -> Response<Out> {
        let mut response = Response::new(Out::full(self.body.clone()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, self.content_type.clone());
        response
    }

    /// What `action` answers by itself; `None` where it forwards.
    fn of(action: &Action) -> Option<Self> {
        let Action::Respond { status, content_type, body } = action else { return None };
        Some(Self {
            // The configuration's check lets nothing else through.
            status: StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type: HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static("text/plain")),
            body: Bytes::from(body.clone()),
        })
    }
}

/// What belongs to a service.
pub(super) struct ServiceKit {
    /// Answers in this process, instead of the service's backends.
    pub(super) upstream: Option<Arc<dyn Stage>>,
    pub(super) tries: [Count; OUTCOMES],
    /// From the beginning of a try to the head of its answer.
    pub(super) latency: Spread,
    pub(super) retries: [Count; FAILURES.len()],
    /// By datacenter.
    pub(super) spills: Vec<Count>,
    pub(super) limited: Limited,
    /// Of hedges: how many were sent, won, and not paid for.
    pub(super) hedges: [Counter; 3],
}

/// Every kind of failure that is followed by another try.
const FAILURES: [&str; 7] = ["connect", "unprocessed", "reset", "timeout", "status", "overload", "full"];

impl ServiceKit {
    fn of(service: &Service, config: &Config, stages: &Stages) -> Self {
        let name = service.name.as_str();
        Self {
            upstream: stages.upstreams.get(name).cloned(),
            tries: Outcome::ALL.map(|outcome| Count::new(names::TRIES.counter(&[name, outcome.as_str()]))),
            latency: Spread::new(names::UPSTREAM_DURATION.histogram(&[name])),
            retries: FAILURES.map(|failure| Count::new(names::RETRIES.counter(&[name, failure]))),
            spills: config.datacenters.iter().map(|dc| Count::new(names::SPILLS.counter(&[name, &dc.name]))).collect(),
            limited: Limited::new(name),
            hedges: ["sent", "won", "denied"].map(|what| names::HEDGES.counter(&[name, what])),
        }
    }

    /// Counts the end of a try.
    pub(super) fn tried(&self, outcome: Outcome) {
        if let Some(count) = self.tries.get(outcome as usize) {
            count.one();
        }
    }

    /// Counts a retry after `failure`.
    pub(super) fn retried(&self, failure: Failure) {
        let index = match failure {
            Failure::Connect => 0,
            Failure::Unprocessed => 1,
            Failure::Reset => 2,
            Failure::Timeout => 3,
            Failure::Status(_) => 4,
            Failure::Overload => 5,
            Failure::Full => 6,
        };
        if let Some(count) = self.retries.get(index) {
            count.one();
        }
    }

    /// Counts a try that went to another datacenter than ours.
    pub(super) fn spilled(&self, to: DatacenterId) {
        if let Some(count) = self.spills.get(to.index()) {
            count.one();
        }
    }
}

impl Worker {
    /// The worker of the current thread's runtime.
    pub(super) fn new(
        published: Arc<Published>,
        stages: Arc<Stages>,
        workers: usize,
        generation: Arc<AtomicU64>,
        (sheet, spans): (Arc<Sheet>, Arc<Spans>),
        ways: Arc<[Doorway]>,
    ) -> Arc<Self> {
        // The only way to an `Instant` that does not read the clock behind base::clock's back.
        let zero = (tokio::time::sleep(Duration::ZERO).deadline(), SystemClock.mono());
        let sight = Sight::of(published.full(), &stages, &ways, None);
        generation.store(sight.snapshot.generation, Relaxed);
        Arc::new(Self {
            published,
            stages,
            workers,
            open: Open::default(),
            far: Open::default(),
            handshakes: Handshakes::default(),
            sheet,
            spans,
            meters: Meters {
                connections: names::CONNECTIONS.gauge(&[]),
                tunnels: names::TUNNELS.gauge(&[]),
                tunnel_bytes: names::TUNNEL_BYTES.counter(&[]),
                handshakes_failed: names::HANDSHAKES_FAILED.counter(&[]),
                protocols: PROTOCOLS.map(|protocol| Count::new(names::BY_PROTOCOL.counter(&[protocol]))),
                reasons: REASONS.map(|reason| Count::new(names::REFUSED.counter(&["", reason.as_str()]))),
            },
            abuse: Abuse::default(),
            readers: Readers::default(),
            wits: Mutex::new(Wits {
                rng: Rng::from_os(),
                turn: Turn::new(),
                budgets: Budgets::default(),
                hedges: Hedges::default(),
            }),
            sight: Mutex::new(Arc::new(sight)),
            ways,
            generation,
            zero,
            date: Mutex::new(date::http(SystemClock.wall())),
        })
    }

    /// Now.
    #[expect(clippy::unused_self, reason = "a worker's time is read through the worker")]
    pub(super) fn now(&self) -> Mono {
        SystemClock.mono()
    }

    /// Gives `with` the date for a response's head, good to a second or two.
    pub(super) fn date(&self, with: impl FnOnce(&[u8])) {
        with(&*self.date.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// `at`, for a timer.
    pub(super) fn instant(&self, at: Mono) -> Instant {
        self.zero.0 + at.since(self.zero.1)
    }

    /// What decisions keep. Nobody else locks it for longer than a decision; never across an await.
    pub(super) fn wits(&self) -> MutexGuard<'_, Wits> {
        self.wits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world as of now.
    pub(super) fn sight(&self) -> Arc<Sight> {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        // Within a generation nothing changes that an edge acts on, so snapshots of the same one are not looked at.
        if self.published.look(Slot::Proxy).generation != sight.snapshot.generation {
            *sight = Arc::new(Sight::of(self.published.full(), &self.stages, &self.ways, Some(&sight)));
            self.generation.store(sight.snapshot.generation, Relaxed);
        }
        Arc::clone(&sight)
    }

    /// Tells all connections that are open, and all that will be.
    pub(super) fn tell(&self, order: Order) {
        self.open.tell(order);
        self.far.tell(order);
    }

    /// One round of housekeeping: connections that dawdle, idle ones to backends that have aged or died, the date, and
    /// what was counted.
    pub(super) fn sweep(&self, now: Mono, [near, far]: [Crowd; 2]) {
        self.open.sweep(near, self.workers);
        self.far.sweep(far, self.workers);
        *self.date.lock().unwrap_or_else(PoisonError::into_inner) = date::http(SystemClock.wall());
        let sight = self.sight();
        for pool in &sight.fixture.pools {
            pool.sweep(now);
        }
        self.meters.reasons.iter().chain(&self.meters.protocols).for_each(Count::flush);
        self.abuse.flush();
        sight.view.shelves().for_each(|shelf| shelf.tend(now));
        sight.fixture.flush();
    }
}

impl Sight {
    fn of(snapshot: Arc<Snapshot>, stages: &Stages, ways: &[Doorway], before: Option<&Self>) -> Self {
        let view = view::View::of(&snapshot);
        let fixture = match before {
            Some(before) if before.fixture.serial == snapshot.topology.serial => Arc::clone(&before.fixture),
            _ => Arc::new(Fixture::of(&snapshot.topology, &view, stages, ways, before.map(|b| &*b.fixture))),
        };
        for (pool, health) in fixture.pools.iter().zip(&*snapshot.backends) {
            if health.state.usable() { pool.reopen() } else { pool.close() }
        }
        Self { snapshot, view, fixture }
    }

    /// What belongs to `route`.
    pub(super) fn route(&self, route: RouteId) -> Option<&RouteKit> {
        self.fixture.routes.get(route.index())
    }

    /// The connections of `listener` that speak `version`.
    pub(super) fn guests(&self, listener: ListenerId, version: Version) -> Option<&Guests> {
        self.fixture.guests.get(listener.index()).map(|guests| &guests[protocol_of(version)])
    }

    /// What who came in beside `way` is told of it.
    pub(super) fn alt_svc(&self, way: u16) -> Option<&HeaderValue> {
        self.fixture.alt_svc.get(usize::from(way))?.as_ref()
    }

    /// What belongs to `service`.
    pub(super) fn kit(&self, service: ServiceId) -> &ServiceKit {
        &self.fixture.services[service.index()]
    }

    /// The connections to `backend`.
    pub(super) fn pool(&self, backend: BackendId) -> &Arc<Pool> {
        &self.fixture.pools[backend.index()]
    }
}

impl Doorway {
    /// What clients are told of it (RFC 7838): where it is, or to forget that, if they were told before.
    fn told(&self, topology: &Topology, said_before: bool) -> Option<HeaderValue> {
        let listener = topology.config.listeners.iter().find(|l| *l.name == *self.listener);
        match listener.and_then(|l| l.http3.as_ref()).filter(|http3| http3.advertise) {
            Some(http3) => {
                let said = format!("h3=\":{}\"; ma={}", self.port, http3.max_age.as_secs());
                HeaderValue::try_from(said).ok()
            }
            None => said_before.then_some(HeaderValue::from_static("clear")),
        }
    }
}

impl Fixture {
    fn of(topology: &Topology, view: &view::View, stages: &Stages, ways: &[Doorway], before: Option<&Self>) -> Self {
        let config = &topology.config;
        let mut kept: HashMap<&Key, &Arc<Pool>> =
            before.map(|b| b.pools.iter().map(|pool| (pool.key(), pool)).collect()).unwrap_or_default();
        let pool_of = |backend: &crate::snapshot::topology::Backend| {
            let service = topology.service(backend.service);
            let key = Key {
                seat: backend.seat,
                address: backend.spec.address,
                protocol: service.protocol,
                tls: service.tls.clone(),
                proxy_protocol: service.proxy_protocol,
            };
            let transport = view.transport(backend.service).clone();
            if let Some(pool) = kept.remove(&key) {
                pool.retarget(transport, &service.limits);
                return Arc::clone(pool);
            }
            let name = service.name.as_str();
            let counts = Counts {
                hits: Count::new(names::POOL_HITS.counter(&[name])),
                dials: Count::new(names::POOL_DIALS.counter(&[name])),
                connect: names::UPSTREAM_CONNECT.histogram(&[name]),
            };
            let gate = Gate::new(Arc::clone(&backend.load), name, &service.limits);
            Arc::new(Pool::new(key, transport, gate, Toll::new(Arc::clone(&backend.load)), counts))
        };
        let pools = topology.backends.iter().map(pool_of).collect();
        // What is left belongs to backends that are gone.
        for pool in kept.values() {
            pool.close();
        }
        let guests = config.listeners.iter().map(|listener| {
            PROTOCOLS.map(|protocol| Guests {
                open: names::GUESTS.gauge(&[&listener.name, protocol]),
                came: Count::new(names::GUESTS_TOTAL.counter(&[&listener.name, protocol])),
            })
        });
        let alt_svc = ways.iter().enumerate().map(|(at, way)| {
            let said_before = before.and_then(|b| b.alt_svc.get(at)).is_some_and(Option::is_some);
            way.told(topology, said_before)
        });
        Self {
            serial: topology.serial,
            routes: config.routes.iter().map(|route| RouteKit::of(route, topology)).collect(),
            services: config.services.iter().map(|service| ServiceKit::of(service, config, stages)).collect(),
            guests: guests.collect(),
            pools,
            alt_svc: alt_svc.collect(),
        }
    }

    /// Tells the metrics what was counted.
    fn flush(&self) {
        self.routes.iter().for_each(RouteKit::flush);
        for service in &self.services {
            service.tries.iter().chain(&service.retries).chain(&service.spills).for_each(Count::flush);
            service.latency.flush();
        }
        self.guests.iter().flatten().for_each(|guests| guests.came.flush());
    }
}

fn shares_of(route: &Route, topology: &Topology) -> Vec<[Count; Why::ALL.len()]> {
    let Action::Split(split) = &route.action else { return Vec::new() };
    let counts = |(service, _): &(ServiceId, u32)| {
        let name = topology.service(*service).name.as_str();
        Why::ALL.map(|why| Count::new(names::SPLIT.counter(&[&route.name, name, why.as_str()])))
    };
    split.sides.iter().map(counts).collect()
}
