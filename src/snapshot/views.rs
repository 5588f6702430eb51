//! What an edge derives from a snapshot once and then reads many times: compiled answers, route tables.
//!
//! A view hangs in the snapshot that it was derived from, so one swap publishes both, and both edges always speak of the
//! same generation. Snapshots of one generation share their views.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Which view. Each has one type and one edge that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The name server's compiled answers.
    Dns,
    /// The proxy's route table.
    Proxy,
}

/// The views of one generation.
#[derive(Default)]
pub struct Views([OnceLock<Arc<dyn Any + Send + Sync>>; 2]);

impl Views {
    /// The view in `slot`, made by `make` if this is the first who asks. `None` only where another type was put there
    /// before, which is a mistake in the program.
    pub fn of<T: Any + Send + Sync>(&self, slot: Slot, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        let view = self.0[slot as usize].get_or_init(|| Arc::new(make()));
        Arc::clone(view).downcast().ok()
    }

    /// The view in `slot` without keeping it.
    pub fn peek<T: Any + Send + Sync>(&self, slot: Slot) -> Option<&T> {
        self.0[slot as usize].get().and_then(|view| view.downcast_ref())
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made: Vec<bool> = self.0.iter().map(|v| v.get().is_some()).collect();
        f.debug_tuple("Views").field(&made).finish()
    }
}
