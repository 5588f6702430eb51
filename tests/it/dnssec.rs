//! Signed zones before real validators: delv for every kind of answer, unbound as a resolver in front, and both through a
//! whole roll of the key.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Node, attempt, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
[node]
name = "signer"

[[datacenter]]
name = "a"
weight = 50
addresses = ["192.0.2.1", "2001:db8::1"]

[[datacenter]]
name = "b"
weight = 30
addresses = ["192.0.2.2", "2001:db8::2"]

[[datacenter]]
name = "c"
weight = 20
addresses = ["192.0.2.3"]

# Not probed, so always usable.
[[service]]
name = "edge"

[service.backends]
a = ["127.0.0.1:1"]
b = ["127.0.0.2:1"]
c = ["127.0.0.3:1"]

[dns]
listen = "127.0.0.1:0"

[[dns.zone]]
name = "t."
file = "t.zone"
dnssec = { keys = "keys", dnskey_ttl = "1s" }

[[dns.zone]]
name = "safe.t."
file = "child.zone"
dnssec = { keys = "keys" }

[[dns.zone]]
name = "plain.t."
file = "child.zone"

[[dns.steer]]
name = "www.t."
services = ["edge"]
policy = "weighted"

[[dns.steer]]
name = "four.t."
services = ["edge"]
policy = "failover"
datacenters = ["c"]
answers = 1
"#;

const ZONE: &str = r#"$TTL 5
@        SOA  ns Host.Master 1 3600 900 604800 5
@        NS   ns
@        MX   10 Mail
ns       A    127.0.0.1
host     A    192.0.2.10
host     A    192.0.2.11
host     AAAA 2001:db8::10
host     TXT  "text"
alias    CNAME Second
second   CNAME host
lost     CNAME nowhere
steered  CNAME www
_s._tcp  SRV  1 2 443 Host
svc      HTTPS 1 . alpn=h2
*.wild   TXT  "wild"
*.cwild  CNAME host
real.wild A   192.0.2.12
a.deep.down A 192.0.2.13
safe     NS   ns
plain    NS   ns
far      NS   ns.far
ns.far   A    192.0.2.99
"#;

const CHILD: &str = "$TTL 5\n@ SOA ns.t. host 1 3600 900 604800 5\n@ NS ns.t.\nwww A 192.0.2.20\n";

