//! A store of one's own: the shipped `Book` in memory, and an append-only file that remembers it.
//!
//! Not for a campaign: one fsync for each claim, and the file only grows. But it keeps the laws, and the conformance suite
//! says so: `cargo run --example store`.

#![allow(clippy::print_stdout, reason = "an example says what it found")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use springtide::base::clock::Wall;
use springtide::base::hash;
use springtide::redpacket::ledger::conformance::{self, Breach, Making, Subject};
use springtide::redpacket::ledger::{Answer, Book, Claimed, Stats, Store, StoreError};
use springtide::redpacket::model::{Attempt, Claim, GiftId, Order, OrderNo, Resolution, Settled, Settlement, Trail};

/// A file of entries: length, checksum, then `P` (total, gift), `O` (an order as it stands now) or `A` (a number, and what
/// came of an attempt, as JSON).
struct Log {
    file: File,
    book: Book,
    /// After a failed write, the book is ahead of the file: nothing more is promised until it is read again.
    broken: bool,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut book, mut whole) = (Book::default(), 0);
        while let Some((entry, end)) = entry(&bytes, whole) {
            match entry.split_first() {
                Some((b'O', order)) => Order::decode(order).into_iter().for_each(|order| book.restore(order)),
                Some((b'A', rest)) => {
                    if let Some((number, attempt)) = rest.split_first_chunk::<17>()
                        && let Ok(attempt) = serde_json::from_slice(attempt)
                    {
                        book.remember(OrderNo::from_bytes(*number), attempt);
                    }
                }
                Some((b'P', rest)) => {
                    if let Some((total, gift)) = rest.split_first_chunk::<8>()
                        && let Ok(gift) = GiftId::parse(&String::from_utf8_lossy(gift))
                    {
                        book.provision(gift, u64::from_le_bytes(*total));
                    }
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
            whole = end;
        }
        // What follows the last whole entry was being written when the process died: nobody was told of it.
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, book, broken: false })
    }

    /// Writes `entries` and waits until they are durable.
    fn append(&mut self, entries: impl IntoIterator<Item = Vec<u8>>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for entry in entries {
            bytes.extend_from_slice(&(entry.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&hash::bytes(0, &entry).to_le_bytes());
            bytes.extend_from_slice(&entry);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        written.map_err(|e| {
            self.broken = true;
            StoreError::Unknown { reason: e.to_string() }
        })
    }
}

/// The entry that begins at `at`, and where it ends; nothing where it is not whole.
fn entry(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (len, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let entry = rest.get(..u32::from_le_bytes(*len) as usize)?;
    (hash::bytes(0, entry) == u64::from_le_bytes(*sum)).then_some((entry, at + 12 + entry.len()))
}

fn order(order: &Order) -> Vec<u8> {
    [&b"O"[..], &order.encode()].concat()
}

fn attempt(order_no: OrderNo, attempt: &Attempt) -> Vec<u8> {
    // Numbers and a word: serialising them into memory cannot fail.
    [&b"A"[..], order_no.bytes(), &serde_json::to_vec(attempt).unwrap_or_default()].concat()
}

/// The store: a log behind a lock, used on the threads for blocking work.
struct FileStore(Arc<Mutex<Log>>);

impl FileStore {
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Log) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let log = self.0.clone();
        let task = tokio::task::spawn_blocking(move || match log.lock() {
            Ok(mut log) if !log.broken => work(&mut log),
            _ => Err(StoreError::Unwritable { reason: "a write failed; open the store again".into() }),
        });
        Box::pin(async { task.await.unwrap_or(Err(StoreError::Stopped)) })
    }
}

impl Store for FileStore {
    fn name(&self) -> &'static str {
        "append-only"
    }

    fn provision(&self, gift: GiftId, total: u64) -> Answer<'_, ()> {
        self.with(move |log| {
            log.append([[&b"P"[..], &total.to_le_bytes(), gift.as_str().as_bytes()].concat()])?;
            log.book.provision(gift, total);
            Ok(())
        })
    }

    fn claim(&self, claim: Claim, now: Wall) -> Answer<'_, Claimed> {
        self.with(move |log| {
            let claimed = log.book.claim(claim, now);
            if let Claimed::Accepted(accepted) = &claimed {
                log.append([order(accepted)])?;
            }
            Ok(claimed)
        })
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Order>> {
        self.with(move |log| Ok(log.book.find(order_no).cloned()))
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Order>> {
        self.with(move |log| {
            let leased = log.book.lease(limit, until, now);
            log.append(leased.iter().map(order))?;
            Ok(leased)
        })
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        self.with(move |log| {
            let settled = words.iter().map(|word| log.book.settle(*word, now)).collect();
            let mut moved = Vec::new();
            for word in &words {
                moved.extend(log.book.find(word.order_no).map(order));
                moved.extend(log.book.attempts(word.order_no).iter().map(|a| attempt(word.order_no, a)));
            }
            log.append(moved)?;
            Ok(settled)
        })
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Order>> {
        self.with(move |log| Ok(log.book.dead(limit)))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        self.with(move |log| {
            let settled = order_nos.iter().map(|no| log.book.resolve(*no, resolution, now)).collect();
            let moved: Vec<_> = order_nos.iter().filter_map(|no| log.book.find(*no)).map(order).collect();
            log.append(moved)?;
            Ok(settled)
        })
    }

    fn scan(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Trail>> {
        self.with(move |log| Ok(log.book.scan(after, limit)))
    }

    fn stats(&self) -> Answer<'_, Stats> {
        self.with(|log| Ok(log.book.stats()))
    }

    fn writable(&self) -> bool {
        self.0.lock().is_ok_and(|log| !log.broken)
    }
}

/// How the suite gets stores of this kind.
struct InDirectory(PathBuf);

impl InDirectory {
    fn open(&self) -> Making<'_> {
        Box::pin(async {
            let log = Log::open(&self.0.join("orders.log")).map_err(|e| e.to_string())?;
            Ok(Arc::new(FileStore(Arc::new(Mutex::new(log)))) as Arc<dyn Store>)
        })
    }
}

impl Subject for InDirectory {
    fn fresh(&self) -> Making<'_> {
        // There may be none yet.
        let _ = std::fs::remove_file(self.0.join("orders.log"));
        self.open()
    }

    fn reopened(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }
}

/// The laws that the store keeps.
pub(crate) async fn laws(directory: PathBuf) -> Result<Vec<&'static str>, Breach> {
    conformance::run(&InDirectory(directory)).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("springtide-store-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let outcome = laws(directory.clone()).await;
    std::fs::remove_dir_all(directory)?;
    for law in outcome? {
        println!("holds  {law}");
    }
    Ok(())
}
