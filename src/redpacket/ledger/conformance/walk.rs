//! A random story told to a store and to a [`Book`]: the two answer alike at every step, and the invariants hold.
//!
//! Few users, packets and gifts, so that everything meets everything. A seed tells the whole story: a breach is told again
//! by its seed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Breach, Outcome, Subject, bad, failed, fresh, hold};
use crate::base::clock::Wall;
use crate::base::entropy::Rng;
use crate::redpacket::ledger::{Book, Claimed, Store, StoreError, Transfer};
use crate::redpacket::model::{
    ActivityId, Claim, Failure, GiftId, IdempotencyKey, Order, OrderNo, PacketId, Resolution, RoleId, Settlement,
    State, UserId, Verdict, ZoneId,
};

const LAW: &str = "I1, I2, I5, I7: a random story ends in the store as in the book";
const USERS: u64 = 6;
const PACKETS: u64 = 3;
const GIFTS: u64 = 3;

/// Tells a story of `steps` steps, made from `seed`, to a fresh store of this kind and to a book.
///
/// # Errors
/// The first step after which the two differ or an invariant does not hold; the words name the seed.
pub async fn walk(subject: &dyn Subject, seed: u64, steps: usize) -> Outcome {
    let store = fresh(subject).await?;
    let mut tale = Tale { store, book: Book::default(), rng: Rng::seeded(seed), seed, made: BTreeSet::new() };
    for at in 0..steps {
        tale.step(Wall(at as u64 * 5)).await?;
    }
    tale.end().await
}

struct Tale {
    store: Arc<dyn Store>,
    book: Book,
    rng: Rng,
    seed: u64,
    /// (user, packet) with an order.
    made: BTreeSet<(u64, u64)>,
}

