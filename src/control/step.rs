//! What one event makes of the world: the only writer, as a pure function.
//!
//! Evidence is taken in here; what follows from it (states, weights, answers) is derived anew in [`super::assess`]. An event
//! that changes nothing costs a few reference counts; another good probe costs the evidence of the targets and no more.

use std::sync::Arc;
use std::time::Duration;

use super::assess::{self, Look};
use super::carry;
use super::event::Event;
use super::intent;
use super::memory::Memory;
use super::spill;
use crate::base::clock::{Mono, Wall};
use crate::base::hash;
use crate::base::ids::{BackendId, TargetId};
use crate::decide::{eject, guard, standing, verdict};
use crate::snapshot::health::{
    BackendHealth, BackendState, DcState, DcWeight, EjectReason, ProbeOutcome, TargetHealth, Verdict,
};
use crate::snapshot::load::Sample;
use crate::snapshot::topology::Target;
use crate::snapshot::{Intents, Snapshot, Topology};

/// The first snapshot of a process: from what was known when the last one ended, or from nothing. What is unknown is used.
pub fn first(topology: Topology, known: Option<&Memory>, now: Mono, wall: Wall) -> Snapshot {
    let topology = Arc::new(topology);
    let target = |i: usize| verdict::fresh(&topology.targets[i].probe, now, seed(&topology, TargetId::new(i)));
    let pairs = topology.config.services.len() * topology.config.datacenters.len();
    let mut next = Snapshot {
        generation: 1,
        at: now,
        targets: Arc::new((0..topology.targets.len()).map(target).collect()),
        backends: Arc::new(topology.backends.iter().map(|_| standing::fresh(now)).collect()),
        weights: Arc::new(vec![DcWeight { state: DcState::Absent, ..DcWeight::default() }; pairs]),
        steers: Arc::default(),
        spill: Arc::new(spill::fresh(&topology, now)),
        intents: Arc::new(Intents::default()),
        steered_from: Arc::default(),
        isolated_since: None,
        views: Arc::default(),
        topology,
    };
    if let Some(memory) = known {
        memory.recall(&mut next, now, wall);
    }
    assess::assess(&mut next, Look::Again, now, wall);
    next
}

/// The next snapshot. Its generation is one more if an edge would act otherwise than before, else the same, with the same
/// views. An event of another topology changes nothing.
pub fn step(before: &Snapshot, event: Event, now: Mono, wall: Wall) -> Snapshot {
    steps(before, [event], now, wall)
}

/// What several events of one moment make of it, in their order, as one generation. What follows from probes is derived
/// once for all that stand together: a thousand of them cost little more than one, and nobody acts on half a moment.
pub fn steps(before: &Snapshot, events: impl IntoIterator<Item = Event>, now: Mono, wall: Wall) -> Snapshot {
    let mut next = Snapshot { at: now, ..before.clone() };
    let (mut probes, mut looked) = (Probes::default(), false);
    for event in events {
        let serial = next.topology.serial;
        let look = match event {
            Event::Probed { target, outcome, took, serial: s } if s == serial => {
                probes = probes.and(probed(&mut next, target, outcome, took, now));
                continue;
            }
            // The loop answers a flush; the rest speaks of a topology that has gone.
            Event::Flush(_) | Event::Probed { .. } => continue,
            Event::Sampled { serial: s, .. } if s != serial => continue,
            other => {
                settle(&mut next, std::mem::take(&mut probes), now, wall);
                absorb(&mut next, other, now, wall)
            }
        };
        assess::assess(&mut next, look, now, wall);
        looked = true;
    }
    looked |= settle(&mut next, probes, now, wall);
    if looked && assess::moved(before, &next) {
        next.generation = before.generation + 1;
        next.views = Arc::default();
    }
    next
}

/// What probes that stand together ask for.
#[derive(Clone, Copy, Debug, Default)]
struct Probes {
    /// One of them failed: this node may be the one cut off.
    failed: bool,
    /// One of them may have moved something.
    again: bool,
}

impl Probes {
    const fn and(self, other: Self) -> Self {
        Self { failed: self.failed || other.failed, again: self.again || other.again }
    }
}

