//! A copy of some requests to another service: what it answers is thrown away, and the original never waits for it.
//!
//! A copy has one try, a task of its own, and a place among those that may be under way at a time; where there is none, it
//! is not made. Only bodies that have been collected anyway are copied. What becomes of copies is counted by route; a
//! shadow's failures are evidence about the shadow's backends, as any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::download::Line;
use super::forward;
use super::pool::NoLine;
use super::pool::h1::{Ask, Failure as LineFailure};
use super::pool::h2::Purpose;
use super::upload::{Source, Upload};
use super::worker::{Sight, Worker};
use crate::base::clock::Mono;
use crate::base::ids::{BackendId, ServiceId};
use crate::base::task;
use crate::config::Route;
use crate::decide::balance::{self, Wanted};
use crate::decide::deadline;
use crate::decide::retry;
use crate::decide::tried::Tried;
use crate::observe::names::proxy as names;
use crate::snapshot::load::Outcome;

/// Tells the shadow that nobody waits for its answer, and by which route it is asked.
const X_MIRRORED_BY: HeaderName = HeaderName::from_static("x-mirrored-by");
/// How long connecting may take.
const CONNECT: Duration = Duration::from_millis(750);
/// How much of an answer is read so that its connection can be used again (ours).
const DRAINED: u64 = 1 << 20;
/// What a failure counts as, at least (as for any try).
const PENALTY: Duration = Duration::from_secs(1);

/// What becomes of a copy, in the order of the counters.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    Failed,
    /// As many as may be are under way.
    Full,
    /// Its body is too long, or its length is not known.
    Body,
}

/// Where a route's copies go.
#[derive(Debug)]
pub(super) struct Mirror {
    service: ServiceId,
    share: f64,
    most: u32,
    name: HeaderValue,
    under_way: AtomicU32,
    fates: [metrics::Counter; 4],
}

impl Mirror {
    /// That of `route`, where it has one.
    pub(super) fn of(route: &Route) -> Option<Arc<Self>> {
        let said = route.mirror.as_ref()?;
        Some(Arc::new(Self {
            service: said.service,
            share: said.share,
            most: said.concurrent,
            name: HeaderValue::from_str(&route.name).unwrap_or(HeaderValue::from_static("-")),
            under_way: AtomicU32::new(0),
            fates: ["answered", "failed", "full", "body"].map(|fate| names::MIRRORED.counter(&[&route.name, fate])),
        }))
    }

    /// Sends a copy of a request, if it is one of the share that is copied. `head` is as backends see it.
    pub(super) fn copy(self: &Arc<Self>, worker: &Arc<Worker>, sight: &Arc<Sight>, head: &Parts, source: &Source) {
        if !worker.wits().rng.chance(self.share) {
            return;
        }
        let source = match source {
            Source::Empty => Source::Empty,
            Source::Whole(bytes, trailers) => Source::Whole(bytes.clone(), trailers.clone()),
            Source::Tape(_) => return self.count(Fate::Body),
        };
        let Some(place) = Place::of(self) else { return self.count(Fate::Full) };
        let mut headers = head.headers.clone();
        headers.insert(X_MIRRORED_BY, self.name.clone());
        let copy = Copy {
            worker: Arc::clone(worker),
            sight: Arc::clone(sight),
            service: self.service,
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers,
            source,
        };
        let limit = sight.snapshot.topology.service(self.service).deadline;
        let work = async move {
            let answered = tokio::time::timeout(limit, copy.send(limit)).await;
            place.0.count(if answered.is_ok_and(|sent| sent.is_some()) { Fate::Answered } else { Fate::Failed });
        };
        // It ends by itself, at the deadline of its service.
        task::spawn("mirror", work).detach();
    }

    fn count(&self, fate: Fate) {
        if let Some(counter) = self.fates.get(fate as usize) {
            counter.increment(1);
        }
    }
}

/// One of the copies that may be under way.
struct Place(Arc<Mirror>);

