//! The ledger as a plain value: the laws of [`Store`](super::Store) without IO, locks or clocks.
//!
//! The memory store is a book behind a lock; a store of one's own may be a book and a log of what was written into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::transfer::{self, Giving, Latest, Share, Transfer};
use super::{Claimed, Fenced, Hold, Ruling, Stats, Stock, fence, judge};
use crate::base::clock::Wall;
use crate::redpacket::model::{
    Attempt, Claim, GiftId, IdempotencyKey, Order, OrderNo, Resolution, Settled, Settlement, State, Trail, UserId,
};

/// Orders, stock, keys and the delivery queue.
#[derive(Clone, Debug, Default)]
pub struct Book {
    orders: BTreeMap<OrderNo, Order>,
    log: BTreeMap<(OrderNo, u32), Attempt>,
    keys: HashMap<(UserId, IdempotencyKey), OrderNo>,
    /// Open orders by when they are due.
    due: BTreeSet<(Wall, OrderNo)>,
    /// Open orders by when they were accepted.
    open: BTreeSet<(Wall, OrderNo)>,
    /// Dead orders by when they died.
    dead: BTreeSet<(Wall, OrderNo)>,
    /// Totals as they are with what has moved.
    stock: BTreeMap<GiftId, Stock>,
    shares: BTreeMap<GiftId, Share>,
    given: BTreeMap<(String, GiftId), Latest>,
    taken: BTreeMap<(String, GiftId), Latest>,
    states: BTreeMap<State, u64>,
    hold: Option<Hold>,
}

impl Book {
    /// See [`Store::provision`](super::Store::provision).
    pub fn provision(&mut self, gift: GiftId, total: u64) {
        self.reshare(gift, |share| share.base = total);
    }

    fn reshare(&mut self, gift: GiftId, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(gift.clone()).or_default();
        change(share);
        self.stock.entry(gift).or_default().total = share.total();
    }

    /// See [`Store::give`](super::Store::give).
    pub fn give(&mut self, to: &Transfer, most: u64) -> Option<u64> {
        let pair = (to.with.clone(), to.gift.clone());
        let latest = self.given.get(&pair).copied().unwrap_or_default();
        let left = self.stock.get(&to.gift).map_or(0, |stock| stock.left());
        match transfer::give(latest, to.number, most, left) {
            Giving::New(amount) => {
                self.given.insert(pair, Latest { number: to.number, amount });
                self.reshare(to.gift.clone(), |share| share.given += amount);
                Some(amount)
            }
            Giving::Again(amount) => Some(amount),
            Giving::Nothing => Some(0),
            Giving::Stale => None,
        }
    }

    /// See [`Store::take`](super::Store::take).
    pub fn take(&mut self, from: &Transfer, amount: u64) -> bool {
        let latest = self.taken.entry((from.with.clone(), from.gift.clone())).or_default();
        let is_new = transfer::take(*latest, from.number);
        if is_new {
            *latest = Latest { number: from.number, amount };
            self.reshare(from.gift.clone(), |share| share.taken = share.taken.saturating_add(amount));
        }
        is_new
    }

    /// See [`Store::turn`](super::Store::turn).
    pub fn turn(&self, home: &str, gift: &GiftId) -> u64 {
        self.taken.get(&(home.to_owned(), gift.clone())).map_or(1, |latest| latest.number + 1)
    }

    /// See [`Store::fence`](super::Store::fence).
    pub fn fence(&mut self, hold: Hold, take_over: bool) -> Fenced {
        let ruling = fence(self.hold, hold, take_over);
        if ruling == Fenced::Held {
            self.hold = Some(hold);
        }
        ruling
    }

    /// How it is held, where anybody has held it.
    pub const fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// See [`Store::claim`](super::Store::claim). Whether this may be decided here is asked before: see [`Book::hold`].
    pub fn claim(&mut self, claim: Claim, now: Wall) -> Claimed {
        let under_number = self.orders.get(&claim.number());
        let key = claim.idempotency_key.clone().map(|key| (claim.user_id.clone(), key));
        let under_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
        let left = self.stock.get(&claim.gift_id).map(|s| s.left());
        match (judge(&claim, under_number, under_key, left), under_number) {
            (Ruling::Same, Some(order)) => Claimed::Already(order.clone()),
            (Ruling::Take, _) => {
                let order = Order::accept(claim, now);
                self.restore(order.clone());
                Claimed::Accepted(order)
            }
            (Ruling::Conflict | Ruling::Same, _) => Claimed::KeyConflict,
            (Ruling::SoldOut, _) => Claimed::SoldOut,
            (Ruling::NoSuchGift, _) => Claimed::NoSuchGift,
        }
    }

