//! Shares, stickiness and movement of steering, and the cases that an operator asks about.

use std::sync::Arc;

use DcState::{Absent, AdminDown, Drained, Failed, Serving};
use proptest::prelude::*;

use super::*;
use crate::config::{Fence, Locality, Member, OnAllDown, OnEmpty, Policy, Pool, Steer, Who};
use crate::decide::near::Near;
use crate::snapshot::DcState;
use crate::snapshot::atlas::Atlas;

const PREFIX: (u8, u8) = (24, 56);
const WEIGHTED: &[Policy] = &[Policy::Weighted];
const SPREAD: &[Policy] = &[Policy::Spread];
const FAILOVER: &[Policy] = &[Policy::Failover];

/// Candidates of these effective (thousandths) and configured weights, under `www.example.test.`.
fn seats(weights: &[(u64, u32)]) -> Vec<Seat> {
    let salt = hash::bytes(0, b"www.example.test.");
    let seat = |(i, &(effective, configured)): (usize, &(u64, u32))| Seat {
        hash: hash::bytes(salt, format!("dc{i}").as_bytes()),
        state: if effective > 0 { Serving } else { Failed },
        configured,
        effective,
        shed: 0,
        planned: false,
    };
    weights.iter().enumerate().map(seat).collect()
}

fn steer(policy: &[Policy]) -> Steer {
    Steer { name: "www.example.test.".into(), policy: policy.to_vec(), answers: 2, ..Steer::default() }
}

/// A plan for datacenters of these effective and configured weights.
fn plan(policy: &[Policy], weights: &[(u64, u32)], near: Option<&[&[&str]]>) -> Plan {
    let policy = if near.is_some() { [&[Policy::Near], policy].concat() } else { policy.to_vec() };
    let plan = Plan::new(seats(weights), &steer(&policy), PREFIX);
    match near {
        Some(near) => plan.with_near(&nearby(near)),
        None => plan,
    }
}

fn nearby(near: &[&[&str]]) -> Arc<Near> {
    let nets: Vec<Vec<Locality>> =
        near.iter().map(|nets| nets.iter().map(|n| Locality::Net(n.parse().unwrap())).collect()).collect();
    Arc::new(Near::build(&nets.iter().map(Vec::as_slice).collect::<Vec<_>>(), &Atlas::default()))
}

fn dc(place: usize) -> Member {
    Member { who: Who::Datacenter(place), weight: 0, standby: false }
}

fn pool(name: &str, policy: &[Policy], weight: u32, members: Vec<Member>) -> Member {
    let pool = Pool { name: name.into(), policy: policy.to_vec(), members, fail_below: 0.5 };
    Member { who: Who::Pool(pool), weight, standby: false }
}

fn standby(member: Member) -> Member {
    Member { standby: true, ..member }
}

/// A plan over groups.
fn tree(policy: &[Policy], weights: &[(u64, u32)], members: Vec<Member>) -> Plan {
    Plan::new(seats(weights), &Steer { members, ..steer(policy) }, PREFIX)
}

fn net(text: &str) -> Locality {
    Locality::Net(text.parse().unwrap())
}

fn client(address: &str) -> Client {
    Client::new(address.parse().unwrap(), PREFIX)
}

/// Ten thousand subnets, neighbours among them: what a population of resolvers looks like.
fn subnets() -> impl Iterator<Item = Client> {
    (0..10_000u32).map(|i| Client::new(IpAddr::V4((0x0b00_0000 + (i << 8)).into()), PREFIX))
}

fn shares(plan: &Plan, clients: impl Iterator<Item = Client>) -> Vec<f64> {
    let mut counts = vec![0u32; plan.seats().len()];
    let mut all = 0;
    for client in clients {
        counts[usize::from(plan.choose(&client).picks()[0])] += 1;
        all += 1;
    }
    counts.iter().map(|n| f64::from(*n) / f64::from(all)).collect()
}

