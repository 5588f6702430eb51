//! DNS over QUIC (RFC 9250): a query and its answer have a bidirectional stream of their own.
//!
//! Nothing is done for an address that has not shown that it receives, once handshakes pile up (RFC 9000 section 8.1.2),
//! and nothing at all in 0-RTT, which could be replayed. Bounded everywhere: connections in all and by client, handshakes,
//! streams, octets on the way, time without a query, time to take an answer. QUIC itself is quinn's; why not hickory's
//! is in docs/DEPENDENCIES.md.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::draft::{Budget, Draft, Excess};
use super::guests::Guest;
use super::house::{End, House, lobby, room};
use crate::base::task;
use crate::config::Connections;
use crate::net::quic::{self, Bounds, Seat};
use crate::net::sockets::Succession;
use crate::observe::names::dns as metric;
use crate::wire::dns::{HEADER, MAX_TCP, Query};

/// A whole query with its length before it.
const WHOLE_QUERY: usize = 2 + MAX_TCP;
/// Octets of one connection on their way to us: two queries of the largest size. Flow control bounds by it what is unread,
/// the budget what has been read of queries that are not whole.
const RECEIVE_WINDOW: u32 = 2 * WHOLE_QUERY as u32;
/// What a connection may take.
const BOUNDS: Bounds = Bounds {
    // RFC 9250 section 5.5 leaves it open; this is quinn's default.
    bidirectional: 100,
    // RFC 9250 section 4.2: every query has a bidirectional stream, nothing else is spoken.
    unidirectional: 0,
    stream_window: WHOLE_QUERY as u32,
    window: RECEIVE_WINDOW,
    send_window: 256 * 1_024,
    // Above any idle limit that can be configured (an hour), which counts queries, not packets, and ends the connection with
    // a word.
    silence: Duration::from_mins(61),
};
/// How long what closes has to be said where a successor waits for the socket: some milliseconds' work (ours).
const GOODBYE: Duration = Duration::from_millis(50);

/// Error codes of RFC 9250 section 4.3.
mod code {
    use quinn::VarInt;

    pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0);
    pub(super) const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
    pub(super) const REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
    pub(super) const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);
}

/// The QUIC side of `tls`, which has the certificates and the ALPN.
///
/// # Errors
/// The cryptography has no cipher for the first packets of a connection.
pub(super) fn config(tls: Arc<rustls::ServerConfig>) -> Result<ServerConfig, rustls::Error> {
    quic::server(tls, &BOUNDS)
}

/// Answers what comes in on `sockets`, once no predecessor does, until the shutdown; then until every connection has got what
/// it had asked for.
pub(super) async fn serve(
    sockets: Vec<UdpSocket>,
    config: ServerConfig,
    house: Arc<House>,
    succession: Succession,
) -> io::Result<()> {
    house.shutdown.run_until_cancelled(succession.alone()).await;
    let open = |socket| quic::open(socket, config.clone(), Seat::ALONE);
    let endpoints = sockets.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let accepting: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| task::spawn("dns-accept", accept(endpoint, Arc::clone(&house), succession.clone())))
        .collect();
    house.keep(accepting).await;
    Ok(())
}

async fn accept(endpoint: Endpoint, house: Arc<House>, succession: Succession) {
    let retries = metric::QUIC_RETRIES.counter(&[]);
    let mut open = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            Some(_) = open.join_next() => continue,
            () = house.shutdown.cancelled() => break,
        };
        let Some(incoming) = incoming else { break };
        let is_busy = house.lobby.len() >= lobby(&house.limits()).total / 4;
        let Some(incoming) = quic::proven(incoming, is_busy) else {
            retries.increment(1);
            continue;
        };
        open.spawn(attend(incoming, Arc::clone(&house)));
    }
    while open.join_next().await.is_some() {}
    endpoint.close(code::NO_ERROR, b"");
    // What closes has been said once at least; whoever did not hear it learns it from the silence.
    // A successor reads from the same socket: each packet that comes here now is lost to it.
    let goodbye = if succession.has_heir() { GOODBYE } else { house.limits().write };
    let _ = timeout(goodbye, endpoint.wait_idle()).await;
}

async fn attend(incoming: Incoming, house: Arc<House>) {
    let end = receive(incoming, &house).await;
    house.ended(end);
}

