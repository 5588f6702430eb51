//! Serving a client over HTTP/1: one request after the other, all in the connection's own task.
//!
//! ```text
//!   head --whole--> through the stages --response--> written --keeps--> head
//!     | flaw: refused, lingers                          | else: shut down, lingers where a body was not read
//! ```
//!
//! While a request is under way the client is watched: one that leaves takes its request with it. Responses are framed
//! anew; one that breaks off ends its connection, so that nobody takes a part for the whole.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::tunnel::{self, Tunnel};
use super::{Broken, Part, Wire};
use crate::net::stage::BodyError;
use crate::proxy::download::Out;
use crate::proxy::drain::{Order, Pulse};
use crate::proxy::line::Line;
use crate::proxy::serve::Client;
use crate::proxy::upload;
use crate::proxy::{reply::Reason, stages};
use crate::wire::h1::body::Decoder;
use crate::wire::h1::write::{self, Keeps};
use crate::wire::h1::{Flaw, Length, head};
use crate::wire::head::has_token;

/// Requests on one connection (EDGE 4, gap 9; nginx's number).
const REQUESTS: u64 = 1_000;
/// How long, and how much, is read of a client that was refused in the middle of its body: so long it can see why.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1024 * 1024);

/// A client's connection, shared with the body of the request that is under way.
type Link = Arc<Mutex<Talk>>;

/// What is said on it.
pub(super) struct Talk {
    pub(super) wire: Wire,
    /// The body of the request that is under way.
    body: Decoder,
    /// Which request that is.
    turn: u64,
    /// The client waits to be told to send its body.
    is_waiting: bool,
    /// The response has begun: from then on the two talk as they like, and nothing of the body is owed.
    is_answered: bool,
    /// Where its pace is noted.
    pulse: Arc<Pulse>,
}

pub(super) fn lock(link: &Mutex<Talk>) -> MutexGuard<'_, Talk> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a connection behind a response.
enum End {
    /// It goes on.
    Keep,
    /// It is closed.
    Close,
    /// It is closed, and what the client still sends is read for a while, or it would not see the response.
    Linger,
    /// It ends here and now, without a word.
    Cut,
    /// It is no HTTP any more.
    Tunnel(Tunnel),
}

/// What a response has to know of its request.
struct Asked {
    is_head: bool,
    version: Version,
    keeps: bool,
    takes_trailers: bool,
}

