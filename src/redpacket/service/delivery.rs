//! The delivery worker: takes orders that are due, tells the game, writes down what came of it.
//!
//! At least once, with the order number as the key by which the game tells repeats: once in effect. Never faster than its
//! rate, catching up included; retries wait with full jitter, 1 s to 1 h; what fails too often, or is refused for good,
//! is DEAD and left to a person. It runs inside the claim process on the store itself, or in a process of its own on the
//! claim processes' `/internal` calls. A worker that dies loses nothing: its leases end, and others take them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use metrics::Counter;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Mono, SystemClock};
use crate::base::entropy::Rng;
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::Store;
use crate::redpacket::model::{Failure, Order, OrderNo, Settlement, Verdict};
use crate::redpacket::pace::{Backoff, Bucket};
use crate::redpacket::peer::{CallError, Peer};

/// How often an idle worker looks for orders that have become due; new ones wake it.
const POLL: Duration = Duration::from_millis(200);
/// How long it leaves a source alone that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Words that are written down together, at most.
const WORDS: usize = 128;
/// How long a word may wait for company.
const GATHER: Duration = Duration::from_millis(10);
/// How much of the rate may come at once: timers are no finer than a millisecond, and a game feels no 10 ms.
const BURST: Duration = Duration::from_millis(10);
/// How long a call to a claim process may take.
const SOURCE_LIMIT: Duration = Duration::from_secs(5);
/// How often a stopping worker tries to write its last words.
const LAST_TRIES: u32 = 3;

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// A source could not be reached or did not do it; it is asked again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
struct SourceError {
    /// What was said.
    reason: String,
}

/// How gently to go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Deliveries a second, at most.
    pub rate: f64,
    /// Deliveries at once, at most.
    pub concurrency: usize,
    /// How long the game may take for one.
    pub limit: Duration,
    /// How long an order is kept from other workers. More than `limit`, or every slow delivery is made twice.
    pub lease: Duration,
    /// Retries.
    pub backoff: Backoff,
}

impl Default for Pace {
    /// Ours: a game that takes 500 a second on 32 connections, in 2 s at most.
    fn default() -> Self {
        Self {
            rate: 500.0,
            concurrency: 32,
            limit: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}

/// Where orders come from and words go to.
pub enum Source {
    /// The store in this process.
    Store(Arc<dyn Store>),
    /// A claim process elsewhere.
    Claims(Peer),
}

impl Source {
    fn lease(&self, limit: usize, hold: Duration) -> Later<'_, Vec<Order>> {
        Box::pin(async move {
            match self {
                Self::Store(store) => {
                    let now = SystemClock.wall();
                    store.lease(limit, now + hold, now).await.map_err(|e| refused(&e))
                }
                Self::Claims(peer) => {
                    #[derive(Deserialize)]
                    struct Leased {
                        orders: Vec<Order>,
                    }
                    let ask = json!({ "limit": limit, "lease_ms": hold.as_millis() as u64 });
                    let Leased { mut orders } = call(peer, "/internal/lease", &ask).await?;
                    orders.truncate(limit);
                    Ok(orders)
                }
            }
        })
    }

    fn settle<'a>(&'a self, words: &'a [Settlement]) -> Later<'a, ()> {
        Box::pin(async move {
            match self {
                Self::Store(store) => {
                    store.settle(words.to_vec(), SystemClock.wall()).await.map(drop).map_err(|e| refused(&e))
                }
                Self::Claims(peer) => {
                    let say = json!({ "words": words });
                    call::<serde_json::Value>(peer, "/internal/settle", &say).await.map(drop)
                }
            }
        })
    }
}

fn refused(error: &impl ToString) -> SourceError {
    SourceError { reason: error.to_string() }
}

async fn call<T: for<'de> Deserialize<'de>>(
    peer: &Peer,
    path: &str,
    body: &serde_json::Value,
) -> Result<T, SourceError> {
    let reply = peer.post(path, body.to_string().into(), SOURCE_LIMIT).await.map_err(|e| refused(&e))?;
    if reply.status != StatusCode::OK {
        return Err(SourceError { reason: format!("{path} answered {}", reply.status) });
    }
    serde_json::from_slice(&reply.body).map_err(|e| refused(&e))
}

/// Delivers what one source has.
pub struct Worker {
    source: Source,
    game: Arc<Peer>,
    pace: Pace,
    /// Shared by all workers of a process: the game has one rate, however many sources there are.
    bucket: Arc<Mutex<Bucket>>,
    wake: Arc<Notify>,
    clock: SystemClock,
    rng: Rng,
    delivered: Counter,
    failed: Vec<(Failure, Counter)>,
    dead: Counter,
}

impl Worker {
    /// Delivers the orders of `source` to `game`.
    pub fn new(source: Source, game: Arc<Peer>, pace: Pace) -> Self {
        let count = |result| names::DELIVERIES_TOTAL.counter(&[result]);
        Self {
            source,
            game,
            pace,
            bucket: Arc::new(Mutex::new(Bucket::new(pace.rate, (pace.rate * BURST.as_secs_f64()) as u32))),
            wake: Arc::new(Notify::new()),
            clock: SystemClock,
            rng: Rng::from_os(),
            delivered: count("delivered"),
            failed: Failure::ALL.iter().map(|f| (*f, count(f.as_str()))).collect(),
            dead: count("dead"),
        }
    }

