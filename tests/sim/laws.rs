//! What must hold after every step, whatever happens; each law reckons for itself and asks no module of the health core.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use springtide::base::clock::{Mono, Wall};
use springtide::base::ids::{BackendId, DatacenterId, ServiceId};
use springtide::config::Probe;
use springtide::snapshot::Snapshot;
use springtide::snapshot::health::{BackendState, DcState, Verdict};
use springtide::snapshot::intent::{Intent, Subject, Wish};
use springtide::snapshot::views::Slot;

use crate::edges;

/// A law that was broken, in words.
pub(crate) type Broken = String;

/// What the laws remember.
#[derive(Default)]
pub(crate) struct Laws {
    /// What operators want, by our own books.
    pub(crate) intents: Vec<Intent>,
    /// Since when every probe of an address fails, and how long one of them takes at the most.
    pub(crate) dead: BTreeMap<SocketAddr, (Mono, Duration)>,
    /// When each datacenter last had anything that was not well.
    pub(crate) ill: Vec<Option<Mono>>,
    /// UP -> DOWN moves by target, and when the last one was.
    falls: BTreeMap<(SocketAddr, String), (u32, Mono)>,
    /// When a topology was last put in place.
    anew: Option<Mono>,
    digest: (u64, u64),
}

/// What one step did.
pub(crate) struct Step<'a> {
    /// The world before it.
    pub(crate) before: &'a Snapshot,
    /// And after it.
    pub(crate) after: &'a Snapshot,
    /// When.
    pub(crate) now: Mono,
    /// When, for people.
    pub(crate) wall: Wall,
    /// Whether it put another topology in place, by reload or restart.
    pub(crate) anew: bool,
}

impl Laws {
    /// Empty books.
    pub(crate) fn new(datacenters: usize) -> Self {
        Self { ill: vec![None; datacenters], ..Self::default() }
    }

    /// Checks everything.
    pub(crate) fn check(&mut self, step: &Step<'_>) -> Result<(), Broken> {
        self.one_generation_for_both_edges(step)?;
        self.verdicts_keep_their_pace(step)?;
        self.a_single_datacenter_is_no_isolation(step)?;
        self.detection_is_bounded(step)?;
        let (before, after) = (step.before, step.after);
        let same = Arc::ptr_eq(&before.backends, &after.backends)
            && Arc::ptr_eq(&before.weights, &after.weights)
            && Arc::ptr_eq(&before.steers, &after.steers);
        if same && !step.anew && before.intents == after.intents {
            return Ok(());
        }
        weights_are_whole(after)?;
        never_an_empty_answer(after)?;
        factors_keep_their_pace(step)?;
        self.operators_are_obeyed(after, step.wall)
    }

    fn one_generation_for_both_edges(&mut self, step: &Step<'_>) -> Result<(), Broken> {
        let (before, after) = (step.before, step.after);
        let moved = after.generation - before.generation.min(after.generation);
        law(after.generation >= before.generation && moved <= 1, || {
            format!("generation {} after {}", after.generation, before.generation)
        })?;
        let digest = if self.digest.0 == after.generation
            && Arc::ptr_eq(&before.backends, &after.backends)
            && Arc::ptr_eq(&before.weights, &after.weights)
            && Arc::ptr_eq(&before.steers, &after.steers)
        {
            self.digest.1
        } else {
            edges::digest(after)
        };
        law(self.digest.0 != after.generation || self.digest.1 == digest, || {
            format!("the edges would act otherwise, but the generation is still {}", after.generation)
        })?;
        self.digest = (after.generation, digest);
        for slot in [Slot::Dns, Slot::Proxy] {
            let seen = after.views.of(slot, || after.generation).map(|g| *g);
            law(seen == Some(after.generation), || format!("{slot:?} still acts on generation {seen:?}"))?;
        }
        Ok(())
    }

