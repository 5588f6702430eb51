//! The name server, and steered names within its zones.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;

use super::names::Names;
use super::pools::{Layout, Pools};
use super::{Checker, guarding, places, transports, zoning};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::{List, Or};
use crate::config::model::{Datacenter, Dns, Fence, Locality, OnAllDown, Planned, Policy, Schedule, Steer};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;
use crate::config::words::{DomainName, Drain};

pub(super) fn dns(
    root: &Root,
    sites: &Names,
    work: &Names,
    datacenters: &[Datacenter],
    checker: &mut Checker<'_>,
) -> Option<Dns> {
    let said = root.dns.as_ref()?;
    let keys = zoning::keys(said, checker);
    let zones = zoning::zones(said, &keys, checker);
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for name in said.steer.0.iter().filter_map(|s| s.name.as_ref()) {
        if let Some(first) = seen.insert(&name.0, name.span) {
            checker.twice(name.span, first, format!("`{}` is steered twice", name.0));
        }
    }
    let pools = Pools::collect(said, sites, datacenters, checker);
    let context = Context { dns: said, sites, work, datacenters, pools };
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
        keys: zoning::secrets(said, checker),
        resolver: said.resolver.0.iter().map(|r| r.0).collect(),
        steers,
        schedules: schedules(said, sites, checker),
        ecs: said.ecs.0,
        ecs_max_classes: classes(said, checker),
        client_prefix: (said.client_prefix_v4.0 as u8, said.client_prefix_v6.0 as u8),
        connections: transports::connections(&said.tcp, checker),
        proxies: said.proxy_protocol.iter().flat_map(|p| &p.trusted).flat_map(|t| &t.0).map(|p| p.0).collect(),
        tls: said.tls.as_ref().and_then(|t| transports::secure(t, checker)),
        https: said.https.as_ref().and_then(|h| transports::https(h, checker)),
        quic: said.quic.as_ref().and_then(|q| transports::secure(q, checker)),
        guard: guarding::guard(said, checker),
    })
}

fn classes(said: &raw::Dns, checker: &mut Checker<'_>) -> Option<u64> {
    let most = said.ecs_max_classes.as_ref()?;
    if !said.ecs.0 {
        let message = "client subnets are not honoured: they divide nothing";
        checker.warn(Code::Doubtful, most.span, message, "take it out, or set `ecs = true`");
    }
    Some(most.0.into())
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
    pools: Pools<'a>,
}

