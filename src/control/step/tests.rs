//! Whole small worlds, moved by events.

use std::net::SocketAddr;

use super::*;
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::{
    BackendSpec, Class, Config, Datacenter, Dns, OnAllDown, Passive, Policy, Probe, Protocol, Retry, Service, Steer,
};
use crate::snapshot::health::ProbeFailure;
use crate::snapshot::intent::{Intent, Subject, Wish};
use crate::snapshot::topology::Assets;

pub(in crate::control) const MS: Duration = Duration::from_millis(1);
pub(in crate::control) const REFUSED: ProbeOutcome = ProbeOutcome::Failed(ProbeFailure::Refused);

/// `dcs` datacenters of weight 10, one service with `each` backends in each of them, one steered name.
pub(in crate::control) fn config(dcs: usize, each: usize) -> Config {
    let backends = (0..dcs).flat_map(|dc| {
        (0..each).map(move |n| BackendSpec {
            datacenter: DatacenterId::new(dc),
            address: SocketAddr::from(([10, 0, dc as u8, n as u8 + 1], 80)),
            weight: 1,
        })
    });
    let service = Service {
        name: "gifts".into(),
        class: Class::Critical,
        balance: crate::config::Balance::default(),
        probe: Some(Probe::reference()),
        passive: Passive::default(),
        deadline: 500 * MS,
        retry: Retry::default(),
        slow_start: 10_000 * MS,
        panic_below: 0.5,
        homing: crate::config::Homing::default(),
        limits: crate::config::Limits::default(),
        session: None,
        protocol: Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends: backends.collect(),
    };
    let steer = Steer {
        name: "www.test.".into(),
        services: vec![ServiceId::new(0)],
        policy: vec![Policy::Weighted],
        datacenters: (0..dcs).map(|dc| (DatacenterId::new(dc), 10)).collect(),
        answers: 2,
        ttl_base: 20_000 * MS,
        ttl_min: 5_000 * MS,
        on_all_down: OnAllDown::ServeAll,
        ..Steer::default()
    };
    let datacenter = |dc: usize| Datacenter {
        name: format!("dc{dc}"),
        weight: 10,
        addresses: Vec::new(),
        near: Vec::new(),
        capacity_rps: None,
    };
    Config {
        datacenters: (0..dcs).map(datacenter).collect(),
        services: vec![service],
        dns: Some(Dns { steers: vec![steer], ..Dns::default() }),
        ..Config::default()
    }
}

pub(in crate::control) fn topology(config: Config) -> Topology {
    Topology::build(Arc::new(config), Assets::default(), None)
}

pub(in crate::control) struct World {
    pub(in crate::control) now: Mono,
    pub(in crate::control) snapshot: Snapshot,
}

impl World {
    pub(in crate::control) fn new(config: Config) -> Self {
        let now = Mono::from_millis(100_000);
        Self { now, snapshot: first(topology(config), None, now, wall(now)) }
    }

    /// A world in which every target has been found up.
    pub(in crate::control) fn up(config: Config) -> Self {
        let mut world = Self::new(config);
        for target in 0..world.snapshot.targets.len() {
            world.probe(target, ProbeOutcome::Ok);
        }
        world
    }

    pub(in crate::control) fn event(&mut self, event: Event) {
        self.snapshot = step(&self.snapshot, event, self.now, wall(self.now));
    }

    pub(in crate::control) fn probe(&mut self, target: usize, outcome: ProbeOutcome) {
        let serial = self.snapshot.topology.serial;
        self.event(Event::Probed { target: TargetId::new(target), outcome, took: MS, serial });
    }

    pub(in crate::control) fn sample(&mut self, backend: usize, sample: Sample) {
        let serial = self.snapshot.topology.serial;
        self.event(Event::Sampled { samples: vec![(BackendId::new(backend), sample)], serial });
    }

    pub(in crate::control) fn wish(&mut self, subject: Subject, wish: Wish, until: Option<Wall>) {
        let since = wall(self.now);
        self.event(Event::Wish(Intent { subject, wish, since, until, by: "test".into(), reason: String::new() }));
    }

    /// Lets time pass, a tick every 200 ms.
    pub(in crate::control) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 200 {
            self.now = self.now + 200 * MS;
            self.event(Event::Tick);
        }
    }

    pub(in crate::control) fn state(&self, backend: usize) -> BackendState {
        self.snapshot.backends[backend].state
    }

    pub(in crate::control) fn dc(&self, dc: usize) -> &DcWeight {
        self.snapshot.weight(ServiceId::new(0), DatacenterId::new(dc))
    }
}

