//! The delivery worker: takes what is due, tells the other side, writes down what came of it: gifts to their games, shares of
//! cash packets to the wallet.
//!
//! At least once, with the order number as the key by which the game tells repeats: once in effect. Never faster than a
//! game's rate, catching up included, and slower where it fails or slows down ([`Games`]); retries wait with full jitter, 1 s
//! to 1 h, for 48 h; what fails longer, or is refused for good, is DEAD and left to a person. It runs
//! inside the claim or packet process on the store itself, or in a process of its own on the claim processes' `/internal` calls. A worker that dies loses nothing: its leases end, and others take them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Mono, SystemClock, Wall};
use crate::base::entropy::Rng;
use crate::redpacket::ledger::Store;
use crate::redpacket::ledger::cash::PacketStore;
use crate::redpacket::model::cash::{Booking, Share};
use crate::redpacket::model::{Failure, GiftId, Order, OrderNo, Settlement, Verdict};
use crate::redpacket::pace::Backoff;
use crate::redpacket::peer::{CallError, Peer};

/// How often an idle worker looks for orders that have become due; new ones wake it.
const POLL: Duration = Duration::from_millis(200);
/// How long it leaves a source alone that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Words that are written down together, at most.
const WORDS: usize = 128;
/// How long a word may wait for company.
const GATHER: Duration = Duration::from_millis(10);
/// How far an order is put off at most, whose game takes no more at the moment.
const FARTHEST: Duration = Duration::from_mins(2);
/// How long a call to a claim process may take.
const SOURCE_LIMIT: Duration = Duration::from_secs(5);
/// How often a stopping worker tries to write its last words.
const LAST_TRIES: u32 = 3;

mod games;

pub use games::{Games, Homeless};

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
    /// Deliveries a second to a game, at most.
    pub rate: f64,
    /// Deliveries to a game at once, at most.
    pub concurrency: usize,
    /// How long the game may take for one.
    pub limit: Duration,
    /// From when on an answer counts as slow: the rate goes down, as after a failure.
    pub slow: Duration,
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
            slow: Duration::from_millis(500),
            lease: Duration::from_secs(10),
            backoff: Backoff::default(),
        }
    }
}

/// Something to deliver, and under which number and attempt.
#[derive(Clone, Debug)]
struct Errand {
    order_no: OrderNo,
    /// What is given, where that says whom to tell.
    gift: Option<GiftId>,
    attempts: u32,
    /// Those that a limit of attempts counts.
    tries: u32,
    /// Until when it is ours.
    due: Wall,
    created: Wall,
    /// What the other side is told.
    body: Bytes,
}

impl From<&Order> for Errand {
    fn from(order: &Order) -> Self {
        let claim = &order.claim;
        let body = json!({
            "order_no": order.order_no,
            "activity_id": claim.activity_id,
            "user_id": claim.user_id,
            "gift_id": claim.gift_id,
            "zone_id": claim.zone_id,
            "role_id": claim.role_id,
        });
        let (gift, body) = (Some(claim.gift_id.clone()), body.to_string().into());
        let Order { order_no, attempts, due, created, .. } = *order;
        Self { order_no, gift, attempts, tries: order.tries(), due, created, body }
    }
}

impl From<&Share> for Errand {
    fn from(share: &Share) -> Self {
        let body = json!({
            "order_no": share.order_no,
            "packet_id": share.packet_id,
            "user_id": share.user_id,
            "amount_fen": share.amount_fen,
        });
        let (order_no, created, body) = (share.order_no, share.opened, body.to_string().into());
        let Booking { attempts, due, .. } = share.booking;
        Self { order_no, gift: None, attempts, tries: share.booking.tries(), due, created, body }
    }
}

/// Where orders come from and words go to.
pub enum Source {
    /// The store in this process.
    Store(Arc<dyn Store>),
    /// The store of cash packets in this process: what is delivered are shares, to the wallet.
    Packets(Arc<dyn PacketStore>),
    /// A claim process elsewhere.
    Claims(Peer),
}

