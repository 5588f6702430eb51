//! Where intents are kept: a [`Shelf`] for tests and play, one redb file for a process that must not forget. Those of
//! processes that share a database are there, beside its orders.
//!
//! ```text
//!   intents  number -> record            keys     (user, key) -> number, of those that stand
//!   open     (set, when asked, number)   settled  (when, number)     counts  0 open, or outcome + 1 -> intents
//! ```

use std::collections::BTreeMap;
use std::future::ready;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::redb::{Error, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::commit::{Applied, Committer, Engine, OpenError, file};
use crate::base::clock::Wall;
use crate::config::homes::Sets;
use crate::redpacket::intents::{Bounds, Intent, Intents, Opened, Outcome, Ruling, Shelf, Sums, rule};
use crate::redpacket::ledger::{Answer, StoreError};
use crate::redpacket::model::{Claim, OrderNo};

/// Intents that end with their process.
#[derive(Debug, Default)]
pub struct MemoryIntents(Mutex<Shelf>);

impl MemoryIntents {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self(Mutex::new(Shelf::new(bounds)))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // A shelf is never left half written: every change is one call that does not panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
    Box::pin(ready(Ok(value)))
}

impl Intents for MemoryIntents {
    fn open(&self, claim: Claim, now: Wall) -> Answer<'_, Opened> {
        done(self.shelf().open(claim, now))
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Intent>> {
        done(self.shelf().find(order_no).cloned())
    }

    fn due(&self, sets: Sets, limit: usize) -> Answer<'_, Vec<Intent>> {
        done(self.shelf().due(sets, limit))
    }

    fn settle(&self, words: Vec<(OrderNo, Outcome)>, now: Wall) -> Answer<'_, Vec<bool>> {
        let mut shelf = self.shelf();
        done(words.into_iter().map(|(no, outcome)| shelf.settle(no, outcome, now)).collect())
    }

    fn sums(&self) -> Answer<'_, Sums> {
        done(self.shelf().sums())
    }

    fn writable(&self) -> bool {
        true
    }
}

type Number = &'static [u8; 17];

const INTENTS: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("intents");
const KEYS: TableDefinition<'_, (&str, &str), Number> = TableDefinition::new("keys");
const OPEN: TableDefinition<'_, (u8, u64, Number), ()> = TableDefinition::new("open");
const SETTLED: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("settled");
const COUNTS: TableDefinition<'_, u8, u64> = TableDefinition::new("counts");

/// Intents on disk, in one file, for one process.
pub struct RedbIntents(Committer<Pledges>);

impl RedbIntents {
    /// Opens the file at `path`, made where there is none.
    ///
    /// # Errors
    /// The file is another process's, or something else, or of a newer release, or the system refuses.
    pub fn open(path: &Path, bounds: Bounds) -> Result<Self, OpenError> {
        Committer::start(Pledges(bounds), path, file(path)?).map(Self)
    }
}

