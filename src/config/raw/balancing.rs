//! What bounds a service's work.

use super::super::kinds::Count;
use super::super::reader::section;

section! {
    /// How much of a service may be under way at a time, as this node counts it over all its workers. Where a limit stands in
    /// the way at one backend another one is asked; a request is refused only where it does so at all of them.
    Limits {
        /// Requests at one backend.
        requests: Count<1, 1_000_000> = 16_384,
        /// Connections to one backend.
        connections: Count<1, 1_000_000> = 16_384,
        /// Requests that wait for a new connection to one backend.
        pending: Count<1, 1_000_000> = 4_096,
        /// Retries of the service that wait for an answer; each worker has its part. The budget of `retry` limits them too.
        retries: Count<1, 1_000_000> = 1_024,
    } synonyms {
        max_requests: "requests", max_connections: "connections", maxconn: "connections", max_conns: "connections",
        max_pending_requests: "pending", queue: "pending", max_retries: "retries",
    }
}
