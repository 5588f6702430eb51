//! Tests.

use proptest::prelude::*;

use super::*;
use crate::decide::standing;
use crate::snapshot::health::BackendState::{AdminDown, Down, Drained, Ejected, HalfOpen, Healthy};

const S: Duration = Duration::from_secs(1);

fn sample(ok: u32, refused: u32, gateway_error: u32) -> Sample {
    Sample { ok, refused, gateway_error, streak_failures: refused, streak_errors: gateway_error, ..Sample::default() }
}

fn reason_of(samples: &[Sample], unproven: bool) -> Option<EjectReason> {
    let mut health = standing::fresh(Mono::ZERO);
    let mut now = Mono::from_millis(10_000);
    for sample in samples {
        absorb(&mut health.recent, sample, now);
        now = now + S;
    }
    reason(&health, samples.last().unwrap(), unproven, &Passive::default())
}

#[test]
fn each_reason_has_its_own_mark() {
    assert_eq!(reason_of(&[sample(0, 2, 0)], false), None);
    assert_eq!(reason_of(&[sample(0, 3, 0)], false), Some(EjectReason::ConsecutiveFailures));
    assert_eq!(reason_of(&[sample(0, 0, 4)], false), None);
    assert_eq!(reason_of(&[sample(0, 0, 5)], false), Some(EjectReason::ConsecutiveErrors));
    let mixed = |ok, reset| Sample { ok, reset, ..Sample::default() };
    assert_eq!(reason_of(&[mixed(16, 4)], false), None, "0.8 is not below 0.8");
    assert_eq!(reason_of(&[mixed(15, 4)], false), None, "19 requests say nothing");
    assert_eq!(reason_of(&[mixed(15, 5)], false), Some(EjectReason::SuccessRate));
    assert_eq!(reason_of(&[mixed(8, 3), mixed(7, 2)], false), Some(EjectReason::SuccessRate), "over the window");
    let old = Sample { streak_failures: 9, ok: 5, ..Sample::default() };
    assert_eq!(reason_of(&[old], false), None, "a streak without a failure in the sample is yesterday's");
}

#[test]
fn who_never_worked_is_forgiven_three_failures() {
    assert_eq!(reason_of(&[sample(0, 5, 0)], true), None);
    assert_eq!(reason_of(&[sample(0, 6, 0)], true), Some(EjectReason::ConsecutiveFailures));
}

#[test]
fn pressure_never_ejects() {
    let pressed = Sample { ok: 1, pressure: 1_000, ..Sample::default() };
    assert_eq!(reason_of(&[pressed], false), None);
}

#[test]
fn zero_switches_a_reason_off() {
    let off = Passive {
        consecutive_failures: 0,
        consecutive_errors: 0,
        success_below: 0.0,
        slower_than_peers: 0.0,
        max_ejected: 0.0,
        ..Passive::default()
    };
    let mut health = standing::fresh(Mono::ZERO);
    let bad = sample(0, 50, 50);
    absorb(&mut health.recent, &bad, Mono::ZERO);
    assert_eq!(reason(&health, &bad, false, &off), None);
    assert!(!slow(&Sample { ok: 99, p90_us: 9_000_000, ..Sample::default() }, &mut [1, 1], &off));
    assert!(!allowed(EjectReason::ConsecutiveFailures, [Healthy; 9].into_iter(), &off));
}

#[test]
fn success_is_judged_beside_five_or_more() {
    let ask = |own, all: &[f64]| below_peers(own, all, &Passive::default());
    assert!(ask(0.85, &[1.0, 1.0, 0.99, 1.0, 0.85]), "well above 80 %, and yet it stands out");
    assert!(!ask(0.85, &[1.0, 1.0, 1.0, 0.85]), "of four nobody does");
    assert!(!ask(0.95, &[1.0, 1.0, 1.0, 1.0, 0.95]), "less than ten points are no matter");
    assert!(!ask(0.85, &[0.9, 0.95, 0.99, 0.88, 0.85]), "where all are uneven none stands out");
    assert!(!ask(0.5, &[0.5, 0.5, 1.0, 1.0, 1.0, 1.0]), "two of six are no outliers");
    let never = Passive { below_peers: 0.0, ..Passive::default() };
    assert!(!below_peers(0.1, &[1.0, 1.0, 1.0, 1.0, 1.0, 0.1], &never));
    assert_eq!(success(&standing::fresh(Mono::ZERO)), None, "nobody asked");
}