    /// A target returns no sooner than `rise` probes doubled for every fall but the first allow.
    fn verdicts_keep_their_pace(&mut self, step: &Step<'_>) -> Result<(), Broken> {
        let (before, after) = (step.before, step.after);
        let topology = &after.topology;
        let key = |i: usize| (topology.targets[i].address, format!("{:?}", topology.targets[i].probe));
        if step.anew {
            self.anew = Some(step.now);
            let left: Vec<_> = (0..topology.targets.len()).map(key).collect();
            self.falls.retain(|k, _| left.contains(k));
            for (i, health) in after.targets.iter().enumerate() {
                if health.verdict == Verdict::Unknown {
                    self.falls.remove(&key(i));
                }
            }
            return Ok(());
        }
        if Arc::ptr_eq(&before.targets, &after.targets) {
            return Ok(());
        }
        let undone = before.isolated_since.is_none() && after.isolated_since.is_some();
        for (i, (was, is)) in before.targets.iter().zip(after.targets.iter()).enumerate() {
            match (was.verdict, is.verdict) {
                (Verdict::Up, Verdict::Down) => {
                    let fall = self.falls.entry(key(i)).or_default();
                    *fall = (fall.0 + 1, step.now);
                }
                (Verdict::Unknown, Verdict::Down) => {
                    self.falls.entry(key(i)).or_default().1 = step.now;
                }
                (Verdict::Down, Verdict::Up | Verdict::Unknown) if undone => {
                    if let (Some(fall), Verdict::Up) = (self.falls.get_mut(&key(i)), is.verdict) {
                        fall.0 = fall.0.saturating_sub(1);
                    }
                }
                (Verdict::Down, Verdict::Up) => {
                    let (falls, at) = self.falls.get(&key(i)).copied().unwrap_or_default();
                    let probe = &topology.targets[i].probe;
                    let need = probe.rise << falls.saturating_sub(1).min(4);
                    // The first two probes of a process come quicker than that, to know soon and to spread.
                    let quick = u32::from(self.anew.is_some_and(|anew| anew >= at));
                    let least = probe.interval.mul_f64(0.9) * (need - 1).saturating_sub(quick);
                    law(step.now.since(at) >= least, || {
                        format!(
                            "{} is up {:?} after its fall number {falls}",
                            topology.targets[i].address,
                            step.now.since(at)
                        )
                    })?;
                }
                (Verdict::Unknown, Verdict::Up) => {}
                (was, is) => law(was == is, || format!("{was:?} became {is:?}"))?,
            }
        }
        Ok(())
    }

    fn a_single_datacenter_is_no_isolation(&self, step: &Step<'_>) -> Result<(), Broken> {
        if step.before.isolated_since.is_some() || step.after.isolated_since.is_none() {
            return Ok(());
        }
        let recent = Duration::from_secs(20);
        let ill = self.ill.iter().filter(|at| at.is_some_and(|at| step.now.since(at) < recent)).count();
        law(ill >= 2, || format!("this node distrusts itself over {ill} datacenter"))
    }

    /// Refused or silent, from the fault to the moment when nobody picks it: 1.1 x interval, `fall` failures, and 100 ms
    /// between them. By default 1.2 s and 2.2 s.
    fn detection_is_bounded(&self, step: &Step<'_>) -> Result<(), Broken> {
        if self.dead.is_empty() || step.after.isolated_since.is_some() {
            return Ok(());
        }
        for (i, backend) in step.after.topology.backends.iter().enumerate() {
            let Some(&(since, one)) = self.dead.get(&backend.spec.address) else { continue };
            let Some(target) = backend.target else { continue };
            let probe = &step.after.topology.targets[target.index()].probe;
            let state = step.after.backends[i].state;
            law(step.now.since(since) <= bound(probe, one) || !state.usable(), || {
                format!("{} is {} {:?} after it died", backend.spec.address, state.as_str(), step.now.since(since))
            })?;
        }
        Ok(())
    }

    fn operators_are_obeyed(&self, after: &Snapshot, wall: Wall) -> Result<(), Broken> {
        for (i, backend) in after.topology.backends.iter().enumerate() {
            let taken = self.taken(after, BackendId::new(i), wall);
            let health = &after.backends[i];
            let obeyed = match taken {
                Some(Wish::Down) => health.state == BackendState::AdminDown && health.weight == 0,
                // What has just ended is in force until the next tick.
                Some(_) => {
                    matches!(health.state, BackendState::Drained | BackendState::AdminDown) && health.weight == 0
                }
                None => true,
            };
            law(obeyed, || format!("{} is {} against {taken:?}", backend.spec.address, health.state.as_str()))?;
        }
        let config = &after.topology.config;
        for (d, dc) in config.datacenters.iter().enumerate() {
            let wishes = |down| self.wants(wall, down, |s| *s == Subject::Datacenter(dc.name.clone()));
            let (down, drain) = (wishes(true), wishes(false));
            let is_right = |state: DcState| match (down, drain) {
                (true, _) => matches!(state, DcState::AdminDown | DcState::Absent),
                (false, true) => matches!(state, DcState::AdminDown | DcState::Drained | DcState::Absent),
                (false, false) => true,
            };
            for service in after.topology.service_ids() {
                let weight = after.weight(service, DatacenterId::new(d));
                law(is_right(weight.state) && (!(down || drain) || weight.effective == 0), || {
                    format!("{} is {} against an operator", dc.name, weight.state.as_str())
                })?;
            }
            for (steer, health) in config.dns.iter().flat_map(|dns| &dns.steers).zip(after.steers.iter()) {
                let served = edges::answerable(health, &steer.datacenters);
                let at = steer.datacenters.iter().position(|(id, _)| id.index() == d);
                let is_served = served.iter().any(|(i, _)| Some(*i) == at);
                law(!(down && is_served), || format!("{} is answered with {}, which is down", steer.name, dc.name))?;
                law(!(drain && is_served && !health.all_down), || {
                    format!("{} answers with drained {}", steer.name, dc.name)
                })?;
            }
        }
        Ok(())
    }

