//! Connections as they come in: headers, handshakes, floods of halves.

use std::future::Future;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{Connections, Dns, SecureWay};
use crate::dns::answer::Transport;
use crate::dns::fixture::{Ask, SERVER, everywhere, show, speaking};
use crate::net::tls;
use crate::snapshot::Topology;

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    address: SocketAddr,
    house: Arc<House>,
    shutdown: CancellationToken,
    server: task::Task,
    client: rustls::ClientConfig,
}

/// One listener that speaks as `transport` does.
async fn served(transport: Transport, change: impl FnOnce(&mut Dns)) -> Served {
    let (published, client) = everywhere(change);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let tls = |way| TlsAcceptor::from(tls::dns_server_config(Arc::clone(&published), way).unwrap());
    let speech = match transport {
        Transport::Tls => Speech::Tls(tls(SecureWay::Tls)),
        Transport::Https => Speech::Https(tls(SecureWay::Https), Arc::default()),
        _ => Speech::Tcp,
    };
    let house = Arc::new(House::new(transport, published, &crate::dns::fixture::guard(), shutdown.clone()));
    let server = task::spawn("serve", serve(vec![listener], Arc::clone(&house), speech));
    Served { address, house, shutdown, server, client }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.unwrap()
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

async fn ask(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    ask: &Ask,
) -> std::io::Result<String> {
    let query = ask.bytes();
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query.as_slice()].concat()).await?;
    stream.flush().await?;
    let mut message = vec![0; soon(stream.read_u16()).await?.into()];
    soon(stream.read_exact(&mut message)).await?;
    Ok(show(&message))
}

async fn shake_hands(served: &Served, alpn: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(served.address).await?;
    let name = ServerName::try_from(SERVER).unwrap();
    soon(TlsConnector::from(speaking(&served.client, alpn)).connect(name, tcp)).await
}

/// Waits until the server has closed `stream`.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn serving_ends_when_told_to_and_says_goodbye() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let served = served(transport, |_| ()).await;
        let host = Ask::new("host.example.test.", "A");
        if transport == Transport::Tcp {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            assert!(ask(&mut stream, &host).await.unwrap().contains("192.0.2.1"));
            served.shutdown.cancel();
            assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0, "closed in order, not reset");
        } else {
            let mut stream = shake_hands(&served, "dot").await.unwrap();
            assert!(ask(&mut stream, &host).await.unwrap().contains("192.0.2.1"));
            served.shutdown.cancel();
            // Without close_notify this would be an error.
            assert_eq!(soon(stream.read(&mut [0; 8])).await.unwrap(), 0, "closed in order, not cut");
        }
        soon(served.server.ended()).await;
        assert!(TcpStream::connect(served.address).await.is_err());
    }
}

#[tokio::test]
async fn who_was_let_in_before_the_shutdown_is_answered() {
    let host = Ask::new("host.example.test.", "A");
    for transport in [Transport::Tcp, Transport::Tls] {
        let served = served(transport, |_| ()).await;
        let mut silent = TcpStream::connect(served.address).await.unwrap();
        // Who came last is served, and so both have been let in.
        let mut kept = TcpStream::connect(served.address).await.unwrap();
        if transport == Transport::Tcp {
            assert!(ask(&mut kept, &host).await.unwrap().contains("192.0.2.1"));
        } else {
            eventually(|| served.house.lobby.len() == 2).await;
        }
        served.shutdown.cancel();
        tokio::task::yield_now().await;
        if transport == Transport::Tcp {
            assert!(ask(&mut kept, &host).await.unwrap().contains("192.0.2.1"));
            assert!(ask(&mut silent, &host).await.unwrap().contains("192.0.2.1"));
            assert_eq!(soon(silent.read(&mut [0; 8])).await.unwrap(), 0, "closed in order, not reset");
        } else {
            let name = ServerName::try_from(SERVER).unwrap();
            let shaking = TlsConnector::from(speaking(&served.client, "dot")).connect(name, kept);
            assert!(ask(&mut soon(shaking).await.unwrap(), &host).await.unwrap().contains("192.0.2.1"));
        }
        soon(served.server.ended()).await;
    }
}

