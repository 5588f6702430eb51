//! How one source stands: its list in force, what is doubted of it, when it is asked again.
//!
//! Pure but for the log and the metrics: answers and time come in, whether the list is another comes out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::book::Entry;
use super::list::Mistake;
use super::look::{Seen, YOUNG};
use super::registry::{DEFAULT_TTL, Registry};
use crate::base::clock::{Mono, Wall};
use crate::base::hash;
use crate::config::{Origin, Source};
use crate::decide::discover::{self, Doubt};
use crate::observe::names::discovery as names;
use crate::snapshot::discovered::{Found, SourceKey};

/// A name is asked for no sooner and no later than so long after it was (a TTL of 0 would ask without end; one of a day
/// would never follow).
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Between two looks at a file.
const LOOK: Duration = Duration::from_secs(1);
/// Between two tries of a source that cannot be asked, at first and at last.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// So often a file may be young in a row.
const PATIENCE: u32 = 5;

/// Why a source could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Failure {
    /// No resolver gave an answer, or they gave only a part of it.
    #[error("no resolver answers")]
    Unanswered,
    /// A file cannot be read.
    #[error("{0}")]
    Unreadable(std::io::Error),
    /// A file makes no sense.
    #[error("{0}")]
    Mistake(Mistake),
}

impl Failure {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Unanswered => "unanswered",
            Self::Unreadable(_) => "unreadable",
            Self::Mistake(_) => "mistake",
        }
    }
}

/// How a question ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// With a list, which holds for so long; of a file also what it was.
    Heard(Vec<Found>, Duration, Option<Seen>),
    /// With the same file as before.
    Same,
    /// With a file that is being written.
    Young,
    /// With nothing.
    Failed(Failure, Option<Seen>),
}

/// An answer that is not believed.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) doubt: Doubt,
    pub(super) since: Mono,
    pub(super) said: Vec<Found>,
    /// What was in force when the doubt began: it is held against this, lest what is new makes what goes look few.
    pub(super) known: Arc<[Found]>,
    pub(super) confirmed: bool,
}

/// That a source cannot be asked.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) failure: Failure,
    pub(super) since: Mono,
    pub(super) times: u32,
}

/// One source.
#[derive(Debug)]
pub(super) struct Care {
    pub(super) key: SourceKey,
    pub(super) source: Source,
    pub(super) list: Arc<[Found]>,
    /// Whether `list` means anything: it was told, or is from the disk.
    pub(super) heard: bool,
    /// Whether it has been asked at all.
    pub(super) tried: bool,
    /// When it last gave an answer that could be read; in another process, perhaps.
    pub(super) answered: Option<Wall>,
    pub(super) held: Option<Held>,
    pub(super) failing: Option<Failing>,
    pub(super) due: Mono,
    pub(super) asking: bool,
    pub(super) registry: Option<Registry>,
    seen: Option<Seen>,
    young: u32,
}

impl Care {
    /// Begins to care for `source`; `known`: the list that is in force already, `entry`: what the disk has of it.
    pub(super) fn new(
        key: SourceKey,
        source: Source,
        known: Option<Arc<[Found]>>,
        entry: Option<&Entry>,
        now: Mono,
    ) -> Self {
        let registry = matches!(source.origin, Origin::Register { .. }).then(|| {
            let mut registry = Registry::default();
            for found in known.iter().flat_map(|list| list.iter()) {
                // A heartbeat may have come while nobody listened: each has its time anew.
                let ttl = entry.and_then(|entry| entry.ttl(found.address)).unwrap_or(DEFAULT_TTL);
                let _ = registry.beat(found, ttl, now);
            }
            registry
        });
        let (heard, list) = (known.is_some(), known.unwrap_or_default());
        let care = Self {
            key,
            source,
            list,
            heard,
            tried: registry.is_some(),
            answered: entry.map(|entry| entry.answered),
            held: None,
            failing: None,
            due: if registry.is_some() { Mono::NEVER } else { now },
            asking: false,
            registry,
            seen: None,
            young: 0,
        };
        care.show();
        care
    }

    /// Registers whom `entry` has and this one has not; whether the list is another by it.
    pub(super) fn recall(&mut self, entry: &Entry, now: Mono, wall: Wall) -> bool {
        let Some(registry) = &mut self.registry else { return false };
        for found in &entry.backends {
            if registry.entry(found.address).is_none() {
                let _ = registry.beat(found, entry.ttl(found.address).unwrap_or(DEFAULT_TTL), now);
            }
        }
        self.follow_registry(wall)
    }

    /// What the file was, and whether it is looked at whatever its age.
    pub(super) const fn seen(&self) -> (Option<Seen>, bool) {
        (self.seen, self.young >= PATIENCE)
    }

    /// Takes the end of a question; whether the list is another by it.
    pub(super) fn settle(
        &mut self,
        outcome: Outcome,
        proven: impl Fn(SocketAddr) -> bool,
        now: Mono,
        wall: Wall,
    ) -> bool {
        (self.asking, self.tried) = (false, true);
        match outcome {
            Outcome::Heard(said, holds, seen) => {
                (self.seen, self.young, self.answered) = (seen, 0, Some(wall));
                self.count("heard");
                if let Some(failing) = self.failing.take() {
                    let (source, times) = (&self.key.origin, failing.times);
                    tracing::info!(target: "discovery", service = self.key.service, source, times, "it can be asked again");
                }
                self.due = now + self.holds(holds, now);
                self.judge(said, proven, now)
            }
            Outcome::Same => {
                (self.young, self.due) = (0, now + LOOK);
                if self.failing.is_none() {
                    self.answered = Some(wall);
                    self.show();
                }
                false
            }
            Outcome::Young => {
                (self.young, self.due) = (self.young + 1, now + YOUNG);
                false
            }
            Outcome::Failed(failure, seen) => {
                self.seen = seen;
                self.fail(failure, now);
                false
            }
        }
    }

