//! The hot counters of one backend: written by the proxy with every request, carried over from one topology to the next.
//!
//! The balancer reads what is in flight and the latency; the control loop takes the evidence a few times a second and
//! turns it into events. All relaxed atomics: each number stands for itself.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::base::clock::Mono;

/// How one try at a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A response below 500, or a 500 or 501: the backend works.
    Ok,
    /// The connection was refused, or could not be made in time.
    Refused,
    /// The connection broke before the response was whole, or broke the protocol.
    Reset,
    /// No response in time.
    Timeout,
    /// 502, 503 or 504.
    GatewayError,
    /// 429, or 503 with an overload marker: pressure, not failure.
    Pressure,
    /// Given up by us or by the client: says nothing about the backend.
    Cancelled,
}

impl Outcome {
    /// Every one, in order.
    pub const ALL: [Self; OUTCOMES] =
        [Self::Ok, Self::Refused, Self::Reset, Self::Timeout, Self::GatewayError, Self::Pressure, Self::Cancelled];

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::GatewayError => "gateway_error",
            Self::Pressure => "pressure",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many outcomes there are.
pub const OUTCOMES: usize = 7;
const BUCKETS: usize = 32;
/// Of so many tries that others tell of, one counts: they may be wrong, or elsewhere (ours).
const HEARSAY: u32 = 4;
/// Latency that a backend is credited with before its first response (linkerd2-proxy's default).
const DEFAULT_RTT: Duration = Duration::from_millis(30);
/// Time constant of the latency average (Finagle's and linkerd2-proxy's).
const TAU: Duration = Duration::from_secs(10);

/// The hot counters of one backend.
#[derive(Debug)]
pub struct Load {
    in_flight: AtomicU32,
    /// Connections that are open or being made, and how many wait for one to be made; by all workers.
    pub connections: AtomicU32,
    /// See [`Load::connections`].
    pub pending: AtomicU32,
    ewma_ns: AtomicU64,
    ewma_at: AtomicU64,
    outcomes: [AtomicU32; OUTCOMES],
    streak_failures: AtomicU32,
    streak_errors: AtomicU32,
    latency: [AtomicU32; BUCKETS],
    /// Tries that others told of: those that succeeded, and the others.
    heard: [AtomicU32; 2],
    totals: Totals<AtomicU64>,
}

/// What has passed since this node knows a backend; for people, and nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals<N> {
    /// Tries that ended, by [`Outcome`].
    pub outcomes: [N; OUTCOMES],
    /// Their latencies, those that were given up left out.
    pub nanos: N,
    /// Octets of bodies that it was sent.
    pub sent: N,
    /// Octets of bodies that came from it.
    pub received: N,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            ewma_ns: AtomicU64::new(DEFAULT_RTT.as_nanos() as u64),
            ewma_at: AtomicU64::new(0),
            outcomes: Default::default(),
            streak_failures: AtomicU32::new(0),
            streak_errors: AtomicU32::new(0),
            latency: Default::default(),
            heard: Default::default(),
            totals: Totals::default(),
        }
    }
}

/// What live traffic said of one backend since the last sample was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Good responses.
    pub ok: u32,
    /// Connections refused or not made in time.
    pub refused: u32,
    /// Connections broken.
    pub reset: u32,
    /// Responses not come in time.
    pub timeout: u32,
    /// 502, 503, 504.
    pub gateway_error: u32,
    /// 429 and marked 503.
    pub pressure: u32,
    /// Local-origin failures in a row, up to now.
    pub streak_failures: u32,
    /// Gateway errors in a row, up to now.
    pub streak_errors: u32,
    /// The 90th percentile of latency in microseconds (upper bound of its bucket, at most 41 % high); 0 without requests.
    pub p90_us: u64,
}

impl Sample {
    /// Tries that say something about the backend.
    pub fn total(&self) -> u32 {
        self.ok + self.failures() + self.gateway_error + self.pressure
    }

    /// Local-origin failures.
    pub fn failures(&self) -> u32 {
        self.refused + self.reset + self.timeout
    }
}

