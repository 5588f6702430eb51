//! WebSocket over HTTP/1.1: a connection that becomes a tunnel, once both sides have said so.
//!
//! Nothing passes before the backend has answered 101 (CVE-2026-2833 is what happens otherwise). A tunnel has a connection
//! of its own, made for it; it ends when both sides have, when nothing has passed for [`IDLE`], or at the drain limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pool::h1::Failure;
use super::pool::{Line, Slot};
use super::serve::Client;
use super::tally::Try;
use super::upload::Upload;
use crate::base::task::{self, Task};

/// A tunnel is closed when nothing has passed for so long (ours; nginx closes after one minute, HAProxy when told to).
const IDLE: Duration = Duration::from_mins(10);
/// How long the two sides may take to let go of HTTP after the 101.
const SWITCH: Duration = Duration::from_secs(10);

/// Asks a backend on `line` for an upgrade; gives its answer, whatever that is, and the task that drives the connection.
pub(super) async fn ask(
    (line, slot): (Line, Slot),
    request: Request<Upload>,
    patience: Duration,
) -> Result<(Response<Incoming>, Task), Failure> {
    let asking = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(line)).await.map_err(|_| Failure::Broken)?;
        let task = task::spawn("upstream upgrade", async move {
            let _slot = slot;
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await.map_err(|_| Failure::Broken)?;
        Ok((response, task))
    };
    tokio::time::timeout(patience, asking).await.unwrap_or(Err(Failure::Late))
}

/// Joins the two sides, now that both have agreed. The tunnel holds the client's place and the try until it ends.
pub(super) fn join(client: &Arc<Client>, ours: OnUpgrade, theirs: OnUpgrade, connection: Task, attempt: Try) {
    let client = Arc::clone(client);
    task::spawn("tunnel", async move {
        let worker = &client.worker;
        client.pulse.begin();
        worker.meters.tunnels.increment(1.0);
        let switched = tokio::time::timeout(SWITCH, async { tokio::try_join!(ours, theirs) }).await;
        if let Ok(Ok((ours, theirs))) = switched {
            let bytes = AtomicU64::new(0);
            let (mut ours, mut theirs) = (Counted::new(ours, &bytes), Counted::new(theirs, &bytes));
            tokio::select! {
                // How it ends is the business of the two sides.
                _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
                () = idle(&bytes) => {}
            }
            worker.meters.tunnel_bytes.increment(bytes.load(Relaxed));
        }
        drop(connection);
        worker.meters.tunnels.decrement(1.0);
        client.pulse.end();
        attempt.end(worker.now());
    })
    .detach();
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

/// One side of a tunnel, with what was read from it counted.
struct Counted<'a> {
    side: TokioIo<Upgraded>,
    bytes: &'a AtomicU64,
}

impl<'a> Counted<'a> {
    fn new(side: Upgraded, bytes: &'a AtomicU64) -> Self {
        Self { side: TokioIo::new(side), bytes }
    }
}

impl AsyncRead for Counted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.side).poll_read(cx, buf);
        self.bytes.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        polled
    }
}

impl AsyncWrite for Counted<'_> {
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
