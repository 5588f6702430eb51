//! What has changed from one snapshot to the next, as a list: the source of the log's lines.
//!
//! Pure, and silent about evidence: only what an edge acts on or an operator said. Things are matched by what they are,
//! not by their ids, so that a reload reports what it changed and nothing else. Tables that both share cost nothing.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::health::{BackendState, DcState, EjectReason, ProbeOutcome, Verdict};
use super::intent::Intent;
use super::topology::{Target, Topology};
use super::{Intents, Snapshot};
use crate::base::ids::{BackendId, DatacenterId, ServiceId};

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Another configuration is in force.
    Reloaded {
        /// Its topology's serial.
        serial: u64,
        /// Backends that were not there before.
        added: usize,
        /// Backends that are no longer there.
        removed: usize,
        /// Nothing was read again: backends were found, or have gone.
        discovered: bool,
    },
    /// This node began to distrust itself, or trusts itself again.
    Isolation {
        /// Whether verdicts are held now.
        isolated: bool,
    },
    /// An intent came into force, or went.
    Intent {
        /// Which.
        intent: Intent,
        /// Whether it is in force now.
        in_force: bool,
    },
    /// A verdict turned.
    Target {
        /// What is probed.
        address: SocketAddr,
        /// The verdict before.
        from: Verdict,
        /// The verdict now.
        to: Verdict,
        /// How the last probe ended.
        last: Option<ProbeOutcome>,
    },
    /// A backend is in another state, or has another weight.
    Backend {
        /// Its service.
        service: String,
        /// Its datacenter.
        datacenter: String,
        /// Its address.
        address: SocketAddr,
        /// The state before.
        from: BackendState,
        /// The state now.
        to: BackendState,
        /// Why it is ejected, where it is.
        reason: Option<EjectReason>,
        /// Weights before and now, as the balancer reckons.
        weight: (u32, u32),
    },
    /// A service is in another state in a datacenter, or has another weight there.
    Datacenter {
        /// The service.
        service: String,
        /// The datacenter.
        datacenter: String,
        /// The state before.
        from: DcState,
        /// The state now.
        to: DcState,
        /// Effective weights before and now, in thousandths of the configured unit.
        effective: (u64, u64),
        /// Healthy share, 0 to 1.
        health: f64,
        /// Whether balance ignores health there now.
        panic: bool,
        /// Whether panic began or ended with this change.
        panic_turned: bool,
        /// Whether this is one step of a ramp.
        ramping: bool,
    },
    /// All datacenters of a steered name have failed, or some are back.
    Steer {
        /// The name.
        name: String,
        /// Whether all are down now.
        all_down: bool,
    },
}

/// How much a change matters to who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// A step on the way: a weight that ramps, a first good probe, a second look.
    Step,
    /// Something is other than before, and not worse.
    News,
    /// Something is worse than before.
    Bad,
}

/// What has changed from `old` to `new`: the causes first, then what follows from them.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let mut changes = Vec::new();
    let (before, after) = (&old.topology, &new.topology);
    if before.serial != after.serial {
        let removed = before.backends.len().saturating_sub(kept(before, after));
        let added = after.backends.len().saturating_sub(kept(before, after));
        let discovered = Arc::ptr_eq(&before.config, &after.config) && added + removed > 0;
        changes.push(Change::Reloaded { serial: after.serial, added, removed, discovered });
    }
    if old.isolated_since.is_some() != new.isolated_since.is_some() {
        changes.push(Change::Isolation { isolated: new.isolated_since.is_some() });
    }
    intents(&old.intents, &new.intents, &mut changes);
    targets(old, new, &mut changes);
    backends(old, new, &mut changes);
    weights(old, new, &mut changes);
    steers(old, new, &mut changes);
    changes
}

