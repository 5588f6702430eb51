//! Times as operators set them, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::wire::dnssec::keyfile::{Private, Public, Secret};
use crate::wire::dnssec::{SEP, ZONE_KEY};

fn key(sep: bool, algorithm: Algorithm, times: Times) -> Key {
    let flags = if sep { ZONE_KEY | SEP } else { ZONE_KEY };
    let public = Public { owner: b"\x01z\0"[..].into(), flags, algorithm, octets: Box::default() };
    Key { public, private: Private { algorithm, secret: Secret(Box::default()), times } }
}

fn csk(times: Times) -> Key {
    key(true, Algorithm::EcdsaP256, times)
}

fn zsk(times: Times) -> Key {
    key(false, Algorithm::EcdsaP256, times)
}

fn moment(keys: &[Key], now: u32) -> Moment {
    let moments = timeline(keys);
    at(&moments, |m| m.from, now).cloned().unwrap()
}

#[test]
fn one_key_without_times_does_everything_for_ever() {
    let moments = timeline(&[csk(Times::default())]);
    assert_eq!(moments.len(), 1);
    let Moment { listed, entries, signers, asked, overdue, .. } = &moments[0];
    assert_eq!((listed.len(), entries.len(), signers.len(), asked.len(), *overdue), (1, 1, 1, 1, false));
    assert!(timeline(&[]).is_empty());
}

#[test]
fn a_zsk_takes_the_records_from_the_ksk_and_gives_them_back() {
    let keys = [csk(Times::default()), zsk(Times { activate: Some(10), inactive: Some(20), ..Times::default() })];
    let signers = |now| moment(&keys, now).signers;
    assert_eq!((signers(9), signers(10), signers(20)), (vec![0], vec![1], vec![0]));
    assert!(!moment(&keys, 30).overdue);
    assert_eq!(moment(&keys, 15).entries, [0]);
}

#[test]
fn a_zsk_that_nobody_follows_is_told_ahead_and_after() {
    let zsk = |activate, inactive| zsk(Times { activate: Some(activate), inactive, ..Times::default() });
    let lapses = |keys: &[Key], now| {
        let moments = timeline(keys);
        Lapse::ALL.map(|lapse| lapse.from(moments.iter(), now))
    };
    let forgotten = [csk(Times::default()), zsk(10, Some(20))];
    assert_eq!([0, 10, 19, 20, 99].map(|now| lapses(&forgotten, now)[1]), [20, 20, 20, 20, 99].map(Some));
    let followed = [csk(Times::default()), zsk(10, Some(20)), zsk(20, None)];
    assert_eq!([5, 15, 25].map(|now| lapses(&followed, now)), [[None; 2]; 3]);
    assert_eq!(lapses(&[csk(Times::default())], 5), [None; 2], "one key for all of it is no lapse");
    assert_eq!(lapses(&[csk(Times::default()), zsk(10, None)], 5), [None; 2], "nor is one whose time will come");
    // By algorithm: each has to sign everything.
    let ed = |times| key(false, Algorithm::Ed25519, times);
    let both = [csk(Times::default()), zsk(0, None), key(true, Algorithm::Ed25519, Times::default())];
    assert_eq!(lapses(&both, 5), [None; 2]);
    let one = [&both[..], &[ed(Times { activate: Some(0), inactive: Some(7), ..Times::default() })]].concat();
    assert_eq!(lapses(&one, 5), [None, Some(7)]);
    let all = Times { activate: Some(0), inactive: Some(30), ..Times::default() };
    assert_eq!(lapses(&[csk(all), zsk(10, Some(20))], 15), [Some(30), Some(20)]);
    for lapse in Lapse::ALL {
        assert!(lapse.says(86_400, 0).contains("run out at 1970-01-02"));
        assert!(lapse.says(5, 5).contains("any more"));
    }
}

#[test]
fn a_published_key_signs_the_key_set_alone() {
    let next = Times { publish: Some(10), sync_publish: Some(20), ..Times::default() };
    let keys = [csk(Times::default()), csk(next)];
    assert_eq!(moment(&keys, 9).listed, [0]);
    let now = moment(&keys, 10);
    assert_eq!((now.listed, now.entries, now.signers, now.asked), (vec![0, 1], vec![0, 1], vec![0], vec![0]));
    assert_eq!(moment(&keys, 20).asked, [0, 1]);
}

#[test]
fn each_algorithm_signs_everything() {
    let keys = [csk(Times::default()), key(true, Algorithm::Ed25519, Times::default())];
    assert_eq!(moment(&keys, 0).signers, [0, 1]);
}

#[test]
fn the_last_key_goes_on() {
    let ended =
        Times { publish: Some(5), activate: Some(10), inactive: Some(20), delete: Some(30), ..Times::default() };
    let keys = [csk(ended)];
    for (now, overdue) in [(0, true), (7, true), (10, false), (20, true), (30, true), (u32::MAX - 1, true)] {
        let m = moment(&keys, now);
        assert_eq!((m.listed, m.entries, m.signers, m.overdue), (vec![0], vec![0], vec![0], overdue), "{now}");
    }
}

proptest! {
    /// Whatever the times: somebody signs, whoever signs is published, and the set has an entry.
    #[test]
    fn no_times_make_a_zone_bogus(
        keys in prop::collection::vec((any::<bool>(), any::<bool>(), prop::array::uniform6(prop::option::of(0u32..50))), 1..5),
        now in 0u32..60,
    ) {
        let mut all: Vec<Key> = keys
            .iter()
            .map(|(sep, ed, [publish, activate, inactive, delete, sync_publish, sync_delete])| {
                let times = Times {
                    created: None, publish: *publish, activate: *activate, inactive: *inactive, delete: *delete,
                    sync_publish: *sync_publish, sync_delete: *sync_delete,
                };
                key(*sep, if *ed { Algorithm::Ed25519 } else { Algorithm::EcdsaP256 }, times)
            })
            .collect();
        all[0] = csk(all[0].private.times);
        let m = moment(&all, now);
        prop_assert!(!m.signers.is_empty() && !m.entries.is_empty());
        prop_assert!(m.signers.iter().chain(&m.entries).all(|k| m.listed.contains(k)));
        prop_assert!(m.entries.iter().all(|k| all[*k].public.is_entry()));
    }
}
