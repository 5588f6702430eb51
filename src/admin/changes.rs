//! What has changed from one snapshot to the next, in words: the log of the dashboard and of `/v1/events`.
//!
//! What has changed is [`diff`]'s to find; here it is chosen and put into words. States only: a weight that ramps changes a
//! hundred times and says nothing that the states don't.

use serde::{Deserialize, Serialize};

use super::evidence;
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{BackendId, DatacenterId, ServiceId};
use crate::base::units::show_duration;
use crate::snapshot::diff::{Change as Told, diff};
use crate::snapshot::health::BackendState;
use crate::snapshot::intent::Wish;
use crate::snapshot::{DcState, Intent, Snapshot};

/// Changes that one moment tells of; the rest of a landslide is counted.
const AT_MOST: usize = 64;

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What: `gift-list@shanghai`, `gift-list/10.0.0.1:7000`, `configuration`, `node`.
    pub subject: String,
    /// From what.
    pub from: String,
    /// To what.
    pub to: String,
    /// Why.
    pub why: String,
}

/// The changes of one step from generation to generation (or of several, where they came at once).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The generation that they led to.
    pub generation: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What has changed.
    pub changes: Vec<Change>,
}

/// What has changed from `before` to `after`, as far as people want to be told.
pub(super) fn between(before: &Snapshot, after: &Snapshot, now: Mono, wall: Wall) -> Vec<Change> {
    let told = diff(before, after);
    let mut changes: Vec<Change> = told.iter().filter_map(|it| say(it, &told, before, after, now, wall)).collect();
    let more = changes.len().saturating_sub(AT_MOST);
    if more > 0 {
        changes.truncate(AT_MOST);
        changes.push(change("…", "", &format!("and {more} more"), ""));
    }
    changes
}

fn change(subject: &str, from: &str, to: &str, why: &str) -> Change {
    Change { subject: subject.into(), from: from.into(), to: to.into(), why: why.into() }
}

/// `it`, one of `all` that changed, in words; `None` where it says nothing that another does not, or is a step of a ramp.
fn say(it: &Told, all: &[Told], before: &Snapshot, after: &Snapshot, now: Mono, wall: Wall) -> Option<Change> {
    match it {
        Told::Isolation { isolated: true } => {
            let why = "everything seems dead at once: this node distrusts itself and holds its verdicts";
            Some(change("node", "connected", "isolated", why))
        }
        Told::Isolation { isolated: false } => {
            Some(change("node", "isolated", "connected", "targets or references answer again"))
        }
        Told::Reloaded { discovered, .. } => {
            let size = |s: &Snapshot| {
                let config = &s.topology.config;
                format!("{} services, {} backends", config.services.len(), s.topology.backends.len())
            };
            let why = if *discovered { "discovered" } else { "reloaded" };
            Some(change("configuration", &size(before), &size(after), why))
        }
        Told::Intent { intent, in_force: true } => Some(wished(intent)),
        Told::Intent { intent, in_force: false } => {
            let replaces = |new: &Told| {
                matches!(new, Told::Intent { intent: new, in_force: true }
                    if new.subject == intent.subject && kind(new) == kind(intent))
            };
            let expired = intent.until.is_some_and(|until| until <= wall);
            let why = if expired { "it has expired" } else { "taken back" };
            let said = || change(&intent.subject.to_string(), &intent.wish.to_string(), "as configured", why);
            (!all.iter().any(replaces)).then(said)
        }
        Told::Datacenter { service, datacenter, from, to, panic, panic_turned, .. } => {
            let panicked = *panic != *panic_turned;
            let word = |state: &DcState, panic| {
                if panic { format!("{}, panic", state.as_str()) } else { state.as_str().into() }
            };
            (from != to || *panic_turned).then(|| Change {
                subject: format!("{service}@{datacenter}"),
                from: word(from, panicked),
                to: word(to, *panic),
                why: usable(after, service, datacenter),
            })
        }
        // What an intent does to its backends, it has said itself.
        Told::Backend { from, to, .. } if from == to || [from, to].into_iter().any(|s| by_intent(*s)) => None,
        Told::Backend { service, datacenter, address, from, to, .. } => Some(Change {
            subject: format!("{service}/{address}"),
            from: from.as_str().into(),
            to: to.as_str().into(),
            why: members(after, service, datacenter)
                .find(|id| after.topology.backend(*id).spec.address == *address)
                .map(|id| evidence::why(after, id, now, wall))
                .unwrap_or_default(),
        }),
        Told::Steer { name, all_down } => {
            let [from, to] = if *all_down { ["served", "all down"] } else { ["all down", "served"] };
            Some(change(name, from, to, if *all_down { "every datacenter of it has failed" } else { "one is back" }))
        }
        // A verdict shows in the state of its backends.
        Told::Target { .. } => None,
    }
}

