//! Picks: tiers, shares, turns, users and homes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::entropy::Rng;
use crate::base::hash;
use crate::decide::world::{NOW, SERVICE, members, set_backend, set_datacenter, set_panic, world};
use crate::snapshot::Topology;
use crate::snapshot::load::Outcome;
use crate::snapshot::topology::Assets;

const DC: DatacenterId = DatacenterId::new(0);

struct Picker {
    turn: Turn,
    rng: Rng,
}

impl Picker {
    fn new(seed: u64) -> Self {
        Self { turn: Turn::new(), rng: Rng::seeded(seed) }
    }

    fn pick(&mut self, snapshot: &Snapshot, tried: &Tried, user: Option<u64>) -> Option<Picked> {
        pick(snapshot, SERVICE, DC, tried, user, &mut self.turn, NOW, &mut self.rng)
    }

    fn counts(&mut self, snapshot: &Snapshot, n: u32) -> Vec<u32> {
        let mut counts = vec![0; snapshot.topology.backends.len()];
        for _ in 0..n {
            let picked = self.pick(snapshot, &Tried::new(), None).unwrap();
            counts[picked.backend.index()] += 1;
        }
        counts
    }
}

fn seen(snapshot: &Snapshot, id: usize, latency_ms: u64, in_flight: u32) {
    let load = &snapshot.topology.backends[id].load;
    load.begin();
    load.end(Outcome::Ok, Duration::from_millis(latency_ms), Duration::ZERO, NOW);
    (0..in_flight).for_each(|_| load.begin());
}

fn near(got: &[u32], want: &[u32], within: u32) {
    assert!(got.iter().zip(want).all(|(g, w)| g.abs_diff(*w) <= within), "{got:?}, wanted {want:?}");
}

#[test]
fn in_the_calm_shares_follow_weights_for_few_and_for_many() {
    let s = world(Balance::P2c, &[(1, &[1, 2, 1])]);
    near(&Picker::new(1).counts(&s, 20_000), &[5_000, 10_000, 5_000], 300);
    (0..3).for_each(|id| seen(&s, id, 5, 0));
    near(&Picker::new(1).counts(&s, 20_000), &[5_000, 10_000, 5_000], 300);
    let mut weights = vec![1; 20];
    weights[7] = 5;
    let s = world(Balance::P2c, &[(1, &weights)]);
    let counts = Picker::new(2).counts(&s, 24_000);
    assert!(counts[7].abs_diff(5_000) < 700, "{counts:?}");
    assert!(counts.iter().enumerate().all(|(i, n)| i == 7 || n.abs_diff(1_000) < 200), "{counts:?}");
}

#[test]
fn the_slow_and_the_busy_get_less() {
    let s = world(Balance::P2c, &[(1, &[1, 1, 1])]);
    (0..2).for_each(|id| seen(&s, id, 2, 0));
    seen(&s, 2, 20, 0);
    let counts = Picker::new(3).counts(&s, 21_000);
    assert!(counts[2] < 21_000 / 3 / 5, "ten times slower loses four fifths of its share: {counts:?}");
    assert!(counts[2] > 100, "and is looked at all the same: {counts:?}");

    let s = world(Balance::P2c, &[(1, &[1, 1, 1])]);
    (0..2).for_each(|id| seen(&s, id, 2, 1));
    seen(&s, 2, 2, 10);
    assert!(Picker::new(4).counts(&s, 10_000)[2] < 20, "a silent one fills up and is left alone");
}

