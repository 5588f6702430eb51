//! What is logged of requests, and how they are traced.

use std::path::PathBuf;
use std::time::Duration;

use super::securing::UpstreamTls;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The share of traces begun here that is recorded, 0 to 1.
    pub sample: f64,
    /// Whose traces are continued.
    pub follow: Follow,
    /// Where spans go; `None`: nowhere.
    pub export: Option<Export>,
}

/// Where spans go, by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The collector.
    pub endpoint: Endpoint,
    /// What an `https` one is verified by, and what we show it.
    pub tls: Option<UpstreamTls>,
    /// A file with fields that every request to it carries.
    pub headers: Option<PathBuf>,
    /// How long it may take to answer one.
    pub timeout: Duration,
    /// Attributes of this node beside its own.
    pub attributes: Vec<(String, String)>,
}

/// A URL that something is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`, and not `http`.
    pub is_tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path.
    pub path: String,
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
