//! A hash table from names to numbers: built once, then only read.
//!
//! The whole name is hashed straight from the packet, so a hit is one probe whatever the depth; misses walk up by labels.
//! Open addressing with a tag in each slot, so that a wrong name is rarely compared; the name and its number lie side by side. The hash is keyed by the
//! process: nobody can choose names that share a slot.

use std::hash::{BuildHasher, RandomState};

use crate::base::hash;

/// Octets that entries begin at a multiple of.
const STEP: usize = 8;

/// Names (wire format, lower case) with their numbers.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    /// Each entry: the number (four octets), the length of the name (one), the name; each begins at a multiple of [`STEP`].
    entries: Vec<u8>,
    count: usize,
    key: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    /// Where the entry begins, in steps, plus one; 0 is empty.
    place: u32,
}

impl Index {
    /// The number of `name`.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let hash = hash(self.key, name);
        let mut at = hash as usize & mask;
        loop {
            // Half of the slots are empty, so this ends.
            let slot = self.slots.get(at)?;
            let place = slot.place.checked_sub(1)?;
            if slot.tag == (hash >> 32) as u32 {
                let (number, found) = self.entry(place)?;
                if found == name {
                    return Some(number);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds `name`, which is not there yet.
    pub(super) fn insert(&mut self, name: &[u8], number: u32) {
        if (self.count + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let place = (self.entries.len() / STEP) as u32;
        self.entries.extend(number.to_ne_bytes());
        self.entries.push(name.len() as u8);
        self.entries.extend_from_slice(name);
        self.entries.resize(self.entries.len().next_multiple_of(STEP), 0);
        self.count += 1;
        self.place(hash(self.key, name), place);
    }

    /// The number and the name of the entry at `place`.
    fn entry(&self, place: u32) -> Option<(u32, &[u8])> {
        let (head, behind) = self.entries.get(place as usize * STEP..)?.split_first_chunk::<4>()?;
        let (length, names) = behind.split_first()?;
        Some((u32::from_ne_bytes(*head), names.get(..usize::from(*length))?))
    }

    fn grow(&mut self) {
        if self.slots.is_empty() {
            self.key = RandomState::new().hash_one(0u8);
        }
        self.slots = vec![Slot::default(); (self.slots.len() * 2).max(16)];
        let mut place = 0;
        while let Some((_, name)) = self.entry(place) {
            let steps = (size_of::<u32>() + 1 + name.len()).div_ceil(STEP);
            self.place(hash(self.key, name), place);
            place += steps as u32;
        }
    }

    fn place(&mut self, hash: u64, place: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].place != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot { tag: (hash >> 32) as u32, place: place + 1 };
    }
}

/// A folded 64 by 64 bit multiply for each eight octets (the idea of wyhash, Wang Yi), finished by a full mix.
fn hash(key: u64, name: &[u8]) -> u64 {
    let fold = |h: u64, word: u64| {
        let wide = u128::from(h ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64 | 1);
        (wide >> 64) as u64 ^ wide as u64
    };
    let (words, rest) = name.as_chunks::<8>();
    let mut h =
        words.iter().fold(key ^ name.len() as u64, |h, word| fold(h, u64::from_le_bytes(*word)).rotate_left(23) ^ key);
    // The length is in the hash already, so what lies before the rest may stand in for it twice.
    let tail = match name.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet)),
    };
    h = fold(h, tail);
    hash::mix(h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_nothing_else() {
        let mut index = Index::default();
        assert_eq!(index.find(b"\0"), None);
        let name = |i: u32| format!("{}{i}", "x".repeat(i as usize % 40)).into_bytes();
        for i in 0..5_000 {
            assert_eq!(index.find(&name(i)), None);
            index.insert(&name(i), i);
        }
        assert!((0..5_000).all(|i| index.find(&name(i)) == Some(i)));
        assert!((5_000..9_000).all(|i| index.find(&name(i)).is_none()));
    }
}
