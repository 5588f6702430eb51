//! How many answers a client prefix has had: a leaky bucket each (GCRA, ITU-T I.371) in fixed memory, shared by all threads.
//!
//! A bucket is one word: a tag of 20 bits, and the moment until which the prefix has used up its share. Eight of them make a
//! set, which is a line of the cache. Who finds no bucket in its set takes over the one that is least used, and with it
//! what that one has used (as space-saving does; Metwally, Agrawal, El Abbadi, ICDT 2005): so nobody ever gets more than its
//! rate, and an honest prefix suffers only where eight others of its set are at their limits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::base::clock::Mono;
use crate::base::hash;

/// Sets in the table: with eight buckets each 131,072 of them, in 1 MiB.
const SETS: usize = 1 << 14;
/// Buckets in a set: a line of the cache.
const WAYS: usize = 8;
/// Bits of a bucket that hold the moment; the rest is the tag.
const MOMENT: u32 = 44;
const MASK: u64 = (1 << MOMENT) - 1;
/// Nanoseconds in a tick: 44 bits of them come round after 50 days.
const TICK: u64 = 250;
/// Further ahead than any bucket fills (two minutes): a moment beyond that is long past.
const HORIZON: u64 = 1 << 29;
/// How often a bucket may be changed by others while we look at it.
const TRIES: usize = 8;

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Ticks that one answer uses up; rounded up, so that the rate is never passed.
    step: u64,
    /// Ticks that may be used up ahead.
    burst: u64,
}

