//! The edge with clients of all kinds: curl in every version of HTTP, h2load, gRPC's own library, a WebSocket library and a
//! browser; behind it the servers of the same libraries.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Node, Origin, attempt, client, eventually, root, said};

/// Debian's own, for its packages: another one may stand before it in the path.
const PYTHON: &str = "/usr/bin/python3";

/// A program, in Python mostly, which ends with the test.
struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    fn start(name: &str, args: &[&str]) -> Self {
        Self::of(Command::new(PYTHON).arg(folder().join(name)).args(args))
    }

    fn of(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|e| {
            panic!(
                "{} is not here ({e}); `bash tests/run.sh` installs what the tests need",
                command.get_program().display()
            )
        });
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// A server's: the first line that it prints.
    fn address(&mut self) -> SocketAddr {
        let line = self.line();
        let port = line.parse::<u16>().unwrap_or_else(|_| panic!("no port, but {line:?}"));
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A client's: it has ended, and well.
    fn ends_well(mut self) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success() && rest.ends_with("all good\n"), "{status}: {rest}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn folder() -> PathBuf {
    root().join("tests/it/clients")
}

/// An edge, plain and with TLS, in front of one server of each kind.
struct World {
    dir: tempfile::TempDir,
    node: Node,
    origin: Program,
    _others: [Program; 2],
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let page = folder().join("page.html");
        let mut origin = Program::start("origin.py", &[page.to_str().unwrap()]);
        let mut others = [Program::start("grpc_server.py", &[]), Program::start("websocket_server.py", &[])];
        let [web, grpc, socket] = [origin.address(), others[0].address(), others[1].address()];
        let quick = Origin::start("quick").address;
        let made = rcgen::generate_simple_self_signed(["grpc.example".to_owned()]).unwrap();
        fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let text = format!(
            r#"
[node]
name = "clients"
workers = 1
[admin]
listen = "127.0.0.1:0"
[[datacenter]]
name = "here"
addresses = ["192.0.2.1"]
[[service]]
name = "web"
deadline = "30s"
backends.here = ["{web}"]
[[service]]
name = "grpc"
deadline = "30s"
protocol = "http2"
backends.here = ["{grpc}"]
[[service]]
name = "socket"
backends.here = ["{socket}"]
[[service]]
name = "quick"
backends.here = ["{quick}"]
[[listener]]
name = "plain"
listen = ["127.0.0.1:0"]
[[listener]]
name = "secure"
listen = ["127.0.0.1:0"]
http3 = true
tls = {{ certs = ["cert.pem"], keys = ["key.pem"] }}
[[route]]
name = "grpc"
match = {{ path_prefix = "/tide.Test" }}
service = "grpc"
max_body = "64MiB"
[[route]]
name = "socket"
match = {{ path = "/socket" }}
service = "socket"
[[route]]
name = "quick"
match = {{ path = "/quick" }}
service = "quick"
[[route]]
name = "web"
match = {{ path_prefix = "/" }}
service = "web"
max_body = "64MiB"
"#
        );
        fs::write(dir.path().join("edge.toml"), text).unwrap();
        let node = Node::start(&dir.path().join("edge.toml"));
        Self { dir, node, origin, _others: others }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The two ways in, with what a client has to trust.
    fn ways(&self) -> [(SocketAddr, Option<String>); 2] {
        [(self.node.http("plain"), None), (self.node.http("secure"), Some(self.file("cert.pem")))]
    }

    fn reload(&self) {
        let before = self.node.state()["generation"].clone();
        self.node.signal("HUP");
        eventually("a new generation", Duration::from_secs(10), || {
            (self.node.state()["generation"] != before).then_some(())
        });
    }
}

#[test]
fn grpc_calls_of_every_kind() {
    let world = World::start();
    for (address, ca) in world.ways() {
        let (address, ca) = (address.to_string(), ca);
        let args: Vec<&str> = [address.as_str()].into_iter().chain(ca.as_deref()).collect();
        Program::start("grpc_client.py", &args).ends_well();
    }
}

#[test]
fn websockets_live_through_a_reload() {
    let world = World::start();
    for (address, ca) in world.ways() {
        let address = address.to_string();
        let args: Vec<&str> = [address.as_str()].into_iter().chain(ca.as_deref()).collect();
        let mut client = Program::start("websocket_client.py", &args);
        assert_eq!(client.line(), "open");
        world.reload();
        client.child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
        client.ends_well();
    }
}

