//! The redb store: the laws, and what happens when the disk does not do its part.

use std::future::ready;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use ::redb::backends::{FileBackend, InMemoryBackend};
use ::redb::{Builder, DatabaseError, ReadableDatabase, StorageBackend};
use tempfile::TempDir;

use super::*;
use crate::base::entropy::Rng;
use crate::redpacket::ledger::conformance::{Making, Subject, run, walk};
use crate::redpacket::model::{ActivityId, PacketId, RoleId, UserId, ZoneId};

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
    fn fresh(&self) -> Making<'_> {
        let _ = std::fs::remove_file(self.path());
        self.open()
    }

    fn reopened(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }
}

impl OnDisk {
    fn open(&self) -> Making<'_> {
        made(RedbStore::open(&self.path()))
    }
}

fn made<'a>(store: Result<RedbStore, OpenError>) -> Making<'a> {
    Box::pin(ready(store.map(|s| Arc::new(s) as Arc<dyn Store>).map_err(|e| e.to_string())))
}

/// A store in memory, for stories: no disk to wait for.
struct InMemory;

impl Subject for InMemory {
    fn fresh(&self) -> Making<'_> {
        let open = || Builder::new().create_with_backend(InMemoryBackend::new());
        made(RedbStore::with(Path::new("(memory)"), Box::new(open)))
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
    assert_eq!(run(&OnDisk::new()).await.unwrap().len(), 11);
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
    assert!(matches!(error, OpenError::Format { found: 99, known: 4, .. }), "{error}");
}

#[tokio::test]
async fn a_store_of_the_first_release_is_read_and_its_dead_are_found() {
    let dir = OnDisk::new();
    let (alive, dead) = (Order::accept(claim(1), Wall(5)), Order::accept(claim(2), Wall(6)));
    let dead = Order { state: State::Dead, attempts: 1, failure: Some(Failure::Refused), updated: Wall(9), ..dead };
    let db = ::redb::Database::create(dir.path()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 1).unwrap();
    let open = TableDefinition::<'_, (u64, Number), ()>::new("open");
    txn.open_table(open).unwrap().insert((alive.created.0, alive.order_no.bytes()), ()).unwrap();
    for order in [&alive, &dead] {
        let mut record = order.encode();
        record[0] = 1;
        record.drain(7..11);
        txn.open_table(ORDERS).unwrap().insert(order.order_no.bytes(), record.as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    let store = RedbStore::open(&dir.path()).unwrap();
    assert_eq!(store.find(alive.order_no).await.unwrap(), Some(alive.clone()));
    assert_eq!(store.dead(9).await.unwrap(), [dead]);
    assert_eq!(store.stats().await.unwrap().oldest_open, Some(alive.created));
    drop(store);
    let db = ::redb::Database::open(dir.path()).unwrap();
    assert!(db.begin_read().unwrap().open_table(open).is_err(), "the list of open orders by age is gone");
}

#[tokio::test]
async fn a_store_of_format_3_has_what_it_had_and_moves_it() {
    let (dir, gift) = (OnDisk::new(), claim(0).gift_id);
    let db = ::redb::Database::create(dir.path()).unwrap();
    let txn = db.begin_write().unwrap();
    txn.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 3).unwrap();
    txn.open_table(STOCK).unwrap().insert("g", (10, 4)).unwrap();
    txn.commit().unwrap();
    drop(db);
    let total = async |store: &RedbStore| store.stats().await.unwrap().stock[0].1;
    let store = RedbStore::open(&dir.path()).unwrap();
    assert_eq!(total(&store).await, Stock { total: 10, issued: 4 });
    let to = Transfer { with: "b".into(), gift: gift.clone(), number: 1 };
    assert_eq!(store.give(to.clone(), 9).await, Ok(Some(3)));
    drop(store);
    let store = RedbStore::open(&dir.path()).unwrap();
    store.provision(gift, 10).await.unwrap();
    assert_eq!(total(&store).await, Stock { total: 7, issued: 4 }, "a start undoes no transfer");
    assert_eq!(store.give(to, 9).await, Ok(Some(3)));
}

#[tokio::test]
async fn it_does_what_the_book_does() {
    for seed in 0..128 {
        walk(&InMemory, seed, 80).await.unwrap();
    }
}

/// A disk whose power can fail: what was not synced is lost, kept, or kept in part, sector by sector.
#[derive(Debug, Default)]
struct Platter {
    /// What a reader sees.
    live: Vec<u8>,
    /// What has been synced.
    synced: Vec<u8>,
    /// What was written since, in order.
    pending: Vec<Change>,
    /// How often the power has failed: a file opened before that is dead.
    epoch: u64,
}

impl Platter {
    fn strike(&mut self, rng: &mut Rng) {
        self.epoch += 1;
        for change in std::mem::take(&mut self.pending) {
            for part in change.torn(rng) {
                part.apply(&mut self.synced);
            }
        }
        self.live.clone_from(&self.synced);
    }
}

#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Write(u64, Vec<u8>),
}

