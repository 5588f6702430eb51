//! `springtide demo`: three datacenters on loopback, as real processes, with everything to try printed ready to paste.
//!
//! `plan` says what runs where (pure), `certs` makes a certificate authority for it, `children` starts, watches, brings
//! back and stops the processes. Nothing outlives the demo: children end when their standard input closes.

mod certs;
mod children;
mod plan;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use children::Children;
use plan::{Plan, Role};

use super::client;

/// How long the nodes may take to agree that everything serves: two probes and a ramp of ten seconds, with room.
const SETTLE_WITHIN: Duration = Duration::from_mins(1);

/// Runs three datacenters on this machine and prints what to try.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Put every port into a block that begins here (DNS, HTTP, HTTPS and admin first, then the upstreams).
    #[arg(long, value_name = "PORT")]
    port_base: Option<u16>,
    /// Keep configurations, logs and data in this folder. Default: a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Bring back a process that died after so long; `0s`: never.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = super::duration)]
    restart_after: Duration,
}

/// Why the demo could not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(
        "{transport} {address} is in use.\nStop whoever listens there, or move the demo: springtide demo --port-base {free}"
    )]
    Busy { transport: &'static str, address: SocketAddr, free: u16 },
    #[error("cannot write the demo's files: {0}")]
    Files(#[from] io::Error),
    #[error("cannot make certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    #[error("not all services came up within {} s: see `springtide status` and the logs", SETTLE_WITHIN.as_secs())]
    Unsettled,
    #[error("{name} did not start: {why}\n{log}")]
    Child { name: String, why: String, log: String },
}

impl DemoArgs {
    #[expect(clippy::print_stderr, reason = "this is the command's output")]
    pub(super) fn run(self) -> ExitCode {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => {
                eprintln!("springtide: no runtime: {e}");
                return ExitCode::FAILURE;
            }
        };
        match runtime.block_on(self.show()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("springtide: {e}");
                ExitCode::FAILURE
            }
        }
    }

    async fn show(self) -> Result<(), DemoError> {
        let plan = Plan::new(self.port_base);
        find_busy(&plan)?;
        let folder = Folder::open(self.dir.clone())?;
        certs::write(&folder.path)?;
        plan.write(&folder.path)?;
        say(&format!("Starting {} processes in three datacenters ...", plan.processes.len()))?;
        let mut children = Children::new(&folder.path, self.restart_after)?;
        children.start(&plan, Role::Upstream).await?;
        children.start(&plan, Role::Node).await?;
        settle(&plan).await?;
        say(&plan.guide(&folder.path, &children.pids()))?;
        children.watch().await?;
        say("\nStopping ...")?;
        children.stop().await;
        Ok(())
    }
}

/// Waits until every node sees every service at its full weight everywhere: those that were started first saw the others
/// missing for a moment.
async fn settle(plan: &Plan) -> Result<(), DemoError> {
    let settled = async {
        for admin in plan.admins() {
            while !is_settled(&admin.to_string()).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::time::timeout(SETTLE_WITHIN, settled).await.map_err(|_| DemoError::Unsettled)
}

async fn is_settled(admin: &str) -> bool {
    let Ok(state) = client::state(admin).await else { return false };
    let mut cells = state.services.iter().flat_map(|service| &service.datacenters);
    cells.all(|cell| cell.factor >= 1.0 && cell.usable == cell.backends)
}

#[expect(clippy::print_stdout, reason = "this is the command's output")]
fn say(text: &str) -> io::Result<()> {
    println!("{text}");
    io::stdout().flush()
}

/// Refuses before anything is started where a port is taken, and names a block that is free.
fn find_busy(plan: &Plan) -> Result<(), DemoError> {
    let Some((transport, address)) = first_busy(plan) else { return Ok(()) };
    let free = (20_000..30_000).step_by(100).find(|&base| first_busy(&Plan::new(Some(base))).is_none());
    Err(DemoError::Busy { transport, address, free: free.unwrap_or(20_000) })
}

fn first_busy(plan: &Plan) -> Option<(&'static str, SocketAddr)> {
    let tcp = plan.tcp().find(|&a| TcpListener::bind(a).is_err()).map(|a| ("TCP", a));
    tcp.or_else(|| plan.udp().find(|&a| UdpSocket::bind(a).is_err()).map(|a| ("UDP", a)))
}

/// Where the demo's files are; removed at the end where it is ours.
struct Folder {
    path: PathBuf,
    ours: bool,
}

impl Folder {
    fn open(asked: Option<PathBuf>) -> io::Result<Self> {
        let ours = asked.is_none();
        let path =
            asked.unwrap_or_else(|| std::env::temp_dir().join(format!("springtide-demo-{}", std::process::id())));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path: path.canonicalize()?, ours })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.ours {
            // Temporary by its name; what cannot be removed is left to the system's own cleaning.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The last lines of a log, for an error message.
fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
