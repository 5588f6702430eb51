//! What one worker counts: plain numbers with every request, given to the metrics once a second and when they go.
//!
//! A metric's own counter costs two locked instructions and a histogram's a place in a list that all threads share. Here one
//! thread writes, so a load and a store are enough; atomics they are only because a worker's parts may be looked at from
//! elsewhere.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::observe::names::SECONDS;

/// A number that one thread writes.
#[derive(Debug, Default)]
struct Number(AtomicU64);

impl Number {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
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
}
