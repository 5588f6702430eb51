//! Every probe against real servers on loopback, the good ones and all kinds of bad ones.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::base::task::{self, Task};
use crate::config::{Probe, Protocol};

const LONG: Duration = Duration::from_secs(20);

async fn serve<F, W>(conversation: F) -> (SocketAddr, Task)
where
    F: Fn(TcpStream) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = task::spawn("test-server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            task::spawn("test-connection", conversation(stream)).detach();
        }
    });
    (address, task)
}

fn target(address: SocketAddr, kind: ProbeKind, protocol: Protocol) -> Target {
    let probe = Probe {
        kind,
        interval: Duration::from_secs(1),
        timeout: LONG,
        fall: 2,
        rise: 2,
        port: None,
        proxy_protocol: None,
    };
    Target { address, probe, protocol }
}

fn http(tls: Option<UpstreamTls>) -> ProbeKind {
    ProbeKind::Http { path: "/healthz?deep=1".into(), host: None, expect: (200, 299), tls }
}

fn grpc(tls: Option<UpstreamTls>) -> ProbeKind {
    ProbeKind::Grpc { service: "gifts".into(), tls }
}

async fn probe(target: &Target) -> Option<ProbeOutcome> {
    ask(&Sockets, target, &Assets::default()).await
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with what `ask` gives")]
const fn failed(failure: ProbeFailure) -> Option<ProbeOutcome> {
    Some(ProbeOutcome::Failed(failure))
}

const OK: Option<ProbeOutcome> = Some(ProbeOutcome::Ok);

/// Reads a request head, so that closing with unread bytes does not become a reset of its own.
async fn head(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { break };
        read.push(byte);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn tcp_asks_for_a_connection_and_no_more() {
    let (address, server) = serve(|_| pending()).await;
    let target = target(address, ProbeKind::Tcp, Protocol::Http1);
    assert_eq!(probe(&target).await, OK);
    drop(server);
    let eventually = async {
        while probe(&target).await == OK {
            tokio::task::yield_now().await;
        }
        probe(&target).await
    };
    assert_eq!(tokio::time::timeout(LONG, eventually).await, Ok(failed(ProbeFailure::Refused)));
}

#[tokio::test]
async fn http_asks_as_a_new_client_would() {
    let (seen, mut heads) = mpsc::channel(8);
    let (address, _server) = serve(move |mut stream| {
        let seen = seen.clone();
        async move {
            seen.send(head(&mut stream).await).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let mut target = target(address, http(None), Protocol::Http1);
    assert_eq!(probe(&target).await, OK);
    let asked = heads.recv().await.unwrap();
    assert!(asked.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{asked}");
    for header in [
        format!("host: {address}"),
        format!("user-agent: springtide-probe/{}", env!("CARGO_PKG_VERSION")),
        "connection: close".into(),
    ] {
        assert!(asked.contains(&format!("{header}\r\n")), "{header} in {asked}");
    }
    target.probe.kind =
        ProbeKind::Http { path: "/".into(), host: Some("hongbao.test".into()), expect: (200, 200), tls: None };
    assert_eq!(probe(&target).await, failed(ProbeFailure::Status(204)), "expect is what counts");
    assert!(heads.recv().await.unwrap().contains("host: hongbao.test\r\n"));
}

#[tokio::test]
async fn http_calls_each_broken_answer_by_its_name() {
    enum Then {
        Close,
        Reset,
        Repeat(&'static [u8]),
    }
    const OK_HEAD: &str = "HTTP/1.1 200 OK\r\n";
    let table: Vec<(&str, String, Then, Option<ProbeOutcome>)> = vec![
        ("whole", format!("{OK_HEAD}content-length: 2\r\n\r\nok"), Then::Close, OK),
        ("chunked", format!("{OK_HEAD}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"), Then::Close, OK),
        ("early hints first", format!("HTTP/1.1 103 Early Hints\r\n\r\n{OK_HEAD}\r\n"), Then::Close, OK),
        ("endless body", format!("{OK_HEAD}\r\n"), Then::Repeat(&[b'x'; 1024]), OK),
        ("503", "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".into(), Then::Close, failed(ProbeFailure::Status(503))),
        ("redirect", "HTTP/1.1 302 Found\r\n\r\n".into(), Then::Close, failed(ProbeFailure::Status(302))),
        ("nothing", String::new(), Then::Close, failed(ProbeFailure::Reset)),
        ("reset at once", String::new(), Then::Reset, failed(ProbeFailure::Reset)),
        ("closed within the head", "HTTP/1.1 200 O".into(), Then::Close, failed(ProbeFailure::Reset)),
        ("reset within the head", "HTTP/1.1 200 O".into(), Then::Reset, failed(ProbeFailure::Reset)),
        (
            "closed within the body",
            format!("{OK_HEAD}content-length: 9\r\n\r\nok"),
            Then::Close,
            failed(ProbeFailure::Reset),
        ),
        ("garbage", "220 mail.example ESMTP\r\n".into(), Then::Close, failed(ProbeFailure::Garbage)),
        ("binary", "\u{0}\u{1}\u{2}\u{3}\r\n\r\n".into(), Then::Close, failed(ProbeFailure::Garbage)),
        (
            "bad chunk",
            format!("{OK_HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n"),
            Then::Close,
            failed(ProbeFailure::Garbage),
        ),
        ("endless head", OK_HEAD.into(), Then::Repeat(b"x-more: and more\r\n"), failed(ProbeFailure::Garbage)),
        ("endless line", "HTTP/1.1 200 ".into(), Then::Repeat(b"OOOOOOOO"), failed(ProbeFailure::Garbage)),
    ];
    for (name, answer, then, expected) in table {
        let then = Arc::new(then);
        let (address, _server) = serve(move |mut stream| {
            let (answer, then) = (answer.clone(), Arc::clone(&then));
            async move {
                head(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                match *then {
                    Then::Close => {}
                    Then::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
                    Then::Repeat(bytes) => while stream.write_all(bytes).await.is_ok() {},
                }
            }
        })
        .await;
        assert_eq!(probe(&target(address, http(None), Protocol::Http1)).await, expected, "{name}");
    }
}

/// The clock is paused: it jumps to the next timer whenever nobody has anything to do, so silence costs no time.
#[tokio::test(start_paused = true)]
async fn silence_and_drips_end_at_the_timeout() {
    let (silent, _silent) = serve(|stream| async move {
        let _held = stream;
        pending::<()>().await;
    })
    .await;
    let (dripping, _dripping) = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let mut drip = tokio::time::interval(Duration::from_millis(50));
        for byte in "HTTP/1.1 200 OK\r\nx-slow: ".bytes().chain(std::iter::repeat(b'z')) {
            drip.tick().await;
            if stream.write_u8(byte).await.is_err() {
                break;
            }
        }
    })
    .await;
    let ca = Authority::new("upstream.test");
    for address in [silent, dripping] {
        for (kind, protocol) in [
            (http(None), Protocol::Http1),
            (http(Some(upstream("upstream.test"))), Protocol::Http1),
            (http(Some(upstream("upstream.test"))), Protocol::Http2),
            (ProbeKind::Tls { tls: upstream("upstream.test") }, Protocol::Http1),
        ] {
            let mut target = target(address, kind, protocol);
            target.probe.timeout = Duration::from_millis(500);
            let outcome = ask(&Sockets, &target, &ca.assets()).await;
            // What drips is no TLS record and no HTTP/2 frame, and may be recognised as such before the time is up.
            let early = address == dripping && target.probe.kind != http(None);
            assert!(
                outcome == failed(ProbeFailure::Timeout) || early && outcome == failed(ProbeFailure::Tls),
                "{:?}: {outcome:?}",
                target.probe.kind
            );
        }
    }
}

#[tokio::test]
async fn nothing_of_a_probe_outlives_it() {
    let (closed, mut ends) = mpsc::channel(8);
    let (address, _server) = serve(move |mut stream| {
        let closed = closed.clone();
        async move {
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
            closed.send(()).await.unwrap();
        }
    })
    .await;
    for (kind, protocol) in
        [(http(None), Protocol::Http1), (http(None), Protocol::Http2), (grpc(None), Protocol::Http2)]
    {
        let mut target = target(address, kind, protocol);
        target.probe.timeout = Duration::from_millis(50);
        assert_eq!(probe(&target).await, failed(ProbeFailure::Timeout));
        assert_eq!(
            tokio::time::timeout(LONG, ends.recv()).await,
            Ok(Some(())),
            "the connection is closed with the probe"
        );
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// An HTTP/2 server that answers everything with `answer`.
async fn http2<F>(answer: F) -> (SocketAddr, Task)
where
    F: Fn(&Request<Incoming>) -> Response<Body> + Clone + Send + Sync + 'static,
{
    serve(move |stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let response = answer(&request);
                async move { Ok::<_, Infallible>(response) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

#[tokio::test]
async fn http2_is_spoken_where_the_service_speaks_it() {
    let (address, _server) = http2(|request| {
        let good = request.uri().path() == "/healthz" && request.headers().contains_key("user-agent");
        Response::builder().status(if good { 200 } else { 500 }).body(Full::from("ok").boxed()).unwrap()
    })
    .await;
    assert_eq!(probe(&target(address, http(None), Protocol::Http2)).await, OK);
    let mixed_up = probe(&target(address, http(None), Protocol::Http1)).await;
    // Whether its complaint or the end of the connection is seen first is up to the kernel.
    assert!([failed(ProbeFailure::Garbage), failed(ProbeFailure::Reset)].contains(&mixed_up), "{mixed_up:?}");
    let (address, _server) = http2(|_| Response::builder().status(503).body(Empty::new().boxed()).unwrap()).await;
    assert_eq!(probe(&target(address, http(None), Protocol::Http2)).await, failed(ProbeFailure::Status(503)));
}

#[tokio::test]
async fn grpc_knows_serving_from_everything_else() {
    fn answer(message: &'static [u8], trailer: Option<&'static str>) -> Response<Body> {
        let trailers =
            trailer.map(|code| Ok(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])));
        let body = Full::from(message).with_trailers(std::future::ready(trailers)).boxed();
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    }
    type Answer = fn() -> Response<Body>;
    let table: [(&str, Answer, Option<ProbeOutcome>); 9] = [
        ("serving", || answer(&[0, 0, 0, 0, 2, 8, 1], Some("0")), OK),
        ("not serving", || answer(&[0, 0, 0, 0, 2, 8, 2], Some("0")), failed(ProbeFailure::Status(503))),
        ("unknown", || answer(&[0, 0, 0, 0, 0], Some("0")), failed(ProbeFailure::Status(503))),
        ("service unknown", || answer(&[0, 0, 0, 0, 2, 8, 3], Some("0")), failed(ProbeFailure::Status(404))),
        ("unavailable", || answer(&[], Some("14")), failed(ProbeFailure::Status(503))),
        (
            "unimplemented, in the head alone",
            || Response::builder().header("grpc-status", "12").body(Empty::new().boxed()).unwrap(),
            failed(ProbeFailure::Status(501)),
        ),
        ("no status", || answer(&[0, 0, 0, 0, 2, 8, 1], None), failed(ProbeFailure::Garbage)),
        ("no message", || answer(&[], Some("0")), failed(ProbeFailure::Garbage)),
        (
            "not gRPC",
            || Response::builder().status(404).body(Full::from("what?").boxed()).unwrap(),
            failed(ProbeFailure::Status(404)),
        ),
    ];
    for (name, answer, expected) in table {
        let (address, _server) = http2(move |request| {
            let right = request.uri().path() == "/grpc.health.v1.Health/Check" && request.headers()["te"] == "trailers";
            if right { answer() } else { Response::builder().status(400).body(Empty::new().boxed()).unwrap() }
        })
        .await;
        assert_eq!(probe(&target(address, grpc(None), Protocol::Http1)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn who_speaks_first_speaks_another_protocol() {
    let (address, _server) = serve(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    let ca = Authority::new("upstream.test");
    for _ in 0..20 {
        for (kind, protocol) in
            [(http(None), Protocol::Http1), (http(None), Protocol::Http2), (grpc(None), Protocol::Http1)]
        {
            assert_eq!(probe(&target(address, kind, protocol)).await, failed(ProbeFailure::Garbage));
        }
        let tls = target(address, ProbeKind::Tls { tls: upstream("upstream.test") }, Protocol::Http1);
        assert_eq!(ask(&Sockets, &tls, &ca.assets()).await, failed(ProbeFailure::Tls));
    }
}

fn upstream(name: &str) -> UpstreamTls {
    UpstreamTls { name: name.into(), ca: "ca.pem".into(), certificate: None }
}

/// An authority of our own with one certificate.
struct Authority {
    acceptor: TlsAcceptor,
    client: Arc<ClientConfig>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let mut server = server.unwrap();
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(server)), client: Arc::new(client) }
    }

    /// Trusts this authority, whatever name is asked for.
    fn assets(&self) -> Assets {
        let names = ["upstream.test", "other.test"];
        let upstream_tls = names.map(|name| (upstream(name), Arc::clone(&self.client))).into_iter().collect();
        Assets { upstream_tls, ..Assets::default() }
    }

    /// A server with this authority's certificate that speaks whatever ALPN settled on, and says 200.
    async fn server(&self) -> (SocketAddr, Task) {
        let acceptor = self.acceptor.clone();
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("ok"))) });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }
}

#[tokio::test]
async fn tls_is_verified_in_every_probe_that_speaks_it() {
    let (ours, theirs) = (Authority::new("upstream.test"), Authority::new("upstream.test"));
    let (address, _server) = ours.server().await;
    let kinds = |name: &str| {
        let tls = upstream(name);
        [
            (ProbeKind::Tls { tls: tls.clone() }, Protocol::Http1),
            (http(Some(tls.clone())), Protocol::Http1),
            (http(Some(tls)), Protocol::Http2),
        ]
    };
    for (kind, protocol) in kinds("upstream.test") {
        let target = target(address, kind, protocol);
        for _ in 0..2 {
            assert_eq!(ask(&Sockets, &target, &ours.assets()).await, OK, "{target:?}");
        }
        let stranger = ask(&Sockets, &target, &theirs.assets()).await;
        assert_eq!(stranger, failed(ProbeFailure::Tls), "signed by somebody else: {target:?}");
        assert_eq!(probe(&target).await, None, "without authorities there is nothing to ask with");
    }
    for (kind, protocol) in kinds("other.test") {
        let target = target(address, kind, protocol);
        assert_eq!(ask(&Sockets, &target, &ours.assets()).await, failed(ProbeFailure::Tls), "another name: {target:?}");
    }
    let (plain, _server) = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await;
    for (kind, protocol) in kinds("upstream.test") {
        let target = target(plain, kind, protocol);
        assert_eq!(ask(&Sockets, &target, &ours.assets()).await, failed(ProbeFailure::Tls), "no TLS there: {target:?}");
    }
}

#[test]
fn every_outcome_has_a_word() {
    let failures = [ProbeFailure::Refused, ProbeFailure::Tls, ProbeFailure::Status(503)];
    let words: Vec<_> = failures.into_iter().map(|f| outcome_word(failed(f))).collect();
    assert_eq!((words, outcome_word(OK), outcome_word(None)), (vec!["refused", "tls", "status"], "ok", "unasked"));
}
