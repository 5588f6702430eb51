//! Every transport gives the same message for the same query: over real sockets, with a client for each.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream as AsyncTcp;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config::Connections;
use crate::dns::fixture::{SERVER, everywhere, speaking};
use crate::wire::text;

/// A client for each transport, connected.
struct Clients {
    udp: tokio::net::UdpSocket,
    tcp: AsyncTcp,
    tls: TlsStream<AsyncTcp>,
    http1: http1::SendRequest<Full<Bytes>>,
    http2: http2::SendRequest<Full<Bytes>>,
    quic: quinn::Connection,
    _endpoint: quinn::Endpoint,
    _tasks: tokio::task::JoinSet<()>,
}

async fn tls(address: SocketAddr, client: &rustls::ClientConfig, alpn: &str) -> TlsStream<AsyncTcp> {
    let tcp = AsyncTcp::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(speaking(client, alpn));
    connector.connect(ServerName::try_from(SERVER).unwrap(), tcp).await.unwrap()
}

fn endpoint(client: &rustls::ClientConfig) -> quinn::Endpoint {
    let crypto = QuicClientConfig::try_from(speaking(client, "doq")).unwrap();
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

impl Clients {
    async fn connect(addresses: &Addresses, client: &rustls::ClientConfig) -> Self {
        let udp = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.connect(addresses.plain[0]).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        let io = TokioIo::new(tls(addresses.https[0], client, "http/1.1").await);
        let (http1, connection) = http1::handshake(io).await.unwrap();
        tasks.spawn(async { connection.await.unwrap_or_default() });
        let io = TokioIo::new(tls(addresses.https[0], client, "h2").await);
        let (http2, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tasks.spawn(async { connection.await.unwrap_or_default() });
        let endpoint = endpoint(client);
        Self {
            udp,
            tcp: AsyncTcp::connect(addresses.plain[0]).await.unwrap(),
            tls: tls(addresses.tls[0], client, "dot").await,
            http1,
            http2,
            quic: endpoint.connect(addresses.quic[0], SERVER).unwrap().await.unwrap(),
            _endpoint: endpoint,
            _tasks: tasks,
        }
    }

    /// What each transport answers, by its name.
    async fn ask(&mut self, query: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        self.udp.send(query).await.unwrap();
        let mut datagram = vec![0; 65_535];
        let length = self.udp.recv(&mut datagram).await.unwrap();
        datagram.truncate(length);
        let get = Request::get(url(query)).body(Full::default()).unwrap();
        let post = |uri: &str| {
            let request = Request::post(uri.to_owned()).header(CONTENT_TYPE, "application/dns-message");
            request.header("host", SERVER).body(Full::new(Bytes::copy_from_slice(query))).unwrap()
        };
        vec![
            ("tcp", streamed(&mut self.tcp, query).await),
            ("udp", datagram),
            ("tls", streamed(&mut self.tls, query).await),
            ("https get", message(self.http2.send_request(get).await.unwrap()).await),
            ("https post", message(self.http2.send_request(post(&url(&[]))).await.unwrap()).await),
            ("https post, http/1.1", message(self.http1.send_request(post("/dns-query")).await.unwrap()).await),
            ("quic", quic(&self.quic, &framed(query)).await.unwrap()),
        ]
    }
}

fn framed(query: &[u8]) -> Vec<u8> {
    [&(query.len() as u16).to_be_bytes(), query].concat()
}

async fn streamed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), query: &[u8]) -> Vec<u8> {
    stream.write_all(&framed(query)).await.unwrap();
    stream.flush().await.unwrap();
    let mut message = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut message).await.unwrap();
    message
}

async fn quic(connection: &quinn::Connection, octets: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(octets).await.unwrap();
    send.finish().unwrap();
    let read = receive.read_to_end(1 << 17).await?;
    let (length, message) = read.split_first_chunk::<2>().unwrap();
    assert_eq!(message.len(), usize::from(u16::from_be_bytes(*length)), "one answer, and the end of the stream");
    Ok(message.to_vec())
}

