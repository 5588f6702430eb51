//! Floor 5: the one writer. Events come in over one bounded channel; `step` makes of each the next snapshot.

pub mod assess;
mod basis;
pub mod carry;
pub mod discover;
pub mod event;
pub mod intent;
mod keeper;
pub mod memory;
pub mod past;
pub mod probe;
mod report;
mod run;
mod spill;
pub mod step;

pub use run::{Handle, Prepare, Running, StartError, Stopped, start, start_with};
