//! DNS over HTTPS (RFC 8484): GET and POST, HTTP/2 and HTTP/1.1. The message is the one that every transport gives; HTTP
//! adds for how long it may be cached, and refuses what is no query before `answer` sees it.
//!
//! Bounded everywhere: heads, bodies, streams of a connection, time for a body, time without a request, time to take what
//! was answered. HTTP itself is hyper's; why not hickory's is in docs/DEPENDENCIES.md.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use metrics::Counter;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::draft::{Budget, Draft, Excess};
use super::guests::Guest;
use super::house::{End, House};
use crate::config::Connections;
use crate::net::http::{self as serving, Limits, Parting};
use crate::observe::names::dns as metric;
use crate::wire::dns::MAX_TCP;
use crate::wire::doh;

/// What a message is called (RFC 8484 section 6).
const MESSAGE: &str = "application/dns-message";
/// Largest head of a request: a query in a URL takes some hundred octets, and no resolver sends more than a few thousand.
const HEAD_BYTES: usize = 16 * 1_024;
/// Streams of one HTTP/2 connection at a time. RFC 9113 section 6.5.2 wants at least 100.
const STREAMS: u32 = 100;
/// Octets of one HTTP/2 stream, and of one connection, on their way to us: the largest query, and two of them. Flow control
/// bounds by it what is unread, the budget what has been read of queries that are not whole.
const WINDOW: (u32, u32) = (MAX_TCP as u32, 2 * MAX_TCP as u32);
/// What an HTTP/2 connection may take; of one stream, an answer is on its way to the client unsent.
const LIMITS: Limits = Limits { head: HEAD_BYTES as u32, streams: STREAMS, window: WINDOW, send_buffer: MAX_TCP };

/// Speaks HTTP with clients, within limits.
pub(super) struct Speaker {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    refusals: [Counter; Refusal::ALL.len()],
}

impl Default for Speaker {
    fn default() -> Self {
        let mut http1 = http1::Builder::new();
        // Time is kept here, not there: without a whole request for so long, the connection is over.
        http1.max_buf_size(HEAD_BYTES).header_read_timeout(None::<Duration>).pipeline_flush(true);
        let http2 = serving::http2(LIMITS);
        let refusals = Refusal::ALL.map(|r| metric::HTTPS_REFUSED.counter(&[r.status().as_str()]));
        Self { http1, http2, refusals }
    }
}

impl Speaker {
    /// Answers what `client` asks over `tls` until one of the two has enough.
    pub(super) async fn converse(
        self: &Arc<Self>,
        tls: Box<TlsStream<TcpStream>>,
        guest: Guest,
        client: IpAddr,
        leave: &CancellationToken,
        limits: &Connections,
        house: &Arc<House>,
    ) -> End {
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let visit = Arc::new(Visit {
            house: Arc::clone(house),
            speaker: Arc::clone(self),
            path: house.path(),
            client,
            patience: limits.idle,
            guest,
            asked: Notify::new(),
            unfinished: Budget::new(WINDOW.1 as usize),
        });
        let (io, service) = (TokioIo::new(tls), Waiter(Arc::clone(&visit)));
        if is_http2 {
            attend(self.http2.serve_connection(io, service), &visit, leave, limits).await
        } else {
            attend(self.http1.serve_connection(io, service), &visit, leave, limits).await
        }
    }
}

/// Drives `connection` to its end.
async fn attend(connection: impl Parting, visit: &Visit, leave: &CancellationToken, limits: &Connections) -> End {
    let mut connection = pin!(connection);
    let end = loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return End::Client,
            () = leave.cancelled() => break visit.house.why_leave(),
            // Somebody asked: the time begins anew.
            () = visit.asked.notified() => {}
            () = sleep(limits.idle) => break End::Idle,
        }
    };
    connection.as_mut().part();
    // Where somebody waits for its place, what can be said at once is said.
    let patience = if end == End::Evicted { Duration::ZERO } else { limits.write };
    match timeout(patience, connection).await {
        Err(_) if end != End::Evicted => End::Slow,
        _ => end,
    }
}

/// One connection, as its requests see it.
struct Visit {
    house: Arc<House>,
    speaker: Arc<Speaker>,
    path: Arc<str>,
    client: IpAddr,
    patience: Duration,
    guest: Guest,
    asked: Notify,
    /// What its streams have sent of queries that are not whole.
    unfinished: Budget,
}

/// What hyper calls with each request.
struct Waiter(Arc<Visit>);

impl Service<Request<Incoming>> for Waiter {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let visit = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match visit.respond(request).await {
                Ok(response) => response,
                Err(refusal) => {
                    if let Some(counter) = visit.speaker.refusals.get(refusal as usize) {
                        counter.increment(1);
                    }
                    refusal.response()
                }
            })
        })
    }
}

