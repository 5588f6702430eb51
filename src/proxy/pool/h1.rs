//! One HTTP/1.1 connection to a backend, driven by whoever uses it.
//!
//! There is no task behind it: the request that borrows a connection polls it, and so does the response body after it. So
//! an answer wakes one task, heads are written from where they stand, and dropping the request closes the connection, which
//! is how HTTP/1.1 says "never mind". An idle connection is not polled at all; that its peer has closed it is found out when
//! it is next used, before a byte of the request is written, or by the pool's sweep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Slot;
use crate::base::clock::Mono;
use crate::proxy::h1::{Part, Wire};
use crate::proxy::line::Line;
use crate::proxy::upload::Upload;
use crate::wire::h1::body::Decoder;
use crate::wire::h1::{Length, head, write};
use crate::wire::proxy_line::Ends;

/// Interim responses that are passed over before one counts as broken (ours).
const INTERIMS: u32 = 16;

/// A connection.
pub(in crate::proxy) struct H1 {
    wire: Wire,
    /// The body of the response.
    body: Decoder,
    upload: Option<Sending>,
    /// Whether it can go on after what is under way.
    keeps: bool,
    timer: Pin<Box<Sleep>>,
    _slot: Slot,
    /// For which connection of a client it is, where the backend was told.
    pub(super) whom: Option<Box<Ends>>,
    /// How long it took to make it.
    pub(super) connect: Duration,
    /// When it was made.
    pub(super) born: Mono,
    /// Since when it has been idle.
    pub(super) idle_since: Mono,
    /// How many responses it has brought.
    pub(in crate::proxy) served: u32,
}

/// A request's body on its way.
struct Sending {
    upload: Upload,
    in_chunks: bool,
    /// Octets that the head has promised and that are still to come.
    left: Option<u64>,
}

/// The head of a request, as it stands with whoever sends it.
pub(in crate::proxy) struct Ask<'a> {
    /// The method.
    pub(in crate::proxy) method: &'a Method,
    /// Path and query.
    pub(in crate::proxy) target: &'a str,
    /// Its fields, less those that frame the body.
    pub(in crate::proxy) headers: &'a HeaderMap,
}

/// How a try on a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Failure {
    /// Nothing was written.
    Unsent,
    /// The backend said that it has not begun with it (HTTP/2: REFUSED_STREAM, or GOAWAY below the stream).
    Unprocessed,
    /// The connection broke, or what came is not HTTP.
    Broken,
    /// The timer ran out.
    Late,
}

impl H1 {
    /// Over `line`, which is new.
    pub(super) fn over(line: Line, slot: Slot, now: Mono) -> Box<Self> {
        Box::new(Self {
            wire: Wire::new(line),
            body: Decoder::new(Length::None),
            upload: None,
            keeps: true,
            timer: Box::pin(tokio::time::sleep(Duration::from_hours(1))),
            _slot: slot,
            whom: None,
            connect: Duration::ZERO,
            born: now,
            idle_since: now,
            served: 0,
        })
    }

    /// How long it took to make it, where the response under way is its first.
    pub(in crate::proxy) fn connect(&self) -> Option<Duration> {
        (self.served == 1).then_some(self.connect)
    }

    /// Sets the timer. It is moved, not made anew: pushing a timer back costs a compare-and-swap.
    pub(in crate::proxy) fn arm(&mut self, until: Instant) {
        self.timer.as_mut().reset(until);
    }