/// The share of clients by their first datacenter, in whole per cent.
fn percent(plan: &Plan) -> Vec<u32> {
    shares(plan, subnets()).iter().map(|s| (s * 100.0).round() as u32).collect()
}

fn about(got: &[u32], wanted: &[u32]) -> bool {
    got.len() == wanted.len() && got.iter().zip(wanted).all(|(g, w)| g.abs_diff(*w) <= 2)
}

const WHOLE: [(u64, u32); 3] = [(40_000, 40), (40_000, 40), (20_000, 20)];
const NEAR: &[&[&str]] = &[&["10.1.0.0/16"], &["10.2.0.0/16", "10.1.128.0/20"], &["10.3.0.0/16"]];

#[test]
fn near_comes_first_and_weights_decide_the_rest() {
    let plan = plan(WEIGHTED, &WHOLE, Some(NEAR));
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
    let plan = plan(WEIGHTED, &[(0, 40), (40_000, 40), (20_000, 20)], Some(NEAR));
    let clients = || (0..=255u32).map(|i| Client::new(IpAddr::V4((0x0a01_0000 + (i << 8)).into()), PREFIX));
    let of_it = clients().filter(|c| plan.is_near(0, c));
    let shares = shares(&plan, of_it);
    assert!(shares[0] == 0.0 && (0.55..0.78).contains(&shares[1]), "{shares:?}");
}

