//! The name server over every transport, asked by real clients; and by clients that stall, lie and flood.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Node, attempt, client, eventually, said};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "host.example.test";
/// What every client has to hear.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Writes a certificate for `ns1.example.test`, a zone, and a configuration with every transport.
fn write(dir: &Path, dns: &str) {
    write_certificate(dir);
    let zone = "$TTL 300\n@ 3600 IN SOA ns1 hostmaster 1 3600 900 604800 60\n@ NS ns1\nns1 A 192.0.2.53\n\
                host A 192.0.2.1\nhost A 192.0.2.2\n";
    fs::write(dir.join("example.test.zone"), zone).unwrap();
    let secure = "listen = \"127.0.0.1:0\", cert = \"ns.pem\", key = \"ns.key\"";
    let text = format!(
        "[node]\nname = \"n1\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[dns]\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ {secure} }}\nhttps = {{ {secure} }}\nquic = {{ {secure} }}\n{dns}\n\
         [[dns.zone]]\nname = \"example.test.\"\nfile = \"example.test.zone\"\n"
    );
    fs::write(dir.join("node.toml"), text).unwrap();
}

fn write_certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["ns1.example.test".to_owned()]).unwrap();
    fs::write(dir.join("ns.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("ns.key"), made.signing_key.serialize_pem()).unwrap();
}

fn node(dir: &Path, dns: &str) -> Node {
    write(dir, dns);
    Node::start(&dir.join("node.toml"))
}

/// The first address of one of the ways to the name server.
fn way(node: &Node, way: &str) -> SocketAddr {
    node.ready[way][0].as_str().unwrap().parse().unwrap()
}

#[test]
fn dig_and_kdig_hear_the_same_over_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let ca = format!("+tls-ca={}", dir.path().join("ns.pem").display());
    let asked: [(&str, &str, &[&str]); 13] = [
        ("dig", "dns", &[]),
        ("dig", "dns", &["+tcp"]),
        ("dig", "dns_tls", &["+tls"]),
        ("dig", "dns_https", &["+https"]),
        ("dig", "dns_https", &["+https-get"]),
        ("kdig", "dns", &["+tcp"]),
        ("kdig", "dns", &["+tcp", "+keepopen"]),
        ("kdig", "dns_tls", &["+tls"]),
        ("kdig", "dns_tls", &[&ca, "+tls-hostname=ns1.example.test"]),
        ("kdig", "dns_https", &["+https"]),
        ("kdig", "dns_https", &["+https", "+https-get"]),
        ("kdig", "dns_https", &["+https=ns1.example.test/dns-query", &ca, "+tls-hostname=ns1.example.test"]),
        ("kdig", "dns_quic", &["+quic"]),
    ];
    for (program, to, how) in asked {
        let port = way(&node, to).port().to_string();
        let mut args = vec!["@127.0.0.1", "-p", &port, NAME, "A", "+short", "+tries=1", "+timeout=5"];
        args.retain(|arg| program == "dig" || *arg != "+tries=1");
        args.extend(how);
        let mut heard: Vec<String> = client(program, &args).lines().map(|l| l.trim().to_owned()).collect();
        heard.sort();
        assert_eq!(heard, ADDRESSES, "{program} {args:?}");
    }
    let wrong = way(&node, "dns_tls").port().to_string();
    let wrong = attempt("kdig", &["@127.0.0.1", "-p", &wrong, &ca, "+tls-hostname=other.test", NAME, "+retry=0"]);
    assert!(!said(&wrong).contains(ADDRESSES[0]), "a client that verifies does not take another name's certificate");
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    for transport in ["udp", "tcp", "tls", "https", "quic"] {
        let counted = format!("springtide_dns_queries_total{{transport=\"{transport}\"}}");
        assert!(metrics.contains(&counted), "{counted} in {metrics}");
    }
}

