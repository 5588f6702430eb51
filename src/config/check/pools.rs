//! Groups of datacenters: each resolved once, without rings, and laid out for the steered names that use them.

use std::collections::{HashMap, HashSet};

use super::Checker;
use super::names::Names;
use crate::base::ids::DatacenterId;
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::{List, Or};
use crate::config::model::{Datacenter, Member, Policy, Pool, Who};
use crate::config::raw;
use crate::config::reader::Said;
use crate::config::words::Name;

/// How deep pools may nest (ours: deeper, nobody follows).
const DEPTH: usize = 8;

/// What members are written as.
type Members = List<Or<Name, raw::Preference>, 64>;

/// All pools of the file.
pub(super) struct Pools<'a> {
    said: &'a [Said<raw::Pool>],
    names: Names,
    sites: &'a Names,
    datacenters: &'a [Datacenter],
    /// By pool.
    known: Vec<Vec<Link>>,
    policies: Vec<Vec<Policy>>,
    /// What is beneath each; empty until all are known.
    depths: Vec<Depth>,
}

/// What is beneath a pool.
#[derive(Clone, Copy)]
struct Depth {
    /// Pools on the longest way down from it, itself too.
    height: usize,
    /// Whether a way down leads into a ring.
    ring: bool,
    /// What it weighs where nothing is said of it.
    weight: u32,
}

impl Depth {
    /// Whether it ends in datacenters, and soon enough.
    const fn is_sound(self) -> bool {
        !self.ring && self.height <= DEPTH
    }
}

/// A member, resolved.
#[derive(Clone, Copy)]
struct Link {
    to: To,
    weight: Option<u32>,
    standby: bool,
    span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum To {
    Datacenter(usize),
    Pool(usize),
}

/// What a steered name chooses among.
#[derive(Default)]
pub(super) struct Layout {
    pub(super) datacenters: Vec<(DatacenterId, u32)>,
    pub(super) members: Vec<Member>,
    /// Whether everything that was written is in it.
    pub(super) whole: bool,
    /// Where what has been met leads to from here, and whether it was told that it is met again.
    pub(super) seen: HashMap<To, (Span, bool)>,
}

impl<'a> Pools<'a> {
    pub(super) fn collect(
        dns: &'a raw::Dns,
        sites: &'a Names,
        datacenters: &'a [Datacenter],
        checker: &mut Checker<'_>,
    ) -> Self {
        let said = dns.pool.0.as_slice();
        let names = Names::collect("pool", said.iter().map(|p| p.name.as_ref()), checker);
        for name in said.iter().filter_map(|p| p.name.as_ref()).filter(|n| sites.knows(&n.0)) {
            let message = format!("`{}` is a datacenter already", name.0);
            checker.error(
                Code::Duplicate,
                name.span,
                message,
                "pools and datacenters are named side by side: choose another",
            );
        }
        let mut pools =
            Self { said, names, sites, datacenters, known: Vec::new(), policies: Vec::new(), depths: Vec::new() };
        pools.known =
            said.iter().map(|p| p.datacenters.as_ref().map_or_else(Vec::new, |m| pools.links(m, checker))).collect();
        pools.policies = said.iter().map(|p| super::steering::policy(&p.policy, true, checker)).collect();
        pools.depths = pools.measure(checker);
        pools.unused(dns, checker);
        pools
    }

    /// Resolves what is written; says once what is wrong with it.
    fn links(&self, list: &Said<Members>, checker: &mut Checker<'_>) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        for member in &list.0 {
            let (name, weight, standby) = match &member.value {
                Or::One(name) => (Some((&name.0, member.span)), None, false),
                Or::Other(full) => {
                    (full.name.as_ref().map(|n| (&n.0, n.span)), full.weight.as_ref().map(|w| w.0), full.standby.0)
                }
            };
            let Some((name, span)) = name else { continue };
            let pool = self.names.index(name).filter(|_| !self.sites.knows(name)).map(To::Pool);
            let found = pool.or_else(|| self.sites.resolve(name, span, checker).map(To::Datacenter));
            let Some(to) = found else { continue };
            if let To::Datacenter(index) = to
                && self.datacenters.get(index).is_some_and(|d| d.addresses.is_empty())
                && checker.whole
            {
                let message = format!("datacenter `{name}` has no address to answer with");
                checker.error(Code::Conflict, span, message, "add `addresses = [...]` to it");
            }
            if let Some(first) = links.iter().find(|l| l.to == to) {
                let what = if matches!(to, To::Pool(_)) { "pool" } else { "datacenter" };
                checker.twice(span, first.span, format!("{what} `{name}` stands twice"));
                continue;
            }
            links.push(Link { to, weight, standby, span });
        }
        if list.0.is_empty() && list.clean {
            let hint = "leave `datacenters` out of a steered name to answer with all of them";
            checker.error(Code::BadValue, list.span, "no datacenter is named", hint);
        } else if links.len() == list.0.len() && links.iter().all(|l| self.weight(*l) == 0) {
            let message = "every datacenter has weight 0 here: none would be answered";
            checker.error(Code::Conflict, list.span, message, "give one a weight");
        }
        links
    }

