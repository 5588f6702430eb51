//! Claims, merged: those that wait share a statement, which is a transaction of its own.
//!
//! ```text
//!   callers -> bounded queue -> hands, a connection each: up to 256 claims -> one statement -> answers
//! ```
//!
//! The statement locks the buckets it takes from, inserts the orders that they can pay for, their places in the outbox, and
//! counts; all of it or nothing. What it did not insert is looked up: an order of before, a key of before, or a bucket that
//! was empty, which another may make up for in the next round. A hand that loses its connection makes another and says the
//! same again: the numbers are the same, so there is never a second order. It stops when nobody waits any more. Where the
//! database is held under a newer epoch than ours, the buckets say so, and nothing is taken from them (see `fence`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::fence::Held;
use super::line::{Line, Sql};
use super::pool::{PATIENCE, Pool, Rest};
use super::rows::{self, order_columns};
use crate::base::clock::{Clock, Mono, SystemClock, Wall};
use crate::base::task::{Task, spawn};
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::{Claimed, Hold, Ruling, StoreError, judge};
use crate::redpacket::model::{Claim, GiftId, IdempotencyKey, Order, OrderNo, UserId};

/// Claims in one statement; request merging as in RED_PACKET 2.7.
const BATCH: usize = 256;
/// Claims waiting for a hand; more are refused.
const QUEUE: usize = 16 * BATCH;
/// Rounds in which claims may change buckets before others, who take from them all the time, are blamed.
const ROUNDS: usize = 16;

static CLAIM: Sql = Sql {
    text: "WITH wish AS MATERIALIZED ( \
             SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
               $8::text[], $9::smallint[], $10::bigint[]) WITH ORDINALITY \
               AS w(order_no, activity_id, packet_id, user_id, gift_id, zone_id, role_id, idempotency_key, bucket, now, ord) \
           ), locked AS MATERIALIZED ( \
             SELECT b.gift_id, b.idx, b.quota - b.issued AS free, b.epoch FROM bucket b \
             WHERE (b.gift_id, b.idx) IN (SELECT gift_id, bucket FROM wish) ORDER BY b.gift_id, b.idx FOR NO KEY UPDATE OF b \
           ), fit AS ( \
             SELECT w.*, l.free, row_number() OVER (PARTITION BY w.gift_id, w.bucket ORDER BY w.ord) AS place \
             FROM wish w JOIN locked l ON l.gift_id = w.gift_id COLLATE \"C\" AND l.idx = w.bucket WHERE l.epoch <= $12 \
           ), made AS ( \
             INSERT INTO orders (order_no, activity_id, packet_id, user_id, gift_id, zone_id, role_id, idempotency_key, \
               bucket, created, due, updated) \
             SELECT order_no, activity_id, packet_id, user_id, gift_id, zone_id, role_id, idempotency_key, bucket, now, now, \
               now FROM fit WHERE place <= free ORDER BY order_no \
             ON CONFLICT DO NOTHING RETURNING order_no, gift_id, bucket, created \
           ), queued AS ( \
             INSERT INTO outbox (order_no, due, created, updated) SELECT order_no, created, created, created FROM made \
           ), taken AS ( \
             UPDATE bucket b SET issued = b.issued + m.n \
             FROM (SELECT gift_id, bucket, count(*) AS n FROM made GROUP BY gift_id, bucket) m \
             WHERE b.gift_id = m.gift_id AND b.idx = m.bucket RETURNING b.gift_id, b.idx, b.quota - b.issued AS free \
           ), counted AS ( \
             UPDATE tally t SET accepted = t.accepted + m.n FROM (SELECT count(*) AS n FROM made) m \
             WHERE t.slot = $11 AND m.n > 0 \
           ) SELECT order_no, NULL::text, NULL::smallint, NULL::bigint, NULL::bigint FROM made \
             UNION ALL SELECT NULL, gift_id, idx, free, $12 FROM taken \
             UNION ALL SELECT NULL, gift_id, idx, 0, epoch FROM locked WHERE epoch > $12",
    types: &[
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2,
        Type::INT8,
    ],
};

static BY_NUMBER: Sql = Sql {
    text: concat!(
        "SELECT ",
        order_columns!(),
        " FROM orders o LEFT JOIN outbox q USING (order_no) WHERE o.order_no = ANY($1)"
    ),
    types: &[Type::BYTEA_ARRAY],
};

