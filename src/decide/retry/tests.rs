//! Retries: who gets one, how long a try may take, and what a budget never allows.

use proptest::prelude::*;

use super::*;
use crate::base::entropy::Rng;

const MS: Duration = Duration::from_millis(1);

fn case() -> Case {
    Case {
        failure: Failure::Reset,
        tries: 1,
        repeatable: true,
        replayable: true,
        home: false,
        remaining: 400 * MS,
        expected: 10 * MS,
    }
}

#[test]
fn a_retry_is_safe_possible_useful_and_allowed() {
    use Failure::{Connect, Overload, Reset, Status, Timeout, Unprocessed};
    let policy = Retry::default();
    let yes = case();
    let no = Case { repeatable: false, ..yes };
    let home = Case { home: true, ..yes };
    let cases = [
        (Case { failure: Connect, ..no }, Ok(())),
        (Case { failure: Unprocessed, ..no }, Ok(())),
        (Case { failure: Reset, ..no }, Err(Refusal::Unsafe)),
        (Case { failure: Timeout, ..no }, Err(Refusal::Unsafe)),
        (Case { failure: Status(502), ..no }, Err(Refusal::Unsafe)),
        (Case { failure: Reset, ..yes }, Ok(())),
        (Case { failure: Timeout, ..yes }, Ok(())),
        (Case { failure: Status(504), ..yes }, Ok(())),
        (Case { failure: Overload, ..yes }, Err(Refusal::Overload)),
        (Case { replayable: false, ..yes }, Err(Refusal::Body)),
        (Case { failure: Connect, replayable: false, ..yes }, Err(Refusal::Body)),
        (Case { tries: 2, ..yes }, Ok(())),
        (Case { tries: 3, ..yes }, Err(Refusal::Tries)),
        (Case { remaining: 9 * MS, ..yes }, Err(Refusal::Deadline)),
        (Case { remaining: 4 * MS, expected: MS, ..yes }, Err(Refusal::Deadline)),
        (Case { failure: Connect, ..home }, Ok(())),
        (Case { failure: Connect, tries: 2, ..home }, Err(Refusal::Tries)),
        (Case { failure: Reset, ..home }, Err(Refusal::Unsafe)),
    ];
    for (case, want) in cases {
        assert_eq!(judge(&policy, &case), want, "{case:?}");
    }
    assert_eq!(judge(&Retry { tries: 1, ..policy }, &Case { failure: Connect, ..yes }), Err(Refusal::Tries));
}

#[test]
fn a_post_is_repeatable_only_under_a_key_that_the_route_honours() {
    let plain = HeaderMap::new();
    let keyed: HeaderMap =
        [(http::HeaderName::from_static("idempotency-key"), "k".parse().unwrap())].into_iter().collect();
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"] {
        assert!(is_repeatable(&Method::from_bytes(method.as_bytes()).unwrap(), &plain, false), "{method}");
    }
    assert!(!is_repeatable(&Method::POST, &plain, true));
    assert!(is_repeatable(&Method::POST, &keyed, true));
    assert!(!is_repeatable(&Method::POST, &keyed, false));
    assert!(!is_repeatable(&Method::PATCH, &keyed, true));
    assert!(!is_repeatable(&Method::CONNECT, &keyed, true));
}

#[test]
fn too_much_is_not_broken() {
    let none = HeaderMap::new();
    let waits: HeaderMap = [(header::RETRY_AFTER, "1".parse().unwrap())].into_iter().collect();
    let marked: HeaderMap =
        [(http::HeaderName::from_static("x-overloaded"), "1".parse().unwrap())].into_iter().collect();
    let of = |code: u16, headers| classify(StatusCode::from_u16(code).unwrap(), headers);
    assert_eq!(of(429, &none), (Outcome::Pressure, Some(Failure::Overload)));
    assert_eq!(of(503, &waits), (Outcome::Pressure, Some(Failure::Overload)));
    assert_eq!(of(503, &marked), (Outcome::Pressure, Some(Failure::Overload)));
    assert_eq!(of(503, &none), (Outcome::GatewayError, Some(Failure::Status(503))));
    assert_eq!(of(502, &waits), (Outcome::GatewayError, Some(Failure::Status(502))));
    for code in [200, 304, 404, 500, 501, 505] {
        assert_eq!(of(code, &none), (Outcome::Ok, None), "{code}");
    }
}