fn url(query: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = query.iter().flat_map(|octet| (0..8).rev().map(move |i| octet >> i & 1)).collect::<Vec<_>>();
    let sextet = |bits: &[u8]| (0..6).fold(0, |n, i| n << 1 | usize::from(bits.get(i).copied().unwrap_or(0)));
    let text: String = bits.chunks(6).map(|six| char::from(ALPHABET[sextet(six)])).collect();
    format!("https://{SERVER}/dns-query?dns={text}")
}

async fn message(response: Response<Incoming>) -> Vec<u8> {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/dns-message");
    let seconds = crate::wire::doh::freshness;
    let caching = response.headers()[CACHE_CONTROL].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    match seconds(&body) {
        Some(seconds) => assert!(caching.ends_with(&format!("max-age={seconds}")), "{caching}"),
        None => assert_eq!(caching, "no-store"),
    }
    body.to_vec()
}

/// A message, but for what a transport may change: padding, keepalive, cookies.
fn shape(message: &[u8]) -> String {
    format!("{} {:?}", show(message), text::message(message).and_then(|m| m.subnet))
}

fn query() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "example.test.",
        "host.example.test.",
        "HoSt.eXample.TEST.",
        "www.example.test.",
        "near.example.test.",
        "order.example.test.",
        "alias2.example.test.",
        "away.example.test.",
        "ring.example.test.",
        "deep.down.example.test.",
        "x.wild.example.test.",
        "x.child.example.test.",
        "svc.example.test.",
        "big.example.test.",
        "nope.example.test.",
        "elsewhere.net.",
        ".",
    ]);
    let rtype = prop::sample::select(vec!["A", "AAAA", "TXT", "HTTPS", "MX", "NS", "SOA", "DS", "CAA", "SRV", "ANY"]);
    let edns = prop::option::of((512u16..4_096, prop::option::of((any::<[u8; 3]>(), 0u8..=24)), any::<bool>()));
    let noise = prop::option::weighted(0.2, (any::<prop::sample::Index>(), 1u8..));
    (name, rtype, edns, any::<bool>(), noise).prop_map(|(name, rtype, edns, recursion, noise)| {
        let mut ask = Ask::new(name, rtype);
        if let Some((size, subnet, nsid)) = edns {
            ask = ask.edns(size);
            if let Some(([a, b, c], length)) = subnet {
                let net = ipnet::Ipv4Net::new(Ipv4Addr::new(a, b, c, 0), length).unwrap().trunc();
                ask = ask.subnet(&net.to_string());
            }
            if nsid {
                ask = ask.option(3, &[]);
            }
        }
        let mut query = ask.bytes();
        query[..2].fill(0);
        query[2] = u8::from(recursion);
        if let Some((at, with)) = noise {
            let at = at.index(query.len());
            query[at] ^= with;
            // QUIC wants the id 0, and nobody answers an answer.
            query[..2].fill(0);
            query[2] &= 0x7f;
        }
        query
    })
}

#[test]
fn every_transport_gives_the_same_message() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (published, client) = everywhere(|_| ());
    let shutdown = CancellationToken::new();
    let server = start(published, &sockets::Sockets::fresh(), shutdown.clone()).unwrap();
    let clients = std::cell::RefCell::new(runtime.block_on(Clients::connect(&server.addresses(), &client)));
    let mut runner = TestRunner::new(Cases { cases: 192, failure_persistence: None, ..Cases::default() });
    let same = runner.run(&query(), |query| {
        let mut clients = clients.borrow_mut();
        let asked = async { tokio::time::timeout(PATIENCE, clients.ask(&query)).await };
        let answers = runtime.block_on(asked).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let (_, tcp) = &answers[0];
        for (transport, message) in &answers {
            let is_cut = *transport == "udp" && message[2] & 2 != 0;
            if is_cut {
                prop_assert_eq!((&message[..2], message[3]), (&tcp[..2], tcp[3]));
            } else {
                prop_assert_eq!(shape(message), shape(tcp), "{}", transport);
            }
        }
        Ok(())
    });
    assert_eq!(same, Ok(()));
    drop(clients);
    shutdown.cancel();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, server.stopped()).await.unwrap() });
}

