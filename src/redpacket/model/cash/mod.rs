//! Cash packets, typed: money in fen, how it is split, what a packet and a share of it are and how they may move.
//!
//! ```text
//!   pack -> send -> grab (from memory) -> open (a share, durable) -> book (to the wallet, later)
//! ```
//!
//! Pure, as everything in `model`: time and seeds come in as arguments.

mod packet;
mod record;
mod share;
mod split;

pub use packet::{Closed, EDGES, Event, Packet, Packing, Phase, advance};
pub use share::{Booking, Share};
pub use split::{BadTerms, MAX_COUNT, MAX_TOTAL_FEN, Mode, Seed, Terms};
