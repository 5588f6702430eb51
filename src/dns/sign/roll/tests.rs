//! Rolls from their beginning to their end, with the zone judged at every second of them.

use super::super::timeline::{at, timeline};
use super::*;
use crate::wire::dnssec::keyfile::{Private, Public, Secret};

const HOLDS: Holds = Holds { dnskey: 100, longest: 1_000, parent: 500, margin: 10 };

fn key(flags: u16, times: Times) -> Key {
    let algorithm = Algorithm::EcdsaP256;
    let public = Public { owner: b"\x01z\0"[..].into(), flags, algorithm, octets: Box::default() };
    Key { public, private: Private { algorithm, secret: Secret(Box::default()), times } }
}

/// Does what a step says.
fn apply(keys: &mut Vec<Key>, step: &Step) {
    for (index, times) in &step.change {
        keys[*index].private.times = *times;
    }
    keys.extend(step.make.map(|(flags, _, times)| key(flags, times)));
}

#[test]
fn a_zsk_is_rolled_by_times_alone() {
    let mut keys = vec![key(ZONE_KEY | SEP, Times::default()), key(ZONE_KEY, Times::default())];
    let first = step(&keys, Role::Zone, false, &HOLDS, 1_000).unwrap();
    assert_eq!(first.then, [(1_110, Then::TakesOver), (2_120, Then::Leaves)]);
    apply(&mut keys, &first);
    let judged = |now: u32| {
        let moments = timeline(&keys);
        let m = at(&moments, |m| m.from, now).unwrap();
        (m.signers.clone(), m.listed.len(), m.overdue)
    };
    assert_eq!(judged(1_000), (vec![1], 3, false));
    assert_eq!(judged(1_109), (vec![1], 3, false));
    assert_eq!(judged(1_110), (vec![2], 3, false));
    assert_eq!(judged(2_119), (vec![2], 3, false));
    assert_eq!(judged(2_120), (vec![2], 2, false));
    // Said again, it is not begun again.
    for now in [1_001, 1_500] {
        let again = step(&keys, Role::Zone, false, &HOLDS, now).unwrap();
        assert!(again.make.is_none() && again.change.is_empty());
        assert_eq!(again.then.last(), Some(&(2_120, Then::Leaves)));
    }
    assert!(step(&keys, Role::Zone, false, &HOLDS, 2_200).unwrap().make.is_some(), "the next roll");
}

#[test]
fn a_csk_waits_for_its_parent() {
    let mut keys = vec![key(ZONE_KEY | SEP, Times::default())];
    let first = step(&keys, Role::Entry, false, &HOLDS, 1_000).unwrap();
    assert_eq!(first.then, [(1_110, Then::GiveDs)]);
    assert!(first.change.is_empty());
    apply(&mut keys, &first);
    assert_eq!(step(&keys, Role::Entry, true, &HOLDS, 1_100), Err(RollError::TooEarly { at: 1_110 }));
    let told = step(&keys, Role::Entry, false, &HOLDS, 9_000).unwrap();
    assert_eq!((told.then, told.make), (vec![(1_110, Then::GiveDs)], None), "it waits as long as it takes");
    let second = step(&keys, Role::Entry, true, &HOLDS, 10_000).unwrap();
    assert_eq!(second.then, [(10_510, Then::TakesOver), (10_510, Then::RemoveDs), (11_520, Then::Leaves)]);
    apply(&mut keys, &second);
    let moments = timeline(&keys);
    let judged = |now: u32| {
        let m = at(&moments, |m| m.from, now).unwrap();
        (m.signers.clone(), m.entries.clone(), m.asked.clone(), m.overdue)
    };
    assert_eq!(judged(1_050), (vec![0], vec![0, 1], vec![0], false));
    assert_eq!(judged(1_110), (vec![0], vec![0, 1], vec![0, 1], false));
    assert_eq!(judged(10_509), (vec![0], vec![0, 1], vec![0, 1], false));
    assert_eq!(judged(10_510), (vec![1], vec![0, 1], vec![1], false));
    assert_eq!(judged(11_519), (vec![1], vec![0, 1], vec![1], false));
    assert_eq!(judged(11_520), (vec![1], vec![1], vec![1], false));
    let under_way = step(&keys, Role::Entry, false, &HOLDS, 10_600).unwrap();
    assert_eq!(under_way.then, [(10_600, Then::RemoveDs), (11_520, Then::Leaves)]);
    assert_eq!(step(&keys, Role::Entry, true, &HOLDS, 10_600), Err(RollError::NotWaiting));
}

#[test]
fn nothing_is_rolled_where_nothing_is() {
    let keys = [key(ZONE_KEY | SEP, Times::default())];
    assert_eq!(step(&keys, Role::Zone, false, &HOLDS, 1), Err(RollError::NoKey));
    assert_eq!(step(&keys, Role::Entry, true, &HOLDS, 1), Err(RollError::NotWaiting));
}
