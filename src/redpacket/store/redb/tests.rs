//! The redb store: the laws, and what happens when the disk does not do its part.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ::redb::backends::FileBackend;
use ::redb::{Builder, DatabaseError, StorageBackend};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::redpacket::ledger::book::tests::{Step, claim as wish, gift, steps};
use crate::redpacket::ledger::conformance::{Subject, run};
use crate::redpacket::model::{ActivityId, PacketId, RoleId, UserId, ZoneId};
use crate::redpacket::store::memory::MemoryStore;

struct OnDisk(TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("claims.redb")
    }
}

impl Subject for OnDisk {
    fn fresh(&self) -> Result<Arc<dyn Store>, String> {
        let _ = std::fs::remove_file(self.path());
        self.open()
    }

    fn reopened(&self, store: Arc<dyn Store>) -> Option<Result<Arc<dyn Store>, String>> {
        drop(store);
        Some(self.open())
    }
}

impl OnDisk {
    fn open(&self) -> Result<Arc<dyn Store>, String> {
        RedbStore::open(&self.path()).map(|s| Arc::new(s) as Arc<dyn Store>).map_err(|e| e.to_string())
    }
}

fn claim(user: u32) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse("p").unwrap(),
        user_id: UserId::parse(&format!("user-{user}")).unwrap(),
        gift_id: GiftId::parse("g").unwrap(),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse("r").unwrap(),
        idempotency_key: None,
    }
}

#[tokio::test]
async fn it_keeps_the_laws() {
    assert_eq!(run(&OnDisk::new()).await.unwrap().len(), 7);
}

