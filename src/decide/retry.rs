//! Whether a failed try is followed by another one, when, and how long a try may take.
//!
//! A retry must be safe (the request may be done twice, or was provably not done at all), possible (its body can be sent
//! again), useful (in time, and not against overload) and affordable (a budget, so that retries never become the load
//! that breaks a service). It is refused with a reason. EDGE 3g.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::ids::ServiceId;
use crate::config::Retry;
use crate::snapshot::load::Outcome;

/// First step of the pause between tries at one datacenter (Envoy's base).
const PAUSE_STEP: Duration = Duration::from_millis(25);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(250);
/// Shortest per-try timeout that is derived from latency: below it, a scheduler's hiccup would count as a failure; and with
/// the try that follows, a request that met a silent backend stays below 100 ms.
const PER_TRY_MIN: Duration = Duration::from_millis(75);
/// So many times its average latency may a try take.
const PER_TRY_FACTOR: f64 = 6.0;
/// A retry needs at least this much time.
const LEAST_TIME: Duration = Duration::from_millis(5);
/// Retries that are allowed whatever the traffic, a second over all workers (tower's and Finagle's).
pub const FLOOR_PER_S: f64 = 10.0;
/// How long an unused allowance lasts, in slots of a second.
const SLOTS: usize = 10;

/// How a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// The backend said that it did not begin: HTTP/2 REFUSED_STREAM, or GOAWAY below the stream; or a kept connection
    /// closed before a byte of the request was written.
    Unprocessed,
    /// The connection broke before the head of the response was whole.
    Reset,
    /// No head of a response in time.
    Timeout,
    /// A response with this status: 502, 503 or 504.
    Status(u16),
    /// A response that says the backend has too much to do: see [`is_pressure`].
    Overload,
    /// A limit of ours stood in the way: nobody was asked, so another backend is at once, and that is no retry.
    Full,
}

impl Failure {
    /// Whether the request provably was not acted on.
    pub const fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::Unprocessed | Self::Full)
    }
}

/// A try has failed; everything that decides what comes next.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How it failed.
    pub failure: Failure,
    /// Tries that have failed, this one among them; at least 1.
    pub tries: u32,
    /// The request may be done twice: [`is_repeatable`].
    pub repeatable: bool,
    /// The whole body is still at hand, or there was none.
    pub replayable: bool,
    /// Nobody but the user's home may answer, not even with a note for it.
    pub home: bool,
    /// What is left of the deadline.
    pub remaining: Duration,
    /// How long the next try is likely to take.
    pub expected: Duration,
}

/// Why there is no further try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// As many tries as the policy allows were made.
    Tries,
    /// The request may have been done, and must not be done twice.
    Unsafe,
    /// The body is gone.
    Body,
    /// The backend is overloaded; more would not help it.
    Overload,
    /// Too little time is left.
    Deadline,
    /// Too many of this service's requests are retries already.
    Budget,
}

impl Refusal {
    /// The word for it in logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tries => "tries",
            Self::Unsafe => "unsafe",
            Self::Body => "body",
            Self::Overload => "overload",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
        }
    }
}

/// Whether `case` allows another try under `policy`, budget apart: ask [`Budget::spend`] last, and only after a yes.
pub fn judge(policy: &Retry, case: &Case) -> Result<(), Refusal> {
    let Case { failure, tries, repeatable, replayable, home, remaining, expected } = *case;
    if failure == Failure::Overload {
        return Err(Refusal::Overload);
    }
    // At its home a request has one more chance, and only if nothing can have happened.
    if tries >= if home { policy.tries.min(2) } else { policy.tries } {
        return Err(Refusal::Tries);
    }
    if !failure.is_unsent() && (home || !repeatable) {
        return Err(Refusal::Unsafe);
    }
    if !replayable {
        return Err(Refusal::Body);
    }
    if remaining < expected.max(LEAST_TIME) {
        return Err(Refusal::Deadline);
    }
    Ok(())
}

/// Whether a request may be done twice: its method is idempotent (RFC 9110 section 9.2.2), or it carries a key by which
/// the backend knows it again and the route (`keyed`) says that such keys are honoured.
pub fn is_repeatable(method: &Method, headers: &HeaderMap, keyed: bool) -> bool {
    method.is_idempotent() || (keyed && *method == Method::POST && headers.contains_key("idempotency-key"))
}

/// Whether a response says "too much", not "broken": 429, or 503 with `Retry-After` or `X-Overloaded`.
pub fn is_pressure(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::SERVICE_UNAVAILABLE
            && (headers.contains_key(header::RETRY_AFTER) || headers.contains_key("x-overloaded")))
}

