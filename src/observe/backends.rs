//! Series of each backend, written from the snapshot when somebody asks for metrics.
//!
//! A recorder keeps a series for as long as the process lives; backends come and go. So theirs are not kept in one: what is
//! written is of those that are there, and who has gone leaves nothing behind. At most [`MOST`] are told; how many are not
//! is told too. Workers count for themselves and fold it into a backend's own totals once a second.

use std::fmt::Write as _;

use super::names::backend as names;
use super::names::{Kind, Metric};
use crate::base::clock::Mono;
use crate::snapshot::Snapshot;
use crate::snapshot::load::Outcome;
use crate::snapshot::topology::Backend;

/// Backends that are told of: beyond that a scrape costs more than it says (ours; some 2 MiB of text).
pub const MOST: usize = 1_000;

/// The series of the backends of `snapshot`, in Prometheus text format.
pub fn render(snapshot: &Snapshot, now: Mono) -> String {
    let topology = &snapshot.topology;
    let told: Vec<(&Backend, String)> = topology.backends.iter().take(MOST).map(|b| (b, labels(snapshot, b))).collect();
    let mut out = String::new();
    head(&mut out, &names::TRIES);
    for (backend, labels) in &told {
        for (outcome, n) in Outcome::ALL.iter().zip(backend.load.totals().outcomes).filter(|(_, n)| *n > 0) {
            let _ = writeln!(out, "{}{{{labels},outcome=\"{}\"}} {n}", names::TRIES.name, outcome.as_str());
        }
    }
    let mut each = |metric: &Metric, value: &dyn Fn(&Backend) -> f64| {
        head(&mut out, metric);
        for (backend, labels) in &told {
            let _ = writeln!(out, "{}{{{labels}}} {}", metric.name, value(backend));
        }
    };
    each(&names::SECONDS, &|b| b.load.totals().nanos as f64 / 1e9);
    each(&names::SENT, &|b| b.load.totals().sent as f64);
    each(&names::RECEIVED, &|b| b.load.totals().received as f64);
    each(&names::IN_FLIGHT, &|b| f64::from(b.load.in_flight()));
    each(&names::CONNECTIONS, &|b| f64::from(b.load.connections.load(std::sync::atomic::Ordering::Relaxed)));
    each(&names::PENDING, &|b| f64::from(b.load.pending.load(std::sync::atomic::Ordering::Relaxed)));
    each(&names::LATENCY, &|b| b.load.latency_ns(now) / 1e9);
    head(&mut out, &names::WEIGHT);
    for ((_, labels), health) in told.iter().zip(snapshot.backends.iter()) {
        let _ = writeln!(out, "{}{{{labels}}} {}", names::WEIGHT.name, f64::from(health.weight) / 1_000.0);
    }
    head(&mut out, &names::UNTOLD);
    let _ = writeln!(out, "{} {}", names::UNTOLD.name, topology.backends.len() - told.len());
    out
}

fn head(out: &mut String, metric: &Metric) {
    let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
    let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name);
}

/// Names and addresses: nothing in them has to be escaped.
fn labels(snapshot: &Snapshot, backend: &Backend) -> String {
    let topology = &snapshot.topology;
    let datacenter = topology.config.datacenters.get(backend.spec.datacenter.index());
    format!(
        "service=\"{}\",datacenter=\"{}\",backend=\"{}\"",
        topology.service(backend.service).name,
        datacenter.map_or("", |d| d.name.as_str()),
        backend.spec.address
    )
}
