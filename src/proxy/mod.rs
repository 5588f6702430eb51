//! Floor 6: the L7 edge. A request passes the ordered list of stages in [`stages`]; each is a plain function.
//!
//! Workers ([`serve`]) accept, speak HTTP and own their connections ([`pool`]); what is decided is decided in
//! `crate::decide` and on the published snapshot. Nothing here judges health: tries are counted where they end
//! ([`tally`]), and the control loop makes of it what it will.

use std::collections::HashMap;
use std::sync::Arc;

use crate::net::stage::Stage;

mod admit;
mod arrival;
mod change;
mod counted;
mod download;
mod drain;
pub mod explain;
#[cfg(feature = "otlp")]
mod export;
mod files;
mod forward;
mod h1;
mod h2;
#[cfg(feature = "h3")]
mod h3;
mod limit;
mod line;
mod log;
mod meter;
mod mirror;
mod pool;
pub mod reply;
mod serve;
mod session;
mod spans;
pub mod stages;
mod tally;
mod trace;
mod upload;
pub mod view;
mod worker;

pub use explain::{Question, explain};
pub use serve::{Server, StartError, start};

/// What an embedder plugs into the edge.
#[derive(Clone, Default)]
pub struct Stages {
    /// Filters that every forwarded or answered request passes, in this order.
    pub filters: Vec<Arc<dyn Stage>>,
    /// Upstreams in this process, by the name of the service that they are instead of its backends.
    pub upstreams: HashMap<String, Arc<dyn Stage>>,
}

/// Whom a request came from and under what name it is known: an extension of requests that reach a [`Stage`].
#[derive(Clone, Debug)]
pub struct Caller {
    /// The client's address: behind trusted proxies, the one that they name.
    pub client: std::net::IpAddr,
    /// The request's id, in logs here and at backends.
    pub request_id: http::HeaderValue,
    /// Whether the client speaks TLS with us.
    pub is_tls: bool,
}

impl Caller {
    fn of(entry: &tally::Entry) -> Self {
        Self { client: entry.from, request_id: entry.id.value(), is_tls: entry.client.peer.tls }
    }
}

#[cfg(test)]
mod tests;
