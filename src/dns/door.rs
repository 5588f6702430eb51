//! How a TCP connection comes in: a balancer's PROXY header, then the TLS handshake, both within one time limit; then it is
//! a guest under its client's address, and speaks DNS or HTTP.
//!
//! Who is still on the way in counts apart from the guests, and the one that came first makes room: half a handshake
//! costs its own kind a place, nobody else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::house::{End, House, lobby, room};
use super::{https, stream};
use crate::base::task;
use crate::net::proxied::{self, Unread};
use crate::wire::proxy_line::Ends;

/// How long to wait when the system gives no further connections (no file descriptors).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long a connection goes on after the shutdown (ours): who was let in is about to ask, or in the middle of its handshake,
/// and would find the connection closed. Who still waits in the kernel's queue may have a successor to answer it.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// What is spoken behind the door.
#[derive(Clone)]
pub(super) enum Speech {
    /// DNS in the clear.
    Tcp,
    /// DNS over TLS.
    Tls(TlsAcceptor),
    /// HTTP over TLS.
    Https(TlsAcceptor, Arc<https::Speaker>),
}

/// Answers what comes in on `listeners` until the shutdown; then until every connection has got what it had asked for, or asks
/// within [`LAST_WITHIN`].
pub(super) async fn serve(listeners: Vec<TcpListener>, house: Arc<House>, speech: Speech) {
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| task::spawn("dns-accept", accept(listener, Arc::clone(&house), speech.clone())))
        .collect();
    house.keep(accepting).await;
}

async fn accept(listener: TcpListener, house: Arc<House>, speech: Speech) {
    let (mut open, leave) = (JoinSet::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = house.shutdown.cancelled() => break,
        };
        let Ok((tcp, from)) = accepted else {
            // No descriptors, most likely: the connections that we have will free some.
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let _ = tcp.set_nodelay(true);
        open.spawn(attend(tcp, from, Arc::clone(&house), speech.clone(), leave.child_token()));
    }
    if timeout(LAST_WITHIN, all(&mut open)).await.is_err() {
        leave.cancel();
        all(&mut open).await;
    }
}

/// Waits until all connections have ended.
async fn all(open: &mut JoinSet<()>) {
    while open.join_next().await.is_some() {}
}

async fn attend(tcp: TcpStream, from: SocketAddr, house: Arc<House>, speech: Speech, leave: CancellationToken) {
    let end = receive(tcp, from.ip().to_canonical(), &house, speech, leave).await;
    house.ended(end);
}

async fn receive(
    mut tcp: TcpStream,
    peer: IpAddr,
    house: &Arc<House>,
    speech: Speech,
    leave: CancellationToken,
) -> End {
    let limits = house.limits();
    let speaks_for_others = house.is_proxy(peer);
    let enter = |client| house.guests.enter(client, room(&limits), leave.clone());
    if matches!(speech, Speech::Tcp) && !speaks_for_others {
        return stream::converse(tcp, &enter(peer), peer, &leave, &limits, house).await;
    }
    let coming = house.lobby.enter(peer, lobby(&limits), leave.clone());
    let opened = async {
        let client = if speaks_for_others { client_of(proxied::read(&mut tcp).await?, peer) } else { peer };
        let inside = match speech {
            Speech::Tcp => Inside::Tcp(tcp),
            Speech::Tls(acceptor) => Inside::Tls(shake(&acceptor, tcp).await?),
            Speech::Https(acceptor, speaker) => Inside::Https(shake(&acceptor, tcp).await?, speaker),
        };
        Ok((client, inside))
    };
    let opened = tokio::select! {
        biased;
        opened = timeout(limits.handshake, opened) => opened.unwrap_or(Err(End::Handshake)),
        () = leave.cancelled() => Err(house.why_leave()),
    };
    drop(coming);
    match opened {
        Ok((client, Inside::Tcp(tcp))) => stream::converse(tcp, &enter(client), client, &leave, &limits, house).await,
        Ok((client, Inside::Tls(tls))) => stream::converse(tls, &enter(client), client, &leave, &limits, house).await,
        Ok((client, Inside::Https(tls, speaker))) => {
            speaker.converse(tls, enter(client), client, &leave, &limits, house).await
        }
        Err(end) => end,
    }
}

/// A connection that has come in.
enum Inside {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Https(Box<TlsStream<TcpStream>>, Arc<https::Speaker>),
}

fn client_of(ends: Option<Ends>, peer: IpAddr) -> IpAddr {
    ends.map_or(peer, |ends| ends.source.ip())
}

impl From<Unread> for End {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Cut => Self::Client,
            Unread::Fault(_) => Self::Header,
        }
    }
}

async fn shake(acceptor: &TlsAcceptor, tcp: TcpStream) -> Result<Box<TlsStream<TcpStream>>, End> {
    acceptor.accept(tcp).await.map(Box::new).map_err(|_| End::Handshake)
}

#[cfg(test)]
mod tests;
