//! Serves a [`Stage`] over HTTP/1.1 and h2c on one port, with limits that a hostile client cannot stretch.
//!
//! Bounded: connections, streams, heads, idle time, unacknowledged bytes, and how long a stop may take. Bodies are the
//! stage's to bound (`request::collect`). Used by `springtide upstream` and by embedders.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::base::task::{Task, spawn};
use crate::net::stage::{Next, Stage};

/// Connections at the same time; more wait in the kernel's backlog.
const CONNECTIONS: usize = 4_096;
/// The longest a new connection may take to its first request (slow clients, scanners).
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The longest a connection stands idle, or takes to send a head. Longer than proxies keep theirs.
const IDLE: Duration = Duration::from_secs(75);
/// How long sent bytes may go unacknowledged: the bound on clients that do not read.
const UNACKED: Duration = Duration::from_secs(20);
/// The longest that running requests may hold up a stop.
const DRAIN: Duration = Duration::from_secs(10);
/// The largest head, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Where a request came from; in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Remote(pub SocketAddr);

/// A server at work. Dropping it stops it at once; cancelling its token stops it in good order.
#[must_use = "dropping it stops the server"]
pub struct Running {
    address: SocketAddr,
    accepting: Task,
}

impl Running {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the token was cancelled and the running requests have ended, or 10 s after that.
    pub async fn stopped(self) {
        self.accepting.ended().await;
    }
}

/// Serves `stage` on `listener` until `shutdown`. Each request carries its [`Remote`].
///
/// # Errors
/// The socket cannot be used with the runtime.
pub fn serve(
    listener: std::net::TcpListener,
    stage: Arc<dyn Stage>,
    shutdown: CancellationToken,
) -> io::Result<Running> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    Ok(Running { address, accepting: spawn("upstream-accept", accept(listener, stage, shutdown)) })
}

fn protocol() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(64).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(Duration::from_secs(20));
    builder
}

async fn accept(listener: TcpListener, stage: Arc<dyn Stage>, shutdown: CancellationToken) {
    let (builder, graceful) = (protocol(), GracefulShutdown::new());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client was gone already. A moment's rest, or this would spin.
                tracing::warn!(%error, "cannot accept");
                sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        prepare(&stream);
        let activity = Arc::new(Activity::default());
        let (on, stage) = (activity.clone(), stage.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (on, stage) = (Underway::begin(&on), stage.clone());
            async move {
                let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
                request.extensions_mut().insert(Remote(remote));
                let response = stage.handle(request, Next::end()).await;
                drop(on);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        spawn("upstream-connection", async move {
            tokio::select! {
                // A broken connection is the client's affair.
                _ = connection => {}
                () = activity.forsaken() => {}
            }
            drop(permit);
        })
        .detach();
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running at the end of the drain");
    }
}

fn prepare(stream: &TcpStream) {
    // Both make a good connection better; neither is worth refusing one.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKED));
}

/// What a connection is doing, for its watchdog.
#[derive(Default)]
struct Activity {
    begun: AtomicU64,
    running: AtomicU64,
}

impl Activity {
    /// Ends when the connection has had nothing to do for too long. hyper bounds slow heads of HTTP/1 by itself; this
    /// covers who never says which protocol it speaks, and idle HTTP/2.
    async fn forsaken(&self) {
        let (mut seen, mut wait) = (0, FIRST_REQUEST);
        loop {
            sleep(wait).await;
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == seen && self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            (seen, wait) = (begun, IDLE);
        }
    }
}

struct Underway(Arc<Activity>);

impl Underway {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::listen::{Share, tcp};
    use crate::net::stage::{Body, Reply, full};

    struct Hello;
    impl Stage for Hello {
        fn name(&self) -> &'static str {
            "hello"
        }
        fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
            let from_loopback = request.extensions().get::<Remote>().is_some_and(|r| r.0.ip().is_loopback());
            Box::pin(async move { http::Response::new(full(format!("hello {from_loopback}"))) })
        }
    }

    async fn say(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn it_serves_until_told_to_stop_and_frees_its_port() {
        let stop = CancellationToken::new();
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let server = serve(listener, Arc::new(Hello), stop.clone()).unwrap();
        let address = server.address();
        let answer = say(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello true"), "{answer}");
        let huge = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(20 << 10));
        let answer = say(address, &huge).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        stop.cancel();
        server.stopped().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_forsaken_and_a_busy_one_is_not() {
        let activity = Arc::new(Activity::default());
        let request = Underway::begin(&activity);
        assert!(timeout(Duration::from_hours(1), activity.forsaken()).await.is_err(), "busy");
        drop(request);
        assert!(timeout(FIRST_REQUEST + IDLE * 2, activity.forsaken()).await.is_ok(), "idle");
        let silent = Activity::default();
        assert!(timeout(FIRST_REQUEST * 2, silent.forsaken()).await.is_ok(), "never said a word");
    }
}