    /// See [`Store::find`](super::Store::find).
    pub fn find(&self, order_no: OrderNo) -> Option<&Order> {
        self.orders.get(&order_no)
    }

    /// See [`Store::lease`](super::Store::lease).
    pub fn lease(&mut self, limit: usize, until: Wall, now: Wall) -> Vec<Order> {
        let due: Vec<OrderNo> =
            self.due.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, no)| *no).collect();
        let mut leased = Vec::with_capacity(due.len());
        for order_no in due {
            if let Some(order) = self.orders.get(&order_no).and_then(|order| order.lease(until, now)) {
                self.restore(order.clone());
                leased.push(order);
            }
        }
        leased
    }

    /// See [`Store::settle`](super::Store::settle).
    pub fn settle(&mut self, word: Settlement, now: Wall) -> Settled {
        let moved = self.orders.get(&word.order_no).and_then(|order| order.settle(word.attempt, word.verdict, now));
        moved.map_or(Settled::Stale, |order| {
            let state = order.state;
            self.restore(order);
            if let Some(attempt) = Attempt::of(&word, now) {
                self.remember(word.order_no, attempt);
            }
            Settled::Moved(state)
        })
    }

    /// See [`Store::dead`](super::Store::dead).
    pub fn dead(&self, limit: usize) -> Vec<Order> {
        self.dead.iter().take(limit).filter_map(|(_, no)| self.orders.get(no)).cloned().collect()
    }

    /// See [`Store::resolve`](super::Store::resolve).
    pub fn resolve(&mut self, order_no: OrderNo, resolution: Resolution, now: Wall) -> Settled {
        let moved = self.orders.get(&order_no).and_then(|order| order.resolve(resolution, now));
        moved.map_or(Settled::Stale, |order| {
            let state = order.state;
            self.restore(order);
            Settled::Moved(state)
        })
    }

    /// See [`Store::scan`](super::Store::scan).
    pub fn scan(&self, after: Option<OrderNo>, limit: usize) -> Vec<Trail> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = self.orders.range((from, Bound::Unbounded)).take(limit);
        page.map(|(_, order)| Trail { order: order.clone(), attempts: self.attempts(order.order_no) }).collect()
    }

    /// The log of an order.
    pub fn attempts(&self, order_no: OrderNo) -> Vec<Attempt> {
        self.log.range((order_no, 0)..=(order_no, u32::MAX)).map(|(_, attempt)| *attempt).collect()
    }

    /// See [`Store::stats`](super::Store::stats).
    pub fn stats(&self) -> Stats {
        let count = |state| self.states.get(&state).copied().unwrap_or_default();
        let stock = self.stock.iter().map(|(gift, stock)| (gift.clone(), *stock)).collect();
        Stats::counting(count, self.open.first().map(|(at, _)| *at), stock)
    }

    /// Writes `attempt` into the log, over what it said of that attempt; for reading a log of one's own back.
    pub fn remember(&mut self, order_no: OrderNo, attempt: Attempt) {
        self.log.insert((order_no, attempt.attempt), attempt);
    }

    /// Puts `order` as it stands now in the place of what was known of it; for reading a log back, the last entry of an
    /// order last. An order that was not known counts as issued.
    pub fn restore(&mut self, order: Order) {
        let place = (order.due, order.order_no);
        let birth = (order.created, order.order_no);
        let death = (order.updated, order.order_no);
        *self.states.entry(order.state).or_default() += 1;
        if let Some(key) = &order.claim.idempotency_key {
            self.keys.insert((order.claim.user_id.clone(), key.clone()), order.order_no);
        }
        let (state, gift) = (order.state, order.claim.gift_id.clone());
        if let Some(old) = self.orders.insert(order.order_no, order) {
            self.due.remove(&(old.due, old.order_no));
            self.open.remove(&(old.created, old.order_no));
            self.dead.remove(&(old.updated, old.order_no));
            if let Some(count) = self.states.get_mut(&old.state) {
                *count = count.saturating_sub(1);
            }
        } else {
            self.stock.entry(gift).or_default().issued += 1;
        }
        if state.open() {
            self.due.insert(place);
            self.open.insert(birth);
        }
        if state == State::Dead {
            self.dead.insert(death);
        }
    }
}

#[cfg(test)]
mod tests;
