//! What `examples/` promises: each is included here and run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use springtide::redpacket::peer::Peer;
use tokio_util::sync::CancellationToken;

#[allow(dead_code, unreachable_pub, reason = "an example has a main of its own")]
#[path = "../examples/embed.rs"]
mod embed;
#[allow(dead_code, unreachable_pub, reason = "an example has a main of its own")]
#[path = "../examples/store.rs"]
mod store;
#[allow(dead_code, unreachable_pub, reason = "an example has a main of its own")]
#[path = "../examples/upstream.rs"]
mod upstream;

#[tokio::test]
async fn a_store_of_ones_own_keeps_every_law() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(store::laws(directory.path().to_path_buf()).await.unwrap().len(), 9);
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

#[tokio::test]
async fn the_router_embedded_answers_with_the_programs_own_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("embed.toml");
    let said = include_str!("../examples/embed.toml");
    std::fs::write(&file, said.replace("127.0.0.1:8081", "127.0.0.1:0")).unwrap();
    let router = embed::start(&file).await.unwrap();
    let address = router.addresses().http["public"][0];
    let peer = Peer::new(format!("http://{address}").parse().unwrap());
    let answer = peer.get("/any/where", Duration::from_secs(10)).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"hello from /any/where\n"[..]));
    router.stop().await;
}
