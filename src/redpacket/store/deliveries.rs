//! What the game keeps: one entry for each order that it applied, and how often it was told.
//!
//! The order number is the key, so telling it twice applies it once. Effects stand in a list of their own, one for each
//! time that something was really given: whoever doubts "once" counts there.

use std::path::Path;

use redb::{Builder, Error, ReadTransaction, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::commit::{Applied, Committer, Engine, OpenError, file};
use crate::base::clock::Wall;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::model::OrderNo;

type Number = &'static [u8; 17];

/// number -> (when applied, times received)
const LEDGER: TableDefinition<'_, Number, (u64, u64)> = TableDefinition::new("ledger");
const EFFECTS: TableDefinition<'_, u64, Number> = TableDefinition::new("effects");
const RECEIVED: TableDefinition<'_, (), u64> = TableDefinition::new("received");
/// number -> how often something was given for it: the effects, counted
const GIVEN: TableDefinition<'_, Number, u64> = TableDefinition::new("given");

/// An order as the game knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub order_no: OrderNo,
    /// When it was applied.
    pub applied_at: Wall,
    /// How often it was received.
    pub received: u64,
    /// How often something was given for it: once, or the game has failed.
    pub given: u64,
}

/// What the game got and what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Deliveries received, repeats included.
    pub received: u64,
    /// Different orders known.
    pub orders: u64,
    /// Effects: how often something was given. Equal to `orders`, or something was given twice.
    pub applied: u64,
    /// Deliveries that were repeats.
    pub duplicates: u64,
}

/// The game's ledger.
pub struct Deliveries(Committer<Game>);

impl Deliveries {
    /// Opens the ledger in the file at `path`, made where there is none.
    ///
    /// # Errors
    /// As [`RedbStore::open`](super::redb::RedbStore::open).
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Committer::start(Game, path, file(path)?).map(Self)
    }

    /// A ledger that ends with its process.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn in_memory() -> Result<Self, OpenError> {
        let open = || Builder::new().create_with_backend(redb::backends::InMemoryBackend::new());
        Committer::start(Game, Path::new("(memory)"), Box::new(open)).map(Self)
    }

    /// Gives what `order_no` stands for, unless that was done before; durable when this returns.
    ///
    /// # Errors
    /// As [`Store::claim`](crate::redpacket::ledger::Store::claim).
    pub async fn apply(&self, order_no: OrderNo, now: Wall) -> Result<Entry, StoreError> {
        self.0.now((order_no, now)).await
    }

    /// What is known of an order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn find(&self, order_no: OrderNo) -> Result<Option<Entry>, StoreError> {
        let look = move |txn: &ReadTransaction| {
            let known = txn.open_table(LEDGER)?.get(order_no.bytes())?.map(|v| v.value());
            let given = txn.open_table(GIVEN)?.get(order_no.bytes())?.map(|v| v.value()).unwrap_or_default();
            Ok(Ok(known.map(|(at, received)| Entry { order_no, applied_at: Wall(at), received, given })))
        };
        self.0.read(look).await
    }

    /// Up to `limit` entries by number, from the first after `after`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn scan(&self, after: Option<OrderNo>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let look = move |txn: &ReadTransaction| {
            let (ledger, given) = (txn.open_table(LEDGER)?, txn.open_table(GIVEN)?);
            let first = [0; 17];
            let from = after.as_ref().map_or(&first, OrderNo::bytes);
            let mut page = Vec::new();
            for entry in ledger.range::<&[u8; 17]>(from..)? {
                let (number, known) = entry?;
                if page.len() == limit {
                    break;
                }
                if after.as_ref().is_none_or(|after| after.bytes() != number.value()) {
                    let (at, received) = known.value();
                    let given = given.get(number.value())?.map(|v| v.value()).unwrap_or_default();
                    let order_no = OrderNo::from_bytes(*number.value());
                    page.push(Entry { order_no, applied_at: Wall(at), received, given });
                }
            }
            Ok(Ok(page))
        };
        self.0.read(look).await
    }

    /// The sums.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn tally(&self) -> Result<Tally, StoreError> {
        use redb::ReadableTableMetadata;
        let look = |txn: &ReadTransaction| {
            let received = txn.open_table(RECEIVED)?.get(())?.map(|v| v.value()).unwrap_or_default();
            let (orders, applied) = (txn.open_table(LEDGER)?.len()?, txn.open_table(EFFECTS)?.len()?);
            Ok(Ok(Tally { received, orders, applied, duplicates: received.saturating_sub(orders) }))
        };
        self.0.read(look).await
    }

    /// Whether deliveries can be taken now, as far as is known.
    pub fn writable(&self) -> bool {
        self.0.writable()
    }
}

