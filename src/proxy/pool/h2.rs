//! HTTP/2 connections to a backend: one while it suffices, another when its streams are taken.
//!
//! Many requests share a connection, so it is driven by a task of its own, which ends with the last of its users. Streams
//! are capped well below what servers allow: all of them take turns at one lock, and one lost packet holds all of them.
//! Tunnels (RFC 8441) share connections of their own, on which none can take the others' room by not reading.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Slot;
use super::h1::Failure;
use crate::base::clock::Mono;
use crate::base::task::{self, Task};
use crate::proxy::line::Line;
use crate::proxy::upload::Upload;
use crate::wire::h2::{HEAD, Reader, Seen};

/// Streams on one connection before another is made (EDGE 5: 64 to 100).
const STREAMS: u32 = 100;
/// How often a connection with open streams is asked whether it lives, and how long it may think about it (ours).
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Largest list of response headers taken.
const HEADERS_BYTES: u32 = 64 * 1024;
/// Octets of a tunnel that may wait here for a client that does not take them; of all on a connection, so many that each has
/// its own.
const TUNNEL_WINDOW: u32 = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// Requests.
    Requests,
    /// Tunnels.
    Tunnels,
}

/// A connection with the task that drives it.
pub(super) struct H2 {
    sender: http2::SendRequest<Upload>,
    streams: AtomicU32,
    born: Mono,
    /// Whether the peer takes extended CONNECT, once it has said so or not.
    takes_connect: watch::Receiver<Option<bool>>,
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
    pub(super) async fn over(line: Line, purpose: Purpose, slot: Slot, now: Mono) -> Result<Self, hyper::Error> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING.0)
            .keep_alive_timeout(PING.1)
            .max_header_list_size(HEADERS_BYTES);
        if purpose == Purpose::Tunnels {
            builder.initial_stream_window_size(TUNNEL_WINDOW).initial_connection_window_size(TUNNEL_WINDOW * STREAMS);
        }
        let (tell, takes_connect) = watch::channel(None);
        let greeted = Greeted { line, greeting: Some(Box::new(Greeting::new(tell))) };
        let (sender, connection) = builder.handshake(TokioIo::new(greeted)).await?;
        let task = task::spawn("upstream h2", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an HTTP/2 connection to a backend broke");
            }
        });
        Ok(Self { sender, streams: AtomicU32::new(0), born: now, takes_connect, _task: task, _slot: slot })
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
    /// Whether the peer takes extended CONNECT. It says so at once, if at all: that is waited for, `timeout` at the most.
    pub(in crate::proxy) async fn takes_connect(&self, timeout: Duration) -> bool {
        let mut told = self.line.takes_connect.clone();
        let known = tokio::time::timeout(timeout, told.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(takes)) if *takes == Some(true))
    }

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

/// A connection to a backend, with an ear for what it says first.
struct Greeted {
    line: Line,
    /// `None` once that is known.
    greeting: Option<Box<Greeting>>,
}

/// The SETTINGS that a server begins with (RFC 9113 section 3.4), as they come.
struct Greeting {
    reader: Reader,
    /// Octets that were read, and that they are.
    read: usize,
    whole: Option<usize>,
    takes_connect: bool,
    tell: watch::Sender<Option<bool>>,
}

impl Greeting {
    fn new(tell: watch::Sender<Option<bool>>) -> Self {
        Self { reader: Reader::of_server(), read: 0, whole: None, takes_connect: false, tell }
    }

    /// Whether all of it has come with `octets`.
    fn hear(&mut self, octets: &[u8]) -> bool {
        let Self { reader, whole, takes_connect, .. } = self;
        reader.read(octets, |seen| match seen {
            Seen::Frame(frame) => *whole = whole.or(Some(HEAD + frame.length as usize)),
            Seen::ConnectProtocol(takes) => *takes_connect = takes,
            Seen::InitialWindow(_) => {}
        });
        self.read += octets.len();
        let is_whole = self.whole.is_some_and(|whole| self.read >= whole);
        if is_whole {
            // Who does not listen has no tunnel to open.
            let _ = self.tell.send(Some(self.takes_connect));
        }
        is_whole
    }
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.line).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        self.greeting.take_if(|greeting| greeting.hear(fresh));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_tells_whether_tunnels_are_taken() {
        let settings = |entries: &[u8]| [&[0, 0, entries.len() as u8, 4, 0, 0, 0, 0, 0], entries].concat();
        for (octets, expected) in [
            (settings(&[]), Some(false)),
            (settings(&[0, 8, 0, 0, 0, 1]), Some(true)),
            (settings(&[0, 3, 0, 0, 0, 100, 0, 8, 0, 0, 0, 1]), Some(true)),
            (settings(&[0, 8, 0, 0, 0, 0]), Some(false)),
            (vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0], None),
        ] {
            for piece in [1, 3, 100] {
                let (tell, told) = watch::channel(None);
                let mut greeting = Greeting::new(tell);
                let is_whole = octets.chunks(piece).any(|octets| greeting.hear(octets));
                assert_eq!((is_whole, *told.borrow()), (expected.is_some(), expected), "{octets:?}");
            }
        }
    }
}
