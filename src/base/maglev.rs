//! A lookup table of consistent hashing: a key is found with one read, and a change of members moves little else.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Members take turns,
//! each at the next free slot of a permutation of its own; here a member's turns come as often as its weight says. The table
//! depends on seats and weights alone, so that it is the same on every node and in every release. Who fails is not taken out
//! of it: its keys look elsewhere one by one (`decide::balance::maglev`), and nobody else's move at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::hash;

/// Slots, where they are a hundred for each member: the table of the paper's section 5.3, and Envoy's default. A prime.
const SMALL: u64 = 65_537;
/// Slots for more members; the larger of the paper's two.
const LARGE: u64 = 655_373;
/// Slots for each member at the least, for shares that are within 1 % of one another (section 3.4).
const EACH: u64 = 100;

/// The table.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    slots: Box<[u16]>,
    basis: u64,
}

/// A member while the table is filled.
struct Taker {
    place: u16,
    weight: u64,
    at: u64,
    skip: u64,
}

impl Table {
    /// The table of `members`, each a seat and a weight. `None`: none of them has a weight. More than 65,536 are not taken in.
    pub fn of(members: &[(u64, u32)]) -> Option<Self> {
        let places = (0..=u16::MAX).zip(members).filter(|(_, (_, weight))| *weight > 0);
        let size = if places.clone().count() as u64 * EACH <= SMALL { SMALL } else { LARGE };
        let mut takers: Vec<Taker> = places
            .map(|(place, &(seat, weight))| Taker {
                place,
                weight: weight.into(),
                at: hash::join(seat, 1) % size,
                skip: hash::join(seat, 2) % (size - 1) + 1,
            })
            .collect();
        // In the order of seats: that in which somebody wrote them down must not matter.
        takers.sort_unstable_by_key(|t| members.get(usize::from(t.place)).map(|m| m.0));
        Some(Self { slots: fill(&mut takers, size)?, basis: Self::basis_of(members) })
    }

    /// Who has `key`: a place in what the table was made of.
    pub fn at(&self, key: u64) -> usize {
        let slot = (u128::from(key) * self.slots.len() as u128) >> 64;
        self.slots.get(slot as usize).copied().unwrap_or_default().into()
    }

    /// Whether it was made of `members`, in this order.
    pub fn is_of(&self, members: &[(u64, u32)]) -> bool {
        self.basis == Self::basis_of(members)
    }

    fn basis_of(members: &[(u64, u32)]) -> u64 {
        members
            .iter()
            .fold(members.len() as u64, |basis, &(seat, weight)| hash::join(hash::join(basis, seat), weight.into()))
    }
}

