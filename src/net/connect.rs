//! Connecting out: an address in, a socket with the right options out, and errors by who is to blame.
//!
//! Shared by the probes and the proxy, so that both mean the same by "refused". It knows no retry and no pool, and it
//! never resolves names: a backend is an address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// What is behind an IO error, in the words of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody listens there, and the host says so.
    Refused,
    /// The other side closed or reset the connection.
    Reset,
    /// Too late.
    Timeout,
    /// No way there: no route, host or network down, or a firewall that says no.
    Unreachable,
    /// Our own shortage: file descriptors, ports or memory. Says nothing about the other side.
    Exhausted,
    /// None of these.
    Other,
}

impl Broken {
    /// The word for it in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timed out",
            Self::Unreachable => "unreachable",
            Self::Exhausted => "exhausted",
            Self::Other => "failed",
        }
    }
}

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
#[error("connecting to {address}: {}: {source}", .broken.as_str())]
#[non_exhaustive]
pub struct DialError {
    /// Where to.
    pub address: SocketAddr,
    /// What is behind it.
    pub broken: Broken,
    /// What the system said.
    pub source: io::Error,
}

/// Connects to `address` within `timeout`, with Nagle's algorithm off: heads are written whole, and waiting for an ACK
/// costs a request 40 ms.
pub async fn dial(address: SocketAddr, timeout: Duration) -> Result<TcpStream, DialError> {
    let connected = tokio::time::timeout(timeout, TcpStream::connect(address)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)).map_err(|source| DialError {
        address,
        broken: classify(&source),
        source,
    })
}

/// What is behind `error`.
pub fn classify(error: &io::Error) -> Broken {
    use io::ErrorKind as K;
    match error.kind() {
        K::ConnectionRefused => Broken::Refused,
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::NotConnected | K::UnexpectedEof => Broken::Reset,
        K::TimedOut => Broken::Timeout,
        // EACCES and EPERM are how a local firewall refuses an outgoing packet.
        K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown | K::PermissionDenied => Broken::Unreachable,
        // No free local port for this destination.
        K::AddrNotAvailable | K::OutOfMemory => Broken::Exhausted,
        _ => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::EAGAIN) => Broken::Exhausted,
            _ => Broken::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen::{Share, tcp};

    #[tokio::test]
    async fn a_closed_port_is_refused_and_an_open_one_is_not_delayed() {
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let address = listener.local_addr().unwrap();
        let stream = dial(address, Duration::from_secs(5)).await.unwrap();
        assert!(stream.nodelay().unwrap());
        drop((stream, listener));
        let error = dial(address, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.broken, Broken::Refused);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_a_timeout() {
        // A listener whose queue is full drops further SYNs: the system's own silence, without a firewall.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match dial(address, Duration::from_millis(300)).await {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 64, "a queue of 0 took {} connections", held.len());
        };
        assert_eq!(error.broken, Broken::Timeout);
    }

    #[test]
    fn our_own_shortage_is_not_the_targets_fault() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL] {
            assert_eq!(classify(&io::Error::from_raw_os_error(code)), Broken::Exhausted, "{code}");
        }
        for code in [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EPERM, libc::EACCES] {
            assert_eq!(classify(&io::Error::from_raw_os_error(code)), Broken::Unreachable, "{code}");
        }
        for code in [libc::ECONNRESET, libc::EPIPE, libc::ECONNABORTED] {
            assert_eq!(classify(&io::Error::from_raw_os_error(code)), Broken::Reset, "{code}");
        }
        assert_eq!(classify(&io::Error::from_raw_os_error(libc::ETIMEDOUT)), Broken::Timeout);
    }
}
