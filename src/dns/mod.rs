//! Floor 6: the name server. One pure `answer` serves every transport; the transports are thin loops.
//!
//! UDP runs on plain threads with blocking batches, TCP on one thread with a runtime of its own: neither waits for the
//! other, nor for control or the proxy. All of them read the published snapshot and the table that hangs in it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::net::listen::{self, ListenError, Share};
use crate::snapshot::Published;

pub mod answer;
mod explain;
#[cfg(test)]
mod fixture;
mod index;
mod steered;
mod stream;
pub mod table;
mod tally;
mod udp;
pub mod zone;

pub use explain::explain;
pub use table::{prepare, publish};

/// How many ports are tried where the configuration leaves the port to us and UDP and TCP have to share it.
const PORT_TRIES: usize = 32;

/// Why the name server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread or its runtime could not be started.
    #[error("a thread of the name server could not be started: {0}")]
    Thread(std::io::Error),
}

/// A running name server.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    /// Every thread holds a sender: the channel closes when the last one has ended.
    running: mpsc::Receiver<()>,
}

impl Server {
    /// Where it listens, UDP and TCP, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
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
/// An address is taken or forbidden, or the system gives no thread. Nothing stays open then.
#[expect(clippy::needless_pass_by_value, reason = "all that starts takes its token alike")]
pub fn start(published: Arc<Published>, shutdown: CancellationToken) -> Result<Server, StartError> {
    let snapshot = published.full();
    let config = snapshot.topology.config.dns.clone().unwrap_or_default();
    table::Table::of(&snapshot);
    let (mut addresses, mut streams, mut datagrams) = (Vec::new(), Vec::new(), Vec::new());
    for address in config.listen {
        let (stream, sockets) = open(address, config.threads.max(1))?;
        addresses.push(stream.local_addr().map_err(|source| other(address, source))?);
        streams.push(stream);
        datagrams.extend(sockets);
    }
    let (alive, running) = mpsc::channel(1);
    // If a thread can't be started, those that were are told to go.
    let guard = shutdown.child_token();
    let stop = guard.clone().drop_guard();
    for (i, socket) in datagrams.into_iter().enumerate() {
        udp::prepare(&socket).map_err(StartError::Thread)?;
        let (published, shutdown, alive) = (Arc::clone(&published), guard.clone(), alive.clone());
        spawn(format!("dns-udp-{i}"), move || {
            udp::serve(&socket, &published, &shutdown);
            drop(alive);
        })?;
    }
    if !streams.is_empty() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let shutdown = guard;
        spawn("dns-tcp".into(), move || {
            runtime.block_on(async move {
                let listeners = streams.into_iter().map(tokio::net::TcpListener::from_std).collect::<Result<_, _>>();
                match listeners {
                    Ok(listeners) => stream::serve(listeners, published, stream::Limits::default(), shutdown).await,
                    Err(error) => tracing::error!(%error, "the name server's TCP side could not begin"),
                }
            });
            drop(alive);
        })?;
    }
    stop.disarm();
    Ok(Server { addresses, running })
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    thread::Builder::new().name(name).spawn(run).map(drop).map_err(StartError::Thread)
}

/// Opens `address` for TCP and, by `threads` sockets, for UDP: on the same port, also where that is ours to choose.
///
/// TCP is opened first and alone, so that another process is noticed even where UDP sockets may share their port.
fn open(address: SocketAddr, threads: usize) -> Result<(TcpListener, Vec<UdpSocket>), ListenError> {
    let share = if threads > 1 { Share::Shared } else { Share::Alone };
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let stream = listen::tcp(address, Share::Alone)?;
        let bound = stream.local_addr().map_err(|source| other(address, source))?;
        match (0..threads).map(|_| listen::udp(bound, share)).collect() {
            Ok(sockets) => return Ok((stream, sockets)),
            Err(ListenError::InUse { .. }) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

const fn other(address: SocketAddr, source: std::io::Error) -> ListenError {
    ListenError::Other { transport: "TCP", address, source }
}

#[cfg(test)]
mod tests;
