//! Group commit over redb: one writer thread, many callers, one fsync for all who came meanwhile.
//!
//! ```text
//!   callers -> bounded queue -> writer: up to 256 ops or 2 ms -> one transaction -> fsync -> answers
//! ```
//!
//! Refuses at once when the queue is full. A batch that fails before its commit did nothing and says so; one that fails in
//! it says that nobody knows. Either way the database is opened again, so that reads go on, and writes are tried again
//! once a second where the disk was merely full. Any other failure of a commit ends writing until a person restarts the
//! process: after a failed fsync, the page cache may show what the disk does not have. It decides nothing of the domain.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fs, io};

use redb::{
    Builder, Database, DatabaseError, Durability, Error, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, WriteTransaction,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::base::clock::{Clock, Mono, SystemClock};
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::StoreError;

/// Ops in one commit; request merging as in RED_PACKET 2.7.
pub(super) const BATCH: usize = 256;
/// How long a commit waits for company, where the last one had some (DEPENDENCIES: "batch every <= 2 ms").
const LINGER: Duration = Duration::from_millis(2);
/// Ops waiting for a commit; more are refused. 16 batches: about 100 ms of work on a slow disk.
const QUEUE: usize = 16 * BATCH;
/// How often writing is tried again after a failure.
const REVIVE: Duration = Duration::from_secs(1);
/// Reads at the same time, each on a thread of the pool for blocking work. Most find their pages in memory.
const READERS: usize = 16;
/// Memory for pages, each database; redb's own default is 1 GiB, too much for many processes on one machine.
const CACHE_BYTES: usize = 64 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process: a store belongs to one process; stop that one or choose another directory", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or damaged beyond use.
    #[error("{} is not a store that can be used: {reason}", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// A newer release wrote it.
    #[error("{} has format {found}, and this release reads {known}: use the release that wrote it", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u64,
        /// What we read.
        known: u64,
    },
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    fn from_redb(path: &Path, error: impl Into<Error>) -> Self {
        let path = path.to_path_buf();
        match error.into() {
            Error::DatabaseAlreadyOpen => Self::InUse { path },
            Error::Io(source) if source.kind() != io::ErrorKind::InvalidData => Self::Io { path, source },
            other => Self::NotAStore { path, reason: other.to_string() },
        }
    }
}

/// Opens the database, each time that it must be opened.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// An opener for the file at `path`, whose directory is made where there is none.
pub(super) fn file(path: &Path) -> Result<Opener, OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(io)?;
    let new = !path.exists();
    let path = path.to_path_buf();
    let dir = dir.to_path_buf();
    let synced = AtomicBool::new(!new);
    Ok(Box::new(move || {
        let db = Builder::new().set_cache_size(CACHE_BYTES).create(&path)?;
        if !synced.swap(true, Ordering::Relaxed) {
            // A new file is durable once its directory entry is.
            fs::File::open(&dir).and_then(|dir| dir.sync_all()).map_err(StorageError::from)?;
        }
        Ok(db)
    }))
}

/// What a batch does to the database.
pub(super) trait Engine: Send + 'static {
    /// One thing to do.
    type Op: Send + 'static;
    /// What came of it.
    type Out: Send + 'static;
    /// The format of its tables.
    const FORMAT: u64;
    /// Its name, for logs and metrics.
    const NAME: &'static str;

    /// Makes the tables, out of those of format `found` (0 for a new file) where there are any.
    fn prepare(&self, txn: &WriteTransaction, found: u64) -> Result<(), Error>;

    /// Does all of `ops` in order, each as if alone. Says as well whether anything was written: what only read needs no
    /// commit. An op's own error must leave no trace in `txn`.
    fn apply(&self, txn: &WriteTransaction, ops: &[Self::Op]) -> Result<Applied<Self::Out>, Error>;
}

/// The answers to a batch, in order, and whether it wrote anything.
pub(super) type Applied<T> = (Vec<Result<T, StoreError>>, bool);

struct Job<E: Engine> {
    op: E::Op,
    reply: oneshot::Sender<Result<E::Out, StoreError>>,
    /// Whether it may be skipped when nobody waits for the answer any more.
    skippable: bool,
}

struct Shared {
    db: RwLock<Option<Database>>,
    readers: Semaphore,
    writable: AtomicBool,
}

