//! What is logged of requests, and how they are traced.

use std::path::PathBuf;
use std::time::Duration;

/// Logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The access log, if it is wanted.
    pub access: Option<AccessLog>,
}

/// The access log.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where it goes.
    pub to: LogSink,
    /// How its lines look.
    pub format: AccessFormat,
    /// The share of requests that is written by lot, 0 to 1. Failures, retries and what is slow are always written.
    pub sample: f64,
    /// From this time on a request is slow.
    pub slow: Duration,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// To a file.
    File(PathBuf),
    /// To standard output.
    Stdout,
    /// To a socket that takes datagrams.
    Syslog(PathBuf),
}

/// How requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trace {
    /// The share of traces begun here that is recorded, 0 to 1.
    pub sample: f64,
    /// Whose traces are continued.
    pub follow: Follow,
}

/// Whose traces are continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Those of peers in `trusted` of the listener.
    #[default]
    Trusted,
    /// Everybody's.
    All,
}

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object.
    #[default]
    Json,
    /// The combined format of Apache and nginx, with our fields behind it.
    Combined,
}
