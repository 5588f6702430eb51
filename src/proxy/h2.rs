//! What we do about HTTP/2 connections of clients beyond what hyper does: look at every frame that passes, and at the pace of
//! bodies.
//!
//! hyper hides most frames, so [`Tapped`] stands below it and reads the heads of all of them, in both directions. What they
//! are worth is decided in `decide::glitch`; here the client is told to leave, or cut, and operators are told whom and why.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::drain::Order;
use super::line::Line;
use super::meter::Count;
use super::serve::Client;
use crate::base::clock::Mono;
use crate::config::Http2;
use crate::decide::glitch::{Account, Glitch, Terms, Verdict};
use crate::observe::names::proxy as names;
use crate::wire::h2::{Reader, Seen, error, goaway, kind};

pub(super) mod connect;
pub(super) mod pace;

/// A client's HTTP/2 connection, with an account of what passes on it.
pub(super) struct Tapped {
    line: Line,
    client: Arc<Client>,
    account: Account,
    heard: Reader,
    said: Reader,
    /// The last verdict that was acted upon.
    verdict: Verdict,
}

/// The client has made us work for nothing.
#[derive(Debug, thiserror::Error)]
#[error("cut for its glitches")]
struct Cut;

impl Tapped {
    /// `line` of `client`, within `limits`.
    pub(super) fn new(line: Line, client: &Arc<Client>, limits: Http2) -> Self {
        let terms = Terms { glitches: limits.glitches, streams: limits.total_streams };
        Self {
            line,
            account: Account::new(terms, client.worker.now()),
            client: Arc::clone(client),
            heard: Reader::of_client(),
            said: Reader::of_server(),
            verdict: Verdict::Stay,
        }
    }

    /// The client has sent `octets`.
    fn hear(&mut self, octets: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        let Self { account, heard, client, .. } = self;
        let now = client.worker.now();
        heard.read(octets, |seen| {
            if let Some(glitch) = account.heard(seen, now) {
                client.worker.abuse.noticed(glitch);
            }
        });
        self.judge(now, cx)
    }

    /// We have sent `octets`.
    fn say(&mut self, octets: &[u8]) {
        let Self { account, said, client, .. } = self;
        let mut body = 0;
        said.read(octets, |seen| {
            if let Seen::Frame(frame) = seen
                && frame.kind == kind::DATA
            {
                body += frame.length;
            }
            // The clock is read where it is needed only: what we reset is rare.
            if let Some(glitch) = account.said(seen, Mono::ZERO) {
                client.worker.abuse.noticed(glitch);
            }
        });
        client.pulse.took(body, account.is_shut());
    }

    /// Does what the account says.
    fn judge(&mut self, now: Mono, cx: &mut Context<'_>) -> io::Result<()> {
        self.client.pulse.took(0, self.account.is_shut());
        let verdict = self.account.verdict();
        if verdict == self.verdict {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.verdict, verdict);
        let abuse = &self.client.worker.abuse;
        let from = self.client.peer.address;
        match verdict {
            Verdict::Stay => {}
            // Who is leaving already has been told.
            Verdict::Done | Verdict::Leave => {
                self.client.pulse.tell(Order::Drain);
                if verdict == Verdict::Leave && before != Verdict::Cut {
                    abuse.parted(How::Asked, self.account.last(), from, now);
                }
            }
            Verdict::Cut => {
                abuse.parted(How::Cut, self.account.last(), from, now);
                self.dismiss(cx);
                return Err(io::Error::other(Cut));
            }
        }
        Ok(())
    }

    /// Tells the client why, where that can still be said: between frames, and if it takes it at once.
    fn dismiss(&mut self, cx: &mut Context<'_>) {
        if self.said.is_between() {
            let goodbye = goaway(self.account.last_stream(), error::ENHANCE_YOUR_CALM);
            let mut line = Pin::new(&mut self.line);
            let _ = line.as_mut().poll_write(cx, &goodbye);
            let _ = line.as_mut().poll_flush(cx);
            let _ = line.as_mut().poll_shutdown(cx);
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.line).poll_read(cx, buf))?;
        let fresh = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(if fresh.is_empty() { Ok(()) } else { self.hear(fresh, cx) })
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.line).poll_write(cx, buf);
        self.client.pulse.wrote(polled.is_pending());
        if let Poll::Ready(Ok(written)) = polled {
            self.say(buf.get(..written).unwrap_or_default());
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.line).poll_write_vectored(cx, bufs);
        self.client.pulse.wrote(polled.is_pending());
        if let Poll::Ready(Ok(mut left)) = polled {
            for buf in bufs {
                let written = buf.get(..left.min(buf.len())).unwrap_or_default();
                self.say(written);
                left -= written.len();
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.line.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.line).poll_flush(cx);
        if polled.is_pending() {
            self.client.pulse.wrote(true);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

/// How a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It may finish what runs.
    Asked,
    /// At once.
    Cut,
}

impl How {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Cut => "cut",
        }
    }
}

/// At most one line of the log in so long, from one worker: who floods must not flood the log as well.
const QUIET: Duration = Duration::from_secs(1);

/// What one worker tells of its clients' glitches.
pub(super) struct Abuse {
    glitches: [Count; Glitch::ALL.len()],
    parted: [[Count; Glitch::ALL.len()]; 2],
    /// When the log may be told again, in nanoseconds, and what it was not told.
    quiet_until: AtomicU64,
    untold: AtomicU64,
}

impl Default for Abuse {
    fn default() -> Self {
        let parted =
            |how: How| Glitch::ALL.map(|g| Count::new(names::HTTP2_PARTED.counter(&[how.as_str(), g.as_str()])));
        Self {
            glitches: Glitch::ALL.map(|glitch| Count::new(names::HTTP2_GLITCHES.counter(&[glitch.as_str()]))),
            parted: [parted(How::Asked), parted(How::Cut)],
            quiet_until: AtomicU64::new(0),
            untold: AtomicU64::new(0),
        }
    }
}

impl Abuse {
    fn noticed(&self, glitch: Glitch) {
        if let Some(count) = self.glitches.get(glitch as usize) {
            count.one();
        }
    }

    fn parted(&self, how: How, glitch: Option<Glitch>, from: IpAddr, now: Mono) {
        let Some(glitch) = glitch else { return };
        if let Some(count) = self.parted.get(how as usize).and_then(|counts| counts.get(glitch as usize)) {
            count.one();
        }
        if now.nanos() < self.quiet_until.load(Relaxed) {
            self.untold.fetch_add(1, Relaxed);
            return;
        }
        self.quiet_until.store((now + QUIET).nanos(), Relaxed);
        let untold = self.untold.swap(0, Relaxed);
        tracing::warn!(
            client = %from, how = how.as_str(), glitch = glitch.as_str(), untold,
            "an HTTP/2 connection makes work for nothing"
        );
    }

    /// Tells the metrics what was counted.
    pub(super) fn flush(&self) {
        self.glitches.iter().chain(self.parted.iter().flatten()).for_each(Count::flush);
    }
}
