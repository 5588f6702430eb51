//! What happens to the fleet, drawn from the seed before the play begins.

use std::net::SocketAddr;
use std::time::Duration;

use springtide::base::clock::Mono;
use springtide::base::entropy::Rng;
use springtide::config::Config;
use springtide::snapshot::intent::{Subject, Wish};

use crate::nodes::Truth;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A process changes.
    Node(SocketAddr, Truth),
    /// Everything in a datacenter changes at once.
    Datacenter(usize, Truth),
    /// This node is cut off from everything, or no longer.
    Cut(bool),
    /// An operator wants something, for so long.
    Wish(Subject, Wish, Option<Duration>),
    /// An operator takes it back.
    Revoke(Subject),
    /// Another configuration.
    Reload,
    /// The process ends and starts again, with its memory if it kept one.
    Restart {
        /// Whether it did.
        remembers: bool,
    },
}

/// How long things happen.
pub(crate) const LENGTH: Duration = Duration::from_mins(1);

/// A random script, sorted by time.
pub(crate) fn random(config: &Config, start: Mono, rng: &mut Rng) -> Vec<(Mono, Act)> {
    let mut acts = Vec::new();
    for _ in 0..3 + rng.below(10) {
        let at = start + millis(rng.below(LENGTH.as_millis() as u64));
        scene(config, at, rng, &mut acts);
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

fn scene(config: &Config, at: Mono, rng: &mut Rng, acts: &mut Vec<(Mono, Act)>) {
    let address = some_address(config, rng);
    let dc = rng.below(config.datacenters.len() as u64) as usize;
    let lasts = millis(300 + rng.below(25_000));
    let dead = if rng.chance(0.5) { Truth::Crashed } else { Truth::Silent };
    let for_a_while = |truth| vec![(at, Act::Node(address, truth)), (at + lasts, Act::Node(address, Truth::Well))];
    acts.extend(match rng.below(100) {
        0..22 => for_a_while(dead),
        22..37 => vec![(at, Act::Datacenter(dc, dead)), (at + lasts, Act::Datacenter(dc, Truth::Well))],
        37..40 => (0..config.datacenters.len())
            .flat_map(|dc| {
                let at = at + millis(rng.below(400));
                [(at, Act::Datacenter(dc, dead)), (at + lasts, Act::Datacenter(dc, Truth::Well))]
            })
            .collect(),
        40..50 => {
            let period = millis(400 + rng.below(6_000));
            let flips = 2 + rng.below(20) as u32;
            let truth = |n: u32| if n.is_multiple_of(2) { dead } else { Truth::Well };
            let flip = |n| (at + period * n, Act::Node(address, if n == flips { Truth::Well } else { truth(n) }));
            (0..=flips).map(flip).collect()
        }
        50..56 => for_a_while(Truth::Slow(60 + rng.below(800) as u32)),
        56..62 => for_a_while(Truth::Liar),
        62..67 => for_a_while(Truth::Shy),
        67..73 => for_a_while(Truth::Flaky(10 + rng.below(60) as u32)),
        73..76 => for_a_while(Truth::Pressed),
        76..80 => vec![(at, Act::Cut(true)), (at + lasts / 3, Act::Cut(false))],
        80..92 => {
            let subject = some_subject(config, address, dc, rng);
            let wish = match rng.below(4) {
                0 => Wish::Down,
                1 => Wish::Weight(rng.below(60) as u32),
                _ => Wish::Drain,
            };
            let until = rng.chance(0.5).then_some(lasts);
            let mut acts = vec![(at, Act::Wish(subject.clone(), wish, until))];
            if rng.chance(0.5) {
                acts.push((at + lasts / 2, Act::Revoke(subject)));
            }
            acts
        }
        92..96 => vec![(at, Act::Reload)],
        _ => vec![(at, Act::Restart { remembers: rng.chance(0.8) })],
    });
}

fn some_address(config: &Config, rng: &mut Rng) -> SocketAddr {
    let all: Vec<SocketAddr> = config.services.iter().flat_map(|s| s.backends.iter().map(|b| b.address)).collect();
    all[rng.below(all.len() as u64) as usize]
}

fn some_subject(config: &Config, address: SocketAddr, dc: usize, rng: &mut Rng) -> Subject {
    let datacenter = config.datacenters[dc].name.clone();
    let service = config.services[rng.below(config.services.len() as u64) as usize].name.clone();
    match rng.below(4) {
        0 => Subject::Datacenter(datacenter),
        1 => Subject::Service { service, datacenter },
        2 => Subject::Backend { address: address.to_string(), service: Some(service) },
        _ => Subject::Backend { address: address.to_string(), service: None },
    }
}

const fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
