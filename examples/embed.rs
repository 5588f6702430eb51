//! The router inside a program of one's own, with an upstream of one's own. `cargo run --example embed`

#![allow(clippy::print_stdout, reason = "an example says where it serves")]

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RouterError> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "examples/embed.toml".into());
    let router = Router::builder().file(file).upstream("hello", Arc::new(Hello)).start().await?;
    println!("serving on {:?}; Ctrl-C stops", router.addresses());
    let _ = tokio::signal::ctrl_c().await;
    router.stop().await;
    Ok(())
}
