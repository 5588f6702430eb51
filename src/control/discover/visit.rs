//! What others say: backends that announce themselves, callers that tell how a backend served them, operators that confirm.
//!
//! What is said of a backend by somebody else counts a quarter of what this node sees itself, ends no streak and begins none,
//! and moves no latency: it can bring a probe forward and tip a share of successes, and no more.

use std::net::SocketAddr;
use std::time::Duration;

use super::care::Care;
use super::registry::{DEFAULT_TTL, Full, TTL};
use super::{Discovery, list};
use crate::base::clock::Mono;
use crate::base::units::show_duration;
use crate::config::{MOST_FOUND, Origin};
use crate::observe::names::discovery as metric;
use crate::snapshot::discovered::{Found, SourceKey};
use crate::snapshot::load::Outcome;

/// How long an announcement waits for its effect.
const WITHIN: Duration = Duration::from_secs(5);
/// Reports that are listened to in a second (ours): a share of successes is as true of a sample.
const REPORTS_A_SECOND: u32 = 10_000;

/// A backend says that it is there.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Of which service.
    pub service: String,
    /// Where; the only datacenter in which the service's backends may announce themselves, where nothing is said.
    pub datacenter: Option<String>,
    /// At which address.
    pub address: SocketAddr,
    /// Its share; that of the source where nothing is said.
    pub weight: Option<u32>,
    /// What it calls itself.
    pub name: Option<String>,
    /// How long that is good for.
    pub ttl: Option<Duration>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The datacenter that it stands in.
    pub datacenter: String,
    /// Its weight.
    pub weight: u32,
    /// How long it is good for.
    pub ttl: Duration,
    /// Whether it was not there before, or otherwise.
    pub changed: bool,
}

/// Somebody else tells how a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearsay {
    /// How.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VisitError {
    /// There is no such service.
    #[error("there is no service `{service}`")]
    NoService {
        /// Which.
        service: String,
    },
    /// Nobody may announce anything there.
    #[error("backends of `{service}` do not announce themselves{}", .datacenter.as_ref().map(|d| format!(" in `{d}`")).unwrap_or_default())]
    NotThere {
        /// Of which service.
        service: String,
        /// Where.
        datacenter: Option<String>,
    },
    /// There are several places for it.
    #[error("backends of `{service}` announce themselves in several datacenters: {}", .datacenters.join(", "))]
    Ambiguous {
        /// Of which service.
        service: String,
        /// Where.
        datacenters: Vec<String>,
    },
    /// The configuration does not allow it.
    #[error("{address} may not be registered there")]
    NotAllowed {
        /// Which.
        address: SocketAddr,
    },
    /// A time out of range.
    #[error("{} is out of range: from {} to {}", show_duration(*.ttl), show_duration(TTL.0), show_duration(TTL.1))]
    Ttl {
        /// What was said.
        ttl: Duration,
    },
    /// A name or a weight that is none.
    #[error("{problem}")]
    Wrong {
        /// What is wrong.
        problem: list::Problem,
    },
    /// There is room for no more.
    #[error("there are {MOST_FOUND} already")]
    Full,
    /// Nothing like that is there.
    #[error("there is no backend {address} of `{service}`")]
    NoBackend {
        /// Of which service.
        service: String,
        /// Which.
        address: SocketAddr,
    },
    /// Too much is said.
    #[error("more than {REPORTS_A_SECOND} reports a second")]
    TooMany,
    /// Nothing is doubted there.
    #[error("no source of `{service}` is doubted")]
    NothingHeld {
        /// Of which service.
        service: String,
    },
    /// It did not come into force in time.
    #[error("not in force within {} s", WITHIN.as_secs())]
    Late,
}

/// How many reports there may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    second: u64,
    spent: u32,
}

impl Budget {
    fn spend(&mut self, now: Mono) -> bool {
        let second = now.nanos() / 1_000_000_000;
        if self.second != second {
            *self = Self { second, spent: 0 };
        }
        self.spent = self.spent.saturating_add(1);
        self.spent <= REPORTS_A_SECOND
    }
}

impl Discovery {
    /// A backend announces itself, or says that it is still there. Returns when it is in force.
    ///
    /// # Errors
    /// It may not, or what it says makes no sense.
    pub async fn announce(&self, said: Announcement) -> Result<Announced, VisitError> {
        let ttl = said.ttl.unwrap_or(DEFAULT_TTL);
        if !(TTL.0..=TTL.1).contains(&ttl) {
            return Err(VisitError::Ttl { ttl });
        }
        let wrong = |problem| VisitError::Wrong { problem };
        let name = said.name.as_deref().map(list::named).transpose().map_err(wrong)?;
        if !list::is_callable(said.address) {
            return Err(wrong(list::Problem::Nobody { address: said.address }));
        }
        let (key, announced) = {
            let (now, wall) = (self.clock.mono(), self.clock.wall());
            let mut state = self.lock();
            let key = self.place(state.cares.values(), &said.service, said.datacenter.as_deref())?;
            let Some(care) = state.cares.get_mut(&key) else { return Err(VisitError::Late) };
            if !may(care, said.address) {
                return Err(VisitError::NotAllowed { address: said.address });
            }
            let weight = said.weight.unwrap_or(care.source.weight);
            let found = Found { address: said.address, weight, name };
            let Some(registry) = &mut care.registry else { return Err(VisitError::Late) };
            let changed = registry.beat(&found, ttl, now).map_err(|Full| VisitError::Full)?;
            if changed && care.follow_registry(wall) {
                (state.dirty, state.unsaved) = (true, true);
            }
            (key.clone(), Announced { datacenter: key.datacenter, weight, ttl, changed })
        };
        if announced.changed {
            self.in_force(&key).await?;
        }
        Ok(announced)
    }

