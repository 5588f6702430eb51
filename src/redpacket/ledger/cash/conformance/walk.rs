//! A random story told to a store and to a [`CashBook`]: the two answer alike at every step, and no fen is lost or made.
//!
//! Few packets, payers and users, so that everything meets everything. A seed tells the whole story: a breach is told again
//! by its seed.

use std::sync::Arc;

use super::{Breach, Outcome, Subject, audit};
use crate::base::clock::Wall;
use crate::base::entropy::Rng;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::cash::{CashBook, Deposit, Opener, PacketStore};
use crate::redpacket::model::cash::{Mode, Packing, Seed, Share, Terms};
use crate::redpacket::model::{
    ActivityId, BadId, Failure, IdempotencyKey, OrderNo, PacketId, Resolution, Settlement, UserId, Verdict,
};

const LAW: &str = "I2, I3, I5, I7: a random story ends in the store as in the book";
const USERS: u64 = 8;
const PACKETS: u64 = 4;
const PAYERS: u64 = 2;

/// Tells a story of `steps` steps, made from `seed`, to a fresh store of this kind and to a book.
///
/// # Errors
/// The first step after which the two differ, or a fen that is missing; the words name the seed.
pub async fn walk(subject: &dyn Subject, seed: u64, steps: usize) -> Outcome {
    let store = subject.fresh().await.map_err(|reason| Breach::NoStore { reason })?;
    let mut tale = Tale { store, book: CashBook::default(), rng: Rng::seeded(seed), seed };
    for at in 0..steps {
        tale.step(Wall(at as u64 * 5)).await?;
    }
    tale.end().await
}

struct Tale {
    store: Arc<dyn PacketStore>,
    book: CashBook,
    rng: Rng,
    seed: u64,
}

