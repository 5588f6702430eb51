//! Finds backends: asks sources, believes what may be believed, and has the set that follows from it put in force.
//!
//! One idea: a source yields the backends of a service in a datacenter, each with an address, a weight, perhaps a name. There
//! are four ways to ask (addresses of a name, SRV records, a file, heartbeats); what is heard goes through one rule
//! (`decide::discover`) into one list a source, and all lists into one topology, which is put in force exactly as a reload is:
//! who stays keeps health, latency, connections and ejections; who is new joins by its first good probe and slow start; who
//! has gone finishes what it has. The sets are on disk, for a start without an answer.
//!
//! [`Discovery`] is what everybody else has of it; [`run`] does the work, in one task.

pub mod book;
mod care;
pub mod list;
mod look;
mod names;
mod registry;
mod report;
mod run;
mod visit;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::book::Book;
use self::care::Care;
use crate::base::clock::{Clock, Mono, Wall};
use crate::base::ids::BackendId;
use crate::config::Source;
use crate::net::sockets::Succession;
use crate::observe::names::discovery as metric;
use crate::snapshot::discovered::SourceKey;
use crate::snapshot::health::BackendState;
use crate::snapshot::{Discovered, Published, Snapshot};

pub use report::{Lease, SourceReport, Standing};
pub use run::{Publish, run};
pub use visit::{Announced, Announcement, Hearsay, VisitError};

/// Everything that is known of sources. Cheap to ask; the work is done by [`run`].
pub struct Discovery {
    published: Arc<Published>,
    clock: Arc<dyn Clock>,
    state_dir: Option<PathBuf>,
    /// Whether somebody else keeps `state_dir`: a predecessor, until it has let go, or a successor.
    succession: Option<Succession>,
    state: Mutex<State>,
    wake: Notify,
    /// Counts turns: who waits for something looks again after each.
    turned: watch::Sender<u64>,
}

/// What the task and who asks share, for short moments.
#[derive(Default)]
struct State {
    /// The topology that `cares` follow.
    serial: Option<u64>,
    cares: BTreeMap<SourceKey, Care>,
    /// What the disk had at the start.
    book: Book,
    /// A list is another than what is in force.
    dirty: bool,
    /// Something is known that the disk does not have.
    unsaved: bool,
    hearsay: visit::Budget,
}

impl Discovery {
    /// Knows what `state_dir` has on disk and what the first topology has of it; nothing is asked before [`run`].
    pub fn new(
        published: Arc<Published>,
        clock: Arc<dyn Clock>,
        state_dir: Option<PathBuf>,
        succession: Option<Succession>,
    ) -> Self {
        // That it cannot be read was told when the first topology was made of it.
        let book = state_dir.as_deref().and_then(|dir| book::load(dir).ok()).unwrap_or_default();
        let state = Mutex::new(State { book, ..State::default() });
        let discovery =
            Self { published, clock, state_dir, succession, state, wake: Notify::new(), turned: watch::Sender::new(0) };
        discovery.follow(&discovery.published.full());
        discovery
    }

    /// Takes over what has been registered with the predecessor since this process began.
    pub fn recall(&self) {
        let Some(Ok(book)) = self.state_dir.as_deref().map(book::load) else { return };
        let (now, wall) = (self.clock.mono(), self.clock.wall());
        let mut state = self.lock();
        let mut changed = false;
        for care in state.cares.values_mut() {
            let entry = book.of_source(&care.key);
            changed |= entry.is_some_and(|entry| care.recall(entry, now, wall));
        }
        state.dirty |= changed;
        drop(state);
        self.wake.notify_one();
    }

    /// Whether what is known is this process's to write down.
    fn keeps(&self) -> bool {
        self.succession.as_ref().is_none_or(|succession| succession.is_alone() && !succession.has_heir())
    }

    /// Waits, but not for long, until every source has been asked once and what it said is in force.
    pub async fn settled(&self, within: Duration) {
        self.wait(within, |state| !state.dirty && state.cares.values().all(|care| care.tried || care.heard)).await;
    }

