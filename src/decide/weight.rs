//! From backends to datacenters: how much of a service each carries, and how much of a steered name.
//!
//! ```text
//!              h < fail_below                       h >= return_at, three ticks running
//!   Serving ------------------> Failed (factor 0) ------------------------------------> Returning
//!      ^                           ^   h < fail_below                                       |
//!      |                           +--------------------------------------------------------+
//!      +------------------------------------------------------------------------------------+
//!                                            the factor has arrived
//!   Drained, AdminDown: an operator; back by way of Returning.   Absent: no backend there.
//! ```
//!
//! h = healthy weight / weight that no operator took out; factor = min(1, overprovision x h). Down at once, up in steps.

use std::time::Duration;

use super::orders::{Order, Orders, Taken};
use crate::base::clock::Mono;
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::{Class, Config, Health, Steer};
use crate::snapshot::health::{BackendState, Candidate, DcState, DcWeight};

/// Ticks in a row at or above the return mark that bring a failed datacenter back (DECISIONS: three evaluations; counted on
/// ticks and not on events, so that much traffic does not shorten them).
pub const RETURN_TICKS: u32 = 3;
/// Where a return begins, in thousandths.
const RETURN_FACTOR: u32 = 100;
/// Height of one step upwards in thousandths; there are 18 from 10 % to 100 % within `health.ramp`, which by default is 9 %
/// a second (EDGE 3c: at most 10 %). h only moves when a backend changes state, so steps are the only dead band needed.
const STEP: u32 = 50;
/// Steps of a whole return.
pub const STEPS: u32 = (1_000 - RETURN_FACTOR) / STEP;

/// One backend as it counts for its datacenter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// Configured or wished weight.
    pub weight: u32,
    /// Its state.
    pub state: BackendState,
}

/// What a service stands on in a datacenter, apart from its backends.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The datacenter's configured weight.
    pub base: u32,
    /// What operators want of the service there.
    pub order: Order,
    /// Below this share, health is ignored there.
    pub panic_below: f64,
    /// The rules of the health core.
    pub rules: &'a Health,
    /// Whether this is one of the evaluations that a return waits for.
    pub tick: bool,
}

/// The weight of one service in one datacenter. `before`: what it was, Absent where this is the first judgement.
pub fn datacenter(
    before: &DcWeight,
    members: impl Iterator<Item = Member>,
    ground: &Ground<'_>,
    now: Mono,
) -> DcWeight {
    let Ground { base, order, panic_below, rules, tick } = *ground;
    let (health, present) = measure(members);
    let out = match (order.taken, present) {
        (_, Presence::Absent) => Some(DcState::Absent),
        (Some(Taken::Down), _) | (None, Presence::AllDown) => Some(DcState::AdminDown),
        (Some(Taken::Drained), _) | (None, Presence::AllOut) => Some(DcState::Drained),
        (None, Presence::In) => None,
    };
    let mut next = DcWeight { health, ..DcWeight::default() };
    if let Some(state) = out {
        next.state = state;
    } else {
        next.panic = health < panic_below;
        let target = (1_000.0 * (rules.overprovision * health).clamp(0.0, 1.0)).round() as u32;
        match before.state {
            _ if health < rules.fail_below => next.state = DcState::Failed,
            DcState::Absent => next.factor = target,
            DcState::Failed => {
                let held = if health >= rules.return_at { before.returning + u32::from(tick) } else { 0 };
                if held >= RETURN_TICKS {
                    begin(&mut next, target, rules.ramp, now);
                } else {
                    (next.state, next.returning) = (DcState::Failed, held);
                }
            }
            DcState::Drained | DcState::AdminDown => begin(&mut next, target, rules.ramp, now),
            state @ (DcState::Serving | DcState::Returning) => {
                (next.factor, next.ramp_from) = climb(before.factor, before.ramp_from, target, rules.ramp, now);
                next.state = if next.ramp_from.is_some() { state } else { DcState::Serving };
            }
        }
    }
    next.effective = u64::from(order.weight.unwrap_or(base)) * u64::from(next.factor);
    next.since = if before.state == next.state { before.since } else { now };
    next
}

enum Presence {
    Absent,
    AllDown,
    AllOut,
    In,
}

