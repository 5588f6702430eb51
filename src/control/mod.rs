//! Floor 5: the one writer. Events come in over one bounded channel; `step` makes of each the next snapshot.

pub mod event;
pub mod probe;