#[test]
fn curl_asks_over_both_versions_of_http_and_is_told_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let (ca, query) = (dir.path().join("ns.pem"), dir.path().join("query"));
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(b"\x04host\x07example\x04test\0\0\x01\0\x01");
    fs::write(&query, message).unwrap();
    let port = way(&node, "dns_https").port();
    let url = format!("https://ns1.example.test:{port}/dns-query");
    let resolve = format!("ns1.example.test:{port}:127.0.0.1");
    let ask = |args: &[&str]| {
        let mut all = vec!["-sS", "-i", "-m", "10", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve];
        all.extend(args);
        said(&attempt("curl", &all)).to_lowercase()
    };
    let body = format!("@{}", query.display());
    let message = "content-type: application/dns-message";
    for (version, line) in [("--http1.1", "http/1.1 200"), ("--http2", "http/2 200")] {
        let heard = ask(&[version, "-H", message, "--data-binary", &body, &url]);
        for needle in [line, message, "cache-control: max-age=300", "content-length: "] {
            assert!(heard.contains(needle), "{version}: {needle} in {heard}");
        }
    }
    let get = format!("{url}?dns=AAABAAABAAAAAAAABGhvc3QHZXhhbXBsZQR0ZXN0AAABAAE");
    assert!(ask(&[&get]).contains("http/2 200"), "{get}");
    let cases: [(&str, &[&str]); 5] = [
        ("http/2 415", &["-H", "content-type: text/plain", "--data-binary", &body, &url]),
        ("http/2 400", &[&url]),
        ("http/2 400", &["-H", message, "--data-binary", "short", &url]),
        ("http/2 405", &["-X", "DELETE", &url]),
        ("http/2 404", &[&url.replace("dns-query", "")]),
    ];
    for (status, args) in cases {
        let heard = ask(args);
        assert!(heard.contains(status), "{args:?}: {heard}");
    }
}

#[test]
fn openssl_resumes_and_sees_a_new_certificate_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "");
    let (address, session) = (way(&node, "dns_tls").to_string(), dir.path().join("session"));
    let session = session.to_str().unwrap();
    let shake = |args: &[&str]| {
        let all =
            [&["s_client", "-connect", &address, "-alpn", "dot", "-servername", "ns1.example.test"], args].concat();
        said(&attempt("openssl", &all))
    };
    // Without input it ends at once, with or without the ticket that comes behind the handshake.
    let first = eventually("a session is kept", SOON, || {
        let first = shake(&["-sess_out", session]);
        Path::new(session).exists().then_some(first)
    });
    assert!(first.contains("ALPN protocol: dot") && first.contains("New, TLSv1.3"), "{first}");
    let again = shake(&["-sess_in", session]);
    assert!(again.contains("Reused, TLSv1.3"), "{again}");
    assert!(shake(&["-tls1_2"]).contains("TLSv1.2"), "TLS 1.2 is spoken too");
    assert!(!shake(&["-tls1_1"]).contains("ALPN protocol: dot"), "and nothing older");
    let own = |said: &str| {
        let (_, rest) = said.split_once("BEGIN CERTIFICATE")?;
        rest.split_once("END CERTIFICATE").map(|(own, _)| own.to_owned())
    };
    let before = own(&first);
    assert!(before.is_some());
    write_certificate(dir.path());
    node.signal("HUP");
    eventually("the new certificate is shown", SOON, || (own(&shake(&[])) != before).then_some(()));
    fs::write(dir.path().join("ns.key"), "nonsense").unwrap();
    let after = own(&shake(&[]));
    node.signal("HUP");
    eventually("the refusal is logged", SOON, || node.log().contains("ns.key").then_some(()));
    assert_eq!(own(&shake(&[])), after, "the old one stays");
}

/// Whether the server closes `stream` within `limit`, whatever it says before.
fn is_closed(stream: &mut TcpStream, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 4_096];
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }
    false
}

#[test]
fn clients_that_stall_are_let_go_and_others_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "tcp = { idle = \"2s\", handshake = \"1s\" }");
    let (tcp, tls) = (way(&node, "dns"), way(&node, "dns_tls"));
    let open = |to: SocketAddr, says: &[u8]| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(says).unwrap();
        stream
    };
    let mut stalling = vec![
        ("silent", open(tcp, b"")),
        ("half a length", open(tcp, b"\0")),
        ("half a query", open(tcp, b"\0\x20\0\0\x01\0\0\x01")),
        ("silent before TLS", open(tls, b"")),
        ("half a handshake", open(tls, b"\x16\x03\x01\x02\0\x01\0")),
        ("garbage for TLS", open(tls, b"GET / HTTP/1.0\r\n\r\n")),
        ("silent before HTTPS", open(way(&node, "dns_https"), b"")),
    ];
    let port = tcp.port().to_string();
    let asked = client("dig", &["@127.0.0.1", "-p", &port, "+tcp", NAME, "+short"]);
    assert!(asked.contains(ADDRESSES[0]), "{asked}");
    for (what, stream) in &mut stalling {
        assert!(is_closed(stream, SOON), "{what}");
    }
    eventually("how they ended is counted", SOON, || {
        let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
        let counted = |transport: &str, reason: &str, n: u32| {
            metrics
                .contains(&format!("springtide_dns_closed_total{{transport=\"{transport}\",reason=\"{reason}\"}} {n}"))
        };
        (counted("tcp", "idle", 3) && counted("tls", "handshake", 3) && counted("https", "handshake", 1)).then_some(())
    });
}

