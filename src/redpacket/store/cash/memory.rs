//! A store of cash that forgets when its process ends: for tests, for play, and as the simplest reading of the laws.

use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Wall;
use crate::redpacket::ledger::Answer;
use crate::redpacket::ledger::cash::{
    Account, CashBook, Created, Deposit, Deposited, Opener, Opens, PacketStore, Totals,
};
use crate::redpacket::model::cash::{Packet, Packing, Share};
use crate::redpacket::model::{OrderNo, PacketId, Resolution, Settled, Settlement, UserId};

/// A [`CashBook`] behind a lock. Unbounded by design, as deposits bound the packets and shares.
#[derive(Debug, Default)]
pub struct MemoryPackets(Mutex<CashBook>);

impl MemoryPackets {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, CashBook> {
        // A book is never left half written: every change is one call that does not panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(ready(Ok(value)))
}

impl PacketStore for MemoryPackets {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn deposit(&self, deposit: Deposit) -> Answer<'_, Deposited> {
        done(self.book().deposit(deposit))
    }

    fn account(&self, payer: UserId) -> Answer<'_, Option<Account>> {
        done(self.book().account(&payer))
    }

    fn create(&self, packing: Packing, now: Wall) -> Answer<'_, Created> {
        done(self.book().create(&packing, now))
    }

    fn open(&self, packet_id: PacketId, openers: Vec<Opener>, now: Wall) -> Answer<'_, Opens> {
        done(self.book().open(&packet_id, &openers, now))
    }

    fn find(&self, packet_id: PacketId) -> Answer<'_, Option<Packet>> {
        done(self.book().find(&packet_id).cloned())
    }

    fn share(&self, packet_id: PacketId, user_id: UserId) -> Answer<'_, Option<Share>> {
        done(self.book().share(&packet_id, &user_id).cloned())
    }

    fn shares(&self, packet_id: PacketId, after: u32, limit: usize) -> Answer<'_, Vec<Share>> {
        done(self.book().shares(&packet_id, after, limit))
    }

    fn sweep(&self, limit: usize, now: Wall) -> Answer<'_, Vec<Packet>> {
        done(self.book().sweep(limit, now))
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Share>> {
        done(self.book().lease(limit, until, now))
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        let mut book = self.book();
        done(words.into_iter().map(|word| book.settle(word, now)).collect())
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Share>> {
        done(self.book().dead(limit))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        let mut book = self.book();
        done(order_nos.into_iter().map(|no| book.resolve(no, resolution, now)).collect())
    }

    fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Share>> {
        done(self.book().scan_shares(after, limit))
    }

    fn scan(&self, after: Option<PacketId>, limit: usize) -> Answer<'_, Vec<Packet>> {
        done(self.book().scan(after, limit))
    }

    fn totals(&self) -> Answer<'_, Totals> {
        done(self.book().totals())
    }

    fn writable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::redpacket::ledger::cash::conformance::{Making, Subject, run, walk};

    struct Memory;

    impl Subject for Memory {
        fn fresh(&self) -> Making<'_> {
            Box::pin(ready(Ok(Arc::new(MemoryPackets::new()) as Arc<dyn PacketStore>)))
        }
    }

    #[tokio::test]
    async fn it_keeps_the_laws() {
        assert_eq!(run(&Memory).await.unwrap().len(), 8);
    }

    /// The suite's story, told to the very book that it is held against.
    #[tokio::test]
    async fn it_is_the_book() {
        walk(&Memory, 1, 200).await.unwrap();
    }
}
