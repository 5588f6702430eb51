//! The name server: zones, and steered names within them.

use std::collections::HashMap;
use std::time::Duration;

use super::names::Names;
use super::{Checker, places};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::Or;
use crate::config::model::{Datacenter, Dns, OnAllDown, Policy, Steer, ZoneFile};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;
use crate::config::words::DomainName;

pub(super) fn dns(
    root: &Root,
    sites: &Names,
    work: &Names,
    datacenters: &[Datacenter],
    checker: &mut Checker<'_>,
) -> Option<Dns> {
    let said = root.dns.as_ref()?;
    let zones = zones(said, checker);
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in said.steer.0.iter().filter_map(|s| s.name.as_ref()) {
        if let Some(first) = seen.insert(&name.0, name.span) {
            checker.twice(name.span, first, format!("`{}` is steered twice", name.0));
        }
    }
    let context = Context { dns: said, sites, work, datacenters };
    let steers = said.steer.0.iter().map(|s| context.steer(s, checker)).collect();
    if said.zone.0.is_empty() && said.steer.0.is_empty() && checker.whole && said.clean {
        checker.warn(
            Code::Doubtful,
            said.span,
            "the name server has no zones: it refuses every question",
            "add a `[[dns.zone]]`",
        );
    }
    Some(Dns {
        listen: said.listen.iter().flat_map(|l| &l.0).map(|l| l.0).collect(),
        threads: said.threads.as_ref().map_or_else(|| places::cores().min(4), |t| t.0 as usize),
        zones,
        steers,
        ecs: said.ecs.0,
        client_prefix: (said.client_prefix_v4.0 as u8, said.client_prefix_v6.0 as u8),
    })
}

fn zones(said: &raw::Dns, checker: &mut Checker<'_>) -> Vec<ZoneFile> {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    let mut zones = Vec::new();
    for zone in &said.zone.0 {
        if let Some(name) = &zone.name
            && let Some(first) = seen.insert(&name.0, name.span)
        {
            checker.twice(name.span, first, format!("zone `{}` stands twice", name.0));
        }
        let file = zone.file.as_ref().map(|file| checker.file(file)).unwrap_or_default();
        zones.push(ZoneFile { origin: zone.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(), file });
    }
    zones
}

/// Whether `name` is `zone` or stands below it. Both are absolute and in lower case.
fn within(name: &str, zone: &str) -> bool {
    zone == "." || name == zone || name.strip_suffix(zone).is_some_and(|rest| rest.ends_with('.'))
}

struct Context<'a> {
    dns: &'a raw::Dns,
    sites: &'a Names,
    work: &'a Names,
    datacenters: &'a [Datacenter],
}

