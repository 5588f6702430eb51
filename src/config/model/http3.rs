//! HTTP/3 beside a listener's HTTP/1.1 and HTTP/2.

use std::time::Duration;

/// HTTP/3 of a listener: over UDP on its addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http3 {
    /// Whether responses over TCP tell clients of it.
    pub advertise: bool,
    /// For how long clients remember that.
    pub max_age: Duration,
    /// Requests of one connection at a time.
    pub streams: u32,
}

impl Default for Http3 {
    fn default() -> Self {
        Self { advertise: true, max_age: Duration::from_hours(24), streams: 100 }
    }
}
