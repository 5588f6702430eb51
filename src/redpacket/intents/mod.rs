//! Intents: claims written down far from their users' home while that cannot be reached (RED_PACKET I8).
//!
//! ```text
//!   (nothing) --home is not reached--> OPEN --home grants--> GRANTED
//!                                       ^  \--home refuses--> REFUSED (sold out, over, not eligible, another order)
//!                                       +------asked again, home not reached------/
//! ```
//!
//! An intent promises that home will judge, as of the moment it was asked for; it grants nothing. Its number is the number
//! of the order that may come of it, so home makes at most one order of any number of intents. [`Intents`] is the trait,
//! [`rule`] the one decision that all of its kinds make, [`Shelf`] the whole as a plain value, [`conformance`] its laws.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::Answer;
use super::model::{Claim, Code, Order, OrderNo};
use crate::base::clock::Wall;
use crate::config::homes::Sets;

pub mod conformance;
mod shelf;

pub use shelf::Shelf;

/// What home has decided about an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is an order, made of this intent or of the same claim.
    Granted,
    /// Nothing was left.
    SoldOut,
    /// The activity was over when it was asked for.
    Expired,
    /// The gift or the packet is not for this user.
    NotEligible,
    /// The key, or the number, belongs to a different claim.
    Conflict,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Granted, Self::SoldOut, Self::Expired, Self::NotEligible, Self::Conflict];

    /// What home's code says about an intent; nothing where it has not decided.
    pub const fn of(code: Code) -> Option<Self> {
        match code {
            Code::Accepted | Code::AlreadyClaimed => Some(Self::Granted),
            Code::SoldOut => Some(Self::SoldOut),
            Code::Expired => Some(Self::Expired),
            Code::NotEligible => Some(Self::NotEligible),
            Code::KeyConflict => Some(Self::Conflict),
            _ => None,
        }
    }

    /// The code that a client gets for it.
    pub const fn code(self) -> Code {
        match self {
            Self::Granted => Code::AlreadyClaimed,
            Self::SoldOut => Code::SoldOut,
            Self::Expired => Code::Expired,
            Self::NotEligible => Code::NotEligible,
            Self::Conflict => Code::KeyConflict,
        }
    }

    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::SoldOut => "sold_out",
            Self::Expired => "expired",
            Self::NotEligible => "not_eligible",
            Self::Conflict => "conflict",
        }
    }
}

/// A claim that waits for its user's home, or has been there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What was claimed.
    pub claim: Claim,
    /// When.
    pub asked: Wall,
    /// What home said, and when that was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<(Outcome, Wall)>,
}

impl Intent {
    /// A new one.
    pub const fn new(claim: Claim, asked: Wall) -> Self {
        Self { claim, asked, settled: None }
    }

    /// The number of the order that may come of it.
    pub fn number(&self) -> OrderNo {
        self.claim.number()
    }

    /// Whether home is still to judge it.
    pub const fn is_open(&self) -> bool {
        self.settled.is_none()
    }

    /// Whether it stands in the way of another: open, or granted. What was refused is history.
    pub fn stands(&self) -> bool {
        self.settled.is_none_or(|(outcome, _)| outcome == Outcome::Granted)
    }

    /// As a record: version, outcome (0 = open), when settled, and the claim as an order's record.
    pub fn encode(&self) -> Vec<u8> {
        let (outcome, at) = match self.settled {
            None => (0, 0),
            Some((outcome, at)) => {
                (Outcome::ALL.iter().position(|o| *o == outcome).unwrap_or_default() as u8 + 1, at.0)
            }
        };
        let mut out = vec![1, outcome];
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(&Order::accept(self.claim.clone(), self.asked).encode());
        out
    }

    /// Out of a record; nothing where the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<10>()?;
        let [1, outcome, at @ ..] = head else { return None };
        let at = Wall(u64::from_le_bytes(*at));
        let settled = match outcome.checked_sub(1) {
            None => None,
            Some(place) => Some((*Outcome::ALL.get(usize::from(place))?, at)),
        };
        let order = Order::decode(rest)?;
        Some(Self { claim: order.claim, asked: order.created, settled })
    }
}

