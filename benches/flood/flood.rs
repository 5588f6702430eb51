//! Floods of a name server over loopback, with honest clients beside them: who loses what, and what memory it takes.
//!
//! Everything has an end: in time, in packets a second, in connections. An honest client behaves as a resolver does: it asks
//! again after 400 ms, twice, and over TCP where an answer is cut. What it has no answer to after that is lost.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// How long an honest client waits for an answer before it asks again.
const TRY: Duration = Duration::from_millis(400);
/// How often it asks at most.
const TRIES: usize = 3;
/// Sources of forged packets: as many networks of 24 bits.
const SOURCES: u8 = 250;

/// What comes down on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Nothing, for comparison.
    Calm,
    /// Queries from many networks: names that are there, and names that are not.
    Forged,
    /// Queries from one network, all of the same name.
    Reflected,
    /// Datagrams of any octets.
    Garbage,
    /// Connections that say nothing.
    Idle,
    /// Connections that ask, and never read.
    SlowReaders,
    /// Connections that begin a query and never end it.
    Fragments,
}

/// How strong it is.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// Datagrams a second.
    pub rate: u32,
    /// Connections.
    pub connections: usize,
    /// For how long.
    pub lasts: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Damage {
    /// Datagrams sent, or connections opened.
    pub sent: u64,
    /// Honest questions over UDP: asked, those that took a second try, lost.
    pub udp: [u64; 3],
    /// Honest questions over TCP: asked, lost.
    pub tcp: [u64; 2],
    /// The 99th percentile of the time to an answer over UDP.
    pub p99: Duration,
    /// Resident memory of the server in KiB: before, at its peak during the flood, after.
    pub resident: [u64; 3],
}

impl Damage {
    /// The share of honest questions that were lost.
    pub fn lost(&self) -> f64 {
        (self.udp[2] + self.tcp[1]) as f64 / (self.udp[0] + self.tcp[0]).max(1) as f64
    }
}

/// A server under test: where it listens, its process, a name that it has an address for, and its zone.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    pub address: SocketAddr,
    pub process: u32,
    pub name: &'t str,
}

