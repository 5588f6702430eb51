//! What each op does to the tables, inside one transaction. An op's own error leaves no trace: everything is read and
//! judged before anything is written. Sums are added up in memory and written once, by [`Tables::finish`].

use std::collections::{BTreeMap, HashMap};

use redb::{Error, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{AGES, COUNTS, DEAD, DUE, GIVEN, KEYS, LOG, MOVES, Number, ORDERS, Out, SHARES, STOCK, Seen, TAKEN, index};
use crate::base::clock::Wall;
use crate::redpacket::ledger::transfer::{self, Giving, Latest, Share, Transfer};
use crate::redpacket::ledger::{Claimed, Ruling, Stock, StoreError, judge};
use crate::redpacket::model::{
    Attempt, Claim, Failure, GiftId, Order, OrderNo, Resolution, Settled, Settlement, State,
};

pub(super) struct Tables<'txn> {
    orders: Table<'txn, Number, &'static [u8]>,
    keys: Table<'txn, (&'static str, &'static str), Number>,
    due: Table<'txn, (u64, Number), ()>,
    ages: Table<'txn, u64, u64>,
    stock: Table<'txn, &'static str, (u64, u64)>,
    counts: Table<'txn, u8, u64>,
    log: Table<'txn, (Number, u32), (u64, u8)>,
    dead: Table<'txn, (u64, Number), ()>,
    shares: Table<'txn, &'static str, (u64, u64, u64)>,
    moves: Table<'txn, (u8, &'static str, &'static str), (u64, u64)>,
    /// Sums that this transaction has looked at or changed; written once, at its end.
    sums: Sums,
    pub(super) wrote: bool,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            orders: txn.open_table(ORDERS)?,
            keys: txn.open_table(KEYS)?,
            due: txn.open_table(DUE)?,
            ages: txn.open_table(AGES)?,
            stock: txn.open_table(STOCK)?,
            counts: txn.open_table(COUNTS)?,
            log: txn.open_table(LOG)?,
            dead: txn.open_table(DEAD)?,
            shares: txn.open_table(SHARES)?,
            moves: txn.open_table(MOVES)?,
            sums: Sums::default(),
            wrote: false,
        })
    }

    /// Format 1 had no list of dead letters, and no log: what it says of a closed order is its last word.
    pub(super) fn leave_format_1(&mut self) -> Result<(), Error> {
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

    /// Format 2 listed every open order by its age, where their number is enough.
    pub(super) fn leave_format_2(&mut self, txn: &WriteTransaction) -> Result<(), Error> {
        const OPEN: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("open");
        let open = txn.open_table(OPEN)?;
        for entry in open.iter()? {
            *self.sums.ages.entry(entry?.0.value().0).or_default() += 1;
        }
        drop(open);
        txn.delete_table(OPEN)?;
        Ok(())
    }

    /// In format 3 no stock moved: a total was what the configuration said.
    pub(super) fn leave_format_3(&mut self) -> Result<(), Error> {
        for entry in self.stock.iter()? {
            let (gift, stock) = entry?;
            self.shares.insert(gift.value(), (stock.value().0, 0, 0))?;
        }
        Ok(())
    }

    pub(super) fn provision(&mut self, gift: &GiftId, total: u64) -> Seen<Out> {
        if self.share(gift)?.is_none_or(|share| share.base != total) {
            self.reshare(gift, |share| share.base = total)?;
        }
        Ok(Ok(Out::Provisioned))
    }

    /// What the total of `gift` is made of; nothing where the store has no such gift.
    fn share(&self, gift: &GiftId) -> Result<Option<Share>, Error> {
        let share = self.shares.get(gift.as_str())?.map(|v| v.value());
        Ok(share.map(|(base, taken, given)| Share { base, taken, given }))
    }

    fn reshare(&mut self, gift: &GiftId, change: impl FnOnce(&mut Share)) -> Result<(), Error> {
        let mut share = self.share(gift)?.unwrap_or_default();
        change(&mut share);
        self.shares.insert(gift.as_str(), (share.base, share.taken, share.given))?;
        let issued = self.stock(gift)?.map_or(0, |stock| stock.issued);
        let stock = Stock { total: share.total(), issued };
        self.sums.stock.insert(gift.clone(), Kept { stock: Some(stock), changed: true });
        self.wrote = true;
        Ok(())
    }

    fn latest(&self, way: u8, transfer: &Transfer) -> Result<Latest, Error> {
        let latest = self.moves.get((way, transfer.with.as_str(), transfer.gift.as_str()))?.map(|v| v.value());
        Ok(latest.map(|(number, amount)| Latest { number, amount }).unwrap_or_default())
    }

    fn moved(&mut self, way: u8, transfer: &Transfer, amount: u64) -> Result<(), Error> {
        let pair = (way, transfer.with.as_str(), transfer.gift.as_str());
        self.moves.insert(pair, (transfer.number, amount))?;
        Ok(())
    }

    pub(super) fn give(&mut self, to: &Transfer, most: u64) -> Seen<Out> {
        let left = self.stock(&to.gift)?.map_or(0, Stock::left);
        let given = match transfer::give(self.latest(GIVEN, to)?, to.number, most, left) {
            Giving::New(amount) => {
                self.moved(GIVEN, to, amount)?;
                self.reshare(&to.gift, |share| share.given += amount)?;
                Some(amount)
            }
            Giving::Again(amount) => Some(amount),
            Giving::Nothing => Some(0),
            Giving::Stale => None,
        };
        Ok(Ok(Out::Given(given)))
    }

    pub(super) fn take(&mut self, from: &Transfer, amount: u64) -> Seen<Out> {
        let is_new = transfer::take(self.latest(TAKEN, from)?, from.number);
        if is_new {
            self.moved(TAKEN, from, amount)?;
            self.reshare(&from.gift, |share| share.taken = share.taken.saturating_add(amount))?;
        }
        Ok(Ok(Out::Taken(is_new)))
    }

    fn find(&self, order_no: OrderNo) -> Seen<Option<Order>> {
        let Some(record) = self.orders.get(order_no.bytes())? else { return Ok(Ok(None)) };
        Ok(Order::decode(record.value()).map(Some).ok_or(StoreError::Damaged { order_no }))
    }

    pub(super) fn claim(&mut self, claim: &Claim, now: Wall) -> Seen<Out> {
        let under_number = match self.find(claim.number())? {
            Ok(order) => order,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let under_key = match &claim.idempotency_key {
            Some(key) => self.keys.get((claim.user_id.as_str(), key.as_str()))?.map(|v| *v.value()),
            None => None,
        };
        let stock = self.stock(&claim.gift_id)?;
        let left = stock.map(Stock::left);
        let ruling = judge(claim, under_number.as_ref(), under_key.map(OrderNo::from_bytes), left);
        let claimed = match (ruling, under_number, stock) {
            (Ruling::Same, Some(order), _) => Claimed::Already(order),
            (Ruling::Take, _, Some(stock)) => {
                let stock = Stock { issued: stock.issued + 1, ..stock };
                self.sums.stock.insert(claim.gift_id.clone(), Kept { stock: Some(stock), changed: true });
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

    pub(super) fn lease(&mut self, limit: usize, until: Wall, now: Wall) -> Seen<Out> {
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

    pub(super) fn settle(&mut self, words: &[Settlement], now: Wall) -> Seen<Out> {
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

    pub(super) fn resolve(&mut self, order_nos: &[OrderNo], resolution: Resolution, now: Wall) -> Seen<Out> {
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
            self.sums.count(old, -1);
            if old.state.open() {
                self.due.remove((old.due.0, number))?;
            }
            if old.state == State::Dead {
                self.dead.remove((old.updated.0, number))?;
            }
        }
        if order.state.open() {
            self.due.insert((order.due.0, number), ())?;
        }
        if order.state == State::Dead {
            self.dead.insert((order.updated.0, number), ())?;
        }
        self.sums.count(order, 1);
        self.wrote = true;
        Ok(())
    }

    /// What `gift` has, as of now in this transaction.
    fn stock(&mut self, gift: &GiftId) -> Result<Option<Stock>, Error> {
        if let Some(kept) = self.sums.stock.get(gift) {
            return Ok(kept.stock);
        }
        let stock = self.stock.get(gift.as_str())?.map(|v| v.value());
        let stock = stock.map(|(total, issued)| Stock { total, issued });
        self.sums.stock.insert(gift.clone(), Kept { stock, changed: false });
        Ok(stock)
    }

    /// Writes the sums. Says whether anything was written at all.
    pub(super) fn finish(mut self) -> Result<bool, Error> {
        let Sums { stock, counts, ages } = self.sums;
        for (gift, kept) in stock {
            if let (Some(Stock { total, issued }), true) = (kept.stock, kept.changed) {
                self.stock.insert(gift.as_str(), (total, issued))?;
            }
        }
        for (state, by) in counts.into_iter().filter(|(_, by)| *by != 0) {
            let old = self.counts.get(state)?.map(|v| v.value()).unwrap_or_default();
            self.counts.insert(state, old.saturating_add_signed(by))?;
        }
        for (accepted, by) in ages.into_iter().filter(|(_, by)| *by != 0) {
            let old = self.ages.get(accepted)?.map(|v| v.value()).unwrap_or_default();
            match old.saturating_add_signed(by) {
                0 => self.ages.remove(accepted)?.map(drop),
                n => self.ages.insert(accepted, n)?.map(drop),
            };
        }
        Ok(self.wrote)
    }
}

/// A gift's stock, as a transaction knows it.
struct Kept {
    /// Nothing where the store has no such gift.
    stock: Option<Stock>,
    changed: bool,
}

/// What a transaction adds up before it writes it.
#[derive(Default)]
struct Sums {
    stock: HashMap<GiftId, Kept>,
    /// Orders more, by the key of their state.
    counts: BTreeMap<u8, i64>,
    /// Open orders more, by when they were accepted.
    ages: BTreeMap<u64, i64>,
}

impl Sums {
    fn count(&mut self, order: &Order, by: i64) {
        *self.counts.entry(index(order.state)).or_default() += by;
        if order.state.open() {
            *self.ages.entry(order.created.0).or_default() += by;
        }
    }
}
