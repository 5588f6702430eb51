//! Brings one batch after the other to a collector, over one connection that is kept.
//!
//! What is tried again is what OTLP says may be: 429, 502, 503, 504, and a collector that cannot be reached or says nothing in
//! time; after the `Retry-After` that it names, else after a time that doubles and is spread. Any other answer is final: a
//! batch that was refused once would be refused again. What an answer says is read to a bound, and never believed further
//! than for a count and a line of log.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::Counter;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use super::target::Target;
use crate::base::clock::{Clock as _, SystemClock, Wall};
use crate::base::entropy::Rng;
use crate::base::task::{self, Task};
use crate::net::connect;
use crate::observe::names::proxy as names;
use crate::proxy::line::Line;
use crate::proxy::spans::Page;
use crate::wire::{date, otlp};

/// Tries of one batch (ours).
const TRIES: u32 = 5;
/// The pause after the first failed one, and the longest: the SDKs' are 1 s and 32 s (ours between).
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest that a collector may ask for.
const ASKED: Duration = Duration::from_mins(1);
/// How long an answer may go on, and how much of it is read.
const SAID: Duration = Duration::from_secs(1);
const ANSWER: usize = 64 * 1024;
/// Who asks.
const AGENT: &str = concat!("springtide/", env!("CARGO_PKG_VERSION"));
/// How many of a name's addresses are tried.
const ADDRESSES: usize = 4;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The collector has it, less what it rejected.
    Taken {
        /// So many spans.
        rejected: u64,
    },
    /// It does not want it.
    Refused,
    /// It could not be brought.
    Failed,
}

/// What there is to count of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) fate: Fate,
    pub(super) spans: u32,
}

/// What came of one try.
enum Answer {
    Taken(otlp::Rejected),
    Refused(StatusCode, String),
    /// Perhaps later; after so long, if it says so.
    Later(Option<Duration>, String),
}

/// Who brings batches.
pub(super) struct Courier {
    line: Option<Kept>,
    rng: Rng,
    /// Nobody waits for longer than for one more try.
    ending: CancellationToken,
    /// Whether the last batch was taken; what changes is told in the log, once.
    is_fine: bool,
    requests: [Counter; 4],
}

/// A connection.
struct Kept {
    sender: http1::SendRequest<Full<Bytes>>,
    /// To whom, so that another collector gets another one.
    target: Arc<Target>,
    _task: Task,
}

impl Courier {
    /// Has not been anywhere yet.
    pub(super) fn new(ending: CancellationToken) -> Self {
        let requests = ["taken", "refused", "later", "unreachable"].map(|outcome| names::EXPORTS.counter(&[outcome]));
        Self { line: None, rng: Rng::from_os(), ending, is_fine: true, requests }
    }

    /// Brings `pages` to `target`, as often as it takes and may be.
    pub(super) async fn carry(mut self, target: Arc<Target>, pages: Vec<Page>) -> (Self, Told) {
        let spans = pages.iter().map(|page| page.count).sum();
        let body = Bytes::from(target.request(&pages));
        drop(pages);
        let mut pause = PAUSE.0;
        for turn in 1.. {
            let was_ending = self.ending.is_cancelled();
            let answer = self.ask(&target, &body).await;
            let (asked, why) = match answer {
                Answer::Taken(rejected) => {
                    self.taken(&target, &rejected);
                    return (self, Told { fate: Fate::Taken { rejected: rejected.spans }, spans });
                }
                Answer::Refused(status, why) => {
                    self.unwanted(&target, &format!("{status} {why}"), "refuses spans");
                    return (self, Told { fate: Fate::Refused, spans });
                }
                Answer::Later(asked, why) => (asked, why),
            };
            if turn >= TRIES || was_ending {
                self.unwanted(&target, &why, "does not take spans: they are dropped");
                break;
            }
            // Between a half of it and the whole: many nodes have the same collector.
            let spread = pause.mul_f64(0.5 + self.rng.unit() / 2.0);
            let wait = asked.map_or(spread, |asked| asked.min(ASKED));
            let _ = tokio::time::timeout(wait, self.ending.cancelled()).await;
            pause = (pause * 2).min(PAUSE.1);
        }
        (self, Told { fate: Fate::Failed, spans })
    }

