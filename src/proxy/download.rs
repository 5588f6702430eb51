//! The body of a response on its way to the client.
//!
//! What came whole with its head goes out whole, and the connection to the backend is free again before the client has
//! a byte. Anything longer is streamed as fast as the client takes it. If the backend fails half-way, so does the
//! response: a reset or an unfinished message, never a clean end that hides what is missing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use smallvec::SmallVec;
use tokio::time::{Instant, Sleep};

use super::pool::h1::H1;
use super::pool::{Pool, h2};
use super::reply::Reason;
use super::tally::{Entry, Try};
use super::upload::Witness;
use super::worker::Worker;
use crate::base::clock::Mono;
use crate::net::stage::{self, Body, BodyError};
use crate::snapshot::load::Outcome;

/// How long a backend may be silent in the middle of a body while the client waits for more (ours; nginx and Envoy: 60 s
/// and 300 s).
const STALL: Duration = Duration::from_mins(1);

/// The body of a response.
pub(super) enum Out {
    /// All of it; `None` is empty.
    Whole(Option<Bytes>),
    /// As it comes from a backend.
    Streamed(Box<Streamed>),
    /// From a stage of the embedder.
    Boxed(Box<Watched>),
}

/// Why a response broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the backend broke off")]
pub(super) struct BrokeOff;

impl Out {
    /// All of it.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// From a stage.
    pub(super) fn boxed(body: Body) -> Self {
        Self::Boxed(Box::new(Watched { body, entry: None }))
    }

    /// For a stage.
    pub(super) fn into_body(self) -> Body {
        match self {
            Self::Whole(bytes) => stage::full(bytes.unwrap_or_default()),
            Self::Streamed(_) => self.boxed_unsync(),
            Self::Boxed(mut watched) => std::mem::replace(&mut watched.body, stage::empty()),
        }
    }

    /// Has `entry` end when the body does. Gives it back where the body is whole already.
    pub(super) fn watch(&mut self, entry: Entry) -> Option<Entry> {
        match self {
            Self::Whole(_) => return Some(entry),
            Self::Streamed(streamed) => streamed.entry = Some(entry),
            Self::Boxed(watched) => watched.entry = Some(entry),
        }
        None
    }
}

impl HttpBody for Out {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
            Self::Boxed(watched) => watched.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed(streamed) => streamed.early.is_empty() && streamed.is_received(),
            Self::Boxed(watched) => watched.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Streamed(streamed) => streamed.size_hint(),
            Self::Boxed(watched) => watched.body.size_hint(),
        }
    }
}

/// What a response comes over, with what is still to come of its body.
pub(super) enum Line {
    /// A whole connection.
    H1(Box<H1>),
    /// A stream of one.
    H2 {
        /// The body.
        body: Incoming,
        /// Held until the response ends.
        stream: h2::Stream,
        /// Ours to set.
        timer: Pin<Box<Sleep>>,
    },
}

impl Line {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match self {
            Self::H1(h1) => h1.poll_frame(cx).map_err(|()| BrokeOff),
            Self::H2 { body, .. } => Pin::new(body).poll_frame(cx).map_err(|_| BrokeOff),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::H1(h1) => h1.is_end_stream(),
            Self::H2 { body, .. } => body.is_end_stream(),
        }
    }

    /// How long it took to connect, where that was done for this response.
    pub(super) fn connect(&self) -> Option<Duration> {
        match self {
            Self::H1(h1) => h1.connect(),
            Self::H2 { stream, .. } => stream.connect,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::H1(h1) => h1.size_hint(),
            Self::H2 { body, .. } => body.size_hint(),
        }
    }

    fn arm(&mut self, until: Instant) {
        match self {
            Self::H1(h1) => h1.arm(until),
            Self::H2 { timer, .. } => timer.as_mut().reset(until),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(h1) => h1.poll_timer(cx),
            Self::H2 { timer, .. } => timer.as_mut().poll(cx),
        }
    }
}

/// What of a body has come with its head.
type Early = SmallVec<[Frame<Bytes>; 2]>;

/// A response that comes in pieces.
pub(super) struct Streamed {
    /// What has come already.
    early: Early,
    /// `None` once it has ended.
    line: Option<Line>,
    pool: Arc<Pool>,
    worker: Arc<Worker>,
    upload: Option<Witness>,
    attempt: Option<Try>,
    entry: Option<Entry>,
    is_armed: bool,
}

/// Turns the body of a backend's response into ours. `attempt` had its head `now`; it ends with the body.
///
/// # Errors
/// The body broke off before any of it was passed on: the attempt has failed, and another may follow.
pub(super) async fn carry(
    mut line: Line,
    upload: Option<Witness>,
    pool: &Arc<Pool>,
    worker: &Arc<Worker>,
    mut attempt: Try,
    now: Mono,
) -> Result<Out, Try> {
    let mut early = Early::default();
    // Most responses are short and came in one piece with their head: look, but don't wait.
    let seen = std::future::poll_fn(|cx| Poll::Ready(look(&mut line, &mut early, cx))).await;
    let is_whole = match seen {
        Ok(is_whole) => is_whole,
        Err(BrokeOff) => return Err(attempt),
    };
    let data = match early.as_slice() {
        [] => Some(None),
        [frame] => frame.data_ref().cloned().map(Some),
        _ => None,
    };
    if let (true, Some(data)) = (is_whole, data) {
        if let Line::H1(h1) = line {
            pool.rest(h1, now);
        }
        attempt.received = data.as_ref().map_or(0, |data| data.len() as u64);
        attempt.end(now);
        return Ok(Out::Whole(data.filter(|b| !b.is_empty())));
    }
    let (pool, worker, attempt, line) = (Arc::clone(pool), Arc::clone(worker), Some(attempt), Some(line));
    early.reverse();
    Ok(Out::Streamed(Box::new(Streamed { early, line, pool, worker, upload, attempt, entry: None, is_armed: false })))
}