#[test]
fn a_near_datacenter_that_is_half_well_sheds_half_of_its_clients_and_never_takes_one_back() {
    let at = |factor: u64| {
        plan(WEIGHTED, &[(40 * factor, 40), (40_000, 40), (20_000, 20)], Some(&[&["0.0.0.0/0"], &[], &[]]))
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
    let of = |weights: &[(u64, u32)]| plan(FAILOVER, weights, None).choose(&client("10.9.9.9"));
    assert_eq!((of(&WHOLE).picks(), of(&WHOLE).scope, of(&WHOLE).reason), (&[0, 1][..], 0, Reason::Failover));
    assert_eq!(of(&[(0, 40), (1, 40), (20_000, 20)]).picks(), [1, 2]);
    assert_eq!(of(&[(0, 40), (0, 40), (20_000, 20)]).picks(), [2]);
    let near = plan(FAILOVER, &WHOLE, Some(NEAR));
    assert_eq!((near.choose(&client("10.3.0.1")).picks(), near.choose(&client("10.3.0.1")).scope), (&[2, 0][..], 16));
    assert_eq!(near.choose(&client("10.1.129.1")).scope, 20, "the leaf, not the rule");
    assert_eq!(near.choose(&client("10.1.2.1")).scope, 17);
    assert_eq!(near.choose(&client("192.0.2.1")).scope, 1);
}

#[test]
fn spread_gives_everybody_the_same_share_whatever_the_weights() {
    let plan = plan(SPREAD, &[(90_000, 90), (9_000, 9), (1_000, 1)], None);
    for share in shares(&plan, subnets()) {
        assert!((share - 1.0 / 3.0).abs() < 0.02, "{share}");
    }
    assert_eq!(plan.choose(&client("10.9.9.9")).reason, Reason::Spread);
}

#[test]
fn spread_gives_the_turns_of_what_failed_to_all_that_is_left() {
    // What was 22 % and 44 % when the neighbour had them all.
    let whole: Vec<(u64, u32)> = vec![(1_000, 1); 4];
    let failed = |places: &[usize]| {
        let weight = |(i, w): (usize, &(u64, u32))| if places.contains(&i) { (0, w.1) } else { *w };
        shares(&plan(SPREAD, &whole.iter().enumerate().map(weight).collect::<Vec<_>>(), None), subnets())
    };
    for (places, share) in [(&[1usize][..], 1.0 / 3.0), (&[1, 2], 0.5), (&[0, 1, 3], 1.0)] {
        for (place, got) in failed(places).into_iter().enumerate() {
            let wanted = if places.contains(&place) { 0.0 } else { share };
            assert!((got - wanted).abs() < 0.02, "{places:?}: {place} has {got}");
        }
    }
}

#[test]
fn spread_is_even_among_those_who_are_near() {
    let near: &[&[&str]] = &[&["10.0.0.0/8"], &["10.0.0.0/8"], &["11.0.0.0/8"], &["11.0.0.0/8"]];
    let plan = plan(SPREAD, &[(1_000, 1); 4], Some(near));
    let mut counts = [0u32; 4];
    for i in 0..10_000u32 {
        let choice = plan.choose(&Client::new(IpAddr::V4((10 << 24 | i << 8).into()), PREFIX));
        counts[usize::from(choice.picks()[0])] += 1;
    }
    assert!(counts[0].abs_diff(5_000) < 200 && counts[1].abs_diff(5_000) < 200, "{counts:?}");
}

#[test]
fn spread_behind_weights_turns_the_addresses_of_each_datacenter() {
    let plain = plan(WEIGHTED, &WHOLE, None);
    let turning = plan(&[Policy::Weighted, Policy::Spread], &WHOLE, None);
    let mut turns = [0u32; 4];
    for client in subnets() {
        let (here, there) = (plain.choose(&client), turning.choose(&client));
        assert_eq!((here.picks(), here.turn, there.scope), (there.picks(), 0, 24));
        turns[usize::from(there.turn % 4)] += 1;
    }
    assert!(turns.iter().all(|n| n.abs_diff(2_500) < 200), "{turns:?}");
}

#[test]
fn weights_are_shares_within_two_points_over_every_sixteenth() {
    let sixteenths = || (0..65_536u32).map(|i| Client::new(IpAddr::V4((i << 16).into()), PREFIX));
    for weights in [
        WHOLE.as_slice(),
        &[(50_000, 50), (30_000, 30), (20_000, 20)],
        &[(1_000, 1), (1_000, 1)],
        &[(70_000, 70), (0, 30)],
    ] {
        let plan = plan(WEIGHTED, weights, None);
        let total: u64 = weights.iter().map(|w| w.0).sum();
        for (share, (weight, _)) in shares(&plan, sixteenths()).iter().zip(weights) {
            assert!((share - *weight as f64 / total as f64).abs() < 0.02, "{weights:?}: {share}");
        }
    }
    let six = (0..10_000u128).map(|i| Client::new(IpAddr::V6(((0x2001_0db8 << 96) + (i << 72)).into()), PREFIX));
    for (share, want) in shares(&plan(WEIGHTED, &WHOLE, None), six).iter().zip([0.4, 0.4, 0.2]) {
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
    let served = |states: &[(DcState, u32)]| {
        let seats = states.iter().zip(seats(&vec![(0, 0); states.len()]));
        let seats = seats.map(|(&(state, configured), seat)| Seat { state, configured, ..seat }).collect();
        let plan = Plan::new(seats, &Steer { answers: 9, ..steer(FAILOVER) }, PREFIX);
        let choice = plan.choose(&client("10.1.2.3"));
        (choice.reason, choice.picks().to_vec())
    };
    assert_eq!(served(&[(Failed, 40), (Drained, 40), (Failed, 20)]), (Reason::ServeAll, vec![0, 2]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40), (Absent, 20)]), (Reason::ServeAll, vec![2]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40), (Failed, 0)]), (Reason::ServeAll, vec![2]));
    assert_eq!(served(&[(AdminDown, 40), (Drained, 40)]), (Reason::ServeAll, vec![1]));
    assert_eq!(served(&[(AdminDown, 40), (AdminDown, 40)]), (Reason::Nodata, vec![]));
}

