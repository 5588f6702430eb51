//! Somebody's share of a packet, and how it is booked to their wallet.
//!
//! Booking walks the same table as the delivery of a gift (`model/order.rs`): leased by a worker, tried again, delivered
//! once in effect under the share's order number, or dead and left to a person. The share itself never changes.

use serde::{Deserialize, Serialize};

use crate::base::clock::Wall;
use crate::redpacket::model::order::{Event, Failure, Resolution, State, Verdict, advance};
use crate::redpacket::model::{IdempotencyKey, OrderNo, PacketId, UserId};

/// How far the booking of a share is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Where it stands.
    pub state: State,
    /// How often it was leased.
    pub attempts: u32,
    /// How many of these count no longer: leases without a try.
    #[serde(default)]
    pub spent: u32,
    /// When a worker may take it (open states): at once, when its lease ends, or when the next try is due.
    pub due: Wall,
    /// Why the last attempt failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it moved last.
    pub updated: Wall,
}

impl Booking {
    /// One that is due at once.
    pub const fn due(now: Wall) -> Self {
        Self { state: State::Accepted, attempts: 0, spent: 0, due: now, failure: None, updated: now }
    }

    /// In a worker's hands until `until`; nothing where it is not open or not due.
    #[must_use]
    pub fn lease(self, until: Wall, now: Wall) -> Option<Self> {
        let state = advance(self.state, Event::Lease).filter(|_| self.due <= now)?;
        Some(Self { state, attempts: self.attempts.saturating_add(1), due: until.max(now), updated: now, ..self })
    }

    /// After a worker's word about attempt `attempt`; nothing where that comes too late to matter.
    #[must_use]
    pub fn settle(self, attempt: u32, verdict: Verdict, now: Wall) -> Option<Self> {
        let held = self.state == State::Delivering && self.attempts == attempt;
        let (event, due, failure) = match verdict {
            Verdict::Delivered => (Event::Applied, now, None),
            Verdict::Retry { at, why } if held => (Event::Failed, at.max(now), Some(why)),
            Verdict::Dead { why } if held => (Event::Exhausted, now, Some(why)),
            Verdict::Defer { at } if held => (Event::Deferred, at.max(now), self.failure),
            Verdict::Retry { .. } | Verdict::Dead { .. } | Verdict::Defer { .. } => return None,
        };
        let spent = self.spent.saturating_add(u32::from(event == Event::Deferred));
        Some(Self { state: advance(self.state, event)?, due, failure, spent, updated: now, ..self })
    }

    /// After a person's word; nothing where it is not dead.
    #[must_use]
    pub fn resolve(self, resolution: Resolution, now: Wall) -> Option<Self> {
        let state = advance(self.state, resolution.event())?;
        Some(Self { state, due: now, spent: self.attempts, updated: now, ..self })
    }

    /// Attempts that a limit of attempts counts, the one under way included.
    pub const fn tries(&self) -> u32 {
        self.attempts.saturating_sub(self.spent)
    }
}

/// A share: a promise of money to a user, durable before they hear of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The number under which the wallet books it.
    pub order_no: OrderNo,
    /// Of which packet.
    pub packet_id: PacketId,
    /// Whose.
    pub user_id: UserId,
    /// The opener's own key, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// The how-manieth it was, from 1.
    pub rank: u32,
    /// How much, in fen.
    pub amount_fen: u64,
    /// How far its booking is.
    pub booking: Booking,
    /// When it was opened.
    pub opened: Wall,
}

impl Share {
    /// With its booking in another place.
    #[must_use]
    pub fn booked(&self, booking: Booking) -> Self {
        Self { booking, ..self.clone() }
    }
}
