//! The engine: one thing after the other on a clock of its own, and what the world looks like after each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use springtide::base::clock::{Mono, Wall};
use springtide::base::entropy::Rng;
use springtide::base::ids::{BackendId, DatacenterId, TargetId};
use springtide::config::Config;
use springtide::control::event::Event;
use springtide::control::memory::Memory;
use springtide::control::probe::schedule::Schedule;
use springtide::control::step::{first, step};
use springtide::snapshot::health::{BackendState, DcState, EjectReason, ProbeOutcome};
use springtide::snapshot::intent::{Intent, Wish};
use springtide::snapshot::topology::Assets;
use springtide::snapshot::{Published, Snapshot, Topology};

use crate::configs;
use crate::edges::Edge;
use crate::laws::{self, Broken, Laws, Step};
use crate::nodes::Truth;
use crate::script::{self, Act};

const TICK: Duration = Duration::from_millis(200);
const SAMPLE: Duration = Duration::from_millis(100);
const START: Mono = Mono::from_millis(1_000);
/// Longest ejection with its jitter, most damped return, ramps: then everything is as if nothing had ever been.
const RECOVERY: Duration = Duration::from_secs(360 + 80);

/// How often things happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    steps: u64,
    requests: u64,
    verdicts: u64,
    ejections: BTreeMap<&'static str, u64>,
    failed: u64,
    returned: u64,
    all_down: u64,
    isolated: u64,
    admin_down: u64,
    reloads: u64,
    restarts: u64,
}

impl Tally {
    /// Adds another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (a, b) in [
            (&mut self.steps, other.steps),
            (&mut self.requests, other.requests),
            (&mut self.verdicts, other.verdicts),
            (&mut self.failed, other.failed),
            (&mut self.returned, other.returned),
            (&mut self.all_down, other.all_down),
            (&mut self.isolated, other.isolated),
            (&mut self.admin_down, other.admin_down),
            (&mut self.reloads, other.reloads),
            (&mut self.restarts, other.restarts),
        ] {
            *a += b;
        }
        for (reason, n) in &other.ejections {
            *self.ejections.entry(reason).or_default() += n;
        }
    }

    /// Whether everything that the laws speak of has happened.
    pub(crate) fn is_eventful(&self) -> bool {
        self.ejections.len() == 4
            && [self.verdicts, self.failed, self.returned, self.all_down, self.isolated, self.admin_down]
                .into_iter()
                .chain([self.reloads, self.restarts, self.requests])
                .all(|n| n > 0)
    }
}

/// A probe in the air: when it lands, of whom, under which topology, and what it will say.
type Flight = (Mono, TargetId, u64, usize);

/// The world.
pub(crate) struct World {
    rng: Rng,
    now: Mono,
    config: Config,
    published: Published,
    snapshot: Arc<Snapshot>,
    schedule: Schedule,
    flights: BinaryHeap<Reverse<Flight>>,
    answers: Vec<(ProbeOutcome, Duration)>,
    truths: BTreeMap<SocketAddr, Truth>,
    cut: bool,
    script: VecDeque<(Mono, Act)>,
    next_tick: Mono,
    next_sample: Mono,
    edge: Edge,
    requests: u64,
    laws: Laws,
    story: Vec<String>,
    /// What happened how often.
    pub(crate) tally: Tally,
}

