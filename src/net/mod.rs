//! Floor 4: sockets, TLS and the trait that requests pass through. IO, but no decisions.

pub mod connect;
pub mod heritage;
pub mod http;
pub mod listen;
pub mod proxied;
pub mod quic;
pub mod sockets;
pub mod stage;
pub mod stub;
pub mod sys;
pub mod systemd;
pub mod tls;
