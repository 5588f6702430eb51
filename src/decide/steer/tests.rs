//! Shares, stickiness and movement of steering, and the cases that an operator asks about.

use DcState::{Absent, AdminDown, Drained, Failed, Serving};
use proptest::prelude::*;

use super::*;

/// A plan for datacenters of these effective and configured weights.
fn plan(order: Order, weights: &[(u64, u32)], near: Option<&[&[&str]]>) -> Plan {
    let salt = hash::bytes(0, b"www.example.test.");
    let seats = weights.iter().enumerate().map(|(i, &(effective, configured))| Seat {
        hash: hash::bytes(salt, format!("dc{i}").as_bytes()),
        state: if effective > 0 { Serving } else { Failed },
        configured,
        effective,
        weight: effective as f64,
    });
    let nets: Option<Vec<Vec<ipnet::IpNet>>> =
        near.map(|all| all.iter().map(|nets| nets.iter().map(|n| n.parse().unwrap()).collect()).collect());
    Plan {
        seats: seats.collect(),
        near: nets.map(|nets| Arc::new(Near::build(nets.iter().map(Vec::as_slice)))),
        order,
        salt,
        answers: 2,
        prefix: (24, 56),
        forced: None,
    }
}

fn client(address: &str) -> Client {
    Client::new(address.parse().unwrap(), (24, 56))
}

/// Ten thousand subnets, neighbours among them: what a population of resolvers looks like.
fn subnets() -> impl Iterator<Item = Client> {
    (0..10_000u32).map(|i| Client::new(IpAddr::V4((0x0b00_0000 + (i << 8)).into()), (24, 56)))
}

fn shares(plan: &Plan, clients: impl Iterator<Item = Client>) -> Vec<f64> {
    let mut counts = vec![0u32; plan.seats.len()];
    let mut all = 0;
    for client in clients {
        counts[usize::from(plan.choose(&client).picks()[0])] += 1;
        all += 1;
    }
    counts.iter().map(|n| f64::from(*n) / f64::from(all)).collect()
}

const WHOLE: [(u64, u32); 3] = [(40_000, 40), (40_000, 40), (20_000, 20)];
const NEAR: &[&[&str]] = &[&["10.1.0.0/16"], &["10.2.0.0/16", "10.1.128.0/20"], &["10.3.0.0/16"]];

#[test]
fn near_comes_first_and_weights_decide_the_rest() {
    let plan = plan(Order::Weighted, &WHOLE, Some(NEAR));
    for (address, first) in [("10.1.2.3", 0), ("10.2.2.3", 1), ("10.1.130.1", 1), ("10.3.0.1", 2)] {
        let choice = plan.choose(&client(address));
        assert_eq!((choice.picks()[0], choice.reason, choice.picks().len()), (first, Reason::Near, 2), "{address}");
        assert_ne!(choice.picks()[1], first, "the second is another datacenter");
    }
    let far = plan.choose(&client("192.0.2.1"));
    assert_eq!((far.reason, far.scope), (Reason::Weighted, 24));
    let behind = subnets().filter(|c| plan.choose(c).reason == Reason::Weighted).count();
    assert_eq!(behind, 10_000, "nobody is near to 11/8");
}

#[test]
fn a_near_datacenter_that_is_down_leaves_its_clients_to_the_weights() {
    let plan = plan(Order::Weighted, &[(0, 40), (40_000, 40), (20_000, 20)], Some(NEAR));
    let clients = || (0..=255u32).map(|i| Client::new(IpAddr::V4((0x0a01_0000 + (i << 8)).into()), (24, 56)));
    let of_it = clients().filter(|c| plan.is_near(0, c));
    let shares = shares(&plan, of_it);
    assert!(shares[0] == 0.0 && (0.55..0.78).contains(&shares[1]), "{shares:?}");
}

#[test]
fn a_near_datacenter_that_is_half_well_sheds_half_of_its_clients_and_never_takes_one_back() {
    let at = |factor: u64| {
        plan(Order::Weighted, &[(40 * factor, 40), (40_000, 40), (20_000, 20)], Some(&[&["0.0.0.0/0"], &[], &[]]))
    };
    let mut gone = std::collections::HashSet::new();
    for factor in [1_000, 900, 700, 500, 200, 50] {
        let plan = at(factor);
        let mut kept = 0;
        for client in subnets() {
            let choice = plan.choose(&client);
            let stays = choice.picks()[0] == 0;
            assert_eq!(stays, choice.reason == Reason::Near);
            assert_eq!(!stays, choice.reason == Reason::NearShed);
            assert!(!(stays && gone.contains(&client.network)), "a further loss brings nobody back");
            if stays {
                kept += 1;
            } else {
                gone.insert(client.network);
            }
            assert_eq!(choice.scope, 24, "stable, whatever health does");
        }
        assert!((f64::from(kept) - 10.0 * factor as f64).abs() < 200.0, "{factor}: {kept}");
    }
}

