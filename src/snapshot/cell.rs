//! Where the current snapshot hangs: published by one writer, read by everyone without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::views::Slot;
use super::{Alarm, Snapshot};

/// The current [`Snapshot`]. Readers load; the control loop alone publishes.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    alarm: Alarm,
    used: [AtomicU64; 2],
}

impl Published {
    /// Begins with `first`.
    pub fn new(first: Snapshot) -> Self {
        let generation = watch::Sender::new(first.generation);
        Self { current: ArcSwap::from_pointee(first), generation, alarm: Alarm::default(), used: Default::default() }
    }

    /// The current snapshot, for a short look: don't hold the guard across an await.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// The same for an edge that is about to act on it: notes which generation that is.
    pub fn look(&self, edge: Slot) -> Guard<Arc<Snapshot>> {
        let current = self.current.load();
        let used = &self.used[edge as usize];
        // Written when it moves only, so that threads share the line.
        if used.load(Relaxed) != current.generation {
            used.store(current.generation, Relaxed);
        }
        current
    }

    /// The generation that an edge acted on last; `None` where it has not acted yet.
    pub fn used(&self, edge: Slot) -> Option<u64> {
        Some(self.used[edge as usize].load(Relaxed)).filter(|&generation| generation > 0)
    }

    /// The current snapshot, to keep.
    pub fn full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the current snapshot; wakes who waits for a generation if that has moved.
    pub fn publish(&self, next: impl Into<Arc<Snapshot>>) {
        let next = next.into();
        let generation = next.generation;
        self.current.store(next);
        self.generation.send_if_modified(|g| std::mem::replace(g, generation) != generation);
    }

    /// Tells of each new generation (the latest, where several passed at once).
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// The way back: readers ring it when live traffic fails, the control loop looks at their counters at once.
    pub const fn alarm(&self) -> &Alarm {
        &self.alarm
    }
}
