//! What exists: the configuration with ids, probe targets, hot counters and assets. Built on start and on reload.
//!
//! Backends with the same service, datacenter and address keep their [`Load`] from one topology to the next; equal
//! probes of one address are one target, and a target that nothing refers to is gone.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use super::atlas::Atlas;
use super::discovered::{Discovered, SourceKey};
use super::load::Load;
use super::views::Views;
use crate::base::ids::{BackendId, DatacenterId, ListenerId, ServiceId, TargetId};
use crate::base::maglev::Table;
use crate::config::{BackendSpec, Balance, Config, MOST_FOUND, PassOn, Probe, Protocol, Service, UpstreamTls};
use crate::wire::dns::cookie::Secrets;
use crate::wire::dnssec::keyfile::Key;
use crate::wire::tsig;
use crate::wire::zone::{Outgoing, WireName, Zone};

/// Most backends of one node, written and found (as many as a configuration may name).
const MOST_BACKENDS: usize = 100_000;

/// What exists.
#[derive(Debug)]
pub struct Topology {
    /// Counts topologies: ids in an event are good only for the serial that they were made under.
    pub serial: u64,
    /// The serial of the first topology of this configuration: it stays while nothing but backends is found anew.
    pub edition: u64,
    /// The configuration that it was built from.
    pub config: Arc<Config>,
    /// Backends, by [`BackendId`]: services in order, and within them as configured, then as found.
    pub backends: Vec<Backend>,
    /// Probe targets, by [`TargetId`].
    pub targets: Vec<Target>,
    /// The targets among them that are witnesses of this node's own network, in the order of `health.references`. They
    /// are probed like all others; no backend follows them.
    pub references: Vec<TargetId>,
    /// What was read from files beside the configuration.
    pub assets: Assets,
    /// What the edges have derived from this topology, whatever the generation.
    pub views: Arc<Views>,
    members: Vec<Vec<BackendId>>,
    /// As `members`; only where the service balances by such a table.
    tables: Vec<Option<Arc<Table>>>,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Whose.
    pub service: ServiceId,
    /// Where, and how much beside the others.
    pub spec: BackendSpec,
    /// The target whose verdict it follows; `None` where its service is not probed.
    pub target: Option<TargetId>,
    /// A hash of service, datacenter and address that is the same on every node: its seat in rendezvous.
    pub seat: u64,
    /// Its hot counters.
    pub load: Arc<Load>,
    /// Where it was found, as an index into `config.discovery.sources`; `None` where the configuration names it.
    pub source: Option<u32>,
    /// What it is called where it was found.
    pub name: Option<Arc<str>>,
}

/// One probed target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// What is probed.
    pub address: SocketAddr,
    /// How.
    pub probe: Probe,
    /// By which protocol HTTP is spoken, where it is an HTTP probe.
    pub protocol: Protocol,
}

/// What was read from files beside the configuration, already parsed. Swapped with everything else, whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    /// What the files of `[geo]` say.
    pub atlas: Arc<Atlas>,
    /// Zones, in the order of the configuration.
    pub zones: Vec<Arc<Zone>>,
    /// The same as secondaries get them; `None` where nobody may take one.
    pub outgoing: Vec<Option<Arc<Outgoing>>>,
    /// Secrets shared with secondaries, in the order of the configuration.
    pub keys: Vec<Arc<tsig::Key>>,
    /// Keys of the zones that are signed (DNSSEC), by zone.
    pub signing: HashMap<WireName, Arc<[Key]>>,
    /// How listeners shake hands, in the order of the configuration; `None` where they speak plaintext.
    pub terms: Vec<Option<Arc<Terms>>>,
    /// Certificates of the name server, by [`SecureWay`](crate::config::SecureWay).
    pub dns_certificates: [Vec<Certificate>; 3],
    /// Client configurations towards upstreams, by what was asked for.
    pub upstream_tls: HashMap<UpstreamTls, Arc<rustls::ClientConfig>>,
    /// What requests to the collector of spans carry.
    pub export_headers: http::HeaderMap,
    /// What DNS cookies are made with.
    pub cookies: Secrets,
    /// What sources of backends have found.
    pub discovered: Discovered,
}

/// How a listener shakes hands.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Versions, groups, certificates and tickets.
    pub server: Arc<rustls::ServerConfig>,
    /// Who judges the certificates of clients, where they are asked for.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
    /// What backends are told of them.
    pub pass_on: PassOn,
    /// Whether its tickets are those of a fleet.
    pub is_of_fleet: bool,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// DNS names it is good for, lower case; `*.` for one label.
    pub names: Vec<String>,
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
}