    /// Waits until `met`; false where that takes longer than `within`.
    async fn wait(&self, within: Duration, met: impl Fn(&State) -> bool) -> bool {
        let mut turned = self.turned.subscribe();
        tokio::time::timeout(within, turned.wait_for(|_| met(&self.lock()))).await.is_ok_and(|waited| waited.is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the sources of `snapshot`'s topology, and lets go of those that it does not have.
    fn follow(&self, snapshot: &Snapshot) {
        let topology = &snapshot.topology;
        let mut state = self.lock();
        if state.serial == Some(topology.serial) {
            return;
        }
        let now = self.clock.mono();
        state.serial = Some(topology.serial);
        let mut before = std::mem::take(&mut state.cares);
        for source in &topology.config.discovery.sources {
            let key = SourceKey::of(&topology.config, source);
            let care = if let Some(mut care) = before.remove(&key) {
                care.source = source.clone();
                care
            } else {
                let lists = &topology.assets.discovered;
                let known = lists.knows(&key).then(|| lists.of(&key));
                Care::new(key.clone(), source.clone(), known, state.book.of_source(&key), now)
            };
            state.cares.insert(key, care);
        }
        for gone in before.values() {
            gone.hide();
        }
        state.dirty |= state.cares.values().any(|care| *care.list != *topology.assets.discovered.of(&care.key));
    }

    /// Looks at what time brings: heartbeats that are missing, doubts that have lasted.
    fn turn(&self, snapshot: &Snapshot, now: Mono, wall: Wall) {
        let mut state = self.lock();
        let mut changed = false;
        for care in state.cares.values_mut() {
            let stand = stands(snapshot, &care.source);
            if let Some(registry) = &mut care.registry {
                let isolated = snapshot.isolated_since.is_some();
                let went = registry.sweep(|at| !isolated && stand.get(&at) == Some(&BackendState::Down), now);
                if !went.is_empty() {
                    let SourceKey { service, datacenter, .. } = &care.key;
                    metric::EXPIRED.counter(&[service, datacenter]).increment(went.len() as u64);
                    let went: Vec<String> = went.iter().map(ToString::to_string).collect();
                    tracing::warn!(target: "discovery", service, datacenter, backends = went.join(" "), "no heartbeats: gone");
                    changed |= care.follow_registry(wall);
                }
                care.show();
            } else if care.held.is_some() {
                let source = care.source.clone();
                changed |= care.reconsider(|address| proves(snapshot, &source, &stand, address), now);
            }
        }
        state.dirty |= changed;
        state.unsaved |= changed;
    }

    /// The lists as they are to be in force, where those that are differ.
    fn wanted(&self) -> Option<Discovered> {
        let state = self.lock();
        let heard = state.cares.values().filter(|care| care.heard);
        state.dirty.then(|| heard.map(|care| (care.key.clone(), Arc::clone(&care.list))).collect())
    }

    /// `lists` are in force.
    fn put(&self, lists: &Discovered) {
        let mut state = self.lock();
        state.dirty = state.cares.values().any(|care| *care.list != *lists.of(&care.key));
    }
}

/// Where each backend of `source` stands.
fn stands(snapshot: &Snapshot, source: &Source) -> BTreeMap<SocketAddr, BackendState> {
    let topology = &snapshot.topology;
    if source.service.index() >= topology.config.services.len()
        || source.datacenter.index() >= topology.config.datacenters.len()
    {
        return BTreeMap::new();
    }
    let stand = |id: &BackendId| Some((topology.backends.get(id.index())?.spec.address, snapshot.backend(*id).state));
    topology.members(source.service, source.datacenter).iter().filter_map(stand).collect()
}

/// Whether a backend has been seen to work. Where nothing is probed there is nothing to see.
fn proves(
    snapshot: &Snapshot,
    source: &Source,
    stand: &BTreeMap<SocketAddr, BackendState>,
    address: SocketAddr,
) -> bool {
    let service = snapshot.topology.config.services.get(source.service.index());
    let works = || matches!(stand.get(&address), Some(BackendState::Healthy | BackendState::SlowStart));
    service.is_none_or(|service| service.probe.is_none()) || works()
}
