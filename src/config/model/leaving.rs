//! How a node leaves: when it is stopped, and when a new process takes its place.

use std::time::Duration;

/// What a process that ends is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// How long requests and tunnels may take to finish when it is stopped. Default 30 s.
    pub drain: Duration,
    /// How long they may take when a new process serves in its place. Default 10 min.
    pub upgrade_drain: Duration,
    /// How many processes may still drain when yet another upgrade is wanted. Default 8.
    pub old_processes: usize,
}

impl Default for Leaving {
    fn default() -> Self {
        Self { drain: Duration::from_secs(30), upgrade_drain: Duration::from_mins(10), old_processes: 8 }
    }
}
