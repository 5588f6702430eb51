//! Fences: a store remembers under which epoch of the homes' file it decides, and for which sets of users.
//!
//! ```text
//!   nothing held --any epoch--> held      older epoch: refused, that process is of the past
//!   same epoch, same sets: held           same epoch, other sets: refused, two files claim to be one
//!   newer epoch, no set more: held        newer epoch, more sets: only with a person's word (a takeover)
//! ```
//!
//! So nobody decides for a user with yesterday's file, and a set comes to a store only by a person who has seen to it that
//! its orders come with it. A store that is held decides for the sets of its hold and for no others. Pure;
//! [`Store::fence`](super::Store::fence) keeps the record.

use serde::{Deserialize, Serialize};

use crate::config::homes::Sets;
use crate::redpacket::model::OrderNo;

/// For whom a process wants to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Under which epoch of the file.
    pub epoch: u64,
    /// For which sets.
    pub sets: Sets,
}

impl Hold {
    /// Whether who holds a store so may decide about the order of that number.
    pub fn decides(&self, order_no: OrderNo) -> bool {
        self.sets.has(order_no.set())
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// It decides.
    Held,
    /// The store is held under a newer epoch.
    Older {
        /// Which.
        epoch: u64,
    },
    /// The store is held under this epoch for other sets.
    Differs,
    /// It would decide for sets that were not this store's, and nobody has said that it may.
    Gains {
        /// How many.
        sets: usize,
    },
}

/// Whether `wanted` may hold a store that is held by `stored`. `take_over`: a person's word that the sets that it gains
/// have no other store that decides, and that their orders are in this one.
pub fn fence(stored: Option<Hold>, wanted: Hold, take_over: bool) -> Fenced {
    let Some(stored) = stored else { return Fenced::Held };
    if wanted.epoch < stored.epoch {
        return Fenced::Older { epoch: stored.epoch };
    }
    if wanted.epoch == stored.epoch {
        return if wanted.sets == stored.sets { Fenced::Held } else { Fenced::Differs };
    }
    if stored.sets.covers(wanted.sets) || take_over {
        return Fenced::Held;
    }
    Fenced::Gains { sets: wanted.sets.iter().filter(|set| !stored.sets.has(*set)).count() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_024))]

        /// Processes come to a store with whatever files: epochs only grow, one epoch has one list of sets, and without a
        /// person's word a store never decides for a set that it had not from the beginning.
        #[test]
        fn a_store_goes_forward_only(wishes in prop::collection::vec((1u64..6, any::<[u64; 4]>(), any::<bool>()), 1..20)) {
            let (mut stored, mut word) = (None, false);
            let mut first = Sets::default();
            for (epoch, words, take_over) in wishes {
                let wanted = Hold { epoch, sets: Sets::from_words(words.map(|w| w & 0xff)) };
                let ruling = fence(stored, wanted, take_over);
                prop_assert_eq!(fence(stored, wanted, take_over), ruling);
                if let Some(Hold { epoch: before, sets }) = stored {
                    prop_assert!(ruling != Fenced::Held || epoch > before || (epoch == before && wanted.sets == sets));
                } else {
                    first = wanted.sets;
                }
                if ruling == Fenced::Held {
                    word |= take_over;
                    prop_assert!(word || first.covers(wanted.sets));
                    stored = Some(wanted);
                    prop_assert_eq!(fence(stored, wanted, false), Fenced::Held, "again is as good as once");
                }
            }
        }
    }
}
