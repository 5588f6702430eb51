//! Cookies, extended errors, limits, the busiest and the query log, as dig and kdig see them.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::floods::query;
use crate::support::{Node, client, eventually, said, springtide};

/// A name of the zone.
pub const NAME: &str = "www.guard.test.";
const SOON: Duration = Duration::from_secs(20);
const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

/// A node with a name server of one zone, and `more` in its `[dns]`.
pub fn named(dir: &Path, more: &str) -> PathBuf {
    let path = dir.join("guard.toml");
    fs::write(
        dir.join("guard.zone"),
        "@ 300 SOA ns h 1 3600 900 604800 60\n@ 300 NS ns\nns 300 A 192.0.2.1\nwww 300 A 192.0.2.2\n",
    )
    .unwrap();
    let text = format!(
        "[node]\nname = \"guard-1\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\n{more}\
         [[dns.zone]]\nname = \"guard.test.\"\nfile = \"guard.zone\"\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn dig(address: SocketAddr, args: &[&str]) -> String {
    let (server, port) = (format!("@{}", address.ip()), address.port().to_string());
    client("dig", &[&["+time=5", "+tries=1", &server, "-p", &port], args].concat())
}

/// The cookie that dig shows in an answer.
fn cookie(said: &str) -> String {
    let line = said.lines().find_map(|l| l.strip_prefix("; COOKIE: ")).unwrap_or_else(|| panic!("no cookie: {said}"));
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn dig_gets_cookies_that_a_fleet_shares_and_that_are_rolled_by_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = named(dir.path(), "cookies = { key_file = \"cookies.keys\", require = true }\n");
    let keys = dir.path().join("cookies.keys");
    fs::write(&keys, format!("{SECRET}\n")).unwrap();
    let (one, two) = (Node::start(&path), Node::start(&path));
    let bare = dig(one.dns(), &["+cookie=2464c4abcf10c957", "+nobadcookie", NAME]);
    assert!(bare.contains("status: BADCOOKIE"), "{bare}");
    // By itself dig comes again with the cookie that it got, and is answered.
    let answered = dig(one.dns(), &["+cookie=2464c4abcf10c957", NAME]);
    assert!(answered.contains("status: NOERROR") && answered.contains("(good)"), "{answered}");
    let mine = cookie(&answered);
    assert!(mine.starts_with("2464c4abcf10c95701000000") && mine.len() == 48, "{mine}");
    let over = dig(two.dns(), &[&format!("+cookie={mine}"), "+nobadcookie", NAME]);
    assert!(over.contains("status: NOERROR") && cookie(&over) == mine, "another node of the fleet knows it: {over}");
    let broken = dig(one.dns(), &["+ednsopt=10:010203", "+nocookie", NAME]);
    assert!(broken.contains("status: FORMERR") && broken.contains("EDE: 0"), "{broken}");
    // A new secret in front: what the old one made is still good, and is replaced.
    fs::write(&keys, format!("445536bcd2513298075a5d379663c962\n{SECRET}\n")).unwrap();
    one.signal("HUP");
    eventually("the new secret makes cookies", SOON, || {
        let said = dig(one.dns(), &[&format!("+cookie={mine}"), "+nobadcookie", NAME]);
        assert!(said.contains("status: NOERROR"), "{said}");
        (cookie(&said) != mine).then_some(())
    });
    // A file that is none: the old secrets stay, loudly.
    fs::write(&keys, "not a secret\n").unwrap();
    one.signal("HUP");
    eventually("the refusal is logged", SOON, || one.log().contains("line 1 is no secret").then_some(()));
    assert!(dig(one.dns(), &[&format!("+cookie={mine}"), "+nobadcookie", NAME]).contains("status: NOERROR"));
}

#[test]
fn refusals_carry_their_reason_and_the_node_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(&named(dir.path(), "udp_size = 1400\n"));
    let refused = dig(node.dns(), &["elsewhere.test."]);
    assert!(refused.contains("status: REFUSED") && refused.contains("EDE: 20 (Not Authoritative)"), "{refused}");
    let port = node.dns().port().to_string();
    let kdig = client("kdig", &["@127.0.0.1", "-p", &port, "+nsid", "+edns", NAME]);
    assert!(kdig.contains("guard-1") && kdig.contains("UDP size: 1400 B") && kdig.contains("192.0.2.2"), "{kdig}");
    let version = dig(node.dns(), &["+edns=1", "+noednsnegotiation", NAME]);
    assert!(version.contains("status: BADVERS"), "{version}");
}

#[test]
fn limits_are_seen_by_who_is_limited_and_by_who_looks() {
    let dir = tempfile::tempdir().unwrap();
    let more = "rate_limit = { per_prefix = \"5 rps\" }\nlog = { sample = \"1/1\", file = \"queries.log\" }\n";
    let node = Node::start(&named(dir.path(), more));
    let socket = UdpSocket::bind("127.9.9.9:0").unwrap();
    socket.connect(node.dns()).unwrap();
    for id in 0..200 {
        socket.send(&query(NAME, id)).unwrap();
    }
    // Over TCP nobody is limited, nor over UDP with a cookie: dig comes again with the one that it gets.
    assert!(dig(node.dns(), &["+tcp", "-b", "127.9.9.9", NAME]).contains("192.0.2.2"));
    let admin = node.admin().to_string();
    let top = eventually("top shows the name and the network", SOON, || {
        let top = said(&springtide(&["dns", "top", "--once", "--admin", &admin]));
        (top.contains(NAME) && top.contains("127.9.9.0") && top.contains("dropped")).then_some(top)
    });
    assert!(top.contains("queries a second") && top.contains("AT LEAST"), "{top}");
    let json: serde_json::Value =
        serde_json::from_str(&said(&springtide(&["dns", "top", "--json", "--admin", &admin]))).unwrap();
    assert_eq!(json["names"][0]["name"], NAME, "{json}");
    let log = dir.path().join("queries.log");
    let lines = eventually("the log has what was sent", SOON, || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        (text.contains("\"limited\":\"truncated\"") && text.contains("\"transport\":\"tcp\"")).then_some(text)
    });
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["name"], NAME, "{line}");
    }
    let metrics = client("curl", &["-sS", &format!("http://{admin}/metrics")]);
    for needle in [
        "springtide_dns_zone_responses_total{zone=\"guard.test.\",rcode=\"noerror\"}",
        "springtide_dns_types_total{type=\"A\"}",
        "springtide_dns_log_lines_total{outcome=\"written\"}",
    ] {
        assert!(metrics.contains(needle), "{needle} in {metrics}");
    }
}
