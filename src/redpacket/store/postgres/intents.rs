//! Intents in the database of their home, which all of its processes share: any of them takes them on after another's death.
//!
//! What is written waits in a bounded queue for one hand, which does up to 256 of them in one transaction. Writers of all
//! processes take turns by the row with the sums; so each decides on what is there, by the same rule as everywhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::place::{ConnectError, Options};
use super::pool::{Errand, Pool};
use super::rows;
use crate::base::clock::Wall;
use crate::base::task::{Task, spawn};
use crate::config::homes::Sets;
use crate::redpacket::intents::{Bounds, Intent, Intents, Opened, Outcome, Ruling, Sums, rule};
use crate::redpacket::ledger::{Answer, StoreError};
use crate::redpacket::model::{Claim, IdempotencyKey, OrderNo, UserId};

/// Writes in one transaction.
const BATCH: usize = 256;
/// Writes that wait for the hand; more are refused.
const QUEUE: usize = 16 * BATCH;
/// Connections: one to write, one to read.
const CONNECTIONS: usize = 2;
/// Settled ones that are let go at once, at most.
const FORGET: u64 = 4_096;

static TURN: Sql = Sql { text: "SELECT counts FROM intent_sums FOR UPDATE", types: &[] };

static BY_NUMBER: Sql =
    Sql { text: "SELECT order_no, record FROM intent WHERE order_no = ANY($1)", types: &[Type::BYTEA_ARRAY] };

