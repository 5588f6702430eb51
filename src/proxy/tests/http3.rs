//! HTTP/3: what holds over TCP holds over QUIC, and what only QUIC makes possible is bounded.

mod agreed;
mod hostile;
mod ways;

use http::header::{HeaderName, HeaderValue};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};

use super::secure::{Authority, assets_of};
use super::*;
use crate::config::{Http3, ListenerTls, UpstreamTls};
use crate::net::tls;
use crate::wire::h3::control::hello;
use crate::wire::h3::frame::{self, Frames, Piece, Wanted, kind};
use crate::wire::h3::qpack::Section;

/// The name that the edge of these tests has.
const NAME: &str = "one.test";

/// An edge in front of `origins`, over TCP and QUIC.
fn edge(authority: &Authority, origins: &[SocketAddr], change: impl FnOnce(&mut Config)) -> Edge {
    let mut config = config(origins);
    let listener = ListenerTls { pairs: vec![authority.issue(NAME)], ..ListenerTls::default() };
    let assets = assets_of(&listener);
    config.listeners[0].tls = Some(listener);
    config.listeners[0].http3 = Some(Http3::default());
    change(&mut config);
    Edge::with(config, assets, Stages::default())
}

/// A client that speaks HTTP/3 by hand.
struct Client {
    connection: Connection,
    endpoint: Endpoint,
    control: SendStream,
}

/// What came back on a stream.
#[derive(Debug)]
struct Reply {
    /// Heads: interim ones, the head, trailers.
    heads: Vec<HeaderMap>,
    body: Vec<u8>,
}

impl Reply {
    fn status(&self) -> &str {
        self.heads[0]["status"].to_str().unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Octets of a field section with these fields spelled out, whatever they are.
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    fn string(out: &mut Vec<u8>, flags: u8, bits: u32, text: &str) {
        let mask = (1usize << bits) - 1;
        if text.len() < mask {
            out.push(flags | text.len() as u8);
        } else {
            out.push(flags | mask as u8);
            let mut rest = text.len() - mask;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
        out.extend_from_slice(text.as_bytes());
    }
    let mut out = vec![0, 0];
    for (name, value) in fields {
        string(&mut out, 0x20, 3, name);
        string(&mut out, 0, 7, value);
    }
    out
}

fn framed(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_header(&mut out, kind, payload.len());
    out.extend_from_slice(payload);
    out
}

fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [(":method", method), (":scheme", "https"), (":authority", NAME), (":path", path)];
    framed(kind::HEADERS, &section(&[&first[..], more].concat()))
}

fn fields(section: &[u8]) -> HeaderMap {
    let section = Section::read(section).unwrap();
    let mut map = HeaderMap::new();
    for field in section.fields() {
        let name = field.name().strip_prefix(b":").unwrap_or(field.name());
        map.append(HeaderName::from_bytes(name).unwrap(), HeaderValue::from_bytes(field.value()).unwrap());
    }
    map
}

impl Client {
    async fn new(edge: &Edge, authority: &Authority) -> Self {
        Self::silent(edge, authority, &hello(1 << 20)).await
    }

    /// One whose first stream of one direction says `first`.
    async fn silent(edge: &Edge, authority: &Authority, first: &[u8]) -> Self {
        Self::showing(edge, &authority.trusted_as(NAME), first).await.unwrap()
    }

    /// The same, with what it trusts and shows.
    async fn showing(edge: &Edge, tls: &UpstreamTls, first: &[u8]) -> Result<Self, quinn::ConnectionError> {
        let mut tls = (*tls::client_config(tls).unwrap()).clone();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connecting = endpoint.connect(edge.address, NAME).unwrap();
        let connection = tokio::time::timeout(PATIENCE, connecting).await.unwrap()?;
        let mut control = connection.open_uni().await?;
        control.write_all(first).await.unwrap();
        Ok(Self { connection, endpoint, control })
    }

    /// Begins a request with these octets.
    async fn begin(&self, octets: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        send.write_all(octets).await.unwrap();
        (send, receive)
    }

    /// A request of these octets, and what comes back.
    async fn call(&self, octets: &[u8]) -> Reply {
        self.ask(octets).await.unwrap()
    }

    /// The same, or the code that the stream was reset with.
    async fn ask(&self, octets: &[u8]) -> Result<Reply, u64> {
        let (mut send, receive) = self.begin(octets).await;
        let _ = send.finish();
        read(receive).await
    }

