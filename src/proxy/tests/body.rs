//! Bodies: short and long, known and unknown, both ways, at the pace of whoever is slower.

use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use http_body::Frame;

use super::*;

/// Gives back what it gets.
async fn echo() -> Origin {
    Origin::new(|r| async move { Response::new(r.into_body().map_err(Into::into).boxed_unsync()) }).await
}

/// The frames that a function gives.
struct Frames<F>(F);

impl<F: FnMut() -> Option<Frame<Bytes>> + Unpin> http_body::Body for Frames<F> {
    type Data = Bytes;
    type Error = stage::BodyError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, stage::BodyError>>> {
        Poll::Ready((self.0)().map(Ok))
    }
}

/// A body of unknown length in `chunks` pieces of `size` bytes; counts what was taken.
fn stream(chunks: usize, size: usize, taken: &Arc<AtomicU64>) -> Body {
    let (mut left, taken) = (chunks, Arc::clone(taken));
    let next = move || {
        left = left.checked_sub(1)?;
        taken.fetch_add(size as u64, SeqCst);
        Some(Frame::data(Bytes::from(vec![b'x'; size])))
    };
    Frames(next).boxed_unsync()
}

#[tokio::test]
async fn bodies_of_every_size_come_back_as_they_went() {
    let origin = echo().await;
    let edge = Edge::new(config(&[origin.address]));
    let mut caller = edge.http1().await;
    for size in [0, 1, 1_000, 65_536, 65_537, 500_000] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        assert_eq!(caller.call(post("/", body.clone())).await.body, body, "{size} bytes of known length");
    }
    for chunks in [1, 2, 30] {
        let mut request = post("/", "");
        *request.body_mut() = stream(chunks, 10_000, &Arc::default());
        assert_eq!(caller.call(request).await.body.len(), chunks * 10_000, "unknown length");
    }
    assert_eq!(edge.load(0).in_flight(), 0);
    assert_eq!(edge.load(0).take().ok, 9);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_a_413() {
    let origin = echo().await;
    let mut config = config(&[origin.address]);
    config.routes[0].max_body = 100_000;
    let edge = Edge::new(config);
    let answer = edge.http1().await.call(post("/", vec![0; 100_001])).await;
    assert_eq!(answer.refusal(), (413, "body_too_large".into()));
    let mut request = post("/", "");
    *request.body_mut() = stream(11, 10_000, &Arc::default());
    let (sender, _task) = {
        let io = TokioIo::new(edge.connect().await);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        (sender, task::spawn("h2 client", async { drop(connection.await) }))
    };
    *request.uri_mut() = "http://example.test/".parse().unwrap();
    let response = sender.clone().send_request(request).await.unwrap();
    // An echo may have begun to answer by then; what it must not do is to end well.
    if response.status() == StatusCode::OK {
        assert!(response.into_body().collect().await.is_err());
    } else {
        assert_eq!(Answer::of(response).await.refusal(), (413, "body_too_large".into()));
    }
    assert_eq!(edge.load(0).take().failures(), 0, "the client's mistake is not the backend's");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let origin = echo().await;
    let edge = Edge::new(config(&[origin.address]));
    let mut tcp = edge.connect().await;
    tcp.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 100 "));
    tcp.write_all(b"hello").await.unwrap();
    assert!(read_head(&mut tcp).await.starts_with("HTTP/1.1 200 "));
    assert!(!origin.request(0).headers().contains_key("expect"));
}

