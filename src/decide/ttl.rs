//! How long a DNS answer may be kept: long in the calm, short where a change may be near (gdnsd's idea, GSLB 3.7).
//!
//! gdnsd caps the TTL by the checks that are left until a state could flip. With probes every second that would always be
//! the minimum; so a target counts only once something points to a change: it has not been judged yet, its last probes
//! contradict its verdict, or failures linger in its leaky counter.

use std::time::Duration;

use super::verdict::{self, LEAKY_DOWN};
use super::weight;
use crate::base::clock::{Mono, Wall};
use crate::config::Probe;
use crate::snapshot::health::{DcWeight, TargetHealth, Verdict};
use crate::snapshot::intent::Intents;

/// TTLs that answers carry apart from the configured base and minimum: few, so that signatures can be kept (GSLB 3.7).
pub const STEPS: [u32; 6] = [5, 10, 15, 20, 30, 60];

/// When probes could turn the verdict of a target, if anything points to it.
pub fn until_verdict(health: &TargetHealth, probe: &Probe) -> Option<Duration> {
    let checks = match health.verdict {
        Verdict::Unknown => 1,
        Verdict::Up if health.streak_failed == 0 && health.leaky == 0 => return None,
        Verdict::Up => {
            let falls = probe.fall.max(1).saturating_sub(health.streak_failed);
            // Leaked failures alone: each check that is left may be one of them.
            let fills = LEAKY_DOWN.saturating_sub(health.leaky);
            if health.streak_failed > 0 { falls.min(fills) } else { fills }
        }
        Verdict::Down if health.streak_ok == 0 => return None,
        Verdict::Down => verdict::needed(probe, health.flaps).saturating_sub(health.streak_ok),
    };
    Some(probe.interval.saturating_mul(checks.max(1)))
}

/// When the weight of a service in a datacenter will move by itself, if it is under way.
pub fn until_weight(weight: &DcWeight, ramp: Duration, now: Mono) -> Option<Duration> {
    let step = ramp / weight::STEPS;
    weight.ramp_from.map(|from| (from + step).since(now)).or((weight.returning > 0).then_some(Duration::ZERO))
}

/// When the next intent ends.
pub fn until_intent(intents: &Intents, now: Wall) -> Option<Duration> {
    intents.entries.iter().filter_map(|i| i.until).map(|until| until.since(now)).min()
}

/// The TTL in seconds: what `soonest` allows, between `least` and `base`, rounded down to one of few values. `None`: calm.
pub fn choose(base: Duration, least: Duration, soonest: Option<Duration>) -> u32 {
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX).min(MAX_TTL);
    let (base, least) = (seconds(base), seconds(least).min(seconds(base)));
    let Some(soonest) = soonest.map(seconds) else { return base };
    let fits = |ttl: &u32| (least..=base.min(soonest)).contains(ttl);
    STEPS.into_iter().chain([base]).filter(fits).max().unwrap_or(least)
}

/// RFC 2181 section 8: a TTL has 31 bits.
const MAX_TTL: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests;