/// Draws the conclusion from probes; false where there is none to draw.
fn settle(next: &mut Snapshot, probes: Probes, now: Mono, wall: Wall) -> bool {
    let look = if probes.failed && next.isolated_since.is_none() && guard::isolated(&next.topology, &next.targets, now)
    {
        let targets = Arc::make_mut(&mut next.targets);
        guard::freeze(&next.topology, targets, now);
        next.isolated_since = Some(now);
        Look::Undo { round: guard::round(&next.topology) }
    } else if probes.again {
        Look::Again
    } else {
        return false;
    };
    assess::assess(next, look, now, wall);
    true
}

fn absorb(next: &mut Snapshot, event: Event, now: Mono, wall: Wall) -> Look {
    match event {
        Event::Sampled { samples, .. } => return sampled(next, &samples, now),
        Event::Tick => return tick(next, now, wall),
        Event::Reload(topology) => carry::reload(next, *topology, now),
        Event::Wish(wish) => next.intents = Arc::new(intent::with(&next.intents, wish)),
        Event::Revoke { subject, .. } => next.intents = Arc::new(intent::without(&next.intents, &subject)),
        Event::Probed { .. } | Event::Flush(_) => {}
    }
    Look::Again
}

/// What seeds the jitter of a target: differs by node, so that a fleet does not probe in step.
pub(super) fn seed(topology: &Topology, target: TargetId) -> u64 {
    let node = hash::bytes(0, topology.config.node.name.as_bytes());
    let address = topology.targets.get(target.index()).map(|t| t.address.to_string()).unwrap_or_default();
    hash::join(hash::bytes(node, address.as_bytes()), target.index() as u64)
}

fn probed(next: &mut Snapshot, target: TargetId, outcome: ProbeOutcome, took: Duration, now: Mono) -> Probes {
    let topology = Arc::clone(&next.topology);
    let known = topology.targets.get(target.index()).zip(next.targets.get(target.index()).cloned());
    let Some((Target { probe, .. }, before)) = known else { return Probes::default() };
    let seed = seed(&topology, target);
    let ok = outcome == ProbeOutcome::Ok;
    if next.isolated_since.is_some() {
        let thaws = ok && guard::thaws(&topology, &next.targets, target);
        let targets = Arc::make_mut(&mut next.targets);
        targets[target.index()] = verdict::hold(&before, outcome, took, probe, now, seed);
        if thaws {
            next.isolated_since = None;
            guard::thaw(targets, now);
        }
        return Probes { failed: false, again: true };
    }
    let after = verdict::judge(&before, outcome, took, probe, now, seed);
    let quiet = (calm(&before) && calm(&after)) || (lost(&before) && lost(&after));
    Arc::make_mut(&mut next.targets)[target.index()] = after;
    Probes { failed: !ok, again: !quiet }
}

/// Up, and nothing that points to a change: one more good probe moves nothing.
fn calm(health: &TargetHealth) -> bool {
    health.verdict == Verdict::Up && health.streak_failed == 0 && health.leaky == 0
}

/// Down, and no sign of life: one more failure moves nothing.
const fn lost(health: &TargetHealth) -> bool {
    matches!(health.verdict, Verdict::Down) && health.streak_ok == 0
}