/// What a response says about the backend that gave it, and how its try failed if it did.
pub fn classify(status: StatusCode, headers: &HeaderMap) -> (Outcome, Option<Failure>) {
    if is_pressure(status, headers) {
        return (Outcome::Pressure, Some(Failure::Overload));
    }
    match status.as_u16() {
        code @ 502..=504 => (Outcome::GatewayError, Some(Failure::Status(code))),
        _ => (Outcome::Ok, None),
    }
}

/// How long to wait before the next try: not at all before the first retry, nor when it goes to another datacenter;
/// else a random time up to 25 ms, doubled with each retry, at most 250 ms and a quarter of what remains.
pub fn pause(retries_before: u32, same_datacenter: bool, remaining: Duration, rng: &mut Rng) -> Duration {
    if retries_before == 0 || !same_datacenter {
        return Duration::ZERO;
    }
    let most = PAUSE_STEP.saturating_mul(1 << retries_before.min(8)).min(PAUSE_MAX).min(remaining / 4);
    most.mul_f64(rng.unit())
}

/// How long a try may wait for the head of its response. `latency_ns` is the backend's average; `more_tries` says whether
/// another try could follow, so that a silent backend leaves time for it.
pub fn per_try_timeout(policy: &Retry, latency_ns: f64, more_tries: bool, remaining: Duration) -> Duration {
    if !more_tries {
        return remaining;
    }
    let observed = Duration::from_nanos((latency_ns * PER_TRY_FACTOR) as u64).max(PER_TRY_MIN);
    policy.per_try.unwrap_or(observed).min(remaining / 2)
}

/// What one worker may spend on retries of one service.
///
/// Each request earns the policy's share of a retry; an allowance of [`FLOOR_PER_S`] (over all workers) is there without
/// traffic. Earnings last ten seconds, so in any ten seconds retries are at most the share of their requests, plus the
/// allowance. A worker's own: no lock, and no worker spends what another has earned.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Earned minus spent, by second, in thousandths of a retry.
    slots: [i64; SLOTS],
    second: u64,
    allowance: i64,
}

impl Budget {
    /// The budget of one of `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self::with_floor(FLOOR_PER_S, workers)
    }

    /// The same with an allowance of so many a second over all workers.
    pub fn with_floor(per_s: f64, workers: usize) -> Self {
        let allowance = per_s * SLOTS as f64 * 1_000.0 / workers.max(1) as f64;
        Self { slots: [0; SLOTS], second: 0, allowance: allowance as i64 }
    }

    /// A request earns `share` of a retry.
    pub fn earn(&mut self, share: f64, now: Mono) {
        let slot = self.slot(now);
        *slot = slot.saturating_add((share.clamp(0.0, 1.0) * 1_000.0) as i64);
    }

    /// Takes one retry if there is one.
    pub fn spend(&mut self, now: Mono) -> bool {
        let can_pay = self.can_pay(now);
        if can_pay {
            *self.slot(now) -= 1_000;
        }
        can_pay
    }

    /// Whether there is one.
    pub fn can_pay(&mut self, now: Mono) -> bool {
        self.slot(now);
        self.left() >= 1_000
    }

    /// Retries that are left, in thousandths.
    pub fn left(&self) -> i64 {
        self.slots.iter().sum::<i64>() + self.allowance
    }

    fn slot(&mut self, now: Mono) -> &mut i64 {
        let second = now.nanos() / 1_000_000_000;
        let passed = second.saturating_sub(self.second).min(SLOTS as u64);
        for i in 0..passed {
            self.slots[((second - i) % SLOTS as u64) as usize] = 0;
        }
        self.second = self.second.max(second);
        &mut self.slots[(self.second % SLOTS as u64) as usize]
    }
}

/// The budgets of one worker, by service. Begins anew with each topology.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    serial: u64,
    by_service: Vec<Budget>,
}

impl Budgets {
    /// The budget of `service` under topology `serial`, for one of `workers` workers.
    pub fn of(&mut self, serial: u64, service: ServiceId, workers: usize) -> &mut Budget {
        // Only ever forward: a request that began before a reload must not hand out a fresh allowance again and again.
        if serial > self.serial {
            *self = Self { serial, by_service: Vec::new() };
        }
        if self.by_service.len() <= service.index() {
            self.by_service.resize(service.index() + 1, Budget::new(workers));
        }
        &mut self.by_service[service.index()]
    }
}

#[cfg(test)]
mod tests;
