//! A claim, the order that comes of it, and the only ways in which an order may move.
//!
//! ```text
//!   ACCEPTED --lease--> DELIVERING --applied--> DELIVERED
//!                        |  ^   ^ \--exhausted--> DEAD --applied--> DELIVERED
//!                 failed v  |lease|
//!                      RETRY_WAIT (--applied--> DELIVERED)
//! ```
//!
//! A lease that ran out is taken again (DELIVERING --lease--> DELIVERING). An order remembers its attempt, so that the
//! word of a worker whose lease has passed on counts only where it is good news: what the game applied, it applied.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ActivityId, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};
use crate::base::clock::Wall;
use crate::base::hash;

/// What a user asks for: this gift out of this packet, to this role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The campaign.
    pub activity_id: ActivityId,
    /// The coupon.
    pub packet_id: PacketId,
    /// Who claims.
    pub user_id: UserId,
    /// What for.
    pub gift_id: GiftId,
    /// The server of the game.
    pub zone_id: ZoneId,
    /// The character there.
    pub role_id: RoleId,
    /// The caller's own key; without one, (activity, packet, user) is the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Claim {
    /// The number of the order that this claim makes or has made. The same claim has the same number everywhere, so a
    /// second order for it cannot exist in one store.
    pub fn number(&self) -> OrderNo {
        OrderNo::of(&self.activity_id, &self.packet_id, &self.user_id, "gift")
    }

    /// Whether both ask for the same thing; who asks and under which key is not looked at.
    pub fn same_body(&self, other: &Self) -> bool {
        self.activity_id == other.activity_id
            && self.packet_id == other.packet_id
            && self.gift_id == other.gift_id
            && self.zone_id == other.zone_id
            && self.role_id == other.role_id
    }
}

/// The number of an order: one byte for the user's set, sixteen that hash (activity, packet, user, scene).
///
/// Written as 34 hexadecimal digits; the first two say which set it belongs to, so that it can be routed without a
/// look-up. The hash is not cryptographic: stores compare what the number stands for and refuse a collision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrderNo([u8; 17]);

/// A text that is not an order number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an order number is 34 hexadecimal digits")]
pub struct BadOrderNo;

impl OrderNo {
    /// The number for these; `scene` tells kinds of packets apart.
    pub fn of(activity: &ActivityId, packet: &PacketId, user: &UserId, scene: &str) -> Self {
        let mut name = Vec::with_capacity(128);
        for part in [activity.as_str(), packet.as_str(), user.as_str(), scene] {
            // Lengths keep ("ab", "c") and ("a", "bc") apart; identifiers are at most 64 bytes.
            name.push(part.len() as u8);
            name.extend_from_slice(part.as_bytes());
        }
        let mut bytes = [0; 17];
        let [set, rest @ ..] = &mut bytes;
        *set = Self::set_of(user);
        let wide = (u128::from(hash::bytes(0x6f72_6465, &name)) << 64) | u128::from(hash::bytes(0x7220_6e6f, &name));
        rest.copy_from_slice(&wide.to_be_bytes());
        Self(bytes)
    }

    /// The set that a user belongs to: 256 sets, by hash.
    pub fn set_of(user: &UserId) -> u8 {
        (hash::bytes(0x0073_6574, user.as_str().as_bytes()) >> 56) as u8
    }

    /// The set that this order belongs to.
    pub const fn set(self) -> u8 {
        self.0[0]
    }

    /// Its bytes, for a store's keys.
    pub const fn bytes(&self) -> &[u8; 17] {
        &self.0
    }

    /// The number with these bytes, from a store's keys.
    pub const fn from_bytes(bytes: [u8; 17]) -> Self {
        Self(bytes)
    }

    /// Reads one.
    ///
    /// # Errors
    /// The text is not 34 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, BadOrderNo> {
        let text: &[u8; 34] = text.as_bytes().try_into().map_err(|_| BadOrderNo)?;
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8).ok_or(BadOrderNo);
        let mut bytes = [0; 17];
        for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for OrderNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OrderNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for OrderNo {
    type Error = BadOrderNo;
    fn try_from(text: String) -> Result<Self, BadOrderNo> {
        Self::parse(&text)
    }
}