/// An intent that has come into force.
fn wished(intent: &Intent) -> Change {
    let lasting = intent.until.map(|until| format!(" for {}", show_duration(until.since(intent.since))));
    let wish = format!("{}{}", intent.wish, lasting.unwrap_or_default());
    let Intent { subject, by, reason, .. } = intent;
    let said = if reason.is_empty() { format!("by {by}") } else { format!("by {by}: {reason}") };
    change(&subject.to_string(), "", &wish, &said)
}

/// At most one intent of each kind is in force for a subject.
fn kind(intent: &Intent) -> bool {
    matches!(intent.wish, Wish::Weight(_))
}

const fn by_intent(state: BackendState) -> bool {
    matches!(state, BackendState::Drained | BackendState::AdminDown)
}

fn members<'s>(snapshot: &'s Snapshot, service: &str, datacenter: &str) -> impl Iterator<Item = BackendId> + 's {
    let config = &snapshot.topology.config;
    let service = config.services.iter().position(|s| s.name == service).map(ServiceId::new);
    let datacenter = config.datacenters.iter().position(|dc| dc.name == datacenter).map(DatacenterId::new);
    let members = service.zip(datacenter).map(|(service, dc)| snapshot.topology.members(service, dc));
    members.unwrap_or_default().iter().copied()
}

fn usable(snapshot: &Snapshot, service: &str, datacenter: &str) -> String {
    let (mut usable, mut all) = (0, 0);
    for id in members(snapshot, service, datacenter) {
        usable += usize::from(snapshot.backend(id).state.usable());
        all += 1;
    }
    format!("{usable} of {all} backends usable")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::admin::world::{NOW, WALL, snapshot};
    use crate::snapshot::topology::Assets;
    use crate::snapshot::{Intents, Topology};

    fn said(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let line = |c: Change| format!("{}: {} -> {} ({})", c.subject, c.from, c.to, c.why);
        between(before, after, NOW, WALL).into_iter().map(line).collect()
    }

    fn intent(wish: Wish, minutes: Option<u64>) -> Intent {
        Intent {
            subject: "shanghai".parse().unwrap(),
            wish,
            since: WALL,
            until: minutes.map(|m| WALL + Duration::from_mins(m)),
            by: "alice".into(),
            reason: String::new(),
        }
    }

    fn with(entries: Vec<Intent>) -> Snapshot {
        Snapshot { intents: Arc::new(Intents { entries }), ..snapshot() }
    }

    #[test]
    fn states_are_told_and_weights_are_not() {
        let (before, mut after) = (snapshot(), snapshot());
        Arc::make_mut(&mut after.weights)[0].effective -= 1;
        assert_eq!(said(&before, &after), [""; 0]);
        Arc::make_mut(&mut after.weights)[2].state = DcState::Returning;
        Arc::make_mut(&mut after.backends)[4].state = BackendState::Healthy;
        assert_eq!(
            said(&before, &after),
            [
                "gift-list/10.3.0.11:7000: down -> healthy (probe: refused, 6 in a row, last 200ms ago)",
                "gift-list@tianjin: failed -> returning (1 of 2 backends usable)"
            ]
        );
    }

    #[test]
    fn intents_come_are_replaced_and_go() {
        let drain = || intent(Wish::Drain, Some(10));
        assert_eq!(said(&with(vec![]), &with(vec![drain()])), ["shanghai:  -> drain for 10m (by alice)"]);
        let both = [drain(), intent(Wish::Weight(5), None)];
        assert_eq!(said(&with(vec![drain()]), &with(both.to_vec())), ["shanghai:  -> weight 5 (by alice)"]);
        let down = intent(Wish::Down, None);
        assert_eq!(said(&with(vec![drain()]), &with(vec![down])), ["shanghai:  -> down (by alice)"], "told once");
        assert_eq!(said(&with(vec![drain()]), &with(vec![])), ["shanghai: drain -> as configured (taken back)"]);
        let over = with(vec![intent(Wish::Drain, Some(0))]);
        assert_eq!(said(&over, &with(vec![])), ["shanghai: drain -> as configured (it has expired)"]);
    }

    #[test]
    fn a_reload_is_one_line_and_a_landslide_is_cut() {
        let before = snapshot();
        let topology = Topology::build(Arc::clone(&before.topology.config), Assets::default(), Some(&before.topology));
        let after = Snapshot { topology: Arc::new(topology), ..before.clone() };
        assert_eq!(
            said(&before, &after),
            ["configuration: 2 services, 12 backends -> 2 services, 12 backends (reloaded)"]
        );
        let many = (0..100).map(|n| Intent { subject: format!("dc{n}").parse().unwrap(), ..intent(Wish::Drain, None) });
        let told = said(&before, &with(many.collect()));
        assert_eq!((told.len(), told[64].as_str()), (65, "…:  -> and 36 more ()"));
    }

    #[test]
    fn isolation_is_told_first() {
        let after = Snapshot { isolated_since: Some(NOW), ..with(vec![intent(Wish::Drain, None)]) };
        assert!(said(&snapshot(), &after)[0].starts_with("node: connected -> isolated"));
    }
}