const SECTOR: usize = 512;

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(len) => image.resize(usize::try_from(*len).unwrap(), 0),
            Self::Write(at, data) => {
                let (from, to) = (usize::try_from(*at).unwrap(), usize::try_from(*at).unwrap() + data.len());
                image.resize(image.len().max(to), 0);
                image[from..to].copy_from_slice(data);
            }
        }
    }

    /// What of it reached the platter.
    fn torn(&self, rng: &mut Rng) -> Vec<Self> {
        match self {
            Self::Length(_) if rng.chance(0.5) => vec![self.clone()],
            Self::Length(_) => Vec::new(),
            Self::Write(at, data) => {
                let sectors = data.chunks(SECTOR).enumerate().filter(|_| rng.chance(0.5));
                sectors.map(|(i, part)| Self::Write(at + (i * SECTOR) as u64, part.to_vec())).collect()
            }
        }
    }
}

#[derive(Debug)]
struct Powered {
    platter: Arc<Mutex<Platter>>,
    epoch: u64,
}

impl Powered {
    fn on(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.platter.lock().unwrap();
        if platter.epoch == self.epoch { Ok(platter) } else { Err(io::Error::other("no power")) }
    }
}

impl StorageBackend for Powered {
    fn len(&self) -> io::Result<u64> {
        Ok(self.on()?.live.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(self.on()?.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.on()?;
        Change::Length(len).apply(&mut platter.live);
        platter.pending.push(Change::Length(len));
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.on()?;
        for change in std::mem::take(&mut platter.pending) {
            change.apply(&mut platter.synced);
        }
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut platter, change) = (self.on()?, Change::Write(offset, data.to_vec()));
        change.apply(&mut platter.live);
        platter.pending.push(change);
        Ok(())
    }
    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

struct OnPower(Mutex<(Arc<Mutex<Platter>>, Rng)>);

impl OnPower {
    fn open(&self) -> Making<'_> {
        let platter = self.0.lock().unwrap().0.clone();
        let epoch = platter.lock().unwrap().epoch;
        let open = move || Builder::new().create_with_backend(Powered { platter: platter.clone(), epoch });
        made(RedbStore::with(Path::new("(platter)"), Box::new(open)))
    }
}

impl Subject for OnPower {
    fn fresh(&self) -> Making<'_> {
        self.0.lock().unwrap().0 = Arc::default();
        self.open()
    }

    fn struck(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        let mut guard = self.0.lock().unwrap();
        let (platter, rng) = &mut *guard;
        platter.lock().unwrap().strike(rng);
        drop(guard);
        drop(store);
        Some(self.open())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_power_takes_nothing_that_was_promised() {
    for seed in 0..8 {
        let subject = OnPower(Mutex::new((Arc::default(), Rng::seeded(seed))));
        let held = run(&subject).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(held.iter().any(|law| law.contains("power")), "{held:?}");
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