impl From<OrderNo> for String {
    fn from(no: OrderNo) -> Self {
        no.to_string()
    }
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Durable, not tried yet.
    Accepted,
    /// A worker holds it.
    Delivering,
    /// Tried without success; will be tried again.
    RetryWait,
    /// The game has it.
    Delivered,
    /// Given up by the machine; a person decides.
    Dead,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Delivering, Self::RetryWait, Self::Delivered, Self::Dead];

    /// Whether the machine is still to do something about it.
    pub const fn open(self) -> bool {
        matches!(self, Self::Accepted | Self::Delivering | Self::RetryWait)
    }

    /// As on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Delivering => "DELIVERING",
            Self::RetryWait => "RETRY_WAIT",
            Self::Delivered => "DELIVERED",
            Self::Dead => "DEAD",
        }
    }
}

/// What happens to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker takes it.
    Lease,
    /// The game applied it.
    Applied,
    /// An attempt failed; another is due.
    Failed,
    /// An attempt failed, and it was the last.
    Exhausted,
}

/// Every way in which an order may move; what is not here does not happen.
pub const EDGES: &[(State, Event, State)] = &[
    (State::Accepted, Event::Lease, State::Delivering),
    (State::RetryWait, Event::Lease, State::Delivering),
    (State::Delivering, Event::Lease, State::Delivering),
    (State::Delivering, Event::Applied, State::Delivered),
    (State::Delivering, Event::Failed, State::RetryWait),
    (State::Delivering, Event::Exhausted, State::Dead),
    // News of an older attempt that came late: what the game applied, it applied.
    (State::RetryWait, Event::Applied, State::Delivered),
    (State::Dead, Event::Applied, State::Delivered),
];

/// Where `event` takes an order in `state`, if it may happen at all.
pub fn advance(state: State, event: Event) -> Option<State> {
    EDGES.iter().find(|(from, on, _)| (*from, *on) == (state, event)).map(|(_, _, to)| *to)
}

/// Why an attempt at delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection to the game.
    Unreachable,
    /// The game did not answer in time.
    Timeout,
    /// The game said that it cannot now (5xx, 408, 429).
    Unavailable,
    /// The game's answer made no sense.
    Garbage,
    /// The game refused for good (other 4xx).
    Refused,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Self; 5] = [Self::Unreachable, Self::Timeout, Self::Unavailable, Self::Garbage, Self::Refused];

    /// As on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Garbage => "garbage",
            Self::Refused => "refused",
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Verdict {
    /// The game applied it, now or before.
    Delivered,
    /// Try again at `at`.
    Retry {
        /// When.
        at: Wall,
        /// Why it failed.
        why: Failure,
    },
    /// Give up.
    Dead {
        /// Why it failed the last time.
        why: Failure,
    },
}

/// A worker's word about one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The order.
    pub order_no: OrderNo,
    /// The attempt under which it was leased.
    pub attempt: u32,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The order moved.
    Moved(State),
    /// Nothing: the order is unknown, settled already, or another worker holds it by now.
    Stale,
}

/// A promise to a user, durable before they hear of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number.
    pub order_no: OrderNo,
    /// What was claimed.
    pub claim: Claim,
    /// Where it stands.
    pub state: State,
    /// How often it was leased.
    pub attempts: u32,
    /// When a worker may take it (open states): at once, when its lease ends, or when the next try is due.
    pub due: Wall,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it was accepted.
    pub created: Wall,
    /// When it moved last.
    pub updated: Wall,
}

impl Order {
    /// The order that `claim` makes.
    pub fn accept(claim: Claim, now: Wall) -> Self {
        Self {
            order_no: claim.number(),
            claim,
            state: State::Accepted,
            attempts: 0,
            due: now,
            failure: None,
            created: now,
            updated: now,
        }
    }

    /// The order in a worker's hands until `until`; nothing where it is not open or not due.
    #[must_use]
    pub fn lease(&self, until: Wall, now: Wall) -> Option<Self> {
        let state = advance(self.state, Event::Lease).filter(|_| self.due <= now)?;
        let attempts = self.attempts.saturating_add(1);
        Some(Self { state, attempts, due: until.max(now), updated: now, ..self.clone() })
    }