    /// What a member weighs: what is said here, or else its own.
    fn weight(&self, link: Link) -> u32 {
        let own = || match link.to {
            To::Datacenter(index) => self.datacenters.get(index).map_or(0, |d| d.weight),
            // Before all pools are known something that is not nothing.
            To::Pool(pool) => self.depths.get(pool).map_or(1, |depth| depth.weight),
        };
        link.weight.unwrap_or_else(own)
    }

    /// Looks beneath every pool, each once however many ways lead to it; says where one does not end, or not soon enough.
    fn measure(&self, checker: &mut Checker<'_>) -> Vec<Depth> {
        let mut walk = Walk { seen: vec![Seen::Not; self.said.len()], path: Vec::new(), closed: HashSet::new() };
        let depths: Vec<Depth> = (0..self.said.len()).map(|pool| self.descend(pool, &mut walk, checker)).collect();
        for (pool, _) in depths.iter().enumerate().filter(|(_, d)| !d.ring && d.height > DEPTH) {
            let Some(span) = self.too_deep(pool, &depths) else { continue };
            let message = format!("pools nest deeper than {DEPTH} here");
            checker.error(Code::OutOfRange, span, message, "name the datacenters closer to the top");
        }
        depths
    }

    /// What is beneath `pool`. No deeper than there are pools: what stands on the way down is not entered again.
    fn descend(&self, pool: usize, walk: &mut Walk, checker: &mut Checker<'_>) -> Depth {
        if let Some(Seen::Whole(found)) = walk.seen.get(pool) {
            return *found;
        }
        let mut here = Depth { height: 1, ring: false, weight: 0 };
        walk.enter(pool);
        for link in self.known.get(pool).map(Vec::as_slice).unwrap_or_default() {
            let own = match link.to {
                To::Datacenter(index) => self.datacenters.get(index).map_or(0, |d| d.weight),
                To::Pool(next) => {
                    if matches!(walk.seen.get(next), Some(Seen::Above)) {
                        here.ring = true;
                        // A ring is told once, where it closes.
                        if walk.closed.insert(next) {
                            let first = walk.path.iter().position(|p| *p == next).unwrap_or(0);
                            self.tell_ring(walk.path.get(first..).unwrap_or_default(), link.span, checker);
                        }
                        continue;
                    }
                    let beneath = self.descend(next, walk, checker);
                    here.height = here.height.max(beneath.height + 1);
                    here.ring |= beneath.ring;
                    beneath.weight
                }
            };
            if !link.standby {
                here.weight = here.weight.saturating_add(link.weight.unwrap_or(own)).min(1_000_000);
            }
        }
        // In a ring nothing is to be answered with: that it weighs nothing is not what is wrong.
        here.weight = if here.ring { here.weight.max(1) } else { here.weight };
        walk.leave(pool, here);
        here
    }

    /// Tells of a ring, by the pools in it from the one that it comes back to.
    fn tell_ring(&self, ring: &[usize], span: Span, checker: &mut Checker<'_>) {
        let of = |i: &usize| self.said.get(*i).and_then(|p| p.name.as_ref()).map_or("?", |n| n.0.as_str());
        let shown = ring.iter().take(DEPTH).map(of);
        let more = (ring.len() > DEPTH).then(|| format!("{} more", ring.len() - DEPTH));
        let mut way: Vec<String> = shown.chain(ring.first().map(of)).map(|name| format!("`{name}`")).collect();
        if let Some(more) = more {
            way.insert(DEPTH, more);
        }
        let message = format!("this pool is a member of itself: {}", way.join(" -> "));
        checker.error(Code::Conflict, span, message, "take one of them out");
    }

    /// The member by which `pool` nests too deep: the longest way down, as far as it may go.
    fn too_deep(&self, pool: usize, depths: &[Depth]) -> Option<Span> {
        let height = |link: &&Link| match link.to {
            To::Pool(next) => depths.get(next).map_or(0, |d| d.height),
            To::Datacenter(_) => 0,
        };
        let (mut here, mut span) = (To::Pool(pool), None);
        for _ in 0..DEPTH {
            let To::Pool(pool) = here else { break };
            let deepest = self.known.get(pool)?.iter().max_by_key(height)?;
            (here, span) = (deepest.to, Some(deepest.span));
        }
        span
    }