static BY_KEY: Sql = Sql {
    text: "SELECT o.order_no, o.user_id, o.idempotency_key FROM unnest($1::text[], $2::text[]) AS k(user_id, key) \
           JOIN orders o ON o.user_id = k.user_id COLLATE \"C\" AND o.idempotency_key = k.key COLLATE \"C\"",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

static FREE: Sql = Sql {
    text: "SELECT gift_id, idx, quota - issued, epoch FROM bucket WHERE gift_id = ANY($1) ORDER BY gift_id, idx",
    types: &[Type::TEXT_ARRAY],
};

/// A claim that waits for its answer.
struct Job {
    claim: Claim,
    now: Wall,
    reply: oneshot::Sender<Result<Claimed, StoreError>>,
    /// When it has waited long enough, whoever still waits.
    until: Mono,
    /// Whether it may have been done by a try whose outcome is not known.
    sent: bool,
}

/// The callers' side.
pub(super) struct Desk {
    queue: mpsc::Sender<Job>,
    _hands: Vec<Task>,
}

impl Desk {
    /// `hands` hands that serve claims as `held` says, over connections of `pool`, and say in `writable` whether they can.
    pub(super) fn open(pool: &Arc<Pool>, hands: usize, writable: &Arc<AtomicBool>, held: &Arc<Held>) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let hand = |at: usize| {
            let hand = Hand {
                pool: pool.clone(),
                writable: writable.clone(),
                held: held.clone(),
                clock: SystemClock,
                first: at,
                line: None,
                free: HashMap::new(),
                newest: 0,
                batch_size: names::COMMIT_BATCH_SIZE.histogram(&["postgres"]),
                seconds: names::COMMIT_DURATION_SECONDS.histogram(&["postgres"]),
            };
            spawn("postgres-claims", hand.run(jobs.clone()))
        };
        Self { queue, _hands: (0..hands).map(hand).collect() }
    }

    /// Makes the order that `claim` asks for, or refuses at once where too many wait.
    pub(super) async fn claim(&self, claim: Claim, now: Wall) -> Result<Claimed, StoreError> {
        let (reply, answer) = oneshot::channel();
        let until = SystemClock.mono() + PATIENCE;
        self.queue.try_send(Job { claim, now, reply, until, sent: false }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown { reason: "the store stopped".into() }))
    }
}

/// Serves claims, a batch at a time.
struct Hand {
    pool: Arc<Pool>,
    writable: Arc<AtomicBool>,
    held: Arc<Held>,
    clock: SystemClock,
    /// Which bucket it takes from first: another than its neighbours.
    first: usize,
    line: Option<Line>,
    /// What buckets had left when last heard of: a hint which to try, never a reason to refuse.
    free: HashMap<GiftId, Vec<(i16, i64)>>,
    /// The newest epoch that a bucket has shown in this try.
    newest: i64,
    batch_size: metrics::Histogram,
    seconds: metrics::Histogram,
}

impl Hand {
    async fn run(mut self, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
        loop {
            let mut batch = Vec::new();
            if jobs.lock().await.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            self.serve(batch).await;
        }
    }

    /// Answers all of `batch`, however often that must be tried.
    async fn serve(&mut self, mut batch: Vec<Job>) {
        let mut rest = Rest::new();
        loop {
            // Whoever stopped waiting finds the outcome under the same number.
            batch.retain(|job| !job.reply.is_closed());
            if batch.is_empty() {
                return;
            }
            let started = self.clock.mono();
            self.batch_size.record(batch.len() as f64);
            let fault = match self.attempt(&mut batch).await {
                Ok(()) => {
                    self.seconds.record(self.clock.mono().since(started).as_secs_f64());
                    self.writable.store(true, Ordering::Relaxed);
                    return;
                }
                Err(fault) => fault,
            };
            self.line = None;
            self.pool.note(&fault);
            let now = self.clock.mono();
            let (mut left, mut over) = (Vec::with_capacity(batch.len()), Vec::new());
            for mut job in batch {
                job.sent |= matches!(fault, Fault::Lost(_));
                if fault.passing() && now < job.until { left.push(job) } else { over.push(job) }
            }
            for job in over {
                // Nobody waits: nothing to tell.
                let _ = job.reply.send(Err(fault.clone().told(job.sent)));
            }
            batch = left;
            rest.take().await;
        }
    }