    /// The order after a worker's word about attempt `attempt`; nothing where that word comes too late to matter.
    #[must_use]
    pub fn settle(&self, attempt: u32, verdict: Verdict, now: Wall) -> Option<Self> {
        let held = self.state == State::Delivering && self.attempts == attempt;
        let (event, due, failure) = match verdict {
            Verdict::Delivered => (Event::Applied, now, None),
            Verdict::Retry { at, why } if held => (Event::Failed, at.max(now), Some(why)),
            Verdict::Dead { why } if held => (Event::Exhausted, now, Some(why)),
            Verdict::Retry { .. } | Verdict::Dead { .. } => return None,
        };
        let state = advance(self.state, event)?;
        Some(Self { state, due, failure, updated: now, ..self.clone() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn claim(user: &str, packet: &str) -> Claim {
        Claim {
            activity_id: ActivityId::parse("spring").unwrap(),
            packet_id: PacketId::parse(packet).unwrap(),
            user_id: UserId::parse(user).unwrap(),
            gift_id: GiftId::parse("g1").unwrap(),
            zone_id: ZoneId::parse("z1").unwrap(),
            role_id: RoleId::parse("r1").unwrap(),
            idempotency_key: None,
        }
    }

    #[test]
    fn numbers_never_change_between_releases_and_read_back() {
        let no = claim("u1", "p1").number();
        assert_eq!(no.to_string(), "c2e41ea393139d16715f9b7dcc242eed54");
        assert_eq!(OrderNo::parse(&no.to_string()), Ok(no));
        assert_eq!(no.set(), OrderNo::set_of(&UserId::parse("u1").unwrap()));
        assert_ne!(claim("u1", "p2").number(), claim("u1p", "2").number());
        for bad in ["", "zz", &"g".repeat(34), &"0".repeat(33), &"0".repeat(35), &"\u{e9}".repeat(17)] {
            assert_eq!(OrderNo::parse(bad), Err(BadOrderNo), "{bad}");
        }
    }

    #[test]
    fn every_edge_goes_forward() {
        for (from, event, to) in EDGES {
            assert_ne!(*from, State::Delivered, "nothing leaves DELIVERED");
            assert_ne!(*to, State::Accepted, "nothing comes back to ACCEPTED");
            assert!(*from != State::Dead || *event == Event::Applied, "DEAD ends by a delivery only");
        }
        for state in State::ALL {
            assert_eq!(state.open(), advance(state, Event::Lease).is_some(), "{state:?}: open orders can be leased");
        }
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Delivered),
            (0u64..200).prop_map(|at| Verdict::Retry { at: Wall(at), why: Failure::Timeout }),
            Just(Verdict::Dead { why: Failure::Refused }),
        ]
    }

    proptest! {
        /// Whatever workers say and whenever: moves follow the table, attempts only grow, DELIVERED stays.
        #[test]
        fn orders_walk_the_table(steps in prop::collection::vec(
            prop_oneof![(0u64..50).prop_map(Ok), (0u32..5, verdict()).prop_map(Err)], 1..60))
        {
            let mut order = Order::accept(claim("u1", "p1"), Wall(0));
            for (now, step) in steps.into_iter().enumerate() {
                let now = Wall(now as u64 * 3);
                let next = match step {
                    Ok(hold) => order.lease(Wall(now.0 + hold), now),
                    Err((attempt, verdict)) => order.settle(attempt, verdict, now),
                };
                let Some(next) = next else { continue };
                prop_assert!(EDGES.iter().any(|(from, _, to)| (*from, *to) == (order.state, next.state)));
                prop_assert!(next.attempts >= order.attempts && next.updated >= order.updated);
                prop_assert!(next.due >= now, "never due in the past");
                prop_assert_eq!((&next.claim, next.order_no, next.created), (&order.claim, order.order_no, order.created));
                prop_assert!(next.state == State::Delivering || next.attempts == order.attempts);
                order = next;
            }
        }
    }
}