/// Keeps intents. The laws, which [`conformance`] checks:
///
/// - When [`Intents::open`] answers [`Opened::New`] or [`Opened::Same`], the intent is durable, with the moment at which it
///   was first asked for. One number has at most one that stands; the same key or number with another wish is a conflict.
/// - At most so many are open as the store was told; past that nothing is promised.
/// - [`Intents::due`] gives each open one in order of asking, and nothing else.
/// - [`Intents::settle`] moves what is open, once. Of settled ones at least the latest are kept, a bounded number.
///
/// As with [`Store`](super::ledger::Store), no method blocks the caller's thread or waits without a bound, and an error
/// means that nothing was done, except [`StoreError::Unknown`](super::ledger::StoreError::Unknown).
pub trait Intents: Send + Sync {
    /// Writes one down for `claim`, or finds the one that stands.
    fn open(&self, claim: Claim, now: Wall) -> Answer<'_, Opened>;

    /// The intent with this number.
    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Intent>>;

    /// Up to `limit` open intents of these sets, the longest waiting first.
    fn due(&self, sets: Sets, limit: usize) -> Answer<'_, Vec<Intent>>;

    /// Takes home's words, in order; says of each whether it moved anything.
    fn settle(&self, words: Vec<(OrderNo, Outcome)>, now: Wall) -> Answer<'_, Vec<bool>>;

    /// What there is.
    fn sums(&self) -> Answer<'_, Sums>;

    /// Whether intents can be written now, as far as it is known.
    fn writable(&self) -> bool;
}

/// How many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open ones, at most.
    pub open: u64,
    /// Settled ones, at most: the oldest go first.
    pub settled: u64,
}

impl Default for Bounds {
    /// 200,000 open ones (ours: 30 s of 6,000 claims a second, 60 MB) and 800,000 settled ones.
    fn default() -> Self {
        Self { open: 200_000, settled: 800_000 }
    }
}

/// What came of the wish to write one down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is written.
    New(Intent),
    /// It was written before; perhaps it is granted by now.
    Same(Intent),
    /// The key belongs to a different claim.
    Conflict,
    /// There are too many. Nothing was done.
    Full,
}

/// The decision about an intent, before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Write it.
    Write,
    /// Answer with the one that stands.
    Same,
    /// Refuse: a different claim.
    Conflict,
    /// Refuse: too many.
    Full,
}

/// Rules on an intent of `claim`, given what stands under its number, the number that stands under its key, and how many
/// are open of how many that may be.
pub fn rule(
    claim: &Claim,
    under_number: Option<&Intent>,
    under_key: Option<OrderNo>,
    open: u64,
    bounds: Bounds,
) -> Ruling {
    if under_key.is_some_and(|no| no != claim.number()) {
        return Ruling::Conflict;
    }
    match under_number.filter(|old| old.stands()).map(|old| &old.claim) {
        // A new key with another wish is told of what stands, as home would.
        Some(old) => {
            let changed = old.idempotency_key == claim.idempotency_key && !old.same_body(claim);
            if old.user_id != claim.user_id || changed { Ruling::Conflict } else { Ruling::Same }
        }
        None if open >= bounds.open => Ruling::Full,
        None => Ruling::Write,
    }
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Waiting for their homes.
    pub open: u64,
    /// Since when the longest waiting one waits.
    pub oldest: Option<Wall>,
    /// Settled ones that are kept, by outcome.
    pub settled: BTreeMap<Outcome, u64>,
}

#[cfg(test)]
mod apart;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redpacket::model::{ActivityId, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};

    #[test]
    fn a_record_reads_back_and_anything_else_does_not() {
        let claim = Claim {
            activity_id: ActivityId::parse("a").unwrap(),
            packet_id: PacketId::parse("p").unwrap(),
            user_id: UserId::parse("u").unwrap(),
            gift_id: GiftId::parse("g").unwrap(),
            zone_id: ZoneId::parse("z").unwrap(),
            role_id: RoleId::parse("r").unwrap(),
            idempotency_key: Some(IdempotencyKey::parse("k").unwrap()),
        };
        let open = Intent::new(claim, Wall(7));
        for settled in std::iter::once(None).chain(Outcome::ALL.map(|outcome| Some((outcome, Wall(9))))) {
            let intent = Intent { settled, ..open.clone() };
            let record = intent.encode();
            assert_eq!(Intent::decode(&record), Some(intent));
            for cut in 0..record.len() {
                assert_eq!(Intent::decode(&record[..cut]), None);
            }
            let mut strange = record;
            strange[1] = 9;
            assert_eq!(Intent::decode(&strange), None);
        }
    }

    #[test]
    fn what_home_says_is_an_outcome_or_no_decision() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::of(outcome.code()), Some(outcome));
        }
        for code in [Code::Overloaded, Code::Unavailable, Code::Deadline, Code::NotStarted, Code::Pending, Code::Intent]
        {
            assert_eq!(Outcome::of(code), None, "{code:?}");
        }
    }
}
