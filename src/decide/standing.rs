//! Where a backend stands: one state and one weight from all evidence and intent.
//!
//! ```text
//!   operator:  AdminDown, Drained          wins over everything below
//!   probes:    Down                        wins over live traffic, ends an ejection
//!   traffic:   Ejected -> HalfOpen         over, and two good probes in a row (if it is probed)
//!              HalfOpen -> SlowStart       first success            HalfOpen -> Ejected   any failure, for longer
//!   return:    Down, Drained, AdminDown -> SlowStart -> Healthy
//!   discovery: Joining -> SlowStart        first good probe
//!   else:      Unknown (nothing yet), Suspect (a failure just now), Healthy
//! ```
//!
//! The state is derived anew from the evidence each time; a return alone needs to know the state before. A process boot is
//! no return: who is Unknown takes its full share at once.

use std::time::Duration;

use super::orders::{Order, Taken};
use super::verdict::scaled;
use crate::base::clock::Mono;
use crate::config::Service;
use crate::snapshot::health::{BackendHealth, BackendState, EjectReason, TargetHealth, Verdict};

/// Good probes in a row that open an ejected backend half (EDGE 3b).
const RETURN_PROBES: u32 = 2;
/// A failure of live traffic makes a backend suspect for so long (EDGE 3b, panic).
const SUSPECT_FOR: Duration = Duration::from_secs(2);
/// One ejection is forgotten for every minute without another (EDGE 3b).
const CLEAN: Duration = Duration::from_mins(1);
/// Weights move in steps of 5 %, so that a ramp makes twenty generations and not a thousand (ours).
const STEP: u64 = 50;
/// Least share that a backend keeps through slow start and pressure (EDGE 3a).
const FLOOR: u64 = 100;
/// Fewer tries within ten seconds say nothing about pressure (ours).
const PRESSURE_MIN: u32 = 10;

/// Where a backend stands; each field as in [`BackendHealth`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// The state.
    pub state: BackendState,
    /// Since when.
    pub since: Mono,
    /// Weight in thousandths of the configured unit.
    pub weight: u32,
    /// The ejection, while it lasts.
    pub ejected: Option<(EjectReason, Mono)>,
    /// Ejections remembered.
    pub ejections: u32,
    /// Since when it is clean.
    pub clean_from: Mono,
    /// When slow start began, while it lasts.
    pub ramp_from: Option<Mono>,
}

impl Standing {
    /// Where `health` stands.
    pub const fn of(health: &BackendHealth) -> Self {
        Self {
            state: health.state,
            since: health.since,
            weight: health.weight,
            ejected: health.ejected,
            ejections: health.ejections,
            clean_from: health.clean_from,
            ramp_from: health.ramp_from,
        }
    }

    /// Writes it into `health`.
    pub const fn put(self, health: &mut BackendHealth) {
        health.state = self.state;
        health.since = self.since;
        health.weight = self.weight;
        health.ejected = self.ejected;
        health.ejections = self.ejections;
        health.clean_from = self.clean_from;
        health.ramp_from = self.ramp_from;
    }
}

/// A backend that nothing is known of.
pub const fn fresh(now: Mono) -> BackendHealth {
    BackendHealth {
        state: BackendState::Unknown,
        since: now,
        weight: 0,
        ejected: None,
        ejections: 0,
        clean_from: now,
        slow_windows: 0,
        ramp_from: None,
        recent: Vec::new(),
    }
}

/// A backend that has been found beside others that work.
pub fn joining(now: Mono) -> BackendHealth {
    BackendHealth { state: BackendState::Joining, ..fresh(now) }
}

