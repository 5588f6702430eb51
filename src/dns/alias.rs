//! What an ALIAS stands for: addresses of another name, looked up in the background and published by one pointer.
//!
//! The master file says `@ ALIAS lb.example.net.`; whoever asks for A or AAAA gets that name's addresses under ours. The data
//! path reads a finished set behind an atomic pointer: no lock, no wait. `refresh` alone writes it. While nothing is known
//! the answer is SERVFAIL, never an empty one: a resolver asks another server then, and keeps no untruth.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};

use super::sets::records;
use crate::wire::dns::rtype;
use crate::wire::zone::{RrSet, WireName};

mod refresh;

pub(super) use refresh::refresh;

/// How long an answer may be given beyond its TTL while its target can't be asked (GSLB 3.14).
const STALE: Duration = Duration::from_hours(1);
/// The TTL that such an answer is given with, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// How soon a target is asked again, at the soonest.
const FLOOR: Duration = Duration::from_secs(5);
/// And at the latest: a target that promises a day may move within an hour. Ours.
const CEILING: Duration = Duration::from_hours(1);

/// The target that the ALIAS among `sets` names.
pub(super) fn target(sets: &[RrSet]) -> Option<&[u8]> {
    sets.iter().find(|s| s.rtype == rtype::ALIAS)?.rdatas.first().map(AsRef::as_ref)
}

/// What an ALIAS says to who asks for HTTPS: the same, in the form that RFC 9460 section 2.4.2 has for it.
pub(super) fn https(set: &RrSet) -> Option<RrSet> {
    let target = set.rdatas.first().filter(|_| set.rtype == rtype::ALIAS)?;
    let data = [&[0, 0], target.as_ref()].concat();
    Some(RrSet { rtype: rtype::HTTPS, ttl: set.ttl, rdatas: vec![data.into()] })
}

/// All targets of a topology. A target that the topology before had too brings its answer along.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    targets: Vec<Arc<Target>>,
    places: HashMap<WireName, u32>,
}

/// One target, whatever the number of names that stand for it.
#[derive(Debug)]
pub(super) struct Target {
    /// Whose addresses they are: in lower case.
    pub(super) name: WireName,
    known: ArcSwapOption<Known>,
    /// It was asked for, and no answer came.
    failed: AtomicBool,
}

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// A and AAAA.
    families: [Family; 2],
    /// They have served their time, and no others could be had.
    pub(super) stale: bool,
}

/// The addresses of one family; none is an answer, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// How many records, and the records, owned by the question.
    pub(super) count: u16,
    pub(super) octets: Vec<u8>,
    set: Option<RrSet>,
}

impl Aliases {
    /// The place of `name`, which is added if it is new; its answer is that of `before`, where that has it.
    pub(super) fn place(&mut self, name: &[u8], before: Option<&Self>) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.targets.len() as u32;
        self.places.insert(name.into(), place);
        let former = before.and_then(|b| b.targets.get(*b.places.get(name)? as usize));
        self.targets.push(former.map_or_else(
            || Arc::new(Target { name: name.into(), known: ArcSwapOption::empty(), failed: AtomicBool::new(false) }),
            Arc::clone,
        ));
        place
    }

    /// The target at `place`.
    pub(super) fn get(&self, place: u32) -> Option<&Target> {
        self.targets.get(place as usize).map(AsRef::as_ref)
    }

    /// All of them.
    pub(super) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }
}

impl Target {
    /// What is known, for a short look.
    pub(super) fn look(&self) -> Guard<Option<Arc<Known>>> {
        self.known.load()
    }

    /// Whether it was asked for and no answer came; else nobody has been able to ask yet.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn publish(&self, known: Option<Known>) {
        self.known.store(known.map(Arc::new));
    }
}

impl Known {
    /// The addresses that are asked for by `rtype`; `None` where that is no type of addresses.
    pub(super) fn family(&self, rtype: u16) -> Option<&Family> {
        match rtype {
            rtype::A => self.families.first(),
            rtype::AAAA => self.families.last(),
            _ => None,
        }
    }

    /// The sets, as a zone has them.
    pub(super) fn sets(&self) -> Vec<RrSet> {
        self.families.iter().filter_map(|f| f.set.clone()).collect()
    }

    fn new(sets: [RrSet; 2]) -> Self {
        Self { families: sets.map(Family::new), stale: false }
    }

    /// The same beyond its time, with no TTL above `ttl`.
    fn aged(&self, ttl: u32) -> Self {
        let cap = |family: &Family| match &family.set {
            Some(set) => Family::new(RrSet { ttl: set.ttl.min(ttl), ..set.clone() }),
            None => Family::default(),
        };
        Self { families: [cap(&self.families[0]), cap(&self.families[1])], stale: true }
    }
}

impl Family {
    fn new(set: RrSet) -> Self {
        if set.rdatas.is_empty() {
            return Self::default();
        }
        let mut octets = Vec::new();
        let count = records(&set, set.ttl, &mut octets);
        Self { count, octets, set: Some(set) }
    }
}