fn kept(before: &Topology, after: &Topology) -> usize {
    let pairs = Pairs::of(before, after, |t| t.backends.iter().map(|b| (b.seat, b.spec.address)).collect());
    (0..after.backends.len()).filter(|&i| pairs.old(i).is_some()).count()
}

/// Where the things of the new topology stood in the old one.
enum Pairs {
    Same,
    Matched(Vec<Option<usize>>),
}

impl Pairs {
    fn of<'a, K: Eq + Hash>(old: &'a Topology, new: &'a Topology, keys: impl Fn(&'a Topology) -> Vec<K>) -> Self {
        if old.serial == new.serial {
            return Self::Same;
        }
        let known: HashMap<K, usize> = keys(old).into_iter().enumerate().map(|(i, key)| (key, i)).collect();
        Self::Matched(keys(new).iter().map(|key| known.get(key).copied()).collect())
    }

    fn old(&self, new: usize) -> Option<usize> {
        match self {
            Self::Same => Some(new),
            Self::Matched(old) => old.get(new).copied().flatten(),
        }
    }
}

fn intents(old: &Intents, new: &Intents, into: &mut Vec<Change>) {
    let missing = |from: &Intents, intent: &&Intent| !from.entries.contains(intent);
    let gone = old.entries.iter().filter(|i| missing(new, i));
    into.extend(gone.map(|i| Change::Intent { intent: i.clone(), in_force: false }));
    let come = new.entries.iter().filter(|i| missing(old, i));
    into.extend(come.map(|i| Change::Intent { intent: i.clone(), in_force: true }));
}

fn targets(old: &Snapshot, new: &Snapshot, into: &mut Vec<Change>) {
    if Arc::ptr_eq(&old.targets, &new.targets) {
        return;
    }
    let pairs = Pairs::of(&old.topology, &new.topology, |t| t.targets.iter().collect::<Vec<&Target>>());
    for (i, (target, health)) in new.topology.targets.iter().zip(new.targets.iter()).enumerate() {
        let Some(before) = pairs.old(i).and_then(|i| old.targets.get(i)) else { continue };
        if before.verdict != health.verdict {
            let last = health.last.map(|(_, outcome, _)| outcome);
            into.push(Change::Target { address: target.address, from: before.verdict, to: health.verdict, last });
        }
    }
}

fn backends(old: &Snapshot, new: &Snapshot, into: &mut Vec<Change>) {
    if Arc::ptr_eq(&old.backends, &new.backends) {
        return;
    }
    let topology = &new.topology;
    let seats = |t: &Topology| t.backends.iter().map(|b| (b.seat, b.spec.address)).collect::<Vec<_>>();
    let pairs = Pairs::of(&old.topology, topology, seats);
    for (i, health) in new.backends.iter().enumerate() {
        let Some(before) = pairs.old(i).and_then(|i| old.backends.get(i)) else { continue };
        if (before.state, before.weight) != (health.state, health.weight) {
            let backend = topology.backend(BackendId::new(i));
            into.push(Change::Backend {
                service: topology.service(backend.service).name.clone(),
                datacenter: datacenter(topology, backend.spec.datacenter),
                address: backend.spec.address,
                from: before.state,
                to: health.state,
                reason: health.ejected.map(|(reason, _)| reason).filter(|_| health.state == BackendState::Ejected),
                weight: (before.weight, health.weight),
            });
        }
    }
}

fn datacenter(topology: &Topology, id: DatacenterId) -> String {
    topology.config.datacenters.get(id.index()).map(|dc| dc.name.clone()).unwrap_or_default()
}

/// Each service in each datacenter, in the order of the snapshot's table.
fn cells(topology: &Topology) -> Vec<(&str, &str)> {
    let dcs = &topology.config.datacenters;
    let services = topology.config.services.iter();
    services.flat_map(|s| dcs.iter().map(|dc| (s.name.as_str(), dc.name.as_str()))).collect()
}