impl Intents for RedbIntents {
    fn open(&self, claim: Claim, now: Wall) -> Answer<'_, Opened> {
        Box::pin(async move {
            match self.0.now(Op::Open(claim, now)).await? {
                Out::Opened(opened) => Ok(*opened),
                Out::Settled(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Intent>> {
        Box::pin(self.0.read(move |txn| {
            let Some(record) = txn.open_table(INTENTS)?.get(order_no.bytes())?.map(|v| Intent::decode(v.value()))
            else {
                return Ok(Ok(None));
            };
            Ok(record.map(Some).ok_or(StoreError::Damaged { order_no }))
        }))
    }

    fn due(&self, sets: Sets, limit: usize) -> Answer<'_, Vec<Intent>> {
        Box::pin(self.0.read(move |txn| due(txn, sets, limit)))
    }

    fn settle(&self, words: Vec<(OrderNo, Outcome)>, now: Wall) -> Answer<'_, Vec<bool>> {
        Box::pin(async move {
            match self.0.soon(Op::Settle(words, now)).await? {
                Out::Settled(moved) => Ok(moved),
                Out::Opened(_) => Err(StoreError::Stopped),
            }
        })
    }

    fn sums(&self) -> Answer<'_, Sums> {
        Box::pin(self.0.read(sums))
    }

    fn writable(&self) -> bool {
        self.0.writable()
    }
}

type Seen<T> = Result<Result<T, StoreError>, Error>;

const LOWEST: [u8; 17] = [0; 17];
const HIGHEST: [u8; 17] = [u8::MAX; 17];

fn due(txn: &ReadTransaction, sets: Sets, limit: usize) -> Seen<Vec<Intent>> {
    let (open, intents) = (txn.open_table(OPEN)?, txn.open_table(INTENTS)?);
    let mut first = Vec::new();
    for set in sets.iter() {
        for entry in open.range((set, 0, &LOWEST)..=(set, u64::MAX, &HIGHEST))?.take(limit) {
            let (key, _) = entry?;
            let (_, asked, number) = key.value();
            first.push((asked, *number));
        }
    }
    first.sort_unstable();
    first.truncate(limit);
    let mut due = Vec::with_capacity(first.len());
    for (_, number) in first {
        let intent = intents.get(&number)?.and_then(|record| Intent::decode(record.value()));
        if intent.is_none() {
            // It stays where it is for a person to look at, and does not hold up those behind it.
            tracing::error!(order_no = %OrderNo::from_bytes(number), "the record of an intent is damaged");
        }
        due.extend(intent);
    }
    Ok(Ok(due))
}

fn sums(txn: &ReadTransaction) -> Seen<Sums> {
    let (open, counts) = (txn.open_table(OPEN)?, txn.open_table(COUNTS)?);
    let count = |index| Ok::<_, Error>(counts.get(index)?.map_or(0, |v| v.value()));
    let mut oldest: Option<u64> = None;
    let mut from = Some(0u8);
    // One look for each set that has any.
    while let Some(set) = from {
        let Some(entry) = open.range((set, 0, &LOWEST)..)?.next() else { break };
        let (key, _) = entry?;
        let (set, asked, _) = key.value();
        oldest = Some(oldest.map_or(asked, |old| old.min(asked)));
        from = set.checked_add(1);
    }
    let mut settled = BTreeMap::new();
    for outcome in Outcome::ALL {
        let kept = count(index(outcome))?;
        if kept > 0 {
            settled.insert(outcome, kept);
        }
    }
    Ok(Ok(Sums { open: count(0)?, oldest: oldest.map(Wall), settled }))
}

/// An outcome's key in the counts; part of the format. 0 is what is open.
const fn index(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Granted => 1,
        Outcome::SoldOut => 2,
        Outcome::Expired => 3,
        Outcome::NotEligible => 4,
        Outcome::Conflict => 5,
    }
}

struct Pledges(Bounds);

enum Op {
    Open(Claim, Wall),
    Settle(Vec<(OrderNo, Outcome)>, Wall),
}

enum Out {
    Opened(Box<Opened>),
    Settled(Vec<bool>),
}

impl Engine for Pledges {
    type Op = Op;
    type Out = Out;
    const FORMAT: u64 = 1;
    const NAME: &'static str = "intents";

    fn prepare(&self, txn: &WriteTransaction, _: u64) -> Result<(), Error> {
        Tables::open(txn, self.0).map(drop)
    }

    fn apply(&self, txn: &WriteTransaction, ops: &[Op]) -> Result<Applied<Out>, Error> {
        let mut tables = Tables::open(txn, self.0)?;
        let mut outs = Vec::with_capacity(ops.len());
        for op in ops {
            outs.push(match op {
                Op::Open(claim, now) => tables.write(claim, *now)?,
                Op::Settle(words, now) => {
                    let mut moved = Vec::with_capacity(words.len());
                    for (order_no, outcome) in words {
                        moved.push(tables.settle(*order_no, *outcome, *now)?);
                    }
                    Ok(Out::Settled(moved))
                }
            });
        }
        Ok((outs, tables.wrote))
    }
}

struct Tables<'txn> {
    bounds: Bounds,
    intents: Table<'txn, Number, &'static [u8]>,
    keys: Table<'txn, (&'static str, &'static str), Number>,
    open: Table<'txn, (u8, u64, Number), ()>,
    settled: Table<'txn, (u64, Number), ()>,
    counts: Table<'txn, u8, u64>,
    wrote: bool,
}

impl<'txn> Tables<'txn> {
    fn open(txn: &'txn WriteTransaction, bounds: Bounds) -> Result<Self, Error> {
        Ok(Self {
            bounds,
            intents: txn.open_table(INTENTS)?,
            keys: txn.open_table(KEYS)?,
            open: txn.open_table(OPEN)?,
            settled: txn.open_table(SETTLED)?,
            counts: txn.open_table(COUNTS)?,
            wrote: false,
        })
    }

    fn find(&self, order_no: OrderNo) -> Seen<Option<Intent>> {
        let Some(record) = self.intents.get(order_no.bytes())? else { return Ok(Ok(None)) };
        Ok(Intent::decode(record.value()).map(Some).ok_or(StoreError::Damaged { order_no }))
    }

    fn count(&self, index: u8) -> Result<u64, Error> {
        Ok(self.counts.get(index)?.map_or(0, |v| v.value()))
    }

    fn add(&mut self, index: u8, more: bool) -> Result<(), Error> {
        let count = self.count(index)?;
        self.counts.insert(index, if more { count + 1 } else { count.saturating_sub(1) })?;
        Ok(())
    }

