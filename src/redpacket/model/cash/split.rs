//! How a packet's money is cut into shares: in integers alone, exact to the fen, the same again from the same seed.
//!
//! Share `k` is a function of the packet's terms and, for the double mean, of what the shares before it left; nothing is
//! drawn at the moment of opening. So a commit that is made again after a crash makes the same shares, and an auditor with
//! the seed can make them all once more (RED_PACKET 2.5). The seed is a secret: who knows it knows which turn pays best.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::hash;

/// The most that one packet may hold: 100 million yuan. Ours; it keeps every product here far inside 64 bits.
pub const MAX_TOTAL_FEN: u64 = 10_000_000_000;
/// The most shares that one packet may have (RED_PACKET 2.5: thousands of openers of one packet, and room).
pub const MAX_COUNT: u32 = 100_000;

/// How a packet is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Each share anywhere up to twice the mean of what is left, as WeChat does it. Spread grows with the position.
    #[default]
    #[serde(alias = "random")]
    DoubleMean,
    /// Each share anywhere up to twice the mean of the whole, fixed by the seed beforehand: every position alike. For
    /// packets with many openers: share `k` needs no other.
    PreSplit,
    /// All alike; where the total cannot be divided, some have a fen more.
    Fixed,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::DoubleMean, Self::PreSplit, Self::Fixed];
}

/// What makes a packet's shares unguessable: 128 bits out of a generator for secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed([u8; 16]);

impl Seed {
    /// The seed with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for records.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 64 bits that belong to number `at` of `kind`.
    const fn draw(&self, kind: u64, at: u64) -> u64 {
        let mut name = [0; 16];
        let (head, tail) = name.split_at_mut(8);
        head.copy_from_slice(&kind.to_le_bytes());
        tail.copy_from_slice(&at.to_le_bytes());
        hash::sip24(self.0, &name)
    }
}

impl fmt::Debug for Seed {
    /// Says nothing of itself: seeds do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Kinds of draws. Part of the format: a change would change the shares of packets that are open.
mod kind {
    pub(super) const SHARE: u64 = 0;
    pub(super) const ROUNDING: u64 = 1;
    pub(super) const PAIR: u64 = 2;
    pub(super) const ORDER: u64 = 3;
}

/// Terms that make no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTerms {
    /// No shares, or too many.
    #[error("count must be from 1 to {MAX_COUNT}")]
    Count,
    /// Too little or too much money.
    #[error("total_fen must be at least one fen for each share, and at most {MAX_TOTAL_FEN}")]
    Total,
}

/// What decides every share of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The money, in fen.
    pub total_fen: u64,
    /// The shares.
    pub count: u32,
    /// How they are cut.
    pub mode: Mode,
    /// By which seed.
    pub seed: Seed,
}

impl Terms {
    /// Whether these terms make a packet: at least one share, at least a fen in each, and within the bounds.
    ///
    /// # Errors
    /// They do not.
    pub const fn check(&self) -> Result<(), BadTerms> {
        if self.count == 0 || self.count > MAX_COUNT {
            return Err(BadTerms::Count);
        }
        if self.total_fen < self.count as u64 || self.total_fen > MAX_TOTAL_FEN {
            return Err(BadTerms::Total);
        }
        Ok(())
    }

    /// Share `at` (from 0) in fen, when those before it left `left_fen`. At least 1, leaves at least 1 for each that
    /// follows, and the last is what is left; 0 where there is no such share.
    pub fn share(&self, at: u32, left_fen: u64) -> u64 {
        let Some(after) = self.count.checked_sub(at).and_then(|left| left.checked_sub(1)) else { return 0 };
        if after == 0 {
            return left_fen;
        }
        let fen = match self.mode {
            Mode::DoubleMean => self.double_mean(at, left_fen, u64::from(after) + 1),
            Mode::PreSplit => self.pre_split(at),
            Mode::Fixed => self.fixed(at),
        };
        // By the arithmetic above each of these, neither bound is ever met; no record on a disk shall make it untrue.
        fen.min(left_fen.saturating_sub(u64::from(after))).max(1)
    }

    /// Every share, in order.
    pub fn shares(self) -> impl Iterator<Item = u64> {
        (0..self.count).scan(self.total_fen, move |left, at| {
            let fen = self.share(at, *left);
            *left = left.saturating_sub(fen);
            Some(fen)
        })
    }

