//! What secondaries get, made when a configuration is loaded: the zone, something for the names that are steered, and what
//! has changed since the versions before.
//!
//! A steered name goes out as all the addresses that it may have, those of datacenters with a weight, at its least TTL: what
//! is right while all is well. A secondary does not follow health; whoever needs that runs a second Springtide.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::super::table::{apexes, zone_of};
use crate::config::{Config, Dns, Steer, ZoneFile};
use crate::snapshot::Topology;
use crate::wire::dns::rtype;
use crate::wire::zone::{Outgoing, RrSet, WireName, Zone, is_later};
use crate::wire::{name, svcb};

/// How many versions back a secondary can be and still get the changes alone.
const MAX_VERSIONS: usize = 32;
/// How many records the changes of one zone may have in all. Ours: beyond it a whole transfer is little more.
const MAX_CHANGED: usize = 100_000;

/// What secondaries get of each zone of `config`; with what has changed since `before`.
pub fn publish(config: &Config, zones: &[Arc<Zone>], before: Option<&Topology>) -> Vec<Option<Arc<Outgoing>>> {
    let Some(dns) = &config.dns else { return Vec::new() };
    let former =
        |b: &'_ Topology| b.assets.outgoing.iter().flatten().map(|o| (o.zone.origin.clone(), Arc::clone(o))).collect();
    let former: HashMap<WireName, Arc<Outgoing>> = before.map(former).unwrap_or_default();
    let mut steered = stand_ins(config, dns, zones);
    let one = |((said, zone), number): ((&ZoneFile, &Arc<Zone>), u32)| {
        said.transfer.as_ref()?;
        let steered = steered.remove(&number).unwrap_or_default();
        let aliased = zone.names.iter().filter(|(_, sets)| sets.iter().any(|s| s.rtype == rtype::ALIAS));
        let aliases = aliased.map(|(owner, _)| owner.clone()).collect();
        let mut made = Outgoing { zone: Arc::clone(zone), steered, aliases, history: Vec::new() };
        made.history = former.get(&zone.origin).map(|old| history(old, &made)).unwrap_or_default();
        Some(Arc::new(made))
    };
    dns.zones.iter().zip(zones).zip(0..).map(one).collect()
}

/// What is said for the steered names of each zone that may be taken, by the zone's number.
fn stand_ins(config: &Config, dns: &Dns, zones: &[Arc<Zone>]) -> HashMap<u32, BTreeMap<WireName, Vec<RrSet>>> {
    let apexes = apexes(zones.iter().map(AsRef::as_ref));
    let mut all: HashMap<u32, BTreeMap<WireName, Vec<RrSet>>> = HashMap::new();
    for steer in &dns.steers {
        let Ok(owner) = name::parse(&steer.name, None).map(|n| name::lower(&n)) else { continue };
        let taken = |zone: &u32| dns.zones.get(*zone as usize).is_some_and(|z| z.transfer.is_some());
        if let Some(zone) = zone_of(&owner, &apexes).filter(taken) {
            all.entry(zone).or_default().insert(owner, stand_in(steer, config));
        }
    }
    all
}

fn history(old: &Arc<Outgoing>, new: &Outgoing) -> Vec<Arc<crate::wire::zone::Change>> {
    let (Some(from), Some(to)) = (old.zone.serial(), new.zone.serial()) else { return Vec::new() };
    let origin = &new.zone.origin_text;
    if from == to {
        let same = new.since(old, 0).is_some_and(|c| c.removed.is_empty() && c.added.is_empty() && c.from == c.to);
        if same {
            return old.history.clone();
        }
        tracing::warn!(
            target: "config",
            zone = origin.as_str(),
            serial = to,
            "the zone has changed, but its serial has not: secondaries keep what they have until it is raised"
        );
        return Vec::new();
    }
    if !is_later(to, from) {
        tracing::warn!(
            target: "config",
            zone = origin.as_str(),
            serial = to,
            before = from,
            "the zone's serial has gone back: secondaries keep what they have until it is beyond the one before"
        );
        return Vec::new();
    }
    let Some(change) = new.since(old, MAX_CHANGED) else { return Vec::new() };
    let mut history = old.history.clone();
    history.push(Arc::new(change));
    let weight = |change: &crate::wire::zone::Change| change.removed.len() + change.added.len();
    while history.len() > MAX_VERSIONS || history.iter().map(|c| weight(c)).sum::<usize>() > MAX_CHANGED {
        history.remove(0);
    }
    history
}

/// What is said for a steered name where nobody steers.
fn stand_in(steer: &Steer, config: &Config) -> Vec<RrSet> {
    let open = steer.datacenters.iter().filter(|(_, weight)| *weight > 0);
    let sites = open.filter_map(|(dc, _)| config.datacenters.get(dc.index()));
    let addresses: Vec<IpAddr> = sites.flat_map(|site| site.addresses.iter().copied()).collect();
    let v4: Vec<Box<[u8]>> =
        addresses.iter().filter_map(|a| if let IpAddr::V4(a) = a { Some(a.octets().into()) } else { None }).collect();
    let v6: Vec<Box<[u8]>> =
        addresses.iter().filter_map(|a| if let IpAddr::V6(a) = a { Some(a.octets().into()) } else { None }).collect();
    let ids: Vec<&[u8]> = steer.alpn.iter().map(String::as_bytes).collect();
    let alpn = svcb::alpn(ids.into_iter());
    let mut https = Vec::new();
    if !alpn.is_empty() && !addresses.is_empty() {
        // ServiceMode, priority 1, the owner itself as the target; the hints are the addresses beside it.
        let mut data = vec![0, 1, 0];
        data.extend(svcb::param(svcb::ALPN, &alpn));
        for (key, hints) in [(svcb::IPV4HINT, &v4), (svcb::IPV6HINT, &v6)] {
            if !hints.is_empty() {
                data.extend(svcb::param(key, &hints.concat()));
            }
        }
        https.push(data.into_boxed_slice());
    }
    let ttl = steer.ttl_min.as_secs() as u32;
    let sets = [(rtype::A, v4), (rtype::AAAA, v6), (rtype::HTTPS, https)];
    sets.into_iter().filter(|(_, d)| !d.is_empty()).map(|(rtype, rdatas)| RrSet { rtype, ttl, rdatas }).collect()
}