#[test]
fn under_load_in_flight_settles_by_weight() {
    for weights in [&[1, 2, 3][..], &[1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]] {
        let s = world(Balance::P2c, &[(1, weights)]);
        (0..weights.len()).for_each(|id| seen(&s, id, 2, 0));
        let mut picker = Picker::new(5);
        let mut open: Vec<BackendId> = Vec::new();
        let mut counts = vec![0u32; weights.len()];
        // A closed loop of 40 requests a weight unit: who ends next is drawn at random, so service times are exponential.
        let slots = 40 * weights.iter().sum::<u32>() as usize;
        for _ in 0..60_000 {
            if open.len() == slots {
                let at = picker.rng.below(slots as u64) as usize;
                let load = &s.topology.backend(open.swap_remove(at)).load;
                load.end(Outcome::Cancelled, Duration::ZERO, Duration::ZERO, NOW);
            }
            let picked = picker.pick(&s, &Tried::new(), None).unwrap();
            s.topology.backend(picked.backend).load.begin();
            open.push(picked.backend);
            counts[picked.backend.index()] += 1;
        }
        let unit = f64::from(counts.iter().sum::<u32>()) / f64::from(weights.iter().sum::<u32>());
        let off = counts.iter().zip(weights).map(|(n, w)| (f64::from(*n) / (unit * f64::from(*w)) - 1.0).abs());
        assert!(off.clone().all(|off| off < 0.1), "{counts:?} for {weights:?}");
    }
}

#[test]
fn a_backend_that_came_back_is_not_judged_by_what_it_was() {
    let mut s = world(Balance::P2c, &[(1, &[1, 1])]);
    seen(&s, 0, 2, 0);
    let load = &s.topology.backends[1].load;
    load.begin();
    load.end(Outcome::Refused, Duration::ZERO, Duration::from_secs(5), NOW - Duration::from_secs(3));
    assert!(Picker::new(6).counts(&s, 10_000)[1] < 50, "a fresh failure keeps it away");
    set_backend(&mut s, BackendId::new(1), BackendState::SlowStart);
    Arc::make_mut(&mut s.backends)[1].since = NOW - Duration::from_secs(1);
    near(&Picker::new(6).counts(&s, 10_000), &[5_000, 5_000], 300);
}

#[test]
fn a_half_open_one_gets_a_trial_at_a_time() {
    let mut s = world(Balance::P2c, &[(1, &[1, 1, 1])]);
    set_backend(&mut s, BackendId::new(2), BackendState::HalfOpen);
    near(&Picker::new(7).counts(&s, 10_000), &[4_500, 4_500, 1_000], 300);
    s.topology.backends[2].load.begin();
    assert_eq!(Picker::new(7).counts(&s, 1_000)[2], 0);
    assert_eq!(excluded(&s, BackendId::new(2)), Some("half-open and busy with its trial"));
}

#[test]
fn tiers_go_from_well_to_drained_and_never_to_what_was_taken_down() {
    use BackendState::{AdminDown, Down, Drained, Healthy};
    let mut s = world(Balance::P2c, &[(1, &[1, 1, 1, 1])]);
    let ids = members(&s, 0);
    let mut set = |states: [BackendState; 4]| {
        ids.iter().zip(states).for_each(|(&id, state)| set_backend(&mut s, id, state));
        s.clone()
    };
    let who = |s: &Snapshot, tried: &Tried| Picker::new(8).pick(s, tried, None).map(|p| (p.backend.index(), p.tier));
    let none = Tried::new();
    let mut first = Tried::new();
    first.note(ids[0], DC, Outcome::Refused);

    let s1 = set([Healthy, Down, Drained, AdminDown]);
    assert_eq!(who(&s1, &none), Some((0, Tier::Fresh)));
    assert_eq!(who(&s1, &first), Some((0, Tier::Again)), "the well one again, before one that is down");
    let s2 = set([Down, Down, Drained, AdminDown]);
    assert_eq!(who(&s2, &first), Some((1, Tier::FailOpen)));
    assert_eq!(excluded(&s2, ids[1]), Some("down"));
    let s3 = set([Drained, AdminDown, AdminDown, AdminDown]);
    assert_eq!(who(&s3, &none), Some((0, Tier::Drained)));
    let s4 = set([AdminDown; 4]);
    assert_eq!(who(&s4, &none), None);
    let mut s5 = set([Healthy, Down, Drained, AdminDown]);
    set_panic(&mut s5, 0);
    assert_eq!(who(&s5, &first), Some((1, Tier::Panic)), "panic ignores health, not operators");
    near(&Picker::new(8).counts(&s5, 10_000), &[5_000, 5_000, 0, 0], 300);
    let mut s6 = set([Healthy; 4]);
    set_datacenter(&mut s6, 0, DcState::AdminDown, 0);
    assert_eq!(who(&s6, &none), None);
}