impl Tale {
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, store: &T, book: &T) -> Outcome {
        hold(LAW, store == book, || format!("seed {}: {what}: the store {store:?}, the book {book:?}", self.seed))
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn claim_of(user: u64, packet: u64, gift: u64, role: u64, key: Option<u64>) -> Result<Claim, Breach> {
        Ok(Claim {
            activity_id: ActivityId::parse("a").map_err(bad(LAW))?,
            packet_id: PacketId::parse(&format!("packet-{packet}")).map_err(bad(LAW))?,
            user_id: UserId::parse(&format!("user-{user}")).map_err(bad(LAW))?,
            gift_id: gift_of(gift)?,
            zone_id: ZoneId::parse("z").map_err(bad(LAW))?,
            role_id: RoleId::parse(&format!("role-{role}")).map_err(bad(LAW))?,
            idempotency_key: key
                .map(|key| IdempotencyKey::parse(&format!("key-{key}")).map_err(bad(LAW)))
                .transpose()?,
        })
    }

    /// An order that there may be.
    fn number(&mut self) -> Result<(u64, u64, OrderNo), Breach> {
        let (user, packet) = (self.draw(USERS), self.draw(PACKETS));
        Ok((user, packet, Self::claim_of(user, packet, 0, 0, None)?.number()))
    }

    async fn step(&mut self, now: Wall) -> Outcome {
        match self.draw(16) {
            0 => {
                let (gift, total) = (gift_of(self.draw(GIFTS))?, self.draw(8));
                self.store.provision(gift.clone(), total).await.map_err(failed(LAW))?;
                self.book.provision(gift, total);
            }
            1..=6 => self.claim(now).await?,
            7..=8 => {
                let (limit, until) = (self.draw(5) as usize, Wall(now.0 + self.draw(40)));
                let store = self.store.lease(limit, until, now).await.map_err(failed(LAW))?;
                let book = self.book.lease(limit, until, now);
                hold(LAW, store.len() <= limit, || format!("seed {}: {} leased of {limit}", self.seed, store.len()))?;
                self.same("lease", &by_number(store), &by_number(book))?;
            }
            9..=11 => self.word(now).await?,
            12..=14 => self.transfer().await?,
            _ => {
                let (_, _, order_no) = self.number()?;
                let resolution = if self.rng.chance(0.7) { Resolution::Replay } else { Resolution::Compensate };
                let store = self.store.resolve(vec![order_no], resolution, now).await.map_err(failed(LAW))?;
                let book = self.book.resolve(order_no, resolution, now);
                self.same("resolve", &store, &vec![book])?;
            }
        }
        let stats = self.store.stats().await.map_err(failed(LAW))?;
        self.same("sums", &stats, &self.book.stats())?;
        let issued: u64 = stats.stock.iter().map(|(_, s)| s.issued).sum();
        hold(LAW, stats.orders() == issued && issued == self.made.len() as u64, || {
            format!("seed {}: I7: {} orders made, {stats:?}", self.seed, self.made.len())
        })
    }

    async fn claim(&mut self, now: Wall) -> Outcome {
        let (user, packet) = (self.draw(USERS), self.draw(PACKETS));
        let (gift, role) = (self.draw(GIFTS), self.draw(2));
        let key = if self.rng.chance(0.4) { Some(self.draw(3)) } else { None };
        let claim = Self::claim_of(user, packet, gift, role, key)?;
        let stock = self.book.stats().stock;
        let left = stock.iter().find(|(gift, _)| *gift == claim.gift_id).map_or(0, |(_, s)| s.left());
        let store = self.store.claim(claim.clone(), now).await.map_err(failed(LAW))?;
        let book = self.book.claim(claim, now);
        self.same("claim", &store, &book)?;
        if matches!(store, Claimed::Accepted(_)) {
            hold(LAW, left > 0, || format!("seed {}: I1: given with nothing left", self.seed))?;
            hold(LAW, self.made.insert((user, packet)), || format!("seed {}: I2: a second order", self.seed))?;
        }
        Ok(())
    }

    /// Stock that comes or goes, where stores of this kind move it.
    async fn transfer(&mut self) -> Outcome {
        let (home, gift) = (["b", "c"][self.draw(2) as usize].to_owned(), gift_of(self.draw(GIFTS))?);
        let (amount, comes) = (self.draw(4), self.rng.chance(0.5));
        let turn = match self.store.turn(home.clone(), gift.clone()).await {
            Err(StoreError::Unwritable { .. }) => return Ok(()),
            turn => turn.map_err(failed(LAW))?,
        };
        self.same("turn", &turn, &self.book.turn(&home, &gift))?;
        let number = if comes { (turn + self.draw(3)).saturating_sub(1) } else { self.draw(5) };
        let transfer = Transfer { with: home, gift, number };
        if comes {
            let store = self.store.take(transfer.clone(), amount).await.map_err(failed(LAW))?;
            let book = self.book.take(&transfer, amount);
            return self.same("take", &store, &book);
        }
        let store = self.store.give(transfer.clone(), amount).await.map_err(failed(LAW))?;
        let book = self.book.give(&transfer, amount);
        self.same("give", &store, &book)
    }

    async fn word(&mut self, now: Wall) -> Outcome {
        let (_, _, order_no) = self.number()?;
        let verdict = match self.draw(7) {
            0..=2 => Verdict::Delivered,
            3..=4 => Verdict::Retry { at: Wall(self.draw(400)), why: Failure::Timeout },
            5 => Verdict::Defer { at: Wall(self.draw(400)) },
            _ => Verdict::Dead { why: Failure::Refused },
        };
        let before = self.book.find(order_no).map(|o| o.state);
        let word = Settlement { order_no, attempt: self.draw(4) as u32, verdict };
        let store = self.store.settle(vec![word], now).await.map_err(failed(LAW))?;
        let book = self.book.settle(word, now);
        self.same("settle", &store, &vec![book])?;
        let found = self.store.find(order_no).await.map_err(failed(LAW))?;
        self.same("find", &found.as_ref(), &self.book.find(order_no))?;
        let after = found.map(|o| o.state);
        hold(LAW, before != Some(State::Delivered) || after == before, || {
            format!("seed {}: I5: delivered, and then {after:?}", self.seed)
        })
    }

    /// All orders, all logs, all dead letters; then everything is due.
    async fn end(mut self) -> Outcome {
        let store = self.store.scan(None, 1_000).await.map_err(failed(LAW))?;
        self.same("scan", &store, &self.book.scan(None, 1_000))?;
        let store = self.store.dead(1_000).await.map_err(failed(LAW))?;
        self.same("dead letters", &by_number(store), &by_number(self.book.dead(1_000)))?;
        let end = Wall(1 << 50);
        let store = self.store.lease(1_000, end, end).await.map_err(failed(LAW))?;
        let book = self.book.lease(1_000, end, end);
        self.same("the last lease", &by_number(store), &by_number(book))
    }
}

fn gift_of(gift: u64) -> Result<GiftId, Breach> {
    GiftId::parse(&format!("gift-{gift}")).map_err(bad(LAW))
}

/// Which of those that became due in the same moment comes first is a store's own affair.
fn by_number(mut orders: Vec<Order>) -> Vec<Order> {
    orders.sort_by_key(|o| o.order_no);
    orders
}