impl Topology {
    /// Builds the topology of `config`; counters of backends that `before` has too are carried over.
    pub fn build(config: Arc<Config>, assets: Assets, before: Option<&Self>) -> Self {
        let kept: HashMap<(u64, SocketAddr), &Arc<Load>> = before
            .map(|t| t.backends.iter().map(|b| ((b.seat, b.spec.address), &b.load)).collect())
            .unwrap_or_default();
        let mut targets = Targets::default();
        let mut backends = Vec::new();
        let mut members = vec![Vec::new(); config.services.len() * config.datacenters.len()];
        let mut found = found(&config, &assets.discovered);
        for (s, service) in config.services.iter().enumerate() {
            let written = service.backends.iter().map(|spec| (spec.clone(), None, None));
            for (spec, source, name) in written.chain(found.remove(&ServiceId::new(s)).unwrap_or_default()) {
                let target = service.probe.as_ref().map(|probe| {
                    targets.id_of(Target {
                        address: SocketAddr::new(spec.address.ip(), probe.port.unwrap_or(spec.address.port())),
                        probe: probe.clone(),
                        protocol: service.protocol,
                    })
                });
                let seat = seat(service, &config.datacenters[spec.datacenter.index()].name, spec.address);
                let load = kept.get(&(seat, spec.address)).map(|l| Arc::clone(l)).unwrap_or_default();
                members[s * config.datacenters.len() + spec.datacenter.index()].push(BackendId::new(backends.len()));
                backends.push(Backend { service: ServiceId::new(s), spec, target, seat, load, source, name });
            }
        }
        let tables = tables(&config, &backends, &members, before);
        let references = config.health.references.iter().map(|&address| targets.id_of(witness(address))).collect();
        let serial = before.map_or(1, |t| t.serial + 1);
        let views = Arc::default();
        Self {
            serial,
            edition: serial,
            config,
            backends,
            targets: targets.list,
            references,
            assets,
            views,
            members,
            tables,
        }
    }

    /// The same configuration with other backends that were found. What edges have derived from `before` still holds: it is
    /// about everything but backends.
    pub fn rediscovered(before: &Self, discovered: Discovered) -> Self {
        let assets = Assets { discovered, ..before.assets.clone() };
        let views = Arc::clone(&before.views);
        Self { views, edition: before.edition, ..Self::build(Arc::clone(&before.config), assets, Some(before)) }
    }

    /// The backends of `service` in `datacenter`.
    pub fn members(&self, service: ServiceId, datacenter: DatacenterId) -> &[BackendId] {
        &self.members[service.index() * self.config.datacenters.len() + datacenter.index()]
    }

    /// The table by which users find `members`, where the service balances by one.
    pub fn table(&self, service: ServiceId, datacenter: DatacenterId) -> Option<&Table> {
        let at = service.index() * self.config.datacenters.len() + datacenter.index();
        self.tables.get(at)?.as_deref()
    }

    /// All backends of `service`, in all datacenters.
    pub fn members_anywhere(&self, service: ServiceId) -> impl Iterator<Item = BackendId> + '_ {
        self.datacenter_ids().flat_map(move |dc| self.members(service, dc).iter().copied())
    }

    /// The place of the listener `name`. A listener is known by its name: a reload may move its place in the file.
    pub fn listener(&self, name: &str) -> Option<ListenerId> {
        self.config.listeners.iter().position(|listener| listener.name == name).map(ListenerId::new)
    }

    /// How the listener `name` shakes hands; `None` where it speaks plaintext, or is not there.
    pub fn terms(&self, name: &str) -> Option<&Arc<Terms>> {
        self.assets.terms.get(self.listener(name)?.index())?.as_ref()
    }

    /// All datacenters.
    pub fn datacenter_ids(&self) -> impl Iterator<Item = DatacenterId> + use<> {
        (0..self.config.datacenters.len()).map(DatacenterId::new)
    }

    /// All services.
    pub fn service_ids(&self) -> impl Iterator<Item = ServiceId> + use<> {
        (0..self.config.services.len()).map(ServiceId::new)
    }

    /// The backend of this id.
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }

    /// The service of this id.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.config.services[id.index()]
    }
}

/// A backend that was found, with its source and its name.
type Sighting = (BackendSpec, Option<u32>, Option<Arc<str>>);

/// What was found for each service, each address once: what the configuration names is not found, and of two sources the
/// first counts.
fn found(config: &Config, discovered: &Discovered) -> HashMap<ServiceId, Vec<Sighting>> {
    let mut found: HashMap<ServiceId, Vec<Sighting>> = HashMap::new();
    let mut seen: HashMap<ServiceId, HashSet<SocketAddr>> = HashMap::new();
    let mut left = MOST_BACKENDS.saturating_sub(config.services.iter().map(|s| s.backends.len()).sum());
    for (index, source) in config.discovery.sources.iter().enumerate() {
        let Some(service) = config.services.get(source.service.index()) else { continue };
        let written = || service.backends.iter().map(|b| b.address).collect();
        let seen = seen.entry(source.service).or_insert_with(written);
        let list = discovered.of(&SourceKey::of(config, source));
        let fresh = list.iter().filter(|f| seen.insert(f.address)).take(MOST_FOUND.min(left));
        let fresh: Vec<Sighting> = fresh
            .map(|f| {
                let spec = BackendSpec { datacenter: source.datacenter, address: f.address, weight: f.weight };
                (spec, u32::try_from(index).ok(), f.name.clone())
            })
            .collect();
        left -= fresh.len();
        found.entry(source.service).or_default().extend(fresh);
    }
    found
}

