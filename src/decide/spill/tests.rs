//! The law by itself, and in a closed loop with resolvers that keep their answers for a TTL.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::base::hash;

const NOW: Mono = Mono::from_millis(100_000);
const TTL: Duration = Duration::from_secs(20);

fn at(rate: f64, shed: u32, felt: f64) -> Spill {
    Spill { rate_rps: Some(rate), shed, felt, ..Spill::default() }
}

fn sites(capacities: &[f64]) -> Vec<Site> {
    capacities.iter().map(|c| Site { capacity_rps: Some(*c), serving: true }).collect()
}

#[test]
fn a_rate_is_an_average_over_seconds() {
    let mut spill = Spill { counted_from: NOW, ..Spill::default() };
    assert_eq!(measure(&spill, true, NOW + MEASURE / 2), None);
    for second in 1..=60u32 {
        spill.requests = if second <= 30 { 1_000 } else { 0 };
        spill = measure(&spill, true, NOW + MEASURE * second).unwrap();
        match second {
            1 => assert_eq!(spill.rate_rps, Some(1_000.0), "the first is all that is known"),
            35 => assert!((spill.rate_rps.unwrap() - 368.0).abs() < 5.0, "1/e after five seconds: {spill:?}"),
            60 => assert!(spill.rate_rps.unwrap() < 5.0),
            _ => {}
        }
    }
    let silent = measure(&spill, false, NOW + MEASURE * 61).unwrap();
    assert_eq!((silent.rate_rps, silent.silent_from), (None, Some(NOW + MEASURE * 61)));
}

#[test]
fn nothing_leaves_below_the_low_mark_or_without_a_capacity() {
    let calm = decide(&[at(74.0, 0, 0.0), at(10.0, 0, 0.0)], &sites(&[100.0, 100.0]), TTL, NOW);
    assert!(calm.iter().all(|s| s.shed == 0), "{calm:?}");
    let unknown = Site { capacity_rps: None, serving: true };
    assert_eq!(decide(&[at(1e9, 0, 0.0)], &[unknown], TTL, NOW)[0].shed, 0);
}

#[test]
fn who_has_said_no_capacity_has_room() {
    let full = at(150.0, 0, 0.0);
    let limited = Site { capacity_rps: Some(100.0), serving: true };
    let unlimited = Site { capacity_rps: None, serving: true };
    let shed = |others: &[Site]| {
        let sites = [&[limited], others].concat();
        let spills: Vec<Spill> = sites.iter().map(|_| full.clone()).collect();
        decide(&spills, &sites, Duration::ZERO, NOW)[0].shed
    };
    assert_eq!((shed(&[unlimited]), shed(&[limited, unlimited])), (100, 100));
    // Where there is nobody to go to, or nobody who has less to do, nobody goes.
    assert_eq!((shed(&[]), shed(&[limited]), shed(&[Site { serving: false, ..unlimited }])), (0, 0, 0));
}

#[test]
fn who_no_longer_tells_is_held_for_a_while_and_then_let_go_within_a_minute() {
    let mut spill = Spill { silent_from: Some(NOW), ..at(0.0, 800, 0.8) };
    spill.rate_rps = None;
    let mut seen = Vec::new();
    for step in 1..=16u32 {
        spill = decide(&[spill], &sites(&[100.0]), TTL, NOW + STEP * step - MEASURE).remove(0);
        seen.push(spill.shed);
    }
    assert_eq!(&seen[..3], [800, 800, 800], "three periods");
    assert!(seen.windows(2).all(|w| w[1] <= w[0]) && seen[14] == 0, "{seen:?}");
}

proptest! {
    /// No step is wider than ten points, whatever is told; a share stays a share.
    #[test]
    fn steps_are_small(rates in prop::collection::vec(0.0..1e6, 1..5), sheds in prop::collection::vec((0u32..=100, 0.0..=1.0), 5), ttl in 0u64..3_600) {
        let spills: Vec<Spill> = rates.iter().zip(&sheds).map(|(r, (s, f))| at(*r, s * 10, *f)).collect();
        let capacities: Vec<f64> = rates.iter().map(|r| r / 2.0 + 1.0).collect();
        let next = decide(&spills, &sites(&capacities), Duration::from_secs(ttl), NOW);
        for (before, after) in spills.iter().zip(&next) {
            prop_assert!(after.shed.abs_diff(before.shed) <= 100 && after.shed <= 1_000);
            prop_assert!((0.0..=1.0).contains(&after.felt));
        }
    }

    /// More load never keeps more clients.
    #[test]
    fn more_load_sheds_no_less(rate in 0.0..300.0, more in 0.0..300.0, shed in 0u32..=100, felt in 0.0..=1.0) {
        let one = |rate| decide(&[at(rate, shed * 10, felt), at(0.0, 0, 0.0)], &sites(&[100.0, 1e4]), TTL, NOW)[0].shed;
        // Five points of hysteresis, and a point of the grid.
        prop_assert!(one(rate + more) + 60 >= one(rate));
    }
}

