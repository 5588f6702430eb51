//! The demo, as a user meets it: three datacenters, the whole way of a red packet, a drain, a dead datacenter.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::demo::{DATACENTERS, Demo, signal};
use crate::load::{self, addresses, query};
use crate::support::{binary, client, eventually, root, said, springtide};

const NAME: &str = "www.hongbao.test";

/// One demo for all steps: starting forty processes once is enough.
#[test]
fn three_datacenters_from_first_start_to_a_dead_datacenter() {
    let dir = tempfile::tempdir().unwrap();
    let demo = Demo::start(binary(), dir.path(), Duration::ZERO);
    what_it_prints_can_be_typed(&demo);
    what_the_readme_shows_can_be_typed(&demo);
    answers_follow_the_weights(&demo);
    a_red_packet_is_claimed_once(&demo);
    a_drained_datacenter_is_left_and_still_serves(&demo);
    a_dead_datacenter_is_gone_within_seconds(&demo);
    let pids: Vec<u32> = demo.pids().into_values().collect();
    drop(demo);
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} outlived the demo");
    }
}

fn what_it_prints_can_be_typed(demo: &Demo) {
    let guide = demo.guide.replace("\\\n", " ");
    let mut typed = 0;
    for line in guide.lines().map(str::trim) {
        let reads = line.contains(" status") || line.contains(" explain ");
        if line.starts_with("dig ") || line.starts_with("curl ") || reads {
            let said = client("bash", &["-c", &format!("set -o pipefail; {line}")]);
            assert!(!said.trim().is_empty(), "`{line}` says nothing");
            typed += 1;
        }
    }
    assert!(typed >= 8, "only {typed} commands in\n{guide}");
}

fn what_the_readme_shows_can_be_typed(demo: &Demo) {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split("```sh demo\n").nth(1).and_then(|b| b.split("```").next()).unwrap();
    let admin = format!(" --admin {}", demo.admin(Ipv4Addr::LOCALHOST));
    for line in block.lines() {
        let moved = line
            .replace("5300", &demo.dns().port().to_string())
            .replace(":8080", &format!(":{}", demo.http(Ipv4Addr::LOCALHOST).port()));
        let typed = match moved.strip_prefix("cargo run --release --") {
            Some(rest) => format!("{}{rest}{admin}", binary().display()),
            None => moved,
        };
        let said = client("bash", &["-c", &typed]);
        assert!(!said.trim().is_empty(), "`{typed}` says nothing");
    }
    let full = Duration::from_secs(60);
    eventually("shanghai is back after its drain", full, || shares(demo).contains_key(&DATACENTERS[1].1).then_some(()));
    eventually("all weights are whole", full, || is_whole(demo).then_some(()));
}

/// Whether every service has its full weight everywhere, as the node of the name server sees it.
fn is_whole(demo: &Demo) -> bool {
    let url = format!("http://{}/v1/state", demo.admin(Ipv4Addr::LOCALHOST));
    let state: Value = serde_json::from_str(&client("curl", &["-sSf", &url])).unwrap();
    load::is_whole(&state)
}

/// The datacenters that 10,000 client subnets are sent to first.
fn shares(demo: &Demo) -> BTreeMap<Ipv4Addr, u32> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(demo.dns()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut first = BTreeMap::new();
    let mut buffer = [0; 1500];
    for n in 0..10_000u32 {
        socket.send(&query(n as u16, NAME, [100, (n >> 8) as u8, n as u8])).unwrap();
        let got = socket.recv(&mut buffer).unwrap();
        let addresses = addresses(&buffer[..got]).unwrap();
        assert!(!addresses.is_empty(), "an empty answer");
        *first.entry(addresses[0]).or_default() += 1;
    }
    first
}

fn answers_follow_the_weights(demo: &Demo) {
    let shares = shares(demo);
    for ((dc, ip), weight) in DATACENTERS.iter().zip([40, 40, 20]) {
        let share = f64::from(shares.get(ip).copied().unwrap_or(0)) / 100.0;
        assert!(
            (share - f64::from(weight)).abs() < 2.0,
            "{dc} has {share} % of the subnets, wants {weight}: {shares:?}"
        );
    }
    let (ip, port) = (format!("@{}", demo.dns().ip()), demo.dns().port().to_string());
    let near = client("dig", &[&ip, "-p", &port, NAME, "A", "+subnet=10.2.3.0/24"]);
    assert!(near.contains("CLIENT-SUBNET: 10.2.3.0/24/"), "{near}");
    let first = near.lines().find(|l| l.contains("\tA\t")).unwrap_or_default();
    assert!(first.ends_with("127.0.2.1"), "10.2.0.0/16 is near shanghai:\n{near}");
}

