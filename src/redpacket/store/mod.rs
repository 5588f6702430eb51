//! The stores that ship: memory for tests and play, redb for one node that must not forget, PostgreSQL for many that share.
//!
//! redb's types stay in here, and so do those of the PostgreSQL client (feature `postgres`).

pub mod cash;
mod commit;
pub mod deliveries;
pub mod intents;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod redb;

pub use commit::OpenError;
