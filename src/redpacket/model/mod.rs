//! The domain, typed: who claims what, the order that comes of it, and what we answer.
//!
//! Pure values and pure transitions. Text from outside becomes one of these types or is refused with the field's name;
//! past this door nobody checks again.

mod code;
mod ids;
mod moment;
mod order;
mod record;

pub use code::Code;
pub use ids::{ActivityId, BadId, GameId, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};
pub use moment::{BadMoment, Moment};
pub use order::{
    BadOrderNo, Claim, EDGES, Event, Failure, Order, OrderNo, Settled, Settlement, State, Verdict, advance,
};
