//! The edge over real sockets: little origins, a real server, clients that send what they like.

mod balancing;
mod body;
mod connect;
mod drain;
mod failure;
mod files;
mod h2;
mod head;
mod hostile;
#[cfg(feature = "h3")]
mod http3;
mod introduced;
mod logging;
mod plugged;
mod protocol;
mod routing;
mod secure;
#[cfg(feature = "otlp")]
mod tracing;
mod tunnel;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Server, Stages, start};
use crate::base::clock::{Mono, Wall};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::base::task::{self, Task};
use crate::config::{
    Action, BackendSpec, Balance, Config, Datacenter, Listener, Node, PathMatch, Route, RouteMatch, Service,
};
use crate::control::event::Event;
use crate::control::step;
use crate::net::sockets::Sockets;
use crate::net::stage::{self, Body};
use crate::snapshot::intent::{Intent, Subject, Wish};
use crate::snapshot::topology::{Assets, Topology};
use crate::snapshot::{Load, Published};

/// Longer than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds`.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "still not: {what}");
}

/// A backend that answers with what a function makes of each request.
struct Origin {
    address: SocketAddr,
    /// Connections that it has accepted.
    accepted: Arc<AtomicUsize>,
    /// Requests that it has seen.
    seen: Arc<Mutex<Vec<Request<()>>>>,
    task: Task,
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

impl Origin {
    async fn new<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let (listener, address) = listen().await;
        let (accepted, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, log) = (Arc::clone(&accepted), Arc::clone(&seen));
        let task = task::spawn("origin", async move {
            // Connections die with their origin.
            let mut connections = Vec::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                let (answer, log) = (answer.clone(), Arc::clone(&log));
                connections.push(task::spawn("origin's connection", async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let mut copy = Request::new(());
                        *copy.method_mut() = request.method().clone();
                        *copy.uri_mut() = request.uri().clone();
                        *copy.headers_mut() = request.headers().clone();
                        *copy.version_mut() = request.version();
                        log.lock().unwrap().push(copy);
                        let answering = answer(request);
                        async move { Ok::<_, Infallible>(answering.await) }
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(tcp), service).await;
                }));
            }
        });
        Self { address, accepted, seen, task }
    }

    /// One that says its name.
    async fn named(name: &'static str) -> Self {
        Self::new(move |_| async move { Response::new(stage::full(name)) }).await
    }

    /// One that does `with` each of its connections.
    async fn raw<F, R>(with: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (listener, address) = listen().await;
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = task::spawn("raw origin", async move {
            let mut connections = Vec::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                connections.push(task::spawn("raw origin's connection", with(tcp)));
            }
        });
        Self { address, accepted, seen: Arc::default(), task }
    }

    /// One that takes requests and never says anything.
    async fn silent() -> Self {
        Self::raw(|mut tcp| async move {
            let mut bytes = [0; 4_096];
            while tcp.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
        })
        .await
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn request(&self, at: usize) -> Request<()> {
        self.seen.lock().unwrap()[at].clone()
    }
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    listen().await.1
}

/// Reads the head of a request off `tcp`.
async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A configuration with one service on `backends`, all in one datacenter, behind one route for everything.
fn config(backends: &[SocketAddr]) -> Config {
    Config {
        node: Node { name: "test".into(), datacenter: Some(DatacenterId::new(0)), workers: 1, ..Node::default() },
        datacenters: vec![datacenter("here"), datacenter("there")],
        services: vec![service("main", backends)],
        listeners: vec![Listener {
            name: "public".into(),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            ..Listener::default()
        }],
        routes: vec![route("all", "/", Action::Forward(ServiceId::new(0)))],
        ..Config::default()
    }
}

fn datacenter(name: &str) -> Datacenter {
    Datacenter { name: name.into(), weight: 1, addresses: Vec::new(), near: Vec::new(), capacity_rps: None }
}

