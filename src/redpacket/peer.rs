//! A small HTTP/1.1 client for one origin: what a service asks of another, with distrust.
//!
//! Bounded: connections kept, time for a call, bytes of a reply. It follows nothing, retries only what provably was not
//! sent, and knows no TLS: these calls stay inside a datacenter.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::base::task::spawn;

/// Idle connections kept.
const KEPT: usize = 32;
/// The largest reply that is read.
const REPLY_BYTES: usize = 1 << 20;

/// Where another service is: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
}

/// A text that is not an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an origin such as \"http://127.0.0.1:7000\", without a path")]
pub struct BadOrigin;

impl FromStr for Origin {
    type Err = BadOrigin;
    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let uri: Uri = text.parse().map_err(|_| BadOrigin)?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority().filter(|a| plain && !a.as_str().contains('@')).ok_or(BadOrigin)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self { host: host.into(), port: authority.port_u16().unwrap_or(80) })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{}", self.host, self.port)
    }
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// Out of time; whether the other did it is unknown.
    #[error("out of time")]
    Timeout,
    /// The connection broke; whether the other did it is unknown.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// The reply is too large, or broke off.
    #[error("the reply is larger than 1 MiB or broke off")]
    Reply,
    /// The request could not be made.
    #[error("not a request: {0}")]
    Request(http::Error),
}

impl CallError {
    /// As a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken(_) => "broken",
            Self::Reply | Self::Request(_) => "garbage",
        }
    }
}

/// A reply, whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// One origin and the connections to it.
pub struct Peer {
    origin: Origin,
    host: HeaderValue,
    token: Option<HeaderValue>,
    idle: Mutex<Vec<Sender>>,
}

impl Peer {
    /// A client for `origin`.
    pub fn new(origin: Origin) -> Self {
        let host = HeaderValue::from_str(origin.to_string().trim_start_matches("http://"));
        // An origin came out of a parsed authority, which fits in a header.
        let host = host.unwrap_or_else(|_| HeaderValue::from_static("localhost"));
        Self { origin, host, token: None, idle: Mutex::default() }
    }

    /// With `token` as the bearer of every call. A token that no header can carry is left out.
    #[must_use]
    pub fn bearing(mut self, token: &str) -> Self {
        self.token = HeaderValue::from_str(&format!("Bearer {token}")).ok();
        self
    }

    /// Whom it calls.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get(&self, path: &str, within: Duration) -> Result<Reply, CallError> {
        self.call(Method::GET, path, Bytes::new(), &[], within).await
    }

    /// Posts `json` to `path`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post(&self, path: &str, json: Bytes, within: Duration) -> Result<Reply, CallError> {
        self.call(Method::POST, path, json, &[], within).await
    }

    /// Any call: `headers` are added to what every call has.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
    ) -> Result<Reply, CallError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(CallError::Request)?;
        timeout(within, self.exchange(request)).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, CallError> {
        // A kept connection may have been closed by the other side meanwhile. Then the request comes back unsent and
        // goes out on the next; the one dialled last is not given back.
        while let Some(mut sender) = self.kept() {
            match sender.try_send_request(request).await {
                Ok(response) => return self.read(sender, response).await,
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(CallError::Broken(failed.into_error())),
                },
            }
        }
        let mut sender = self.dial().await?;
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        self.read(sender, response).await
    }

    async fn read(
        &self,
        mut sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Reply, CallError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), REPLY_BYTES).collect().await.map_err(|e| {
            tracing::debug!(origin = %self.origin, too_large = e.is::<LengthLimitError>(), "a reply was not read");
            CallError::Reply
        })?;
        // Ready again once the connection's task has seen the end of the reply; without a wait, most would be lost.
        if timeout(Duration::from_millis(5), sender.ready()).await.is_ok_and(|r| r.is_ok()) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(sender);
            }
        }
        Ok(Reply { status, body: body.to_bytes() })
    }

    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn dial(&self) -> Result<Sender, CallError> {
        let address = (self.origin.host.as_str(), self.origin.port);
        let stream = TcpStream::connect(address).await.map_err(CallError::Connect)?;
        // Worth trying, not worth failing for.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
        spawn("peer-connection", async move {
            // It ends with its sender, or with the other side; the call in flight hears of it.
            let _ = connection.await;
        })
        .detach();
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_read_and_write() {
        for text in ["http://127.0.0.1:7000", "http://[::1]:7000", "http://game.internal:80"] {
            assert_eq!(text.parse::<Origin>().map(|o| o.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "127.0.0.1:7000", "https://a:1", "http://a:1/path", "http://u@a:1", "http://a:1/?q"] {
            assert_eq!(bad.parse::<Origin>(), Err(BadOrigin), "{bad}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin: Origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let peer = Peer::new(origin);
        let silent = peer.get("/", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(silent, CallError::Timeout), "{silent}");
        drop(listener);
        let gone = peer.get("/", Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(gone, CallError::Connect(_)), "{gone}");
    }
}
