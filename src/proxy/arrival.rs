//! How a connection comes in: a balancer's PROXY header, then TLS, then its first octets; only then is there a client.
//!
//! All of it has one time limit, and follows the configuration of the moment in which the connection was accepted. Who does
//! not get through is closed without a word, and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use metrics::Gauge;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::admit::{self, Spoken};
use super::drain::Pulse;
use super::line::Line;
use super::worker::{Guests, Worker};
use crate::base::ids::ListenerId;
use crate::net::proxied;
use crate::observe::access::Secured;
use crate::wire::client_cert::Shown;
use crate::wire::forwarded::Peer;
use crate::wire::proxy_line::Ends;

/// How long a client may take until it is clear who it is and what it speaks: from its first octet to the end of its TLS
/// handshake, with a balancer's header before it (EDGE 4, gap 9).
pub(super) const OPENING: Duration = Duration::from_secs(5);

/// A client's connection, as its requests see it.
pub(super) struct Client {
    pub(super) worker: Arc<Worker>,
    pub(super) peer: Peer,
    pub(super) listener: ListenerId,
    /// How its connection is secured, where it is.
    pub(super) tls: Option<Secured>,
    /// Where it could come over QUIC: what it is told of that.
    pub(super) way: Option<u16>,
    pub(super) pulse: Arc<Pulse>,
    /// The ends of its connection; only where backends are told of them.
    ends: Option<Box<Ends>>,
    _seat: Seat,
}

impl Client {
    /// Who comes from `source` and got through, to the listener of this name; `None`: there is no such listener any more.
    pub(super) fn of(
        worker: Arc<Worker>,
        listener: &str,
        source: SocketAddr,
        tls: Option<Secured>,
        spoken: Version,
        certificate: Option<Arc<Shown>>,
        mut seat: Seat,
    ) -> Option<Self> {
        let sight = worker.sight();
        let topology = &sight.snapshot.topology;
        let listener = topology.listener(listener)?;
        let trusted = topology.config.listeners.get(listener.index()).map_or(&[][..], |l| &l.trusted);
        let peer = Peer::new(source.ip(), tls.is_some(), trusted).with(certificate);
        seat.among = sight.guests(listener, spoken).map(Guests::welcome);
        let pulse = Arc::default();
        let open = if spoken == Version::HTTP_3 { &worker.far } else { &worker.open };
        open.watch(&pulse);
        Some(Self { worker, peer, listener, tls, way: None, pulse, ends: None, _seat: seat })
    }

    /// Has it tell backends of its connection's ends.
    #[cfg(feature = "h3")]
    pub(super) fn between(mut self, ends: Option<Ends>) -> Self {
        self.ends = ends.map(Box::new);
        self
    }

    /// The ends of its connection, as far as they are known: what it was before backends were told of it, has no ports.
    pub(super) fn ends(&self) -> Ends {
        let nowhere = || match self.peer.address {
            std::net::IpAddr::V4(_) => ([0; 4], 0).into(),
            std::net::IpAddr::V6(_) => ([0; 16], 0).into(),
        };
        self.ends.as_deref().copied().unwrap_or_else(|| Ends::new((self.peer.address, 0).into(), nowhere()))
    }
}

/// A place among the connections of the edge; counted while it is held.
pub(super) struct Seat {
    open: Gauge,
    /// Among those of its listener and protocol, once these are known.
    among: Option<Gauge>,
    _place: OwnedSemaphorePermit,
    _token: TaskTrackerToken,
}

impl Seat {
    /// Takes a seat.
    pub(super) fn take(open: Gauge, place: OwnedSemaphorePermit, token: TaskTrackerToken) -> Self {
        open.increment(1.0);
        Self { open, among: None, _place: place, _token: token }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.decrement(1.0);
        self.among.iter().for_each(|among| among.decrement(1.0));
    }
}

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) worker: Arc<Worker>,
    /// The name of the listener that it came to.
    pub(super) listener: Arc<str>,
    /// Where the same is served over QUIC.
    pub(super) way: Option<u16>,
    pub(super) tcp: TcpStream,
    pub(super) from: SocketAddr,
    pub(super) seat: Seat,
}

impl Arrival {
    /// Lets it in. `None`: it broke off, took too long, or may not.
    pub(super) async fn open(self) -> Option<(Arc<Client>, Line, Spoken)> {
        let worker = Arc::clone(&self.worker);
        let opened = tokio::time::timeout(OPENING, self.enter()).await.ok().flatten();
        if opened.is_none() {
            worker.meters.handshakes_failed.increment(1);
        }
        opened
    }

    async fn enter(mut self) -> Option<(Arc<Client>, Line, Spoken)> {
        let (terms, is_tls, is_introduced) = {
            let topology = &self.worker.sight().snapshot.topology;
            // A listener that a reload has removed lets nobody in.
            let listener = topology.config.listeners.get(topology.listener(&self.listener)?.index())?;
            let from = self.from.ip().to_canonical();
            let is_introduced = listener.proxies.iter().any(|net| net.contains(&from));
            (topology.terms(&self.listener).cloned(), listener.tls.is_some(), is_introduced)
        };
        let mut ends = None;
        if is_introduced {
            match proxied::read(&mut self.tcp).await {
                Ok(said) => ends = said,
                Err(unread) => {
                    tracing::debug!(%unread, from = %self.from, "a balancer does not say for whom it speaks");
                    return None;
                }
            }
        }
        let is_told_on = self.worker.sight().view.tells_ends();
        if ends.is_none() && is_told_on {
            ends = self.tcp.local_addr().ok().map(|local| Ends::new(self.from, local));
        }
        let (line, spoken, tls, certificate) = match (is_tls, terms) {
            (true, Some(terms)) => self.worker.handshakes.shake(&terms, self.tcp).await?,
            // TLS is wanted, and what it needs was not loaded: nothing is said, least of all in plaintext.
            (true, None) => return None,
            (false, _) => admit::sniff(self.tcp).await.map(|(line, spoken)| (line, spoken, None, None))?,
        };
        let source = ends.map_or(self.from, |ends| ends.source);
        let ends = ends.filter(|_| is_told_on).map(Box::new);
        let version = if spoken == Spoken::Http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let mut client = Client::of(self.worker, &self.listener, source, tls, version, certificate, self.seat)?;
        (client.way, client.ends) = (self.way, ends);
        Some((Arc::new(client), line, spoken))
    }
}
