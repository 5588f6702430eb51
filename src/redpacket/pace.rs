//! How fast and how often: a token bucket, retries with jitter, and a breaker. Pure: time and draws come in.

use std::time::Duration;

use crate::base::clock::Mono;

/// A token bucket: in any window, at most `rate` a second and `burst` at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    interval_ns: u64,
    burst_ns: u64,
    /// When the bucket would be full (GCRA's theoretical arrival time: the same limits, in one number).
    full_at: u64,
}

impl Bucket {
    /// A full bucket. A rate that is not positive lets one through in a year; a burst of 0 counts as 1.
    pub fn new(rate: f64, burst: u32) -> Self {
        let interval = if rate > 0.0 { (1e9 / rate).min(3.15e16) } else { 3.15e16 };
        let interval_ns = (interval as u64).max(1);
        Self { interval_ns, burst_ns: interval_ns.saturating_mul(u64::from(burst.max(1) - 1)), full_at: 0 }
    }

    /// Takes a token, or says how long to wait for one.
    ///
    /// # Errors
    /// There is none; the time until there is one.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        let (now, full_at) = (now.nanos(), self.full_at.max(now.nanos()));
        let ahead = full_at - now;
        if ahead > self.burst_ns {
            return Err(Duration::from_nanos(ahead - self.burst_ns));
        }
        self.full_at = full_at.saturating_add(self.interval_ns);
        Ok(())
    }
}

/// When to try a delivery again, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The bound of the first wait.
    pub first: Duration,
    /// The bound of every wait.
    pub most: Duration,
    /// Attempts after which an order is dead.
    pub attempts: u32,
}

impl Default for Backoff {
    /// 1 s to 1 h (RED_PACKET 2.7). 108 attempts: the twelve that double, and then half an hour on average, for the 48 h
    /// that were promised.
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_hours(1), attempts: 108 }
    }
}

impl Backoff {
    /// How long to wait after attempt `attempt` (from 1) failed; nothing where that was the last. Full jitter: anywhere
    /// between 0 and the bound, by `draw` (Brooker, "Exponential Backoff and Jitter", 2015).
    pub fn wait(&self, attempt: u32, draw: u64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled).min(self.most);
        Some(bound.mul_f64((draw >> 11) as f64 / (1u64 << 53) as f64))
    }
}

/// Keeps calls from a dependency that does not answer.
///
/// ```text
///   closed --5 failures in a row--> open (1 s, doubling to 30 s) --time--> one trial --ok--> closed, --fails--> open
/// ```
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    failures: u32,
    /// Closed where nothing.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Mono,
    wait: Duration,
}

impl Breaker {
    const FAILURES: u32 = 5;
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(30);

    /// Whether to call now. A yes while open is the trial: others get a no until its word is in, or until as long again
    /// has passed without one.
    pub fn allow(&mut self, now: Mono) -> bool {
        match &mut self.open {
            None => true,
            Some(open) if now < open.until => false,
            Some(open) => {
                open.until = now + open.wait;
                true
            }
        }
    }

    /// The call worked.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The call failed.
    pub fn failed(&mut self, now: Mono) {
        self.failures = self.failures.saturating_add(1);
        let wait = match self.open {
            None if self.failures < Self::FAILURES => return,
            None => Self::FIRST,
            // Calls from before it opened come in late; only a trial's word makes the wait longer.
            Some(open) if now + open.wait <= open.until => return,
            Some(open) => (open.wait * 2).min(Self::MOST),
        };
        self.open = Some(Open { until: now + wait, wait });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Never more than rate x window + burst, in any window.
        #[test]
        fn a_bucket_keeps_its_rate(rate in 1u32..2_000, burst in 1u32..50, steps in prop::collection::vec(0u64..20_000_000, 1..400)) {
            let mut bucket = Bucket::new(f64::from(rate), burst);
            let (mut now, mut taken) = (1_000_000_000, Vec::new());
            for step in steps {
                now += step;
                if bucket.take(Mono::from_nanos(now)).is_ok() {
                    taken.push(now);
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (count, to) in taken[i..].iter().enumerate() {
                    let window = (to - from) as f64 / 1e9;
                    prop_assert!((count + 1) as f64 <= f64::from(rate) * window * 1.000_001 + f64::from(burst) + 1e-6);
                }
            }
        }

        #[test]
        fn the_wait_it_names_is_enough(rate in 1u32..1_000, calls in 1usize..50) {
            let mut bucket = Bucket::new(f64::from(rate), 1);
            let mut now = Mono::from_millis(1_000);
            for _ in 0..calls {
                if let Err(wait) = bucket.take(now) {
                    now = now + wait;
                    prop_assert_eq!(bucket.take(now), Ok(()));
                }
            }
        }

        #[test]
        fn waits_stay_under_their_bound(attempt in 1u32..200, draw: u64) {
            let backoff = Backoff::default();
            match backoff.wait(attempt, draw) {
                Some(wait) => prop_assert!(wait <= backoff.most && wait <= Duration::from_secs(1) * 2u32.saturating_pow(attempt - 1)),
                None => prop_assert!(attempt >= backoff.attempts),
            }
        }
    }

    #[test]
    fn a_breaker_opens_tries_once_and_closes() {
        let mut breaker = Breaker::default();
        let at = Mono::from_millis;
        for _ in 0..4 {
            breaker.failed(at(0));
        }
        assert!(breaker.allow(at(1)), "four failures are not enough");
        breaker.failed(at(1));
        assert!(!breaker.allow(at(1_000)), "open for a second");
        assert!(breaker.allow(at(1_001)), "the trial");
        assert!(!breaker.allow(at(1_002)), "one at a time");
        breaker.failed(at(1_100));
        assert!(!breaker.allow(at(3_099)) && breaker.allow(at(3_100)), "twice as long");
        breaker.succeeded();
        assert!(breaker.allow(at(3_101)) && breaker.allow(at(3_101)));
    }

    #[test]
    fn a_trial_without_a_word_does_not_close_the_door_for_good() {
        let mut breaker = Breaker::default();
        let at = Mono::from_millis;
        (0..5).for_each(|_| breaker.failed(at(0)));
        assert!(breaker.allow(at(1_000)) && !breaker.allow(at(1_999)) && breaker.allow(at(2_000)));
    }
}
