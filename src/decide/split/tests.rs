//! Shares, what moves when a weight changes, and who may choose.

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assume, proptest};

use super::{HeaderMap, IpAddr, Override, ServiceId, Sides, Split, UserKey, Why};
use crate::base::entropy::Rng;
use crate::base::hash;
use crate::decide::balance::user::hash_of;

const ANYBODY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn sides(weights: &[u32]) -> Sides {
    const NAMES: [&str; 5] = ["gifts", "gifts-next", "gifts-old", "gifts-odd", "gifts-far"];
    let sides = weights.iter().enumerate().map(|(i, weight)| (ServiceId::new(i), *weight)).collect();
    Sides::of(&Split { sides, choice: None }, |service| NAMES[service.index()])
}

fn side_of(sides: &Sides, user: u64) -> Option<usize> {
    sides.choose(&HeaderMap::new(), ANYBODY, Some(user), &mut Rng::seeded(1)).map(|choice| choice.side)
}

#[test]
fn users_stay_where_releases_have_put_them() {
    // Pinned: another answer moves users of a running gray release.
    let sides = sides(&[90, 10]);
    let canary: Vec<u32> = (0..240).filter(|i| side_of(&sides, hash_of(i.to_string().as_bytes())) == Some(1)).collect();
    assert_eq!(canary, [69, 75, 83, 97, 106, 139, 147, 156, 158, 174, 181, 182, 186, 220, 224, 225, 233]);
}

#[test]
fn who_names_no_user_is_dealt_by_lot() {
    let (sides, mut rng) = (sides(&[3, 0, 1]), Rng::seeded(7));
    let mut drawn = [0_u32; 3];
    for _ in 0..40_000 {
        let choice = sides.choose(&HeaderMap::new(), ANYBODY, None, &mut rng).unwrap();
        assert_eq!(choice.why, Why::Lot);
        drawn[choice.side] += 1;
    }
    assert!(drawn[0].abs_diff(30_000) < 600 && drawn[1] == 0, "{drawn:?}");
}

#[test]
fn only_listed_values_of_those_who_may_choose_a_side() {
    let choice = |by, from: &[&str]| Override {
        by,
        values: vec![("always".into(), 1), ("never".into(), 0)],
        from: from.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let with = |by, from: &[&str]| Sides { choice: Some(choice(by, from)), ..sides(&[1, 0]) };
    let header = || UserKey::Header("x-canary".into());
    let inside = IpAddr::from([10, 1, 2, 3]);
    for (sides, name, value, client, want) in [
        (with(header(), &[]), "x-canary", "always", ANYBODY, (1, Why::Override)),
        (with(header(), &[]), "x-canary", "never", ANYBODY, (0, Why::Override)),
        (with(header(), &[]), "x-canary", "Always", ANYBODY, (0, Why::User)),
        (with(header(), &[]), "x-canary", "", ANYBODY, (0, Why::User)),
        (with(header(), &["10.0.0.0/8"]), "x-canary", "always", ANYBODY, (0, Why::User)),
        (with(header(), &["10.0.0.0/8"]), "x-canary", "always", inside, (1, Why::Override)),
        (with(header(), &["10.0.0.0/8"]), "x-canary", "always", "::ffff:10.1.2.3".parse().unwrap(), (1, Why::Override)),
        (with(UserKey::Cookie("side".into()), &[]), "cookie", "a=b; side=always", ANYBODY, (1, Why::Override)),
        (with(UserKey::Cookie("side".into()), &[]), "x-canary", "always", ANYBODY, (0, Why::User)),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(http::HeaderName::from_static(name), value.parse().unwrap());
        let choice = sides.choose(&headers, client, Some(7), &mut Rng::seeded(1)).unwrap();
        assert_eq!((choice.side, choice.why), want, "{name}: {value} from {client}");
    }
}

#[test]
fn without_a_weight_there_is_no_side() {
    assert_eq!(side_of(&sides(&[0, 0]), 1), None);
    assert_eq!(sides(&[0]).choose(&HeaderMap::new(), ANYBODY, None, &mut Rng::seeded(1)), None);
    assert_eq!(sides(&[]).choose(&HeaderMap::new(), ANYBODY, Some(1), &mut Rng::seeded(1)), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(0_u32..100, 1..5), seed: u64) {
        let (sides, total) = (sides(&weights), weights.iter().sum::<u32>());
        prop_assume!(total > 0);
        let mut counts = vec![0_u32; weights.len()];
        for user in 0..4_000_u64 {
            counts[side_of(&sides, hash::join(seed, user)).unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let want = f64::from(*weight) / f64::from(total);
            // Five standard deviations of a binomial count, and one for rounding.
            let slack = 5.0 * (4_000.0 * want * (1.0 - want)).sqrt() + 1.0;
            prop_assert!((f64::from(*count) - 4_000.0 * want).abs() <= slack, "{:?} {:?}", counts, weights);
        }
    }

    #[test]
    fn who_moves_when_a_weight_grows_moves_to_it(
        weights in prop::collection::vec(0_u32..100, 2..5), grows in 0_usize..4, by in 1_u32..50, seed: u64,
    ) {
        let grows = grows % weights.len();
        let mut grown = weights.clone();
        grown[grows] += by;
        let (before, after) = (sides(&weights), sides(&grown));
        for user in 0..500_u64 {
            let user = hash::join(seed, user);
            let (old, new) = (side_of(&before, user), side_of(&after, user));
            prop_assert!(old == new || new == Some(grows), "{:?} -> {:?}", old, new);
        }
    }
}