/// `springtide keys` on the keys of a test.
pub fn keys(dir: &Path, args: &[&str]) -> String {
    let folder = dir.join("keys");
    let output = springtide(&[&["keys"], args, &["--dir", folder.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes keys for `t.` and `safe.t.`, writes their zones, the DS of the second in the first, starts the node.
pub fn run(dir: &Path, algorithm: &str, config: &str, zone: &str, child: &str) -> Node {
    keys(dir, &["make", "t.", "--algorithm", algorithm]);
    keys(dir, &["make", "safe.t", "--algorithm", algorithm]);
    fs::write(dir.join("t.zone"), zone.to_owned() + &keys(dir, &["ds", "safe.t."])).unwrap();
    fs::write(dir.join("child.zone"), child).unwrap();
    fs::write(dir.join("t.toml"), config).unwrap();
    Node::start(&dir.join("t.toml"))
}

fn start(dir: &Path, algorithm: &str) -> Node {
    let mut zone = ZONE.to_owned();
    for i in 0..16 {
        zone += &format!("big TXT \"{i:0100}\"\n");
    }
    run(dir, algorithm, CONFIG, &zone, CHILD)
}

/// The state in a line of `keys list`: behind tag, algorithm (two words) and role.
fn state(line: &str) -> Option<&str> {
    line.split_whitespace().nth(4)
}

/// The key of `t.` that is in use, as delv takes it.
pub fn anchor(dir: &Path) -> String {
    let list = keys(dir, &["list", "t."]);
    let active = list.lines().find(|l| state(l) == Some("active")).unwrap();
    let tag: u32 = active.split_whitespace().next().unwrap().parse().unwrap();
    let file = fs::read_dir(dir.join("keys"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_str().unwrap().ends_with(&format!("+{tag:05}.key")))
        .unwrap();
    let text = fs::read_to_string(file).unwrap();
    let record = text.lines().find(|l| !l.starts_with(';')).unwrap();
    let words: Vec<&str> = record.split_whitespace().collect();
    let path = dir.join(format!("anchor-{tag}"));
    let key = format!("trust-anchors {{ t. static-key {} {} {} \"{}\"; }};", words[3], words[4], words[5], words[6]);
    fs::write(&path, key).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What delv says.
pub fn delv(server: SocketAddr, anchor: &str, more: &[&str], name: &str, rtype: &str) -> String {
    let (at, port) = (format!("@{}", server.ip()), server.port().to_string());
    let args = [&[&at, "-p", &port, "-a", anchor, "+root=t."], more, &[name, rtype]].concat();
    said(&attempt("delv", &args))
}

#[test]
fn delv_validates_every_kind_of_answer() {
    for algorithm in ["ecdsa-p256", "ed25519"] {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path(), algorithm);
        let anchor = anchor(dir.path());
        let ask = |more: &[&str], name: &str, rtype: &str| delv(node.dns(), &anchor, more, name, rtype);
        for (name, rtype, holds) in [
            ("t.", "SOA", "SOA"),
            ("t.", "NS", "ns.t."),
            ("t.", "MX", "10 Mail.t."),
            ("t.", "DNSKEY", "257 3"),
            ("t.", "CDS", "CDS"),
            ("t.", "CDNSKEY", "CDNSKEY"),
            ("host.t.", "A", "192.0.2.11"),
            ("hOsT.t.", "AAAA", "2001:db8::10"),
            ("alias.t.", "A", "192.0.2.10"),
            ("steered.t.", "HTTPS", "ipv4hint"),
            ("_s._tcp.t.", "SRV", "Host.t."),
            ("svc.t.", "HTTPS", "alpn"),
            ("q.wild.t.", "TXT", "wild"),
            ("p.q.wild.t.", "TXT", "wild"),
            ("q.cwild.t.", "AAAA", "2001:db8::10"),
            ("safe.t.", "DS", "DS"),
            ("www.safe.t.", "A", "192.0.2.20"),
            ("host.t.", "NSEC", "\\000.host.t."),
            ("big.t.", "TXT", "00015"),
        ] {
            let said = ask(&[], name, rtype);
            assert!(said.contains("; fully validated") && said.contains(holds), "{name} {rtype}: {said}");
        }
        for (name, rtype) in [
            ("nope.t.", "A"),
            ("a.b.nope.t.", "A"),
            ("host.t.", "MX"),
            ("deep.down.t.", "A"),
            ("q.wild.t.", "A"),
            ("real.wild.t.", "TXT"),
            ("www.t.", "TXT"),
            ("four.t.", "AAAA"),
            ("plain.t.", "DS"),
            ("far.t.", "DS"),
            ("nope.safe.t.", "A"),
            ("t.", "TXT"),
        ] {
            let said = ask(&[], name, rtype);
            assert!(said.contains("negative response, fully validated"), "{name} {rtype}: {said}");
        }
        let said = ask(&[], "www.plain.t.", "A");
        assert!(said.contains("; unsigned answer") && said.contains("192.0.2.20"), "an insecure zone: {said}");
        // Other clients get other datacenters: each set has its signature.
        let mut sets = std::collections::BTreeSet::new();
        for client in 1..12 {
            for (rtype, holds) in [("A", "192.0.2."), ("AAAA", "2001:db8::"), ("HTTPS", "ipv4hint")] {
                let said = ask(&["-b", &format!("127.0.{client}.1")], "www.t.", rtype);
                assert!(said.contains("; fully validated") && said.contains(holds), "{client} {rtype}: {said}");
                sets.insert(said.lines().filter(|l| l.contains("192.0.2.")).collect::<Vec<_>>().join("\n"));
            }
        }
        assert!(sets.len() > 3, "{sets:?}");
    }
}

/// unbound, validating, with the node for the zone.
pub struct Unbound {
    child: Child,
    port: u16,
}

impl Unbound {
    /// Starts it for `t.`, `safe.t.` and `plain.t.` of `server`, with the DS of `t.` as its anchor.
    pub fn start(dir: &Path, server: SocketAddr) -> Self {
        let ds = keys(dir, &["ds", "t."]);
        // Its port cannot be 0: one that is free now, and another if it is gone by then.
        eventually("unbound starts", SOON, || {
            let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let stub =
                |zone: &str| format!("stub-zone:\n name: {zone}\n stub-addr: {}@{}\n", server.ip(), server.port());
            let conf = format!(
                "server:\n interface: 127.0.0.1\n port: {port}\n username: \"\"\n chroot: \"\"\n directory: \"{0}\"\n \
                 pidfile: \"\"\n use-syslog: no\n logfile: \"\"\n do-daemonize: no\n do-not-query-localhost: no\n \
                 module-config: \"validator iterator\"\n trust-anchor: \"{1}\"\n val-log-level: 2\n num-threads: 1\n \
                 do-ip6: no\n qname-minimisation: no\nremote-control:\n control-enable: no\n{2}{3}{4}",
                dir.display(),
                ds.trim(),
                stub("t."),
                stub("safe.t."),
                stub("plain.t."),
            );
            let path = dir.join("unbound.conf");
            fs::write(&path, conf).unwrap();
            let log = fs::File::create(dir.join("unbound.log")).unwrap();
            let program = ["unbound", "/usr/sbin/unbound"].into_iter().find_map(|program| {
                Command::new(program)
                    .args(["-d", "-c"])
                    .arg(&path)
                    .stdout(Stdio::null())
                    .stderr(log.try_clone().unwrap())
                    .spawn()
                    .ok()
            });
            let mut child = program.expect("unbound is not here; `bash tests/run.sh` installs what the tests need");
            let up = || {
                let p = port.to_string();
                attempt("dig", &["@127.0.0.1", "-p", &p, "+time=1", "+tries=1", "t.", "SOA"]).status.success()
            };
            for _ in 0..10 {
                if child.try_wait().unwrap().is_some() {
                    return None;
                }
                if up() {
                    return Some(Self { child, port });
                }
            }
            child.kill().ok();
            child.wait().ok();
            None
        })
    }

    /// What dig hears from it.
    pub fn ask(&self, name: &str, rtype: &str) -> String {
        let port = self.port.to_string();
        client("dig", &["@127.0.0.1", "-p", &port, "+dnssec", "+time=5", name, rtype])
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The flags of an answer of dig.
pub fn flags(said: &str) -> Vec<&str> {
    let line = said.lines().find(|l| l.starts_with(";; flags:")).unwrap_or_default();
    line.trim_start_matches(";; flags:").split(';').next().unwrap_or_default().split_whitespace().collect()
}

#[test]
fn unbound_validates_what_it_resolves_through_us() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "ecdsa-p256");
    let unbound = Unbound::start(dir.path(), node.dns());
    for (name, rtype, answered) in [
        ("host.t.", "A", true),
        ("alias.t.", "AAAA", true),
        ("www.t.", "A", true),
        ("www.t.", "AAAA", true),
        ("www.t.", "HTTPS", true),
        ("steered.t.", "A", true),
        ("q.wild.t.", "TXT", true),
        ("q.cwild.t.", "A", true),
        ("t.", "DNSKEY", true),
        ("t.", "CDS", true),
        ("big.t.", "TXT", true),
        ("safe.t.", "DS", true),
        ("www.safe.t.", "A", true),
        ("nope.t.", "A", false),
        ("a.b.nope.t.", "TXT", false),
        ("host.t.", "MX", false),
        ("deep.down.t.", "A", false),
        ("q.wild.t.", "A", false),
        ("four.t.", "AAAA", false),
        ("plain.t.", "DS", false),
        ("nope.safe.t.", "A", false),
    ] {
        let said = unbound.ask(name, rtype);
        assert!(said.contains("status: NOERROR") && flags(&said).contains(&"ad"), "{name} {rtype}: {said}");
        assert_eq!(said.contains("ANSWER: 0,"), !answered, "{name} {rtype}: {said}");
    }
    let lost = unbound.ask("lost.t.", "A");
    assert!(lost.contains("status: NOERROR") && flags(&lost).contains(&"ad"), "{lost}");
    let insecure = unbound.ask("www.plain.t.", "A");
    assert!(insecure.contains("192.0.2.20") && !flags(&insecure).contains(&"ad"), "{insecure}");
}

#[test]
fn a_key_is_rolled_before_the_eyes_of_validators() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "ecdsa-p256");
    let old = anchor(dir.path());
    let quick = ["roll", "t.", "--dnskey-ttl", "1s", "--max-ttl", "5s", "--parent-ttl", "1s", "--margin", "1s"];
    let validates = |anchor: &str, when: &str| {
        for (name, rtype) in [("host.t.", "A"), ("www.t.", "A"), ("nope.t.", "A"), ("t.", "DNSKEY")] {
            let said = delv(node.dns(), anchor, &[], name, rtype);
            assert!(said.contains("fully validated"), "{when}: {name} {rtype}: {said}");
        }
    };
    let reload = |lines: usize| {
        node.signal("HUP");
        eventually("the reload", SOON, || (node.log().matches("is in force").count() >= lines).then_some(()));
    };
    validates(&old, "before");
    let told = keys(dir.path(), &quick);
    assert!(told.contains("give the parent the new key's DS"), "{told}");
    reload(1);
    validates(&old, "the new key is published");
    let unbound = Unbound::start(dir.path(), node.dns());
    // Too early is refused, until it is not.
    let done = eventually("the parent may have the DS", SOON, || {
        let folder = dir.path().join("keys");
        let args = [&["keys"], &quick[..], &["--parent-has-ds", "--dir", folder.to_str().unwrap()]].concat();
        let output = springtide(&args);
        validates(&old, "the new key waits");
        output.status.success().then(|| said(&output))
    });
    assert!(done.contains("the new key takes over by itself"), "{done}");
    reload(2);
    validates(&old, "the new key is to take over");
    let new = eventually("the new key is in use", SOON, || {
        validates(&old, "in between");
        let now = anchor(dir.path());
        (now != old).then_some(now)
    });
    validates(&new, "by the new key");
    let said = unbound.ask("host.t.", "A");
    assert!(flags(&said).contains(&"ad"), "who trusts the old key only still may: {said}");
    eventually("the old key leaves", SOON, || {
        validates(&new, "the old key leaves");
        keys(dir.path(), &["list", "t."]).lines().any(|l| state(l) == Some("gone")).then_some(())
    });
    validates(&new, "the old key has left");
    let keyset = delv(node.dns(), &new, &[], "t.", "DNSKEY");
    assert_eq!(keyset.matches("key id =").count(), 1, "{keyset}");
}

#[test]
fn bad_keys_are_refused_and_the_old_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "ed25519");
    let anchor = anchor(dir.path());
    let folder = dir.path().join("keys");
    let private = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.file_name().unwrap().to_str().unwrap().starts_with("Kt.") && p.extension().unwrap() == "private")
        .unwrap();
    fs::write(&private, "Private-key-format: v1.3\n").unwrap();
    let check = springtide(&["check", dir.path().join("t.toml").to_str().unwrap()]);
    assert!(!check.status.success());
    assert!(said(&check).contains("zone t. cannot be signed:") && said(&check).contains("`Algorithm:` is missing"));
    node.signal("HUP");
    eventually("the refusal", SOON, || node.log().contains("zone t. cannot be signed").then_some(()));
    let host = delv(node.dns(), &anchor, &[], "host.t.", "A");
    assert!(host.contains("fully validated"), "{host}");
}