/// Clients behind resolvers that keep an answer for a TTL, each from its own moment on.
struct World {
    /// By client: whom it prefers, in order; where it goes now; when it asks again.
    clients: Vec<([usize; 3], usize, u32)>,
    spills: Vec<Spill>,
    capacities: [f64; 3],
}

impl World {
    fn new(shares: [f64; 3], capacities: [f64; 3]) -> Self {
        let clients = (0..6_000u64).map(|i| {
            let draw = hash::unit(hash::mix(i));
            let first = if draw < shares[0] {
                0
            } else if draw < shares[0] + shares[1] {
                1
            } else {
                2
            };
            let second = (first + 1 + usize::from(hash::mix(i ^ 0x77) & 1 == 0)) % 3;
            ([first, second, 3 - first - second], first, (hash::mix(i + 1) % TTL.as_secs()) as u32)
        });
        Self { clients: clients.collect(), spills: vec![Spill::default(); 3], capacities }
    }

    /// One second: `rate` requests a second from each client.
    fn second(&mut self, at: u32, rate: f64) {
        let now = NOW + Duration::from_secs(at.into());
        for (i, (order, goes, asks)) in self.clients.iter_mut().enumerate() {
            if at % TTL.as_secs() as u32 == *asks {
                let leaves =
                    |dc: usize| hash::unit(hash::join(i as u64, dc as u64)) <= f64::from(self.spills[dc].shed) / 1e3;
                *goes = order.iter().copied().find(|dc| !leaves(*dc)).unwrap_or(order[0]);
            }
            self.spills[*goes].requests += (rate * 1e3) as u64;
        }
        for spill in &mut self.spills {
            spill.requests /= 1_000;
            *spill = measure(spill, true, now).unwrap_or_else(|| spill.clone());
        }
        if at.is_multiple_of(5) {
            self.spills = decide(&self.spills, &sites(&self.capacities), TTL, now);
        }
    }

    fn used(&self) -> [f64; 3] {
        std::array::from_fn(|i| self.spills[i].rate_rps.unwrap_or(0.0) / self.capacities[i])
    }
}

/// How often a share turned around.
fn turns(sheds: &[u32]) -> usize {
    let moves: Vec<i64> = sheds.windows(2).map(|w| i64::from(w[1]) - i64::from(w[0])).filter(|m| *m != 0).collect();
    moves.windows(2).filter(|w| w[0].signum() != w[1].signum()).count()
}

/// Runs for `seconds` at a rate; the utilisation at the end, and all shares on the way.
fn run(world: &mut World, from: u32, seconds: u32, rate: f64) -> ([f64; 3], Vec<[u32; 3]>) {
    let mut sheds = Vec::new();
    let mut last: VecDeque<[f64; 3]> = VecDeque::new();
    for at in from..from + seconds {
        world.second(at, rate);
        sheds.push(std::array::from_fn(|i| world.spills[i].shed));
        last.push_back(world.used());
        if last.len() > 30 {
            last.pop_front();
        }
    }
    let highest = std::array::from_fn(|i| last.iter().map(|u| u[i]).fold(0.0, f64::max));
    (highest, sheds)
}

#[test]
fn one_that_is_wanted_too_much_settles_below_the_high_mark_without_swinging() {
    for wanted in [1.0, 1.3, 1.6] {
        let capacities = [1_000.0, 2_000.0, 2_000.0];
        // Half of all clients prefer the first.
        let mut world = World::new([0.5, 0.25, 0.25], capacities);
        let rate = wanted * 1_000.0 / 3_000.0;
        let (used, sheds) = run(&mut world, 1, 600, rate);
        let first: Vec<u32> = sheds.iter().map(|s| s[0]).collect();
        assert!(turns(&first) <= 1, "{wanted}: {first:?}");
        assert!(used[0] < HIGH && used[0] > 0.6, "{wanted}: {used:?}");
        assert!(used[1] < HIGH && used[2] < HIGH, "{wanted}: {used:?}");
        // And back: nothing stays away for good.
        let (_, sheds) = run(&mut world, 601, 400, rate / 4.0);
        let first: Vec<u32> = sheds.iter().map(|s| s[0]).collect();
        assert!(turns(&first) == 0 && first.last() == Some(&0), "{wanted}: {first:?}");
    }
}

#[test]
fn where_everybody_has_too_much_the_load_is_levelled() {
    let mut world = World::new([0.6, 0.3, 0.1], [1_000.0, 1_000.0, 1_000.0]);
    let (used, sheds) = run(&mut world, 1, 900, 3_300.0 / 6_000.0);
    let spread = used.iter().copied().fold(0.0, f64::max) - used.iter().copied().fold(9.0, f64::min);
    assert!(spread < 0.25, "{used:?}: from 1.98, 0.99 and 0.33");
    for dc in 0..3 {
        let shares: Vec<u32> = sheds.iter().map(|s| s[dc]).collect();
        assert!(turns(&shares) <= 3, "{dc}: {shares:?}");
    }
}