impl Source {
    fn lease(&self, limit: usize, hold: Duration) -> Later<'_, Vec<Errand>> {
        Box::pin(async move {
            let now = SystemClock.wall();
            match self {
                Self::Store(store) => {
                    let orders = store.lease(limit, now + hold, now).await.map_err(|e| refused(&e))?;
                    Ok(orders.iter().map(Errand::from).collect())
                }
                Self::Packets(store) => {
                    let shares = store.lease(limit, now + hold, now).await.map_err(|e| refused(&e))?;
                    Ok(shares.iter().map(Errand::from).collect())
                }
                Self::Claims(peer) => {
                    #[derive(Deserialize)]
                    struct Leased {
                        orders: Vec<Order>,
                    }
                    let ask = json!({ "limit": limit, "lease_ms": hold.as_millis() as u64 });
                    let Leased { orders } = call(peer, "/internal/lease", &ask).await?;
                    Ok(orders.iter().take(limit).map(Errand::from).collect())
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
                Self::Packets(store) => {
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
    /// Shared by all workers of a process: a game has one rate, however many sources there are.
    games: Arc<Games>,
    pace: Pace,
    wake: Arc<Notify>,
    clock: SystemClock,
    rng: Rng,
}

impl Worker {
    /// Delivers the orders of `source` to `games`.
    pub fn new(source: Source, games: Arc<Games>, pace: Pace) -> Self {
        Self { source, games, pace, wake: Arc::new(Notify::new()), clock: SystemClock, rng: Rng::from_os() }
    }

    /// Woken by `wake` when there is something new.
    #[must_use]
    pub fn woken_by(mut self, wake: Arc<Notify>) -> Self {
        self.wake = wake;
        self
    }

    /// Works until `stop`, then lets what is under way end and writes it down.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut hands = Hands::of(self.games.len());
        loop {
            let stopping = stop.is_cancelled();
            if stopping {
                // Not begun: their leases end, and whoever comes next takes them.
                hands.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
                if hands.running.is_empty() && self.settle_last(&mut hands).await {
                    return;
                }
            }
            let pause = self.start(&mut hands);
            self.settle(&mut hands).await;
            self.fetch(&mut hands, stopping).await;
            let wait = if hands.words.is_empty() { pause } else { pause.min(GATHER) };
            tokio::select! {
                Some(done) = hands.running.join_next(), if !hands.running.is_empty() => {
                    // A panic leaves the order to the end of its lease.
                    if let Ok((number, order, outcome)) = done {
                        if let Some(lane) = hands.lanes.get_mut(number) {
                            lane.running = lane.running.saturating_sub(1);
                        }
                        let word = self.judge(number, &order, outcome);
                        hands.words.push(word);
                    }
                }
                () = self.wake.notified(), if !stopping => hands.next_look = Mono::ZERO,
                () = stop.cancelled(), if !stopping => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Starts what the rates and the number of hands allow. Says how long until it may start more.
    fn start(&mut self, hands: &mut Hands) -> Duration {
        let mut pause = POLL;
        for (number, lane) in self.games.iter() {
            let Some(queue) = hands.lanes.get_mut(number) else { continue };
            while queue.running < self.pace.concurrency {
                let Some(order) = queue.waiting.front() else { break };
                // Too late to be sure of ending within the lease: leave it to the next holder.
                if order.due.since(self.clock.wall()) < self.pace.limit {
                    queue.waiting.pop_front();
                    continue;
                }
                if let Err(wait) = lane.take(self.clock.mono()) {
                    pause = pause.min(wait);
                    break;
                }
                let Some(order) = queue.waiting.pop_front() else { break };
                queue.running += 1;
                let (games, limit) = (Arc::clone(&self.games), self.pace.limit);
                hands.running.spawn(async move {
                    let outcome = tell(&games, number, &order, limit).await;
                    (number, order, outcome)
                });
            }
        }
        pause
    }

    /// Leases more where hands are free, but no more than can be begun well within the lease.
    async fn fetch(&mut self, hands: &mut Hands, stopping: bool) {
        let now = self.clock.mono();
        let rooms: Vec<usize> = self.games.iter().map(|(number, lane)| self.room(hands, number, lane.rate())).collect();
        let limit = rooms.iter().sum::<usize>().min(WORDS);
        if stopping || hands.words.len() >= WORDS || limit == 0 || now < hands.next_look {
            return;
        }
        let pause = match self.source.lease(limit, self.pace.lease).await {
            Ok(orders) if orders.is_empty() => POLL,
            Ok(orders) => {
                self.sort(hands, orders, &rooms);
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

    /// How many more orders of a lane can be begun well within a lease, at `rate`.
    fn room(&self, hands: &Hands, number: usize, rate: f64) -> usize {
        let spare = self.pace.lease.saturating_sub(self.pace.limit).as_secs_f64() / 2.0;
        match hands.lanes.get(number) {
            Some(lane) if lane.waiting.is_empty() => {
                self.pace.concurrency.saturating_sub(lane.running).min((rate * spare).ceil() as usize)
            }
            _ => 0,
        }
    }

    /// Puts each order into its game's lane. What finds no room there is put off to when its turn may be.
    fn sort(&self, hands: &mut Hands, orders: Vec<Errand>, rooms: &[usize]) {
        let now = self.clock.wall();
        for order in orders {
            let number = self.games.lane_of(order.gift.as_ref());
            let Some((number, lane)) = number.and_then(|number| Some((number, self.games.lane(number)?))) else {
                tracing::error!(order_no = %order.order_no, gift = ?order.gift, "nobody to tell of this gift");
                let verdict = Verdict::Retry { at: now + FARTHEST, why: Failure::Unreachable };
                hands.words.push(Settlement { order_no: order.order_no, attempt: order.attempts, verdict });
                continue;
            };
            let Some(queue) = hands.lanes.get_mut(number) else { continue };
            if queue.waiting.len() < rooms.get(number).copied().unwrap_or(0) {
                queue.waiting.push_back(order);
                continue;
            }
            lane.put_off();
            let step = Duration::from_secs_f64(1.0 / lane.rate().max(f64::MIN_POSITIVE)).min(FARTHEST);
            queue.turn = (queue.turn.max(now) + step).min(now + FARTHEST);
            let verdict = Verdict::Defer { at: queue.turn };
            hands.words.push(Settlement { order_no: order.order_no, attempt: order.attempts, verdict });
        }
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

    fn judge(&mut self, number: usize, order: &Errand, outcome: Result<(), Failure>) -> Settlement {
        let now = self.clock.wall();
        let verdict = match outcome {
            Ok(()) => Verdict::Delivered,
            Err(why) => {
                let wait = self.pace.backoff.wait(order.tries, now.since(order.created), self.rng.next_u64());
                if let Some(wait) = wait.filter(|_| why != Failure::Refused) {
                    Verdict::Retry { at: now + wait, why }
                } else {
                    if let Some(lane) = self.games.lane(number) {
                        lane.gave_up();
                    }
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
struct Hands {
    lanes: Vec<Queue>,
    /// Under way.
    running: JoinSet<(usize, Errand, Result<(), Failure>)>,
    /// Done, not written down.
    words: Vec<Settlement>,
    gathering_since: Mono,
    next_look: Mono,
    next_word: Mono,
}

/// What is for one game.
#[derive(Default)]
struct Queue {
    /// Leased, not begun.
    waiting: VecDeque<Errand>,
    running: usize,
    /// The turn of the last order that was put off.
    turn: Wall,
}

impl Hands {
    fn of(lanes: usize) -> Self {
        Self {
            lanes: (0..lanes).map(|_| Queue::default()).collect(),
            running: JoinSet::new(),
            words: Vec::new(),
            gathering_since: Mono::ZERO,
            next_look: Mono::ZERO,
            next_word: Mono::ZERO,
        }
    }
}

/// Tells the game of lane `number`, and its lane what came of it.
async fn tell(games: &Games, number: usize, order: &Errand, limit: Duration) -> Result<(), Failure> {
    let lane = games.lane(number).ok_or(Failure::Unreachable)?;
    let began = SystemClock.mono();
    let outcome = deliver(&lane.peer, order, limit).await;
    let now = SystemClock.mono();
    lane.felt(outcome, now.since(began), now);
    outcome
}

/// Tells the game. Every failure is one of the closed list; what the game's answer means is decided here alone.
async fn deliver(game: &Peer, order: &Errand, limit: Duration) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Receipt {
        order_no: OrderNo,
    }
    let body = order.body.clone();
    let reply = game.post("/deliver", body, limit).await.map_err(|e| match e {
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
