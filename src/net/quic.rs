//! QUIC below whoever speaks over it (DNS, HTTP/3): the server's side with its bounds, endpoints, Retry, the end.
//!
//! QUIC itself is quinn's. Several endpoints may share an address, a socket each: an id of a connection then says whose it is,
//! and the kernel is told to look there, not at the client's address. So a connection that moves to another address (RFC 9000
//! section 9) comes to the endpoint that knows it.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::SockRef;

use super::{sys, tls};

/// Handshakes that nobody has taken up yet, and octets that came ahead for them.
const WAITING: (usize, u64) = (256, 1 << 20);
/// Octets of our ids of connections: what quinn takes for its own.
const ID_BYTES: usize = 8;
/// Room for datagrams that wait to be read or sent (ours): a burst of a millisecond at 10 Gbit/s. The system may allow less.
const SOCKET_BYTES: usize = 2 << 20;

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Streams both ways at a time, opened by the client.
    pub bidirectional: u32,
    /// Streams one way at a time, opened by the client.
    pub unidirectional: u32,
    /// Octets of a stream on their way to us.
    pub stream_window: u32,
    /// Octets of all streams on their way to us.
    pub window: u32,
    /// Octets on their way to the client that it has not acknowledged.
    pub send_window: u64,
    /// After so long without a packet the peer is gone.
    pub silence: Duration,
}

/// The QUIC side of `tls`, which has the certificates and the ALPN.
///
/// # Errors
/// The cryptography has no cipher for the first packets of a connection.
pub fn server(tls: Arc<rustls::ServerConfig>, bounds: &Bounds) -> Result<ServerConfig, rustls::Error> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(bounds.bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(bounds.unidirectional))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(bounds.stream_window))
        .receive_window(VarInt::from_u32(bounds.window))
        .send_window(bounds.send_window)
        .max_idle_timeout(IdleTimeout::try_from(bounds.silence).ok());
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport)).max_incoming(WAITING.0).incoming_buffer_size_total(WAITING.1);
    Ok(config)
}

/// The same under `tls`: what an endpoint gave out under `config` holds on.
///
/// # Errors
/// As [`server`].
pub fn under(config: &ServerConfig, tls: Arc<rustls::ServerConfig>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| rustls::Error::General(e.to_string()))?;
    let mut config = config.clone();
    config.crypto = Arc::new(crypto);
    Ok(Arc::new(config))
}

/// Which of the endpoints of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its number.
    pub at: u16,
    /// Of how many.
    pub of: u16,
}

impl Seat {
    /// The only one.
    pub const ALONE: Self = Self { at: 0, of: 1 };
}

/// Seats for `sockets` of one address, in the order in which they were opened, once the kernel knows of them. Where it cannot
/// be told, it goes by the client's address, and connections that move are lost.
pub fn seat(mut sockets: Vec<UdpSocket>) -> Vec<(UdpSocket, Seat)> {
    // Handles of one socket would take each other's packets.
    if sockets.first().is_some_and(|first| !SockRef::from(first).reuse_port().unwrap_or(false)) {
        sockets.truncate(1);
    }
    let of = u16::try_from(sockets.len()).unwrap_or(u16::MAX).max(1);
    if let Some(first) = sockets.first().filter(|_| of > 1)
        && let Err(error) = sys::steer_quic(first, of)
    {
        tracing::warn!(%error, "QUIC connections that change their address will be lost: the kernel cannot tell whose they are");
    }
    let seat = |(at, socket)| (socket, Seat { at: at as u16, of });
    sockets.into_iter().take(usize::from(of)).enumerate().map(seat).collect()
}

/// Serves `config` on `socket`. To be called within the runtime that it is served by.
///
/// # Errors
/// The socket cannot be read as QUIC wants it.
pub fn open(socket: UdpSocket, config: ServerConfig, seat: Seat) -> io::Result<Endpoint> {
    let wanted = SockRef::from(&socket);
    // What the system does not allow we go without.
    let _ = wanted.set_recv_buffer_size(SOCKET_BYTES).and_then(|()| wanted.set_send_buffer_size(SOCKET_BYTES));
    let mut endpoint = EndpointConfig::default();
    if seat.of > 1 {
        endpoint.cid_generator(move || Box::new(Ids(seat)));
    }
    Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))
}

/// Gives `incoming` back unless its address has first to show that it receives (RFC 9000 section 8.1.2), which it was asked
/// for then.
pub fn proven(incoming: Incoming, is_busy: bool) -> Option<Incoming> {
    if !is_busy || incoming.remote_address_validated() {
        return Some(incoming);
    }
    // Where that cannot be said, the attempt is refused.
    let _ = incoming.retry();
    None
}

/// Makes ids whose first two octets, as a number, tell the seat; all else of them is random.
#[derive(Debug)]
struct Ids(Seat);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; ID_BYTES] = tls::random().unwrap_or_default();
        let Seat { at, of } = self.0;
        let [first, second, ..] = id;
        let random = u16::from_be_bytes([first, second]);
        let below = random - random % of;
        // Above the last whole round there may be no number of this seat.
        let number = below.checked_add(at).unwrap_or(at);
        if let Some(front) = id.first_chunk_mut() {
            *front = number.to_be_bytes();
        }
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen::{Share, udp};

    #[test]
    fn an_id_tells_whose_it_is() {
        for of in [2, 3, 7, 256, 60_000] {
            for at in [0, 1, of - 1] {
                let mut ids = Ids(Seat { at, of });
                for _ in 0..100 {
                    let id = ids.generate_cid();
                    assert_eq!(id.len(), ids.cid_len());
                    assert_eq!(u16::from_be_bytes([id[0], id[1]]) % of, at);
                }
            }
        }
    }

    #[test]
    fn the_kernel_looks_at_the_id() {
        let first = udp("127.0.0.1:0".parse().unwrap(), Share::Shared).unwrap();
        let address = first.local_addr().unwrap();
        let mut sockets = vec![first];
        sockets.extend((1..3).map(|_| udp(address, Share::Shared).unwrap()));
        let seated = seat(sockets);
        for (socket, _) in &seated {
            socket.set_nonblocking(true).unwrap();
        }
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (_, of) in &seated {
            let mut ids = Ids(*of);
            for _ in 0..20 {
                let id = ids.generate_cid();
                // A packet within a connection, and one of its handshake.
                let short = [&[0x40][..], &id[..], &[0; 20]].concat();
                let long = [&[0xe0, 0, 0, 0, 1, 8][..], &id[..], &[0; 20]].concat();
                for packet in [short, long] {
                    client.send_to(&packet, address).unwrap();
                    let mut room = [0; 64];
                    let got = seated.iter().position(|(socket, _)| socket.recv(&mut room).is_ok());
                    assert_eq!(got, Some(usize::from(of.at)));
                }
            }
        }
    }

    #[test]
    fn handles_of_one_socket_are_one_seat() {
        let one = udp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let seats = seat(vec![one.try_clone().unwrap(), one]);
        assert_eq!(seats.iter().map(|(_, seat)| *seat).collect::<Vec<_>>(), [Seat::ALONE]);
    }
}
