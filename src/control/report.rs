//! What the control loop lets be seen of its work: gauges, counters, and a line of log for each change.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::event::Event;
use super::probe::{kind_word, outcome_word};
use crate::base::clock::Wall;
use crate::config::{Datacenter, ProbeKind};
use crate::observe::names::control as names;
use crate::snapshot::diff::{Change, Gravity, diff};
use crate::snapshot::health::{BackendState, ProbeOutcome, Verdict};
use crate::snapshot::{Snapshot, Topology};

/// Lines of log for one turn; a landslide is told by its first ones and its size.
const LINES: usize = 200;
const STATES: [BackendState; 10] = [
    BackendState::Unknown,
    BackendState::Joining,
    BackendState::Healthy,
    BackendState::Suspect,
    BackendState::Ejected,
    BackendState::HalfOpen,
    BackendState::SlowStart,
    BackendState::Down,
    BackendState::Drained,
    BackendState::AdminDown,
];
const VERDICTS: [Verdict; 3] = [Verdict::Unknown, Verdict::Up, Verdict::Down];
const KINDS: [&str; 4] = ["tcp", "tls", "http", "grpc"];
const OUTCOMES: [&str; 9] = ["ok", "refused", "reset", "timeout", "unreachable", "tls", "status", "garbage", "unasked"];
const EVENTS: [&str; 6] = ["probed", "sampled", "tick", "reload", "wish", "revoke"];

/// Handles of all that is shown.
pub(super) struct Report {
    generation: Gauge,
    published_at: Gauge,
    turn_seconds: Histogram,
    events: [Counter; EVENTS.len()],
    probes: [[Counter; OUTCOMES.len()]; KINDS.len()],
    probe_seconds: [Histogram; KINDS.len()],
    lag_seconds: Histogram,
    in_flight: Gauge,
    targets: [Gauge; VERDICTS.len()],
    isolated: Gauge,
    intents: Gauge,
    cells: Vec<Cell>,
    /// By datacenter: what leaves it, and its load.
    spills: Vec<(Gauge, Gauge)>,
    /// What has been told.
    told: Arc<Snapshot>,
}

/// Gauges of one service in one datacenter.
struct Cell {
    states: [Gauge; STATES.len()],
    weight: Gauge,
    health: Gauge,
    panic: Gauge,
}

impl Report {
    pub(super) fn new(first: &Arc<Snapshot>) -> Self {
        let report = Self {
            generation: names::GENERATION.gauge(&[]),
            published_at: names::PUBLISHED_AT.gauge(&[]),
            turn_seconds: names::TURN_SECONDS.histogram(&[]),
            events: EVENTS.map(|kind| names::EVENTS.counter(&[kind])),
            probes: KINDS.map(|kind| OUTCOMES.map(|outcome| names::PROBES.counter(&[kind, outcome]))),
            probe_seconds: KINDS.map(|kind| names::PROBE_SECONDS.histogram(&[kind])),
            lag_seconds: names::PROBE_LAG_SECONDS.histogram(&[]),
            in_flight: names::PROBES_IN_FLIGHT.gauge(&[]),
            targets: VERDICTS.map(|verdict| names::TARGETS.gauge(&[verdict.as_str()])),
            isolated: names::ISOLATED.gauge(&[]),
            intents: names::INTENTS.gauge(&[]),
            cells: cells(&first.topology),
            spills: spills(&first.topology),
            told: Arc::clone(first),
        };
        report.show(first);
        report
    }

    /// An event was taken into account.
    pub(super) fn event(&self, event: &Event) {
        let kind = match event {
            Event::Probed { .. } => 0,
            Event::Sampled { .. } => 1,
            Event::Tick => 2,
            Event::Reload(_) => 3,
            Event::Wish(_) => 4,
            Event::Revoke { .. } => 5,
            Event::Flush(_) => return,
        };
        self.events[kind].increment(1);
    }

    /// A probe is launched, so much later than it was due.
    pub(super) fn launched(&self, late: Duration) {
        self.lag_seconds.record(late);
    }

    /// So many probes are in the air.
    pub(super) fn in_flight(&self, probes: usize) {
        self.in_flight.set(probes as f64);
    }

    /// A probe has ended.
    pub(super) fn probed(&self, kind: Option<&ProbeKind>, outcome: Option<ProbeOutcome>, took: Duration) {
        let position = |words: &[&str], word: &str| words.iter().position(|w| *w == word);
        let Some(kind) = kind.and_then(|kind| position(&KINDS, kind_word(kind))) else { return };
        if let Some(outcome) = position(&OUTCOMES, outcome_word(outcome)) {
            self.probes[kind][outcome].increment(1);
        }
        if outcome == Some(ProbeOutcome::Ok) {
            self.probe_seconds[kind].record(took);
        }
    }

    /// A turn of the loop has ended.
    pub(super) fn turned(&self, wall: Wall, took: Duration) {
        self.published_at.set(wall.0 as f64 / 1_000.0);
        self.turn_seconds.record(took);
    }

