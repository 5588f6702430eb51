//! Backends that announce themselves: each is there as long as its heartbeats are.
//!
//! ```text
//!   absent --beat--> alive --no beat for its ttl--> late --grace over--> gone
//!                      ^                             |  |
//!                      +------------beat-------------+  +--> stays late while most of the others have gone within
//!                                                            a minute, too, and no probe says that it is down
//! ```
//!
//! When most of them fall silent at once, it is rather the registry that cannot be reached: then health checks decide, as
//! Eureka's self-preservation has it. Pure: time comes in.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Mono;
use crate::config::MOST_FOUND;
use crate::snapshot::discovered::Found;

/// Shortest and longest time that a heartbeat may be good for.
pub(super) const TTL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(10));
/// How long a heartbeat is good for where it does not say.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// How long those that went are remembered, to see whether most of them go at once (ours).
const WINDOW: Duration = Duration::from_mins(1);

/// What announced itself to one service in one datacenter.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    entries: BTreeMap<SocketAddr, Registered>,
    /// When entries went for want of heartbeats, oldest first.
    gone: VecDeque<Mono>,
    /// Entries that would have gone by now, but for the others.
    kept: usize,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) weight: u32,
    pub(super) name: Option<Arc<str>>,
    pub(super) ttl: Duration,
    pub(super) expires: Mono,
}

/// There is room for no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Registry {
    /// Takes a heartbeat; whether the list is another by it.
    pub(super) fn beat(&mut self, found: &Found, ttl: Duration, now: Mono) -> Result<bool, Full> {
        let fresh = Registered { weight: found.weight, name: found.name.clone(), ttl, expires: now + ttl };
        if let Some(known) = self.entries.get_mut(&found.address) {
            let changed = (known.weight, &known.name) != (fresh.weight, &fresh.name);
            *known = fresh;
            return Ok(changed);
        }
        if self.entries.len() >= MOST_FOUND {
            return Err(Full);
        }
        self.entries.insert(found.address, fresh);
        Ok(true)
    }

    /// Takes a backend out that says so itself, or of which an operator says it; whether it was there.
    pub(super) fn leave(&mut self, address: SocketAddr) -> bool {
        self.entries.remove(&address).is_some()
    }

    /// One of them.
    pub(super) fn entry(&self, address: SocketAddr) -> Option<&Registered> {
        self.entries.get(&address)
    }

    /// Those that it keeps though their heartbeats are missing, because most others are missing, too.
    pub(super) const fn kept(&self) -> usize {
        self.kept
    }

    /// The list.
    pub(super) fn list(&self) -> Vec<Found> {
        let found = |(address, entry): (&SocketAddr, &Registered)| Found {
            address: *address,
            weight: entry.weight,
            name: entry.name.clone(),
        };
        self.entries.iter().map(found).collect()
    }

    /// How long each lasts, for the disk.
    pub(super) fn ttls_ms(&self) -> BTreeMap<SocketAddr, u64> {
        let ms = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.entries.iter().map(|(address, entry)| (*address, ms(entry.ttl))).collect()
    }

    /// Takes out whose time is over; `down`: whether a probe says that it is. Gives those that went.
    pub(super) fn sweep(&mut self, down: impl Fn(SocketAddr) -> bool, now: Mono) -> Vec<SocketAddr> {
        while self.gone.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            self.gone.pop_front();
        }
        let over: Vec<SocketAddr> =
            self.entries.iter().filter(|(_, e)| now >= e.expires + grace(e.ttl)).map(|(address, _)| *address).collect();
        let silent = self.entries.values().filter(|e| now >= e.expires).count() + self.gone.len();
        let most = silent * 2 > self.entries.len() + self.gone.len();
        let went: Vec<SocketAddr> = over.iter().copied().filter(|address| !most || down(*address)).collect();
        self.kept = over.len() - went.len();
        for address in &went {
            self.entries.remove(address);
            self.gone.push_back(now);
        }
        went
    }

    /// When something may have to go at the soonest.
    pub(super) fn next(&self) -> Option<Mono> {
        self.entries.values().map(|e| e.expires + grace(e.ttl)).min()
    }
}

/// How long after its time a backend is waited for: until most others would have missed a heartbeat, too, if it is not
/// the backend that is to blame.
fn grace(ttl: Duration) -> Duration {
    (ttl / 2).min(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn found(host: u8) -> Found {
        Found { address: ([10, 0, 0, host], 80).into(), weight: 1, name: None }
    }

    fn at(s: u64) -> Mono {
        Mono::from_millis(100_000 + s * 1_000)
    }

    fn of(hosts: u8) -> Registry {
        let mut registry = Registry::default();
        (1..=hosts).for_each(|host| assert_eq!(registry.beat(&found(host), 10 * S, at(0)), Ok(true)));
        registry
    }

    #[test]
    fn a_heartbeat_registers_renews_and_changes() {
        let mut registry = of(2);
        assert_eq!(registry.beat(&found(1), 10 * S, at(5)), Ok(false), "it is there already");
        assert_eq!(registry.beat(&Found { weight: 2, ..found(1) }, 10 * S, at(6)), Ok(true));
        assert_eq!((registry.list().len(), registry.list()[0].weight), (2, 2));
        assert_eq!(registry.next(), Some(at(15)), "ten seconds, and five of grace");
        assert_eq!(registry.sweep(|_| false, at(14)), []);
        assert_eq!(registry.sweep(|_| false, at(15)), [found(2).address], "one of two has gone");
        assert!(registry.leave(found(1).address) && !registry.leave(found(1).address));
        let mut full = Registry::default();
        for host in 0..MOST_FOUND {
            let address = SocketAddr::from(([10, 1, (host / 256) as u8, (host % 256) as u8], 80));
            assert_eq!(full.beat(&Found { address, ..found(1) }, S, at(0)), Ok(true));
        }
        assert_eq!(full.beat(&found(1), S, at(0)), Err(Full));
    }

    #[test]
    fn when_most_fall_silent_health_checks_decide() {
        let mut registry = of(4);
        assert_eq!(registry.beat(&found(1), 10 * S, at(9)), Ok(false));
        let dead = found(3).address;
        assert_eq!(
            registry.sweep(|address| address == dead, at(16)),
            [dead],
            "three of four, and a probe agrees of one"
        );
        assert_eq!((registry.list().len(), registry.kept()), (3, 2));
        assert_eq!(registry.sweep(|_| false, at(30)), [], "and then the last");
        assert_eq!(registry.kept(), 3);
        assert_eq!(registry.beat(&found(1), 10 * S, at(31)), Ok(false));
        assert_eq!(registry.beat(&found(2), 10 * S, at(31)), Ok(false));
        assert_eq!(
            registry.sweep(|_| false, at(32)),
            [found(4).address],
            "one late, one gone of four: half, and not most"
        );
        assert_eq!((registry.list().len(), registry.kept()), (2, 0));
    }

    #[test]
    fn one_after_the_other_is_at_once_too() {
        let mut registry = Registry::default();
        for host in 1..=4 {
            assert_eq!(registry.beat(&found(host), 10 * S, at(u64::from(host) * 3)), Ok(true));
        }
        let went: Vec<usize> = (10..60).map(|s| registry.sweep(|_| false, at(s)).len()).collect();
        assert!(went.iter().sum::<usize>() <= 2, "half of them, at the most: {went:?}");
        assert_eq!(registry.list().len() + went.iter().sum::<usize>(), 4);
    }
}