/// The callers' side.
pub(super) struct Committer<E: Engine> {
    queue: Option<mpsc::Sender<Job<E>>>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl<E: Engine> Committer<E> {
    /// Opens the database and starts its writer. `path` is for messages.
    pub(super) fn start(engine: E, path: &Path, open: Opener) -> Result<Self, OpenError> {
        let db = open().map_err(|e| OpenError::from_redb(path, e))?;
        prepare(&engine, &db, path)?;
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(db)),
            readers: Semaphore::new(READERS),
            writable: AtomicBool::new(true),
        });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let io = |source| OpenError::Io { path: path.to_path_buf(), source };
        // The writer's own small runtime: it waits with timeouts, and its fsyncs block nobody else.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(io)?;
        let mut writer = Writer {
            engine,
            open,
            shared: shared.clone(),
            jobs,
            clock: SystemClock,
            trouble: None,
            batch_size: names::COMMIT_BATCH_SIZE.histogram(&[E::NAME]),
            seconds: names::COMMIT_DURATION_SECONDS.histogram(&[E::NAME]),
            failures: names::COMMIT_FAILURES_TOTAL.counter(&[E::NAME]),
        };
        let writer = std::thread::Builder::new()
            .name(format!("{}-writer", E::NAME))
            .spawn(move || runtime.block_on(writer.run()))
            .map_err(io)?;
        Ok(Self { queue: Some(queue), shared, writer: Some(writer) })
    }

    /// Does `op` in the next commit, or refuses at once where the queue is full.
    pub(super) async fn now(&self, op: E::Op) -> Result<E::Out, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.try_send(Job { op, reply, skippable: true }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => StoreError::Stopped,
        })?;
        answered(answer.await)
    }

    /// Does `op` in a commit soon, waiting for room in the queue: for work that was accepted before.
    pub(super) async fn soon(&self, op: E::Op) -> Result<E::Out, StoreError> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.send(Job { op, reply, skippable: false }).await.map_err(|_| StoreError::Stopped)?;
        answered(answer.await)
    }

    /// Reads a snapshot of what is committed, on the pool for blocking work.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<Result<T, StoreError>, Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        // Waiting here is bounded by the limit of the service. The semaphore is never closed.
        let _permit = self.shared.readers.acquire().await.map_err(|_| StoreError::Stopped)?;
        let unreadable = |reason: String| StoreError::Unreadable { reason };
        let work = tokio::task::spawn_blocking(move || {
            let db = shared.db.read().unwrap_or_else(PoisonError::into_inner);
            let Some(db) = db.as_ref() else { return Err(unreadable("the database is being opened again".into())) };
            let seen = db.begin_read().map_err(Error::from).and_then(|txn| look(&txn));
            seen.unwrap_or_else(|e| Err(unreadable(e.to_string())))
        });
        work.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Whether the last commit worked, as far as is known.
    pub(super) fn writable(&self) -> bool {
        self.shared.writable.load(Ordering::Relaxed) && self.queue.as_ref().is_some_and(|q| !q.is_closed())
    }
}

impl<E: Engine> Drop for Committer<E> {
    /// Lets the writer finish what is queued, so that the file is free when this returns.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was reported by the hook.
            let _ = writer.join();
        }
    }
}

fn answered<T>(answer: Result<Result<T, StoreError>, oneshot::error::RecvError>) -> Result<T, StoreError> {
    // The writer died with the op in its hands.
    answer.unwrap_or_else(|_| Err(StoreError::Unknown { reason: "the writer stopped".into() }))
}

fn prepare<E: Engine>(engine: &E, db: &Database, path: &Path) -> Result<(), OpenError> {
    let attempt = || -> Result<u64, Error> {
        let txn = db.begin_write()?;
        let found = txn.open_table(META)?.get("format")?.map(|v| v.value());
        if found.is_none_or(|f| f <= E::FORMAT) {
            txn.open_table(META)?.insert("format", E::FORMAT)?;
            engine.prepare(&txn, found.unwrap_or_default())?;
            txn.commit()?;
        } else {
            txn.abort()?;
        }
        Ok(found.unwrap_or(E::FORMAT))
    };
    let found = attempt().map_err(|e| OpenError::from_redb(path, e))?;
    if found <= E::FORMAT {
        Ok(())
    } else {
        Err(OpenError::Format { path: path.to_path_buf(), found, known: E::FORMAT })
    }
}

/// Why a batch was not committed.
enum Failure {
    /// Before the commit: nothing was done.
    Before(Error),
    /// In the commit: who knows.
    Within(Error),
}

/// What keeps the store from writing.
struct Trouble {
    reason: String,
    /// When writing was tried last.
    tried: Mono,
    /// Whether it makes sense to try again.
    passing: bool,
}

struct Writer<E: Engine> {
    engine: E,
    open: Opener,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job<E>>,
    clock: SystemClock,
    trouble: Option<Trouble>,
    batch_size: metrics::Histogram,
    seconds: metrics::Histogram,
    failures: metrics::Counter,
}