/// The healthy share of the weight that no operator took out, newcomers aside: what joins takes nothing from those that are
/// there. Healthy is whoever may get requests: slow start counts in full,
/// for a return must not look like a loss; and so does a trial, or a datacenter that failed over it would never get the
/// request that ends it. Weights that are all zero are as good as out: that is what
/// their operator wants.
fn measure(members: impl Iterator<Item = Member>) -> (f64, Presence) {
    let (mut any, mut all_down, mut total, mut healthy) = (false, true, 0u64, 0u64);
    for member in members {
        any = true;
        all_down &= member.state == BackendState::AdminDown;
        if !matches!(member.state, BackendState::AdminDown | BackendState::Drained | BackendState::Joining) {
            total += u64::from(member.weight);
            healthy += if member.state.usable() { u64::from(member.weight) } else { 0 };
        }
    }
    let presence = match (any, total) {
        (false, _) => Presence::Absent,
        (true, 0) if all_down => Presence::AllDown,
        (true, 0) => Presence::AllOut,
        (true, _) => Presence::In,
    };
    (if total == 0 { 0.0 } else { healthy as f64 / total as f64 }, presence)
}

fn begin(next: &mut DcWeight, target: u32, ramp: Duration, now: Mono) {
    if ramp.is_zero() {
        next.factor = target;
    } else {
        (next.state, next.factor, next.ramp_from) = (DcState::Returning, RETURN_FACTOR.min(target), Some(now));
    }
}

/// One look at a factor on its way to `target`: down at once, up by the steps whose time has come.
fn climb(factor: u32, from: Option<Mono>, target: u32, ramp: Duration, now: Mono) -> (u32, Option<Mono>) {
    let step = ramp / STEPS;
    if target <= factor || step.is_zero() {
        return (target, None);
    }
    let Some(from) = from else { return (factor, Some(now)) };
    let steps = u32::try_from(now.since(from).as_nanos() / step.as_nanos()).unwrap_or(STEPS).min(STEPS);
    let reached = factor.saturating_add(steps * STEP).min(target);
    (reached, (reached < target).then(|| from + step * steps))
}

/// The candidates of a steered name, and whether all of them are down: every one that no operator took out has nothing left.
///
/// A candidate is as healthy as the worst of the name's critical services there (of all its services, where none is
/// critical); a service that has no backend there does not count, for the edge there reaches it elsewhere. Its weight is the
/// name's own weight for it, or the datacenter's wished one. A wished weight of a service lowers the share in proportion.
pub fn candidates<'a>(
    steer: &Steer,
    config: &Config,
    orders: &Orders,
    weight: impl Fn(ServiceId, DatacenterId) -> &'a DcWeight,
) -> (Vec<Candidate>, bool) {
    let deciding: Vec<ServiceId> = deciding(steer, config).collect();
    let candidates: Vec<Candidate> = steer
        .datacenters
        .iter()
        .map(|&(dc, own)| {
            let order = orders.datacenter(dc);
            let configured = config.datacenters.get(dc.index()).map_or(0, |d| d.weight);
            let worst = deciding
                .iter()
                .map(|&service| {
                    let w = weight(service, dc);
                    (w.state, share(w, orders.service_alone(service, dc).weight, configured), service)
                })
                .filter(|(state, ..)| *state != DcState::Absent)
                .max_by_key(|&(state, share, _)| (badness(state), std::cmp::Reverse(share)));
            let (state, share, held_by) = match (order.taken, worst) {
                (Some(Taken::Down), _) => (DcState::AdminDown, 0, None),
                (Some(Taken::Drained), _) => (DcState::Drained, 0, None),
                (None, Some((state, share, by))) => (state, share, (state != DcState::Serving).then_some(by)),
                (None, None) if deciding.is_empty() => (DcState::Serving, 1_000, None),
                (None, None) => (DcState::Absent, 0, None),
            };
            let effective = u64::from(order.weight.unwrap_or(own)) * share;
            Candidate { state, effective, held_by, planned: order.planned }
        })
        .collect();
    let all_down =
        candidates.iter().all(|c| c.effective == 0 || matches!(c.state, DcState::AdminDown | DcState::Drained));
    (candidates, all_down)
}

/// The services that decide about a name.
pub fn deciding<'s>(steer: &'s Steer, config: &'s Config) -> impl Iterator<Item = ServiceId> + 's {
    let critical = |s: &ServiceId| config.services.get(s.index()).is_some_and(|s| s.class == Class::Critical);
    let any = steer.services.iter().any(critical);
    steer.services.iter().copied().filter(move |s| !any || critical(s))
}

/// A service's factor in thousandths, lowered by a weight that was wished for it alone.
fn share(weight: &DcWeight, wished: Option<u32>, configured: u32) -> u64 {
    let factor = u64::from(weight.factor);
    match wished {
        Some(wished) if wished < configured => factor * u64::from(wished) / u64::from(configured),
        _ => factor,
    }
}

const fn badness(state: DcState) -> u8 {
    match state {
        DcState::Absent => 0,
        DcState::Serving => 1,
        DcState::Returning => 2,
        DcState::Failed => 3,
        DcState::Drained => 4,
        DcState::AdminDown => 5,
    }
}

#[cfg(test)]
mod tests;