pub(in crate::control) fn wall(now: Mono) -> Wall {
    Wall(1_700_000_000_000 + now.nanos() / 1_000_000)
}

#[test]
fn a_fresh_node_serves_everything_before_it_knows_anything() {
    let world = World::new(config(3, 2));
    let steer = &world.snapshot.steers[0];
    assert!(!steer.all_down && steer.candidates.iter().all(|c| c.effective == 10_000));
    assert_eq!(steer.ttl, 5, "what is not known yet may change soon");
    assert!((0..6).all(|b| world.state(b) == BackendState::Unknown && world.snapshot.backends[b].weight == 1_000));
}

#[test]
fn another_good_probe_moves_no_generation_and_shares_the_views() {
    let mut world = World::up(config(3, 2));
    let before = world.snapshot.clone();
    world.now = world.now + 1_000 * MS;
    world.probe(0, ProbeOutcome::Ok);
    assert_eq!(world.snapshot.generation, before.generation);
    assert!(Arc::ptr_eq(&world.snapshot.views, &before.views) && Arc::ptr_eq(&world.snapshot.steers, &before.steers));
    assert_eq!(world.snapshot.targets[0].round, 2, "the evidence is taken in all the same");
}

#[test]
fn a_dead_datacenter_leaves_both_edges_in_one_generation_and_comes_back_by_a_ramp() {
    let mut world = World::up(config(3, 2));
    assert_eq!(world.snapshot.steers[0].ttl, 20);
    for target in [0, 0, 1, 1] {
        world.probe(target, REFUSED);
    }
    assert_eq!((world.dc(0).state, world.dc(0).effective), (DcState::Failed, 0));
    let steer = &world.snapshot.steers[0];
    assert_eq!((steer.candidates[0].effective, steer.candidates[0].held_by), (0, Some(ServiceId::new(0))));
    assert!(!steer.all_down && world.snapshot.isolated_since.is_none());
    let dead = world.snapshot.generation;
    for target in [0, 0, 1, 1] {
        world.now = world.now + 1_000 * MS;
        world.probe(target, ProbeOutcome::Ok);
    }
    assert!(world.snapshot.generation > dead);
    assert_eq!(world.state(0), BackendState::SlowStart);
    world.pass(600);
    assert_eq!((world.dc(0).state, world.dc(0).factor), (DcState::Returning, 100));
    world.pass(12_000);
    assert_eq!(
        (world.dc(0).state, world.dc(0).factor, world.state(0)),
        (DcState::Serving, 1_000, BackendState::Healthy)
    );
}

#[test]
fn events_of_a_topology_that_has_gone_are_dropped() {
    let mut world = World::up(config(2, 1));
    world.event(Event::Reload(Box::new(topology(config(2, 1)))));
    assert_eq!(world.snapshot.topology.serial, 2);
    for _ in 0..3 {
        world.event(Event::Probed { target: TargetId::new(0), outcome: REFUSED, took: MS, serial: 1 });
    }
    assert_eq!(world.state(0), BackendState::Healthy, "evidence is carried over, stale events are not");
    world.event(Event::Probed { target: TargetId::new(77), outcome: REFUSED, took: MS, serial: 2 });
}

#[test]
fn drained_is_drained_until_it_ends_and_down_is_never_served() {
    let mut world = World::up(config(2, 2));
    world.wish(Subject::Datacenter("dc0".into()), Wish::Drain, Some(wall(world.now) + 1_000 * MS));
    assert_eq!((world.dc(0).state, world.state(0)), (DcState::Drained, BackendState::Drained));
    assert_eq!(world.snapshot.steers[0].candidates[0].state, DcState::Drained);
    world.wish(Subject::Datacenter("dc1".into()), Wish::Down, None);
    let steer = &world.snapshot.steers[0];
    assert!(steer.all_down && steer.candidates[1].state == DcState::AdminDown);
    world.pass(1_200);
    assert_eq!((world.dc(0).state, world.dc(1).state), (DcState::Returning, DcState::AdminDown));
    world.event(Event::Revoke { subject: Subject::Datacenter("dc1".into()), by: "test".into() });
    assert_eq!(world.dc(1).state, DcState::Returning);
}

fn failing(streak: u32) -> Sample {
    Sample { refused: streak, streak_failures: streak, ..Sample::default() }
}

