//! The accept loop: HTTP/1.1, a bounded number of connections, a bounded wait for each of them.
//!
//! A connection beyond the limit waits in the kernel's backlog. One that sends nothing, or takes nothing, is closed; so
//! nobody holds a seat for longer than it uses it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::task;

/// Connections at a time: a dashboard or two, scrapers, operators.
pub(super) const CONNECTIONS: usize = 128;
/// How long a connection may take to send the head of a request, the first and every further one.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long the kernel waits for a peer that takes nothing.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take after the shutdown.
const DRAIN: Duration = Duration::from_secs(2);
/// Wait after a failed accept (out of descriptors): the failure repeats at once otherwise.
const BREATHE: Duration = Duration::from_millis(50);

/// Serves `router` until `shutdown`, then lets open requests end.
pub(super) async fn accept(listener: TcpListener, router: Router, shutdown: &CancellationToken) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    let open = TaskTracker::new();
    let mut next = pin!(async {
        loop {
            let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = serve(stream, router.clone(), shutdown.clone());
                    let seated = open.track_future(async move {
                        connection.await;
                        drop(seat);
                    });
                    task::spawn("admin connection", seated).detach();
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin API cannot accept a connection");
                    tokio::time::sleep(BREATHE).await;
                }
            }
        }
    });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = next.as_mut() => {}
    }
    open.close();
    if tokio::time::timeout(DRAIN, open.wait()).await.is_err() {
        tracing::info!(open = open.len(), "the admin API stops with requests under way");
    }
}

async fn serve(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    // Both options only make things better; a connection without them is served all the same.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(TAKE_WITHIN));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
