//! What is told of sources: how each stands, in words, and how long a registration still holds.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Discovery;
use super::care::Care;
use crate::base::clock::{Mono, Wall};
use crate::base::units::show_duration;
use crate::config::Origin;
use crate::decide::discover::Doubt;

/// How a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It answers, and is believed.
    Followed,
    /// It has not been asked yet.
    Waiting,
    /// What it says is not believed yet.
    Held,
    /// It cannot be asked.
    Failing,
}

impl Standing {
    /// The word for it in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Followed => "followed",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Failing => "failing",
        }
    }
}

/// One source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceReport {
    /// Whose backends it finds.
    pub service: String,
    /// Where they stand.
    pub datacenter: String,
    /// What is asked: `dns:NAME:PORT`, `srv:NAME`, `file:PATH` or `register`.
    pub source: String,
    /// How it stands.
    pub state: Standing,
    /// Backends of it in force.
    pub backends: usize,
    /// How long ago it last answered, in seconds; perhaps to an earlier process.
    pub age_s: Option<f64>,
    /// In how many seconds it is asked again.
    pub due_s: Option<f64>,
    /// Why it stands so, for people; nothing where it is as it should be.
    pub why: String,
}

/// How long a registered backend is there without another heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lease {
    /// For how much longer; nothing is left where its heartbeats are missing.
    pub left: Duration,
    /// How long a heartbeat is good for.
    pub ttl: Duration,
}

impl Discovery {
    /// Every source, in the order of services' names.
    pub fn sources(&self) -> Vec<SourceReport> {
        let (now, wall) = (self.clock.mono(), self.clock.wall());
        self.lock().cares.values().map(|care| told(care, now, wall)).collect()
    }

    /// How long a registration of a backend still holds; `None` where it is none.
    pub fn lease(&self, service: &str, address: SocketAddr) -> Option<Lease> {
        let now = self.clock.mono();
        let state = self.lock();
        let mut cares = state.cares.values().filter(|care| care.key.service == service);
        let entry = cares.find_map(|care| care.registry.as_ref()?.entry(address))?;
        Some(Lease { left: entry.expires.since(now), ttl: entry.ttl })
    }
}

fn told(care: &Care, now: Mono, wall: Wall) -> SourceReport {
    let (state, why) = stand(care, now);
    let seconds = |d: Duration| (d.as_secs_f64() * 1e3).round() / 1e3;
    SourceReport {
        service: care.key.service.clone(),
        datacenter: care.key.datacenter.clone(),
        source: care.key.origin.clone(),
        state,
        backends: care.list.len(),
        age_s: care.answered.map(|at| seconds(wall.since(at))),
        due_s: (care.due != Mono::NEVER).then(|| seconds(care.due.since(now))),
        why,
    }
}

fn stand(care: &Care, now: Mono) -> (Standing, String) {
    let failing = care.failing.as_ref().map(|failing| {
        let path = match &care.source.origin {
            Origin::File { path, .. } => format!("{}: ", path.display()),
            _ => String::new(),
        };
        let (failure, for_long) = (&failing.failure, lasting(now.since(failing.since)));
        format!("{path}{failure}, {} times for {for_long}", failing.times)
    });
    let held = care.held.as_ref().map(|held| {
        let (said, since) = (held.said.len(), lasting(now.since(held.since)));
        let what = match held.doubt {
            Doubt::Empty => "says that there is none".to_owned(),
            Doubt::Shrunk => format!("says that there are {said}"),
            Doubt::Replaced => format!("says {said} others, not seen to work yet"),
        };
        let left = lasting(care.source.keep.saturating_sub(now.since(held.since)));
        format!("{what}, for {since}: believed in {left}, or by `springtide backends confirm {}`", care.key.service)
    });
    let kept = care.registry.as_ref().map(super::registry::Registry::kept).filter(|kept| *kept > 0);
    let kept = kept.map(|kept| format!("{kept} without heartbeats, as most are: kept, health checks decide"));
    match (failing, held.or(kept)) {
        (Some(failing), Some(held)) => (Standing::Failing, format!("{failing}; before that it {held}")),
        (Some(failing), None) => (Standing::Failing, failing),
        (None, Some(held)) => (Standing::Held, held),
        (None, None) if !care.tried && care.heard => (Standing::Waiting, "known from the disk".to_owned()),
        (None, None) if !care.tried => (Standing::Waiting, String::new()),
        (None, None) => (Standing::Followed, String::new()),
    }
}

/// A time as people say it: to the second, the minute or the hour.
fn lasting(d: Duration) -> String {
    let s = d.as_secs();
    let to = |unit: u64| show_duration(Duration::from_secs(s / unit * unit));
    match s {
        0..120 => to(1),
        120..7_200 => to(60),
        _ => to(3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = |s: u64| lasting(Duration::from_secs(s));
        assert_eq!([0, 59, 119, 3_598, 7_250].map(said), ["0s", "59s", "119s", "59m", "2h"]);
    }
}
