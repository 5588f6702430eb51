//! One HTTP/1.1 connection to a backend, driven by whoever uses it.
//!
//! There is no task behind it: the request that borrows a connection polls it, and so does the response body after it. So
//! an answer wakes one task instead of three, and dropping the request closes the connection, which is how HTTP/1.1 says
//! "never mind". An idle connection is not polled at all; that its peer has closed it is found out when it is next used,
//! before a byte of the request is written, or by the pool's sweep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use super::{Line, Slot};
use crate::base::clock::Mono;
use crate::proxy::upload::Upload;

/// Largest head of a response; and how much of a body is read at a time (BASELINE e: large reads are what makes large
/// bodies cheap).
const BUFFER_BYTES: usize = 128 * 1024;

/// A connection.
pub(in crate::proxy) struct H1 {
    sender: http1::SendRequest<Upload>,
    line: Option<Box<http1::Connection<TokioIo<Line>, Upload>>>,
    timer: Pin<Box<Sleep>>,
    _slot: Slot,
    /// When it was made.
    pub(super) born: Mono,
    /// Since when it has been idle.
    pub(super) idle_since: Mono,
    /// How many responses it has brought.
    pub(in crate::proxy) served: u32,
}

/// How a try on a connection failed.
pub(in crate::proxy) enum Failure {
    /// Nothing was written; the request is as good as new.
    Unsent(Box<Request<Upload>>),
    /// The backend said that it has not begun with it (HTTP/2: REFUSED_STREAM, or GOAWAY below the stream).
    Unprocessed,
    /// The connection broke, or what came is not HTTP.
    Broken,
    /// The timer ran out.
    Late,
}

impl H1 {
    /// Begins to speak HTTP/1.1 on `line`.
    pub(super) async fn over(line: Line, slot: Slot, now: Mono) -> Result<Self, hyper::Error> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES);
        let (sender, connection) = builder.handshake(TokioIo::new(line)).await?;
        let timer = Box::pin(tokio::time::sleep(Duration::from_hours(1)));
        Ok(Self { sender, line: Some(Box::new(connection)), timer, _slot: slot, born: now, idle_since: now, served: 0 })
    }

    /// Sets the timer. It is moved, not made anew: pushing a timer back costs a compare-and-swap.
    pub(in crate::proxy) fn arm(&mut self, until: Instant) {
        self.timer.as_mut().reset(until);
    }

    /// Whether the timer has run out; registers the task otherwise.
    pub(in crate::proxy) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }

    /// Lets the connection read and write. `Ready`: it is over.
    pub(in crate::proxy) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.line {
            Some(line) => {
                let done = Pin::new(&mut **line).poll(cx).map(drop);
                if done.is_ready() {
                    // Dropping it gives a request back that it had not begun to write.
                    self.line = None;
                }
                done
            }
            None => Poll::Ready(()),
        }
    }

    /// Sends `request` and waits for the head of the response. `late` is asked when the timer has run out: it says until
    /// when to go on waiting, if at all.
    pub(in crate::proxy) async fn send(
        &mut self,
        request: Request<Upload>,
        mut late: impl FnMut() -> Option<Instant>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut sending = std::pin::pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|cx| {
            let is_over = self.poll_line(cx).is_ready();
            if let Poll::Ready(answered) = sending.as_mut().poll(cx) {
                self.served += u32::from(answered.is_ok());
                return Poll::Ready(
                    answered.map_err(|mut e| e.take_message().map_or(Failure::Broken, Failure::unsent)),
                );
            }
            if is_over {
                return Poll::Ready(Err(Failure::Broken));
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

    /// Whether it can carry another request, now that a response has ended.
    pub(super) fn is_reusable(&mut self) -> bool {
        // Ready as a rule; a last poll takes what came behind the body (the end of a chunked one, or the peer's FIN).
        self.line.is_some() && (self.sender.is_ready() || self.is_alive_idle())
    }

    /// Looks whether the peer has closed it, or sent what nobody asked for, while it was idle.
    pub(super) fn is_alive_idle(&mut self) -> bool {
        self.poll_line(&mut Context::from_waker(Waker::noop())).is_pending() && self.sender.is_ready()
    }
}

impl Failure {
    pub(super) fn unsent(request: Request<Upload>) -> Self {
        Self::Unsent(Box::new(request))
    }
}
