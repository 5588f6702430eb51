//! What limits the connections to one backend: how many there are, and how many requests wait for one to be made.
//!
//! Counted at the backend, so that the workers of this node share the limits and a reload keeps the counts. Nothing waits
//! here: where there is no room, another backend is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use metrics::Counter;

use super::NoLine;
use crate::config::Limits;
use crate::observe::names::proxy as names;
use crate::snapshot::Load;

/// The way to a new connection.
pub(in crate::proxy) struct Gate {
    load: Arc<Load>,
    connections: AtomicU32,
    pending: AtomicU32,
    hits: [Counter; 2],
}

/// One of the connections that a backend may have; gives its place back when dropped.
pub(super) struct Slot(Arc<Load>);

/// A request that waits for a connection.
pub(super) struct Pending<'a>(&'a Load);

impl Gate {
    /// To a backend of `service`.
    pub(in crate::proxy) fn new(load: Arc<Load>, service: &str, limits: &Limits) -> Self {
        let gate = Self {
            load,
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            hits: ["connections", "pending"].map(|limit| names::LIMITED.counter(&[service, limit])),
        };
        gate.set(limits);
        gate
    }

    /// From now on these limits hold; what is open stays.
    pub(in crate::proxy) fn set(&self, limits: &Limits) {
        self.connections.store(limits.connections, Relaxed);
        self.pending.store(limits.pending, Relaxed);
    }

    /// A place among those who wait.
    pub(super) fn wait(&self) -> Result<Pending<'_>, NoLine> {
        // Counted first and checked then: what is dropped gives the count back if there was no place.
        let pending = Pending(&self.load);
        if self.load.pending.fetch_add(1, Relaxed) < self.pending.load(Relaxed) {
            return Ok(pending);
        }
        self.hits[1].increment(1);
        Err(NoLine::Full)
    }

    /// A place for a connection.
    pub(super) fn slot(&self) -> Result<Slot, NoLine> {
        let slot = Slot(Arc::clone(&self.load));
        if self.load.connections.fetch_add(1, Relaxed) < self.connections.load(Relaxed) {
            return Ok(slot);
        }
        self.hits[0].increment(1);
        Err(NoLine::Full)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}
