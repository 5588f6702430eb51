//! The body of a response on its way to the client.
//!
//! What came whole with its head goes out whole, and the connection to the backend is free again before the client has
//! a byte. Anything longer is streamed as fast as the client takes it. If the backend fails half-way, so does the
//! response: a reset or an unfinished message, never a clean end that hides what is missing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use smallvec::SmallVec;
use tokio::time::Sleep;

use super::pool::h1::H1;
use super::pool::{Pool, h2};
use super::reply::Reason;
use super::tally::{Entry, Try};
use super::upload::Witness;
use super::worker::Worker;
use crate::base::clock::Mono;
use crate::base::task::Task;
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
struct BrokeOff;

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
            Self::Streamed(streamed) => streamed.early.is_empty() && streamed.body.is_end_stream(),
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

/// The connection that a response comes over.
pub(super) enum Line {
    /// A whole connection.
    H1(H1),
    /// A stream of one.
    H2 {
        /// Held until the response ends.
        _stream: h2::Stream,
        /// Ours to set.
        timer: Pin<Box<Sleep>>,
    },
    /// A whole connection with a task of its own, which ends with the response.
    Own(Task),
}

/// What of a body has come with its head.
type Early = SmallVec<[Frame<Bytes>; 2]>;

/// A response that comes in pieces.
pub(super) struct Streamed {
    /// What has come already.
    early: Early,
    body: Incoming,
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
    mut body: Incoming,
    line: Line,
    upload: Option<Witness>,
    pool: &Arc<Pool>,
    worker: &Arc<Worker>,
    attempt: Try,
    now: Mono,
) -> Result<Out, Try> {
    let (mut line, mut early) = (Some(line), Early::default());
    // Most responses are short and came in one piece with their head: look, but don't wait.
    let seen = std::future::poll_fn(|cx| Poll::Ready(look(&mut body, &mut line, &mut early, cx))).await;
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
        if let Some(Line::H1(h1)) = line.take() {
            pool.rest(h1, now);
        }
        attempt.end(now);
        return Ok(Out::Whole(data.filter(|b| !b.is_empty())));
    }
    let (pool, worker, attempt) = (Arc::clone(pool), Arc::clone(worker), Some(attempt));
    early.reverse();
    Ok(Out::Streamed(Box::new(Streamed {
        early,
        body,
        line,
        pool,
        worker,
        upload,
        attempt,
        entry: None,
        is_armed: false,
    })))
}

/// Takes what is there of `body` already: at most two frames. Whether that is all of it.
fn look(
    body: &mut Incoming,
    line: &mut Option<Line>,
    early: &mut Early,
    cx: &mut Context<'_>,
) -> Result<bool, BrokeOff> {
    let mut is_moved = false;
    while early.len() < 2 && !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => early.push(frame),
            Poll::Ready(Some(Err(_))) => return Err(BrokeOff),
            Poll::Ready(None) => return Ok(true),
            Poll::Pending => match line {
                // What follows a chunk may be there already, behind a channel that holds one.
                Some(Line::H1(h1)) if !std::mem::replace(&mut is_moved, true) => drop(h1.poll_line(cx)),
                _ => break,
            },
        }
    }
    Ok(body.is_end_stream())
}

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.early.pop() {
            if self.early.is_empty() && (frame.is_trailers() || self.body.is_end_stream()) {
                self.finish(None);
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Poll::Ready(frame) = self.poll_body(cx) {
            return Poll::Ready(frame);
        }
        // The connection has no task: it moves only when it is moved from here, and wakes us when it can move again.
        let is_over = match &mut self.line {
            Some(Line::H1(h1)) => h1.poll_line(cx).is_ready(),
            Some(Line::H2 { .. } | Line::Own(_)) | None => false,
        };
        if let Poll::Ready(frame) = self.poll_body(cx) {
            return Poll::Ready(frame);
        }
        if is_over {
            return self.break_off(Outcome::Reset);
        }
        if self.poll_stall(cx).is_ready() { self.break_off(Outcome::Timeout) } else { Poll::Pending }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.is_armed = false;
                // Nobody asks for more after trailers.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.finish(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(_)) => self.break_off(Outcome::Reset),
            None => {
                self.finish(None);
                Poll::Ready(None)
            }
        }
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_armed = std::mem::replace(&mut self.is_armed, true);
        let until = || self.worker.instant(self.worker.now() + STALL);
        match &mut self.line {
            Some(Line::H1(h1)) => {
                if !is_armed {
                    h1.arm(until());
                }
                h1.poll_timer(cx)
            }
            Some(Line::H2 { timer, .. }) => {
                if !is_armed {
                    timer.as_mut().reset(until());
                }
                timer.as_mut().poll(cx)
            }
            // Answers to an upgrade that was not made are short; the client's patience is enough for them.
            Some(Line::Own(_)) | None => Poll::Pending,
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

    fn size_hint(&self) -> SizeHint {
        let early: u64 = self.early.iter().filter_map(|f| f.data_ref()).map(|d| d.len() as u64).sum();
        let mut hint = self.body.size_hint();
        match hint.exact() {
            Some(rest) => hint.set_exact(rest + early),
            None => hint.set_lower(hint.lower() + early),
        }
        hint
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // Nobody asks for more of a body that says of itself that it has ended.
        if self.attempt.is_some() && self.early.is_empty() && self.body.is_end_stream() {
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