/// Lets `takers` have their turns until every slot is taken. `None`: there is nobody.
fn fill(takers: &mut [Taker], size: u64) -> Option<Box<[u16]>> {
    /// A turn's time is its number over the weight, in this unit: fine enough for weights of a million.
    const UNIT: u64 = 1 << 40;
    let mut slots: Box<[Option<u16>]> = vec![None; size as usize].into();
    let first = |(i, taker): (usize, &Taker)| Reverse((UNIT / taker.weight, i, 1u64));
    let mut turns: BinaryHeap<_> = takers.iter().enumerate().map(first).collect();
    for _ in 0..size {
        let Reverse((_, i, turn)) = turns.pop()?;
        let taker = takers.get_mut(i)?;
        // A permutation of all slots, for the size is a prime: it comes to a free one while there is one.
        while slots.get(taker.at as usize)?.is_some() {
            taker.at = (taker.at + taker.skip) % size;
        }
        *slots.get_mut(taker.at as usize)? = Some(taker.place);
        turns.push(Reverse((UNIT.saturating_mul(turn + 1) / taker.weight, i, turn + 1)));
    }
    slots.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(n: u64) -> Vec<(u64, u32)> {
        (0..n).map(|i| (hash::mix(i + 1), 1)).collect()
    }

    fn counts(table: &Table, n: usize) -> Vec<u64> {
        let mut counts = vec![0; n];
        table.slots.iter().for_each(|&place| counts[usize::from(place)] += 1);
        counts
    }

    /// The share of slots that have another owner, by seat.
    fn moved(a: (&Table, &[(u64, u32)]), b: (&Table, &[(u64, u32)])) -> f64 {
        let owner = |(table, of): (&Table, &[(u64, u32)]), slot: usize| of[usize::from(table.slots[slot])].0;
        let slots = a.0.slots.len();
        (0..slots).filter(|&slot| owner(a, slot) != owner(b, slot)).count() as f64 / slots as f64
    }

    #[test]
    fn shares_are_even_to_a_slot_in_the_table_of_the_paper() {
        for n in [1, 2, 3, 10, 100, 655, 656, 1_000] {
            let counts = counts(&Table::of(&members(n)).unwrap(), n as usize);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{n}: {least} to {most}");
            assert!(*most as f64 <= 1.01 * *least as f64, "{n}: within 1 %");
        }
    }

    #[test]
    fn who_leaves_takes_little_along() {
        // What must move is the share of those who left; the paper calls the rest disruption, and has some percent of it with
        // 65,537 slots, less with 655,373 (section 5.3).
        for (n, gone, excess) in [(3, 1, 0.03), (10, 1, 0.03), (100, 1, 0.02), (600, 6, 0.04), (1_000, 10, 0.04)] {
            let all = members(n);
            let some = &all[gone..];
            let (before, after) = (Table::of(&all).unwrap(), Table::of(some).unwrap());
            if before.slots.len() == after.slots.len() {
                let moved = moved((&before, &all), (&after, some));
                let must = gone as f64 / n as f64;
                assert!((must * 0.98..must + excess).contains(&moved), "{n} less {gone}: {moved} moved");
            }
        }
    }

    #[test]
    fn without_weights_there_is_no_table() {
        assert!(Table::of(&[]).is_none() && Table::of(&[(1, 0), (2, 0)]).is_none());
        assert_eq!(Table::of(&[(1, 0), (2, 5)]).unwrap().at(u64::MAX), 1);
    }

    #[test]
    fn a_table_knows_what_it_was_made_of() {
        let members = members(3);
        let table = Table::of(&members).unwrap();
        let (mut turned, mut heavier) = (members.clone(), members.clone());
        turned.reverse();
        heavier[0].1 = 2;
        assert!(table.is_of(&members) && !table.is_of(&turned) && !table.is_of(&heavier) && !table.is_of(&[]));
    }

    #[test]
    fn the_table_never_changes_between_releases() {
        let table = Table::of(&members(5)).unwrap();
        let sum = table.slots.iter().fold(0, |h, &slot| hash::join(h, slot.into()));
        assert_eq!(sum, 8_536_748_442_716_660_047, "users' backends must not move with a release");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_weights_to_a_slot_or_two(weights in prop::collection::vec(0u32..1_000, 1..40)) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let members: Vec<_> = weights.iter().enumerate().map(|(i, &w)| (hash::mix(i as u64 + 7), w)).collect();
            let table = Table::of(&members).unwrap();
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            for (count, weight) in counts(&table, weights.len()).iter().zip(&weights) {
                let share = table.slots.len() as f64 * f64::from(*weight) / total as f64;
                prop_assert!((*count as f64 - share).abs() <= 2.0 + weights.len() as f64 / 20.0, "{count} of {share}");
            }
        }

        #[test]
        fn the_order_of_members_does_not_matter(weights in prop::collection::vec(1u32..9, 2..20), key: u64) {
            let members: Vec<_> = weights.iter().enumerate().map(|(i, &w)| (hash::mix(i as u64 + 7), w)).collect();
            let mut turned = members.clone();
            turned.reverse();
            let (one, two) = (Table::of(&members).unwrap(), Table::of(&turned).unwrap());
            prop_assert_eq!(members[one.at(key)], turned[two.at(key)]);
        }
    }
}
