//! A seeded simulation of the health core: datacenters that crash, fall silent, flap, limp and lie, operators who drain
//! and reload, on a clock that only the simulation turns. Real are the decisions: `control::step`, the queue of probes,
//! the hot counters, the choice of a backend. After every step the laws of [`laws`] are checked.
//!
//! `SIM_SEED=17 cargo test --test sim -- --nocapture` replays one seed and tells its story; `SIM_SEEDS=5000` plays more.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells by printing"
)]

mod configs;
mod edges;
mod laws;
mod nodes;
mod script;
mod world;

use world::World;

/// Seeds that every run plays.
const SEEDS: u64 = 256;

#[test]
fn laws_hold_for_every_seed() {
    let variable = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().unwrap());
    if let Some(seed) = variable("SIM_SEED") {
        let world = play(seed);
        println!("{}", world.story());
        return;
    }
    let mut total = world::Tally::default();
    for seed in 0..variable("SIM_SEEDS").unwrap_or(SEEDS) {
        total.add(&play(seed).tally);
    }
    println!("{total:?}");
    // A simulation in which nothing happens proves nothing: every kind of trouble must have been seen.
    assert!(total.is_eventful(), "{total:?}");
}

fn play(seed: u64) -> World {
    let mut world = World::new(seed);
    if let Err(broken) = world.play() {
        panic!(
            "{}\nseed {seed}: {broken}\nreplay: SIM_SEED={seed} cargo test --test sim -- --nocapture",
            world.story_tail(60)
        );
    }
    world
}