#[test]
fn failover_takes_the_first_that_serves_in_order() {
    let of = |weights: &[(u64, u32)]| plan(Order::Listed, weights, None).choose(&client("10.9.9.9"));
    assert_eq!((of(&WHOLE).picks(), of(&WHOLE).scope, of(&WHOLE).reason), (&[0, 1][..], 0, Reason::Failover));
    assert_eq!(of(&[(0, 40), (1, 40), (20_000, 20)]).picks(), [1, 2]);
    assert_eq!(of(&[(0, 40), (0, 40), (20_000, 20)]).picks(), [2]);
    let near = plan(Order::Listed, &WHOLE, Some(NEAR));
    assert_eq!((near.choose(&client("10.3.0.1")).picks(), near.choose(&client("10.3.0.1")).scope), (&[2, 0][..], 16));
    assert_eq!(near.choose(&client("10.1.129.1")).scope, 20, "the leaf, not the rule");
    assert_eq!(near.choose(&client("10.1.2.1")).scope, 17);
    assert_eq!(near.choose(&client("192.0.2.1")).scope, 1);
}

#[test]
fn spread_gives_everybody_the_same_share_whatever_the_weights() {
    let plan = plan(Order::Spread, &[(90_000, 90), (9_000, 9), (1_000, 1)], None);
    for share in shares(&plan, subnets()) {
        assert!((share - 1.0 / 3.0).abs() < 0.02, "{share}");
    }
    assert_eq!(plan.choose(&client("10.9.9.9")).reason, Reason::Spread);
}

#[test]
fn weights_are_shares_within_two_points_over_ten_thousand_subnets() {
    for weights in [
        WHOLE.as_slice(),
        &[(50_000, 50), (30_000, 30), (20_000, 20)],
        &[(1_000, 1), (1_000, 1)],
        &[(70_000, 70), (0, 30)],
    ] {
        let plan = plan(Order::Weighted, weights, None);
        let total: u64 = weights.iter().map(|w| w.0).sum();
        for (share, (weight, _)) in shares(&plan, subnets()).iter().zip(weights) {
            assert!((share - *weight as f64 / total as f64).abs() < 0.02, "{weights:?}: {share}");
        }
    }
    let six = (0..10_000u128).map(|i| Client::new(IpAddr::V6(((0x2001_0db8 << 96) + (i << 72)).into()), (24, 56)));
    for (share, want) in shares(&plan(Order::Weighted, &WHOLE, None), six).iter().zip([0.4, 0.4, 0.2]) {
        assert!((share - want).abs() < 0.02, "{share}");
    }
}

#[test]
fn a_client_is_its_network() {
    assert_eq!(client("10.1.2.3"), client("10.1.2.250"));
    assert_ne!(client("10.1.2.3"), client("10.1.3.3"));
    assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:ff::2"));
    assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:102::1"));
}

#[test]
fn what_can_serve_is_preferred_when_everything_is_down() {
    let seats = |states: &[(DcState, u32)]| -> Vec<Seat> {
        let seat = |&(state, configured)| Seat { hash: 0, state, configured, effective: 0, weight: 0.0 };
        states.iter().map(seat).collect()
    };
    let served = |states: &[(DcState, u32)]| {
        let mut seats = seats(states);
        let reason = all_down(&mut seats, &OnAllDown::ServeAll);
        (reason, seats.iter().map(|s| s.weight as u32).collect::<Vec<_>>())
    };
    assert_eq!(served(&[(Failed, 40), (Drained, 40), (Failed, 20)]), (Reason::ServeAll, vec![40, 0, 20]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40), (Absent, 20)]), (Reason::ServeAll, vec![0, 0, 20]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40), (Failed, 0)]), (Reason::ServeAll, vec![0, 0, 1]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40)]), (Reason::ServeAll, vec![0, 40]));
    assert_eq!(served(&[(AdminDown, 40), (AdminDown, 40)]), (Reason::Nodata, vec![0, 0]));
}

