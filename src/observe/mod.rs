//! Floor 4: what the outside sees. Metric names in one table, the recorder behind them, logs and what writes them.

pub mod access;
pub mod backends;
pub mod names;
pub mod pen;
pub mod recorder;
pub mod span;
pub mod trace;
