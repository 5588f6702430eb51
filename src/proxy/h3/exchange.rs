//! One request and its response, on a stream of their own.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use super::super::download::Out;
use super::super::reply::Reason;
use super::super::serve::Client;
use super::super::{stages, upload};
use super::inbound::{Inbound, Link, Source};
use super::outbound::{Gone, Outbound};
use super::session::Session;
use crate::observe::names::proxy as names;
use crate::wire::h3::head::{self, Flaw};
use crate::wire::h3::request::Wrong;
use crate::wire::h3::{Code, Fault};

/// From the first octet of a head to its last (EDGE 4, gap 9).
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take to acknowledge what it was sent last.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);

/// How a request has ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// The client has the response.
    Answered,
    /// The client gave it up, or did not take it.
    GivenUp,
    /// The client broke the rules.
    Broken(Fault),
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::LongHead | Flaw::ManyFields => Self::HeadTooLarge,
            Flaw::LongTarget => Self::TargetTooLong,
            _ => Self::BadRequest,
        }
    }
}

/// Serves the request that comes on `receive`.
pub(super) async fn serve(
    client: &Arc<Client>,
    session: &Arc<Session>,
    send: SendStream,
    receive: RecvStream,
) -> Outcome {
    let (mut out, mut source) = (Outbound::new(send), Source::new(receive));
    let wrong = match timeout(HEAD, source.head(session)).await {
        Ok(Ok(head)) => match poll_fn(|cx| Poll::Ready(source.has_ended(cx))).await {
            Ok(has_ended) => return answer(client, session, *head, source, has_ended, out).await,
            Err(wrong) => wrong,
        },
        Ok(Err(Some(wrong))) => wrong,
        Ok(Err(None)) | Err(_) => {
            out.reset(Code::RequestCancelled);
            return Outcome::GivenUp;
        }
    };
    match wrong {
        Wrong::TooMuch(flaw) => {
            tracing::debug!(%flaw, peer = %client.peer.address, "a request was refused");
            let response = stages::refuse_unread(client, Reason::from(flaw));
            drop(source);
            respond(client, &mut out, false, response, None).await
        }
        Wrong::Fault(fault) => broken(client, &mut out, source, fault),
    }
}

/// Tells a client that it broke the rules.
fn broken(client: &Client, out: &mut Outbound, mut source: Source, fault: Fault) -> Outcome {
    tracing::debug!(%fault, peer = %client.peer.address, "a request was refused");
    if let Fault::Stream(code) = fault {
        names::HTTP3_FAULTS.counter(&["stream", code.as_str()]).increment(1);
        source.stop(code);
        out.reset(code);
    }
    Outcome::Broken(fault)
}

async fn answer(
    client: &Arc<Client>,
    session: &Arc<Session>,
    head: head::Request,
    source: Source,
    has_ended: bool,
    mut out: Outbound,
) -> Outcome {
    let is_head = head.method == Method::HEAD;
    let expects = head.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let (inbound, link) = if has_ended {
        (upload::Inbound::Empty, None)
    } else {
        let link = Arc::new(Link::default());
        let inbound = Inbound::new(source, Arc::clone(session), Arc::clone(client), Arc::clone(&link));
        (upload::Inbound::Quic(Box::new(inbound)), Some(link))
    };
    let mut stopped = pin!(out.stopped());
    let mut parts = parts(head);
    let response = {
        let mut passing = pin!(stages::pass(client, &mut parts, inbound));
        let mut wanted = pin!(wanted(link.as_deref().filter(|_| expects)));
        let mut is_waiting = true;
        loop {
            tokio::select! {
                biased;
                response = &mut passing => break response,
                _ = &mut stopped => {
                    // RFC 9114 section 4.1.1: what is done for it is given up too.
                    out.reset(Code::RequestCancelled);
                    return Outcome::GivenUp;
                }
                () = &mut wanted, if is_waiting => {
                    is_waiting = false;
                    // An interim answer that is not taken changes nothing: the final one is still to come.
                    let _ = out.put_interim(StatusCode::CONTINUE).await;
                }
            }
        }
    };
    let outcome = respond(client, &mut out, is_head, response, link.as_deref()).await;
    if let Outcome::Answered = outcome {
        // Only then has it been taken, and a connection may be closed.
        return match timeout(ACKNOWLEDGE, stopped).await {
            Ok(Ok(None)) => Outcome::Answered,
            _ => Outcome::GivenUp,
        };
    }
    outcome
}

/// Waits until somebody asks for the body, where the client waits for that.
async fn wanted(link: Option<&Link>) {
    match link {
        Some(link) => link.wanted.notified().await,
        None => std::future::pending().await,
    }
}

fn parts(head: head::Request) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (head.method, head.target, Version::HTTP_3, head.headers);
    parts
}

/// Sends `response`.
async fn respond(
    client: &Client,
    out: &mut Outbound,
    is_head: bool,
    response: Response<Out>,
    link: Option<&Link>,
) -> Outcome {
    if let Some(link) = link {
        link.answer();
        if let Some(code) = link.fault() {
            // A malformed request has no response (RFC 9114 section 4.1.2).
            out.reset(code);
            return Outcome::Broken(Fault::Stream(code));
        }
    }
    let (head, mut body) = response.into_parts();
    let has_none =
        head.status.is_informational() || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    // What a HEAD says of a body that it does not have stands in its fields.
    let exact = body.size_hint().exact().filter(|&octets| !(has_none || is_head && octets == 0));
    client.worker.date(|date| out.put_head(head.status, &head.headers, exact, date));
    drop(head);
    let poured = if has_none || is_head { Ok(()) } else { pour(out, &mut body, exact).await };
    drop(body);
    let sent = match poured {
        Ok(()) => out.end().await,
        Err(gone) => Err(gone),
    };
    match (sent, link.and_then(Link::fault)) {
        (Ok(()), None) => Outcome::Answered,
        (_, Some(code)) => {
            out.reset(code);
            Outcome::Broken(Fault::Stream(code))
        }
        (Err(Gone::Client), None) => {
            out.reset(Code::RequestCancelled);
            Outcome::GivenUp
        }
        (Err(Gone::Backend), None) => {
            // Nobody may take it for a whole one.
            out.reset(Code::InternalError);
            Outcome::Answered
        }
    }
}

/// Sends all of `body`, of which the head may have promised `left` octets.
async fn pour(out: &mut Outbound, body: &mut Out, mut left: Option<u64>) -> Result<(), Gone> {
    while !body.is_end_stream() {
        let next = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            // While there is nothing, what there was goes out.
            Poll::Pending if out.has_unsent() => Poll::Ready(None),
            polled => polled.map(Some),
        });
        let frame = match out.unless_stopped(next).await? {
            None => {
                out.flush().await?;
                continue;
            }
            Some(None) => break,
            Some(Some(frame)) => frame.map_err(|_| Gone::Backend)?,
        };
        match frame.into_data() {
            Ok(data) => {
                if let Some(left) = &mut left {
                    *left = left.checked_sub(data.len() as u64).ok_or(Gone::Backend)?;
                }
                out.put_data(data);
                if out.is_full() {
                    out.flush().await?;
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    out.put_trailers(&trailers);
                }
                break;
            }
        }
    }
    if left.is_some_and(|left| left > 0) { Err(Gone::Backend) } else { Ok(()) }
}

/// An empty piece of a stream.
pub(super) const NOTHING: Bytes = Bytes::new();