    /// The code that the server closes the connection with.
    async fn closed(&self) -> u64 {
        let error = tokio::time::timeout(PATIENCE, self.connection.closed()).await.unwrap();
        match error {
            quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
            other => panic!("{other}"),
        }
    }
}

/// Everything that comes on `receive`.
async fn read(mut receive: RecvStream) -> Result<Reply, u64> {
    let (mut frames, mut reply) = (Frames::default(), Reply { heads: Vec::new(), body: Vec::new() });
    let reading = async {
        loop {
            match receive.read_chunk(1 << 20, true).await {
                Ok(Some(chunk)) => take(&mut frames, chunk.bytes, &mut reply),
                Ok(None) => return Ok(reply),
                Err(quinn::ReadError::Reset(code)) => return Err(code.into_inner()),
                Err(quinn::ReadError::ConnectionLost(quinn::ConnectionError::ApplicationClosed(closed))) => {
                    return Err(closed.error_code.into_inner());
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

fn take(frames: &mut Frames, mut came: Bytes, reply: &mut Reply) {
    loop {
        let piece =
            frames.step(&mut came, |kind, _| Ok(if kind == kind::HEADERS { Wanted::Whole } else { Wanted::Octets }));
        match piece.unwrap() {
            Piece::Wait => return,
            Piece::Whole(_, section) => reply.heads.push(fields(&section)),
            Piece::Octets(data) => reply.body.extend_from_slice(&data),
            Piece::Skipped => {}
        }
    }
}

/// An origin that sends back what it gets.
async fn echo() -> Origin {
    Origin::new(|r| async move {
        let length = r.headers().get("content-length").cloned();
        let mut response = Response::new(r.into_body().map_err(Into::into).boxed_unsync());
        if let Some(length) = length {
            response.headers_mut().insert("x-length", length);
        }
        response
    })
    .await
}

#[tokio::test]
async fn a_request_passes_the_same_stages() {
    let (authority, origin) = (Authority::new(), Origin::named("ok").await);
    let edge = edge(&authority, &[origin.address], |_| ());
    let client = Client::new(&edge, &authority).await;
    let cookies = [("cookie", "a=b"), ("x-forwarded-for", "9.9.9.9"), ("cookie", "c=d"), ("te", "trailers")];
    for path in ["/a?b=c", "/x/../a?b=c"] {
        let reply = client.call(&head("GET", path, &cookies)).await;
        assert_eq!((reply.status(), reply.body.as_slice()), ("200", &b"ok"[..]));
        assert_eq!(reply.heads[0]["content-length"], "2");
        assert!(reply.heads[0].contains_key("date") && !reply.heads[0].contains_key("alt-svc"));
    }
    let seen = origin.request(1);
    assert_eq!(seen.uri(), "/a?b=c");
    for (name, value) in
        [("host", NAME), ("cookie", "a=b; c=d"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https")]
    {
        assert_eq!(seen.headers()[name], value);
    }
    assert_eq!(seen.headers()["via"], "3 springtide");
    let connect = framed(kind::HEADERS, &section(&[(":method", "CONNECT"), (":authority", "one.test:443")]));
    let reply = client.call(&connect).await;
    assert_eq!((reply.status(), reply.json()["code"].as_str().unwrap()), ("405", "method_not_allowed"));
}

#[tokio::test]
async fn bodies_of_every_length_come_back() {
    let (authority, origin) = (Authority::new(), echo().await);
    let edge = edge(&authority, &[origin.address], |config| config.routes[0].max_body = 16 << 20);
    let client = Client::new(&edge, &authority).await;
    for length in [0usize, 1, 4_095, 4_096, 65_536, 65_537, 10 << 20] {
        let body: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let said = length.to_string();
        for with_length in [false, true] {
            let more: &[(&str, &str)] = if with_length { &[("content-length", &said)] } else { &[] };
            let (mut send, receive) = client.begin(&head("POST", "/", more)).await;
            let sending = async {
                for piece in body.chunks(100_000) {
                    send.write_all(&framed(kind::DATA, piece)).await.unwrap();
                }
                send.finish().unwrap();
            };
            let ((), reply) = tokio::join!(sending, read(receive));
            let reply = reply.unwrap();
            assert_eq!((reply.status(), reply.body.len()), ("200", length));
            assert!(reply.body == body);
            let forwarded = reply.heads[0].get("x-length").map(|l| l.to_str().unwrap());
            assert_eq!(forwarded, (with_length || length == 0).then_some(said.as_str()));
        }
    }
    assert_eq!(edge.load(0).in_flight(), 0);
}
