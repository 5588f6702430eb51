//! A new process takes the place of this one, and no request notices.
//!
//! ```text
//!   this one    serves ------- "known" ----------- "yours" -> drains -> ends
//!   the new one         started ... serves: "ready" ... keeps the state from here on
//!                              | "failed", silence, an end: killed; this one serves on
//! ```
//!
//! The program is started from its own path again: from the file that stands there now. It comes with all listening sockets
//! and a line to this process ([`line`](mod@line)). Until this process says "yours", the new one writes no state, answers no
//! admin request and begins no QUIC; from then on this one does none of that. One upgrade at a time, and a bounded number of
//! old processes that still drain.

mod elders;
mod line;
mod program;

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as Cell, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use line::Predecessor;
pub use program::Program;

use crate::admin;
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::base::task;
use crate::control::memory::Memory;
use crate::net::heritage::{OF_SYSTEMD, PREDECESSOR, SOCKETS};
use crate::net::sockets::Sockets;
use crate::net::sys::descriptors;
use crate::observe::names::control::UPGRADES;
use crate::snapshot::Published;
use elders::Elder;
use line::{Line, Word};

/// How long a new process may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long one that has hung up may take to end, and one that is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Why there was no upgrade. This process serves on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// One is enough.
    #[error("an upgrade is under way already")]
    Busy,
    /// An embedder has not said what to start.
    #[error("this router was not told what program it is")]
    NoProgram,
    /// The end of process 1 is the end of everything beside it.
    #[error("this is process 1 of its container, and the container ends with it: replace the container instead")]
    First,
    /// Too many wait for their last clients.
    #[error(
        "{} old processes still finish their work ({pids:?}), and `node.old_processes` allows {most}: wait, or end one of them",
        pids.len()
    )]
    TooMany {
        /// Which.
        pids: Vec<u32>,
        /// How many may.
        most: usize,
    },
    /// The file is no program any more, or the system has no room for another process.
    #[error("{} cannot be started: {source}", path.display())]
    Spawn {
        /// What was to be started.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The new process said why it cannot serve.
    #[error("the new process cannot serve: {why}")]
    Failed {
        /// What it said.
        why: String,
    },
    /// The new process ended without a word.
    #[error("the new process ended before it served ({status}): its log may say more")]
    Ended {
        /// How.
        status: String,
    },
    /// The new process took too long, and was killed.
    #[error("the new process did not serve within {} s and was killed", READY_WITHIN.as_secs())]
    Late,
    /// The task that watched over it is gone.
    #[error("a fault of the router's own broke off the upgrade: please report what the log says")]
    Fault,
}

/// The last upgrade, where it failed.
#[derive(Debug)]
struct Failed {
    at: Mono,
    why: String,
}

/// The process that has taken over, or is about to.
struct Heir {
    child: Child,
    line: Line,
}

/// Upgrades, one at a time.
#[derive(Clone)]
pub struct Upgrader(Arc<Inner>);

struct Inner {
    program: Option<Program>,
    sockets: Arc<Sockets>,
    published: Arc<Published>,
    elders: Vec<Elder>,
    turn: Mutex<()>,
    heir: Cell<Option<Heir>>,
    failed: ArcSwapOption<Failed>,
    made_way: CancellationToken,
}

impl Upgrader {
    pub(super) fn new(program: Option<Program>, sockets: Arc<Sockets>, published: Arc<Published>) -> Self {
        Self(Arc::new(Inner {
            program,
            sockets,
            published,
            elders: elders::of_environment(),
            turn: Mutex::new(()),
            heir: Cell::new(None),
            failed: ArcSwapOption::empty(),
            made_way: CancellationToken::new(),
        }))
    }

    /// Starts the program anew and waits until it serves; gives its process id. What follows is the owner's to do: see
    /// [`Upgrader::made_way`]. It goes on also where nobody waits for it any more.
    ///
    /// # Errors
    /// Why not. Nothing has changed then.
    pub async fn upgrade(&self) -> Result<u32, UpgradeError> {
        let (tell, told) = oneshot::channel();
        let upgrader = self.clone();
        task::spawn("upgrade", async move {
            // Who asked may have gone.
            let _ = tell.send(upgrader.run().await);
        })
        .detach();
        told.await.unwrap_or(Err(UpgradeError::Fault))
    }

    /// Waits until a new process serves, and this one is to hand over; gives the new one's id.
    pub async fn made_way(&self) -> u32 {
        self.0.made_way.cancelled().await;
        let heir = self.0.heir.lock().unwrap_or_else(PoisonError::into_inner);
        heir.as_ref().and_then(|heir| heir.child.id()).unwrap_or_default()
    }

    /// Processes that were here before this one, and still finish their work.
    pub fn old_processes(&self) -> Vec<u32> {
        elders::alive(&self.0.elders).into_iter().map(|elder| elder.pid).collect()
    }

