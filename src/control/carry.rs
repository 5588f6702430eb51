//! What outlives a reload: evidence by what it is about, not by its place in a table.
//!
//! A target is the same if its address and the definition of its probe are; a backend, if service, datacenter and address
//! are. Whatever else is in the new topology begins unknown, and so usable. Intents are kept by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::spill;
use super::step::seed;
use crate::base::clock::Mono;
use crate::base::ids::TargetId;
use crate::decide::{standing, verdict};
use crate::snapshot::health::{DcState, DcWeight};
use crate::snapshot::{Snapshot, Topology};

/// Puts `topology` in place of the current one, with all evidence that still concerns it.
pub fn reload(next: &mut Snapshot, mut topology: Topology, now: Mono) {
    let old = Arc::clone(&next.topology);
    // Events in flight carry the old serial; a topology that was not built on the current one must not reuse it.
    topology.serial = topology.serial.max(old.serial + 1);

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
        None => standing::fresh(now),
    });
    let backends = Arc::new(backends.collect());

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

/// Names of every service in every datacenter, in the order of [`Snapshot::weights`].
pub(super) fn pairs(topology: &Topology) -> impl Iterator<Item = (&str, &str)> {
    let datacenters = &topology.config.datacenters;
    let services = topology.config.services.iter();
    services.flat_map(move |s| datacenters.iter().map(move |d| (s.name.as_str(), d.name.as_str())))
}
