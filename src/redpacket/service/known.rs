//! What a claim process knows by heart: who has claimed already, and what is sold out, so that hot keys don't reach the
//! store (RED_PACKET 2.7).
//!
//! Exact, never a guess: an entry is made only of what the store has committed, and a claim is answered from memory only
//! where all of it is the same, key included. Orders are never taken back, so "already claimed" stays true; that a gift is
//! sold out stays true until its stock is provisioned again, and [`Known::restocked`] says so. How an order stands is not
//! kept: it moves. Bounded: two generations of [`ENTRIES`], of which the older is dropped when the younger is full. Where
//! nobody else can write to the store, it knows who has nothing as well (`holders`).

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Wall;
use crate::redpacket::model::{Claim, GiftId, Order, OrderNo};

mod holders;

use holders::Holders;

/// Claims in a generation; about 200 bytes each (ours).
const ENTRIES: usize = 32_768;

/// A claim that has an order, in the fewest bytes that tell it from any other; and when it was accepted.
type Entry = (Box<[u8]>, Wall);

/// The memory of one claim process.
#[derive(Debug, Default)]
pub(super) struct Known {
    generations: Mutex<Generations>,
    /// Nothing where other processes may write to the store as well.
    holders: Option<Holders>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<OrderNo, Entry>,
    old: HashMap<OrderNo, Entry>,
    sold_out: HashSet<GiftId>,
    /// Grows with each word of stock: what was asked before it says nothing about what is left after it.
    stocked: u64,
}