#[test]
fn another_process_file_and_other_files_are_refused_with_words() {
    let dir = OnDisk::new();
    let first = RedbStore::open(&dir.path()).unwrap();
    let error = RedbStore::open(&dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
    drop(first);
    let other = dir.0.path().join("other");
    std::fs::write(&other, "this is not a database, and long enough to be looked at".repeat(100)).unwrap();
    let error = RedbStore::open(&other).err().unwrap();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
    let error = RedbStore::open(&other.join("below")).err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

#[test]
fn a_store_of_a_newer_release_is_refused_and_left_alone() {
    let dir = OnDisk::new();
    drop(RedbStore::open(&dir.path()).unwrap());
    let db = ::redb::Database::open(dir.path()).unwrap();
    let txn = db.begin_write().unwrap();
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    txn.open_table(meta).unwrap().insert("format", 99).unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = RedbStore::open(&dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Format { found: 99, known: 1, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Two stores, one story: redb answers every step as the book does, and its sums and indices agree at the end.
    #[test]
    fn it_does_what_the_book_does(story in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let open = || Builder::new().create_with_backend(::redb::backends::InMemoryBackend::new());
        let redb = RedbStore::with(Path::new("(memory)"), Box::new(open)).unwrap();
        runtime.block_on(async {
            let book = MemoryStore::new();
            for (at, step) in story.into_iter().enumerate() {
                let now = Wall(at as u64 * 5);
                match step {
                    Step::Provision(g, total) => {
                        book.provision(gift(g), total).await.unwrap();
                        redb.provision(gift(g), total).await.unwrap();
                    }
                    Step::Claim { user, packet, gift, role, key } => {
                        let wish = wish(user, packet, gift, role, key);
                        prop_assert_eq!(redb.claim(wish.clone(), now).await, book.claim(wish, now).await);
                    }
                    Step::Lease { limit, hold } => {
                        let until = Wall(now.0 + hold);
                        prop_assert_eq!(redb.lease(limit, until, now).await, book.lease(limit, until, now).await);
                    }
                    Step::Settle { user, packet, attempt, verdict } => {
                        let order_no = wish(user, packet, 0, 0, None).number();
                        let word = Settlement { order_no, attempt, verdict };
                        prop_assert_eq!(redb.settle(vec![word], now).await, book.settle(vec![word], now).await);
                        prop_assert_eq!(redb.find(order_no).await, book.find(order_no).await);
                    }
                }
                prop_assert_eq!(redb.stats().await, book.stats().await);
            }
            let end = Wall(u64::MAX - 1);
            prop_assert_eq!(redb.lease(1_000, end, end).await, book.lease(1_000, end, end).await);
            Ok(())
        })?;
    }
}

const WELL: u8 = 0;
const FULL: u8 = 1;
const SYNC_FAILS: u8 = 2;

/// A disk that can fill up or fail to sync.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    mood: Arc<AtomicU8>,
}

impl Disk {
    fn ask(&self, bad: u8, kind: io::ErrorKind) -> io::Result<()> {
        if self.mood.load(Ordering::SeqCst) == bad { Err(kind.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask(FULL, io::ErrorKind::StorageFull)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.ask(SYNC_FAILS, io::ErrorKind::Other)?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.ask(FULL, io::ErrorKind::StorageFull)?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn on_bad_disk(dir: &OnDisk) -> (RedbStore, Arc<AtomicU8>) {
    let mood = Arc::new(AtomicU8::new(WELL));
    let (path, moods) = (dir.path(), mood.clone());
    let open = move || -> Result<::redb::Database, DatabaseError> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        Builder::new().create_with_backend(Disk { file: FileBackend::new(file)?, mood: moods.clone() })
    };
    (RedbStore::with(&dir.path(), Box::new(open)).unwrap(), mood)
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("in time");
}

#[tokio::test]
async fn a_full_disk_refuses_claims_keeps_reads_and_heals() {
    let dir = OnDisk::new();
    let (store, mood) = on_bad_disk(&dir);
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    let Claimed::Accepted(first) = store.claim(claim(1), Wall(1)).await.unwrap() else { panic!("accepted") };
    mood.store(FULL, Ordering::SeqCst);
    let error = store.claim(claim(2), Wall(2)).await.unwrap_err();
    assert!(error.code().retryable(), "{error}");
    assert!(!store.writable());
    let error = store.claim(claim(3), Wall(3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unwritable { .. }), "refused without a try: {error}");
    mood.store(WELL, Ordering::SeqCst);
    eventually(|| store.writable()).await;
    assert_eq!(store.find(first.order_no).await.unwrap(), Some(first));
    assert!(matches!(store.claim(claim(4), Wall(4)).await.unwrap(), Claimed::Accepted(_)));
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.orders(), stats.stock[0].1.issued, "{stats:?}");
    drop(store);
    let store = RedbStore::open(&dir.path()).unwrap();
    assert_eq!(store.stats().await.unwrap(), stats);
}

#[tokio::test]
async fn a_failed_sync_is_an_unknown_outcome_and_ends_writing() {
    let dir = OnDisk::new();
    let (store, mood) = on_bad_disk(&dir);
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    mood.store(SYNC_FAILS, Ordering::SeqCst);
    let error = store.claim(claim(1), Wall(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    mood.store(WELL, Ordering::SeqCst);
    let error = store.claim(claim(2), Wall(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unwritable { .. }), "{error}");
    assert!(!store.writable(), "a person must look at this disk");
}

#[tokio::test]
async fn a_crowd_shares_its_commits() {
    let dir = OnDisk::new();
    let store = Arc::new(RedbStore::open(&dir.path()).unwrap());
    store.provision(GiftId::parse("g").unwrap(), 10_000).await.unwrap();
    let mut all = tokio::task::JoinSet::new();
    for user in 0..2_000 {
        let store = store.clone();
        all.spawn(async move { store.claim(claim(user), Wall(1)).await });
    }
    let mut accepted = 0;
    while let Some(done) = all.join_next().await {
        accepted += u64::from(matches!(done.unwrap(), Ok(Claimed::Accepted(_))));
    }
    assert_eq!(accepted, 2_000);
    assert_eq!(store.stats().await.unwrap().accepted, 2_000);
}
