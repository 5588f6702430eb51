//! Random fleets, and what a reload makes of them.

use std::net::SocketAddr;
use std::time::Duration;

use springtide::base::entropy::Rng;
use springtide::base::ids::{DatacenterId, ServiceId};
use springtide::config::{
    BackendSpec, Balance, Class, Config, Datacenter, Dns, Health, OnAllDown, Passive, Policy, Probe, Protocol, Retry,
    Service, Steer,
};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Two to five datacenters, one to three services.
pub(crate) fn random(rng: &mut Rng) -> Config {
    let dcs = 2 + rng.below(4) as usize;
    let services = 1 + rng.below(3) as usize;
    let datacenter = |dc: usize, rng: &mut Rng| Datacenter {
        name: format!("dc{dc}"),
        weight: 10 + rng.below(40) as u32,
        addresses: Vec::new(),
        near: Vec::new(),
        capacity_rps: None,
    };
    let health = Health {
        references: if rng.chance(0.5) {
            (1..=2).map(|n| SocketAddr::from(([192, 0, 2, n], 53))).collect()
        } else {
            Vec::new()
        },
        ..Health::default()
    };
    let datacenters: Vec<Datacenter> = (0..dcs).map(|dc| datacenter(dc, rng)).collect();
    let mut services: Vec<Service> = (0..services).map(|s| service(s, dcs, rng)).collect();
    // Sometimes two services live in the same processes: equal probes of one address are one target.
    if services.len() > 1 && rng.chance(0.3) {
        (services[1].backends, services[1].probe) = (services[0].backends.clone(), services[0].probe.clone());
    }
    let steer = |name: &str, policy: Policy, dcs: Vec<(DatacenterId, u32)>| Steer {
        name: name.into(),
        services: (0..services.len()).map(ServiceId::new).collect(),
        policy: vec![policy],
        datacenters: dcs,
        answers: 2,
        ttl_base: 20 * S,
        ttl_min: 5 * S,
        on_all_down: OnAllDown::ServeAll,
        ..Steer::default()
    };
    let all = datacenters.iter().enumerate().map(|(i, d)| (DatacenterId::new(i), d.weight)).collect();
    let two = (0..2).map(|i| (DatacenterId::new(i), 1)).collect();
    let steers = vec![steer("www.test.", Policy::Weighted, all), steer("api.test.", Policy::Failover, two)];

    Config {
        health,
        datacenters,
        services,
        dns: Some(Dns { steers, client_prefix: (24, 56), ..Dns::default() }),
        ..Config::default()
    }
}

fn service(s: usize, dcs: usize, rng: &mut Rng) -> Service {
    let probe = Probe {
        interval: if rng.chance(0.7) { S } else { MS * (300 + rng.below(1_700) as u32) },
        timeout: if rng.chance(0.7) { 500 * MS } else { MS * (100 + rng.below(200) as u32) },
        fall: if rng.chance(0.7) { 2 } else { 1 + rng.below(3) as u32 },
        ..Probe::reference()
    };
    let mut backends = Vec::new();
    for dc in 0..dcs {
        let fewest = u64::from(s == 0);
        for n in 0..fewest + rng.below(5 - fewest) {
            backends.push(backend(s, dc, n as u8, rng));
        }
    }
    if backends.is_empty() {
        backends.push(backend(s, 0, 0, rng));
    }
    Service {
        name: format!("s{s}"),
        class: if s == 0 || rng.chance(0.5) { Class::Critical } else { Class::Degraded },
        balance: POLICIES[rng.below(POLICIES.len() as u64) as usize],
        probe: (s == 0 || rng.chance(0.8)).then_some(probe),
        passive: Passive::default(),
        deadline: S,
        retry: Retry::default(),
        slow_start: S * rng.below(11) as u32,
        panic_below: if rng.chance(0.8) { 0.5 } else { 0.0 },
        homing: springtide::config::Homing::default(),
        limits: springtide::config::Limits::default(),
        session: None,
        protocol: Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends,
    }
}

const POLICIES: [Balance; 5] =
    [Balance::P2c, Balance::WeightedRoundRobin, Balance::UserHash, Balance::LeastRequest, Balance::Maglev];

fn backend(s: usize, dc: usize, n: u8, rng: &mut Rng) -> BackendSpec {
    BackendSpec {
        datacenter: DatacenterId::new(dc),
        address: SocketAddr::from(([10, s as u8, dc as u8, n + 1], 80)),
        weight: 1 + rng.below(3) as u32,
    }
}

/// The same fleet with a few backends more or fewer and other weights.
pub(crate) fn reloaded(config: &Config, rng: &mut Rng) -> Config {
    let mut next = config.clone();
    for dc in &mut next.datacenters {
        if rng.chance(0.3) {
            dc.weight = 10 + rng.below(40) as u32;
        }
    }
    let dcs = next.datacenters.len();
    for (s, service) in next.services.iter_mut().enumerate() {
        if service.backends.len() > 1 && rng.chance(0.4) {
            let gone = rng.below(service.backends.len() as u64) as usize;
            service.backends.remove(gone);
        }
        if rng.chance(0.4) {
            let fresh = backend(s, rng.below(dcs as u64) as usize, 10 + rng.below(5) as u8, rng);
            if service.backends.iter().all(|b| b.address != fresh.address) {
                service.backends.push(fresh);
            }
        }
    }
    next
}