    fn write(&mut self, claim: &Claim, now: Wall) -> Seen<Out> {
        let order_no = claim.number();
        let old = match self.find(order_no)? {
            Ok(old) => old,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let under_key = match &claim.idempotency_key {
            Some(key) => self.keys.get((claim.user_id.as_str(), key.as_str()))?.map(|v| *v.value()),
            None => None,
        };
        let under_key = under_key.map(OrderNo::from_bytes);
        let opened = match (rule(claim, old.as_ref(), under_key, self.count(0)?, self.bounds), old) {
            (Ruling::Same, Some(old)) => Opened::Same(old),
            (Ruling::Conflict | Ruling::Same, _) => Opened::Conflict,
            (Ruling::Full, _) => Opened::Full,
            (Ruling::Write, old) => {
                if let Some((outcome, at)) = old.and_then(|old| old.settled) {
                    self.settled.remove((at.0, order_no.bytes()))?;
                    self.add(index(outcome), false)?;
                }
                let intent = Intent::new(claim.clone(), now);
                if let Some(key) = &claim.idempotency_key {
                    self.keys.insert((claim.user_id.as_str(), key.as_str()), order_no.bytes())?;
                }
                self.open.insert((order_no.set(), now.0, order_no.bytes()), ())?;
                self.intents.insert(order_no.bytes(), intent.encode().as_slice())?;
                self.add(0, true)?;
                self.wrote = true;
                Opened::New(intent)
            }
        };
        Ok(Ok(Out::Opened(Box::new(opened))))
    }

    fn settle(&mut self, order_no: OrderNo, outcome: Outcome, now: Wall) -> Result<bool, Error> {
        let Some(mut intent) = self.find(order_no)?.ok().flatten().filter(Intent::is_open) else { return Ok(false) };
        intent.settled = Some((outcome, now));
        self.open.remove((order_no.set(), intent.asked.0, order_no.bytes()))?;
        self.settled.insert((now.0, order_no.bytes()), ())?;
        self.intents.insert(order_no.bytes(), intent.encode().as_slice())?;
        self.add(0, false)?;
        self.add(index(outcome), true)?;
        if outcome != Outcome::Granted {
            self.free(&intent)?;
        }
        let mut kept = 0;
        for outcome in Outcome::ALL {
            kept += self.count(index(outcome))?;
        }
        while kept > self.bounds.settled && self.forget()? {
            kept -= 1;
        }
        self.wrote = true;
        Ok(true)
    }

    /// Drops the one that was settled first.
    fn forget(&mut self) -> Result<bool, Error> {
        let Some(oldest) = self.settled.pop_first()?.map(|(key, _)| OrderNo::from_bytes(*key.value().1)) else {
            return Ok(false);
        };
        let gone = self.find(oldest)?.ok().flatten();
        self.intents.remove(oldest.bytes())?;
        if let Some(gone) = &gone {
            if let Some((outcome, _)) = gone.settled {
                self.add(index(outcome), false)?;
            }
            if gone.stands() {
                self.free(gone)?;
            }
        }
        Ok(true)
    }

    fn free(&mut self, intent: &Intent) -> Result<(), Error> {
        if let Some(key) = &intent.claim.idempotency_key {
            self.keys.remove((intent.claim.user_id.as_str(), key.as_str()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::redpacket::intents::conformance::{Making, Subject, run, walk};

    struct Memory;

    impl Subject for Memory {
        fn fresh(&self, bounds: Bounds) -> Making<'_> {
            Box::pin(ready(Ok(Arc::new(MemoryIntents::new(bounds)) as Arc<dyn Intents>)))
        }
    }

    struct OnDisk(TempDir);

    impl OnDisk {
        fn open(&self, bounds: Bounds) -> Making<'_> {
            let store = RedbIntents::open(&self.0.path().join("intents.redb"), bounds);
            Box::pin(ready(store.map(|s| Arc::new(s) as Arc<dyn Intents>).map_err(|e| e.to_string())))
        }
    }

    impl Subject for OnDisk {
        fn fresh(&self, bounds: Bounds) -> Making<'_> {
            let _ = std::fs::remove_file(self.0.path().join("intents.redb"));
            self.open(bounds)
        }

        fn reopened(&self, store: Arc<dyn Intents>, bounds: Bounds) -> Option<Making<'_>> {
            drop(store);
            Some(self.open(bounds))
        }
    }

    #[tokio::test]
    async fn both_keep_the_laws() {
        assert_eq!(run(&Memory).await.unwrap().len(), 4);
        assert_eq!(run(&OnDisk(TempDir::new().unwrap())).await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn both_do_what_the_shelf_does() {
        let disk = OnDisk(TempDir::new().unwrap());
        for seed in 0..256 {
            walk(&Memory, seed, 120).await.unwrap();
        }
        for seed in 0..4 {
            walk(&disk, seed, 60).await.unwrap();
        }
    }
}