    /// One try: answers those of `batch` that it can, and leaves the others in it.
    async fn attempt(&mut self, batch: &mut Vec<Job>) -> Result<(), Fault> {
        let line = match self.line.take() {
            Some(line) if !line.is_closed() => line,
            _ => self.pool.line().await?,
        };
        let hold = self.held.hold();
        send_elsewhere(hold, batch);
        let epoch = hold.map_or(0, |hold| i64::try_from(hold.epoch).unwrap_or(i64::MAX));
        self.newest = 0;
        for _ in 0..ROUNDS {
            self.hear_of_new_gifts(&line, batch).await?;
            let wishes = self.wishes(batch);
            let made = if wishes.is_empty() { HashSet::new() } else { self.make(&line, batch, &wishes, epoch).await? };
            let mut unmade = Vec::new();
            for (at, job) in batch.drain(..).enumerate() {
                let leads = wishes.iter().any(|wish| wish.at == at);
                if leads && made.contains(&job.claim.number()) {
                    // As below: nobody waits, nothing to tell.
                    let _ = job.reply.send(Ok(Claimed::Accepted(Order::accept(job.claim, job.now))));
                } else {
                    unmade.push(job);
                }
            }
            *batch = unmade;
            if !batch.is_empty() {
                // Stock before orders: where nothing was left, whoever took it had committed by then, so their orders are seen.
                self.count(&line, batch.iter().map(|job| job.claim.gift_id.as_str()).collect()).await?;
                self.stand_back(batch, epoch)?;
                self.look_up(&line, batch).await?;
            }
            if batch.is_empty() {
                self.line = Some(line);
                return Ok(());
            }
        }
        Err(Fault::Undone("others took from every bucket that was tried".into()))
    }

    /// Refuses all of `batch` where the database is held under a newer epoch than `epoch`.
    fn stand_back(&self, batch: &mut Vec<Job>, epoch: i64) -> Result<(), Fault> {
        if self.newest <= epoch {
            return Ok(());
        }
        let newest = self.newest.cast_unsigned();
        if self.held.is_coming(newest) {
            return Err(Fault::Undone("the store is being held anew, by ourselves".into()));
        }
        for job in batch.drain(..) {
            let error = if job.sent {
                StoreError::Unknown { reason: "an earlier try may have been done".into() }
            } else {
                StoreError::Fenced { epoch: newest }
            };
            // As above: nobody waits, nothing to tell.
            let _ = job.reply.send(Err(error));
        }
        Ok(())
    }

    /// Which claims go into the statement, and what bucket is to pay for them: one for each number and for each key (the
    /// others learn what became of the first), none where nothing is known to be left.
    fn wishes(&self, batch: &[Job]) -> Vec<Wish> {
        let (mut numbers, mut keys) = (HashSet::new(), HashSet::<(&UserId, &IdempotencyKey)>::new());
        let mut free: HashMap<&GiftId, Vec<(i16, i64)>> =
            self.free.iter().map(|(gift, buckets)| (gift, buckets.clone())).collect();
        let mut wishes = Vec::with_capacity(batch.len());
        for (at, job) in batch.iter().enumerate() {
            let claim = &job.claim;
            let first_of_key = claim.idempotency_key.as_ref().is_none_or(|key| keys.insert((&claim.user_id, key)));
            if !numbers.insert(claim.number()) || !first_of_key {
                continue;
            }
            let Some(buckets) = free.get_mut(&claim.gift_id) else { continue };
            let own = self.first % buckets.len().max(1);
            let chosen = match buckets.get(own) {
                Some((_, left)) if *left > 0 => Some(own),
                _ => (0..buckets.len()).max_by_key(|i| buckets[*i].1).filter(|i| buckets[*i].1 > 0),
            };
            if let Some(bucket) = chosen.and_then(|i| buckets.get_mut(i)) {
                bucket.1 -= 1;
                wishes.push(Wish { at, bucket: bucket.0 });
            }
        }
        wishes
    }

