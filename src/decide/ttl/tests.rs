//! Tests.

use proptest::prelude::*;

use super::*;
use crate::snapshot::intent::{Intent, Subject, Wish};

const S: Duration = Duration::from_secs(1);

fn target(verdict: Verdict, streak_ok: u32, streak_failed: u32, leaky: u32) -> TargetHealth {
    let fresh = verdict::fresh(&Probe::reference(), Mono::ZERO, 0);
    TargetHealth { verdict, streak_ok, streak_failed, leaky, ..fresh }
}

#[test]
fn only_what_points_to_a_change_is_near() {
    let probe = Probe { fall: 3, ..Probe::reference() };
    for (health, expected) in [
        (target(Verdict::Up, 5, 0, 0), None),
        (target(Verdict::Down, 0, 9, 6), None),
        (target(Verdict::Unknown, 0, 0, 0), Some(S)),
        (target(Verdict::Up, 0, 1, 1), Some(2 * S)),
        (target(Verdict::Up, 0, 2, 5), Some(S)),
        (target(Verdict::Up, 4, 0, 2), Some(4 * S)),
        (target(Verdict::Down, 1, 0, 6), Some(S)),
    ] {
        assert_eq!(until_verdict(&health, &probe), expected, "{health:?}");
    }
}

#[test]
fn a_ramp_and_the_end_of_an_intent_are_near() {
    let weight = DcWeight { ramp_from: Some(Mono::from_millis(1_000)), ..DcWeight::default() };
    assert_eq!(until_weight(&weight, 18 * S, Mono::from_millis(1_400)), Some(Duration::from_millis(600)));
    assert_eq!(until_weight(&DcWeight::default(), 18 * S, Mono::ZERO), None);
    let intent = |until| Intent {
        subject: Subject::Datacenter("a".into()),
        wish: Wish::Drain,
        since: Wall(0),
        until,
        by: String::new(),
        reason: String::new(),
    };
    let intents = Intents { entries: vec![intent(None), intent(Some(Wall(9_000))), intent(Some(Wall(70_000)))] };
    assert_eq!(until_intent(&intents, Wall(1_000)), Some(8 * S));
}

#[test]
fn values_are_few() {
    for (soonest, ttl) in [(None, 45), (Some(100), 45), (Some(44), 30), (Some(14), 10), (Some(7), 7), (Some(0), 7)] {
        assert_eq!(choose(45 * S, 7 * S, soonest.map(|s| s * S)), ttl, "{soonest:?}");
    }
    assert_eq!(choose(3 * S, 10 * S, Some(S)), 3, "a minimum above the base is the base");
}

proptest! {
    #[test]
    fn a_ttl_lies_between_its_ends_and_outlives_no_change(base in 0u64..100, least in 0u64..100, soonest in 0u64..200) {
        let ttl = u64::from(choose(base as u32 * S, least as u32 * S, Some(soonest as u32 * S)));
        let least = least.min(base);
        prop_assert!((least..=base).contains(&ttl));
        prop_assert!(ttl <= soonest.max(least));
    }
}