fn weights(old: &Snapshot, new: &Snapshot, into: &mut Vec<Change>) {
    if Arc::ptr_eq(&old.weights, &new.weights) {
        return;
    }
    let pairs = Pairs::of(&old.topology, &new.topology, cells);
    let width = new.topology.config.datacenters.len();
    for (i, weight) in new.weights.iter().enumerate() {
        let Some(before) = pairs.old(i).and_then(|i| old.weights.get(i)) else { continue };
        if (before.state, before.effective, before.panic) != (weight.state, weight.effective, weight.panic) {
            let (service, dc) = (ServiceId::new(i / width), DatacenterId::new(i % width));
            into.push(Change::Datacenter {
                service: new.topology.service(service).name.clone(),
                datacenter: datacenter(&new.topology, dc),
                from: before.state,
                to: weight.state,
                effective: (before.effective, weight.effective),
                health: weight.health,
                panic: weight.panic,
                panic_turned: before.panic != weight.panic,
                ramping: weight.ramp_from.is_some() && weight.effective > before.effective,
            });
        }
    }
}

fn steers(old: &Snapshot, new: &Snapshot, into: &mut Vec<Change>) {
    let names = |t: &Topology| -> Vec<String> {
        t.config.dns.iter().flat_map(|dns| dns.steers.iter().map(|steer| steer.name.clone())).collect()
    };
    if old.steers.iter().map(|s| s.all_down).eq(new.steers.iter().map(|s| s.all_down)) {
        return;
    }
    let pairs = Pairs::of(&old.topology, &new.topology, names);
    for ((i, steer), name) in new.steers.iter().enumerate().zip(names(&new.topology)) {
        if pairs.old(i).and_then(|i| old.steers.get(i)).is_some_and(|before| before.all_down != steer.all_down) {
            into.push(Change::Steer { name, all_down: steer.all_down });
        }
    }
}

impl Change {
    /// The word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Reloaded { .. } => "reloaded",
            Self::Isolation { .. } => "isolation",
            Self::Intent { .. } => "intent",
            Self::Target { .. } => "target",
            Self::Backend { .. } => "backend",
            Self::Datacenter { .. } => "datacenter",
            Self::Steer { .. } => "steer",
        }
    }

    /// How much it matters.
    pub fn gravity(&self) -> Gravity {
        let bad = match self {
            Self::Reloaded { .. } | Self::Intent { .. } => false,
            Self::Isolation { isolated: bad } | Self::Steer { all_down: bad, .. } => *bad,
            Self::Target { from: Verdict::Unknown, to: Verdict::Up, .. } => return Gravity::Step,
            Self::Target { to, .. } => *to == Verdict::Down,
            Self::Backend { from, to, .. } if from == to || (plain(*from) && plain(*to)) => return Gravity::Step,
            Self::Backend { to, .. } => matches!(to, BackendState::Ejected | BackendState::Down),
            Self::Datacenter { from, to, panic, panic_turned, ramping, .. } => {
                if from == to && !panic_turned && *ramping {
                    return Gravity::Step;
                }
                (from != to && *to == DcState::Failed) || (*panic_turned && *panic)
            }
        };
        if bad { Gravity::Bad } else { Gravity::News }
    }
}

