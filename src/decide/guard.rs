//! Whether this node is the one that is cut off: who suddenly sees everything dead had better distrust itself.
//!
//! Suspected when at least 60 % of all targets that were not Down, in two datacenters or more, turn bad within one round
//! of probes, and no witness contradicts: every reference that worked has turned bad too. Without a working reference, every
//! target there is must be bad. One datacenter of three that dies never gets there, and when all die it makes no difference:
//! everything is served then.
//!
//! While it lasts, verdicts stand as they were before the round. It ends when something that was believed dead answers.

use std::collections::BTreeSet;
use std::time::Duration;

use super::verdict::{REPROBE, hastened, scaled};
use crate::base::clock::Mono;
use crate::base::ids::{DatacenterId, TargetId};
use crate::snapshot::Topology;
use crate::snapshot::health::{TargetHealth, Verdict};

/// Share of targets that must turn bad at once, in hundredths (GSLB 3.6).
const SHARE: usize = 60;
/// In how many datacenters (GSLB 3.6).
const PLACES: usize = 2;

/// How long one round of probes takes at the most, from a fault to the verdict: every target has failed by then.
pub fn round(topology: &Topology) -> Duration {
    let one = |t: &crate::snapshot::topology::Target| {
        let again = t.probe.timeout.saturating_add(REPROBE).saturating_mul(t.probe.fall.max(1));
        scaled(t.probe.interval, 1_100).saturating_add(again)
    };
    topology.targets.iter().map(one).max().unwrap_or_default()
}

/// Whether everything points to this node being cut off. To be asked after every probe that failed.
pub fn isolated(topology: &Topology, targets: &[TargetHealth], now: Mono) -> bool {
    let round = round(topology);
    let places = places(topology);
    let (mut all, mut bad, mut everything) = (0usize, 0usize, true);
    let mut bad_places = BTreeSet::new();
    for (health, place) in targets.iter().zip(&places) {
        let Some(place) = place else { continue };
        everything &= health.streak_failed > 0;
        if was_down(health, round, now) {
            continue;
        }
        all += 1;
        if health.streak_failed > 0 {
            bad += 1;
            bad_places.insert(*place);
        }
    }
    let witnesses = || {
        let of = |id: &TargetId| targets.get(id.index());
        topology.references.iter().filter_map(of).filter(|h| !was_down(h, round, now))
    };
    let unwitnessed = if witnesses().next().is_some() { witnesses().all(|h| h.streak_failed > 0) } else { everything };
    unwitnessed && all > 0 && bad * 100 >= all * SHARE && bad_places.len() >= PLACES
}

/// Takes back the verdicts of this round: as if it had not been.
pub fn freeze(topology: &Topology, targets: &mut [TargetHealth], now: Mono) {
    let round = round(topology);
    for health in targets {
        if health.verdict == Verdict::Down && !was_down(health, round, now) {
            // A fall from Up counted a flap at that moment, a fall from Unknown did not.
            let flapped = health.flaps > 0 && health.flap_at == health.since;
            health.verdict = if flapped { Verdict::Up } else { Verdict::Unknown };
            health.flaps -= u32::from(flapped);
            health.since = now;
        }
    }
}

/// Whether a probe of `target` that succeeded ends the distrust (`targets` as they were before it): it is a reference, or is
/// held against its evidence; without a working reference, any success does.
pub fn thaws(topology: &Topology, targets: &[TargetHealth], target: TargetId) -> bool {
    let of = |id: &TargetId| targets.get(id.index());
    let fall = topology.targets.get(target.index()).map_or(1, |t| t.probe.fall.max(1));
    let held = of(&target).is_some_and(|h| h.verdict != Verdict::Down && h.streak_failed >= fall);
    let unwitnessed = topology.references.iter().filter_map(of).all(|h| h.verdict == Verdict::Down);
    held || unwitnessed || topology.references.contains(&target)
}

/// Begins to judge anew: held failures are forgotten, and looked for again at once.
pub fn thaw(targets: &mut [TargetHealth], now: Mono) {
    for health in targets {
        if health.verdict != Verdict::Down && health.streak_failed > 0 {
            health.streak_failed = 0;
            health.due = hastened(health, now).unwrap_or(health.due);
        }
    }
}

fn was_down(health: &TargetHealth, round: Duration, now: Mono) -> bool {
    health.verdict == Verdict::Down && now.since(health.since) > round
}

/// The datacenter of every target; `None` for references.
fn places(topology: &Topology) -> Vec<Option<DatacenterId>> {
    let mut places = vec![None; topology.targets.len()];
    for backend in &topology.backends {
        if let Some(place) = backend.target.and_then(|t| places.get_mut(t.index())) {
            *place = Some(backend.spec.datacenter);
        }
    }
    places
}
