//! HTTP/3: clients who come over QUIC, on UDP beside a listener's TCP.
//!
//! Each worker has an endpoint and a socket of its own for every address, as with TCP; the kernel deals packets by the id of
//! their connection (`net::quic`), so a client may change its address and stays with its worker. A connection is a [`session`],
//! each request on it an [`exchange`], a task of its own that passes the same stages as every other request. What is read and
//! written is `wire::h3`; why not a library's is in docs/DEPENDENCIES.md.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use quinn::{Connection, Endpoint, Incoming, ServerConfig};
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admit::{HANDSHAKES, Places};
use super::arrival::{Client, OPENING, Seat};
use super::worker::Worker;
use crate::base::task;
use crate::net::quic::{self, Bounds};
use crate::net::sockets::Succession;
use crate::net::tls;
use crate::observe::access::Secured;
use crate::observe::names::proxy as names;
use crate::snapshot::topology::Terms;
use crate::wire::h3::Code;
use crate::wire::proxy_line::Ends;

mod exchange;
mod inbound;
mod outbound;
mod session;

pub(super) use inbound::Inbound;

/// What a connection may take, but for its streams: what HTTP/2 may (`serve::LIMITS`).
const BOUNDS: Bounds = Bounds {
    bidirectional: 100,
    // Three that there have to be (RFC 9114 section 6.2.1), and some that mean nothing to us.
    unidirectional: 8,
    stream_window: 256 * 1024,
    window: 1024 * 1024,
    send_window: 1024 * 1024,
    silence: Duration::from_mins(1),
};
/// From so many handshakes under way on, an address has to show first that it receives: a quarter of the places, so that forged
/// ones cannot take them all.
const RETRY_FROM: usize = HANDSHAKES / 4;
/// How long what closes has to be said (ours).
const GOODBYE: Duration = Duration::from_secs(1);
/// The same where a successor reads from the same socket: each packet that comes here then is lost to it.
const GOODBYE_TO_HEIR: Duration = Duration::from_millis(50);

/// A socket of one worker, with what is spoken on it.
pub(super) struct Door {
    pub(super) socket: UdpSocket,
    pub(super) seat: quic::Seat,
    /// Requests of a connection at a time.
    pub(super) streams: u32,
    /// The listener's.
    pub(super) name: Arc<str>,
}

/// What all connections of a door have in common.
pub(super) struct Host {
    pub(super) worker: Arc<Worker>,
    pub(super) places: Places,
    pub(super) tracker: TaskTracker,
    pub(super) succession: Succession,
}

impl Host {
    /// Serves who comes in by `door` until the shutdown. Who is in by then is seen off by a task that the tracker waits for.
    pub(super) async fn serve(self, door: Door, shutdown: CancellationToken) {
        if shutdown.run_until_cancelled(self.succession.alone()).await.is_none() {
            return;
        }
        let Some(mut agreed) = Agreed::first(self.terms(&door.name), door.streams) else {
            return tracing::error!(listener = %door.name, "HTTP/3 cannot be served");
        };
        let endpoint = match quic::open(door.socket, (*agreed.config).clone(), door.seat) {
            Ok(endpoint) => endpoint,
            Err(error) => return tracing::error!(%error, listener = %door.name, "HTTP/3 cannot be served"),
        };
        let clients = TaskTracker::new();
        shutdown.run_until_cancelled(self.accept(&endpoint, &clients, &door.name, &mut agreed)).await;
        endpoint.set_server_config(None);
        clients.close();
        let (token, succession) = (self.tracker.token(), self.succession);
        task::spawn("quic-goodbye", async move {
            clients.wait().await;
            // What closes has been said once at least; whoever did not hear it learns it from the silence.
            let goodbye = if succession.has_heir() { GOODBYE_TO_HEIR } else { GOODBYE };
            let _ = timeout(goodbye, endpoint.wait_idle()).await;
            drop(token);
        })
        .detach();
    }

    /// How the listener `name` shakes hands now; `None`: it is not there any more.
    fn terms(&self, name: &str) -> Option<Arc<Terms>> {
        self.worker.sight().snapshot.topology.terms(name).cloned()
    }

    /// Whether who comes from `from` must say first for whom it speaks, for which there is no way over QUIC.
    fn must_introduce(&self, name: &str, from: SocketAddr) -> bool {
        let topology = &self.worker.sight().snapshot.topology;
        let listener = topology.listener(name).and_then(|id| topology.config.listeners.get(id.index()));
        let from = from.ip().to_canonical();
        listener.is_none_or(|listener| listener.proxies.iter().any(|net| net.contains(&from)))
    }

