//! HTTP/2 connections to a backend: one while it suffices, another when its streams are taken.
//!
//! Many requests share a connection, so it is driven by a task of its own, which ends with the last of its users. Streams
//! are capped well below what servers allow: all of them take turns at one lock, and one lost packet holds all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep};

use super::Slot;
use super::h1::Failure;
use crate::base::clock::Mono;
use crate::base::task::{self, Task};
use crate::proxy::line::Line;
use crate::proxy::upload::Upload;

/// Streams on one connection before another is made (EDGE 5: 64 to 100).
const STREAMS: u32 = 100;
/// How often a connection with open streams is asked whether it lives, and how long it may think about it (ours).
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Largest list of response headers taken.
const HEADERS_BYTES: u32 = 64 * 1024;

/// A connection with the task that drives it.
pub(super) struct H2 {
    sender: http2::SendRequest<Upload>,
    streams: AtomicU32,
    born: Mono,
    _task: Task,
    _slot: Slot,
}

/// The right to one stream.
pub(in crate::proxy) struct Stream {
    line: Arc<H2>,
    /// How long its connection took to make, where it was made for this one.
    pub(in crate::proxy) connect: Option<Duration>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.line.streams.fetch_sub(1, Relaxed);
    }
}

impl H2 {
    /// Begins to speak HTTP/2 on `line`.
    pub(super) async fn over(line: Line, slot: Slot, now: Mono) -> Result<Self, hyper::Error> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .max_header_list_size(HEADERS_BYTES)
            .handshake(TokioIo::new(line))
            .await?;
        let task = task::spawn("upstream h2", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend broke");
            }
        });
        Ok(Self { sender, streams: AtomicU32::new(0), born: now, _task: task, _slot: slot })
    }

    /// A stream on the first of `lines` that has one to give. Connections that are closed, or older than `born_after`
    /// allows and unused, leave the list.
    pub(super) fn borrow(lines: &mut Vec<Arc<Self>>, born_after: Mono) -> Option<Stream> {
        lines.retain(|line| line.is_usable(born_after));
        let line = lines.iter().find(|line| line.streams.load(Relaxed) < STREAMS)?;
        line.streams.fetch_add(1, Relaxed);
        Some(Stream { line: Arc::clone(line), connect: None })
    }

    /// Whether it is open, and young enough or in use.
    pub(super) fn is_usable(&self, born_after: Mono) -> bool {
        !self.sender.is_closed() && (self.born >= born_after || self.streams.load(Relaxed) > 0)
    }
}

impl Stream {
    /// Sends `request` and waits for the head of the response, until `until` and as long after that as `late` says.
    /// The timer comes back for whoever reads the body.
    pub(in crate::proxy) async fn send(
        &self,
        request: Request<Upload>,
        until: Instant,
        mut late: impl FnMut() -> Option<Instant>,
    ) -> Result<(Response<Incoming>, Pin<Box<Sleep>>), Failure> {
        let mut sender = self.line.sender.clone();
        let mut sending = std::pin::pin!(sender.try_send_request(request));
        let mut timer = Box::pin(tokio::time::sleep_until(until));
        let answered = std::future::poll_fn(|cx| {
            if let Poll::Ready(answered) = sending.as_mut().poll(cx) {
                return Poll::Ready(answered.map_err(|mut error| match error.take_message() {
                    Some(_) => Failure::Unsent,
                    None if is_unprocessed(error.error()) => Failure::Unprocessed,
                    None => Failure::Broken,
                }));
            }
            while timer.as_mut().poll(cx).is_ready() {
                match late() {
                    Some(until) => timer.as_mut().reset(until),
                    None => return Poll::Ready(Err(Failure::Late)),
                }
            }
            Poll::Pending
        })
        .await?;
        Ok((answered, timer))
    }
}

/// Whether the peer has said that it has not begun with the request, and never will (RFC 9113 sections 6.8 and 8.7).
fn is_unprocessed(error: &hyper::Error) -> bool {
    let said = std::error::Error::source(error).and_then(|source| source.downcast_ref::<::h2::Error>());
    said.is_some_and(|e| e.is_remote() && (e.is_go_away() || e.reason() == Some(::h2::Reason::REFUSED_STREAM)))
}
