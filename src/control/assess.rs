//! What follows from the evidence: where each backend stands, what each datacenter carries, what DNS answers from.
//!
//! Derived anew from evidence and intents, a layer at a time; a table is replaced only where something in it differs.
//! Called by `control::step` after each event that could matter.

use std::sync::Arc;
use std::time::Duration;

use super::basis::Basis;
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::Steer;
use crate::decide::orders::Orders;
use crate::decide::standing::{self, Standing};
use crate::decide::ttl;
use crate::decide::weight::{self, Ground, Member};
use crate::snapshot::health::{BackendHealth, BackendState, DcState, DcWeight, SteerHealth};
use crate::snapshot::{Snapshot, Topology};

/// Why it is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Evidence or intent has changed.
    Again,
    /// Time has passed.
    Tick,
    /// Verdicts of the last `round` were taken back: who fell within it comes back as if it had not.
    Undo {
        /// How far back.
        round: Duration,
    },
}

/// Derives everything that can be derived.
pub fn assess(next: &mut Snapshot, look: Look, now: Mono, wall: Wall) {
    let topology = Arc::clone(&next.topology);
    let orders = Orders::of(&next.intents, &topology, wall);
    backends(next, &topology, &orders, look, now);
    weights(next, &topology, &orders, look, now);
    steers(next, &topology, &orders, now, wall);
}

/// Whether an edge would act otherwise on `after` than on `before`.
pub fn moved(before: &Snapshot, after: &Snapshot) -> bool {
    fn differ<T>(a: &Arc<Vec<T>>, b: &Arc<Vec<T>>, acts: impl Fn(&T, &T) -> bool) -> bool {
        !Arc::ptr_eq(a, b) && (a.len() != b.len() || a.iter().zip(b.iter()).any(|(a, b)| acts(a, b)))
    }
    !Arc::ptr_eq(&before.topology, &after.topology)
        || before.intents != after.intents
        || before.isolated_since.is_some() != after.isolated_since.is_some()
        || differ(&before.backends, &after.backends, |a, b| treated(a) != treated(b))
        || differ(&before.weights, &after.weights, |a, b| {
            (a.state, a.factor, a.effective, a.panic) != (b.state, b.factor, b.effective, b.panic)
        })
        || differ(&before.steers, &after.steers, |a, b| a != b)
        || differ(&before.spill, &after.spill, |a, b| a.shed != b.shed)
}

/// How an edge treats a backend: those that are merely used are all alike.
fn treated(health: &BackendHealth) -> (BackendState, u32) {
    let state = match health.state {
        BackendState::Unknown | BackendState::Suspect | BackendState::SlowStart => BackendState::Healthy,
        state => state,
    };
    (state, health.weight)
}

fn backends(next: &mut Snapshot, topology: &Topology, orders: &Orders, look: Look, now: Mono) {
    for (i, backend) in topology.backends.iter().enumerate() {
        let before = &next.backends[i];
        let target = backend.target.map(|t| next.target(t));
        let undone = matches!(look, Look::Undo { round } if now.since(before.since) <= round);
        let service = topology.service(backend.service);
        let order = orders.backend(backend);
        let standing = standing::stand(before, target, order, backend.spec.weight, service, !undone, now);
        if standing != Standing::of(before) {
            standing.put(&mut Arc::make_mut(&mut next.backends)[i]);
        }
    }
}

fn weights(next: &mut Snapshot, topology: &Topology, orders: &Orders, look: Look, now: Mono) {
    let unjudged = DcWeight { state: DcState::Absent, ..DcWeight::default() };
    let one = |service: ServiceId, dc: DatacenterId| {
        let before = next.weight(service, dc);
        let undone =
            matches!(look, Look::Undo { round } if before.state == DcState::Failed && now.since(before.since) <= round);
        let members = topology.members(service, dc).iter().map(|&id| {
            let backend = topology.backend(id);
            let weight = orders.backend(backend).weight.unwrap_or(backend.spec.weight);
            Member { weight, state: next.backend(id).state }
        });
        let ground = Ground {
            base: topology.config.datacenters[dc.index()].weight,
            order: orders.service(service, dc),
            panic_below: topology.service(service).panic_below,
            rules: &topology.config.health,
            tick: look == Look::Tick,
        };
        weight::datacenter(if undone { &unjudged } else { before }, members, &ground, now)
    };
    let weights: Vec<DcWeight> = topology
        .service_ids()
        .flat_map(|service| topology.datacenter_ids().map(move |dc| (service, dc)))
        .map(|(service, dc)| one(service, dc))
        .collect();
    if weights != *next.weights {
        next.weights = Arc::new(weights);
    }
}

/// Derives what DNS answers from, for the names of which anything has changed that they are derived from. In the calm that
/// is none of them: ten thousand names cost what their services and datacenters cost.
pub(super) fn steers(next: &mut Snapshot, topology: &Topology, orders: &Orders, now: Mono, wall: Wall) {
    let Some(dns) = &topology.config.dns else {
        if !next.steers.is_empty() {
            next.steers = Arc::default();
        }
        return;
    };
    if next.steers.len() != dns.steers.len() {
        (next.steers, next.steered_from) = (Arc::default(), Arc::default());
    }
    let basis = Basis::of(next, topology, orders, now, wall);
    if basis.packed == *next.steered_from {
        return;
    }
    let fresh: Vec<(usize, SteerHealth)> = dns
        .steers
        .iter()
        .enumerate()
        .filter(|(_, steer)| basis.differs(&next.steered_from, steer))
        .map(|(place, steer)| (place, health(next, steer, orders, &basis)))
        .filter(|(place, health)| next.steers.get(*place) != Some(health))
        .collect();
    if next.steers.is_empty() {
        next.steers = Arc::new(fresh.into_iter().map(|(_, health)| health).collect());
    } else if !fresh.is_empty() {
        let steers = Arc::make_mut(&mut next.steers);
        for (place, health) in fresh {
            steers[place] = health;
        }
    }
    next.steered_from = Arc::new(basis.packed);
}

fn health(next: &Snapshot, steer: &Steer, orders: &Orders, basis: &Basis<'_>) -> SteerHealth {
    let config = &next.topology.config;
    let (candidates, all_down) = weight::candidates(steer, config, orders, |service, dc| next.weight(service, dc));
    let soonest = if all_down { Some(Duration::ZERO) } else { basis.soonest(steer) };
    SteerHealth { candidates, all_down, ttl: ttl::choose(steer.ttl_base, steer.ttl_min, soonest) }
}
