//! How a TCP connection comes in: a balancer's PROXY header, then the TLS handshake, both within one time limit; then it is
//! a guest under its client's address, and speaks DNS or HTTP.
//!
//! Who is still on the way in counts apart from the guests, and the one that came first makes room: half a handshake
//! costs its own kind a place, nobody else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::house::{End, House, lobby, room};
use super::{https, stream};
use crate::base::task;
use crate::wire::proxy_line::{self, Line};

/// How long to wait when the system gives no further connections (no file descriptors).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

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

/// Answers what comes in on `listeners` until the shutdown; then until every connection has got what it had asked for.
pub(super) async fn serve(listeners: Vec<TcpListener>, house: Arc<House>, speech: Speech) {
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| task::spawn("dns-accept", accept(listener, Arc::clone(&house), speech.clone())))
        .collect();
    house.keep().await;
    for task in accepting {
        task.ended().await;
    }
}

async fn accept(listener: TcpListener, house: Arc<House>, speech: Speech) {
    let mut open = tokio::task::JoinSet::new();
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
        open.spawn(attend(tcp, from, Arc::clone(&house), speech.clone()));
    }
    while open.join_next().await.is_some() {}
}

async fn attend(tcp: TcpStream, from: SocketAddr, house: Arc<House>, speech: Speech) {
    let end = receive(tcp, from.ip().to_canonical(), &house, speech).await;
    house.ended(end);
}

async fn receive(mut tcp: TcpStream, peer: IpAddr, house: &Arc<House>, speech: Speech) -> End {
    let (limits, leave) = (house.limits(), house.shutdown.child_token());
    let speaks_for_others = house.is_proxy(peer);
    let enter = |client| house.guests.enter(client, room(&limits), leave.clone());
    if matches!(speech, Speech::Tcp) && !speaks_for_others {
        return stream::converse(tcp, &enter(peer), peer, &leave, &limits, house).await;
    }
    let coming = house.lobby.enter(peer, lobby(&limits), leave.clone());
    let opened = async {
        let client = if speaks_for_others { header(&mut tcp, peer).await? } else { peer };
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

async fn shake(acceptor: &TlsAcceptor, tcp: TcpStream) -> Result<Box<TlsStream<TcpStream>>, End> {
    acceptor.accept(tcp).await.map(Box::new).map_err(|_| End::Handshake)
}

/// Reads a PROXY header and not an octet more; gives for whom `peer` speaks.
async fn header(stream: &mut (impl AsyncRead + Unpin), peer: IpAddr) -> Result<IpAddr, End> {
    let mut seen = Vec::new();
    loop {
        match proxy_line::parse(&seen) {
            Ok(Line::Whole { source, .. }) => return Ok(source.map_or(peer, |source| source.ip())),
            // The parser bounds how much is asked for in all.
            Ok(Line::More(octets)) => {
                let at = seen.len();
                seen.resize(at + octets, 0);
                let room = seen.get_mut(at..).unwrap_or_default();
                stream.read_exact(room).await.map_err(|_| End::Client)?;
            }
            Err(_) => return Err(End::Header),
        }
    }
}

#[cfg(test)]
mod tests;