#[tokio::test]
async fn tls_is_spoken_with_who_offers_dot_or_nothing_and_resumed() {
    let served = served(Transport::Tls, |_| ()).await;
    assert!(shake_hands(&served, "h2").await.is_err(), "no application protocol in common");
    let (name, host) = (ServerName::try_from(SERVER).unwrap(), Ask::new("host.example.test.", "A"));
    let silent = TlsConnector::from(Arc::new(served.client.clone()));
    for is_resumed in [false, true] {
        let tcp = TcpStream::connect(served.address).await.unwrap();
        let mut stream = soon(silent.connect(name.clone(), tcp)).await.unwrap();
        assert!(ask(&mut stream, &host).await.unwrap().contains("192.0.2.1"));
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, is_resumed, "{kind:?}");
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_closed_and_takes_nobodys_place() {
    let limits = Connections { handshake: Duration::from_mins(1), total: 8, ..Connections::default() };
    let served = served(Transport::Tls, |dns| dns.connections = limits).await;
    let mut garbage = TcpStream::connect(served.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(is_closed(&mut garbage).await);
    let mut honest = shake_hands(&served, "dot").await.unwrap();
    // Many more halves than there is room for, guests and lobby together.
    let mut halves = Vec::new();
    for _ in 0..64 {
        let mut half = TcpStream::connect(served.address).await.unwrap();
        half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        halves.push(half);
    }
    let lobby_room = lobby(&limits).total;
    eventually(|| served.house.lobby.len() == lobby_room).await;
    for half in halves.iter_mut().take(64 - lobby_room) {
        assert!(is_closed(half).await, "the oldest halves make room");
    }
    let host = Ask::new("host.example.test.", "A");
    assert!(ask(&mut honest, &host).await.unwrap().contains("192.0.2.1"), "who has come in stays");
    let mut late = shake_hands(&served, "dot").await.unwrap();
    assert!(ask(&mut late, &host).await.unwrap().contains("192.0.2.1"), "and others still come in");
}

#[tokio::test]
async fn half_a_handshake_ends_in_time() {
    let limits = Connections { handshake: Duration::from_millis(50), ..Connections::default() };
    let served = served(Transport::Tls, |dns| dns.connections = limits).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut half = TcpStream::connect(served.address).await.unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert!(is_closed(&mut silent).await && is_closed(&mut half).await);
    eventually(|| served.house.lobby.len() == 0).await;
    assert_eq!(served.house.guests.len(), 0);
}

#[tokio::test]
async fn a_balancer_in_front_says_for_whom_it_speaks() {
    // Steered to the datacenter that is near the client, and so shows who that was taken for.
    let near = Ask::new("near.example.test.", "A");
    let trust = |dns: &mut Dns| dns.proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let mut seen = Vec::new();
    for (client, is_v2) in [("10.1.0.9", false), ("10.1.0.9", true), ("10.2.0.9", false), ("10.2.0.9", true)] {
        let served = served(Transport::Tcp, trust).await;
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let header = if is_v2 {
            let address: std::net::Ipv4Addr = client.parse().unwrap();
            let head = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
            [&head[..], &address.octets(), &[127, 0, 0, 1, 4, 0, 0, 53]].concat()
        } else {
            format!("PROXY TCP4 {client} 127.0.0.1 1024 53\r\n").into_bytes()
        };
        // Octet by octet: not one too many may be taken.
        for octet in header {
            stream.write_u8(octet).await.unwrap();
        }
        seen.push(ask(&mut stream, &near).await.unwrap());
    }
    assert_eq!((&seen[0], &seen[2]), (&seen[1], &seen[3]));
    assert_ne!(seen[0], seen[2]);
    let direct = served(Transport::Tcp, |_| ()).await;
    let mut stream = TcpStream::connect(direct.address).await.unwrap();
    stream.write_all(b"PROXY TCP4 10.1.0.9 127.0.0.1 1024 53\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(is_closed(&mut stream).await, "from others it is no header, and no query either");
}

#[tokio::test]
async fn a_balancer_without_a_header_is_not_served() {
    let limits = Connections { handshake: Duration::from_millis(200), ..Connections::default() };
    let trust = |dns: &mut Dns| {
        dns.proxies = vec!["127.0.0.1/32".parse().unwrap()];
        dns.connections = limits;
    };
    for transport in [Transport::Tcp, Transport::Tls, Transport::Https] {
        let served = served(transport, trust).await;
        for begin in [&b""[..], b"\0\x1d", b"PROXY TCP4 nonsense\r\n", b"PROXY ", &[22, 3, 1, 2, 0, 1]] {
            let mut stream = TcpStream::connect(served.address).await.unwrap();
            stream.write_all(begin).await.unwrap();
            assert!(is_closed(&mut stream).await, "{begin:?}");
        }
        assert_eq!(served.house.guests.len(), 0);
    }
}

#[tokio::test]
async fn a_header_comes_before_the_handshake() {
    let trust = |dns: &mut Dns| dns.proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let served = served(Transport::Tls, trust).await;
    let mut tcp = TcpStream::connect(served.address).await.unwrap();
    tcp.write_all(b"PROXY TCP6 2001:db8::1 ::1 1024 853\r\n").await.unwrap();
    let name = ServerName::try_from(SERVER).unwrap();
    let connector = TlsConnector::from(speaking(&served.client, "dot"));
    let mut stream = soon(connector.connect(name, tcp)).await.unwrap();
    assert!(ask(&mut stream, &Ask::new("host.example.test.", "A")).await.unwrap().contains("192.0.2.1"));
}

#[tokio::test]
async fn clients_behind_a_balancer_count_each_for_itself() {
    let limits = Connections { per_client: 1, ..Connections::default() };
    let trust = |dns: &mut Dns| {
        dns.proxies = vec!["127.0.0.1/32".parse().unwrap()];
        dns.connections = limits;
    };
    let served = served(Transport::Tcp, trust).await;
    let connect = async |client: &str| {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(format!("PROXY TCP4 {client} 127.0.0.1 1 53\r\n").as_bytes()).await.unwrap();
        stream
    };
    let host = Ask::new("host.example.test.", "A");
    let (mut first, mut other) = (connect("192.0.2.1").await, connect("192.0.2.2").await);
    assert!(ask(&mut first, &host).await.is_ok() && ask(&mut other, &host).await.is_ok());
    let mut second = connect("192.0.2.1").await;
    assert!(ask(&mut second, &host).await.is_ok());
    assert!(is_closed(&mut first).await, "its own first makes room");
    assert!(ask(&mut other, &host).await.is_ok());
}

#[tokio::test]
async fn a_reload_changes_the_limits_of_who_comes_after_it() {
    let served = served(Transport::Tcp, |dns| dns.connections.per_client = 1).await;
    let host = Ask::new("host.example.test.", "A");
    let mut first = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut first, &host).await.is_ok());
    let mut next = (*served.house.published.full()).clone();
    let mut config = (*next.topology.config).clone();
    config.dns.as_mut().unwrap().connections.per_client = 2;
    next.topology = Arc::new(Topology::build(Arc::new(config), next.topology.assets.clone(), None));
    (next.generation, next.views) = (next.generation + 1, Arc::default());
    served.house.published.publish(next);
    let mut second = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut second, &host).await.is_ok());
    assert!(ask(&mut first, &host).await.is_ok(), "there is room for two now");
    let mut third = TcpStream::connect(served.address).await.unwrap();
    assert!(ask(&mut third, &host).await.is_ok());
    assert!(is_closed(&mut second).await, "and for no more: the idlest of them made room");
}
