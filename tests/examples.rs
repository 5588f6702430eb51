//! What `examples/` promises: each is included here and run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use springtide::redpacket::peer::Peer;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, unreachable_pub, reason = "an example has a main of its own")]
#[path = "../examples/store.rs"]
mod store;
#[allow(dead_code, unreachable_pub, reason = "an example has a main of its own")]
#[path = "../examples/upstream.rs"]
mod upstream;

#[tokio::test]
async fn a_store_of_ones_own_keeps_every_law() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(store::laws(directory.path().to_path_buf()).await.unwrap().len(), 7);
}

#[tokio::test]
async fn an_upstream_of_ones_own_serves() {
    let stop = CancellationToken::new();
    let server = upstream::start(stop.clone()).unwrap();
    let peer = Peer::new(format!("http://{}", server.address()).parse().unwrap());
    let ask = async |path: &str| peer.get(path, Duration::from_secs(10)).await.unwrap();
    let wish = ask("/v1/wishes").await;
    assert!(wish.status == 200 && wish.body.starts_with(b"{\"wish\""));
    assert_eq!(ask("/healthz").await.status, 200);
    assert_eq!(ask("/nothing").await.status, 404);
    stop.cancel();
    server.stopped().await;
}