    /// A backend that announced itself is taken out; the datacenter that it stood in.
    ///
    /// # Errors
    /// It is not there.
    pub async fn withdraw(
        &self,
        service: &str,
        datacenter: Option<&str>,
        address: SocketAddr,
    ) -> Result<String, VisitError> {
        let key = {
            let wall = self.clock.wall();
            let mut state = self.lock();
            self.known(service)?;
            let is_it = |care: &&mut Care| {
                care.key.service == service
                    && datacenter.is_none_or(|datacenter| care.key.datacenter == datacenter)
                    && care.registry.as_ref().is_some_and(|registry| registry.entry(address).is_some())
            };
            let Some(care) = state.cares.values_mut().find(is_it) else {
                return Err(VisitError::NoBackend { service: service.to_owned(), address });
            };
            let left = care.registry.as_mut().is_some_and(|registry| registry.leave(address));
            let (key, changed) = (care.key.clone(), left && care.follow_registry(wall));
            (state.dirty, state.unsaved) = (state.dirty || changed, state.unsaved || changed);
            key
        };
        self.in_force(&key).await?;
        Ok(key.datacenter)
    }

    /// What sources of `service` say is believed from now on, doubtful as it is; gives those that were doubted.
    ///
    /// # Errors
    /// None is doubted.
    pub async fn confirm(&self, service: &str, datacenter: Option<&str>) -> Result<Vec<SourceKey>, VisitError> {
        self.known(service)?;
        let mut keys = Vec::new();
        {
            let mut state = self.lock();
            for care in state
                .cares
                .values_mut()
                .filter(|care| care.key.service == service && datacenter.is_none_or(|dc| care.key.datacenter == dc))
            {
                if let Some(held) = &mut care.held {
                    held.confirmed = true;
                    keys.push(care.key.clone());
                }
            }
        }
        if keys.is_empty() {
            return Err(VisitError::NothingHeld { service: service.to_owned() });
        }
        self.wake.notify_one();
        let believed = |state: &super::State| {
            !state.dirty && keys.iter().all(|key| state.cares.get(key).is_none_or(|care| care.held.is_none()))
        };
        if self.wait(WITHIN, believed).await { Ok(keys) } else { Err(VisitError::Late) }
    }

    /// Somebody tells how a backend served them.
    ///
    /// # Errors
    /// There is no such backend, or too much is told.
    pub fn hear(&self, service: &str, address: SocketAddr, said: Hearsay) -> Result<(), VisitError> {
        let now = self.clock.mono();
        let snapshot = self.published.full();
        let id = snapshot.topology.service_ids().find(|id| snapshot.topology.service(*id).name == service);
        let Some(id) = id else { return Err(VisitError::NoService { service: service.to_owned() }) };
        let mut members = snapshot.topology.members_anywhere(id).map(|id| snapshot.topology.backend(id));
        let Some(backend) = members.find(|backend| backend.spec.address == address) else {
            return Err(VisitError::NoBackend { service: service.to_owned(), address });
        };
        if !self.lock().hearsay.spend(now) {
            metric::REPORTS.counter(&["refused"]).increment(1);
            return Err(VisitError::TooMany);
        }
        let failed = said.outcome != Outcome::Ok;
        metric::REPORTS.counter(&[if failed { "failed" } else { "ok" }]).increment(1);
        if backend.load.hear(said.outcome, said.took) && failed {
            self.published.alarm().ring();
        }
        Ok(())
    }

    /// Waits until the list of `key` is in force.
    async fn in_force(&self, key: &SourceKey) -> Result<(), VisitError> {
        self.wake.notify_one();
        let list = self.lock().cares.get(key).map(|care| care.list.clone()).unwrap_or_default();
        let there =
            |state: &super::State| !state.dirty || *self.published.load().topology.assets.discovered.of(key) == *list;
        if self.wait(WITHIN, there).await { Ok(()) } else { Err(VisitError::Late) }
    }

    fn known(&self, service: &str) -> Result<(), VisitError> {
        let is_known = self.published.load().topology.config.services.iter().any(|s| s.name == service);
        if is_known { Ok(()) } else { Err(VisitError::NoService { service: service.to_owned() }) }
    }

    /// The source that backends of `service` announce themselves to.
    fn place<'c>(
        &self,
        cares: impl Iterator<Item = &'c Care>,
        service: &str,
        datacenter: Option<&str>,
    ) -> Result<SourceKey, VisitError> {
        self.known(service)?;
        let is_it = |care: &&Care| {
            care.registry.is_some()
                && care.key.service == service
                && datacenter.is_none_or(|datacenter| care.key.datacenter == datacenter)
        };
        let keys: Vec<SourceKey> = cares.filter(is_it).map(|care| care.key.clone()).collect();
        match keys.as_slice() {
            [] => Err(VisitError::NotThere { service: service.to_owned(), datacenter: datacenter.map(str::to_owned) }),
            [key] => Ok(key.clone()),
            several => Err(VisitError::Ambiguous {
                service: service.to_owned(),
                datacenters: several.iter().map(|key| key.datacenter.clone()).collect(),
            }),
        }
    }
}

/// Whether the configuration lets `address` be registered.
fn may(care: &Care, address: SocketAddr) -> bool {
    match &care.source.origin {
        Origin::Register { allow } => allow.is_empty() || allow.iter().any(|net| net.contains(&address.ip())),
        _ => false,
    }
}
