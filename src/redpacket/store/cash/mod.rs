//! The stores of cash that ship: memory for tests and play, redb for one node that must not forget a fen. The one that
//! several processes share is beside the other on PostgreSQL (`store/postgres/cash`).

mod memory;
mod redb;

pub use memory::MemoryPackets;
pub use redb::RedbPackets;