fn service(name: &str, backends: &[SocketAddr]) -> Service {
    Service {
        name: name.into(),
        class: crate::config::Class::Critical,
        balance: Balance::WeightedRoundRobin,
        probe: None,
        passive: crate::config::Passive::default(),
        deadline: Duration::from_secs(15),
        retry: crate::config::Retry::default(),
        slow_start: Duration::ZERO,
        panic_below: 0.0,
        homing: crate::config::Homing::default(),
        limits: crate::config::Limits::default(),
        session: None,
        protocol: crate::config::Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends: backends
            .iter()
            .map(|&address| BackendSpec { datacenter: DatacenterId::new(0), address, weight: 1 })
            .collect(),
    }
}

fn route(name: &str, prefix: &str, action: Action) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch { path: PathMatch::Prefix(prefix.into()), ..RouteMatch::default() },
        action,
        user: crate::config::UserKey::Header("x-user-id".into()),
        ..Route::default()
    }
}

/// A running edge.
struct Edge {
    address: SocketAddr,
    published: Arc<Published>,
    shutdown: CancellationToken,
    server: Server,
}

impl Edge {
    fn new(config: Config) -> Self {
        Self::with(config, Assets::default(), Stages::default())
    }

    fn with(config: Config, assets: Assets, stages: Stages) -> Self {
        let topology = Topology::build(Arc::new(config), assets, None);
        let first = step::first(topology, None, Mono::from_millis(1_000), Wall(0));
        let published = Arc::new(Published::new(first));
        let shutdown = CancellationToken::new();
        let server = start(Arc::clone(&published), stages, &Sockets::fresh(), shutdown.clone()).unwrap();
        let address = server.addresses()[0].1[0];
        Self { address, published, shutdown, server }
    }

    /// The control loop's part, by hand.
    fn step(&self, event: Event) {
        let next = step::step(&self.published.full(), event, Mono::from_millis(2_000), Wall(0));
        self.published.publish(next);
    }

    /// An operator takes `address` down.
    fn take_down(&self, address: SocketAddr) {
        self.step(Event::Wish(Intent {
            subject: Subject::Backend { address: address.to_string(), service: None },
            wish: Wish::Down,
            since: Wall(0),
            until: None,
            by: "test".into(),
            reason: String::new(),
        }));
    }

    fn load(&self, backend: usize) -> Arc<Load> {
        Arc::clone(&self.published.load().topology.backends[backend].load)
    }

    /// A connection that sends whatever it is given.
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// An HTTP/1.1 connection.
    async fn http1(&self) -> Caller {
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        let task = task::spawn("client", async { drop(connection.with_upgrades().await) });
        Caller { sender, _task: task }
    }

    /// One request on a connection of its own.
    async fn get(&self, path: &str) -> Answer {
        self.http1().await.call(get(path)).await
    }
}

/// The client's end of an HTTP/1.1 connection.
struct Caller {
    sender: hyper::client::conn::http1::SendRequest<Body>,
    _task: Task,
}

impl Caller {
    async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.sender.ready().await.unwrap();
        tokio::time::timeout(PATIENCE, self.sender.send_request(request)).await.unwrap().unwrap()
    }

    async fn call(&mut self, request: Request<Body>) -> Answer {
        Answer::of(self.send(request).await).await
    }
}

/// A whole response.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of a refusal, with everything that a refusal must have.
    #[track_caller]
    fn refusal(&self) -> (u16, String) {
        let json = self.json();
        for field in ["code", "message", "msg_key", "retryable", "retry_after_ms", "request_id"] {
            assert!(!json[field].is_null(), "{field} is missing: {json}");
        }
        assert_eq!(json["retryable"].as_bool().unwrap(), self.headers.contains_key("retry-after"), "{json}");
        (self.status.as_u16(), json["code"].as_str().unwrap().to_owned())
    }
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Bytes::new())
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    request(Method::POST, path, body)
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    Request::builder().method(method).uri(path).header("host", "example.test").body(body).unwrap()
}
