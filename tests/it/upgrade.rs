//! A new process takes an old one's place: no request is lost, tunnels live on, and one that cannot serve changes nothing.
//! And what systemd has to do with it: sockets that it opened, and what it is told.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Node, attempt, binary, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(40);
/// How long a client waits for an answer: on a busy machine, far more than any takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between a client's connection and its request, as on a busy machine: most upgrades fall into it.
const HESITATION: Duration = Duration::from_millis(50);

/// The address of `www.t.example`, asked for: all of a query but its id.
const QUESTION: &[u8] = b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x01t\x07example\x00\x00\x01\x00\x01";

/// An origin that answers, and echoes what comes through a WebSocket.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                while let Some(head) = head(&mut stream, &mut seen) {
                    if head.to_lowercase().contains("upgrade: websocket") {
                        let answer =
                            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                        stream.write_all(answer.as_bytes()).unwrap();
                        let mut buffer = [0; 1024];
                        while let Ok(n @ 1..) = stream.read(&mut buffer) {
                            if stream.write_all(&buffer[..n]).is_err() {
                                return;
                            }
                        }
                        return;
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The next head of `stream`; `None`: it has ended.
fn head(stream: &mut TcpStream, seen: &mut Vec<u8>) -> Option<String> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            return Some(String::from_utf8_lossy(&seen.drain(..end + 4).collect::<Vec<_>>()).into_owned());
        }
        match stream.read(&mut buffer) {
            Ok(n @ 1..) => seen.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Asks once; gives whether the connection goes on, or what went wrong.
fn ask(stream: &mut TcpStream, seen: &mut Vec<u8>, field: &str) -> Result<bool, String> {
    let request = format!("GET / HTTP/1.1\r\nhost: a.test\r\n{field}\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| format!("written: {e}"))?;
    let head = head(stream, seen).ok_or("closed without an answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(head);
    }
    let mut buffer = [0; 64];
    while seen.len() < 2 {
        let n = stream.read(&mut buffer).map_err(|e| format!("body: {e}"))?;
        seen.extend_from_slice(&buffer[..n]);
    }
    seen.drain(..2);
    Ok(!head.to_lowercase().contains("connection: close"))
}

/// Clients that ask without a pause until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn new() -> Self {
        Self { stop: Arc::default(), asked: Arc::default(), clients: Vec::new() }
    }

    /// `once` does one request.
    fn add(&mut self, mut once: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (stop, asked) = (Arc::clone(&self.stop), Arc::clone(&self.asked));
        self.clients.push(std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stop.load(SeqCst) && failures.len() < 10 {
                failures.extend(once().err());
                asked.fetch_add(1, SeqCst);
                std::thread::park_timeout(Duration::from_millis(2));
            }
            failures
        }));
    }

    /// A connection for each request.
    fn fresh(&mut self, to: SocketAddr) {
        self.add(move || ask(&mut connect(to), &mut Vec::new(), "connection: close\r\n").map(drop));
    }

    /// An operator's tool at the admin API, with a connection for each request, on which it says nothing for a moment.
    fn operator(&mut self, to: SocketAddr, path: &'static str) {
        self.add(move || {
            let mut stream = connect(to);
            std::thread::park_timeout(HESITATION);
            let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).map_err(|e| format!("{path} written: {e}"))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| format!("{path} read after {answer:?}: {e}"))?;
            let is_whole = answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\n\r\n");
            if is_whole { Ok(()) } else { Err(format!("{path}: {answer:?}")) }
        });
    }

    /// A connection for each question, over TCP, on which it says nothing for a moment.
    fn resolver_by_stream(&mut self, to: SocketAddr) {
        self.add(move || {
            let mut stream = connect(to);
            std::thread::park_timeout(HESITATION);
            let query = [&(QUESTION.len() as u16 + 2).to_be_bytes(), &[7, 7][..], QUESTION].concat();
            stream.write_all(&query).map_err(|e| format!("query by stream: {e}"))?;
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).map_err(|e| format!("answer by stream: {e}"))?;
            let is_good = answer[2..4] == [7, 7] && answer[5] & 15 == 0;
            if is_good { Ok(()) } else { Err(format!("answer by stream: {answer:02x?}")) }
        });
    }

    /// One connection for as long as the server keeps it.
    fn kept(&mut self, to: SocketAddr) {
        let mut open: Option<TcpStream> = None;
        self.add(move || {
            let mut stream = open.take().unwrap_or_else(|| connect(to));
            if ask(&mut stream, &mut Vec::new(), "")? {
                open = Some(stream);
            }
            Ok(())
        });
    }

    /// A resolver that asks each question once.
    fn resolver(&mut self, to: SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut id = 0u16;
        self.add(move || {
            id = id.wrapping_add(1);
            let mut query = id.to_be_bytes().to_vec();
            query.extend_from_slice(QUESTION);
            socket.send(&query).map_err(|e| format!("query {id}: {e}"))?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).map_err(|e| format!("answer {id}: {e}"))?;
            let is_good = length > query.len() && answer[..2] == id.to_be_bytes() && answer[3] & 15 == 0;
            if is_good { Ok(()) } else { Err(format!("answer {id}: {:02x?}", &answer[..length])) }
        });
    }

    /// A WebSocket that says something and hears it.
    fn tunnel(&mut self, to: SocketAddr) {
        let mut stream = connect(to);
        let request = "GET /ws HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let answer = head(&mut stream, &mut Vec::new()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        self.add(move || {
            stream.write_all(b"still there?").map_err(|e| format!("tunnel: {e}"))?;
            let mut buffer = [0; 12];
            stream.read_exact(&mut buffer).map_err(|e| format!("tunnel: {e}"))
        });
    }

    fn end(self) -> usize {
        self.stop.store(true, SeqCst);
        let failures: Vec<String> = self.clients.into_iter().flat_map(|c| c.join().unwrap()).collect();
        assert!(failures.is_empty(), "{failures:#?}");
        self.asked.load(SeqCst)
    }
}

