//! The ledger: what every store of orders must do, whatever it keeps them in.
//!
//! [`Store`] is the trait, its laws stand beside it, [`conformance`] checks them on any implementation, [`judge`] is the
//! one decision that all of them make, and [`Book`] is the whole thing as a plain value, for stores that keep everything
//! in memory (and perhaps a log beside it).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{Claim, Code, GiftId, Order, OrderNo, Resolution, Settled, Settlement, State, Trail};
use crate::base::clock::Wall;

mod book;
pub mod cash;
pub mod conformance;
mod fence;
pub mod transfer;

pub use book::Book;
pub use fence::{Fenced, Hold, fence};
pub use transfer::Transfer;

/// What a store's methods return.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Keeps orders, stock and what is to be delivered. The laws (RED_PACKET 2.4), which [`conformance`] checks:
///
/// - **I1** A gift never gives more than its total: `total == left + issued` at every commit.
/// - **I2** At most one order for each (activity, packet, user). The same claim again gets the same order; the same key
///   with another body is a conflict; nothing of either changes the stock.
/// - **I4** When [`Store::claim`] answers [`Claimed::Accepted`], the order, the stock and the entry for delivery are
///   durable, all three in one commit. An error means that they are not, except [`StoreError::Unknown`].
/// - **I5** An order is in at most one worker's lease at a time, is leased again when that ends without a word, and
///   leaves the queue for good once it is delivered, or until a person says otherwise once it is dead. Late words change
///   nothing but for the better.
/// - **I7** [`Store::stats`] adds up: orders by state = orders issued by all gifts. [`Store::scan`] shows each of them, with
///   a word in its log for each move that a worker made.
///
/// A store may be one process's own or a server that many share: then all of this holds for all of them together, and a
/// handle sees at once what another's commit wrote. Losing a connection is no excuse: a store that cannot tell whether its
/// commit went through tries again under the same number, and answers [`Claimed::Already`] or [`StoreError::Unknown`],
/// never with a second order.
///
/// No method blocks the caller's thread on IO or waits without a bound: a store with too much to do refuses with
/// [`StoreError::Overloaded`]. A caller that stops waiting is its own deadline: what has not begun by then need not be done,
/// what has may be done all the same. Time comes in as an argument.
pub trait Store: Send + Sync {
    /// What it is, for logs: `redb`, `memory`, `postgres`.
    fn name(&self) -> &'static str;

    /// Lets `gift` give `total` in all, counting what it gave already. A total below that stops it from giving more.
    fn provision(&self, gift: GiftId, total: u64) -> Answer<'_, ()>;

    /// Makes the order that `claim` asks for, or finds the one that it made before.
    fn claim(&self, claim: Claim, now: Wall) -> Answer<'_, Claimed>;

    /// The order with this number.
    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Order>>;

    /// Takes up to `limit` orders that are due, the longest due first, until `until`.
    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Order>>;

    /// Takes workers' words, in order; each gets its answer.
    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>>;

    /// Dead letters: up to `limit` orders that were given up, the longest dead first.
    fn dead(&self, limit: usize) -> Answer<'_, Vec<Order>>;

    /// Takes a person's word on dead letters, in order; each gets its answer. Those that are not dead are left alone.
    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>>;

    /// Up to `limit` orders with their logs, by number, from the first after `after`: for reconciliation, page by page. A
    /// page is of one moment, two pages are not.
    fn scan(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Trail>>;

    /// What is in it. Asked about once a second by every process: its cost must not grow with the orders that are done.
    fn stats(&self) -> Answer<'_, Stats>;

    /// Decides from now on as `hold` says, durably, where [`fence`] allows it; `take_over` is a person's word. From then on
    /// claims are refused with [`StoreError::Fenced`] whose users are in none of its sets ([`Hold::decides`]), and, where many
    /// handles share a store, all claims through those that held it under an older epoch or never: not one of them is
    /// committed after this has answered. A store that keeps no such record cannot be any users' home beside others.
    fn fence(&self, hold: Hold, take_over: bool) -> Answer<'_, Fenced> {
        let _ = (hold, take_over);
        let reason = "this kind of store keeps no epoch of homes".to_owned();
        Box::pin(std::future::ready(Err(StoreError::Unwritable { reason })))
    }

