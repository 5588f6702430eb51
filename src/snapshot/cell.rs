//! Where the current snapshot hangs: published by one writer, read by everyone without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::{Alarm, Snapshot};

/// The current [`Snapshot`]. Readers load; the control loop alone publishes.
#[derive(Debug)]
pub struct Published {
    current: ArcSwap<Snapshot>,
    generation: watch::Sender<u64>,
    alarm: Alarm,
}

impl Published {
    /// Begins with `first`.
    pub fn new(first: Snapshot) -> Self {
        let generation = watch::Sender::new(first.generation);
        Self { current: ArcSwap::from_pointee(first), generation, alarm: Alarm::default() }
    }

    /// The current snapshot, for a short look: don't hold the guard across an await.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
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
