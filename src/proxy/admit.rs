//! Who is let in: places for connections, handshakes, and the protocol that a client speaks.
//!
//! All of this happens once a connection and before any request. Limits on requests (by user, by route, by load) will be
//! stages of their own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
#[cfg(feature = "h3")]
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::drain::Crowd;
use super::line::Line;
use crate::base::clock::{Clock, SystemClock};
use crate::net::sys;
use crate::net::tls::{self, NotShown};
use crate::observe::access::Secured;
use crate::observe::names::proxy as names;
use crate::snapshot::topology::Terms;
use crate::wire::client_cert::Shown;

/// Connections of clients at a time, over all workers (ours).
const CONNECTIONS: usize = 100_000;
/// TLS handshakes at a time on one worker. A full one costs some 300 us of CPU: more at once only makes all of them late.
pub(super) const HANDSHAKES: usize = 64;
/// What HTTP/2 begins with (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pause after an accept that failed for a lack of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// The places for connections.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    /// Of those over HTTP/3: all of them share a socket, so that they take no descriptor from anybody.
    far: Arc<Semaphore>,
}

impl Default for Places {
    /// As many as [`CONNECTIONS`], or as leave a quarter of this process's descriptors for backends and files: a process
    /// that has none left can accept nobody and reach nobody.
    fn default() -> Self {
        let descriptors = sys::descriptor_limit().ok().and_then(|limit| usize::try_from(limit).ok());
        Self::of(descriptors.map_or(CONNECTIONS, |limit| CONNECTIONS.min(limit / 4 * 3)))
    }
}

impl Places {
    fn of(all: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(all)), all, far: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// A place, as soon as there is one. Until then nobody is accepted: clients wait in the kernel's queue, which costs
    /// us nothing. `None` only when the edge is gone.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// How many of them too many are taken: of those with a descriptor, and of those over HTTP/3.
    pub(super) fn crowds(&self) -> [Crowd; 2] {
        let of = |free: &Semaphore, all: usize| Crowd::of(all.saturating_sub(free.available_permits()), all);
        [of(&self.free, self.all), of(&self.far, CONNECTIONS)]
    }

    /// A place over HTTP/3, if there is one now: who comes so cannot wait outside.
    #[cfg(feature = "h3")]
    pub(super) fn try_take_far(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.far).try_acquire_owned().ok()
    }
}

/// TLS handshakes on one worker: those under way, and what came of the others.
pub(super) struct Handshakes {
    places: Semaphore,
    /// By version (1.2, 1.3) and whether it was resumed.
    done: [[Counter; 2]; 2],
    /// Of clients that were asked: verified, none, refused.
    certificates: [Counter; 3],
}

impl Default for Handshakes {
    fn default() -> Self {
        let done =
            ["1.2", "1.3"].map(|version| ["full", "resumed"].map(|how| names::HANDSHAKES.counter(&[version, how])));
        let certificates =
            ["verified", "none", "refused"].map(|outcome| names::CLIENT_CERTIFICATES.counter(&[outcome]));
        Self { places: Semaphore::new(HANDSHAKES), done, certificates }
    }
}

/// A connection after its handshake: what is spoken inside, how it is secured, and the certificate that its client has shown.
type Shaken = (Line, Spoken, Option<Secured>, Option<Arc<Shown>>);

impl Handshakes {
    /// Completes the TLS handshake under `terms`. `None`: it failed, or the client did not show what it must.
    pub(super) async fn shake(&self, terms: &Terms, tcp: TcpStream) -> Option<Shaken> {
        // Who has sent nothing yet takes no place.
        tcp.readable().await.ok()?;
        let place = self.places.acquire().await.ok()?;
        let accepted = TlsAcceptor::from(Arc::clone(&terms.server)).accept(tcp).await;
        drop(place);
        let tls = accepted.map_err(|error| self.failed(&error)).ok()?;
        let session = tls.get_ref().1;
        let is_13 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        self.done[usize::from(is_13)][usize::from(is_resumed)].increment(1);
        let shown = self.judged(terms, tls::shown(terms, session, SystemClock.wall())).ok()?;
        let spoken = if session.alpn_protocol() == Some(b"h2") { Spoken::Http2 } else { Spoken::Http1 };
        let secured = Secured { is_13, is_resumed: Some(is_resumed) };
        Some((Line::Tls(Box::new(TlsStream::Server(tls))), spoken, Some(secured), shown))
    }

