//! How what waits in a queue moves: leases, workers' words, a person's word; orders of gifts and shares of cash packets alike.
//! What a move is decides the model; here it is written down.
//!
//! Rows are locked in one order everywhere (buckets or packets, what is delivered, its queue, sums), so that two writers wait
//! for each other and never in a circle. Workers skip what another holds.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use tokio_postgres::Row;

use super::fault::Fault;
use super::line::{Line, Sql};
use super::pool::Errand;
use super::rows;
use crate::base::clock::Wall;
use crate::redpacket::model::cash::Booking;
use crate::redpacket::model::{Attempt, OrderNo, Resolution, Settled, Settlement, State};

/// Something that waits to be delivered, in rows.
pub(super) trait Queued: Clone + Send + Sync + 'static {
    /// Whether each word about it is kept.
    const LOGGED: bool;

    /// How it is read and written.
    fn statements() -> &'static Statements;

    /// The one in a row.
    fn read(row: &Row) -> Result<Self, Fault>;

    /// The number under which it is delivered.
    fn order_no(&self) -> OrderNo;

    /// When it was made.
    fn created(&self) -> Wall;

    /// How far it is.
    fn booking(&self) -> Booking;

    /// After a worker's word; nothing where that comes too late to matter.
    fn settled(&self, word: &Settlement, now: Wall) -> Option<Self>;

    /// After a person's word; nothing where it is not dead.
    fn resolved(&self, resolution: Resolution, now: Wall) -> Option<Self>;
}

/// What is said about one kind of queue; made by [`statements!`].
pub(super) struct Statements {
    /// Takes what is due and nobody else is taking.
    pub(super) lease: Sql,
    /// Those that were given up, the longest dead first.
    pub(super) dead: Sql,
    pub(super) lock_rows: Sql,
    pub(super) lock_queue: Sql,
    pub(super) read: Sql,
    /// Rows as they stand now, whatever they were; what was said of them; and the sums.
    pub(super) write: Sql,
}

/// The statements for what stands in `rows` (as `o`), waits in `queue` (as `q`) and is counted in `tally`.
macro_rules! statements {
    ($columns:ident, rows: $rows:literal, queue: $queue:literal, dead: $dead:literal, tally: $tally:literal
     $(, log: $log:literal)?) => {
        Statements {
            lease: Sql {
                text: concat!(
                    "WITH due AS MATERIALIZED ( \
                       SELECT order_no, due, state FROM ", $queue, " WHERE due <= $1 ORDER BY due, order_no LIMIT $2 \
                       FOR UPDATE SKIP LOCKED \
                     ), leased AS ( \
                       UPDATE ", $queue, " q SET state = 1, attempts = q.attempts + 1, due = $3, updated = $1 \
                       FROM due WHERE q.order_no = due.order_no \
                       RETURNING q.order_no, q.state, q.attempts, q.spent, q.due, q.failure, q.updated, \
                         due.due AS was_due, due.state AS was \
                     ), counted AS ( \
                       UPDATE ", $tally, " t SET accepted = t.accepted - n.a, retry_wait = t.retry_wait - n.r, \
                         delivering = t.delivering + n.a + n.r \
                       FROM (SELECT count(*) FILTER (WHERE was = 0) AS a, count(*) FILTER (WHERE was = 2) AS r FROM leased) n \
                       WHERE t.slot = $4 AND n.a + n.r > 0 \
                     ) SELECT ", $columns!(), " FROM leased q JOIN ", $rows, " o USING (order_no) \
                     ORDER BY q.was_due, q.order_no"
                ),
                types: &[Type::INT8, Type::INT8, Type::INT8, Type::INT2],
            },
            dead: Sql {
                text: concat!(
                    "SELECT ", $columns!(), " FROM (SELECT order_no, died FROM ", $dead, " ORDER BY died, order_no LIMIT $1) d \
                     JOIN ", $rows, " o USING (order_no) LEFT JOIN ", $queue, " q USING (order_no) ORDER BY d.died, d.order_no"
                ),
                types: &[Type::INT8],
            },
            lock_rows: Sql {
                text: concat!("SELECT FROM ", $rows, " WHERE order_no = ANY($1) ORDER BY order_no FOR NO KEY UPDATE"),
                types: &[Type::BYTEA_ARRAY],
            },
            lock_queue: Sql {
                text: concat!("SELECT FROM ", $queue, " WHERE order_no = ANY($1) ORDER BY order_no FOR UPDATE"),
                types: &[Type::BYTEA_ARRAY],
            },
            read: Sql {
                text: concat!(
                    "SELECT ", $columns!(), " FROM ", $rows, " o LEFT JOIN ", $queue, " q USING (order_no) \
                     WHERE o.order_no = ANY($1)"
                ),
                types: &[Type::BYTEA_ARRAY],
            },
            write: Sql {
                text: concat!(
                    "WITH w AS MATERIALIZED ( \
                       SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[], \
                         $6::smallint[], $7::bigint[], $8::bigint[]) \
                         AS w(order_no, state, attempts, spent, due, failure, created, updated) \
                     ), closed AS ( \
                       UPDATE ", $rows, " o SET state = w.state, attempts = w.attempts, spent = w.spent, due = w.due, \
                         failure = w.failure, updated = w.updated FROM w WHERE o.order_no = w.order_no AND w.state > 2 \
                     ), left_the_queue AS ( \
                       DELETE FROM ", $queue, " q USING w WHERE q.order_no = w.order_no AND w.state > 2 \
                     ), in_the_queue AS ( \
                       INSERT INTO ", $queue, " AS q (order_no, state, attempts, spent, due, failure, created, updated) \
                       SELECT order_no, state, attempts, spent, due, failure, created, updated FROM w WHERE state <= 2 \
                       ORDER BY order_no ON CONFLICT (order_no) DO UPDATE SET state = excluded.state, \
                         attempts = excluded.attempts, spent = excluded.spent, due = excluded.due, \
                         failure = excluded.failure, updated = excluded.updated \
                     ), alive AS ( \
                       DELETE FROM ", $dead, " d USING w WHERE d.order_no = w.order_no AND w.state <> 4 \
                     ), died AS ( \
                       INSERT INTO ", $dead, " (order_no, died) SELECT order_no, updated FROM w WHERE state = 4 \
                       ON CONFLICT (order_no) DO UPDATE SET died = excluded.died \
                     ) "
                    $(, ", logged AS ( \
                       INSERT INTO ", $log, " (order_no, attempt, at, result) \
                       SELECT * FROM unnest($16::bytea[], $17::bigint[], $18::bigint[], $19::smallint[]) \
                       ON CONFLICT (order_no, attempt) DO UPDATE SET at = excluded.at, result = excluded.result \
                     ) ")?
                    , "UPDATE ", $tally, " SET accepted = accepted + $9, delivering = delivering + $10, \
                       retry_wait = retry_wait + $11, delivered = delivered + $12, dead = dead + $13, \
                       compensated = compensated + $14 WHERE slot = $15"
                ),
                // Without a log, the last four are not used.
                types: &[
                    Type::BYTEA_ARRAY,
                    Type::INT2_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT2_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8,
                    Type::INT8,
                    Type::INT8,
                    Type::INT8,
                    Type::INT8,
                    Type::INT8,
                    Type::INT2,
                    Type::BYTEA_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT8_ARRAY,
                    Type::INT2_ARRAY,
                ],
            },
        }
    };
}
pub(super) use statements;