    /// With a = left / n: from 1 to h, h = floor(2a) - 1, and one more with probability frac(2a). The mean is
    /// ((h + 1) + frac(2a)) / 2 = a, exactly; and since h <= 2a, at least a fen is left for each of the others. Drawing
    /// from 1 to floor(2a), as it is often told, overpays those who come first (RED_PACKET 2.5).
    fn double_mean(&self, at: u32, left_fen: u64, n: u64) -> u64 {
        let at = u64::from(at);
        let (whole, rest) = (left_fen.saturating_mul(2) / n, left_fen.saturating_mul(2) % n);
        let more = below(self.seed.draw(kind::ROUNDING, at), n) < rest;
        let most = whole.saturating_sub(1) + u64::from(more);
        1 + below(self.seed.draw(kind::SHARE, at), most)
    }

    /// Shares are made in pairs, of which one has as much more than the mean as the other has less, each evenly from 1 to
    /// twice the mean less 1; one without a partner has the mean. The fen that do not divide go to the first of them.
    /// Then all are shuffled. So the sum is exact, every position has the same distribution, and none needs another.
    fn pre_split(&self, at: u32) -> u64 {
        let place = Shuffle::new(&self.seed, self.count).place(at);
        let (mean, rest) = (self.total_fen / u64::from(self.count), self.total_fen % u64::from(self.count));
        let alone = place == self.count - 1 && place.is_multiple_of(2);
        let off = below(self.seed.draw(kind::PAIR, u64::from(place / 2)), (2 * mean).saturating_sub(1));
        let fen = match (alone, place.is_multiple_of(2)) {
            (true, _) => mean,
            (false, true) => 1 + off,
            (false, false) => (2 * mean).saturating_sub(1 + off),
        };
        fen + u64::from(u64::from(place) < rest)
    }

    /// The difference of two roundings, so that all of them add up.
    fn fixed(&self, at: u32) -> u64 {
        let (total, n, at) = (u128::from(self.total_fen), u128::from(self.count), u128::from(at));
        (total * (at + 1) / n.max(1) - total * at / n.max(1)) as u64
    }
}

/// `draw` mapped onto `0..bound`, 0 where that is empty (Lemire's multiply; its bias is below 2^-30 for our bounds).
const fn below(draw: u64, bound: u64) -> u64 {
    ((draw as u128 * bound as u128) >> 64) as u64
}

/// A permutation of `0..count` that needs no list: a Feistel network over the next power of four, walked until it is back
/// inside (Black, Rogaway: "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Four steps at most, on average.
struct Shuffle {
    keys: [u64; 4],
    half: u32,
    count: u32,
}

impl Shuffle {
    fn new(seed: &Seed, count: u32) -> Self {
        let keys = [0, 1, 2, 3].map(|round| seed.draw(kind::ORDER, round));
        let bits = u32::BITS - count.saturating_sub(1).leading_zeros();
        Self { keys, half: bits.div_ceil(2).max(1), count }
    }

    /// Where `at` goes. It comes back inside because it began there: a permutation is made of cycles.
    fn place(&self, at: u32) -> u32 {
        let mut place = self.step(at);
        while place >= self.count {
            place = self.step(place);
        }
        place
    }

