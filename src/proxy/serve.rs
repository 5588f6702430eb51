//! Workers: threads that listen, accept, and speak HTTP with clients until told to stop.
//!
//! Each worker has a current-thread runtime, a listening socket of its own for every address (SO_REUSEPORT; the kernel
//! spreads clients), and its own pools. Nothing that a request does leaves its thread. On shutdown listeners close after
//! their queues are taken over, connections finish what runs, and whatever is left after `node.drain_limit` is cut.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::{self, Places, Spoken};
pub(super) use super::arrival::Client;
use super::arrival::{Arrival, Seat};
use super::download::Out;
use super::drain::{Order, ROUND};
use super::h2::pace::Paced;
use super::h2::{Tapped, connect};
#[cfg(feature = "h3")]
use super::h3;
use super::line::Line;
use super::log::Sheet;
use super::spans::Spans;
use super::upload::Inbound;
use super::worker::{Doorway, Worker};
use super::{Stages, h1, stages};
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::base::task::{self, Task};
use crate::config::{Config, Listener};
use crate::net::http::{self as serving, Limits, Parting};
use crate::net::listen::ListenError;
use crate::net::sockets::{Sockets, Succession};
use crate::snapshot::Published;

/// How long the end waits for the access log.
const LOG_WITHIN: Duration = Duration::from_secs(1);
/// How long a client that asks nothing is waited for where a successor serves: a pool's connection is used or given up by
/// then, most of the time (ours).
const LAST_WITHIN: Duration = Duration::from_secs(10);
/// Largest head of a request, and of its trailers (EDGE 4, gap 11). At most 100 fields, hyper's own limit.
const HEAD_BYTES: usize = crate::wire::h1::HEAD_BYTES;
/// What an HTTP/2 connection may take; its streams are the listener's to say.
const LIMITS: Limits =
    Limits { head: HEAD_BYTES as u32, streams: 1, window: (256 * 1024, 1024 * 1024), send_buffer: 256 * 1024 };
/// How often an HTTP/2 client is asked whether it lives, and how long it may think about it.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The edge could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listener's address cannot be had.
    #[error("listener {listener}: {source}")]
    Listen {
        /// The listener.
        listener: String,
        /// Why.
        source: ListenError,
    },
    /// A worker's thread or runtime cannot be had.
    #[error("a worker cannot be started: {source}")]
    Worker {
        /// What the system said.
        source: io::Error,
    },
}

/// The running edge. It stops when the token that it was started with is cancelled.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<(String, Vec<SocketAddr>)>,
    workers: Vec<oneshot::Receiver<()>>,
    generations: Vec<Arc<AtomicU64>>,
    beats: Vec<Arc<AtomicU64>>,
    /// The access log is written.
    logged: oneshot::Receiver<()>,
    /// What there was to export is exported, or given up.
    #[cfg(feature = "otlp")]
    exported: oneshot::Receiver<()>,
    #[cfg(feature = "otlp")]
    published: Arc<Published>,
}

impl Server {
    /// Where it listens, by listener in the order of the configuration; ports that were asked for as 0 are the real ones.
    pub fn addresses(&self) -> Vec<(String, Vec<SocketAddr>)> {
        self.addresses.clone()
    }

    /// Tells the generation that the edge acts on: the oldest of its workers', who follow each new one at once. `None`
    /// before any of them runs.
    pub fn generation(&self) -> impl Fn() -> Option<u64> + Send + Sync + 'static {
        let generations = self.generations.clone();
        move || generations.iter().map(|g| g.load(Relaxed)).min().filter(|&g| g > 0)
    }

    /// Tells when the one of the workers that has been quiet for longest was last heard of: each is once a second.
    pub fn heard(&self) -> impl Fn() -> Mono + Send + Sync + 'static {
        let beats = self.beats.clone();
        move || Mono::from_nanos(beats.iter().map(|b| b.load(Relaxed)).min().unwrap_or(u64::MAX))
    }

    /// Waits until all workers have drained: at most `node.drain_limit` after the shutdown was asked for, or
    /// `node.upgrade_drain_limit` where a successor serves.
    pub async fn stopped(self) {
        #[cfg(feature = "otlp")]
        let until = SystemClock.mono() + self.published.load().topology.config.node.leaving.drain;
        for worker in self.workers {
            // A worker that is gone without a word is gone all the same.
            let _ = worker.await;
        }
        // A reader that is stuck must not keep the process.
        let _ = tokio::time::timeout(LOG_WITHIN, self.logged).await;
        // What is left of the time to drain; a collector that is dead must not keep the process either.
        #[cfg(feature = "otlp")]
        let _ = tokio::time::timeout(until.since(SystemClock.mono()).max(LOG_WITHIN), self.exported).await;
    }
}

