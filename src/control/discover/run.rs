//! The task that asks sources, puts what follows from their answers in force, and writes it down.
//!
//! So many questions at once, a turn at least each second, and no two sets in force within a tenth of one: a source that
//! flaps costs ten topologies a second and no more.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinHandle, JoinSet};

use super::book::{self, Book, Entry};
use super::care::{Care, Failure, Outcome};
use super::look::{self, Look};
use super::{Discovery, names, proves, stands};
use crate::base::clock::{Mono, Wall};
use crate::config::Origin;
use crate::observe::names::discovery as metric;
use crate::snapshot::Discovered;
use crate::snapshot::discovered::SourceKey;

/// Puts lists in force; false where that has failed.
pub type Publish = Box<dyn Fn(Discovered) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Questions under way at a time.
const AT_ONCE: usize = 32;
/// Between two sets that are put in force.
const COALESCE: Duration = Duration::from_millis(100);
/// Before what could not be put in force, or written, is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two writes while nothing but the time of answers has changed.
const REFRESH: Duration = Duration::from_mins(1);
/// Between two turns at the longest, and at the shortest.
const TURN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(10));

/// Follows the sources of every topology that is published, for as long as it is polled.
pub async fn run(discovery: Arc<Discovery>, publish: Publish) {
    let mut generations = discovery.published.subscribe();
    let mut work = Work::default();
    let mut put_at = Mono::ZERO;
    loop {
        let (now, wall) = (discovery.clock.mono(), discovery.clock.wall());
        let snapshot = discovery.published.full();
        discovery.follow(&snapshot);
        discovery.turn(&snapshot, now, wall);
        work.ask(&discovery, wall, now);
        if now >= put_at
            && let Some(lists) = discovery.wanted()
        {
            let done = publish(lists.clone()).await;
            metric::PUBLISHES.counter(&[if done { "ok" } else { "failed" }]).increment(1);
            put_at = discovery.clock.mono() + if done { COALESCE } else { AGAIN };
            if done {
                discovery.put(&lists);
            }
        }
        work.save(&discovery, now).await;
        discovery.turned.send_modify(|turn| *turn += 1);
        let pause = discovery.pause(put_at, now);
        tokio::select! {
            Some((key, outcome)) = work.answered() => discovery.settle(&key, outcome),
            () = another(&discovery, &mut generations) => {}
            () = discovery.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Waits for another topology: what else moves is no concern of sources.
async fn another(discovery: &Discovery, generations: &mut watch::Receiver<u64>) {
    let serial = discovery.lock().serial;
    while serial == Some(discovery.published.load().topology.serial) {
        if generations.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Discovery {
    /// How long there is nothing to do.
    fn pause(&self, put_at: Mono, now: Mono) -> Duration {
        let state = self.lock();
        let asks = state.cares.values().filter(|care| !care.asking).map(|care| care.due);
        let lapses = state.cares.values().filter_map(|care| care.registry.as_ref()?.next());
        let puts = state.dirty.then_some(put_at);
        let next = asks.chain(lapses).chain(puts).min().unwrap_or(Mono::NEVER);
        next.since(now).clamp(TURN.1, TURN.0)
    }

    fn settle(&self, key: &SourceKey, outcome: Option<Outcome>) {
        let (now, wall) = (self.clock.mono(), self.clock.wall());
        let snapshot = self.published.full();
        let mut state = self.lock();
        if state.serial != Some(snapshot.topology.serial) {
            // Ids of a source are of the topology that it was read from: the next turn asks again.
            if let Some(care) = state.cares.get_mut(key) {
                (care.asking, care.due) = (false, now);
            }
            return;
        }
        let Some(care) = state.cares.get_mut(key) else { return };
        let stand = stands(&snapshot, &care.source);
        let source = care.source.clone();
        let proven = |address| proves(&snapshot, &source, &stand, address);
        let changed = match outcome {
            Some(outcome) => care.settle(outcome, proven, now, wall),
            // It broke: a fault of ours, which the log has.
            None => care.settle(Outcome::Failed(Failure::Unanswered, None), proven, now, wall),
        };
        state.dirty |= changed;
        state.unsaved |= changed;
    }
}

/// What is under way.
#[derive(Default)]
struct Work {
    asking: JoinSet<Outcome>,
    asked: HashMap<Id, SourceKey>,
    saving: Option<JoinHandle<bool>>,
    saved_at: Option<Mono>,
}

impl Work {
    /// Asks whoever is due, as far as there is room.
    fn ask(&mut self, discovery: &Discovery, wall: Wall, now: Mono) {
        let resolvers = discovery.published.load().topology.config.discovery.resolvers.clone();
        let mut state = discovery.lock();
        let mut due: Vec<&mut Care> = state.cares.values_mut().filter(|care| !care.asking && care.due <= now).collect();
        // Who has waited longest goes first, lest silent sources keep the others from being asked.
        due.sort_by_key(|care| care.due);
        for care in due.into_iter().take(AT_ONCE.saturating_sub(self.asking.len())) {
            care.asking = true;
            let id = self.asking.spawn(question(care, resolvers.clone(), wall)).id();
            self.asked.insert(id, care.key.clone());
        }
    }

    /// The next answer, and to whose question; none where it broke. `None` where no question is out.
    async fn answered(&mut self) -> Option<(SourceKey, Option<Outcome>)> {
        let (id, outcome) = match self.asking.join_next_with_id().await? {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(broken) => (broken.id(), None),
        };
        Some((self.asked.remove(&id)?, outcome))
    }

    /// Writes what is known, if there is news and the last write has ended. Never waits for the disk.
    async fn save(&mut self, discovery: &Discovery, now: Mono) {
        let Some(dir) = discovery.state_dir.clone().filter(|_| discovery.keeps()) else { return };
        if let Some(saving) = self.saving.take() {
            if !saving.is_finished() {
                self.saving = Some(saving);
                return;
            }
            let ok = saving.await.unwrap_or(false);
            metric::WRITES.counter(&[if ok { "ok" } else { "failed" }]).increment(1);
            discovery.lock().unsaved |= !ok;
        }
        let rested = self.saved_at.map_or(REFRESH, |at| now.since(at));
        let mut state = discovery.lock();
        let none = state.cares.is_empty();
        if rested >= REFRESH && !none || state.unsaved && rested >= AGAIN {
            (state.unsaved, self.saved_at) = (false, Some(now));
            let book = Book::of(state.cares.values().filter(|care| care.heard).map(entry).collect());
            drop(state);
            let write = move || {
                let saved = book::save(&book, &dir);
                saved.inspect_err(|error| tracing::warn!(target: "discovery", %error, "not written")).is_ok()
            };
            self.saving = Some(tokio::task::spawn_blocking(write));
        }
    }
}

fn entry(care: &Care) -> Entry {
    Entry {
        source: care.key.clone(),
        answered: care.answered.unwrap_or_default(),
        backends: care.list.to_vec(),
        ttls_ms: care.registry.as_ref().map(super::registry::Registry::ttls_ms).unwrap_or_default(),
    }
}

/// One question to the source of `care`.
fn question(
    care: &Care,
    resolvers: Vec<std::net::SocketAddr>,
    wall: Wall,
) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
    let weight = care.source.weight;
    let heard = |told: names::Told| match told {
        Some((found, holds)) => Outcome::Heard(found, holds, None),
        None => Outcome::Failed(Failure::Unanswered, None),
    };
    match care.source.origin.clone() {
        Origin::Dns { name, port } => {
            Box::pin(async move { heard(names::addresses(&resolvers, &name, port, weight).await) })
        }
        Origin::Srv { name } => Box::pin(async move { heard(names::services(&resolvers, &name, weight).await) }),
        Origin::File { path, port } => {
            let (seen, hasty) = care.seen();
            let look = move || look::look(&path, port, weight, seen, hasty, wall);
            Box::pin(async move {
                match tokio::task::spawn_blocking(look).await {
                    Ok(Look::Same) => Outcome::Same,
                    Ok(Look::Young) => Outcome::Young,
                    Ok(Look::List(found, seen)) => Outcome::Heard(found, Duration::ZERO, Some(seen)),
                    Ok(Look::Unreadable(error)) => Outcome::Failed(Failure::Unreadable(error), None),
                    Ok(Look::Mistake(mistake, seen)) => Outcome::Failed(Failure::Mistake(mistake), Some(seen)),
                    Err(_) => Outcome::Failed(Failure::Unreadable(std::io::Error::other("the look broke")), None),
                }
            })
        }
        // It tells by itself.
        Origin::Register { .. } => Box::pin(std::future::pending()),
    }
}