    fn step(&self, at: u32) -> u32 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (at >> self.half, at & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (hash::mix(key ^ u64::from(right)) as u32 & mask));
        }
        (left << self.half) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::entropy::Rng;

    fn seed(rng: &mut Rng) -> Seed {
        Seed::new((u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).to_le_bytes())
    }

    /// Few shares and little money most of the time: that is where rounding bites.
    fn terms(mode: Mode, rng: &mut Rng) -> Terms {
        let count = 1 + rng.below(9) as u32;
        let room = [10, 100, 10_000, MAX_TOTAL_FEN - 9][rng.below(4) as usize];
        Terms { total_fen: u64::from(count) + rng.below(room), count, mode, seed: seed(rng) }
    }

    fn adds_up(terms: Terms) {
        let (mut sum, mut shares) = (0, 0);
        for (at, fen) in terms.shares().enumerate() {
            assert!(fen >= 1, "share {at} of {terms:?} is nothing");
            (sum, shares) = (sum + fen, shares + 1);
        }
        assert_eq!((sum, shares), (terms.total_fen, terms.count), "{terms:?}");
    }

    /// I3 on 1,000,000 random packets, of every mode in turn.
    #[test]
    fn shares_are_never_nothing_and_add_up_to_the_fen() {
        let mut rng = Rng::seeded(1);
        for mode in Mode::ALL.into_iter().cycle().take(1_000_000) {
            adds_up(terms(mode, &mut rng));
        }
    }

    #[test]
    fn the_smallest_and_the_largest_add_up_too() {
        let mut rng = Rng::seeded(7);
        for mode in Mode::ALL {
            for (total_fen, count) in [
                (1, 1),
                (MAX_TOTAL_FEN, 1),
                (u64::from(MAX_COUNT), MAX_COUNT),
                (MAX_TOTAL_FEN, MAX_COUNT),
                (u64::from(MAX_COUNT) + 1, MAX_COUNT),
                (50_000, 500),
                (10, 10),
                (19, 10),
            ] {
                adds_up(Terms { total_fen, count, mode, seed: seed(&mut rng) });
            }
        }
    }

    /// The guards in `share` are for damaged records: no draw ever meets them.
    #[test]
    fn the_arithmetic_needs_no_guard() {
        let mut rng = Rng::seeded(11);
        for _ in 0..100_000 {
            let terms = terms(Mode::DoubleMean, &mut rng);
            let mut left = terms.total_fen;
            for at in 0..terms.count - 1 {
                let n = terms.count - at;
                let fen = terms.double_mean(at, left, u64::from(n));
                assert!(fen >= 1 && left - fen >= u64::from(n - 1), "{terms:?}: {fen} of {left} for {n}");
                left -= fen;
            }
        }
    }

    /// The mean of every position is the total by the count, within 1 %: over 100,000 packets of fixed seeds, whose
    /// standard error is a quarter of that (SD of the last of 100 yuan for 10: 7.6 yuan). Tiny packets, too.
    #[test]
    fn no_position_is_better_than_another() {
        const PACKETS: u64 = 100_000;
        for mode in [Mode::DoubleMean, Mode::PreSplit] {
            for (total_fen, count) in [(10_000_u64, 10_u32), (20, 10), (23, 7)] {
                let mut rng = Rng::seeded(total_fen);
                let mut sums = vec![0_u64; count as usize];
                for _ in 0..PACKETS {
                    let terms = Terms { total_fen, count, mode, seed: seed(&mut rng) };
                    sums.iter_mut().zip(terms.shares()).for_each(|(sum, fen)| *sum += fen);
                }
                let fair = total_fen as f64 / f64::from(count);
                for (at, sum) in sums.iter().enumerate() {
                    let mean = *sum as f64 / PACKETS as f64;
                    assert!((mean / fair - 1.0).abs() < 0.01, "{mode:?} {total_fen}/{count}: position {at} has {mean}");
                }
            }
        }
    }

    #[test]
    fn shares_are_spread_and_not_one_size() {
        let mut rng = Rng::seeded(3);
        for mode in [Mode::DoubleMean, Mode::PreSplit] {
            let terms = Terms { total_fen: 50_000, count: 500, mode, seed: seed(&mut rng) };
            let mut all: Vec<u64> = terms.shares().collect();
            all.sort_unstable();
            all.dedup();
            assert!(all.len() > 100, "{mode:?}: {} sizes in 500 shares", all.len());
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut rng = Rng::seeded(5);
        for count in [1, 2, 3, 5, 16, 17, 500, 4_097, MAX_COUNT] {
            let shuffle = Shuffle::new(&seed(&mut rng), count);
            let mut seen = vec![false; count as usize];
            for at in 0..count {
                let place = shuffle.place(at) as usize;
                assert!(!std::mem::replace(&mut seen[place], true), "{place} of {count} twice");
            }
        }
    }

    /// The format: packets that are open go on with the same shares under every release.
    #[test]
    fn shares_never_change_between_releases() {
        let of = |mode| {
            let terms = Terms { total_fen: 1_000, count: 5, mode, seed: Seed::new(std::array::from_fn(|i| i as u8)) };
            terms.shares().collect::<Vec<_>>()
        };
        assert_eq!(of(Mode::Fixed), [200; 5]);
        assert_eq!(of(Mode::DoubleMean), [238, 71, 190, 81, 420]);
        assert_eq!(of(Mode::PreSplit), [134, 200, 237, 163, 266]);
    }

    #[test]
    fn terms_have_bounds() {
        let terms = |total_fen, count| Terms { total_fen, count, mode: Mode::Fixed, seed: Seed::new([0; 16]) }.check();
        assert_eq!(terms(1, 1), Ok(()));
        assert_eq!(terms(MAX_TOTAL_FEN, MAX_COUNT), Ok(()));
        assert_eq!(terms(1, 0), Err(BadTerms::Count));
        assert_eq!(terms(u64::MAX, MAX_COUNT + 1), Err(BadTerms::Count));
        assert_eq!(terms(9, 10), Err(BadTerms::Total));
        assert_eq!(terms(MAX_TOTAL_FEN + 1, 10), Err(BadTerms::Total));
    }
}
