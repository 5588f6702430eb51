//! Other name servers, started for one test on free loopback ports with files of their own, and ended by their process.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that was free a moment ago, for UDP and TCP alike, and of no other test. It lies below those that the system gives to
/// clients: a connection of another test must not take it before the program that it is for.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..4_000 {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 16_000 + ((std::process::id() as u16 % 250) * 61).wrapping_add(turn) % 16_000;
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free for UDP and TCP");
}

/// A running server.
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Its port on 127.0.0.1.
    pub port: u16,
    child: Child,
}

impl Peer {
    /// Starts `program` on `port` with what it reads from `dir`; its words go to `dir/NAME.log`.
    pub fn start(name: &'static str, port: u16, program: &str, args: &[&str], dir: &Path) -> Self {
        let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let started =
            Command::new(program).args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let child = started.unwrap_or_else(|e| {
            panic!("{program} is not here ({e}); `bash tests/run.sh` installs what the tests need")
        });
        Self { name, port, child }
    }

    /// Knot DNS with these sections beside its own.
    pub fn knot(port: u16, dir: &Path, more: &str) -> Self {
        let home = dir.join("knot");
        fs::create_dir_all(home.join("run")).unwrap();
        let path = home.display();
        let text = format!(
            "server:\n  listen: 127.0.0.1@{port}\n  rundir: \"{path}/run\"\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
             database:\n  storage: \"{path}/db\"\nlog:\n  - target: stderr\n    any: info\n{more}"
        );
        fs::write(home.join("knot.conf"), text.replace("@HOME@", home.to_str().unwrap())).unwrap();
        Self::start("knot", port, "knotd", &["-c", home.join("knot.conf").to_str().unwrap()], dir)
    }

    /// NSD with these sections beside its own.
    pub fn nsd(port: u16, dir: &Path, more: &str) -> Self {
        let home = dir.join("nsd");
        fs::create_dir_all(&home).unwrap();
        let path = home.display();
        let text = format!(
            "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{path}\"\n  pidfile: \"{path}/nsd.pid\"\n  \
             database: \"\"\n  xfrdfile: \"{path}/xfrd.state\"\n  xfrdir: \"{path}\"\n  zonelistfile: \"{path}/zone.list\"\n  \
             server-count: 1\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n  minimal-responses: yes\nremote-control:\n  control-enable: no\n{more}"
        );
        fs::write(home.join("nsd.conf"), text.replace("@HOME@", home.to_str().unwrap())).unwrap();
        Self::start("nsd", port, "nsd", &["-d", "-c", home.join("nsd.conf").to_str().unwrap()], dir)
    }

    /// BIND with these statements beside its options.
    pub fn bind(port: u16, dir: &Path, more: &str) -> Self {
        let home = dir.join("bind");
        fs::create_dir_all(&home).unwrap();
        let path = home.display();
        let text = format!(
            "options {{ directory \"{path}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file \"{path}/named.pid\"; \
             session-keyfile \"{path}/session.key\"; recursion no; dnssec-validation no; notify no; minimal-responses no-auth; zero-no-soa-ttl no; \
             check-names primary ignore; check-names secondary ignore; check-integrity no; zone-statistics none; }};\ncontrols {{ }};\n{more}"
        );
        fs::write(home.join("named.conf"), text.replace("@HOME@", home.to_str().unwrap())).unwrap();
        Self::start("bind", port, "named", &["-g", "-n", "1", "-c", home.join("named.conf").to_str().unwrap()], dir)
    }
}

impl Peer {
    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
