//! What honest traffic keeps while the edge is besieged: a table.
//!
//! `cargo bench --bench siege -- [RATE] [SECONDS] [IDLE] [SLOW] [RESETS]` (default: 4,000 honest requests a second, 10 s a phase,
//! 24,000 idle connections, 2,000 slow senders, 20,000 resets a second over 8 connections). Loopback alone; the edge, its
//! origin, attackers and honest clients share the machine. Where the system allows a process fewer files than that, the other
//! idle connections come over HTTP/3; the table says how many there were.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]
#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "a measuring program")]

mod attack;
mod far;
mod honest;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use attack::{Attack, Strength};
use rustls::pki_types::CertificateDer;

/// Connections that the edge and this program need for others than besiegers.
const SPARE: u64 = 500;
/// Threads of honest clients.
const CLIENTS: u64 = 32;

fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<u64>().ok());
    let mut next = |or| numbers.next().unwrap_or(or);
    let (rate, lasts) = (next(4_000), Duration::from_secs(next(10)));
    let (idle, slow, resets) = (next(24_000), next(2_000), next(20_000));
    let files = springtide::net::sys::raise_descriptor_limit().unwrap();
    // Of the places for connections with a file, three of four files, the edge gives back those beyond seven of ten.
    let near = idle.min((files * 3 / 4 * 7 / 10).saturating_sub(slow + SPARE));
    let (idle, far) = (near as usize, (idle - near) as usize);
    let mut edge = Edge::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{rate} honest requests a second; a process may have {files} files, so {far} of the idle come over HTTP/3"
    );
    println!(
        "{:<14} {:>7} {:>7} {:>8} {:>9} {:>9} {:>9} {:>7} {:>8} {:>7} {:>8}",
        "siege", "due", "good", "share", "p50", "p99", "worst", "open", "resets", "cut", "MiB"
    );
    let slow = slow as usize;
    let none = Strength::default();
    let phases = [
        ("none", none),
        ("idle", Strength { idle, ..none }),
        ("slow", Strength { slow, ..none }),
        ("resets", Strength { resetting: 8, resets, ..none }),
        ("all at once", Strength { idle, slow, resetting: 8, resets }),
        ("none again", none),
    ];
    for (name, strength) in phases {
        let attack = Attack { target: edge.address, deeds: Default::default(), over: Default::default() };
        runtime.block_on(async {
            if strength.idle > 0 {
                far::idle(&attack, edge.far, &edge.certificate, far).await;
            }
            attack.begin(strength).await;
        });
        let seen = honest::run(edge.address, rate, CLIENTS, lasts);
        let deeds = &attack.deeds;
        println!(
            "{name:<14} {:>7} {:>7} {:>7.2}% {:>9.2?} {:>9.2?} {:>9.2?} {:>7} {:>8} {:>7} {:>8.1}",
            seen.due,
            seen.good,
            seen.good as f64 * 100.0 / seen.due as f64,
            seen.quantile(0.5),
            seen.quantile(0.99),
            seen.quantile(1.0),
            deeds.open.load(Relaxed),
            deeds.resets.load(Relaxed),
            deeds.cut.load(Relaxed),
            resident(edge.child.id()) as f64 / 1024.0,
        );
        attack.over.cancel();
    }
    edge.child.kill().unwrap();
    edge.child.wait().unwrap();
}

/// An edge of one worker, in front of an origin in this process.
struct Edge {
    child: Child,
    address: SocketAddr,
    /// Where it speaks HTTP/3.
    far: SocketAddr,
    /// What it shows there.
    certificate: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

impl Edge {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("siege.toml");
        let shown = rcgen::generate_simple_self_signed([far::NAME.to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, shown.cert.pem()).unwrap();
        std::fs::write(&key, shown.signing_key.serialize_pem()).unwrap();
        let text = format!(
            "[node]\nname = \"siege\"\nworkers = 1\n[[datacenter]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\
             [[service]]\nname = \"web\"\nbackends.here = [\"{}\"]\n\
             [[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"far\"\nlisten = \"127.0.0.1:0\"\nhttp3 = true\n\
             tls = {{ certs = [\"cert.pem\"], keys = [\"key.pem\"] }}\n\
             [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n",
            origin()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_springtide"))
            .args(["run", "--log", "error", "-c"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        let at = |listener: &str| ready["http"][listener][0].as_str().unwrap().parse().unwrap();
        let (address, far, certificate) = (at("public"), at("far"), shown.cert.der().clone());
        Self { child, address, far, certificate, _dir: dir }
    }
}

/// An origin that answers everything at once; a thread a connection.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut seen, mut buffer) = (Vec::new(), [0; 16 * 1024]);
                while let Ok(read @ 1..) = tcp.read(&mut buffer) {
                    seen.extend_from_slice(&buffer[..read]);
                    while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                        // Who drips a body drips it to nobody: it is answered when it is whole, which it never is.
                        if seen.starts_with(b"POST") {
                            break;
                        }
                        seen.drain(..end + 4);
                        if tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngift").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

/// Resident memory of a process in KiB; 0 where it can't be told.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
