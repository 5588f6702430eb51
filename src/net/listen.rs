//! Listening sockets: address in, socket with the right options out, errors that name the address and the remedy.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process has the address.
    #[error("{transport} {address} is in use: stop whoever listens there, or choose another address")]
    InUse {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address asked for.
        address: SocketAddr,
    },
    /// This process may not have the port.
    #[error("{transport} {address} needs a privilege: grant CAP_NET_BIND_SERVICE, or choose a port above 1023")]
    Denied {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{transport} {address} cannot be opened: {source}")]
    Other {
        /// `TCP` or `UDP`.
        transport: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether several sockets of this process share the address (SO_REUSEPORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One socket.
    Alone,
    /// Several; the kernel spreads clients over them. Beware: another process of the same user may join them unnoticed.
    Shared,
}

/// Connections that may wait to be accepted.
pub(super) const BACKLOG: i32 = 4_096;

/// A listening TCP socket, non-blocking.
pub fn tcp(address: SocketAddr, share: Share) -> Result<TcpListener, ListenError> {
    open(address, Type::STREAM, "TCP", share).and_then(|socket| {
        let listened = socket.set_nonblocking(true).and_then(|()| socket.listen(BACKLOG));
        listened.map_err(|e| explain("TCP", address, e))?;
        Ok(socket.into())
    })
}

/// A bound UDP socket, blocking.
pub fn udp(address: SocketAddr, share: Share) -> Result<UdpSocket, ListenError> {
    open(address, Type::DGRAM, "UDP", share).map(Into::into)
}

fn open(address: SocketAddr, kind: Type, transport: &'static str, share: Share) -> Result<Socket, ListenError> {
    let attempt = || {
        let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        if share == Share::Shared {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    attempt().map_err(|e| explain(transport, address, e))
}

fn explain(transport: &'static str, address: SocketAddr, source: io::Error) -> ListenError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { transport, address },
        io::ErrorKind::PermissionDenied => ListenError::Denied { transport, address },
        _ => ListenError::Other { transport, address, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_address_is_named() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let address = first.local_addr().unwrap();
        let error = tcp(address, Share::Alone).unwrap_err();
        assert!(matches!(error, ListenError::InUse { address: a, .. } if a == address), "{error}");
        assert!(error.to_string().contains(&address.to_string()));
    }
}
