//! Connections to one backend, kept by one worker.
//!
//! HTTP/1.1: a stack of idle connections, the most recently used first, so that the surplus ages and is closed. HTTP/2:
//! see [`h2`]. Nothing is shared between workers. A pool outlives a reload if its backend does (same seat, address,
//! protocol, TLS); otherwise, and while its backend is unusable, it gives up what is idle and lets the rest finish.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::Histogram;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::config::{Limits, Protocol, ProxyProtocol, UpstreamTls};
use crate::net::connect::{self, Broken};
use crate::proxy::line::Line;
use crate::proxy::meter::{Count, Toll};
use crate::proxy::view::Transport;
use crate::snapshot::load::Outcome;
use crate::wire::proxy_line::{self, Ends};

mod gate;
pub(super) mod h1;
pub(super) mod h2;

pub(super) use gate::Gate;
use gate::Slot;
use h1::H1;
use h2::{H2, Purpose};

/// Idle connections kept for one backend (ours: half of what BASELINE g keeps busy on two backends).
const IDLE: usize = 1_024;
/// How long a connection may be idle: shorter than the 60 to 75 s after which servers close theirs, so that we are the
/// first to do so.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How old a connection may get: load balancers between us and a backend, and its own restarts, see new ones.
const AGE: Duration = Duration::from_mins(10);

/// What a pool is for; as long as this stays the same, so does the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The backend's seat (service, datacenter, address).
    pub seat: u64,
    /// Where it is.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS, if it is wanted.
    pub tls: Option<UpstreamTls>,
    /// How it is told for whom a connection is; then a connection is for one connection of a client.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Connections to one backend.
pub(super) struct Pool {
    key: Key,
    transport: Mutex<Transport>,
    #[expect(clippy::vec_box, reason = "connections move between here and requests; as boxes they need not")]
    idle: Mutex<Vec<Box<H1>>>,
    shared: Mutex<Vec<Arc<H2>>>,
    tunnels: Mutex<Vec<Arc<H2>>>,
    dialing: tokio::sync::Mutex<()>,
    gate: Gate,
    is_closed: AtomicBool,
    pub(super) toll: Toll,
    counts: Counts,
}

/// What a pool counts for its service.
pub(super) struct Counts {
    /// Tries that found a connection ready.
    pub(super) hits: Count,
    /// Connections made, or tried to.
    pub(super) dials: Count,
    /// How long it took, where it came to something.
    pub(super) connect: Histogram,
}

