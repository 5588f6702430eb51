//! A claim, the order that comes of it, and the only ways in which an order may move.
//!
//! ```text
//!   ACCEPTED --lease--> DELIVERING --applied--> DELIVERED
//!                        |  ^   ^ \--exhausted--> DEAD --applied--> DELIVERED
//!       failed, deferred v  |lease|                |  \--compensated--> COMPENSATED
//!                      RETRY_WAIT <---replayed-----+   (RETRY_WAIT, too, --applied--> DELIVERED)
//! ```
//!
//! A lease that ran out is taken again (DELIVERING --lease--> DELIVERING). An order remembers its attempt, so that the
//! word of a worker whose lease has passed on counts only where it is good news: what the game applied, it applied.

use serde::{Deserialize, Serialize};

use super::cash::Booking;
use super::{ActivityId, GiftId, IdempotencyKey, OrderNo, PacketId, RoleId, UserId, ZoneId};
use crate::base::clock::Wall;

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
    /// All that it says, in the order of its record; where it has no key, that is empty.
    pub(in crate::redpacket) fn texts(&self) -> [&str; 7] {
        [
            self.activity_id.as_str(),
            self.packet_id.as_str(),
            self.user_id.as_str(),
            self.gift_id.as_str(),
            self.zone_id.as_str(),
            self.role_id.as_str(),
            self.idempotency_key.as_ref().map_or("", IdempotencyKey::as_str),
        ]
    }

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
    /// Made good by a person in another way; never delivered.
    Compensated,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Accepted, Self::Delivering, Self::RetryWait, Self::Delivered, Self::Dead, Self::Compensated];

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
            Self::Compensated => "COMPENSATED",
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
    /// No attempt was made: the game takes no more at the moment.
    Deferred,
    /// A person has it tried again.
    Replayed,
    /// A person has made it good in another way.
    Compensated,
}

/// Every way in which an order may move; what is not here does not happen.
pub const EDGES: &[(State, Event, State)] = &[
    (State::Accepted, Event::Lease, State::Delivering),
    (State::RetryWait, Event::Lease, State::Delivering),
    (State::Delivering, Event::Lease, State::Delivering),
    (State::Delivering, Event::Applied, State::Delivered),
    (State::Delivering, Event::Failed, State::RetryWait),
    (State::Delivering, Event::Exhausted, State::Dead),
    (State::Delivering, Event::Deferred, State::RetryWait),
    // News of an older attempt that came late: what the game applied, it applied.
    (State::RetryWait, Event::Applied, State::Delivered),
    (State::Dead, Event::Applied, State::Delivered),
    (State::Dead, Event::Replayed, State::RetryWait),
    (State::Dead, Event::Compensated, State::Compensated),
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
    /// Not tried: the game takes no more at the moment. It does not count as a try.
    Defer {
        /// When it may be tried.
        at: Wall,
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

/// What a person decides about orders that are dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Try again, with as many attempts as a new order has.
    Replay,
    /// Do not: the user was made whole in another way.
    Compensate,
}

impl Resolution {
    /// What it is to an order, or to a booking.
    pub(super) const fn event(self) -> Event {
        match self {
            Self::Replay => Event::Replayed,
            Self::Compensate => Event::Compensated,
        }
    }
}

/// What a settlement or a resolution did.
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
    /// How many of these count no longer: those before a person had it tried again, and leases without a try.
    #[serde(default)]
    pub spent: u32,
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
            spent: 0,
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
            Verdict::Defer { at } if held => (Event::Deferred, at.max(now), self.failure),
            Verdict::Retry { .. } | Verdict::Dead { .. } | Verdict::Defer { .. } => return None,
        };
        let state = advance(self.state, event)?;
        let spent = self.spent.saturating_add(u32::from(event == Event::Deferred));
        Some(Self { state, due, failure, spent, updated: now, ..self.clone() })
    }

    /// The order after a person's word; nothing where it is not dead.
    #[must_use]
    pub fn resolve(&self, resolution: Resolution, now: Wall) -> Option<Self> {
        let state = advance(self.state, resolution.event())?;
        Some(Self { state, due: now, spent: self.attempts, updated: now, ..self.clone() })
    }

    /// How far its delivery is.
    pub const fn booking(&self) -> Booking {
        let Self { state, attempts, spent, due, failure, updated, .. } = *self;
        Booking { state, attempts, spent, due, failure, updated }
    }

    /// Attempts of this round, the one under way included: what a limit of attempts counts.
    pub const fn tries(&self) -> u32 {
        self.attempts.saturating_sub(self.spent)
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
    fn every_edge_goes_forward() {
        for (from, event, to) in EDGES {
            assert_ne!(*from, State::Delivered, "nothing leaves DELIVERED");
            assert_ne!(*to, State::Accepted, "nothing comes back to ACCEPTED");
            assert_ne!(*from, State::Compensated, "nothing leaves COMPENSATED");
            let late_or_told = matches!(event, Event::Applied | Event::Replayed | Event::Compensated);
            assert!(*from != State::Dead || late_or_told, "the machine alone never brings a dead order back");
        }
        for state in State::ALL {
            assert_eq!(state.open(), advance(state, Event::Lease).is_some(), "{state:?}: open orders can be leased");
        }
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Delivered),
            (0u64..200).prop_map(|at| Verdict::Retry { at: Wall(at), why: Failure::Timeout }),
            (0u64..200).prop_map(|at| Verdict::Defer { at: Wall(at) }),
            Just(Verdict::Dead { why: Failure::Refused }),
        ]
    }

    proptest! {
        /// Whatever workers say and whenever: moves follow the table, attempts only grow, DELIVERED stays.
        #[test]
        fn orders_walk_the_table(steps in prop::collection::vec(
            prop_oneof![
                4 => (0u64..50).prop_map(|hold| Some(Ok(hold))),
                4 => (0u32..5, verdict()).prop_map(|word| Some(Err(word))),
                1 => Just(None),
            ], 1..60))
        {
            let mut order = Order::accept(claim("u1", "p1"), Wall(0));
            for (now, step) in steps.into_iter().enumerate() {
                let now = Wall(now as u64 * 3);
                let next = match step {
                    Some(Ok(hold)) => order.lease(Wall(now.0 + hold), now),
                    Some(Err((attempt, verdict))) => order.settle(attempt, verdict, now),
                    None => order.resolve(Resolution::Replay, now),
                };
                let Some(next) = next else { continue };
                prop_assert!(EDGES.iter().any(|(from, _, to)| (*from, *to) == (order.state, next.state)));
                prop_assert!(next.attempts >= order.attempts && next.updated >= order.updated);
                prop_assert!(next.spent <= next.attempts && next.spent >= order.spent);
                prop_assert!(next.due >= now, "never due in the past");
                prop_assert_eq!((&next.claim, next.order_no, next.created), (&order.claim, order.order_no, order.created));
                prop_assert!(next.state == State::Delivering || next.attempts == order.attempts);
                order = next;
            }
        }
    }
}