/// Serves `client` on `line` until one of the two has had enough.
pub(in crate::proxy) async fn serve(client: &Arc<Client>, line: Line) {
    let (wire, pulse) = (Wire::new(line), Arc::clone(&client.pulse));
    let talk = Talk { wire, body: Decoder::new(Length::None), turn: 0, is_waiting: false, is_answered: false, pulse };
    let link = Arc::new(Mutex::new(talk));
    client.pulse.listen(&poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    // Boxed, so that an idle connection keeps no room for a request.
    while let Some(mut exchange) = next(client, &link).await {
        match exchange.as_mut().await {
            End::Keep => {}
            End::Close => return Box::pin(close(&link)).await,
            End::Linger => return Box::pin(linger(&link)).await,
            End::Cut => return,
            End::Tunnel(tunnel) => return Box::pin(tunnel::run(tunnel, client, tunnel::Ours(&link))).await,
        }
    }
    Box::pin(close(&link)).await;
}

type Exchange<'c> = Pin<Box<dyn Future<Output = End> + Send + 'c>>;

/// The next request, ready to run. `None`: there is none.
async fn next<'c>(client: &'c Arc<Client>, link: &'c Link) -> Option<Exchange<'c>> {
    let mut may_skip = true;
    let head = poll_fn(|cx| {
        loop {
            let mut talk = lock(link);
            match client.pulse.order() {
                Order::Close => return Poll::Ready(None),
                Order::None | Order::Last | Order::Drain => {}
            }
            let polled = talk.wire.poll_head(cx, |head| match &head[..] {
                b"\r\n" => Ok(None),
                _ => head::request(head).map(Some),
            });
            match polled {
                Poll::Pending if talk.wire.has_rest() => client.pulse.heard(),
                // Asked behind the read: what the client has sent by now is still answered.
                Poll::Pending if client.pulse.order() == Order::Drain => return Poll::Ready(None),
                _ => {}
            }
            return Poll::Ready(match ready!(polled) {
                Ok(Some(Some(head))) => Some(Ok(head)),
                // Some clients send an empty line behind a body (RFC 9112 section 2.2); one.
                Ok(Some(None)) if std::mem::take(&mut may_skip) => continue,
                Ok(Some(None)) => Some(Err(Flaw::FirstLine)),
                Err(Broken::Flaw(flaw)) => Some(Err(flaw)),
                Ok(None) | Err(Broken::Cut) => None,
            });
        }
    });
    Some(match head.await? {
        Ok(head) => Box::pin(exchange(client, link, head)),
        Err(flaw) => Box::pin(refuse(client, link, flaw)),
    })
}

/// One request and its response.
async fn exchange(client: &Arc<Client>, link: &Link, head: head::Request) -> End {
    let asked = Asked {
        is_head: head.method == Method::HEAD,
        version: head.version,
        keeps: head.keeps,
        takes_trailers: head.takes_trailers,
    };
    let inbound = begin(link, &head);
    let response = {
        let mut parts = parts(head);
        let mut passing = pin!(stages::pass(client, &mut parts, inbound));
        let answered = poll_fn(|cx| {
            if client.pulse.order() == Order::Close {
                return Poll::Ready(None);
            }
            if let Poll::Ready(response) = passing.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            lock(link).poll_gone(cx).map(|()| None)
        });
        answered.await
    };
    match response {
        Some(response) => respond(client, link, &asked, response).await,
        None => End::Cut,
    }
}

/// Tells a client that its request cannot be understood.
async fn refuse(client: &Arc<Client>, link: &Link, flaw: Flaw) -> End {
    tracing::debug!(%flaw, peer = %client.peer.address, "a request was refused");
    let asked = Asked { is_head: false, version: Version::HTTP_11, keeps: false, takes_trailers: false };
    let response = stages::refuse_unread(client, Reason::from(flaw));
    match respond(client, link, &asked, response).await {
        End::Cut => End::Cut,
        _ => End::Linger,
    }
}

fn parts(head: head::Request) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri, parts.version, parts.headers) = (head.method, head.target, head.version, head.headers);
    parts
}

/// The body of the request with `head`, which begins now.
fn begin(link: &Link, head: &head::Request) -> upload::Inbound {
    let mut talk = lock(link);
    talk.turn += 1;
    talk.is_answered = false;
    talk.body = Decoder::new(head.length);
    if talk.body.has_ended() {
        return upload::Inbound::Empty;
    }
    let expects = head.headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    talk.is_waiting = expects && head.version == Version::HTTP_11;
    upload::Inbound::Line(Inbound { link: Arc::clone(link), turn: talk.turn })
}

impl Talk {
    /// Ready once the client has left. Watches only where nothing of it is unread.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.body.has_ended() || self.wire.has_rest() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx)) {
            Ok(true) => Poll::Pending,
            Ok(false) | Err(_) => Poll::Ready(()),
        }
    }

    /// The next part of the request's body.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Part, Broken>> {
        if std::mem::take(&mut self.is_waiting) && !self.wire.has_rest() {
            self.wire.out().extend_from_slice(write::CONTINUE);
        }
        // An interim answer that does not fit goes with the final one.
        let _ = self.wire.poll_flush(cx);
        let polled = self.wire.poll_part(&mut self.body, cx);
        match &polled {
            Poll::Pending if self.is_answered => {}
            Poll::Pending => self.pulse.owes(),
            Poll::Ready(Ok(Part::Data(data))) => self.pulse.brought(data.len()),
            Poll::Ready(_) => self.pulse.brought(0),
        }
        polled
    }
}