struct Game;

impl Engine for Game {
    type Op = (OrderNo, Wall);
    type Out = Entry;
    const FORMAT: u64 = 2;
    const NAME: &'static str = "game";

    fn prepare(&self, txn: &WriteTransaction, found: u64) -> Result<(), Error> {
        use redb::ReadableTable;
        txn.open_table(LEDGER)?;
        txn.open_table(RECEIVED)?;
        let (effects, mut given) = (txn.open_table(EFFECTS)?, txn.open_table(GIVEN)?);
        if found < 2 {
            // Format 1 did not count effects by order.
            for effect in effects.iter()? {
                let number = *effect?.1.value();
                let before = given.get(&number)?.map(|v| v.value()).unwrap_or_default();
                given.insert(&number, before + 1)?;
            }
        }
        Ok(())
    }

    fn apply(&self, txn: &WriteTransaction, ops: &[(OrderNo, Wall)]) -> Result<Applied<Entry>, Error> {
        use redb::ReadableTable;
        let (mut ledger, mut effects) = (txn.open_table(LEDGER)?, txn.open_table(EFFECTS)?);
        let (mut received, mut given) = (txn.open_table(RECEIVED)?, txn.open_table(GIVEN)?);
        let mut outs = Vec::with_capacity(ops.len());
        let mut next = effects.last()?.map_or(0, |(key, _)| key.value() + 1);
        for (order_no, now) in ops {
            let known = ledger.get(order_no.bytes())?.map(|v| v.value());
            let (at, times) = known.unwrap_or((now.0, 0));
            ledger.insert(order_no.bytes(), (at, times + 1))?;
            let before = given.get(order_no.bytes())?.map(|v| v.value()).unwrap_or_default();
            if known.is_none() {
                effects.insert(next, order_no.bytes())?;
                given.insert(order_no.bytes(), before + 1)?;
                next += 1;
            }
            let given = before + u64::from(known.is_none());
            outs.push(Ok(Entry { order_no: *order_no, applied_at: Wall(at), received: times + 1, given }));
        }
        let before = received.get(())?.map(|v| v.value()).unwrap_or_default();
        received.insert((), before + ops.len() as u64)?;
        Ok((outs, !ops.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn telling_it_twice_applies_it_once() {
        let game = Deliveries::in_memory().unwrap();
        let no = |n| OrderNo::from_bytes([n; 17]);
        assert_eq!(game.find(no(1)).await.unwrap(), None);
        for (n, now) in [(1, 10), (2, 20), (1, 30)] {
            game.apply(no(n), Wall(now)).await.unwrap();
        }
        let entry = Entry { order_no: no(1), applied_at: Wall(10), received: 2, given: 1 };
        assert_eq!(game.find(no(1)).await.unwrap(), Some(entry));
        assert_eq!(game.scan(None, 1).await.unwrap(), [entry]);
        let second = Entry { order_no: no(2), applied_at: Wall(20), received: 1, given: 1 };
        assert_eq!(game.scan(Some(no(1)), 9).await.unwrap(), [second]);
        assert_eq!(game.tally().await.unwrap(), Tally { received: 3, orders: 2, applied: 2, duplicates: 1 });
    }
}
