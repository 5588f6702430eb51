//! The demo's processes: started in order, watched, brought back when they die, stopped together.
//!
//! A child is ready when it has said so on its standard output (one line of JSON). Its standard input is a pipe whose
//! closing tells it to end: nothing outlives the demo, not even when the demo is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::plan::{Plan, Process, Role};
use super::{DemoError, say, tail};
use crate::base::task::{self, Task};

const READY_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What became of a process.
enum News {
    Ended { process: Process, status: Option<ExitStatus> },
    Back { name: String, pid: u32 },
}

/// The processes of the demo.
pub(super) struct Children {
    folder: PathBuf,
    restart_after: Duration,
    running: BTreeMap<String, Running>,
    news: mpsc::Receiver<News>,
    report: mpsc::Sender<News>,
}

struct Running {
    pid: u32,
    stop: tokio_util::sync::CancellationToken,
    watch: Task,
}

impl Children {
    pub(super) fn new(folder: &Path, restart_after: Duration) -> Result<Self, DemoError> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let (report, news) = mpsc::channel(256);
        Ok(Self { folder: folder.to_owned(), restart_after, running: BTreeMap::new(), news, report })
    }

    /// Starts every process of `role`, all at once, and waits until each is ready.
    pub(super) async fn start(&mut self, plan: &Plan, role: Role) -> Result<(), DemoError> {
        let mut waiting = Vec::new();
        for process in plan.processes.iter().filter(|p| p.role == role) {
            std::fs::create_dir_all(self.folder.join("data").join(process.name.replace('/', "-")))?;
            waiting.push((process.clone(), self.launch(process)?));
        }
        for (process, child) in waiting {
            self.adopt(process, child).await?;
        }
        self.note();
        Ok(())
    }

    /// Writes the pids to `pids.json` in the demo's folder, for scripts.
    fn note(&self) {
        let pids: BTreeMap<_, _> = self.pids().into_iter().filter(|(_, pid)| *pid != 0).collect();
        let text = serde_json::to_string_pretty(&pids).unwrap_or_default();
        // A convenience: the demo runs on without it.
        let _ = std::fs::write(self.folder.join("pids.json"), text);
    }

    /// Pids by name, of what runs now.
    pub(super) fn pids(&self) -> BTreeMap<String, u32> {
        self.running.iter().map(|(name, r)| (name.clone(), r.pid)).collect()
    }

    /// Watches until somebody asks to stop; brings back what died.
    pub(super) async fn watch(&mut self) -> Result<(), DemoError> {
        let mut term = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                _ = term.recv() => return Ok(()),
                Some(news) = self.news.recv() => self.hear(news)?,
            }
        }
    }

    fn hear(&mut self, news: News) -> Result<(), DemoError> {
        match news {
            News::Ended { process, status } => {
                let how = status.map_or_else(|| "unknown".into(), |s| s.to_string());
                self.running.remove(&process.name);
                if self.restart_after.is_zero() {
                    say(&format!("{} ended: {how}", process.name))?;
                } else {
                    let wait = crate::base::units::show_duration(self.restart_after);
                    say(&format!("{} ended: {how}; back in {wait}", process.name))?;
                    self.bring_back(process);
                }
            }
            News::Back { name, pid } => {
                say(&format!("{name} is back: pid {pid}"))?;
                if let Some(running) = self.running.get_mut(&name) {
                    running.pid = pid;
                }
            }
        }
        self.note();
        Ok(())
    }

    /// Waits and starts `process` again, on a task, so that others are watched meanwhile.
    fn bring_back(&mut self, process: Process) {
        let (folder, after, report) = (self.folder.clone(), self.restart_after, self.report.clone());
        let stop = tokio_util::sync::CancellationToken::new();
        let name = process.name.clone();
        let watch = task::spawn("demo-restart", {
            let stop = stop.clone();
            async move {
                tokio::time::sleep(after).await;
                let started = match launch(&folder, &process) {
                    Ok(child) => ready(&folder, &process, child).await,
                    Err(e) => Err(e),
                };
                match started {
                    Ok(child) => {
                        let back = News::Back { name: process.name.clone(), pid: child.id().unwrap_or(0) };
                        let _ = report.send(back).await;
                        attend(process, child, stop, report).await;
                    }
                    Err(e) => {
                        let _ = say(&format!("{e}"));
                    }
                }
            }
        });
        self.running.insert(name, Running { pid: 0, stop, watch });
    }

    /// Tells every child to end, nodes first so that nothing is sent to what is gone, and waits.
    pub(super) async fn stop(self) {
        let (nodes, upstreams): (Vec<_>, Vec<_>) =
            self.running.into_iter().partition(|(name, _)| name.ends_with("/edge") || name == "gslb");
        for group in [nodes, upstreams] {
            for (_, running) in &group {
                running.stop.cancel();
            }
            for (_, running) in group {
                let _ = timeout(STOP_WITHIN, running.watch.ended()).await;
            }
        }
    }

    fn launch(&self, process: &Process) -> Result<Child, DemoError> {
        launch(&self.folder, process)
    }

    async fn adopt(&mut self, process: Process, child: Child) -> Result<(), DemoError> {
        let child = ready(&self.folder, &process, child).await?;
        let stop = tokio_util::sync::CancellationToken::new();
        let pid = child.id().unwrap_or(0);
        let name = process.name.clone();
        let watch = task::spawn("demo-child", attend(process, child, stop.clone(), self.report.clone()));
        self.running.insert(name, Running { pid, stop, watch });
        Ok(())
    }
}

fn log_of(folder: &Path, process: &Process) -> PathBuf {
    folder.join("logs").join(format!("{}.log", process.name.replace('/', "-")))
}

fn launch(folder: &Path, process: &Process) -> Result<Child, DemoError> {
    let log = File::options().create(true).append(true).open(log_of(folder, process))?;
    let dir = folder.display().to_string();
    let child = Command::new(std::env::current_exe()?)
        .args(process.args.iter().map(|a| a.replace("{dir}", &dir)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .process_group(0)
        .spawn()?;
    Ok(child)
}

/// Waits for the line that says that `child` serves.
async fn ready(folder: &Path, process: &Process, mut child: Child) -> Result<Child, DemoError> {
    let failed =
        |why: String| DemoError::Child { name: process.name.clone(), why, log: tail(&log_of(folder, process), 8) };
    let Some(stdout) = child.stdout.take() else { return Err(failed("no standard output".into())) };
    let mut lines = BufReader::new(stdout).lines();
    let said = async {
        while let Some(line) = lines.next_line().await.ok().flatten() {
            if line.contains("\"ready\":true") {
                return true;
            }
        }
        false
    };
    match timeout(READY_WITHIN, said).await {
        Ok(true) => Ok(child),
        Ok(false) => {
            let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            Err(failed(format!("it ended ({status})")))
        }
        Err(_) => Err(failed(format!("not ready within {} s", READY_WITHIN.as_secs()))),
    }
}

/// Waits until `child` ends by itself, or ends it when told to.
async fn attend(
    process: Process,
    mut child: Child,
    stop: tokio_util::sync::CancellationToken,
    report: mpsc::Sender<News>,
) {
    // `wait` would close it, and a closed standard input tells the child to end.
    let stdin = child.stdin.take();
    tokio::select! {
        status = child.wait() => {
            let _ = report.send(News::Ended { process, status: status.ok() }).await;
        }
        () = stop.cancelled() => {
            drop(stdin);
            if timeout(STOP_WITHIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}
