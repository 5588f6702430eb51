//! The transition table of the parent, walked by hand and by proptest.

use proptest::prelude::*;

use super::*;
use crate::config::ProbeKind;
use crate::snapshot::health::ProbeFailure;

const MS: Duration = Duration::from_millis(1);
const BAD: ProbeOutcome = ProbeOutcome::Failed(ProbeFailure::Refused);

fn probe() -> Probe {
    Probe { kind: ProbeKind::Tcp, ..Probe::reference() }
}

/// Plays outcomes at the pace that the verdicts ask for.
fn play(outcomes: impl IntoIterator<Item = bool>) -> (TargetHealth, Mono) {
    let probe = probe();
    let mut health = fresh(&probe, Mono::from_millis(1_000), 7);
    let mut now = health.due;
    for ok in outcomes {
        now = health.due + MS;
        health = judge(&health, if ok { ProbeOutcome::Ok } else { BAD }, MS, &probe, now, 7);
    }
    (health, now)
}

#[test]
fn the_first_success_brings_a_target_up_and_fall_failures_take_it_down() {
    assert_eq!(play([true]).0.verdict, Verdict::Up);
    assert_eq!(play([false]).0.verdict, Verdict::Unknown);
    assert_eq!(play([false, false]).0.verdict, Verdict::Down);
    assert_eq!(play([true, false]).0.verdict, Verdict::Up);
    assert_eq!(play([true, false, false]).0.verdict, Verdict::Down);
    assert_eq!(play([true, false, true, false]).0.verdict, Verdict::Up);
}

#[test]
fn a_crash_returns_after_rise_and_flaps_are_damped_up_to_sixteen_times() {
    let mut script = vec![true];
    let mut need = 2;
    for flap in 1..=7u32 {
        script.extend([false, false]);
        assert_eq!(play(script.clone()).0.verdict, Verdict::Down);
        script.extend(vec![true; need - 1]);
        assert_eq!(play(script.clone()).0.verdict, Verdict::Down, "flap {flap} needs {need}");
        script.push(true);
        assert_eq!(play(script.clone()).0.verdict, Verdict::Up, "flap {flap} needs {need}");
        need = (need * 2).min(32);
    }
}

#[test]
fn flaps_are_forgotten_one_by_one_in_the_calm() {
    let (mut health, now) = play([true, false, false, true, true, false, false, true, true, true, true]);
    assert_eq!((health.verdict, health.flaps), (Verdict::Up, 2));
    health = judge(&health, ProbeOutcome::Ok, MS, &probe(), now + CALM, 7);
    assert_eq!(health.flaps, 1);
    health = judge(&health, ProbeOutcome::Ok, MS, &probe(), now + 5 * CALM, 7);
    assert_eq!(health.flaps, 0);
}

#[test]
fn one_failure_in_three_is_found_and_one_in_twenty_is_not() {
    let every = |n: usize, rounds: usize| (0..rounds).map(move |i| i % n != n - 1);
    assert_eq!(play(every(3, 19)).0.verdict, Verdict::Down);
    assert_eq!(play(every(20, 400)).0.verdict, Verdict::Up);
}

#[test]
fn a_failure_is_looked_at_again_in_a_hundred_milliseconds_until_the_verdict_has_turned() {
    let (up, now) = play([true, false]);
    assert_eq!(up.due.since(now), REPROBE);
    let (down, now) = play([true, false, false]);
    assert!(down.due.since(now) >= 899 * MS, "{:?}", down.due.since(now));
}

#[test]
fn a_hint_from_traffic_hastens_a_probe_but_not_more_often_than_every_hundred_milliseconds() {
    let (up, now) = play([true, true]);
    assert_eq!(hastened(&up, now), Some(now + REPROBE));
    assert_eq!(hastened(&up, now + 300 * MS), Some(now + 300 * MS));
    assert_eq!(hastened(&up, up.due), None);
    let (down, now) = play([true, false, false]);
    assert_eq!(hastened(&down, now), None, "a verdict that has turned is in no hurry");
}

#[test]
fn the_second_probes_of_targets_that_began_together_are_spread_over_an_interval() {
    let (probe, start) = (probe(), Mono::from_millis(1_000));
    let mut dues: Vec<u64> = (0..100)
        .map(|seed| {
            let first = fresh(&probe, start, seed);
            assert!(first.due.since(start) <= FIRST_SPREAD);
            judge(&first, ProbeOutcome::Ok, MS, &probe, first.due, seed).due.since(first.due).as_millis() as u64
        })
        .collect();
    dues.sort_unstable();
    assert!(dues.windows(2).all(|w| w[1] - w[0] < 100) && dues[0] < 100 && dues[99] > 900, "{dues:?}");
}

proptest! {
    #[test]
    fn every_walk_keeps_to_the_table(steps in prop::collection::vec((any::<bool>(), 1u64..900_000), 1..400)) {
        let probe = probe();
        let mut health = fresh(&probe, Mono::from_millis(1_000), 3);
        for (ok, wait_ms) in steps {
            // Now and then a long pause, mostly the pace that was asked for.
            let now = if wait_ms > 890_000 { health.due + wait_ms as u32 * MS } else { health.due };
            let before = health.clone();
            let outcome = if ok { ProbeOutcome::Ok } else { BAD };
            health = judge(&before, outcome, MS, &probe, now, 3);

            let full = health.leaky >= LEAKY_DOWN;
            let expected = match (before.verdict, ok) {
                (Verdict::Unknown | Verdict::Up, true) => Verdict::Up,
                (verdict @ (Verdict::Unknown | Verdict::Up), false) => {
                    if health.streak_failed >= probe.fall || full { Verdict::Down } else { verdict }
                }
                (Verdict::Down, true) if health.streak_ok >= needed(&probe, health.flaps) => Verdict::Up,
                (Verdict::Down, _) => Verdict::Down,
            };
            prop_assert_eq!(health.verdict, expected);
            prop_assert_eq!(health.since == now, before.verdict != health.verdict || before.since == now);
            prop_assert_eq!(health.streak_ok > 0, ok);
            prop_assert_eq!(health.streak_failed > 0, !ok);
            prop_assert!(health.flaps <= MAX_FLAPS && needed(&probe, health.flaps) <= 16 * probe.rise);
            let fell = before.verdict == Verdict::Up && health.verdict == Verdict::Down;
            let counted = if fell { health.flaps >= 1 } else { health.flaps <= before.flaps };
            prop_assert!(counted);
            prop_assert!(health.due >= now && health.due.since(now) <= Duration::from_millis(1_100));
        }
    }
}
