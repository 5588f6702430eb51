//! The fewest requests in flight for its weight: for backends whose answers take so different a time that the average says
//! nothing (long polls, reports).
//!
//! As for [`super::p2c`], the request at hand counts as a draw from the exponential distribution, so that in the calm shares
//! follow weights. Up to [`FEW`] candidates all are compared, else two that are drawn by weight. Who failed a moment ago is
//! compared after all others: whoever is quick to fail has the fewest in flight.

use super::p2c::{self, FEW};
use super::{Candidate, Candidates, Reason};
use crate::base::entropy::Rng;
use crate::base::ids::BackendId;

/// The least loaded of `candidates`, or of two of them.
pub(crate) fn loaded(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<(BackendId, Reason)> {
    let at_hand = |rng: &mut Rng| -(1.0 - rng.unit()).ln();
    let in_flight = |c: &Candidate<'_>| f64::from(c.backend.load.in_flight());
    if candidates.len() <= FEW {
        let cost = |c: &Candidate<'_>, rng: &mut Rng| (in_flight(c) + at_hand(rng)) / f64::from(c.weight);
        let costs = candidates.iter().map(|c| (c.id, c.failing, cost(c, rng)));
        let least = costs.min_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2)))?;
        return Some((least.0, Reason::LeastLoaded));
    }
    // The draw has honoured the weights, so the request at hand no longer does.
    let mean = p2c::total(candidates) as f64 / candidates.len() as f64;
    let (one, two) = p2c::two_by_weight(candidates, rng)?;
    let two = two.unwrap_or(one);
    let mut cost = |c: &Candidate<'_>| (c.failing, in_flight(c) * mean / f64::from(c.weight) + at_hand(rng));
    Some((if cost(one) <= cost(two) { one.id } else { two.id }, Reason::LessLoadedOfTwo))
}
