//! An upstream of one's own: a `Stage`, put behind a limit and served like those that ship with the router.
//!
//! `cargo run --example upstream`, then point a `[[service]]` at it; or give the stage to the router itself.

#![allow(clippy::print_stdout, reason = "an example says where it listens")]

use std::sync::Arc;

use http::{Request, Response};
use springtide::net::stage::{Body, Next, Reply, Stage, full};
use springtide::redpacket::{Running, serve, service::Front};
use tokio_util::sync::CancellationToken;

/// Wishes everybody luck.
struct Wishes;

impl Stage for Wishes {
    fn name(&self) -> &'static str {
        "wishes"
    }

    fn handle<'a>(&'a self, request: Request<Body>, next: Next<'a>) -> Reply<'a> {
        match request.uri().path() {
            "/v1/wishes" => Box::pin(async { Response::new(full(r#"{"wish":"Good fortune in all you do"}"#)) }),
            "/healthz" => Box::pin(async { Response::new(full("ok")) }),
            _ => next.run(request),
        }
    }
}

/// At most 64 requests at a time, with `/metrics`; more are told to come back.
pub(crate) fn start(stop: CancellationToken) -> std::io::Result<Running> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    serve(listener, Arc::new(Front::new(Arc::new(Wishes), 64)), stop)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let stop = CancellationToken::new();
    let server = start(stop.clone())?;
    println!("http://{}/v1/wishes", server.address());
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    server.stopped().await;
    Ok(())
}