    /// Together with `other`, at one rate.
    #[must_use]
    pub fn sharing(mut self, other: &Self) -> Self {
        self.bucket = other.bucket.clone();
        self
    }

    /// Woken by `wake` when there is something new.
    #[must_use]
    pub fn woken_by(mut self, wake: Arc<Notify>) -> Self {
        self.wake = wake;
        self
    }

    /// Works until `stop`, then lets what is under way end and writes it down.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut hands = Hands::default();
        loop {
            let stopping = stop.is_cancelled();
            if stopping {
                // Not begun: their leases end, and whoever comes next takes them.
                hands.waiting.clear();
                if hands.running.is_empty() && self.settle_last(&mut hands).await {
                    return;
                }
            }
            let pause = self.start(&mut hands);
            self.settle(&mut hands).await;
            self.fetch(&mut hands, stopping).await;
            let wait = if hands.waiting.is_empty() { POLL } else { pause };
            let wait = if hands.words.is_empty() { wait } else { wait.min(GATHER) };
            tokio::select! {
                Some(done) = hands.running.join_next(), if !hands.running.is_empty() => {
                    // A panic leaves the order to the end of its lease.
                    if let Ok((order, outcome)) = done {
                        let word = self.judge(&order, outcome);
                        hands.words.push(word);
                    }
                }
                () = self.wake.notified(), if !stopping => hands.next_look = Mono::ZERO,
                () = stop.cancelled(), if !stopping => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Starts what the rate and the number of hands allow. Says how long until it may start more.
    fn start(&mut self, hands: &mut Hands) -> Duration {
        while hands.running.len() < self.pace.concurrency {
            let Some(order) = hands.waiting.front() else { break };
            // Too late to be sure of ending within the lease: leave it to the next holder.
            if order.due.since(self.clock.wall()) < self.pace.limit {
                hands.waiting.pop_front();
                continue;
            }
            let taken = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.mono());
            if let Err(wait) = taken {
                return wait.min(POLL);
            }
            if let Some(order) = hands.waiting.pop_front() {
                let (game, limit) = (self.game.clone(), self.pace.limit);
                hands.running.spawn(async move {
                    let outcome = deliver(&game, &order, limit).await;
                    (order, outcome)
                });
            }
        }
        POLL
    }

    /// Leases more where hands are free, but no more than can be begun well within the lease.
    async fn fetch(&mut self, hands: &mut Hands, stopping: bool) {
        let free = self.pace.concurrency.saturating_sub(hands.running.len());
        let spare = self.pace.lease.saturating_sub(self.pace.limit).as_secs_f64() / 2.0;
        let limit = free.min((self.pace.rate * spare).ceil() as usize).min(WORDS);
        let now = self.clock.mono();
        let full = hands.words.len() >= WORDS || !hands.waiting.is_empty();
        if stopping || full || limit == 0 || now < hands.next_look {
            return;
        }
        let pause = match self.source.lease(limit, self.pace.lease).await {
            Ok(orders) if orders.is_empty() => POLL,
            Ok(orders) => {
                hands.waiting.extend(orders);
                self.start(hands);
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "no orders to be had");
                PAUSE
            }
        };
        hands.next_look = self.clock.mono() + pause;
    }