#[test]
fn panic_ignores_health_but_not_a_closed_door() {
    let mut s = world(Balance::WeightedRoundRobin, &[(1, &[1, 1, 1])]);
    set_panic(&mut s, 0);
    for id in [0, 1] {
        set_backend(&mut s, BackendId::new(id), BackendState::Down);
    }
    let refuse = |id: usize, at| {
        s.topology.backends[id].load.begin();
        s.topology.backends[id].load.end(Outcome::Refused, Duration::ZERO, Duration::ZERO, at);
    };
    refuse(0, NOW - Duration::from_millis(1_500));
    near(&Picker::new(1).counts(&s, 1_000), &[0, 500, 500], 1);
    refuse(1, NOW);
    refuse(2, NOW);
    near(&Picker::new(1).counts(&s, 900), &[300, 300, 300], 1);
    refuse(0, NOW - Duration::from_secs(2));
    near(&Picker::new(1).counts(&s, 900), &[900, 0, 0], 0);
}

#[test]
fn silence_earns_no_patience() {
    let s = world(Balance::P2c, &[(1, &[1, 1])]);
    let (good, bad) = (&s.topology.backends[0].load, &s.topology.backends[1].load);
    seen(&s, 0, 2, 0);
    bad.begin();
    bad.end(Outcome::Timeout, Duration::from_millis(100), Duration::from_secs(1), NOW);
    let expected_ms = |tried: &Tried| {
        let picked = Picker::new(1).pick(&s, tried, None).unwrap();
        (picked.backend.index(), (picked.expected_ns / 1e6).round() as u32)
    };
    let mut tried = Tried::new();
    assert_eq!(expected_ms(&tried), (0, 2));
    tried.note(BackendId::new(0), DC, Outcome::Reset);
    assert_eq!(expected_ms(&tried), (1, 1_000), "alone with itself, all it has is its own average");
    good.begin();
    good.end(Outcome::Timeout, Duration::from_millis(100), Duration::from_secs(1), NOW);
    assert_eq!(expected_ms(&Tried::new()).1, 1_000, "where all fail, the service is slow");
}

#[test]
fn turns_are_exact_and_smooth() {
    let s = world(Balance::WeightedRoundRobin, &[(1, &[5, 1, 1])]);
    let mut picker = Picker::new(9);
    let order: Vec<usize> = (0..7).map(|_| picker.pick(&s, &Tried::new(), None).unwrap().backend.index()).collect();
    assert_eq!(order, [0, 0, 1, 0, 2, 0, 0], "nginx's own example");
    assert_eq!(picker.counts(&s, 7_000), [5_000, 1_000, 1_000]);
}

#[test]
fn a_turn_outlives_a_change_of_weights() {
    let mut s = world(Balance::WeightedRoundRobin, &[(1, &[1_000_000, 1])]);
    let mut picker = Picker::new(10);
    picker.counts(&s, 10);
    Arc::make_mut(&mut s.backends)[0].weight = 1;
    Arc::make_mut(&mut s.backends)[1].weight = 1;
    let counts = picker.counts(&s, 1_000);
    assert!(counts[0].abs_diff(500) <= 4, "old debts don't last: {counts:?}");
}