    /// Whether the timer has run out; registers the task otherwise.
    pub(in crate::proxy) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }

    /// Sends a request, with the lines of `more` behind its fields, and waits for the head of its response. `late` is asked when the timer has run out: it says until
    /// when to go on waiting, if at all.
    pub(in crate::proxy) async fn send(
        &mut self,
        ask: &Ask<'_>,
        more: impl Fn(&mut Vec<u8>),
        upload: Upload,
        mut late: impl FnMut() -> Option<Instant>,
    ) -> Result<head::Response, Failure> {
        let mut upload = Some(upload);
        let mut interims = 0;
        std::future::poll_fn(|cx| {
            if let Some(upload) = upload.take() {
                // Whatever comes before anything was asked is an end, or nothing that could be trusted.
                if self.served > 0 && self.wire.poll_fill(cx).is_ready() {
                    return Poll::Ready(Err(Failure::Unsent));
                }
                self.begin(ask, &more, upload);
            }
            self.poll_upload(cx).map_err(|()| Failure::Broken)?;
            while let Poll::Ready(read) = self.wire.poll_head(cx, |octets| head::response(octets, ask.method)) {
                let head = read.ok().flatten().ok_or(Failure::Broken)?;
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    interims += 1;
                    if interims > INTERIMS {
                        return Poll::Ready(Err(Failure::Broken));
                    }
                    continue;
                }
                self.served += 1;
                self.body = Decoder::new(head.length);
                self.keeps = head.keeps && head.status != StatusCode::SWITCHING_PROTOCOLS;
                return Poll::Ready(Ok(head));
            }
            while self.poll_timer(cx).is_ready() {
                match late() {
                    Some(until) => self.arm(until),
                    None => return Poll::Ready(Err(Failure::Late)),
                }
            }
            Poll::Pending
        })
        .await
    }

    fn begin(&mut self, ask: &Ask<'_>, more: &impl Fn(&mut Vec<u8>), upload: Upload) {
        let length = match upload.size_hint().exact() {
            // A body that is not there is said to be empty only where one is expected (RFC 9110 section 8.6).
            Some(0) if upload.is_end_stream() => match *ask.method {
                Method::POST | Method::PUT | Method::PATCH => Length::Exact(0),
                _ => Length::None,
            },
            Some(octets) if !upload.has_trailers() => Length::Exact(octets),
            _ => Length::Chunked,
        };
        write::request(self.wire.out(), ask.method, ask.target, ask.headers, more, length);
        let left = if let Length::Exact(octets) = length { Some(octets) } else { None };
        let sending = Sending { upload, in_chunks: length == Length::Chunked, left };
        self.upload = Some(sending).filter(|s| !s.upload.is_end_stream());
        self.keeps = true;
    }

    /// Writes what there is of the request. `Err`: its body broke off.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), ()> {
        loop {
            let mut is_dry = self.upload.is_none();
            if let Some(sending) = self.upload.as_mut().filter(|_| !self.wire.is_full()) {
                match sending.next(&mut self.wire, cx) {
                    Poll::Ready(Ok(true)) => self.upload = None,
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(())) => {
                        self.keeps = false;
                        return Err(());
                    }
                    Poll::Pending => is_dry = true,
                }
                if !is_dry {
                    continue;
                }
            }
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) if is_dry => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Ok(()),
                // It takes no more. It may have answered all the same.
                Poll::Ready(Err(_)) => {
                    (self.upload, self.keeps) = (None, false);
                    return Ok(());
                }
            }
        }
    }

    /// The next frame of the response's body.
    pub(in crate::proxy) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        // The last of a request may still stand here when its response begins.
        if (self.upload.is_some() || self.wire.unsent() > 0) && self.poll_upload(cx).is_err() {
            return Poll::Ready(Some(Err(())));
        }
        if self.body.has_ended() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.wire.poll_part(&mut self.body, cx)) {
            Ok(Part::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Part::End(trailers)) => trailers.map(|t| Ok(Frame::trailers(*t))),
            Err(_) => {
                self.keeps = false;
                Some(Err(()))
            }
        })
    }

    /// Whether all of the response's body was read.
    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.body.has_ended()
    }

    /// What is known of the length of what is still to come.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// What it is spoken over, for a tunnel.
    pub(in crate::proxy) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Whether it can carry another request, now that a response has ended. Octets that nobody asked for, or a request that
    /// was not sent to its end, say no.
    pub(super) fn is_reusable(&self) -> bool {
        self.keeps && self.body.has_ended() && self.upload.is_none() && self.wire.unsent() == 0 && !self.wire.has_rest()
    }

    /// Looks whether the peer has closed it, or sent what nobody asked for, while it was idle.
    pub(super) fn is_alive_idle(&mut self) -> bool {
        self.wire.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

impl Sending {
    /// Adds the next piece to what `wire` is to write. `true`: it was the last one.
    fn next(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Result<bool, ()>> {
        let frame = match ready!(Pin::new(&mut self.upload).poll_frame(cx)) {
            Some(frame) => frame.map_err(|_| ())?,
            None => return Poll::Ready(self.end(wire, None)),
        };
        match frame.into_data() {
            Ok(data) => {
                if let Some(left) = &mut self.left {
                    *left = left.checked_sub(data.len() as u64).ok_or(())?;
                }
                wire.add(data, self.in_chunks);
                let is_last = self.upload.is_end_stream() && !wire.is_full();
                Poll::Ready(if is_last { self.end(wire, None) } else { Ok(false) })
            }
            Err(frame) => Poll::Ready(self.end(wire, frame.into_trailers().ok().as_ref())),
        }
    }

    fn end(&self, wire: &mut Wire, trailers: Option<&HeaderMap>) -> Result<bool, ()> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(());
        }
        if self.in_chunks {
            write::last_chunk(wire.out(), trailers);
        }
        Ok(true)
    }
}
