//! What becomes of backends when others are found: who stays, who joins, who goes.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::event::Event;
use super::super::step::tests::{REFUSED, World, config};
use crate::base::ids::{BackendId, DatacenterId, ServiceId};
use crate::config::{Config, Discovery, Origin, Source};
use crate::snapshot::discovered::{Discovered, Found, SourceKey};
use crate::snapshot::health::{BackendState, DcState, ProbeOutcome};
use crate::snapshot::load::Sample;
use crate::snapshot::topology::Topology;

/// One datacenter with so many written backends, and two sources.
fn sourced(written: usize) -> Config {
    let source = |name: &str| Source {
        service: ServiceId::new(0),
        datacenter: DatacenterId::new(0),
        origin: Origin::Srv { name: name.into() },
        weight: 1,
        keep: Duration::ZERO,
    };
    let discovery = Discovery { resolvers: Vec::new(), sources: vec![source("a."), source("b.")] };
    Config { discovery, ..config(1, written) }
}

fn found(hosts: &[u8]) -> Vec<Found> {
    let one = |host: &u8| Found { address: ([10, 0, 0, *host], 80).into(), weight: 1, name: Some("n".into()) };
    hosts.iter().map(one).collect()
}

/// Puts what the two sources have found in force.
fn find(world: &mut World, first: &[u8], second: &[u8]) {
    let config = &world.snapshot.topology.config;
    let lists = config.discovery.sources.iter().zip([found(first), found(second)]);
    let lists: Discovered = lists.map(|(source, found)| (SourceKey::of(config, source), found.into())).collect();
    let next = Topology::rediscovered(&world.snapshot.topology, lists);
    world.event(Event::Reload(Box::new(next)));
}

fn place(world: &World, host: u8) -> Option<usize> {
    let at = SocketAddr::from(([10, 0, 0, host], 80));
    world.snapshot.topology.backends.iter().position(|b| b.spec.address == at)
}

fn state(world: &World, host: u8) -> Option<BackendState> {
    Some(world.state(place(world, host)?))
}

/// Probes the target of a host.
fn probe(world: &mut World, host: u8, outcome: ProbeOutcome) {
    let target = place(world, host).and_then(|at| world.snapshot.topology.backends[at].target).unwrap();
    world.probe(target.index(), outcome);
}

#[test]
fn who_is_found_joins_by_a_good_probe_and_takes_nothing_from_who_is_there() {
    let mut world = World::up(sourced(2));
    find(&mut world, &[11, 12, 13, 14, 15], &[]);
    assert_eq!(world.snapshot.topology.backends.len(), 7);
    assert_eq!(state(&world, 11), Some(BackendState::Joining));
    assert_eq!((world.dc(0).state, world.dc(0).health), (DcState::Serving, 1.0), "five that join are no loss");
    let joining = place(&world, 11).unwrap();
    assert_eq!(world.snapshot.backend(BackendId::new(joining)).weight, 0);
    probe(&mut world, 11, ProbeOutcome::Ok);
    assert_eq!(state(&world, 11), Some(BackendState::SlowStart));
    for _ in 0..2 {
        probe(&mut world, 12, REFUSED);
    }
    assert_eq!(state(&world, 12), Some(BackendState::Down), "and now it counts");
    assert!((world.dc(0).health - 0.75).abs() < 1e-9, "three of four: {}", world.dc(0).health);
    world.pass(11_000);
    assert_eq!((state(&world, 11), state(&world, 13)), (Some(BackendState::Healthy), Some(BackendState::Joining)));
}

#[test]
fn where_nobody_works_who_is_found_is_used_at_once() {
    let mut world = World::new(sourced(0));
    find(&mut world, &[1, 2], &[]);
    assert_eq!((state(&world, 1), state(&world, 2)), (Some(BackendState::Unknown), Some(BackendState::Unknown)));
    assert_eq!(world.dc(0).state, DcState::Serving);
    for host in [1, 1, 2, 2] {
        probe(&mut world, host, REFUSED);
    }
    find(&mut world, &[1, 2, 3], &[]);
    assert_eq!((state(&world, 2), state(&world, 3)), (Some(BackendState::Down), Some(BackendState::Unknown)));
    // Who joined beside one that goes is all that is left.
    let mut world = World::up(sourced(0));
    find(&mut world, &[1], &[]);
    find(&mut world, &[1, 2], &[]);
    assert_eq!(state(&world, 2), Some(BackendState::Joining));
    find(&mut world, &[2], &[]);
    assert_eq!(state(&world, 2), Some(BackendState::Unknown));
}

#[test]
fn who_stays_keeps_all_that_is_known_of_it_and_who_went_is_forgotten() {
    let mut world = World::up(sourced(1));
    find(&mut world, &[11, 12, 13], &[]);
    for host in [11, 12, 13] {
        probe(&mut world, host, ProbeOutcome::Ok);
    }
    world.pass(11_000);
    let out = place(&world, 12).unwrap();
    world.sample(out, Sample { refused: 3, streak_failures: 3, ..Sample::default() });
    assert_eq!(state(&world, 12), Some(BackendState::Ejected));
    let (load, seat) = {
        let backend = &world.snapshot.topology.backends[out];
        (std::sync::Arc::clone(&backend.load), backend.seat)
    };
    let (before, edition) = (world.snapshot.backends[out].clone(), world.snapshot.topology.edition);
    find(&mut world, &[15, 14, 12, 13], &[]);
    let at = place(&world, 12).unwrap();
    assert_ne!(at, out, "another place");
    let backend = &world.snapshot.topology.backends[at];
    assert!(std::sync::Arc::ptr_eq(&backend.load, &load) && backend.seat == seat);
    assert_eq!((world.snapshot.backends[at].ejected, world.snapshot.topology.edition), (before.ejected, edition));
    assert_eq!((state(&world, 11), state(&world, 13)), (None, Some(BackendState::Healthy)));
    assert_eq!((state(&world, 14), state(&world, 1)), (Some(BackendState::Joining), Some(BackendState::Healthy)));
}

#[test]
fn each_address_stands_once_and_what_is_written_is_not_found() {
    let mut world = World::up(sourced(2));
    find(&mut world, &[2, 11], &[11, 12, 1]);
    let told: Vec<(String, Option<u32>)> = {
        let backends = &world.snapshot.topology.backends;
        backends.iter().map(|b| (b.spec.address.ip().to_string(), b.source)).collect()
    };
    let wanted = [("10.0.0.1", None), ("10.0.0.2", None), ("10.0.0.11", Some(0)), ("10.0.0.12", Some(1))];
    assert_eq!(told, wanted.map(|(ip, source)| (ip.to_owned(), source)));
    assert_eq!(world.snapshot.topology.backends[2].name.as_deref(), Some("n"));
    assert!(world.snapshot.topology.backends[0].name.is_none());
}
