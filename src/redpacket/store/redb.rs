//! The store that one node keeps on its own disk: orders, stock and delivery queue in one redb file.
//!
//! A claim is one transaction: the order, one off the stock, its place in the queue; many claims share a commit (see
//! `commit`). Reads see the last commit and wait for no writer. There is no recovery step: an order in a worker's hands
//! stands in the queue under the end of its lease, so a restart finds it when that passes.
//!
//! ```text
//!   orders  number -> record            keys   (user, key) -> number      stock   gift -> (total, issued)
//!   due     (when due, number)          ages   when accepted -> open      counts  state -> orders
//!   log     (number, attempt) -> word   dead   (when it died, number)     fence   -> (epoch, sets)
//!   shares  gift -> what its total is made of       moves  (way, home, gift) -> the latest transfer of stock
//! ```

use std::path::Path;

use ::redb::{Error, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::commit::{Applied, Committer, Engine, OpenError, Opener, file};
use crate::base::clock::Wall;
use crate::config::homes::Sets;
use crate::redpacket::ledger::{Answer, Claimed, Fenced, Hold, Stats, Stock, Store, StoreError, Transfer, fence};
use crate::redpacket::model::{
    Attempt, Claim, Failure, GiftId, Order, OrderNo, Resolution, Settled, Settlement, State, Trail,
};

type Number = &'static [u8; 17];

const ORDERS: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("orders");
const KEYS: TableDefinition<'_, (&str, &str), Number> = TableDefinition::new("keys");
const DUE: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("due");
/// How many open orders were accepted in a millisecond: the first of them is the oldest's.
const AGES: TableDefinition<'_, u64, u64> = TableDefinition::new("ages");
const STOCK: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("stock");
const COUNTS: TableDefinition<'_, u8, u64> = TableDefinition::new("counts");
/// (when, failure; 0 = delivered)
const LOG: TableDefinition<'_, (Number, u32), (u64, u8)> = TableDefinition::new("log");
const DEAD: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("dead");
/// (epoch, sets), where a process has held it for homes.
const FENCE: TableDefinition<'_, (), (u64, u64, u64, u64, u64)> = TableDefinition::new("fence");
/// (by the configuration, taken, given)
const SHARES: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("shares");
/// (number, amount), with a home, of a gift, in a direction.
const MOVES: TableDefinition<'_, (u8, &str, &str), (u64, u64)> = TableDefinition::new("moves");
/// Directions of transfers; part of the format.
const GIVEN: u8 = 0;
const TAKEN: u8 = 1;

/// Orders on disk, in one file, for one process.
pub struct RedbStore(Committer<Claims>);

impl RedbStore {
    /// Opens the store in the file at `path`, made where there is none.
    ///
    /// # Errors
    /// The file is another process's, or no store, or of a newer release, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::with(path, file(path)?)
    }

    fn with(path: &Path, open: Opener) -> Result<Self, OpenError> {
        Committer::start(Claims, path, open).map(Self)
    }
}

