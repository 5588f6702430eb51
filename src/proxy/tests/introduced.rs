//! The PROXY protocol, in and out: who a client is, and whose connection a backend gets.

use super::*;
use crate::config::ProxyProtocol;
use crate::net::proxied;
use crate::wire::proxy_line::{self, Ends};

fn ends(source: &str) -> Ends {
    Ends::new(source.parse().unwrap(), "198.51.100.1:443".parse().unwrap())
}

/// An edge on `origin` to which this host speaks for others, or not.
fn behind(origin: &Origin, proxies: &[&str], trusted: &[&str]) -> Edge {
    let mut config = config(&[origin.address]);
    config.listeners[0].proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
    config.listeners[0].trusted = trusted.iter().map(|net| net.parse().unwrap()).collect();
    Edge::new(config)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n";

/// Sends `octets` and gives what comes back until the end.
async fn tell(edge: &Edge, octets: &[u8]) -> String {
    let mut tcp = edge.connect().await;
    tcp.write_all(octets).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_balancer_says_for_whom_it_speaks() {
    let origin = Origin::named("ok").await;
    let edge = behind(&origin, &["127.0.0.0/8"], &["192.0.2.9/32"]);
    let cases: [(Vec<u8>, &str); 6] = [
        (proxy_line::text(Some(&ends("192.0.2.7:51234"))), "192.0.2.7"),
        (proxy_line::binary(Some(&ends("192.0.2.7:51234"))), "192.0.2.7"),
        (proxy_line::binary(Some(&ends("[2001:db8::7]:1"))), "2001:db8::7"),
        (proxy_line::binary(None), "127.0.0.1"),
        (proxy_line::text(None), "127.0.0.1"),
        // A trusted hop behind the balancer: what it says of others is continued.
        (proxy_line::text(Some(&ends("192.0.2.9:1"))), "6.6.6.6, 192.0.2.9"),
    ];
    for (at, (header, client)) in cases.iter().enumerate() {
        let answer = tell(&edge, &[&header[..], REQUEST].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{client}: {answer}");
        assert_eq!(origin.request(at).headers()["x-forwarded-for"], client);
    }
    // In pieces, and with HTTP/2 behind it.
    let mut tcp = edge.connect().await;
    for octet in proxy_line::text(Some(&ends("192.0.2.8:2"))) {
        tcp.write_u8(octet).await.unwrap();
        tokio::task::yield_now().await;
    }
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp));
    let (mut sender, connection) = handshake.await.unwrap();
    let _task = task::spawn("client", async { drop(connection.await) });
    let request = Request::get("http://a.test/").body(stage::empty()).unwrap();
    assert_eq!(Answer::of(sender.send_request(request).await.unwrap()).await.body, "ok");
    assert_eq!(origin.request(cases.len()).headers()["x-forwarded-for"], "192.0.2.8");
}

#[tokio::test]
async fn who_must_introduce_others_and_does_not_is_sent_away() {
    let origin = Origin::named("ok").await;
    let edge = behind(&origin, &["127.0.0.0/8"], &[]);
    let mut flipped = proxy_line::binary(Some(&ends("192.0.2.7:51234")));
    flipped[12] = 0x31;
    let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat();
    for broken in [b"PROXY TCP4 1.2.3.4 5.6.7.8 x 80\r\n".to_vec(), flipped, long, Vec::new()] {
        assert_eq!(tell(&edge, &[&broken[..], REQUEST].concat()).await, "", "{broken:?}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let origin = Origin::named("ok").await;
    let edge = behind(&origin, &["10.0.0.0/8"], &[]);
    for header in [proxy_line::text(Some(&ends("192.0.2.7:1"))), proxy_line::binary(Some(&ends("192.0.2.7:1")))] {
        let answer = tell(&edge, &[&header[..], REQUEST].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert!(tell(&edge, REQUEST).await.starts_with("HTTP/1.1 200"), "without a header it is served as itself");
    assert_eq!(origin.request(0).headers()["x-forwarded-for"], "127.0.0.1");
}

/// A backend that expects to be told, and notes for whom each of its connections was.
async fn told() -> (Origin, Arc<Mutex<Vec<Option<Ends>>>>) {
    let whom: Arc<Mutex<Vec<Option<Ends>>>> = Arc::default();
    let log = Arc::clone(&whom);
    let origin = Origin::raw(move |mut tcp| {
        let log = Arc::clone(&log);
        async move {
            let ends = proxied::read(&mut tcp).await.unwrap();
            log.lock().unwrap().push(ends);
            loop {
                read_head(&mut tcp).await;
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    (origin, whom)
}

#[tokio::test]
async fn a_backend_is_told_for_whom_a_connection_is_and_it_is_for_nobody_else() {
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let (origin, whom) = told().await;
        let mut config = config(&[origin.address]);
        config.services[0].proxy_protocol = Some(version);
        config.listeners[0].proxies = vec!["127.0.0.2/32".parse().unwrap()];
        let edge = Edge::new(config);
        let (mut one, mut two) = (edge.http1().await, edge.http1().await);
        for _ in 0..3 {
            for client in [&mut one, &mut two] {
                assert_eq!(client.call(get("/")).await.body, "ok");
            }
        }
        let seen = whom.lock().unwrap().clone();
        assert_eq!(seen.len(), 2, "a connection of each client, used again by that client alone: {seen:?}");
        let (first, second) = (seen[0].unwrap(), seen[1].unwrap());
        assert_eq!((first.source.ip(), first.destination), ([127, 0, 0, 1].into(), edge.address));
        assert_ne!(first.source.port(), second.source.port());
    }
}

#[tokio::test]
async fn a_client_that_was_introduced_is_introduced_further() {
    let (origin, whom) = told().await;
    let mut config = config(&[origin.address]);
    config.services[0].proxy_protocol = Some(ProxyProtocol::V2);
    config.listeners[0].proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = Edge::new(config);
    let header = proxy_line::text(Some(&ends("[2001:db8::7]:51234")));
    let answer = tell(&edge, &[&header[..], REQUEST].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(whom.lock().unwrap()[0].unwrap().source, "[2001:db8::7]:51234".parse().unwrap());
}
