//! A store that forgets when its process ends: for tests, for play, and as the simplest reading of the laws.

use std::future::ready;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::clock::Wall;
use crate::redpacket::ledger::{Answer, Book, Claimed, Fenced, Hold, Stats, Store, StoreError, Transfer};
use crate::redpacket::model::{Claim, GiftId, Order, OrderNo, Resolution, Settled, Settlement, Trail};

/// A [`Book`] behind a lock. Unbounded by design, as stock bounds the orders and nothing else is kept.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Book>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A book is never left half written: every change is one call that does not panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(ready(Ok(value)))
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn provision(&self, gift: GiftId, total: u64) -> Answer<'_, ()> {
        self.book().provision(gift, total);
        done(())
    }

    fn claim(&self, claim: Claim, now: Wall) -> Answer<'_, Claimed> {
        let mut book = self.book();
        let answer = match book.hold().filter(|hold| !hold.decides(claim.number())) {
            Some(Hold { epoch, .. }) => Err(StoreError::Fenced { epoch }),
            None => Ok(book.claim(claim, now)),
        };
        Box::pin(ready(answer))
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Order>> {
        done(self.book().find(order_no).cloned())
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Order>> {
        done(self.book().lease(limit, until, now))
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        let mut book = self.book();
        done(words.into_iter().map(|word| book.settle(word, now)).collect())
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Order>> {
        done(self.book().dead(limit))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        let mut book = self.book();
        done(order_nos.into_iter().map(|no| book.resolve(no, resolution, now)).collect())
    }

    fn scan(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Trail>> {
        done(self.book().scan(after, limit))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        done(self.book().stats())
    }

    fn fence(&self, hold: Hold, take_over: bool) -> Answer<'_, Fenced> {
        done(self.book().fence(hold, take_over))
    }

    fn give(&self, to: Transfer, most: u64) -> Answer<'_, Option<u64>> {
        done(self.book().give(&to, most))
    }

    fn take(&self, from: Transfer, amount: u64) -> Answer<'_, bool> {
        done(self.book().take(&from, amount))
    }

    fn turn(&self, home: String, gift: GiftId) -> Answer<'_, u64> {
        done(self.book().turn(&home, &gift))
    }

    fn writable(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::redpacket::ledger::conformance::{Making, Subject, run, walk};

    struct Memory;
    impl Subject for Memory {
        fn fresh(&self) -> Making<'_> {
            Box::pin(ready(Ok(Arc::new(MemoryStore::new()) as Arc<dyn Store>)))
        }

        fn beside(&self, store: &Arc<dyn Store>) -> Option<Making<'_>> {
            Some(Box::pin(ready(Ok(store.clone()))))
        }
    }

    #[tokio::test]
    async fn it_keeps_the_laws() {
        assert_eq!(run(&Memory).await.unwrap().len(), 11);
    }

    #[tokio::test]
    async fn it_does_what_the_book_does() {
        for seed in 0..256 {
            walk(&Memory, seed, 120).await.unwrap();
        }
    }
}
