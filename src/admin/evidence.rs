//! The answer to `/v1/health`: every backend and every target with the evidence behind its verdict.
//!
//! The rule of the house: no state without its reason. [`why`] says in a sentence for people what the fields say for
//! programs.

use serde::{Deserialize, Serialize};

use super::report::{datacenter, seconds};
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{BackendId, TargetId};
use crate::base::units::show_duration;
use crate::config::ProbeKind;
use crate::snapshot::health::{BackendState, EjectReason, ProbeFailure, ProbeOutcome, Verdict};
use crate::snapshot::intent::{Intent, Subject, Wish};
use crate::snapshot::load::Sample;
use crate::snapshot::topology::Backend;
use crate::snapshot::{BackendHealth, Snapshot};

/// Everything that is known of health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Who answers.
    pub node: String,
    /// Generation of the snapshot that this was read from.
    pub generation: u64,
    /// For how long the node has thought that it is the one cut off; in seconds.
    pub isolated_s: Option<f64>,
    /// Backends, services in the order of the configuration.
    pub backends: Vec<BackendReport>,
    /// Probed targets.
    pub targets: Vec<TargetReport>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Whose.
    pub service: String,
    /// Where.
    pub datacenter: String,
    /// Its address.
    pub address: String,
    /// What it is called where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it was found; nothing where the configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its state.
    pub state: BackendState,
    /// Since when, in seconds.
    pub since_s: f64,
    /// Why, for people.
    pub why: String,
    /// Its configured weight.
    pub configured: u32,
    /// What the balancer uses, in the configured unit.
    pub weight: f64,
    /// Why and for how long it is ejected.
    pub ejected: Option<Ejection>,
    /// Ejections remembered; each doubles the next one.
    pub ejections: u32,
    /// Windows in a row in which it was slower than its peers.
    pub slow_windows: u32,
    /// For how long it has been in slow start, in seconds.
    pub slow_start_s: Option<f64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Latency that the balancer reckons with, in milliseconds.
    pub latency_ms: f64,
    /// Live traffic of the last ten seconds, summed up.
    pub recent: Traffic,
    /// The same second by second, oldest first.
    pub samples: Vec<Aged>,
    /// The target whose verdict it follows: an index into [`Health::targets`].
    pub target: Option<usize>,
}

/// An ejection by live traffic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ejection {
    /// Why.
    pub reason: EjectReason,
    /// For how much longer, in seconds.
    pub left_s: f64,
}

/// What live traffic said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
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
    /// The 90th percentile of latency in milliseconds; of a sum: the worst of its samples.
    pub p90_ms: f64,
}

/// One second of live traffic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aged {
    /// How long ago, in seconds.
    pub age_s: f64,
    /// What was said.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// One probed target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// What is probed.
    pub address: String,
    /// How, for people.
    pub probe: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Since when, in seconds.
    pub since_s: f64,
    /// The last probe.
    pub last: Option<LastProbe>,
    /// In how many seconds it is probed next.
    pub due_s: f64,
    /// Successes in a row.
    pub streak_ok: u32,
    /// Successes in a row that bring it up, before flap damping.
    pub rise: u32,
    /// Failures in a row.
    pub streak_failed: u32,
    /// Failures in a row that take it down.
    pub fall: u32,
    /// Leaky counter of failures; takes it down at six.
    pub leaky: u32,
    /// UP to DOWN moves remembered; each doubles `rise`.
    pub flaps: u32,
    /// Probes made.
    pub round: u64,
    /// Backends that follow it: indices into [`Health::backends`].
    pub backends: Vec<usize>,
}

/// How a probe ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastProbe {
    /// How long ago, in seconds.
    pub age_s: f64,
    /// How.
    pub outcome: ProbeOutcome,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

/// Reads the evidence from `snapshot`.
pub fn health(snapshot: &Snapshot, now: Mono, wall: Wall) -> Health {
    let mut followers = vec![Vec::new(); snapshot.targets.len()];
    for (i, b) in snapshot.topology.backends.iter().enumerate() {
        if let Some(of) = b.target.and_then(|t| followers.get_mut(t.index())) {
            of.push(i);
        }
    }
    Health {
        node: snapshot.topology.config.node.name.clone(),
        generation: snapshot.generation,
        isolated_s: snapshot.isolated_since.map(|since| seconds(now.since(since))),
        backends: (0..snapshot.backends.len()).map(|i| backend(snapshot, BackendId::new(i), now, wall)).collect(),
        targets: followers
            .into_iter()
            .enumerate()
            .map(|(i, backends)| target(snapshot, TargetId::new(i), backends, now))
            .collect(),
    }
}