impl World {
    /// A world and its script, from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let config = configs::random(&mut rng);
        let script = script::random(&config, START, &mut rng).into();
        let topology = Topology::build(Arc::new(config.clone()), Assets::default(), None);
        let snapshot = first(topology, None, START, wall(START));
        let published = Published::new(snapshot);
        let local = rng.chance(0.8).then(|| DatacenterId::new(rng.below(config.datacenters.len() as u64) as usize));
        let mut world = Self {
            now: START,
            snapshot: published.full(),
            published,
            schedule: Schedule::default(),
            flights: BinaryHeap::new(),
            answers: Vec::new(),
            truths: BTreeMap::new(),
            cut: false,
            script,
            next_tick: START + TICK,
            next_sample: START + SAMPLE,
            edge: Edge::new(local, rng.next_u64()),
            requests: [0, 1, 6][rng.below(3) as usize],
            laws: Laws::new(config.datacenters.len()),
            story: Vec::new(),
            tally: Tally::default(),
            config,
            rng,
        };
        world.schedule.rebuild(world.snapshot.topology.serial, &world.snapshot.targets);
        world.tell(&format!("{} datacenters, {:?} requests", world.config.datacenters.len(), world.requests));
        world
    }

    /// Plays the script, then heals everything and waits until the world is whole again.
    pub(crate) fn play(&mut self) -> Result<(), Broken> {
        let end = START + script::LENGTH;
        while self.now < end {
            self.advance(end)?;
        }
        self.heal()?;
        let end = self.now + RECOVERY;
        while self.now < end && !self.is_whole() {
            self.advance(end)?;
        }
        if self.is_whole() {
            Ok(())
        } else {
            Err(format!("not whole again {RECOVERY:?} after all trouble: {}", self.wounds()))
        }
    }

    /// Moves the clock to whatever happens next, and lets it happen.
    fn advance(&mut self, end: Mono) -> Result<(), Broken> {
        while let Some(target) = self.schedule.take(self.now) {
            self.launch(target);
        }
        let next = [
            self.schedule.next(),
            self.flights.peek().map(|Reverse((at, ..))| *at),
            self.script.front().map(|(at, _)| *at),
            Some(self.next_tick.min(self.next_sample).min(end)),
        ];
        self.now = next.into_iter().flatten().min().unwrap_or(end).max(self.now);
        while let Some(&Reverse((at, target, serial, answer))) = self.flights.peek()
            && at <= self.now
        {
            self.flights.pop();
            let (outcome, took) = self.answers[answer];
            let before = Arc::clone(&self.snapshot);
            let event = Event::Probed { target, outcome, took, serial };
            let next = step(&before, event, self.now, self.wall());
            // It lands before the queue follows: its own new due time must not look like a hint from elsewhere.
            self.schedule.landed(serial, target, next.targets.get(target.index()).map(|t| t.due), self.now);
            self.published.publish(next);
            self.settle(&before, false)?;
        }
        while let Some((at, _)) = self.script.front()
            && *at <= self.now
        {
            if let Some((_, act)) = self.script.pop_front() {
                self.act(act)?;
            }
        }
        if self.next_sample <= self.now {
            self.next_sample = self.now + SAMPLE;
            self.traffic()?;
        }
        if self.next_tick <= self.now {
            self.next_tick = self.now + TICK;
            self.apply(Event::Tick)?;
        }
        Ok(())
    }

    fn launch(&mut self, target: TargetId) {
        let what = &self.snapshot.topology.targets[target.index()];
        let (outcome, took) = self.truth(what.address).probed(&what.probe, &mut self.rng);
        self.answers.push((outcome, took));
        let serial = self.snapshot.topology.serial;
        self.flights.push(Reverse((self.now + took, target, serial, self.answers.len() - 1)));
    }

    fn truth(&self, address: SocketAddr) -> Truth {
        if self.cut { Truth::Silent } else { self.truths.get(&address).copied().unwrap_or_default() }
    }

    fn traffic(&mut self) -> Result<(), Broken> {
        let snapshot = Arc::clone(&self.snapshot);
        for service in snapshot.topology.service_ids() {
            for _ in 0..self.requests {
                self.tally.requests += 1;
                let (cut, truths) = (self.cut, &self.truths);
                let truth = |id: BackendId| {
                    let address = snapshot.topology.backend(id).spec.address;
                    if cut { Truth::Silent } else { truths.get(&address).copied().unwrap_or_default() }
                };
                match self.edge.send(&snapshot, service, self.now, truth) {
                    Ok(asked) => {
                        for id in asked {
                            // What ends between two ticks is still in force until the second.
                            if self.laws.taken(&snapshot, id, self.wall()) == Some(Wish::Down) {
                                return Err(format!(
                                    "a request to {:?}, which an operator took down",
                                    snapshot.topology.backend(id).spec
                                ));
                            }
                        }
                    }
                    Err(none) => {
                        if laws::has_anybody(&self.laws, &snapshot, service, Wall(self.wall().0 - 200)) {
                            return Err(format!("a request to {service:?} went nowhere: {}", none.as_str()));
                        }
                    }
                }
            }
        }
        let backends = snapshot.topology.backends.iter().enumerate();
        let samples: Vec<_> = backends
            .map(|(i, b)| (BackendId::new(i), b.load.take()))
            .filter(|(_, sample)| sample.total() > 0)
            .collect();
        if samples.is_empty() {
            Ok(())
        } else {
            self.apply(Event::Sampled { samples, serial: snapshot.topology.serial })
        }
    }

    fn act(&mut self, act: Act) -> Result<(), Broken> {
        self.tell(&format!("** {act:?}"));
        match act {
            Act::Node(address, truth) => self.set(address, truth),
            Act::Datacenter(dc, truth) => {
                let all = self.snapshot.topology.backends.iter();
                let there: Vec<_> = all.filter(|b| b.spec.datacenter.index() == dc).map(|b| b.spec.address).collect();
                for address in there {
                    self.set(address, truth);
                }
            }
            Act::Cut(cut) => {
                self.cut = cut;
                self.reckon();
            }
            Act::Wish(subject, wish, lasts) => {
                let until = lasts.map(|l| self.wall() + l);
                let intent =
                    Intent { subject, wish, since: self.wall(), until, by: "sim".into(), reason: String::new() };
                let is_weight = |w: Wish| matches!(w, Wish::Weight(_));
                self.laws.intents.retain(|i| i.subject != intent.subject || is_weight(i.wish) != is_weight(wish));
                self.laws.intents.push(intent.clone());
                return self.apply(Event::Wish(intent));
            }
            Act::Revoke(subject) => {
                self.laws.intents.retain(|i| i.subject != subject);
                return self.apply(Event::Revoke { subject, by: "sim".into() });
            }
            Act::Reload => {
                self.tally.reloads += 1;
                self.config = configs::reloaded(&self.config, &mut self.rng);
                let topology =
                    Topology::build(Arc::new(self.config.clone()), Assets::default(), Some(&self.snapshot.topology));
                return self.apply(Event::Reload(Box::new(topology)));
            }
            Act::Restart { remembers } => return self.restart(remembers),
        }
        Ok(())
    }

    fn set(&mut self, address: SocketAddr, truth: Truth) {
        self.truths.insert(address, truth);
        self.reckon();
    }

    /// Brings the books of the laws up to date with the truth.
    fn reckon(&mut self) {
        let topology = Arc::clone(&self.snapshot.topology);
        for backend in &topology.backends {
            let address = backend.spec.address;
            let truth = self.truth(address);
            if truth != Truth::Well {
                self.laws.ill[backend.spec.datacenter.index()] = Some(self.now);
            }
            let Some(target) = backend.target else { continue };
            match truth.dead_for_probes(&topology.targets[target.index()].probe) {
                Some(one) => {
                    let dead = self.laws.dead.entry(address).or_insert((self.now, one));
                    dead.1 = dead.1.max(one);
                }
                None => {
                    self.laws.dead.remove(&address);
                }
            }
        }
    }

    fn restart(&mut self, remembers: bool) -> Result<(), Broken> {
        self.tally.restarts += 1;
        let memory = Memory::of(&self.snapshot, self.now, self.wall());
        let text = serde_json::to_string(&memory).unwrap();
        let memory: Option<Memory> = remembers.then(|| serde_json::from_str(&text).unwrap());
        let topology = Topology::build(Arc::new(self.config.clone()), Assets::default(), None);
        let mut next = first(topology, memory.as_ref(), self.now, self.wall());
        if !remembers {
            // Who forgets begins at 1, and operators say again what they want; here only the count goes on.
            next.generation = self.snapshot.generation + 1;
            self.laws.intents.clear();
        }
        self.flights.clear();
        let before = Arc::clone(&self.snapshot);
        self.published.publish(next);
        self.settle(&before, true)
    }

    fn apply(&mut self, event: Event) -> Result<(), Broken> {
        let anew = matches!(event, Event::Reload(_));
        let before = Arc::clone(&self.snapshot);
        self.published.publish(step(&before, event, self.now, self.wall()));
        self.settle(&before, anew)
    }

    fn settle(&mut self, before: &Arc<Snapshot>, anew: bool) -> Result<(), Broken> {
        self.tally.steps += 1;
        self.snapshot = self.published.full();
        let after = Arc::clone(&self.snapshot);
        if anew {
            self.schedule.rebuild(after.topology.serial, &after.targets);
        } else if !Arc::ptr_eq(&before.targets, &after.targets) {
            for (i, target) in after.targets.iter().enumerate() {
                self.schedule.follow(TargetId::new(i), target.due);
            }
        }
        // Who is judged anew is dead as of now.
        let thawed = before.isolated_since.is_some() && after.isolated_since.is_none();
        if anew || thawed {
            self.reckon();
            let addresses: Vec<_> = after.topology.backends.iter().map(|b| b.spec.address).collect();
            self.laws.dead.retain(|address, dead| {
                dead.0 = dead.0.max(self.now);
                addresses.contains(address)
            });
        }
        self.narrate(before, &after);
        if self.truths.values().any(|t| *t != Truth::Well) || self.cut {
            self.note_illness();
        }
        let step = Step { before, after: &after, now: self.now, wall: self.wall(), anew };
        self.laws.check(&step)
    }

    fn note_illness(&mut self) {
        let topology = Arc::clone(&self.snapshot.topology);
        for backend in &topology.backends {
            if self.truth(backend.spec.address) != Truth::Well {
                self.laws.ill[backend.spec.datacenter.index()] = Some(self.now);
            }
        }
    }

    fn heal(&mut self) -> Result<(), Broken> {
        self.tell("** all is well again");
        self.script.clear();
        (self.cut, self.requests) = (false, self.requests.min(1));
        // A trial ends with a request: let them come from nowhere, and so go everywhere.
        self.edge.local = None;
        self.truths.clear();
        self.reckon();
        while let Some(intent) = self.laws.intents.pop() {
            self.laws.intents.retain(|i| i.subject != intent.subject);
            self.apply(Event::Revoke { subject: intent.subject, by: "sim".into() })?;
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        let s = &self.snapshot;
        let full = |(b, spec): (&springtide::snapshot::BackendHealth, u32)| b.weight == spec * 1_000;
        s.isolated_since.is_none()
            && s.intents.entries.is_empty()
            && s.backends.iter().zip(s.topology.backends.iter().map(|b| b.spec.weight)).all(full)
            && s.backends.iter().all(|b| matches!(b.state, BackendState::Healthy | BackendState::Unknown))
            && s.weights
                .iter()
                .all(|w| w.state == DcState::Absent || (w.state == DcState::Serving && w.factor == 1_000))
            && s.steers.iter().all(|steer| !steer.all_down && steer.ttl == 20)
    }

    fn wounds(&self) -> String {
        let s = &self.snapshot;
        let backends: Vec<_> = s
            .topology
            .backends
            .iter()
            .zip(s.backends.iter())
            .map(|(b, h)| (b.spec.address, h.state.as_str(), h.weight))
            .collect();
        format!("isolated {:?}, {backends:?}, {:?}, {:?}, {:?}", s.isolated_since, s.weights, s.steers, s.targets)
    }

    fn wall(&self) -> Wall {
        wall(self.now)
    }

    fn tell(&mut self, line: &str) {
        let ms = self.now.since(START).as_millis();
        self.story.push(format!("{:>4}.{:03} {line}", ms / 1_000, ms % 1_000));
    }

    fn narrate(&mut self, before: &Snapshot, after: &Snapshot) {
        if before.topology.serial != after.topology.serial || before.backends.len() != after.backends.len() {
            self.tell(&format!("generation {}: another topology, serial {}", after.generation, after.topology.serial));
            return;
        }
        if before.generation == after.generation && Arc::ptr_eq(&before.backends, &after.backends) {
            return;
        }
        let mut lines = Vec::new();
        for (i, (was, is)) in before.targets.iter().zip(after.targets.iter()).enumerate() {
            if was.verdict != is.verdict {
                self.tally.verdicts += 1;
                lines.push(format!("probes: {} is {:?}", after.topology.targets[i].address, is.verdict));
            }
        }
        for (i, (was, is)) in before.backends.iter().zip(after.backends.iter()).enumerate() {
            if was.state != is.state {
                let backend = &after.topology.backends[i];
                let service = &after.topology.service(backend.service).name;
                let mut line = format!("{service} {} is {}", backend.spec.address, is.state.as_str());
                if let (BackendState::Ejected, Some((reason, until))) = (is.state, is.ejected) {
                    *self.tally.ejections.entry(word(reason)).or_default() += 1;
                    let _ = write!(line, " for {:?}: {reason:?}", until.since(self.now));
                }
                self.tally.admin_down += u64::from(is.state == BackendState::AdminDown);
                lines.push(line);
            }
        }
        let names: Vec<(String, String)> = after
            .topology
            .config
            .services
            .iter()
            .flat_map(|s| after.topology.config.datacenters.iter().map(|d| (s.name.clone(), d.name.clone())))
            .collect();
        for (i, (was, is)) in before.weights.iter().zip(after.weights.iter()).enumerate() {
            if (was.state, was.factor) != (is.state, is.factor) {
                self.tally.failed += u64::from(was.state != is.state && is.state == DcState::Failed);
                self.tally.returned += u64::from(was.state != is.state && is.state == DcState::Returning);
                lines.push(format!("{}@{}: {} {}", names[i].0, names[i].1, is.state.as_str(), is.factor));
            }
        }
        for (was, is) in before.steers.iter().zip(after.steers.iter()) {
            if was.all_down != is.all_down {
                self.tally.all_down += u64::from(is.all_down);
                lines.push(format!("all down: {}", is.all_down));
            }
        }
        if before.isolated_since != after.isolated_since {
            self.tally.isolated += u64::from(after.isolated_since.is_some());
            lines.push(format!("isolated: {}", after.isolated_since.is_some()));
        }
        for line in lines {
            self.tell(&format!("generation {}: {line}", after.generation));
        }
    }

    /// Everything that happened, a line each.
    pub(crate) fn story(&self) -> String {
        self.story.join("\n")
    }

    /// The last of it.
    pub(crate) fn story_tail(&self, lines: usize) -> String {
        self.story[self.story.len().saturating_sub(lines)..].join("\n")
    }
}

const fn word(reason: EjectReason) -> &'static str {
    match reason {
        EjectReason::ConsecutiveFailures => "failures",
        EjectReason::ConsecutiveErrors => "errors",
        EjectReason::SuccessRate => "rate",
        EjectReason::SuccessBelowPeers => "outlier",
        EjectReason::SlowerThanPeers => "slow",
    }
}

fn wall(now: Mono) -> Wall {
    Wall(1_700_000_000_000 + now.nanos() / 1_000_000)
}
