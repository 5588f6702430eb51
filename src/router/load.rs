//! From a file to a complete topology: the configuration, and every file that it names, each read and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::export::{self, HeadersError};
use crate::base::clock::{Clock, SystemClock};
use crate::config::diag::Findings;
use crate::config::homes::{Homes, HomesError};
use crate::config::{Config, ListenerTls, ProbeKind, SecureWay, UpstreamTls, check, strangers};
use crate::control::discover::book;
use crate::dns::Divided;
use crate::dns::atlas::{self, GeoError};
use crate::dns::secrets::{self, SecretsError};
use crate::dns::sign::keys::{self, KeysError};
use crate::dns::zone::{self, ZoneError};
use crate::net::tls::{self, TlsError};
use crate::snapshot::atlas::{Atlas, Source};
use crate::snapshot::topology::{Assets, Certificate};
use crate::snapshot::{Discovered, Topology};

/// Why a configuration cannot be put in force. Displays everything that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration itself.
    #[error("{0}")]
    Config(Findings),
    /// Files that it names.
    #[error("{}", lines(.0))]
    Assets(Vec<AssetError>),
}

/// A file that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssetError {
    /// A zone.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// A steered name that contradicts the zone it lies in.
    #[error("{0}")]
    Steer(zone::Problem),
    /// A file that says where clients are.
    #[error(transparent)]
    Geo(#[from] GeoError),
    /// A secret shared with secondaries.
    #[error(transparent)]
    Key(#[from] crate::dns::KeyError),
    /// The keys of a signed zone.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The secrets of DNS cookies.
    #[error(transparent)]
    Cookies(#[from] SecretsError),
    /// A name whose answers client subnets would divide too far.
    #[error(transparent)]
    Divided(#[from] Divided),
    /// A certificate, a key or an authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What a collector of spans is told.
    #[error(transparent)]
    Export(#[from] HeadersError),
    /// A file of users' homes.
    #[error(transparent)]
    Homes(#[from] HomesError),
    /// A file of users' homes that is good and cannot take the place of the one before.
    #[error("{}: {reason}", path.display())]
    Moved {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

fn lines(errors: &[AssetError]) -> String {
    errors.iter().map(|e| format!("error: {e}")).collect::<Vec<_>>().join("\n")
}

/// Reads `file` and everything that it names. Counters of backends that `before` has too are carried over.
pub fn load(file: &Path, before: Option<&Topology>) -> Result<Topology, LoadError> {
    let config = check::load(file).map_err(LoadError::Config)?;
    if !config.warnings.is_empty() {
        warn!(target: "config", "{}", config.warnings);
    }
    prepare(config, before)
}

/// Reads everything that `config` names. All that is wrong is told at once.
pub fn prepare(config: Config, before: Option<&Topology>) -> Result<Topology, LoadError> {
    let (mut assets, mut errors) = (Assets::default(), Vec::new());
    for file in config.dns.iter().flat_map(|dns| &dns.zones) {
        match zone::load(file) {
            Ok(zone) => assets.zones.push(Arc::new(zone)),
            Err(e) => errors.push(e.into()),
        }
    }
    if let Some(dns) = &config.dns {
        errors.extend(zone::conflicts(dns, &assets.zones).into_iter().map(AssetError::Steer));
        let kept = before.and_then(|t| Some((&t.config.dns.as_ref()?.guard.cookies, &t.assets.cookies)));
        match secrets::load(&dns.guard.cookies, kept) {
            Ok(secrets) => assets.cookies = secrets,
            Err(e) => errors.push(e.into()),
        }
    }
    match survey(&config) {
        Ok(atlas) => assets.atlas = Arc::new(atlas),
        Err(wrong) => errors.extend(wrong.into_iter().map(AssetError::Geo)),
    }
    let shared = crate::dns::load_keys(&config);
    for warning in shared.warnings {
        warn!(target: "config", "{warning}");
    }
    assets.keys = shared.keys;
    errors.extend(shared.errors.into_iter().map(AssetError::Key));
    if errors.is_empty() {
        assets.outgoing = crate::dns::publish_zones(&config, &assets.zones, before);
    }
    assets.discovered = discovered(&config, before);
    sign(&config, &mut assets, &mut errors);
    secure(&config, before, &mut assets, &mut errors);
    match export::headers(&config) {
        Ok(headers) => assets.export_headers = headers,
        Err(e) => errors.push(e.into()),
    }
    if errors.is_empty() {
        let topology = Topology::build(Arc::new(config), assets, before);
        // Here, off the data path: a million names take a while, and queries should not wait for them.
        crate::dns::prepare(&topology, before);
        divided(topology)
    } else {
        Err(LoadError::Assets(errors))
    }
}

/// Reads the keys of the zones that are signed here.
fn sign(config: &Config, assets: &mut Assets, errors: &mut Vec<AssetError>) {
    for (file, rules) in config.dns.iter().flat_map(|d| &d.zones).filter_map(|z| Some((z, z.dnssec.as_ref()?))) {
        match keys::of(file, rules) {
            Ok((origin, keys, warnings)) => {
                for finding in warnings {
                    warn!(target: "config", zone = file.origin, "{finding}");
                }
                assets.signing.insert(origin, keys.into());
            }
            Err(e) => errors.push(e.into()),
        }
    }
}

/// Reads what TLS takes, towards clients and towards backends.
fn secure(config: &Config, before: Option<&Topology>, assets: &mut Assets, errors: &mut Vec<AssetError>) {
    for listener in &config.listeners {
        let terms = listener.tls.as_ref().and_then(|tls| {
            let certificates = certificates(Some(tls), &listener.name, errors)?;
            let before = before.and_then(|topology| topology.terms(&listener.name));
            tls::terms(tls, &certificates, before.map(|terms| &**terms)).map_err(|e| errors.push(e.into())).ok()
        });
        assets.terms.push(terms.map(Arc::new));
    }
    for (way, name) in SecureWay::ALL.into_iter().zip(["dns.tls", "dns.https", "dns.quic"]) {
        let secure = config.dns.as_ref().and_then(|dns| dns.secure(way));
        if let Some(certificates) = certificates(secure.map(|s| &s.tls), name, errors)
            && let Some(place) = assets.dns_certificates.get_mut(way as usize)
        {
            *place = certificates;
        }
    }
    for wanted in upstream_tls(config) {
        if assets.upstream_tls.contains_key(wanted) {
            continue;
        }
        match tls::client_config(wanted) {
            Ok(client) => {
                // What could not be read is told by the line before.
                let own = tls::own_certificate(wanted).ok().flatten();
                for tls::Expiring { name, remaining } in tls::expiring(own.as_slice(), SystemClock.wall()) {
                    let days = remaining.as_secs() / 86_400;
                    warn!(target: "config", upstream = wanted.name, certificate = name, days, "our own certificate expires soon: renew it");
                }
                assets.upstream_tls.insert(wanted.clone(), client);
            }
            Err(e) => errors.push(e.into()),
        }
    }
}

/// The certificates of one listener; those that are over soon are warned of.
fn certificates(tls: Option<&ListenerTls>, listener: &str, errors: &mut Vec<AssetError>) -> Option<Vec<Certificate>> {
    match tls.map_or_else(|| Ok(Vec::new()), tls::load_certificates) {
        Ok(certificates) => {
            for tls::Expiring { name, remaining } in tls::expiring(&certificates, SystemClock.wall()) {
                let days = remaining.as_secs() / 86_400;
                warn!(target: "config", listener, certificate = name, days, "expires soon: renew it");
            }
            Some(certificates)
        }
        Err(e) => {
            errors.push(e.into());
            None
        }
    }
}

/// Reads the files of `[geo]` anew and nothing else: the topology that takes the place of `before` differs in them alone.
pub(super) fn refresh(before: &Topology) -> Result<Topology, LoadError> {
    let atlas = survey(&before.config);
    let atlas = atlas.map_err(|wrong| LoadError::Assets(wrong.into_iter().map(AssetError::Geo).collect()))?;
    let assets = Assets { atlas: Arc::new(atlas), ..before.assets.clone() };
    let topology = Topology::build(Arc::clone(&before.config), assets, Some(before));
    crate::dns::prepare(&topology, Some(before));
    divided(topology)
}

/// Reads the files of users' homes anew and nothing else.
pub(super) fn rehome(before: &Topology) -> Result<Topology, LoadError> {
    let (mut config, mut errors) = (Config::clone(&before.config), Vec::new());
    for service in &mut config.services {
        let Some(path) = service.homing.file.clone() else { continue };
        let homes = match Homes::load(&path) {
            Ok(homes) => homes,
            Err(error) => {
                errors.push(error.into());
                continue;
            }
        };
        let mut refuse = |reason: String| errors.push(AssetError::Moved { path: path.clone(), reason });
        for (home, door) in strangers(&homes, &service.backends) {
            refuse(format!("home `{}` at {} is no backend of service `{}`", home.name, door.url, service.name));
        }
        if service.homing.homes.as_ref().is_some_and(|before| !homes.follows(before)) {
            refuse(format!(
                "epoch {} is not above the one in force: a changed file needs a greater one",
                homes.epoch()
            ));
        }
        service.homing.homes = Some(Arc::new(homes));
    }
    if !errors.is_empty() {
        return Err(LoadError::Assets(errors));
    }
    let topology = Topology::build(Arc::new(config), before.assets.clone(), Some(before));
    crate::dns::prepare(&topology, Some(before));
    Ok(topology)
}

/// What sources of backends are known to have found: what is in force, or what an earlier process left on disk.
fn discovered(config: &Config, before: Option<&Topology>) -> Discovered {
    if let Some(before) = before {
        return before.assets.discovered.clone();
    }
    let Some(dir) = &config.node.state_dir else { return Discovered::default() };
    match book::load(dir) {
        Ok(book) => book.discovered(),
        Err(error) => {
            warn!(target: "discovery", %error, "starting without the backends that were known");
            Discovered::default()
        }
    }
}

/// `topology`, unless client subnets would divide a name of it too far.
fn divided(topology: Topology) -> Result<Topology, LoadError> {
    let divided = crate::dns::too_divided(&topology);
    if divided.is_empty() {
        return Ok(topology);
    }
    Err(LoadError::Assets(divided.into_iter().map(AssetError::Divided).collect()))
}

fn survey(config: &Config) -> Result<Atlas, Vec<GeoError>> {
    let (atlas, doubts) = atlas::load(config)?;
    for doubt in doubts {
        warn!(target: "config", "{doubt}");
    }
    for Source { file, networks, runs, .. } in &atlas.sources {
        info!(target: "config", file = %file.display(), networks, runs = runs.count(), "where clients are");
    }
    Ok(atlas)
}

fn upstream_tls(config: &Config) -> impl Iterator<Item = &UpstreamTls> {
    let upstreams = config.services.iter().flat_map(|service| {
        let probe = service.probe.as_ref().and_then(|p| match &p.kind {
            ProbeKind::Tls { tls } => Some(tls),
            ProbeKind::Http { tls, .. } | ProbeKind::Grpc { tls, .. } => tls.as_ref(),
            ProbeKind::Tcp => None,
        });
        service.tls.as_ref().into_iter().chain(probe)
    });
    upstreams.chain(config.trace.iter().filter_map(|trace| trace.export.as_ref()?.tls.as_ref()))
}
