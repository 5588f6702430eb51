//! The table of states, and the weights that go with them.

use super::*;
use crate::config::{Balance, Class, Passive, Probe, Protocol, Retry};
use crate::decide::verdict;
use crate::snapshot::load::Sample;

const NOW: Mono = Mono::from_millis(1_000_000);
const S: Duration = Duration::from_secs(1);

fn service() -> Service {
    Service {
        name: "s".into(),
        class: Class::Critical,
        balance: Balance::P2c,
        probe: None,
        passive: Passive::default(),
        deadline: S,
        retry: Retry::default(),
        slow_start: 10 * S,
        panic_below: 0.5,
        homing: crate::config::Homing::default(),
        limits: crate::config::Limits::default(),
        session: None,
        protocol: Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends: Vec::new(),
    }
}

fn target(verdict: Verdict, streak_ok: u32) -> TargetHealth {
    TargetHealth { verdict, streak_ok, ..verdict::fresh(&Probe::reference(), NOW, 0) }
}

fn backend(state: BackendState) -> BackendHealth {
    BackendHealth { state, ..fresh(NOW - 100 * S) }
}

fn at(before: &BackendHealth, target: Option<&TargetHealth>, taken: Option<Taken>) -> Standing {
    stand(before, target, Order { taken, weight: None, ..Order::default() }, 2, &service(), true, NOW)
}

#[test]
fn an_operator_wins_over_probes_and_probes_over_traffic() {
    let (up, down) = (target(Verdict::Up, 9), target(Verdict::Down, 0));
    let mut ejected = backend(BackendState::Ejected);
    ejected.ejected = Some((EjectReason::SuccessRate, NOW + S));
    for (target, taken, state) in [
        (&up, Some(Taken::Down), BackendState::AdminDown),
        (&down, Some(Taken::Drained), BackendState::Drained),
        (&down, None, BackendState::Down),
        (&up, None, BackendState::Ejected),
    ] {
        let standing = at(&ejected, Some(target), taken);
        assert_eq!((standing.state, standing.weight), (state, 0));
    }
    assert_eq!(at(&ejected, Some(&down), None).ejected, None, "the probe knows better: the ejection is over");
}

#[test]
fn an_ejection_opens_half_once_it_is_over_and_two_probes_were_good() {
    let mut ejected = backend(BackendState::Ejected);
    ejected.ejected = Some((EjectReason::SuccessRate, NOW));
    assert_eq!(at(&ejected, Some(&target(Verdict::Up, 1)), None).state, BackendState::Ejected);
    let open = at(&ejected, Some(&target(Verdict::Up, 2)), None);
    assert_eq!((open.state, open.weight), (BackendState::HalfOpen, 200));
    assert_eq!(at(&ejected, None, None).state, BackendState::HalfOpen, "who is not probed is tried");
    ejected.ejected = Some((EjectReason::SuccessRate, NOW + S));
    assert_eq!(at(&ejected, Some(&target(Verdict::Up, 99)), None).state, BackendState::Ejected);
}

#[test]
fn who_was_out_comes_back_slowly_and_a_boot_is_no_return() {
    let up = target(Verdict::Up, 2);
    for state in [BackendState::Down, BackendState::Drained, BackendState::AdminDown] {
        let standing = at(&backend(state), Some(&up), None);
        assert_eq!((standing.state, standing.weight), (BackendState::SlowStart, 200), "from {state:?}");
        let undone = stand(&backend(state), Some(&up), Order::default(), 2, &service(), false, NOW);
        assert_eq!((undone.state, undone.weight), (BackendState::Healthy, 2_000), "a freeze that was undone");
    }
    let fresh = backend(BackendState::Unknown);
    assert_eq!(at(&fresh, Some(&target(Verdict::Unknown, 0)), None).weight, 2_000);
    assert_eq!(at(&fresh, Some(&up), None).state, BackendState::Healthy);
    let mut ramping = backend(BackendState::SlowStart);
    for (age, weight) in [(0, 200), (3, 600), (9, 1_800), (10, 2_000)] {
        ramping.ramp_from = Some(NOW - age * S);
        assert_eq!(at(&ramping, Some(&up), None).weight, weight, "after {age} s");
    }
    let instant = Service { slow_start: Duration::ZERO, ..service() };
    let back = stand(&backend(BackendState::Down), Some(&up), Order::default(), 2, &instant, true, NOW);
    assert_eq!(back.state, BackendState::Healthy);
}

#[test]
fn a_recent_failure_makes_suspect_and_fades() {
    let mut health = backend(BackendState::Healthy);
    health.recent = vec![(NOW - S, Sample { reset: 1, ..Sample::default() })];
    assert_eq!(at(&health, Some(&target(Verdict::Up, 5)), None).state, BackendState::Suspect);
    health.recent[0].0 = NOW - 2 * S;
    assert_eq!(at(&health, Some(&target(Verdict::Up, 5)), None).state, BackendState::Healthy);
    let doubtful = TargetHealth { streak_failed: 1, ..target(Verdict::Up, 0) };
    let standing = at(&health, Some(&doubtful), None);
    assert_eq!((standing.state, standing.weight), (BackendState::Suspect, 2_000), "suspicion costs no weight");
}

#[test]
fn pressure_lowers_the_weight_and_a_wish_replaces_it() {
    let mut health = backend(BackendState::Healthy);
    let pressed = |ok, pressure| vec![(NOW, Sample { ok, pressure, ..Sample::default() })];
    let up = target(Verdict::Up, 5);
    for (recent, weight) in [(pressed(5, 4), 2_000), (pressed(7, 3), 1_400), (pressed(0, 99), 200)] {
        health.recent = recent;
        let standing = at(&health, Some(&up), None);
        assert_eq!((standing.state, standing.weight), (BackendState::Healthy, weight));
    }
    health.recent.clear();
    let order = Order { taken: None, weight: Some(7), ..Order::default() };
    assert_eq!(stand(&health, Some(&up), order, 2, &service(), true, NOW).weight, 7_000);
}

#[test]
fn ejections_are_forgotten_by_the_minute() {
    let mut health = backend(BackendState::Healthy);
    (health.ejections, health.clean_from) = (3, NOW - 130 * S);
    let standing = at(&health, None, None);
    assert_eq!((standing.ejections, standing.clean_from), (1, NOW - 10 * S));
}