/// The tables of services that balance by one; those of `before` where they are made of the same.
fn tables(
    config: &Config,
    backends: &[Backend],
    members: &[Vec<BackendId>],
    before: Option<&Topology>,
) -> Vec<Option<Arc<Table>>> {
    let width = config.datacenters.len().max(1);
    let table = |(at, members): (usize, &Vec<BackendId>)| {
        config.services.get(at / width).filter(|service| service.balance == Balance::Maglev)?;
        let of: Vec<(u64, u32)> =
            members.iter().filter_map(|id| backends.get(id.index())).map(|b| (b.seat, b.spec.weight)).collect();
        let kept = before.and_then(|t| t.tables.get(at)?.as_ref()).filter(|table| table.is_of(&of));
        kept.map_or_else(|| Table::of(&of).map(Arc::new), |table| Some(Arc::clone(table)))
    };
    members.iter().enumerate().map(table).collect()
}

/// Targets in the order of their first mention, each once.
#[derive(Default)]
struct Targets {
    list: Vec<Target>,
    known: HashMap<Target, TargetId>,
}

impl Targets {
    fn id_of(&mut self, target: Target) -> TargetId {
        *self.known.entry(target).or_insert_with_key(|target| {
            self.list.push(target.clone());
            TargetId::new(self.list.len() - 1)
        })
    }
}

/// How a reference address is watched: a TCP connect at the pace of the default probe.
fn witness(address: SocketAddr) -> Target {
    let probe = Probe::reference();
    Target { address, probe, protocol: Protocol::Http1 }
}

fn seat(service: &Service, datacenter: &str, address: SocketAddr) -> u64 {
    use crate::base::hash;
    let at = hash::bytes(hash::bytes(0, service.name.as_bytes()), datacenter.as_bytes());
    hash::bytes(at, address.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Health;

    #[test]
    fn a_table_is_made_where_it_is_wanted_and_outlives_a_reload() {
        use crate::config::{Class, Limits, Passive, Retry};
        let service = |balance, weight| Service {
            name: "gifts".into(),
            class: Class::Critical,
            balance,
            probe: None,
            passive: Passive::default(),
            deadline: std::time::Duration::from_secs(1),
            retry: Retry::default(),
            limits: Limits::default(),
            session: None,
            slow_start: std::time::Duration::ZERO,
            panic_below: 0.5,
            homing: crate::config::Homing::default(),
            protocol: Protocol::Http1,
            tls: None,
            proxy_protocol: None,
            backends: vec![BackendSpec {
                datacenter: DatacenterId::new(1),
                address: ([10, 0, 0, 1], 80).into(),
                weight,
            }],
        };
        let datacenter = |name: &str| crate::config::Datacenter {
            name: name.into(),
            weight: 1,
            addresses: Vec::new(),
            near: Vec::new(),
            capacity_rps: None,
        };
        let build = |balance, weight, before: Option<&Topology>| {
            let datacenters = vec![datacenter("a"), datacenter("b")];
            let config = Config { services: vec![service(balance, weight)], datacenters, ..Config::default() };
            Topology::build(Arc::new(config), Assets::default(), before)
        };
        let table = |t: &Topology, dc| t.table(ServiceId::new(0), DatacenterId::new(dc)).map(std::ptr::from_ref);
        let one = build(Balance::Maglev, 1, None);
        assert!(table(&one, 0).is_none() && table(&one, 1).is_some(), "nobody in the first");
        let two = build(Balance::Maglev, 1, Some(&one));
        assert_eq!(table(&one, 1), table(&two, 1));
        assert_ne!(table(&build(Balance::Maglev, 2, Some(&two)), 1), table(&two, 1), "another weight, another table");
        assert_eq!(table(&build(Balance::P2c, 1, Some(&two)), 1), None);
    }

    #[test]
    fn a_reference_is_a_target_once_and_nobody_follows_it() {
        let at: SocketAddr = "192.0.2.1:53".parse().unwrap();
        let health = Health { references: vec![at, at], ..Health::default() };
        let topology = Topology::build(Arc::new(Config { health, ..Config::default() }), Assets::default(), None);
        assert_eq!(topology.references, [TargetId::new(0), TargetId::new(0)]);
        assert_eq!((topology.targets.len(), topology.targets[0].address), (1, at));
    }
}