/// HAProxy, which speaks HTTP/2 only, in front of `origin`; ends with the test.
fn haproxy(dir: &Path, origin: &str) -> (Program, SocketAddr) {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
         timeout tunnel 30s\nfrontend f\n  bind {address} proto h2\n  default_backend b\nbackend b\n  server o {origin}\n"
    );
    let path = dir.join("haproxy.cfg");
    fs::write(&path, text).unwrap();
    let mut command = Command::new("haproxy");
    let program = Program::of(command.args(["-db", "-f"]).arg(&path));
    eventually("HAProxy", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
    (program, address)
}

#[test]
fn websockets_reach_a_backend_that_speaks_http2() {
    let dir = tempfile::tempdir().unwrap();
    let mut origin = Program::start("websocket_server.py", &[]);
    let (_haproxy, backend) = haproxy(dir.path(), &origin.address().to_string());
    let text = format!(
        "[node]\nname = \"edge\"\nworkers = 1\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n[[datacenter]]\nname = \"here\"\n\n\
         [[service]]\nname = \"socket\"\nprotocol = \"http2\"\nbackends.here = [\"{backend}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"socket\"\n"
    );
    let path = dir.path().join("edge.toml");
    fs::write(&path, text).unwrap();
    let node = Node::start(&path);
    let mut client = Program::start("websocket_client.py", &[&node.http("public").to_string()]);
    assert_eq!(client.line(), "open", "{}", node.log());
    client.child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    client.ends_well();
}

/// What curl says of a transfer: version, status and how much came.
fn transfer(world: &World, version: &str, args: &[&str]) -> String {
    let (listener, scheme) = if version == "--http2" { ("secure", "https") } else { ("plain", "http") };
    let port = world.node.http(listener).port();
    let (to, ca, url) = (
        format!("grpc.example:{port}:127.0.0.1"),
        world.file("cert.pem"),
        format!("{scheme}://grpc.example:{port}/echo"),
    );
    let common = ["-sS", "-m", "20", version, "--resolve", &to, "--cacert", &ca, "-o", "/dev/null"];
    let told = ["-w", "%{http_version} %{http_code} %{size_download}", &url];
    client("curl", &[&common[..], args, &told[..]].concat())
}

#[test]
fn curl_in_every_version() {
    let world = World::start();
    let (big, page) = (world.file("big"), fs::read(folder().join("page.html")).unwrap().len());
    fs::write(&big, vec![b'g'; 3_000_000]).unwrap();
    let (from_file, upload) = (format!("@{big}"), big.as_str());
    // A client that speaks 1.0 is answered in 1.1, as it should be (RFC 9110 section 2.5).
    for (version, spoken) in
        [("--http1.0", "1.1"), ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "2")]
    {
        let told = |args: &[&str]| transfer(&world, version, args);
        assert_eq!(told(&[]), format!("{spoken} 200 {page}"), "{version} GET");
        assert_eq!(told(&["-I"]), format!("{spoken} 200 0"), "{version} HEAD");
        assert_eq!(told(&["-d", "gift"]), format!("{spoken} 200 4"), "{version} POST");
        assert_eq!(told(&["-d", ""]), format!("{spoken} 200 0"), "{version} empty POST");
        let expects = ["-H", "expect: 100-continue", "--data-binary", from_file.as_str()];
        assert_eq!(told(&expects), format!("{spoken} 200 3000000"), "{version} with Expect");
        assert_eq!(told(&["-T", upload]), format!("{spoken} 200 3000000"), "{version} PUT");
        if version != "--http1.0" {
            let chunked = ["-X", "POST", "-H", "transfer-encoding: chunked", "--data-binary", from_file.as_str()];
            let args = if version == "--http1.1" { &chunked[..] } else { &["-T", "-", "-X", "POST"][..] };
            let octets = if version == "--http1.1" { 3_000_000 } else { 0 };
            assert_eq!(told(args), format!("{spoken} 200 {octets}"), "{version} without a length");
        }
    }
}