/// One backend with the evidence behind its state.
pub fn backend(snapshot: &Snapshot, id: BackendId, now: Mono, wall: Wall) -> BackendReport {
    let (of, health) = (snapshot.topology.backend(id), snapshot.backend(id));
    let samples: Vec<Aged> =
        health.recent.iter().map(|(at, s)| Aged { age_s: seconds(now.since(*at)), traffic: traffic(s) }).collect();
    BackendReport {
        service: snapshot.topology.service(of.service).name.clone(),
        datacenter: datacenter(snapshot, of.spec.datacenter),
        address: of.spec.address.to_string(),
        name: of.name.as_deref().map(str::to_owned),
        source: source(snapshot, of),
        state: health.state,
        since_s: seconds(now.since(health.since)),
        why: why(snapshot, id, now, wall),
        configured: of.spec.weight,
        weight: f64::from(health.weight) / 1e3,
        ejected: health.ejected.map(|(reason, until)| Ejection { reason, left_s: seconds(until.since(now)) }),
        ejections: health.ejections,
        slow_windows: health.slow_windows,
        slow_start_s: health.ramp_from.map(|from| seconds(now.since(from))),
        in_flight: of.load.in_flight(),
        latency_ms: (of.load.latency_ns(now) / 1e3).round() / 1e3,
        recent: samples.iter().fold(Traffic::default(), |sum, s| add(sum, s.traffic)),
        samples,
        target: of.target.map(TargetId::index),
    }
}

/// Where a backend was found, in the words of metrics.
fn source(snapshot: &Snapshot, of: &Backend) -> Option<String> {
    let source = snapshot.topology.config.discovery.sources.get(of.source? as usize)?;
    Some(source.origin.to_string())
}

fn target(snapshot: &Snapshot, id: TargetId, backends: Vec<usize>, now: Mono) -> TargetReport {
    let health = snapshot.target(id);
    let of = snapshot.topology.targets.get(id.index());
    TargetReport {
        address: of.map(|t| t.address.to_string()).unwrap_or_default(),
        probe: of.map(|t| probe(&t.probe)).unwrap_or_default(),
        verdict: health.verdict,
        since_s: seconds(now.since(health.since)),
        last: health.last.map(|(at, outcome, took)| LastProbe {
            age_s: seconds(now.since(at)),
            outcome,
            took_ms: seconds(took * 1_000),
        }),
        due_s: seconds(health.due.since(now)),
        streak_ok: health.streak_ok,
        rise: of.map_or(0, |t| t.probe.rise),
        streak_failed: health.streak_failed,
        fall: of.map_or(0, |t| t.probe.fall),
        leaky: health.leaky,
        flaps: health.flaps,
        round: health.round,
        backends,
    }
}

/// Why a backend is in its state, in a sentence.
pub fn why(snapshot: &Snapshot, id: BackendId, now: Mono, wall: Wall) -> String {
    let health = snapshot.backend(id);
    match health.state {
        BackendState::Drained | BackendState::AdminDown => wished(snapshot, id, wall),
        BackendState::Ejected => ejected(health, now),
        BackendState::HalfOpen => "its ejection is over: one request at a time until one succeeds".into(),
        BackendState::SlowStart => {
            let full = f64::from(snapshot.topology.backend(id).spec.weight) * 1e3;
            format!("has returned: at {:.0}% of its weight, growing", 100.0 * f64::from(health.weight) / full.max(1.0))
        }
        BackendState::Joining => "has been found: waits for its first good probe".into(),
        BackendState::Unknown | BackendState::Healthy | BackendState::Suspect | BackendState::Down => {
            probed(snapshot, id, now)
        }
    }
}

fn probed(snapshot: &Snapshot, id: BackendId, now: Mono) -> String {
    let Some(target) = snapshot.topology.backend(id).target.map(|t| snapshot.target(t)) else {
        return "not probed: live traffic alone judges it".into();
    };
    match target.last {
        None => "not probed yet".into(),
        Some((at, ProbeOutcome::Ok, took)) => {
            let ok = format!("probe ok in {:.1} ms, {} ago", took.as_secs_f64() * 1e3, ago(now.since(at)));
            match target.verdict {
                Verdict::Down => format!("{ok}: {} good in a row, more are needed", target.streak_ok),
                _ => ok,
            }
        }
        Some((at, ProbeOutcome::Failed(failure), _)) => {
            let in_a_row = target.streak_failed.max(1);
            let (how, when) = (failed(failure), ago(now.since(at)));
            let of_late = if target.leaky > in_a_row { format!("; {} of late", target.leaky) } else { String::new() };
            format!("probe: {how}, {in_a_row} in a row, last {when} ago{of_late}")
        }
    }
}

fn ejected(health: &BackendHealth, now: Mono) -> String {
    let Some((reason, until)) = health.ejected else { return "ejected by live traffic".into() };
    let reason = match reason {
        EjectReason::ConsecutiveFailures => "connections failed in a row",
        EjectReason::ConsecutiveErrors => "gateway errors in a row",
        EjectReason::SuccessRate => "too few requests succeed",
        EjectReason::SuccessBelowPeers => "a smaller share of its answers is good than of its peers'",
        EjectReason::SlowerThanPeers => "much slower than its peers",
    };
    let left = until.since(now);
    let again = if health.ejections > 1 { format!(", ejection {}", health.ejections) } else { String::new() };
    format!("live traffic: {reason}; {:.1}s left{again}", left.as_secs_f64())
}

