//! The store that one node keeps on its own disk: orders, stock and delivery queue in one redb file.
//!
//! A claim is one transaction: the order, one off the stock, its place in the queue; many claims share a commit (see
//! `commit`). Reads see the last commit and wait for no writer. There is no recovery step: an order in a worker's hands
//! stands in the queue under the end of its lease, so a restart finds it when that passes.
//!
//! ```text
//!   orders  number -> record            keys   (user, key) -> number      stock   gift -> (total, issued)
//!   due     (when due, number) open     open   (when accepted, number)    counts  state -> orders
//!   log     (number, attempt) -> word   dead   (when it died, number)     fence   -> (epoch, sets)
//! ```

use std::path::Path;

use ::redb::{Error, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::commit::{Applied, Committer, Engine, OpenError, Opener, file};
use crate::base::clock::Wall;
use crate::config::homes::Sets;
use crate::redpacket::ledger::{Answer, Claimed, Fenced, Hold, Ruling, Stats, Stock, Store, StoreError, fence, judge};
use crate::redpacket::model::{
    Attempt, Claim, Failure, GiftId, Order, OrderNo, Resolution, Settled, Settlement, State, Trail,
};

type Number = &'static [u8; 17];

const ORDERS: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("orders");
const KEYS: TableDefinition<'_, (&str, &str), Number> = TableDefinition::new("keys");
const DUE: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("due");
const OPEN: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("open");
const STOCK: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("stock");
const COUNTS: TableDefinition<'_, u8, u64> = TableDefinition::new("counts");
/// (when, failure; 0 = delivered)
const LOG: TableDefinition<'_, (Number, u32), (u64, u8)> = TableDefinition::new("log");
const DEAD: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("dead");
/// (epoch, sets), where a process has held it for homes.
const FENCE: TableDefinition<'_, (), (u64, u64, u64, u64, u64)> = TableDefinition::new("fence");

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

    fn writable(&self) -> bool {
        self.0.writable()
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
    let oldest_open = txn.open_table(OPEN)?.first()?.map(|(key, _)| Wall(key.value().0));
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
}

enum Out {
    Provisioned,
    Claimed(Box<Claimed>),
    Leased(Vec<Order>),
    Settled(Vec<Settled>),
    Fenced(Fenced),
}

impl Engine for Claims {
    type Op = Op;
    type Out = Out;
    const FORMAT: u64 = 2;
    const NAME: &'static str = "claims";

    fn prepare(&self, txn: &WriteTransaction, found: u64) -> Result<(), Error> {
        let mut tables = Tables::open(txn)?;
        if found < 2 {
            tables.leave_format_1()?;
        }
        Ok(())
    }

    fn apply(&self, txn: &WriteTransaction, ops: &[Op]) -> Result<Applied<Out>, Error> {
        let mut tables = Tables::open(txn)?;
        let mut outs = Vec::with_capacity(ops.len());
        for op in ops {
            outs.push(match op {
                Op::Provision(gift, total) => tables.provision(gift, *total)?,
                Op::Claim(claim, now) => tables.claim(claim, *now)?,
                Op::Lease { limit, until, now } => tables.lease(*limit, *until, *now)?,
                Op::Settle(words, now) => tables.settle(words, *now)?,
                Op::Resolve(order_nos, resolution, now) => tables.resolve(order_nos, *resolution, *now)?,
                Op::Fence(hold, take_over) => {
                    let fenced = hold_under(txn, *hold, *take_over)?;
                    tables.wrote |= fenced == Fenced::Held;
                    Ok(Out::Fenced(fenced))
                }
            });
        }
        Ok((outs, tables.wrote))
    }
}

/// The file belongs to one process at a time, so a claim need not look at the fence: who opened it last has passed it.
fn hold_under(txn: &WriteTransaction, hold: Hold, take_over: bool) -> Result<Fenced, Error> {
    let mut table = txn.open_table(FENCE)?;
    let stored = table.get(())?.map(|v| v.value());
    let stored = stored.map(|(epoch, a, b, c, d)| Hold { epoch, sets: Sets::from_words([a, b, c, d]) });
    let fenced = fence(stored, hold, take_over);
    if fenced == Fenced::Held {
        let [a, b, c, d] = hold.sets.words();
        table.insert((), (hold.epoch, a, b, c, d))?;
    }
    Ok(fenced)
}

struct Tables<'txn> {
    orders: Table<'txn, Number, &'static [u8]>,
    keys: Table<'txn, (&'static str, &'static str), Number>,
    due: Table<'txn, (u64, Number), ()>,
    open: Table<'txn, (u64, Number), ()>,
    stock: Table<'txn, &'static str, (u64, u64)>,
    counts: Table<'txn, u8, u64>,
    log: Table<'txn, (Number, u32), (u64, u8)>,
    dead: Table<'txn, (u64, Number), ()>,
    wrote: bool,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            orders: txn.open_table(ORDERS)?,
            keys: txn.open_table(KEYS)?,
            due: txn.open_table(DUE)?,
            open: txn.open_table(OPEN)?,
            stock: txn.open_table(STOCK)?,
            counts: txn.open_table(COUNTS)?,
            log: txn.open_table(LOG)?,
            dead: txn.open_table(DEAD)?,
            wrote: false,
        })
    }

    /// Format 1 had no list of dead letters, and no log: what it says of a closed order is its last word.
    fn leave_format_1(&mut self) -> Result<(), Error> {
        let mut closed = Vec::new();
        for entry in self.orders.iter()? {
            closed.extend(Order::decode(entry?.1.value()).filter(|order| !order.state.open()));
        }
        for order in closed {
            if order.state == State::Dead {
                self.dead.insert((order.updated.0, order.order_no.bytes()), ())?;
            }
            let last = Attempt { attempt: order.attempts, at: order.updated, failure: order.failure };
            self.note(order.order_no, last)?;
        }
        Ok(())
    }

    fn provision(&mut self, gift: &GiftId, total: u64) -> Seen<Out> {
        let old = self.stock.get(gift.as_str())?.map(|v| v.value());
        if old.is_none_or(|(known, _)| known != total) {
            self.stock.insert(gift.as_str(), (total, old.map_or(0, |(_, issued)| issued)))?;
            self.wrote = true;
        }
        Ok(Ok(Out::Provisioned))
    }

    fn find(&self, order_no: OrderNo) -> Seen<Option<Order>> {
        let Some(record) = self.orders.get(order_no.bytes())? else { return Ok(Ok(None)) };
        Ok(Order::decode(record.value()).map(Some).ok_or(StoreError::Damaged { order_no }))
    }

    fn claim(&mut self, claim: &Claim, now: Wall) -> Seen<Out> {
        let under_number = match self.find(claim.number())? {
            Ok(order) => order,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let under_key = match &claim.idempotency_key {
            Some(key) => self.keys.get((claim.user_id.as_str(), key.as_str()))?.map(|v| *v.value()),
            None => None,
        };
        let stock = self.stock.get(claim.gift_id.as_str())?.map(|v| v.value());
        let left = stock.map(|(total, issued)| Stock { total, issued }.left());
        let ruling = judge(claim, under_number.as_ref(), under_key.map(OrderNo::from_bytes), left);
        let claimed = match (ruling, under_number, stock) {
            (Ruling::Same, Some(order), _) => Claimed::Already(order),
            (Ruling::Take, _, Some((total, issued))) => {
                self.stock.insert(claim.gift_id.as_str(), (total, issued + 1))?;
                let order = Order::accept(claim.clone(), now);
                if let Some(key) = &claim.idempotency_key {
                    self.keys.insert((claim.user_id.as_str(), key.as_str()), order.order_no.bytes())?;
                }
                self.put(&order, None)?;
                Claimed::Accepted(order)
            }
            (Ruling::Conflict | Ruling::Same, ..) => Claimed::KeyConflict,
            (Ruling::SoldOut, ..) => Claimed::SoldOut,
            (Ruling::NoSuchGift | Ruling::Take, ..) => Claimed::NoSuchGift,
        };
        Ok(Ok(Out::Claimed(Box::new(claimed))))
    }

    fn lease(&mut self, limit: usize, until: Wall, now: Wall) -> Seen<Out> {
        let mut numbers = Vec::new();
        for entry in self.due.iter()?.take(limit) {
            let (at, number) = entry.map(|(key, _)| (key.value().0, *key.value().1))?;
            if at > now.0 {
                break;
            }
            numbers.push((at, OrderNo::from_bytes(number)));
        }
        let mut leased = Vec::with_capacity(numbers.len());
        for (at, order_no) in numbers {
            let order = self.find(order_no)?.ok().flatten();
            if let Some((old, order)) = order.as_ref().and_then(|old| Some((old, old.lease(until, now)?))) {
                self.put(&order, Some(old))?;
                leased.push(order);
            } else {
                // Damaged, or not what the queue says: put it at the end, so that it does not block those behind it.
                tracing::error!(%order_no, "the queue names an order that cannot be leased");
                self.due.remove((at, order_no.bytes()))?;
                self.due.insert((u64::MAX, order_no.bytes()), ())?;
                self.wrote = true;
            }
        }
        Ok(Ok(Out::Leased(leased)))
    }

    fn settle(&mut self, words: &[Settlement], now: Wall) -> Seen<Out> {
        let mut all = Vec::with_capacity(words.len());
        for word in words {
            let old = self.find(word.order_no)?.ok().flatten();
            let moved = old.as_ref().and_then(|old| Some((old, old.settle(word.attempt, word.verdict, now)?)));
            all.push(match moved {
                Some((old, order)) => {
                    self.put(&order, Some(old))?;
                    if let Some(attempt) = Attempt::of(word, now) {
                        self.note(word.order_no, attempt)?;
                    }
                    Settled::Moved(order.state)
                }
                None => Settled::Stale,
            });
        }
        Ok(Ok(Out::Settled(all)))
    }

    fn resolve(&mut self, order_nos: &[OrderNo], resolution: Resolution, now: Wall) -> Seen<Out> {
        let mut all = Vec::with_capacity(order_nos.len());
        for order_no in order_nos {
            let old = self.find(*order_no)?.ok().flatten();
            let moved = old.as_ref().and_then(|old| Some((old, old.resolve(resolution, now)?)));
            all.push(match moved {
                Some((old, order)) => {
                    self.put(&order, Some(old))?;
                    Settled::Moved(order.state)
                }
                None => Settled::Stale,
            });
        }
        Ok(Ok(Out::Settled(all)))
    }

    fn note(&mut self, order_no: OrderNo, attempt: Attempt) -> Result<(), Error> {
        let failure =
            attempt.failure.and_then(|f| Failure::ALL.iter().position(|g| *g == f)).map_or(0, |at| at as u8 + 1);
        self.log.insert((order_no.bytes(), attempt.attempt), (attempt.at.0, failure))?;
        Ok(())
    }

    /// Writes `order` in the place of `old`, with all that follows from it.
    fn put(&mut self, order: &Order, old: Option<&Order>) -> Result<(), Error> {
        let number = order.order_no.bytes();
        self.orders.insert(number, order.encode().as_slice())?;
        if let Some(old) = old {
            self.count(old.state, -1)?;
            if old.state.open() {
                self.due.remove((old.due.0, number))?;
            }
            if old.state.open() && !order.state.open() {
                self.open.remove((old.created.0, number))?;
            }
            if old.state == State::Dead {
                self.dead.remove((old.updated.0, number))?;
            }
        }
        if order.state.open() {
            self.due.insert((order.due.0, number), ())?;
        }
        if order.state.open() && !old.is_some_and(|old| old.state.open()) {
            self.open.insert((order.created.0, number), ())?;
        }
        if order.state == State::Dead {
            self.dead.insert((order.updated.0, number), ())?;
        }
        self.count(order.state, 1)?;
        self.wrote = true;
        Ok(())
    }

    fn count(&mut self, state: State, by: i64) -> Result<(), Error> {
        let old = self.counts.get(index(state))?.map(|v| v.value()).unwrap_or_default();
        self.counts.insert(index(state), old.saturating_add_signed(by))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
