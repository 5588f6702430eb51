//! What one request has been through: which backends were tried, where, and how each try ended.
//!
//! The edge keeps one for each request; `place`, `balance` and `retry` read it. It grows by one entry a try, and tries
//! are limited by the service's policy, so it stays on the stack.

use smallvec::SmallVec;

use crate::base::ids::{BackendId, DatacenterId};
use crate::snapshot::load::Outcome;

/// One try that did not give the client its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Whom.
    pub backend: BackendId,
    /// Where.
    pub datacenter: DatacenterId,
    /// How it ended.
    pub outcome: Outcome,
}

/// So many backends whose limits stand in the way, and a request gives up (ours): it has waited for none of them.
const PASSES: usize = 16;

/// The tries of one request, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    tries: SmallVec<[Try; 4]>,
    passed: SmallVec<[BackendId; 4]>,
    exhausted: SmallVec<[DatacenterId; 4]>,
}

impl Tried {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a try that has failed.
    pub fn note(&mut self, backend: BackendId, datacenter: DatacenterId, outcome: Outcome) {
        self.tries.push(Try { backend, datacenter, outcome });
    }

    /// Notes that `backend` is full: it is asked no more. False where that has happened too often.
    pub fn pass(&mut self, backend: BackendId) -> bool {
        self.passed.push(backend);
        self.passed.len() < PASSES
    }

    /// Whether `backend` was full.
    pub fn is_passed(&self, backend: BackendId) -> bool {
        self.passed.contains(&backend)
    }

    /// Notes that there is nobody to ask in `datacenter`.
    pub fn exhaust(&mut self, datacenter: DatacenterId) {
        if !self.is_exhausted(datacenter) {
            self.exhausted.push(datacenter);
        }
    }

    /// How many tries have failed.
    pub fn count(&self) -> u32 {
        u32::try_from(self.tries.len()).unwrap_or(u32::MAX)
    }

    /// Whether nothing has failed yet.
    pub fn is_empty(&self) -> bool {
        self.tries.is_empty()
    }

    /// Whether nobody was asked yet, or would have been.
    pub fn is_untouched(&self) -> bool {
        self.tries.is_empty() && self.passed.is_empty()
    }

    /// Whether `backend` was tried.
    pub fn contains(&self, backend: BackendId) -> bool {
        self.tries.iter().any(|t| t.backend == backend)
    }

    /// How many tries failed in `datacenter`.
    pub fn failures_in(&self, datacenter: DatacenterId) -> usize {
        self.tries.iter().filter(|t| t.datacenter == datacenter).count()
    }

    /// Whether there is nobody to ask in `datacenter`.
    pub fn is_exhausted(&self, datacenter: DatacenterId) -> bool {
        self.exhausted.contains(&datacenter)
    }

    /// The last try.
    pub fn last(&self) -> Option<&Try> {
        self.tries.last()
    }

    /// All tries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Try> {
        self.tries.iter()
    }
}
