//! The whole name server over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, TcpStream};
use std::time::Duration;

use super::fixture::{Ask, for_a_cookie, published, show, with_health, world};
use super::*;
use crate::base::ids::SteerId;
use crate::snapshot::DcState;
use crate::wire::dns::cookie::Secrets;

mod everywhere;

const PATIENCE: Duration = Duration::from_secs(5);

fn over_udp(address: SocketAddr, ask: &Ask) -> String {
    let local: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(address).unwrap();
    socket.send(&ask.bytes()).unwrap();
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).unwrap();
    show(&buffer[..length])
}

fn over_tcp(address: SocketAddr, ask: &Ask) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = ask.bytes();
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query.as_slice()].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    show(&message)
}

fn listening(addresses: &[&str], threads: usize) -> Arc<Published> {
    let mut snapshot = world();
    let topology = Arc::get_mut(&mut snapshot.topology).unwrap();
    let dns = Arc::get_mut(&mut topology.config).unwrap().dns.as_mut().unwrap();
    dns.listen = addresses.iter().map(|a| a.parse().unwrap()).collect();
    dns.threads = threads;
    published(snapshot)
}

#[tokio::test]
async fn udp_and_tcp_answer_alike_on_one_port_and_follow_what_is_published() {
    let published = listening(&["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"], 2);
    let shutdown = CancellationToken::new();
    let server = start(Arc::clone(&published), &sockets::Sockets::fresh(), shutdown.clone()).unwrap();
    let addresses = server.addresses().plain;
    assert_eq!(addresses.len(), 3);
    let any = addresses[2].port();
    let reachable = [addresses[0], addresses[1], ([127, 0, 99, 1], any).into()];
    for address in reachable {
        for name in ["host.example.test.", "www.example.test.", "nope.example.test.", "elsewhere.net."] {
            let ask = Ask::new(name, "A").edns(1232).subnet("10.9.8.0/24");
            let udp = over_udp(address, &ask);
            assert_eq!(udp, over_tcp(address, &ask), "{address} {name}");
        }
    }
    let ask = Ask::new("order.example.test.", "A");
    assert!(over_udp(addresses[0], &ask).contains("203.0.113.1;"));
    let next = with_health(&published.full(), SteerId::new(2), |health| {
        health.candidates[0].state = DcState::Failed;
        health.candidates[0].effective = 0;
    });
    published.publish(next);
    for address in reachable {
        assert!(over_udp(address, &ask).contains("203.0.113.2;"));
        assert!(over_tcp(address, &ask).contains("203.0.113.2;"));
    }
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, server.stopped()).await.unwrap();
    // Nothing of ours holds the port any more; a test beside this one may draw it for a moment.
    let freed = async {
        while TcpListener::bind(addresses[0]).is_err() || UdpSocket::bind(addresses[0]).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_nothing_stays_open() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for threads in [1, 3] {
        let published = listening(&["127.0.0.1:0", &address.to_string()], threads);
        let error = start(published, &sockets::Sockets::fresh(), CancellationToken::new()).unwrap_err();
        assert!(
            matches!(&error, StartError::Listen(ListenError::InUse { address: a, .. }) if *a == address),
            "{error}"
        );
    }
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error =
        start(listening(&[&address.to_string()], 1), &sockets::Sockets::fresh(), CancellationToken::new()).unwrap_err();
    assert!(matches!(error, StartError::Listen(ListenError::InUse { transport: "UDP", .. })), "{error}");
}

#[tokio::test]
async fn without_a_name_server_nothing_listens() {
    let server =
        start(published(fixture::without_dns()), &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    assert_eq!(server.addresses(), Addresses::default());
    tokio::time::timeout(PATIENCE, server.stopped()).await.unwrap();
}

#[test]
fn a_generation_recompiles_the_names_that_have_moved_and_shares_the_rest() {
    let before = world();
    publish(None, &before);
    let after = with_health(&before, SteerId::new(2), |health| health.candidates[0].effective = 1_000);
    publish(Some(&before), &after);
    let (old, new) = (table::Table::of(&before).unwrap(), table::Table::of(&after).unwrap());
    let shared: Vec<bool> = old.steered.iter().zip(&new.steered).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(shared, [true, true, false, true]);
}

#[tokio::test]
async fn who_asks_for_nothing_but_a_cookie_gets_one_over_udp() {
    let mut snapshot = world();
    Arc::get_mut(&mut snapshot.topology).unwrap().assets.cookies = Secrets::one([7; 16]);
    let server = start(published(snapshot), &sockets::Sockets::fresh(), CancellationToken::new()).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(server.addresses().plain[0]).unwrap();
    let ask = |cookie: &[u8]| {
        socket.send(&for_a_cookie(cookie)).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        // The code in both halves, no question, no records but the OPT, and what it holds.
        (buffer[3] & 15, buffer[17], buffer[4..12].to_vec(), buffer[27..length].to_vec())
    };
    let alone = vec![0, 0, 0, 0, 0, 0, 0, 1];
    let (low, high, counts, cookie) = ask(&[9; 8]);
    assert_eq!((low, high, &counts, cookie.len()), (0, 0, &alone, 24));
    assert_eq!(ask(&cookie), (0, 0, alone.clone(), cookie.clone()), "it is good");
    assert_eq!(ask(&[9; 24]), (7, 1, alone, cookie), "BADCOOKIE, and a good one");
}