    /// Writes words down when they are many, or have waited, or nothing else is going on.
    async fn settle(&mut self, hands: &mut Hands) {
        let now = self.clock.mono();
        if hands.words.is_empty() {
            hands.gathering_since = now;
            return;
        }
        let ripe = hands.words.len() >= WORDS || hands.running.is_empty() || now.since(hands.gathering_since) >= GATHER;
        if ripe && now >= hands.next_word {
            let batch = hands.words.len().min(WORDS);
            match self.source.settle(&hands.words[..batch]).await {
                Ok(()) => drop(hands.words.drain(..batch)),
                Err(error) => {
                    tracing::warn!(%error, words = hands.words.len(), "deliveries could not be written down");
                    hands.next_word = self.clock.mono() + PAUSE;
                }
            }
        }
    }

    /// The last words of a stopping worker. True when there is nothing left to say, or nobody to say it to.
    async fn settle_last(&mut self, hands: &mut Hands) -> bool {
        for _ in 0..LAST_TRIES {
            while !hands.words.is_empty() {
                let batch = hands.words.len().min(WORDS);
                if self.source.settle(&hands.words[..batch]).await.is_err() {
                    break;
                }
                hands.words.drain(..batch);
            }
            if hands.words.is_empty() {
                return true;
            }
            sleep(POLL).await;
        }
        tracing::warn!(words = hands.words.len(), "deliveries made and not written down will be repeated");
        true
    }

    fn judge(&mut self, order: &Order, outcome: Result<(), Failure>) -> Settlement {
        let verdict = match outcome {
            Ok(()) => {
                self.delivered.increment(1);
                Verdict::Delivered
            }
            Err(why) => {
                if let Some((_, counter)) = self.failed.iter().find(|(f, _)| *f == why) {
                    counter.increment(1);
                }
                let wait = self.pace.backoff.wait(order.tries(), self.rng.next_u64());
                if let Some(wait) = wait.filter(|_| why != Failure::Refused) {
                    Verdict::Retry { at: self.clock.wall() + wait, why }
                } else {
                    self.dead.increment(1);
                    let (order_no, attempts) = (order.order_no, order.attempts);
                    tracing::error!(%order_no, attempts, why = why.as_str(), "given up");
                    Verdict::Dead { why }
                }
            }
        };
        Settlement { order_no: order.order_no, attempt: order.attempts, verdict }
    }
}

/// What a worker has in its hands.
#[derive(Default)]
struct Hands {
    /// Leased, not begun.
    waiting: VecDeque<Order>,
    /// Under way.
    running: JoinSet<(Order, Result<(), Failure>)>,
    /// Done, not written down.
    words: Vec<Settlement>,
    gathering_since: Mono,
    next_look: Mono,
    next_word: Mono,
}

/// Tells the game. Every failure is one of the closed list; what the game's answer means is decided here alone.
async fn deliver(game: &Peer, order: &Order, limit: Duration) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Receipt {
        order_no: OrderNo,
    }
    let claim = &order.claim;
    let body = json!({
        "order_no": order.order_no,
        "activity_id": claim.activity_id,
        "user_id": claim.user_id,
        "gift_id": claim.gift_id,
        "zone_id": claim.zone_id,
        "role_id": claim.role_id,
    });
    let reply = game.post("/deliver", Bytes::from(body.to_string()), limit).await.map_err(|e| match e {
        CallError::Timeout => Failure::Timeout,
        CallError::Reply | CallError::Request(_) => Failure::Garbage,
        _ => Failure::Unreachable,
    })?;
    match reply.status {
        status if status.is_success() => {
            let receipt: Receipt = serde_json::from_slice(&reply.body).map_err(|_| Failure::Garbage)?;
            if receipt.order_no == order.order_no { Ok(()) } else { Err(Failure::Garbage) }
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::TOO_EARLY => {
            Err(Failure::Unavailable)
        }
        status if status.is_client_error() => Err(Failure::Refused),
        _ => Err(Failure::Unavailable),
    }
}

#[cfg(test)]
mod tests;
