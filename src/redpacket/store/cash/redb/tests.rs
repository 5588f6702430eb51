//! The redb store of cash: the laws, the power failing, and the disk filling up.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::redb::backends::InMemoryBackend;
use ::redb::{Builder, StorageBackend};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::redpacket::ledger::cash::audit::audit;
use crate::redpacket::ledger::cash::book::tests::{Step, deposit, number, openers, packet_id, packing, steps, user};
use crate::redpacket::ledger::cash::conformance::{Making, Subject, run};
use crate::redpacket::ledger::cash::{OPENERS, Opened};
use crate::redpacket::model::cash::{Mode, Seed, Terms};
use crate::redpacket::store::cash::memory::MemoryPackets;

/// What a machine without a battery keeps: what was written is on the disk once it was synced, and gone before.
#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    synced: Vec<u8>,
    full: bool,
}

/// A disk whose power can fail. After that, the handle that was in use is dead.
#[derive(Clone, Debug, Default)]
struct Disk {
    platter: Arc<Mutex<Platter>>,
    dead: Arc<AtomicBool>,
}

impl Disk {
    fn at<T>(&self, work: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        work(&mut self.platter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is left when the power fails now.
    fn strike(&self) -> Self {
        self.dead.store(true, Ordering::SeqCst);
        let synced = self.platter.lock().unwrap().synced.clone();
        let platter = Platter { now: synced.clone(), synced, full: false };
        Self { platter: Arc::new(Mutex::new(platter)), dead: Arc::default() }
    }

    fn fill(&self, full: bool) {
        self.platter.lock().unwrap().full = full;
    }
}

fn room(platter: &Platter) -> io::Result<()> {
    if platter.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.at(|p| Ok(p.now.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.at(|p| {
            let from = offset as usize;
            out.copy_from_slice(p.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.at(|p| {
            room(p)?;
            p.now.resize(len as usize, 0);
            Ok(())
        })
    }
    fn sync_data(&self) -> io::Result<()> {
        self.at(|p| {
            p.synced.clone_from(&p.now);
            Ok(())
        })
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.at(|p| {
            room(p)?;
            let from = offset as usize;
            p.now.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            Ok(())
        })
    }
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

fn on(disk: &Disk) -> Result<RedbPackets, OpenError> {
    let disk = disk.clone();
    RedbPackets::with(Path::new("(disk)"), Box::new(move || Builder::new().create_with_backend(disk.clone())))
}

/// The store on such a disk.
#[derive(Default)]
struct OnDisk(Mutex<Disk>);

impl OnDisk {
    fn disk(&self) -> Disk {
        self.0.lock().unwrap().clone()
    }

    fn open(&self) -> Making<'_> {
        let store = on(&self.disk()).map(|s| Arc::new(s) as Arc<dyn PacketStore>).map_err(|e| e.to_string());
        Box::pin(std::future::ready(store))
    }
}

impl Subject for OnDisk {
    fn fresh(&self) -> Making<'_> {
        *self.0.lock().unwrap() = Disk::default();
        self.open()
    }

    fn reopened(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }

    fn struck(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        let left = self.disk().strike();
        *self.0.lock().unwrap() = left;
        drop(store);
        Some(self.open())
    }
}

#[tokio::test]
async fn it_keeps_the_laws() {
    assert_eq!(run(&OnDisk::default()).await.unwrap().len(), 10);
}

/// The store in a real file.
struct InFile(TempDir);

impl InFile {
    fn path(&self) -> PathBuf {
        self.0.path().join("packets.redb")
    }

    fn open(&self) -> Making<'_> {
        let store = RedbPackets::open(&self.path()).map(|s| Arc::new(s) as Arc<dyn PacketStore>);
        Box::pin(std::future::ready(store.map_err(|e| e.to_string())))
    }
}

impl Subject for InFile {
    fn fresh(&self) -> Making<'_> {
        let _ = std::fs::remove_file(self.path());
        self.open()
    }

    fn reopened(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }
}

#[tokio::test]
async fn it_keeps_the_laws_in_a_file() {
    assert_eq!(run(&InFile(TempDir::new().unwrap())).await.unwrap().len(), 9);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Two stores, one story: redb answers every step as the book does, and its sums agree after each.
    #[test]
    fn it_does_what_the_book_does(story in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let open = || Builder::new().create_with_backend(InMemoryBackend::new());
        let redb = RedbPackets::with(Path::new("(memory)"), Box::new(open)).unwrap();
        runtime.block_on(async {
            let book = MemoryPackets::new();
            for (at, step) in story.into_iter().enumerate() {
                let now = Wall(at as u64 * 5);
                match step {
                    Step::Deposit { payer, key, amount } => {
                        let deposit = deposit(payer, key, amount);
                        prop_assert_eq!(redb.deposit(deposit.clone()).await, book.deposit(deposit).await);
                    }
                    Step::Create { packet, payer, total, count, mode, lasts } => {
                        let packing = packing(packet, payer, total, count, mode, lasts);
                        prop_assert_eq!(redb.create(packing.clone(), now).await, book.create(packing, now).await);
                        prop_assert_eq!(redb.account(user(payer)).await, book.account(user(payer)).await);
                    }
                    Step::Open { packet, openers: all } => {
                        let (id, all) = (packet_id(packet), openers(&all));
                        prop_assert_eq!(redb.open(id.clone(), all.clone(), now).await, book.open(id.clone(), all, now).await);
                        prop_assert_eq!(redb.shares(id.clone(), 1, 3).await, book.shares(id.clone(), 1, 3).await);
                        prop_assert_eq!(redb.find(id.clone()).await, book.find(id).await);
                    }
                    Step::Sweep { limit } => prop_assert_eq!(redb.sweep(limit, now).await, book.sweep(limit, now).await),
                    Step::Lease { limit, hold } => {
                        let until = Wall(now.0 + hold);
                        prop_assert_eq!(redb.lease(limit, until, now).await, book.lease(limit, until, now).await);
                    }
                    Step::Settle { packet, user: who, attempt, verdict } => {
                        let word = Settlement { order_no: number(packet, who), attempt, verdict };
                        prop_assert_eq!(redb.settle(vec![word], now).await, book.settle(vec![word], now).await);
                        let (id, who) = (packet_id(packet), user(who));
                        prop_assert_eq!(redb.share(id.clone(), who.clone()).await, book.share(id, who).await);
                    }
                }
                prop_assert_eq!(redb.totals().await, book.totals().await);
            }
            prop_assert_eq!(redb.scan(None, 100).await, book.scan(None, 100).await);
            let report = audit(&redb).await.unwrap();
            prop_assert_eq!(report.differences, 0, "{:?}", report.told);
            let end = Wall(u64::MAX - 1);
            prop_assert_eq!(redb.lease(1_000, end, end).await, book.lease(1_000, end, end).await);
            Ok(())
        })?;
    }
}

async fn hot(store: &RedbPackets, total_fen: u64, count: u32) -> PacketId {
    store.deposit(deposit(0, 0, total_fen)).await.unwrap();
    let mut packing = packing(0, 0, total_fen, count, 0, 60_000);
    packing.terms = Terms { total_fen, count, mode: Mode::DoubleMean, seed: Seed::new([1; 16]) };
    assert!(matches!(store.create(packing, Wall(1)).await, Ok(Created::Funded(_))));
    packet_id(0)
}

fn crowd(from: u32, to: u32) -> Vec<Opener> {
    let opener = |n| Opener { user_id: UserId::parse(&format!("u{n}")).unwrap(), idempotency_key: None };
    (from..to).map(opener).collect()
}

#[tokio::test]
async fn a_hot_packet_goes_through_in_few_commits() {
    let dir = InFile(TempDir::new().unwrap());
    let store = Arc::new(RedbPackets::open(&dir.path()).unwrap());
    let id = hot(&store, 50_000, 500).await;
    let mut all = tokio::task::JoinSet::new();
    for from in (0..5_000).step_by(OPENERS) {
        let (store, id) = (store.clone(), id.clone());
        let crowd = crowd(from, (from + OPENERS as u32).min(5_000));
        all.spawn(async move { store.open(id, crowd, Wall(2)).await.unwrap().each });
    }
    let (mut fen, mut users, mut gone) = (0, HashSet::new(), 0);
    while let Some(each) = all.join_next().await {
        for opened in each.unwrap() {
            match opened {
                Opened::Share(share) => {
                    fen += share.amount_fen;
                    assert!(users.insert(share.user_id));
                }
                Opened::SoldOut => gone += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((users.len(), fen, gone), (500, 50_000, 4_500));
    assert_eq!(audit(&*store).await.unwrap().differences, 0);
}

#[tokio::test]
async fn a_full_disk_refuses_keeps_reads_and_heals() {
    let disk = Disk::default();
    let store = on(&disk).unwrap();
    let id = hot(&store, 1_000, 10).await;
    store.open(id.clone(), crowd(0, 1), Wall(2)).await.unwrap();
    disk.fill(true);
    let error = store.open(id.clone(), crowd(1, 2), Wall(2)).await.unwrap_err();
    assert!(error.code().retryable() && !store.writable(), "{error}");
    disk.fill(false);
    let healed = async {
        while !store.writable() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), healed).await.expect("in time");
    assert!(matches!(store.open(id, crowd(2, 3), Wall(2)).await.unwrap().each.as_slice(), [Opened::Share(_)]));
    assert_eq!(audit(&store).await.unwrap().differences, 0);
}