/// Used as ever: not known yet, looked at twice, or neither.
const fn plain(state: BackendState) -> bool {
    matches!(state, BackendState::Unknown | BackendState::Healthy | BackendState::Suspect)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reloaded { added, removed, discovered: true, .. } => {
                write!(f, "backends were found anew: {added} more, {removed} fewer")
            }
            Self::Reloaded { serial, added, removed, .. } => {
                write!(f, "configuration {serial} is in force: {added} backends more, {removed} fewer")
            }
            Self::Isolation { isolated: true } => {
                f.write_str("everything looks dead from here, so this node distrusts itself: verdicts are held")
            }
            Self::Isolation { isolated: false } => f.write_str("this node trusts itself again"),
            Self::Intent { intent, in_force } => {
                let Intent { subject, wish, by, reason, .. } = intent;
                let moved = if *in_force { "in force" } else { "no longer in force" };
                write!(f, "intent {moved}: {wish} {subject}, said by {by}")?;
                if reason.is_empty() { Ok(()) } else { write!(f, " ({reason})") }
            }
            Self::Target { address, from, to, last } => {
                write!(f, "probes of {address}: {} -> {}", from.as_str(), to.as_str())?;
                match last {
                    Some(ProbeOutcome::Failed(super::health::ProbeFailure::Status(code))) => {
                        write!(f, " (status {code})")
                    }
                    Some(ProbeOutcome::Failed(failure)) => write!(f, " ({})", failure.as_str()),
                    Some(ProbeOutcome::Ok) | None => Ok(()),
                }
            }
            Self::Backend { service, datacenter, address, from, to, reason, weight } => {
                write!(f, "{service} {address} in {datacenter}: ")?;
                if from == to {
                    return write!(f, "weight {} -> {}", thousandths(weight.0.into()), thousandths(weight.1.into()));
                }
                write!(f, "{} -> {}", from.as_str(), to.as_str())?;
                reason.map_or(Ok(()), |reason| write!(f, " ({})", reason.as_str()))
            }
            Self::Datacenter { service, datacenter, from, to, effective, health, panic, panic_turned, .. } => {
                write!(f, "{service} in {datacenter}: ")?;
                if from != to {
                    write!(f, "{} -> {}, ", from.as_str(), to.as_str())?;
                }
                f.write_str("weight ")?;
                if effective.0 != effective.1 {
                    write!(f, "{} -> ", thousandths(effective.0))?;
                }
                write!(f, "{}", thousandths(effective.1))?;
                write!(f, " ({:.0} % healthy)", health * 100.0)?;
                match (panic_turned, panic) {
                    (false, _) => Ok(()),
                    (true, true) => f.write_str(", panic: balance ignores health"),
                    (true, false) => f.write_str(", panic is over"),
                }
            }
            Self::Steer { name, all_down: true } => write!(f, "{name}: every datacenter has failed"),
            Self::Steer { name, all_down: false } => write!(f, "{name}: a datacenter serves again"),
        }
    }
}

