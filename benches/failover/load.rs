//! Open-loop load on an edge and a name server, with a timeline: when each thing was asked, how it ended, and when.
//!
//! Requests leave at their scheduled times whether or not earlier ones have come back, and latency counts from the
//! schedule, so a stall shows in full (no coordinated omission).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UdpSocket};

/// How long a client waits before it gives up.
const PATIENCE: Duration = Duration::from_secs(3);

/// One request that came to its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// When it was due.
    pub due: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What was asked: `gifts`, `zones`, `claim`.
    pub kind: &'static str,
    /// The status, or how it failed.
    pub result: Result<u16, String>,
}

impl Done {
    /// Whether the client saw anything but what it asked for.
    pub fn is_error(&self) -> bool {
        !matches!(self.result, Ok(200..=299))
    }
}

/// One DNS answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// When it arrived.
    pub at: Instant,
    /// What it said; empty where no answer came in time.
    pub addresses: Vec<Ipv4Addr>,
}

/// What a load has seen so far.
#[derive(Default)]
pub struct Log {
    /// Requests.
    pub http: Mutex<Vec<Done>>,
    /// DNS answers.
    pub dns: Mutex<Vec<Answered>>,
    stop: AtomicBool,
}

impl Log {
    /// Ends the load.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

type Idle = Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>;

/// Sends `rate` mixed requests a second, in turn to each of `edges`: four gift lists, three zones, and one claim of eight
/// where `claims` is set.
pub async fn http(edges: Vec<SocketAddr>, rate: u32, claims: bool, log: Arc<Log>) {
    let idle: Vec<Idle> = edges.iter().map(|_| Idle::default()).collect();
    let start = Instant::now();
    let mut n: u32 = 0;
    while !log.stopped() {
        let due = start + Duration::from_secs(1) * n / rate;
        tokio::time::sleep_until(due.into()).await;
        let (edge, pool) = (edges[n as usize % edges.len()], Arc::clone(&idle[n as usize % edges.len()]));
        let kind = match n % 8 {
            0 if claims => "claim",
            0..=4 => "gifts",
            _ => "zones",
        };
        let (log, user) = (Arc::clone(&log), format!("u{n}"));
        tokio::spawn(async move {
            let result = match tokio::time::timeout(PATIENCE, ask(edge, &pool, kind, &user)).await {
                Ok(result) => result,
                Err(_) => Err("the client gave up".into()),
            };
            log.http.lock().unwrap().push(Done { due, ended: Instant::now(), kind, result });
        });
        n += 1;
    }
}

/// The request of `kind` for `user`.
pub fn request(kind: &str, user: &str) -> Request<Full<Bytes>> {
    let builder = Request::builder().header("host", "www.hongbao.test").header("x-user-id", user);
    let built = match kind {
        "gifts" => builder.uri("/v1/gifts").body(Full::default()),
        "zones" => builder.uri("/v1/zones?game_id=arena-nine").body(Full::default()),
        _ => builder
            .method(Method::POST)
            .uri("/v1/claims")
            .header("content-type", "application/json")
            .header("idempotency-key", format!("key-{user}"))
            .body(Full::from(r#"{"packet_id":"p1","gift_id":"firecracker","zone_id":"an-1","role_id":"r1"}"#)),
    };
    built.unwrap()
}

async fn ask(edge: SocketAddr, pool: &Idle, kind: &str, user: &str) -> Result<u16, String> {
    let kept = pool.lock().unwrap().pop();
    let mut connection = match kept {
        Some(connection) if !connection.is_closed() => connection,
        _ => dial(edge).await.map_err(|e| format!("connect: {e}"))?,
    };
    let response = connection.send_request(request(kind, user)).await.map_err(|e| format!("send: {e}"))?;
    let status = response.status().as_u16();
    response.into_body().collect().await.map_err(|e| format!("body: {e}"))?;
    if connection.ready().await.is_ok() {
        pool.lock().unwrap().push(connection);
    }
    Ok(status)
}

/// A connection of one's own.
pub async fn dial(edge: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(edge).await?;
    stream.set_nodelay(true)?;
    let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { driver.await.ok() });
    Ok(connection)
}

/// Asks `server` for the A records of `name`, `rate` times a second, each time as another client subnet.
pub async fn dns(server: SocketAddr, name: &str, rate: u32, log: Arc<Log>) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    socket.connect(server).await.unwrap();
    let reader = tokio::spawn({
        let (socket, log) = (Arc::clone(&socket), Arc::clone(&log));
        async move {
            let mut buffer = [0; 1500];
            while let Ok(n) = socket.recv(&mut buffer).await {
                let addresses = addresses(&buffer[..n]).unwrap_or_default();
                log.dns.lock().unwrap().push(Answered { at: Instant::now(), addresses });
            }
        }
    });
    let start = Instant::now();
    let mut n: u32 = 0;
    while !log.stopped() {
        tokio::time::sleep_until((start + Duration::from_secs(1) * n / rate).into()).await;
        let subnet = [100, (n >> 8) as u8, n as u8];
        socket.send(&query(n as u16, name, subnet)).await.ok();
        n += 1;
    }
    reader.abort();
}

/// An A query with an EDNS client subnet of 24 bits.
pub fn query(id: u16, name: &str, subnet: [u8; 3]) -> Vec<u8> {
    let mut q = id.to_be_bytes().to_vec();
    q.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    for label in name.trim_end_matches('.').split('.') {
        q.push(label.len() as u8);
        q.extend(label.as_bytes());
    }
    q.extend([0, 0, 1, 0, 1]);
    // OPT: 1232 bytes, then option 8 (RFC 7871 section 6): family 1, source 24, scope 0.
    q.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    q.extend(subnet);
    q
}

/// The A records of an answer.
pub fn addresses(message: &[u8]) -> Option<Vec<Ipv4Addr>> {
    use hickory_proto::op::Message;
    use hickory_proto::rr::RData;
    let message = Message::from_vec(message).ok()?;
    let a = message.answers.iter().filter_map(|r| match &r.data {
        RData::A(a) => Some(a.0),
        _ => None,
    });
    Some(a.collect())
}

/// Whether a node's `/v1/state` shows every service at its full weight in every datacenter, with every backend in use.
pub fn is_whole(state: &serde_json::Value) -> bool {
    let services = state["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut cells = services.iter().flat_map(|s| s["datacenters"].as_array().into_iter().flatten()).peekable();
    cells.peek().is_some() && cells.all(|c| c["factor"] == 1.0 && c["usable"] == c["backends"])
}