    async fn make(
        &mut self,
        line: &Line,
        batch: &[Job],
        wishes: &[Wish],
        epoch: i64,
    ) -> Result<HashSet<OrderNo>, Fault> {
        let jobs: Vec<&Job> = wishes.iter().filter_map(|wish| batch.get(wish.at)).collect();
        let numbers: Vec<OrderNo> = jobs.iter().map(|job| job.claim.number()).collect();
        let numbers: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let of = |read: fn(&Claim) -> &str| -> Vec<&str> { jobs.iter().map(|job| read(&job.claim)).collect() };
        let (activities, packets) = (of(|c| c.activity_id.as_str()), of(|c| c.packet_id.as_str()));
        let (users, gifts) = (of(|c| c.user_id.as_str()), of(|c| c.gift_id.as_str()));
        let (zones, roles) = (of(|c| c.zone_id.as_str()), of(|c| c.role_id.as_str()));
        let keys: Vec<Option<&str>> =
            jobs.iter().map(|job| job.claim.idempotency_key.as_ref().map(IdempotencyKey::as_str)).collect();
        let buckets: Vec<i16> = wishes.iter().map(|wish| wish.bucket).collect();
        let times: Vec<i64> = jobs.iter().map(|job| rows::at(job.now)).collect();
        let rows = line
            .ask(
                &CLAIM,
                &[
                    &numbers,
                    &activities,
                    &packets,
                    &users,
                    &gifts,
                    &zones,
                    &roles,
                    &keys,
                    &buckets,
                    &times,
                    &line.slot,
                    &epoch,
                ],
            )
            .await?;
        let mut made = HashSet::with_capacity(rows.len());
        for row in &rows {
            if let Some(gift) = row.try_get::<_, Option<&str>>(1)? {
                self.hear(gift, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
            } else {
                made.insert(rows::number(row, 0)?);
            }
        }
        Ok(made)
    }

    /// Finds out about gifts that this hand has not met.
    async fn hear_of_new_gifts(&mut self, line: &Line, batch: &[Job]) -> Result<(), Fault> {
        let gifts: BTreeSet<&str> = batch
            .iter()
            .map(|job| &job.claim.gift_id)
            .filter(|gift| !self.free.contains_key(*gift))
            .map(GiftId::as_str)
            .collect();
        if gifts.is_empty() { Ok(()) } else { self.count(line, gifts).await }
    }

    async fn count(&mut self, line: &Line, gifts: BTreeSet<&str>) -> Result<(), Fault> {
        let gifts: Vec<&str> = gifts.into_iter().collect();
        for row in line.ask(&FREE, &[&gifts]).await? {
            self.hear(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        }
        Ok(())
    }

    fn hear(&mut self, gift: &str, bucket: i16, free: i64, epoch: i64) {
        self.newest = self.newest.max(epoch);
        let Ok(gift) = GiftId::parse(gift) else { return };
        let buckets = self.free.entry(gift).or_default();
        match buckets.iter_mut().find(|(idx, _)| *idx == bucket) {
            Some(known) => known.1 = free,
            None => buckets.push((bucket, free)),
        }
    }

    /// Answers those whose orders, keys or stock say what to answer; leaves those that can be had from another bucket.
    async fn look_up(&mut self, line: &Line, batch: &mut Vec<Job>) -> Result<(), Fault> {
        if batch.is_empty() {
            return Ok(());
        }
        let keys = under_keys(line, batch).await?;
        let numbers: Vec<OrderNo> = batch.iter().map(|job| job.claim.number()).collect();
        let numbers: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let mut orders = HashMap::with_capacity(numbers.len());
        for row in line.ask(&BY_NUMBER, &[&numbers]).await? {
            let order = rows::order(&row)?;
            orders.insert(order.order_no, order);
        }
        let mut waiting = Vec::new();
        for job in batch.drain(..) {
            let order = orders.get(&job.claim.number());
            let key = job.claim.idempotency_key.clone().map(|key| (job.claim.user_id.clone(), key));
            let under_key = key.and_then(|key| keys.get(&key)).copied();
            let left = self.free.get(&job.claim.gift_id);
            let left = left.map(|all| all.iter().map(|(_, n)| u64::try_from(*n).unwrap_or_default()).sum());
            let claimed = match (judge(&job.claim, order, under_key, left), order) {
                (Ruling::Take, _) => {
                    waiting.push(job);
                    continue;
                }
                (Ruling::Same, Some(order)) => Claimed::Already(order.clone()),
                (Ruling::Conflict | Ruling::Same, _) => Claimed::KeyConflict,
                (Ruling::SoldOut, _) => Claimed::SoldOut,
                (Ruling::NoSuchGift, _) => Claimed::NoSuchGift,
            };
            let _ = job.reply.send(Ok(claimed));
        }
        *batch = waiting;
        Ok(())
    }
}

/// Refuses what is not for us to decide.
fn send_elsewhere(hold: Option<Hold>, batch: &mut Vec<Job>) {
    let Some(hold) = hold else { return };
    for job in batch.extract_if(.., |job| !hold.decides(job.claim.number())) {
        // Nobody waits: nothing to tell.
        let _ = job.reply.send(Err(StoreError::Fenced { epoch: hold.epoch }));
    }
}

/// The orders under the keys of these claims.
async fn under_keys(line: &Line, batch: &[Job]) -> Result<HashMap<(UserId, IdempotencyKey), OrderNo>, Fault> {
    let named =
        batch.iter().filter_map(|job| Some((job.claim.user_id.as_str(), job.claim.idempotency_key.as_ref()?.as_str())));
    let (users, keys): (Vec<&str>, Vec<&str>) = named.unzip();
    let mut found = HashMap::new();
    if keys.is_empty() {
        return Ok(found);
    }
    for row in line.ask(&BY_KEY, &[&users, &keys]).await? {
        let (user, key) = (UserId::parse(row.try_get(1)?), IdempotencyKey::parse(row.try_get(2)?));
        if let (Ok(user), Ok(key)) = (user, key) {
            found.insert((user, key), rows::number(&row, 0)?);
        }
    }
    Ok(found)
}

/// A claim of the batch that goes into the statement.
struct Wish {
    at: usize,
    bucket: i16,
}