/// What is due, for a worker.
pub(super) struct Lease<T> {
    limit: usize,
    until: Wall,
    now: Wall,
    of: PhantomData<fn() -> T>,
}

impl<T> Lease<T> {
    pub(super) const fn new(limit: usize, until: Wall, now: Wall) -> Self {
        Self { limit, until, now, of: PhantomData }
    }
}

impl<T: Queued> Errand for Lease<T> {
    type Out = Vec<T>;

    async fn run(&self, line: &Line) -> Result<Vec<T>, Fault> {
        let limit = rows::limit(self.limit);
        let (now, until) = (rows::at(self.now), rows::at(self.until.max(self.now)));
        line.ask(&T::statements().lease, &[&now, &limit, &until, &line.slot]).await?.iter().map(T::read).collect()
    }
}

/// What was given up, at most so many.
pub(super) struct Dead<T>(usize, PhantomData<fn() -> T>);

impl<T> Dead<T> {
    pub(super) const fn new(limit: usize) -> Self {
        Self(limit, PhantomData)
    }
}

impl<T: Queued> Errand for Dead<T> {
    type Out = Vec<T>;

    async fn run(&self, line: &Line) -> Result<Vec<T>, Fault> {
        line.ask(&T::statements().dead, &[&rows::limit(self.0)]).await?.iter().map(T::read).collect()
    }
}

/// Workers' words.
pub(super) struct Settle<T> {
    words: Vec<Settlement>,
    now: Wall,
    of: PhantomData<fn() -> T>,
}

impl<T> Settle<T> {
    pub(super) const fn new(words: Vec<Settlement>, now: Wall) -> Self {
        Self { words, now, of: PhantomData }
    }
}

impl<T: Queued> Errand for Settle<T> {
    type Out = Vec<Settled>;