/// Lets `flood` come down on `target`.
pub fn run(target: Target<'_>, flood: Flood, strength: Strength) -> Damage {
    let (over, sent, peak) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let before = resident(target.process);
    let mut damage = std::thread::scope(|scope| {
        let udp = scope.spawn(|| honest_udp(target, &over));
        let tcp = scope.spawn(|| honest_tcp(target, &over));
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(resident(target.process), Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        let until = Instant::now() + strength.lasts;
        match flood {
            Flood::Calm => pause_until(until),
            Flood::Forged | Flood::Reflected | Flood::Garbage => datagrams(target, flood, strength.rate, until, &sent),
            Flood::Idle | Flood::SlowReaders | Flood::Fragments => {
                connections(target, flood, strength.connections, until, &sent);
            }
        }
        over.store(true, Ordering::Relaxed);
        let (counts, mut times) = udp.join().unwrap();
        times.sort_unstable();
        let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        Damage { udp: counts, tcp: tcp.join().unwrap(), p99, ..Damage::default() }
    });
    damage.sent = sent.load(Ordering::Relaxed);
    damage.resident = [before, peak.load(Ordering::Relaxed), resident(target.process)];
    damage
}

fn pause_until(until: Instant) {
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// A query for A of `name`.
pub fn query(name: &str, id: u16) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.').filter(|l| !l.is_empty()) {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

fn honest_udp(target: Target<'_>, over: &AtomicBool) -> ([u64; 3], Vec<Duration>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(target.address).unwrap();
    socket.set_read_timeout(Some(TRY)).unwrap();
    let (mut counts, mut times, mut id) = ([0; 3], Vec::new(), 0u16);
    while !over.load(Ordering::Relaxed) {
        counts[0] += 1;
        id = id.wrapping_add(1);
        let asked = Instant::now();
        let answered = (0..TRIES).find(|_| {
            let _ = socket.send(&query(target.name, id));
            match receive(&socket, id) {
                Some(true) => over_tcp(target, id),
                Some(false) => true,
                None => false,
            }
        });
        match answered {
            Some(tries) => {
                counts[1] += u64::from(tries > 0);
                times.push(asked.elapsed());
            }
            None => counts[2] += 1,
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    (counts, times)
}

/// Waits for the answer with this id; tells whether it is cut.
fn receive(socket: &UdpSocket, id: u16) -> Option<bool> {
    let (mut buffer, until) = ([0; 2_048], Instant::now() + TRY);
    while Instant::now() < until {
        let length = socket.recv(&mut buffer).ok()?;
        if length >= 12 && buffer[..2] == id.to_be_bytes() {
            return Some(buffer[2] & 2 != 0);
        }
    }
    None
}

fn honest_tcp(target: Target<'_>, over: &AtomicBool) -> [u64; 2] {
    let mut counts = [0; 2];
    while !over.load(Ordering::Relaxed) {
        counts[0] += 1;
        counts[1] += u64::from(!(0..TRIES).any(|_| over_tcp(target, 7)));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    counts
}

fn over_tcp(target: Target<'_>, id: u16) -> bool {
    let exchange = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&target.address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let query = query(target.name, id);
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat())?;
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        Ok(head[2..] == id.to_be_bytes())
    };
    exchange().unwrap_or(false)
}

fn datagrams(target: Target<'_>, flood: Flood, rate: u32, until: Instant, sent: &AtomicU64) {
    let sockets: Vec<Socket> = (1..=SOURCES).map(|n| source([127, n, n, 7], Type::DGRAM)).collect();
    for socket in &sockets {
        // Nobody reads the answers: they should take no memory either.
        let _ = socket.set_recv_buffer_size(2_048);
        socket.set_nonblocking(true).unwrap();
        socket.connect(&target.address.into()).unwrap();
    }
    let (began, mut n) = (Instant::now(), 0u64);
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    while Instant::now() < until {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while n < due {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let packet = match flood {
                Flood::Garbage => noise.to_le_bytes().repeat(1 + (noise >> 61) as usize * 8),
                Flood::Forged if n.is_multiple_of(2) => query(&format!("n{:x}.{}", noise >> 32, target.name), n as u16),
                _ => query(target.name, n as u16),
            };
            let from = if flood == Flood::Reflected { 0 } else { n as usize % sockets.len() };
            let _ = sockets[from].send(&packet);
            n += 1;
        }
        std::thread::park_timeout(Duration::from_micros(500));
    }
    sent.store(n, Ordering::Relaxed);
}

fn connections(target: Target<'_>, flood: Flood, count: usize, until: Instant, sent: &AtomicU64) {
    let query = query(target.name, 1);
    let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
    let mut open: Vec<Socket> = Vec::new();
    for n in 0..count {
        if Instant::now() >= until {
            break;
        }
        // A hundred from each address, as botnets have them.
        let host = (n / 100) as u16;
        let [high, low] = host.to_be_bytes();
        let socket = source([127, 77, high, low.max(1)], Type::STREAM);
        if socket.connect_timeout(&target.address.into(), Duration::from_secs(1)).is_err() {
            continue;
        }
        sent.fetch_add(1, Ordering::Relaxed);
        let _ = socket.set_nonblocking(true);
        match flood {
            Flood::SlowReaders => {
                let _ = socket.set_recv_buffer_size(2_048);
                let _ = socket.send(&framed.repeat(500));
            }
            Flood::Fragments => {
                // A part of a length, of a query, or a length of 64 KiB with little behind it.
                let part: &[u8] = match n % 3 {
                    0 => &framed[..1],
                    1 => &framed[..20],
                    _ => &[0xff, 0xff, 1, 2, 3],
                };
                let _ = socket.send(part);
            }
            _ => {}
        }
        open.push(socket);
    }
    pause_until(until);
}

/// A socket that speaks from this address of loopback.
fn source(address: [u8; 4], kind: Type) -> Socket {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol)).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket
}

/// Resident memory of a process in KiB; 0 where it can't be told.
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
