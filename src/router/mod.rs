//! Floor 7: the embedding API. Loads what a configuration names, wires control and edges, runs until told to stop.
//!
//! ```no_run
//! # async fn demo() -> Result<(), springtide::router::RouterError> {
//! let router = springtide::router::Router::builder().file("configs/edge.toml").start().await?;
//! println!("serving on {:?}", router.addresses());
//! router.stop().await;
//! # Ok(())
//! # }
//! ```

mod export;
mod load;
pub mod movement;
pub mod rehearsal;
mod reload;
pub mod upgrade;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use export::HeadersError;
pub use load::{LoadError, load, prepare};
pub use movement::{Outlook, Question};
pub use rehearsal::{Outage, RehearsalError, rehearse};
pub use reload::{ReloadError, Reloaded};
use upgrade::{Program, Upgrader};

use crate::base::clock::{Clock, Mono, SystemClock};
use crate::base::task::{self, Task};
use crate::config::Config;
use crate::control::discover::{self, Discovery};
use crate::control::event::Event;
use crate::control::memory::Memory;
use crate::control::past::{self, Past};
use crate::net::listen::ListenError;
use crate::net::sockets::Sockets;
use crate::net::stage::Stage;
use crate::snapshot::views::Slot;
use crate::snapshot::{Published, Snapshot, Topology};
use crate::{admin, control, dns, proxy};