impl<E: Engine> Writer<E> {
    async fn run(&mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut company = 0;
        loop {
            let got = timeout(REVIVE, self.jobs.recv_many(&mut batch, BATCH)).await;
            if self.trouble.is_some() {
                self.revive();
            }
            match got {
                Ok(0) => break,
                Ok(_) => self.gather(&mut batch, company).await,
                Err(_) => continue,
            }
            batch.retain(|job| !(job.skippable && job.reply.is_closed()));
            company = batch.len();
            match &self.trouble {
                Some(trouble) => refuse(&mut batch, &StoreError::Unwritable { reason: trouble.reason.clone() }),
                None => self.commit(&mut batch),
            }
        }
        // Closes the file before the thread ends; readers that are at it end first.
        self.shared.db.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits a moment for as many as came the last time: alone, nobody waits; in a crowd, one fsync serves all of it.
    async fn gather(&mut self, batch: &mut Vec<Job<E>>, company: usize) {
        let want = company.min(BATCH);
        let more = async { while batch.len() < want && self.jobs.recv_many(batch, BATCH - batch.len()).await > 0 {} };
        // Out of time is as good as complete.
        let _ = timeout(LINGER, more).await;
    }

    fn commit(&mut self, batch: &mut Vec<Job<E>>) {
        if batch.is_empty() {
            return;
        }
        let (ops, replies): (Vec<_>, Vec<_>) = batch.drain(..).map(|job| (job.op, job.reply)).unzip();
        let started = self.clock.mono();
        let done = self.transact(|engine, txn| engine.apply(txn, &ops));
        self.batch_size.record(ops.len() as f64);
        self.seconds.record(self.clock.mono().since(started).as_secs_f64());
        match done {
            Ok(outs) => {
                for (reply, out) in replies.into_iter().zip(outs) {
                    // Whoever stopped waiting finds the outcome under the same number.
                    let _ = reply.send(out);
                }
            }
            Err(failure) => {
                let error = self.fail(failure);
                for reply in replies {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    fn transact<T>(&self, work: impl FnOnce(&E, &WriteTransaction) -> Result<(T, bool), Error>) -> Result<T, Failure> {
        let db = self.shared.db.read().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_ref().ok_or(Failure::Before(Error::DatabaseClosed))?;
        let before = || -> Result<_, Error> {
            let mut txn = db.begin_write()?;
            txn.set_durability(Durability::Immediate)?;
            let (out, wrote) = work(&self.engine, &txn)?;
            Ok((txn, out, wrote))
        };
        let (txn, out, wrote) = before().map_err(Failure::Before)?;
        if wrote {
            txn.commit().map_err(|e| Failure::Within(e.into()))?;
        } else {
            txn.abort().map_err(|e| Failure::Before(e.into()))?;
        }
        Ok(out)
    }

    /// Notes the failure, opens the database again for the readers, and gives what to tell the callers.
    fn fail(&mut self, failure: Failure) -> StoreError {
        self.shared.writable.store(false, Ordering::Relaxed);
        self.failures.increment(1);
        let (error, within) = match failure {
            Failure::Before(error) => (error, false),
            Failure::Within(error) => (error, true),
        };
        let passing = !within || full(&error);
        let reason = error.to_string();
        tracing::error!(store = E::NAME, %reason, in_commit = within, retried = passing, "the store cannot write");
        self.trouble = Some(Trouble { reason: reason.clone(), tried: self.clock.mono(), passing });
        self.reopen();
        if within { StoreError::Unknown { reason } } else { StoreError::Unwritable { reason } }
    }

    fn reopen(&self) {
        let mut db = self.shared.db.write().unwrap_or_else(PoisonError::into_inner);
        // redb refuses everything after an IO error until it is opened again; the old one must go first, for its lock.
        db.take();
        match (self.open)() {
            Ok(opened) => *db = Some(opened),
            Err(error) => tracing::error!(store = E::NAME, %error, "the store cannot be opened again"),
        }
    }

    /// Tries to write something small, once a second at most.
    fn revive(&mut self) {
        let now = self.clock.mono();
        let Some(trouble) = &mut self.trouble else { return };
        if !trouble.passing || now.since(trouble.tried) < REVIVE {
            return;
        }
        trouble.tried = now;
        if self.shared.db.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen();
        }
        match self.transact(|_, txn| {
            txn.open_table(META)?.insert("revived", now.nanos())?;
            Ok(((), true))
        }) {
            Ok(()) => {
                self.trouble = None;
                self.shared.writable.store(true, Ordering::Relaxed);
                tracing::info!(store = E::NAME, "the store can write again");
            }
            Err(failure) => drop(self.fail(failure)),
        }
    }
}

/// Whether the disk was merely full: nothing is wrong with what it holds.
fn full(error: &Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error, Error::Io(e) if matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

fn refuse<E: Engine>(batch: &mut Vec<Job<E>>, error: &StoreError) {
    for job in batch.drain(..) {
        // Nobody waits: nothing to tell.
        let _ = job.reply.send(Err(error.clone()));
    }
}
