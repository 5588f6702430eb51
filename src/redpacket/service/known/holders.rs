//! Who may have something: a Bloom filter of the numbers and keys of all orders, so that "nobody of that name has
//! anything" is answered without the store.
//!
//! Blocked, after Putze, Sanders and Singler ("Cache-, Hash- and Space-Efficient Bloom Filters", 2007): a name has six bits
//! in one block of 512. It never forgets and never says "no" to a name that it was told, so it is told of a claim before the
//! store is. Until it has heard of every order that was there before it ([`Holders::complete`]), it says "maybe" to all.
//! Memory: 16 bits for each number and each key of the stock, at most 64 MiB, touched only where names fall.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::hash;
use crate::redpacket::model::Claim;

/// Bits in a block, of which a position takes nine bits of a hash.
const BLOCK_BITS: u64 = 512;
const POSITION_BITS: u32 = BLOCK_BITS.trailing_zeros();
/// Bits of a name.
const PROBES: u32 = 6;
/// Blocks for each order: 16 bits for its number, 16 for its key.
const ORDERS_A_BLOCK: u64 = BLOCK_BITS / 32;
/// 64 MiB.
const MOST_BLOCKS: u64 = 1 << 20;

type Block = [u64; (BLOCK_BITS / 64) as usize];

/// The filter. Any number of threads may tell and ask.
#[derive(Debug)]
pub(super) struct Holders {
    blocks: Mutex<Vec<Block>>,
    complete: AtomicBool,
}

impl Holders {
    /// For about `orders`; more cost nothing but answers of "maybe".
    pub(super) fn new(orders: u64) -> Self {
        let blocks = (orders / ORDERS_A_BLOCK + 1).min(MOST_BLOCKS);
        Self { blocks: Mutex::new(vec![Block::default(); blocks as usize]), complete: AtomicBool::new(false) }
    }

    /// `claim` has an order, or may get one.
    pub(super) fn tell(&self, claim: &Claim) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names(claim) {
            let count = blocks.len() as u64;
            if let Some(block) = blocks.get_mut((name % count) as usize) {
                for (word, bit) in bits(name) {
                    block[word] |= bit;
                }
            }
        }
    }

    /// It has been told of every order that the store has.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether the store has certainly nothing under the number of `claim`, nor under its user's key.
    pub(super) fn has_nothing(&self, claim: &Claim) -> bool {
        if !self.complete.load(Ordering::Acquire) {
            return false;
        }
        let blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = blocks.len() as u64;
        names(claim).all(|name| {
            let block = blocks.get((name % count) as usize);
            block.is_some_and(|block| bits(name).any(|(word, bit)| block[word] & bit == 0))
        })
    }
}

/// Hashes of all that an order of `claim` stands under.
fn names(claim: &Claim) -> impl Iterator<Item = u64> {
    const NUMBER: u64 = 0x6e75_6d62_6572;
    const KEY: u64 = 0x006b_6579;
    let number = hash::bytes(NUMBER, claim.number().bytes());
    let user = hash::bytes(KEY, claim.user_id.as_str().as_bytes());
    let key = claim.idempotency_key.as_ref().map(|key| hash::bytes(user, key.as_str().as_bytes()));
    std::iter::once(number).chain(key)
}

/// A name's places in its block: which word, which bit of it.
fn bits(name: u64) -> impl Iterator<Item = (usize, u64)> {
    let spread = hash::mix(name);
    (0..PROBES).map(move |probe| {
        let at = spread >> (probe * POSITION_BITS) & (BLOCK_BITS - 1);
        ((at / 64) as usize, 1 << (at % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redpacket::model::{ActivityId, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};

    fn claim(user: u64, key: Option<u64>) -> Claim {
        Claim {
            activity_id: ActivityId::parse("a").unwrap(),
            packet_id: PacketId::parse("p").unwrap(),
            user_id: UserId::parse(&format!("u{user}")).unwrap(),
            gift_id: GiftId::parse("g").unwrap(),
            zone_id: ZoneId::parse("z").unwrap(),
            role_id: RoleId::parse("r").unwrap(),
            idempotency_key: key.map(|key| IdempotencyKey::parse(&format!("k{key}")).unwrap()),
        }
    }

    #[test]
    fn it_knows_all_that_it_was_told_and_hardly_anybody_else() {
        const ORDERS: u64 = 30_000;
        let holders = Holders::new(ORDERS);
        assert!(!holders.has_nothing(&claim(0, None)), "it has not heard of everybody yet");
        for user in 0..ORDERS {
            holders.tell(&claim(user, Some(user)));
        }
        holders.complete();
        for user in 0..ORDERS {
            assert!(!holders.has_nothing(&claim(user, None)));
            assert!(!holders.has_nothing(&claim(user, Some(user))));
            assert!(!holders.has_nothing(&claim(user, Some(user + 1))), "another key, the same number");
        }
        let strangers = ORDERS..4 * ORDERS;
        let taken_for_one = strangers.clone().filter(|user| !holders.has_nothing(&claim(*user, None))).count();
        assert!(taken_for_one < 1_000, "{taken_for_one} of {} strangers", strangers.count());
    }

    #[test]
    fn a_full_one_says_maybe() {
        let holders = Holders::new(0);
        holders.complete();
        assert!(holders.has_nothing(&claim(0, None)));
        for user in 0..10_000 {
            holders.tell(&claim(user, None));
        }
        assert!(!holders.has_nothing(&claim(99_999, None)));
    }
}
