//! Shares of datacenters: conservation, agreement with the snapshot's weights, and the way of a retry.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::entropy::Rng;
use crate::config::Balance;
use crate::decide::world::{NOW, SERVICE, members, set_backend, set_datacenter, world};
use crate::snapshot::health::BackendState;
use crate::snapshot::load::Outcome;

const LOCAL: Option<DatacenterId> = Some(DatacenterId::new(0));

fn three() -> Snapshot {
    world(Balance::P2c, &[(40, &[1, 1]), (40, &[1, 1]), (20, &[1, 1])])
}

fn parts(snapshot: &Snapshot, local: Option<DatacenterId>, tried: &Tried) -> Vec<(usize, u32, &'static str)> {
    let parts = shares(snapshot, SERVICE, local, tried, NOW);
    parts.iter().map(|p| (p.datacenter.index(), (p.share * 1_000.0).round() as u32, p.reason.as_str())).collect()
}

fn fail(tried: &mut Tried, snapshot: &Snapshot, dc: usize, host: usize) {
    tried.note(members(snapshot, dc)[host], DatacenterId::new(dc), Outcome::Refused);
}

#[test]
fn the_local_one_keeps_what_its_health_leaves_it() {
    let mut s = three();
    let none = Tried::new();
    assert_eq!(parts(&s, LOCAL, &none), [(0, 1_000, "local")]);
    assert_eq!(parts(&s, None, &none), [(0, 400, "weight"), (1, 400, "weight"), (2, 200, "weight")]);
    set_datacenter(&mut s, 0, DcState::Serving, 700);
    assert_eq!(parts(&s, LOCAL, &none), [(0, 700, "local"), (1, 200, "spill"), (2, 100, "spill")]);
    set_datacenter(&mut s, 1, DcState::Returning, 100);
    assert_eq!(parts(&s, LOCAL, &none), [(0, 700, "local"), (1, 50, "spill"), (2, 250, "spill")]);
    for state in [DcState::Failed, DcState::Drained, DcState::AdminDown] {
        set_datacenter(&mut s, 0, state, 0);
        assert_eq!(parts(&s, LOCAL, &none), [(1, 167, "spill"), (2, 833, "spill")], "{state:?}");
    }
}

#[test]
fn nowhere_to_spill_to_means_all_stays() {
    let mut s = three();
    set_datacenter(&mut s, 0, DcState::Returning, 100);
    set_datacenter(&mut s, 1, DcState::Failed, 0);
    set_datacenter(&mut s, 2, DcState::AdminDown, 0);
    assert_eq!(parts(&s, LOCAL, &Tried::new()), [(0, 1_000, "local")]);
}

#[test]
fn when_all_have_failed_whatever_nobody_took_out_is_open() {
    let mut s = three();
    let none = Tried::new();
    for dc in 0..3 {
        set_datacenter(&mut s, dc, DcState::Failed, 0);
    }
    assert_eq!(parts(&s, LOCAL, &none), [(0, 1_000, "fail-open")], "the local one first");
    assert_eq!(parts(&s, None, &none), [(0, 400, "fail-open"), (1, 400, "fail-open"), (2, 200, "fail-open")]);
    let mut tried = Tried::new();
    fail(&mut tried, &s, 0, 0);
    assert_eq!(parts(&s, LOCAL, &tried), [(1, 667, "fail-open"), (2, 333, "fail-open")], "then the others");
    set_datacenter(&mut s, 0, DcState::AdminDown, 0);
    set_datacenter(&mut s, 1, DcState::Drained, 0);
    assert_eq!(parts(&s, LOCAL, &none), [(2, 1_000, "fail-open")]);
    set_datacenter(&mut s, 2, DcState::AdminDown, 0);
    assert_eq!(parts(&s, LOCAL, &none), [(1, 1_000, "fail-open")], "a drained one is better than none");
    set_datacenter(&mut s, 1, DcState::AdminDown, 0);
    assert_eq!(parts(&s, LOCAL, &none), [], "what is taken down stays down, whatever happens");
    assert_eq!(place(&s, SERVICE, LOCAL, 0.5, &none, NOW), None);
}

#[test]
fn a_weight_of_zero_takes_nothing_until_nothing_else_is_left() {
    let mut s = world(Balance::P2c, &[(0, &[1]), (40, &[1])]);
    assert_eq!(parts(&s, LOCAL, &Tried::new()), [(1, 1_000, "spill")]);
    set_datacenter(&mut s, 1, DcState::AdminDown, 0);
    assert_eq!(parts(&s, LOCAL, &Tried::new()), [(0, 1_000, "fail-open")]);
}