/// No connection could be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The backend is to blame, in the words of its counters.
    Backend(Outcome),
    /// The service's limits allow no more to this backend.
    Full,
    /// We have run out of descriptors or ports.
    Exhausted,
    /// The configuration of TLS towards it cannot be used.
    Misconfigured,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// An empty pool for `key`.
    pub(super) fn new(key: Key, transport: Transport, gate: Gate, toll: Toll, counts: Counts) -> Self {
        Self {
            key,
            transport: Mutex::new(transport),
            idle: Mutex::default(),
            shared: Mutex::default(),
            tunnels: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
            gate,
            is_closed: AtomicBool::new(false),
            toll,
            counts,
        }
    }

    /// New connections are made over `transport`, within `limits`: a reload may have read others.
    pub(super) fn retarget(&self, transport: Transport, limits: &Limits) {
        *lock(&self.transport) = transport;
        self.gate.set(limits);
    }

    /// What it is for.
    pub(super) const fn key(&self) -> &Key {
        &self.key
    }

    /// Whether its backend speaks HTTP/2.
    pub(super) fn is_h2(&self) -> bool {
        self.key.protocol == Protocol::Http2
    }

    /// An idle connection, the freshest one; where the backend was told for whom it is, the freshest for `whom`.
    pub(super) fn idle(&self, whom: impl FnOnce() -> Option<Ends>, now: Mono) -> Option<Box<H1>> {
        let line = {
            let mut idle = lock(&self.idle);
            if self.key.proxy_protocol.is_none() {
                idle.pop()?
            } else {
                let whom = whom();
                let at = idle.iter().rposition(|line| line.whom.as_deref() == whom.as_ref())?;
                idle.remove(at)
            }
        };
        // The stack is sorted by time: if the freshest is too old, the sweep will find all of them.
        (line.idle_since + IDLE_FOR >= now).then(|| {
            self.counts.hits.one();
            line
        })
    }

    /// A new connection; where the backend is told, for `whom`, or for nobody whom it could name.
    pub(super) async fn dial(
        &self,
        whom: impl FnOnce() -> Option<Ends>,
        timeout: Duration,
        now: Mono,
    ) -> Result<Box<H1>, NoLine> {
        let _pending = self.gate.wait()?;
        let slot = self.gate.slot()?;
        let whom = self.key.proxy_protocol.and_then(|_| whom());
        within(timeout, async {
            let mut line = H1::over(self.line(whom.as_ref(), timeout).await?, slot, now);
            line.whom = whom.map(Box::new);
            line.connect = self.connected(now);
            Ok(line)
        })
        .await
    }

    /// A stream of a shared connection for `purpose`, over a new one if need be.
    pub(super) async fn stream(&self, purpose: Purpose, timeout: Duration, now: Mono) -> Result<h2::Stream, NoLine> {
        let shared = match purpose {
            Purpose::Requests => &self.shared,
            Purpose::Tunnels => &self.tunnels,
        };
        let borrow = || H2::borrow(&mut lock(shared), now - AGE);
        if let Some(stream) = borrow() {
            self.counts.hits.one();
            return Ok(stream);
        }
        let _pending = self.gate.wait()?;
        let dial = async {
            // One dials, the others wait for what comes of it: a cold start makes one connection, not hundreds.
            let _turn = self.dialing.lock().await;
            if let Some(stream) = borrow() {
                return Ok(stream);
            }
            let slot = self.gate.slot()?;
            let line = self.line(None, timeout).await?;
            let line = H2::over(line, purpose, slot, now).await.map_err(|_| BROKEN)?;
            lock(shared).push(Arc::new(line));
            let mut stream = borrow().ok_or(BROKEN)?;
            stream.connect = Some(self.connected(now));
            Ok(stream)
        };
        within(timeout, dial).await
    }

    /// Takes a connection back after a response has ended.
    pub(super) fn rest(&self, mut line: Box<H1>, now: Mono) {
        if self.is_closed.load(Relaxed) || line.born + AGE < now || !line.is_reusable() {
            return;
        }
        line.idle_since = now;
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE {
            idle.push(line);
        }
    }

    /// Gives up what is idle, and everything that is given back, until [`Pool::reopen`].
    pub(super) fn close(&self) {
        self.is_closed.store(true, Relaxed);
        let idle = std::mem::take(&mut *lock(&self.idle));
        let shared = [&self.shared, &self.tunnels].map(|shared| std::mem::take(&mut *lock(shared)));
        drop((idle, shared));
    }

    /// Keeps connections again.
    pub(super) fn reopen(&self) {
        self.is_closed.store(false, Relaxed);
    }

    /// Drops idle connections that are too old or that the backend has closed; tells the metrics what was counted.
    pub(super) fn sweep(&self, now: Mono) {
        lock(&self.idle)
            .retain_mut(|line| line.idle_since + IDLE_FOR >= now && line.born + AGE >= now && line.is_alive_idle());
        for shared in [&self.shared, &self.tunnels] {
            lock(shared).retain(|line| line.is_usable(now - AGE));
        }
        self.counts.hits.flush();
        self.counts.dials.flush();
        self.toll.flush();
    }

    /// A connection that was begun `at` is made; how long that took.
    fn connected(&self, at: Mono) -> Duration {
        let took = SystemClock.mono().since(at);
        self.counts.connect.record(took);
        took
    }

    async fn line(&self, whom: Option<&Ends>, timeout: Duration) -> Result<Line, NoLine> {
        self.counts.dials.one();
        let mut tcp = connect::dial(self.key.address, timeout).await.map_err(|e| match e.broken {
            Broken::Exhausted => NoLine::Exhausted,
            Broken::Refused | Broken::Timeout | Broken::Unreachable | Broken::Reset | Broken::Other => {
                NoLine::Backend(Outcome::Refused)
            }
        })?;
        if let Some(version) = self.key.proxy_protocol {
            let header = match version {
                ProxyProtocol::V1 => proxy_line::text(whom),
                ProxyProtocol::V2 => proxy_line::binary(whom),
            };
            // A new connection takes so few octets at once.
            tcp.write_all(&header).await.map_err(|_| BROKEN)?;
        }
        let transport = lock(&self.transport).clone();
        match transport {
            Transport::Plain => Ok(Line::Plain(tcp)),
            Transport::Tls { config, name } => {
                let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|_| BROKEN)?;
                Ok(Line::Tls(Box::new(TlsStream::Client(tls))))
            }
            Transport::Unusable => Err(NoLine::Misconfigured),
        }
    }
}

/// The backend took the connection and then would not speak.
const BROKEN: NoLine = NoLine::Backend(Outcome::Reset);

async fn within<T>(timeout: Duration, dial: impl Future<Output = Result<T, NoLine>>) -> Result<T, NoLine> {
    tokio::time::timeout(timeout, dial).await.unwrap_or(Err(NoLine::Backend(Outcome::Refused)))
}