/// The body of a client's request, read from its connection.
pub(in crate::proxy) struct Inbound {
    link: Link,
    turn: u64,
}

impl Inbound {
    /// What the request's own connection says, as long as it is the request's.
    fn talk(&self) -> Option<MutexGuard<'_, Talk>> {
        Some(lock(&self.link)).filter(|talk| talk.turn == self.turn)
    }

    pub(in crate::proxy) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(mut talk) = self.talk() else { return Poll::Ready(Some(Err("the request is over".into()))) };
        if talk.body.has_ended() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(talk.poll_part(cx)) {
            Ok(Part::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Part::End(trailers)) => trailers.map(|t| Ok(Frame::trailers(*t))),
            Err(Broken::Flaw(flaw)) => Some(Err(flaw.into())),
            Err(Broken::Cut) => Some(Err("the client broke off".into())),
        })
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.talk().is_none_or(|talk| talk.body.has_ended())
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.talk().and_then(|talk| talk.body.remaining()).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// How a response is sent.
struct Plan {
    length: Length,
    has_body: bool,
    keeps: bool,
}

impl Plan {
    fn of(asked: &Asked, status: StatusCode, headers: &HeaderMap, exact: Option<u64>, may_keep: bool) -> Self {
        let has_none = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = match exact {
            // What a HEAD or 304 says of a body that it does not have stands in its fields.
            Some(0) if asked.is_head => Length::None,
            _ if has_none => Length::None,
            Some(octets) => Length::Exact(octets),
            None if asked.is_head => Length::None,
            None if asked.version == Version::HTTP_11 => Length::Chunked,
            None => Length::UntilClose,
        };
        let says_close = has_token(headers, &CONNECTION, b"close");
        Self {
            length,
            has_body: !has_none && !asked.is_head,
            keeps: asked.keeps && may_keep && !says_close && length != Length::UntilClose,
        }
    }
}

/// Sends `response`.
async fn respond(client: &Client, link: &Link, asked: &Asked, response: Response<Out>) -> End {
    let (mut head, mut body) = response.into_parts();
    let tunnel = tunnel::take(&mut head.extensions);
    // Asked before the connection is locked: the body may be the request's own.
    let exact = body.size_hint().exact();
    let plan = {
        let mut talk = lock(link);
        // Nothing comes between a response and its body, also where the request's body is read only now.
        talk.is_waiting = false;
        talk.is_answered = true;
        talk.pulse.brought(0);
        // A body that will not be read any more stands in the way of the next request.
        let is_stuck = matches!(body, Out::Whole(_)) && !talk.body.has_ended();
        let may_keep = !is_stuck && talk.turn < REQUESTS && client.pulse.order() == Order::None;
        let plan = Plan::of(asked, head.status, &head.headers, exact, may_keep);
        let keeps = match (plan.keeps, asked.version) {
            _ if tunnel.is_some() => Keeps::Yes,
            (true, Version::HTTP_11) => Keeps::Yes,
            (true, _) => Keeps::Aloud,
            (false, _) => Keeps::No,
        };
        client.worker.date(|date| {
            write::response(talk.wire.out(), head.status, &head.headers, plan.length, keeps, date);
        });
        plan
    };
    drop(head);
    let mut pour = Pour {
        has_ended: !plan.has_body,
        has_broken_off: false,
        left: None,
        plan: &plan,
        takes_trailers: asked.takes_trailers,
    };
    if let Length::Exact(octets) = plan.length {
        pour.left = Some(octets);
    }
    let poured = poll_fn(|cx| pour.poll(client, link, &mut body, cx)).await;
    drop(body);
    let mut talk = lock(link);
    // The request's body belongs to nobody any more.
    talk.turn += u64::from(poured.is_err());
    match (poured, tunnel) {
        (Err(()), _) => {
            if plan.length == Length::UntilClose {
                talk.wire.reset();
            }
            End::Cut
        }
        (Ok(()), Some(tunnel)) => End::Tunnel(tunnel),
        (Ok(()), None) if plan.keeps && talk.body.has_ended() => End::Keep,
        // A pipelined request is not answered any more, and must not cost the client the answer before it.
        (Ok(()), None) if !talk.body.has_ended() || talk.wire.has_rest() => End::Linger,
        (Ok(()), None) => End::Close,
    }
}

