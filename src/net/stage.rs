//! What a request passes through, and what an upstream is.
//!
//! A [`Stage`] gets a request and the rest of the way ([`Next`]). A filter looks, perhaps edits, and calls `next`; an
//! upstream never does. The proxy's own pipeline is a visible list of plain functions; this trait is its rim, for those
//! who embed the router or plug in an upstream of their own.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body on its way: streamed, never collected unless somebody asks.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// A response on its way.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>;

/// Something that a request passes through or ends at.
pub trait Stage: Send + Sync {
    /// Its name in logs and metrics.
    fn name(&self) -> &str;

    /// Answers `request`, or lets `next` do it. Must not block; gives a response in every case.
    fn handle<'a>(&'a self, request: Request<Body>, next: Next<'a>) -> Reply<'a>;
}

/// The rest of the way.
pub struct Next<'a>(Option<Box<dyn FnOnce(Request<Body>) -> Reply<'a> + Send + 'a>>);

impl<'a> Next<'a> {
    /// The rest of the way is `rest`.
    pub fn new(rest: impl FnOnce(Request<Body>) -> Reply<'a> + Send + 'a) -> Self {
        Self(Some(Box::new(rest)))
    }

    /// There is no further way: who calls on gets 404.
    pub const fn end() -> Self {
        Self(None)
    }

    /// Passes `request` on.
    pub fn run(self, request: Request<Body>) -> Reply<'a> {
        match self.0 {
            Some(rest) => rest(request),
            None => Box::pin(async {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            }),
        }
    }
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    full(Bytes::new())
}
