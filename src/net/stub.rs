//! A stub resolver of our own, small: asks recursive resolvers for records of a name. ALIAS and discovery ask by it.
//!
//! Over UDP from a socket, and so a port, of its own for each try, with a random id and the case of the name mixed (0x20,
//! draft-vixie-dnsext-dns0x20): what does not give all of them back is not the answer. Over TCP where an answer is cut.
//! Every wait and every read has a bound. What a message says is judged by `wire::lookup`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::wire::lookup::{self, Found};

/// How long a resolver has for an answer over UDP; a recursion takes a while.
const UDP_WAIT: Duration = Duration::from_secs(2);
/// And over TCP, with the connection.
const TCP_WAIT: Duration = Duration::from_secs(4);
/// How often all resolvers are tried.
const ROUNDS: usize = 2;
/// What is taken of an answer over UDP.
const MAX_DATAGRAM: usize = 1_232;
/// Packets that are not the answer, before a try is given up: somebody guesses.
const MAX_STRAYS: usize = 64;
/// The file that says whom this system asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How much of it is read.
const MAX_RESOLV_CONF: u64 = 64 * 1_024;

/// Whom to ask: what is configured, or what the system says.
pub async fn resolvers(configured: &[SocketAddr]) -> Vec<SocketAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    // What cannot be read names nobody.
    servers(&String::from_utf8_lossy(&beginning(RESOLV_CONF).await.unwrap_or_default()))
}

/// What is read of the file at `path`.
async fn beginning(path: &str) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    tokio::fs::File::open(path).await?.take(MAX_RESOLV_CONF).read_to_end(&mut octets).await?;
    Ok(octets)
}

/// The `nameserver` lines of resolv.conf(5).
fn servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|w| *w == "nameserver").and(words.next())?;
        let ip = address.split('%').next()?.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(ip, 53))
    };
    text.lines().filter_map(server).take(3).collect()
}

/// Asks `resolvers` in turn for `rtype` of `name`. `None` where none of them gives an answer that can be used.
pub async fn ask(resolvers: &[SocketAddr], name: &[u8], rtype: u16) -> Option<Found> {
    for _ in 0..ROUNDS {
        for resolver in resolvers {
            let query = lookup::query(name, rtype, unguessed()?, unguessed()?, &[]);
            let found = match timeout(UDP_WAIT, by_udp(*resolver, &query, rtype)).await {
                Ok(Ok(Found::Truncated)) => {
                    timeout(TCP_WAIT, by_tcp(*resolver, &query, rtype)).await.ok().and_then(Result::ok)
                }
                Ok(Ok(found)) => Some(found),
                Ok(Err(_)) | Err(_) => None,
            };
            if let Some(found @ (Found::Records { .. } | Found::Nothing { .. })) = found {
                return Some(found);
            }
        }
    }
    None
}

/// 64 bits that nobody can guess.
fn unguessed() -> Option<u64> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).ok()?;
    Some(u64::from_ne_bytes(octets))
}

async fn by_udp(resolver: SocketAddr, query: &[u8], rtype: u16) -> io::Result<Found> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // The system gives a random port, and then takes packets of this peer alone.
    socket.connect(resolver).await?;
    socket.send(query).await?;
    let mut packet = [0; MAX_DATAGRAM];
    for _ in 0..MAX_STRAYS {
        let length = socket.recv(&mut packet).await?;
        if let Some(found) = lookup::read(query, packet.get(..length).unwrap_or_default(), rtype) {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn by_tcp(resolver: SocketAddr, query: &[u8], rtype: u16) -> io::Result<Found> {
    let mut stream = TcpStream::connect(resolver).await?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query);
    stream.write_all(&framed).await?;
    let mut packet = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut packet).await?;
    lookup::read(query, &packet, rtype).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_is_read_than_the_beginning_of_a_file_without_end() {
        assert_eq!(beginning("/dev/zero").await.unwrap().len() as u64, MAX_RESOLV_CONF);
    }

    #[test]
    fn the_systems_resolvers_are_read_as_they_are_written() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver nope\nnameserver ::1 x\nnameserver 192.0.2.4\n";
        let read: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.1:53", "[fe80::1]:53", "[::1]:53"]);
    }
}
