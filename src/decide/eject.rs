//! When live traffic shuts a backend out, for how long, and how its trial ends.
//!
//! Probes ask whether a backend can answer; traffic knows whether it does. Five reasons eject, each by itself: local-origin
//! failures in a row, gateway errors in a row, a poor share of successes, a poorer one than its peers have, and being much
//! slower than they. Pressure (429, marked 503) never does. An ejection never takes the last usable backend of a datacenter, nor more of them than
//! `max_ejected`; who is really dead is taken out by the probe that each ejection hastens, without such limits.
//!
//! Called by `control::step` with every sample; the states are drawn in [`super::standing`].

use std::time::Duration;

use super::standing::pause;
use crate::base::clock::Mono;
use crate::base::hash;
use crate::config::Passive;
use crate::snapshot::health::{BackendHealth, BackendState, EjectReason};
use crate::snapshot::load::Sample;

/// Live traffic is remembered for so long (EDGE 3b).
pub const WINDOW: Duration = Duration::from_secs(10);
/// Requests within [`WINDOW`] below which a share of successes says nothing (EDGE 3b).
pub const MIN_REQUESTS: u32 = 20;
/// Backends with so many requests below which a mean of their shares of successes says nothing, itself among them (EDGE 3b).
pub const MIN_PEERS: usize = 5;
/// Standard deviations below that mean at which a backend is another kind of thing (EDGE 3b, Envoy).
const DEVIATIONS: f64 = 1.9;
/// A p90 below this is never too slow, whatever the peers do (EDGE 3b).
pub const SLOW_FLOOR_US: u64 = 50_000;
/// Slow windows of one second in a row that eject (EDGE 3b).
pub const SLOW_WINDOWS: u32 = 3;
/// Requests in a one-second window below which its p90 says nothing (ours: fewer have no 90th percentile).
pub const SLOW_REQUESTS: u32 = 10;
/// Failures that a backend is forgiven which has never been seen to work: it may just be starting (L5's virtual successes).
pub const CREDIT: u32 = 3;

const SLOT_NANOS: u64 = 1_000_000_000;

/// Adds a sample to `recent`, a slot for each second, and forgets what is older than [`WINDOW`]. Gives the slot that this
/// sample closed, if it opened a new one.
pub fn absorb(recent: &mut Vec<(Mono, Sample)>, sample: &Sample, now: Mono) -> Option<(Mono, Sample)> {
    let slot = Mono::from_nanos(now.nanos() / SLOT_NANOS * SLOT_NANOS);
    let closed = match recent.last_mut() {
        Some((at, last)) if *at == slot => {
            merge(last, sample);
            None
        }
        last => {
            let closed = last.map(|slot| slot.clone());
            recent.push((slot, sample.clone()));
            closed
        }
    };
    recent.retain(|(at, _)| now.since(*at) < WINDOW);
    closed
}

fn merge(into: &mut Sample, from: &Sample) {
    let (a, b) = (u64::from(into.total()), u64::from(from.total()));
    // The mean by weight: not the p90 of both, but between them, and never far off where a second is cut into a few pieces.
    into.p90_us = (into.p90_us.saturating_mul(a) + from.p90_us.saturating_mul(b)) / (a + b).max(1);
    for (sum, part) in [
        (&mut into.ok, from.ok),
        (&mut into.refused, from.refused),
        (&mut into.reset, from.reset),
        (&mut into.timeout, from.timeout),
        (&mut into.gateway_error, from.gateway_error),
        (&mut into.pressure, from.pressure),
    ] {
        *sum = sum.saturating_add(part);
    }
    (into.streak_failures, into.streak_errors) = (from.streak_failures, from.streak_errors);
}

/// Whether a closed window was slow beside those of its peers in the same second.
pub fn slow(window: &Sample, peers_p90_us: &mut [u64], passive: &Passive) -> bool {
    if passive.slower_than_peers <= 0.0 || peers_p90_us.is_empty() || window.total() < SLOW_REQUESTS {
        return false;
    }
    peers_p90_us.sort_unstable();
    let median = peers_p90_us.get((peers_p90_us.len() - 1) / 2).copied().unwrap_or(u64::MAX);
    window.p90_us > SLOW_FLOOR_US && window.p90_us as f64 > passive.slower_than_peers * median as f64
}

