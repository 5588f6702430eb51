//! A zone file that is broken while it is served: the old zone goes on, the operator is told what, where and what to do, and
//! a mended file is taken. Nobody who asks meanwhile is left without an answer.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::floods::query;
use crate::support::{Node, attempt, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "www.zones.test.";

fn zone(serial: u32, more: &str) -> String {
    format!("$TTL 60\n@ SOA ns h {serial} 3600 900 604800 60\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.{serial}\n{more}")
}

fn node(dir: &Path) -> Node {
    fs::write(dir.join("zones.zone"), zone(1, "")).unwrap();
    fs::write(dir.join("other.zone"), zone(1, "")).unwrap();
    let text = "[node]\nname = \"n1\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[dns]\nlisten = \"127.0.0.1:0\"\n\
                threads = 1\n[[dns.zone]]\nname = \"zones.test.\"\nfile = \"zones.zone\"\n\
                [[dns.zone]]\nname = \"other.test.\"\nfile = \"other.zone\"\n";
    fs::write(dir.join("zones.toml"), text).unwrap();
    Node::start(&dir.join("zones.toml"))
}

fn dig(node: &Node, args: &[&str]) -> String {
    let port = node.dns().port().to_string();
    client("dig", &[&["@127.0.0.1", "-p", &port, "+short", "+norec", "+time=5", "+tries=1"], args].concat())
}

/// Asks without a pause until it is stopped: how often, and how often nothing came, or something that is no answer.
fn ask_on(server: SocketAddr, stop: &AtomicBool) -> (u32, u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut asked, mut lost, mut buffer) = (0, 0, [0; 512]);
    while !stop.load(Ordering::Relaxed) {
        asked += 1;
        socket.send(&query(NAME, asked as u16)).unwrap();
        // One answer to each question: NOERROR, one record.
        let is_answered = socket.recv(&mut buffer).is_ok_and(|n| {
            n > 12 && buffer[..2] == (asked as u16).to_be_bytes() && buffer[3] & 15 == 0 && buffer[7] == 1
        });
        lost += u32::from(!is_answered);
    }
    (asked, lost)
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_with_line_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(dir.path());
    let (file, admin) = (dir.path().join("zones.zone"), node.admin().to_string());
    let stop = Arc::new(AtomicBool::new(false));
    let (server, runs) = (node.dns(), Arc::clone(&stop));
    let asking = std::thread::spawn(move || ask_on(server, &runs));
    let is_old = || {
        assert_eq!(dig(&node, &[NAME, "A"]), "192.0.2.1\n");
        assert!(dig(&node, &["zones.test.", "SOA"]).contains(" 1 3600 "), "the old serial");
    };
    // What is wrong in one file is told whole; and what is right in the other waits with it.
    let broken = "far A 192.0.2.300\ntwo CNAME www\ntwo TXT \"beside\"\nout.example. A 192.0.2.9\n";
    let told = [
        "zones.zone:6: ",
        "192.0.2.300",
        "zones.zone:7: ",
        "a CNAME stands alone",
        "zones.zone:9: ",
        "put it into its own",
    ];
    fs::write(&file, zone(2, broken)).unwrap();
    fs::write(dir.path().join("other.zone"), zone(2, "")).unwrap();
    node.signal("HUP");
    eventually("the log tells of it", SOON, || node.log().contains("zone zones.test. cannot be served").then_some(()));
    let log = node.log();
    for part in told {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(log.contains("refused, the old one stays in force"), "{log}");
    is_old();
    assert_eq!(dig(&node, &["www.other.test.", "A"]), "192.0.2.1\n", "whole or not at all");
    let status = || said(&springtide(&["status", "--admin", &admin]));
    let gauge = || {
        let metrics = client("curl", &["-sS", &format!("http://{admin}/metrics")]);
        metrics.lines().find_map(|l| l.strip_prefix("springtide_control_reload_refused ").map(str::to_owned))
    };
    // Who comes later sees it too.
    let shown = status();
    assert!(shown.contains("the last reload was refused") && told.iter().all(|part| shown.contains(part)), "{shown}");
    assert_eq!(gauge().as_deref(), Some("1"));
    // Who reloads by hand is told the same at once, and so is who checks before.
    let config = dir.path().join("zones.toml");
    for args in [&["reload", "--admin", &admin][..], &["check", config.to_str().unwrap()]] {
        let refused = springtide(args);
        assert!(!refused.status.success());
        for part in told {
            assert!(said(&refused).contains(part), "{args:?}: {part} in {}", said(&refused));
        }
    }
    is_old();
    // No file at all, one that is no text, and one that is cut in the middle.
    fs::remove_file(&file).unwrap();
    let refused = said(&springtide(&["reload", "--admin", &admin]));
    assert!(refused.contains("there is no file"), "{refused}");
    let cut = zone(3, "");
    for octets in [&[0xff, 0, 0x80, b'\n'][..], &cut.as_bytes()[..40]] {
        fs::write(&file, octets).unwrap();
        let refused = said(&springtide(&["reload", "--admin", &admin]));
        assert!(refused.contains("zones.zone"), "{refused}");
        is_old();
    }
    // Mended.
    fs::write(&file, zone(4, "new TXT \"mended\"\n")).unwrap();
    node.signal("HUP");
    eventually("the mended zone", SOON, || (dig(&node, &[NAME, "A"]) == "192.0.2.4\n").then_some(()));
    assert_eq!(dig(&node, &["new.zones.test.", "TXT"]), "\"mended\"\n");
    assert_eq!(dig(&node, &["www.other.test.", "A"]), "192.0.2.2\n");
    assert!(!status().contains("refused"), "{}", status());
    assert_eq!(gauge().as_deref(), Some("0"));
    stop.store(true, Ordering::Relaxed);
    let (asked, lost) = asking.join().unwrap();
    assert!(asked > 100 && lost == 0, "{lost} of {asked} lost");
    // A node that has nothing older to serve does not start on it.
    fs::write(&file, zone(5, broken)).unwrap();
    let refused = attempt(crate::support::binary().to_str().unwrap(), &["run", "-c", config.to_str().unwrap()]);
    assert!(!refused.status.success() && said(&refused).contains("zones.zone:6: "), "{}", said(&refused));
}