/// Why a router did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// The configuration, or a file that it names, is wrong. Displays every finding.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The health core did not start.
    #[error(transparent)]
    Control(#[from] control::StartError),
    /// The name server did not start.
    #[error(transparent)]
    Dns(#[from] dns::StartError),
    /// The edge did not start.
    #[error(transparent)]
    Proxy(#[from] proxy::StartError),
    /// The admin API did not start.
    #[error(transparent)]
    Admin(#[from] ListenError),
    /// The admin API's token cannot be read.
    #[error("{}: the admin token cannot be read: {source}; create the file, readable by this user alone", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What a running router listens on, with port 0 resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The admin API.
    pub admin: Option<SocketAddr>,
    /// The name server, UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// The name server over TLS.
    pub dns_tls: Vec<SocketAddr>,
    /// The name server over HTTPS.
    pub dns_https: Vec<SocketAddr>,
    /// The name server over QUIC.
    pub dns_quic: Vec<SocketAddr>,
    /// The edge, by listener.
    pub http: BTreeMap<String, Vec<SocketAddr>>,
}

/// How long a start waits for backends that are to be found and of whom nothing is known yet (ours: a resolver's timeout).
const FIND_WITHIN: Duration = Duration::from_secs(3);

/// Gathers what a router is made of.
#[derive(Default)]
pub struct Builder {
    config: Option<Config>,
    file: Option<PathBuf>,
    clock: Option<Arc<dyn Clock>>,
    stages: proxy::Stages,
    sockets: Option<Arc<Sockets>>,
    told: Option<Memory>,
    program: Option<Program>,
}

impl Builder {
    /// Reads the configuration from `path`, now and at every reload.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Takes this configuration; a reload is then only what [`Router::replace`] is given.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Lets every request pass through `stage` on its way, after its route is known; in the order of the calls.
    #[must_use]
    pub fn stage(mut self, stage: Arc<dyn Stage>) -> Self {
        self.stages.filters.push(stage);
        self
    }

    /// Serves `service` by `upstream` inside this process instead of over the network.
    #[must_use]
    pub fn upstream(mut self, service: impl Into<String>, upstream: Arc<dyn Stage>) -> Self {
        self.stages.upstreams.insert(service.into(), upstream);
        self
    }

    /// Listens on `sockets`, where they fit, instead of opening its own.
    #[must_use]
    pub fn sockets(mut self, sockets: Arc<Sockets>) -> Self {
        self.sockets = Some(sockets);
        self
    }

    /// Begins with what a predecessor holds to be true, instead of what is on disk.
    #[must_use]
    pub fn told(mut self, memory: Option<Memory>) -> Self {
        self.told = memory;
        self
    }

    /// Starts `program` when it is asked for an upgrade.
    #[must_use]
    pub fn program(mut self, program: Option<Program>) -> Self {
        self.program = program;
        self
    }

    /// Tells time by `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Starts everything that the configuration asks for. Where any part fails, those already started stop again. Behind a
    /// predecessor on the same sockets it serves, but keeps no state and answers no admin request until
    /// [`Router::take_over`].
    pub async fn start(self) -> Result<Router, RouterError> {
        let topology = match (self.config, &self.file) {
            (Some(config), _) => prepare(config, None)?,
            (None, Some(file)) => load(file, None)?,
            (None, None) => prepare(Config::default(), None)?,
        };
        let given = Given {
            file: self.file,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock)),
            stages: self.stages,
            sockets: self.sockets.unwrap_or_else(|| Arc::new(Sockets::fresh())),
            told: self.told,
            program: self.program,
        };
        let router = Router::start(topology, given)?;
        // Who is ready has backends, if they can be had; what was known before stands in for those that are slow to be found.
        router.discovery.settled(FIND_WITHIN).await;
        Ok(router)
    }
}

/// What a router is given beside its configuration.
struct Given {
    file: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    stages: proxy::Stages,
    sockets: Arc<Sockets>,
    told: Option<Memory>,
    program: Option<Program>,
}

/// A running router: control, and the edges that its configuration asked for.
pub struct Router {
    control: control::Running,
    handle: control::Handle,
    dns: Option<dns::Server>,
    proxy: Option<proxy::Server>,
    admin: Admin,
    reloader: reload::Reloader,
    upgrader: Upgrader,
    addresses: Addresses,
    edges: CancellationToken,
    services: CancellationToken,
    sockets: Arc<Sockets>,
    discovery: Arc<Discovery>,
    /// They end with the router.
    _watch: [Task; 3],
}

/// The admin API.
enum Admin {
    /// None is wanted.
    None,
    /// It will answer as soon as no predecessor does.
    Ready(std::net::TcpListener, Box<admin::Context>),
    Running(admin::Server),
}

impl Admin {
    fn run(self, shutdown: CancellationToken) -> Result<Self, ListenError> {
        let Self::Ready(listener, context) = self else { return Ok(self) };
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        let refused = |source| ListenError::Other { transport: "TCP", address, source };
        admin::start(listener, *context, shutdown).map(Self::Running).map_err(refused)
    }

    async fn stopped(self) {
        if let Self::Running(server) = self {
            server.stopped().await;
        }
    }
}

impl Router {
    /// Begins to gather what a router is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn start(topology: Topology, given: Given) -> Result<Self, RouterError> {
        let Given { file, clock, stages, sockets, told, program } = given;
        let config = Arc::clone(&topology.config);
        let token = config.admin.as_ref().map(read_token).transpose()?.flatten();
        let state_dir = config.node.state_dir.clone();
        let past = Past { state_dir: state_dir.clone(), told, succession: Some(sockets.succession()) };
        let control = control::start(topology, past, Arc::clone(&clock), Box::new(dns::publish))?;
        let handle = control.handle();
        let (edges, services) = (CancellationToken::new(), CancellationToken::new());
        // Dropping these guards, as every early return does, stops what has started.
        let (edges_guard, services_guard) = (edges.clone().drop_guard(), services.clone().drop_guard());

        let mut addresses = Addresses::default();
        let published = || Arc::clone(&handle.published);
        let dns = config.dns.as_ref().map(|_| dns::start(published(), &sockets, edges.clone())).transpose()?;
        let dns::Addresses { plain, tls, https, quic } = dns.as_ref().map(dns::Server::addresses).unwrap_or_default();
        (addresses.dns, addresses.dns_tls, addresses.dns_https, addresses.dns_quic) = (plain, tls, https, quic);
        let proxy = || proxy::start(published(), stages, &sockets, edges.clone());
        let proxy = (!config.listeners.is_empty()).then(proxy).transpose()?;
        addresses.http = proxy.as_ref().map(|p| p.addresses().into_iter().collect()).unwrap_or_default();
        let reloader = reload::Reloader::new(handle.clone(), file);
        let upgrader = Upgrader::new(program, Arc::clone(&sockets), published());
        let discovery = Discovery::new(published(), Arc::clone(&clock), state_dir, Some(sockets.succession()));
        let discovery = Arc::new(discovery);
        let mut admin = Admin::None;
        if let Some(a) = &config.admin {
            let listener = sockets.tcp(a.listen)?;
            addresses.admin = listener.local_addr().ok();
            let parts = Parts {
                dns: dns.as_ref(),
                reloader: &reloader,
                upgrader: &upgrader,
                discovery: &discovery,
                addresses: &addresses,
            };
            admin = Admin::Ready(listener, Box::new(context(&handle, clock, &parts, token, a.fleet.clone())));
        }
        if sockets.succession().is_alone() {
            admin = admin.run(services.clone())?;
        }
        let watch = follow(&reloader, &discovery);
        sockets.settle();
        edges_guard.disarm();
        services_guard.disarm();
        Ok(Self {
            control,
            handle,
            dns,
            proxy,
            admin,
            reloader,
            upgrader,
            addresses,
            edges,
            services,
            sockets,
            discovery,
            _watch: watch,
        })
    }

    /// Goes on alone, now that the predecessor has let go: from what it knew last, if it said so.
    ///
    /// # Errors
    /// The admin API cannot begin.
    pub async fn take_over(&mut self, last: Option<Memory>) -> Result<(), RouterError> {
        if let Some(last) = last {
            for event in past::catch_up(&self.snapshot().intents, &last.intents) {
                // Without a health core there is nobody to tell.
                let _ = self.handle.apply(event).await;
            }
        }
        self.discovery.recall();
        self.sockets.succession().succeed();
        self.admin = std::mem::replace(&mut self.admin, Admin::None).run(self.services.clone())?;
        Ok(())
    }

    /// Has a new process take this one's place; gives its process id once it serves. Then [`Router::made_way`].
    ///
    /// # Errors
    /// Why not. Nothing has changed then.
    pub async fn upgrade(&self) -> Result<u32, upgrade::UpgradeError> {
        self.upgrader.upgrade().await
    }

    /// What upgrades.
    pub fn upgrader(&self) -> Upgrader {
        self.upgrader.clone()
    }

    /// Hands everything over to the new process, then finishes what runs: for `node.upgrade_drain_limit` at the most. False:
    /// the new process has ended meanwhile, and nobody serves on.
    pub async fn hand_over(mut self) -> bool {
        self.services.cancel();
        self.admin.stopped().await;
        self.control.stop();
        let memory = Memory::of(&self.handle.published.full(), SystemClock.mono(), SystemClock.wall());
        let is_taken = self.upgrader.bequeath(memory).await;
        self.sockets.bequeath();
        drain(self.edges, self.proxy, self.dns).await;
        is_taken
    }

    /// What tells whether the router lives.
    pub fn life(&self) -> Life {
        let heard = self.proxy.as_ref().map(|proxy| Box::new(proxy.heard()) as _);
        Life { events: self.handle.events.clone(), heard }
    }

    /// What it listens on.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The snapshot that both edges act on now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.handle.published.full()
    }

    /// Reads the configuration again and puts it in force, whole or not at all: where anything is wrong, the old one stays.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.reloader.reload().await
    }

    /// Puts `config` in force instead of the one before, whole or not at all.
    pub async fn replace(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.reloader.replace(config).await
    }

    /// Stops taking new work, finishes what runs (within the edges' drain limits), then stops the rest.
    pub async fn stop(mut self) {
        self.sockets.release();
        drain(self.edges, self.proxy, self.dns).await;
        self.services.cancel();
        self.admin.stopped().await;
        self.control.stop();
    }
}

