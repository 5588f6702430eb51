//! Active probes: one question to one target, and what came of it.
//!
//! A [`Prober`] asks, [`ask`] holds it to the target's timeout (connect, TLS, request and response in all), and the
//! control loop turns the [`Answer`] into evidence. Nothing here judges, repeats or remembers, and nothing that a target
//! sends can panic, fill the memory or hold a probe beyond its time.

use std::future::Future;
use std::pin::Pin;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{ProbeKind, ProxyProtocol, UpstreamTls};
use crate::net::connect::{self, Broken, DialError};
use crate::snapshot::health::{ProbeFailure, ProbeOutcome};
use crate::snapshot::topology::{Assets, Target};
use crate::wire::proxy_line::{self, Ends};

mod grpc;
mod http;
pub mod schedule;
mod tcp;
mod tls;

#[cfg(test)]
mod tests;

/// A body is read this far; what comes after it is not asked for. Ours: health pages are short.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// A head may be this long. Ours.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Who asks, for the target's logs.
const USER_AGENT: &str = concat!("springtide-probe/", env!("CARGO_PKG_VERSION"));

/// Why a probe did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The target's answer, or its silence, is a failure.
    Failed(ProbeFailure),
    /// We could not ask: out of descriptors or ports, or without the means that the probe needs. Not evidence.
    Unasked,
}

/// What came of a probe.
pub type Answer = Result<(), Trouble>;
/// A probe under way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Asks targets. The built-in one is [`Sockets`]; who embeds the router may bring another.
pub trait Prober: Send + Sync {
    /// Asks `target` once. Must not block; is dropped at the target's timeout.
    fn ask<'a>(&'a self, target: &'a Target, assets: &'a Assets) -> Asking<'a>;
}

/// Asks over real sockets: TCP, TLS, HTTP/1.1, HTTP/2 and gRPC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

impl Prober for Sockets {
    fn ask<'a>(&'a self, target: &'a Target, assets: &'a Assets) -> Asking<'a> {
        match &target.probe.kind {
            ProbeKind::Tcp => Box::pin(tcp::ask(target)),
            ProbeKind::Tls { tls } => Box::pin(tls::ask(target, tls, assets)),
            ProbeKind::Http { path, host, expect, tls } => {
                let question = http::Question { path, host: host.as_deref(), expect: *expect };
                Box::pin(http::ask(target, question, tls.as_ref(), assets))
            }
            ProbeKind::Grpc { service, tls } => Box::pin(grpc::ask(target, service, tls.as_ref(), assets)),
        }
    }
}

/// Asks `target` once, for no longer than its timeout. `None` where it could not be asked.
pub async fn ask(prober: &dyn Prober, target: &Target, assets: &Assets) -> Option<ProbeOutcome> {
    match tokio::time::timeout(target.probe.timeout, prober.ask(target, assets)).await {
        Ok(Ok(())) => Some(ProbeOutcome::Ok),
        Ok(Err(Trouble::Failed(failure))) => Some(ProbeOutcome::Failed(failure)),
        Ok(Err(Trouble::Unasked)) => None,
        Err(_) => Some(ProbeOutcome::Failed(ProbeFailure::Timeout)),
    }
}

/// The word for a kind of probe in metrics.
pub const fn kind_word(kind: &ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Tcp => "tcp",
        ProbeKind::Tls { .. } => "tls",
        ProbeKind::Http { .. } => "http",
        ProbeKind::Grpc { .. } => "grpc",
    }
}

/// The word for an outcome in metrics; `None` is a target that could not be asked.
pub const fn outcome_word(outcome: Option<ProbeOutcome>) -> &'static str {
    match outcome {
        None => "unasked",
        Some(ProbeOutcome::Ok) => "ok",
        Some(ProbeOutcome::Failed(failure)) => failure.as_str(),
    }
}

impl From<DialError> for Trouble {
    fn from(error: DialError) -> Self {
        Self::of(error.broken).unwrap_or(Self::Failed(ProbeFailure::Unreachable))
    }
}

impl Trouble {
    /// The trouble behind a broken connection, where there is a word for it.
    fn of(broken: Broken) -> Option<Self> {
        match broken {
            Broken::Refused => Some(Self::Failed(ProbeFailure::Refused)),
            Broken::Reset => Some(Self::Failed(ProbeFailure::Reset)),
            Broken::Timeout => Some(Self::Failed(ProbeFailure::Timeout)),
            Broken::Unreachable => Some(Self::Failed(ProbeFailure::Unreachable)),
            Broken::Exhausted => Some(Self::Unasked),
            Broken::Other => None,
        }
    }

    /// The trouble behind an HTTP exchange that broke off: a broken connection, or else a broken protocol. The deepest
    /// cause counts: hyper tells "cancelled" of a request whose connection had nonsense on it.
    fn behind(error: &hyper::Error) -> Self {
        let mut deepest = error;
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                return Self::of(connect::classify(io)).unwrap_or(Self::Failed(ProbeFailure::Garbage));
            }
            deepest = cause.downcast_ref().unwrap_or(deepest);
            source = cause.source();
        }
        if deepest.is_incomplete_message() || deepest.is_closed() || deepest.is_canceled() {
            Self::Failed(ProbeFailure::Reset)
        } else {
            Self::Failed(ProbeFailure::Garbage)
        }
    }
}

/// Anything that bytes go over.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to `target`, and tells it that this is for nobody else where it expects to be told.
async fn dial(target: &Target) -> Result<TcpStream, Trouble> {
    let mut stream = connect::dial(target.address, target.probe.timeout).await?;
    let header = match target.probe.proxy_protocol {
        None => return Ok(stream),
        // Version 1 has no word for a health check: we speak for ourselves.
        Some(ProxyProtocol::V1) => {
            let ends = stream.local_addr().ok().map(|local| Ends::new(local, target.address));
            proxy_line::text(ends.as_ref())
        }
        Some(ProxyProtocol::V2) => proxy_line::binary(None),
    };
    let written = stream.write_all(&header).await;
    written.map_err(|error| Trouble::of(connect::classify(&error)).unwrap_or(Trouble::Failed(ProbeFailure::Reset)))?;
    Ok(stream)
}

/// Connects to `target`, over TLS where that is asked for, offering `alpn`.
async fn open(
    target: &Target,
    tls: Option<&UpstreamTls>,
    assets: &Assets,
    alpn: &[u8],
) -> Result<Box<dyn Wire>, Trouble> {
    let stream = dial(target).await?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => Ok(Box::new(secure(stream, tls, assets, alpn).await?)),
    }
}

/// Shakes hands over `stream` as `tls` says. Always a full handshake: a resumed one would not see a certificate that
/// has expired or was replaced since.
async fn secure<S: Wire>(
    stream: S,
    tls: &UpstreamTls,
    assets: &Assets,
    alpn: &[u8],
) -> Result<tokio_rustls::client::TlsStream<S>, Trouble> {
    let (Some(config), Ok(name)) = (assets.upstream_tls.get(tls), ServerName::try_from(tls.name.clone())) else {
        return Err(Trouble::Unasked);
    };
    let mut config = ClientConfig::clone(config);
    config.resumption = Resumption::disabled();
    config.alpn_protocols = if alpn.is_empty() { Vec::new() } else { vec![alpn.to_vec()] };
    let shaken = TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await;
    shaken.map_err(|error| Trouble::of(connect::classify(&error)).unwrap_or(Trouble::Failed(ProbeFailure::Tls)))
}
