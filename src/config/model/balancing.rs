//! What bounds a service's work, and what binds a client to one of its backends.

/// How much of a service may be under way at a time, as this node counts it over all its workers. Where a limit stands in the
/// way at one backend, another one is asked; only where it does so at all of them is a request refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at one backend. Default 16,384.
    pub requests: u32,
    /// Connections to one backend. Default 16,384: together with those to another process on that host, ports suffice.
    pub connections: u32,
    /// Requests that wait for a new connection to one backend. Default 4,096.
    pub pending: u32,
    /// Retries of the service that wait for an answer. Default 1,024.
    pub retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 16_384, connections: 16_384, pending: 4_096, retries: 1_024 }
    }
}

/// How a client that was answered by a backend comes to that backend again: what carries the backend's seat to the client and
/// back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// A cookie of this name.
    Cookie(String),
    /// A header of requests and responses, lower case.
    Header(String),
}