fn weights() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0u32..100, 0u64..=1_000).prop_map(|(w, f)| (u64::from(w) * f, w)), 1..8)
        .prop_filter("somebody serves", |w| w.iter().any(|(e, _)| *e > 0))
}

fn orders() -> impl Strategy<Value = Order> {
    prop::sample::select(vec![Order::Weighted, Order::Spread, Order::Listed])
}

proptest! {
    /// Nobody without weight, nobody twice, as many as there can be, and the head of the whole ranking.
    #[test]
    fn an_answer_is_the_head_of_the_ranking(order in orders(), weights in weights(), answers in 1usize..=MAX_ANSWERS, near: bool, address: u32) {
        let mut plan = plan(order, &weights, near.then_some(NEAR).filter(|_| weights.len() == 3));
        plan.answers = answers;
        let client = Client::new(IpAddr::V4(address.into()), (24, 56));
        let choice = plan.choose(&client);
        let usable = weights.iter().filter(|w| w.0 > 0).count();
        prop_assert_eq!(choice.picks().len(), answers.min(usable));
        prop_assert!(choice.picks().iter().all(|p| weights[usize::from(*p)].0 > 0));
        let ranking: Vec<u16> = plan.ranking(&client).iter().map(|r| r.index).collect();
        prop_assert_eq!(choice.picks(), &ranking[..choice.picks().len()]);
        prop_assert_eq!(choice, plan.choose(&client), "sticky");
    }

    /// The order in which datacenters are listed does not matter to weights.
    #[test]
    fn weighted_is_order_free(weights in weights(), turn in 0usize..8, addresses in prop::collection::vec(any::<u32>(), 20)) {
        let plan = plan(Order::Weighted, &weights, None);
        let mut turned = plan.clone();
        let count = weights.len();
        turned.seats.rotate_left(turn % count);
        for address in addresses {
            let client = Client::new(IpAddr::V4(address.into()), (24, 56));
            let here: Vec<usize> = plan.choose(&client).picks().iter().map(|p| usize::from(*p)).collect();
            let there: Vec<usize> = turned.choose(&client).picks().iter().map(|p| (usize::from(*p) + turn) % count).collect();
            prop_assert_eq!(here, there);
        }
    }

    /// One weight that falls moves only clients of its own; one that grows takes clients and moves no others.
    #[test]
    fn a_change_moves_only_whom_it_must(weights in weights(), which: prop::sample::Index, to in 0u64..100_000, addresses in prop::collection::vec(any::<u32>(), 50)) {
        let which = which.index(weights.len());
        let mut after = weights.clone();
        after[which].0 = to;
        prop_assume!(after.iter().any(|w| w.0 > 0));
        let (before, after) = (plan(Order::Weighted, &weights, None), plan(Order::Weighted, &after, None));
        for address in addresses {
            let client = Client::new(IpAddr::V4(address.into()), (24, 56));
            let (a, b) = (before.choose(&client).picks()[0], after.choose(&client).picks()[0]);
            if a != b {
                let grown = to > weights[which].0;
                prop_assert_eq!(usize::from(if grown { b } else { a }), which);
            }
        }
    }

    /// Every client inside the returned scope gets the same answer: what a cache relies on. In every state of health.
    #[test]
    fn a_scope_holds_for_everybody_in_it(order in orders(), weights in prop::collection::vec((0u64..=1, 1u32..100), 3), near: bool, address: u32, others in prop::collection::vec(any::<u32>(), 30)) {
        let weights: Vec<(u64, u32)> = weights.iter().map(|(e, w)| (e * u64::from(*w) * 700, *w)).collect();
        prop_assume!(weights.iter().any(|w| w.0 > 0));
        let plan = plan(order, &weights, near.then_some(NEAR));
        let address = 0x0a00_0000 | address & 0x0003_ffff;
        let choice = plan.choose(&Client::new(IpAddr::V4(address.into()), (24, 56)));
        let spare = u32::MAX.checked_shr(choice.scope.into()).unwrap_or(0);
        for other in others {
            let neighbour = Client::new(IpAddr::V4((address & !spare | other & spare).into()), (24, 56));
            let theirs = plan.choose(&neighbour);
            prop_assert_eq!((theirs.picks(), theirs.scope), (choice.picks(), choice.scope));
        }
    }
}
