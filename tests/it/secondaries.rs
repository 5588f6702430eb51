//! Zones on their way to real secondaries: Knot, NSD and BIND take ours, signed, and follow when they are told; dig reads it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::peers::{Peer, free_port};
use crate::support::{Node, attempt, client, eventually, said};

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "8Vn0cM3pXb1hTq0m6mT8iZp0cQ2hJ5sYxw1oYw0fX0k=";

fn zone(serial: u32, more: &str) -> String {
    format!(
        "$TTL 300\n@ 3600 IN SOA ns1 hostmaster {serial} 3600 900 604800 60\n@ NS ns1\nns1 A 192.0.2.53\n@ MX 10 mail\n\
         mail A 192.0.2.25\n*.w TXT \"wild card\"\nalias CNAME mail\nmoved DNAME w\nsub NS ns.sub\nns.sub A 192.0.2.99\n\
         $GENERATE 1-400 h$ A 192.0.2.${{0,1}}\n{more}"
    )
    .replace("192.0.2.${0,1}", "192.0.3.1")
}

/// Our node as the primary of `example.test.`, telling those at `notify`.
fn primary(dir: &Path, notify: &[u16]) -> Node {
    fs::write(dir.join("xfr.key"), format!("{SECRET}\n")).unwrap();
    fs::write(dir.join("example.zone"), zone(1, "gone A 192.0.2.77\n")).unwrap();
    let notify: Vec<String> = notify.iter().map(|p| format!("\"127.0.0.1:{p}\"")).collect();
    let text = format!(
        "[node]\nname = \"primary\"\nworkers = 1\n\n[[datacenter]]\nname = \"here\"\nweight = 1\n\
         addresses = [\"203.0.113.1\", \"2001:db8::1\"]\n\n[[service]]\nname = \"web\"\nprobe = {{ tcp = true }}\n\
         backends.here = [\"127.0.0.1:1\"]\n\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n\n\
         [[dns.key]]\nname = \"xfr\"\nsecret_file = \"xfr.key\"\n\n[[dns.zone]]\nname = \"example.test.\"\n\
         file = \"example.zone\"\ntransfer = {{ allow = [\"127.0.0.0/8\"], key = \"xfr\" }}\nnotify = [{}]\n\n\
         [[dns.steer]]\nname = \"www.example.test.\"\nservices = [\"web\"]\n",
        notify.join(", ")
    );
    let path = dir.join("primary.toml");
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

fn dig(port: u16, args: &[&str]) -> String {
    let port = port.to_string();
    let mut all = vec!["@127.0.0.1", "-p", &port, "+time=5", "+tries=2"];
    all.extend(args);
    said(&attempt("dig", &all))
}

fn short(port: u16, args: &[&str]) -> String {
    let mut all = vec!["+short", "+norec"];
    all.extend(args);
    dig(port, &all)
}

#[test]
fn dig_gets_the_zone_with_the_key_and_nothing_without() {
    let dir = tempfile::tempdir().unwrap();
    let node = primary(dir.path(), &[]);
    let port = node.dns().port();
    let key = format!("hmac-sha256:xfr:{SECRET}");
    let whole = dig(port, &["-y", &key, "example.test.", "AXFR"]);
    assert!(
        whole.contains("XFR size: 415 records"),
        "{}\n{}",
        whole.lines().rev().take(8).collect::<Vec<_>>().join("\n"),
        node.log()
    );
    assert!(!whole.contains("Couldn't verify") && !whole.contains("verify failure"), "{whole}");
    assert!(
        whole.contains("www.example.test.") && whole.contains("203.0.113.1"),
        "steered names go out as their addresses"
    );
    assert!(dig(port, &["example.test.", "AXFR"]).contains("Transfer failed"));
    let other = format!("hmac-sha256:xfr:{}", SECRET.replace('8', "9"));
    assert!(dig(port, &["-y", &other, "example.test.", "AXFR"]).contains("BADSIG"));
    let stranger = format!("hmac-sha512:xfr:{SECRET}");
    assert!(dig(port, &["-y", &stranger, "example.test.", "AXFR"]).contains("BADKEY"));
    // A signed question of any kind gets a signed answer, over both transports.
    for way in ["+notcp", "+tcp"] {
        let answer = dig(port, &["-y", &key, way, "h7.example.test.", "A"]);
        assert!(answer.contains("192.0.3.1") && answer.contains("TSIG PSEUDOSECTION"), "{answer}");
        assert!(!answer.contains("verify"), "{answer}");
    }
    // IXFR over UDP tells the serial; over TCP the changes, once there are some.
    let now = dig(port, &["-y", &key, "+notcp", "example.test.", "IXFR=0"]);
    assert!(now.contains("SOA"), "{now}");
    fs::write(dir.path().join("example.zone"), zone(2, "come A 192.0.2.78\n")).unwrap();
    node.signal("HUP");
    eventually("the new serial", SOON, || short(port, &["example.test.", "SOA"]).contains(" 2 3600").then_some(()));
    let changes = dig(port, &["-y", &key, "+tcp", "example.test.", "IXFR=1"]);
    assert!(changes.contains("XFR size: 6 records"), "{changes}");
    assert!(changes.contains("gone.example.test.") && changes.contains("come.example.test."), "{changes}");
    assert!(dig(port, &["-y", &key, "+tcp", "example.test.", "IXFR=2"]).contains("XFR size: 1 records"));
    // kdig's reader is another.
    let read = client("kdig", &["@127.0.0.1", "-p", &port.to_string(), "-y", &key, "example.test.", "AXFR"]);
    assert!(read.contains("Received") && read.contains("415 records"), "{read}");
}

#[test]
fn knot_nsd_and_bind_are_secondaries_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let node = primary(dir.path(), &ports);
    let from = node.dns().port();
    let knot = format!(
        "key:\n  - id: xfr.\n    algorithm: hmac-sha256\n    secret: {SECRET}\nremote:\n  - id: primary\n    address: 127.0.0.1@{from}\n    key: xfr.\n\
         acl:\n  - id: told\n    address: 127.0.0.1\n    key: xfr.\n    action: notify\nzone:\n  - domain: example.test.\n    storage: \"@HOME@\"\n    \
         file: \"example.test.zone\"\n    master: primary\n    acl: told\n"
    );
    let nsd = format!(
        "key:\n  name: xfr\n  algorithm: hmac-sha256\n  secret: \"{SECRET}\"\nzone:\n  name: example.test\n  zonefile: \"@HOME@/example.zone\"\n  \
         allow-notify: 127.0.0.1 xfr\n  request-xfr: 127.0.0.1@{from} xfr\n"
    );
    let bind = format!(
        "key \"xfr\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\nserver 127.0.0.1 {{ keys {{ xfr; }}; }};\n\
         zone \"example.test\" {{ type secondary; primaries {{ 127.0.0.1 port {from} key xfr; }}; file \"@HOME@/example.db\"; masterfile-format text; }};\n"
    );
    let peers = [
        Peer::knot(ports[0], dir.path(), &knot),
        Peer::nsd(ports[1], dir.path(), &nsd),
        Peer::bind(ports[2], dir.path(), &bind),
    ];
    let serve = |what: &str, serial: &str| {
        for peer in &peers {
            let log = || fs::read_to_string(dir.path().join(format!("{}.log", peer.name))).unwrap_or_default();
            let got = || short(peer.port, &["example.test.", "SOA"]);
            let deadline = std::time::Instant::now() + SOON;
            while !got().contains(&format!(" {serial} 3600")) {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{}: {what}: {}\n{}\n{}",
                    peer.name,
                    got(),
                    log(),
                    node.log()
                );
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
    };
    serve("the first version", "1");
    for peer in &peers {
        let has = |name: &str, rtype: &str| short(peer.port, &[name, rtype]);
        assert_eq!(has("h400.example.test.", "A").trim(), "192.0.3.1", "{}", peer.name);
        assert_eq!(has("x.w.example.test.", "TXT").trim(), "\"wild card\"", "{}", peer.name);
        assert_eq!(has("www.example.test.", "A").trim(), "203.0.113.1", "{}", peer.name);
        assert!(has("x.moved.example.test.", "TXT").contains("wild card"), "{}", peer.name);
    }
    // A new version reaches them by NOTIFY, long before their refresh time, and as changes.
    fs::write(dir.path().join("example.zone"), zone(2, "come A 192.0.2.78\n")).unwrap();
    node.signal("HUP");
    serve("told of the second version", "2");
    for peer in &peers {
        assert_eq!(short(peer.port, &["come.example.test.", "A"]).trim(), "192.0.2.78", "{}", peer.name);
        assert_eq!(short(peer.port, &["gone.example.test.", "A"]).trim(), "", "{}", peer.name);
    }
    let log = node.log();
    assert!(
        log.matches("\"changes\"").count() + log.matches("result=changes").count() + log.matches("changes").count()
            >= 1,
        "{log}"
    );
}

#[test]
fn an_apex_alias_has_the_addresses_of_its_target() {
    let dir = tempfile::tempdir().unwrap();
    // Another node plays the resolver: it answers for the target's zone, with a CNAME on the way.
    let far = dir.path().join("far.zone");
    fs::write(&far, "$TTL 6\n@ SOA n h 1 2 3 4 5\n@ NS n\nn A 192.0.2.1\nlb CNAME real\nreal A 203.0.113.7\nreal A 203.0.113.8\nreal AAAA 2001:db8::7\nempty TXT x\n").unwrap();
    let config = |name: &str, zone: &str, file: &str, more: &str| {
        let path = dir.path().join(format!("{name}.toml"));
        let text = format!(
            "[node]\nname = \"{name}\"\nworkers = 1\n\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n{more}\n[[dns.zone]]\nname = \"{zone}\"\nfile = \"{file}\"\n"
        );
        fs::write(&path, text).unwrap();
        path
    };
    let resolver = Node::start(&config("far", "far.test.", "far.zone", ""));
    fs::write(
        dir.path().join("near.zone"),
        "$TTL 60\n@ SOA n h 1 2 3 4 5\n@ NS n\nn A 192.0.2.1\n@ ALIAS lb.far.test.\nnone ALIAS nope.far.test.\nno-data ALIAS empty.far.test.\nlost ALIAS lb.elsewhere.test.\n",
    )
    .unwrap();
    let near = Node::start(&config("near", "near.test.", "near.zone", &format!("resolver = \"{}\"\n", resolver.dns())));
    let port = near.dns().port();
    let sorted = |name: &str, rtype: &str| {
        let mut lines: Vec<String> = short(port, &[name, rtype]).lines().map(str::to_owned).collect();
        lines.sort();
        lines.join(" ")
    };
    eventually("the target's addresses", SOON, || {
        (sorted("near.test.", "A") == "203.0.113.7 203.0.113.8").then_some(())
    });
    assert_eq!(sorted("near.test.", "AAAA"), "2001:db8::7");
    assert_eq!(sorted("near.test.", "HTTPS"), "0 lb.far.test.");
    for name in ["none.near.test.", "no-data.near.test."] {
        let answer = eventually("an empty answer", SOON, || {
            let answer = dig(port, &["+norec", name, "A"]);
            answer.contains("NOERROR").then_some(answer)
        });
        assert!(answer.contains("ANSWER: 0") && answer.contains("SOA"), "{answer}");
    }
    assert!(
        dig(port, &["+norec", "lost.near.test.", "A"]).contains("SERVFAIL"),
        "nothing is known: not an empty answer"
    );
    // The target moves, and we follow within its TTL.
    fs::write(&far, "$TTL 6\n@ SOA n h 2 2 3 4 5\n@ NS n\nn A 192.0.2.1\nlb A 203.0.113.9\n").unwrap();
    resolver.signal("HUP");
    eventually("the new address", SOON, || (sorted("near.test.", "A") == "203.0.113.9").then_some(()));
    // A reload keeps what is known; a resolver that has gone takes nothing with it.
    drop(resolver);
    near.signal("HUP");
    eventually("the reload", SOON, || near.log().contains("in force").then_some(()));
    assert_eq!(sorted("near.test.", "A"), "203.0.113.9");
}