proptest! {
    #[test]
    fn turns_stay_within_one_of_their_share(weights in prop::collection::vec(1u32..50, 1..9), n in 1u32..500) {
        let s = world(Balance::WeightedRoundRobin, &[(1, &weights)]);
        let counts = Picker::new(0).counts(&s, n);
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(n) * f64::from(*weight) / f64::from(total);
            // nginx's algorithm is not a perfect apportionment: its deviation grows with the number of backends.
            prop_assert!((f64::from(*count) - share).abs() <= weights.len() as f64 / 2.0 + 1.0, "{:?} of {:?}", counts, weights);
        }
        let whole = Picker::new(0).counts(&s, total);
        prop_assert_eq!(whole, weights, "exact after a whole round");
    }

    #[test]
    fn nobody_unusable_is_picked_while_somebody_usable_is_there(
        states in prop::collection::vec(0usize..9, 1..14), policy in 0usize..5, user: Option<u64>, seed: u64,
        failed in prop::collection::vec(0usize..14, 0..3),
    ) {
        use BackendState as B;
        const ALL: [BackendState; 9] =
            [B::Unknown, B::Healthy, B::Suspect, B::Ejected, B::HalfOpen, B::SlowStart, B::Down, B::Drained, B::AdminDown];
        use Balance::{LeastRequest, Maglev, P2c, UserHash, WeightedRoundRobin};
        let policy = [P2c, LeastRequest, WeightedRoundRobin, UserHash, Maglev][policy];
        let mut s = world(policy, &[(1, &vec![1; states.len()])]);
        for (i, state) in states.iter().enumerate() {
            set_backend(&mut s, BackendId::new(i), ALL[*state]);
        }
        let mut tried = Tried::new();
        for id in failed.into_iter().filter(|&i| i < states.len()) {
            tried.note(BackendId::new(id), DC, Outcome::Refused);
        }
        let state_of = |id: usize| ALL[states[id]];
        let picked = Picker::new(seed).pick(&s, &tried, user);
        prop_assert_eq!(picked.is_none(), (0..states.len()).all(|i| state_of(i) == B::AdminDown));
        if let Some(Picked { backend, tier, .. }) = picked {
            let state = state_of(backend.index());
            prop_assert!(state != B::AdminDown);
            prop_assert!(state.usable() || (0..states.len()).all(|i| !state_of(i).usable() || state_of(i) == B::HalfOpen && tried.contains(BackendId::new(i))), "{:?}", state);
            let fresh = (0..states.len()).any(|i| state_of(i).usable() && !tried.contains(BackendId::new(i)));
            prop_assert_eq!(fresh, tier == Tier::Fresh);
            prop_assert!(!fresh || !tried.contains(backend), "picked twice while others remain");
        }
    }

    #[test]
    fn a_user_stays_whatever_the_order_of_the_file(weights in prop::collection::vec(1u32..9, 2..9), user: u64) {
        let s = world(Balance::UserHash, &[(1, &weights)]);
        let one = Picker::new(1).pick(&s, &Tried::new(), Some(user)).unwrap();
        let mut topology = Topology::build(Arc::clone(&s.topology.config), Assets::default(), None);
        topology.backends.reverse();
        let mut turned = s.clone();
        turned.topology = Arc::new(topology);
        Arc::make_mut(&mut turned.backends).reverse();
        let two = Picker::new(2).pick(&turned, &Tried::new(), Some(user)).unwrap();
        prop_assert_eq!(s.topology.backend(one.backend).seat, turned.topology.backend(two.backend).seat);
    }
}

#[test]
fn users_move_only_when_theirs_fails() {
    let s = world(Balance::UserHash, &[(1, &[1, 1, 2])]);
    let mut out = s.clone();
    set_backend(&mut out, BackendId::new(2), BackendState::Ejected);
    let mut counts = [0u32; 3];
    for user in 0..20_000u64 {
        let user = Some(hash::mix(user));
        let before = Picker::new(1).pick(&s, &Tried::new(), user).unwrap();
        let after = Picker::new(2).pick(&out, &Tried::new(), user).unwrap();
        counts[before.backend.index()] += 1;
        assert!(before.backend == after.backend || before.backend == BackendId::new(2));
    }
    near(&counts, &[5_000, 5_000, 10_000], 300);
}
#[test]
fn the_least_loaded_gets_it_whatever_its_latency() {
    for weights in [&[1, 1, 2][..], &[1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2]] {
        let s = world(Balance::LeastRequest, &[(1, weights)]);
        seen(&s, 0, 500, 0);
        let total: u32 = weights.iter().sum();
        let counts = Picker::new(1).counts(&s, total * 2_000);
        let want: Vec<u32> = weights.iter().map(|w| w * 2_000).collect();
        near(&counts, &want, 400);
    }
    let s = world(Balance::LeastRequest, &[(1, &[1, 1, 2])]);
    [3, 9, 18].into_iter().enumerate().for_each(|(id, n)| seen(&s, id, 5, n));
    assert!(Picker::new(1).counts(&s, 1_000)[0] > 980, "nine for a weight of one are as many as eighteen for two");
}

