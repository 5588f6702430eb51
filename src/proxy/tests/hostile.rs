//! What an adversary's bytes once did. The corpus of tests/corpus has the rest.

use super::*;
use crate::net::stage::{Next, Reply, Stage};

/// Begins its answer before it reads: the request's body, as it comes.
struct Mirror;

impl Stage for Mirror {
    fn name(&self) -> &'static str {
        "mirror"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(async move { Response::new(request.into_body()) })
    }
}

async fn read_all(tcp: &mut TcpStream) -> String {
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut all)).await.unwrap().unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn nothing_is_said_to_go_on_once_the_response_has_begun() {
    let stages = Stages { upstreams: [("main".into(), Arc::new(Mirror) as _)].into(), ..Stages::default() };
    let edge = Edge::with(config(&[]), Assets::default(), stages);
    let mut tcp = edge.connect().await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 200 "));
    tcp.write_all(b"hello").await.unwrap();
    let body = read_all(&mut tcp).await;
    assert_eq!(body, "hello", "an interim answer in the middle of a body is part of the body");
}

#[tokio::test]
async fn a_request_behind_the_last_one_does_not_cost_its_answer() {
    let origin = Origin::new(|_| async { Response::new(stage::full(vec![b'x'; 100_000])) }).await;
    let edge = Edge::new(config(&[origin.address]));
    for _ in 0..20 {
        let mut tcp = edge.connect().await;
        let mut asked = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec();
        asked.extend(b"GET /behind HTTP/1.1\r\nhost: a\r\n\r\n".repeat(3_000));
        tcp.write_all(&asked).await.unwrap();
        let said = read_all(&mut tcp).await;
        assert_eq!(said.matches("HTTP/1.1 200 ").count(), 1);
        assert_eq!(said.bytes().filter(|b| *b == b'x').count(), 100_000);
    }
    assert!((0..origin.requests()).all(|i| origin.request(i).uri() == "/"));
}

#[tokio::test]
async fn a_backend_that_agrees_to_something_else_has_not_agreed() {
    for said in ["", "upgrade: h2c\r\n", "upgrade: websocket, h2c\r\n"] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n{said}\r\n");
        let origin = Origin::raw(move |mut tcp| {
            let answer = answer.clone();
            async move {
                read_head(&mut tcp).await;
                tcp.write_all(answer.as_bytes()).await.unwrap();
                let _ = tcp.read_u8().await;
            }
        })
        .await;
        let edge = Edge::new(config(&[origin.address]));
        let mut tcp = edge.connect().await;
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        tcp.write_all(head.as_bytes()).await.unwrap();
        assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 502 "), "{said}");
    }
}