#[test]
fn options_are_answered_where_they_have_a_meaning() {
    const COOKIE: &str = "2464c4abcf10c957";
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "tcp = { idle = \"2s\" }");
    // How long an idle connection stands is told to who asks over one (RFC 7828 section 3.2.2), and to nobody else; who the
    // node is and the client's cookie to everybody.
    let asked: [(&str, &[&str], bool); 4] = [
        ("dns", &[], false),
        ("dns", &["+tcp"], true),
        ("dns_tls", &["+tls"], true),
        ("dns_https", &["+https"], false),
    ];
    for (to, how, has_idle) in asked {
        let port = way(&node, to).port().to_string();
        let cookie = format!("+cookie={COOKIE}");
        let args = ["@127.0.0.1", "-p", &port, NAME, "A", "+tries=1", "+timeout=5", "+nsid", "+keepalive", &cookie];
        let heard = client("dig", &[&args, how].concat());
        assert!(heard.contains("NSID: 6e 31 (\"n1\")"), "{how:?}: {heard}");
        assert!(heard.contains(&format!("COOKIE: {COOKIE}01000000")) && heard.contains("(good)"), "{how:?}: {heard}");
        assert_eq!(heard.contains("TCP KEEPALIVE: 2.0 secs"), has_idle, "{how:?}: {heard}");
        // Not asked, not told.
        let bare = ["@127.0.0.1", "-p", &port, NAME, "A", "+tries=1", "+timeout=5", "+nocookie"];
        let heard = client("dig", &[&bare, how].concat());
        for option in ["NSID", "COOKIE", "KEEPALIVE"] {
            assert!(!heard.contains(option), "{how:?}: {heard}");
        }
    }
    for (to, how) in [("dns", &["+tcp"][..]), ("dns_tls", &["+tls"])] {
        let port = way(&node, to).port().to_string();
        let args = ["@127.0.0.1", "-p", &port, NAME, "+nsid", "+ednsopt=11", "+cookie=2464c4abcf10c957"];
        let heard = client("kdig", &[&args, how].concat());
        for part in ["\"n1\"", "Option (11): 0014", "COOKIE: 2464C4ABCF10C95701000000"] {
            assert!(heard.contains(part), "{how:?}: {part} in {heard}");
        }
    }
    // What is told is kept: the connection stands that long after a query, and no longer.
    let mut stream = TcpStream::connect(way(&node, "dns")).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut query = b"\0\0\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x04host\x07example\x04test\0\0\x01\0\x01".to_vec();
    query.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x04\0\x0b\0\0");
    query[1] = query.len() as u8 - 2;
    let asked = Instant::now();
    stream.write_all(&query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    assert!(message.ends_with(b"\0\x0b\0\x02\0\x14"), "twenty tenths of a second: {message:?}");
    assert!(is_closed(&mut stream, SOON));
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "{:?}", asked.elapsed());
}

#[test]
fn two_thousand_idle_connections_lock_nobody_out() {
    springtide::net::sys::raise_descriptor_limit().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "tcp = { connections = 256, per_client = 256, idle = \"1h\" }");
    let (tcp, tls) = (way(&node, "dns"), way(&node, "dns_tls"));
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.extend([TcpStream::connect(tcp).unwrap(), TcpStream::connect(tls).unwrap()]);
    }
    for (to, how) in [(tcp, "+tcp"), (tls, "+tls")] {
        let port = to.port().to_string();
        for _ in 0..5 {
            let heard = client("dig", &["@127.0.0.1", "-p", &port, how, NAME, "+short", "+tries=1", "+timeout=5"]);
            assert!(heard.contains(ADDRESSES[0]), "{how}: {heard}");
        }
    }
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    let gauge = metrics.lines().find(|l| l.starts_with("springtide_dns_connections{transport=\"tcp\"}")).unwrap();
    let open: f64 = gauge.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(open <= 256.0, "{gauge}");
    drop(idle);
}

#[test]
fn a_balancer_says_for_whom_it_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path(), "proxy_protocol = { trusted = [\"127.0.0.1/32\"] }");
    let query = b"\0\x23\0\x07\x01\0\0\x01\0\0\0\0\0\0\x04host\x07example\x04test\0\0\x01\0\x01";
    let headers: [&[u8]; 3] = [
        b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 53\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x9c\x40\0\x35",
    ];
    for header in headers {
        let mut stream = TcpStream::connect(way(&node, "dns")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[header, query].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut message).unwrap();
        assert_eq!((message[1], message[7]), (7, 2), "two answers");
    }
    let mut bare = TcpStream::connect(way(&node, "dns")).unwrap();
    bare.write_all(query).unwrap();
    assert!(is_closed(&mut bare, SOON), "without the header it is not served");
}