static BY_KEY: Sql = Sql {
    text: "SELECT i.order_no, i.user_id, i.idempotency_key FROM unnest($1::text[], $2::text[]) AS k(user_id, key) \
           JOIN intent i ON i.user_id = k.user_id COLLATE \"C\" AND i.idempotency_key = k.key COLLATE \"C\" \
           WHERE i.outcome <= 1",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

static WRITE: Sql = Sql {
    text: "INSERT INTO intent (order_no, home_set, asked, user_id, idempotency_key, outcome, settled, record) \
           SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::smallint[], \
             $7::bigint[], $8::bytea[]) \
           ON CONFLICT (order_no) DO UPDATE SET asked = excluded.asked, idempotency_key = excluded.idempotency_key, \
             outcome = excluded.outcome, settled = excluded.settled, record = excluded.record",
    types: &[
        Type::BYTEA_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
    ],
};

/// The oldest settled ones go.
static FORGOTTEN: Sql = Sql {
    text: "WITH oldest AS MATERIALIZED ( \
             SELECT order_no FROM intent WHERE outcome > 0 ORDER BY settled, order_no LIMIT $1 \
           ) DELETE FROM intent i USING oldest o WHERE i.order_no = o.order_no RETURNING i.outcome",
    types: &[Type::INT8],
};

static COUNT: Sql = Sql { text: "UPDATE intent_sums SET counts = $1", types: &[Type::INT8_ARRAY] };

static FIND: Sql = Sql { text: "SELECT record FROM intent WHERE order_no = $1", types: &[Type::BYTEA] };

/// A look for each set, so that those of other homes are not read.
static DUE: Sql = Sql {
    text: "SELECT d.order_no, d.record FROM unnest($1::smallint[]) AS s(home_set), LATERAL ( \
             SELECT i.asked, i.order_no, i.record FROM intent i WHERE i.outcome = 0 AND i.home_set = s.home_set \
             ORDER BY i.asked, i.order_no LIMIT $2) d ORDER BY d.asked, d.order_no LIMIT $2",
    types: &[Type::INT2_ARRAY, Type::INT8],
};

static SUMS: Sql = Sql {
    text: "SELECT t.counts, o.asked FROM intent_sums t, LATERAL ( \
             SELECT min(f.asked) AS asked FROM generate_series(0, 255) AS s(home_set), LATERAL ( \
               SELECT i.asked FROM intent i WHERE i.outcome = 0 AND i.home_set = s.home_set \
               ORDER BY i.asked, i.order_no LIMIT 1) f) o",
    types: &[],
};

/// Intents in a database that several processes share.
pub struct PostgresIntents {
    queue: mpsc::Sender<Job>,
    pool: Arc<Pool>,
    writable: Arc<AtomicBool>,
    _hand: Task,
}

impl PostgresIntents {
    /// Opens them in the database of `options`, over two connections; else as
    /// [`PostgresStore::open`](super::PostgresStore::open).
    ///
    /// # Errors
    /// The same.
    pub async fn open(options: &Options, bounds: Bounds) -> Result<Self, ConnectError> {
        let place = super::reach(options).await?;
        let writable = Arc::new(AtomicBool::new(true));
        let pool = Arc::new(Pool::new(place, CONNECTIONS, Arc::clone(&writable)));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let hand = spawn("postgres-intents", serve(jobs, Arc::clone(&pool), bounds, Arc::clone(&writable)));
        Ok(Self { queue, pool, writable, _hand: hand })
    }
}

struct Job {
    op: Op,
    reply: oneshot::Sender<Result<Out, StoreError>>,
}

enum Op {
    Open(Claim, Wall),
    Settle(Vec<(OrderNo, Outcome)>, Wall),
}

enum Out {
    Opened(Box<Opened>),
    Settled(Vec<bool>),
}

/// The hand.
async fn serve(mut jobs: mpsc::Receiver<Job>, pool: Arc<Pool>, bounds: Bounds, writable: Arc<AtomicBool>) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, BATCH).await > 0 {
        let (ops, replies): (Vec<_>, Vec<_>) = batch.drain(..).map(|job| (job.op, job.reply)).unzip();
        let done = pool.run(&Batch { ops, bounds }).await;
        writable.store(done.is_ok(), Ordering::Relaxed);
        match done {
            Ok(outs) => {
                for (reply, out) in replies.into_iter().zip(outs) {
                    // Whoever stopped waiting finds the outcome under the same number.
                    let _ = reply.send(out);
                }
            }
            Err(error) => {
                tracing::warn!(store = "postgres", %error, "intents cannot be written");
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

fn answered<T>(answer: Result<Result<T, StoreError>, oneshot::error::RecvError>) -> Result<T, StoreError> {
    answer.unwrap_or_else(|_| Err(StoreError::Unknown { reason: "the store stopped".into() }))
}

impl Intents for PostgresIntents {
    fn open(&self, claim: Claim, now: Wall) -> Answer<'_, Opened> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.queue.try_send(Job { op: Op::Open(claim, now), reply }).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
            })?;
            match answered(answer.await)? {
                Out::Opened(opened) => Ok(*opened),
                Out::Settled(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Intent>> {
        Box::pin(async move { self.pool.run(&Find(order_no)).await })
    }

    fn due(&self, sets: Sets, limit: usize) -> Answer<'_, Vec<Intent>> {
        Box::pin(async move { self.pool.run(&Due { sets, limit }).await })
    }

    fn settle(&self, words: Vec<(OrderNo, Outcome)>, now: Wall) -> Answer<'_, Vec<bool>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let job = Job { op: Op::Settle(words, now), reply };
            self.queue.send(job).await.map_err(|_| StoreError::Stopped)?;
            match answered(answer.await)? {
                Out::Settled(moved) => Ok(moved),
                Out::Opened(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn sums(&self) -> Answer<'_, Sums> {
        Box::pin(async move { self.pool.run(&Count).await })
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}

/// An outcome's place among the counts, and its column; part of the schema. 0 is what is open.
const fn index(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Granted => 1,
        Outcome::SoldOut => 2,
        Outcome::Expired => 3,
        Outcome::NotEligible => 4,
        Outcome::Conflict => 5,
    }
}

/// How many of each there are.
struct Counts([u64; 6]);

impl Counts {
    fn read(row: Option<&tokio_postgres::Row>) -> Result<Self, Fault> {
        let gone = || Fault::Refused("the sums of the intents are gone".into());
        let counts: Vec<i64> = row.ok_or_else(gone)?.try_get(0)?;
        let counts: [i64; 6] = counts.try_into().map_err(|_| gone())?;
        Ok(Self(counts.map(|n| u64::try_from(n).unwrap_or_default())))
    }

    fn open(&self) -> u64 {
        self.0[0]
    }

    fn settled(&self) -> u64 {
        self.0.iter().skip(1).sum()
    }

    fn add(&mut self, index: u8, more: bool) {
        if let Some(count) = self.0.get_mut(usize::from(index)) {
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
        }
    }

    fn columns(&self) -> Vec<i64> {
        self.0.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect()
    }
}

/// Some writes, one after the other, in one transaction.
struct Batch {
    ops: Vec<Op>,
    bounds: Bounds,
}

/// What a batch reads and changes.
struct Desk {
    counts: Counts,
    intents: HashMap<OrderNo, Intent>,
    keys: HashMap<(UserId, IdempotencyKey), OrderNo>,
    changed: BTreeSet<OrderNo>,
    damaged: HashSet<OrderNo>,
}

impl Errand for Batch {
    type Out = Vec<Result<Out, StoreError>>;

    async fn run(&self, line: &Line) -> Result<Self::Out, Fault> {
        line.say("BEGIN").await?;
        let mut desk = self.read(line).await?;
        let mut outs = Vec::with_capacity(self.ops.len());
        for op in &self.ops {
            outs.push(match op {
                Op::Open(claim, now) => desk.open(claim, *now, self.bounds).map(|opened| Out::Opened(Box::new(opened))),
                Op::Settle(words, now) => {
                    Ok(Out::Settled(words.iter().map(|(no, outcome)| desk.settle(*no, *outcome, *now)).collect()))
                }
            });
        }
        if !desk.changed.is_empty() {
            desk.write(line).await?;
            let over = desk.counts.settled().saturating_sub(self.bounds.settled).min(FORGET);
            if over > 0 {
                for row in line.ask(&FORGOTTEN, &[&i64::try_from(over).unwrap_or(i64::MAX)]).await? {
                    desk.counts.add(u8::try_from(row.try_get::<_, i16>(0)?).unwrap_or_default(), false);
                }
            }
            line.ask(&COUNT, &[&desk.counts.columns()]).await?;
        }
        line.say("COMMIT").await?;
        Ok(outs)
    }
}

impl Batch {
    /// Takes its turn, and reads what the writes are about.
    async fn read(&self, line: &Line) -> Result<Desk, Fault> {
        let counts = Counts::read(line.ask(&TURN, &[]).await?.first())?;
        let (mut numbers, mut users, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for op in &self.ops {
            match op {
                Op::Open(claim, _) => {
                    numbers.push(claim.number());
                    if let Some(key) = &claim.idempotency_key {
                        users.push(claim.user_id.as_str());
                        keys.push(key.as_str());
                    }
                }
                Op::Settle(words, _) => numbers.extend(words.iter().map(|(no, _)| *no)),
            }
        }
        let numbers: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let mut desk = Desk {
            counts,
            intents: HashMap::new(),
            keys: HashMap::new(),
            changed: BTreeSet::new(),
            damaged: HashSet::new(),
        };
        for row in line.ask(&BY_NUMBER, &[&numbers]).await? {
            let order_no = rows::number(&row, 0)?;
            match Intent::decode(row.try_get(1)?) {
                Some(intent) => drop(desk.intents.insert(order_no, intent)),
                None => drop(desk.damaged.insert(order_no)),
            }
        }
        if !keys.is_empty() {
            for row in line.ask(&BY_KEY, &[&users, &keys]).await? {
                let (user, key) = (UserId::parse(row.try_get(1)?), IdempotencyKey::parse(row.try_get(2)?));
                if let (Ok(user), Ok(key)) = (user, key) {
                    desk.keys.insert((user, key), rows::number(&row, 0)?);
                }
            }
        }
        Ok(desk)
    }
}

impl Desk {
    fn open(&mut self, claim: &Claim, now: Wall, bounds: Bounds) -> Result<Opened, StoreError> {
        let order_no = claim.number();
        if self.damaged.contains(&order_no) {
            return Err(StoreError::Damaged { order_no });
        }
        let key = claim.idempotency_key.clone().map(|key| (claim.user_id.clone(), key));
        let under_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
        let old = self.intents.get(&order_no);
        Ok(match (rule(claim, old, under_key, self.counts.open(), bounds), old) {
            (Ruling::Same, Some(old)) => Opened::Same(old.clone()),
            (Ruling::Conflict | Ruling::Same, _) => Opened::Conflict,
            (Ruling::Full, _) => Opened::Full,
            (Ruling::Write, old) => {
                if let Some((outcome, _)) = old.and_then(|old| old.settled) {
                    self.counts.add(index(outcome), false);
                }
                let intent = Intent::new(claim.clone(), now);
                self.keys.extend(key.map(|key| (key, order_no)));
                self.counts.add(0, true);
                self.intents.insert(order_no, intent.clone());
                self.changed.insert(order_no);
                Opened::New(intent)
            }
        })
    }

    fn settle(&mut self, order_no: OrderNo, outcome: Outcome, now: Wall) -> bool {
        let Some(intent) = self.intents.get_mut(&order_no).filter(|intent| intent.is_open()) else { return false };
        intent.settled = Some((outcome, now));
        if let (Some(key), false) = (&intent.claim.idempotency_key, intent.stands()) {
            self.keys.remove(&(intent.claim.user_id.clone(), key.clone()));
        }
        self.counts.add(0, false);
        self.counts.add(index(outcome), true);
        self.changed.insert(order_no);
        true
    }

    async fn write(&self, line: &Line) -> Result<(), Fault> {
        let all: Vec<&Intent> = self.changed.iter().filter_map(|no| self.intents.get(no)).collect();
        let numbers: Vec<OrderNo> = all.iter().map(|intent| intent.number()).collect();
        let sets: Vec<i16> = numbers.iter().map(|no| i16::from(no.set())).collect();
        let numbers: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let asked: Vec<i64> = all.iter().map(|intent| rows::at(intent.asked)).collect();
        let users: Vec<&str> = all.iter().map(|intent| intent.claim.user_id.as_str()).collect();
        let keys: Vec<Option<&str>> =
            all.iter().map(|intent| intent.claim.idempotency_key.as_ref().map(IdempotencyKey::as_str)).collect();
        let outcomes: Vec<i16> =
            all.iter().map(|intent| intent.settled.map_or(0, |(outcome, _)| i16::from(index(outcome)))).collect();
        let settled: Vec<i64> = all.iter().map(|intent| intent.settled.map_or(0, |(_, at)| rows::at(at))).collect();
        let records: Vec<Vec<u8>> = all.iter().map(|intent| intent.encode()).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        line.ask(&WRITE, &[&numbers, &sets, &asked, &users, &keys, &outcomes, &settled, &records]).await?;
        Ok(())
    }
}

struct Find(OrderNo);

impl Errand for Find {
    type Out = Option<Intent>;

    async fn run(&self, line: &Line) -> Result<Option<Intent>, Fault> {
        let rows = line.ask(&FIND, &[&self.0.bytes().as_slice()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let damaged = Fault::Damaged(StoreError::Damaged { order_no: self.0 });
        Intent::decode(row.try_get(0)?).map(Some).ok_or(damaged)
    }
}

struct Due {
    sets: Sets,
    limit: usize,
}

impl Errand for Due {
    type Out = Vec<Intent>;

    async fn run(&self, line: &Line) -> Result<Vec<Intent>, Fault> {
        let sets: Vec<i16> = self.sets.iter().map(i16::from).collect();
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for row in line.ask(&DUE, &[&sets, &limit]).await? {
            let intent = Intent::decode(row.try_get(1)?);
            if intent.is_none() {
                // It stays where it is for a person to look at, and does not hold up those behind it.
                tracing::error!(order_no = %rows::number(&row, 0)?, "the record of an intent is damaged");
            }
            due.extend(intent);
        }
        Ok(due)
    }
}

struct Count;

impl Errand for Count {
    type Out = Sums;

    async fn run(&self, line: &Line) -> Result<Sums, Fault> {
        let rows = line.ask(&SUMS, &[]).await?;
        let counts = Counts::read(rows.first())?;
        let oldest: Option<i64> = rows.first().map(|row| row.try_get(1)).transpose()?.flatten();
        let of = |outcome: &Outcome| counts.0.get(usize::from(index(*outcome))).copied().unwrap_or_default();
        let settled = Outcome::ALL.into_iter().map(|outcome| (outcome, of(&outcome))).filter(|(_, kept)| *kept > 0);
        let settled = settled.collect();
        Ok(Sums { open: counts.open(), oldest: oldest.map(rows::wall), settled })
    }
}