async fn receive(incoming: Incoming, house: &Arc<House>) -> End {
    let (limits, leave) = (house.limits(), house.shutdown.child_token());
    let client = incoming.remote_address().ip().to_canonical();
    let coming = house.lobby.enter(client, lobby(&limits), leave.clone());
    let Ok(connecting) = incoming.accept() else { return End::Handshake };
    let connection = tokio::select! {
        biased;
        connection = timeout(limits.handshake, connecting) => match connection {
            Ok(Ok(connection)) => connection,
            Ok(Err(_)) | Err(_) => return End::Handshake,
        },
        () = leave.cancelled() => return house.why_leave(),
    };
    drop(coming);
    let guest = house.guests.enter(client, room(&limits), leave.clone());
    let end = converse(&connection, &guest, client, &leave, &limits, house).await;
    let code = match end {
        End::Evicted => code::EXCESSIVE_LOAD,
        End::Protocol => code::PROTOCOL_ERROR,
        _ => code::NO_ERROR,
    };
    connection.close(code, b"");
    end
}

/// What became of one stream.
enum Stream {
    /// Its query was answered, and the client has the answer.
    Answered,
    /// The client gave it up.
    Cancelled,
    /// It broke the rules: the whole connection ends (RFC 9250 section 4.3.3).
    Broken,
    /// The client did not take the answer.
    Slow,
}

async fn converse(
    connection: &Connection,
    guest: &Guest,
    client: IpAddr,
    leave: &CancellationToken,
    limits: &Connections,
    house: &Arc<House>,
) -> End {
    let mut streams = JoinSet::new();
    let unfinished = Budget::new(RECEIVE_WINDOW as usize);
    let end = loop {
        // Streams that stay open ask nothing: the timer runs until a query is answered.
        let mut idle = pin!(sleep(limits.idle));
        let end = loop {
            tokio::select! {
                biased;
                Some(done) = streams.join_next() => match done {
                    Ok(Stream::Answered) => break None,
                    Ok(Stream::Broken) => break Some(End::Protocol),
                    Ok(Stream::Slow) => break Some(End::Slow),
                    Ok(Stream::Cancelled) | Err(_) => {}
                },
                () = leave.cancelled() => break Some(house.why_leave()),
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        let draft = unfinished.draft(WHOLE_QUERY);
                        streams.spawn(answer(send, receive, draft, client, *limits, Arc::clone(house)));
                    }
                    Err(_) => break Some(End::Client),
                },
                () = &mut idle => break Some(End::Idle),
            }
        };
        match end {
            None => guest.active(),
            Some(end) => break end,
        }
    };
    if end == End::Shutdown {
        // What was asked is still answered, for as long as it may take to take an answer.
        let _ = timeout(limits.write, async { while streams.join_next().await.is_some() {} }).await;
    }
    end
}

async fn answer(
    mut send: SendStream,
    mut receive: RecvStream,
    mut draft: Draft,
    client: IpAddr,
    limits: Connections,
    house: Arc<House>,
) -> Stream {
    // RFC 9250 section 4.2: a query is whole when its stream has ended.
    let given_up = match timeout(limits.idle, read(&mut receive, &mut draft)).await {
        Ok(Ok(())) => None,
        Ok(Err(Unread::TooLong)) => return Stream::Broken,
        Ok(Err(Unread::Broken)) => return Stream::Cancelled,
        Ok(Err(Unread::Excessive)) => Some(code::EXCESSIVE_LOAD),
        Err(_) => Some(code::REQUEST_CANCELLED),
    };
    if let Some(code) = given_up {
        let _ = receive.stop(code);
        let _ = send.reset(code);
        return Stream::Cancelled;
    }
    let Some(query) = query(draft.octets()) else { return Stream::Broken };
    let framed = house.at_desk(|desk, table| {
        let (message, _) = desk.answer(table, query, client)?;
        Some([&(message.len() as u16).to_be_bytes(), message].concat())
    });
    drop(draft);
    // Itself an answer, or nobody there to answer.
    let Some(framed) = framed.flatten() else { return Stream::Broken };
    let taken = async {
        send.write_all(&framed).await.is_ok() && send.finish().is_ok() && matches!(send.stopped().await, Ok(None))
    };
    match timeout(limits.write, taken).await {
        Ok(true) => Stream::Answered,
        Ok(false) => Stream::Cancelled,
        Err(_) => Stream::Slow,
    }
}

/// Why a query does not become whole.
enum Unread {
    /// It is longer than any query.
    TooLong,
    /// With what other streams have begun, it is too much.
    Excessive,
    /// The client gave it up, or the connection broke.
    Broken,
}

