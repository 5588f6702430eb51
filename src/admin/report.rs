//! The answer to `/v1/state`: what this node holds to be true, as plain data for people and programs.
//!
//! Read from one snapshot, so that nothing in it disagrees. The command line reads the same types back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::{self, BackendReport};
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{BackendId, DatacenterId, ServiceId, SteerId};
use crate::config::{Balance, Class};
use crate::control::discover::SourceReport;
use crate::snapshot::health::BackendState;
use crate::snapshot::{DcState, Intent, Snapshot};

/// Backends not healthy that a state lists at the most; `/v1/health` has all.
const UNHEALTHY: usize = 200;

/// What a node holds to be true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Who answers.
    pub node: NodeReport,
    /// Generation of the snapshot that all of this was read from.
    pub generation: u64,
    /// For how long the node has thought that it is the one cut off, and held its verdicts; in seconds.
    pub isolated_s: Option<f64>,
    /// The last reload, where it was refused: what is in force is older than the files.
    pub refused: Option<RefusalReport>,
    /// The last upgrade, where it failed: the process before it serves on.
    #[serde(default)]
    pub failed_upgrade: Option<RefusalReport>,
    /// The edges of this node.
    pub edges: Vec<Edge>,
    /// Datacenters, in the order of the configuration.
    pub datacenters: Vec<DatacenterReport>,
    /// Services, in the order of the configuration.
    pub services: Vec<ServiceReport>,
    /// Steered names, in the order of the configuration.
    pub steers: Vec<SteerReport>,
    /// Backends that are anything but healthy, and why; the first 200. What operators took out is told by the intents.
    pub unhealthy: Vec<BackendReport>,
    /// Where backends are found.
    #[serde(default)]
    pub sources: Vec<SourceReport>,
    /// What operators want.
    pub intents: Vec<IntentReport>,
    /// Admin addresses of the whole fleet.
    pub fleet: Vec<SocketAddr>,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: Option<String>,
    /// Version of the program.
    pub version: String,
    /// For how long it has run, in seconds.
    pub uptime_s: f64,
    /// The process that answers.
    #[serde(default)]
    pub pid: u32,
    /// Processes that it has taken the place of, and that still finish their work.
    #[serde(default)]
    pub old_processes: Vec<u32>,
}

/// A reload that was refused, or an upgrade that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusalReport {
    /// How long ago, in seconds.
    pub for_s: f64,
    /// Everything that is wrong, with file and line.
    pub findings: String,
}

/// One edge of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// `dns` or `proxy`.
    pub name: String,
    /// Whether it takes traffic.
    pub serving: bool,
    /// Generation that it used last; `None`: nobody has asked it yet.
    pub generation: Option<u64>,
    /// Where it listens.
    pub addresses: Vec<String>,
}

/// One datacenter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatacenterReport {
    /// Its name.
    pub name: String,
    /// Its configured weight.
    pub weight: u32,
    /// What DNS answers with.
    pub addresses: Vec<IpAddr>,
    /// What it can carry, in requests a second.
    pub capacity_rps: Option<f64>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// `critical`, `degraded` or `background`.
    pub class: String,
    /// How a backend is chosen.
    pub balance: String,
    /// The service in each datacenter, in the order of [`State::datacenters`].
    pub datacenters: Vec<Cell>,
}

/// A service in a datacenter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The datacenter.
    pub datacenter: String,
    /// Its state.
    pub state: DcState,
    /// Since when, in seconds.
    pub since_s: f64,
    /// Healthy weight / configured weight of what no operator took out, 0 to 1.
    pub health: f64,
    /// What health, ramp and intent leave of the weight, 0 to 1.
    pub factor: f64,
    /// Effective weight, in the configured unit.
    pub effective: f64,
    /// Its share of the service's effective weight over all datacenters, 0 to 1.
    pub share: f64,
    /// Backends here.
    pub backends: usize,
    /// Those of them that take new requests.
    pub usable: usize,
    /// Too few are healthy: balance ignores health here.
    pub panic: bool,
}