/// Starts the thread that writes the access log, until the other end of `working` is held by nobody.
fn log(
    sheets: Vec<Arc<Sheet>>,
    published: Arc<Published>,
    working: Receiver<Infallible>,
) -> Result<oneshot::Receiver<()>, StartError> {
    let (done, logged) = oneshot::channel();
    let body = move || {
        super::log::serve(&sheets, &published, &working);
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name("access-log".into()).spawn(body);
    thread.map(|_| logged).map_err(|source| StartError::Worker { source })
}

/// A listening socket of one worker, and the name of the listener that it is of.
struct Door {
    listener: std::net::TcpListener,
    name: Arc<str>,
    /// Where the same is served over QUIC.
    way: Option<u16>,
}

/// The listening sockets of one worker.
#[derive(Default)]
struct Doors {
    tcp: Vec<Door>,
    #[cfg(feature = "h3")]
    quic: Vec<h3::Door>,
}

/// Starts the edge of the published configuration: its listeners and `node.workers` threads. Listeners are read once;
/// everything else follows the published snapshot.
///
/// # Errors
/// An address that is taken (by anybody: it is tried without sharing first), or a thread that the system refuses.
#[expect(clippy::needless_pass_by_value, reason = "the edge keeps what it is started with")]
pub fn start(
    published: Arc<Published>,
    stages: Stages,
    sockets: &Sockets,
    shutdown: CancellationToken,
) -> Result<Server, StartError> {
    #[cfg(feature = "otlp")]
    let kept = Arc::clone(&published);
    let config = Arc::clone(&published.load().topology.config);
    let workers = config.node.workers.max(1);
    let (addresses, doors, ways) = open(&config, sockets, workers)?;
    let (stages, places, ways) = (Arc::new(stages), Places::default(), Arc::<[Doorway]>::from(ways));
    let (mut running, mut generations, mut beats) = (Vec::new(), Vec::new(), Vec::new());
    let began = SystemClock.mono().nanos();
    let (work_goes_on, working) = sync_channel(0);
    let sheets: Vec<Arc<Sheet>> = (0..workers).map(|_| Arc::default()).collect();
    let logged = log(sheets.clone(), Arc::clone(&published), working)?;
    let spans: Vec<Arc<Spans>> = (0..workers).map(|_| Arc::default()).collect();
    #[cfg(feature = "otlp")]
    let (exported, traces_go_on) = {
        let (go_on, working) = tokio::sync::mpsc::channel::<Infallible>(1);
        let exported = super::export::start(spans.clone(), Arc::clone(&published), working);
        (exported.map_err(|source| StartError::Worker { source })?, go_on)
    };
    for (index, ((doors, sheet), spans)) in doors.into_iter().zip(sheets).zip(spans).enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| StartError::Worker { source })?;
        let (done, ended) = oneshot::channel();
        let (published, stages, shutdown) = (Arc::clone(&published), Arc::clone(&stages), shutdown.clone());
        let (places, generation) = (places.clone(), Arc::<AtomicU64>::default());
        let (beat, succession, ways) = (Arc::new(AtomicU64::new(began)), sockets.succession(), Arc::clone(&ways));
        generations.push(Arc::clone(&generation));
        beats.push(Arc::clone(&beat));
        let at_work = work_goes_on.clone();
        #[cfg(feature = "otlp")]
        let at_work = (at_work, traces_go_on.clone());
        let body = move || {
            let _at_work = at_work;
            runtime.block_on(async move {
                let worker = Worker::new(published, stages, workers, generation, (sheet, spans), ways);
                work(worker, doors, places, Signs { shutdown, succession, beat }).await;
            });
            let _ = done.send(());
        };
        let thread = std::thread::Builder::new().name(format!("edge-{index}")).spawn(body);
        thread.map_err(|source| StartError::Worker { source })?;
        running.push(ended);
    }
    Ok(Server {
        addresses,
        workers: running,
        generations,
        beats,
        logged,
        #[cfg(feature = "otlp")]
        exported,
        #[cfg(feature = "otlp")]
        published: kept,
    })
}

/// Where each listener listens.
type Bound = Vec<(String, Vec<SocketAddr>)>;

/// Opens what is listened on, for each worker its own. Says where QUIC is among it.
fn open(config: &Config, sockets: &Sockets, workers: usize) -> Result<(Bound, Vec<Doors>, Vec<Doorway>), StartError> {
    let mut doors: Vec<Doors> = (0..workers).map(|_| Doors::default()).collect();
    let (mut addresses, mut ways) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let name = Arc::<str>::from(listener.name.as_str());
        let mut bound = Vec::new();
        for &address in &listener.listen {
            let refused = |source| StartError::Listen { listener: listener.name.clone(), source };
            let (address, listening, way) =
                open_at(listener, &name, address, sockets, &mut doors, &mut ways).map_err(refused)?;
            bound.push(address);
            // More than there are workers, where a predecessor had more.
            for (turn, listener) in listening.into_iter().enumerate() {
                doors[turn % workers].tcp.push(Door { listener, name: Arc::clone(&name), way });
            }
        }
        addresses.push((listener.name.clone(), bound));
    }
    Ok((addresses, doors, ways))
}

