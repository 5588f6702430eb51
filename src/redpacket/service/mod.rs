//! The services: each a [`Stage`] of its own, put behind a [`Front`] that bounds what it takes on.
//!
//! Nobody here trusts anybody: a service limits its callers even where the proxy fails to, and bounds the time, size and
//! shape of what its own dependencies answer.

mod claim;
mod delivery;
mod fault;
mod front;
mod game;
mod gift_list;
mod known;
mod letters;
mod packet;
mod recommend;
mod relay;
mod zones;

pub use claim::ClaimService;
pub use delivery::{Games, Homeless, Pace, Source, Worker};
pub use fault::Dial;
pub use front::{Front, Idle};
pub use game::GameService;
pub use gift_list::GiftListService;
pub use packet::{PacketService, Tokens};
pub use recommend::RecommendService;
pub use relay::{Chart, Relay, RelayError, SettlePace};
pub use zones::ZonesService;
