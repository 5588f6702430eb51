//! What operators say: whether it can be meant, how it is kept, and the line that remains of it.
//!
//! `check` refuses what names nothing or would leave nothing; the step takes in whatever is sent, for a fleet must agree and
//! one node's picture may lag. The audit log is one JSON line for each wish, appended and never rewritten.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::base::clock::{Mono, Wall};
use crate::control::event::Event;
use crate::snapshot::Snapshot;
use crate::snapshot::intent::{Intent, Intents, Subject, Wish};

/// Most intents in force at once (ours: far above what people can oversee).
pub const MOST: usize = 1_024;

/// Why an intent is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IntentError {
    /// No such datacenter.
    #[error("there is no datacenter \"{name}\"; there are: {known}")]
    UnknownDatacenter {
        /// What was said.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such service.
    #[error("there is no service \"{name}\"; there are: {known}")]
    UnknownService {
        /// What was said.
        name: String,
        /// What there is.
        known: String,
    },
    /// No such backend.
    #[error("there is no backend {address}{}", of(service.as_deref()))]
    UnknownBackend {
        /// What was said.
        address: String,
        /// Of which service.
        service: Option<String>,
    },
    /// Not a weight.
    #[error("a weight is 0 to 1000000, not {weight}")]
    Weight {
        /// What was said.
        weight: u32,
    },
    /// It has ended before it began.
    #[error("it would have ended already")]
    Expired,
    /// Too many.
    #[error("{MOST} intents are in force already; revoke some")]
    TooMany,
    /// Nothing would be left.
    #[error(
        "of service \"{service}\" {left:.0}% of the capacity that serves now would be left, which is nothing to serve from"
    )]
    NothingLeft {
        /// The service that would suffer.
        service: String,
        /// What would be left, in per cent of what serves now.
        left: f64,
    },
}

fn of(service: Option<&str>) -> String {
    service.map(|s| format!(" of service \"{s}\"")).unwrap_or_default()
}

/// What would be left.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Effect {
    /// For each service that would lose something: its name, and what would be left in per cent of what serves now.
    pub left: Vec<(String, f64)>,
}

/// Whether `intent` can be meant: it names what exists, and something remains of every service that serves now. Gives what
/// would be left. `NothingLeft` is the one refusal that an operator may overrule.
pub fn check(snapshot: &Snapshot, intent: &Intent, now: Mono, wall: Wall) -> Result<Effect, IntentError> {
    let config = &snapshot.topology.config;
    let known = |names: Vec<&str>| names.join(", ");
    let datacenter = |name: &str| {
        config.datacenters.iter().any(|d| d.name == name).then_some(()).ok_or_else(|| IntentError::UnknownDatacenter {
            name: name.into(),
            known: known(config.datacenters.iter().map(|d| d.name.as_str()).collect()),
        })
    };
    let service = |name: &str| {
        config.services.iter().any(|s| s.name == name).then_some(()).ok_or_else(|| IntentError::UnknownService {
            name: name.into(),
            known: known(config.services.iter().map(|s| s.name.as_str()).collect()),
        })
    };
    match &intent.subject {
        Subject::Datacenter(name) => datacenter(name)?,
        Subject::Service { service: s, datacenter: d } => service(s).and_then(|()| datacenter(d))?,
        Subject::Backend { address, service: of } => {
            of.as_deref().map_or(Ok(()), service)?;
            let parsed = address.parse();
            let mut backends = snapshot.topology.backends.iter();
            let wanted = |s: &str| of.as_deref().is_none_or(|of| of == s);
            if !backends.any(|b| Ok(b.spec.address) == parsed && wanted(&snapshot.topology.service(b.service).name)) {
                return Err(IntentError::UnknownBackend { address: address.clone(), service: of.clone() });
            }
        }
    }
    match intent.wish {
        Wish::Weight(weight) if weight > MAX_WEIGHT => return Err(IntentError::Weight { weight }),
        _ if intent.until.is_some_and(|until| until <= wall) => return Err(IntentError::Expired),
        _ if with(&snapshot.intents, intent.clone()).entries.len() > MOST => return Err(IntentError::TooMany),
        _ => {}
    }
    effect(snapshot, intent, now, wall)
}

const MAX_WEIGHT: u32 = 1_000_000;

/// Tries the wish on a copy of the world.
fn effect(snapshot: &Snapshot, intent: &Intent, now: Mono, wall: Wall) -> Result<Effect, IntentError> {
    let after = super::step::step(snapshot, Event::Wish(intent.clone()), now, wall);
    let mut effect = Effect::default();
    for service in snapshot.topology.service_ids() {
        let sum = |s: &Snapshot| -> u64 { s.topology.datacenter_ids().map(|dc| serving(s, service, dc)).sum() };
        let (has, would) = (sum(snapshot), sum(&after));
        if would < has {
            let (name, left) = (snapshot.topology.service(service).name.clone(), 100.0 * would as f64 / has as f64);
            if would == 0 {
                return Err(IntentError::NothingLeft { service: name, left });
            }
            effect.left.push((name, left));
        }
    }
    Ok(effect)
}

/// What serves there: the weight of the datacenter, by the share of its backends that take requests.
fn serving(snapshot: &Snapshot, service: crate::base::ids::ServiceId, dc: crate::base::ids::DatacenterId) -> u64 {
    let members = snapshot.topology.members(service, dc);
    let share: u64 = members.iter().map(|&id| u64::from(snapshot.backend(id).weight > 0)).sum();
    if members.is_empty() { 0 } else { snapshot.weight(service, dc).effective * share * 1_000 / members.len() as u64 }
}

/// The intents with one more: it replaces what was wanted of the same kind of the same subject.
pub fn with(intents: &Intents, intent: Intent) -> Intents {
    let same = |i: &Intent| i.subject == intent.subject && is_weight(i.wish) == is_weight(intent.wish);
    let mut entries: Vec<Intent> = intents.entries.iter().filter(|i| !same(i)).cloned().collect();
    entries.push(intent);
    entries.sort_by(|a, b| (&a.subject, is_weight(a.wish)).cmp(&(&b.subject, is_weight(b.wish))));
    Intents { entries }
}

/// The intents without what was wanted of `subject`.
pub fn without(intents: &Intents, subject: &Subject) -> Intents {
    Intents { entries: intents.entries.iter().filter(|i| i.subject != *subject).cloned().collect() }
}

/// The intents that have not ended by `wall`; `None` where that is all of them.
pub fn unexpired(intents: &Intents, wall: Wall) -> Option<Intents> {
    let lives = |i: &&Intent| i.until.is_none_or(|until| wall < until);
    let entries: Vec<Intent> = intents.entries.iter().filter(lives).cloned().collect();
    (entries.len() < intents.entries.len()).then_some(Intents { entries })
}

const fn is_weight(wish: Wish) -> bool {
    matches!(wish, Wish::Weight(_))
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Said something.
    Wish(Intent),
    /// Took it back.
    Revoke {
        /// What had been wanted of it.
        subject: Subject,
        /// Who took it back.
        by: String,
    },
}

/// The line that remains of it: one JSON object, with the time and the generation that it was said at.
pub fn audit_line(act: &Act, generation: u64, wall: Wall) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        at_ms: u64,
        generation: u64,
        #[serde(flatten)]
        act: &'a Act,
    }
    serde_json::to_string(&Line { at_ms: wall.0, generation, act }).unwrap_or_default()
}

/// Appends a line to the audit log in `state_dir`, and has it on disk when it returns.
pub fn audit(state_dir: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(state_dir.join("audit.log"))?;
    // One write: lines of two writers never mix.
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}

#[cfg(test)]
mod tests;
