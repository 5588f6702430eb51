//! The two edges, as far as they act on a snapshot: what DNS would answer with, and where the proxy sends requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use springtide::base::clock::Mono;
use springtide::base::entropy::Rng;
use springtide::base::ids::{BackendId, DatacenterId, ServiceId, SteerId};
use springtide::decide::balance::{self, NoChoice, Turn, Wanted};
use springtide::decide::near::Near;
use springtide::decide::place;
use springtide::decide::steer::{Client, Plan};
use springtide::decide::tried::Tried;
use springtide::snapshot::Snapshot;
use springtide::snapshot::atlas::Atlas;
use springtide::snapshot::health::{BackendState, DcState, SteerHealth};
use springtide::snapshot::load::Outcome;

use crate::nodes::Truth;

/// The datacenters that an answer may hold, with their weights: the contract of [`SteerHealth`] with `serve-all`.
pub(crate) fn answerable(steer: &SteerHealth, configured: &[(DatacenterId, u32)]) -> Vec<(usize, f64)> {
    let all = steer.candidates.iter().zip(configured).enumerate();
    if steer.all_down {
        let left = all.filter(|(_, (c, _))| c.state != DcState::AdminDown);
        left.map(|(i, (_, (_, weight)))| (i, f64::from((*weight).max(1)))).collect()
    } else {
        let served = all.filter(|(_, (c, _))| c.effective > 0);
        served.map(|(i, (c, _))| (i, c.effective as f64)).collect()
    }
}

/// What a few clients are answered by the steered name number `steer`: places in `Steer::datacenters`.
pub(crate) fn answers(snapshot: &Snapshot, steer: usize) -> Vec<Vec<usize>> {
    let near = Arc::new(Near::build(&[], &Atlas::default()));
    let Some(plan) = Plan::of(snapshot, SteerId::new(steer), &near, None) else { return Vec::new() };
    let client = |n: u8| Client::new(IpAddr::from([10, n, 0, 1]), (24, 56));
    let places = |n| plan.choose(&client(n)).picks().iter().map(|&i| usize::from(i)).collect();
    (0..4).map(places).collect()
}

/// Parts of the datacenters that serve `service`, as the proxy divides requests.
pub(crate) fn parts(snapshot: &Snapshot, service: ServiceId, local: Option<DatacenterId>) -> f64 {
    place::shares(snapshot, service, local, &Tried::new(), snapshot.at).iter().map(|part| part.share).sum()
}

/// One edge that sends requests.
pub(crate) struct Edge {
    /// Where it stands.
    pub(crate) local: Option<DatacenterId>,
    turn: Turn,
    rng: Rng,
}

impl Edge {
    /// An edge in `local`.
    pub(crate) fn new(local: Option<DatacenterId>, seed: u64) -> Self {
        Self { local, turn: Turn::new(), rng: Rng::seeded(seed) }
    }

    /// Sends one request, in up to three tries; gives who was tried, or why nobody.
    pub(crate) fn send(
        &mut self,
        snapshot: &Snapshot,
        service: ServiceId,
        now: Mono,
        truth: impl Fn(BackendId) -> Truth,
    ) -> Result<Vec<BackendId>, NoChoice> {
        let wanted = Wanted { service, local: self.local, user: Some(self.rng.next_u64()), seat: None };
        let mut tried = Tried::new();
        let mut asked = Vec::new();
        for _ in 0..3 {
            let choice = match balance::choose(snapshot, &wanted, &mut tried, &mut self.turn, now, &mut self.rng) {
                Ok(choice) => choice,
                Err(none) if asked.is_empty() => return Err(none),
                Err(_) => break,
            };
            let load = &snapshot.topology.backend(choice.backend).load;
            let (outcome, took) = truth(choice.backend).served(&mut self.rng);
            load.begin();
            load.end(outcome, took, Duration::from_secs(1), now);
            asked.push(choice.backend);
            tried.note(choice.backend, choice.datacenter, outcome);
            if matches!(outcome, Outcome::Ok | Outcome::Pressure) {
                break;
            }
        }
        Ok(asked)
    }
}

/// All that the edges act on, in one number: two snapshots of one generation have the same.
pub(crate) fn digest(snapshot: &Snapshot) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    snapshot.topology.serial.hash(&mut hasher);
    for backend in snapshot.backends.iter() {
        let state = backend.state;
        let out = matches!(state, BackendState::AdminDown | BackendState::Drained | BackendState::Down);
        (state.usable(), out.then_some(state.as_str()), state == BackendState::HalfOpen).hash(&mut hasher);
        backend.weight.hash(&mut hasher);
    }
    for weight in snapshot.weights.iter() {
        (weight.state.as_str(), weight.effective, weight.factor, weight.panic).hash(&mut hasher);
    }
    for steer in snapshot.steers.iter() {
        (steer.all_down, steer.ttl).hash(&mut hasher);
        for candidate in &steer.candidates {
            (candidate.state.as_str(), candidate.effective).hash(&mut hasher);
        }
    }
    hasher.finish()
}
