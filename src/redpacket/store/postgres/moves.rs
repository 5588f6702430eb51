//! How orders move: leases, workers' words, a person's word. What a move is decides the model; here it is written down.
//!
//! Rows are locked in one order everywhere (buckets, orders, outbox, tally), so that two writers wait for each other and
//! never in a circle. Workers skip what another holds.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows::{self, order_columns};
use crate::base::clock::Wall;
use crate::redpacket::model::{Attempt, Order, OrderNo, Resolution, Settled, Settlement, State};

/// Takes what is due and nobody else is taking.
static LEASE: Sql = Sql {
    text: concat!(
        "WITH due AS MATERIALIZED ( \
           SELECT order_no, due, state FROM outbox WHERE due <= $1 ORDER BY due, order_no LIMIT $2 \
           FOR UPDATE SKIP LOCKED \
         ), leased AS ( \
           UPDATE outbox q SET state = 1, attempts = q.attempts + 1, due = $3, updated = $1 \
           FROM due WHERE q.order_no = due.order_no \
           RETURNING q.order_no, q.state, q.attempts, q.spent, q.due, q.failure, q.updated, due.due AS was_due, \
             due.state AS was \
         ), counted AS ( \
           UPDATE tally t SET accepted = t.accepted - n.a, retry_wait = t.retry_wait - n.r, \
             delivering = t.delivering + n.a + n.r \
           FROM (SELECT count(*) FILTER (WHERE was = 0) AS a, count(*) FILTER (WHERE was = 2) AS r FROM leased) n \
           WHERE t.slot = $4 AND n.a + n.r > 0 \
         ) SELECT ",
        order_columns!(),
        " FROM leased q JOIN orders o USING (order_no) ORDER BY q.was_due, q.order_no"
    ),
    types: &[Type::INT8, Type::INT8, Type::INT8, Type::INT2],
};

static LOCK_ORDERS: Sql = Sql {
    text: "SELECT FROM orders WHERE order_no = ANY($1) ORDER BY order_no FOR NO KEY UPDATE",
    types: &[Type::BYTEA_ARRAY],
};

static LOCK_OUTBOX: Sql = Sql {
    text: "SELECT FROM outbox WHERE order_no = ANY($1) ORDER BY order_no FOR UPDATE",
    types: &[Type::BYTEA_ARRAY],
};

static READ: Sql = Sql {
    text: concat!(
        "SELECT ",
        order_columns!(),
        " FROM orders o LEFT JOIN outbox q USING (order_no) WHERE o.order_no = ANY($1)"
    ),
    types: &[Type::BYTEA_ARRAY],
};

/// Orders as they stand now, whatever they were; what was said of them; and the sums.
static WRITE: Sql = Sql {
    text: "WITH w AS MATERIALIZED ( \
             SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], \
               $7::bigint[], $8::bigint[]) AS w(order_no, state, attempts, spent, due, failure, created, updated) \
           ), closed AS ( \
             UPDATE orders o SET state = w.state, attempts = w.attempts, spent = w.spent, due = w.due, \
               failure = w.failure, updated = w.updated FROM w WHERE o.order_no = w.order_no AND w.state > 2 \
           ), left_the_box AS ( \
             DELETE FROM outbox q USING w WHERE q.order_no = w.order_no AND w.state > 2 \
           ), in_the_box AS ( \
             INSERT INTO outbox AS q (order_no, state, attempts, spent, due, failure, created, updated) \
             SELECT order_no, state, attempts, spent, due, failure, created, updated FROM w WHERE state <= 2 \
             ORDER BY order_no ON CONFLICT (order_no) DO UPDATE SET state = excluded.state, \
               attempts = excluded.attempts, spent = excluded.spent, due = excluded.due, failure = excluded.failure, \
               updated = excluded.updated \
           ), alive AS ( \
             DELETE FROM dead d USING w WHERE d.order_no = w.order_no AND w.state <> 4 \
           ), died AS ( \
             INSERT INTO dead (order_no, died) SELECT order_no, updated FROM w WHERE state = 4 \
             ON CONFLICT (order_no) DO UPDATE SET died = excluded.died \
           ), logged AS ( \
             INSERT INTO delivery_log (order_no, attempt, at, result) \
             SELECT * FROM unnest($9::bytea[], $10::bigint[], $11::bigint[], $12::smallint[]) \
             ON CONFLICT (order_no, attempt) DO UPDATE SET at = excluded.at, result = excluded.result \
           ) UPDATE tally SET accepted = accepted + $13, delivering = delivering + $14, retry_wait = retry_wait + $15, \
             delivered = delivered + $16, dead = dead + $17, compensated = compensated + $18 WHERE slot = $19",
    types: &[
        Type::BYTEA_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT2,
    ],
};

/// Orders for a worker.
pub(super) struct Lease {
    pub(super) limit: usize,
    pub(super) until: Wall,
    pub(super) now: Wall,
}

impl Errand for Lease {
    type Out = Vec<Order>;

    async fn run(&self, line: &Line) -> Result<Vec<Order>, Fault> {
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let (now, until) = (rows::at(self.now), rows::at(self.until.max(self.now)));
        line.ask(&LEASE, &[&now, &limit, &until, &line.slot]).await?.iter().map(rows::order).collect()
    }
}