#[test]
fn the_fastest_to_fail_does_not_win_by_being_idle() {
    let s = world(Balance::LeastRequest, &[(1, &[1, 1, 1])]);
    (1..3).for_each(|id| seen(&s, id, 5, 20));
    let dead = &s.topology.backends[0].load;
    dead.begin();
    dead.end(Outcome::Refused, Duration::ZERO, Duration::ZERO, NOW);
    assert_eq!(Picker::new(1).counts(&s, 1_000)[0], 0);
}

/// Who has each of some thousand users.
fn owners(s: &Snapshot) -> Vec<Picked> {
    let user = |n| Some(hash::mix(n));
    (0..6_000).map(|n| Picker::new(n).pick(s, &Tried::new(), user(n)).unwrap()).collect()
}

#[test]
fn a_table_moves_the_users_of_who_fails_and_spreads_them() {
    let s = world(Balance::Maglev, &[(1, &[1; 12])]);
    let before = owners(&s);
    assert!(before.iter().all(|p| p.reason == Reason::UserHash));
    let mut out = s.clone();
    set_backend(&mut out, BackendId::new(3), BackendState::Ejected);
    let mut heirs = [0u32; 12];
    for (one, two) in before.iter().zip(&owners(&out)) {
        if one.backend == BackendId::new(3) {
            heirs[two.backend.index()] += 1;
            assert_eq!(two.reason, Reason::UserJump);
        } else {
            assert_eq!((one.backend, one.reason), (two.backend, two.reason), "nobody else moves");
        }
    }
    assert!(heirs[3] == 0 && (0..12).all(|i| i == 3 || (20..80).contains(&heirs[i])), "500 over eleven: {heirs:?}");
}

#[test]
fn a_slow_start_keeps_the_same_users_at_each_step() {
    let s = world(Balance::Maglev, &[(1, &[1; 4])]);
    let at_weight = |thousandths| {
        let mut s = s.clone();
        set_backend(&mut s, BackendId::new(0), BackendState::SlowStart);
        Arc::make_mut(&mut s.backends)[0].weight = thousandths;
        owners(&s).iter().map(|p| p.backend == BackendId::new(0)).collect::<Vec<bool>>()
    };
    let (tenth, half, all) = (at_weight(100), at_weight(500), at_weight(1_000));
    let count = |who: &[bool]| who.iter().filter(|w| **w).count();
    assert!(count(&tenth).abs_diff(150) < 40 && count(&half).abs_diff(750) < 80 && count(&all).abs_diff(1_500) < 90);
    assert!(tenth.iter().zip(&half).all(|(few, more)| *more || !few), "who came first stays");
    assert!(half.iter().zip(&all).all(|(few, more)| *more || !few));
}

#[test]
fn no_user_of_a_table_waits_behind_more_than_the_bound() {
    let s = world(Balance::Maglev, &[(1, &[1, 1, 1, 2])]);
    let mut picker = Picker::new(1);
    // One user asks for half of everything: a hot key.
    for n in 0..2_000u64 {
        let user = Some(if n % 2 == 0 { 42 } else { hash::mix(n) });
        let picked = picker.pick(&s, &Tried::new(), user).unwrap();
        s.topology.backend(picked.backend).load.begin();
        let load: Vec<f64> = s.topology.backends.iter().map(|b| b.load.in_flight().into()).collect();
        let all: f64 = load.iter().sum();
        let share = |id: usize| f64::from(s.topology.backends[id].spec.weight) / 5.0;
        for (id, load) in load.iter().enumerate() {
            assert!(*load <= (1.25 * all * share(id)).ceil().max(4.0) + 1.0, "{id} has {load} of {all}");
        }
    }
}

#[test]
fn without_a_user_a_table_is_no_use() {
    let s = world(Balance::Maglev, &[(1, &[1, 1])]);
    near(&Picker::new(1).counts(&s, 10_000), &[5_000, 5_000], 300);
}

