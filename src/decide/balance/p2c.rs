//! The cheaper of two, or of all where they are few: peak EWMA latency x load / weight.
//!
//! The load of a backend is what it has in flight, plus the request at hand. That request counts not as 1 but as a draw
//! from the exponential distribution with mean 1 (ours). Under load nothing changes; in the calm, where nobody has
//! anything in flight, the cheapest of such draws is each backend in proportion to weight / latency: weights hold,
//! equal backends share equally, and one with a bad memory gets a look now and then instead of none for minutes. One that
//! failed a moment ago has no luck: it counts 1.
//! Two choices: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001. Peak EWMA: Finagle's.

use super::{Candidate, Candidates};
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::ids::BackendId;

/// Up to so many candidates, all are compared: with few hosts two random ones find the frozen one too often (measured:
/// 462 slow requests for two choices, 16 for all, of 20,000 while one of a few hosts was silent).
pub const FEW: usize = 8;

/// The cheapest of `candidates`.
pub(crate) fn cheapest(candidates: &Candidates<'_>, now: Mono, rng: &mut Rng) -> Option<BackendId> {
    let assumed = assumed_latency(candidates.iter(), now);
    let costs =
        candidates.iter().map(|c| (c.id, latency(c, now).unwrap_or(assumed) * load(c, rng) / f64::from(c.weight)));
    costs.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// The cheaper of two that are drawn by weight. The draw honours the weights, so the request at hand no longer does:
/// what is compared is how full each of the two is for its weight.
pub(crate) fn cheaper_of_two(candidates: &Candidates<'_>, now: Mono, rng: &mut Rng) -> Option<BackendId> {
    let total = total(candidates);
    let mean = total as f64 / candidates.len().max(1) as f64;
    let (one, two) = two_by_weight(candidates, rng)?;
    let Some(two) = two else { return Some(one.id) };
    let assumed = assumed_latency([one, two].into_iter(), now);
    let mut cost = |c: &Candidate<'_>| {
        let in_flight = f64::from(c.backend.load.in_flight()) * mean / f64::from(c.weight);
        latency(c, now).unwrap_or(assumed) * (in_flight + at_hand(c, rng))
    };
    Some(if cost(one) <= cost(two) { one.id } else { two.id })
}

/// Two of `candidates`, drawn by weight; one, where there is but one.
pub(super) fn two_by_weight<'a, 'b>(
    candidates: &'a Candidates<'b>,
    rng: &mut Rng,
) -> Option<(&'a Candidate<'b>, Option<&'a Candidate<'b>>)> {
    let total = total(candidates);
    let one = draw(candidates, total, None, rng)?;
    Some((one, draw(candidates, total, Some(one), rng)))
}

/// The weight of all of them.
pub(super) fn total(candidates: &Candidates<'_>) -> u64 {
    candidates.iter().map(|c| u64::from(c.weight)).sum()
}

fn draw<'a, 'b>(
    candidates: &'a Candidates<'b>,
    total: u64,
    but: Option<&Candidate<'_>>,
    rng: &mut Rng,
) -> Option<&'a Candidate<'b>> {
    let rest = total - but.map_or(0, |c| u64::from(c.weight));
    let mut left = rng.below(rest);
    candidates.iter().filter(|c| but.is_none_or(|b| b.id != c.id)).find(|c| {
        let weight = u64::from(c.weight);
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    })
}

/// The latency that counts for `candidate`; `None` where nothing was seen of it since it came (back).
fn latency(candidate: &Candidate<'_>, now: Mono) -> Option<f64> {
    let load = &candidate.backend.load;
    let seen = load.seen_at()?;
    (seen >= candidate.since).then(|| load.latency_ns(now).max(1.0))
}

/// What a backend of unknown latency is credited with: the mean of those that are known, so that it gets its share.
fn assumed_latency<'a>(candidates: impl Iterator<Item = &'a Candidate<'a>>, now: Mono) -> f64 {
    let (sum, n) = candidates.filter_map(|c| latency(c, now)).fold((0.0, 0u32), |(sum, n), l| (sum + l, n + 1));
    if n == 0 { 1.0 } else { sum / f64::from(n) }
}

fn load(candidate: &Candidate<'_>, rng: &mut Rng) -> f64 {
    f64::from(candidate.backend.load.in_flight()) + at_hand(candidate, rng)
}

/// What the request at hand counts.
fn at_hand(candidate: &Candidate<'_>, rng: &mut Rng) -> f64 {
    if candidate.failing { 1.0 } else { -(1.0 - rng.unit()).ln() }
}

/// How long a response of `id` is likely to take; see [`super::Choice::expected_ns`].
pub(crate) fn expected_ns(candidates: &Candidates<'_>, id: BackendId, now: Mono) -> f64 {
    let Some(own) = candidates.iter().find(|c| c.id == id) else { return 0.0 };
    let well = candidates.iter().filter(|c| !c.failing);
    let peers = well.filter_map(|c| latency(c, now)).fold((0.0, 0u32), |(sum, n), l| (sum + l, n + 1));
    match (own.failing, peers) {
        (true, (sum, n @ 1..)) => sum / f64::from(n),
        _ => own.backend.load.latency_ns(now),
    }
}
