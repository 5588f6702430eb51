//! The demo as a thing under test: started on free ports, asked for its pids, stopped without a trace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// The datacenters of the demo with their addresses.
pub const DATACENTERS: [(&str, Ipv4Addr); 3] = [
    ("shenzhen", Ipv4Addr::new(127, 0, 1, 1)),
    ("shanghai", Ipv4Addr::new(127, 0, 2, 1)),
    ("tianjin", Ipv4Addr::new(127, 0, 3, 1)),
];

/// A running demo.
pub struct Demo {
    child: Child,
    /// Its folder.
    pub dir: PathBuf,
    base: u16,
    /// What it printed until it was ready.
    pub guide: String,
}

impl Demo {
    #[allow(clippy::zombie_processes, reason = "where it panics the whole program ends, and the demo with it")]
    /// Starts `binary demo`, killed processes coming back after `restart`.
    pub fn start(binary: &Path, dir: &Path, restart: Duration) -> Self {
        let base = free_block();
        let mut child = Command::new(binary)
            .args(["demo", "--port-base", &base.to_string(), "--dir"])
            .arg(dir)
            .args(["--restart-after", &format!("{}ms", restart.as_millis())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut guide, mut lines) = (String::new(), BufReader::new(child.stdout.take().unwrap()).lines());
        while let Some(Ok(line)) = lines.next() {
            guide.push_str(&line);
            guide.push('\n');
            if line.starts_with("Ctrl-C") {
                // Someone must go on reading, or a talkative demo would block.
                std::thread::spawn(move || lines.for_each(drop));
                return Self { child, dir: dir.to_owned(), base, guide };
            }
        }
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).ok();
        panic!("the demo did not start:\n{guide}\n{error}");
    }

    /// Pids by name.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        let text = std::fs::read_to_string(self.dir.join("pids.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Pids of every upstream of `datacenter`.
    pub fn upstreams(&self, datacenter: &str) -> Vec<u32> {
        let inside = |n: &str| n.starts_with(datacenter) && !n.ends_with("/edge");
        self.pids().into_iter().filter(|(n, _)| inside(n)).map(|(_, p)| p).collect()
    }

    /// Where the name server of all listens.
    pub fn dns(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.base).into()
    }

    /// Where the edge of a datacenter listens for plaintext.
    pub fn http(&self, ip: Ipv4Addr) -> SocketAddr {
        (ip, self.base + 1).into()
    }

    /// Where the edge of a datacenter listens for TLS.
    pub fn https(&self, ip: Ipv4Addr) -> SocketAddr {
        (ip, self.base + 2).into()
    }

    /// Where a node's admin API listens.
    pub fn admin(&self, ip: Ipv4Addr) -> SocketAddr {
        (ip, self.base + 3).into()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        signal("TERM", &[self.child.id()]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|s| s.is_some()) {
                return;
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal to processes of the demo.
pub fn signal(name: &str, pids: &[u32]) {
    Command::new("kill").arg(format!("-{name}")).args(pids.iter().map(u32::to_string)).status().unwrap();
}

/// A block of a hundred ports that nobody holds, below the range that the system gives to clients.
fn free_block() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let seed = (std::process::id() % 100) as u16;
    for _ in 0..110 {
        let base = 21_000 + (seed * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % 110 * 100;
        let ips = DATACENTERS.map(|d| d.1).into_iter().chain([Ipv4Addr::LOCALHOST]);
        let mut wanted = ips.flat_map(|ip| (0..100).map(move |p| SocketAddr::from((ip, base + p))));
        if wanted.all(|a| TcpListener::bind(a).is_ok() && UdpSocket::bind(a).is_ok()) {
            return base;
        }
    }
    panic!("no free block of ports");
}
