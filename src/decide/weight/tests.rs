//! Tests.

use proptest::prelude::*;

use super::*;
use crate::snapshot::health::BackendState::{AdminDown, Down, Drained, Healthy, SlowStart, Suspect, Unknown};

const MS: Duration = Duration::from_millis(1);
const ABSENT: DcWeight = DcWeight {
    state: DcState::Absent,
    since: Mono::ZERO,
    health: 0.0,
    factor: 0,
    effective: 0,
    returning: 0,
    ramp_from: None,
    panic: false,
};

fn ground(rules: &Health) -> Ground<'_> {
    Ground { base: 40, order: Order::default(), panic_below: 0.5, rules, tick: true }
}

/// `good` healthy backends and `bad` dead ones.
fn members(good: usize, bad: usize) -> impl Iterator<Item = Member> {
    let of = |state| move |_| Member { weight: 1, state };
    (0..good).map(of(Healthy)).chain((0..bad).map(of(Down)))
}

fn look(before: &DcWeight, good: usize, bad: usize, at_ms: u64) -> DcWeight {
    datacenter(before, members(good, bad), &ground(&Health::default()), Mono::from_millis(at_ms))
}

#[test]
fn the_first_judgement_has_no_ramp_and_spare_capacity_hides_small_losses() {
    for (good, bad, factor) in [(10, 0, 1_000), (8, 2, 1_000), (7, 3, 980), (6, 4, 840), (5, 5, 700)] {
        let w = look(&ABSENT, good, bad, 1_000);
        assert_eq!((w.state, w.factor, w.effective), (DcState::Serving, factor, 40 * u64::from(factor)));
    }
    let w = look(&ABSENT, 4, 6, 1_000);
    assert_eq!((w.state, w.effective, w.panic), (DcState::Failed, 0, true));
    assert_eq!(look(&ABSENT, 0, 0, 1_000).state, DcState::Absent);
}

#[test]
fn a_failed_datacenter_returns_after_three_ticks_and_climbs_over_the_ramp() {
    let mut w = look(&ABSENT, 0, 10, 1_000);
    w = look(&w, 6, 4, 1_200);
    assert_eq!((w.state, w.returning), (DcState::Failed, 0), "0.6 is below the return mark");
    let mut now = 1_200;
    for n in 1..3 {
        now += 200;
        w = look(&w, 7, 3, now);
        assert_eq!((w.state, w.returning), (DcState::Failed, n));
    }
    let unheld = look(&w, 6, 4, now);
    assert_eq!(unheld.returning, 0, "it must be held");
    now += 200;
    w = look(&w, 10, 0, now);
    assert_eq!((w.state, w.factor), (DcState::Returning, 100));
    let began = now;
    let mut last = 100;
    while w.state == DcState::Returning {
        now += 200;
        w = look(&w, 10, 0, now);
        assert!(w.factor >= last && w.factor - last <= STEP, "one step at a time");
        last = w.factor;
    }
    assert_eq!((w.state, w.factor), (DcState::Serving, 1_000));
    assert!((9_800..=10_200).contains(&(now - began)), "{}", now - began);
}

#[test]
fn down_moves_act_at_once_and_up_moves_climb() {
    let full = look(&ABSENT, 10, 0, 1_000);
    let less = look(&full, 6, 4, 1_001);
    assert_eq!((less.state, less.factor), (DcState::Serving, 840));
    let mut w = look(&less, 10, 0, 1_200);
    assert_eq!(w.factor, 840);
    w = look(&w, 10, 0, 1_800);
    assert_eq!(w.factor, 890);
    assert_eq!(look(&w, 0, 10, 1_801).effective, 0);
}

#[test]
fn an_operator_wins_over_health() {
    let rules = Health::default();
    for (taken, state) in [(Taken::Drained, DcState::Drained), (Taken::Down, DcState::AdminDown)] {
        let order = Order { taken: Some(taken), weight: Some(99), ..Order::default() };
        let w = datacenter(&ABSENT, members(5, 0), &Ground { order, ..ground(&rules) }, Mono::ZERO);
        assert_eq!((w.state, w.effective), (state, 0));
        let back = datacenter(&w, members(5, 0), &ground(&rules), Mono::ZERO + MS);
        assert_eq!((back.state, back.factor), (DcState::Returning, 100), "who was drained comes back by a ramp");
    }
    let order = Order { taken: None, weight: Some(7), ..Order::default() };
    let w = datacenter(&ABSENT, members(5, 0), &Ground { order, ..ground(&rules) }, Mono::ZERO);
    assert_eq!(w.effective, 7_000);
}

#[test]
fn who_was_taken_out_counts_on_neither_side() {
    let rules = Health::default();
    let with = |states: &[BackendState]| {
        let members = states.iter().map(|&state| Member { weight: 1, state });
        datacenter(&ABSENT, members, &ground(&rules), Mono::ZERO)
    };
    assert!((with(&[Healthy, Drained, AdminDown]).health - 1.0).abs() < 1e-9);
    assert!((with(&[Unknown, SlowStart, Suspect]).health - 1.0).abs() < 1e-9, "a return is not a loss");
    assert_eq!(with(&[Down, Drained]).state, DcState::Failed);
    assert_eq!(with(&[AdminDown, Drained]).state, DcState::Drained);
    assert_eq!(with(&[AdminDown, AdminDown]).state, DcState::AdminDown);
}

proptest! {
    #[test]
    fn no_walk_climbs_faster_than_the_ramp_or_serves_below_the_mark(
        walk in prop::collection::vec((0usize..=10, 1u64..2_000, any::<bool>()), 1..200),
    ) {
        let rules = Health::default();
        let mut w = look(&ABSENT, 10, 0, 1_000);
        let mut now = Mono::from_millis(1_000);
        for (good, wait_ms, tick) in walk {
            now = now + wait_ms as u32 * MS;
            let next = datacenter(&w, members(good, 10 - good), &Ground { tick, ..ground(&rules) }, now);
            prop_assert!(next.health >= 0.5 || next.effective == 0);
            prop_assert!(next.factor <= (1_400.0 * next.health) as u32 + 1 && next.factor <= 1_000);
            let allowed = (wait_ms as u32 * 9 / 100) + 2 * STEP;
            let begins = w.state == DcState::Failed && next.state == DcState::Returning && next.factor == RETURN_FACTOR;
            prop_assert!(next.factor <= w.factor + allowed || begins, "{} -> {} in {wait_ms} ms", w.factor, next.factor);
            prop_assert_eq!(next.effective, 40 * u64::from(next.factor));
            w = next;
        }
    }
}