    /// The admin API's way to upgrade.
    pub(super) fn hook(&self) -> admin::Upgrade {
        let upgrader = self.clone();
        Arc::new(move || {
            let upgrader = upgrader.clone();
            Box::pin(async move {
                let generation = upgrader.0.published.load().generation;
                let pid = upgrader.upgrade().await.map_err(|e| e.to_string())?;
                Ok(json!({ "pid": pid, "generation": generation }))
            })
        })
    }

    /// What the admin API tells of upgrades.
    pub(super) fn report(&self) -> admin::LastUpgrade {
        let upgrader = self.clone();
        Box::new(move || {
            let failed = upgrader.0.failed.load_full();
            let failed = failed.map(|f| admin::RefusalReport {
                for_s: SystemClock.mono().since(f.at).as_secs_f64(),
                findings: f.why.clone(),
            });
            (upgrader.old_processes(), failed)
        })
    }

    /// Tells the heir that all is its own. False: it is not there any more.
    pub(super) async fn bequeath(&self, memory: Memory) -> bool {
        let heir = self.0.heir.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Heir { mut child, mut line }) = heir else { return false };
        let lives = matches!(child.try_wait(), Ok(None));
        lives && line.tell(&Word::Yours(Box::new(memory))).await.is_ok()
    }

    async fn run(&self) -> Result<u32, UpgradeError> {
        let Ok(_turn) = self.0.turn.try_lock() else { return Err(UpgradeError::Busy) };
        if self.0.made_way.is_cancelled() {
            return Err(UpgradeError::Busy);
        }
        info!(target: "upgrade", "starting a new process");
        match self.attempt().await {
            Ok((heir, pid)) => {
                info!(target: "upgrade", pid, "the new process serves: handing over");
                UPGRADES.counter(&["ok"]).increment(1);
                *self.0.heir.lock().unwrap_or_else(PoisonError::into_inner) = Some(heir);
                self.0.made_way.cancel();
                Ok(pid)
            }
            Err(e) => {
                error!(target: "upgrade", "no upgrade, this process serves on: {e}");
                UPGRADES.counter(&["failed"]).increment(1);
                self.0.failed.store(Some(Arc::new(Failed { at: SystemClock.mono(), why: e.to_string() })));
                Err(e)
            }
        }
    }

    async fn attempt(&self) -> Result<(Heir, u32), UpgradeError> {
        let program = self.0.program.as_ref().ok_or(UpgradeError::NoProgram)?;
        if std::process::id() == 1 {
            return Err(UpgradeError::First);
        }
        let elders = elders::alive(&self.0.elders);
        let most = self.0.published.load().topology.config.node.leaving.old_processes;
        if elders.len() >= most {
            return Err(UpgradeError::TooMany { pids: elders.iter().map(|e| e.pid).collect(), most });
        }
        let (mut child, mut line) = self
            .spawn(program, &elders)
            .map_err(|source| UpgradeError::Spawn { path: program.path().to_owned(), source })?;
        let known = Memory::of(&self.0.published.full(), SystemClock.mono(), SystemClock.wall());
        let asked = async {
            // Where it does not listen, what it says tells why.
            let _ = line.tell(&Word::Known(Box::new(known))).await;
            line.hear().await
        };
        let said = timeout(READY_WITHIN, asked).await;
        if let (Ok(Ok(Some(Word::Ready))), Some(pid)) = (&said, child.id()) {
            return Ok((Heir { child, line }, pid));
        }
        let has_ended = said.is_ok();
        let grace = if has_ended { END_WITHIN } else { Duration::ZERO };
        let mut ended = timeout(grace, child.wait()).await;
        if ended.is_err() {
            // It hangs, or has hung up without an end.
            let _ = child.start_kill();
            ended = timeout(END_WITHIN, child.wait()).await;
        }
        let status = ended.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        Err(match said {
            Ok(Ok(Some(Word::Failed(why)))) => UpgradeError::Failed { why },
            Ok(_) => UpgradeError::Ended { status: status.map_or_else(|e| e.to_string(), |s| s.to_string()) },
            Err(_) => UpgradeError::Late,
        })
    }

    /// Starts `program` with all listening sockets.
    fn spawn(&self, program: &Program, elders: &[Elder]) -> std::io::Result<(Child, Line)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = program.command();
        // What systemd has said to this process alone.
        for name in OF_SYSTEMD.iter().chain(&["WATCHDOG_PID"]) {
            command.env_remove(name);
        }
        command.env(PREDECESSOR, format!("{}:{}", std::process::id(), theirs.as_raw_fd()));
        command.env(elders::VARIABLE, elders::with_this_process(elders));
        let child = self.0.sockets.lend(|lent| {
            let names = lent.iter().map(|(number, is_any)| format!("{number}{}", if *is_any { "a" } else { "" }));
            command.env(SOCKETS, names.collect::<Vec<_>>().join(","));
            let numbers = lent.iter().map(|(number, _)| *number).chain([theirs.as_raw_fd()]).collect();
            descriptors::pass_on(&mut command, numbers);
            Command::from(command).spawn()
        })?;
        Ok((child, Line::new(ours)?))
    }
}
