//! Floor 6: the name server. One pure `answer` serves every transport; the transports are thin loops.
//!
//! UDP runs on plain threads with blocking batches. TCP, TLS, HTTPS and QUIC have one thread with a runtime of its own each.
//! None waits for another, nor for control or the proxy. All of them read the published snapshot and the table that hangs
//! in it.

use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::{Dns, SecureWay};
use crate::net::listen::ListenError;
use crate::net::sockets;
use crate::net::tls::{self, TlsError};
use crate::snapshot::{Published, Snapshot};

mod alias;
pub mod answer;
pub mod atlas;
mod door;
mod draft;
mod explain;
#[cfg(test)]
mod fixture;
mod guard;
mod guests;
mod house;
mod https;
mod index;
mod log;
mod notify;
mod quic;
mod scopes;
pub mod secrets;
mod sets;
mod shift;
pub mod sign;
mod signed;
mod steered;
mod stream;
pub mod table;
mod tally;
mod top;
pub mod transfer;
mod udp;
pub mod zone;

pub use explain::explain;
pub use scopes::{Divided, too_divided};
pub use shift::{Reach, Shifted, shifts};
pub use table::{plans, prepare};
pub use transfer::keys::{KeyError, load as load_keys};
pub use transfer::outgoing::publish as publish_zones;

use answer::Transport;
use door::Speech;
use guard::Guard;
use house::House;

/// Makes what `after` answers from, before it is published, and tells what files of `[geo]` are in force with it.
pub fn publish(before: Option<&Snapshot>, after: &Snapshot) {
    table::publish(before, after);
    if after.topology.config.dns.is_some() {
        atlas::told::in_force(before.map(|b| &*b.topology), &after.topology);
    }
}

/// Why the name server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A thread or its runtime could not be started.
    #[error("a thread of the name server could not be started: {0}")]
    Thread(std::io::Error),
}

/// Where the name server listens, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// UDP and TCP.
    pub plain: Vec<SocketAddr>,
    /// DNS over TLS.
    pub tls: Vec<SocketAddr>,
    /// DNS over HTTPS.
    pub https: Vec<SocketAddr>,
    /// DNS over QUIC.
    pub quic: Vec<SocketAddr>,
}

/// A running name server.
#[derive(Debug)]
pub struct Server {
    addresses: Addresses,
    guard: Arc<Guard>,
    /// Every thread holds a sender: the channel closes when the last one has ended.
    running: mpsc::Receiver<()>,
}

impl Server {
    /// Where it listens; ports that were asked for as 0 are the real ones.
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// The busiest names, clients' networks and types, and who is limited: `rows` of each, each count with its bounds; of all
    /// transports, or of one by its word. `None`: no transport has this word.
    pub fn top(&self) -> impl Fn(usize, Option<&str>) -> Option<Value> + Send + Sync + use<> {
        let guard = Arc::clone(&self.guard);
        move |rows, only| {
            let only = match only {
                Some(word) => Some(Transport::named(word)?),
                None => None,
            };
            Some(guard.board.report(rows, only))
        }
    }

    /// Waits until every thread has ended, which they do when told to by the token given to [`start`].
    pub async fn stopped(mut self) {
        while self.running.recv().await.is_some() {}
    }
}

/// Starts the name server of the published configuration; without one it listens nowhere. The addresses and the number of
/// threads are those of this moment, everything else follows what is published.
///
/// # Errors
/// An address is taken or forbidden, TLS cannot be set up, or the system gives no thread. Nothing stays open then.
#[expect(clippy::needless_pass_by_value, reason = "all that starts takes its token alike")]
pub fn start(
    published: Arc<Published>,
    from: &sockets::Sockets,
    shutdown: CancellationToken,
) -> Result<Server, StartError> {
    let snapshot = published.full();
    let config = snapshot.topology.config.dns.clone().unwrap_or_default();
    table::Table::of(&snapshot);
    let (addresses, sockets) = Sockets::open(&config, from)?;
    let (alive, running) = mpsc::channel(1);
    // If a thread can't be started, those that were are told to go.
    let token = shutdown.child_token();
    let stop = token.clone().drop_guard();
    let (lines, inbox) = log::channel();
    let staff = Staff { published, guard: Arc::new(Guard::new(lines)), shutdown: token, alive };
    let succession = from.succession();
    if !sockets.is_empty() {
        let (published, shutdown) = (Arc::clone(&staff.published), staff.shutdown.clone());
        staff.runtime("dns-log".into(), move || log::serve(inbox, published, shutdown))?;
    }
    for (i, socket) in sockets.datagrams.into_iter().enumerate() {
        let (published, shutdown) = (Arc::clone(&staff.published), staff.shutdown.clone());
        let guard = Arc::clone(&staff.guard);
        staff.thread(format!("dns-udp-{i}"), move || udp::serve(&socket, &published, &guard, &shutdown))?;
    }
    if snapshot.topology.config.dns.is_some() {
        staff.errands()?;
    }
    staff.streams(Transport::Tcp, sockets.tcp, || Ok(Speech::Tcp))?;
    let tls = |way| tls::dns_server_config(Arc::clone(&staff.published), way);
    staff.streams(Transport::Tls, sockets.tls, || Ok(Speech::Tls(TlsAcceptor::from(tls(SecureWay::Tls)?))))?;
    let speaker = Arc::<https::Speaker>::default();
    staff.streams(Transport::Https, sockets.https, || {
        Ok(Speech::Https(TlsAcceptor::from(tls(SecureWay::Https)?), speaker))
    })?;
    if !sockets.quic.is_empty() {
        let config = quic::config(tls(SecureWay::Quic)?).map_err(|source| TlsError::Setup { source })?;
        staff.run(Transport::Quic, move |house| quic::serve(sockets.quic, config, house, succession))?;
    }
    stop.disarm();
    Ok(Server { addresses, guard: staff.guard, running })
}