#[tokio::test]
async fn responses_without_a_body_stay_without_one() {
    let origin = Origin::new(|r| async move {
        let status: u16 = r.uri().path()[1..].parse().unwrap();
        let mut response = Response::new(stage::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if r.method() == Method::HEAD {
            response.headers_mut().insert("content-length", "1234".parse().unwrap());
        }
        response
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let mut caller = edge.http1().await;
    for _ in 0..2 {
        for path in ["/204", "/304", "/200"] {
            let answer = caller.call(get(path)).await;
            assert_eq!((answer.status.as_str(), answer.body.len()), (&path[1..], 0));
        }
        let answer = caller.call(request(Method::HEAD, "/200", "")).await;
        assert_eq!((&answer.headers["content-length"], answer.body.len()), (&"1234".parse().unwrap(), 0));
    }
    assert_eq!(origin.accepted.load(SeqCst), 1, "framing was right: one connection did for all");
}

#[tokio::test]
async fn a_long_response_waits_for_a_slow_client() {
    let taken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&taken);
    let origin = Origin::new(move |_| {
        let body = stream(2_000, 64 * 1024, &count);
        async move { Response::new(body) }
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let mut caller = edge.http1().await;
    let mut body = caller.send(get("/")).await.into_body();
    body.frame().await.unwrap().unwrap();
    let load = edge.load(0);
    assert_eq!(load.in_flight(), 1, "a response under way is a request in flight");
    // Nothing moves while the client does not read: what was taken settles far below the whole.
    let mut before = u64::MAX;
    while before != taken.load(SeqCst) {
        before = taken.load(SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < 40 << 20, "{before} bytes are on their way to a client that reads nothing");
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        total += frame.unwrap().into_data().unwrap().len();
    }
    assert!(total > 124 << 20, "{total}");
    eventually("it is over", || load.in_flight() == 0).await;
    assert_eq!(load.take().ok, 1);
}

#[tokio::test]
async fn trailers_arrive() {
    let origin = Origin::new(|_| async {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "7".parse().unwrap());
        let mut frames = [Frame::data(Bytes::from_static(b"data")), Frame::trailers(trailers)].into_iter();
        let mut response = Response::new(Frames(move || frames.next()).boxed_unsync());
        response.headers_mut().insert("trailer", "x-checksum".parse().unwrap());
        response
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let mut request = get("/");
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    let mut caller = edge.http1().await;
    let response = caller.send(request).await;
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().map(|t| t["x-checksum"].clone()), Some("7".parse().unwrap()));
    assert_eq!(origin.request(0).headers()["te"], "trailers");
}

#[tokio::test]
async fn who_listens_may_be_silent_in_the_middle_of_a_call() {
    let origin =
        Origin::new(|request| async move { Response::new(request.into_body().map_err(Into::into).boxed_unsync()) })
            .await;
    let mut config = config(&[origin.address]);
    config.services[0].protocol = crate::config::Protocol::Http2;
    let edge = Edge::new(config);
    let (sender, connection) = ::h2::client::handshake(edge.connect().await).await.unwrap();
    let _task = task::spawn("h2 client", async { drop(connection.await) });
    let mut sender = sender.ready().await.unwrap();
    let request = Request::post("http://example.test/call").body(()).unwrap();
    let (answer, mut send) = sender.send_request(request, false).unwrap();
    send.send_data("one".into(), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    let mut said = async || tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
    assert_eq!(said().await, "one");
    let mut old = edge.connect().await;
    old.write_all(b"POST /call HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
    assert!(read_head(&mut old).await.starts_with("HTTP/1.1 200"));
    let mut heard = [0; 8];
    old.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"3\r\none\r\n");
    // Longer than a body may be behind before it is answered: over HTTP/1 the sweep looks once a second.
    tokio::time::sleep(Duration::from_millis(16_500)).await;
    send.send_data("two".into(), false).unwrap();
    assert_eq!(said().await, "two");
    send.send_data(Bytes::new(), true).unwrap();
    old.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    tokio::time::timeout(PATIENCE, old.read_exact(&mut heard)).await.unwrap().expect("nothing is owed");
    assert_eq!(&heard, b"3\r\ntwo\r\n");
}

#[tokio::test]
async fn the_end_of_a_request_arrives_although_its_response_has_begun() {
    // More than is kept to be sent again: from there on the body goes out as it comes.
    const MOST: usize = 100_000;
    let origin = Origin::raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.read_exact(&mut vec![0; MOST]).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
        let mut last = [0; 5];
        tcp.read_exact(&mut last).await.unwrap();
        tcp.write_all(&last).await.unwrap();
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let mut client = edge.connect().await;
    let head = format!("POST / HTTP/1.1\r\nhost: example.test\r\ncontent-length: {}\r\n\r\n", MOST + 5);
    client.write_all(&[head.as_bytes(), &vec![b'x'; MOST]].concat()).await.unwrap();
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200"));
    let mut read = [0; 10];
    client.read_exact(&mut read[..5]).await.unwrap();
    client.write_all(b"world").await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, client.read_exact(&mut read[5..])).await;
    rest.expect("the last of the request stands at the edge").unwrap();
    assert_eq!(&read, b"helloworld");
}
