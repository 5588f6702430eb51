//! Verdicts and the evidence behind them. Written by `control::step` alone, read by both edges and by `explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::Sample;
use crate::base::clock::Mono;

/// What probes say of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing yet: usable, for an empty answer is worse than a wrong guess.
    #[default]
    Unknown,
    /// It works.
    Up,
    /// It does not.
    Down,
}

impl Verdict {
    /// The word for it in tables, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeFailure {
    /// The connection was refused.
    Refused,
    /// The connection broke.
    Reset,
    /// No answer in time.
    Timeout,
    /// The name or the network cannot be reached.
    Unreachable,
    /// The TLS handshake failed.
    Tls,
    /// The answer had another status than expected.
    Status(u16),
    /// The answer broke the protocol.
    Garbage,
}

impl ProbeFailure {
    /// The word for it in tables, logs and metrics; a status goes without its number.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Status(_) => "status",
            Self::Garbage => "garbage",
        }
    }
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// As expected.
    Ok,
    /// Not.
    Failed(ProbeFailure),
}

/// What is known of one target from probing it.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetHealth {
    /// The verdict.
    pub verdict: Verdict,
    /// Since when.
    pub since: Mono,
    /// Successes in a row.
    pub streak_ok: u32,
    /// Failures in a row.
    pub streak_failed: u32,
    /// Leaky counter of failures: cleared by ten successes in a row only, takes the target down at six.
    pub leaky: u32,
    /// UP -> DOWN moves remembered; one is forgotten for every ten calm minutes. Doubles the needed successes (up to x16).
    pub flaps: u32,
    /// When the last flap was counted or forgotten.
    pub flap_at: Mono,
    /// The last probe: when it ended, how, and how long it took.
    pub last: Option<(Mono, ProbeOutcome, Duration)>,
    /// When it is to be probed next.
    pub due: Mono,
    /// How many probes have been made; seeds the jitter.
    pub round: u64,
}

/// The state of a backend, from all evidence and intent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Not judged yet; used.
    #[default]
    Unknown,
    /// Found beside others that work, and not judged yet: not used before its first good probe, unless nothing else is there.
    Joining,
    /// Used.
    Healthy,
    /// A recent failure makes us look twice; used.
    Suspect,
    /// Live traffic shut it out; not used.
    Ejected,
    /// The ejection is over and probes are good: one request at a time until one succeeds.
    HalfOpen,
    /// Used at a weight that grows.
    SlowStart,
    /// Probes say it is down; not used.
    Down,
    /// An operator drains it; nothing new.
    Drained,
    /// An operator took it down; never used.
    AdminDown,
}

impl BackendState {
    /// Whether new requests may go to it.
    pub const fn usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Healthy | Self::Suspect | Self::HalfOpen | Self::SlowStart)
    }

    /// The word for it in tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Joining => "joining",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half-open",
            Self::SlowStart => "slow-start",
            Self::Down => "down",
            Self::Drained => "drained",
            Self::AdminDown => "admin-down",
        }
    }
}

/// Why live traffic ejected a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EjectReason {
    /// Local-origin failures in a row.
    ConsecutiveFailures,
    /// Gateway errors in a row.
    ConsecutiveErrors,
    /// Too small a share of successes.
    SuccessRate,
    /// Too small a share of successes beside its peers.
    SuccessBelowPeers,
    /// Much slower than its peers.
    SlowerThanPeers,
}

impl EjectReason {
    /// The word for it in tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::ConsecutiveErrors => "consecutive-errors",
            Self::SuccessRate => "success-rate",
            Self::SuccessBelowPeers => "success-below-peers",
            Self::SlowerThanPeers => "slower-than-peers",
        }
    }
}

/// What is known of one backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendHealth {
    /// The state.
    pub state: BackendState,
    /// Since when.
    pub since: Mono,
    /// What the balancer uses, in thousandths of the configured unit: 1000 x the configured (or wished) weight x slow start
    /// x pressure. A backend of weight 2 has 2000 here when all is well. 0 where the state is not usable.
    pub weight: u32,
    /// Why and until when it is ejected; how many times in a row.
    pub ejected: Option<(EjectReason, Mono)>,
    /// Ejections remembered; one is forgotten for every clean minute. Doubles the next one.
    pub ejections: u32,
    /// Since when it has been clean: the end of its last ejection, or when the last one was forgotten.
    pub clean_from: Mono,
    /// Windows in a row in which it was slower than its peers.
    pub slow_windows: u32,
    /// When slow start began, while it lasts.
    pub ramp_from: Option<Mono>,
    /// Live traffic of the last ten seconds, a sample a second, oldest first.
    pub recent: Vec<(Mono, Sample)>,
}

/// The state of a service in a datacenter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DcState {
    /// Serves.
    #[default]
    Serving,
    /// Too little of it is healthy; serves nothing.
    Failed,
    /// Was failed, is healthy again, and ramps up.
    Returning,
    /// An operator drains it.
    Drained,
    /// An operator took it down.
    AdminDown,
    /// The service has no backend there.
    Absent,
}

impl DcState {
    /// The word for it in tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Failed => "failed",
            Self::Returning => "returning",
            Self::Drained => "drained",
            Self::AdminDown => "admin-down",
            Self::Absent => "absent",
        }
    }
}

/// The weight of one service in one datacenter: the number that both edges act on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DcWeight {
    /// The state.
    pub state: DcState,
    /// Since when.
    pub since: Mono,
    /// Healthy weight / configured weight of what no operator took out, 0 to 1.
    pub health: f64,
    /// What health, ramp and intent leave of it in thousandths: 1000 x min(1, overprovision x health) x ramp.
    pub factor: u32,
    /// Effective weight: the datacenter's (or wished) weight x factor; so in thousandths of the configured unit.
    pub effective: u64,
    /// Evaluations in a row at or above the return mark, while failed.
    pub returning: u32,
    /// While the factor climbs: when it took its last step.
    pub ramp_from: Option<Mono>,
    /// Fewer than `panic_below` of the usable weight is healthy here: balance ignores health.
    pub panic: bool,
}

/// One datacenter as a candidate of a steered name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidate {
    /// The state: the worst of the name's critical services there.
    pub state: DcState,
    /// Effective weight in thousandths; 0 is not answered with.
    pub effective: u64,
    /// The service that decides, where one holds it down.
    pub held_by: Option<crate::base::ids::ServiceId>,
    /// It is down, or weighs what it does, because that is planned for now.
    pub planned: bool,
}

/// How much one datacenter has to carry, as far as this node sees, and what leaves it for that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spill {
    /// Requests since `counted_from`.
    pub requests: u64,
    /// Since when they are counted.
    pub counted_from: Mono,
    /// Requests a second, averaged over some seconds; `None`: nobody tells.
    pub rate_rps: Option<f64>,
    /// Since when nobody tells.
    pub silent_from: Option<Mono>,
    /// The share of clients, in thousandths, that DNS sends elsewhere.
    pub shed: u32,
    /// The share of clients, 0 to 1, that have learnt of it by now: caches lag behind by a TTL.
    pub felt: f64,
    /// `shed` is on its way to where it belongs.
    pub moving: bool,
    /// When `shed` was last decided.
    pub decided_at: Mono,
}

/// What DNS answers from, for one steered name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SteerHealth {
    /// As `Steer::datacenters`, in its order.
    pub candidates: Vec<Candidate>,
    /// Every candidate has failed; what is said now follows `on_all_down`.
    pub all_down: bool,
    /// TTL of answers, in seconds: soon when a change may be near, quantised to 5, 10, 15, 20, 30, 60 (or the configured
    /// base and min).
    pub ttl: u32,
}
