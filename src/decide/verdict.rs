//! What probes make of a target: hysteresis, a leaky counter for failures that come and go, damping for flaps, and when
//! to look again.
//!
//! ```text
//!                   first success                 `fall` failures in a row,
//!     +---------+ ----------------> +--------+    or 6 that nothing cleared    +--------+
//!     | Unknown |                   |   Up   | ------------------------------> |  Down  |
//!     +---------+                   +--------+ <------------------------------ +--------+
//!          |                                        needed successes in a row      ^
//!          +-----------------------------------------------------------------------+
//!                                `fall` failures in a row
//! ```
//!
//! Called by `control::step` with every probe that ended. Live traffic can't turn a verdict; it only hastens a probe.

use std::time::Duration;

use crate::base::clock::Mono;
use crate::base::hash;
use crate::config::Probe;
use crate::snapshot::health::{ProbeOutcome, TargetHealth, Verdict};

/// How soon a failure is looked at again, as long as the verdict stands (DECISIONS: refused is found within
/// 1.1 x interval + this = 1.2 s, silence within that + 2 timeouts = 2.2 s).
pub const REPROBE: Duration = Duration::from_millis(100);
/// First probes of fresh targets are spread over this, so that a fresh node knows soon (ours).
pub const FIRST_SPREAD: Duration = Duration::from_millis(200);
/// Successes in a row that clear the leaky counter (gdnsd's `ok_thresh`).
pub const LEAKY_CLEAR: u32 = 10;
/// Failures without such a clearing that take a target down: catches one failure in three, which "so many in a row" never
/// sees (GSLB 3.2).
pub const LEAKY_DOWN: u32 = 6;
/// One flap is forgotten after so long without another (GSLB 3.2).
pub const CALM: Duration = Duration::from_mins(10);
/// Flaps that still change something: the first costs nothing, each further one doubles, up to x16.
pub const MAX_FLAPS: u32 = 5;

/// A target that nothing is known of: usable, and probed soon. `seed` differs by target and node.
pub fn fresh(probe: &Probe, now: Mono, seed: u64) -> TargetHealth {
    TargetHealth {
        verdict: Verdict::Unknown,
        since: now,
        streak_ok: 0,
        streak_failed: 0,
        leaky: 0,
        flaps: 0,
        flap_at: now,
        last: None,
        due: now + scaled(probe.interval.min(FIRST_SPREAD), draw(seed, 0)),
        round: 0,
    }
}

/// What the target is after one more probe: the whole transition table of this module.
///
/// | verdict | outcome | condition | becomes | next probe |
/// |---|---|---|---|---|
/// | Unknown | ok | | Up | interval |
/// | Unknown, Up | failed | `fall` in a row, or the leaky counter is full | Down (from Up: one flap more) | interval |
/// | Unknown, Up | failed | else | as it was | in 100 ms |
/// | Up | ok | | Up; ten in a row clear the leaky counter | interval |
/// | Down | failed | | Down | interval |
/// | Down | ok | fewer in a row than [`needed`] | Down | interval |
/// | Down | ok | [`needed`] in a row | Up, leaky counter empty | interval |
///
/// The interval runs from the beginning of the probe and is jittered by 10 %. After the very first probe it is anything up
/// to one interval: that spreads targets which all began together.
pub fn judge(
    before: &TargetHealth,
    outcome: ProbeOutcome,
    took: Duration,
    probe: &Probe,
    now: Mono,
    seed: u64,
) -> TargetHealth {
    let mut next = counted(before, outcome, took, now);
    forget_flaps(&mut next, now);
    match outcome {
        ProbeOutcome::Ok => {
            if next.streak_ok >= LEAKY_CLEAR {
                next.leaky = 0;
            }
            let returns = match next.verdict {
                Verdict::Unknown => true,
                Verdict::Up => false,
                Verdict::Down => next.streak_ok >= needed(probe, next.flaps),
            };
            if returns {
                (next.verdict, next.since, next.leaky) = (Verdict::Up, now, 0);
            }
        }
        ProbeOutcome::Failed(_) => {
            next.leaky = (next.leaky + 1).min(LEAKY_DOWN);
            let falls = next.streak_failed >= probe.fall.max(1) || next.leaky >= LEAKY_DOWN;
            if next.verdict != Verdict::Down && falls {
                if next.verdict == Verdict::Up {
                    (next.flaps, next.flap_at) = ((next.flaps + 1).min(MAX_FLAPS), now);
                }
                (next.verdict, next.since) = (Verdict::Down, now);
            }
        }
    }
    let again = matches!(outcome, ProbeOutcome::Failed(_)) && next.verdict != Verdict::Down;
    next.due = if again { now + REPROBE.min(probe.interval) } else { due(&next, probe, took, now, seed) };
    next
}

/// What the target is after one more probe while the node distrusts itself: evidence is counted, the verdict is held.
pub fn hold(
    before: &TargetHealth,
    outcome: ProbeOutcome,
    took: Duration,
    probe: &Probe,
    now: Mono,
    seed: u64,
) -> TargetHealth {
    let mut next = counted(before, outcome, took, now);
    next.due = due(&next, probe, took, now, seed);
    next
}

/// Successes in a row that bring a target back: `rise`, doubled for every flap but the first, up to x16. One crash in ten
/// minutes is a crash; the second begins to look like flapping.
pub fn needed(probe: &Probe, flaps: u32) -> u32 {
    probe.rise.max(1).saturating_mul(1 << flaps.saturating_sub(1).min(MAX_FLAPS - 1))
}

/// When the target is to be probed, now that live traffic or its peers make it suspect: at once, but no sooner than
/// [`REPROBE`] after the last probe. `None` where that is no sooner than planned, or the verdict is Down already.
pub fn hastened(health: &TargetHealth, now: Mono) -> Option<Mono> {
    let soonest = health.last.map_or(now, |(at, ..)| now.max(at + REPROBE));
    (health.verdict != Verdict::Down && soonest < health.due).then_some(soonest)
}

fn counted(before: &TargetHealth, outcome: ProbeOutcome, took: Duration, now: Mono) -> TargetHealth {
    let (streak_ok, streak_failed) = match outcome {
        ProbeOutcome::Ok => (before.streak_ok.saturating_add(1), 0),
        ProbeOutcome::Failed(_) => (0, before.streak_failed.saturating_add(1)),
    };
    let last = Some((now, outcome, took));
    TargetHealth { streak_ok, streak_failed, last, round: before.round.wrapping_add(1), ..before.clone() }
}

fn forget_flaps(health: &mut TargetHealth, now: Mono) {
    while health.flaps > 0 && now.since(health.flap_at) >= CALM {
        health.flaps -= 1;
        health.flap_at = health.flap_at + CALM;
    }
}

fn due(health: &TargetHealth, probe: &Probe, took: Duration, now: Mono, seed: u64) -> Mono {
    let draw = draw(seed, health.round);
    let thousandths = if health.round == 1 { draw } else { 900 + draw / 5 };
    now.max((now - took) + scaled(probe.interval, thousandths))
}

/// 0 to 1000, evenly, the same for the same target and round.
fn draw(seed: u64, round: u64) -> u64 {
    hash::join(seed, round) % 1_001
}

/// `duration` x `thousandths` / 1000, saturating.
pub(crate) fn scaled(duration: Duration, thousandths: u64) -> Duration {
    let nanos = duration.as_nanos().saturating_mul(u128::from(thousandths)) / 1_000;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