/// A steered name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SteerReport {
    /// The name.
    pub name: String,
    /// TTL of its answers, in seconds.
    pub ttl_s: u32,
    /// Every datacenter has failed for it.
    pub all_down: bool,
    /// Datacenters that it may answer with.
    pub candidates: Vec<CandidateReport>,
}

/// A datacenter as a candidate of a steered name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateReport {
    /// The datacenter.
    pub datacenter: String,
    /// Its state for this name.
    pub state: DcState,
    /// Effective weight, in the configured unit.
    pub effective: f64,
    /// Its share of the effective weight of all candidates, 0 to 1.
    pub share: f64,
    /// The service that holds it down.
    pub held_by: Option<String>,
}

/// One intent in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentReport {
    /// Of what, as an operator writes it.
    pub subject: String,
    /// What is wanted: `drain`, `down` or `weight N`.
    pub wish: String,
    /// When it was said, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// In how many seconds it ends by itself; `None`: it does not.
    pub left_s: Option<u64>,
    /// Backends that it takes in.
    pub backends: usize,
    /// Requests of this node that they are still at: a drain is through when there are none.
    pub under_way: u32,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Who is asked, and when: what a report needs beside the snapshot.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Now.
    pub now: Mono,
    /// Now, for people.
    pub wall: Wall,
    /// When the node was started.
    pub started: Mono,
    /// The edges of the node.
    pub edges: Vec<Edge>,
    /// The last reload, where it was refused.
    pub refused: Option<RefusalReport>,
    /// Old processes that still finish their work, and the last upgrade where it failed.
    pub upgraded: (Vec<u32>, Option<RefusalReport>),
    /// Where backends are found.
    pub sources: Vec<SourceReport>,
    /// The fleet.
    pub fleet: Vec<SocketAddr>,
}