#[tokio::test]
async fn requests_that_are_no_query_get_the_status_that_says_why() {
    let (published, client) = everywhere(|_| ());
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let mut clients = Clients::connect(&server.addresses(), &client).await;
    let host = Ask::new("host.example.test.", "A").bytes();
    let build = |method: Method, uri: String, content_type: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content_type);
        request.body(Full::new(Bytes::from(body))).unwrap()
    };
    let dns = "application/dns-message";
    let path = format!("https://{SERVER}/dns-query");
    let response = [0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let cases = [
        (build(Method::POST, path.clone(), dns, host.clone()), 200),
        (build(Method::POST, path.clone(), "Application/DNS-Message", host.clone()), 200),
        (build(Method::POST, path.clone(), "application/json", host.clone()), 415),
        (build(Method::POST, path.clone(), dns, Vec::new()), 400),
        (build(Method::POST, path.clone(), dns, vec![0; 11]), 400),
        (build(Method::POST, path.clone(), dns, response), 400),
        (build(Method::POST, path.clone(), dns, vec![0; 65_536]), 413),
        (build(Method::PUT, path.clone(), dns, host.clone()), 405),
        (build(Method::GET, path.clone(), dns, Vec::new()), 400),
        (build(Method::GET, path.clone() + "?dns=", dns, Vec::new()), 400),
        (build(Method::GET, path.clone() + "?dns=AA=", dns, Vec::new()), 400),
        (build(Method::GET, path.clone() + "?dns=AAAA&dns=AAAA", dns, Vec::new()), 400),
        (build(Method::GET, url(&host) + "==", dns, Vec::new()), 400),
        (build(Method::GET, url(&host) + "&ct", dns, Vec::new()), 200),
        (build(Method::GET, url(&host).replace("dns-query", "dns"), dns, Vec::new()), 404),
    ];
    for (request, status) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let response = clients.http2.send_request(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{what}");
        assert_eq!(response.headers().contains_key("allow"), status == 405);
        assert_eq!(response.headers()[CONTENT_TYPE] == dns, status == 200);
    }
    let chosen = clients.http2.send_request(build(Method::POST, path, dns, Ask::new("www.example.test.", "A").bytes()));
    let chosen = chosen.await.unwrap();
    assert_eq!(chosen.headers()[CACHE_CONTROL], "private, max-age=20", "chosen for this client alone");
}

