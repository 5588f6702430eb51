//! How much of a service is under way at one worker, where a limit of the service says how much may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use metrics::Counter;

use super::worker::Sight;
use crate::base::ids::ServiceId;
use crate::observe::names::proxy as names;

/// The counts of one service.
pub(super) struct Limited {
    retries: AtomicU32,
    requests_hit: Counter,
    retries_hit: Counter,
}

/// A retry that waits for an answer; ends when it is dropped.
pub(super) struct Retrying {
    sight: Arc<Sight>,
    service: ServiceId,
}

impl Limited {
    /// Nothing under way.
    pub(super) fn new(service: &str) -> Self {
        let [requests_hit, retries_hit] =
            ["requests", "retries"].map(|limit| names::LIMITED.counter(&[service, limit]));
        Self { retries: AtomicU32::new(0), requests_hit, retries_hit }
    }

    /// Every backend had as many requests as it may.
    pub(super) fn refused(&self) {
        self.requests_hit.increment(1);
    }
}

impl Retrying {
    /// One more, if this worker's part of `limit` allows it.
    pub(super) fn begin(sight: &Arc<Sight>, service: ServiceId, limit: u32, workers: usize) -> Option<Self> {
        let part = limit.div_ceil(u32::try_from(workers).unwrap_or(1).max(1));
        let counts = &sight.kit(service).limited;
        let retrying = Self { sight: Arc::clone(sight), service };
        if counts.retries.fetch_add(1, Relaxed) < part {
            return Some(retrying);
        }
        counts.retries_hit.increment(1);
        None
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.sight.kit(self.service).limited.retries.fetch_sub(1, Relaxed);
    }
}
