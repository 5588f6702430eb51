//! What a health core begins with: what was known before it, and whether somebody else still keeps it.

use std::path::PathBuf;

use super::event::Event;
use super::memory::Memory;
use crate::net::sockets::Succession;
use crate::snapshot::intent::{Intent, Intents};

/// What was before.
#[derive(Debug, Default)]
pub struct Past {
    /// Where the last-known-good is kept, if it is.
    pub state_dir: Option<PathBuf>,
    /// What a predecessor told of the world; it counts before what the folder has, for it is newer.
    pub told: Option<Memory>,
    /// Nothing is written until no predecessor does.
    pub succession: Option<Succession>,
}

impl From<Option<PathBuf>> for Past {
    fn from(state_dir: Option<PathBuf>) -> Self {
        Self { state_dir, ..Self::default() }
    }
}

impl Past {
    /// What is known at the start. Whatever is wrong with the folder is said, and the start goes on without.
    pub(super) fn memory(&mut self) -> Option<Memory> {
        self.told.take().or_else(|| {
            self.state_dir.as_deref().map_or(Ok(None), Memory::load).unwrap_or_else(|error| {
                tracing::warn!(%error, "starting without memory");
                None
            })
        })
    }
}

/// What turns the intents `ours` into `theirs`: operators have spoken to the predecessor while we started.
pub fn catch_up(ours: &Intents, theirs: &Intents) -> Vec<Event> {
    // Revoking takes all that is wanted of a subject.
    let gone: Vec<_> = ours.entries.iter().filter(|i| !theirs.entries.contains(i)).collect();
    let is_gone = |t: &Intent| gone.iter().any(|g| g.subject == t.subject);
    let new = theirs.entries.iter().filter(|t| is_gone(t) || !ours.entries.contains(t)).cloned().map(Event::Wish);
    let revoke = |i: &&Intent| Event::Revoke { subject: i.subject.clone(), by: i.by.clone() };
    gone.iter().map(revoke).chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Wall;
    use crate::snapshot::intent::{Subject, Wish};

    #[test]
    fn intents_of_the_last_moment_are_taken_over() {
        let intent = |name: &str, wish| Intent {
            subject: Subject::Datacenter(name.into()),
            wish,
            since: Wall(1),
            until: None,
            by: "ann".into(),
            reason: String::new(),
        };
        let ours = Intents { entries: vec![intent("kept", Wish::Drain), intent("taken-back", Wish::Down)] };
        let theirs = Intents { entries: vec![intent("kept", Wish::Drain), intent("new", Wish::Weight(3))] };
        let events = catch_up(&ours, &theirs);
        assert_eq!(events.len(), 2);
        assert!(matches!(&events[0], Event::Revoke { subject: Subject::Datacenter(s), .. } if s == "taken-back"));
        assert!(matches!(&events[1], Event::Wish(i) if i.wish == Wish::Weight(3)));
        assert!(catch_up(&theirs, &theirs).is_empty());
    }
}