impl Load {
    /// Tries under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// A try begins.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A try has ended after `took`. The latency that the balancer sees moves up at once and down over ten seconds; a
    /// failure counts as slow, at `penalty`, lest the fastest to fail gets all the traffic.
    pub fn end(&self, outcome: Outcome, took: Duration, penalty: Duration, now: Mono) {
        // Each `begin` has one `end`; saturate all the same, a wrapped count would shut the backend out for good.
        let _ = self.in_flight.fetch_update(Relaxed, Relaxed, |n| Some(n.saturating_sub(1)));
        if outcome == Outcome::Cancelled {
            return;
        }
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Refused | Outcome::Reset | Outcome::Timeout => {
                self.streak_failures.fetch_add(1, Relaxed);
            }
            Outcome::GatewayError => {
                self.streak_errors.fetch_add(1, Relaxed);
                self.streak_failures.store(0, Relaxed);
            }
            Outcome::Ok | Outcome::Pressure | Outcome::Cancelled => {
                self.streak_failures.store(0, Relaxed);
                self.streak_errors.store(0, Relaxed);
            }
        }
        let seen = if outcome == Outcome::Ok { took } else { took.max(penalty) };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency[bucket(us)].fetch_add(1, Relaxed);
        self.observe(u64::try_from(seen.as_nanos()).unwrap_or(u64::MAX), now);
    }

    /// Somebody else tells of a try that took `took`; whether it counts, as the first of each four does. It makes no streak,
    /// and the balancer's latency stays what this node has seen.
    pub fn hear(&self, outcome: Outcome, took: Duration) -> bool {
        let kind = usize::from(outcome != Outcome::Ok);
        let counts = self.heard[kind].fetch_add(1, Relaxed).is_multiple_of(HEARSAY);
        if counts && outcome != Outcome::Cancelled {
            self.outcomes[outcome as usize].fetch_add(1, Relaxed);
            self.latency[bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))].fetch_add(1, Relaxed);
        }
        counts
    }

    /// A try is given up after `took` because another one was faster. It says nothing of failure, but it did take that long
    /// at the least: who is always outrun is slow.
    pub fn outrun(&self, took: Duration, now: Mono) {
        self.end(Outcome::Cancelled, took, Duration::ZERO, now);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if took as f64 > self.latency_ns(now) {
            self.observe(took, now);
        }
    }

    /// The latency that the balancer reckons with, in nanoseconds: decayed to `now`, so that a penalised backend recovers
    /// without a sample.
    pub fn latency_ns(&self, now: Mono) -> f64 {
        let (ewma, at) = (self.ewma_ns.load(Relaxed) as f64, Mono::from_nanos(self.ewma_at.load(Relaxed)));
        let floor = (DEFAULT_RTT.as_nanos() as f64).min(ewma);
        floor + (ewma - floor) * decay(now.since(at))
    }

    /// When the latency was last seen. `None`: never; what [`Load::latency_ns`] says is a guess.
    pub fn seen_at(&self) -> Option<Mono> {
        Some(Mono::from_nanos(self.ewma_at.load(Relaxed))).filter(|at| *at != Mono::ZERO)
    }

    /// Whether the last that was seen of it, less than `within` ago, was a local-origin failure.
    pub fn is_failing(&self, within: Duration, now: Mono) -> bool {
        self.streak_failures.load(Relaxed) > 0 && self.seen_at().is_some_and(|at| now.since(at) < within)
    }

    fn observe(&self, sample_ns: u64, now: Mono) {
        let before = Mono::from_nanos(self.ewma_at.swap(now.nanos(), Relaxed));
        let ewma = self.ewma_ns.load(Relaxed);
        let next = if before == Mono::ZERO || sample_ns > ewma {
            sample_ns
        } else {
            let w = decay(now.since(before));
            (ewma as f64 * w + sample_ns as f64 * (1.0 - w)) as u64
        };
        // Two workers may race; either sample is a true one.
        self.ewma_ns.store(next.max(1), Relaxed);
    }

    /// Adds what one worker has counted for itself.
    pub fn account(&self, outcomes: &[u64; OUTCOMES], nanos: u64, sent: u64, received: u64) {
        let totals = &self.totals;
        let parts = [(&totals.nanos, nanos), (&totals.sent, sent), (&totals.received, received)];
        for (total, n) in totals.outcomes.iter().zip(outcomes.iter().copied()).chain(parts) {
            if n > 0 {
                total.fetch_add(n, Relaxed);
            }
        }
    }

    /// What has passed, as of the last second or so.
    pub fn totals(&self) -> Totals<u64> {
        let read = |n: &AtomicU64| n.load(Relaxed);
        Totals {
            outcomes: self.totals.outcomes.each_ref().map(read),
            nanos: read(&self.totals.nanos),
            sent: read(&self.totals.sent),
            received: read(&self.totals.received),
        }
    }

    /// Takes the evidence gathered since the last call and begins anew. Streaks go on.
    pub fn take(&self) -> Sample {
        let mut sample = Sample {
            streak_failures: self.streak_failures.load(Relaxed),
            streak_errors: self.streak_errors.load(Relaxed),
            ..Sample::default()
        };
        // Most backends of most ticks have nothing to say; plain loads leave their cache lines where they are.
        if self.outcomes.iter().all(|n| n.load(Relaxed) == 0) {
            return sample;
        }
        let n: [u32; OUTCOMES] = std::array::from_fn(|i| self.outcomes[i].swap(0, Relaxed));
        [sample.ok, sample.refused, sample.reset, sample.timeout, sample.gateway_error, sample.pressure] =
            [n[0], n[1], n[2], n[3], n[4], n[5]];
        let counts: [u32; BUCKETS] = std::array::from_fn(|i| self.latency[i].swap(0, Relaxed));
        sample.p90_us = percentile(&counts, 90);
        sample
    }
}