fn a_red_packet_is_claimed_once(demo: &Demo) {
    let [sz, sh, tj] = DATACENTERS.map(|d| d.1);
    let url = format!("http://{}/v1/gifts", demo.http(sz));
    let gifts: Value = serde_json::from_str(&client("curl", &["-sSf", &url, "-H", "x-user-id: zhang"])).unwrap();
    let gift = "firecracker";
    assert!(gifts["items"].as_array().unwrap().iter().any(|g| g["gift_id"] == gift), "{gifts}");
    let secure = demo.https(sh);
    let resolve = format!("{NAME}:{}:{}", secure.port(), secure.ip());
    let (ca, url) = (demo.dir.join("ca.pem"), format!("https://{NAME}:{}/v1/zones?game_id=arena-nine", secure.port()));
    let tls = ["-sSf", "--http2", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve];
    let asked = ["-w", "\n%{http_version}", "-H", "x-user-id: zhang", &url];
    let zones = client("curl", &[&tls[..], &asked[..]].concat());
    assert!(zones.ends_with("\n2"), "HTTP/2 by ALPN: {zones}");
    let body = format!("{{\"packet_id\":\"p1\",\"gift_id\":\"{gift}\",\"zone_id\":\"an-1\",\"role_id\":\"r1\"}}");
    let claim = |ip: Ipv4Addr| {
        let url = format!("http://{}/v1/claims", demo.http(ip));
        let who = ["-H", "x-user-id: zhang", "-H", "content-type: application/json", "-d", &body];
        let how = ["-sS", "--http2-prior-knowledge", "-w", "\n%{http_code}", &url];
        let out = client("curl", &[&how[..], &who[..]].concat());
        let (json, code) = out.rsplit_once('\n').unwrap();
        let json: Value = serde_json::from_str(json).unwrap();
        (json["order_no"].as_str().unwrap_or_default().to_owned(), code.to_owned())
    };
    let (order, code) = claim(tj);
    assert_eq!(code, "202");
    assert!(!order.is_empty());
    for ip in [sz, sh, tj] {
        let again = claim(ip);
        assert_eq!(again, (order.clone(), "200".to_owned()), "the same claim through {ip} gives the same order");
    }
    eventually("the order is delivered", Duration::from_secs(20), || {
        let url = format!("http://{}/v1/claims/{order}", demo.http(sz));
        let said = client("curl", &["-sS", &url, "-H", "x-user-id: zhang"]);
        said.contains("DELIVERED").then_some(())
    });
}

fn cli(demo: &Demo, args: &[&str]) -> String {
    let admin = demo.admin(Ipv4Addr::LOCALHOST).to_string();
    let output = springtide(&[args, &["--admin", &admin]].concat());
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

fn a_drained_datacenter_is_left_and_still_serves(demo: &Demo) {
    let shanghai = DATACENTERS[1].1;
    assert!(shares(demo).contains_key(&shanghai));
    cli(demo, &["drain", "shanghai", "--reason", "test"]);
    assert!(!shares(demo).contains_key(&shanghai), "no new answers");
    let url = format!("http://{}/v1/gifts", demo.http(shanghai));
    let page = client("curl", &["-sSf", &url, "-H", "x-user-id: li"]);
    assert!(page.contains("gift_id"), "who still arrives is served: {page}");
    let why = cli(demo, &["explain", "dns", NAME, "--client", "10.2.3.4"]);
    assert!(why.to_lowercase().contains("drained"), "{why}");
    cli(demo, &["undrain", "shanghai"]);
    let limit = Duration::from_secs(30);
    eventually("shanghai is answered with again", limit, || shares(demo).contains_key(&shanghai).then_some(()));
}

fn a_dead_datacenter_is_gone_within_seconds(demo: &Demo) {
    let ((tianjin, ip), limit) = (DATACENTERS[2], Duration::from_secs(30));
    eventually("tianjin is answered with", limit, || shares(demo).contains_key(&ip).then_some(()));
    let stroke = Instant::now();
    signal("KILL", &demo.upstreams(tianjin));
    eventually("no answer names tianjin", limit, || (!shares(demo).contains_key(&ip)).then_some(()));
    println!("tianjin left the answers {} ms after its death", stroke.elapsed().as_millis());
    let url = format!("http://{}/v1/gifts", demo.http(ip));
    let page = client("curl", &["-sSf", &url, "-H", "x-user-id: li"]);
    assert!(page.contains("gift_id"), "its edge serves through another datacenter: {page}");
}