    fn unused(&self, dns: &raw::Dns, checker: &mut Checker<'_>) {
        let lists = dns.steer.0.iter().filter_map(|s| s.datacenters.as_ref());
        let lists = lists.chain(self.said.iter().filter_map(|p| p.datacenters.as_ref()));
        let written: HashSet<&str> = lists
            .flat_map(|l| &l.0)
            .filter_map(|m| match &m.value {
                Or::One(name) => Some(name.0.as_str()),
                Or::Other(full) => full.name.as_ref().map(|n| n.0.as_str()),
            })
            .collect();
        for name in self.said.iter().filter_map(|p| p.name.as_ref()).filter(|n| !written.contains(n.0.as_str())) {
            let message = format!("no steered name uses pool `{}`", name.0);
            checker.notes.push(Finding::warning(Code::Doubtful, name.span, message));
        }
    }

    /// Lays out what a steered name is written with.
    pub(super) fn lay(&self, list: &Said<Members>, checker: &mut Checker<'_>) -> Layout {
        let links = self.links(list, checker);
        let mut layout = Layout { whole: links.len() == list.0.len(), ..Layout::default() };
        let members: Vec<Member> = links.iter().filter_map(|l| self.member(*l, l.span, &mut layout, checker)).collect();
        // Where there is nothing but datacenters that serve, they say it all.
        let plain = |m: &Member| matches!(m.who, Who::Datacenter(_)) && !m.standby;
        layout.members = if members.iter().all(plain) { Vec::new() } else { members };
        layout
    }

    /// One member, with all beneath it. `span`: where the steered name leads to it.
    fn member(&self, link: Link, span: Span, layout: &mut Layout, checker: &mut Checker<'_>) -> Option<Member> {
        if self.meets_again(link.to, span, layout, checker) {
            return None;
        }
        let (weight, standby) = (self.weight(link), link.standby);
        let who = match link.to {
            To::Datacenter(index) => {
                layout.datacenters.push((DatacenterId::new(index), weight));
                Who::Datacenter(layout.datacenters.len() - 1)
            }
            To::Pool(pool) => {
                if !self.depths.get(pool).is_some_and(|depth| depth.is_sound()) {
                    layout.whole = false;
                    return None;
                }
                let (links, said) = (self.known.get(pool)?, self.said.get(pool)?);
                let members = links.iter().filter_map(|l| self.member(*l, span, layout, checker)).collect();
                Who::Pool(Pool {
                    name: said.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
                    policy: self.policies.get(pool).cloned().unwrap_or_default(),
                    members,
                    fail_below: said.fail_below.0,
                })
            }
        };
        Some(Member { who, weight, standby })
    }

    /// Whether `to` stands under this name already; says so once of each, and what is beneath a pool is not said again.
    fn meets_again(&self, to: To, span: Span, layout: &mut Layout, checker: &mut Checker<'_>) -> bool {
        let Some((first, told)) = layout.seen.get_mut(&to) else {
            layout.seen.insert(to, (span, false));
            return false;
        };
        if !std::mem::replace(told, true) {
            let of = |said: &raw::Pool| said.name.as_ref().map(|n| n.0.clone());
            let (what, name, hint) = match to {
                To::Datacenter(index) => {
                    let name = self.datacenters.get(index).map(|d| d.name.clone());
                    ("datacenter", name, "an answer never repeats a datacenter: name it once, pools and all")
                }
                To::Pool(index) => {
                    let name = self.said.get(index).and_then(|said| of(said));
                    ("pool", name, "an answer never repeats a datacenter: name each pool once")
                }
            };
            let message = format!("{what} `{}` stands twice under this name", name.as_deref().unwrap_or("?"));
            let finding = Finding::error(Code::Duplicate, span, message).related(*first, "here first");
            checker.notes.push(finding.hint(hint));
        }
        true
    }
}

/// A walk through all pools under way.
struct Walk {
    /// By pool.
    seen: Vec<Seen>,
    /// From where it began to where it is.
    path: Vec<usize>,
    /// Where rings were told to close.
    closed: HashSet<usize>,
}

/// What of a pool has been seen.
#[derive(Clone, Copy)]
enum Seen {
    Not,
    /// It stands on the way down.
    Above,
    Whole(Depth),
}

impl Walk {
    fn enter(&mut self, pool: usize) {
        self.path.push(pool);
        self.set(pool, Seen::Above);
    }

    fn leave(&mut self, pool: usize, found: Depth) {
        self.path.pop();
        self.set(pool, Seen::Whole(found));
    }

    fn set(&mut self, pool: usize, seen: Seen) {
        if let Some(place) = self.seen.get_mut(pool) {
            *place = seen;
        }
    }
}
