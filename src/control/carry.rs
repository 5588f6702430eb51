//! What outlives a reload: evidence by what it is about, not by its place in a table.
//!
//! A target is the same if its address and the definition of its probe are; a backend, if service, datacenter and address
//! are. Whatever else is in the new topology begins unknown, and so usable; but what was found joins those that work by
//! its first good probe. Intents are kept by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::spill;
use super::step::seed;
use crate::base::clock::Mono;
use crate::base::ids::{BackendId, TargetId};
use crate::decide::{standing, verdict};
use crate::snapshot::health::{BackendHealth, BackendState, DcState, DcWeight};
use crate::snapshot::{Snapshot, Topology};

/// Puts `topology` in place of the current one, with all evidence that still concerns it.
pub fn reload(next: &mut Snapshot, mut topology: Topology, now: Mono) {
    let old = Arc::clone(&next.topology);
    // Events in flight carry the old serial; a topology that was not built on the current one must not reuse it.
    topology.serial = topology.serial.max(old.serial + 1);
    if !Arc::ptr_eq(&topology.config, &old.config) {
        topology.edition = topology.serial;
    }

    let known: HashMap<_, _> = old.targets.iter().zip(next.targets.iter()).collect();
    let targets = topology.targets.iter().enumerate().map(|(i, target)| match known.get(target) {
        Some(&health) => health.clone(),
        None => verdict::fresh(&target.probe, now, seed(&topology, TargetId::new(i))),
    });
    let targets = Arc::new(targets.collect());

    let seats = old.backends.iter().map(|b| (b.seat, b.spec.address));
    let known: HashMap<_, _> = seats.zip(next.backends.iter()).collect();
    let backends = topology.backends.iter().map(|b| match known.get(&(b.seat, b.spec.address)) {
        Some(&health) => health.clone(),
        None if b.source.is_some() => standing::joining(now),
        None => standing::fresh(now),
    });
    let mut backends: Vec<_> = backends.collect();
    admit(&topology, &mut backends, now);
    let backends = Arc::new(backends);

    let known: HashMap<_, _> = pairs(&old).zip(next.weights.iter()).collect();
    let weights = pairs(&topology).map(|pair| match known.get(&pair) {
        Some(&weight) => weight.clone(),
        None => DcWeight { state: DcState::Absent, ..DcWeight::default() },
    });
    let weights = Arc::new(weights.collect());

    next.spill = Arc::new(spill::carried(&old, &next.spill, &topology, now));
    (next.targets, next.backends, next.weights) = (targets, backends, weights);
    next.topology = Arc::new(topology);
}

/// Who joins where nobody works is used at once: an empty answer is worse than a wrong guess.
fn admit(topology: &Topology, backends: &mut [BackendHealth], now: Mono) {
    for (service, datacenter) in topology.service_ids().flat_map(|s| topology.datacenter_ids().map(move |d| (s, d))) {
        let members = topology.members(service, datacenter);
        let state = |id: &BackendId| backends.get(id.index()).map(|health| health.state);
        if members.iter().filter_map(state).any(BackendState::usable) {
            continue;
        }
        for id in members {
            if let Some(health) = backends.get_mut(id.index()).filter(|health| health.state == BackendState::Joining) {
                *health = standing::fresh(now);
            }
        }
    }
}

/// Names of every service in every datacenter, in the order of [`Snapshot::weights`].
pub(super) fn pairs(topology: &Topology) -> impl Iterator<Item = (&str, &str)> {
    let datacenters = &topology.config.datacenters;
    let services = topology.config.services.iter();
    services.flat_map(move |s| datacenters.iter().map(move |d| (s.name.as_str(), d.name.as_str())))
}

#[cfg(test)]
mod tests;
