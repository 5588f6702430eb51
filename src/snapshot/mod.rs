//! Floor 2: everything the edges need to know, in one immutable value behind one pointer.
//!
//! A [`Snapshot`] is complete: topology, verdicts, weights, operators' intents, certificates, zones, a generation. The
//! control loop is the only one who makes them; the name server and the proxy read the same one, so they can't disagree
//! and no reader sees half an update. What changes with every request (in flight, latency) is not in it: see [`load`].

pub mod alarm;
pub mod atlas;
pub mod cell;
pub mod diff;
pub mod discovered;
pub mod health;
pub mod intent;
pub mod load;
pub mod topology;
pub mod views;

use std::sync::Arc;

pub use alarm::Alarm;
pub use cell::Published;
pub use discovered::Discovered;
pub use health::{BackendHealth, DcState, DcWeight, Spill, SteerHealth, TargetHealth};
pub use intent::{Intent, Intents};
pub use load::Load;
pub use topology::Topology;
pub use views::Views;

use crate::base::clock::Mono;
use crate::base::ids::{BackendId, DatacenterId, ServiceId, SteerId, TargetId};

/// One consistent picture of the world. Cheap to clone: everything large is shared.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one whenever anything that an edge acts on has changed: topology, verdicts, weights, intents. Evidence
    /// alone (another good probe) does not move it.
    pub generation: u64,
    /// When the last event was taken into account.
    pub at: Mono,
    /// What exists: the configuration with ids, targets and assets.
    pub topology: Arc<Topology>,
    /// What probes say, by [`TargetId`].
    pub targets: Arc<Vec<TargetHealth>>,
    /// What that and live traffic make of each backend, by [`BackendId`].
    pub backends: Arc<Vec<BackendHealth>>,
    /// Weight of each service in each datacenter: row-major, see [`Snapshot::weight`].
    pub weights: Arc<Vec<DcWeight>>,
    /// The same by steered name: what DNS answers from.
    pub steers: Arc<Vec<SteerHealth>>,
    /// What `steers` was derived from, packed: a name is looked at again where its part of it has changed. Nobody else reads it.
    pub steered_from: Arc<Vec<u128>>,
    /// What each datacenter has to carry, by [`DatacenterId`], and what leaves it. Empty where no capacity is configured.
    pub spill: Arc<Vec<Spill>>,
    /// What operators want.
    pub intents: Arc<Intents>,
    /// Whether this node has reason to believe that it is the one cut off: verdicts are held since then.
    pub isolated_since: Option<Mono>,
    /// What the edges have derived from this generation.
    pub views: Arc<Views>,
}

impl Snapshot {
    /// The weight of `service` in `datacenter`.
    pub fn weight(&self, service: ServiceId, datacenter: DatacenterId) -> &DcWeight {
        &self.weights[service.index() * self.topology.config.datacenters.len() + datacenter.index()]
    }

    /// What probes say of `target`.
    pub fn target(&self, target: TargetId) -> &TargetHealth {
        &self.targets[target.index()]
    }

    /// The state of `backend`.
    pub fn backend(&self, backend: BackendId) -> &BackendHealth {
        &self.backends[backend.index()]
    }

    /// The state of the steered name `steer`.
    pub fn steer(&self, steer: SteerId) -> &SteerHealth {
        &self.steers[steer.index()]
    }
}
