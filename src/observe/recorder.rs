//! The recorder behind the metrics: Prometheus text, served by the admin API.
//!
//! Installed once for the process. Without an installed recorder (an embedder may have its own) every metric is a no-op
//! or goes to that one.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::names::{ALL, Kind};

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder, once; later calls do nothing.
pub fn install() {
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for metric in ALL.iter().copied().flatten() {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), buckets).ok()?;
            }
        }
        let handle = builder.install_recorder().ok()?;
        for metric in ALL.iter().copied().flatten() {
            match metric.kind {
                Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
                Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
                Kind::Histogram(_) => metrics::describe_histogram!(metric.name, metric.help),
            }
        }
        Some(handle)
    });
}

/// All metrics in Prometheus text format; empty where no recorder of ours is installed.
pub fn render() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Folds what histograms have gathered; to be called every few seconds, or they grow while nobody scrapes.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get().and_then(Option::as_ref) {
        handle.run_upkeep();
    }
}