/// Reads the state from `snapshot`.
pub fn state(snapshot: &Snapshot, asked: Asked) -> State {
    let config = &snapshot.topology.config;
    let now = asked.now;
    let (old_processes, failed_upgrade) = asked.upgraded;
    let place = config.node.datacenter.and_then(|dc| config.datacenters.get(dc.index()));
    State {
        node: NodeReport {
            name: config.node.name.clone(),
            datacenter: place.map(|dc| dc.name.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: seconds(now.since(asked.started)),
            pid: std::process::id(),
            old_processes,
        },
        generation: snapshot.generation,
        isolated_s: snapshot.isolated_since.map(|since| seconds(now.since(since))),
        refused: asked.refused,
        failed_upgrade,
        edges: asked.edges,
        datacenters: config
            .datacenters
            .iter()
            .map(|dc| DatacenterReport {
                name: dc.name.clone(),
                weight: dc.weight,
                addresses: dc.addresses.clone(),
                capacity_rps: dc.capacity_rps,
            })
            .collect(),
        services: snapshot.topology.service_ids().map(|id| service(snapshot, id, now)).collect(),
        steers: (0..snapshot.steers.len()).filter_map(|i| steer(snapshot, SteerId::new(i))).collect(),
        unhealthy: (0..snapshot.backends.len())
            .map(BackendId::new)
            .filter(|id| is_unhealthy(snapshot.backend(*id).state))
            .take(UNHEALTHY)
            .map(|id| evidence::backend(snapshot, id, now, asked.wall))
            .collect(),
        intents: snapshot.intents.entries.iter().map(|i| intent(snapshot, i, asked.wall)).collect(),
        sources: asked.sources,
        fleet: asked.fleet,
    }
}

fn service(snapshot: &Snapshot, id: ServiceId, now: Mono) -> ServiceReport {
    let service = snapshot.topology.service(id);
    let total: u64 = snapshot.topology.datacenter_ids().map(|dc| snapshot.weight(id, dc).effective).sum();
    ServiceReport {
        name: service.name.clone(),
        class: class(service.class).to_owned(),
        balance: balance(service.balance).to_owned(),
        datacenters: snapshot.topology.datacenter_ids().map(|dc| cell(snapshot, id, dc, total, now)).collect(),
    }
}

fn cell(snapshot: &Snapshot, service: ServiceId, dc: DatacenterId, total: u64, now: Mono) -> Cell {
    let weight = snapshot.weight(service, dc);
    let members = snapshot.topology.members(service, dc);
    Cell {
        datacenter: datacenter(snapshot, dc),
        state: weight.state,
        since_s: seconds(now.since(weight.since)),
        health: rounded(weight.health),
        factor: f64::from(weight.factor) / 1e3,
        effective: weight.effective as f64 / 1e3,
        share: share(weight.effective, total),
        backends: members.len(),
        usable: members.iter().filter(|id| snapshot.backend(**id).state.usable()).count(),
        panic: weight.panic,
    }
}

fn steer(snapshot: &Snapshot, id: SteerId) -> Option<SteerReport> {
    let steer = snapshot.topology.config.dns.as_ref()?.steers.get(id.index())?;
    let health = snapshot.steer(id);
    let total: u64 = health.candidates.iter().map(|c| c.effective).sum();
    let candidates = steer.datacenters.iter().zip(&health.candidates).map(|((dc, _), candidate)| CandidateReport {
        datacenter: datacenter(snapshot, *dc),
        state: candidate.state,
        effective: candidate.effective as f64 / 1e3,
        share: share(candidate.effective, total),
        held_by: candidate.held_by.map(|service| snapshot.topology.service(service).name.clone()),
    });
    Some(SteerReport {
        name: steer.name.clone(),
        ttl_s: health.ttl,
        all_down: health.all_down,
        candidates: candidates.collect(),
    })
}

/// Whether the evidence speaks against it; who is out by an operator's wish is none the worse for it.
const fn is_unhealthy(state: BackendState) -> bool {
    !matches!(state, BackendState::Healthy | BackendState::Drained | BackendState::AdminDown)
}

/// One intent, as it stands at `wall`.
pub fn intent(snapshot: &Snapshot, intent: &Intent, wall: Wall) -> IntentReport {
    let all = (0..snapshot.backends.len()).map(BackendId::new);
    let taken_in: Vec<BackendId> = all.filter(|id| evidence::speaks_of(snapshot, &intent.subject, *id)).collect();
    IntentReport {
        backends: taken_in.len(),
        under_way: taken_in.iter().map(|id| snapshot.topology.backend(*id).load.in_flight()).sum(),
        subject: intent.subject.to_string(),
        wish: intent.wish.to_string(),
        since_ms: intent.since.0,
        left_s: intent.until.map(|until| until.since(wall).as_millis().div_ceil(1_000) as u64),
        by: intent.by.clone(),
        reason: intent.reason.clone(),
    }
}

/// The name of a datacenter; ids of a snapshot's own topology always have one.
pub(super) fn datacenter(snapshot: &Snapshot, id: DatacenterId) -> String {
    snapshot.topology.config.datacenters.get(id.index()).map(|dc| dc.name.clone()).unwrap_or_default()
}

/// Seconds, to the millisecond.
pub(super) fn seconds(d: Duration) -> f64 {
    rounded(d.as_secs_f64())
}

fn rounded(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e4).round() / 1e4 }
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Critical => "critical",
        Class::Degraded => "degraded",
        Class::Background => "background",
    }
}

const fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::P2c => "p2c",
        Balance::LeastRequest => "least-request",
        Balance::Maglev => "maglev",
        Balance::WeightedRoundRobin => "weighted-round-robin",
        Balance::UserHash => "user-hash",
        Balance::UserHome => "user-home",
    }
}
