//! When a second backend is asked beside the first: after the first has taken longer than nearly all do.
//!
//! Dean and Barroso, "The Tail at Scale", CACM 2013: a second request after the 95th percentile of latency costs a few percent
//! of load and cuts the tail. Only what may be done twice is hedged, and only within a budget of its own, so that hedges never
//! become the load that made backends slow (EDGE 3g). Who waits and who is asked is the edge's.

use std::time::Duration;

use super::retry::Budget;
use crate::base::clock::Mono;
use crate::base::ids::ServiceId;

/// The share of requests that is not hedged (EDGE 3g).
const QUANTILE: f64 = 0.95;
/// Responses below which a 95th percentile is a guess (ours).
const ENOUGH: u32 = 40;
/// Responses after which older ones count half (ours): what a backend did a thousand requests ago is not forgotten at once.
const REMEMBERED: u32 = 1_000;
/// Least wait (ours): below it, the scheduler is all that is measured.
const LEAST: Duration = Duration::from_millis(1);
/// Hedges that are allowed whatever the traffic, a second over all workers (ours).
const FLOOR_PER_S: f64 = 1.0;

/// Steps of a factor of 2 (ours): bounds are 9 % apart.
const STEPS: f64 = 8.0;
const BUCKETS: usize = 176;
/// The upper bound of the first bucket.
const FIRST_US: f64 = 32.0;

/// What one worker has seen of the latency of one service, and may still hedge.
#[derive(Clone, Debug)]
pub struct Hedge {
    counts: Box<[u32; BUCKETS]>,
    total: u32,
    budget: Budget,
}

impl Hedge {
    /// Nothing seen; one of `workers`.
    pub fn new(workers: usize) -> Self {
        let budget = Budget::with_floor(FLOOR_PER_S, workers);
        Self { counts: Box::new([0; BUCKETS]), total: 0, budget }
    }

    /// A request that may be hedged begins; it earns `share` of a hedge.
    pub fn earn(&mut self, share: f64, now: Mono) {
        self.budget.earn(share, now);
    }

    /// Takes one hedge, if there is one.
    pub fn spend(&mut self, now: Mono) -> bool {
        self.budget.spend(now)
    }

    /// Its first try had an answer after `took`, or none for so long.
    pub fn record(&mut self, took: Duration) {
        let us = took.as_secs_f64() * 1e6;
        let bucket = ((us / FIRST_US).max(1.0).log2() * STEPS).ceil() as usize;
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count = count.saturating_add(1);
        }
        self.total += 1;
        if self.total >= REMEMBERED {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// How long a first try is waited for; `None` where too little was seen.
    pub fn after(&self) -> Option<Duration> {
        if self.total < ENOUGH {
            return None;
        }
        let mut left = (f64::from(self.total) * QUANTILE).ceil() as u32;
        let bucket = self.counts.iter().position(|&count| {
            let found = left <= count;
            left = left.saturating_sub(count);
            found
        });
        let us = FIRST_US * (bucket.unwrap_or(BUCKETS - 1) as f64 / STEPS).exp2();
        Some(Duration::from_secs_f64(us / 1e6).max(LEAST))
    }
}

/// Those of one worker, by service. Begin anew with each topology.
#[derive(Clone, Debug, Default)]
pub struct Hedges {
    serial: u64,
    by_service: Vec<Option<Hedge>>,
}

impl Hedges {
    /// That of `service` under topology `serial`, for one of `workers` workers.
    pub fn of(&mut self, serial: u64, service: ServiceId, workers: usize) -> &mut Hedge {
        // Only ever forward, as for budgets of retries.
        if serial > self.serial {
            *self = Self { serial, by_service: Vec::new() };
        }
        if self.by_service.len() <= service.index() {
            self.by_service.resize(service.index() + 1, None);
        }
        self.by_service[service.index()].get_or_insert_with(|| Hedge::new(workers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_waits_for_what_nearly_all_need() {
        let mut hedge = Hedge::new(1);
        (0..39).for_each(|_| hedge.record(5 * MS));
        assert_eq!(hedge.after(), None, "too few to say");
        for n in 0..400 {
            hedge.record(if n % 10 == 0 { 80 * MS } else { 5 * MS });
        }
        let after = hedge.after().unwrap();
        assert!((80 * MS..88 * MS).contains(&after), "one in ten is slow: {after:?}");
        (0..5_000).for_each(|_| hedge.record(5 * MS));
        assert!((5 * MS..6 * MS).contains(&hedge.after().unwrap()), "what is over is forgotten");
        (0..5_000).for_each(|_| hedge.record(Duration::ZERO));
        assert_eq!(hedge.after(), Some(LEAST));
    }

    #[test]
    fn a_budget_of_its_own() {
        let mut hedge = Hedge::new(1);
        let now = Mono::from_millis(50_000);
        let spent = |hedge: &mut Hedge| (0..1_000).filter(|_| hedge.spend(now)).count();
        assert_eq!(spent(&mut hedge), 10, "the floor of ten seconds");
        (0..1_000).for_each(|_| hedge.earn(0.02, now));
        assert_eq!(spent(&mut hedge), 20);
    }

    #[test]
    fn services_do_not_share_and_a_reload_begins_anew() {
        let mut hedges = Hedges::default();
        (0..50).for_each(|_| hedges.of(1, ServiceId::new(2), 1).record(MS));
        assert!(hedges.of(1, ServiceId::new(2), 1).after().is_some());
        assert!(hedges.of(1, ServiceId::new(0), 1).after().is_none());
        assert!(hedges.of(2, ServiceId::new(2), 1).after().is_none());
        assert!(hedges.of(1, ServiceId::new(2), 1).after().is_none(), "an old request brings nothing back");
    }

    proptest! {
        #[test]
        fn the_wait_is_the_quantile_to_a_tenth(ms in prop::collection::vec(2u64..20_000, 40..900)) {
            let mut hedge = Hedge::new(1);
            for &ms in &ms {
                hedge.record(ms as u32 * MS);
            }
            let mut sorted = ms.clone();
            sorted.sort_unstable();
            let exact = sorted[(sorted.len() as f64 * 0.95).ceil() as usize - 1] as f64;
            let after = hedge.after().unwrap().as_secs_f64() * 1e3;
            prop_assert!((exact * 0.999..exact * 1.1).contains(&after), "{after} for {exact}");
        }
    }
}
