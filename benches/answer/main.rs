//! What `answer_in_place` costs by kind of query: nanoseconds, and under callgrind instructions.
//!
//! `cargo bench --bench answer` prints a table. `cargo bench --bench answer -- KIND ROUNDS` runs one kind only, ROUNDS times
//! over its queries: two runs under `valgrind --tool=callgrind` with different ROUNDS give the instructions a query without
//! what starting costs; `benches/answer/instructions` does that for every kind.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use springtide::base::clock::{Clock as _, Mono, SystemClock, Wall};
use springtide::config::check;
use springtide::control::step;
use springtide::dns::answer::{Meta, Outcome, Transport, answer_in_place};
use springtide::dns::table::Table;
use springtide::dns::zone;
use springtide::snapshot::Topology;
use springtide::snapshot::topology::Assets;
use springtide::wire::name;

/// Names in the zone, half of them steered.
const NAMES: usize = 1_000;
/// Queries of one kind, in an order that no cache of a processor foresees.
const QUERIES: usize = 4_096;
/// How often each kind goes over its queries.
const ROUNDS: usize = 500;

const KINDS: [&str; 8] =
    ["static", "nodata", "nxdomain", "static+ecs", "weighted", "weighted+ecs", "near+ecs", "https"];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let table = table();
    if let [kind, rounds] = &args[..] {
        run(&table, &queries(kind), rounds.parse().unwrap());
        return;
    }
    println!("{:<14} {:>10} {:>12}", "kind", "ns/query", "octets");
    for kind in KINDS {
        let queries = queries(kind);
        run(&table, &queries, 10);
        let best = (0..5).map(|_| timed(&table, &queries)).fold(f64::INFINITY, f64::min);
        println!("{kind:<14} {best:>10.1} {:>12}", run(&table, &queries, 1) / QUERIES);
    }
}

fn timed(table: &Table, queries: &[Vec<u8>]) -> f64 {
    let began = SystemClock.mono();
    run(table, queries, ROUNDS / 5);
    SystemClock.mono().since(began).as_nanos() as f64 / (ROUNDS / 5 * queries.len()) as f64
}

/// Answers every query `rounds` times; gives how many octets came out in all.
fn run(table: &Table, queries: &[Vec<u8>], rounds: usize) -> usize {
    let mut packet = vec![0; 2_048];
    let mut octets = 0;
    let meta = Meta { client: [192, 0, 2, 53].into(), transport: Transport::Udp, now: Wall(1_000) };
    for _ in 0..rounds {
        for query in queries {
            packet[..query.len()].copy_from_slice(query);
            if let Outcome::Send(sent) = answer_in_place(table, black_box(&mut packet), query.len(), &meta) {
                octets += sent.length;
            }
        }
    }
    octets
}

fn queries(kind: &str) -> Vec<Vec<u8>> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let one = |_| {
        let n = next() % NAMES;
        let owner = match kind {
            "nxdomain" => format!("x{n}.example.test."),
            "weighted" | "weighted+ecs" | "https" => format!("w{n}.example.test."),
            "near+ecs" => format!("n{n}.example.test."),
            _ => format!("h{n}.example.test."),
        };
        let rtype: u16 = match kind {
            "nodata" | "https" => 65,
            _ if next() % 3 == 0 => 28,
            _ => 1,
        };
        let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend(name::parse(&owner, None).unwrap());
        query.extend(rtype.to_be_bytes());
        query.extend([0, 1]);
        if kind.ends_with("+ecs") {
            let net = [(next() % 224) as u8, next() as u8, next() as u8];
            query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
            query.extend(net);
        } else {
            query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        query
    };
    (0..QUERIES).map(one).collect()
}

fn table() -> Table {
    let mut text = String::from("[node]\nname = \"bench\"\n[dns]\nlisten = \"127.0.0.1:0\"\n");
    text.push_str("[[dns.zone]]\nname = \"example.test.\"\nfile = \"bench.zone\"\n");
    for (i, weight) in [50, 30, 20].into_iter().enumerate() {
        // Networks of alternating length all over the address space.
        let near: Vec<String> = (0..80).map(|n| format!("\"{}.{}.0.0/{}\"", n * 2 + 1, i * 64, 10 + n % 8)).collect();
        let _ = writeln!(
            text,
            "[[datacenter]]\nname = \"d{i}\"\nweight = {weight}\naddresses = [\"10.{i}.0.1\", \"2001:db8:{i}::1\"]\nnear = [{}]",
            near.join(", ")
        );
    }
    // Not probed, so always well: what is measured is the answer.
    text.push_str("[[service]]\nname = \"edge\"\n");
    text.push_str("backends = { d0 = [\"127.0.0.1:1\"], d1 = [\"127.0.0.2:1\"], d2 = [\"127.0.0.3:1\"] }\n");
    let mut lines = String::from("$TTL 60\n@ IN SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\nns1 A 192.0.2.1\n");
    for n in 0..NAMES {
        let _ = writeln!(lines, "h{n} A 10.9.{}.{}\nh{n} A 10.8.0.1\nh{n} AAAA 2001:db8::{n:x}", n / 256, n % 256);
        for (prefix, policy) in [("w", "\"weighted\""), ("n", "[\"near\", \"weighted\"]")] {
            let _ = writeln!(
                text,
                "[[dns.steer]]\nname = \"{prefix}{n}.example.test.\"\nservices = [\"edge\"]\npolicy = {policy}"
            );
        }
    }
    let config = check::parse(&text, Path::new("bench.toml")).unwrap();
    let origin = name::parse("example.test.", None).unwrap();
    let zone = zone::parse(&lines, Path::new("bench.zone"), &origin, &mut |_| Err(String::new())).unwrap();
    let assets = Assets { zones: vec![Arc::new(zone)], ..Assets::default() };
    let topology = Topology::build(Arc::new(config), assets, None);
    Table::compile(&step::first(topology, None, Mono::from_millis(1_000), Wall(1_000)))
}
