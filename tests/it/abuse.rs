//! HTTP/2 floods at a real node with h2load beside them: its requests are all answered, and operators are told who floods.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::support::{Node, Origin, client, eventually};

/// Requests of h2load; as many on each of its two connections as one has, nearly: it does not come back for more.
const REQUESTS: usize = 18_000;

/// Opens a stream and resets it, again and again on one connection after the other; counts those that were cut.
fn reset_rapidly(address: SocketAddr, is_over: &AtomicBool, cut: &AtomicUsize) {
    while !is_over.load(Relaxed) {
        let Ok(mut tcp) = TcpStream::connect(address) else { continue };
        tcp.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for stream in (1u32..).step_by(2) {
            let id = stream.to_be_bytes();
            octets.extend([&[0, 0, 6, 1, 5][..], &id, &[0x82, 0x84, 0x86, 0x41, 1, b'a']].concat());
            octets.extend([&[0, 0, 4, 3, 0][..], &id, &[0, 0, 0, 8]].concat());
            if stream % 20 == 1 {
                let is_refused = tcp.write_all(&octets).is_err();
                octets.clear();
                if is_refused || tcp.read(&mut [0; 4_096]).is_ok_and(|n| n == 0) {
                    cut.fetch_add(1, Relaxed);
                    break;
                }
            }
            if is_over.load(Relaxed) {
                break;
            }
        }
    }
}

#[test]
fn h2load_goes_on_beside_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    let origin = Origin::start("hello");
    let path = dir.path().join("edge.toml");
    let text = format!(
        "[node]\nname = \"edge\"\nworkers = 1\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [[datacenter]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\n\
         [[service]]\nname = \"web\"\nbackends.here = [\"{}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nservice = \"web\"\n",
        origin.address
    );
    std::fs::write(&path, text).unwrap();
    let node = Node::start(&path);
    let address = node.http("public");
    let (is_over, cut) = (AtomicBool::new(false), AtomicUsize::new(0));
    let said = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| reset_rapidly(address, &is_over, &cut));
        }
        eventually("a flood is cut", Duration::from_secs(30), || (cut.load(Relaxed) > 0).then_some(()));
        let (requests, target) = (REQUESTS.to_string(), format!("http://{address}/"));
        let said = client("h2load", &["-n", &requests, "-c", "2", "-m", "100", &target]);
        is_over.store(true, Relaxed);
        said
    });
    assert!(said.contains(&format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout")), "{said}");
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    let counted = |line: &str| metrics.lines().any(|l| l.starts_with(line) && !l.ends_with(" 0"));
    assert!(counted("springtide_proxy_http2_glitches_total{kind=\"reset\"}"), "{metrics}");
    assert!(node.log().is_empty() || !node.log().contains("panicked"), "{}", node.log());
}