    async fn accept(&self, endpoint: &Endpoint, clients: &TaskTracker, name: &Arc<str>, agreed: &mut Agreed) {
        let port = endpoint.local_addr().map_or(0, |address| address.port());
        let retries = names::QUIC_RETRIES.counter(&[]);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        while let Some(incoming) = endpoint.accept().await {
            let is_busy = handshakes.available_permits() <= HANDSHAKES - RETRY_FROM;
            let Some(incoming) = quic::proven(incoming, is_busy) else {
                retries.increment(1);
                continue;
            };
            // Who finds no place is told so, and comes over TCP, where waiting costs us nothing.
            let place = self.places.try_take_far().filter(|_| !self.must_introduce(name, incoming.remote_address()));
            let Some(place) = place else {
                incoming.refuse();
                continue;
            };
            // Meanwhile others wait in a queue of QUIC's that is bounded.
            let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { return };
            // What holds now, not when the edge was started.
            let Some(terms) = self.terms(name).filter(|terms| agreed.follow(terms)) else {
                incoming.refuse();
                continue;
            };
            let seat = Seat::take(self.worker.meters.connections.clone(), place, self.tracker.token());
            let arrival = Arrival {
                worker: Arc::clone(&self.worker),
                listener: Arc::clone(name),
                port,
                terms,
                config: Arc::clone(&agreed.config),
                seat,
            };
            let (token, succession) = (clients.token(), self.succession.clone());
            task::spawn("client", async move {
                let worker = Arc::clone(&arrival.worker);
                let opened = timeout(OPENING, Box::pin(arrival.open(incoming))).await.ok().flatten();
                drop(handshake);
                match opened {
                    Some((client, connection)) => session::serve(&client, connection, &succession).await,
                    None => worker.meters.handshakes_failed.increment(1),
                }
                drop(token);
            })
            .detach();
        }
    }
}

/// What is agreed with whom comes in, and the terms that it was made of.
struct Agreed {
    from: Arc<rustls::ServerConfig>,
    config: Arc<ServerConfig>,
}

impl Agreed {
    fn first(terms: Option<Arc<Terms>>, streams: u32) -> Option<Self> {
        let from = Arc::clone(&terms?.server);
        let bounds = Bounds { bidirectional: streams, ..BOUNDS };
        let config = quic::server(tls::http3_config(&from), &bounds).map(Arc::new).ok()?;
        Some(Self { from, config })
    }

    /// Follows `terms`, where they are others by now. Whether it could.
    fn follow(&mut self, terms: &Terms) -> bool {
        if Arc::ptr_eq(&self.from, &terms.server) {
            return true;
        }
        let Ok(config) = quic::under(&self.config, tls::http3_config(&terms.server)) else { return false };
        (self.from, self.config) = (Arc::clone(&terms.server), config);
        true
    }
}

/// A connection that asks to come in.
struct Arrival {
    worker: Arc<Worker>,
    /// The name of the listener that it came to.
    listener: Arc<str>,
    /// Where that is.
    port: u16,
    terms: Arc<Terms>,
    config: Arc<ServerConfig>,
    seat: Seat,
}

impl Arrival {
    /// Lets it in. `None`: it broke off, or may not.
    async fn open(self, incoming: Incoming) -> Option<(Arc<Client>, Connection)> {
        let (from, local) = (incoming.remote_address(), incoming.local_ip());
        let connection = incoming.accept_with(self.config).ok()?.await.ok()?;
        let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
        let Ok(shown) = self.worker.handshakes.shown(&self.terms, chain.as_deref().map(Vec::as_slice)) else {
            connection.close(session::number(Code::NoError), b"");
            return None;
        };
        // QUIC has TLS 1.3 and no other, and does not tell whether a session is an old one.
        let tls = Some(Secured { is_13: true, is_resumed: None });
        let client = Client::of(self.worker, &self.listener, from, tls, Version::HTTP_3, shown, self.seat)?;
        let is_told_on = client.worker.sight().view.tells_ends();
        let ends = local.filter(|_| is_told_on).map(|local| Ends::new(from, (local, self.port).into()));
        Some((Arc::new(client.between(ends)), connection))
    }
}
