//! Everything that can change the world, as one closed list over one bounded channel.
//!
//! Reports of peers (the bus between nodes) and switches (the degradation ladder) will be further entries.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::base::ids::{BackendId, TargetId};
use crate::snapshot::health::ProbeOutcome;
use crate::snapshot::intent::{Intent, Subject};
use crate::snapshot::load::Sample;
use crate::snapshot::topology::Topology;

/// How many events may wait. Probes and samples are dropped (and counted) beyond it; they come again.
pub const QUEUE: usize = 4_096;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A probe has ended. `generation_of_topology` guards against ids of a topology that has gone.
    Probed {
        /// Which target.
        target: TargetId,
        /// How it ended.
        outcome: ProbeOutcome,
        /// How long it took.
        took: Duration,
        /// [`Topology`] serial that `target` belongs to.
        serial: u64,
    },
    /// What live traffic said of backends since the last time.
    Sampled {
        /// Only those that have something to say.
        samples: Vec<(BackendId, Sample)>,
        /// [`Topology`] serial that the ids belong to.
        serial: u64,
    },
    /// Time has passed: ramps move, ejections and intents end.
    Tick,
    /// A new topology, checked and complete.
    Reload(Box<Topology>),
    /// An operator wants something.
    Wish(Intent),
    /// An operator takes back what was wanted of a subject.
    Revoke {
        /// Of what.
        subject: Subject,
        /// Who takes it back.
        by: String,
    },
    /// Answers when all events before it have been published: `kill`, `drain` and tests wait on it.
    Flush(oneshot::Sender<u64>),
}