    /// Gives at most `most` of what is left to another home, durably, under the transfer's number; the same again for the same
    /// number; nothing where there is none, and `None` where the number is of the past ([`transfer`]). A store that moves no
    /// stock refuses, and so with the two that follow.
    fn give(&self, to: Transfer, most: u64) -> Answer<'_, Option<u64>> {
        let _ = (to, most);
        Box::pin(std::future::ready(Err(moves_none())))
    }

    /// Adds what another home gave, durably, once. Says whether this was the once.
    fn take(&self, from: Transfer, amount: u64) -> Answer<'_, bool> {
        let _ = (from, amount);
        Box::pin(std::future::ready(Err(moves_none())))
    }

    /// Under which number `home` is to be asked for `gift` next: the same until [`Store::take`] has had it.
    fn turn(&self, home: String, gift: GiftId) -> Answer<'_, u64> {
        let _ = (home, gift);
        Box::pin(std::future::ready(Err(moves_none())))
    }

    /// Whether claims can be taken now, as far as it is known. Cheap; for health checks. Heals by itself.
    fn writable(&self) -> bool;

    /// Whether nobody can write to it but through this handle, as long as it is open.
    fn is_alone(&self) -> bool {
        false
    }
}

fn moves_none() -> StoreError {
    StoreError::Unwritable { reason: "this kind of store moves no stock".to_owned() }
}

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A new order.
    Accepted(Order),
    /// The order of the same claim, made before.
    Already(Order),
    /// The key belongs to a different claim.
    KeyConflict,
    /// The gift has given all it had.
    SoldOut,
    /// The store knows no such gift.
    NoSuchGift,
}

impl Claimed {
    /// The code that a client gets for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Accepted(_) => Code::Accepted,
            Self::Already(_) => Code::AlreadyClaimed,
            Self::KeyConflict => Code::KeyConflict,
            Self::SoldOut => Code::SoldOut,
            Self::NoSuchGift => Code::NotEligible,
        }
    }
}

/// The decision about a claim, before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Make the order and take one from the stock.
    Take,
    /// Answer with the order that stands under the number.
    Same,
    /// Refuse: the key belongs to a different claim.
    Conflict,
    /// Refuse: nothing left.
    SoldOut,
    /// Refuse: no such gift.
    NoSuchGift,
}

/// Rules on `claim`, given the order under its number, the number under its idempotency key, and what its gift has left.
pub fn judge(claim: &Claim, under_number: Option<&Order>, under_key: Option<OrderNo>, left: Option<u64>) -> Ruling {
    if under_key.is_some_and(|no| no != claim.number()) {
        return Ruling::Conflict;
    }
    match (under_number, left) {
        (Some(order), _) => {
            let old = &order.claim;
            let same_name = old.activity_id == claim.activity_id
                && old.packet_id == claim.packet_id
                && old.user_id == claim.user_id;
            // A collision of the hash, or the same key with another wish. A new key with another wish is told of the
            // order that stands: one packet, one gift.
            let changed = old.idempotency_key == claim.idempotency_key && !old.same_body(claim);
            if !same_name || changed { Ruling::Conflict } else { Ruling::Same }
        }
        (None, None) => Ruling::NoSuchGift,
        (None, Some(0)) => Ruling::SoldOut,
        (None, Some(_)) => Ruling::Take,
    }
}

/// What a gift has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// May be given in all.
    pub total: u64,
    /// Given.
    pub issued: u64,
}

impl Stock {
    /// Still to be given; nothing where the total was cut below what was given.
    pub const fn left(self) -> u64 {
        self.total.saturating_sub(self.issued)
    }
}

/// What is in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Orders accepted and never tried.
    pub accepted: u64,
    /// Orders in a worker's hands.
    pub delivering: u64,
    /// Orders that wait for another try.
    pub retry_wait: u64,
    /// Orders delivered.
    pub delivered: u64,
    /// Orders given up.
    pub dead: u64,
    /// Orders made good in another way.
    #[serde(default)]
    pub compensated: u64,
    /// When the oldest order that is still open was accepted.
    pub oldest_open: Option<Wall>,
    /// Every gift's stock, by gift.
    pub stock: Vec<(GiftId, Stock)>,
}