    async fn run(&self, line: &Line) -> Result<Vec<Settled>, Fault> {
        let mut moving = Moving::<T>::begin(line, self.words.iter().map(|w| w.order_no)).await?;
        let mut said = Vec::with_capacity(self.words.len());
        for word in &self.words {
            let done = moving.apply(word.order_no, |queued| queued.settled(word, self.now));
            if let (true, Settled::Moved(_), Some(attempt)) = (T::LOGGED, done, Attempt::of(word, self.now)) {
                moving.log.insert((word.order_no, word.attempt), attempt);
            }
            said.push(done);
        }
        moving.commit(line).await?;
        Ok(said)
    }
}

/// A person's word.
pub(super) struct Resolve<T> {
    order_nos: Vec<OrderNo>,
    resolution: Resolution,
    now: Wall,
    of: PhantomData<fn() -> T>,
}

impl<T> Resolve<T> {
    pub(super) const fn new(order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Self {
        Self { order_nos, resolution, now, of: PhantomData }
    }
}

impl<T: Queued> Errand for Resolve<T> {
    type Out = Vec<Settled>;

    async fn run(&self, line: &Line) -> Result<Vec<Settled>, Fault> {
        let mut moving = Moving::<T>::begin(line, self.order_nos.iter().copied()).await?;
        let resolve = |queued: &T| queued.resolved(self.resolution, self.now);
        let said = self.order_nos.iter().map(|no| moving.apply(*no, resolve)).collect();
        moving.commit(line).await?;
        Ok(said)
    }
}

/// Rows under lock, on their way from one state to another.
struct Moving<T> {
    all: BTreeMap<OrderNo, T>,
    moved: BTreeMap<OrderNo, T>,
    log: BTreeMap<(OrderNo, u32), Attempt>,
    /// By state: how many more there are than before.
    sums: [i64; 6],
}

impl<T: Queued> Moving<T> {
    /// Locks and reads these.
    async fn begin(line: &Line, numbers: impl Iterator<Item = OrderNo>) -> Result<Self, Fault> {
        let mut numbers: Vec<OrderNo> = numbers.collect();
        numbers.sort_unstable();
        numbers.dedup();
        let keys: Vec<&[u8]> = numbers.iter().map(|no| no.bytes().as_slice()).collect();
        let statements = T::statements();
        line.say("BEGIN").await?;
        line.ask(&statements.lock_rows, &[&keys]).await?;
        line.ask(&statements.lock_queue, &[&keys]).await?;
        // Read after the locks are held: a statement sees what was committed before it began.
        let rows = line.ask(&statements.read, &[&keys]).await?;
        let all = rows.iter().map(|row| T::read(row).map(|t| (t.order_no(), t))).collect::<Result<_, _>>()?;
        Ok(Self { all, moved: BTreeMap::new(), log: BTreeMap::new(), sums: [0; 6] })
    }

    fn apply(&mut self, order_no: OrderNo, step: impl Fn(&T) -> Option<T>) -> Settled {
        let Some((old, new)) = self.all.get(&order_no).and_then(|old| Some((old.booking().state, step(old)?))) else {
            return Settled::Stale;
        };
        let state = new.booking().state;
        self.count(old, -1);
        self.count(state, 1);
        self.all.insert(order_no, new.clone());
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
        let bookings: Vec<Booking> = self.moved.values().map(T::booking).collect();
        let of = |read: fn(&Booking) -> i64| -> Vec<i64> { bookings.iter().map(read).collect() };
        let numbers: Vec<&[u8]> = self.moved.keys().map(|no| no.bytes().as_slice()).collect();
        let states: Vec<i16> = bookings.iter().map(|b| rows::state(b.state)).collect();
        let failures: Vec<Option<i16>> = bookings.iter().map(|b| b.failure.map(rows::failure)).collect();
        let (attempts, spent) = (of(|b| i64::from(b.attempts)), of(|b| i64::from(b.spent)));
        let (due, updated) = (of(|b| rows::at(b.due)), of(|b| rows::at(b.updated)));
        let created: Vec<i64> = self.moved.values().map(|t| rows::at(t.created())).collect();
        let logged: Vec<&[u8]> = self.log.keys().map(|(no, _)| no.bytes().as_slice()).collect();
        let tries: Vec<i64> = self.log.values().map(|a| i64::from(a.attempt)).collect();
        let times: Vec<i64> = self.log.values().map(|a| rows::at(a.at)).collect();
        let results: Vec<i16> = self.log.values().map(|a| a.failure.map_or(0, rows::failure)).collect();
        let [accepted, delivering, retry_wait, delivered, dead, compensated] = &self.sums;
        line.ask(
            &T::statements().write,
            &[
                &numbers,
                &states,
                &attempts,
                &spent,
                &due,
                &failures,
                &created,
                &updated,
                accepted,
                delivering,
                retry_wait,
                delivered,
                dead,
                compensated,
                &line.slot,
                &logged,
                &tries,
                &times,
                &results,
            ],
        )
        .await?;
        line.say("COMMIT").await
    }
}
