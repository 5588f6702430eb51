//! Floor 5: the one writer. Events come in over one bounded channel; `step` makes of each the next snapshot.

pub mod assess;
pub mod carry;
pub mod event;
pub mod intent;
pub mod memory;
pub mod probe;
pub mod step;