impl Store for RedbStore {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn provision(&self, gift: GiftId, total: u64) -> Answer<'_, ()> {
        Box::pin(async move { self.0.soon(Op::Provision(gift, total)).await.map(drop) })
    }

    fn claim(&self, claim: Claim, now: Wall) -> Answer<'_, Claimed> {
        Box::pin(async move {
            match self.0.now(Op::Claim(claim, now)).await? {
                Out::Claimed(claimed) => Ok(*claimed),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Order>> {
        Box::pin(self.0.read(move |txn| find(txn, order_no)))
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Order>> {
        Box::pin(async move {
            // Most polls find nothing; they must not take a place in the writer's queue.
            if !self.0.read(move |txn| due(txn, now)).await? {
                return Ok(Vec::new());
            }
            match self.0.soon(Op::Lease { limit, until, now }).await? {
                Out::Leased(orders) => Ok(orders),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        Box::pin(async move {
            match self.0.soon(Op::Settle(words, now)).await? {
                Out::Settled(all) => Ok(all),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Order>> {
        Box::pin(self.0.read(move |txn| dead(txn, limit)))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        Box::pin(async move {
            match self.0.soon(Op::Resolve(order_nos, resolution, now)).await? {
                Out::Settled(all) => Ok(all),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn scan(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Trail>> {
        Box::pin(self.0.read(move |txn| scan(txn, after, limit)))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        Box::pin(self.0.read(stats))
    }

    fn fence(&self, hold: Hold, take_over: bool) -> Answer<'_, Fenced> {
        Box::pin(async move {
            match self.0.soon(Op::Fence(hold, take_over)).await? {
                Out::Fenced(fenced) => Ok(fenced),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn give(&self, to: Transfer, most: u64) -> Answer<'_, Option<u64>> {
        Box::pin(async move {
            match self.0.now(Op::Give(to, most)).await? {
                Out::Given(given) => Ok(given),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn take(&self, from: Transfer, amount: u64) -> Answer<'_, bool> {
        Box::pin(async move {
            match self.0.soon(Op::Take(from, amount)).await? {
                Out::Taken(is_new) => Ok(is_new),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn turn(&self, home: String, gift: GiftId) -> Answer<'_, u64> {
        Box::pin(self.0.read(move |txn| {
            let latest = txn.open_table(MOVES)?.get((TAKEN, home.as_str(), gift.as_str()))?.map(|v| v.value().0);
            Ok(Ok(latest.map_or(1, |number| number + 1)))
        }))
    }

    fn writable(&self) -> bool {
        self.0.writable()
    }

    fn is_alone(&self) -> bool {
        true
    }
}

type Seen<T> = Result<Result<T, StoreError>, Error>;

fn find(txn: &ReadTransaction, order_no: OrderNo) -> Seen<Option<Order>> {
    let orders = txn.open_table(ORDERS)?;
    let Some(record) = orders.get(order_no.bytes())? else { return Ok(Ok(None)) };
    Ok(Order::decode(record.value()).map(Some).ok_or(StoreError::Damaged { order_no }))
}

fn due(txn: &ReadTransaction, now: Wall) -> Seen<bool> {
    let first = txn.open_table(DUE)?.first()?.map(|(key, _)| key.value().0);
    Ok(Ok(first.is_some_and(|at| at <= now.0)))
}

fn stats(txn: &ReadTransaction) -> Seen<Stats> {
    let counts = txn.open_table(COUNTS)?;
    let mut stock = Vec::new();
    for entry in txn.open_table(STOCK)?.iter()? {
        let (gift, (total, issued)) = entry.map(|(k, v)| (GiftId::parse(k.value()), v.value()))?;
        stock.extend(gift.ok().map(|gift| (gift, Stock { total, issued })));
    }
    let oldest_open = txn.open_table(AGES)?.first()?.map(|(key, _)| Wall(key.value()));
    let mut counted = Vec::with_capacity(State::ALL.len());
    for state in State::ALL {
        counted.push((state, counts.get(index(state))?.map(|v| v.value()).unwrap_or_default()));
    }
    let count = |state| counted.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
    Ok(Ok(Stats::counting(count, oldest_open, stock)))
}

fn dead(txn: &ReadTransaction, limit: usize) -> Seen<Vec<Order>> {
    let orders = txn.open_table(ORDERS)?;
    let mut found = Vec::new();
    for entry in txn.open_table(DEAD)?.iter()?.take(limit) {
        let number = *entry?.0.value().1;
        let order = orders.get(&number)?.and_then(|record| Order::decode(record.value()));
        match order {
            Some(order) => found.push(order),
            None => return Ok(Err(StoreError::Damaged { order_no: OrderNo::from_bytes(number) })),
        }
    }
    Ok(Ok(found))
}

fn scan(txn: &ReadTransaction, after: Option<OrderNo>, limit: usize) -> Seen<Vec<Trail>> {
    let (orders, log) = (txn.open_table(ORDERS)?, txn.open_table(LOG)?);
    let first = [0; 17];
    let from = after.as_ref().map_or(&first, OrderNo::bytes);
    let mut page = Vec::new();
    for entry in orders.range::<&[u8; 17]>(from..)? {
        let (number, record) = entry?;
        if page.len() == limit {
            break;
        }
        if after.as_ref().is_some_and(|after| after.bytes() == number.value()) {
            continue;
        }
        let order_no = OrderNo::from_bytes(*number.value());
        let Some(order) = Order::decode(record.value()) else { return Ok(Err(StoreError::Damaged { order_no })) };
        let mut attempts = Vec::new();
        for word in log.range((order_no.bytes(), 0)..=(order_no.bytes(), u32::MAX))? {
            let (key, word) = word?;
            let ((_, attempt), (at, failure)) = (key.value(), word.value());
            // Past the known failures is a word of a newer release; it was a failure all the same.
            let failure = failure.checked_sub(1).map(|n| Failure::ALL.get(usize::from(n)).copied());
            attempts.push(Attempt { attempt, at: Wall(at), failure: failure.map(|f| f.unwrap_or(Failure::Garbage)) });
        }
        page.push(Trail { order, attempts });
    }
    Ok(Ok(page))
}

/// A state's key in the counts; part of the format.
const fn index(state: State) -> u8 {
    match state {
        State::Accepted => 0,
        State::Delivering => 1,
        State::RetryWait => 2,
        State::Delivered => 3,
        State::Dead => 4,
        State::Compensated => 5,
    }
}

struct Claims;

enum Op {
    Provision(GiftId, u64),
    Claim(Claim, Wall),
    Lease { limit: usize, until: Wall, now: Wall },
    Settle(Vec<Settlement>, Wall),
    Resolve(Vec<OrderNo>, Resolution, Wall),
    Fence(Hold, bool),
    Give(Transfer, u64),
    Take(Transfer, u64),
}

enum Out {
    Provisioned,
    Claimed(Box<Claimed>),
    Leased(Vec<Order>),
    Settled(Vec<Settled>),
    Fenced(Fenced),
    Given(Option<u64>),
    Taken(bool),
}

impl Engine for Claims {
    type Op = Op;
    type Out = Out;
    const FORMAT: u64 = 4;
    const NAME: &'static str = "claims";

    fn prepare(&self, txn: &WriteTransaction, found: u64) -> Result<(), Error> {
        let mut tables = Tables::open(txn)?;
        if found < 2 {
            tables.leave_format_1()?;
        }
        if found < 3 {
            tables.leave_format_2(txn)?;
        }
        if found < 4 {
            tables.leave_format_3()?;
        }
        tables.finish().map(drop)
    }

    fn apply(&self, txn: &WriteTransaction, ops: &[Op]) -> Result<Applied<Out>, Error> {
        let mut hold = held(txn)?;
        let mut tables = Tables::open(txn)?;
        let mut outs = Vec::with_capacity(ops.len());
        for op in ops {
            outs.push(match op {
                Op::Provision(gift, total) => tables.provision(gift, *total)?,
                Op::Claim(claim, now) => match hold.filter(|hold| !hold.decides(claim.number())) {
                    Some(Hold { epoch, .. }) => Err(StoreError::Fenced { epoch }),
                    None => tables.claim(claim, *now)?,
                },
                Op::Lease { limit, until, now } => tables.lease(*limit, *until, *now)?,
                Op::Settle(words, now) => tables.settle(words, *now)?,
                Op::Resolve(order_nos, resolution, now) => tables.resolve(order_nos, *resolution, *now)?,
                Op::Fence(wanted, take_over) => {
                    let fenced = fence(hold, *wanted, *take_over);
                    if fenced == Fenced::Held {
                        hold = Some(*wanted);
                        hold_as(txn, *wanted)?;
                        tables.wrote = true;
                    }
                    Ok(Out::Fenced(fenced))
                }
                Op::Give(to, most) => tables.give(to, *most)?,
                Op::Take(from, amount) => tables.take(from, *amount)?,
            });
        }
        Ok((outs, tables.finish()?))
    }
}

/// How the store is held. The file belongs to one process at a time, so whoever opened it last is whoever held it last.
fn held(txn: &WriteTransaction) -> Result<Option<Hold>, Error> {
    let stored = txn.open_table(FENCE)?.get(())?.map(|v| v.value());
    Ok(stored.map(|(epoch, a, b, c, d)| Hold { epoch, sets: Sets::from_words([a, b, c, d]) }))
}

fn hold_as(txn: &WriteTransaction, hold: Hold) -> Result<(), Error> {
    let [a, b, c, d] = hold.sets.words();
    txn.open_table(FENCE)?.insert((), (hold.epoch, a, b, c, d))?;
    Ok(())
}

mod tables;

use tables::Tables;

#[cfg(test)]
mod tests;
