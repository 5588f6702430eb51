//! Protocols towards clients and backends: HTTP/1.1 and HTTP/2, in plaintext and over TLS.

use super::*;
use crate::config::Protocol;

async fn http2(edge: &Edge) -> (hyper::client::conn::http2::SendRequest<Body>, Task) {
    let io = TokioIo::new(edge.connect().await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    (sender, task::spawn("h2 client", async { drop(connection.await) }))
}

fn absolute(path: &str) -> Request<Body> {
    let mut request = get(&format!("http://example.test{path}"));
    request.headers_mut().remove("host");
    request
}

#[tokio::test]
async fn a_connection_is_kept_on_both_sides() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[origin.address]));
    let mut caller = edge.http1().await;
    for _ in 0..20 {
        assert_eq!(caller.call(get("/")).await.body, "ok");
    }
    assert_eq!((origin.requests(), origin.accepted.load(SeqCst)), (20, 1));
    assert_eq!(edge.load(0).in_flight(), 0);
    assert_eq!(edge.load(0).take().ok, 20);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new(|r| async move { Response::new(stage::full(r.uri().path().to_owned())) }).await;
    let edge = Edge::new(config(&[origin.address]));
    let mut tcp = edge.connect().await;
    let requests: String = ["0", "1", "2", "3", "4"].map(|i| format!("GET /{i} HTTP/1.1\r\nhost: a\r\n\r\n")).concat();
    tcp.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let mut bytes = [0; 4_096];
    while answers.matches("HTTP/1.1 200").count() < 5 || !answers.ends_with("/4") {
        let n = tokio::time::timeout(PATIENCE, tcp.read(&mut bytes)).await.unwrap().unwrap();
        answers.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    let at: Vec<usize> = (0..5).map(|i| answers.find(&format!("\r\n\r\n/{i}")).unwrap()).collect();
    assert!(at.is_sorted(), "{answers}");
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[origin.address]));
    let mut tcp = edge.connect().await;
    tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close") && answer.ends_with("ok"),
        "{answer}"
    );
    let headers = origin.request(0).headers().clone();
    assert_eq!(headers["host"], origin.address.to_string(), "who names no host asks the backend itself");
    assert!(!headers.contains_key("x-forwarded-host"), "{headers:?}");
}

#[tokio::test]
async fn http2_with_prior_knowledge_shares_the_port_with_http1() {
    let origin = Origin::new(|r| async move {
        let body = r.into_body().collect().await.unwrap().to_bytes();
        Response::new(stage::full(body))
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let (sender, _task) = http2(&edge).await;
    let calls = (0..50).map(|i| {
        let mut sender = sender.clone();
        async move {
            let mut request = absolute("/x");
            *request.method_mut() = Method::POST;
            *request.body_mut() = stage::full(format!("body {i}"));
            let answer = Answer::of(sender.send_request(request).await.unwrap()).await;
            assert_eq!(answer.body, format!("body {i}"));
        }
    });
    let mut set = tokio::task::JoinSet::new();
    calls.for_each(|call| drop(set.spawn(call)));
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    assert_eq!(edge.get("/").await.status, StatusCode::OK);
    let seen = origin.request(0);
    assert_eq!(seen.headers()["host"], "example.test");
    assert_eq!(seen.uri(), "/x");
}

#[tokio::test]
async fn http2_backends_get_one_connection_for_many_requests() {
    let origin = Origin::named("h2").await;
    let mut config = config(&[origin.address]);
    config.services[0].protocol = Protocol::Http2;
    let edge = Edge::new(config);
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let mut caller = edge.http1().await;
        set.spawn(async move { caller.call(get("/y")).await });
    }
    while let Some(answer) = set.join_next().await {
        assert_eq!(answer.unwrap().body, "h2");
    }
    assert_eq!(origin.accepted.load(SeqCst), 1);
    let seen = origin.request(0);
    assert_eq!((seen.version(), seen.uri().to_string().as_str()), (http::Version::HTTP_2, "http://example.test/y"));
    assert_eq!(edge.load(0).in_flight(), 0);
}

#[tokio::test]
async fn several_workers_share_one_port_that_nobody_chose() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.node.workers = 3;
    let edge = Edge::new(config);
    for _ in 0..12 {
        assert_eq!(edge.get("/").await.body, "ok");
    }
    assert!((1..=3).contains(&origin.accepted.load(SeqCst)), "each worker has connections of its own");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let (_listener, address) = listen().await;
    let mut config = config(&[]);
    config.listeners[0].listen = vec![address];
    let topology = Topology::build(Arc::new(config), Assets::default(), None);
    let first = step::first(topology, None, Mono::from_millis(1), Wall(0));
    let refused =
        start(Arc::new(Published::new(first)), Stages::default(), &Sockets::fresh(), CancellationToken::new());
    let error = refused.err().unwrap().to_string();
    assert!(error.contains("listener public") && error.contains(&address.to_string()), "{error}");
}