#[test]
fn h2load_in_every_version() {
    let world = World::start();
    let [plain, secure] = ["plain", "secure"].map(|listener| world.node.http(listener));
    let (plain, secure) = (format!("http://{plain}/quick"), format!("https://{secure}/quick"));
    for (args, url) in
        [(&["--h1"][..], &plain), (&["--h1"], &secure), (&["-m", "32"], &plain), (&["-m", "32"], &secure)]
    {
        let told = client("h2load", &[&["-n", "2000", "-c", "10", "-T", "20"], args, &[url]].concat());
        assert!(told.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{args:?} {url}\n{told}");
    }
}

/// What a second library of HTTP/3 makes of us: it says what came, and keeps it in a folder.
#[test]
fn http3_with_another_library() {
    let world = World::start();
    let port = world.node.http("secure").port().to_string();
    let (big, downloads) = (world.file("big"), world.file("came"));
    fs::write(&big, (0..3_000_000u32).map(|n| n as u8).collect::<Vec<u8>>()).unwrap();
    fs::create_dir(&downloads).unwrap();
    let url = |path: &str| format!("https://grpc.example:{port}{path}");
    let ask = |args: &[&str], urls: &[String]| {
        let common = ["--exit-on-all-streams-close", "--no-quic-dump", "--no-http-dump", "--timeout=20s"];
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let output = attempt("gtlsclient", &[&common[..], args, &["127.0.0.1", &port], &urls].concat());
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    let told = ask(&["-m", "POST", "-d", &big, "--download", &downloads], &[url("/echo")]);
    assert!(told.contains("[:status: 200]"), "{told}");
    assert!(fs::read(&big).unwrap() == fs::read(world.dir.path().join("came/echo")).unwrap(), "the echo is another");
    let told = ask(&["-n", "50"], &[url("/quick")]);
    assert_eq!(told.matches("[:status: 200]").count(), 50, "{told}");
    let told = ask(&["-m", "HEAD"], &[url("/")]);
    assert!(told.contains("[:status: 200]") && told.contains("[content-type: text/html"), "{told}");
}

/// What the page found, in a browser with these flags.
fn page_in_browser(world: &mut World, flags: &[String]) -> Value {
    let secure = world.node.http("secure");
    let browser = Browser::show_with(&world.dir.path().join("profile"), &format!("https://{secure}/"), flags);
    let line = world.origin.line();
    drop(browser);
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("the page did not report: {line}"))
}

fn all_went_well(found: &Value, protocol: &str) {
    assert_eq!(found["echo"], true, "{found}");
    assert_eq!(found["many"], 100, "{found}");
    assert_eq!(found["events"], "event-0 event-1 event-2", "{found}");
    assert_eq!(found["socket"], "hello 127.0.0.1 gift 4001", "{found}");
    assert_eq!(found["protocol"], protocol, "{found}");
}

#[test]
fn a_browser_fetches_streams_and_keeps_a_socket_open() {
    all_went_well(&page_in_browser(&mut World::start(), &[]), "h2");
}

#[test]
fn a_browser_does_the_same_over_http3() {
    let mut world = World::start();
    // A browser trusts nobody over QUIC because of a flag that says so of all; it has to be told of this one.
    let known = format!("--ignore-certificate-errors-spki-list={}", spki(&world.file("cert.pem")));
    let forced = format!("--origin-to-force-quic-on={}", world.node.http("secure"));
    all_went_well(&page_in_browser(&mut world, &[known, forced]), "h3");
}

/// What a browser calls a certificate's key: the SHA-256 of it, in base64.
fn spki(cert: &str) -> String {
    let command = r#"openssl x509 -in "$0" -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64"#;
    client("bash", &["-c", command, cert]).trim().to_owned()
}

/// A browser without a window. It is cut after half a minute, so that nobody waits for it in vain.
pub struct Browser {
    child: Child,
}

impl Browser {
    pub fn show(profile: &Path, url: &str) -> Self {
        Self::show_with(profile, url, &[])
    }

    fn show_with(profile: &Path, url: &str, more: &[String]) -> Self {
        let data = format!("--user-data-dir={}", profile.display());
        let flags =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--no-first-run"];
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "30", "chromium"]).args(flags).args(more).args([&data, url]);
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child =
            started.unwrap_or_else(|e| panic!("chromium cannot be started ({e}); `bash tests/run.sh` installs it"));
        Self { child }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A browser is many processes: `timeout` has made a group of them.
        Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status().ok();
        self.child.wait().ok();
    }
}
