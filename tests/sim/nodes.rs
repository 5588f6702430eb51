//! What is really the matter with a process, as against what the health core believes.

use std::time::Duration;

use springtide::base::entropy::Rng;
use springtide::config::Probe;
use springtide::snapshot::health::{ProbeFailure, ProbeOutcome};
use springtide::snapshot::load::Outcome;

const MS: Duration = Duration::from_millis(1);

/// The truth about one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Truth {
    /// It works.
    #[default]
    Well,
    /// Nobody listens.
    Crashed,
    /// It takes connections and says nothing (SIGSTOP).
    Silent,
    /// It answers after so many milliseconds.
    Slow(u32),
    /// It passes every probe and fails every request.
    Liar,
    /// It fails every probe and serves every request.
    Shy,
    /// It fails so many of a hundred, probes and requests alike.
    Flaky(u32),
    /// It turns half of the requests away as too many.
    Pressed,
}

impl Truth {
    /// What a probe finds, and after how long.
    pub(crate) fn probed(self, probe: &Probe, rng: &mut Rng) -> (ProbeOutcome, Duration) {
        let failed = ProbeOutcome::Failed;
        let quick = MS * (1 + rng.below(4) as u32);
        match self {
            Self::Crashed => (failed(ProbeFailure::Refused), Duration::ZERO),
            Self::Silent => (failed(ProbeFailure::Timeout), probe.timeout),
            Self::Slow(ms) if MS * ms >= probe.timeout => (failed(ProbeFailure::Timeout), probe.timeout),
            Self::Slow(ms) => (ProbeOutcome::Ok, MS * ms),
            Self::Shy => (failed(ProbeFailure::Status(500)), quick),
            Self::Flaky(percent) if rng.below(100) < u64::from(percent) => (failed(ProbeFailure::Reset), quick),
            Self::Well | Self::Liar | Self::Flaky(_) | Self::Pressed => (ProbeOutcome::Ok, quick),
        }
    }

    /// What a request finds, and after how long.
    pub(crate) fn served(self, rng: &mut Rng) -> (Outcome, Duration) {
        let quick = MS * (2 + rng.below(18) as u32);
        match self {
            Self::Crashed => (Outcome::Refused, Duration::ZERO),
            Self::Silent => (Outcome::Timeout, 1_000 * MS),
            Self::Slow(ms) => (Outcome::Ok, MS * ms),
            Self::Liar => (Outcome::GatewayError, quick),
            Self::Flaky(percent) if rng.below(100) < u64::from(percent) => (Outcome::Reset, quick),
            Self::Pressed if rng.chance(0.5) => (Outcome::Pressure, quick),
            Self::Well | Self::Shy | Self::Flaky(_) | Self::Pressed => (Outcome::Ok, quick),
        }
    }

    /// How long one failing probe takes, where every probe fails.
    pub(crate) fn dead_for_probes(self, probe: &Probe) -> Option<Duration> {
        match self {
            Self::Crashed => Some(Duration::ZERO),
            Self::Silent => Some(probe.timeout),
            Self::Slow(ms) if MS * ms >= probe.timeout => Some(probe.timeout),
            Self::Shy => Some(4 * MS),
            _ => None,
        }
    }
}
