//! A small world for tests: three datacenters, two services, a hand-turned clock, and the real step in a loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Context, Edge, Foresee, Server, start};
use crate::base::clock::{Clock, ManualClock, Mono, Wall};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::base::task::{self, Task};
use crate::config::{
    Action, BackendSpec, Balance, Class, Config, Datacenter, Dns, Node, Passive, PathMatch, Policy, Probe, ProbeKind,
    Protocol, Retry, Route, RouteMatch, Service, Steer, UserKey,
};
use crate::control::discover::Discovery;
use crate::control::event::Event;
use crate::control::step::step;
use crate::snapshot::health::{BackendState, Candidate, EjectReason, ProbeFailure, ProbeOutcome, Verdict};
use crate::snapshot::load::Sample;
use crate::snapshot::topology::Assets;
use crate::snapshot::{
    BackendHealth, DcState, DcWeight, Intents, Published, Snapshot, SteerHealth, TargetHealth, Topology, Views,
};

/// Now.
pub(crate) const NOW: Mono = Mono::from_millis(600_000);
/// Now, for people: 2026-02-16 12:00:00 UTC, the eve of Spring Festival.
pub(crate) const WALL: Wall = Wall(1_771_243_200_000);

fn service(name: &str, balance: Balance, port: u16) -> Service {
    let backend = |dc: usize, host: u8| BackendSpec {
        datacenter: DatacenterId::new(dc),
        address: SocketAddr::from(([10, dc as u8 + 1, 0, host], port)),
        weight: 1,
    };
    Service {
        name: name.into(),
        class: Class::Critical,
        balance,
        probe: Some(Probe {
            kind: ProbeKind::Http { path: "/healthz".into(), host: None, expect: (200, 299), tls: None },
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            fall: 2,
            rise: 2,
            port: None,
            proxy_protocol: None,
        }),
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
        backends: (0..3).flat_map(|dc| [backend(dc, 11), backend(dc, 12)]).collect(),
    }
}

fn config() -> Config {
    let datacenter = |name: &str, weight, address: [u8; 4]| Datacenter {
        name: name.into(),
        weight,
        addresses: vec![address.into()],
        near: Vec::new(),
        capacity_rps: Some(48_000.0),
    };
    Config {
        node: Node {
            name: "sz-edge-1".into(),
            datacenter: Some(DatacenterId::new(0)),
            state_dir: None,
            workers: 1,
            leaving: crate::config::Leaving::default(),
        },
        datacenters: vec![
            datacenter("shenzhen", 40, [203, 0, 113, 10]),
            datacenter("shanghai", 40, [198, 51, 100, 10]),
            datacenter("tianjin", 20, [192, 0, 2, 10]),
        ],
        services: vec![service("gift-list", Balance::P2c, 7000), service("claim", Balance::UserHome, 7100)],
        dns: Some(Dns {
            steers: vec![Steer {
                name: "www.hongbao.test.".into(),
                services: vec![ServiceId::new(0), ServiceId::new(1)],
                policy: vec![Policy::Weighted],
                datacenters: vec![(DatacenterId::new(0), 40), (DatacenterId::new(1), 40), (DatacenterId::new(2), 20)],
                answers: 2,
                ttl_base: Duration::from_secs(20),
                ttl_min: Duration::from_secs(5),
                on_all_down: crate::config::OnAllDown::ServeAll,
                ..Steer::default()
            }],
            ..Dns::default()
        }),
        routes: vec![route("claims", "/v1/claims", "POST", 1), route("gifts", "/v1/gifts", "GET", 0)],
        ..Config::default()
    }
}

fn route(name: &str, prefix: &str, method: &str, service: usize) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            host: Some("www.hongbao.test".into()),
            path: PathMatch::Prefix(prefix.into()),
            methods: vec![method.into()],
            ..RouteMatch::default()
        },
        action: Action::Forward(ServiceId::new(service)),
        user: UserKey::Header("x-user-id".into()),
        ..Route::default()
    }
}