impl Stats {
    /// Orders that are still to be delivered.
    pub const fn open(&self) -> u64 {
        self.accepted + self.delivering + self.retry_wait
    }

    /// Orders in `state`.
    pub const fn of(&self, state: State) -> u64 {
        match state {
            State::Accepted => self.accepted,
            State::Delivering => self.delivering,
            State::RetryWait => self.retry_wait,
            State::Delivered => self.delivered,
            State::Dead => self.dead,
            State::Compensated => self.compensated,
        }
    }

    /// Their sums out of `count`, which knows how many orders are in a state.
    pub fn counting(count: impl Fn(State) -> u64, oldest_open: Option<Wall>, stock: Vec<(GiftId, Stock)>) -> Self {
        Self {
            accepted: count(State::Accepted),
            delivering: count(State::Delivering),
            retry_wait: count(State::RetryWait),
            delivered: count(State::Delivered),
            dead: count(State::Dead),
            compensated: count(State::Compensated),
            oldest_open,
            stock,
        }
    }

    /// What a person has to be told at `now`, where `promise` is how long an order may be open (I6): every order that is
    /// neither delivered nor made good within it is among the late or the dead.
    pub fn alarms(&self, now: Wall, promise: Duration) -> [(Alarm, bool); 2] {
        let late = self.oldest_open.is_some_and(|at| now.since(at) > promise);
        [(Alarm::Dead, self.dead > 0), (Alarm::Late, late)]
    }

    /// All orders.
    pub const fn orders(&self) -> u64 {
        self.open() + self.delivered + self.dead + self.compensated
    }
}

/// Why a person must look at a store's orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Some were given up.
    Dead,
    /// Some are open for longer than was promised.
    Late,
}

impl Alarm {
    /// Its label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Late => "late",
        }
    }
}

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Its queue is full. Nothing was done.
    #[error("the store's queue is full")]
    Overloaded,
    /// It cannot write: disk full, IO error, no connection. Nothing was done.
    #[error("the store cannot write: {reason}")]
    Unwritable {
        /// What the engine said.
        reason: String,
    },
    /// The commit failed half way, or the connection was lost in it: it may or may not be durable. The same claim again
    /// tells.
    #[error("the store does not know whether the commit is durable: {reason}")]
    Unknown {
        /// What the engine said.
        reason: String,
    },
    /// It cannot read.
    #[error("the store cannot read: {reason}")]
    Unreadable {
        /// What the engine said.
        reason: String,
    },
    /// A record is not what was written.
    #[error("the record of order {order_no} is damaged")]
    Damaged {
        /// Whose.
        order_no: OrderNo,
    },
    /// It is held under an epoch of the homes' file by which this handle may not decide about this claim: a newer one than the
    /// handle's, or one that has the user's home elsewhere. Nothing was done.
    #[error("the store is held under epoch {epoch} of the homes, by which this process does not decide for this user")]
    Fenced {
        /// Which.
        epoch: u64,
    },
    /// It has stopped.
    #[error("the store has stopped")]
    Stopped,
}

impl StoreError {
    /// The code that a client gets for it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Overloaded => Code::Overloaded,
            Self::Unknown { .. } => Code::Deadline,
            Self::Unwritable { .. }
            | Self::Unreadable { .. }
            | Self::Damaged { .. }
            | Self::Fenced { .. }
            | Self::Stopped => Code::Unavailable,
        }
    }
}

/// A claim process's part of a gift's stock: `part` of `of` parts of `total`. The parts add up to the total exactly.
pub const fn share(total: u64, part: u32, of: u32) -> u64 {
    let (total, part, of) = (total as u128, part as u128, of as u128);
    if of == 0 || part >= of { 0 } else { (total * (part + 1) / of - total * part / of) as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_of_a_stock_add_up(total: u64, of in 1u32..50) {
            let parts: Vec<u64> = (0..of).map(|part| share(total, part, of)).collect();
            prop_assert_eq!(parts.iter().map(|p| u128::from(*p)).sum::<u128>(), u128::from(total));
            prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
            prop_assert_eq!(share(total, of, of), 0);
        }
    }
}
