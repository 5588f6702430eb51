//! WebSocket over HTTP/2: extended CONNECT on one side, Upgrade on the other.

use super::*;
use crate::config::Protocol;
use crate::wire::websocket;

pub(super) type Streams = ::h2::client::SendRequest<Bytes>;

/// A client that knows extended CONNECT, once the edge has said that it does too.
pub(super) async fn client(edge: &Edge) -> (Streams, Task) {
    let (sender, connection) = ::h2::client::handshake(edge.connect().await).await.unwrap();
    let task = task::spawn("h2 client", async { drop(connection.await) });
    let sender = tokio::time::timeout(PATIENCE, sender.ready()).await.unwrap().unwrap();
    let announced = async {
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, announced).await.unwrap();
    (sender, task)
}

pub(super) fn connect(protocol: Option<&'static str>) -> Request<()> {
    let uri = if protocol.is_some() { "http://example.test/chat?room=1" } else { "example.test:443" };
    let mut request = Request::builder().method(Method::CONNECT).uri(uri).body(()).unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(::h2::ext::Protocol::from_static(protocol));
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", "talk".parse().unwrap());
    }
    request
}

/// A backend that agrees, with this proof or the right one, and gives back what it gets.
pub(super) async fn agreeing(proof: Option<&'static str>) -> (Origin, Arc<Mutex<String>>) {
    let heard = Arc::<Mutex<String>>::default();
    let log = Arc::clone(&heard);
    let origin = Origin::raw(move |mut tcp| {
        let log = Arc::clone(&log);
        async move {
            let head = read_head(&mut tcp).await;
            let key = head.lines().find_map(|l| l.strip_prefix("sec-websocket-key: ")).unwrap().to_owned();
            *log.lock().unwrap() = head;
            let proof = proof.map_or_else(|| websocket::accept(key.as_bytes()), str::to_owned);
            let agreed = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-protocol: talk\r\nsec-websocket-accept: {proof}\r\n\r\nhello"
            );
            tcp.write_all(agreed.as_bytes()).await.unwrap();
            let (mut read, mut write) = tcp.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    })
    .await;
    (origin, heard)
}

async fn next(body: &mut ::h2::RecvStream) -> Option<Bytes> {
    loop {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.unwrap()?.ok()?;
        body.flow_control().release_capacity(data.len()).unwrap();
        // An end may come in a frame of its own.
        if !data.is_empty() {
            return Some(data);
        }
    }
}

#[tokio::test]
async fn a_stream_becomes_a_tunnel_beside_other_streams() {
    let (origin, heard) = agreeing(None).await;
    let edge = Edge::new(config(&[origin.address]));
    let (mut sender, _task) = client(&edge).await;
    let (answer, mut send) = sender.send_request(connect(Some("websocket")), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["sec-websocket-protocol"]),
        (StatusCode::OK, &"talk".parse::<http::HeaderValue>().unwrap())
    );
    for gone in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let head = heard.lock().unwrap().clone();
    assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
    for field in [
        "host: example.test\r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-version: 13\r\n",
        "via: 2 springtide\r\n",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    let mut body = answer.into_body();
    assert_eq!(next(&mut body).await.unwrap(), "hello");
    for word in ["one", "two", "three"] {
        send.send_data(Bytes::from(word), false).unwrap();
        assert_eq!(next(&mut body).await.unwrap(), word);
    }
    // Much at once: what the client does not take waits at the backend.
    let much = Bytes::from(vec![b'x'; 1 << 20]);
    send.send_data(much.clone(), false).unwrap();
    let mut came = 0;
    while came < much.len() {
        came += next(&mut body).await.unwrap().len();
    }
    let load = edge.load(0);
    assert_eq!(load.in_flight(), 1);
    send.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut body).await.is_none(), "the backend has ended as well");
    eventually("the tunnel is gone", || load.in_flight() == 0).await;
}

#[tokio::test]
async fn who_proves_nothing_has_not_agreed() {
    for proof in ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", ""] {
        let (origin, _) = agreeing(Some(proof)).await;
        let edge = Edge::new(config(&[origin.address]));
        let (mut sender, _task) = client(&edge).await;
        let (answer, _send) = sender.send_request(connect(Some("websocket")), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "{proof}");
    }
}

#[tokio::test]
async fn a_backend_that_declines_opens_no_tunnel() {
    for (says, expected) in [(200, 502), (204, 502), (403, 403), (404, 404), (500, 500)] {
        let origin = Origin::new(move |_| async move {
            let mut response = Response::new(stage::full(if says == 204 { "" } else { "no" }));
            *response.status_mut() = StatusCode::from_u16(says).unwrap();
            response
        })
        .await;
        let edge = Edge::new(config(&[origin.address]));
        let (mut sender, _task) = client(&edge).await;
        let (answer, _send) = sender.send_request(connect(Some("websocket")), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), expected, "{says}");
        eventually("it is over", || edge.load(0).in_flight() == 0).await;
    }
}

#[tokio::test]
async fn connect_for_anything_else_is_refused() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[origin.address]));
    let (mut sender, _task) = client(&edge).await;
    for protocol in [None, Some("connect-udp"), Some("WebSocket2")] {
        let (answer, _send) = sender.send_request(connect(protocol), false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        assert!(answer.is_err() || answer.is_ok_and(|a| a.status() == 405), "{protocol:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_service_over_http2_takes_no_part_in_upgrades() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.services[0].protocol = Protocol::Http2;
    let edge = Edge::new(config);
    let (mut sender, _task) = client(&edge).await;
    let (answer, _send) = sender.send_request(connect(Some("websocket")), false).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 502);
    let mut request = get("/");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(edge.http1().await.call(request).await.refusal(), (502, "upgrade_unsupported".into()));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_tunnel_ends_with_its_connection() {
    let (origin, _) = agreeing(None).await;
    let edge = Edge::new(config(&[origin.address]));
    let (mut sender, task) = client(&edge).await;
    let (answer, send) = sender.send_request(connect(Some("websocket")), false).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    let load = edge.load(0);
    assert_eq!(load.in_flight(), 1);
    drop((task, send, sender));
    eventually("the tunnel is gone", || load.in_flight() == 0).await;
}