fn wished(snapshot: &Snapshot, id: BackendId, wall: Wall) -> String {
    let Some(intent) = intent_for(snapshot, id) else { return "an operator's intent".into() };
    let verb = if intent.wish == Wish::Drain { "drained" } else { "taken down" };
    let left = intent.until.map(|until| format!(", {} left", ago(until.since(wall)))).unwrap_or_default();
    let reason = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
    format!("{verb} by {} ({}){left}{reason}", intent.by, intent.subject)
}

/// The intent that takes a backend out; `down` before `drain`, for it is the stronger.
fn intent_for(snapshot: &Snapshot, id: BackendId) -> Option<&Intent> {
    let takes_out = |i: &&Intent| !matches!(i.wish, Wish::Weight(_)) && speaks_of(snapshot, &i.subject, id);
    snapshot.intents.entries.iter().filter(takes_out).min_by_key(|i| i.wish == Wish::Drain)
}

/// Whether `subject` takes in this backend.
pub(super) fn speaks_of(snapshot: &Snapshot, subject: &Subject, id: BackendId) -> bool {
    let of = snapshot.topology.backend(id);
    let is_at = |name: &str| datacenter(snapshot, of.spec.datacenter) == name;
    let is_of = |name: &str| snapshot.topology.service(of.service).name == name;
    match subject {
        Subject::Datacenter(name) => is_at(name),
        Subject::Service { service, datacenter } => is_of(service) && is_at(datacenter),
        Subject::Backend { address, service } => {
            address.parse() == Ok(of.spec.address) && service.as_deref().is_none_or(is_of)
        }
    }
}

/// How a probe failed, in words.
pub fn failed(failure: ProbeFailure) -> String {
    match failure {
        ProbeFailure::Refused => "refused".into(),
        ProbeFailure::Reset => "connection broken".into(),
        ProbeFailure::Timeout => "no answer in time".into(),
        ProbeFailure::Unreachable => "unreachable".into(),
        ProbeFailure::Tls => "TLS handshake failed".into(),
        ProbeFailure::Status(status) => format!("status {status}"),
        ProbeFailure::Garbage => "broke the protocol".into(),
    }
}

fn probe(probe: &crate::config::Probe) -> String {
    let what = match &probe.kind {
        ProbeKind::Tcp => "tcp".to_owned(),
        ProbeKind::Tls { tls } => format!("tls {}", tls.name),
        ProbeKind::Http { path, tls: None, .. } => format!("http {path}"),
        ProbeKind::Http { path, tls: Some(_), .. } => format!("https {path}"),
        ProbeKind::Grpc { service, .. } if service.is_empty() => "grpc".to_owned(),
        ProbeKind::Grpc { service, .. } => format!("grpc {service}"),
    };
    format!("{what} every {}, timeout {}", show_duration(probe.interval), show_duration(probe.timeout))
}

fn traffic(sample: &Sample) -> Traffic {
    Traffic {
        ok: sample.ok,
        refused: sample.refused,
        reset: sample.reset,
        timeout: sample.timeout,
        gateway_error: sample.gateway_error,
        pressure: sample.pressure,
        p90_ms: sample.p90_us as f64 / 1e3,
    }
}

fn add(a: Traffic, b: Traffic) -> Traffic {
    Traffic {
        ok: a.ok + b.ok,
        refused: a.refused + b.refused,
        reset: a.reset + b.reset,
        timeout: a.timeout + b.timeout,
        gateway_error: a.gateway_error + b.gateway_error,
        pressure: a.pressure + b.pressure,
        p90_ms: a.p90_ms.max(b.p90_ms),
    }
}

/// A length of time as a person says it: `850ms`, `3.2s`, `12m`, `5h`, `2d`.
pub fn ago(d: std::time::Duration) -> String {
    let s = d.as_secs();
    match s {
        0 => format!("{}ms", d.as_millis()),
        1..10 => format!("{:.1}s", d.as_secs_f64()),
        10..120 => format!("{s}s"),
        120..7_200 => format!("{}m", s / 60),
        7_200..172_800 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lengths_of_time_are_short_and_never_round_up_into_the_next_unit() {
        let said = |ms| ago(Duration::from_millis(ms));
        assert_eq!([said(0), said(999), said(1_000), said(9_940)], ["0ms", "999ms", "1.0s", "9.9s"]);
        assert_eq!([said(10_000), said(119_999), said(120_000)], ["10s", "119s", "2m"]);
        assert_eq!([said(7_199_999), said(7_200_000), said(172_800_000)], ["119m", "2h", "2d"]);
    }
}