#[test]
fn a_try_leaves_time_for_the_next_one() {
    let policy = Retry::default();
    let latency = |ms: f64| ms * 1e6;
    assert_eq!(per_try_timeout(&policy, latency(2.0), true, 500 * MS), 75 * MS, "never below a hiccup");
    assert_eq!(per_try_timeout(&policy, latency(30.0), true, 500 * MS), 180 * MS);
    assert_eq!(per_try_timeout(&policy, latency(900.0), true, 500 * MS), 250 * MS, "at most half of what is left");
    assert_eq!(per_try_timeout(&policy, latency(2.0), false, 500 * MS), 500 * MS, "the last try may take all of it");
    assert_eq!(per_try_timeout(&policy, f64::NAN, true, 500 * MS), 75 * MS);
    let said = Retry { per_try: Some(40 * MS), ..policy };
    assert_eq!(per_try_timeout(&said, latency(30.0), true, 500 * MS), 40 * MS);
}

#[test]
fn the_first_retry_and_one_elsewhere_wait_for_nothing() {
    let mut rng = Rng::seeded(1);
    assert_eq!(pause(0, true, Duration::from_secs(9), &mut rng), Duration::ZERO);
    assert_eq!(pause(3, false, Duration::from_secs(9), &mut rng), Duration::ZERO);
    let mut most =
        |before, remaining| (0..500).map(|_| pause(before, true, remaining, &mut Rng::seeded(rng.next_u64()))).max();
    let nine = Duration::from_secs(9);
    assert!(most(1, nine).is_some_and(|d| d > 45 * MS && d <= 50 * MS));
    assert!(most(60, nine).is_some_and(|d| d > 230 * MS && d <= 250 * MS));
    assert!(most(60, 40 * MS).is_some_and(|d| d <= 10 * MS));
}

#[test]
fn a_budget_holds_its_share_and_forgets_after_ten_seconds() {
    let mut budget = Budget::new(1);
    let at = |s: u64| Mono::from_millis(s * 1_000);
    let drain = |budget: &mut Budget, now| (0..100_000).take_while(|_| budget.spend(now)).count();
    assert_eq!(drain(&mut budget, at(5)), 100, "the allowance: ten a second for ten seconds");
    for _ in 0..1_000 {
        budget.earn(0.2, at(6));
    }
    assert_eq!(drain(&mut budget, at(6)), 200, "a fifth of the requests");
    assert_eq!(drain(&mut budget, at(14)), 0);
    assert_eq!(drain(&mut budget, at(15)), 100, "what was spent ten seconds ago is forgotten");
    for _ in 0..1_000 {
        budget.earn(0.2, at(20));
    }
    assert_eq!(drain(&mut budget, at(30)), 100, "what was earned ten seconds ago too");
    let small = Budget::new(4);
    assert_eq!(small.left(), 25_000, "workers share the allowance");
}

#[test]
fn budgets_belong_to_a_topology() {
    let mut budgets = Budgets::default();
    let now = Mono::from_millis(1_000);
    assert!(budgets.of(1, ServiceId::new(2), 1).spend(now));
    assert_eq!(budgets.of(1, ServiceId::new(2), 1).left(), 99_000);
    assert_eq!(budgets.of(1, ServiceId::new(0), 1).left(), 100_000);
    assert!(budgets.of(2, ServiceId::new(2), 1).spend(now));
    assert_eq!(budgets.of(1, ServiceId::new(2), 1).left(), 99_000, "a request from before the reload changes nothing");
    assert_eq!(budgets.of(2, ServiceId::new(2), 1).left(), 99_000);
}

proptest! {
    /// In any ten seconds: at most the share of the requests of those and the nine before, plus the allowance.
    #[test]
    fn no_stretch_of_traffic_overdraws_a_budget(
        share in 0.0f64..0.5, steps in prop::collection::vec((0u64..3_000, 0u32..40, 0u32..40), 1..120),
    ) {
        let mut budget = Budget::new(1);
        let mut log: Vec<(u64, u32, u32)> = Vec::new();
        let mut now = 1_000;
        for (gap, requests, wanted) in steps {
            now += gap;
            (0..requests).for_each(|_| budget.earn(share, Mono::from_millis(now)));
            let got = (0..wanted).filter(|_| budget.spend(Mono::from_millis(now))).count() as u32;
            log.push((now / 1_000, requests, got));
            let within = |seconds: u64| log.iter().filter(move |(s, ..)| s + seconds > now / 1_000);
            let retries: u32 = within(10).map(|(.., got)| got).sum();
            let earned: f64 = within(20).map(|(_, requests, _)| f64::from(*requests) * share).sum();
            prop_assert!(f64::from(retries) <= earned + 100.0 + 1.0, "{retries} of {earned}");
        }
    }
}