impl Pace {
    /// `rate` a second, `window` worth of it at once.
    pub(crate) fn new(rate: f64, window: Duration) -> Self {
        let second = Duration::from_secs(1).as_nanos() as f64 / TICK as f64;
        let step = (second / rate.max(1.0)).ceil().max(1.0) as u64;
        let at_once = (rate * window.as_secs_f64()).ceil().max(1.0) as u64;
        Self { step, burst: step.saturating_mul(at_once).min(HORIZON) }
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Limiter {
    sets: Box<[Set]>,
    /// Of this process: nobody can choose prefixes that share a set.
    key: [u64; 2],
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

impl Limiter {
    /// Nobody has had anything.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self::with(SETS, key)
    }

    fn with(sets: usize, key: [u64; 2]) -> Self {
        Self { sets: (0..sets.next_power_of_two()).map(|_| Set::default()).collect(), key }
    }

    /// Counts one more answer to `who`, if it may have it at `now`.
    pub(crate) fn admit(&self, who: u64, pace: Pace, now: Mono) -> bool {
        let hash = hash::mix(hash::mix(who ^ self.key[0]) ^ self.key[1]);
        let Some(Set(set)) = self.sets.get(hash as usize & (self.sets.len() - 1)) else { return true };
        let (tag, now) = (hash & !MASK, now.nanos() / TICK);
        for _ in 0..TRIES {
            let Some((bucket, seen, used)) = find(set, tag, now) else { return true };
            if used + pace.step > pace.burst {
                return false;
            }
            let next = tag | (now.wrapping_add(used + pace.step) & MASK);
            if bucket.compare_exchange_weak(seen, next, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        // So many others were admitted to this very bucket meanwhile that it is no loss to say no.
        false
    }
}

/// The bucket of `tag`, or the one that is least used: with what stood in it and how many ticks are used up ahead of `now`.
fn find(set: &[AtomicU64; WAYS], tag: u64, now: u64) -> Option<(&AtomicU64, u64, u64)> {
    let mut least: Option<(&AtomicU64, u64, u64)> = None;
    for bucket in set {
        let seen = bucket.load(Relaxed);
        let ahead = seen.wrapping_sub(now) & MASK;
        // A bucket that was never used says nothing, also when the clock comes round to its zero.
        let used = if ahead <= HORIZON && seen != 0 { ahead } else { 0 };
        if seen & !MASK == tag {
            return Some((bucket, seen, used));
        }
        if least.is_none_or(|(_, _, least)| used < least) {
            least = Some((bucket, seen, used));
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u64; 2] = [0x5eed, 0x0dd];

    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate() {
        let limiter = Limiter::new(KEY);
        let pace = Pace::new(100.0, Duration::from_secs(1));
        let start = Mono::from_millis(1_000);
        let admitted = |at: Mono, n: usize| (0..n).filter(|_| limiter.admit(7, pace, at)).count();
        assert_eq!(admitted(start, 1_000), 100);
        assert_eq!(admitted(start + Duration::from_millis(100), 1_000), 10);
        assert_eq!(admitted(start + Duration::from_mins(1), 1_000), 100, "what is not used is not saved up");
        assert!(limiter.admit(8, pace, start), "another prefix has its own");
    }

    #[test]
    fn the_clock_of_a_bucket_comes_round() {
        let limiter = Limiter::new(KEY);
        let pace = Pace::new(1.0, Duration::from_secs(1));
        let before = Mono::from_nanos(MASK * TICK - 1_000_000);
        for who in [7, 8] {
            assert!(limiter.admit(who, pace, before) && !limiter.admit(who, pace, before));
            assert!(!limiter.admit(who, pace, before + Duration::from_millis(500)));
            assert!(limiter.admit(who, pace, before + Duration::from_millis(1_001)));
            assert!(limiter.admit(who, pace, before + Duration::from_hours(24 * 25)), "long past is not the future");
        }
    }

    #[test]
    fn threads_share_a_limit() {
        let limiter = Limiter::new(KEY);
        let pace = Pace::new(1_000.0, Duration::from_secs(2));
        let now = Mono::from_millis(5_000);
        let admitted: usize = std::thread::scope(|scope| {
            let one = || (0..10_000).filter(|_| limiter.admit(7, pace, now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(admitted, 2_000);
    }

    #[test]
    fn a_flood_from_everywhere_leaves_honest_prefixes_alone() {
        // A million forged queries a second from 60,000 prefixes, each far below its limit, for two seconds; beside them a
        // thousand prefixes that ask ten times a second, and a hundred that are at their limits.
        let limiter = Limiter::new(KEY);
        let pace = Pace::new(200.0, Duration::from_secs(1));
        let mut refused = 0;
        for tick in 0..2_000u64 {
            let now = Mono::from_millis(10_000 + tick);
            for i in 0..1_000 {
                limiter.admit(hash::mix(tick * 1_000 + i) % 60_000, pace, now);
            }
            for i in 0..100 {
                limiter.admit(1 << 40 | i, pace, now);
            }
            for i in (0..1_000).filter(|i| i % 100 == tick % 100) {
                refused += u32::from(!limiter.admit(1 << 41 | i, pace, now));
            }
        }
        assert_eq!(refused, 0, "of 20,000");
    }

    #[test]
    fn saturated_sets_punish_a_bounded_share() {
        // 40,000 prefixes at their limits beside honest ones: whoever shares a set with eight of them is refused, nobody else.
        let limiter = Limiter::new(KEY);
        let pace = Pace::new(10.0, Duration::from_secs(1));
        let now = Mono::from_millis(10_000);
        for attacker in 0..40_000u64 {
            for _ in 0..12 {
                limiter.admit(attacker, pace, now);
            }
        }
        let refused = (0..10_000u64).filter(|i| !limiter.admit(1 << 41 | i, pace, now)).count();
        // 40,000 over 16,384 sets: Poisson with 2.44; eight or more in 0.4 % of the sets.
        assert!(refused < 100, "{refused} of 10,000");
    }

    proptest! {
        /// In no stretch of time does a prefix get more than its burst and its rate, whoever else asks and however small the
        /// table is.
        #[test]
        fn never_more_than_rate_and_burst(
            rate in 1.0f64..5_000.0, window_ms in 10u64..3_000,
            asks in prop::collection::vec((0u64..40, 0u64..20_000, 1usize..40), 1..400),
        ) {
            let limiter = Limiter::with(2, KEY);
            let window = Duration::from_millis(window_ms);
            let pace = Pace::new(rate, window);
            let mut now = Mono::from_millis(1_000);
            let mut admitted: Vec<Vec<(Mono, usize)>> = vec![Vec::new(); 40];
            for (who, later_us, times) in asks {
                now = now + Duration::from_micros(later_us);
                let got = (0..times).filter(|_| limiter.admit(who, pace, now)).count();
                admitted[who as usize].push((now, got));
            }
            for moments in admitted {
                for (i, (from, _)) in moments.iter().enumerate() {
                    let mut sum = 0;
                    for (to, got) in &moments[i..] {
                        sum += got;
                        let most = (rate * window.as_secs_f64()).ceil().max(1.0) + rate * to.since(*from).as_secs_f64() + 1e-6;
                        prop_assert!(sum as f64 <= most + 1.0, "{sum} > {most}");
                    }
                }
            }
        }
    }
}
