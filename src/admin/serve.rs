//! The accept loop: HTTP/1.1, a bounded number of connections, a bounded wait for each of them.
//!
//! A connection beyond the limit waits in the kernel's backlog. One that sends nothing, or takes nothing, is closed; so
//! nobody holds a seat for longer than it uses it. Who was let in before the shutdown is still answered: in the backlog
//! there is a successor to do it, here there is nobody else.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
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
/// How long of that a client that has said nothing yet, or nothing more, is waited for (ours): it may be about to write, and
/// would find the connection closed.
const LAST_WITHIN: Duration = Duration::from_secs(1);
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
    let router = TowerToHyperService::new(router);
    let answer = service_fn(|request| {
        let answer = router.call(request);
        let shutdown = &shutdown;
        async move {
            let mut answer = answer.await?;
            if shutdown.is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let last = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_WITHIN).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = last => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}
