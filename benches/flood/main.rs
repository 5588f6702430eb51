//! What honest clients of the name server lose while it is flooded, and what memory the floods take: a table.
//!
//! `cargo bench --bench flood -- [RATE] [SECONDS]` (default 40,000 datagrams a second, 5 s each; 10,000 connections). Loopback
//! alone; the flood and the server share the machine.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring program")]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::pedantic, reason = "a measuring program")]

mod flood;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use flood::{Flood, Strength, Target, run};

const CONFIG: &str = "[node]\nname = \"flood\"\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\
    rate_limit = { per_prefix = \"500 rps\", exempt = \"127.0.0.0/24\" }\n\
    [[dns.zone]]\nname = \"f.test.\"\nfile = \"f.zone\"\n";
const ZONE: &str = "@ 300 SOA ns h 1 3600 900 604800 60\n@ 300 NS ns\nns 300 A 192.0.2.1\nwww 300 A 192.0.2.2\n";

fn main() {
    let mut numbers = std::env::args().filter_map(|a| a.parse::<u32>().ok());
    let (rate, seconds) = (numbers.next().unwrap_or(40_000), numbers.next().unwrap_or(5));
    springtide::net::sys::raise_descriptor_limit().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("flood.toml");
    std::fs::write(&config, CONFIG).unwrap();
    std::fs::write(dir.path().join("f.zone"), ZONE).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_springtide"))
        .args(["run", "-c"])
        .arg(&config)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let address = ready["dns"][0].as_str().unwrap().parse().unwrap();
    let target = Target { address, process: server.id(), name: "www.f.test." };
    let strength = Strength { rate, connections: 10_000, lasts: Duration::from_secs(seconds.into()) };
    println!(
        "{:<12} {:>9} {:>22} {:>14} {:>7} {:>9} {:>24}",
        "flood", "sent", "udp asked/again/lost", "tcp asked/lost", "lost", "p99", "resident MiB"
    );
    for flood in [
        Flood::Calm,
        Flood::Forged,
        Flood::Reflected,
        Flood::Garbage,
        Flood::Idle,
        Flood::SlowReaders,
        Flood::Fragments,
    ] {
        let damage = run(target, flood, strength);
        let ([asked, again, lost], [asked_tcp, lost_tcp]) = (damage.udp, damage.tcp);
        let [before, peak, after] = damage.resident.map(|kib| kib as f64 / 1024.0);
        println!(
            "{:<12} {:>9} {:>22} {:>14} {:>6.2}% {:>9} {:>24}",
            format!("{flood:?}").to_lowercase(),
            damage.sent,
            format!("{asked}/{again}/{lost}"),
            format!("{asked_tcp}/{lost_tcp}"),
            damage.lost() * 100.0,
            format!("{:.2} ms", damage.p99.as_secs_f64() * 1e3),
            format!("{before:.1} > {peak:.1} > {after:.1}"),
        );
    }
    server.kill().ok();
    server.wait().ok();
}