/// Why this backend should be shut out, if it should. `sample` is the newest one, already in `health.recent`; `unproven`:
/// it has never been seen to work, so its first failures are forgiven.
pub fn reason(health: &BackendHealth, sample: &Sample, unproven: bool, passive: &Passive) -> Option<EjectReason> {
    let limit = |configured: u32| configured.saturating_add(if unproven { CREDIT } else { 0 });
    if passive.consecutive_failures > 0
        && sample.failures() > 0
        && sample.streak_failures >= limit(passive.consecutive_failures)
    {
        return Some(EjectReason::ConsecutiveFailures);
    }
    if passive.consecutive_errors > 0
        && sample.gateway_error > 0
        && sample.streak_errors >= limit(passive.consecutive_errors)
    {
        return Some(EjectReason::ConsecutiveErrors);
    }
    if success(health).is_some_and(|share| share < passive.success_below) {
        return Some(EjectReason::SuccessRate);
    }
    (health.slow_windows >= SLOW_WINDOWS).then_some(EjectReason::SlowerThanPeers)
}

/// The share of successes within the window; `None` where there are too few requests to say.
pub fn success(health: &BackendHealth) -> Option<f64> {
    let (ok, bad) = health.recent.iter().fold((0u32, 0u32), |(ok, bad), (_, s)| {
        (ok.saturating_add(s.ok), bad.saturating_add(s.failures()).saturating_add(s.gateway_error))
    });
    let all = ok.saturating_add(bad);
    (all >= MIN_REQUESTS).then(|| f64::from(ok) / f64::from(all))
}

/// Whether a backend's share of successes is an outlier among all of its service and datacenter, itself among them: below
/// their mean by 1.9 standard deviations, and by what `passive` says at the least, so that where all are well none stands out.
pub fn below_peers(own: f64, all: &[f64], passive: &Passive) -> bool {
    if passive.below_peers <= 0.0 || all.len() < MIN_PEERS {
        return false;
    }
    let n = all.len() as f64;
    let mean = all.iter().sum::<f64>() / n;
    let deviation = (all.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / n).sqrt();
    own < mean - DEVIATIONS * deviation && own <= mean - passive.below_peers
}

/// Whether one more may be shut out beside its `peers`: the other backends of the same service and datacenter.
///
/// At most `max_ejected` of them, yet one of three; of two none, but for local-origin failures: a peer that refuses
/// connections hurts every second request until the probe has found it, and no judgement of quality is involved. Never the
/// last usable one; `max_ejected` 0 is never.
pub fn allowed(reason: EjectReason, peers: impl Iterator<Item = BackendState>, passive: &Passive) -> bool {
    let (mut all, mut ejected, mut usable) = (1u32, 0u32, false);
    for peer in peers {
        match peer {
            BackendState::AdminDown | BackendState::Drained | BackendState::Joining => continue,
            BackendState::Ejected | BackendState::HalfOpen => ejected += 1,
            state => usable |= state.usable(),
        }
        all += 1;
    }
    let share = (passive.max_ejected * f64::from(all)).floor() as u32;
    let limit = match all {
        _ if passive.max_ejected <= 0.0 => 0,
        2 if reason == EjectReason::ConsecutiveFailures => 1,
        0..=2 => share,
        _ => share.max(1),
    };
    usable && ejected < limit
}

/// Shuts it out: for twice as long as the last time.
pub fn eject(health: &mut BackendHealth, reason: EjectReason, passive: &Passive, now: Mono, seed: u64) {
    health.ejections = health.ejections.saturating_add(1);
    let draw = hash::join(seed, now.nanos() ^ u64::from(health.ejections));
    let until = now + pause(passive.eject_for, health.ejections, draw);
    (health.ejected, health.clean_from) = (Some((reason, until)), until);
    (health.slow_windows, health.ramp_from) = (0, None);
    health.recent.clear();
}

/// How a trial of a half-open backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It works: slow start.
    Passed,
    /// It does not: out again, for longer.
    Failed(EjectReason),
    /// Nothing has come back yet.
    Open,
}

/// Judges the trial of a half-open backend by a sample: one failure ends it, and so does one success.
pub fn trial(sample: &Sample) -> Trial {
    if sample.failures() > 0 {
        Trial::Failed(EjectReason::ConsecutiveFailures)
    } else if sample.gateway_error > 0 {
        Trial::Failed(EjectReason::ConsecutiveErrors)
    } else if sample.ok > 0 {
        Trial::Passed
    } else {
        Trial::Open
    }
}

/// Takes it back: from a small share upwards, with a clean slate.
pub fn readmit(health: &mut BackendHealth, slow_start: Duration, now: Mono) {
    (health.ejected, health.slow_windows) = (None, 0);
    health.ramp_from = (!slow_start.is_zero()).then_some(now);
    health.recent.clear();
}

#[cfg(test)]
mod tests;
