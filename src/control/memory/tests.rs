//! Tests.

use std::fs;

use super::*;
use crate::control::step::first;
use crate::control::step::tests::{MS, REFUSED, World, config, topology, wall};
use crate::snapshot::intent::{Subject, Wish};

/// A world with a dead datacenter and a drained one.
fn troubled() -> World {
    let mut world = World::up(config(3, 2));
    for target in [0, 0, 1, 1] {
        world.probe(target, REFUSED);
    }
    world.wish(Subject::Datacenter("dc1".into()), Wish::Drain, None);
    world
}

fn reborn(world: &World, memory: &Memory, later: Duration) -> Snapshot {
    // Another process: its monotonic clock begins anew.
    first(topology(config(3, 2)), Some(memory), Mono::from_millis(1_000), wall(world.now) + later)
}

#[test]
fn a_restart_serves_from_what_was_known_at_once() {
    let world = troubled();
    let memory = Memory::of(&world.snapshot, world.now, wall(world.now));
    let next = reborn(&world, &memory, 500 * MS);
    assert_eq!(next.generation, world.snapshot.generation + 1);
    let said = |s: &Snapshot| s.steers[0].candidates.iter().map(|c| (c.state, c.effective)).collect::<Vec<_>>();
    assert_eq!(said(&next), said(&world.snapshot));
    let states = |s: &Snapshot| s.backends.iter().map(|b| (b.state, b.weight)).collect::<Vec<_>>();
    assert_eq!(states(&next), states(&world.snapshot));
    assert!(next.targets.iter().all(|t| t.due <= Mono::from_millis(1_200)), "and looks for itself soon");
}

#[test]
fn old_verdicts_are_not_believed_but_intents_are() {
    let world = troubled();
    let memory = Memory::of(&world.snapshot, world.now, wall(world.now));
    let next = reborn(&world, &memory, FRESH + MS);
    assert!(next.targets.iter().all(|t| t.verdict == Verdict::Unknown));
    assert_eq!(next.steers[0].candidates[0].state, DcState::Serving);
    assert_eq!(next.steers[0].candidates[1].state, DcState::Drained);
    assert_eq!(next.generation, world.snapshot.generation + 1);
}

#[test]
fn a_save_is_whole_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Memory::load(folder.path()), Ok(None)));
    let world = troubled();
    let memory = Memory::of(&world.snapshot, world.now, wall(world.now));
    Memory::default().save(folder.path()).unwrap();
    memory.save(folder.path()).unwrap();
    assert_eq!(Memory::load(folder.path()).unwrap(), Some(memory));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let error = Memory::default().save(&folder.path().join("gone")).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn nonsense_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let whole = serde_json::to_string(&Memory::of(&troubled().snapshot, Mono::ZERO, Wall(0))).unwrap();
    for text in
        ["", "{", "[]", "\u{0}\u{1}", &whole[..whole.len() / 2], &whole.replacen("\"format\":1", "\"format\":2", 1)]
    {
        fs::write(folder.path().join(NAME), text).unwrap();
        let error = Memory::load(folder.path()).unwrap_err();
        assert!(matches!(error, MemoryError::Corrupt { .. }) && error.to_string().contains(NAME), "{error}");
    }
}

#[test]
fn clocks_convert_both_ways() {
    let (now, at) = (Mono::from_millis(50_000), Wall(1_000_000));
    for then in [Mono::from_millis(49_000), now, Mono::from_millis(61_000)] {
        assert_eq!(to_mono(to_wall(then, now, at), now, at), then);
    }
    assert_eq!(to_mono(Wall(0), now, at), Mono::ZERO, "before this process began");
}
