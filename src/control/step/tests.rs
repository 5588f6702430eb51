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

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const REFUSED: ProbeOutcome = ProbeOutcome::Failed(ProbeFailure::Refused);

/// `dcs` datacenters of weight 10, one service with `each` backends in each of them, one steered name.
pub(crate) fn config(dcs: usize, each: usize) -> Config {
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
        protocol: Protocol::Http1,
        tls: None,
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
        alpn: Vec::new(),
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

pub(crate) fn topology(config: Config) -> Topology {
    Topology::build(Arc::new(config), Assets::default(), None)
}

pub(crate) struct World {
    pub(crate) now: Mono,
    pub(crate) snapshot: Snapshot,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let now = Mono::from_millis(100_000);
        Self { now, snapshot: first(topology(config), None, now, wall(now)) }
    }

    /// A world in which every target has been found up.
    pub(crate) fn up(config: Config) -> Self {
        let mut world = Self::new(config);
        for target in 0..world.snapshot.targets.len() {
            world.probe(target, ProbeOutcome::Ok);
        }
        world
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.snapshot = step(&self.snapshot, event, self.now, wall(self.now));
    }

    pub(crate) fn probe(&mut self, target: usize, outcome: ProbeOutcome) {
        let serial = self.snapshot.topology.serial;
        self.event(Event::Probed { target: TargetId::new(target), outcome, took: MS, serial });
    }

    pub(crate) fn sample(&mut self, backend: usize, sample: Sample) {
        let serial = self.snapshot.topology.serial;
        self.event(Event::Sampled { samples: vec![(BackendId::new(backend), sample)], serial });
    }

    pub(crate) fn wish(&mut self, subject: Subject, wish: Wish, until: Option<Wall>) {
        let since = wall(self.now);
        self.event(Event::Wish(Intent { subject, wish, since, until, by: "test".into(), reason: String::new() }));
    }

    /// Lets time pass, a tick every 200 ms.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 200 {
            self.now = self.now + 200 * MS;
            self.event(Event::Tick);
        }
    }

    pub(crate) fn state(&self, backend: usize) -> BackendState {
        self.snapshot.backends[backend].state
    }

    pub(crate) fn dc(&self, dc: usize) -> &DcWeight {
        self.snapshot.weight(ServiceId::new(0), DatacenterId::new(dc))
    }
}

pub(crate) fn wall(now: Mono) -> Wall {
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
    world.event(Event::Revoke(Subject::Datacenter("dc1".into())));
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