/// Everything healthy since a minute, but: tianjin's gift lists are dead, one in shanghai is shut out.
pub(crate) fn snapshot() -> Snapshot {
    let topology = Topology::build(Arc::new(config()), Assets::default(), None);
    let since = NOW - Duration::from_mins(1);
    let healthy = TargetHealth {
        verdict: Verdict::Up,
        since,
        streak_ok: 60,
        streak_failed: 0,
        leaky: 0,
        flaps: 0,
        flap_at: Mono::ZERO,
        last: Some((NOW - Duration::from_millis(400), ProbeOutcome::Ok, Duration::from_micros(1_200))),
        due: NOW + Duration::from_millis(600),
        round: 60,
    };
    let refused = TargetHealth {
        verdict: Verdict::Down,
        since: NOW - Duration::from_secs(5),
        streak_ok: 0,
        streak_failed: 6,
        leaky: 6,
        last: Some((NOW - Duration::from_millis(200), ProbeOutcome::Failed(ProbeFailure::Refused), Duration::ZERO)),
        ..healthy.clone()
    };
    let mut targets = vec![healthy; topology.targets.len()];
    let well = BackendHealth {
        state: BackendState::Healthy,
        since,
        weight: 1_000,
        ejected: None,
        ejections: 0,
        clean_from: Mono::ZERO,
        slow_windows: 0,
        ramp_from: None,
        recent: vec![],
    };
    let mut backends = vec![well; topology.backends.len()];
    for i in [4, 5] {
        targets[i] = refused.clone();
        backends[i] =
            BackendHealth { state: BackendState::Down, since: refused.since, weight: 0, ..backends[i].clone() };
    }
    backends[2] = BackendHealth {
        state: BackendState::Ejected,
        since: NOW - Duration::from_secs(2),
        weight: 0,
        ejected: Some((EjectReason::ConsecutiveFailures, NOW + Duration::from_secs(8))),
        ejections: 2,
        clean_from: Mono::ZERO,
        recent: vec![(
            NOW - Duration::from_secs(2),
            Sample { ok: 40, reset: 3, streak_failures: 3, p90_us: 4_200, ..Sample::default() },
        )],
        ..backends[2].clone()
    };
    let cell = |state, health: f64, factor: u32, dc_weight: u64| DcWeight {
        state,
        since,
        health,
        factor,
        effective: dc_weight * u64::from(factor),
        ..DcWeight::default()
    };
    let weights = vec![
        cell(DcState::Serving, 1.0, 1_000, 40),
        cell(DcState::Serving, 0.5, 700, 40),
        DcWeight { since: refused.since, ..cell(DcState::Failed, 0.0, 0, 20) },
        cell(DcState::Serving, 1.0, 1_000, 40),
        cell(DcState::Serving, 1.0, 1_000, 40),
        cell(DcState::Serving, 1.0, 1_000, 20),
    ];
    let candidate = |state, effective, held_by| Candidate { state, effective, held_by, planned: false };
    let steer = SteerHealth {
        candidates: vec![
            candidate(DcState::Serving, 40_000, None),
            candidate(DcState::Serving, 28_000, None),
            candidate(DcState::Failed, 0, Some(ServiceId::new(0))),
        ],
        all_down: false,
        ttl: 5,
    };
    Snapshot {
        generation: 12,
        at: NOW,
        topology: Arc::new(topology),
        targets: Arc::new(targets),
        backends: Arc::new(backends),
        weights: Arc::new(weights),
        steers: Arc::new(vec![steer]),
        spill: Arc::default(),
        intents: Arc::new(Intents::default()),
        steered_from: Arc::default(),
        isolated_since: None,
        views: Arc::new(Views::default()),
    }
}

/// A running admin API in the small world.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) published: Arc<Published>,
    pub(crate) shutdown: CancellationToken,
    _control: Task,
}

/// What a test may want otherwise.
#[derive(Default)]
pub(crate) struct Wanted {
    /// The token of the API.
    pub(crate) token: Option<String>,
    /// Other nodes.
    pub(crate) fleet: Vec<SocketAddr>,
    /// What tells of a configuration.
    pub(crate) foresee: Option<Foresee>,
}

/// What an admin API of the small world stands on.
pub(crate) fn context(wanted: Wanted, published: Arc<Published>, events: mpsc::Sender<Event>) -> Context {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW, WALL));
    Context {
        discovery: Arc::new(Discovery::new(Arc::clone(&published), Arc::clone(&clock), None, None)),
        published,
        events,
        clock,
        explain_dns: Box::new(
            |snapshot, name, rtype, client| json!({"generation": snapshot.generation, "name": name, "type": rtype, "client": client}),
        ),
        dns_top: Some(Box::new(|rows, only| {
            (only != Some("pigeon")).then(|| json!({ "rows": rows, "transport": only }))
        })),
        dns_keys: Box::new(|_, now| json!({ "at": now.0 })),
        explain_http: Box::new(|_, asked| {
            json!({"method": asked.method, "host": asked.host, "path": asked.path, "user": asked.user,
                   "client": asked.client, "headers": asked.headers, "tls": asked.tls})
        }),
        reload: Arc::new(|| Box::pin(async { Err("springtide.toml:3:1: unknown key `wieght`".to_owned()) })),
        refused: Box::new(|| None),
        upgrade: Arc::new(|| Box::pin(async { Err("the new process cannot serve: no".to_owned()) })),
        upgraded: Box::new(|| (vec![41, 42], None)),
        foresee: wanted.foresee.unwrap_or_else(|| {
            Arc::new(|snapshot, question, _, _| Ok(json!({ "generation": snapshot.generation, "question": question })))
        }),
        edges: Box::new(|| {
            let edge = |name: &str, at: &str| Edge {
                name: name.into(),
                serving: true,
                generation: Some(12),
                addresses: vec![at.into()],
            };
            vec![edge("dns", "127.0.0.1:5300"), edge("proxy", "127.0.0.1:8080")]
        }),
        token: wanted.token,
        fleet: wanted.fleet,
    }
}

/// Starts it on a free port of 127.0.0.1.
pub(crate) fn open(wanted: Wanted) -> World {
    let published = Arc::new(Published::new(snapshot()));
    let (events, mut arriving) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let context = context(wanted, Arc::clone(&published), events);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = start(listener, context, shutdown.clone()).unwrap();
    let at = Arc::clone(&published);
    let control = task::spawn("control", async move {
        while let Some(event) = arriving.recv().await {
            match event {
                Event::Flush(tell) => tell.send(at.load().generation).unwrap(),
                event => {
                    let next = step(&at.load(), event, NOW, WALL);
                    at.publish(next);
                }
            }
        }
    });
    World { server, published, shutdown, _control: control }
}
