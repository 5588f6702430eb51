//! A small world for the tests of decisions: one service, a few datacenters, a few backends, all well until told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Mono;
use crate::base::ids::{BackendId, DatacenterId, ServiceId};
use crate::config::{BackendSpec, Balance, Class, Config, Datacenter, Node, Passive, Protocol, Retry, Route, Service};
use crate::decide::standing;
use crate::snapshot::health::BackendState;
use crate::snapshot::topology::Assets;
use crate::snapshot::{BackendHealth, DcState, DcWeight, Intents, Snapshot, Topology, Views};

/// The only service.
pub(crate) const SERVICE: ServiceId = ServiceId::new(0);
/// Now.
pub(crate) const NOW: Mono = Mono::from_millis(600_000);

/// Datacenters with their weights and the weights of their backends. The node stands in the first.
pub(crate) fn world(balance: Balance, datacenters: &[(u32, &[u32])]) -> Snapshot {
    routed(balance, datacenters, Vec::new())
}

/// The same with routes.
pub(crate) fn routed(balance: Balance, datacenters: &[(u32, &[u32])], routes: Vec<Route>) -> Snapshot {
    let backends = datacenters.iter().enumerate().flat_map(|(dc, (_, weights))| {
        weights.iter().enumerate().map(move |(host, &weight)| BackendSpec {
            datacenter: DatacenterId::new(dc),
            address: SocketAddr::from(([10, dc as u8 + 1, (host / 200) as u8, (host % 200) as u8 + 1], 7_000)),
            weight,
        })
    });
    let service = Service {
        name: "gifts".into(),
        class: Class::Critical,
        balance,
        probe: None,
        passive: Passive::default(),
        deadline: Duration::from_millis(500),
        retry: Retry::default(),
        slow_start: Duration::from_secs(10),
        panic_below: 0.5,
        homing: crate::config::Homing::default(),
        limits: crate::config::Limits::default(),
        session: None,
        protocol: Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends: backends.collect(),
    };
    let config = Config {
        node: Node {
            name: "edge".into(),
            datacenter: Some(DatacenterId::new(0)),
            state_dir: None,
            workers: 1,
            leaving: crate::config::Leaving::default(),
        },
        datacenters: datacenters
            .iter()
            .enumerate()
            .map(|(i, (weight, _))| Datacenter {
                name: format!("dc{i}"),
                weight: *weight,
                addresses: Vec::new(),
                near: Vec::new(),
                capacity_rps: None,
            })
            .collect(),
        services: vec![service],
        routes,
        ..Config::default()
    };
    let topology = Arc::new(Topology::build(Arc::new(config), Assets::default(), None));
    let health = |weight: u32| BackendHealth {
        state: BackendState::Healthy,
        weight: weight * 1_000,
        ..standing::fresh(Mono::ZERO)
    };
    let mut snapshot = Snapshot {
        generation: 1,
        at: NOW,
        targets: Arc::default(),
        backends: Arc::new(topology.backends.iter().map(|b| health(b.spec.weight)).collect()),
        weights: Arc::new(vec![DcWeight::default(); datacenters.len()]),
        steers: Arc::default(),
        spill: Arc::default(),
        intents: Arc::new(Intents::default()),
        steered_from: Arc::default(),
        isolated_since: None,
        views: Arc::new(Views::default()),
        topology,
    };
    for (dc, (_, weights)) in datacenters.iter().enumerate() {
        let state = if weights.is_empty() { DcState::Absent } else { DcState::Serving };
        set_datacenter(&mut snapshot, dc, state, if weights.is_empty() { 0 } else { 1_000 });
    }
    snapshot
}

/// Gives datacenter `dc` a state and a factor; its effective weight follows.
pub(crate) fn set_datacenter(snapshot: &mut Snapshot, dc: usize, state: DcState, factor: u32) {
    let weight = snapshot.topology.config.datacenters[dc].weight;
    let row = &mut Arc::make_mut(&mut snapshot.weights)[dc];
    (row.state, row.factor, row.health) = (state, factor, f64::from(factor) / 1_400.0);
    row.effective = u64::from(weight) * u64::from(factor);
}

/// Lets datacenter `dc` panic.
pub(crate) fn set_panic(snapshot: &mut Snapshot, dc: usize) {
    Arc::make_mut(&mut snapshot.weights)[dc].panic = true;
}

/// Gives a backend a state; one that is not usable has no weight.
pub(crate) fn set_backend(snapshot: &mut Snapshot, id: BackendId, state: BackendState) {
    let configured = snapshot.topology.backend(id).spec.weight;
    let health = &mut Arc::make_mut(&mut snapshot.backends)[id.index()];
    health.state = state;
    health.weight = if state.usable() { configured * 1_000 } else { 0 };
}

/// The backends of a datacenter.
pub(crate) fn members(snapshot: &Snapshot, dc: usize) -> Vec<BackendId> {
    snapshot.topology.members(SERVICE, DatacenterId::new(dc)).to_vec()
}
