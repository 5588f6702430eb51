//! The HTTP probe: `GET path` over HTTP/1.1 or HTTP/2, in plaintext or over TLS, gives an expected status and a body.
//!
//! A connection for each probe: what is asked is whether a new client would be served. The body is read to its end or
//! to 64 KiB, so that a target which dies while it answers does not count as alive.

use std::future::{Future, pending};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;

use super::{Answer, MAX_BODY_BYTES, MAX_HEAD_BYTES, Trouble, Wire, open};
use crate::base::task::{self, Task};
use crate::config::{Protocol, UpstreamTls};
use crate::snapshot::health::ProbeFailure;
use crate::snapshot::topology::{Assets, Target};

/// What is asked, and which answers are good.
pub(super) struct Question<'a> {
    pub(super) path: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) expect: (u16, u16),
}

pub(super) async fn ask(target: &Target, question: Question<'_>, tls: Option<&UpstreamTls>, assets: &Assets) -> Answer {
    // A question that can't be put is our mistake (the configuration's checks let no such one through).
    let request = request(target, &question, tls.is_some()).ok_or(Trouble::Unasked)?;
    match target.protocol {
        Protocol::Http1 => over_http1(open(target, tls, assets, b"http/1.1").await?, request, question.expect).await,
        Protocol::Http2 => {
            let expect = question.expect;
            let judge = |response| judge(response, expect);
            over_http2(open(target, tls, assets, b"h2").await?, request, judge).await
        }
    }
}

fn request(target: &Target, question: &Question<'_>, secure: bool) -> Option<Request<Empty<Bytes>>> {
    let authority = question.host.map_or_else(|| target.address.to_string(), str::to_owned);
    let request = Request::get("/").header(USER_AGENT, super::USER_AGENT).header(ACCEPT, "*/*");
    match target.protocol {
        Protocol::Http1 => {
            let request = request.uri(Uri::try_from(question.path).ok()?).header(HOST, authority);
            request.header(CONNECTION, HeaderValue::from_static("close")).body(Empty::new()).ok()
        }
        Protocol::Http2 => {
            let scheme = if secure { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(question.path).build();
            request.uri(uri.ok()?).body(Empty::new()).ok()
        }
    }
}

async fn over_http1(stream: Box<dyn Wire>, request: Request<Empty<Bytes>>, expect: (u16, u16)) -> Answer {
    let builder = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| Trouble::behind(&e))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|e| Trouble::behind(&e))?;
        judge(response, expect).await
    };
    driven(connection, exchange).await
}

/// Sends `request` over a new HTTP/2 connection and lets `judge` have the response. Everything that the connection
/// spawns ends with the probe.
pub(super) async fn over_http2<B, J, F>(stream: Box<dyn Wire>, request: Request<B>, judge: J) -> Answer
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    J: FnOnce(Response<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let crew = Crew::default();
    let _dismissed_at_the_end = Dismiss(crew.clone());
    // The smallest window of RFC 9113 6.9.2 will do, and keeps a flood at the sender.
    let mut builder = http2::Builder::new(crew);
    builder.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    builder.max_header_list_size(MAX_HEAD_BYTES as u32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| Trouble::behind(&e))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|e| Trouble::behind(&e))?;
        judge(response).await
    };
    driven(connection, exchange).await
}

/// Runs `exchange` while `connection` moves its bytes. The exchange hears of a broken connection by itself.
async fn driven<C: Future, T>(connection: C, exchange: impl Future<Output = T>) -> T {
    let drive = async {
        let _ = connection.await;
        pending::<T>().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = drive => never,
    }
}

async fn judge(response: Response<Incoming>, expect: (u16, u16)) -> Answer {
    let status = response.status().as_u16();
    if status < expect.0 || status > expect.1 {
        return Err(Trouble::Failed(ProbeFailure::Status(status)));
    }
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Trouble::behind(&e))?;
        read += frame.data_ref().map_or(0, Bytes::len);
        if read >= MAX_BODY_BYTES {
            break;
        }
    }
    Ok(())
}

/// Spawns what an HTTP/2 connection needs beside itself, and knows it.
#[derive(Clone, Debug, Default)]
struct Crew(Arc<Mutex<Vec<Task>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Crew {
    fn execute(&self, work: F) {
        let task = task::spawn("probe-h2", work);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

/// Ends a crew's work when dropped. The work itself holds the crew, so the crew's own end would come too late.
struct Dismiss(Crew);

impl Drop for Dismiss {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
    }
}
