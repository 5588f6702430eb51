//! Signatures that were made, in fixed memory: read without a lock, an allocation or a wait, by every thread.
//!
//! A signature is found by a 128-bit print of what it covers (owner, type, TTL, record data in any order, and the key), so
//! whatever made an answer, the same set finds the same signature; after a reload, too. Sets have separate regions by who
//! makes up what there is: the configuration, a client's network, or whoever asks. A flood of one evicts none of another.
//!
//! A slot is a sequence lock of atomics: odd while somebody writes; a reader who sees it move takes it for a miss.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::wire::dnssec::SIGNATURE;

/// Words of a slot: sequence, print, times, signature.
const WORDS: usize = 4 + SIGNATURE / 8;
/// Slots that a print may stand in.
const WAYS: usize = 4;
/// Slots for names that nobody configured: 3 MiB.
const OPEN: usize = 1 << 15;
/// Slots of each of the other regions, at least and at most: 96 KiB and 96 MiB.
const SLOTS: (usize, usize) = (1 << 10, 1 << 20);

/// One signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Since when it is good, in seconds since 1970.
    pub(super) inception: u32,
    /// Until when.
    pub(super) expiration: u32,
    pub(super) octets: [u8; SIGNATURE],
}

/// Which region a signature stands in, and whose budget it is made from: by who decides how many sets there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// The configuration: sets and denials of its names.
    Known,
    /// Networks of clients: what a steered name chooses for each.
    Chosen,
    /// Whoever asks: names that are made up.
    Open,
}

/// What a signature covers, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Print(u64, u64);

impl Print {
    /// Takes `bytes` in.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let Self(mut a, mut b) = self;
        let (words, rest) = bytes.as_chunks::<8>();
        let mut tail = [0; 8];
        for (to, from) in tail.iter_mut().zip(rest) {
            *to = *from;
        }
        // Two lanes of folded multiplies (the idea of wyhash, Wang Yi). The length goes first: tails are padded.
        let words = words.iter().map(|w| u64::from_le_bytes(*w));
        for word in std::iter::once(bytes.len() as u64).chain(words).chain([u64::from_le_bytes(tail)]) {
            a = fold(a ^ word, 0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ self.1;
            b = fold(b ^ word, 0xd6e8_feb8_6659_fd93).rotate_left(29) ^ self.0;
        }
        Self(a, b)
    }

    /// Joins prints whose order does not count.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0), self.1.wrapping_add(other.1))
    }

    /// A number from 0 to 255 that differs from print to print.
    pub(super) const fn byte(self) -> u32 {
        (self.1 >> 56) as u32
    }
}

const fn fold(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    (wide >> 64) as u64 ^ wide as u64
}

/// The cache.
pub(super) struct Cache {
    /// By region.
    regions: [Box<[Slot]>; 3],
    seed: Print,
}

#[derive(Default)]
struct Slot([AtomicU64; WORDS]);

impl Cache {
    /// Room for about `known` signatures of what is configured and `chosen` of what is chosen.
    pub(super) fn new(known: usize, chosen: usize) -> Self {
        let slots = |n: usize| (0..n).map(|_| Slot::default()).collect();
        // Keyed by the process: nobody can choose names whose prints meet.
        let key = || RandomState::new().hash_one(0u8) | 1;
        Self { regions: Self::sizes(known, chosen).map(slots), seed: Print(key(), key()) }
    }

    fn sizes(known: usize, chosen: usize) -> [usize; 3] {
        let slots = |sets: usize| sets.saturating_mul(2).clamp(SLOTS.0, SLOTS.1).next_power_of_two();
        [slots(known), slots(chosen), OPEN]
    }

    /// Whether it has the room that [`Cache::new`] would give.
    pub(super) fn fits(&self, known: usize, chosen: usize) -> bool {
        self.regions.each_ref().map(|r| r.len()) == Self::sizes(known, chosen)
    }

    /// The print of nothing.
    pub(super) const fn print(&self) -> Print {
        self.seed
    }

    /// The signature of this print.
    pub(super) fn find(&self, region: Region, print: Print) -> Option<Signature> {
        self.bucket(region, print).iter().find_map(|slot| slot.read(print))
    }

    /// Keeps `signature`: in the place of the one before it, in a free one, or in that of the oldest.
    pub(super) fn keep(&self, region: Region, print: Print, signature: &Signature) {
        let bucket = self.bucket(region, print);
        let same = bucket.iter().find(|slot| slot.is(print));
        let slot = same.or_else(|| bucket.iter().min_by_key(|slot| slot.0[3].load(Ordering::Relaxed)));
        if let Some(slot) = slot {
            slot.write(print, signature);
        }
    }

    fn bucket(&self, region: Region, print: Print) -> &[Slot] {
        let slots = &self.regions[region as usize];
        let at = (print.0 as usize & (slots.len() / WAYS - 1)) * WAYS;
        slots.get(at..at + WAYS).unwrap_or_default()
    }
}

impl Slot {
    fn is(&self, print: Print) -> bool {
        self.0[1].load(Ordering::Relaxed) == print.0 && self.0[2].load(Ordering::Relaxed) == print.1
    }