    /// What a client has shown over QUIC: `chain`.
    ///
    /// Whether its session is an old one QUIC does not tell, so each is verified anew.
    #[cfg(feature = "h3")]
    pub(super) fn shown(
        &self,
        terms: &Terms,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Result<Option<Arc<Shown>>, NotShown> {
        self.judged(terms, tls::judged(terms, chain, Some(SystemClock.wall())))
    }

    /// Counts what came of asking a client for its certificate.
    fn judged(
        &self,
        terms: &Terms,
        shown: Result<Option<Arc<Shown>>, NotShown>,
    ) -> Result<Option<Arc<Shown>>, NotShown> {
        match &shown {
            Ok(shown) if terms.clients.is_some() => self.certificates[usize::from(shown.is_none())].increment(1),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a client has not shown what it must");
                self.certificates[2].increment(1);
            }
        }
        shown
    }

    fn failed(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if matches!(cause, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) {
            tracing::debug!(%error, "a client's certificate is refused");
            self.certificates[2].increment(1);
        }
    }
}

/// What is spoken on `tcp` in plaintext, by its first bytes. `None`: it was closed.
pub(super) async fn sniff(tcp: TcpStream) -> Option<(Line, Spoken)> {
    let mut pause = Duration::from_millis(2);
    loop {
        let mut seen = [0; PREFACE.len()];
        let n = tcp.peek(&mut seen).await.ok()?;
        match seen.get(..n)? {
            [] => return None,
            whole if whole == PREFACE => return Some((Line::Plain(tcp), Spoken::Http2)),
            part if PREFACE.starts_with(part) => {
                // A prefix of it and nothing more yet; peeking again at once would give the same.
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            _ => return Some((Line::Plain(tcp), Spoken::Http1)),
        }
    }
}

/// How long to wait after an accept that failed with `error`: not at all where it was that one client's fault.
pub(super) fn pause_after(error: &io::Error) -> Duration {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {
            Duration::ZERO
        }
        _ => ACCEPT_PAUSE,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::listen::{Share, tcp};

    #[cfg(feature = "h3")]
    #[tokio::test]
    async fn places_with_a_descriptor_are_not_for_who_comes_without() {
        let places = Places::of(1);
        let far: Vec<_> = (0..3).map(|_| places.try_take_far().unwrap()).collect();
        assert_eq!(places.crowds(), [Crowd::of(0, 1), Crowd::of(3, CONNECTIONS)]);
        let near = places.take().await.unwrap();
        assert_eq!(places.crowds()[0], Crowd::of(1, 1));
        drop((near, far));
        assert_eq!(places.crowds(), [Crowd::default(); 2]);
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn first_bytes_tell_what_is_spoken() {
        for (bytes, spoken) in [
            (b"GET / HTTP/1.1\r\n".as_slice(), Some(Spoken::Http1)),
            (b"P", None),
            (b"PUT", Some(Spoken::Http1)),
            (PREFACE, Some(Spoken::Http2)),
            (b"\x16\x03\x01", Some(Spoken::Http1)),
            (b"", None),
        ] {
            let (mut client, server) = pair().await;
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            if bytes != b"P" {
                assert_eq!(sniff(server).await.map(|s| s.1), spoken, "{bytes:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_preface_may_come_in_pieces() {
        let (mut client, server) = pair().await;
        let (first, rest) = PREFACE.split_at(5);
        client.write_all(first).await.unwrap();
        let looking = tokio::join!(sniff(server), async {
            tokio::task::yield_now().await;
            client.write_all(rest).await.unwrap();
        });
        assert_eq!(looking.0.map(|s| s.1), Some(Spoken::Http2));
    }

    #[test]
    fn a_shortage_of_ours_makes_accepting_pause() {
        assert_eq!(pause_after(&io::Error::from_raw_os_error(libc::EMFILE)), ACCEPT_PAUSE);
        assert_eq!(pause_after(&io::Error::from_raw_os_error(libc::ECONNABORTED)), Duration::ZERO);
    }
}
