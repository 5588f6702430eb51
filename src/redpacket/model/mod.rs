//! The domain, typed: who claims what, the order that comes of it, and what we answer.
//!
//! Pure values and pure transitions. Text from outside becomes one of these types or is refused with the field's name;
//! past this door nobody checks again.

pub mod cash;
mod code;
mod ids;
mod moment;
mod number;
mod order;
mod record;
mod trail;

pub use code::Code;
pub use ids::{ActivityId, BadId, GameId, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};
pub use moment::{BadMoment, Moment};
pub use number::{BadOrderNo, OrderNo};
pub use order::{Claim, EDGES, Event, Failure, Order, Resolution, Settled, Settlement, State, Verdict, advance};
pub use trail::{Attempt, Trail};
