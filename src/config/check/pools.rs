//! Groups of datacenters: each resolved once, without rings, and laid out for the steered names that use them.

use std::collections::HashMap;

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
    /// Those that stand in no ring and are not too deep.
    sound: Vec<bool>,
}

/// A member, resolved.
#[derive(Clone, Copy)]
struct Link {
    to: To,
    weight: Option<u32>,
    standby: bool,
    span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
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
    pub(super) seen: HashMap<usize, Span>,
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
            Self { said, names, sites, datacenters, known: Vec::new(), policies: Vec::new(), sound: Vec::new() };
        pools.known =
            said.iter().map(|p| p.datacenters.as_ref().map_or_else(Vec::new, |m| pools.links(m, checker))).collect();
        pools.policies = said.iter().map(|p| super::steering::policy(&p.policy, true, checker)).collect();
        pools.sound = (0..said.len()).map(|pool| pools.is_sound(pool, checker)).collect();
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
        } else if links.len() == list.0.len() && links.iter().all(|l| self.weight(*l, 0) == 0) {
            let message = "every datacenter has weight 0 here: none would be answered";
            checker.error(Code::Conflict, list.span, message, "give one a weight");
        }
        links
    }

    /// What a member weighs: what is said here, or else its own.
    fn weight(&self, link: Link, depth: usize) -> u32 {
        let own = || match link.to {
            To::Datacenter(index) => self.datacenters.get(index).map_or(0, |d| d.weight),
            // Before all pools are known, and in rings, something that is not nothing.
            To::Pool(pool) if depth > DEPTH || self.known.is_empty() => pool as u32 | 1,
            To::Pool(pool) => {
                let members = self.known.get(pool).map(Vec::as_slice).unwrap_or_default();
                let all = members.iter().filter(|m| !m.standby).map(|m| self.weight(*m, depth + 1));
                all.fold(0, u32::saturating_add).min(1_000_000)
            }
        };
        link.weight.unwrap_or_else(own)
    }

    /// Whether a pool ends in datacenters, and soon enough; says where it does not.
    fn is_sound(&self, pool: usize, checker: &mut Checker<'_>) -> bool {
        let mut path = vec![pool];
        let Err((span, ring)) = self.descend(&mut path) else { return true };
        let of = |i: &usize| self.said.get(*i).and_then(|p| p.name.as_ref()).map_or("?", |n| n.0.as_str());
        if ring {
            // A ring is told once: by the first of its pools.
            if path.last() == Some(&pool) && path.iter().min() == Some(&pool) {
                let way = path.iter().map(|i| format!("`{}`", of(i))).collect::<Vec<_>>().join(" -> ");
                checker.error(
                    Code::Conflict,
                    span,
                    format!("this pool is a member of itself: {way}"),
                    "take one of them out",
                );
            }
        } else {
            let message = format!("pools nest deeper than {DEPTH} here");
            checker.error(Code::OutOfRange, span, message, "name the datacenters closer to the top");
        }
        false
    }

    fn descend(&self, path: &mut Vec<usize>) -> Result<(), (Span, bool)> {
        let here = path.last().and_then(|p| self.known.get(*p)).map(Vec::as_slice).unwrap_or_default();
        for link in here {
            let To::Pool(next) = link.to else { continue };
            let (again, deep) = (path.contains(&next), path.len() >= DEPTH);
            path.push(next);
            if again || deep {
                return Err((link.span, again));
            }
            self.descend(path)?;
            path.pop();
        }
        Ok(())
    }

    fn unused(&self, dns: &raw::Dns, checker: &mut Checker<'_>) {
        let lists = dns.steer.0.iter().filter_map(|s| s.datacenters.as_ref());
        let lists = lists.chain(self.said.iter().filter_map(|p| p.datacenters.as_ref()));
        let written: Vec<&str> = lists
            .flat_map(|l| &l.0)
            .filter_map(|m| match &m.value {
                Or::One(name) => Some(name.0.as_str()),
                Or::Other(full) => full.name.as_ref().map(|n| n.0.as_str()),
            })
            .collect();
        for name in self.said.iter().filter_map(|p| p.name.as_ref()).filter(|n| !written.contains(&n.0.as_str())) {
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
        let (weight, standby) = (self.weight(link, 0), link.standby);
        let who = match link.to {
            To::Datacenter(index) => {
                if let Some(first) = layout.seen.insert(index, span) {
                    let name = self.datacenters.get(index).map_or("?", |d| d.name.as_str());
                    let message = format!("datacenter `{name}` stands twice under this name");
                    let finding = Finding::error(Code::Duplicate, span, message).related(first, "here first");
                    checker
                        .notes
                        .push(finding.hint("an answer never repeats a datacenter: name it once, pools and all"));
                    return None;
                }
                layout.datacenters.push((DatacenterId::new(index), weight));
                Who::Datacenter(layout.datacenters.len() - 1)
            }
            To::Pool(pool) => {
                if self.sound.get(pool) != Some(&true) {
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
}
