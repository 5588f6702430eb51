//! What comes next in rolling a zone's keys: pure, from the keys' times and what the parent is said to have.
//!
//! ZSK (RFC 6781 section 4.1.1.1, pre-publish): published, then in use once everybody may know it, the old one leaves once
//! nobody may hold a signature by it. All of it by times; nothing to do in between.
//!
//! KSK and CSK (double-DS over a double DNSKEY, RFC 7583 section 3.3): published, signing the DNSKEY set, and offered to the
//! parent (CDS) once everybody may know it; when the operator says that the parent has its DS, it takes over after that
//! DS has reached everybody, and the old one leaves last.
//!
//! ```text
//! made --publish--> known --parent has the DS--> settled --activate--> in use; the old: inactive --> delete
//! ```
//!
//! A key is never made to leave before the longest TTL of what depends on it has passed; the server keeps it anyway while
//! nothing else may sign.

use super::timeline::Life;
use crate::wire::dnssec::keyfile::{Key, Times};
use crate::wire::dnssec::{Algorithm, SEP, ZONE_KEY};

/// How long what others hold may last, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    /// TTL of the DNSKEY set.
    pub dnskey: u32,
    /// The longest TTL in the zone.
    pub longest: u32,
    /// TTL of the DS set at the parent.
    pub parent: u32,
    /// What is added to each: for secondaries, slow reloads and clocks.
    pub margin: u32,
}

/// Which key is rolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One that signs records beside a KSK.
    Zone,
    /// One that the parent's DS points to: a KSK, or a CSK that signs everything.
    Entry,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// A key to make: its flags, algorithm and times.
    pub make: Option<(u16, Algorithm, Times)>,
    /// Keys (by their place) that get these times.
    pub change: Vec<(usize, Times)>,
    /// What follows, each with when, in order.
    pub then: Vec<(u32, Then)>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The new key takes over by itself.
    TakesOver,
    /// The old key leaves the zone by itself; its files may be put away.
    Leaves,
    /// The new key's DS is to be given to the parent, beside the old one's; CDS offers it.
    GiveDs,
    /// The parent's DS of the old key is to be removed; CDS asks for it.
    RemoveDs,
}

/// Why there is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RollError {
    /// Nothing to roll.
    #[error("no key of this role signs now: see `springtide keys list`, and make one with `springtide keys make`")]
    NoKey,
    /// The parent cannot have been given a DS yet that everybody's resolver would agree with.
    #[error("too early: until {} some resolvers may not know the new key yet; say so again then", super::keys::when(*.at))]
    TooEarly {
        /// When it is not.
        at: u32,
    },
    /// Nothing waits for the parent.
    #[error("no new key waits for the parent: begin a roll without `--parent-has-ds`")]
    NotWaiting,
}

/// The next step of rolling the keys of this role at `now`. A roll that is under way is told, and not begun again.
///
/// # Errors
/// As [`RollError`] lists.
pub fn step(keys: &[Key], role: Role, parent_has_ds: bool, holds: &Holds, now: u32) -> Result<Step, RollError> {
    let ours: Vec<(usize, &Times, Life, Algorithm)> = keys
        .iter()
        .enumerate()
        .filter(|(_, k)| k.public.is_entry() == (role == Role::Entry))
        .map(|(i, k)| (i, &k.private.times, Life::of(&k.private.times), k.public.algorithm))
        .filter(|(.., life, _)| life.delete > now)
        .collect();
    let known = |since: u32| since.saturating_add(holds.dnskey).saturating_add(holds.margin);
    let gone = |since: u32| since.saturating_add(holds.longest).saturating_add(holds.margin);
    let old: Vec<_> = ours.iter().filter(|(.., life, _)| life.is_active(now)).collect();
    let next = ours.iter().find(|(.., life, _)| life.activate > now);
    // What is under way is told again.
    let leaving = |from: u32| ours.iter().filter(move |(.., l, _)| l.delete < u32::MAX && l.delete > from);
    match (next, role) {
        (Some((index, times, life, _)), Role::Entry) if life.activate == u32::MAX => {
            let ready = times.sync_publish.unwrap_or_else(|| known(life.publish));
            if !parent_has_ds {
                return Ok(Step { then: vec![(ready, Then::GiveDs)], ..Step::default() });
            }
            if now < ready {
                return Err(RollError::TooEarly { at: ready });
            }
            let switch = now.saturating_add(holds.parent).saturating_add(holds.margin);
            let mut change = vec![(*index, Times { activate: Some(switch), ..**times })];
            change.extend(old.iter().map(|(i, times, ..)| {
                let (end, delete) = (Some(switch), Some(gone(switch)));
                (*i, Times { inactive: end, sync_delete: end, delete, ..**times })
            }));
            let then = vec![(switch, Then::TakesOver), (switch, Then::RemoveDs), (gone(switch), Then::Leaves)];
            Ok(Step { change, then, ..Step::default() })
        }
        _ if parent_has_ds => Err(RollError::NotWaiting),
        (Some((.., life, _)), _) => {
            let mut then = vec![(life.activate, Then::TakesOver)];
            then.extend((role == Role::Entry).then_some((life.activate, Then::RemoveDs)));
            then.extend(leaving(now).map(|(.., l, _)| (l.delete, Then::Leaves)));
            Ok(Step { then, ..Step::default() })
        }
        (None, _) if leaving(now).next().is_some() => {
            let remove = (role == Role::Entry).then_some((now, Then::RemoveDs));
            let then = remove.into_iter().chain(leaving(now).map(|(.., l, _)| (l.delete, Then::Leaves))).collect();
            Ok(Step { then, ..Step::default() })
        }
        (None, _) => {
            let Some((.., algorithm)) = old.first().or(ours.first().as_ref()) else { return Err(RollError::NoKey) };
            Ok(begin(role, *algorithm, &old, now, known(now), gone(known(now))))
        }
    }
}

type Known<'a> = (usize, &'a Times, Life, Algorithm);

fn begin(role: Role, algorithm: Algorithm, old: &[&Known<'_>], now: u32, ready: u32, gone: u32) -> Step {
    let times = Times { created: Some(now), publish: Some(now), ..Times::default() };
    match role {
        Role::Zone => {
            let made = Times { activate: Some(ready), ..times };
            let ending =
                |(i, times, ..): &&Known<'_>| (*i, Times { inactive: Some(ready), delete: Some(gone), ..**times });
            Step {
                make: Some((ZONE_KEY, algorithm, made)),
                change: old.iter().map(ending).collect(),
                then: vec![(ready, Then::TakesOver), (gone, Then::Leaves)],
            }
        }
        Role::Entry => Step {
            make: Some((ZONE_KEY | SEP, algorithm, Times { sync_publish: Some(ready), ..times })),
            change: Vec::new(),
            then: vec![(ready, Then::GiveDs)],
        },
    }
}

#[cfg(test)]
mod tests;
