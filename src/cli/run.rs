//! `springtide run`: a node, until it is told to stop.
//!
//! SIGHUP reads the configuration again; SIGUSR1 opens the logs of requests again; SIGUSR2 has a new process take this one's place; SIGTERM or Ctrl-C finishes what
//! runs and ends; a second one ends at once. Once everything serves, one line of JSON on standard output says where, and
//! systemd is told, where it has asked to be.

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::base::task;
use crate::net::heritage::Heritage;
use crate::net::sys;
use crate::net::systemd::Manager;
use crate::observe::{pen, recorder, trace};
use crate::router::upgrade::{Predecessor, Program};
use crate::router::{Addresses, Life, Router};

/// Within what time workers are heard of: each says so once a second.
const LIVES_WITHIN: Duration = Duration::from_secs(3);
/// What systemd shows of a node that serves.
const SERVING: &str = "serving";

/// Runs a node.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines are written.
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: trace::Format,
    /// What is logged: `info`, or `warn,reload=info`, as in tracing's filters.
    #[arg(long, value_name = "FILTER", env = "SPRINGTIDE_LOG", default_value = "info")]
    log: String,
    /// End when standard input closes: for a parent that must not leave children behind.
    #[arg(long)]
    while_stdin_open: bool,
}

/// The line that says that everything serves.
#[derive(Serialize)]
struct Line<'a> {
    ready: bool,
    pid: u32,
    #[serde(flatten)]
    addresses: &'a Addresses,
}

impl RunArgs {
    #[expect(clippy::print_stderr, reason = "an error before there is a log")]
    pub(super) fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("admin")
            .enable_all()
            .build()
            .map_err(|e| e.to_string());
        let ran = runtime.and_then(|runtime| runtime.block_on(self.serve()));
        match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::FAILURE
            }
        }
    }

    async fn serve(self) -> Result<(), String> {
        let _logs = trace::init(self.log_format, &self.log).map_err(|e| e.to_string())?;
        recorder::install();
        match sys::raise_descriptor_limit() {
            Ok(descriptors) => debug!(descriptors, "limit of open files"),
            Err(error) => warn!(%error, "the limit of open files stays as it is"),
        }
        let mut signals = Signals::new().map_err(|e| format!("cannot listen for signals: {e}"))?;
        let Some(router) = self.start(&mut signals).await? else { return Ok(()) };
        let _upkeep = task::spawn("metrics-upkeep", async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                recorder::upkeep();
            }
        });
        let manager = Arc::new(Manager::of_environment());
        announce(router.addresses());
        manager.ready(SERVING);
        let _watchdog = manager.watchdog().map(|pace| {
            let (manager, life) = (Arc::clone(&manager), router.life());
            task::spawn("watchdog", watch(manager, life, pace))
        });
        if !self.until_the_end(&router, &manager, &mut signals).await {
            manager.stopping("finishing what runs");
            info!("stopping: finishing what runs");
            tokio::select! {
                () = router.stop() => {}
                () = signals.stop() => info!("told again: stopping at once"),
            }
            return Ok(());
        }
        let limit = router.snapshot().topology.config.node.leaving.drain;
        let is_taken = tokio::select! {
            is_taken = router.hand_over() => is_taken,
            () = signals.stop() => {
                info!(?limit, "told to stop: what still runs has so long");
                tokio::select! {
                    () = tokio::time::sleep(limit) => {}
                    () = signals.stop() => {}
                }
                true
            }
        };
        if is_taken { Ok(()) } else { Err("the new process ended before everything was handed over".into()) }
    }

    /// Starts; behind a predecessor, serves beside it until it has let go. `None`: was told to stop meanwhile.
    async fn start(&self, signals: &mut Signals) -> Result<Option<Router>, String> {
        let Heritage { sockets, line } = Heritage::take();
        let mut predecessor = match line {
            Some(line) => {
                Some(Predecessor::meet(line).await.map_err(|e| format!("the predecessor cannot be heard: {e}"))?)
            }
            None => None,
        };
        let told = predecessor.as_mut().and_then(Predecessor::known);
        let builder = Router::builder().file(&self.config).sockets(Arc::new(sockets)).told(told);
        let started = builder.program(Program::of_this_process()).start().await.map_err(|e| e.to_string());
        let Some(predecessor) = predecessor else { return started.map(Some) };
        let mut router = match started {
            Ok(router) => router,
            Err(why) => {
                predecessor.failed(&why).await;
                return Err(why);
            }
        };
        tokio::select! {
            last = predecessor.relieve() => router.take_over(last).await.map_err(|e| e.to_string())?,
            () = signals.stop() => {
                router.stop().await;
                return Ok(None);
            }
        }
        Ok(Some(router))
    }

    /// Runs until the node is to stop, or (then true) until a new process serves in its place.
    async fn until_the_end(&self, router: &Router, manager: &Manager, signals: &mut Signals) -> bool {
        let (closed, upgrader) = (closed(self.while_stdin_open), router.upgrader());
        tokio::pin!(closed);
        loop {
            tokio::select! {
                what = signals.next() => match what {
                    Told::Reload => {
                        manager.reloading();
                        // A refused reload has been logged, with every finding.
                        let reloaded = router.reload().await;
                        manager.ready(if reloaded.is_ok() { SERVING } else { "serving; the last reload was refused" });
                    }
                    Told::Reopen => pen::reopen(),
                    // How it went is logged.
                    Told::Upgrade => {
                        let upgrader = upgrader.clone();
                        task::spawn("upgrade by signal", async move { drop(upgrader.upgrade().await) }).detach();
                    }
                    Told::Stop => return false,
                },
                () = &mut closed => return false,
                pid = upgrader.made_way() => {
                    manager.goes_on_in(pid);
                    return true;
                }
            }
        }
    }
}

/// Tells `manager` that the node lives, as long as it does.
async fn watch(manager: Arc<Manager>, life: Life, pace: Duration) {
    loop {
        tokio::time::sleep(pace).await;
        if life.is_fine(pace.max(LIVES_WITHIN)).await {
            manager.lives();
        } else {
            warn!("no sign of life from the health core or a worker: the watchdog is not told that this node lives");
        }
    }
}

fn announce(addresses: &Addresses) {
    let line = Line { ready: true, pid: std::process::id(), addresses };
    // Whoever read it of a predecessor may have gone.
    let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&line).unwrap_or_default());
}

/// Ends when standard input closes, if that was asked for. A thread of its own reads: it may never return, and must not
/// keep the runtime from ending.
pub(super) async fn closed(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let (mut stdin, mut scrap) = (std::io::stdin().lock(), [0; 64]);
        while !matches!(stdin.read(&mut scrap), Ok(0) | Err(_)) {}
        tell.send(())
    });
    let _ = told.await;
}

enum Told {
    Reload,
    Upgrade,
    Reopen,
    Stop,
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hup.recv() => Told::Reload,
            _ = self.usr1.recv() => Told::Reopen,
            _ = self.usr2.recv() => Told::Upgrade,
            _ = self.term.recv() => Told::Stop,
            _ = self.int.recv() => Told::Stop,
        }
    }

    /// Ends at the next request to stop.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
