//! The stores that ship: memory for tests and play, redb for one node that must not forget.
//!
//! redb's types stay in here. PostgreSQL's place is beside them.

mod commit;
pub mod deliveries;
pub mod memory;
pub mod redb;

pub use commit::OpenError;