#[test]
fn a_home_stands_whatever_happens_to_it() {
    let s = world(Balance::UserHome, &[(40, &[1, 1]), (20, &[1, 1]), (40, &[1, 2])]);
    let mut shaken = s.clone();
    let states = [BackendState::Down, BackendState::Drained, BackendState::Ejected, BackendState::HalfOpen];
    for (id, state) in states.into_iter().enumerate() {
        set_backend(&mut shaken, BackendId::new(id), state);
    }
    set_datacenter(&mut shaken, 0, DcState::Failed, 0);
    set_datacenter(&mut shaken, 1, DcState::Drained, 0);
    let mut homes: HashMap<usize, u32> = HashMap::new();
    for user in 0..14_000u64 {
        let user = hash::mix(user);
        let home = user::home(&s, SERVICE, user).unwrap();
        assert_eq!(user::home(&shaken, SERVICE, user), Some(home));
        assert!(!user::is_home_down(&shaken, home));
        *homes.entry(home.index()).or_default() += 1;
        let wanted = Wanted { service: SERVICE, local: Some(DC), user: Some(user), seat: None };
        let mut tried = Tried::new();
        tried.note(home, s.topology.backend(home).spec.datacenter, Outcome::Refused);
        let choice = choose(&shaken, &wanted, &mut tried, &mut Turn::new(), NOW, &mut Rng::seeded(1)).unwrap();
        assert_eq!((choice.backend, choice.reason), (home, Reason::Home), "even after it has failed");
    }
    let counts: Vec<u32> = (0..6).map(|i| homes[&i]).collect();
    near(&counts, &[2_000, 2_000, 2_000, 2_000, 2_000, 4_000], 200);
}

#[test]
fn only_an_operator_closes_a_home() {
    let mut s = world(Balance::UserHome, &[(1, &[1]), (1, &[1])]);
    let wanted = Wanted { service: SERVICE, local: Some(DC), user: Some(7), seat: None };
    let go = |s: &Snapshot, wanted| choose(s, wanted, &mut Tried::new(), &mut Turn::new(), NOW, &mut Rng::seeded(1));
    let home = go(&s, &wanted).unwrap();
    let mut closed = s.clone();
    set_backend(&mut closed, home.backend, BackendState::AdminDown);
    assert_eq!(go(&closed, &wanted), Err(NoChoice::HomeDown(home.backend)));
    set_datacenter(&mut s, home.datacenter.index(), DcState::AdminDown, 0);
    assert_eq!(go(&s, &wanted), Err(NoChoice::HomeDown(home.backend)));
    assert_eq!(go(&s, &Wanted { user: None, ..wanted }), Err(NoChoice::NoUser));
}

#[test]
fn who_the_user_is_depends_on_nothing_but_the_name() {
    use crate::config::UserKey;
    let mut headers = http::HeaderMap::new();
    headers.insert("x-user-id", "42".parse().unwrap());
    headers.insert("cookie", "sid=42; empty=".parse().unwrap());
    let client: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let who = |key| user::identify(&key, "/v1/packets/42/grab", &headers, client);
    let named = Some(user::hash_of(b"42"));
    assert_eq!(who(UserKey::Header("x-user-id".into())), named);
    assert_eq!(who(UserKey::Cookie("sid".into())), named);
    assert_eq!(who(UserKey::Path("id".into(), 2)), named);
    assert_eq!(who(UserKey::Path("id".into(), 9)), None);
    assert_eq!(who(UserKey::Header("x-other".into())), None);
    assert_eq!(who(UserKey::Cookie("empty".into())), None);
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(user::identify(&UserKey::Client, "/", &headers, mapped), who(UserKey::Client));
    assert_eq!(user::hash_of(b"42"), 9_734_850_259_436_003_884, "pinned: users' homes must not move with a release");
}

fn limited(requests: u32, datacenters: &[(u32, &[u32])]) -> Snapshot {
    use crate::config::{Config, Limits};
    let mut s = world(Balance::P2c, datacenters);
    let mut config = Config::clone(&s.topology.config);
    config.services[0].limits = Limits { requests, ..Limits::default() };
    s.topology = Arc::new(Topology::build(Arc::new(config), Assets::default(), None));
    s
}

