//! Stock that moves between homes: from the store of one that has some to that of one that has sold out (RED_PACKET I1).
//!
//! ```text
//!   taker: asks under number n --------> giver: takes it off its stock, durably, under n
//!   taker: adds it, durably, under n <-- giver: says how much
//! ```
//!
//! Each pair of homes counts the transfers of a gift, from 1. The debit is durable before anybody hears of it, and the taker
//! asks under one number until its credit is durable, too: so whatever dies, is lost, comes late or comes twice, all homes
//! together never have more than before, and what is on its way (one transfer a pair and gift) is not lost. Pure; stores
//! keep the records.

use serde::{Deserialize, Serialize};

use super::Stock;
use crate::redpacket::model::GiftId;

/// A transfer of stock, by what both sides call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The other home.
    pub with: String,
    /// What is moved.
    pub gift: GiftId,
    /// The number, from 1.
    pub number: u64,
}

/// The latest transfer that a store knows of, with one home, of one gift, in one direction. Number 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latest {
    /// Its number.
    pub number: u64,
    /// How much it was.
    pub amount: u64,
}

/// A gift's total: what the configuration gave it, and what has come and gone since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// By the configuration.
    pub base: u64,
    /// From other homes.
    pub taken: u64,
    /// To other homes.
    pub given: u64,
}

impl Share {
    /// What may be issued in all.
    pub const fn total(self) -> u64 {
        self.base.saturating_add(self.taken).saturating_sub(self.given)
    }
}

/// What a giver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giving {
    /// Takes so much off its stock.
    New(u64),
    /// Says again what it gave under this number.
    Again(u64),
    /// Has nothing. The number stays free.
    Nothing,
    /// The number is not the next one: a word of the past, or of a store that has forgotten. Refused.
    Stale,
}

/// Rules on the wish for at most `most` under `number`, with `left` in stock: half of it at most, so that it does not move to
/// and fro; of a single one, that one.
pub const fn give(latest: Latest, number: u64, most: u64, left: u64) -> Giving {
    if number == 0 || number < latest.number || number - latest.number > 1 {
        return Giving::Stale;
    }
    if number == latest.number {
        return Giving::Again(latest.amount);
    }
    let half = left.div_ceil(2);
    match if most < half { most } else { half } {
        0 => Giving::Nothing,
        amount => Giving::New(amount),
    }
}

/// Whether what was given under `number` is to be added: once.
pub const fn take(latest: Latest, number: u64) -> bool {
    number == latest.number + 1
}

/// Why a home asks another for stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Only for what was given under this number before, and whose answer may be lost.
    Recall,
    /// It has this much left, less than a fifth of its part.
    Low {
        /// What it has.
        left: u64,
    },
    /// It has nothing left, and has sent a user away for that.
    Out,
}

impl Need {
    /// What a home with `stock` asks for; `refused`: whether it has sent anybody away since there was some.
    pub const fn of(stock: Stock, refused: bool) -> Option<Self> {
        match stock.left() {
            0 if refused => Some(Self::Out),
            left if is_low(stock) => Some(Self::Low { left }),
            _ => None,
        }
    }
}

/// Less than a fifth of its part is left (RED_PACKET 2.7).
const fn is_low(stock: Stock) -> bool {
    stock.left().saturating_mul(5) < stock.total
}

/// How much a home with `stock` can spare. Who is low gets what makes both even, so that nothing goes to and fro, and not from
/// somebody who is low as well; who has nothing gets some from anybody who has, down to the last one where a user waits for it.
pub const fn spare(stock: Stock, need: Need) -> u64 {
    match need {
        Need::Low { left } if left == 0 || !is_low(stock) => stock.left().saturating_sub(left) / 2,
        Need::Recall | Need::Low { .. } => 0,
        Need::Out => stock.left().div_ceil(2),
    }
}

#[cfg(test)]
mod tests;