async fn drain(edges: CancellationToken, proxy: Option<proxy::Server>, dns: Option<dns::Server>) {
    edges.cancel();
    if let Some(proxy) = proxy {
        proxy.stopped().await;
    }
    if let Some(dns) = dns {
        dns.stopped().await;
    }
}

/// Tells whether a router lives: its health core takes events, and every worker of its edge turns.
pub struct Life {
    events: mpsc::Sender<Event>,
    heard: Option<Box<dyn Fn() -> Mono + Send + Sync>>,
}

impl Life {
    /// Whether all have given a sign of life within `limit`.
    pub async fn is_fine(&self, limit: Duration) -> bool {
        let (tell, told) = oneshot::channel();
        let core = async {
            self.events.send(Event::Flush(tell)).await.ok()?;
            told.await.ok()
        };
        let is_core = tokio::time::timeout(limit, core).await.is_ok_and(|told| told.is_some());
        is_core && self.heard.as_ref().is_none_or(|heard| SystemClock.mono().since(heard()) <= limit)
    }
}

/// What looks on for as long as the router runs: at the files of `[geo]` and of users' homes, and for backends.
fn follow(reloader: &reload::Reloader, discovery: &Arc<Discovery>) -> [Task; 3] {
    [
        task::spawn("geo-watch", watch::watch(reloader.clone())),
        task::spawn("homes-watch", watch::follow_homes(reloader.clone())),
        task::spawn("discovery", discover::run(Arc::clone(discovery), reloader.publisher())),
    ]
}

