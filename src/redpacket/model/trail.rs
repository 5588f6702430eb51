//! What was tried of an order: the log of deliveries that reconciliation reads beside the order and the game's ledger.

use serde::{Deserialize, Serialize};

use super::{Failure, Order, Settlement, Verdict};
use crate::base::clock::Wall;

/// What came of one attempt, as it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u32,
    /// When its word was written down.
    pub at: Wall,
    /// Why it failed; delivered where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Attempt {
    /// The entry for a word that moved its order; none where nothing was tried. A later word about the same attempt takes its
    /// place: that can only be the news that the game applied it after all.
    pub const fn of(word: &Settlement, now: Wall) -> Option<Self> {
        let failure = match word.verdict {
            Verdict::Delivered => None,
            Verdict::Retry { why, .. } | Verdict::Dead { why } => Some(why),
            Verdict::Defer { .. } => return None,
        };
        Some(Self { attempt: word.attempt, at: now, failure })
    }
}

/// An order and all that was tried, in the order of attempts. An attempt whose worker died has no entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// The order.
    pub order: Order,
    /// The log.
    pub attempts: Vec<Attempt>,
}

impl Trail {
    /// Entries that say delivered: one for a delivered order, none for any other.
    pub fn delivered(&self) -> usize {
        self.attempts.iter().filter(|a| a.failure.is_none()).count()
    }
}