/// Whom threads work for.
struct Staff {
    published: Arc<Published>,
    guard: Arc<Guard>,
    shutdown: CancellationToken,
    alive: mpsc::Sender<()>,
}

impl Staff {
    /// Starts what the name server does unasked: it looks up what ALIAS names stand for, and tells secondaries of new
    /// versions, and operators of keys that run out. On a thread of its own, so that no query waits for it.
    fn errands(&self) -> Result<(), StartError> {
        let given = || (Arc::clone(&self.published), self.shutdown.clone());
        let ((a, aliases), (n, notifies), (k, keys)) = (given(), given(), given());
        self.runtime("dns-errands".into(), move || async move {
            tokio::join!(alias::refresh(a, aliases), notify::tell(n, notifies), sign::watch::watch(k, keys));
        })
    }

    /// Starts the thread of a transport over TCP, if it listens anywhere.
    fn streams(
        &self,
        transport: Transport,
        listeners: Vec<TcpListener>,
        speech: impl FnOnce() -> Result<Speech, StartError>,
    ) -> Result<(), StartError> {
        if listeners.is_empty() {
            return Ok(());
        }
        let speech = speech()?;
        self.run(transport, move |house| async move {
            let listeners = listeners.into_iter().map(tokio::net::TcpListener::from_std).collect::<Result<_, _>>()?;
            door::serve(listeners, house, speech).await;
            Ok(())
        })
    }

    /// Starts the thread of a transport that has a house.
    fn run<F>(
        &self,
        transport: Transport,
        serve: impl FnOnce(Arc<House>) -> F + Send + 'static,
    ) -> Result<(), StartError>
    where
        F: Future<Output = std::io::Result<()>>,
    {
        let house = Arc::new(House::new(transport, Arc::clone(&self.published), &self.guard, self.shutdown.clone()));
        self.runtime(format!("dns-{}", transport.as_str()), move || async move {
            if let Err(error) = serve(house).await {
                tracing::error!(%error, transport = transport.as_str(), "the name server could not begin");
            }
        })
    }

    /// Starts a thread with a runtime of its own.
    fn runtime<F>(&self, name: String, work: impl FnOnce() -> F + Send + 'static) -> Result<(), StartError>
    where
        F: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        self.thread(name, move || runtime.block_on(async move { work().await }))
    }

    /// Starts a thread. Whoever hears that all have ended may open their addresses again: what `work` holds goes first.
    fn thread(&self, name: String, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let alive = self.alive.clone();
        let run = move || {
            work();
            drop(alive);
        };
        thread::Builder::new().name(name).spawn(run).map(drop).map_err(StartError::Thread)
    }
}

/// What the name server listens on.
#[derive(Default)]
struct Sockets {
    datagrams: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    https: Vec<TcpListener>,
    quic: Vec<UdpSocket>,
}

impl Sockets {
    const fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.tls.is_empty() && self.https.is_empty() && self.quic.is_empty()
    }

    fn open(config: &Dns, from: &sockets::Sockets) -> Result<(Addresses, Self), ListenError> {
        let (mut addresses, mut sockets) = (Addresses::default(), Self::default());
        for &address in &config.listen {
            let (stream, datagrams) = from.pair(address, config.threads.max(1))?;
            let prepared = datagrams.iter().try_for_each(udp::prepare);
            prepared.map_err(|source| other("UDP", address, source))?;
            addresses.plain.push(local(address, &stream)?);
            sockets.tcp.push(stream);
            sockets.datagrams.extend(datagrams);
        }
        let listen = |way| config.secure(way).map_or(&[][..], |secure| &secure.listen);
        for &address in listen(SecureWay::Tls) {
            let stream = from.tcp(address)?;
            addresses.tls.push(local(address, &stream)?);
            sockets.tls.push(stream);
        }
        for &address in listen(SecureWay::Https) {
            let stream = from.tcp(address)?;
            addresses.https.push(local(address, &stream)?);
            sockets.https.push(stream);
        }
        for &address in listen(SecureWay::Quic) {
            let socket = from.udp(address)?;
            addresses.quic.push(socket.local_addr().map_err(|source| other("UDP", address, source))?);
            sockets.quic.push(socket);
        }
        Ok((addresses, sockets))
    }
}

fn local(address: SocketAddr, listener: &TcpListener) -> Result<SocketAddr, ListenError> {
    listener.local_addr().map_err(|source| other("TCP", address, source))
}

const fn other(transport: &'static str, address: SocketAddr, source: std::io::Error) -> ListenError {
    ListenError::Other { transport, address, source }
}

#[cfg(test)]
mod tests;