    /// One try, within the time that the collector has.
    async fn ask(&mut self, target: &Arc<Target>, body: &Bytes) -> Answer {
        let (answer, outcome) = match tokio::time::timeout(target.timeout, self.post(target, body)).await {
            Ok(Ok(answer)) => {
                let outcome = match &answer {
                    Answer::Taken(_) => 0,
                    Answer::Refused(..) => 1,
                    Answer::Later(..) => 2,
                };
                (answer, outcome)
            }
            Ok(Err(error)) => (Answer::Later(None, error.to_string()), 3),
            Err(_) => (Answer::Later(None, "no answer in time".to_owned()), 3),
        };
        if outcome == 3 {
            self.line = None;
        }
        self.requests[outcome].increment(1);
        answer
    }

    async fn post(&mut self, target: &Arc<Target>, body: &Bytes) -> io::Result<Answer> {
        let is_same = |kept: &Kept| Arc::ptr_eq(&kept.target, target);
        if let Some(mut kept) = self.line.take().filter(is_same) {
            // It may have been closed while nothing was sent: that says nothing about the collector.
            if let Ok(response) = kept.send(body).await {
                return Ok(self.read(kept, response).await);
            }
        }
        let mut fresh = Kept::open(target).await?;
        let response = fresh.send(body).await.map_err(io::Error::other)?;
        Ok(self.read(fresh, response).await)
    }

    /// What `response` says. The connection it came over is kept if all of it could be read.
    async fn read(&mut self, kept: Kept, response: Response<Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        // The status is the answer; a body that does not end, or not in time, is no reason to send it all again.
        let said = match tokio::time::timeout(SAID, Limited::new(body, ANSWER).collect()).await {
            Ok(Ok(said)) => {
                self.line = Some(kept);
                said.to_bytes()
            }
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        match head.status {
            status if status.is_success() => Answer::Taken(otlp::rejected(&said)),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let why = format!("{} {}", head.status, otlp::refusal(&said));
                Answer::Later(after(&head.headers, SystemClock.wall()), why)
            }
            status => Answer::Refused(status, otlp::refusal(&said)),
        }
    }

    fn taken(&mut self, target: &Target, rejected: &otlp::Rejected) {
        if !std::mem::replace(&mut self.is_fine, true) {
            tracing::info!(collector = target.host, "the collector takes spans again");
        }
        if rejected.spans > 0 {
            tracing::debug!(
                collector = target.host,
                spans = rejected.spans,
                why = rejected.why,
                "some spans were rejected"
            );
        }
    }

    fn unwanted(&mut self, target: &Target, why: &str, what: &'static str) {
        if std::mem::replace(&mut self.is_fine, false) {
            tracing::warn!(collector = target.host, why, "the collector {what}");
        }
    }
}

impl Kept {
    /// Connects to `target`: by the addresses of its name, one after the other.
    async fn open(target: &Arc<Target>) -> io::Result<Self> {
        let at = (target.endpoint.host.as_str(), target.endpoint.port);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the collector's name has no address");
        for address in tokio::net::lookup_host(at).await?.take(ADDRESSES) {
            let tcp = match connect::dial(address, target.timeout).await {
                Ok(tcp) => tcp,
                Err(error) => {
                    last = error.source;
                    continue;
                }
            };
            let line = match &target.tls {
                Some((config, name)) => {
                    let tls = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await?;
                    Line::Tls(Box::new(TlsStream::Client(tls)))
                }
                None => Line::Plain(tcp),
            };
            let (sender, connection) = http1::handshake(TokioIo::new(line)).await.map_err(io::Error::other)?;
            let task = task::spawn("collector", async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the connection to the collector broke");
                }
            });
            return Ok(Self { sender, target: Arc::clone(target), _task: task });
        }
        Err(last)
    }

    async fn send(&mut self, body: &Bytes) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.path.clone();
        *request.headers_mut() = self.target.headers.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        if let Ok(host) = HeaderValue::try_from(self.target.host.as_str()) {
            headers.insert(HOST, host);
        }
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }
}

/// How long a collector wants to be left alone, where it says so: in seconds, or as a date (RFC 9110 section 10.2.3).
fn after(headers: &HeaderMap, now: Wall) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.as_bytes().trim_ascii();
    let seconds = || std::str::from_utf8(said).ok()?.parse().ok().map(Duration::from_secs);
    seconds().or_else(|| date::parse(said).map(|at| at.since(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_says_when_to_come_back() {
        let said = |text: &'static str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            after(&headers, Wall(784_111_770_000))
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO), "it is over");
        for nothing in ["", "-1", "soon", "1.5", "99999999999999999999999"] {
            assert_eq!(said(nothing), None, "{nothing}");
        }
        assert_eq!(after(&HeaderMap::new(), Wall(0)), None);
    }
}