    fn read(&self, print: Print) -> Option<Signature> {
        if !self.is(print) {
            return None;
        }
        let before = self.0[0].load(Ordering::Acquire);
        let mut words = [0u64; WORDS];
        for (to, from) in words.iter_mut().zip(&self.0) {
            *to = from.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        let still = self.0[0].load(Ordering::Relaxed) == before && before & 1 == 0;
        if !still || words[1] != print.0 || words[2] != print.1 {
            return None;
        }
        let mut octets = [0; SIGNATURE];
        for (to, from) in octets.as_chunks_mut::<8>().0.iter_mut().zip(&words[4..]) {
            *to = from.to_be_bytes();
        }
        Some(Signature { expiration: (words[3] >> 32) as u32, inception: words[3] as u32, octets })
    }

    fn write(&self, print: Print, signature: &Signature) {
        let [sequence, rest @ ..] = &self.0;
        let before = sequence.load(Ordering::Relaxed);
        // Where somebody else is writing, theirs is as good.
        let mine = before & 1 == 0
            && sequence.compare_exchange(before, before + 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !mine {
            return;
        }
        fence(Ordering::Release);
        let times = u64::from(signature.expiration) << 32 | u64::from(signature.inception);
        let octets = signature.octets.as_chunks::<8>().0.iter().map(|w| u64::from_be_bytes(*w));
        for (to, from) in rest.iter().zip([print.0, print.1, times].into_iter().chain(octets)) {
            to.store(from, Ordering::Relaxed);
        }
        sequence.store(before.wrapping_add(2), Ordering::Release);
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({:?} slots)", self.regions.each_ref().map(|r| r.len()))
    }
}

/// How many signatures a zone may make in a second: a count for each region, for datagrams and for connections apart, so that
/// forged addresses spend nothing of what clients have who have shown theirs.
#[derive(Debug, Default)]
pub(super) struct Budget([[AtomicU64; 2]; 3]);

impl Budget {
    /// Takes one of `limit` for the second `now`. False: they are spent.
    pub(super) fn take(&self, region: Region, stream: bool, now: u32, limit: u32) -> bool {
        // The second above, what is spent of it below.
        let spend = |word: u64| {
            let spent = if (word >> 32) as u32 == now { word as u32 } else { 0 };
            (spent < limit).then(|| u64::from(now) << 32 | u64::from(spent + 1))
        };
        let purse = &self.0[region as usize][usize::from(stream)];
        purse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    fn signature(n: u32) -> Signature {
        let mut octets = [0; SIGNATURE];
        octets.as_chunks_mut::<4>().0.iter_mut().for_each(|w| *w = n.to_be_bytes());
        Signature { inception: n, expiration: n.wrapping_add(7), octets }
    }

    #[test]
    fn what_is_kept_is_found_and_replaced() {
        let cache = Cache::new(10, 10);
        let print = |n: u32| cache.print().with(&n.to_be_bytes());
        for region in [Region::Known, Region::Chosen, Region::Open] {
            assert_eq!(cache.find(region, print(1)), None);
            cache.keep(region, print(1), &signature(5));
            cache.keep(region, print(1), &signature(6));
            assert_eq!(cache.find(region, print(1)), Some(signature(6)));
            assert_eq!(cache.find(region, print(2)), None);
        }
    }

    #[test]
    fn made_up_names_evict_no_configured_ones() {
        let cache = Cache::new(200, 1);
        let print = |n: u32| cache.print().with(&n.to_be_bytes());
        (0..200).for_each(|n| cache.keep(Region::Known, print(n), &signature(n)));
        (0..200_000).for_each(|n| cache.keep(Region::Open, print(n), &signature(n)));
        (0..200_000).for_each(|n| cache.keep(Region::Chosen, print(n), &signature(n)));
        let found = (0..200).filter(|n| cache.find(Region::Known, print(*n)) == Some(signature(*n))).count();
        // Four ways at a fifth of the load: a bucket hardly ever overflows.
        assert!(found >= 195, "{found}");
    }

    #[test]
    fn prints_tell_apart_what_is_cut_or_ordered_differently() {
        let cache = Cache::new(1, 1);
        let print = |parts: &[&[u8]]| parts.iter().fold(cache.print(), |p, part| p.with(part));
        assert_ne!(print(&[b"ab", b"c"]), print(&[b"a", b"bc"]));
        assert_ne!(print(&[b"ab"]), print(&[b"ab\0"]));
        assert_ne!(print(&[b"a", b"b"]), print(&[b"b", b"a"]));
        let of = |part: &[u8]| cache.print().with(part);
        assert_eq!(of(b"a").plus(of(b"b")), of(b"b").plus(of(b"a")));
    }

    #[test]
    fn no_reader_sees_half_a_signature() {
        let cache = Arc::new(Cache::new(1, 1));
        let print = cache.print().with(b"one");
        let writers: Vec<_> = (0..2u32)
            .map(|w| {
                let cache = Arc::clone(&cache);
                thread::spawn(move || (0..50_000).for_each(|n| cache.keep(Region::Known, print, &signature(n * 2 + w))))
            })
            .collect();
        let mut seen = 0;
        while writers.iter().any(|w| !w.is_finished()) || seen == 0 {
            if let Some(found) = cache.find(Region::Known, print) {
                assert_eq!(found, signature(found.inception));
                seen += 1;
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    }

    #[test]
    fn a_budget_is_for_each_second_region_and_way() {
        let budget = Budget::default();
        let take = |region, stream, now| budget.take(region, stream, now, 3);
        assert_eq!((0..5).filter(|_| take(Region::Open, false, 100)).count(), 3);
        assert_eq!((0..5).filter(|_| take(Region::Open, true, 100)).count(), 3);
        assert_eq!((0..5).filter(|_| take(Region::Chosen, false, 100)).count(), 3);
        assert!(take(Region::Open, false, 101) && !budget.take(Region::Open, false, 101, 0));
    }
}
