//! How fast and how often: a token bucket, one that learns its rate, retries with jitter, and a breaker. Pure: time and draws
//! come in.

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

    /// Goes on at another rate; what was taken stays taken.
    pub fn set_rate(&mut self, rate: f64, burst: u32) {
        *self = Self { full_at: self.full_at, ..Self::new(rate, burst) };
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

/// A bucket whose rate follows what the other side can take: a little more while all goes well, half when it does not (AIMD;
/// Chiu and Jain, 1989), and never more than was configured.
///
/// ```text
///   each second that had an outcome:  one in ten failed             --> half the rate, at least 1 a second
///                                     one in ten failed or was slow --> half the rate, at least a tenth of the configured one
///                                     the rate was what held it up  --> a twentieth of the configured rate more
/// ```
#[derive(Clone, Debug)]
pub struct Throttle {
    most: f64,
    rate: f64,
    slow: Duration,
    bucket: Bucket,
    round: Round,
}

/// What has happened since the rate was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    until: Mono,
    all: u32,
    failed: u32,
    slow: u32,
    is_short: bool,
}

impl Throttle {
    /// How often the rate is looked at.
    const ROUND: Duration = Duration::from_secs(1);
    /// How much of the rate may come at once: timers are no finer than a millisecond, and nobody feels 10 ms.
    const BURST_S: f64 = 0.01;
    /// The lowest rate for who fails, where the configured one is not lower: somebody has to find out that it goes again.
    const LEAST: f64 = 1.0;
    /// The same for who is merely slow, as a share of the configured rate: it may be so whatever it is asked.
    const SLOWEST: f64 = 0.1;

    /// At most `most` a second; what takes longer than `slow` is slow.
    pub fn new(most: f64, slow: Duration) -> Self {
        Self { most, rate: most, slow, bucket: Bucket::new(most, Self::burst(most)), round: Round::default() }
    }

    /// Its rate at the moment, a second.
    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// Takes a token, or says how long to wait for one.
    ///
    /// # Errors
    /// There is none; the time until there is one.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        let taken = self.bucket.take(now);
        self.round.is_short |= taken.is_err();
        taken
    }

    /// What came of one: whether it worked, and how long it took.
    pub fn felt(&mut self, is_good: bool, took: Duration, now: Mono) {
        self.round.all += 1;
        self.round.failed += u32::from(!is_good);
        self.round.slow += u32::from(is_good && took > self.slow);
        if now < self.round.until {
            return;
        }
        let Round { all, failed, slow, is_short, .. } = std::mem::take(&mut self.round);
        self.round.until = now + Self::ROUND;
        let least = Self::LEAST.min(self.most);
        let is_much = |some: u32| some.saturating_mul(10) > all;
        self.rate = if is_much(failed) {
            (self.rate / 2.0).max(least)
        } else if is_much(failed + slow) {
            (self.rate / 2.0).max(least.max(self.most * Self::SLOWEST))
        } else if is_short {
            (self.rate + self.most / 20.0).min(self.most)
        } else {
            self.rate
        };
        self.bucket.set_rate(self.rate, Self::burst(self.rate));
    }

    const fn burst(rate: f64) -> u32 {
        (rate * Self::BURST_S) as u32
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
    /// The age from which on a failure is the last.
    pub within: Duration,
}

impl Default for Backoff {
    /// 1 s to 1 h, for the 48 h that were promised (RED_PACKET 2.1, 2.7). Some 108 attempts fall into these: the twelve that
    /// double, and then one in half an hour on average.
    fn default() -> Self {
        let (first, most) = (Duration::from_secs(1), Duration::from_hours(1));
        Self { first, most, attempts: 1_000, within: Duration::from_hours(48) }
    }
}

impl Backoff {
    /// How long to wait after attempt `attempt` (from 1) of an order of this age failed; nothing where that was the last. Full
    /// jitter: anywhere between 0 and the bound, by `draw` (Brooker, "Exponential Backoff and Jitter", 2015).
    pub fn wait(&self, attempt: u32, age: Duration, draw: u64) -> Option<Duration> {
        if attempt >= self.attempts || age >= self.within {
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

        /// Whatever is felt of the other side: never more than configured in any window, never less than one a second.
        #[test]
        fn a_throttle_never_passes_its_rate(most in 1u32..2_000, steps in prop::collection::vec((0u64..40_000_000, any::<bool>(), 0u64..300), 1..500))
        {
            let mut throttle = Throttle::new(f64::from(most), Duration::from_millis(200));
            let (mut now, mut taken) = (1_000_000_000, Vec::new());
            for (step, is_good, took) in steps {
                now += step;
                if throttle.take(Mono::from_nanos(now)).is_ok() {
                    taken.push(now);
                    throttle.felt(is_good, Duration::from_millis(took), Mono::from_nanos(now));
                }
                prop_assert!(throttle.rate() >= 1.0 && throttle.rate() <= f64::from(most));
            }
            let burst = f64::from((f64::from(most) * Throttle::BURST_S).max(1.0) as u32);
            for (i, from) in taken.iter().enumerate() {
                for (count, to) in taken[i..].iter().enumerate() {
                    let window = (to - from) as f64 / 1e9;
                    prop_assert!((count + 1) as f64 <= f64::from(most) * window * 1.000_001 + burst + 1.0);
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
        fn waits_stay_under_their_bound(attempt in 1u32..2_000, age in 0u64..300_000, draw: u64) {
            let (backoff, age) = (Backoff::default(), Duration::from_secs(age));
            match backoff.wait(attempt, age, draw) {
                Some(wait) => prop_assert!(wait <= backoff.most && wait <= Duration::from_secs(1) * 2u32.saturating_pow(attempt - 1)),
                None => prop_assert!(attempt >= backoff.attempts || age >= backoff.within),
            }
        }
    }

    #[test]
    fn a_throttle_backs_off_and_comes_back() {
        let slow = Duration::from_millis(500);
        let mut throttle = Throttle::new(100.0, slow);
        let mut now = Mono::from_millis(1_000);
        let mut run = |throttle: &mut Throttle, seconds: u64, is_good: bool, took: Duration| {
            let end = now + Duration::from_secs(seconds);
            while now < end {
                match throttle.take(now) {
                    Ok(()) => throttle.felt(is_good, took, now),
                    Err(wait) => now = now + wait,
                }
            }
            throttle.rate()
        };
        assert!(run(&mut throttle, 5, true, Duration::ZERO) >= 100.0, "all is well");
        let after = run(&mut throttle, 5, false, Duration::ZERO);
        assert!(after <= 6.25, "failures halve it each second: {after}");
        assert!(run(&mut throttle, 10, false, Duration::ZERO) <= 1.0, "one a second is left to find out");
        let after = run(&mut throttle, 10, true, Duration::ZERO);
        assert!((30.0..=60.0).contains(&after), "a twentieth a second: {after}");
        assert!(run(&mut throttle, 20, true, Duration::ZERO) >= 100.0);
        let after = run(&mut throttle, 20, true, slow * 2);
        assert!((9.9..=10.1).contains(&after), "what is slow gets a tenth: {after}");
        // Who asks for less than there is does not earn more.
        let before = throttle.rate();
        for second in 0..20 {
            let at = Mono::from_millis(1_000_000 + second * 1_000);
            assert_eq!(throttle.take(at), Ok(()));
            throttle.felt(true, Duration::ZERO, at);
        }
        assert!(throttle.rate() <= before + 5.0, "{} after {before}", throttle.rate());
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
