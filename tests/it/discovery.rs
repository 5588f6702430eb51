//! Backends that are found: through a real resolver in front of a real name server, in a file, by heartbeats. Whatever happens
//! to the source, who is known serves on.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::peers::{Peer, free_port};
use crate::support::{Node, Origin, attempt, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);

/// A node that finds the backends of `web` as `backends` says.
fn configure(dir: &Path, discovery: &str, backends: &str) -> PathBuf {
    let path = dir.join("node.toml");
    fs::create_dir_all(dir.join("state")).unwrap();
    let text = format!(
        "[node]\nname = \"n1\"\nworkers = 1\ndatacenter = \"here\"\nstate_dir = \"state\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [discovery]\n{discovery}\n\n[[datacenter]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\n\
         [[service]]\nname = \"web\"\nslow_start = \"1s\"\nprobe = {{ tcp = true, interval = \"200ms\", timeout = \"200ms\" }}\n\
         backends.here = [{backends}]\n\n[[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// Status and body of one request over a connection of its own.
fn get(address: SocketAddr) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web.test\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn backends(node: &Node) -> Value {
    let url = format!("http://{}/v1/services/web/backends", node.admin());
    serde_json::from_str(&client("curl", &["-sS", "-m", "5", &url])).unwrap()
}

/// Addresses in force, sorted, and how the first source stands.
fn known(node: &Node) -> (Vec<String>, String) {
    let told = backends(node);
    let rows = told["backends"].as_array().unwrap().iter();
    let mut addresses: Vec<String> = rows.map(|row| row["address"].as_str().unwrap().to_owned()).collect();
    addresses.sort();
    (addresses, told["sources"][0]["state"].as_str().unwrap_or_default().to_owned())
}

fn until_known(node: &Node, wanted: &[SocketAddr], state: &str) {
    let mut wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    wanted.sort();
    let what = format!("{wanted:?} {state}");
    eventually(&what, SOON, || (known(node) == (wanted.clone(), state.to_owned())).then_some(()));
}

/// Whether each of `bodies` answers, and nobody else or nothing at all.
fn answered_by(node: &Node, bodies: &[&str]) {
    let at = node.http("public");
    let mut left: Vec<&str> = bodies.to_vec();
    eventually(&format!("answers of {bodies:?}"), SOON, || {
        let (status, body) = get(at)?;
        assert_eq!(status, 200, "{body}");
        left.retain(|wanted| *wanted != body);
        left.is_empty().then_some(())
    });
}

/// unbound in front of the server at `port`, for `x.`; as it is, but for the loopback.
fn resolver(dir: &Path, server: u16) -> Peer {
    eventually("unbound starts", SOON, || {
        let port = free_port();
        let conf = format!(
            "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{0}\"\n pidfile: \"\"\n \
             use-syslog: no\n logfile: \"\"\n do-daemonize: no\n do-not-query-localhost: no\n module-config: \"iterator\"\n \
             num-threads: 1\n do-ip6: no\nremote-control:\n control-enable: no\nstub-zone:\n name: x.\n stub-addr: 127.0.0.1@{server}\n",
            dir.display()
        );
        fs::write(dir.join("unbound.conf"), conf).unwrap();
        let conf = dir.join("unbound.conf");
        let peer = Peer::start("unbound", port, "/usr/sbin/unbound", &["-d", "-c", conf.to_str().unwrap()], dir);
        (0..10).any(|_| answers(port)).then_some(peer)
    })
}

/// Whether the server at `port` has the zone.
fn answers(port: u16) -> bool {
    let port = port.to_string();
    let asked = attempt("dig", &["@127.0.0.1", "-p", &port, "+time=1", "+tries=1", "+short", "x.", "SOA"]);
    asked.status.success() && !asked.stdout.is_empty()
}

/// Writes the zone with these records; TTLs of a second.
fn zone(dir: &Path, serial: u32, records: &str) {
    let text = format!(
        "$ORIGIN x.\n$TTL 1\n@ SOA ns hostmaster {serial} 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\n{records}"
    );
    fs::write(dir.join("x.zone"), text).unwrap();
}

/// Knot with the zone.
fn knot(dir: &Path) -> Peer {
    eventually("knot starts", SOON, || {
        let file = dir.join("x.zone");
        let more = format!("zone:\n  - domain: x\n    file: \"{}\"\n    zonefile-sync: -1\n", file.display());
        let peer = Peer::knot(free_port(), dir, &more);
        (0..10).any(|_| answers(peer.port)).then_some(peer)
    })
}

fn srv(ports: &[SocketAddr]) -> String {
    let record = |at: &SocketAddr| format!("_web._tcp SRV 0 1 {} h\n", at.port());
    let records = ports.iter().map(record).collect::<Vec<_>>().concat();
    format!("h A 127.0.0.1\n_web._tcp SRV 9 1 1 h\n{records}")
}

#[test]
fn srv_records_are_followed_and_what_is_known_outlives_their_servers() {
    let (one, two, three) = (Origin::start("one"), Origin::start("two"), Origin::start("three"));
    let dir = tempfile::tempdir().unwrap();
    zone(dir.path(), 1, &srv(&[one.address]));
    let knot = knot(dir.path());
    let unbound = resolver(dir.path(), knot.port);
    let resolvers = format!("resolvers = [\"127.0.0.1:{}\"]", unbound.port);
    let path = configure(dir.path(), &resolvers, "{ srv = \"_web._tcp.x.\" }");
    let node = Node::start(&path);
    assert_eq!(known(&node).0, [one.address.to_string()], "who is ready has backends");
    answered_by(&node, &["one"]);

    // The zone moves: so do the backends, as soon as the resolver's copy and then ours are over.
    zone(dir.path(), 2, &srv(&[one.address, two.address, three.address]));
    let reloaded = Instant::now();
    crate::demo::signal("HUP", &[knot.process()]);
    until_known(&node, &[one.address, two.address, three.address], "followed");
    let took = reloaded.elapsed();
    println!("backends followed a zone with a TTL of 1 s within {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    answered_by(&node, &["one", "two", "three"]);

    // Nobody answers any more: nothing changes, loudly.
    drop(unbound);
    until_known(&node, &[one.address, two.address, three.address], "failing");
    answered_by(&node, &["one", "two", "three"]);
    assert!(node.log().contains("cannot be asked"), "{}", node.log());
    drop(node);

    // Nor does a restart lose them.
    let node = Node::start(&path);
    until_known(&node, &[one.address, two.address, three.address], "failing");
    answered_by(&node, &["one", "two", "three"]);
}

#[test]
fn a_name_that_has_gone_takes_nobody_with_it_until_somebody_says_so() {
    let (one, two, three) = (Origin::start("one"), Origin::start("two"), Origin::start("three"));
    let dir = tempfile::tempdir().unwrap();
    zone(dir.path(), 1, &srv(&[one.address, two.address, three.address]));
    let knot = knot(dir.path());
    let resolvers = format!("resolvers = [\"127.0.0.1:{}\"]\nkeep = \"1h\"", knot.port);
    let node = Node::start(&configure(dir.path(), &resolvers, "{ srv = \"_web._tcp.x.\" }"));
    let all = [one.address, two.address, three.address];
    until_known(&node, &all, "followed");

    zone(dir.path(), 2, "");
    crate::demo::signal("HUP", &[knot.process()]);
    until_known(&node, &all, "held");
    zone(dir.path(), 3, &srv(&[one.address]));
    crate::demo::signal("HUP", &[knot.process()]);
    eventually("it says that there is one", SOON, || {
        backends(&node)["sources"][0]["why"].as_str()?.contains("there are 1").then_some(())
    });
    until_known(&node, &all, "held");
    answered_by(&node, &["one", "two", "three"]);
    let status = said(&springtide(&["status", "--admin", &node.admin().to_string()]));
    assert!(status.contains("Where backends are found") && status.contains("held"), "{status}");
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    assert!(metrics.lines().any(|l| l.starts_with("springtide_discovery_held{") && l.ends_with(" 1")), "{metrics}");

    let confirmed = springtide(&["backends", "confirm", "web", "--admin", &node.admin().to_string()]);
    assert!(confirmed.status.success(), "{}", said(&confirmed));
    assert_eq!(known(&node), (vec![one.address.to_string()], "followed".to_owned()));
    answered_by(&node, &["one"]);
}

#[test]
fn a_name_with_more_addresses_than_a_datagram_holds_is_asked_over_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let many: String = (0..300).map(|i| format!("many A 127.1.{}.{}\n", i / 250, i % 250 + 1)).collect();
    zone(dir.path(), 1, &many);
    let knot = knot(dir.path());
    let resolvers = format!("resolvers = [\"127.0.0.1:{}\"]", knot.port);
    let node = Node::start(&configure(dir.path(), &resolvers, "{ dns = \"many.x.:9\", weight = 3 }"));
    let told = backends(&node);
    assert_eq!((told["backends"].as_array().unwrap().len(), &told["sources"][0]["state"]), (300, &"followed".into()));
    assert!(told["backends"].as_array().unwrap().iter().all(|row| row["configured"] == 3), "{told}");
}

/// Asks without pause until it is dropped; counts what came of it.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(at: SocketAddr) -> Self {
        let (stop, asked, failed) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let threads = (0..2).map(|_| {
            let (stop, asked, failed): (_, Arc<AtomicUsize>, Arc<AtomicUsize>) =
                (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&failed));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if get(at).is_none_or(|(status, _)| status != 200) {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, asked, failed, threads }
    }

    /// How many were asked, and how many failed.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

#[test]
fn a_file_is_swapped_under_load_and_no_request_fails() {
    let origins = [Origin::start("one"), Origin::start("two"), Origin::start("three"), Origin::start("four")];
    let at: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("web.txt");
    let write = |text: String| {
        fs::write(dir.path().join("new"), text).unwrap();
        fs::rename(dir.path().join("new"), &list).unwrap();
    };
    let lines = |of: &[usize]| of.iter().map(|&i| format!("{} name=n{i}\n", at[i])).collect::<String>();
    let of = |of: &[usize]| of.iter().map(|&i| at[i]).collect::<Vec<_>>();
    write(lines(&[0, 1]));
    let node = Node::start(&configure(dir.path(), "", "{ file = \"web.txt\" }"));
    until_known(&node, &of(&[0, 1]), "followed");
    let load = Load::on(node.http("public"));
    // The last two steps replace most of the list: it is taken over once those who are new have been seen to work.
    for set in [&[0, 1, 2][..], &[1, 2], &[1, 2, 3], &[0, 1, 2, 3], &[0, 3], &[1, 2], &[0, 3]] {
        write(lines(set));
        until_known(&node, &of(set), "followed");
    }
    // A broken line changes nothing, and is told by file and line.
    write(lines(&[0]) + "nonsense\n");
    until_known(&node, &of(&[0, 3]), "failing");
    let why = backends(&node)["sources"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("web.txt: line 2: `nonsense` is not an address"), "{why}");
    write(String::new());
    until_known(&node, &of(&[0, 3]), "held");
    fs::remove_file(&list).unwrap();
    until_known(&node, &of(&[0, 3]), "failing");
    write(lines(&[0, 3, 1]));
    until_known(&node, &of(&[0, 1, 3]), "followed");
    let (asked, failed) = load.end();
    println!("{asked} requests while a file was swapped: {failed} failed");
    assert!(asked > 100 && failed == 0, "{failed} of {asked} failed\n{}", node.log());
}

/// A backend that is a process of its own.
fn backend(dir: &Path, name: &str) -> Node {
    let path = dir.join(format!("{name}.toml"));
    let text = format!(
        "[node]\nname = \"{name}\"\nworkers = 1\n\n[[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nrespond = {{ status = 200, body = \"{name}\" }}\n"
    );
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

fn register(node: &Node, address: SocketAddr, ttl: &str) {
    let (admin, address) = (node.admin().to_string(), address.to_string());
    let added = springtide(&["backends", "add", "web", &address, "--ttl", ttl, "--name", "b", "--admin", &admin]);
    assert!(added.status.success(), "{}", said(&added));
}

#[test]
fn who_registers_serves_at_once_and_who_dies_is_out_long_before_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut alive: Vec<Node> = ["one", "two", "three"].iter().map(|name| backend(dir.path(), name)).collect();
    let at: Vec<SocketAddr> = alive.iter().map(|b| b.http("public")).collect();
    let path = configure(dir.path(), "", "{ register = true, allow = [\"127.0.0.0/8\"] }");
    let node = Node::start(&path);
    let admin = format!("http://{}", node.admin());
    for address in &at {
        register(&node, *address, "5m");
    }
    until_known(&node, &at, "followed");
    answered_by(&node, &["one", "two", "three"]);
    let refused = attempt("curl", &["-sS", "-X", "PUT", &format!("{admin}/v1/services/web/backends/10.0.0.1:80")]);
    assert!(said(&refused).contains("10.0.0.1:80 may not be registered there"), "{}", said(&refused));

    // kill -9: health finds it, not its registration's end; and nobody notices but the log.
    let load = Load::on(node.http("public"));
    let dead = alive.remove(0);
    dead.signal("KILL");
    let died = Instant::now();
    let row = |address: SocketAddr| {
        let told = backends(&node);
        told["backends"].as_array().unwrap().iter().find(|row| row["address"] == address.to_string()).cloned()
    };
    let told = eventually("health has found it", SOON, || row(at[0]).filter(|row| row["state"] == "down"));
    println!("a registered backend was out {:?} after its death", died.elapsed());
    assert!(told["lease_s"].as_f64().unwrap() > 200.0, "long before: {told}");
    let (asked, failed) = load.end();
    assert!(asked > 10 && failed == 0, "{failed} of {asked} failed");

    // One to call directly: never the dead one. What callers tell of one is heard.
    for key in 0..20 {
        let route = client("curl", &["-sS", &format!("{admin}/v1/route?service=web&key={key}")]);
        let route: Value = serde_json::from_str(&route).unwrap();
        assert!(route["address"] != at[0].to_string() && route["lease_s"].as_f64().unwrap() <= 5.0, "{route}");
    }
    let admin_at = node.admin().to_string();
    let reported = springtide(&[
        "backends",
        "report",
        "web",
        &at[1].to_string(),
        "timeout",
        "--latency-ms",
        "80",
        "--admin",
        &admin_at,
    ]);
    assert!(reported.status.success(), "{}", said(&reported));
    eventually("the report counts", SOON, || {
        let health = client("curl", &["-sS", &format!("{admin}/v1/health")]);
        let health: Value = serde_json::from_str(&health).unwrap();
        let all = health["backends"].as_array().unwrap().iter();
        (all.map(|b| b["recent"]["timeout"].as_u64().unwrap_or(0)).sum::<u64>() == 1).then_some(())
    });

    // A restart knows them; then one says goodbye, and one stays away.
    eventually("they are on disk", SOON, || {
        fs::read_to_string(dir.path().join("state/discovered.json")).ok()?.contains(&at[2].to_string()).then_some(())
    });
    drop(node);
    let node = Node::start(&path);
    answered_by(&node, &["two", "three"]);
    let admin_at = node.admin().to_string();
    let removed = springtide(&["backends", "remove", "web", &at[0].to_string(), "--admin", &admin_at]);
    assert!(removed.status.success(), "{}", said(&removed));
    until_known(&node, &at[1..], "followed");
    register(&node, at[1], "2s");
    register(&node, at[2], "5m");
    until_known(&node, &at[2..], "followed");
    answered_by(&node, &["three"]);
    let gone = springtide(&["backends", "remove", "web", &at[1].to_string(), "--admin", &admin_at]);
    assert!(!gone.status.success() && said(&gone).contains("there is no backend"), "{}", said(&gone));
}
