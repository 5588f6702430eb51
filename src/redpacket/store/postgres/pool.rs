//! A bounded pool of connections, and the one loop that tries an errand again.
//!
//! A connection that has shown a fault is closed and another made; one that an errand was dropped on half way is closed,
//! too, for nobody knows what it is in the middle of. Every errand here may be done twice: orders have their numbers, words
//! their attempts, and the rest says what shall be, not what to add.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::fault::Fault;
use super::line::Line;
use super::place::Place;
use crate::base::clock::{Clock, Mono, SystemClock};
use crate::base::entropy::Rng;
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::StoreError;

/// The first wait before another try; doubled up to [`MOST`].
const FIRST: Duration = Duration::from_millis(5);
/// The longest.
const MOST: Duration = Duration::from_millis(250);
/// How long errands are tried that nobody sets a shorter limit for.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Something to do on a connection. To be done twice must be as good as once.
pub(super) trait Errand: Send + Sync {
    /// What comes of it.
    type Out: Send;

    /// Does it.
    fn run(&self, line: &Line) -> impl Future<Output = Result<Self::Out, Fault>> + Send;
}

/// Waits that grow, each anywhere between half of its bound and all of it.
pub(super) struct Rest {
    bound: Duration,
    rng: Rng,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self { bound: FIRST, rng: Rng::from_os() }
    }

    pub(super) async fn take(&mut self) {
        let wait = self.bound.mul_f64(0.5 + self.rng.unit() / 2.0);
        self.bound = (self.bound * 2).min(MOST);
        sleep(wait).await;
    }
}

/// Connections to one database.
pub(super) struct Pool {
    place: Arc<Place>,
    idle: Mutex<Vec<Line>>,
    room: Semaphore,
    /// Cleared where the database cannot be written to. The pulse sets it again.
    writable: Arc<AtomicBool>,
    failures: metrics::Counter,
}

impl Pool {
    pub(super) fn new(place: Arc<Place>, connections: usize, writable: Arc<AtomicBool>) -> Self {
        let failures = names::COMMIT_FAILURES_TOTAL.counter(&["postgres"]);
        Self { place, idle: Mutex::default(), room: Semaphore::new(connections), writable, failures }
    }

    /// Counts a try that failed, and notes what `fault` says about the database: health checks are told.
    pub(super) fn note(&self, fault: &Fault) {
        self.failures.increment(1);
        if matches!(fault, Fault::Unreachable(_) | Fault::Refused(_)) && self.writable.swap(false, Ordering::Relaxed) {
            tracing::error!(store = "postgres", ?fault, "the store cannot write");
        }
    }

    /// Takes a connection: an idle one, or a new one.
    pub(super) async fn line(&self) -> Result<Line, Fault> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(line) if line.is_closed() => {}
                Some(line) => return Ok(line),
                None => return Line::dial(&self.place).await,
            }
        }
    }

    /// Gives one back that is at rest.
    pub(super) fn give(&self, line: Line) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Does `errand`, again where that may help, until [`PATIENCE`] is over.
    pub(super) async fn run<E: Errand>(&self, errand: &E) -> Result<E::Out, StoreError> {
        let clock = SystemClock;
        let until = clock.mono() + PATIENCE;
        let left = |now: Mono| until.since(now);
        let _room = match timeout(PATIENCE, self.room.acquire()).await {
            Ok(permit) => permit.map_err(|_| StoreError::Stopped)?,
            Err(_) => return Err(StoreError::Overloaded),
        };
        let (mut rest, mut sent) = (Rest::new(), false);
        loop {
            let fault = match timeout(left(clock.mono()), self.attempt(errand)).await {
                Ok(Ok(out)) => return Ok(out),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Lost("out of time".into()),
            };
            self.note(&fault);
            if !fault.passing() || left(clock.mono()) < MOST {
                return Err(fault.told(sent));
            }
            sent |= matches!(fault, Fault::Lost(_));
            tracing::debug!(?fault, "tried again");
            rest.take().await;
        }
    }

    async fn attempt<E: Errand>(&self, errand: &E) -> Result<E::Out, Fault> {
        let line = self.line().await?;
        let done = errand.run(&line).await;
        // After a fault it may be in the middle of something, or at a server that has stopped taking orders.
        if done.is_ok() {
            self.give(line);
        }
        done
    }
}