#[test]
fn failover_between_two_weighted_groups() {
    let members = || vec![pool("a", WEIGHTED, 1, vec![dc(0), dc(1)]), pool("b", WEIGHTED, 1, vec![dc(2), dc(3)])];
    let at = |weights: &[(u64, u32)]| percent(&tree(FAILOVER, weights, members()));
    assert!(about(&at(&[(30_000, 30), (10_000, 10), (20_000, 20), (20_000, 20)]), &[75, 25, 0, 0]));
    assert!(
        about(&at(&[(30_000, 30), (0, 10), (20_000, 20), (20_000, 20)]), &[100, 0, 0, 0]),
        "three quarters are left"
    );
    assert!(
        about(&at(&[(0, 30), (10_000, 10), (20_000, 20), (20_000, 20)]), &[0, 0, 50, 50]),
        "a quarter is too little"
    );
    assert!(about(&at(&[(0, 30), (10_000, 10), (0, 20), (0, 20)]), &[0, 100, 0, 0]), "and more than nothing");
    let second = tree(FAILOVER, &[(30_000, 30), (10_000, 10), (20_000, 20), (20_000, 20)], members());
    let both = second.choose(&client("10.9.9.9"));
    assert!(both.picks().iter().all(|p| *p < 2), "both answers come from the group that serves: {both:?}");
}

#[test]
fn weights_over_groups_with_spread_inside_and_health_felt_outside() {
    let members = || vec![pool("a", SPREAD, 75, vec![dc(0), dc(1), dc(2)]), pool("b", SPREAD, 25, vec![dc(3)])];
    let at = |weights: &[(u64, u32)]| percent(&tree(WEIGHTED, weights, members()));
    assert!(about(&at(&[(1_000, 1), (1_000, 1), (1_000, 1), (1_000, 1)]), &[25, 25, 25, 25]));
    // Two thirds of `a` are left: 50 beside 25. Whose turn it was at the one that failed goes on to the next.
    assert!(about(&at(&[(1_000, 1), (0, 1), (1_000, 1), (1_000, 1)]), &[33, 0, 33, 33]));
    assert!(about(&at(&[(1_000, 1), (0, 1), (0, 1), (1_000, 1)]), &[0, 0, 0, 100]));
}

#[test]
fn near_then_failover_and_equals_within_a_failover() {
    let near = plan(FAILOVER, &WHOLE, Some(NEAR));
    assert_eq!(near.choose(&client("10.2.0.1")).picks(), [1, 0]);
    assert_eq!(near.choose(&client("192.0.2.1")).picks(), [0, 1]);
    let equals = tree(FAILOVER, &WHOLE, vec![pool("first", SPREAD, 1, vec![dc(0), dc(1)]), dc(2)]);
    assert!(about(&percent(&equals), &[50, 50, 0]));
    // Nearness of a group is that of its members.
    let mut nested = Steer { members: vec![pool("p", WEIGHTED, 1, vec![dc(1), dc(2)]), dc(0)], ..steer(FAILOVER) };
    nested.policy.insert(0, Policy::Near);
    let nested = Plan::new(seats(&WHOLE), &nested, PREFIX).with_near(&nearby(NEAR));
    assert_eq!(nested.choose(&client("10.1.2.1")).picks()[0], 0, "near, though last in order");
    assert_ne!(nested.choose(&client("10.3.2.1")).picks()[0], 0);
}

#[test]
fn who_stands_by_serves_when_all_others_have_failed_and_weight_nought_never() {
    let at = |weights: &[(u64, u32)]| {
        let plan =
            tree(WEIGHTED, weights, vec![dc(0), dc(1), standby(dc(2)), standby(pool("q", WEIGHTED, 5, vec![dc(3)]))]);
        (plan.choose(&client("10.1.2.3")).reason, percent(&plan))
    };
    let (reason, shares) = at(&[(1_000, 1), (1_000, 1), (1_000, 1), (1_000, 1)]);
    assert!(reason == Reason::Weighted && about(&shares, &[50, 50, 0, 0]));
    assert!(about(&at(&[(1_000, 1), (0, 1), (1_000, 1), (1_000, 1)]).1, &[100, 0, 0, 0]), "one is enough");
    assert!(about(&at(&[(0, 1), (0, 0), (1_000, 1), (1_000, 1)]).1, &[0, 0, 17, 83]));
    assert!(about(&at(&[(0, 1), (0, 1), (0, 1), (1_000, 1)]).1, &[0, 0, 0, 100]));
    assert_eq!(at(&[(0, 1), (0, 1), (0, 1), (0, 1)]).0, Reason::ServeAll);
    assert!(about(&at(&[(0, 1), (0, 0), (0, 0), (0, 0)]).1, &[100, 0, 0, 0]), "weight 0 does not stand by");
}

