//! What secondaries get, made when a configuration is loaded: the zone, something for the names that are steered, and what
//! has changed since the versions before.
//!
//! A steered name goes out as all the addresses that it may have, those of datacenters with a weight, at its least TTL: what
//! is right while all is well. A secondary does not follow health; whoever needs that runs a second Springtide.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, DnsKey, KeyAlgorithm, Steer};
use crate::snapshot::Topology;
use crate::wire::dns::rtype;
use crate::wire::tsig::{Algorithm, Key};
use crate::wire::zone::{Outgoing, RrSet, WireName, Zone, is_later};
use crate::wire::{name, rdata, svcb};

/// How many versions back a secondary can be and still get the changes alone.
const MAX_VERSIONS: usize = 32;
/// How many records the changes of one zone may have in all. Ours: beyond it a whole transfer is little more.
const MAX_CHANGED: usize = 100_000;
/// The longest file with a secret.
const MAX_SECRET: u64 = 4_096;
/// The shortest secret that is taken, in octets. RFC 8945 section 8 wants as many as the hash has; half of it is enough for
/// those that are there already.
const MIN_SECRET: usize = 16;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("key {name}: {}: {problem}", file.display())]
pub struct KeyError {
    /// The key.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: KeyProblem,
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The file can't be read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// It is not what it should be.
    #[error("is not one secret in base64; `tsig-keygen` of BIND makes one: put what stands behind `secret` there")]
    NotBase64,
    /// It is too short to be a secret.
    #[error("the secret has {octets} octets; fewer than {MIN_SECRET} can be guessed")]
    Short {
        /// How many it has.
        octets: usize,
    },
    /// The name is none.
    #[error("its name is no domain name: {0}")]
    Name(name::NameError),
}

/// Reads the secrets that `config` names.
pub fn load_keys(config: &Config) -> (Vec<Arc<Key>>, Vec<KeyError>) {
    let (mut keys, mut errors) = (Vec::new(), Vec::new());
    for key in config.dns.iter().flat_map(|dns| &dns.keys) {
        match load_key(key) {
            Ok(made) => keys.push(Arc::new(made)),
            Err(problem) => {
                errors.push(KeyError { name: key.name.clone(), file: key.secret_file.clone(), problem });
            }
        }
    }
    (keys, errors)
}

fn load_key(key: &DnsKey) -> Result<Key, KeyProblem> {
    let algorithm = match key.algorithm {
        KeyAlgorithm::HmacSha256 => Algorithm::Sha256,
        KeyAlgorithm::HmacSha384 => Algorithm::Sha384,
        KeyAlgorithm::HmacSha512 => Algorithm::Sha512,
    };
    let wire = name::parse(&key.name, Some(b"\0")).map_err(KeyProblem::Name)?;
    let text = read(&key.secret_file).map_err(KeyProblem::Read)?;
    let secret = rdata::base64(text.trim()).ok_or(KeyProblem::NotBase64)?;
    if secret.len() < MIN_SECRET {
        return Err(KeyProblem::Short { octets: secret.len() });
    }
    Ok(Key::new(&wire, algorithm, &secret))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_SECRET).read_to_string(&mut text)?;
    Ok(text)
}

/// What secondaries get of each zone of `config`; with what has changed since `before`.
pub fn publish(config: &Config, zones: &[Arc<Zone>], before: Option<&Topology>) -> Vec<Option<Arc<Outgoing>>> {
    let Some(dns) = &config.dns else { return Vec::new() };
    let one = |(said, zone): (&crate::config::ZoneFile, &Arc<Zone>)| {
        said.transfer.as_ref()?;
        let inside = |owner: &[u8]| zone_of(owner, zones).is_some_and(|z| z.origin == zone.origin);
        let steered: BTreeMap<WireName, Vec<RrSet>> = dns
            .steers
            .iter()
            .filter_map(|steer| Some((name::lower(&name::parse(&steer.name, None).ok()?), steer)))
            .filter(|(owner, _)| inside(owner))
            .map(|(owner, steer)| (owner, stand_in(steer, config)))
            .collect();
        let aliased = zone.names.iter().filter(|(_, sets)| sets.iter().any(|s| s.rtype == rtype::ALIAS));
        let aliases = aliased.map(|(owner, _)| owner.clone()).collect();
        let mut made = Outgoing { zone: Arc::clone(zone), steered, aliases, history: Vec::new() };
        made.history = before.and_then(|b| former(b, zone)).map(|old| history(old, &made)).unwrap_or_default();
        Some(Arc::new(made))
    };
    dns.zones.iter().zip(zones).map(one).collect()
}

/// The same zone in the topology before.
fn former<'t>(before: &'t Topology, zone: &Zone) -> Option<&'t Arc<Outgoing>> {
    before.assets.outgoing.iter().flatten().find(|o| o.zone.origin == zone.origin)
}

/// The deepest of `zones` that `owner` lies in.
fn zone_of<'z>(owner: &[u8], zones: &'z [Arc<Zone>]) -> Option<&'z Arc<Zone>> {
    zones.iter().filter(|z| name::is_within(owner, &z.origin)).max_by_key(|z| z.origin.len())
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
