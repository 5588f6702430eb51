//! What every process test needs: a node on port 0, real clients, waiting with a deadline.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_springtide"))
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until `probe` gives something, at most `limit`; then fails with `what`.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Runs a real client and gives what it printed; fails where the client is missing or unhappy.
pub fn client(program: &str, args: &[&str]) -> String {
    let output = attempt(program, args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// Runs a real client, however it ends.
pub fn attempt(program: &str, args: &[&str]) -> Output {
    match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(e) => panic!("{program} is not here ({e}); `bash tests/run.sh` installs what the tests need"),
    }
}

/// The command line under test.
pub fn springtide(args: &[&str]) -> Output {
    Command::new(binary()).args(args).output().unwrap()
}

/// Everything that a command said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// An upstream in a process of its own.
pub struct Upstream {
    child: Child,
    /// Where it serves.
    pub address: SocketAddr,
}

impl Upstream {
    /// Starts `springtide upstream NAME ARGS` and waits until it serves.
    pub fn start(name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["upstream", name, "--while-stdin-open"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name} did not start"));
        Self { child, address: ready["listen"].as_str().unwrap().parse().unwrap() }
    }

    /// The same as an origin.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A running node.
pub struct Node {
    child: Child,
    /// The ready line.
    pub ready: Value,
    log: PathBuf,
}

impl Node {
    /// Runs the configuration at `path` and waits until it serves.
    pub fn start(path: &Path) -> Self {
        Self::of(binary(), path)
    }

    /// As [`Node::start`], from a program of one's own.
    pub fn of(program: &Path, path: &Path) -> Self {
        let log = path.with_extension("log");
        let mut child = Command::new(program)
            .args(["run", "-c"])
            .arg(path)
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            child.wait().ok();
            panic!("{} did not start:\n{}", path.display(), fs::read_to_string(&log).unwrap_or_default());
        };
        assert_eq!(ready["ready"], true);
        Self { child, ready, log }
    }

    /// The admin API's address.
    pub fn admin(&self) -> SocketAddr {
        self.ready["admin"].as_str().unwrap().parse().unwrap()
    }

    /// The first address of the name server.
    pub fn dns(&self) -> SocketAddr {
        self.ready["dns"][0].as_str().unwrap().parse().unwrap()
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// The first address of a listener.
    pub fn http(&self, listener: &str) -> SocketAddr {
        self.ready["http"][listener][0].as_str().unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        crate::demo::signal(name, &[self.child.id()]);
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `/v1/state` of its admin API.
    pub fn state(&self) -> Value {
        serde_json::from_str(&client("curl", &["-sS", "-m", "5", &format!("http://{}/v1/state", self.admin())]))
            .unwrap()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self, limit: Duration) -> std::process::ExitStatus {
        eventually("the node ends", limit, || self.child.try_wait().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A tiny HTTP origin that says who it is; ends with the test.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Origin {
    /// Starts one that answers every request with `body`.
    pub fn start(body: &'static str) -> Self {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        seen.extend_from_slice(&buffer[..n]);
                        while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                            seen.drain(..end + 4);
                            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                            if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { address }
    }
}