/// Reads `receive` to its end. In order: what comes ahead of a gap stays with QUIC, on its account.
async fn read(receive: &mut RecvStream, draft: &mut Draft) -> Result<(), Unread> {
    while let Some(chunk) = receive.read_chunk(WHOLE_QUERY, true).await.map_err(|_| Unread::Broken)? {
        draft.push(&chunk.bytes).map_err(|excess| match excess {
            Excess::Query => Unread::TooLong,
            Excess::Budget => Unread::Excessive,
        })?;
    }
    Ok(())
}

/// The one query of a stream: its length, then the message, under the id 0, and nothing behind it (RFC 9250 sections 4.2
/// and 4.2.1).
fn query(read: &[u8]) -> Option<&[u8]> {
    let (length, message) = read.split_first_chunk::<2>()?;
    let is_whole = message.len() == usize::from(u16::from_be_bytes(*length));
    let is_query = message.len() >= HEADER && message.starts_with(&[0, 0]);
    // RFC 9250 section 5.5.2: the connection has its own idle time, and a client that asks for TCP's is in error.
    let keepalive = || Query::parse(message).is_ok_and(|q| q.edns.is_some_and(|e| e.keepalive));
    (is_whole && is_query && !keepalive()).then_some(message)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use quinn::crypto::rustls::QuicClientConfig;

    use super::*;
    use crate::config::{SecureWay, check};
    use crate::dns::answer::Transport;
    use crate::dns::fixture::{SERVER, everywhere, speaking};
    use crate::net::tls;

    #[test]
    fn a_query_is_whole_and_alone_and_has_no_id() {
        let message = [0; HEADER];
        let framed = |length: u8, message: &[u8]| [&[0, length][..], message].concat();
        assert_eq!(query(&framed(12, &message)), Some(&message[..]));
        assert_eq!(query(&framed(12, &[&message[..], &[0]].concat())), None);
        assert_eq!(query(&framed(13, &message)), None);
        assert_eq!(query(&framed(11, &message[..11])), None);
        assert_eq!(query(&framed(12, &[&[0, 1], &message[2..]].concat())), None);
        assert_eq!(query(&[0]), None);
        assert_eq!(query(&[]), None);
        // The root's NS with an OPT, without and with a TCP keepalive.
        let plain = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
        assert_eq!(query(&framed(28, &plain)), Some(&plain[..]));
        let kept = [&plain[..27], &[4, 0, 11, 0, 0]].concat();
        assert_eq!(query(&framed(32, &kept)), None, "TCP's idle time means nothing here");
    }

    #[test]
    fn no_idle_limit_that_can_be_configured_is_longer_than_the_silence() {
        let read = |idle: &str| {
            let text = format!("[node]\nname = \"n\"\n[dns]\nlisten = \"127.0.0.1:0\"\n[dns.tcp]\nidle = \"{idle}\"\n");
            Some(check::parse(&text, Path::new("x")).ok()?.dns?.connections.idle)
        };
        assert!(read("1h").unwrap() < BOUNDS.silence);
        assert_eq!(read("61m"), None, "an hour is the most");
    }

    #[test]
    fn where_handshakes_pile_up_an_address_has_to_be_shown_first() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let (published, client) = everywhere(|_| ());
                let config = config(tls::dns_server_config(Arc::clone(&published), SecureWay::Quic).unwrap()).unwrap();
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let address = socket.local_addr().unwrap();
                let house = Arc::new(House::new(
                    Transport::Quic,
                    published,
                    &crate::dns::fixture::guard(),
                    CancellationToken::new(),
                ));
                let server = task::spawn("serve", {
                    let house = Arc::clone(&house);
                    async move {
                        let alone = crate::net::sockets::Sockets::fresh().succession();
                        serve(vec![socket], config, house, alone).await.unwrap();
                    }
                });
                let crypto = QuicClientConfig::try_from(speaking(&client, "doq")).unwrap();
                let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
                endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
                let retries = || metrics.render().contains("springtide_dns_quic_retries_total 1");
                let calm = endpoint.connect(address, SERVER).unwrap().await.unwrap();
                assert!(!retries());
                let halves: Vec<_> = (0..lobby(&house.limits()).total / 4)
                    .map(|_| house.lobby.enter(address.ip(), lobby(&house.limits()), CancellationToken::new()))
                    .collect();
                let shown = endpoint.connect(address, SERVER).unwrap().await.unwrap();
                assert!(retries());
                drop((calm, shown, halves));
                house.shutdown.cancel();
                server.ended().await;
            });
        });
    }
}