/// What the admin API speaks of.
struct Parts<'p> {
    dns: Option<&'p dns::Server>,
    reloader: &'p reload::Reloader,
    upgrader: &'p Upgrader,
    discovery: &'p Arc<Discovery>,
    addresses: &'p Addresses,
}

fn context(
    handle: &control::Handle,
    clock: Arc<dyn Clock>,
    parts: &Parts<'_>,
    token: Option<String>,
    fleet: Vec<SocketAddr>,
) -> admin::Context {
    let published = || Arc::clone(&handle.published);
    admin::Context {
        published: published(),
        events: handle.events.clone(),
        clock,
        explain_dns: Box::new(dns::explain),
        dns_top: parts.dns.map(|d| Box::new(d.top()) as admin::DnsTop),
        dns_keys: Box::new(dns::sign::report),
        explain_http: Box::new(explain_http),
        reload: parts.reloader.hook(),
        refused: parts.reloader.refusal(),
        upgrade: parts.upgrader.hook(),
        upgraded: parts.upgrader.report(),
        foresee: foresee(),
        discovery: Arc::clone(parts.discovery),
        edges: report(published(), parts.addresses),
        token,
        fleet,
    }
}

/// Tells of the edges that run: where they listen, and the generation that they acted on last.
fn report(published: Arc<Published>, addresses: &Addresses) -> admin::Edges {
    let ways = [
        ("dns", &addresses.dns),
        ("dns+tls", &addresses.dns_tls),
        ("dns+https", &addresses.dns_https),
        ("dns+quic", &addresses.dns_quic),
    ];
    let dns = ways.iter().flat_map(|(way, all)| all.iter().map(move |a| format!("{way}://{a}"))).collect::<Vec<_>>();
    let listeners = addresses.http.iter();
    let http = listeners.flat_map(|(name, all)| all.iter().map(move |a| format!("{name}://{a}"))).collect::<Vec<_>>();
    let edges = [("dns", Slot::Dns, dns), ("proxy", Slot::Proxy, http)];
    let running: Vec<_> = edges.into_iter().filter(|(_, _, addresses)| !addresses.is_empty()).collect();
    Box::new(move || {
        let edge = |(name, slot, addresses): &(&str, Slot, Vec<String>)| admin::Edge {
            name: (*name).to_owned(),
            serving: true,
            generation: published.used(*slot),
            addresses: addresses.clone(),
        };
        running.iter().map(edge).collect()
    })
}

/// The admin API's way to ask what a configuration would do.
fn foresee() -> admin::Foresee {
    Arc::new(|snapshot, question, now, wall| {
        let question = serde_json::from_value(question).map_err(|e| e.to_string())?;
        let outlook = movement::foresee(snapshot, &question, now, wall)?;
        serde_json::to_value(outlook).map_err(|e| e.to_string())
    })
}

fn explain_http(snapshot: &Snapshot, question: admin::HttpQuestion) -> serde_json::Value {
    let admin::HttpQuestion { method, host, path, headers, client, user, tls } = question;
    proxy::explain(snapshot, &proxy::Question { method, host, path, headers, client, user, tls })
}

fn read_token(admin: &crate::config::Admin) -> Result<Option<String>, RouterError> {
    let Some(path) = &admin.token_file else { return Ok(None) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(source) => Err(RouterError::Token { path: path.clone(), source }),
    }
}