/// A body on its way to the client.
struct Pour<'p> {
    plan: &'p Plan,
    has_ended: bool,
    has_broken_off: bool,
    /// Octets that are still promised, where the head has promised some.
    left: Option<u64>,
    takes_trailers: bool,
}

impl Pour<'_> {
    /// Sends all of `body`. `Err`: one of the two sides broke off. What a backend said before it did is sent all the same: a
    /// client that gets nothing on a connection that was kept may well ask again, whatever it had asked for (RFC 9112
    /// section 9.3.1); one that gets a part knows what has happened.
    fn poll(&mut self, client: &Client, link: &Link, body: &mut Out, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if client.pulse.order() == Order::Close {
            return Poll::Ready(Err(()));
        }
        let mut is_dry = false;
        loop {
            let mut talk = lock(link);
            if self.has_ended || self.has_broken_off || is_dry || talk.wire.is_full() {
                let before = talk.wire.unsent();
                let flushed = talk.wire.poll_flush(cx);
                if talk.wire.unsent() < before {
                    client.pulse.wrote(false);
                }
                client.pulse.wrote(flushed.is_pending());
                ready!(flushed).map_err(|_| ())?;
                if self.has_ended || self.has_broken_off {
                    return Poll::Ready(if self.has_broken_off { Err(()) } else { Ok(()) });
                }
            }
            if is_dry {
                return talk.poll_gone(cx).map(|()| Err(()));
            }
            // The body may itself read from the client.
            drop(talk);
            let polled = if body.is_end_stream() { Poll::Ready(None) } else { Pin::new(&mut *body).poll_frame(cx) };
            let went = match polled {
                Poll::Ready(Some(Ok(frame))) => self.add(link, frame),
                Poll::Ready(Some(Err(_))) => Err(()),
                Poll::Ready(None) => self.end(link, None),
                Poll::Pending => {
                    is_dry = true;
                    Ok(())
                }
            };
            self.has_broken_off = went.is_err();
        }
    }

    fn add(&mut self, link: &Link, frame: Frame<Bytes>) -> Result<(), ()> {
        match frame.into_data() {
            Ok(data) => {
                if let Some(left) = &mut self.left {
                    // More than was promised would be read as the next response.
                    *left = left.checked_sub(data.len() as u64).ok_or(())?;
                }
                lock(link).wire.add(data, self.plan.length == Length::Chunked);
                Ok(())
            }
            Err(frame) => self.end(link, frame.into_trailers().ok().as_ref()),
        }
    }

    fn end(&mut self, link: &Link, trailers: Option<&HeaderMap>) -> Result<(), ()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(());
        }
        if self.plan.length == Length::Chunked {
            let trailers = trailers.filter(|_| self.takes_trailers);
            write::last_chunk(lock(link).wire.out(), trailers);
        }
        self.has_ended = true;
        Ok(())
    }
}

/// Closes a connection on which everything was said.
async fn close(link: &Link) {
    // It is closed all the same, also where the client takes no goodbye.
    let _ = tokio::time::timeout(LINGER.0, poll_fn(|cx| lock(link).wire.poll_end(cx))).await;
}

/// Closes a connection whose client may still be sending. Closing at once would reset it, and with it the response.
async fn linger(link: &Link) {
    let discard = poll_fn(|cx| {
        let mut talk = lock(link);
        let _ = talk.wire.poll_end(cx);
        let mut read = 0;
        loop {
            read += talk.wire.discard();
            if read > LINGER.1 || !ready!(talk.wire.poll_fill(cx)).unwrap_or(false) {
                return Poll::Ready(());
            }
        }
    });
    let _ = tokio::time::timeout(LINGER.0, discard).await;
}
