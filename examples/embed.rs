//! The router inside a program of one's own, with an upstream of one's own. `cargo run --example embed`

#![allow(clippy::print_stdout, reason = "an example says where it serves")]

use std::path::PathBuf;
use std::sync::Arc;

use springtide::net::stage::{Body, Next, Reply, Stage, full};
use springtide::router::{Router, RouterError};

struct Hello;

impl Stage for Hello {
    fn name(&self) -> &'static str {
        "hello"
    }

    fn handle<'a>(&'a self, request: http::Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(async move { http::Response::new(full(format!("hello from {}\n", request.uri().path()))) })
    }
}

/// Serves what `file` says, with `hello` answered by this program.
pub(crate) async fn start(file: impl Into<PathBuf>) -> Result<Router, RouterError> {
    Router::builder().file(file).upstream("hello", Arc::new(Hello)).start().await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RouterError> {
    let router = start(std::env::args().nth(1).as_deref().unwrap_or("examples/embed.toml")).await?;
    println!("serving on {:?}; Ctrl-C stops", router.addresses());
    let _ = tokio::signal::ctrl_c().await;
    router.stop().await;
    Ok(())
}