/// Workers' words.
pub(super) struct Settle {
    pub(super) words: Vec<Settlement>,
    pub(super) now: Wall,
}

impl Errand for Settle {
    type Out = Vec<Settled>;

    async fn run(&self, line: &Line) -> Result<Vec<Settled>, Fault> {
        let mut moving = Moving::begin(line, self.words.iter().map(|w| w.order_no)).await?;
        let mut said = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let done = moving.apply(word.order_no, |order| order.settle(word.attempt, word.verdict, self.now));
            if let (Settled::Moved(_), Some(attempt)) = (done, Attempt::of(word, self.now)) {
                moving.log.insert((word.order_no, word.attempt), attempt);
            }
            said.push(done);
        }
        moving.commit(line).await?;
        Ok(said)
    }
}

/// A person's word.
pub(super) struct Resolve {
    pub(super) order_nos: Vec<OrderNo>,
    pub(super) resolution: Resolution,
    pub(super) now: Wall,
}

impl Errand for Resolve {
    type Out = Vec<Settled>;

    async fn run(&self, line: &Line) -> Result<Vec<Settled>, Fault> {
        let mut moving = Moving::begin(line, self.order_nos.iter().copied()).await?;
        let resolve = |order: &Order| order.resolve(self.resolution, self.now);
        let said = self.order_nos.iter().map(|no| moving.apply(*no, resolve)).collect();
        moving.commit(line).await?;
        Ok(said)
    }
}

/// Orders under lock, on their way from one state to another.
struct Moving {
    orders: BTreeMap<OrderNo, Order>,
    moved: BTreeMap<OrderNo, Order>,
    log: BTreeMap<(OrderNo, u32), Attempt>,
    /// By state: how many more there are than before.
    sums: [i64; 6],
}

impl Moving {
    /// Locks and reads these.
    async fn begin(line: &Line, numbers: impl Iterator<Item = OrderNo>) -> Result<Self, Fault> {
        let mut numbers: Vec<OrderNo> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        let keys: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        line.say("BEGIN").await?;
        line.ask(&LOCK_ORDERS, &[&keys]).await?;
        line.ask(&LOCK_OUTBOX, &[&keys]).await?;
        // Read after the locks are held: a statement sees what was committed before it began.
        let rows = line.ask(&READ, &[&keys]).await?;
        let orders = rows.iter().map(|row| rows::order(row).map(|o| (o.order_no, o))).collect::<Result<_, _>>()?;
        Ok(Self { orders, moved: BTreeMap::new(), log: BTreeMap::new(), sums: [0; 6] })
    }

    fn apply(&mut self, order_no: OrderNo, step: impl Fn(&Order) -> Option<Order>) -> Settled {
        let Some((old, new)) = self.orders.get(&order_no).and_then(|old| Some((old.state, step(old)?))) else {
            return Settled::Stale;
        };
        self.count(old, -1);
        self.count(new.state, 1);
        let state = new.state;
        self.orders.insert(order_no, new.clone());
        self.moved.insert(order_no, new);
        Settled::Moved(state)
    }

    fn count(&mut self, state: State, by: i64) {
        if let Some(sum) = usize::try_from(rows::state(state)).ok().and_then(|at| self.sums.get_mut(at)) {
            *sum += by;
        }
    }

    async fn commit(self, line: &Line) -> Result<(), Fault> {
        if self.moved.is_empty() {
            return line.say("ROLLBACK").await;
        }
        let of = |read: fn(&Order) -> i64| -> Vec<i64> { self.moved.values().map(read).collect() };
        let numbers: Vec<&[u8]> = self.moved.keys().map(|no| no.bytes().as_slice()).collect();
        let states: Vec<i16> = self.moved.values().map(|o| rows::state(o.state)).collect();
        let failures: Vec<Option<i16>> = self.moved.values().map(|o| o.failure.map(rows::failure)).collect();
        let (attempts, spent) = (of(|o| i64::from(o.attempts)), of(|o| i64::from(o.spent)));
        let (due, created, updated) =
            (of(|o| rows::at(o.due)), of(|o| rows::at(o.created)), of(|o| rows::at(o.updated)));
        let logged: Vec<&[u8]> = self.log.keys().map(|(no, _)| no.bytes().as_slice()).collect();
        let tries: Vec<i64> = self.log.values().map(|a| i64::from(a.attempt)).collect();
        let times: Vec<i64> = self.log.values().map(|a| rows::at(a.at)).collect();
        let results: Vec<i16> = self.log.values().map(|a| a.failure.map_or(0, rows::failure)).collect();
        let [accepted, delivering, retry_wait, delivered, dead, compensated] = &self.sums;
        line.ask(
            &WRITE,
            &[
                &numbers,
                &states,
                &attempts,
                &spent,
                &due,
                &failures,
                &created,
                &updated,
                &logged,
                &tries,
                &times,
                &results,
                accepted,
                delivering,
                retry_wait,
                delivered,
                dead,
                compensated,
                &line.slot,
            ],
        )
        .await?;
        line.say("COMMIT").await
    }
}