impl Context<'_> {
    fn steer(&self, said: &Said<raw::Steer>, checker: &mut Checker<'_>) -> Steer {
        if let Some(name) = &said.name {
            self.zoned(name, checker);
        }
        let services = self.services(said, checker);
        let policy = self.policy(said, checker);
        let layout = self.sites(said, checker);
        let fences = self.fences(said, &layout, checker);
        let datacenters = &layout.datacenters;
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
            fences,
            on_empty: said.on_empty.value,
            datacenters: layout.datacenters,
            members: layout.members,
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
        let policy = policy(&said.policy, false, checker);
        let near = said.policy.0.iter().find(|p| p.value == Policy::Near && p.written);
        if let Some(near) = near.filter(|_| self.datacenters.iter().all(|d| d.near.is_empty()) && checker.whole) {
            let hint = "add `near = [...]` to the datacenters, or leave the policy out";
            checker.warn(Code::Doubtful, near.span, "nobody is near: no datacenter says `near`", hint);
        }
        policy
    }

    fn sites(&self, said: &Said<raw::Steer>, checker: &mut Checker<'_>) -> Layout {
        let Some(list) = &said.datacenters else {
            let all = self.datacenters.iter().enumerate();
            let span = said.name.as_ref().map_or(said.span, |n| n.span);
            if self.datacenters.iter().all(|d| d.addresses.is_empty()) && checker.whole {
                let hint = "add `addresses = [...]` to the datacenters";
                checker.error(Code::Conflict, span, "no datacenter has an address to answer with", hint);
            }
            let datacenters = all.map(|(index, d)| (DatacenterId::new(index), d.weight)).collect();
            return Layout { datacenters, whole: checker.whole, ..Layout::default() };
        };
        self.pools.lay(list, checker)
    }

    /// A fence around less than a client would hold some of its neighbours, or not all of its own.
    fn told_apart(&self, net: IpNet, span: Span, checker: &mut Checker<'_>) {
        let told = if net.addr().is_ipv4() { self.dns.client_prefix_v4.0 } else { self.dns.client_prefix_v6.0 };
        if u32::from(net.prefix_len()) > told {
            let message = format!("{net} is narrower than what clients are told apart by: /{told}");
            let hint = "fence the network around it, or raise `client_prefix_v4` or `client_prefix_v6`";
            checker.error(Code::Conflict, span, message, hint);
        }
    }

    /// Who is fenced, and to where.
    fn fences(&self, said: &raw::Steer, layout: &Layout, checker: &mut Checker<'_>) -> Vec<Fence> {
        let mut seen: HashMap<&Locality, Span> = HashMap::new();
        let mut fences = Vec::new();
        for fence in &said.fence.0 {
            let mut all = Fence::default();
            for client in fence.clients.iter().flat_map(|c| &c.0) {
                if let Some(first) = seen.insert(&client.value, client.span) {
                    checker.twice(client.span, first, format!("{} is fenced twice", client.value));
                }
                if let Locality::Net(net) = client.value {
                    self.told_apart(net, client.span, checker);
                }
                all.clients.push(client.value.clone());
            }
            if fence.clients.as_ref().is_some_and(|c| c.0.is_empty() && c.clean) {
                checker.error(Code::BadValue, fence.span, "this fence stands around nobody", "name its `clients`");
            }
            let Some(only) = &fence.only else { continue };
            if only.0.is_empty() && only.clean {
                let hint = "name at least one datacenter";
                checker.error(Code::BadValue, only.span, "this fence leaves nobody to be sent to", hint);
            }
            for name in &only.0 {
                let Some(index) = self.sites.resolve(&name.0, name.span, checker) else { continue };
                match layout.datacenters.iter().position(|(dc, _)| dc.index() == index) {
                    Some(place) => all.only.push(place),
                    None if layout.whole => {
                        let message = format!("this name never answers with `{}`", name.0);
                        checker.error(
                            Code::Conflict,
                            name.span,
                            message,
                            "add it to `datacenters`, or take it out here",
                        );
                    }
                    None => {}
                }
            }
            fences.push(all);
        }
        fences
    }
}

/// What may be planned, and for when.
fn schedules(said: &raw::Dns, sites: &Names, checker: &mut Checker<'_>) -> Vec<Schedule> {
    let mut schedules = Vec::new();
    for plan in &said.schedule.0 {
        let datacenter = plan.datacenter.as_ref().and_then(|name| sites.resolve(&name.0, name.span, checker));
        let (Some(from), Some(until)) = (&plan.from, &plan.until) else { continue };
        if until.0 <= from.0 {
            let finding = Finding::error(Code::Conflict, until.span, "this ends before it begins");
            checker.notes.push(finding.related(from.span, "it begins here").hint("`until` is later than `from`"));
        }
        let action = match &plan.action.value {
            Or::One(Drain) => Planned::Drain,
            Or::Other(planned) => Planned::Weight(planned.weight.as_ref().map_or(0, |w| w.0)),
        };
        schedules.extend(datacenter.map(|dc| Schedule {
            datacenter: DatacenterId::new(dc),
            from: from.value.0,
            until: until.value.0,
            action,
        }));
    }
    schedules
}

/// The policies of a name, or of a pool, in order.
pub(super) fn policy(said: &Said<List<Policy, 4>>, pool: bool, checker: &mut Checker<'_>) -> Vec<Policy> {
    let list = &said.0;
    if list.is_empty() && said.clean {
        checker.error(
            Code::BadValue,
            said.span,
            "no policy is named",
            "for example `policy = [\"near\", \"weighted\"]`",
        );
    }
    for (index, p) in list.iter().enumerate() {
        let turns = !pool && index + 2 == list.len() && list.last().is_some_and(|l| l.value == Policy::Spread);
        if let Some(first) = list.iter().take(index).find(|q| q.value == p.value) {
            checker.twice(p.span, first.span, "this policy stands twice");
        } else if index + 1 < list.len() && p.value != Policy::Near && !turns {
            let hint = "`near` stands first, one of `weighted`, `failover`, `spread` ranks; equals of a rank form a `[[dns.pool]]`";
            checker.error(Code::Conflict, p.span, "what follows this policy is never asked", hint);
        }
    }
    list.iter().map(|p| p.value).collect()
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