/// Takes what is there of a body already: at most two frames. Whether that is all of it.
fn look(line: &mut Line, early: &mut Early, cx: &mut Context<'_>) -> Result<bool, BrokeOff> {
    while early.len() < 2 && !line.is_end_stream() {
        match line.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => early.push(frame),
            Poll::Ready(Some(Err(broke_off))) => return Err(broke_off),
            Poll::Ready(None) => return Ok(true),
            Poll::Pending => break,
        }
    }
    Ok(line.is_end_stream())
}

impl Streamed {
    /// Whether the backend has nothing more to send.
    fn is_received(&self) -> bool {
        self.line.as_ref().is_none_or(Line::is_end_stream)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.early.pop() {
            self.passes(&frame);
            if self.early.is_empty() && (frame.is_trailers() || self.is_received()) {
                self.finish(None);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(line) = &mut self.line else { return Poll::Ready(None) };
        match line.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.is_armed = false;
                self.passes(&frame);
                // Nobody asks for more after trailers.
                if frame.is_trailers() || self.is_received() {
                    self.finish(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(BrokeOff))) => self.break_off(Outcome::Reset),
            Poll::Ready(None) => {
                self.finish(None);
                Poll::Ready(None)
            }
            Poll::Pending => {
                if !std::mem::replace(&mut self.is_armed, true) {
                    line.arm(self.worker.instant(self.worker.now() + STALL));
                }
                ready!(line.poll_timer(cx));
                self.break_off(Outcome::Timeout)
            }
        }
    }

    /// `frame` goes to the client.
    fn passes(&mut self, frame: &Frame<Bytes>) {
        let octets = frame.data_ref().map_or(0, Bytes::len);
        if let Some(entry) = &mut self.entry {
            entry.passed(octets);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.received += octets as u64;
        }
    }

    fn break_off(&mut self, outcome: Outcome) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // A backend may well hang up on a body that broke off, or that we cut.
        let is_ours = self.upload.as_ref().is_some_and(Witness::blames_client);
        self.finish(Some(if is_ours { Outcome::Cancelled } else { outcome }));
        Poll::Ready(Some(Err(Box::new(BrokeOff))))
    }

    /// The body has ended: as a whole, or with `failure`.
    fn finish(&mut self, failure: Option<Outcome>) {
        let now = self.worker.now();
        let line = self.line.take();
        self.note_upload();
        if let Some(attempt) = self.attempt.take() {
            match failure {
                Some(outcome) => attempt.fail(outcome, now),
                None => attempt.end(now),
            }
        }
        if let (None, Some(Line::H1(h1))) = (failure, line) {
            self.pool.rest(h1, now);
        }
        if let Some(mut entry) = self.entry.take() {
            entry.reason = entry.reason.or(failure.map(|_| Reason::Truncated));
            entry.end(now);
        }
    }

    /// Notes how much of the request's body has passed, and whether it was that which broke off.
    fn note_upload(&mut self) {
        let Some(upload) = &self.upload else { return };
        let (taken, is_ours) = (upload.taken(), upload.blames_client());
        if let Some(attempt) = &mut self.attempt {
            attempt.sent = taken;
        }
        if let Some(entry) = &mut self.entry {
            entry.received = taken;
            if is_ours {
                entry.blame_client();
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.early.iter().any(Frame::is_trailers) {
            // A body of known length has no room for trailers.
            return SizeHint::default();
        }
        let early: u64 = self.early.iter().filter_map(|f| f.data_ref()).map(|d| d.len() as u64).sum();
        let mut hint = self.line.as_ref().map_or_else(|| SizeHint::with_exact(0), Line::size_hint);
        match hint.exact() {
            Some(rest) => hint.set_exact(rest + early),
            None => hint.set_lower(hint.lower() + early),
        }
        hint
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.note_upload();
        // Nobody asks for more of a body that says of itself that it has ended.
        if self.attempt.is_some() && self.early.is_empty() && self.is_received() {
            self.finish(None);
        }
    }
}

/// A stage's body, and the request that ends with it.
pub(super) struct Watched {
    body: Body,
    entry: Option<Entry>,
}

impl Watched {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(entry), Poll::Ready(Some(Ok(frame)))) = (&mut self.entry, &polled) {
            entry.passed(frame.data_ref().map_or(0, Bytes::len));
        }
        let reason = match &polled {
            Poll::Pending => return polled,
            Poll::Ready(Some(Err(_))) => Some(Reason::Truncated),
            Poll::Ready(Some(Ok(_))) if !self.body.is_end_stream() => return polled,
            Poll::Ready(_) => None,
        };
        if let Some(mut entry) = self.entry.take() {
            entry.reason = entry.reason.or(reason);
            let now = entry.client.worker.now();
            entry.end(now);
        }
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take_if(|_| self.body.is_end_stream()) {
            let now = entry.client.worker.now();
            entry.end(now);
        }
    }
}