impl Context<'_> {
    fn steer(&self, said: &Said<raw::Steer>, checker: &mut Checker<'_>) -> Steer {
        if let Some(name) = &said.name {
            self.zoned(name, checker);
        }
        let services = self.services(said, checker);
        let policy = self.policy(said, checker);
        let datacenters = self.sites(said, checker);
        let (base, min) = ttl(&said.ttl, checker);
        if said.answers.written
            && said.answers.0 as usize > datacenters.len()
            && !datacenters.is_empty()
            && !checker.notes.failed()
        {
            let message = format!("{} answers are asked of {} datacenters", said.answers.0, datacenters.len());
            checker.warn(
                Code::Doubtful,
                said.answers.span,
                message,
                "`answers` counts datacenters, each with its addresses",
            );
        }
        Steer {
            name: said.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            services,
            policy,
            datacenters,
            answers: said.answers.0 as usize,
            ttl_base: base,
            ttl_min: min,
            on_all_down: all_down(&said.on_all_down, checker),
            alpn: said.alpn.0.iter().map(|a| a.0.clone()).collect(),
        }
    }

    fn zoned(&self, name: &Said<DomainName>, checker: &mut Checker<'_>) {
        let zones: Vec<&str> = self.dns.zone.0.iter().filter_map(|z| z.name.as_ref()).map(|n| n.0.as_str()).collect();
        let all_read = zones.len() == self.dns.zone.0.len() && checker.whole;
        if !all_read || zones.iter().any(|zone| within(&name.0, zone)) {
            return;
        }
        let message = format!("`{}` is in none of the zones", name.0);
        let hint = match zones.as_slice() {
            [] => format!("add a `[[dns.zone]]` whose `name` is `{0}` or above it", name.0),
            zones => format!("zones here: {}", crate::config::reader::list(zones)),
        };
        checker.error(Code::UnknownName, name.span, message, hint);
    }

    fn services(&self, said: &raw::Steer, checker: &mut Checker<'_>) -> Vec<ServiceId> {
        let Some(list) = &said.services else { return Vec::new() };
        if list.0.is_empty() && list.clean {
            let hint = "name at least one service: its health decides which datacenters are answered";
            checker.error(Code::BadValue, list.span, "nothing stands behind this name", hint);
        }
        let mut seen: HashMap<&str, Span> = HashMap::new();
        let mut services = Vec::new();
        for name in &list.0 {
            if let Some(first) = seen.insert(&name.0, name.span) {
                checker.twice(name.span, first, format!("service `{}` stands twice", name.0));
            }
            services.extend(self.work.resolve(&name.0, name.span, checker).map(ServiceId::new));
        }
        services
    }

    fn policy(&self, said: &raw::Steer, checker: &mut Checker<'_>) -> Vec<Policy> {
        let list = &said.policy.0;
        let policy: Vec<Policy> = list.iter().map(|p| p.value).collect();
        if list.is_empty() && said.policy.clean {
            checker.error(
                Code::BadValue,
                said.policy.span,
                "no policy is named",
                "for example `policy = [\"near\", \"weighted\"]`",
            );
        }
        for (index, p) in list.iter().enumerate() {
            if let Some(first) = list.iter().take(index).find(|q| q.value == p.value) {
                checker.twice(p.span, first.span, "this policy stands twice");
            } else if index + 1 < list.len() && p.value != Policy::Near {
                let hint = "only `near` narrows: it stands first, and one of `weighted`, `failover`, `spread` last";
                checker.error(Code::Conflict, p.span, "what follows this policy is never asked", hint);
            }
        }
        let near = list.iter().find(|p| p.value == Policy::Near && p.written);
        if let Some(near) = near.filter(|_| self.datacenters.iter().all(|d| d.near.is_empty()) && checker.whole) {
            let hint = "add `near = [...]` to the datacenters, or leave the policy out";
            checker.warn(Code::Doubtful, near.span, "nobody is near: no datacenter has `near` prefixes", hint);
        }
        policy
    }

    fn sites(&self, said: &Said<raw::Steer>, checker: &mut Checker<'_>) -> Vec<(DatacenterId, u32)> {
        let Some(list) = &said.datacenters else {
            let all = self.datacenters.iter().enumerate();
            let span = said.name.as_ref().map_or(said.span, |n| n.span);
            if self.datacenters.iter().all(|d| d.addresses.is_empty()) && checker.whole {
                let hint = "add `addresses = [...]` to the datacenters";
                checker.error(Code::Conflict, span, "no datacenter has an address to answer with", hint);
            }
            return all.map(|(index, d)| (DatacenterId::new(index), d.weight)).collect();
        };
        let mut seen: HashMap<usize, Span> = HashMap::new();
        let mut sites = Vec::new();
        for preference in &list.0 {
            let (name, weight) = match &preference.value {
                Or::One(name) => (Some((&name.0, preference.span)), None),
                Or::Other(full) => (full.name.as_ref().map(|n| (&n.value.0, n.span)), full.weight.as_ref()),
            };
            let Some((name, span)) = name else { continue };
            let Some(index) = self.sites.resolve(name, span, checker) else { continue };
            if let Some(first) = seen.insert(index, span) {
                checker.twice(span, first, format!("datacenter `{name}` stands twice"));
            }
            let Some(datacenter) = self.datacenters.get(index) else { continue };
            if datacenter.addresses.is_empty() && checker.whole {
                let message = format!("datacenter `{name}` has no address to answer with");
                checker.error(Code::Conflict, span, message, "add `addresses = [...]` to it");
            }
            sites.push((DatacenterId::new(index), weight.map_or(datacenter.weight, |w| w.0)));
        }
        if list.0.is_empty() && list.clean {
            checker.error(
                Code::BadValue,
                list.span,
                "no datacenter is named",
                "leave `datacenters` out to answer with all of them",
            );
        } else if sites.len() == list.0.len() && sites.iter().all(|(_, weight)| *weight == 0) {
            checker.error(
                Code::Conflict,
                list.span,
                "every datacenter has weight 0 here: none would be answered",
                "give one a weight",
            );
        }
        sites
    }
}

fn ttl(said: &raw::Ttl, checker: &mut Checker<'_>) -> (Duration, Duration) {
    for time in [&said.base, &said.min] {
        if time.0.subsec_nanos() != 0 {
            checker.error(Code::BadValue, time.span, "a TTL counts whole seconds", "for example \"20s\"");
        }
    }
    if said.min.0 > said.base.0 && said.min.clean && said.base.clean {
        let (at, other) = if said.min.written { (&said.min, &said.base) } else { (&said.base, &said.min) };
        let finding =
            Finding::error(Code::Conflict, at.span, "the least TTL is above the base").hint("`min` is at most `base`");
        checker.notes.push(if at.written && other.written {
            finding.related(other.span, "the other")
        } else {
            finding
        });
    }
    (said.base.0, said.min.0)
}

fn all_down(said: &Said<Or<crate::config::words::AllDown, raw::LastResort>>, checker: &mut Checker<'_>) -> OnAllDown {
    match &said.value {
        Or::One(word) => word.0.clone(),
        Or::Other(last) => {
            let addresses: Vec<_> = last.last_resort.iter().flat_map(|l| &l.0).map(|a| a.0).collect();
            if last.last_resort.as_ref().is_some_and(|l| l.0.is_empty() && l.clean) {
                let hint = "name an address, or say `on_all_down = \"nodata\"`";
                checker.error(Code::BadValue, said.span, "the last resort is empty", hint);
            }
            OnAllDown::LastResort(addresses)
        }
    }
}