fn write_config(dir: &Path, origin: SocketAddr, edge: SocketAddr, dns: SocketAddr, more: &str) -> PathBuf {
    fs::write(
        dir.join("t.zone"),
        "@ 300 IN SOA ns admin 1 2 3 4 5\n@ 300 IN NS ns\nns 300 IN A 192.0.2.53\nwww 300 IN A 192.0.2.1\n",
    )
    .unwrap();
    let path = dir.join("node.toml");
    let text = format!(
        "[node]\nname = \"n1\"\nworkers = 2\nstate_dir = \"state\"\n{more}\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [dns]\nlisten = [\"{dns}\"]\n[[dns.zone]]\nname = \"t.example.\"\nfile = \"t.zone\"\n\n\
         [[datacenter]]\nname = \"here\"\nweight = 1\naddresses = [\"192.0.2.1\"]\n\n\
         [[service]]\nname = \"web\"\nprobe = {{ tcp = true }}\nbackends.here = [\"{origin}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"{edge}\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n",
    );
    fs::write(&path, text).unwrap();
    path
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Ends every process that has answered at `admin`, and with it the test's.
struct Line {
    pids: Vec<u32>,
}

impl Drop for Line {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

fn pid_of(state: &Value) -> u32 {
    u32::try_from(state["node"]["pid"].as_u64().unwrap()).unwrap()
}

fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[test]
fn three_upgrades_under_load_lose_nothing_and_tunnels_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), origin(), any(), any(), "");
    let node = Node::start(&path);
    let admin = node.admin().to_string();
    let mut line = Line { pids: vec![node.process()] };
    let wished = springtide(&["weight", "here", "7", "--admin", &admin]);
    assert!(wished.status.success(), "{}", said(&wished));
    let mut load = Load::new();
    load.fresh(node.http("public"));
    load.kept(node.http("public"));
    load.kept(node.http("public"));
    load.resolver(node.dns());
    load.resolver_by_stream(node.dns());
    load.operator(node.admin(), "/v1/state");
    load.operator(node.admin(), "/healthz");
    load.tunnel(node.http("public"));
    let asked = Arc::clone(&load.asked);
    let some_more = |what: &str| {
        let before = asked.load(SeqCst);
        eventually(what, SOON, || (asked.load(SeqCst) > before + 200).then_some(()));
    };
    some_more("the load runs");
    let intents = node.state()["intents"].clone();
    assert_eq!(intents.as_array().map(Vec::len), Some(1));
    for turn in 0..3 {
        if turn == 1 {
            crate::demo::signal("USR2", &[*line.pids.last().unwrap()]);
        } else {
            let upgraded = springtide(&["upgrade", "--admin", &admin]);
            assert!(upgraded.status.success(), "{}\n{}", said(&upgraded), node.log());
        }
        let old = *line.pids.last().unwrap();
        let state =
            eventually("the new process answers", SOON, || Some(node.state()).filter(|state| pid_of(state) != old));
        line.pids.push(pid_of(&state));
        assert_eq!(
            state["intents"].as_array().map(Vec::len),
            intents.as_array().map(Vec::len),
            "what operators said stays"
        );
        assert_eq!(state["services"][0]["datacenters"][0]["usable"], 1, "health passes on: {state}");
        assert!(state["node"]["old_processes"].as_array().unwrap().contains(&line.pids[0].into()), "the tunnel's");
        some_more("the load goes on");
    }
    let asked = load.end();
    assert!(asked > 800, "{asked} requests");
    let log = node.log();
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
    let (last, old) = line.pids.split_last().unwrap();
    eventually("old processes end with their last client", SOON, || (!old.iter().any(|&pid| lives(pid))).then_some(()));
    crate::demo::signal("TERM", &[*last]);
    eventually("and the last one when it is told to", SOON, || (!lives(*last)).then_some(()));
}

