//! A hash table from names to numbers: built once, then only read.
//!
//! The whole name is hashed straight from the packet, so a hit is one probe whatever the depth; misses walk up by labels.
//! Open addressing with a tag beside each number, so that a wrong name is rarely compared. The hash is keyed by the
//! process: nobody can choose names that share a slot.

use std::hash::{BuildHasher, RandomState};

use crate::base::hash;

/// Names (wire format, lower case) with their numbers.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    /// By number: where the name begins in `names`, and its length.
    places: Vec<(usize, u8)>,
    names: Vec<u8>,
    key: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    /// The number plus one; 0 is empty.
    number: u32,
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
            let number = slot.number.checked_sub(1)?;
            if slot.tag == (hash >> 32) as u32 && self.name(number) == name {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds `name`, which is not there yet, as the next number: numbers must be given in order, from 0.
    pub(super) fn insert(&mut self, name: &[u8], number: u32) {
        debug_assert_eq!(number as usize, self.places.len());
        if self.places.len() * 2 >= self.slots.len() {
            self.grow();
        }
        self.places.push((self.names.len(), name.len() as u8));
        self.names.extend_from_slice(name);
        self.place(hash(self.key, name), number);
    }

    fn name(&self, number: u32) -> &[u8] {
        let place = self.places.get(number as usize).copied();
        place.and_then(|(at, length)| self.names.get(at..at + usize::from(length))).unwrap_or_default()
    }

    fn grow(&mut self) {
        if self.slots.is_empty() {
            self.key = RandomState::new().hash_one(0u8);
        }
        self.slots = vec![Slot::default(); (self.slots.len() * 2).max(16)];
        for number in 0..self.places.len() as u32 {
            self.place(hash(self.key, self.name(number)), number);
        }
    }

    fn place(&mut self, hash: u64, number: u32) {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].number != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = Slot { tag: (hash >> 32) as u32, number: number + 1 };
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
    let mut tail = [0u8; 8];
    for (to, from) in tail.iter_mut().zip(rest) {
        *to = *from;
    }
    h = fold(h, u64::from_le_bytes(tail));
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
