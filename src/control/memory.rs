//! Last-known-good on disk: what a restart serves from before its first probe has come back.
//!
//! Written now and then by the control loop, read once on start. Reading is tolerant: whatever is wrong with the file is a
//! value to be logged, and the start goes on without it. Verdicts count for ten minutes, intents for as long as they say.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{carry, intent};
use crate::base::clock::{Mono, Wall};
use crate::base::{file, hash};
use crate::snapshot::health::{BackendState, DcState, EjectReason, Verdict};
use crate::snapshot::topology::Target;
use crate::snapshot::{Intents, Snapshot};

/// Verdicts older than this are not believed (GSLB section 4).
pub const FRESH: Duration = Duration::from_mins(10);
/// Largest file that is read: some 100,000 backends.
const MOST_BYTES: u64 = 64 << 20;
const NAME: &str = "springtide-memory.json";
/// Raised when the meaning of a field changes; another one is not read.
const FORMAT: u32 = 1;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("{}: not a memory of ours: {reason}", path.display())]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    format: u32,
    /// The last generation that was published; the next process goes on from there.
    pub generation: u64,
    /// When it was saved.
    pub saved: Wall,
    targets: Vec<KnownTarget>,
    backends: Vec<KnownBackend>,
    weights: Vec<KnownWeight>,
    /// What operators want.
    pub intents: Intents,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownTarget {
    identity: u64,
    address: String,
    verdict: Verdict,
    since: Wall,
    flaps: u32,
    flap_at: Wall,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownBackend {
    seat: u64,
    state: BackendState,
    ejected: Option<(EjectReason, Wall)>,
    ejections: u32,
    clean_from: Wall,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownWeight {
    service: String,
    datacenter: String,
    state: DcState,
    since: Wall,
    factor: u32,
}

impl Memory {
    /// What is worth remembering of `snapshot`.
    pub fn of(snapshot: &Snapshot, now: Mono, wall: Wall) -> Self {
        let at = |mono: Mono| to_wall(mono, now, wall);
        let topology = &snapshot.topology;
        let targets = topology.targets.iter().zip(snapshot.targets.iter()).map(|(target, health)| KnownTarget {
            identity: identity(target),
            address: target.address.to_string(),
            verdict: health.verdict,
            since: at(health.since),
            flaps: health.flaps,
            flap_at: at(health.flap_at),
        });
        let backends = topology.backends.iter().zip(snapshot.backends.iter()).map(|(backend, health)| KnownBackend {
            seat: backend.seat,
            state: health.state,
            ejected: health.ejected.map(|(reason, until)| (reason, at(until))),
            ejections: health.ejections,
            clean_from: at(health.clean_from),
        });
        let weights = carry::pairs(topology).zip(snapshot.weights.iter()).map(|((service, dc), weight)| KnownWeight {
            service: service.to_owned(),
            datacenter: dc.to_owned(),
            state: weight.state,
            since: at(weight.since),
            factor: weight.factor,
        });
        Self {
            format: FORMAT,
            generation: snapshot.generation,
            saved: wall,
            targets: targets.collect(),
            backends: backends.collect(),
            weights: weights.collect(),
            intents: (*snapshot.intents).clone(),
        }
    }

    /// Puts what is remembered into a snapshot that knows nothing yet.
    pub(super) fn recall(&self, next: &mut Snapshot, now: Mono, wall: Wall) {
        next.generation = self.generation.saturating_add(1);
        next.intents = Arc::new(intent::unexpired(&self.intents, wall).unwrap_or_else(|| self.intents.clone()));
        if wall.since(self.saved) > FRESH {
            return;
        }
        let at = |then: Wall| to_mono(then, now, wall);
        let topology = Arc::clone(&next.topology);
        let targets: HashMap<u64, &KnownTarget> = self.targets.iter().map(|k| (k.identity, k)).collect();
        for (target, health) in topology.targets.iter().zip(Arc::make_mut(&mut next.targets)) {
            if let Some(known) = targets.get(&identity(target)) {
                (health.verdict, health.since) = (known.verdict, at(known.since));
                (health.flaps, health.flap_at) = (known.flaps, at(known.flap_at));
            }
        }
        let backends: HashMap<u64, &KnownBackend> = self.backends.iter().map(|k| (k.seat, k)).collect();
        for (backend, health) in topology.backends.iter().zip(Arc::make_mut(&mut next.backends)) {
            if let Some(known) = backends.get(&backend.seat) {
                // A restart is no time to wait for a first probe.
                health.state = if known.state == BackendState::Joining { BackendState::Unknown } else { known.state };
                health.ejected = known.ejected.map(|(reason, until)| (reason, at(until)));
                (health.ejections, health.clean_from) = (known.ejections, at(known.clean_from));
            }
        }
        let weights: HashMap<(&str, &str), &KnownWeight> =
            self.weights.iter().map(|k| ((k.service.as_str(), k.datacenter.as_str()), k)).collect();
        for (pair, weight) in carry::pairs(&topology).zip(Arc::make_mut(&mut next.weights)) {
            if let Some(known) = weights.get(&pair) {
                (weight.state, weight.since, weight.factor) = (known.state, at(known.since), known.factor);
            }
        }
    }

    /// Reads what was remembered in `state_dir`; `None` where nothing was.
    ///
    /// # Errors
    /// The file can't be read, is larger than any of ours, or is not what we wrote.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, MemoryError> {
        let path = state_dir.join(NAME);
        let text = match file::read(&path, MOST_BYTES) {
            Ok((text, _)) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                return Err(MemoryError::Corrupt { path, reason: e.to_string() });
            }
            Err(source) => return Err(MemoryError::Io { path, source }),
        };
        match serde_json::from_slice::<Self>(&text) {
            Ok(memory) if memory.format == FORMAT => Ok(Some(memory)),
            Ok(memory) => Err(MemoryError::Corrupt { path, reason: format!("format {}", memory.format) }),
            Err(e) => Err(MemoryError::Corrupt { path, reason: e.to_string() }),
        }
    }

    /// Writes it to `state_dir`: whole or not at all, and on disk when it returns.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), MemoryError> {
        let path = state_dir.join(NAME);
        let write = || file::replace(&path, &serde_json::to_vec(self)?, 0o644);
        write().map_err(|source| MemoryError::Io { path: path.clone(), source })
    }
}

/// What a target is, apart from its place in a table: a release that describes probes otherwise begins without verdicts.
fn identity(target: &Target) -> u64 {
    hash::bytes(0, format!("{target:?}").as_bytes())
}

fn to_wall(then: Mono, now: Mono, wall: Wall) -> Wall {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Wall(wall.0.saturating_sub(ms(now.since(then)))) + then.since(now)
}

fn to_mono(then: Wall, now: Mono, wall: Wall) -> Mono {
    now - wall.since(then) + then.since(wall)
}

#[cfg(test)]
mod tests;