/// Thousandths as a person writes the number: `40`, `12.5`.
fn thousandths(n: u64) -> f64 {
    n as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::clock::Wall;
    use crate::config::{Balance, Config};
    use crate::decide::world::{members, set_backend, set_datacenter, set_panic, world};
    use crate::snapshot::intent::{Subject, Wish};
    use crate::snapshot::topology::Assets;

    fn told(old: &Snapshot, new: &Snapshot) -> Vec<(Gravity, String)> {
        diff(old, new).iter().map(|change| (change.gravity(), change.to_string())).collect()
    }

    fn line(gravity: Gravity, text: &str) -> (Gravity, String) {
        (gravity, text.to_owned())
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        let old = world(Balance::P2c, &[(40, &[1, 1]), (20, &[1])]);
        assert_eq!(diff(&old, &old.clone()), []);
        let again = world(Balance::P2c, &[(40, &[1, 1]), (20, &[1])]);
        assert_eq!(diff(&old, &again), [], "equal tables are equal, shared or not");
    }

    #[test]
    fn each_change_is_a_sentence() {
        let old = world(Balance::P2c, &[(40, &[1, 1]), (20, &[1])]);
        let mut new = old.clone();
        set_backend(&mut new, members(&old, 0)[1], BackendState::Ejected);
        Arc::make_mut(&mut new.backends)[1].ejected =
            Some((EjectReason::ConsecutiveFailures, crate::base::clock::Mono::NEVER));
        set_datacenter(&mut new, 0, DcState::Serving, 700);
        set_datacenter(&mut new, 1, DcState::Failed, 0);
        set_panic(&mut new, 0);
        new.isolated_since = Some(new.at);
        assert_eq!(
            told(&old, &new),
            [
                line(Gravity::Bad, "everything looks dead from here, so this node distrusts itself: verdicts are held"),
                line(Gravity::Bad, "gifts 10.1.0.2:7000 in dc0: healthy -> ejected (consecutive-failures)"),
                line(Gravity::Bad, "gifts in dc0: weight 40 -> 28 (50 % healthy), panic: balance ignores health"),
                line(Gravity::Bad, "gifts in dc1: serving -> failed, weight 20 -> 0 (0 % healthy)"),
            ]
        );
        assert!(
            told(&new, &old).iter().all(|(gravity, _)| *gravity == Gravity::News),
            "what ends is news, and not bad"
        );
    }

    #[test]
    fn a_ramp_and_a_second_look_are_steps() {
        let old = world(Balance::P2c, &[(40, &[1])]);
        let mut new = old.clone();
        set_backend(&mut new, members(&old, 0)[0], BackendState::Suspect);
        assert_eq!(told(&old, &new), [line(Gravity::Step, "gifts 10.1.0.1:7000 in dc0: healthy -> suspect")]);
        let (mut low, mut high) = (old.clone(), old.clone());
        for (snapshot, factor) in [(&mut low, 100), (&mut high, 150)] {
            set_datacenter(snapshot, 0, DcState::Returning, factor);
            Arc::make_mut(&mut snapshot.weights)[0].ramp_from = Some(old.at);
        }
        assert_eq!(diff(&low, &high)[0].gravity(), Gravity::Step);
        assert_eq!(diff(&high, &low)[0].gravity(), Gravity::News, "down-moves are not part of a ramp");
    }

    #[test]
    fn an_intent_is_told_when_it_comes_when_it_is_replaced_and_when_it_goes() {
        let old = world(Balance::P2c, &[(40, &[1])]);
        let intent = |wish| Intent {
            subject: Subject::Datacenter("dc0".into()),
            wish,
            since: Wall(0),
            until: None,
            by: "ann".into(),
            reason: "a new kernel".into(),
        };
        let with = |wish| Snapshot { intents: Arc::new(Intents { entries: vec![intent(wish)] }), ..old.clone() };
        let (drained, down) = (with(Wish::Drain), with(Wish::Down));
        let (comes, goes) = ("intent in force", "intent no longer in force");
        let news = |said: &[(&str, &str)]| -> Vec<_> {
            let one = |(moved, wish): &(&str, &str)| format!("{moved}: {wish} dc0, said by ann (a new kernel)");
            said.iter().map(|said| line(Gravity::News, &one(said))).collect()
        };
        assert_eq!(told(&old, &drained), news(&[(comes, "drain")]));
        assert_eq!(told(&drained, &down), news(&[(goes, "drain"), (comes, "down")]));
        assert_eq!(told(&down, &old), news(&[(goes, "down")]));
    }

    #[test]
    fn a_reload_is_told_by_what_it_changed_and_not_by_ids() {
        let old = world(Balance::P2c, &[(40, &[1, 1]), (20, &[1])]);
        let mut config = Config::clone(&old.topology.config);
        // The first backend goes, so every id moves; the last one's place is another's now.
        config.services[0].backends.remove(0);
        let topology = Topology::build(Arc::new(config), Assets::default(), Some(&old.topology));
        let mut new = Snapshot { topology: Arc::new(topology), ..old.clone() };
        Arc::make_mut(&mut new.backends).remove(0);
        assert_eq!(told(&old, &new), [line(Gravity::News, "configuration 2 is in force: 0 backends more, 1 fewer")]);
        let last = members(&new, 1)[0];
        set_backend(&mut new, last, BackendState::Down);
        let last = told(&old, &new).pop();
        assert_eq!(last, Some(line(Gravity::Bad, "gifts 10.2.0.1:7000 in dc1: healthy -> down")));
    }
}
