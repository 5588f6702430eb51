//! What has changed from one snapshot to the next, in words: the log of the dashboard and of `/v1/events`.
//!
//! States only. A weight that ramps changes a hundred times and says nothing that the states don't.

use serde::{Deserialize, Serialize};

use super::evidence;
use super::report::datacenter;
use crate::base::clock::{Mono, Wall};
use crate::base::ids::BackendId;
use crate::base::units::show_duration;
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

/// What has changed from `before` to `after`.
pub(super) fn between(before: &Snapshot, after: &Snapshot, now: Mono, wall: Wall) -> Vec<Change> {
    let mut changes = Vec::new();
    if before.isolated_since.is_some() != after.isolated_since.is_some() {
        let word = |s: &Snapshot| if s.isolated_since.is_some() { "isolated" } else { "connected" };
        let why = match after.isolated_since {
            Some(_) => "everything seems dead at once: this node distrusts itself and holds its verdicts",
            None => "targets or references answer again",
        };
        changes.push(change("node", word(before), word(after), why));
    }
    intents(before, after, wall, &mut changes);
    if before.topology.serial == after.topology.serial {
        cells(before, after, &mut changes);
        backends(before, after, now, wall, &mut changes);
    } else {
        // Ids do not compare over topologies, and every row would be new: the reload is the news.
        let size = |s: &Snapshot| {
            let config = &s.topology.config;
            format!("{} services, {} backends", config.services.len(), s.topology.backends.len())
        };
        changes.push(change("configuration", &size(before), &size(after), "reloaded"));
    }
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

fn intents(before: &Snapshot, after: &Snapshot, wall: Wall, changes: &mut Vec<Change>) {
    let missing = |from: &Snapshot, intent: &&Intent| !from.intents.entries.contains(intent);
    let said =
        |i: &Intent| if i.reason.is_empty() { format!("by {}", i.by) } else { format!("by {}: {}", i.by, i.reason) };
    for new in after.intents.entries.iter().filter(|i| missing(before, i)) {
        let lasting =
            new.until.map(|until| format!(" for {}", show_duration(until.since(new.since)))).unwrap_or_default();
        changes.push(change(&new.subject.to_string(), "", &format!("{}{lasting}", new.wish), &said(new)));
    }
    for old in before.intents.entries.iter().filter(|i| missing(after, i)) {
        let replaced = after.intents.entries.iter().any(|i| i.subject == old.subject && kind(i) == kind(old));
        if !replaced {
            let why = if old.until.is_some_and(|until| until <= wall) { "it has expired" } else { "taken back" };
            changes.push(change(&old.subject.to_string(), &old.wish.to_string(), "as configured", why));
        }
    }
}

/// At most one intent of each kind is in force for a subject.
fn kind(intent: &Intent) -> bool {
    matches!(intent.wish, Wish::Weight(_))
}

fn cells(before: &Snapshot, after: &Snapshot, changes: &mut Vec<Change>) {
    for service in after.topology.service_ids() {
        for dc in after.topology.datacenter_ids() {
            let (old, new) = (before.weight(service, dc), after.weight(service, dc));
            if (old.state, old.panic) == (new.state, new.panic) {
                continue;
            }
            let members = after.topology.members(service, dc);
            let usable = members.iter().filter(|id| after.backend(**id).state.usable()).count();
            let word = |state: DcState, panic| {
                if panic { format!("{}, panic", state.as_str()) } else { state.as_str().into() }
            };
            changes.push(Change {
                subject: format!("{}@{}", after.topology.service(service).name, datacenter(after, dc)),
                from: word(old.state, old.panic),
                to: word(new.state, new.panic),
                why: format!("{usable} of {} backends usable", members.len()),
            });
        }
    }
}

const fn by_intent(state: BackendState) -> bool {
    matches!(state, BackendState::Drained | BackendState::AdminDown)
}

fn backends(before: &Snapshot, after: &Snapshot, now: Mono, wall: Wall, changes: &mut Vec<Change>) {
    for (i, (old, new)) in before.backends.iter().zip(after.backends.iter()).enumerate() {
        // What an intent does to its backends, it has said itself.
        if old.state == new.state || [old.state, new.state].into_iter().any(by_intent) {
            continue;
        }
        let backend = after.topology.backend(BackendId::new(i));
        changes.push(Change {
            subject: format!("{}/{}", after.topology.service(backend.service).name, backend.spec.address),
            from: old.state.as_str().into(),
            to: new.state.as_str().into(),
            why: evidence::why(after, BackendId::new(i), now, wall),
        });
    }
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
                "gift-list@tianjin: failed -> returning (1 of 2 backends usable)",
                "gift-list/10.3.0.11:7000: down -> healthy (probe: refused, 6 in a row, last 200ms ago)"
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
