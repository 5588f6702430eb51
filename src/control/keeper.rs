//! Keeps the last-known-good and the audit log on disk, off the loop: one job at a time on a thread that may block.
//!
//! A generation that moved is written within a second, an operator's act at once, and something every minute, so that
//! what a restart finds is never old. A disk that is full or read-only is told of once, counted each time, and never
//! stops anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use tokio::task::JoinHandle;

use super::event::Event;
use super::intent::{self, Act};
use super::memory::Memory;
use crate::base::clock::{Mono, Wall};
use crate::observe::names::control::MEMORY_WRITES;
use crate::snapshot::Snapshot;

/// Between two writes, while generations move.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Between two writes, while nothing happens: well below the age at which a restart stops to believe verdicts.
const REFRESH: Duration = Duration::from_mins(1);
/// Audit lines that may wait for a disk that is slow.
const LINES: usize = 1_000;

/// Writes for the loop.
pub(super) struct Keeper {
    dir: Option<PathBuf>,
    job: Option<JoinHandle<Result<(), String>>>,
    written: Option<u64>,
    began: Mono,
    urgent: bool,
    lines: Vec<String>,
    failing: bool,
    counters: [Counter; 2],
}

impl Keeper {
    pub(super) fn new(dir: Option<PathBuf>, now: Mono) -> Self {
        let counters = [MEMORY_WRITES.counter(&["ok"]), MEMORY_WRITES.counter(&["failed"])];
        Self { dir, job: None, written: None, began: now, urgent: false, lines: Vec::new(), failing: false, counters }
    }

    /// Notes what an operator did; written with the next job, which it hastens.
    pub(super) fn audit(&mut self, event: &Event, generation: u64, wall: Wall) {
        let act = match event {
            Event::Wish(intent) => Act::Wish(intent.clone()),
            Event::Revoke { subject, by } => Act::Revoke { subject: subject.clone(), by: by.clone() },
            _ => return,
        };
        self.urgent = true;
        if self.dir.is_some() && self.lines.len() < LINES {
            self.lines.push(intent::audit_line(&act, generation, wall));
        }
    }

    /// Begins a write if one is due, and hears of the last one. Never waits.
    pub(super) async fn turn(&mut self, current: &Arc<Snapshot>, now: Mono, wall: Wall) {
        if self.job.as_ref().is_some_and(|job| !job.is_finished()) {
            return;
        }
        self.settle().await;
        let rested = now.since(self.began);
        let moved = self.written != Some(current.generation) && rested >= DEBOUNCE;
        if self.urgent || moved || rested >= REFRESH {
            self.begin(current, now, wall);
        }
    }

    /// Writes for the last time, after what is under way.
    pub(super) async fn last(&mut self, current: &Arc<Snapshot>, now: Mono, wall: Wall) {
        self.settle().await;
        self.begin(current, now, wall);
        self.settle().await;
    }

    fn begin(&mut self, current: &Arc<Snapshot>, now: Mono, wall: Wall) {
        (self.urgent, self.began, self.written) = (false, now, Some(current.generation));
        let Some(dir) = self.dir.clone() else { return };
        let (snapshot, lines) = (Arc::clone(current), std::mem::take(&mut self.lines));
        let work = move || write(&dir, &Memory::of(&snapshot, now, wall), &lines);
        self.job = Some(tokio::task::spawn_blocking(work));
    }

    async fn settle(&mut self) {
        let Some(job) = self.job.take() else { return };
        let result = job.await.unwrap_or_else(|error| Err(error.to_string()));
        self.counters[usize::from(result.is_err())].increment(1);
        match &result {
            Ok(()) if self.failing => tracing::info!("the last-known-good is on disk again"),
            Err(error) if !self.failing => {
                tracing::warn!(
                    error,
                    "the last-known-good cannot be written: a restart would begin with older knowledge"
                );
            }
            _ => {}
        }
        self.failing = result.is_err();
    }
}

fn write(dir: &Path, memory: &Memory, lines: &[String]) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let audited = lines.iter().try_for_each(|line| intent::audit(dir, line));
    memory.save(dir).map_err(|e| e.to_string())?;
    audited.map_err(|e| format!("the audit log in {}: {e}", dir.display()))
}
