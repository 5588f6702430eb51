//! One node: every shipped configuration boots, reloads are whole or not at all, a drain loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Node, Origin, attempt, client, eventually, root, said, springtide};

const SOON: Duration = Duration::from_secs(20);

/// A copy of `configs/NAME` that listens on ports of the system's choice.
fn on_free_ports(name: &str, dir: &Path) -> PathBuf {
    let text = fs::read_to_string(root().join("configs").join(name)).unwrap();
    let mut out = String::new();
    for line in text.lines() {
        let listens = line.trim_start().starts_with("listen") || line.contains("tls = { listen");
        let line = if listens { port_zero(line) } else { line.to_owned() };
        out += &(line + "\n");
    }
    fs::create_dir_all(dir.join("zones")).unwrap();
    for entry in fs::read_dir(root().join("configs/zones")).into_iter().flatten().flatten() {
        fs::copy(entry.path(), dir.join("zones").join(entry.file_name())).unwrap();
    }
    let path = dir.join(name);
    fs::write(&path, out).unwrap();
    path
}

fn port_zero(line: &str) -> String {
    let mut out = String::new();
    for part in line.split_inclusive(':') {
        let digits = part.chars().take_while(char::is_ascii_digit).count();
        let is_port = out.ends_with(':') && digits > 0 && part[digits..].starts_with('"');
        if is_port {
            out.push('0');
        }
        out += if is_port { &part[digits..] } else { part };
    }
    out
}

#[test]
fn every_shipped_configuration_checks_and_boots() {
    let configs: Vec<String> = fs::read_dir(root().join("configs"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".toml"))
        .collect();
    assert!(configs.len() >= 4, "{configs:?}");
    for name in configs {
        let dir = tempfile::tempdir().unwrap();
        let path = on_free_ports(&name, dir.path());
        let check = springtide(&["check", path.to_str().unwrap()]);
        assert!(check.status.success(), "{name}: {}", said(&check));
        let mut node = Node::start(&path);
        node.signal("TERM");
        assert!(node.ended(SOON).success(), "{name}");
    }
}

fn write_config(path: &Path, origin: &Origin, extra: &str) {
    let text = format!(
        "[node]\nname = \"n1\"\nworkers = 1\ndatacenter = \"here\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [[datacenter]]\nname = \"here\"\nweight = 1\naddresses = [\"192.0.2.1\"]\n\n\
         [[service]]\nname = \"web\"\nprobe = {{ tcp = true }}\nbackends.here = [\"{}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n{extra}",
        origin.address
    );
    fs::write(path, text).unwrap();
}

#[test]
fn a_reload_takes_effect_and_a_bad_one_changes_nothing() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    write_config(&path, &one, "");
    let node = Node::start(&path);
    let url = format!("http://{}/", node.http("public"));
    assert_eq!(client("curl", &["-sS", &url]), "one");

    write_config(&path, &two, "");
    node.signal("HUP");
    eventually("the new backend answers", SOON, || (client("curl", &["-sS", &url]) == "two").then_some(()));

    write_config(&path, &one, "\n[[service]]\nname = \"web2\"\nbalanse = \"p2c\"\n");
    node.signal("HUP");
    eventually("the refusal is logged", SOON, || node.log().contains("did you mean `balance`").then_some(()));
    assert_eq!(client("curl", &["-sS", &url]), "two", "the old configuration stays in force");

    let refused = springtide(&["reload", "--admin", &node.admin().to_string()]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("did you mean `balance`"), "{}", said(&refused));
    assert_eq!(client("curl", &["-sS", &url]), "two", "the old configuration stays in force");
}

#[test]
fn a_dead_backend_gets_a_kind_answer_in_the_form_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    let nobody = Origin { address: std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    write_config(&path, &nobody, "");
    let node = Node::start(&path);
    let url = format!("http://{}/", node.http("public"));
    let json = client("curl", &["-sS", "-i", &url]).to_lowercase();
    for needle in ["http/1.1 50", "retry-after:", "application/json", "\"retryable\":true", "\"code\":", "\"message\":"]
    {
        assert!(json.contains(needle), "{needle} in {json}");
    }
    let page = client("curl", &["-sS", "-H", "accept: text/html", &url]);
    assert!(page.to_lowercase().contains("<!doctype html"), "{page}");
}

#[test]
fn a_drain_finishes_what_runs() {
    use std::io::{Read, Write};
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = Origin { address: slow.local_addr().unwrap() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    write_config(&path, &origin, "deadline = \"20s\"\n");
    let mut node = Node::start(&path);
    let url = format!("http://{}/slow", node.http("public"));
    let (arrived, go) = (std::sync::mpsc::sync_channel::<()>(1), std::sync::mpsc::sync_channel::<()>(1));
    std::thread::spawn(move || {
        for mut stream in slow.incoming().flatten() {
            let mut buffer = [0; 4096];
            if let Ok(n @ 1..) = stream.read(&mut buffer)
                && buffer[..n].windows(5).any(|w| w == b"/slow")
            {
                arrived.0.send(()).unwrap();
                go.1.recv().unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").unwrap();
            }
        }
    });
    let asking = std::thread::spawn(move || client("curl", &["-sS", &url]));
    arrived.1.recv_timeout(SOON).unwrap();
    let address = node.http("public");
    node.signal("TERM");
    eventually("the listener closes", SOON, || std::net::TcpStream::connect(address).is_err().then_some(()));
    go.0.send(()).unwrap();
    assert_eq!(asking.join().unwrap(), "done");
    assert!(node.ended(SOON).success());
}

#[test]
fn a_wrong_configuration_is_refused_with_every_finding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.toml");
    fs::write(&path, "[node]\nnmae = \"x\"\n\n[[service]]\nname = \"a\"\ndeadline = 500\n").unwrap();
    for command in [&["check"][..], &["run", "-c"]] {
        let mut args = command.to_vec();
        args.push(path.to_str().unwrap());
        let output = springtide(&args);
        assert!(!output.status.success());
        let said = said(&output);
        assert!(said.contains("bad.toml:2:1") && said.contains("did you mean `name`"), "{said}");
        assert!(said.contains("bad.toml:6:") && said.contains("\"500ms\""), "{said}");
    }
}

#[test]
fn h2load_is_served_over_both_versions_of_http() {
    let origin = Origin::start("hello");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    write_config(&path, &origin, "");
    let node = Node::start(&path);
    let url = format!("http://{}/", node.http("public"));
    for version in [&["--h1"][..], &[]] {
        let mut args = vec!["-n", "2000", "-c", "4", "-m", "8"];
        args.extend(version);
        args.push(&url);
        let said = client("h2load", &args);
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    }
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    assert!(metrics.contains("springtide_proxy_requests_total"), "{metrics}");
    assert!(attempt("curl", &["-sSf", &format!("http://{}/readyz", node.admin())]).status.success());
}
