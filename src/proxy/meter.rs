//! What one worker counts: plain numbers with every request, given to the metrics once a second and when they go.
//!
//! A metric's own counter costs two locked instructions and a histogram's a place in a list that all threads share. Here one
//! thread writes, so a load and a store are enough; atomics they are only because a worker's parts may be looked at from
//! elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::observe::names::SECONDS;
use crate::snapshot::load::{Load, OUTCOMES, Outcome};

/// A number that one thread writes.
#[derive(Debug, Default)]
struct Number(AtomicU64);

impl Number {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn take(&self) -> u64 {
        let n = self.0.load(Relaxed);
        self.0.store(0, Relaxed);
        n
    }
}

/// A counter.
pub(super) struct Count(Number, Counter);

impl Count {
    /// What is counted goes to `counter`.
    pub(super) fn new(counter: Counter) -> Self {
        Self(Number::default(), counter)
    }

    /// One more.
    pub(super) fn one(&self) {
        self.0.add(1);
    }

    /// So many more.
    pub(super) fn add(&self, n: u64) {
        self.0.add(n);
    }

    /// Tells the metrics.
    pub(super) fn flush(&self) {
        match self.0.take() {
            0 => {}
            n => self.1.increment(n),
        }
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How many of something there are at the moment; the others' workers' are added in the metrics.
pub(super) struct Level {
    now: Number,
    told: Number,
    gauge: Gauge,
}

impl Level {
    /// It is told to `gauge`.
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { now: Number::default(), told: Number::default(), gauge }
    }

    /// One more.
    pub(super) fn up(&self) {
        self.now.add(1);
    }

    /// One less.
    pub(super) fn down(&self) {
        self.now.add(u64::MAX);
    }

    /// Tells the metrics.
    pub(super) fn flush(&self) {
        let (now, told) = (self.now.get(), self.told.take());
        self.told.add(now);
        if now != told {
            self.gauge.increment(now.wrapping_sub(told).cast_signed() as f64);
        }
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        // Whoever counted here is gone, and what it told with it.
        self.now.take();
        self.flush();
    }
}

/// What came of tries at one backend; told to its own totals, which outlive a reload.
#[derive(Debug)]
pub(super) struct Toll {
    totals: Arc<Load>,
    outcomes: [Number; OUTCOMES],
    nanos: Number,
    sent: Number,
    received: Number,
}

impl Toll {
    /// It is told to `totals`.
    pub(super) fn new(totals: Arc<Load>) -> Self {
        Self {
            totals,
            outcomes: Default::default(),
            nanos: Number::default(),
            sent: Number::default(),
            received: Number::default(),
        }
    }

    /// A try has ended; its bodies had so many octets.
    pub(super) fn ended(&self, outcome: Outcome, took: Duration, sent: u64, received: u64) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.add(1);
        }
        if outcome != Outcome::Cancelled {
            self.nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        self.sent.add(sent);
        self.received.add(received);
    }

    /// Tells the totals.
    pub(super) fn flush(&self) {
        let ended = self.outcomes.each_ref().map(Number::take);
        if ended.iter().any(|&n| n > 0) {
            self.totals.account(&ended, self.nanos.take(), self.sent.take(), self.received.take());
        }
    }
}

impl Drop for Toll {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Durations, spread over the buckets of [`SECONDS`].
pub(super) struct Spread {
    /// How many, and how many nanoseconds in all.
    buckets: [(Number, Number); SECONDS.len() + 1],
    histogram: Histogram,
}

/// Upper bounds in nanoseconds.
const BOUNDS: [u64; SECONDS.len()] = {
    let mut bounds = [0; SECONDS.len()];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = (SECONDS[i] * 1e9) as u64;
        i += 1;
    }
    bounds
};

impl Spread {
    /// What is measured goes to `histogram`.
    pub(super) fn new(histogram: Histogram) -> Self {
        Self { buckets: std::array::from_fn(|_| Default::default()), histogram }
    }

    /// Something took so long.
    pub(super) fn note(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|&bound| nanos <= bound).unwrap_or(BOUNDS.len());
        if let Some((count, sum)) = self.buckets.get(bucket) {
            count.add(1);
            sum.add(nanos);
        }
    }

    /// Tells the metrics: each bucket as so many times its mean, which is in the same bucket and makes the same sum.
    pub(super) fn flush(&self) {
        for (count, sum) in &self.buckets {
            let (count, sum) = (count.take(), sum.take());
            if count > 0 {
                let mean = sum as f64 / count as f64 / 1e9;
                self.histogram.record_many(mean, usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_was_counted_arrives_whole() {
        let recorder = PrometheusBuilder::new().set_buckets(SECONDS).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let count = Count::new(metrics::counter!("c"));
            let spread = Spread::new(metrics::histogram!("h"));
            for ms in [0, 1, 2, 3, 7, 7, 400, 60_000] {
                count.one();
                spread.note(Duration::from_millis(ms));
            }
            count.flush();
            spread.flush();
            count.one();
        });
        let text = recorder.handle().render();
        assert!(text.contains("c 9\n"), "the rest goes with the counter: {text}");
        for line in [
            "h_bucket{le=\"0.0005\"} 1",
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"0.0025\"} 3",
            "h_bucket{le=\"0.005\"} 4",
            "h_bucket{le=\"0.01\"} 6",
            "h_bucket{le=\"0.5\"} 7",
            "h_bucket{le=\"10\"} 7",
            "h_bucket{le=\"+Inf\"} 8",
            "h_count 8",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let sum = text.lines().find_map(|l| l.strip_prefix("h_sum ")).unwrap().parse::<f64>().unwrap();
        assert!((sum - 60.42).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn levels_of_workers_add_up_and_go_with_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let [one, two] = [(); 2].map(|()| Level::new(metrics::gauge!("g")));
            let shown = |want: &str| {
                let text = recorder.handle().render();
                assert!(text.contains(&format!("g {want}\n")), "{want}: {text}");
            };
            (0..5).for_each(|_| one.up());
            two.up();
            one.flush();
            two.flush();
            shown("6");
            (0..2).for_each(|_| one.down());
            one.flush();
            one.flush();
            shown("4");
            drop(one);
            shown("1");
        });
    }

    #[test]
    fn what_backends_did_is_theirs_also_when_a_worker_forgets_them() {
        let load = Arc::new(Load::default());
        let toll = Toll::new(Arc::clone(&load));
        toll.ended(Outcome::Ok, Duration::from_millis(2), 10, 20);
        toll.flush();
        toll.ended(Outcome::Cancelled, Duration::from_secs(9), 1, 2);
        drop(toll);
        let totals = load.totals();
        assert_eq!((totals.outcomes[0], totals.outcomes[6], totals.nanos), (1, 1, 2_000_000));
        assert_eq!((totals.sent, totals.received), (11, 22));
    }
}