/// Where the backend stands now. `target`: what probes say, where it is probed; `configured`: its configured weight;
/// `returns`: whether who was out comes back by slow start (not after a freeze has been undone: it never was out).
pub fn stand(
    before: &BackendHealth,
    target: Option<&TargetHealth>,
    order: Order,
    configured: u32,
    service: &Service,
    returns: bool,
    now: Mono,
) -> Standing {
    let down = target.is_some_and(|t| t.verdict == Verdict::Down);
    let joins = before.state == BackendState::Joining && target.is_some_and(|t| t.verdict == Verdict::Unknown);
    let ejected = before.ejected.filter(|_| !down);
    let opens =
        |until: Mono| now >= until && target.is_none_or(|t| t.verdict == Verdict::Up && t.streak_ok >= RETURN_PROBES);
    let out = match (order.taken, ejected) {
        (Some(Taken::Down), _) => Some(BackendState::AdminDown),
        (Some(Taken::Drained), _) => Some(BackendState::Drained),
        _ if down => Some(BackendState::Down),
        _ if joins => Some(BackendState::Joining),
        (None, Some((_, until))) => Some(if opens(until) { BackendState::HalfOpen } else { BackendState::Ejected }),
        (None, None) => None,
    };
    let was_out = matches!(before.state, BackendState::Down | BackendState::Drained | BackendState::AdminDown);
    let has_joined = before.state == BackendState::Joining;
    let ramp_from = match before.ramp_from {
        _ if out.is_some() || service.slow_start.is_zero() => None,
        _ if was_out && returns || has_joined => Some(now),
        ramp => ramp.filter(|&from| now.since(from) < service.slow_start),
    };
    let state = out.unwrap_or_else(|| match ramp_from {
        Some(_) => BackendState::SlowStart,
        None if unproven(before, target) => BackendState::Unknown,
        None if suspect(before, target, now) => BackendState::Suspect,
        None => BackendState::Healthy,
    });
    let (ejections, clean_from) = cleaner(before, now);
    let share = match (state, ramp_from) {
        (state, _) if !state.usable() => 0,
        (BackendState::HalfOpen, _) => FLOOR,
        (_, Some(from)) => slow_start(now.since(from), service.slow_start) * unpressed(before) / 1_000,
        (_, None) => unpressed(before),
    };
    let weight = u64::from(order.weight.unwrap_or(configured)) * share;
    Standing {
        state,
        since: if state == before.state { before.since } else { now },
        weight: u32::try_from(weight).unwrap_or(u32::MAX),
        ejected,
        ejections,
        clean_from,
        ramp_from,
    }
}

/// Whether neither probes nor traffic have ever seen it work.
pub fn unproven(health: &BackendHealth, target: Option<&TargetHealth>) -> bool {
    match target {
        Some(target) => target.verdict == Verdict::Unknown,
        None => health.state == BackendState::Unknown && health.recent.iter().all(|(_, sample)| sample.ok == 0),
    }
}

fn suspect(health: &BackendHealth, target: Option<&TargetHealth>, now: Mono) -> bool {
    target.is_some_and(|t| t.streak_failed > 0)
        || health.recent.iter().any(|(at, sample)| sample.failures() > 0 && now.since(*at) < SUSPECT_FOR)
}

fn cleaner(health: &BackendHealth, now: Mono) -> (u32, Mono) {
    let (mut ejections, mut clean_from) = (health.ejections, health.clean_from);
    while ejections > 0 && now.since(clean_from) >= CLEAN {
        ejections -= 1;
        clean_from = clean_from + CLEAN;
    }
    (ejections, clean_from)
}

/// max(10 %, t / T) in thousandths, in steps (EDGE 3a).
fn slow_start(age: Duration, whole: Duration) -> u64 {
    let share = age.as_nanos().saturating_mul(1_000) / whole.as_nanos().max(1);
    stepped(u64::try_from(share).unwrap_or(1_000))
}

/// What pressure leaves: the share of tries in the last ten seconds that were not turned away as too many. Shedding must not
/// look like failing, or it would eject and press harder on the rest.
fn unpressed(health: &BackendHealth) -> u64 {
    let (pressed, all) = health
        .recent
        .iter()
        .fold((0u32, 0u32), |(p, a), (_, s)| (p.saturating_add(s.pressure), a.saturating_add(s.total())));
    if all < PRESSURE_MIN { 1_000 } else { stepped(u64::from(all - pressed) * 1_000 / u64::from(all)) }
}

fn stepped(share: u64) -> u64 {
    (share / STEP * STEP).clamp(FLOOR, 1_000)
}

/// The pause of ejection number `n` (from 1): doubling from `base` up to 300 s, jittered by 20 % (EDGE 3b).
pub(super) fn pause(base: Duration, n: u32, draw: u64) -> Duration {
    const LONGEST: Duration = Duration::from_mins(5);
    let doubled = base.saturating_mul(1 << n.saturating_sub(1).min(16)).min(LONGEST);
    scaled(doubled, 800 + draw % 401)
}

#[cfg(test)]
mod tests;