/// Opens `address` of `listener` for TCP; where it serves HTTP/3, for QUIC too, and deals that to the workers.
#[cfg_attr(not(feature = "h3"), expect(unused_variables, reason = "only QUIC needs them"))]
fn open_at(
    listener: &Listener,
    name: &Arc<str>,
    address: SocketAddr,
    sockets: &Sockets,
    doors: &mut [Doors],
    ways: &mut Vec<Doorway>,
) -> Result<(SocketAddr, Vec<std::net::TcpListener>, Option<u16>), ListenError> {
    let workers = doors.len();
    #[cfg(feature = "h3")]
    if let Some(http3) = listener.http3.as_ref().filter(|_| listener.tls.is_some()) {
        let (bound, tcp, udp) = sockets.twins_each(address, workers)?;
        let way = u16::try_from(ways.len()).ok();
        ways.push(Doorway { listener: Arc::clone(name), port: bound.port() });
        for (turn, (socket, seat)) in crate::net::quic::seat(udp).into_iter().enumerate() {
            let door = h3::Door { socket, seat, streams: http3.streams, name: Arc::clone(name) };
            doors[turn % workers].quic.push(door);
        }
        return Ok((bound, tcp, way));
    }
    sockets.tcp_each(address, workers).map(|(bound, tcp)| (bound, tcp, None))
}

/// What a worker is told, and tells.
struct Signs {
    shutdown: CancellationToken,
    succession: Succession,
    /// When it was last heard of.
    beat: Arc<AtomicU64>,
}

/// One worker, from its first connection to its last.
async fn work(worker: Arc<Worker>, doors: Doors, places: Places, signs: Signs) {
    let Signs { shutdown, succession, beat } = signs;
    let tracker = TaskTracker::new();
    let hosts: Vec<Task> = doors
        .tcp
        .into_iter()
        .filter_map(|door| {
            // A non-blocking socket in a runtime with IO enabled: there is nothing left to fail.
            let listener = TcpListener::from_std(door.listener).ok()?;
            let host = Host {
                worker: Arc::clone(&worker),
                places: places.clone(),
                tracker: tracker.clone(),
                speaker: Arc::new(Speaker::default()),
                name: door.name,
                way: door.way,
            };
            Some(task::spawn("accept", host.accept(listener, shutdown.clone(), succession.clone())))
        })
        .collect();
    #[cfg(feature = "h3")]
    let hosts = hosts.into_iter().chain(door_hosts(&worker, doors.quic, &places, &tracker, &succession, &shutdown));
    let mut rounds = tokio::time::interval(ROUND);
    let mut generations = worker.published.subscribe();
    let housekeeping = async {
        loop {
            tokio::select! {
                _ = rounds.tick() => {
                    let now = worker.now();
                    beat.store(now.nanos(), Relaxed);
                    worker.sweep(now, places.crowds());
                }
                // Also without requests: connections to what has just gone down are given up now.
                Ok(()) = generations.changed() => drop(worker.sight()),
            }
        }
    };
    tokio::pin!(housekeeping);
    tokio::select! {
        () = &mut housekeeping => {}
        () = shutdown.cancelled() => {}
    }
    for host in hosts {
        host.ended().await;
    }
    tracker.close();
    let leaving = worker.sight().snapshot.topology.config.node.leaving;
    let limit = if succession.has_heir() { leaving.upgrade_drain } else { leaving.drain };
    let ended = drain(&worker, &tracker, &succession);
    let drained = async {
        tokio::select! {
            () = &mut housekeeping => {}
            () = ended => {}
        }
    };
    if tokio::time::timeout(limit, drained).await.is_err() {
        tracing::warn!(?limit, open = tracker.len(), "connections are cut: they did not finish in time");
        worker.tell(Order::Close);
    }
}

/// Has all connections end once nothing runs on them.
async fn drain(worker: &Worker, tracker: &TaskTracker, succession: &Succession) {
    if succession.has_heir() {
        worker.tell(Order::Last);
        tokio::select! {
            () = tokio::time::sleep(LAST_WITHIN) => {}
            () = tracker.wait() => {}
        }
    }
    worker.tell(Order::Drain);
    tracker.wait().await;
}

/// Who serves over QUIC.
#[cfg(feature = "h3")]
fn door_hosts(
    worker: &Arc<Worker>,
    doors: Vec<h3::Door>,
    places: &Places,
    tracker: &TaskTracker,
    succession: &Succession,
    shutdown: &CancellationToken,
) -> Vec<Task> {
    let host = |door| {
        let host = h3::Host {
            worker: Arc::clone(worker),
            places: places.clone(),
            tracker: tracker.clone(),
            succession: succession.clone(),
        };
        task::spawn("accept-quic", host.serve(door, shutdown.clone()))
    };
    doors.into_iter().map(host).collect()
}