fn fenced(weights: &[(u64, u32)], states: &[DcState], on_all_down: OnAllDown) -> Plan {
    let fences = vec![
        Fence { clients: vec![net("10.0.0.0/8")], only: vec![0, 1] },
        Fence { clients: vec![net("10.64.0.0/10")], only: vec![1] },
    ];
    let steer = Steer { fences, on_all_down, on_empty: OnEmpty::Refused, ..steer(WEIGHTED) };
    let seats = seats(weights).into_iter().zip(states).map(|(seat, state)| Seat { state: *state, ..seat }).collect();
    Plan::new(seats, &steer, PREFIX)
        .with_fences(&steer, &Arc::new(Fences::build(&steer.fences, &Atlas::default()).unwrap()))
}

#[test]
fn a_fence_keeps_its_clients_in_whatever_fails() {
    let plan = fenced(&WHOLE, &[Serving; 3], OnAllDown::ServeAll);
    for (address, allowed, scope) in
        [("10.1.2.3", &[0, 1][..], 24), ("10.65.0.1", &[1], 24), ("192.0.2.1", &[0, 1, 2], 24)]
    {
        let choice = plan.choose(&client(address));
        assert!(choice.picks().iter().all(|p| allowed.contains(p)), "{address}: {choice:?}");
        assert_eq!((choice.scope, choice.reason), (scope, Reason::Weighted));
    }
    let failed = fenced(&[(0, 40), (0, 40), (20_000, 20)], &[Failed, Failed, Serving], OnAllDown::ServeAll);
    let of = |plan: &Plan, address: &str| {
        (plan.choose(&client(address)).reason, plan.choose(&client(address)).picks().to_vec())
    };
    assert_eq!(of(&failed, "10.65.0.1"), (Reason::ServeAll, vec![1]), "never elsewhere");
    assert_eq!(of(&failed, "192.0.2.1"), (Reason::Weighted, vec![2]));
    let down = fenced(&[(0, 40), (0, 40), (20_000, 20)], &[Failed, AdminDown, Serving], OnAllDown::ServeAll);
    assert_eq!(of(&down, "10.65.0.1"), (Reason::Refused, vec![]), "the fence leaves nobody");
    assert_eq!(of(&down, "10.1.0.1"), (Reason::ServeAll, vec![0]));
    let resort = fenced(&[(0, 40), (0, 40), (0, 20)], &[Failed; 3], OnAllDown::LastResort(vec![[192, 0, 2, 1].into()]));
    assert_eq!(of(&resort, "10.65.0.1"), (Reason::Refused, vec![]), "the last resort stands outside");
    assert_eq!(of(&resort, "192.0.2.1"), (Reason::LastResort, vec![]));
}

#[test]
fn clients_leave_a_datacenter_that_is_short_of_capacity_by_hash_and_never_come_back_by_more_of_it() {
    let at = |shed: [u32; 3]| {
        let seats = seats(&WHOLE).into_iter().zip(shed).map(|(seat, shed)| Seat { shed, ..seat }).collect();
        Plan::new(seats, &steer(WEIGHTED), PREFIX)
    };
    let calm = at([0; 3]);
    let mut gone = std::collections::HashSet::new();
    for shed in [100, 300, 600, 1_000] {
        let plan = at([shed, 0, 0]);
        for client in subnets() {
            let (before, after) = (calm.choose(&client), plan.choose(&client));
            if before.picks()[0] == after.picks()[0] {
                assert!(after.reason == Reason::Weighted && !gone.contains(&client.network));
            } else {
                assert_eq!((before.picks()[0], after.reason), (0, Reason::Spilled));
                gone.insert(client.network);
            }
        }
        let left = shares(&plan, subnets())[0];
        assert!((left - 0.4 * (1.0 - f64::from(shed) / 1_000.0)).abs() < 0.02, "{shed}: {left}");
    }
    // Who is turned away everywhere goes where it would have gone.
    let all = at([1_000; 3]);
    assert!(subnets().all(|c| all.choose(&c).picks() == calm.choose(&c).picks()));
}

