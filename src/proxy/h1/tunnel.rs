//! WebSocket: a connection, or a stream of one, that becomes a tunnel to a backend, once both sides have said so.
//!
//! Nothing passes before the backend has agreed (CVE-2026-2833 is what happens otherwise). To a backend that speaks HTTP/1 a
//! tunnel has a connection of its own, made for it; to one that speaks HTTP/2 a stream. It ends when both sides have, when
//! nothing has passed for [`IDLE`], or at the drain limit.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Extensions;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::{Talk, lock};
use crate::proxy::drain::Order;
use crate::proxy::pool::h1::H1;
use crate::proxy::pool::h2;
use crate::proxy::serve::Client;
use crate::proxy::tally::Try;

/// A tunnel is closed when nothing has passed for so long (ours; nginx closes after one minute, HAProxy when told to).
const IDLE: Duration = Duration::from_mins(10);

/// The far side of a tunnel.
pub(in crate::proxy) struct Tunnel {
    theirs: Theirs,
    attempt: Try,
}

/// What it is spoken over.
pub(in crate::proxy) enum Theirs {
    /// A whole connection.
    Line(Box<H1>),
    /// A stream of one, held until the tunnel ends.
    Stream(OnUpgrade, h2::Stream),
}

/// A tunnel on its way through the stages: an extension of a 101.
#[derive(Clone)]
struct Parcel(Arc<Mutex<Option<Tunnel>>>);

/// Has the client of a response with `extensions` be joined with `theirs`.
pub(in crate::proxy) fn put(extensions: &mut Extensions, theirs: Theirs, attempt: Try) {
    extensions.insert(Parcel(Arc::new(Mutex::new(Some(Tunnel { theirs, attempt })))));
}

/// Whether one was put there.
pub(in crate::proxy) fn is_there(extensions: &Extensions) -> bool {
    extensions.get::<Parcel>().is_some()
}

/// What was put there.
pub(in crate::proxy) fn take(extensions: &mut Extensions) -> Option<Tunnel> {
    extensions.remove::<Parcel>()?.0.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Joins the two sides, now that both have agreed, until the tunnel ends.
pub(in crate::proxy) async fn run(tunnel: Tunnel, client: &Client, ours: impl AsyncRead + AsyncWrite + Unpin) {
    let worker = &client.worker;
    let Tunnel { theirs, attempt } = tunnel;
    client.pulse.begin();
    worker.meters.tunnels.increment(1.0);
    let close = poll_fn(|_| if client.pulse.order() == Order::Close { Poll::Ready(()) } else { Poll::Pending });
    let passed = match theirs {
        Theirs::Line(mut line) => join(ours, line.wire(), close).await,
        Theirs::Stream(upgrade, _stream) => match upgrade.await {
            Ok(upgraded) => join(ours, TokioIo::new(upgraded), close).await,
            // It has broken meanwhile.
            Err(_) => 0,
        },
    };
    worker.meters.tunnel_bytes.increment(passed);
    worker.meters.tunnels.decrement(1.0);
    client.pulse.end();
    attempt.end(worker.now());
}

/// Joins two sides until both have ended, nothing has passed for [`IDLE`], or `close`. How many octets have passed.
async fn join(
    ours: impl AsyncRead + AsyncWrite + Unpin,
    theirs: impl AsyncRead + AsyncWrite + Unpin,
    close: impl Future<Output = ()>,
) -> u64 {
    let bytes = AtomicU64::new(0);
    let (mut ours, mut theirs) = (Counted { side: ours, bytes: &bytes }, Counted { side: theirs, bytes: &bytes });
    tokio::select! {
        // How it ends is the business of the two sides.
        _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
        () = idle(&bytes) => {}
        () = close => {}
    }
    bytes.load(Relaxed)
}

/// Returns once nothing has passed for [`IDLE`] (up to twice that, for it looks only so often).
async fn idle(bytes: &AtomicU64) {
    let mut before = u64::MAX;
    loop {
        let now = bytes.load(Relaxed);
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(IDLE).await;
    }
}

/// The client's side, where it speaks HTTP/1.
pub(super) struct Ours<'a>(pub(super) &'a Mutex<Talk>);

impl AsyncRead for Ours<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(self.0).wire).poll_read(cx, buf)
    }
}

impl AsyncWrite for Ours<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(self.0).wire).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut lock(self.0).wire), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut lock(self.0).wire), cx)
    }
}

/// One side of a tunnel, with what was read from it counted.
struct Counted<'a, T> {
    side: T,
    bytes: &'a AtomicU64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.side).poll_read(cx, buf);
        self.bytes.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.side).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.side).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_for_long_is_let_go_and_who_says_little_is_not() {
        for (every, is_kept) in [(IDLE / 2, true), (IDLE * 3, false)] {
            let ((mut client, ours), (theirs, mut backend)) = (duplex(64), duplex(64));
            let joined = join(ours, theirs, std::future::pending());
            let talk = async {
                for _ in 0..20 {
                    tokio::time::sleep(every).await;
                    client.write_all(b"ping").await?;
                    backend.read_exact(&mut [0; 4]).await?;
                }
                io::Result::Ok(())
            };
            tokio::select! {
                passed = joined => assert!(!is_kept && passed == 0, "{every:?}: {passed}"),
                talked = talk => assert!(is_kept && talked.is_ok(), "{every:?}"),
            }
        }
    }
}