#[tokio::test]
async fn an_http_client_that_asks_nothing_is_let_go() {
    let limits =
        Connections { idle: Duration::from_millis(100), write: Duration::from_millis(100), ..Default::default() };
    let (published, client) = everywhere(|dns| dns.connections = limits);
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let address = server.addresses().https[0];
    for alpn in ["h2", "http/1.1"] {
        let mut stream = tls(address, &client, alpn).await;
        // For ever the head of one request.
        let head: &[u8] =
            if alpn == "h2" { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" } else { b"GET /dns-query HTTP/1.1\r\n" };
        stream.write_all(head).await.unwrap();
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{alpn}");
    }
}

#[tokio::test]
async fn quic_ends_with_who_breaks_its_rules() {
    let (published, client) = everywhere(|_| ());
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let address = server.addresses().quic[0];
    let mut query = Ask::new("host.example.test.", "A").bytes();
    query[..2].fill(0);
    let mut with_id = query.clone();
    with_id[1] = 1;
    let mut response = query.clone();
    response[2] |= 0x80;
    let endpoint = endpoint(&client);
    let broken: [(&str, Vec<u8>); 7] = [
        ("an id", framed(&with_id)),
        ("an answer", framed(&response)),
        ("two queries", [framed(&query), framed(&query)].concat()),
        ("half a query", framed(&query)[..20].to_vec()),
        ("nothing", Vec::new()),
        ("less than a header", framed(&[0; 11])),
        ("more than any query", vec![0; 65_600]),
    ];
    for (what, octets) in broken {
        let connection = endpoint.connect(address, SERVER).unwrap().await.unwrap();
        assert!(quic(&connection, &framed(&query)).await.is_ok());
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let _ = send.write_all(&octets).await;
        let _ = send.finish();
        // DOQ_PROTOCOL_ERROR.
        assert_eq!(closed_with(&connection).await, 2, "{what}");
    }
}

/// With which code of its own the server closed `connection`.
async fn closed_with(connection: &quinn::Connection) -> u64 {
    match tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap() {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn quic_connections_have_their_limits() {
    let crowded = Connections { per_client: 2, idle: Duration::from_hours(1), ..Default::default() };
    let (published, client) = everywhere(|dns| dns.connections = crowded);
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let from = endpoint(&client);
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(from.connect(server.addresses().quic[0], SERVER).unwrap().await.unwrap());
    }
    // DOQ_EXCESSIVE_LOAD for the one that makes room.
    assert_eq!(closed_with(&connections[0]).await, 4);
    assert!(connections[1].close_reason().is_none() && connections[2].close_reason().is_none());
    let brief = Connections { idle: Duration::from_millis(50), ..Default::default() };
    let (published, client) = everywhere(|dns| dns.connections = brief);
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let from = endpoint(&client);
    let idle = from.connect(server.addresses().quic[0], SERVER).unwrap().await.unwrap();
    // A stream that asks nothing whole keeps nobody awake. DOQ_NO_ERROR.
    let (mut send, _receive) = idle.open_bi().await.unwrap();
    let _ = send.write_all(&[0]).await;
    assert_eq!(closed_with(&idle).await, 0);
}

/// Octets of each unfinished query below, and how many of them fit into the budget of a connection: twice the largest query.
const HALF: (usize, usize) = (30_000, 4);

/// A body that gives something and never ends; or none at all.
enum Piece {
    Next(Bytes),
    Pending,
    None,
}

impl Body for Piece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match std::mem::replace(&mut *self, Self::Pending) {
            Self::Next(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Self::Pending => Poll::Pending,
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::None)
    }
}

#[tokio::test]
async fn unfinished_queries_of_one_https_connection_share_a_budget() {
    let (published, client) = everywhere(|_| ());
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let io = TokioIo::new(tls(server.addresses().https[0], &client, "h2").await);
    let (http2, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async { connection.await.unwrap_or_default() });
    let mut begun = tokio::task::JoinSet::new();
    for _ in 0..3 * HALF.1 {
        let request =
            Request::post(format!("https://{SERVER}/dns-query")).header(CONTENT_TYPE, "application/dns-message");
        let request = request.body(Piece::Next(vec![0; HALF.0].into())).unwrap();
        let mut http2 = http2.clone();
        begun.spawn(async move { http2.send_request(request).await.unwrap().status() });
    }
    for _ in 0..2 * HALF.1 {
        let refused = tokio::time::timeout(PATIENCE, begun.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(!begun.is_empty(), "what fits may go on");
    // The connection goes on, too: a query in a URL, whose body is empty and ends.
    begun.shutdown().await;
    let get = Request::get(url(&Ask::new("host.example.test.", "A").bytes())).body(Piece::None).unwrap();
    let answer = tokio::time::timeout(PATIENCE, http2.clone().send_request(get)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn unfinished_queries_of_one_quic_connection_share_a_budget() {
    let (published, client) = everywhere(|_| ());
    let server = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let connection = endpoint(&client).connect(server.addresses().quic[0], SERVER).unwrap().await.unwrap();
    let mut begun = tokio::task::JoinSet::new();
    for _ in 0..3 * HALF.1 {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        begun.spawn(async move {
            // Refused while it is written, or afterwards.
            let _ = send.write_all(&vec![0; HALF.0]).await;
            let stopped = send.stopped().await;
            drop(receive);
            stopped
        });
    }
    for _ in 0..2 * HALF.1 {
        let stopped = tokio::time::timeout(PATIENCE, begun.join_next()).await.unwrap().unwrap().unwrap();
        // DOQ_EXCESSIVE_LOAD.
        assert_eq!(stopped, Ok(Some(quinn::VarInt::from_u32(4))));
    }
    assert!(!begun.is_empty(), "what fits may go on");
    // The connection goes on, too: whole queries fit beside them.
    let mut query = Ask::new("host.example.test.", "A").bytes();
    query[..2].fill(0);
    assert!(quic(&connection, &framed(&query)).await.is_ok());
}
