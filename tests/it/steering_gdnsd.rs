//! gdnsd beside us: the same map of prefixes, every /16 of IPv4 asked of both by client subnet, the same datacenter and the
//! same scope from both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Node, eventually};

const SEED: u64 = 0x5eed_0001;
/// Queries that are under way at once; well below what a socket buffers.
const WINDOW: usize = 128;
const SITES: usize = 3;

/// Ends gdnsd with the test.
struct Gdnsd(Child);

impl Drop for Gdnsd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// SplitMix64, so that the map is the same in every run.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Prefixes of every length from 2 to 24, many of them within others, each of one site.
fn map() -> BTreeMap<(u32, u8), usize> {
    let (mut state, mut map) = (SEED, BTreeMap::new());
    let mut last = 0u32;
    while map.len() < 600 {
        let r = random(&mut state);
        let length = 2 + (r % 23) as u8;
        // Every second one lies within the one before.
        let bits = (r >> 32) as u32;
        let bits = if r & 1 << 20 == 0 { bits } else { last & 0xffff_0000 | bits & 0xffff };
        let address = bits & u32::MAX << (32 - length);
        map.insert((address, length), (r >> 8) as usize % SITES);
        last = address;
    }
    map
}

fn site(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, index as u8 + 1)
}

fn ours(folder: &Path, map: &BTreeMap<(u32, u8), usize>) -> Node {
    let mut text = String::from("[node]\nname = \"n1\"\nworkers = 1\n\n[admin]\nlisten = \"127.0.0.1:0\"\n");
    for i in 0..SITES {
        let nets: Vec<String> = map
            .iter()
            .filter(|(_, site)| **site == i)
            .map(|((address, length), _)| format!("\"{}/{length}\"", Ipv4Addr::from(*address)))
            .collect();
        let _ = write!(
            text,
            "\n[[datacenter]]\nname = \"dc{i}\"\naddresses = [\"{}\"]\nnear = [{}]\n",
            site(i),
            nets.join(", ")
        );
    }
    text += "\n[[service]]\nname = \"web\"\nbackends.dc0 = [\"127.0.0.1:9\"]\nbackends.dc1 = [\"127.0.0.2:9\"]\n\
             backends.dc2 = [\"127.0.0.3:9\"]\n\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\n[[dns.zone]]\n\
             name = \"example.test.\"\nfile = \"example.test.zone\"\n\n[[dns.steer]]\nname = \"www.example.test.\"\n\
             services = [\"web\"]\npolicy = [\"near\", \"failover\"]\nanswers = 1\n";
    fs::write(
        folder.join("example.test.zone"),
        "@ 60 IN SOA ns1 host 1 3600 900 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n",
    )
    .unwrap();
    let path = folder.join("node.toml");
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

fn gdnsd(folder: &Path, map: &BTreeMap<(u32, u8), usize>) -> (Gdnsd, SocketAddr) {
    // The orders differ from that of the whole map, so that no prefix says the same as no prefix.
    let orders = ["dc0, dc2, dc1", "dc1, dc0, dc2", "dc2, dc1, dc0"];
    let mut nets = String::new();
    for ((address, length), site) in map {
        let _ = writeln!(nets, "{}/{length} => [ {} ]", Ipv4Addr::from(*address), orders[*site]);
    }
    let sites: Vec<String> = (0..SITES).map(|i| format!("dc{i} => {}", site(i))).collect();
    // Both transports of one port that is free now; gdnsd takes it a moment later.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    UdpSocket::bind(address).unwrap();
    drop(listener);
    let run = folder.display();
    fs::create_dir_all(folder.join("zones")).unwrap();
    fs::write(
        folder.join("zones/example.test"),
        "@ 60 IN SOA ns1 host 1 3600 900 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\nwww 60 DYNA geoip!www\n",
    )
    .unwrap();
    fs::write(
        folder.join("config"),
        format!(
            "options => {{\n  listen => {{ {address} => {{ udp_threads = 1, tcp_threads = 1 }} }}\n  run_dir = {run}/run\n  \
             state_dir = {run}/state\n}}\nplugins => {{ geoip => {{ maps => {{ m => {{ datacenters => [dc0, dc1, dc2]\n\
             nets => {{\n{nets}}} }} }}\nresources => {{ www => {{ map => m service_types = up dcmap => {{ {} }} }} }} }} }}\n",
            sites.join(", ")
        ),
    )
    .unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    let child = Command::new("gdnsd").args(["-c", &run.to_string(), "start"]).stdout(Stdio::null()).stderr(log).spawn();
    let gdnsd = match child {
        Ok(child) => Gdnsd(child),
        Err(e) => panic!("gdnsd is not here ({e}); `bash tests/run.sh` installs what the tests need"),
    };
    (gdnsd, address)
}

/// A query for `www.example.test. A` of the client subnet `network`/24.
fn query(id: u16, network: Ipv4Addr) -> Vec<u8> {
    let [a, b] = id.to_be_bytes();
    let mut out = vec![a, b, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    out.extend(b"\x03www\x07example\x04test\x00\x00\x01\x00\x01");
    out.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0]);
    out.extend(&network.octets()[..3]);
    out
}