#[test]
fn live_failures_eject_hasten_the_probe_and_end_in_a_trial() {
    let mut world = World::up(config(2, 2));
    world.probe(0, ProbeOutcome::Ok);
    world.now = world.now + 500 * MS;
    world.sample(0, failing(1));
    assert_eq!((world.state(0), world.snapshot.targets[0].due), (BackendState::Suspect, world.now));
    world.sample(0, failing(3));
    assert_eq!(world.state(0), BackendState::Ejected);
    assert_eq!((world.dc(0).state, world.dc(0).factor), (DcState::Serving, 700));
    world.sample(1, failing(3));
    assert_eq!(world.state(1), BackendState::Suspect, "the last usable one is never ejected");
    // A probe that lies does not bring it back before its time.
    for _ in 0..2 {
        world.probe(0, ProbeOutcome::Ok);
    }
    assert_eq!(world.state(0), BackendState::Ejected);
    world.pass(6_200);
    assert_eq!((world.state(0), world.snapshot.backends[0].weight), (BackendState::HalfOpen, 100));
    world.sample(0, failing(1));
    assert_eq!((world.state(0), world.snapshot.backends[0].ejections), (BackendState::Ejected, 2));
    world.pass(12_200);
    world.sample(0, Sample { ok: 1, ..Sample::default() });
    assert_eq!(world.state(0), BackendState::SlowStart);
    world.pass(10_000);
    assert_eq!((world.state(0), world.snapshot.backends[0].weight), (BackendState::Healthy, 1_000));
}

fn referenced(dcs: usize) -> Config {
    let references = vec![SocketAddr::from(([192, 0, 2, 1], 53)), SocketAddr::from(([192, 0, 2, 2], 53))];
    let health = crate::config::Health { references, ..crate::config::Health::default() };
    Config { health, ..config(dcs, 2) }
}

/// Everything in `targets` fails twice, a probe each in turn.
fn fail(world: &mut World, targets: impl Iterator<Item = usize> + Clone) {
    for target in targets.clone().chain(targets) {
        world.now = world.now + 20 * MS;
        world.probe(target, REFUSED);
    }
}

#[test]
fn who_sees_everything_die_at_once_distrusts_itself_and_changes_nothing() {
    let mut world = World::up(config(3, 2));
    let before = world.snapshot.clone();
    fail(&mut world, 0..6);
    assert!(world.snapshot.isolated_since.is_some());
    assert_eq!(world.snapshot.steers[0].candidates, before.steers[0].candidates);
    assert!((0..6).all(|b| world.snapshot.backends[b].weight == 1_000), "no slow start for who never left");
    assert_eq!(world.snapshot.steers[0].ttl, 5);
    world.pass(30_000);
    fail(&mut world, 0..6);
    assert!((0..3).all(|dc| world.dc(dc).effective == 10_000), "and holds it");
    // The network is back, but one datacenter really is gone.
    world.probe(3, ProbeOutcome::Ok);
    assert!(world.snapshot.isolated_since.is_none());
    fail(&mut world, 0..2);
    for target in [2, 4, 5] {
        world.probe(target, ProbeOutcome::Ok);
    }
    assert_eq!((world.dc(0).state, world.dc(1).state), (DcState::Failed, DcState::Serving));
    assert!(world.snapshot.isolated_since.is_none());
}

#[test]
fn datacenters_that_die_beside_a_living_one_or_a_witness_are_dead() {
    let mut world = World::up(config(3, 2));
    fail(&mut world, 0..4);
    assert!(world.snapshot.isolated_since.is_none() && world.dc(0).effective + world.dc(1).effective == 0);
    let mut world = World::up(referenced(3));
    fail(&mut world, 0..6);
    assert!(world.snapshot.isolated_since.is_none(), "the references answer, so it is them and not us");
    assert!(world.snapshot.steers[0].all_down);
}

#[test]
fn with_witnesses_gone_a_local_datacenter_that_answers_is_no_proof() {
    let mut world = World::up(referenced(3));
    fail(&mut world, (2..6).chain(6..8));
    assert!(world.snapshot.isolated_since.is_some(), "two of three and both references");
    world.probe(0, ProbeOutcome::Ok);
    assert!(world.snapshot.isolated_since.is_some(), "it answered all the time");
    world.probe(6, ProbeOutcome::Ok);
    assert!(world.snapshot.isolated_since.is_none());
    // A reference that never answered is no witness.
    let mut world = World::new(referenced(3));
    for target in 0..6 {
        world.probe(target, ProbeOutcome::Ok);
    }
    fail(&mut world, 6..8);
    world.pass(10_000);
    fail(&mut world, 0..4);
    assert!(world.snapshot.isolated_since.is_none() && world.dc(1).effective == 0);
}

