//! Heads: what reaches a backend, what comes back, who answers what by itself.

use super::*;

#[tokio::test]
async fn hop_by_hop_fields_end_here_and_forwarding_fields_are_ours() {
    let origin = Origin::new(|_| async {
        Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("x-public", "1")
            .body(stage::full("ok"))
            .unwrap()
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    let mut request = get("/a/../b//c?q=1");
    for (name, value) in [
        ("connection", "x-mine, keep-alive"),
        ("x-mine", "1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-request-id", "forged"),
        ("te", "gzip"),
        ("proxy-authorization", "secret"),
        ("cookie", "a=b"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = edge.http1().await.call(request).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, b"ok".as_slice()));
    assert!(!answer.headers.contains_key("x-private") && !answer.headers.contains_key("keep-alive"));
    assert_eq!(answer.headers["x-public"], "1");

    let seen = origin.request(0);
    assert_eq!(seen.uri(), "/b/c?q=1", "the path is normalised once, for matching and for forwarding");
    for gone in ["connection", "x-mine", "te", "proxy-authorization"] {
        assert!(!seen.headers().contains_key(gone), "{gone}: {:?}", seen.headers());
    }
    assert_eq!(seen.headers()["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers()["x-forwarded-proto"], "http");
    assert_eq!(seen.headers()["host"], "example.test");
    assert_eq!(seen.headers()["cookie"], "a=b");
    let id = seen.headers()["x-request-id"].to_str().unwrap();
    assert!(id.len() == 32 && id != "forged", "{id}");
    let deadline: u64 = seen.headers()["x-deadline-ms"].to_str().unwrap().parse().unwrap();
    assert!((10_000..15_000).contains(&deadline), "{deadline}");
}

#[tokio::test]
async fn a_trusted_peer_names_the_request_and_its_client() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.listeners[0].trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = Edge::new(config);
    let mut request = get("/");
    request.headers_mut().insert("x-request-id", "trace-7".parse().unwrap());
    request.headers_mut().insert("x-forwarded-for", "9.9.9.9".parse().unwrap());
    edge.http1().await.call(request).await;
    let seen = origin.request(0);
    assert_eq!(seen.headers()["x-request-id"], "trace-7");
    assert_eq!(seen.headers()["x-forwarded-for"], "9.9.9.9, 127.0.0.1");
}

#[tokio::test]
async fn refusals_are_friendly_and_costless() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.routes[0].matches.host = Some("example.test".into());
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let mut other = get("/");
    other.headers_mut().insert("host", "nobody.test".parse().unwrap());
    assert_eq!(caller.call(other).await.refusal(), (404, "no_route".into()));
    for path in ["/%2e%2e/%2e%2e/etc", "/..%2fx", "/%zz"] {
        assert_eq!(caller.call(get(path)).await.refusal(), (400, "bad_request".into()), "{path}");
    }
    let mut page = get("/%zz");
    page.headers_mut().insert("accept", "text/html".parse().unwrap());
    let page = caller.call(page).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(String::from_utf8_lossy(&page.body).contains("无法识别"));
    let mut circle = get("/");
    circle.headers_mut().insert("via", ["1.1 springtide"; 8].join(", ").parse().unwrap());
    assert_eq!(caller.call(circle).await.refusal(), (508, "loop".into()));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn some_routes_are_answered_here() {
    let mut config = config(&[]);
    config.routes.push(route(
        "maintenance",
        "/reject",
        Action::Respond { status: 503, content_type: "text/plain".into(), body: "later".into() },
    ));
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let answer = caller.call(get("/reject")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (503, b"later".as_slice()));
    assert_eq!(
        caller.call(get("/")).await.refusal(),
        (503, "service_unavailable".into()),
        "a service without backends"
    );
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_two_hosts_is_refused() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[origin.address]));
    for (head, status) in [
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(40_000)), "431"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n".into(), "400"),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n".into(), "405"),
    ] {
        let mut tcp = edge.connect().await;
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tcp.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]).unwrap(), status, "{}", &head[..40.min(head.len())]);
    }
    assert_eq!(origin.requests(), 0);
}