#[test]
fn a_retry_stays_while_there_is_hope_and_leaves_when_there_is_none() {
    let mut s = three();
    let mut tried = Tried::new();
    fail(&mut tried, &s, 0, 0);
    assert_eq!(parts(&s, LOCAL, &tried), [(0, 1_000, "local")], "another backend is there");
    fail(&mut tried, &s, 0, 1);
    assert_eq!(parts(&s, LOCAL, &tried), [(1, 667, "retry"), (2, 333, "retry")], "both have failed");

    let mut once = Tried::new();
    fail(&mut once, &s, 0, 0);
    let other = members(&s, 0)[1];
    set_backend(&mut s, other, BackendState::Down);
    assert_eq!(parts(&s, LOCAL, &once)[0].0, 1, "the other backend is down");

    let s = three();
    let other = &s.topology.backend(other).load;
    other.begin();
    other.end(Outcome::Refused, Duration::ZERO, Duration::ZERO, NOW);
    assert_eq!(parts(&s, LOCAL, &once)[0].0, 1, "the other backend has just failed somebody else");
    assert_eq!(parts(&s, LOCAL, &Tried::new())[0].0, 0, "a first try goes by health alone");

    let mut s = three();
    set_datacenter(&mut s, 0, DcState::Serving, 690);
    assert_eq!(parts(&s, LOCAL, &once)[0].0, 1, "the datacenter is in a bad way");

    let s = world(Balance::P2c, &[(40, &[1; 10]), (40, &[1])]);
    let mut twice = Tried::new();
    fail(&mut twice, &s, 0, 0);
    fail(&mut twice, &s, 0, 1);
    assert_eq!(parts(&s, LOCAL, &twice), [(1, 1_000, "retry")], "the third try leaves, however many are left");
}

#[test]
fn a_retry_with_nowhere_better_to_go_stays() {
    let s = world(Balance::P2c, &[(40, &[1])]);
    let mut tried = Tried::new();
    fail(&mut tried, &s, 0, 0);
    assert_eq!(parts(&s, LOCAL, &tried), [(0, 1_000, "local")]);
    tried.exhaust(DatacenterId::new(0));
    assert_eq!(parts(&s, LOCAL, &tried), []);
}

fn states() -> impl Strategy<Value = Vec<(DcState, u32)>> {
    let one = prop_oneof![
        4 => (1u32..=1_000).prop_map(|f| (DcState::Serving, f)),
        1 => (1u32..=1_000).prop_map(|f| (DcState::Returning, f)),
        1 => Just((DcState::Failed, 0)),
        1 => Just((DcState::Drained, 0)),
        1 => Just((DcState::AdminDown, 0)),
    ];
    prop::collection::vec(one, 1..6)
}

proptest! {
    #[test]
    fn shares_sum_to_one_and_spare_whom_they_must(
        states in states(), local in prop::option::of(0usize..6), failed in prop::collection::vec((0usize..6, 0usize..3), 0..4),
    ) {
        let weights: Vec<(u32, &[u32])> = states.iter().enumerate().map(|(i, _)| (i as u32 * 10 + 5, &[1, 1, 1][..])).collect();
        let mut s = world(Balance::P2c, &weights);
        for (dc, (state, factor)) in states.iter().enumerate() {
            set_datacenter(&mut s, dc, *state, *factor);
        }
        let local = local.filter(|&dc| dc < states.len()).map(DatacenterId::new);
        let mut tried = Tried::new();
        for (dc, host) in failed.into_iter().filter(|(dc, _)| *dc < states.len()) {
            fail(&mut tried, &s, dc, host);
        }
        let parts = shares(&s, SERVICE, local, &tried, NOW);
        let may_serve = states.iter().any(|(state, _)| *state != DcState::AdminDown);
        prop_assert_eq!(!parts.is_empty(), may_serve, "never nobody, unless operators took all down");
        if may_serve {
            prop_assert!((parts.iter().map(|p| p.share).sum::<f64>() - 1.0).abs() < 1e-9);
        }
        let serves = |state: DcState| matches!(state, DcState::Serving | DcState::Returning);
        let any_serves = states.iter().any(|(state, _)| serves(*state));
        for part in &parts {
            let (state, _) = states[part.datacenter.index()];
            prop_assert!(part.share > 0.0 && state != DcState::AdminDown);
            prop_assert!(!any_serves || serves(state), "{:?} serves while a healthy one is there", state);
        }
        // Spill follows the effective weights: the same numbers as in DNS answers.
        let spill: Vec<_> = parts.iter().filter(|p| p.reason == Reason::Spill || p.reason == Reason::Weight).collect();
        for pair in spill.windows(2) {
            let effective = |p: &Share| s.weight(SERVICE, p.datacenter).effective as f64;
            prop_assert!((pair[0].share * effective(pair[1]) - pair[1].share * effective(pair[0])).abs() < 1e-6);
        }
    }
}

#[test]
fn draws_follow_shares() {
    let mut s = three();
    set_datacenter(&mut s, 0, DcState::Serving, 500);
    let mut rng = Rng::seeded(1);
    let mut counts = [0u32; 3];
    for _ in 0..20_000 {
        let (dc, _) = place(&s, SERVICE, LOCAL, rng.unit(), &Tried::new(), NOW).unwrap();
        counts[dc.index()] += 1;
    }
    assert!(counts.iter().zip([10_000u32, 6_667, 3_333]).all(|(got, want)| got.abs_diff(want) < 300), "{counts:?}");
    assert!(place(&s, SERVICE, LOCAL, 1.0, &Tried::new(), NOW).is_some(), "rounding leaves nobody out");
}