fn sampled(next: &mut Snapshot, samples: &[(BackendId, Sample)], now: Mono) -> Look {
    let topology = Arc::clone(&next.topology);
    let known = |(id, _): &&(BackendId, Sample)| id.index() < topology.backends.len();
    spill::count(next, samples);
    let mut suspects: Vec<TargetId> = Vec::new();
    let backends = Arc::make_mut(&mut next.backends);
    window(&topology, backends, samples.iter().filter(known), now);
    for (id, sample) in samples.iter().filter(known) {
        let backend = topology.backend(*id);
        let service = topology.service(backend.service);
        let target = backend.target.and_then(|t| next.targets.get(t.index()));
        let health = &backends[id.index()];
        let out = match health.state {
            BackendState::HalfOpen => match eject::trial(sample) {
                eject::Trial::Failed(reason) => Some(reason),
                eject::Trial::Open => None,
                eject::Trial::Passed => {
                    eject::readmit(&mut backends[id.index()], service.slow_start, now);
                    None
                }
            },
            state if state.usable() => {
                let unproven = standing::unproven(health, target);
                let by_itself = eject::reason(health, sample, unproven, &service.passive);
                by_itself.or_else(|| outlier(&topology, backends, *id, sample)).filter(|&reason| {
                    let states = peers(&topology, *id).map(|peer| backends[peer.index()].state);
                    eject::allowed(reason, states, &service.passive)
                })
            }
            _ => None,
        };
        if let Some(reason) = out {
            let health = &mut backends[id.index()];
            eject::eject(health, reason, &service.passive, now, backend.seat);
            (health.state, health.since) = (BackendState::Ejected, now);
        }
        if out.is_some() || sample.failures() > 0 {
            suspects.extend(backend.target);
        }
    }
    for target in suspects {
        if let Some(due) = next.targets.get(target.index()).and_then(|health| verdict::hastened(health, now)) {
            Arc::make_mut(&mut next.targets)[target.index()].due = due;
        }
    }
    Look::Again
}

/// Takes samples into the windows of their backends; each window that they close is held against those of its peers.
fn window<'s>(
    topology: &Topology,
    backends: &mut [BackendHealth],
    samples: impl Iterator<Item = &'s (BackendId, Sample)>,
    now: Mono,
) {
    let mut closed = Vec::new();
    for (id, sample) in samples {
        let health = &mut backends[id.index()];
        closed.extend(eject::absorb(&mut health.recent, sample, now).map(|slot| (*id, slot)));
    }
    for (id, (at, window)) in closed {
        let backend = topology.backend(id);
        let mut p90s: Vec<u64> = peers(topology, id)
            .filter_map(|peer| backends[peer.index()].recent.iter().find(|(slot, _)| *slot == at))
            .filter(|(_, sample)| sample.total() >= eject::SLOW_REQUESTS)
            .map(|(_, sample)| sample.p90_us)
            .collect();
        let slow = eject::slow(&window, &mut p90s, &topology.service(backend.service).passive);
        let health = &mut backends[id.index()];
        health.slow_windows = if slow { health.slow_windows.saturating_add(1) } else { 0 };
    }
}

/// Whether the backend's share of successes stands out among its peers'. Asked where it has just failed at something, for
/// nothing else moves it down.
fn outlier(topology: &Topology, backends: &[BackendHealth], id: BackendId, sample: &Sample) -> Option<EjectReason> {
    if sample.failures() == 0 && sample.gateway_error == 0 {
        return None;
    }
    let backend = topology.backend(id);
    let own = eject::success(&backends[id.index()])?;
    let members = topology.members(backend.service, backend.spec.datacenter).iter();
    let usable = members.map(|member| &backends[member.index()]).filter(|health| health.state.usable());
    let all: Vec<f64> = usable.filter_map(eject::success).collect();
    let passive = &topology.service(backend.service).passive;
    eject::below_peers(own, &all, passive).then_some(EjectReason::SuccessBelowPeers)
}

/// The other backends of the same service and datacenter.
fn peers(topology: &Topology, id: BackendId) -> impl Iterator<Item = BackendId> + '_ {
    let backend = topology.backend(id);
    topology.members(backend.service, backend.spec.datacenter).iter().copied().filter(move |&peer| peer != id)
}

fn tick(next: &mut Snapshot, now: Mono, wall: Wall) -> Look {
    if let Some(left) = intent::unexpired(&next.intents, wall) {
        next.intents = Arc::new(left);
    }
    spill::tick(next, now);
    let stale = |(at, _): &(Mono, Sample)| now.since(*at) >= eject::WINDOW;
    if next.backends.iter().any(|b| b.recent.first().is_some_and(stale)) {
        for backend in Arc::make_mut(&mut next.backends) {
            backend.recent.retain(|slot| !stale(slot));
        }
    }
    Look::Tick
}

#[cfg(test)]
pub(super) mod tests;