#[test]
fn what_cannot_serve_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("springtide");
    fs::copy(binary(), &program).unwrap();
    let edge = any();
    let path = write_config(dir.path(), origin(), edge, any(), "");
    let node = Node::of(&program, &path);
    let _line = Line { pids: vec![node.process()] };
    let admin = node.admin().to_string();
    let url = format!("http://{}/", node.http("public"));
    let refused = |needle: &str| {
        let output = springtide(&["upgrade", "--admin", &admin]);
        assert!(!output.status.success() && said(&output).contains(needle), "{needle}: {}", said(&output));
        assert_eq!(client("curl", &["-sS", "-m", "10", &url]), "ok", "the old one serves on");
        assert_eq!(pid_of(&node.state()), node.process());
        let told = node.state()["failed_upgrade"]["findings"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(needle), "{told}");
        assert!(node.log().contains("no upgrade, this process serves on"), "{}", node.log());
    };
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("weight = 1", "wieght = 1")).unwrap();
    refused("did you mean `weight`");
    fs::write(&path, &good).unwrap();
    // The new file stands at the path; the one that runs has no name any more.
    let other = dir.path().join("other");
    fs::write(&other, "#!/bin/sh\nexit 3\n").unwrap();
    client("chmod", &["+x", other.to_str().unwrap()]);
    fs::rename(&other, &program).unwrap();
    refused("ended before it served (exit status: 3)");
    fs::remove_file(&program).unwrap();
    refused("cannot be started");
    let status = said(&springtide(&["status", "--admin", &admin]));
    assert!(status.contains("the last upgrade failed"), "{status}");
    let metrics = client("curl", &["-sS", &format!("http://{admin}/metrics")]);
    assert!(metrics.contains("springtide_control_upgrades_total{outcome=\"failed\"} 3"), "{metrics}");
}

#[test]
fn old_processes_do_not_pile_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_config(dir.path(), origin(), any(), any(), "old_processes = 1\n");
    let node = Node::start(&path);
    let admin = node.admin().to_string();
    let mut line = Line { pids: vec![node.process()] };
    let mut load = Load::new();
    load.tunnel(node.http("public"));
    let upgraded = springtide(&["upgrade", "--admin", &admin]);
    assert!(upgraded.status.success(), "{}", said(&upgraded));
    let state =
        eventually("the new process answers", SOON, || Some(node.state()).filter(|s| pid_of(s) != node.process()));
    line.pids.push(pid_of(&state));
    let refused = springtide(&["upgrade", "--admin", &admin]);
    assert!(!refused.status.success() && said(&refused).contains("old_processes"), "{}", said(&refused));
    load.end();
    eventually("the first one ends", SOON, || (!lives(line.pids[0])).then_some(()));
    let upgraded = springtide(&["upgrade", "--admin", &admin]);
    assert!(upgraded.status.success(), "{}", said(&upgraded));
    let state = eventually("the third answers", SOON, || Some(node.state()).filter(|s| pid_of(s) != line.pids[1]));
    line.pids.push(pid_of(&state));
}

#[test]
fn systemd_opens_sockets_and_hears_how_the_node_is() {
    let dir = tempfile::tempdir().unwrap();
    let (edge, dns) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (edge_at, dns_at) = (edge.local_addr().unwrap(), dns.local_addr().unwrap());
    let path = write_config(dir.path(), origin(), edge_at, dns_at, "");
    let heard = dir.path().join("notify");
    let manager = UnixDatagram::bind(&heard).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let until = |what: &str| {
        eventually(what, SOON, || Some(hear()).filter(|told| told.starts_with(what)));
    };
    // As systemd does it: the sockets are descriptors 3 and 4, and the variables name the process.
    let start = "exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" run -c \"$1\"";
    let log = dir.path().join("log");
    let mut child = Command::new("sh")
        .args(["-c", start])
        .args([binary(), &path])
        .env("NOTIFY_SOCKET", &heard)
        .env("WATCHDOG_USEC", "200000")
        .stdin(Stdio::from(OwnedFd::from(edge)))
        .stdout(Stdio::from(OwnedFd::from(dns)))
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _line = Line { pids: vec![child.id()] };
    until("READY=1\nSTATUS=serving");
    until("WATCHDOG=1");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    assert!(!said().contains("nothing here listens there"), "{}", said());
    assert_eq!(client("curl", &["-sS", "-m", "10", &format!("http://{edge_at}/")]), "ok");
    let (server, port) = (format!("@{}", dns_at.ip()), dns_at.port().to_string());
    assert_eq!(client("dig", &[&server, "-p", &port, "+short", "www.t.example"]).trim(), "192.0.2.1");
    crate::demo::signal("HUP", &[child.id()]);
    until("RELOADING=1\nMONOTONIC_USEC=");
    until("READY=1\nSTATUS=serving");
    crate::demo::signal("USR2", &[child.id()]);
    let told = eventually("MAINPID", SOON, || Some(hear()).filter(|told| told.starts_with("MAINPID=")));
    let next: u32 = told.trim_start_matches("MAINPID=").parse().unwrap();
    let _next = Line { pids: vec![next] };
    until("READY=1\nSTATUS=serving");
    assert!(attempt("curl", &["-sSf", "-m", "10", &format!("http://{edge_at}/")]).status.success());
    crate::demo::signal("TERM", &[next]);
    until("STOPPING=1");
    eventually("the first process ends", SOON, || child.try_wait().unwrap());
}
