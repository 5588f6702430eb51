//! `springtide run`: a node, until it is told to stop.
//!
//! SIGHUP reads the configuration again; SIGTERM or Ctrl-C finishes what runs and ends; a second one ends at once. Once
//! everything serves, one line of JSON on standard output says where.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::base::task;
use crate::net::sys;
use crate::observe::{recorder, trace};
use crate::router::{Addresses, Router};

/// Runs a node.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// How log lines are written.
    #[arg(long, value_name = "text|json", default_value = "text")]
    log_format: trace::Format,
    /// What is logged: `info`, or `warn,access=info`, as in tracing's filters.
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
        let router = Router::builder().file(&self.config).start().await.map_err(|e| e.to_string())?;
        let _upkeep = task::spawn("metrics-upkeep", async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                recorder::upkeep();
            }
        });
        announce(router.addresses());
        let closed = closed(self.while_stdin_open);
        tokio::pin!(closed);
        loop {
            tokio::select! {
                what = signals.next() => match what {
                    // A refused reload has been logged, with every finding.
                    Told::Reload => drop(router.reload().await),
                    Told::Stop => break,
                },
                () = &mut closed => break,
            }
        }
        info!("stopping: finishing what runs");
        tokio::select! {
            () = router.stop() => {}
            () = signals.stop() => info!("told again: stopping at once"),
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the ready line is the output")]
fn announce(addresses: &Addresses) {
    let line = Line { ready: true, pid: std::process::id(), addresses };
    println!("{}", serde_json::to_string(&line).unwrap_or_default());
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
    Stop,
}

struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hup.recv() => Told::Reload,
            _ = self.term.recv() => Told::Stop,
            _ = self.int.recv() => Told::Stop,
        }
    }

    /// Ends at the next request to stop.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Told::Stop) {}
    }
}