fn decay(age: Duration) -> f64 {
    (-age.as_secs_f64() / TAU.as_secs_f64()).exp()
}

/// Two buckets for each power of two from 32 us up: bounds grow by the square root of two.
fn bucket(us: u64) -> usize {
    (0..BUCKETS - 1).find(|&i| us <= bound(i)).unwrap_or(BUCKETS - 1)
}

fn bound(index: usize) -> u64 {
    let base = 32u64 << (index / 2);
    if index.is_multiple_of(2) { base } else { base + base * 2 / 5 }
}

fn percentile(counts: &[u32; BUCKETS], p: u64) -> u64 {
    let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
    let mut left = (total * p).div_ceil(100);
    if total == 0 {
        return 0;
    }
    for (i, &n) in counts.iter().enumerate() {
        if left <= u64::from(n) {
            return bound(i);
        }
        left -= u64::from(n);
    }
    bound(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_failure_is_slow_however_fast_it_came() {
        let (good, bad) = (Load::default(), Load::default());
        let now = Mono::from_millis(1_000);
        for load in [&good, &bad] {
            load.begin();
        }
        good.end(Outcome::Ok, 5 * MS, 1_000 * MS, now);
        bad.end(Outcome::Refused, MS / 10, 1_000 * MS, now);
        assert!(bad.latency_ns(now) > 100.0 * good.latency_ns(now));
        let later = now + Duration::from_mins(1);
        assert!(bad.latency_ns(later) < 10.0 * DEFAULT_RTT.as_nanos() as f64, "a penalty fades by itself");
    }

    #[test]
    fn a_sample_is_taken_once_and_streaks_go_on() {
        let load = Load::default();
        for outcome in [Outcome::Ok, Outcome::Reset, Outcome::Reset, Outcome::Cancelled] {
            load.begin();
            load.end(outcome, MS, MS, Mono::from_millis(1));
        }
        let first = load.take();
        assert_eq!((first.ok, first.reset, first.streak_failures, first.total()), (1, 2, 2, 3));
        assert!((1_000..=1_450).contains(&first.p90_us), "{}", first.p90_us);
        let second = load.take();
        assert_eq!((second.total(), second.streak_failures, second.p90_us), (0, 2, 0));
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn what_others_tell_counts_a_quarter_and_makes_no_streak() {
        let load = Load::default();
        let counted = (0..40).filter(|_| load.hear(Outcome::Refused, MS)).count();
        assert!(load.hear(Outcome::Ok, MS), "of each kind the first at once");
        let sample = load.take();
        assert_eq!((counted, sample.refused, sample.ok, sample.streak_failures), (10, 10, 1, 0));
        assert!(load.seen_at().is_none() && load.in_flight() == 0);
    }

    #[test]
    fn who_is_outrun_was_at_least_so_slow() {
        let load = Load::default();
        let now = Mono::from_millis(5_000);
        load.begin();
        load.end(Outcome::Ok, 2 * MS, MS, now);
        load.begin();
        load.outrun(20 * MS, now);
        assert!((19.9e6..20.1e6).contains(&load.latency_ns(now)));
        load.begin();
        load.outrun(MS, now);
        assert!(load.latency_ns(now) > 19.9e6, "a lower bound does not make it faster");
        let sample = load.take();
        assert_eq!((sample.total(), sample.failures(), load.in_flight()), (1, 0, 0), "and it is no failure");
    }

    #[test]
    fn a_failure_is_fresh_for_a_while_and_forgotten_with_a_success() {
        let load = Load::default();
        let at = Mono::from_millis(5_000);
        let end = |outcome, now| {
            load.begin();
            load.end(outcome, MS, MS, now);
        };
        assert!(!load.is_failing(2_000 * MS, at) && load.seen_at().is_none());
        end(Outcome::Timeout, at);
        assert!(load.is_failing(2_000 * MS, at + 1_999 * MS) && !load.is_failing(2_000 * MS, at + 2_000 * MS));
        end(Outcome::Ok, at + MS);
        assert!(!load.is_failing(2_000 * MS, at + MS));
        assert_eq!(load.seen_at(), Some(at + MS));
    }

    #[test]
    fn buckets_grow_and_hold_everything() {
        assert!((1..BUCKETS).all(|i| bound(i) > bound(i - 1)));
        assert_eq!((bucket(0), bucket(32), bucket(33), bucket(u64::MAX)), (0, 0, 1, BUCKETS - 1));
    }
}