/// What all connections of one listener have in common on one worker.
struct Host {
    worker: Arc<Worker>,
    places: Places,
    tracker: TaskTracker,
    speaker: Arc<Speaker>,
    /// The listener's.
    name: Arc<str>,
    way: Option<u16>,
}

impl Host {
    async fn accept(self, listener: TcpListener, shutdown: CancellationToken, succession: Succession) {
        let accepting = async {
            let mut complaints = 0u64;
            loop {
                let Some(place) = self.places.take().await else { return };
                match listener.accept().await {
                    Ok((tcp, from)) => self.receive(tcp, from, place),
                    Err(error) => {
                        let pause = admit::pause_after(&error);
                        if !pause.is_zero() {
                            // The first and every hundredth: a shortage must not fill the log as well.
                            if complaints.is_multiple_of(100) {
                                tracing::error!(%error, "connections cannot be accepted");
                            }
                            complaints += 1;
                            tokio::time::sleep(pause).await;
                        }
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accepting).await;
        // The queue is the successor's.
        if succession.has_heir() {
            return;
        }
        // Who stands in the kernel's queue by now would be reset when the listener closes.
        let next = || std::future::poll_fn(|cx| Poll::Ready(listener.poll_accept(cx)));
        while let Poll::Ready(Ok((tcp, from))) = next().await {
            let Some(place) = self.places.take().await else { return };
            self.receive(tcp, from, place);
        }
    }

    fn receive(&self, tcp: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let _ = tcp.set_nodelay(true);
        let seat = Seat::take(self.worker.meters.connections.clone(), place, self.tracker.token());
        let (worker, listener) = (Arc::clone(&self.worker), Arc::clone(&self.name));
        let arrival = Arrival { worker, listener, way: self.way, tcp, from, seat };
        let speaker = Arc::clone(&self.speaker);
        task::spawn("client", async move {
            // What is needed once is boxed, so that a connection keeps no room for it.
            match Box::pin(arrival.open()).await {
                Some((client, line, Spoken::Http1)) => h1::client::serve(&client, line).await,
                Some((client, line, Spoken::Http2)) => Box::pin(speaker.http2(&client, line)).await,
                None => {}
            }
        })
        .detach();
    }
}

/// Speaks HTTP/2 with clients, within limits.
struct Speaker {
    http2: http2::Builder<TokioExecutor>,
}

impl Default for Speaker {
    fn default() -> Self {
        let mut http2 = serving::http2(LIMITS);
        http2.keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
        Self { http2 }
    }
}

impl Speaker {
    async fn http2(&self, client: &Arc<Client>, line: Line) {
        let service = Pipeline(Arc::clone(client));
        let limits = {
            let sight = client.worker.sight();
            let listener = sight.snapshot.topology.config.listeners.get(client.listener.index());
            listener.map(|listener| listener.http2).unwrap_or_default()
        };
        let mut http2 = self.http2.clone();
        http2.max_concurrent_streams(limits.streams).enable_connect_protocol();
        let io = TokioIo::new(Tapped::new(line, client, limits));
        drive(client, http2.serve_connection(io, service)).await;
    }
}

/// What hyper calls with each request of a connection.
struct Pipeline(Arc<Client>);

impl Service<Request<Incoming>> for Pipeline {
    type Response = Response<Out>;
    type Error = Infallible;
    // Boxed, so that an idle connection does not keep room for a request.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Out>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let client = Arc::clone(&self.0);
        let (mut head, body) = request.into_parts();
        if let Some(upgrade) = connect::translate(&mut head, &client) {
            return Box::pin(async move { Ok(connect::open(client, head, upgrade).await) });
        }
        let inbound = if body.is_end_stream() {
            Inbound::Empty
        } else {
            Inbound::Stream(Box::new(Paced::new(body, &client.worker)))
        };
        Box::pin(async move { Ok(stages::pass(&client, &mut head, inbound).await) })
    }
}

/// Runs a connection to its end, or to the one that it is told.
async fn drive(client: &Client, connection: impl Parting) {
    let mut connection = std::pin::pin!(connection);
    let mut is_draining = false;
    client.pulse.listen(&std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    std::future::poll_fn(|cx| {
        match client.pulse.order() {
            Order::None => {}
            Order::Last | Order::Drain if is_draining => {}
            Order::Last | Order::Drain => {
                is_draining = true;
                connection.as_mut().part();
            }
            Order::Close => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::trace!(%error, peer = %client.peer.address, "a client's connection broke");
            }
        })
    })
    .await;
}