fn weights() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0u32..100, 0u64..=1_000).prop_map(|(w, f)| (u64::from(w) * f, w)), 1..8)
        .prop_filter("somebody serves", |w| w.iter().any(|(e, _)| *e > 0))
}

fn policies() -> impl Strategy<Value = &'static [Policy]> {
    prop::sample::select(vec![WEIGHTED, SPREAD, FAILOVER])
}

/// Any nesting of the given number of candidates, each once.
fn nestings(count: usize) -> impl Strategy<Value = Vec<Member>> {
    prop::collection::vec((0usize..4, policies(), 0u32..50, any::<bool>(), 0u32..=100), count).prop_map(|draws| {
        let mut members: Vec<Member> = Vec::new();
        for (i, (group, policy, weight, stands_by, fail_below)) in draws.into_iter().enumerate() {
            let single = Member { standby: stands_by, ..dc(i) };
            // Wraps everything so far, stands alone, or founds a group of its own.
            members = match group {
                0 if !members.is_empty() => vec![pool(&format!("w{i}"), policy, weight, members), single],
                1 => [members, vec![pool(&format!("p{i}"), policy, weight, vec![single])]].concat(),
                _ => [members, vec![single]].concat(),
            };
            for member in &mut members {
                if let Who::Pool(pool) = &mut member.who {
                    pool.fail_below = f64::from(fail_below) / 100.0;
                }
            }
        }
        members
    })
}

fn states() -> impl Strategy<Value = DcState> {
    prop::sample::select(vec![Serving, Serving, Failed, Drained, AdminDown, Absent])
}

/// What was before there were trees: the score of every candidate, the highest first.
fn by_the_book(plan: &Plan, key: u64) -> Vec<u16> {
    let score = |i: usize| hash::rendezvous(plan.seats()[i].hash, key, plan.seats()[i].effective as f64);
    let mut all: Vec<usize> = (0..plan.seats().len()).filter(|i| plan.seats()[*i].effective > 0).collect();
    all.sort_by(|a, b| score(*b).total_cmp(&score(*a)).then(a.cmp(b)));
    all.into_iter().map(|i| i as u16).collect()
}

