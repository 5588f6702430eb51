//! Steering that moves by itself: at the moment that a schedule names, and with the load that the edge carries. Seen by dig
//! as resolvers of many networks see it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Node, Origin, client, eventually, said, springtide};

const NAME: &str = "www.steer.test.";
const ZONE: &str = "$TTL 60\n@ SOA ns h 1 3600 900 604800 60\n@ NS ns\nns A 192.0.2.53\n";
const EAST: &str = "192.0.2.1";
const WEST: &str = "192.0.2.2";

/// Writes two datacenters of which the first is preferred, and `more`.
fn write(dir: &Path, capacity: &str, ttl: &str, more: &str) -> PathBuf {
    fs::write(dir.join("steer.zone"), ZONE).unwrap();
    let text = format!(
        "[node]\nname = \"n1\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[datacenter]]\nname = \"east\"\naddresses = [\"{EAST}\"]\n{capacity}\n\
         [[datacenter]]\nname = \"west\"\naddresses = [\"{WEST}\"]\n\
         [dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\
         [[dns.zone]]\nname = \"steer.test.\"\nfile = \"steer.zone\"\n\
         [[dns.steer]]\nname = \"{NAME}\"\nservices = \"web\"\npolicy = \"failover\"\nanswers = 1\nttl = {ttl}\n{more}"
    );
    let path = dir.join("steer.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Address and TTL that a resolver gets for each of these networks, all asked by one dig.
fn dig(node: &Node, dir: &Path, subnets: &[String]) -> Vec<(String, u32)> {
    let batch = dir.join("batch");
    let lines: Vec<String> = subnets.iter().map(|subnet| format!("{NAME} A +subnet={subnet}\n")).collect();
    fs::write(&batch, lines.concat()).unwrap();
    let port = node.dns().port().to_string();
    let args = ["@127.0.0.1", "-p", &port, "+noall", "+answer", "+time=5", "+tries=2", "-f", batch.to_str().unwrap()];
    let out = client("dig", &args);
    let answers: Vec<(String, u32)> = out
        .lines()
        .filter(|l| l.contains("\tA\t"))
        .map(|l| {
            let words: Vec<&str> = l.split_whitespace().collect();
            (words[4].to_owned(), words[1].parse().unwrap())
        })
        .collect();
    assert_eq!(answers.len(), subnets.len(), "{out}");
    answers
}

fn explain(node: &Node, subnet: &str, more: &[&str]) -> String {
    let admin = node.admin().to_string();
    let args = [&["explain", "dns", NAME, "--client", subnet, "--admin", &admin], more].concat();
    let output = springtide(&args);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn reload(node: &Node) {
    let output = springtide(&["reload", "--admin", &node.admin().to_string()]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Milliseconds since the epoch.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A moment as RFC 3339 has it.
fn moment(ms: u64) -> String {
    client("date", &["-u", "-d", &format!("@{}.{:03}", ms / 1_000, ms % 1_000), "+%Y-%m-%dT%H:%M:%S.%3NZ"])
        .trim()
        .to_owned()
}

/// How late the health core may look at the clock on a busy machine; it looks ten times a second.
const LATE: u64 = 2_000;

#[test]
fn answers_follow_a_schedule_to_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let ttl = "{ base = \"4s\", min = \"1s\" }";
    let services = "[[service]]\nname = \"web\"\nbackends = { east = [\"127.0.0.1:9\"], west = [\"127.0.0.2:9\"] }\n";
    let node = Node::start(&write(dir.path(), "", ttl, services));
    let subnet = ["10.1.2.0/24".to_owned()];
    assert_eq!(dig(&node, dir.path(), &subnet), [(EAST.to_owned(), 4)]);
    let from = wall() + 5_000;
    let until = from + 5_000;
    let plan = format!(
        "[[dns.schedule]]\ndatacenter = \"east\"\nfrom = \"{}\"\nuntil = \"{}\"\n",
        moment(from),
        moment(until)
    );
    write(dir.path(), "", ttl, &(services.to_owned() + &plan));
    reload(&node);
    // What was heard, and between which moments.
    let mut heard: Vec<(u64, String, u32, u64)> = Vec::new();
    let mut why = String::new();
    eventually("the schedule is over", Duration::from_secs(30), || {
        let asked = wall();
        let (address, ttl) = dig(&node, dir.path(), &subnet).remove(0);
        heard.push((asked, address, ttl, wall()));
        if why.is_empty() && asked > from + LATE {
            why = explain(&node, &subnet[0], &[]);
        }
        (asked > until + LATE).then_some(())
    });
    let mut seen = [0; 3];
    for (asked, address, ttl, answered) in &heard {
        let phase = if *answered < from {
            // Nobody keeps an answer beyond the beginning by more than the least TTL, and the second that TTLs are cut to.
            assert!(
                asked + u64::from(*ttl) * 1_000 <= from + 2_000 || *ttl == 1,
                "{ttl} s, {} ms before",
                from - asked
            );
            0
        } else if *asked > from + LATE && *answered < until {
            1
        } else if *asked > until + LATE {
            2
        } else {
            continue;
        };
        seen[phase] += 1;
        assert_eq!(address, [EAST, WEST, EAST][phase], "{heard:?}");
    }
    assert!(seen.iter().all(|n| *n > 0), "{seen:?} {heard:?}");
    assert!(why.contains("its schedule drains it"), "{why}");
    // Two changes in all: there and back.
    let changes = heard.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    assert_eq!(changes, 2, "{heard:?}");
}

/// How many networks ask.
const NETWORKS: usize = 100;
/// What the east says that it can carry, a second.
const CAPACITY: u32 = 40;

/// Clients of every network in turn, each going where its resolver has last been told to go.
struct Crowd {
    rate: AtomicU32,
    east: Mutex<Vec<bool>>,
    stop: AtomicBool,
}

impl Crowd {
    /// Requests at their due times over one connection at a time, until it is stopped.
    fn run(&self, edge: SocketAddr) {
        let connect = || {
            let stream = TcpStream::connect(edge).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let mut stream = connect();
        let (mut due, mut buffer) = (Instant::now(), [0; 4_096]);
        for n in 0.. {
            while Instant::now() < due {
                std::thread::park_timeout(due - Instant::now());
            }
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            due += Duration::from_secs(1) / self.rate.load(Ordering::Relaxed);
            let path = if self.east.lock().unwrap()[n % NETWORKS] { "east" } else { "west" };
            stream.write_all(format!("GET /{path} HTTP/1.1\r\nhost: www.steer.test\r\n\r\n").as_bytes()).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(path.as_bytes()) {
                let n = stream.read(&mut buffer).unwrap();
                assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&buffer[..n]);
            }
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            if answer.contains("connection: close") {
                // So many requests a connection, and no more.
                stream = connect();
            }
        }
    }
}

#[test]
fn load_beyond_a_capacity_moves_clients_and_brings_them_back() {
    let (east, west) = (Origin::start("east"), Origin::start("west"));
    let dir = tempfile::tempdir().unwrap();
    // `/east` and `/west` stand for the edges of the two: whoever is told to go there loads it.
    let more = format!(
        "[[service]]\nname = \"web\"\nbackends = {{ east = [\"{0}\"], west = [\"{1}\"] }}\n\
         [[service]]\nname = \"far\"\nbackends = {{ west = [\"{1}\"] }}\n\
         [[service]]\nname = \"near\"\nbackends = {{ east = [\"{0}\"] }}\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\
         [[route]]\nmatch = {{ path_prefix = \"/east\" }}\nservice = \"near\"\n\
         [[route]]\nmatch = {{ path_prefix = \"/west\" }}\nservice = \"far\"\n",
        east.address, west.address
    );
    let capacity = format!("capacity = \"{CAPACITY} rps\"");
    let node = Node::start(&write(dir.path(), &capacity, "{ base = \"1s\", min = \"1s\" }", &more));
    let subnets: Vec<String> = (0..NETWORKS).map(|n| format!("10.{n}.7.0/24")).collect();
    let crowd = Arc::new(Crowd {
        rate: (CAPACITY * 3 / 2).into(),
        east: Mutex::new(vec![true; NETWORKS]),
        stop: AtomicBool::new(false),
    });
    let (edge, runs) = (node.http("public"), Arc::clone(&crowd));
    let running = std::thread::spawn(move || runs.run(edge));
    // Each look is what resolvers get anew: the crowd goes there.
    let look = || -> Vec<bool> {
        let east: Vec<bool> = dig(&node, dir.path(), &subnets).iter().map(|(address, _)| address == EAST).collect();
        crowd.east.lock().unwrap().clone_from(&east);
        east
    };
    let left = |east: &[bool]| east.iter().filter(|e| !**e).count();
    let mut steps: Vec<(Instant, Vec<bool>)> = vec![(Instant::now(), look())];
    assert_eq!(left(&steps[0].1), 0, "all are in the east");
    let mut watch = |what: &str, grows: bool, enough: &dyn Fn(usize) -> bool| {
        eventually(what, Duration::from_secs(60), || {
            let now = look();
            let (_, before) = steps.last().unwrap();
            // By hash: a growing share takes further networks along, a falling one brings some back, and nobody crosses.
            let crossed = now
                .iter()
                .zip(before)
                .filter(|(now, before)| if grows { **now && !**before } else { !**now && **before });
            assert_eq!(crossed.count(), 0, "{what}: {steps:?}");
            if now != *before {
                steps.push((Instant::now(), now.clone()));
            }
            enough(left(&now)).then_some(now)
        })
    };
    let moved = watch("a fifth of the networks goes west", true, &|left| left >= NETWORKS / 5);
    let gone = moved.iter().position(|east| !east).unwrap();
    let told: Value = serde_json::from_str(&explain(&node, &subnets[gone], &["--json"])).unwrap();
    let of = |place: usize, member: &str| told["steering"]["candidates"][place][member].clone();
    assert_eq!((of(0, "group"), of(1, "chosen")), ("spilled".into(), true.into()), "{told}");
    assert!(of(0, "shed").as_f64().unwrap() >= 0.1, "{told}");
    assert!(explain(&node, &subnets[gone], &[]).contains("short of capacity"));
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    let shed = metrics.lines().find(|l| l.starts_with("springtide_control_datacenter_shed_ratio{datacenter=\"east\"}"));
    assert!(shed.is_some_and(|line| !line.ends_with(" 0")), "{shed:?}");
    // The rush is over.
    crowd.rate.store(CAPACITY / 4, Ordering::Relaxed);
    // What is under way may still grow by a step.
    let turned = eventually("the first come back", Duration::from_secs(60), || {
        let now = look();
        (left(&now) < left(&moved)).then_some(now)
    });
    assert!(left(&turned) > 0, "not all at once: {turned:?}");
    let back = eventually("all are back", Duration::from_secs(90), || {
        let now = look();
        let again = now.iter().zip(&turned).filter(|(now, before)| !**now && **before).count();
        assert_eq!(again, 0, "who came back stays: {now:?}");
        (left(&now) == 0).then_some(now)
    });
    assert_eq!(left(&back), 0);
    assert!(!explain(&node, &subnets[gone], &[]).contains("short of capacity"));
    // Damped: ten points in five seconds, and what the hash makes of a hundred networks.
    for pair in steps.windows(2) {
        let step = left(&pair[1].1) - left(&pair[0].1);
        let decisions = 1 + (pair[1].0 - pair[0].0).as_secs() as usize / 5;
        assert!(step <= decisions * (NETWORKS / 10 + 8), "{step} at once: {steps:?}");
    }
    crowd.stop.store(true, Ordering::Relaxed);
    running.join().unwrap();
}