#[test]
fn who_is_full_is_not_asked_and_nor_are_the_sick_for_that() {
    let mut s = limited(3, &[(1, &[1, 1, 1]), (1, &[1])]);
    let wanted = Wanted { service: SERVICE, local: Some(DC), user: None, seat: None };
    let go = |s: &Snapshot| choose(s, &wanted, &mut Tried::new(), &mut Turn::new(), NOW, &mut Rng::seeded(1));
    set_backend(&mut s, BackendId::new(2), BackendState::Down);
    (0..3).for_each(|_| s.topology.backends[0].load.begin());
    assert_eq!(Picker::new(1).counts(&s, 100), [0, 100, 0, 0]);
    assert_eq!(excluded(&s, BackendId::new(0)), Some("as many requests as `limits` allow"));
    (0..3).for_each(|_| s.topology.backends[1].load.begin());
    assert_eq!(go(&s).unwrap().backend, BackendId::new(3), "elsewhere, and not at who is down here");
    (0..3).for_each(|_| s.topology.backends[3].load.begin());
    assert_eq!(go(&s), Err(NoChoice::Full));
}

#[test]
fn who_was_full_is_passed_over_and_after_all_of_them_it_is_over() {
    let s = world(Balance::P2c, &[(1, &[1, 1, 1])]);
    let wanted = Wanted { service: SERVICE, local: Some(DC), user: None, seat: None };
    let mut tried = Tried::new();
    let go = |tried: &mut Tried| choose(&s, &wanted, tried, &mut Turn::new(), NOW, &mut Rng::seeded(1));
    for _ in 0..3 {
        let choice = go(&mut tried).unwrap();
        assert!(!tried.is_passed(choice.backend) && tried.pass(choice.backend));
    }
    assert_eq!(go(&mut tried), Err(NoChoice::Full));
    assert!(tried.is_empty() && !tried.is_untouched(), "nothing has failed");
    assert!((0..40).any(|n| !tried.pass(BackendId::new(n))), "and it does not go on for ever");
}

#[test]
fn a_session_stays_while_its_backend_may_be_asked() {
    use BackendState::{AdminDown, Down, Drained, Ejected, HalfOpen, Healthy, SlowStart};
    let s = world(Balance::P2c, &[(1, &[1, 1, 1]), (1, &[1])]);
    let theirs = BackendId::new(3);
    let seat = s.topology.backend(theirs).seat;
    let go = |s: &Snapshot, tried: &mut Tried, seat| {
        let wanted = Wanted { service: SERVICE, local: Some(DC), user: None, seat: Some(seat) };
        choose(s, &wanted, tried, &mut Turn::new(), NOW, &mut Rng::seeded(1)).unwrap()
    };
    for (state, stays) in [
        (Healthy, true),
        (SlowStart, true),
        (Drained, true),
        (HalfOpen, false),
        (Ejected, false),
        (Down, false),
        (AdminDown, false),
    ] {
        let mut s = s.clone();
        set_backend(&mut s, theirs, state);
        let choice = go(&s, &mut Tried::new(), seat);
        assert_eq!((choice.backend == theirs, choice.reason == Reason::Session), (stays, stays), "{state:?}");
    }
    let mut tried = Tried::new();
    tried.note(theirs, DatacenterId::new(1), Outcome::Refused);
    assert_ne!(go(&s, &mut tried, seat).backend, theirs, "it has just failed");
    assert_ne!(go(&s, &mut Tried::new(), seat ^ 1).reason, Reason::Session, "nobody has this seat");
}

#[test]
fn a_choice_looks_elsewhere_when_a_datacenter_has_nobody() {
    let mut s = world(Balance::P2c, &[(1, &[1, 1]), (1, &[1])]);
    for id in members(&s, 0) {
        set_backend(&mut s, id, BackendState::AdminDown);
    }
    // The weights have not caught up: the first datacenter still counts as serving.
    let wanted = Wanted { service: SERVICE, local: Some(DC), user: None, seat: None };
    let mut tried = Tried::new();
    let choice = choose(&s, &wanted, &mut tried, &mut Turn::new(), NOW, &mut Rng::seeded(1)).unwrap();
    assert_eq!((choice.datacenter.index(), choice.reason), (1, Reason::Only));
    assert!(tried.is_exhausted(DC));
    set_backend(&mut s, BackendId::new(2), BackendState::AdminDown);
    let none = choose(&s, &wanted, &mut Tried::new(), &mut Turn::new(), NOW, &mut Rng::seeded(1));
    assert_eq!(none, Err(NoChoice::NoBackend));
}