#[test]
fn one_of_three_or_of_two_never_looks_like_isolation() {
    for dcs in [2, 3, 5] {
        for config in [config(dcs, 2), referenced(dcs)] {
            let mut world = World::up(config);
            fail(&mut world, 0..2);
            assert!(world.snapshot.isolated_since.is_none() && world.dc(0).state == DcState::Failed);
        }
    }
}

#[test]
fn a_reload_keeps_evidence_and_intents_and_lets_new_backends_serve_at_once() {
    let mut world = World::up(config(3, 2));
    fail(&mut world, [0, 1].into_iter());
    world.wish(Subject::Backend { address: "10.0.1.1:80".into(), service: None }, Wish::Down, None);
    let before = world.snapshot.clone();
    let next = Topology::build(Arc::new(config(4, 3)), Assets::default(), Some(&before.topology));
    world.event(Event::Reload(Box::new(next)));
    assert_eq!(world.snapshot.generation, before.generation + 1);
    let state = |ip: [u8; 4]| {
        let at =
            world.snapshot.topology.backends.iter().position(|b| b.spec.address.ip() == std::net::IpAddr::from(ip));
        world.state(at.unwrap())
    };
    assert_eq!((state([10, 0, 0, 1]), state([10, 0, 0, 2])), (BackendState::Down, BackendState::Down));
    assert_eq!((state([10, 0, 1, 1]), state([10, 0, 1, 2])), (BackendState::AdminDown, BackendState::Healthy));
    assert_eq!((state([10, 0, 0, 3]), state([10, 0, 3, 1])), (BackendState::Unknown, BackendState::Unknown));
    assert_eq!((world.dc(0).state, world.dc(3).state, world.dc(3).factor), (DcState::Failed, DcState::Serving, 1_000));
}

#[test]
fn a_slow_node_is_ejected_after_three_slow_seconds_and_pressure_never_is() {
    let mut world = World::up(config(1, 4));
    let serial = world.snapshot.topology.serial;
    let sample = |p90_us, ok, pressure| Sample { ok, pressure, p90_us, ..Sample::default() };
    for second in 0..5 {
        let slow = if second == 0 { 20_000 } else { 400_000 };
        let samples = (0..4).map(|b| {
            let pressed = if b == 3 { 10 } else { 0 };
            (BackendId::new(b), sample(if b == 0 { slow } else { 20_000 }, 20, pressed))
        });
        world.event(Event::Sampled { samples: samples.collect(), serial });
        let expected = if second < 4 { BackendState::Healthy } else { BackendState::Ejected };
        assert_eq!(world.state(0), expected, "second {second}");
        world.now = world.now + 1_000 * MS;
    }
    assert_eq!(world.snapshot.backends[0].ejected.map(|e| e.0), Some(EjectReason::SlowerThanPeers));
    assert_eq!((world.state(3), world.snapshot.backends[3].weight), (BackendState::Healthy, 650));
}

#[test]
fn one_that_fails_more_than_its_peers_is_ejected_long_before_it_fails_often() {
    let mut world = World::up(config(1, 5));
    let serial = world.snapshot.topology.serial;
    let sample = |id: usize, bad: u32| (BackendId::new(id), Sample { ok: 100 - bad, reset: bad, ..Sample::default() });
    let second = |world: &mut World, bad: u32| {
        let samples = (0..5).map(|id| sample(id, if id == 2 { bad } else { 1 })).collect();
        world.event(Event::Sampled { samples, serial });
        world.now = world.now + 1_000 * MS;
    };
    second(&mut world, 8);
    assert_eq!(world.snapshot.backends[2].ejected, None, "seven points are too few");
    second(&mut world, 30);
    assert_eq!(world.snapshot.backends[2].ejected.map(|e| e.0), Some(EjectReason::SuccessBelowPeers));
    assert!((0..5).all(|id| id == 2 || world.state(id).usable()));
}

mod moments {
    use proptest::prelude::*;

    use super::*;

    fn probes(world: &World, targets: &[(usize, bool)]) -> Vec<Event> {
        let serial = world.snapshot.topology.serial;
        let one = |&(target, ok): &(usize, bool)| {
            let outcome = if ok { ProbeOutcome::Ok } else { REFUSED };
            Event::Probed { target: TargetId::new(target), outcome, took: MS, serial }
        };
        targets.iter().map(one).collect()
    }

