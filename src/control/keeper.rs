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
use super::past::Past;
use crate::base::clock::{Mono, Wall};
use crate::net::sockets::Succession;
use crate::observe::names::control::MEMORY_WRITES;
use crate::snapshot::Snapshot;

/// Between two writes, while generations move.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Between two writes, while nothing happens: well below the age at which a restart stops to believe verdicts.
const REFRESH: Duration = Duration::from_mins(1);
/// Audit lines that may wait for a disk that is slow.
const LINES: usize = 1_000;

/// How a job ended: what went wrong, and the audit lines that are not on disk yet.
type Written = (Result<(), String>, Vec<String>);

/// Writes for the loop.
pub(super) struct Keeper {
    dir: Option<PathBuf>,
    /// Whose files these are, as long as a predecessor may write them.
    succession: Option<Succession>,
    job: Option<JoinHandle<Written>>,
    written: Option<u64>,
    began: Mono,
    urgent: bool,
    lines: Vec<String>,
    failing: bool,
    counters: [Counter; 2],
}

impl Keeper {
    pub(super) fn new(past: impl Into<Past>, now: Mono) -> Self {
        let counters = [MEMORY_WRITES.counter(&["ok"]), MEMORY_WRITES.counter(&["failed"])];
        let Past { state_dir: dir, succession, .. } = past.into();
        Self {
            dir,
            succession,
            job: None,
            written: None,
            began: now,
            urgent: false,
            lines: Vec::new(),
            failing: false,
            counters,
        }
    }

    /// Notes what an operator did; written with the next job, which it hastens.
    pub(super) fn audit(&mut self, event: &Event, generation: u64, wall: Wall) {
        let act = match event {
            Event::Wish(intent) => Act::Wish(intent.clone()),
            Event::Revoke { subject, by } => Act::Revoke { subject: subject.clone(), by: by.clone() },
            _ => return,
        };
        if !self.is_ours() {
            return;
        }
        self.urgent = true;
        if self.dir.is_some() && self.lines.len() < LINES {
            self.lines.push(intent::audit_line(&act, generation, wall));
        }
    }

    /// Begins a write if one is due, and hears of the last one. Never waits.
    pub(super) async fn turn(&mut self, current: &Arc<Snapshot>, now: Mono, wall: Wall) {
        if !self.is_ours() || self.job.as_ref().is_some_and(|job| !job.is_finished()) {
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
        if self.is_ours() {
            self.begin(current, now, wall);
        }
        self.settle().await;
    }

    fn is_ours(&self) -> bool {
        self.succession.as_ref().is_none_or(Succession::is_alone)
    }

    fn begin(&mut self, current: &Arc<Snapshot>, now: Mono, wall: Wall) {
        (self.urgent, self.began, self.written) = (false, now, Some(current.generation));
        let Some(dir) = self.dir.clone() else { return };
        let (snapshot, lines) = (Arc::clone(current), std::mem::take(&mut self.lines));
        let work = move || write(&dir, &Memory::of(&snapshot, now, wall), lines);
        self.job = Some(tokio::task::spawn_blocking(work));
    }

    async fn settle(&mut self) {
        let Some(job) = self.job.take() else { return };
        let (result, left) = job.await.unwrap_or_else(|error| (Err(error.to_string()), Vec::new()));
        // In the order in which they were said; the oldest go where a broken disk has let too many gather.
        self.lines.splice(..0, left);
        let overflow = self.lines.len().saturating_sub(LINES);
        self.lines.drain(..overflow);
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
        if self.failing {
            self.written = None;
        }
    }
}

fn write(dir: &Path, memory: &Memory, lines: Vec<String>) -> Written {
    let mut lines = lines.into_iter();
    let mut write = || {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        while let Some(line) = lines.as_slice().first() {
            intent::audit(dir, line).map_err(|e| format!("the audit log in {}: {e}", dir.display()))?;
            lines.next();
        }
        memory.save(dir).map_err(|e| e.to_string())
    };
    let result = write();
    (result, lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::step::tests::{World, config, wall};
    use crate::snapshot::intent::Subject;

    const MS: Duration = Duration::from_millis(1);

    fn generation_on_disk(dir: &Path) -> Option<u64> {
        Memory::load(dir).unwrap().map(|memory| memory.generation)
    }

    /// A turn, and the end of the job that it may have begun.
    async fn turn(keeper: &mut Keeper, world: &World) {
        keeper.turn(&Arc::new(world.snapshot.clone()), world.now, wall(world.now)).await;
        keeper.settle().await;
    }

    #[tokio::test]
    async fn writes_are_debounced_hastened_and_refreshed() {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::up(config(2, 2));
        let mut keeper = Keeper::new(Some(dir.path().into()), world.now);
        turn(&mut keeper, &world).await;
        assert_eq!(generation_on_disk(dir.path()), None, "not before a second has passed");
        world.now = world.now + DEBOUNCE;
        turn(&mut keeper, &world).await;
        assert_eq!(generation_on_disk(dir.path()), Some(world.snapshot.generation));

        world.snapshot.generation += 1;
        world.now = world.now + 500 * MS;
        turn(&mut keeper, &world).await;
        assert_eq!(generation_on_disk(dir.path()), Some(world.snapshot.generation - 1), "half a second is too soon");
        let revoke = Event::Revoke { subject: Subject::Datacenter("dc0".into()), by: "ann".into() };
        keeper.audit(&revoke, world.snapshot.generation, wall(world.now));
        turn(&mut keeper, &world).await;
        assert_eq!(generation_on_disk(dir.path()), Some(world.snapshot.generation), "an operator's act does not wait");
        assert!(std::fs::read_to_string(dir.path().join("audit.log")).unwrap().contains("ann"));

        let saved = || Memory::load(dir.path()).unwrap().unwrap().saved;
        let before = saved();
        world.now = world.now + REFRESH;
        turn(&mut keeper, &world).await;
        assert_eq!(saved(), before + REFRESH, "a calm minute is written too, or a restart would not believe it");
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_noted_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state");
        std::fs::write(&place, "a file where a folder should be").unwrap();
        let mut world = World::up(config(1, 1));
        let mut keeper = Keeper::new(Some(place.clone()), world.now);
        world.now = world.now + DEBOUNCE;
        let revoke = Event::Revoke { subject: Subject::Datacenter("dc0".into()), by: "ann".into() };
        keeper.audit(&revoke, world.snapshot.generation, wall(world.now));
        turn(&mut keeper, &world).await;
        assert!(keeper.failing);
        std::fs::remove_file(&place).unwrap();
        world.now = world.now + DEBOUNCE;
        turn(&mut keeper, &world).await;
        assert!(!keeper.failing, "though no generation has moved since");
        assert_eq!(generation_on_disk(&place), Some(world.snapshot.generation));
        assert_eq!(std::fs::read_to_string(place.join("audit.log")).unwrap().matches("ann").count(), 1);
    }

    #[tokio::test]
    async fn without_a_folder_nothing_is_kept_and_nothing_grows() {
        let world = World::up(config(1, 1));
        let mut keeper = Keeper::new(None, world.now);
        for _ in 0..10 {
            let revoke = Event::Revoke { subject: Subject::Datacenter("dc0".into()), by: "ann".into() };
            keeper.audit(&revoke, 1, wall(world.now));
            turn(&mut keeper, &world).await;
        }
        assert!(keeper.lines.is_empty() && keeper.job.is_none());
        keeper.last(&Arc::new(world.snapshot.clone()), world.now, wall(world.now)).await;
    }
}
