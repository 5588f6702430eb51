//! WebSocket over HTTP/2: extended CONNECT on one side or on both, Upgrade on the other.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tunnel::ASK;
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
async fn a_backend_over_http2_that_takes_no_tunnels_is_asked_for_none() {
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

/// A backend that speaks HTTP/2 and takes extended CONNECT: it answers with `status`, and does `with` what comes then.
async fn speaking_h2<F, R>(status: u16, with: F) -> Origin
where
    F: Fn(::h2::RecvStream, ::h2::SendStream<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let seen = Arc::<Mutex<Vec<Request<()>>>>::default();
    let log = Arc::clone(&seen);
    let mut origin = Origin::raw(move |tcp| {
        let (log, with) = (Arc::clone(&log), with.clone());
        async move {
            let mut builder = ::h2::server::Builder::new();
            let mut connection = builder.enable_connect_protocol().handshake(tcp).await.unwrap();
            let mut streams = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (head, body) = request.into_parts();
                let is_tunnel = head.method == Method::CONNECT && status == 200;
                log.lock().unwrap().push(Request::from_parts(head, ()));
                let answer =
                    Response::builder().status(status).header("sec-websocket-protocol", "talk").body(()).unwrap();
                let send = respond.send_response(answer, !is_tunnel).unwrap();
                if is_tunnel {
                    streams.push(task::spawn("stream", with(body, send)));
                }
            }
        }
    })
    .await;
    origin.seen = seen;
    origin
}

/// Gives back what it gets, after a word of its own.
async fn echo(mut body: ::h2::RecvStream, mut send: ::h2::SendStream<Bytes>) {
    send.send_data("hello".into(), false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        if send.send_data(data, false).is_err() {
            return;
        }
    }
    // Who asks may have gone.
    let _ = send.send_data(Bytes::new(), true);
}

/// A client's end of a tunnel, over either version.
enum Socket {
    Old(TcpStream),
    New(::h2::RecvStream, ::h2::SendStream<Bytes>, Bytes, #[expect(dead_code, reason = "held")] (Streams, Task)),
}

impl Socket {
    async fn open(edge: &Edge, is_new: bool) -> Self {
        if is_new {
            let (mut sender, task) = client(edge).await;
            let (answer, send) = sender.send_request(connect(Some("websocket")), false).unwrap();
            let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
            assert_eq!(
                (answer.status(), &answer.headers()["sec-websocket-protocol"]),
                (StatusCode::OK, &"talk".parse().unwrap())
            );
            for gone in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
                assert!(!answer.headers().contains_key(gone), "{gone}");
            }
            return Self::New(answer.into_body(), send, Bytes::new(), (sender, task));
        }
        let mut tcp = edge.connect().await;
        tcp.write_all(ASK).await.unwrap();
        let head = tokio::time::timeout(PATIENCE, read_head(&mut tcp)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for field in [
            "connection: upgrade\r\n",
            "upgrade: websocket\r\n",
            "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        ] {
            assert!(head.contains(field), "{field}: {head}");
        }
        assert!(!head.contains("content-length"), "{head}");
        Self::Old(tcp)
    }