/// The one address of an answer and the scope that it is good for.
fn read(answer: &[u8]) -> Option<(u16, Ipv4Addr, u8)> {
    let question_end = 12 + 22;
    let id = u16::from_be_bytes([answer[0], answer[1]]);
    assert_eq!((answer[3] & 15, &answer[6..8]), (0, &[0, 1][..]), "one address: {}", answer.escape_ascii());
    let record = answer.get(question_end..question_end + 16)?;
    assert_eq!((&record[2..4], &record[10..12]), (&[0, 1][..], &[0, 4][..]));
    let address = Ipv4Addr::new(record[12], record[13], record[14], record[15]);
    let ecs = answer.windows(8).rposition(|w| w[..2] == [0, 8] && w[4..6] == [0, 1] && w[6] == 24)?;
    Some((id, address, answer[ecs + 7]))
}

/// What `server` answers for each /16, by its first two octets.
fn ask_all(server: SocketAddr, networks: &[Ipv4Addr]) -> Vec<(Ipv4Addr, u8)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answers: Vec<Option<(Ipv4Addr, u8)>> = vec![None; networks.len()];
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut buffer = [0; 2_048];
    loop {
        let missing: Vec<usize> = (0..networks.len()).filter(|i| answers[*i].is_none()).collect();
        if missing.is_empty() {
            return answers.into_iter().flatten().collect();
        }
        assert!(Instant::now() < deadline, "{} answers are missing", missing.len());
        for some in missing.chunks(WINDOW) {
            for i in some {
                // A server that is not there yet refuses: the loop asks again.
                socket.send(&query(*i as u16, networks[*i])).ok();
            }
            let mut open = some.len();
            while open > 0
                && let Ok(length) = socket.recv(&mut buffer)
            {
                let (id, address, scope) = read(&buffer[..length]).expect("an answer with a client subnet");
                open -= usize::from(answers[usize::from(id)].replace((address, scope)).is_none());
            }
        }
    }
}

#[test]
fn every_sixteenth_of_ipv4_goes_where_gdnsd_sends_it() {
    let map = map();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("gdnsd")).unwrap();
    let (mut gdnsd, theirs) = gdnsd(&folder.path().join("gdnsd"), &map);
    let node = ours(folder.path(), &map);
    eventually("gdnsd answers", Duration::from_secs(20), || {
        let log = fs::read_to_string(folder.path().join("gdnsd/log")).unwrap_or_default();
        assert!(gdnsd.0.try_wait().unwrap().is_none(), "gdnsd ended:\n{log}");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(theirs).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.send(&query(0, Ipv4Addr::new(10, 0, 0, 0))).ok()?;
        socket.recv(&mut [0; 2_048]).ok()
    });
    // A /24 somewhere in each /16, so that what lies deeper is met too.
    let mut state = SEED ^ 1;
    let networks: Vec<Ipv4Addr> =
        (0..=u16::MAX).map(|i| Ipv4Addr::from(u32::from(i) << 16 | (random(&mut state) as u32 & 0xff00))).collect();
    let (their, our) = (ask_all(theirs, &networks), ask_all(node.dns(), &networks));
    let said = |(address, scope): (Ipv4Addr, u8)| format!("{address} for /{scope}");
    let differ: Vec<String> = networks
        .iter()
        .zip(their.iter().zip(&our))
        .filter(|(_, (their, our))| their != our)
        .map(|(network, (their, our))| format!("{network}/24: gdnsd {}, ours {}", said(*their), said(*our)))
        .collect();
    assert!(
        differ.is_empty(),
        "{} differ, such as\n{}",
        differ.len(),
        differ.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    let near: Vec<usize> = (0..SITES).map(|i| our.iter().filter(|(address, _)| *address == site(i)).count()).collect();
    assert!(near.iter().all(|count| *count > 5_000), "every site has its part: {near:?}");
}