    /// Tells what has changed since the last time.
    pub(super) fn moved(&mut self, new: &Arc<Snapshot>) {
        let changes = diff(&self.told, new);
        for change in changes.iter().take(LINES) {
            tell(change, new.generation);
        }
        for change in &changes {
            if let Change::Backend { service, from, to: BackendState::Ejected, reason: Some(reason), .. } = change
                && *from != BackendState::Ejected
            {
                names::EJECTIONS.counter(&[service, reason.as_str()]).increment(1);
            }
        }
        if let Some(more) = changes.len().checked_sub(LINES).filter(|&more| more > 0) {
            tracing::warn!(generation = new.generation, more, "and more changes than are worth a line each");
        }
        let serial = self.told.topology.serial;
        if serial != new.topology.serial {
            // A series can't be taken back; what has gone stands at zero.
            self.cells.iter().for_each(|cell| cell.show(&[0; STATES.len()], 0.0, 0.0, false));
            self.cells = cells(&new.topology);
            self.spills.iter().for_each(|(shed, load)| {
                shed.set(0.0);
                load.set(0.0);
            });
            self.spills = spills(&new.topology);
        }
        if !changes.is_empty() || serial != new.topology.serial || self.told.generation != new.generation {
            self.show(new);
        }
        for ((shed, load), spill) in self.spills.iter().zip(new.spill.iter()) {
            shed.set(f64::from(spill.shed) / 1_000.0);
            load.set(spill.rate_rps.unwrap_or(0.0));
        }
        self.told = Arc::clone(new);
    }

    fn show(&self, new: &Snapshot) {
        self.generation.set(new.generation as f64);
        self.isolated.set(f64::from(u8::from(new.isolated_since.is_some())));
        self.intents.set(new.intents.entries.len() as f64);
        for (gauge, verdict) in self.targets.iter().zip(VERDICTS) {
            gauge.set(new.targets.iter().filter(|target| target.verdict == verdict).count() as f64);
        }
        let width = new.topology.config.datacenters.len();
        let mut counts = vec![[0u32; STATES.len()]; self.cells.len()];
        for (backend, health) in new.topology.backends.iter().zip(new.backends.iter()) {
            let cell = counts.get_mut(backend.service.index() * width + backend.spec.datacenter.index());
            if let Some((cell, state)) = cell.zip(STATES.iter().position(|s| *s == health.state)) {
                cell[state] += 1;
            }
        }
        for ((cell, count), weight) in self.cells.iter().zip(&counts).zip(new.weights.iter()) {
            cell.show(count, weight.effective as f64 / 1_000.0, weight.health, weight.panic);
        }
    }
}

impl Cell {
    fn show(&self, states: &[u32; STATES.len()], weight: f64, health: f64, panic: bool) {
        self.states.iter().zip(states).for_each(|(gauge, &n)| gauge.set(f64::from(n)));
        self.weight.set(weight);
        self.health.set(health);
        self.panic.set(f64::from(u8::from(panic)));
    }
}

/// Gauges of what leaves each datacenter, and of its load; none where no capacity is configured.
fn spills(topology: &Topology) -> Vec<(Gauge, Gauge)> {
    let config = &topology.config;
    let wanted = config.datacenters.iter().any(|d| d.capacity_rps.is_some());
    let named = |d: &Datacenter| (names::SHED.gauge(&[&d.name]), names::LOAD.gauge(&[&d.name]));
    config.datacenters.iter().filter(|_| wanted).map(named).collect()
}

fn cells(topology: &Topology) -> Vec<Cell> {
    let dcs = &topology.config.datacenters;
    let pairs = topology.config.services.iter().flat_map(|s| dcs.iter().map(|dc| (s.name.as_str(), dc.name.as_str())));
    let cell = |(service, dc)| Cell {
        states: STATES.map(|state| names::BACKENDS.gauge(&[service, dc, state.as_str()])),
        weight: names::WEIGHT.gauge(&[service, dc]),
        health: names::HEALTH.gauge(&[service, dc]),
        panic: names::PANIC.gauge(&[service, dc]),
    };
    pairs.map(cell).collect()
}

/// One line of log: a sentence for people, fields for machines.
fn tell(change: &Change, generation: u64) {
    macro_rules! line {
        ($level:ident) => {
            match change {
                Change::Target { address, from, to, .. } => tracing::$level!(
                    change = change.kind(), %address, from = from.as_str(), to = to.as_str(), generation, "{change}"
                ),
                Change::Backend { service, datacenter, address, from, to, weight, reason } => tracing::$level!(
                    change = change.kind(), service, datacenter, %address, from = from.as_str(), to = to.as_str(),
                    weight = weight.1, reason = reason.map(|r| r.as_str()), generation, "{change}"
                ),
                Change::Datacenter { service, datacenter, from, to, effective, health, panic, .. } => tracing::$level!(
                    change = change.kind(), service, datacenter, from = from.as_str(), to = to.as_str(),
                    effective = effective.1, health, panic, generation, "{change}"
                ),
                Change::Intent { intent, in_force } => tracing::$level!(
                    change = change.kind(), subject = %intent.subject, wish = %intent.wish, by = intent.by, in_force,
                    generation, "{change}"
                ),
                Change::Steer { name, all_down } => {
                    tracing::$level!(change = change.kind(), name, all_down, generation, "{change}");
                }
                Change::Reloaded { .. } | Change::Isolation { .. } => {
                    tracing::$level!(change = change.kind(), generation, "{change}");
                }
            }
        };
    }
    match change.gravity() {
        Gravity::Step => line!(debug),
        Gravity::News => line!(info),
        Gravity::Bad => line!(warn),
    }
}

#[cfg(test)]
mod tests;
