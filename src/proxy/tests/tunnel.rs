//! WebSocket: the upgrade and the tunnel. What passes inside is bytes to us, so no frames are made here.

use super::*;

pub(super) const ASK: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Agrees to every upgrade, then gives back what it gets.
async fn agreeing() -> Origin {
    Origin::raw(|mut tcp| async move {
        let head = read_head(&mut tcp).await.to_ascii_lowercase();
        assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
        tcp.write_all(agreed).await.unwrap();
        let (mut read, mut write) = tcp.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_101_and_are_in_flight_until_the_end() {
    let origin = agreeing().await;
    let edge = Edge::new(config(&[origin.address]));
    let mut tcp = edge.connect().await;
    tcp.write_all(ASK).await.unwrap();
    let head = read_head(&mut tcp).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let mut bytes = [0; 5];
    tcp.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"hello", "what came right behind the 101 is not lost");
    for _ in 0..3 {
        tcp.write_all(b"frame").await.unwrap();
        tcp.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"frame");
    }
    let load = edge.load(0);
    assert_eq!(load.in_flight(), 1);
    drop(tcp);
    eventually("the tunnel is gone", || load.in_flight() == 0).await;
    assert_eq!(load.take().ok, 1);
}

#[tokio::test]
async fn a_backend_that_declines_answers_as_to_any_request() {
    let origin = Origin::named("plain").await;
    let edge = Edge::new(config(&[origin.address]));
    let mut tcp = edge.connect().await;
    tcp.write_all(ASK).await.unwrap();
    let head = read_head(&mut tcp).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = [0; 5];
    tcp.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"plain");
    eventually("it is over", || edge.load(0).in_flight() == 0).await;
}

#[tokio::test]
async fn other_upgrades_are_not_passed_on() {
    let origin = Origin::named("plain").await;
    let edge = Edge::new(config(&[origin.address]));
    let mut request = get("/");
    request.headers_mut().insert("connection", "upgrade, http2-settings".parse().unwrap());
    request.headers_mut().insert("upgrade", "h2c".parse().unwrap());
    request.headers_mut().insert("http2-settings", "AAMAAABkAAQAAP__".parse().unwrap());
    assert_eq!(edge.http1().await.call(request).await.body, "plain");
    let seen = origin.request(0);
    assert!(["connection", "upgrade", "http2-settings"].iter().all(|n| !seen.headers().contains_key(*n)));
}

#[tokio::test]
async fn an_upgrade_too_goes_to_who_answers() {
    let origin = agreeing().await;
    let edge = Edge::new(config(&[nowhere().await, origin.address]));
    for _ in 0..2 {
        let mut tcp = edge.connect().await;
        tcp.write_all(ASK).await.unwrap();
        assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 101 "));
    }
}