impl Place {
    fn of(mirror: &Arc<Mirror>) -> Option<Self> {
        // Counted first and checked then: dropped, it gives the count back.
        let place = Self(Arc::clone(mirror));
        (mirror.under_way.fetch_add(1, Relaxed) < mirror.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// A copy on its way.
struct Copy {
    worker: Arc<Worker>,
    sight: Arc<Sight>,
    service: ServiceId,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Never a streamed one.
    source: Source,
}

/// A try at a shadow; however it ends, its backend hears of it once.
struct Attempt {
    worker: Arc<Worker>,
    sight: Arc<Sight>,
    backend: BackendId,
    began: Mono,
    outcome: Outcome,
    took: Option<Duration>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let now = self.worker.now();
        let took = self.took.unwrap_or_else(|| now.since(self.began));
        let backend = self.sight.snapshot.topology.backend(self.backend);
        backend.load.end(self.outcome, took, PENALTY, now);
        self.sight.kit(backend.service).tried(self.outcome);
        self.sight.pool(self.backend).toll.ended(self.outcome, took, 0, 0);
    }
}

impl Copy {
    /// Sends it and reads what comes back. `None`: nothing did.
    async fn send(mut self, limit: Duration) -> Option<StatusCode> {
        let (worker, sight) = (Arc::clone(&self.worker), Arc::clone(&self.sight));
        let now = worker.now();
        let snapshot = &sight.snapshot;
        let wanted =
            Wanted { service: self.service, local: snapshot.topology.config.node.datacenter, user: None, seat: None };
        let choice = {
            let wits = &mut *worker.wits();
            balance::choose(snapshot, &wanted, &mut Tried::new(), &mut wits.turn, now, &mut wits.rng).ok()?
        };
        snapshot.topology.backend(choice.backend).load.begin();
        let mut attempt = Attempt {
            worker: Arc::clone(&worker),
            sight: Arc::clone(&sight),
            backend: choice.backend,
            began: now,
            // What the timer of the whole copy finds.
            outcome: Outcome::Timeout,
            took: None,
        };
        deadline::pass_on(&mut self.headers, limit);
        if !self.headers.contains_key(HOST) {
            // As with the original: who names no host asks the backend itself.
            self.headers.insert(HOST, forward::address_of(snapshot.topology.backend(choice.backend)));
        }
        let (status, headers, line) = match self.ask(choice.backend, now + limit, now).await {
            Ok(answer) => answer,
            Err(outcome) => {
                attempt.outcome = outcome;
                return None;
            }
        };
        attempt.took = Some(worker.now().since(now));
        attempt.outcome = retry::classify(status, &headers).0;
        self.drain(line, choice.backend).await;
        Some(status)
    }

    async fn ask(&self, backend: BackendId, until: Mono, now: Mono) -> Result<(StatusCode, HeaderMap, Line), Outcome> {
        let pool = self.sight.pool(backend);
        let refused = |no_line| match no_line {
            NoLine::Backend(outcome) => outcome,
            NoLine::Full | NoLine::Exhausted | NoLine::Misconfigured => Outcome::Cancelled,
        };
        let broken = |failure| match failure {
            LineFailure::Unprocessed => Outcome::Cancelled,
            LineFailure::Late => Outcome::Timeout,
            LineFailure::Unsent | LineFailure::Broken => Outcome::Reset,
        };
        let until = self.worker.instant(until);
        if pool.is_h2() {
            let stream = pool.stream(Purpose::Requests, CONNECT, now).await.map_err(refused)?;
            let request = self.request().ok_or(Outcome::Cancelled)?;
            let (response, timer) = stream.send(request, until, || None).await.map_err(broken)?;
            let (head, body) = response.into_parts();
            return Ok((head.status, head.headers, Line::H2 { body, stream, timer }));
        }
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        let ask = Ask { method: &self.method, target, headers: &self.headers };
        loop {
            let idle = pool.idle(|| None, now);
            let was_idle = idle.is_some();
            let mut line = match idle {
                Some(line) => line,
                None => pool.dial(|| None, CONNECT, now).await.map_err(refused)?,
            };
            line.arm(until);
            let upload = self.source.upload().ok_or(Outcome::Cancelled)?;
            match line.send(&ask, |_: &mut Vec<u8>| {}, upload, || None).await {
                Ok(head) => return Ok((head.status, head.headers, Line::H1(line))),
                // It had been closed while it was idle: nothing happened.
                Err(LineFailure::Unsent) if was_idle => {}
                Err(failure) => return Err(broken(failure)),
            }
        }
    }

    /// The request over HTTP/2, which has no `Host`.
    fn request(&self) -> Option<Request<Upload>> {
        let mut parts = self.uri.clone().into_parts();
        let is_tls = self.sight.snapshot.topology.service(self.service).tls.is_some();
        parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(self.headers.get(HOST)?.as_bytes()).ok()?);
        let mut request = Request::new(self.source.upload()?);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.headers_mut() = self.headers.clone();
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
        Some(request)
    }

    /// Throws a body away; what is longer than [`DRAINED`] goes with its connection.
    async fn drain(&self, mut line: Line, backend: BackendId) {
        let mut read = 0;
        while !line.is_end_stream() {
            match std::future::poll_fn(|cx| line.poll_frame(cx)).await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) => return,
                None => break,
            }
            if read > DRAINED {
                return;
            }
        }
        if let Line::H1(h1) = line {
            self.sight.pool(backend).rest(h1, self.worker.now());
        }
    }
}
