//! The load of datacenters as this node sees it, and what leaves them for it: kept from event to event.
//!
//! Counted from the samples of live traffic, so it is this node's own edge that tells; what other nodes see comes with the
//! bus between them. A node without an edge has no load to tell of, and sheds nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Mono;
use crate::base::ids::{BackendId, DatacenterId};
use crate::decide::spill::{self, Site};
use crate::snapshot::load::Sample;
use crate::snapshot::{Snapshot, Spill, Topology};

/// Nothing known yet; empty where no capacity is configured, or no name is steered.
pub(super) fn fresh(topology: &Topology, now: Mono) -> Vec<Spill> {
    let config = &topology.config;
    let wanted = config.dns.is_some() && config.datacenters.iter().any(|d| d.capacity_rps.is_some());
    let one = || Spill { counted_from: now, decided_at: now, ..Spill::default() };
    if wanted { config.datacenters.iter().map(|_| one()).collect() } else { Vec::new() }
}

/// What is known outlives a reload, by the datacenter's name.
pub(super) fn carried(old: &Topology, known: &[Spill], new: &Topology, now: Mono) -> Vec<Spill> {
    let mut all = fresh(new, now);
    for (next, datacenter) in all.iter_mut().zip(&new.config.datacenters) {
        let place = old.config.datacenters.iter().position(|d| d.name == datacenter.name);
        if let Some(before) = place.and_then(|place| known.get(place)) {
            *next = before.clone();
        }
    }
    all
}

/// Counts what live traffic said.
pub(super) fn count(next: &mut Snapshot, samples: &[(BackendId, Sample)]) {
    if next.spill.is_empty() {
        return;
    }
    let topology = Arc::clone(&next.topology);
    let all = Arc::make_mut(&mut next.spill);
    for (id, sample) in samples {
        let datacenter = topology.backends.get(id.index()).map(|b| b.spec.datacenter.index());
        if let Some(spill) = datacenter.and_then(|dc| all.get_mut(dc)) {
            spill.requests = spill.requests.saturating_add(sample.total().into());
        }
    }
}

/// Time has passed: measures, and decides anew where it is time.
pub(super) fn tick(next: &mut Snapshot, now: Mono) {
    let told = !next.topology.config.listeners.is_empty();
    let Some(measured) = next.spill.iter().map(|s| spill::measure(s, told, now)).collect::<Option<Vec<Spill>>>() else {
        return;
    };
    let due = measured.first().is_some_and(|s| now.since(s.decided_at) >= spill::STEP);
    if measured.is_empty() {
        return;
    }
    let decided = if due {
        let sites: Vec<Site> = next.topology.datacenter_ids().map(|dc| site(next, dc)).collect();
        let mut decided = spill::decide(&measured, &sites, ttl(next), now);
        for spill in &mut decided {
            spill.decided_at = now;
        }
        decided
    } else {
        measured
    };
    next.spill = Arc::new(decided);
}

fn site(snapshot: &Snapshot, dc: DatacenterId) -> Site {
    let config = &snapshot.topology.config;
    let steers = config.dns.iter().flat_map(|d| &d.steers).zip(snapshot.steers.iter());
    let mut candidates = steers.flat_map(|(steer, health)| steer.datacenters.iter().zip(&health.candidates));
    let serving = candidates.any(|((id, _), candidate)| *id == dc && candidate.effective > 0);
    Site { capacity_rps: config.datacenters.get(dc.index()).and_then(|d| d.capacity_rps), serving }
}

/// How long resolvers may keep what any name answers.
fn ttl(snapshot: &Snapshot) -> Duration {
    let longest = snapshot.steers.iter().map(|s| s.ttl).max().unwrap_or(0);
    Duration::from_secs(longest.into())
}
