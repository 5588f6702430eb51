//! Serving HTTP: what the edge and DNS over HTTPS do alike with hyper's connections.
//!
//! Every bound is the caller's, and none has a default: neither side forgets one. What is answered is the caller's, too.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// What one HTTP/2 connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of a request's head, decoded.
    pub head: u32,
    /// Streams at a time.
    pub streams: u32,
    /// Octets of one stream, and of all, on their way to us unread.
    pub window: (u32, u32),
    /// Octets of one stream on their way to the client unsent.
    pub send_buffer: usize,
}

/// Serves HTTP/2 within `limits`.
pub fn http2(limits: Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head)
        .initial_stream_window_size(limits.window.0)
        .initial_connection_window_size(limits.window.1)
        .max_send_buf_size(limits.send_buffer);
    builder
}

/// A connection that can be told to finish what runs and to begin nothing new.
pub trait Parting: Future<Output = hyper::Result<()>> {
    /// Tells it.
    fn part(self: Pin<&mut Self>);
}

type Anything = Box<dyn Error + Send + Sync>;

impl<T, S, B> Parting for http1::Connection<T, S>
where
    T: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Anything>,
    B: Body + 'static,
    B::Error: Into<Anything>,
{
    fn part(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<T, S, B> Parting for http1::UpgradeableConnection<T, S>
where
    T: Read + Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Anything>,
    B: Body + 'static,
    B::Error: Into<Anything>,
{
    fn part(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<T, S, B> Parting for http2::Connection<T, S, TokioExecutor>
where
    T: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Anything>,
    B: Body + 'static,
    B::Error: Into<Anything>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    fn part(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