    /// How operators take a backend out by our books, the harder way first.
    pub(crate) fn taken(&self, snapshot: &Snapshot, id: BackendId, wall: Wall) -> Option<Wish> {
        let backend = snapshot.topology.backend(id);
        let service = &snapshot.topology.service(backend.service).name;
        let datacenter = &snapshot.topology.config.datacenters[backend.spec.datacenter.index()].name;
        let concerns = |subject: &Subject| match subject {
            Subject::Datacenter(d) => d == datacenter,
            Subject::Service { service: s, datacenter: d } => s == service && d == datacenter,
            Subject::Backend { address, service: s } => {
                *address == backend.spec.address.to_string() && s.as_ref().is_none_or(|s| s == service)
            }
        };
        if self.wants(wall, true, concerns) {
            Some(Wish::Down)
        } else {
            self.wants(wall, false, concerns).then_some(Wish::Drain)
        }
    }

    fn wants(&self, wall: Wall, down: bool, concerns: impl Fn(&Subject) -> bool) -> bool {
        let wish = if down { Wish::Down } else { Wish::Drain };
        self.intents.iter().any(|i| i.wish == wish && i.until.is_none_or(|until| wall < until) && concerns(&i.subject))
    }
}

/// The longest time from a fault to its verdict.
pub(crate) fn bound(probe: &Probe, one: Duration) -> Duration {
    let again = Duration::from_millis(100).min(probe.interval);
    probe.interval * 11 / 10 + one * probe.fall + again * (probe.fall - 1)
}

fn weights_are_whole(after: &Snapshot) -> Result<(), Broken> {
    for service in after.topology.service_ids() {
        for dc in after.topology.datacenter_ids() {
            let w = after.weight(service, dc);
            law((0.0..=1.0).contains(&w.health) && w.factor <= 1_000, || format!("{w:?}"))?;
            law(w.effective == 0 || matches!(w.state, DcState::Serving | DcState::Returning), || format!("{w:?}"))?;
            law(w.health >= 0.5 || w.effective == 0, || format!("below the mark and served: {w:?}"))?;
        }
        for local in after.topology.datacenter_ids().map(Some).chain([None]) {
            let sum = edges::parts(after, service, local);
            law(sum == 0.0 || (sum - 1.0).abs() < 1e-9, || format!("parts of {service:?} sum to {sum}"))?;
        }
    }
    for backend in after.backends.iter() {
        law(backend.state.usable() || backend.weight == 0, || format!("{backend:?}"))?;
    }
    Ok(())
}

fn never_an_empty_answer(after: &Snapshot) -> Result<(), Broken> {
    let steers = after.topology.config.dns.iter().flat_map(|dns| &dns.steers);
    for (i, (steer, health)) in steers.zip(after.steers.iter()).enumerate() {
        let served = edges::answerable(health, &steer.datacenters);
        let forbidden = health.candidates.iter().all(|c| c.state == DcState::AdminDown);
        law(forbidden || !served.is_empty(), || format!("{} has no answer: {:?}", steer.name, health.candidates))?;
        for answer in edges::answers(after, i) {
            law(forbidden || !answer.is_empty(), || format!("{} is answered with nothing", steer.name))?;
            let stray = answer.iter().find(|&&place| served.iter().all(|(i, _)| *i != place));
            law(stray.is_none(), || format!("{} is answered with {stray:?}: {health:?}", steer.name))?;
        }
        let total: f64 = served.iter().map(|(_, w)| w).sum();
        let sum: f64 = served.iter().map(|(_, w)| w / total).sum();
        law(forbidden || (sum - 1.0).abs() < 1e-9, || format!("{}: shares sum to {sum}", steer.name))?;
        law((5..=20).contains(&health.ttl), || format!("{}: TTL {}", steer.name, health.ttl))?;
    }
    Ok(())
}

/// Down at once, up by steps of the ramp; back from failure at 10 % after three ticks.
fn factors_keep_their_pace(step: &Step<'_>) -> Result<(), Broken> {
    let undone = step.before.isolated_since.is_none() && step.after.isolated_since.is_some();
    if step.anew || undone {
        return Ok(());
    }
    let ramp = step.after.topology.config.health.ramp;
    for (was, is) in step.before.weights.iter().zip(step.after.weights.iter()) {
        let steps = (step.now.since(step.before.at).as_secs_f64() / (ramp.as_secs_f64() / 18.0)).floor() as u32 + 1;
        let begins = is.state == DcState::Returning && was.state != DcState::Returning && is.factor <= 100;
        law(begins || is.factor <= was.factor + 50 * steps, || format!("from {was:?} to {is:?} at once"))?;
        let returns = was.state == DcState::Failed && matches!(is.state, DcState::Serving | DcState::Returning);
        law(!returns || step.now.since(was.since) >= Duration::from_millis(400), || {
            format!("{was:?} is back too soon")
        })?;
    }
    Ok(())
}

/// Whether `service` has anybody whom no operator took down.
pub(crate) fn has_anybody(laws: &Laws, snapshot: &Snapshot, service: ServiceId, wall: Wall) -> bool {
    snapshot.topology.members_anywhere(service).any(|id| laws.taken(snapshot, id, wall) != Some(Wish::Down))
}

fn law(holds: bool, broken: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(broken()) }
}