    /// Says `word` and hears it.
    async fn talk(&mut self, word: &[u8]) -> std::io::Result<()> {
        let mut heard = vec![0; word.len()];
        let talking = async {
            self.write_all(word).await?;
            self.read_exact(&mut heard).await.map(drop)
        };
        tokio::time::timeout(PATIENCE, talking).await.unwrap()?;
        assert_eq!(heard, word);
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Self::Old(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::New(body, _, rest, _) => {
                while rest.is_empty() {
                    match std::task::ready!(body.poll_data(cx)) {
                        Some(Ok(data)) => {
                            body.flow_control().release_capacity(data.len()).unwrap();
                            *rest = data;
                        }
                        Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                        None => return Poll::Ready(Ok(())),
                    }
                }
                buf.put_slice(&rest.split_to(rest.len().min(buf.remaining())));
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut *self {
            Self::Old(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::New(_, send, ..) => {
                let sent = send.send_data(Bytes::copy_from_slice(buf), false);
                Poll::Ready(sent.map(|()| buf.len()).map_err(std::io::Error::other))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut *self {
            Self::Old(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::New(_, send, ..) => Poll::Ready(send.send_data(Bytes::new(), true).map_err(std::io::Error::other)),
        }
    }
}

fn over_h2(backends: &[SocketAddr]) -> Config {
    let mut config = config(backends);
    config.services[0].protocol = Protocol::Http2;
    config
}

#[tokio::test]
async fn a_backend_over_http2_is_asked_by_connect_whatever_the_client_speaks() {
    let origin = speaking_h2(200, echo).await;
    let edge = Edge::new(over_h2(&[origin.address]));
    let mut sockets = Vec::new();
    for is_new in [false, true] {
        let mut socket = Socket::open(&edge, is_new).await;
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello", "what came right behind the answer is not lost");
        socket.talk(b"one").await.unwrap();
        sockets.push(socket);
    }
    for (at, path) in ["/chat", "/chat?room=1"].into_iter().enumerate() {
        let request = origin.request(at);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri().path_and_query().unwrap(), path);
        assert_eq!(request.extensions().get::<::h2::ext::Protocol>().unwrap().as_str(), "websocket");
        let has = |name: &str| request.headers().contains_key(name);
        assert!(
            ["sec-websocket-version", "x-forwarded-for", "x-request-id", "via"].iter().all(|n| has(n)),
            "{request:?}"
        );
        assert!(!["connection", "upgrade", "sec-websocket-key", "host"].iter().any(|n| has(n)), "{request:?}");
    }
    assert_eq!(origin.accepted.load(SeqCst), 1, "tunnels share a connection");
    let load = edge.load(0);
    for (left, mut socket) in [1, 0].into_iter().zip(sockets) {
        let much: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = tokio::io::split(&mut socket);
        let mut heard = vec![0; much.len()];
        let both = async { tokio::join!(write.write_all(&much), read.read_exact(&mut heard)) };
        let (wrote, read) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        wrote.unwrap();
        read.unwrap();
        assert_eq!(heard, much);
        socket.shutdown().await.unwrap();
        assert_eq!(socket.read(&mut [0; 8]).await.unwrap(), 0, "the backend has ended as well");
        eventually("the tunnel is gone", || load.in_flight() == left).await;
    }
    assert_eq!(load.take().ok, 2);
}

#[tokio::test]
async fn a_backend_over_http2_that_declines_opens_no_tunnel() {
    for (says, expected) in [(204, 502), (403, 403), (404, 404), (500, 500)] {
        let origin = speaking_h2(says, echo).await;
        let edge = Edge::new(over_h2(&[origin.address]));
        let mut tcp = edge.connect().await;
        tcp.write_all(ASK).await.unwrap();
        let head = tokio::time::timeout(PATIENCE, read_head(&mut tcp)).await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{says}: {head}");
        let (mut sender, _task) = client(&edge).await;
        let (answer, _send) = sender.send_request(connect(Some("websocket")), false).unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), expected, "{says}");
        eventually("it is over", || edge.load(0).in_flight() == 0).await;
    }
}

#[tokio::test]
async fn tunnels_last_until_the_drain_limit_and_no_longer() {
    let (old, new) = (agreeing(None).await.0, speaking_h2(200, echo).await);
    for (mut config, is_new) in [
        (config(&[old.address]), false),
        (config(&[old.address]), true),
        (over_h2(&[new.address]), false),
        (over_h2(&[new.address]), true),
    ] {
        config.node.leaving.drain = Duration::from_secs(2);
        let edge = Edge::new(config);
        let mut socket = Socket::open(&edge, is_new).await;
        socket.read_exact(&mut [0; 5]).await.unwrap();
        edge.shutdown.cancel();
        let address = edge.address;
        eventually("nobody listens any more", || std::net::TcpStream::connect(address).is_err()).await;
        socket.talk(b"still there?").await.unwrap();
        let load = edge.load(0);
        assert_eq!(load.in_flight(), 1);
        tokio::time::timeout(PATIENCE, edge.server.stopped()).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, socket.read(&mut [0; 8])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{is_new}: {ended:?}");
        eventually("the tunnel is gone", || load.in_flight() == 0).await;
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody_else() {
    let taken = Arc::<AtomicU64>::default();
    let count = Arc::clone(&taken);
    let origin = speaking_h2(200, move |mut body, mut send| {
        let count = Arc::clone(&count);
        async move {
            // Who speaks first is echoed; who says nothing is flooded.
            let first = tokio::time::timeout(Duration::from_millis(500), body.data()).await;
            if let Ok(Some(Ok(first))) = first {
                send.send_data(first, false).unwrap();
                return echo(body, send).await;
            }
            loop {
                send.reserve_capacity(16 * 1024);
                let Some(Ok(room)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                let room = room.min(16 * 1024);
                if send.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                    return;
                }
                count.fetch_add(room as u64, SeqCst);
            }
        }
    })
    .await;
    let edge = Edge::new(over_h2(&[origin.address]));
    let mut stuck = Vec::new();
    for turn in 0..8 {
        stuck.push(Socket::open(&edge, turn % 2 == 0).await);
    }
    // Nothing moves while they do not read: what was taken settles.
    let mut before = u64::MAX;
    while before != taken.load(SeqCst) || before == 0 {
        before = taken.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 80 << 20, "{before} bytes are on their way to eight clients that read nothing");
    for is_new in [false, true] {
        let mut socket = Socket::open(&edge, is_new).await;
        socket.write_all(b"hello").await.unwrap();
        let mut heard = [0; 10];
        tokio::time::timeout(PATIENCE, socket.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(&heard, b"hellohello");
        socket.talk(b"word").await.unwrap();
    }
    assert_eq!(origin.accepted.load(SeqCst), 1, "over the same connection");
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
