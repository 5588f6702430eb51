//! Floor 4: sockets, TLS and the trait that requests pass through. IO, but no decisions.

pub mod listen;
pub mod stage;
