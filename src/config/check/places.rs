//! This node, its admin API, and the datacenters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;

use ipnet::IpNet;

use super::Checker;
use super::names::Names;
use crate::base::ids::DatacenterId;
use crate::base::prefix::EMBEDDINGS;
use crate::config::diag::{Code, Finding, Span};
use crate::config::model::{Admin, Datacenter, Geo, Leaving, Locality, Node};
use crate::config::raw::{self, Root};
use crate::config::reader::Said;

/// Names of datacenters.
pub(super) fn names(root: &Root, checker: &mut Checker<'_>) -> Names {
    Names::collect("datacenter", root.datacenter.0.iter().map(|d| d.name.as_ref()), checker)
}

/// One for each core.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

pub(super) fn node(root: &Root, places: &Names, checker: &mut Checker<'_>) -> Node {
    let said = &root.node;
    let datacenter = said.datacenter.as_ref().and_then(|name| places.resolve(&name.0, name.span, checker));
    Node {
        name: said.name.0.clone(),
        datacenter: datacenter.map(DatacenterId::new),
        state_dir: said.state_dir.as_ref().map(|dir| checker.folder.join(&dir.0)),
        workers: said.workers.as_ref().map_or_else(cores, |w| w.0 as usize),
        leaving: Leaving {
            drain: said.drain_limit.0,
            upgrade_drain: said.upgrade_drain_limit.0,
            old_processes: said.old_processes.0 as usize,
        },
    }
}

pub(super) fn admin(root: &Root, checker: &mut Checker<'_>) -> Option<Admin> {
    let said = root.admin.as_ref()?;
    let listen = said.listen.0;
    if !listen.ip().to_canonical().is_loopback() && said.token_file.is_none() && checker.whole {
        let message = format!("the admin API listens beyond loopback ({listen}) without a token");
        checker.error(Code::Conflict, said.listen.span, message, "add `token_file = \"...\"`, or listen on 127.0.0.1");
    }
    let fleet: Vec<_> = said.fleet.0.iter().map(|a| a.0).collect();
    let known = listen.port() != 0 && !listen.ip().is_unspecified();
    if known && !fleet.is_empty() && !fleet.contains(&listen) {
        let message = format!("the fleet is listed without this node itself ({listen})");
        checker.warn(Code::Doubtful, said.fleet.span, message, "add it: drain and undrain go to those listed only");
    }
    Some(Admin { listen, token_file: said.token_file.as_ref().map(|file| checker.file(file)), fleet })
}

pub(super) fn datacenters(root: &Root, checker: &mut Checker<'_>) -> Vec<Datacenter> {
    let all = &root.datacenter.0;
    if let (Some(first), true) = (all.first(), all.iter().all(|d| d.weight.0 == 0)) {
        checker.error(
            Code::Conflict,
            first.weight.span,
            "every datacenter has weight 0: none would get traffic",
            "give one a weight",
        );
    }
    weights(all, checker);
    near(all, checker);
    addresses(all, checker);
    all.iter()
        .map(|d| Datacenter {
            name: d.name.as_ref().map(|n| n.0.clone()).unwrap_or_default(),
            weight: d.weight.0,
            addresses: d.addresses.0.iter().map(|a| a.0).collect(),
            near: d.near.0.iter().map(|p| p.value.clone()).collect(),
            capacity_rps: d.capacity.as_ref().map(|c| c.0),
        })
        .collect()
}

/// A weight that somebody forgot is 1 beside 40: hardly meant.
fn weights(all: &[Said<raw::Datacenter>], checker: &mut Checker<'_>) {
    let said = all.iter().any(|d| d.weight.written && d.weight.0 > 10);
    for forgotten in all.iter().filter(|d| said && !d.weight.written) {
        let name = forgotten.name.as_ref().map(|n| n.0.as_str()).unwrap_or_default();
        let message = format!("datacenter `{name}` has no weight, others have: it counts as 1");
        checker.warn(Code::Doubtful, forgotten.span, message, "write its `weight`");
    }
}

fn near(all: &[Said<raw::Datacenter>], checker: &mut Checker<'_>) {
    let mut seen: HashMap<(&Locality, Option<usize>), (usize, Span)> = HashMap::new();
    for (index, datacenter) in all.iter().enumerate() {
        for place in &datacenter.near.0 {
            // Two may share a country, but a prefix is written for one.
            let whose = (!matches!(place.value, Locality::Net(_))).then_some(index);
            match seen.insert((&place.value, whose), (index, place.span)) {
                Some((other, first)) if other == index => {
                    let message = format!("{} stands twice", place.value);
                    checker
                        .notes
                        .push(Finding::warning(Code::Duplicate, place.span, message).related(first, "here first"));
                }
                Some((_, first)) => {
                    checker.twice(place.span, first, format!("{} is near two datacenters", place.value));
                }
                None => {}
            }
        }
    }
}

/// The files of `[geo]`, and whether what `near` asks of them can be there at all.
pub(super) fn geo(root: &Root, checker: &mut Checker<'_>) -> Geo {
    let said = &root.geo;
    for list in [&said.databases.0, &said.cidr.0] {
        let mut seen: HashMap<&Path, Span> = HashMap::new();
        for file in list {
            if let Some(first) = seen.insert(&file.0, file.span) {
                checker.twice(file.span, first, format!("{} stands twice", file.0.display()));
            }
        }
    }
    let whole = checker.whole && said.clean;
    let fences = root.dns.iter().flat_map(|d| &d.steer.0).flat_map(|s| &s.fence.0);
    let fenced = fences.filter_map(|f| f.clients.as_ref()).flat_map(|c| &c.0);
    for place in root.datacenter.0.iter().flat_map(|d| &d.near.0).chain(fenced).filter(|_| whole) {
        let (missing, key) = match place.value {
            Locality::Net(net) => {
                if let Some(wall) = EMBEDDINGS.iter().find(|wall| IpNet::V6(**wall).contains(&net)) {
                    let message = format!("nobody is looked up in {net}: clients in {wall} stand for IPv4 addresses");
                    checker.warn(Code::Doubtful, place.span, message, "write the IPv4 prefix");
                }
                continue;
            }
            Locality::Class(_) => (said.cidr.0.is_empty(), "cidr = [\"map.txt\"]"),
            _ => (said.databases.0.is_empty(), "databases = [\"country.mmdb\"]"),
        };
        if missing {
            let message = format!("nothing says who is in `{}`", place.value);
            checker.error(Code::Conflict, place.span, message, format!("add `[geo]` with `{key}`"));
        }
    }
    Geo {
        databases: said.databases.0.iter().map(|file| checker.file(file)).collect(),
        cidr: said.cidr.0.iter().map(|file| checker.file(file)).collect(),
        poll: Some(said.poll.0).filter(|poll| !poll.is_zero()),
    }
}

fn addresses(all: &[Said<raw::Datacenter>], checker: &mut Checker<'_>) {
    let mut seen: HashMap<IpAddr, Span> = HashMap::new();
    for address in all.iter().flat_map(|d| &d.addresses.0) {
        if let Some(first) = seen.insert(address.0, address.span) {
            checker.twice(address.span, first, format!("address {} stands twice", address.0));
        }
        if address.0.is_unspecified() || address.0.is_multicast() {
            let message = format!("nobody can be reached at {}", address.0);
            checker.error(Code::BadValue, address.span, message, "write the address that clients connect to");
        }
    }
}