    /// Looks again at what is doubted; whether the list is another by it.
    pub(super) fn reconsider(&mut self, proven: impl Fn(SocketAddr) -> bool, now: Mono) -> bool {
        let Some(said) = self.held.as_ref().map(|held| held.said.clone()) else { return false };
        self.judge(said, proven, now)
    }

    /// Takes the list of the registry, which has rules of its own; whether it is another.
    pub(super) fn follow_registry(&mut self, wall: Wall) -> bool {
        let Some(said) = self.registry.as_ref().map(Registry::list) else { return false };
        (self.heard, self.answered) = (true, Some(wall));
        let list = discover::rule(Some(&self.list), &said, |_| true, true).list;
        self.replace(list)
    }

    fn judge(&mut self, said: Vec<Found>, proven: impl Fn(SocketAddr) -> bool, now: Mono) -> bool {
        let for_long = |held: &Held| self.failing.is_none() && now.since(held.since) >= self.source.keep;
        let believed =
            self.source.keep.is_zero() || self.held.as_ref().is_some_and(|held| held.confirmed || for_long(held));
        let before = self.held.take();
        let known = before.as_ref().map_or_else(|| Arc::clone(&self.list), |held| Arc::clone(&held.known));
        let ruling = discover::rule(self.heard.then_some(&*known), &said, proven, believed);
        self.heard = true;
        if let Some(doubt) = ruling.doubt {
            if before.as_ref().is_none_or(|held| held.doubt != doubt) {
                self.doubt(doubt, said.len());
            }
            let (since, confirmed) = before.map_or((now, false), |held| (held.since, held.confirmed));
            self.held = Some(Held { doubt, since, said, known, confirmed });
        } else if before.is_some() {
            let (service, source) = (&self.key.service, &self.key.origin);
            tracing::warn!(target: "discovery", service, source, backends = ruling.list.len(), "it is believed now");
        }
        let changed = self.replace(ruling.list);
        self.show();
        changed
    }

    fn replace(&mut self, list: Vec<Found>) -> bool {
        let changed = *self.list != *list;
        if changed {
            let (service, datacenter, source) = (&self.key.service, &self.key.datacenter, &self.key.origin);
            let before = self.list.len();
            tracing::info!(target: "discovery", service, datacenter, source, before, backends = list.len(), "another list");
            self.list = list.into();
            self.show();
        }
        changed
    }

    fn doubt(&self, doubt: Doubt, said: usize) {
        let SourceKey { service, datacenter, origin } = &self.key;
        names::DOUBTED.counter(&[service, datacenter, origin, doubt.as_str()]).increment(1);
        let (backends, doubt) = (self.list.len(), doubt.as_str());
        tracing::warn!(
            target: "discovery", service, datacenter, source = origin, doubt, said, backends,
            "most of its backends would go: those that are known stay in force until `springtide backends confirm`, or `keep`"
        );
    }

    fn fail(&mut self, failure: Failure, now: Mono) {
        self.count(failure.as_str());
        let (since, times) = self.failing.as_ref().map_or((now, 1), |f| (f.since, f.times.saturating_add(1)));
        let pause = match self.source.origin {
            Origin::File { .. } => LOOK,
            _ => (PAUSE.0 * (1 << (times - 1).min(5))).min(PAUSE.1),
        };
        self.due = now + pause;
        if times == 1 {
            let SourceKey { service, datacenter, origin: source } = &self.key;
            let backends = self.list.len();
            tracing::warn!(
                target: "discovery", service, datacenter, source, %failure, backends,
                "it cannot be asked: those that are known stay in force"
            );
        }
        self.failing = Some(Failing { failure, since, times });
    }

    /// How long an answer is good for. Jittered upwards by at most a twentieth or half a second: whoever asked together need
    /// not go on so.
    fn holds(&self, holds: Duration, now: Mono) -> Duration {
        if matches!(self.source.origin, Origin::File { .. }) {
            return LOOK;
        }
        let holds = holds.clamp(TTL.0, TTL.1);
        let draw = hash::join(hash::bytes(now.nanos(), self.key.origin.as_bytes()), 1) % 1_000;
        holds + (holds / 20).min(Duration::from_millis(500)) * u32::try_from(draw).unwrap_or(0) / 1_000
    }

    fn count(&self, outcome: &str) {
        let SourceKey { service, datacenter, origin } = &self.key;
        names::ASKS.counter(&[service, datacenter, origin, outcome]).increment(1);
    }

    /// Tells the metrics that it is no more: a series can't be taken back, so it stands at zero.
    pub(super) fn hide(&self) {
        let SourceKey { service, datacenter, origin } = &self.key;
        names::BACKENDS.gauge(&[service, datacenter, origin]).set(0.0);
        names::HELD.gauge(&[service, datacenter, origin]).set(0.0);
    }

    /// Tells the metrics how it stands.
    pub(super) fn show(&self) {
        let SourceKey { service, datacenter, origin } = &self.key;
        names::BACKENDS.gauge(&[service, datacenter, origin]).set(self.list.len() as f64);
        names::HELD.gauge(&[service, datacenter, origin]).set(f64::from(u8::from(self.held.is_some())));
        if let Some(answered) = self.answered {
            names::ANSWERED_AT.gauge(&[service, datacenter, origin]).set(answered.0 as f64 / 1_000.0);
        }
        if let Some(registry) = &self.registry {
            names::KEPT.gauge(&[service, datacenter]).set(registry.kept() as f64);
        }
    }
}

#[cfg(test)]
mod tests;