#[test]
fn slow_is_beside_the_peers_and_above_the_floor() {
    let window = |p90_ms: u64, ok| Sample { ok, p90_us: p90_ms * 1_000, ..Sample::default() };
    let passive = Passive::default();
    let is_slow =
        |w: Sample, peers: &[u64]| slow(&w, &mut peers.iter().map(|ms| ms * 1_000).collect::<Vec<_>>(), &passive);
    assert!(is_slow(window(100, 10), &[20, 30, 25]));
    assert!(!is_slow(window(70, 10), &[20, 30, 25]), "not three times the median");
    assert!(!is_slow(window(45, 10), &[1, 1, 1]), "below the floor nobody is hurt");
    assert!(!is_slow(window(100, 9), &[20, 30, 25]), "nine requests say nothing");
    assert!(!is_slow(window(100, 10), &[]), "nobody to compare with");
    assert!(is_slow(window(200, 10), &[20, 300]), "of two peers the faster one is the median");
}

#[test]
fn a_share_of_the_peers_is_out_at_most_and_never_the_last_one() {
    let passive = Passive::default();
    let ask = |reason, peers: &[BackendState]| allowed(reason, peers.iter().copied(), &passive);
    let (local, rate) = (EjectReason::ConsecutiveFailures, EjectReason::SuccessRate);
    assert!(!ask(local, &[]), "alone");
    assert!(ask(local, &[Healthy]) && !ask(rate, &[Healthy]), "of two: only who can't be reached");
    assert!(!ask(local, &[Down]) && !ask(local, &[Ejected]) && !ask(local, &[HalfOpen]), "the last usable one stays");
    assert!(ask(rate, &[Healthy, Healthy]));
    assert!(!ask(rate, &[Healthy, Ejected]), "one of three");
    assert!(ask(rate, &[Healthy, Healthy, Healthy, Healthy, Ejected]), "two of six");
    assert!(!ask(rate, &[Healthy, Healthy, AdminDown, Drained, Ejected]), "who was taken out does not count");
    assert!(ask(rate, &[Healthy, Down, Down, Down, Down]), "nor does who is down by its probes use up the share");
}

#[test]
fn seconds_are_slots_and_old_ones_are_forgotten() {
    let mut recent = Vec::new();
    let at = |ms| Mono::from_millis(ms);
    assert_eq!(absorb(&mut recent, &sample(1, 0, 0), at(10_000)), None);
    assert_eq!(absorb(&mut recent, &sample(2, 1, 0), at(10_900)), None);
    let closed = absorb(&mut recent, &sample(4, 0, 0), at(11_050)).unwrap();
    assert_eq!((closed.0, closed.1.ok, closed.1.refused), (at(10_000), 3, 1));
    absorb(&mut recent, &sample(1, 0, 0), at(20_500));
    assert_eq!(recent.len(), 2, "ten seconds");
}

proptest! {
    #[test]
    fn pauses_double_up_to_five_minutes_within_a_fifth(n in 1u8..40, seed: u64, at in 0u64..1_000_000) {
        let mut health = standing::fresh(Mono::ZERO);
        health.ejections = u32::from(n) - 1;
        let now = Mono::from_millis(at);
        eject(&mut health, EjectReason::SuccessRate, &Passive::default(), now, seed);
        let (reason, until) = health.ejected.unwrap();
        let nominal = (5.0 * 2f64.powi(i32::from(n) - 1)).min(300.0);
        let pause = until.since(now).as_secs_f64();
        prop_assert_eq!(reason, EjectReason::SuccessRate);
        prop_assert!((0.799 * nominal..=1.201 * nominal).contains(&pause), "{pause} of {nominal}");
    }

    #[test]
    fn merging_samples_loses_no_request(parts in prop::collection::vec((0u32..99, 0u32..99, 0u32..99, 1u64..9_999), 1..20)) {
        let mut recent = Vec::new();
        for &(ok, refused, errors, p90_us) in &parts {
            absorb(&mut recent, &Sample { p90_us, ..sample(ok, refused, errors) }, Mono::from_millis(500));
        }
        let merged = &recent[0].1;
        prop_assert_eq!(merged.total(), parts.iter().map(|p| p.0 + p.1 + p.2).sum::<u32>());
        prop_assert!(merged.p90_us <= parts.iter().map(|p| p.3).max().unwrap());
    }
}
