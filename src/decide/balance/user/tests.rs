//! Homes that a file names.

use std::sync::Arc;

use super::*;
use crate::base::ids::DatacenterId;
use crate::config::homes::Homes;
use crate::config::{Balance, Homing};
use crate::decide::world::{SERVICE, set_backend, world};
use crate::snapshot::Topology;
use crate::snapshot::load::Outcome;
use crate::snapshot::topology::Assets;

const DC: DatacenterId = DatacenterId::new(0);

#[test]
fn a_file_says_whose_home_is_where() {
    let s = world(Balance::UserHome, &[(1, &[1]), (1, &[1])]);
    let address = |id: usize| s.topology.backends[id].spec.address;
    let text = format!(
        "epoch = 1\n[[home]]\nname = \"b\"\nurl = \"http://{}\"\nsets = [\"00-0f\"]\n[[home]]\nname = \"a\"\nurl = \"http://{}\"\n",
        address(1),
        address(0)
    );
    let mut config = (*s.topology.config).clone();
    let homes = Some(Arc::new(Homes::parse(&text).unwrap()));
    config.services[0].homing = Homing { homes, ..Homing::default() };
    let service = config.services[0].clone();
    let named =
        Snapshot { topology: Arc::new(Topology::build(Arc::new(config), Assets::default(), None)), ..s.clone() };
    let mut seen = [0, 0];
    for user in 0..2_000 {
        let hash = hash_for(&service, format!("user-{user}").as_bytes());
        let at = home(&named, SERVICE, hash).unwrap();
        assert_eq!(at.index(), usize::from(homes::set_of(hash) < 0x10));
        seen[at.index()] += 1;
    }
    assert!(seen[1] > 60 && seen[0] > 1_700, "{seen:?}");
    assert_eq!(hash_for(s.topology.service(SERVICE), b"42"), hash_of(b"42"));
}

#[test]
fn a_home_of_several_processes_is_asked_where_it_answers() {
    let s = world(Balance::UserHome, &[(1, &[1, 1, 1])]);
    let address = |id: usize| s.topology.backends[id].spec.address;
    let text = format!(
        "epoch = 1\n[[home]]\nname = \"a\"\nurl = [\"http://{}\", \"http://{}\"]\n[[home]]\nname = \"b\"\nurl = \"http://{}\"\n",
        address(0),
        address(1),
        address(2)
    );
    let mut config = (*s.topology.config).clone();
    let homes = Some(Arc::new(Homes::parse(&text).unwrap()));
    config.services[0].homing = Homing { homes, ..Homing::default() };
    let service = config.services[0].clone();
    let mut s = Snapshot { topology: Arc::new(Topology::build(Arc::new(config), Assets::default(), None)), ..s };
    let users: Vec<u64> = (0..600).map(|n| hash_for(&service, format!("user-{n}").as_bytes())).collect();
    let doors = |s: &Snapshot, tried: &Tried| -> Vec<usize> {
        users.iter().map(|user| door(s, SERVICE, *user, tried).unwrap().index()).collect()
    };
    let before = doors(&s, &Tried::new());
    assert!((0..3).all(|id| before.iter().filter(|at| **at == id).count() > 60), "each has its users");
    // A door that has failed for this request, and one that health has given up.
    let mut tried = Tried::new();
    tried.note(BackendId::new(0), DC, Outcome::Refused);
    let moved = |after: &[usize]| {
        before.iter().zip(after).all(|(before, after)| *after == if *before == 0 { 1 } else { *before })
    };
    assert!(moved(&doors(&s, &tried)));
    set_backend(&mut s, BackendId::new(0), BackendState::Down);
    assert!(moved(&doors(&s, &Tried::new())));
    set_backend(&mut s, BackendId::new(1), BackendState::Down);
    assert_eq!(doors(&s, &Tried::new()), before, "nobody else's user, and nobody else's process");
}