impl Visit {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        let (head, body) = request.into_parts();
        // The head takes far more room than what it says, and the body may be long in coming.
        let asked = self.asked_by(&head);
        drop(head);
        // Read in any case: clients take a refusal that comes before the end of their request for a broken stream.
        let body = self.body(body).await?;
        let query = asked?.unwrap_or(body);
        // Whole and well-formed as HTTP: now it counts as asking.
        self.asked.notify_one();
        self.guest.active();
        let answered = self.house.at_desk(|desk, table| {
            let (message, sent) = desk.answer(table, query.octets(), self.client)?;
            Some((Bytes::copy_from_slice(message), doh::freshness(message), sent.reason.is_some()))
        });
        // Less than a header, or itself an answer.
        let (message, seconds, chosen) = answered.flatten().ok_or(Refusal::Query)?;
        let mut response = Response::new(Full::new(message));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MESSAGE));
        response.headers_mut().insert(CACHE_CONTROL, caching(seconds, chosen));
        Ok(response)
    }

    /// The query that stands in the head; `None` where it is the body.
    fn asked_by(&self, head: &request::Parts) -> Result<Option<Draft>, Refusal> {
        if head.uri.path() != &*self.path {
            return Err(Refusal::Path);
        }
        match head.method {
            Method::GET => {
                let text = head.uri.query().and_then(doh::parameter).ok_or(Refusal::Query)?;
                let mut query = self.unfinished.draft(MAX_TCP);
                query.push(&doh::decode(text).ok_or(Refusal::Query)?).map_err(|excess| match excess {
                    Excess::Query => Refusal::Query,
                    Excess::Budget => Refusal::Load,
                })?;
                Ok(Some(query))
            }
            Method::POST => {
                let said = head.headers.get(CONTENT_TYPE);
                let fits = said.is_some_and(|said| said.as_bytes().eq_ignore_ascii_case(MESSAGE.as_bytes()));
                if fits { Ok(None) } else { Err(Refusal::Type) }
            }
            _ => Err(Refusal::Method),
        }
    }

    async fn body(&self, mut body: Incoming) -> Result<Draft, Refusal> {
        if body.size_hint().lower() > MAX_TCP as u64 {
            return Err(Refusal::Size);
        }
        let mut draft = self.unfinished.draft(MAX_TCP);
        let read = async {
            while let Some(frame) = body.frame().await {
                // The client broke off: nobody will read this.
                let frame = frame.map_err(|_| Refusal::Query)?;
                let piece = frame.data_ref().map_or(&[][..], |data| data);
                draft.push(piece).map_err(|excess| match excess {
                    Excess::Query => Refusal::Size,
                    Excess::Budget => Refusal::Load,
                })?;
            }
            Ok(())
        };
        timeout(self.patience, read).await.unwrap_or(Err(Refusal::Time))?;
        Ok(draft)
    }
}

/// For how long an answer may be kept (RFC 8484 section 5.1); one that was chosen for this client, by none but itself.
fn caching(seconds: Option<u32>, chosen: bool) -> HeaderValue {
    let text = match (seconds, chosen) {
        (None, _) => return HeaderValue::from_static("no-store"),
        (Some(seconds), true) => format!("private, max-age={seconds}"),
        (Some(seconds), false) => format!("max-age={seconds}"),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
}

/// Why a request gets no message (RFC 8484 section 4.2.1 leaves the status to HTTP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// No query in it, or none that could be one.
    Query,
    /// Another path.
    Path,
    /// Neither GET nor POST.
    Method,
    /// The body does not come.
    Time,
    /// A body larger than any message.
    Size,
    /// A body that is no message.
    Type,
    /// With what other streams of the connection have begun, it is too much at a time.
    Load,
}

impl Refusal {
    const ALL: [Self; 7] = [Self::Query, Self::Path, Self::Method, Self::Time, Self::Size, Self::Type, Self::Load];

    const fn status(self) -> StatusCode {
        match self {
            Self::Query => StatusCode::BAD_REQUEST,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Time => StatusCode::REQUEST_TIMEOUT,
            Self::Size => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Load => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Query => "no DNS query: `dns` has to be a message in base64url without padding (RFC 8484)\n",
            Self::Path => "nothing here\n",
            Self::Method => "GET or POST (RFC 8484)\n",
            Self::Time => "the body did not come in time\n",
            Self::Size => "a DNS message has at most 65535 octets\n",
            Self::Type => "the body has to be application/dns-message (RFC 8484)\n",
            Self::Load => "the connection has begun more queries than it ends\n",
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.words().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}