#[test]
fn three_tries_leave_a_datacenter_that_died_a_moment_ago() {
    let s = world(Balance::P2c, &[(40, &[1; 12]), (40, &[1; 12]), (20, &[1; 12])]);
    let wanted = Wanted { service: SERVICE, local: Some(DC), user: None, seat: None };
    let (mut turn, mut rng) = (Turn::new(), Rng::seeded(3));
    for _ in 0..1_000 {
        let mut tried = Tried::new();
        for _ in 0..2 {
            let choice = choose(&s, &wanted, &mut tried, &mut turn, NOW, &mut rng).unwrap();
            assert!(choice.datacenter == DC && !tried.contains(choice.backend));
            tried.note(choice.backend, choice.datacenter, Outcome::Refused);
        }
        let last = choose(&s, &wanted, &mut tried, &mut turn, NOW, &mut rng).unwrap();
        assert_ne!(last.datacenter, DC);
        assert_eq!(last.placed, place::Reason::Retry);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_024))]

    /// Whatever the others' health: with their home up nobody goes elsewhere; with it down nobody goes there, and whoever is
    /// well takes the note, this node's own datacenter first.
    #[test]
    fn nobody_goes_elsewhere_while_home_is_up(
        states in prop::collection::vec(0usize..7, 6), users in prop::collection::vec(any::<u64>(), 1..20),
        seed: u64, has_failed: bool,
    ) {
        const STATES: [BackendState; 7] = [
            BackendState::Healthy, BackendState::Down, BackendState::Ejected, BackendState::Suspect,
            BackendState::Drained, BackendState::AdminDown, BackendState::SlowStart,
        ];
        let mut s = world(Balance::UserHome, &[(40, &[1, 1]), (20, &[1, 1]), (40, &[1, 1])]);
        elsewhere(&mut s);
        for (id, state) in states.iter().enumerate() {
            set_backend(&mut s, BackendId::new(id), STATES[*state]);
        }
        // As the health core would have it: a datacenter without anybody who is well has failed.
        for dc in 0..3 {
            if states[2 * dc..2 * dc + 2].iter().all(|state| !STATES[*state].usable()) {
                set_datacenter(&mut s, dc, DcState::Failed, 0);
            }
        }
        let mut rng = Rng::seeded(seed);
        for user in users {
            let home = user::home(&s, SERVICE, user).unwrap();
            let wanted = Wanted { service: SERVICE, local: Some(DC), user: Some(user), seat: None };
            let mut tried = Tried::new();
            if has_failed {
                tried.note(home, s.topology.backend(home).spec.datacenter, Outcome::Refused);
            }
            let state = s.backend(home).state;
            let is_up = !has_failed
                && !matches!(state, BackendState::Down | BackendState::Ejected | BackendState::AdminDown);
            let choice = choose(&s, &wanted, &mut tried, &mut Turn::new(), NOW, &mut rng);
            if is_up {
                let choice = choice.unwrap();
                prop_assert_eq!((choice.backend, choice.reason), (home, Reason::Home));
                continue;
            }
            let well = |id: BackendId| id != home && s.backend(id).state.usable();
            let anybody: Vec<BackendId> = s.topology.members_anywhere(SERVICE).filter(|id| well(*id)).collect();
            match choice {
                Ok(choice) => {
                    prop_assert_eq!(choice.reason, Reason::Elsewhere);
                    prop_assert_ne!(choice.backend, home);
                    prop_assert!(anybody.is_empty() || well(choice.backend), "{:?}", choice);
                    let near = anybody.iter().any(|id| s.topology.backend(*id).spec.datacenter == DC);
                    prop_assert!(!near || choice.datacenter == DC, "{:?}", choice);
                }
                Err(none) => {
                    prop_assert_eq!(none, NoChoice::HomeDown(home));
                    prop_assert!(anybody.is_empty(), "{:?}", anybody);
                }
            }
        }
    }
}

fn elsewhere(s: &mut Snapshot) {
    use crate::config::{HomeDown, Homing};
    let mut config = (*s.topology.config).clone();
    config.services[0].homing = Homing { down: HomeDown::Elsewhere, ..Homing::default() };
    s.topology = Arc::new(Topology::build(Arc::new(config), Assets::default(), None));
}
