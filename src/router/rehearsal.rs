//! The world of a configuration by itself, without a node that runs it: everything well, but for what is taken out of it.
//!
//! Evidence is made up, and nothing else: what follows from it is derived by the health core, so what is asked of such a
//! world is answered as a node would answer it.

use std::path::Path;
use std::sync::Arc;

use super::load::{LoadError, load};
use crate::base::clock::{Mono, Wall};
use crate::config::Config;
use crate::control::assess::{self, Look};
use crate::control::step;
use crate::snapshot::Snapshot;
use crate::snapshot::health::{EjectReason, Verdict};

/// A service that has failed in a datacenter, both by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Where.
    pub datacenter: String,
    /// What.
    pub service: String,
}

/// Why there is no such world.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RehearsalError {
    /// The configuration, or a file that it names, is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What should be down does not exist.
    #[error("no service `{service}` has a backend in a datacenter `{datacenter}`: there are {known}")]
    Nowhere {
        /// Where it should be.
        datacenter: String,
        /// What should be there.
        service: String,
        /// What there is, each as `DATACENTER/SERVICE`.
        known: String,
    },
}

/// The world of the configuration in `file`, where everything is well but `down`.
///
/// # Errors
/// The configuration, or a file that it names, is wrong; or something that should be down does not exist.
pub fn rehearse(file: &Path, down: &[Outage], now: Mono, wall: Wall) -> Result<Snapshot, RehearsalError> {
    let mut world = step::first(load(file, None)?, None, now, wall);
    for target in Arc::make_mut(&mut world.targets) {
        target.verdict = Verdict::Up;
    }
    let topology = Arc::clone(&world.topology);
    for outage in down {
        let of = |names: (&str, &str)| names == (outage.datacenter.as_str(), outage.service.as_str());
        let hit = topology.backends.iter().map(|b| of(names(&topology.config, b)));
        let hit: Vec<usize> = hit.enumerate().filter(|(_, hit)| *hit).map(|(i, _)| i).collect();
        if hit.is_empty() {
            let mut known: Vec<String> =
                topology.backends.iter().map(|b| names(&topology.config, b)).map(show).collect();
            known.sort_unstable();
            known.dedup();
            let Outage { datacenter, service } = outage.clone();
            return Err(RehearsalError::Nowhere { datacenter, service, known: known.join(", ") });
        }
        // Not by its target: other services may be probed at the same one.
        for (_, backend) in Arc::make_mut(&mut world.backends).iter_mut().enumerate().filter(|(i, _)| hit.contains(i)) {
            backend.ejected = Some((EjectReason::ConsecutiveFailures, Mono::NEVER));
        }
    }
    assess::assess(&mut world, Look::Again, now, wall);
    Ok(world)
}

fn names<'c>(config: &'c Config, backend: &crate::snapshot::topology::Backend) -> (&'c str, &'c str) {
    let datacenter = config.datacenters.get(backend.spec.datacenter.index()).map_or("", |d| &d.name);
    (datacenter, config.services.get(backend.service.index()).map_or("", |s| &s.name))
}

fn show((datacenter, service): (&str, &str)) -> String {
    format!("{datacenter}/{service}")
}
