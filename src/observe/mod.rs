//! Floor 4: what the outside sees. Metric names in one table, the recorder behind them, logs.

pub mod names;
pub mod recorder;
pub mod trace;