impl Tale {
    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, store: &T, book: &T) -> Outcome {
        let found = || format!("seed {}: {what}: the store {store:?}, the book {book:?}", self.seed);
        if store == book { Ok(()) } else { Err(Breach::Law { law: LAW, found: found() }) }
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    /// A share that there may be.
    fn number(&mut self) -> Result<(PacketId, UserId, OrderNo), Breach> {
        let (packet, user) = (packet(self.draw(PACKETS))?, user(self.draw(USERS))?);
        let number = OrderNo::of(&activity()?, &packet, &user, "cash");
        Ok((packet, user, number))
    }

    async fn step(&mut self, now: Wall) -> Outcome {
        match self.draw(20) {
            0..=1 => self.deposit().await?,
            2..=4 => self.create(now).await?,
            5..=11 => self.open(now).await?,
            12..=13 => {
                let limit = self.draw(4) as usize;
                let store = self.store.sweep(limit, now).await.map_err(failed)?;
                let book = self.book.sweep(limit, now);
                self.same("sweep", &store, &book)?;
            }
            14..=15 => {
                let (limit, until) = (self.draw(5) as usize, Wall(now.0 + self.draw(40)));
                let store = self.store.lease(limit, until, now).await.map_err(failed)?;
                let book = self.book.lease(limit, until, now);
                self.same("lease", &by_number(store), &by_number(book))?;
            }
            16..=18 => self.word(now).await?,
            _ => {
                let (.., order_no) = self.number()?;
                let resolution = if self.rng.chance(0.7) { Resolution::Replay } else { Resolution::Compensate };
                let store = self.store.resolve(vec![order_no], resolution, now).await.map_err(failed)?;
                let book = self.book.resolve(order_no, resolution, now);
                self.same("resolve", &store, &vec![book])?;
            }
        }
        let totals = self.store.totals().await.map_err(failed)?;
        self.same("sums", &totals, &self.book.totals())
    }

    async fn deposit(&mut self) -> Outcome {
        let (payer, key) = (user(self.draw(PAYERS))?, self.draw(4));
        let deposit = Deposit { payer: payer.clone(), idempotency_key: keyed(key)?, amount_fen: self.draw(900) };
        let store = self.store.deposit(deposit.clone()).await.map_err(failed)?;
        let book = self.book.deposit(deposit);
        self.same("deposit", &store, &book)?;
        let account = self.store.account(payer.clone()).await.map_err(failed)?;
        self.same("account", &account, &self.book.account(&payer))
    }

    async fn create(&mut self, now: Wall) -> Outcome {
        let (packet_id, payer) = (packet(self.draw(PACKETS))?, user(self.draw(PAYERS))?);
        let mode = Mode::ALL[self.draw(Mode::ALL.len() as u64) as usize];
        let (total_fen, count, seed) = (self.draw(600), self.draw(7) as u32, Seed::new([self.draw(256) as u8; 16]));
        let terms = Terms { total_fen, count, mode, seed };
        let lasts_ms = 5 + self.draw(145);
        let packing = Packing { packet_id, activity_id: activity()?, payer: payer.clone(), terms, lasts_ms };
        let store = self.store.create(packing.clone(), now).await.map_err(failed)?;
        let book = self.book.create(&packing, now);
        self.same("create", &store, &book)?;
        let account = self.store.account(payer.clone()).await.map_err(failed)?;
        self.same("account", &account, &self.book.account(&payer))
    }

    async fn open(&mut self, now: Wall) -> Outcome {
        let (id, mut openers) = (packet(self.draw(PACKETS))?, Vec::new());
        for _ in 0..self.draw(5) {
            let key = if self.rng.chance(0.3) { Some(keyed(self.draw(3))?) } else { None };
            openers.push(Opener { user_id: user(self.draw(USERS))?, idempotency_key: key });
        }
        let store = self.store.open(id.clone(), openers.clone(), now).await.map_err(failed)?;
        let book = self.book.open(&id, &openers, now);
        self.same("open", &store, &book)?;
        let found = self.store.find(id.clone()).await.map_err(failed)?;
        self.same("find", &found.as_ref(), &self.book.find(&id))?;
        let shares = self.store.shares(id.clone(), 1, 3).await.map_err(failed)?;
        self.same("shares", &shares, &self.book.shares(&id, 1, 3))
    }

    async fn word(&mut self, now: Wall) -> Outcome {
        let (packet, user, order_no) = self.number()?;
        let verdict = match self.draw(7) {
            0..=2 => Verdict::Delivered,
            3..=4 => Verdict::Retry { at: Wall(self.draw(400)), why: Failure::Timeout },
            5 => Verdict::Defer { at: Wall(self.draw(400)) },
            _ => Verdict::Dead { why: Failure::Refused },
        };
        let word = Settlement { order_no, attempt: self.draw(4) as u32, verdict };
        let store = self.store.settle(vec![word], now).await.map_err(failed)?;
        let book = self.book.settle(word, now);
        self.same("settle", &store, &vec![book])?;
        let found = self.store.share(packet.clone(), user.clone()).await.map_err(failed)?;
        self.same("share", &found.as_ref(), &self.book.share(&packet, &user))
    }

    /// All packets, all shares, all dead letters, every fen; then everything is due.
    async fn end(mut self) -> Outcome {
        let store = self.store.scan(None, 1_000).await.map_err(failed)?;
        self.same("packets", &store, &self.book.scan(None, 1_000))?;
        let store = self.store.scan_shares(None, 1_000).await.map_err(failed)?;
        self.same("all shares", &store, &self.book.scan_shares(None, 1_000))?;
        let store = self.store.dead(1_000).await.map_err(failed)?;
        self.same("dead letters", &by_number(store), &by_number(self.book.dead(1_000)))?;
        let report = audit(&*self.store).await.map_err(failed)?;
        self.same("differences", &report.told, &Vec::new())?;
        let end = Wall(1 << 50);
        let store = self.store.lease(1_000, end, end).await.map_err(failed)?;
        let book = self.book.lease(1_000, end, end);
        self.same("the last lease", &by_number(store), &by_number(book))
    }
}

fn failed(source: StoreError) -> Breach {
    Breach::Failed { law: LAW, source }
}

fn bad(error: BadId) -> Breach {
    Breach::Law { law: LAW, found: format!("the suite's own identifiers are broken: {error}") }
}

fn activity() -> Result<ActivityId, Breach> {
    ActivityId::parse("spring").map_err(bad)
}

fn packet(n: u64) -> Result<PacketId, Breach> {
    PacketId::parse(&format!("packet-{n}")).map_err(bad)
}

fn user(n: u64) -> Result<UserId, Breach> {
    UserId::parse(&format!("user-{n}")).map_err(bad)
}

fn keyed(n: u64) -> Result<IdempotencyKey, Breach> {
    IdempotencyKey::parse(&format!("key-{n}")).map_err(bad)
}

/// Which of those that became due in the same moment comes first is a store's own affair.
fn by_number(mut shares: Vec<Share>) -> Vec<Share> {
    shares.sort_by_key(|s| s.order_no);
    shares
}