    #[test]
    fn a_moment_is_one_generation_and_half_of_it_moves_nothing() {
        let mut world = World::up(config(3, 2));
        let before = world.snapshot.generation;
        let fallen = probes(&world, &[(0, false), (0, false), (1, false), (1, false), (2, true)]);
        world.snapshot = steps(&world.snapshot, fallen, world.now, wall(world.now));
        assert_eq!(world.snapshot.generation, before + 1);
        assert_eq!((world.dc(0).state, world.dc(1).state), (DcState::Failed, DcState::Serving));

        let mut world = World::up(config(3, 2));
        let all: Vec<_> = (0..6).chain(0..6).map(|target| (target, false)).collect();
        let fallen = probes(&world, &all);
        let before = world.snapshot.generation;
        world.snapshot = steps(&world.snapshot, fallen, world.now, wall(world.now));
        assert!(world.snapshot.isolated_since.is_some() && (0..3).all(|dc| world.dc(dc).effective == 10_000));
        assert_eq!(world.snapshot.generation, before + 1);
    }

    /// What happens to a world of six targets in three datacenters.
    fn happen(world: &mut World, what: u8, which: usize) {
        let subject = Subject::Datacenter(format!("dc{}", which % 3));
        let soon = Some(Wall(wall(world.now).0 + 700 * which as u64));
        match what {
            0..4 => world.probe(which, ProbeOutcome::Ok),
            4..8 => world.probe(which, REFUSED),
            8 => world.wish(subject, Wish::Drain, soon),
            9 => world.wish(subject, Wish::Weight(which as u32), None),
            10 => world.event(Event::Revoke { subject, by: "test".into() }),
            11 => {
                let part = Subject::Service { service: "gifts".into(), datacenter: format!("dc{}", which % 3) };
                world.wish(part, if which < 3 { Wish::Weight(which as u32) } else { Wish::Drain }, soon);
            }
            _ => world.pass(400),
        }
    }

    proptest! {
        /// Names that are looked at only where their basis has changed are what they would be if all were looked at.
        #[test]
        fn what_is_left_alone_is_what_it_would_be_anew(script in proptest::collection::vec((0u8..15, 0usize..6), 1..60)) {
            let mut config = config(3, 2);
            let dns = config.dns.as_mut().unwrap();
            let alone = |dc| Steer { name: format!("dc{dc}.test."), datacenters: vec![(DatacenterId::new(dc), 7)], ..dns.steers[0].clone() };
            let more: Vec<Steer> = (0..3).map(alone).collect();
            dns.steers.extend(more);
            let mut world = World::up(config);
            for (what, which) in script {
                happen(&mut world, what, which);
                world.pass(200);
                let mut anew = Snapshot { steers: Arc::default(), steered_from: Arc::default(), ..world.snapshot.clone() };
                let topology = Arc::clone(&anew.topology);
                let orders = crate::decide::orders::Orders::of(&anew.intents, &topology, wall(world.now));
                assess::steers(&mut anew, &topology, &orders, world.now, wall(world.now));
                prop_assert_eq!(&anew.steers, &world.snapshot.steers);
            }
        }

        /// A moment and its events one by one agree on all evidence, and on everything that follows where nothing in
        /// between was acted on: a flicker within one moment counts for nothing.
        #[test]
        fn a_moment_is_the_sum_of_its_events(script in proptest::collection::vec(
            proptest::collection::btree_map(0usize..6, any::<bool>(), 0..6), 1..40)
        ) {
            let (mut one, mut all) = (World::up(config(3, 2)), World::up(config(3, 2)));
            for moment in script {
                let moment: Vec<_> = moment.into_iter().collect();
                let mut isolated_between = false;
                for event in probes(&one, &moment) {
                    one.event(event);
                    isolated_between |= one.snapshot.isolated_since.is_some();
                }
                let before = all.snapshot.generation;
                all.snapshot = steps(&all.snapshot, probes(&all, &moment), all.now, wall(all.now));
                prop_assert!(all.snapshot.generation <= before + 1);
                if isolated_between || all.snapshot.isolated_since.is_some() {
                    return Ok(());
                }
                prop_assert_eq!(&one.snapshot.targets, &all.snapshot.targets);
                prop_assert_eq!(&one.snapshot.backends, &all.snapshot.backends);
                for world in [&mut one, &mut all] {
                    world.pass(200);
                }
            }
        }
    }
}
