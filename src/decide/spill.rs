//! Capacity spill: what share of its clients leaves a datacenter that is short of capacity, as a damped control law.
//!
//! ```text
//!   load --(what was shed has been felt)--> demand --> target share --(steps, hysteresis)--> share --> who leaves, by hash
//!     ^                                                                                                      |
//!     +------------------------------- caches follow within a TTL -------------------------------------------+
//! ```
//!
//! A resolver keeps its answer for a TTL, so a law that looks at load would see its own effect late, shed too much, and
//! swing. This one looks at demand: what the load would be had nothing been shed. Its own effect is in that no more, so
//! there is no loop to swing in; the steps are small for the sake of what is not known. Between the watermarks a share
//! leaves that settles at shed = (load - low) / (high - low), NS1's rule (GSLB 3.11).

use std::time::Duration;

use crate::base::clock::Mono;
use crate::snapshot::Spill;

/// Utilisation from which on clients leave.
pub const LOW: f64 = 0.75;
/// Utilisation that spilled clients never fill a datacenter beyond.
pub const HIGH: f64 = 0.95;
/// Time between decisions (GSLB 3.11).
pub const STEP: Duration = Duration::from_secs(5);
/// How often requests are turned into a rate.
const MEASURE: Duration = Duration::from_secs(1);
/// Time constant of the average rate (GSLB 3.11).
const TAU: Duration = Duration::from_secs(5);
/// The most that a share moves in one step (GSLB 3.11).
const MOST: f64 = 0.10;
/// How far off a share must be before it begins to move, and how close it comes (GSLB 3.11: five points; the other is ours).
const DEAD: (f64, f64) = (0.05, 0.01);
/// How long a share is held when nobody tells of load any more; then it falls to nothing within [`FADE`] (GSLB 3.11).
const HOLD: Duration = Duration::from_secs(15);
const FADE: Duration = Duration::from_mins(1);
/// What is felt never counts for more: a demand that nobody can see is not made up.
const MOST_FELT: f64 = 0.9;

/// What is known of one datacenter beside its load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Site {
    /// What it can carry; `None`: not said, so nothing leaves it.
    pub capacity_rps: Option<f64>,
    /// Whether DNS answers with it at all.
    pub serving: bool,
}

/// The average rate, with the requests counted since the last time, if it is time. `told`: somebody counts here.
pub fn measure(spill: &Spill, told: bool, now: Mono) -> Option<Spill> {
    let past = now.since(spill.counted_from);
    if past < MEASURE {
        return None;
    }
    let seen = spill.requests as f64 / past.as_secs_f64();
    let kept = (-past.as_secs_f64() / TAU.as_secs_f64()).exp();
    let rate = spill.rate_rps.map_or(seen, |rate| rate * kept + seen * (1.0 - kept));
    Some(Spill {
        requests: 0,
        counted_from: now,
        rate_rps: told.then_some(rate),
        silent_from: if told { None } else { spill.silent_from.or(Some(now)) },
        ..spill.clone()
    })
}

/// One decision over all datacenters; `ttl` is how long resolvers may keep an answer.
pub fn decide(spills: &[Spill], sites: &[Site], ttl: Duration, now: Mono) -> Vec<Spill> {
    let told = |(spill, site): (&Spill, &Site)| Some((spill.rate_rps?, site.capacity_rps.filter(|_| site.serving)?));
    let (load, capacity) =
        spills.iter().zip(sites).filter_map(told).fold((0.0, 0.0), |(l, c), (load, capacity)| (l + load, c + capacity));
    // Where even all together are beyond the mark, what is above the mean leaves for what is below it; who has not said what
    // it can carry is never full.
    let is_boundless = sites.iter().any(|site| site.serving && site.capacity_rps.is_none());
    let low = if capacity > 0.0 && !is_boundless { (load / capacity).max(LOW) } else { LOW };
    let band = (HIGH - low).max(0.0);
    spills.iter().zip(sites).map(|(spill, site)| one(spill, *site, low, band, ttl, now)).collect()
}

fn one(spill: &Spill, site: Site, low: f64, band: f64, ttl: Duration, now: Mono) -> Spill {
    let shed = f64::from(spill.shed) / 1_000.0;
    // A change is felt as caches run out, evenly over a TTL; and the average adds its own delay.
    let lag = ttl.as_secs_f64() / 2.0 + TAU.as_secs_f64();
    let felt = spill.felt + (shed - spill.felt) * (1.0 - (-STEP.as_secs_f64() / lag).exp());
    let mut next = Spill { felt, ..spill.clone() };
    let wanted = match (spill.rate_rps, site.capacity_rps) {
        (Some(rate), Some(capacity)) => {
            let demand = rate / capacity / (1.0 - felt.min(MOST_FELT));
            // The share f for which f = (demand (1 - f) - low) / band.
            if demand > low { (demand - low) / (demand + band) } else { 0.0 }
        }
        (_, None) => 0.0,
        (None, Some(_)) if spill.silent_from.is_none_or(|from| now.since(from) < HOLD) => shed,
        (None, Some(_)) => {
            let fallen = (shed - STEP.as_secs_f64() / FADE.as_secs_f64()).max(0.0);
            return Spill { shed: thousandths(fallen), moving: false, ..next };
        }
    };
    let error = wanted - shed;
    next.moving = error.abs() >= if spill.moving { DEAD.1 } else { DEAD.0 } || (wanted == 0.0 && shed > 0.0);
    if next.moving {
        let share = 1.0 / (1.0 + ttl.as_secs_f64() / STEP.as_secs_f64());
        let most = (error.abs() * share).clamp(DEAD.1, MOST).min(error.abs());
        next.shed = thousandths(shed + most * error.signum());
    }
    next
}

/// In whole points, so that few changes make a generation.
fn thousandths(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 100.0).round() as u32 * 10
}

#[cfg(test)]
mod tests;