impl Known {
    /// Beside a store that nobody else can write to, for about `orders`.
    pub(super) fn alone(orders: u64) -> Self {
        Self { holders: Some(Holders::new(orders)), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Nothing in here is half done between two calls.
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the order of exactly this claim was accepted, where that is known.
    pub(super) fn claimed(&self, claim: &Claim) -> Option<Wall> {
        let no = claim.number();
        let mut all = self.lock();
        let entry = all.young.get(&no).or_else(|| all.old.get(&no))?;
        let found = (*entry.0 == *wish(claim)).then_some(entry.1)?;
        if let Some(entry) = all.old.remove(&no) {
            all.keep(no, entry);
        }
        Some(found)
    }

    /// The store has committed this order.
    pub(super) fn note(&self, order: &Order) {
        self.lock().keep(order.order_no, (wish(&order.claim), order.created));
    }

    /// The store is about to be asked for an order for `claim`, or has one.
    pub(super) fn tell(&self, claim: &Claim) {
        if let Some(holders) = &self.holders {
            holders.tell(claim);
        }
    }

    /// Every order that was in the store before has been told of.
    pub(super) fn complete(&self) {
        if let Some(holders) = &self.holders {
            holders.complete();
        }
    }

    /// Whether it can know who has nothing, once it has been told.
    pub(super) fn learns(&self) -> bool {
        self.holders.is_some()
    }

    /// Whether the store has certainly nothing under the number of `claim`, nor under its user's key.
    pub(super) fn has_nothing(&self, claim: &Claim) -> bool {
        self.holders.as_ref().is_some_and(|holders| holders.has_nothing(claim))
    }

    /// Whether the store has said that nothing of `gift` is left, since stock was provisioned last.
    pub(super) fn is_sold_out(&self, gift: &GiftId) -> bool {
        self.lock().sold_out.contains(gift)
    }

    /// To be taken before the store is asked, for [`Known::sold_out`].
    pub(super) fn stocked(&self) -> u64 {
        self.lock().stocked
    }

    /// The store has said that nothing of `gift` is left, to a question that was asked when [`Known::stocked`] was that.
    pub(super) fn sold_out(&self, gift: &GiftId, stocked: u64) {
        let mut all = self.lock();
        if all.stocked == stocked {
            all.sold_out.insert(gift.clone());
        }
    }

    /// There may be more of `gift` again.
    pub(super) fn restocked(&self, gift: &GiftId) {
        let mut all = self.lock();
        all.stocked += 1;
        all.sold_out.remove(gift);
    }
}

impl Generations {
    fn keep(&mut self, no: OrderNo, entry: Entry) {
        if self.young.len() >= ENTRIES && !self.young.contains_key(&no) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(no, entry);
    }
}

/// All that a claim says. No identifier has a zero in it.
fn wish(claim: &Claim) -> Box<[u8]> {
    claim.texts().join("\0").into_bytes().into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::redpacket::ledger::{Book, Claimed};
    use crate::redpacket::model::{ActivityId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};

    fn claim(user: u8, packet: u8, role: u8, key: Option<u8>) -> Claim {
        Claim {
            activity_id: ActivityId::parse("a").unwrap(),
            packet_id: PacketId::parse(&format!("p{packet}")).unwrap(),
            user_id: UserId::parse(&format!("u{user}")).unwrap(),
            gift_id: GiftId::parse("g").unwrap(),
            zone_id: ZoneId::parse("z").unwrap(),
            role_id: RoleId::parse(&format!("r{role}")).unwrap(),
            idempotency_key: key.map(|k| IdempotencyKey::parse(&format!("k{k}")).unwrap()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever is claimed and restocked: what memory says, the store would say.
        #[test]
        fn memory_says_what_the_store_says(steps in prop::collection::vec(
            (0u8..6, 0u8..3, 0u8..2, prop::option::of(0u8..2), 0u8..12), 1..120))
        {
            let (known, mut book) = (Known::alone(4), Book::default());
            known.complete();
            let gift = GiftId::parse("g").unwrap();
            let mut total = 2;
            book.provision(gift.clone(), total);
            for (now, (user, packet, role, key, kind)) in steps.into_iter().enumerate() {
                if kind == 0 {
                    total += 2;
                    book.provision(gift.clone(), total);
                    known.restocked(&gift);
                    continue;
                }
                let claim = claim(user, packet, role, key);
                let (heard, gone, stocked) = (known.claimed(&claim), known.is_sold_out(&gift), known.stocked());
                let none = gone && known.has_nothing(&claim);
                known.tell(&claim);
                let claimed = book.claim(claim, Wall(now as u64));
                prop_assert!(!none || claimed == Claimed::SoldOut);
                match claimed {
                    Claimed::Accepted(order) => {
                        prop_assert!(heard.is_none() && !gone);
                        known.note(&order);
                    }
                    Claimed::Already(order) => {
                        prop_assert!(heard.is_none_or(|at| at == order.created));
                        known.note(&order);
                    }
                    Claimed::SoldOut => {
                        prop_assert!(heard.is_none());
                        known.sold_out(&gift, stocked);
                    }
                    _ => prop_assert!(heard.is_none()),
                }
            }
        }
    }

    #[test]
    fn it_stays_bounded_and_keeps_who_comes_back() {
        let known = Known::default();
        let first = Order::accept(claim(0, 0, 0, None), Wall(1));
        known.note(&first);
        for n in 0..3 * ENTRIES {
            let mut other = claim(1, 0, 0, None);
            other.user_id = UserId::parse(&format!("user-{n}")).unwrap();
            known.note(&Order::accept(other, Wall(2)));
            if n % 1_000 == 0 {
                assert_eq!(known.claimed(&first.claim), Some(Wall(1)));
            }
        }
        let all = known.lock();
        assert!(all.young.len() <= ENTRIES && all.old.len() <= ENTRIES);
    }

    #[test]
    fn an_answer_from_before_the_stock_says_nothing_about_after_it() {
        let (known, gift) = (Known::default(), GiftId::parse("g").unwrap());
        let stocked = known.stocked();
        known.restocked(&gift);
        known.sold_out(&gift, stocked);
        assert!(!known.is_sold_out(&gift));
        known.sold_out(&gift, known.stocked());
        assert!(known.is_sold_out(&gift));
    }
}
