//! Floor 0: what everything stands on and nothing of the domain.
//!
//! Time, entropy, keyed hashes, small interned identifiers, units with names, address prefixes, and tasks that
//! have an owner. No module here knows what a backend or a zone is, and none does IO beyond reading the clock, but `file`.

pub mod civil;
pub mod clock;
pub mod entropy;
pub mod file;
pub mod hash;
pub mod ids;
pub mod maglev;
pub mod prefix;
pub mod task;
pub mod units;