proptest! {
    /// A loss moves the clients of what is lost, evenly, and nobody else; and what comes back gets its own back.
    #[test]
    fn spread_moves_only_whom_a_loss_concerns(up in prop::collection::vec(any::<bool>(), 2..9), lost in any::<prop::sample::Index>()) {
        let lost = lost.index(up.len());
        let of = |up: &[bool]| plan(SPREAD, &up.iter().map(|up| (u64::from(*up) * 1_000, 1)).collect::<Vec<_>>(), None);
        let fewer: Vec<bool> = up.iter().enumerate().map(|(i, up)| *up && i != lost).collect();
        prop_assume!(up[lost] && fewer.contains(&true));
        let (before, after) = (of(&up), of(&fewer));
        let mut moved = vec![0u32; up.len()];
        for client in subnets().step_by(5) {
            let (old, new) = (before.choose(&client), after.choose(&client));
            if usize::from(old.picks()[0]) == lost {
                moved[usize::from(new.picks()[0])] += 1;
            } else {
                prop_assert_eq!(old.picks()[0], new.picks()[0]);
            }
            let all: Vec<u16> = after.ranking(&client).iter().map(|r| r.index).take(2).collect();
            prop_assert_eq!(new.picks(), all);
        }
        let (whole, heirs) = (f64::from(moved.iter().sum::<u32>()), fewer.iter().filter(|up| **up).count() as f64);
        for (moved, _) in moved.iter().zip(&fewer).filter(|(_, up)| **up) {
            // Six standard deviations of a fair draw.
            let (mean, deviation) = (whole / heirs, (whole / heirs).sqrt());
            prop_assert!((f64::from(*moved) - mean).abs() < 6.0 * deviation + 1.0, "{} of {} to {} heirs", moved, whole, heirs);
        }
    }

    /// Nobody without weight, nobody twice, as many as there can be, and the head of the whole ranking.
    #[test]
    fn an_answer_is_the_head_of_the_ranking(policy in policies(), weights in weights(), answers in 1usize..=MAX_ANSWERS, near: bool, address: u32) {
        let policy = if near { [&[Policy::Near], policy].concat() } else { policy.to_vec() };
        let plan = Plan::new(seats(&weights), &Steer { answers, ..steer(&policy) }, PREFIX);
        let plan = if near && weights.len() == 3 { plan.with_near(&nearby(NEAR)) } else { plan };
        let client = Client::new(IpAddr::V4(address.into()), PREFIX);
        let choice = plan.choose(&client);
        let usable = weights.iter().filter(|w| w.0 > 0).count();
        prop_assert_eq!(choice.picks().len(), answers.min(usable));
        prop_assert!(choice.picks().iter().all(|p| weights[usize::from(*p)].0 > 0));
        let ranking: Vec<u16> = plan.ranking(&client).iter().map(|r| r.index).collect();
        prop_assert_eq!(choice.picks(), &ranking[..choice.picks().len()]);
        prop_assert_eq!(choice, plan.choose(&client), "sticky");
    }

    /// Leaving logarithms out changes nothing.
    #[test]
    fn a_weighted_ranking_is_that_of_the_book(weights in weights(), even: bool, answers in 1usize..8, addresses in prop::collection::vec(any::<u32>(), 50)) {
        let weights: Vec<_> = weights.into_iter().map(|(e, w)| if even && e > 0 { (7_000, 7) } else { (e, w) }).collect();
        let plan = Plan::new(seats(&weights), &Steer { answers, ..steer(WEIGHTED) }, PREFIX);
        for address in addresses {
            let client = Client::new(IpAddr::V4(address.into()), PREFIX);
            let book = by_the_book(&plan, client.key);
            let choice = plan.choose(&client);
            prop_assert_eq!(choice.picks(), &book[..answers.min(book.len())]);
        }
    }

    /// Whatever nests in whatever, and whatever has failed: nobody twice, nobody that an operator took down, an answer
    /// where anybody could give one, and nobody from behind the fence.
    #[test]
    fn trees_answer_with_whom_they_may(
        policy in policies(),
        members in (1usize..7).prop_flat_map(nestings),
        drawn in prop::collection::vec((states(), 0u32..50, 0u64..=1_000, 0u32..=1_000), 7),
        answers in 1usize..5,
        only in prop::collection::vec(0usize..7, 0..5),
        address: u32,
    ) {
        let count = members.iter().map(leaves).sum::<usize>();
        let seats: Vec<Seat> = seats(&vec![(0, 0); count]).into_iter().zip(&drawn).map(|(seat, &(state, configured, factor, shed))| {
            let effective = if state == Serving { u64::from(configured) * factor } else { 0 };
            Seat { state, configured, effective, shed, ..seat }
        }).collect();
        let fences = vec![Fence { clients: vec![net("0.0.0.0/1")], only: only.clone() }];
        let steer = Steer { members, fences, answers, ..steer(policy) };
        let plan = Plan::new(seats.clone(), &steer, PREFIX).with_fences(&steer, &Arc::new(Fences::build(&steer.fences, &Atlas::default()).unwrap()));
        let client = Client::new(IpAddr::V4(address.into()), PREFIX);
        let (choice, inside) = (plan.choose(&client), address >> 31 == 0);
        let lets = |i: usize| !inside || only.contains(&i);
        let mut seen = 0u64;
        for pick in choice.picks().iter().copied().map(usize::from) {
            prop_assert!(seen >> pick & 1 == 0, "twice");
            seen |= 1 << pick;
            prop_assert!(lets(pick), "behind the fence");
            prop_assert!(seats[pick].state != AdminDown, "taken down");
            prop_assert!(choice.reason == Reason::ServeAll || seats[pick].effective > 0);
        }
        let could = (0..count).any(|i| lets(i) && seats[i].state != AdminDown);
        prop_assert_eq!(!choice.picks().is_empty(), could);
        let ranking: Vec<u16> = plan.ranking(&client).iter().map(|r| r.index).collect();
        prop_assert_eq!(choice.picks(), &ranking[..choice.picks().len()]);
        prop_assert_eq!(choice.picks().len(), answers.min(ranking.len()), "as many as there can be");
    }

    /// The order in which datacenters are listed does not matter to weights.
    #[test]
    fn weighted_is_order_free(weights in weights(), turn in 0usize..8, addresses in prop::collection::vec(any::<u32>(), 20)) {
        let plan = plan(WEIGHTED, &weights, None);
        let count = weights.len();
        let mut turned = seats(&weights);
        turned.rotate_left(turn % count);
        let turned = Plan::new(turned, &steer(WEIGHTED), PREFIX);
        for address in addresses {
            let client = Client::new(IpAddr::V4(address.into()), PREFIX);
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
        let (before, after) = (plan(WEIGHTED, &weights, None), plan(WEIGHTED, &after, None));
        for address in addresses {
            let client = Client::new(IpAddr::V4(address.into()), PREFIX);
            let (a, b) = (before.choose(&client).picks()[0], after.choose(&client).picks()[0]);
            if a != b {
                let grown = to > weights[which].0;
                prop_assert_eq!(usize::from(if grown { b } else { a }), which);
            }
        }
    }

    /// Every client inside the returned scope gets the same answer: what a cache relies on. In every state of health.
    #[test]
    fn a_scope_holds_for_everybody_in_it(policy in policies(), weights in prop::collection::vec((0u64..=1, 1u32..100), 3), near: bool, fence: bool, address: u32, others in prop::collection::vec(any::<u32>(), 30)) {
        let weights: Vec<(u64, u32)> = weights.iter().map(|(e, w)| (e * u64::from(*w) * 700, *w)).collect();
        prop_assume!(weights.iter().any(|w| w.0 > 0));
        let mut plan = plan(policy, &weights, near.then_some(NEAR));
        if fence {
            let fences = vec![
                Fence { clients: vec![net("10.1.0.0/17")], only: vec![0, 2] },
                Fence { clients: vec![net("10.1.3.0/24"), net("10.2.0.0/15")], only: vec![1] },
            ];
            let steer = Steer { fences, ..steer(policy) };
            plan = plan.with_fences(&steer, &Arc::new(Fences::build(&steer.fences, &Atlas::default()).unwrap()));
        }
        let address = 0x0a00_0000 | address & 0x0003_ffff;
        let choice = plan.choose(&Client::new(IpAddr::V4(address.into()), PREFIX));
        let spare = u32::MAX.checked_shr(choice.scope.into()).unwrap_or(0);
        for other in others {
            let neighbour = Client::new(IpAddr::V4((address & !spare | other & spare).into()), PREFIX);
            let theirs = plan.choose(&neighbour);
            prop_assert_eq!((theirs.picks(), theirs.scope), (choice.picks(), choice.scope));
        }
    }
}

fn leaves(member: &Member) -> usize {
    match &member.who {
        Who::Datacenter(_) => 1,
        Who::Pool(pool) => pool.members.iter().map(leaves).sum(),
    }
}
