//! Static files with real clients: curl (ranges, resumed, compressed), a browser, and nginx with the same folder beside.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Node, client, eventually};

/// A folder to be shown.
fn tree(dir: &Path) -> PathBuf {
    let www = dir.join("www");
    for folder in ["docs", ".git"] {
        fs::create_dir_all(www.join(folder)).unwrap();
    }
    let numbers: String = (0..100_000).map(|i| format!("{i:09}\n")).collect();
    let script = "document.body.dataset.said = 'yes';\n".repeat(100);
    let page = "<!doctype html><title>Files</title><link rel=stylesheet href=style.css><body><script type=module src=app.js></script>";
    for (name, content) in [
        ("index.html", page),
        ("style.css", "body { color: red }"),
        ("app.js", &script),
        ("docs/index.html", "<p>docs"),
        ("docs/a b.txt", "space"),
        ("numbers.txt", &numbers),
        ("empty.txt", ""),
        (".git/config", "secret"),
    ] {
        fs::write(www.join(name), content).unwrap();
    }
    for name in ["app.js", "numbers.txt"] {
        let path = www.join(name);
        client("gzip", &["-k", path.to_str().unwrap()]);
    }
    www
}

/// A node that shows `www`.
fn edge(dir: &Path, preload: bool) -> Node {
    let text = format!(
        "[node]\nname = \"edge\"\nworkers = 1\n\n[[datacenter]]\nname = \"here\"\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nfiles = {{ root = \"www\", preload = {preload}, precompressed = [\"gzip\"] }}\n"
    );
    let path = dir.join(format!("edge-{preload}.toml"));
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

#[test]
fn curl_gets_parts_goes_on_and_unpacks() {
    let dir = tempfile::tempdir().unwrap();
    let www = tree(dir.path());
    let whole = fs::read_to_string(www.join("numbers.txt")).unwrap();
    for preload in [false, true] {
        let node = edge(dir.path(), preload);
        let url = |path: &str| format!("http://{}{path}", node.http("public"));
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let get = |args: &[&str]| client("curl", &[&["-sS", "-f", version][..], args].concat());
            assert_eq!(get(&[&url("/numbers.txt")]), whole);
            assert_eq!(get(&["-r", "10-19", &url("/numbers.txt")]), whole[10..=19]);
            assert_eq!(get(&["-r", "-10", &url("/numbers.txt")]), whole[whole.len() - 10..]);
            assert_eq!(get(&["--compressed", &url("/numbers.txt")]), whole);
            let size = get(&["--compressed", "-o", "/dev/null", "-w", "%{size_download}", &url("/numbers.txt")]);
            assert!(size.parse::<usize>().unwrap() < whole.len() / 2, "{size}");
            let sent = get(&["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url("/docs")]);
            assert_eq!(sent, format!("308 {}", url("/docs/")));
            // Half of it is there already.
            let part = dir.path().join("part");
            fs::write(&part, &whole[..whole.len() / 2]).unwrap();
            get(&["-C", "-", "-o", part.to_str().unwrap(), &url("/numbers.txt")]);
            assert_eq!(fs::read_to_string(&part).unwrap(), whole);
            // curl remembers the tag, and is told that nothing has changed.
            let (tag, out) = (dir.path().join("tag"), dir.path().join("out"));
            let (tag, out) = (tag.to_str().unwrap(), out.to_str().unwrap());
            for code in ["200", "304"] {
                let said = get(&[
                    "--etag-compare",
                    tag,
                    "--etag-save",
                    tag,
                    "-o",
                    out,
                    "-w",
                    "%{http_code}",
                    &url("/style.css"),
                ]);
                assert_eq!(said, code);
            }
            fs::remove_file(tag).unwrap();
        }
    }
}

#[test]
fn a_browser_runs_the_page() {
    let dir = tempfile::tempdir().unwrap();
    tree(dir.path());
    let node = edge(dir.path(), false);
    let profile = format!("--user-data-dir={}", dir.path().join("profile").display());
    let url = format!("http://{}/", node.http("public"));
    let flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-breakpad", "--no-first-run", "--dump-dom"];
    let dom = client("timeout", &[&["-k", "5", "60", "chromium"][..], &flags, &[&profile, &url]].concat());
    // A module runs only where it is said to be one: `nosniff` forbids guessing.
    assert!(dom.contains("data-said=\"yes\""), "{dom}");
}

/// nginx with the same folder; ends with the test.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(dir: &Path, www: &Path) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], crate::peers::free_port()));
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.log info;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; types {{ text/html html; text/plain txt; text/css css; text/javascript js; }}\n\
               client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
               server {{ listen {address}; root {}; gzip_static on; gzip_vary on; location ~ /\\. {{ return 404; }} }} }}\n",
            www.display()
        );
        let path = dir.join("nginx.conf");
        fs::write(&path, text).unwrap();
        let prefix = format!("{}/", dir.display());
        let child = Command::new("nginx")
            .args(["-p", &prefix, "-e", "nginx.log", "-c", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("nginx listens", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
        Self { child, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What an answer says that both should say alike.
#[derive(Debug, PartialEq)]
struct Answer {
    status: String,
    length: String,
    range: String,
    coding: String,
    last_modified: String,
    body: Vec<u8>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, length, range, coding, last_modified, body } = self;
        write!(f, "{status}, length {length:?}, range {range:?}, {coding:?}, {last_modified:?}, {} octets", body.len())
    }
}

fn ask(address: SocketAddr, dir: &Path, path: &str, args: &[&str]) -> Answer {
    let out = dir.join("answer");
    fs::write(&out, "").unwrap();
    let said =
        "%{http_code}|%header{content-length}|%header{content-range}|%header{content-encoding}|%header{last-modified}";
    let url = format!("http://{address}{path}");
    let common = ["-sS", "--path-as-is", "-o", out.to_str().unwrap(), "-w", said];
    let said = client("curl", &[&common[..], args, &[&url]].concat());
    let mut parts = said.split('|').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (status, length, range, coding, last_modified) = (next(), next(), next(), next(), next());
    let mut answer = Answer { status, length, range, coding, last_modified, body: fs::read(&out).unwrap() };
    // curl writes the head there.
    if args.contains(&"-I") {
        answer.body.clear();
    }
    // The words of refusals are everybody's own, and so is the code of a redirect that keeps the method.
    if answer.status.starts_with(['3', '4']) {
        answer.body.clear();
        answer.length.clear();
        answer.last_modified.clear();
        if answer.status == "308" {
            answer.status = "301".into();
        }
    }
    answer
}

#[test]
fn nginx_says_the_same_of_the_same_folder() {
    let dir = tempfile::tempdir().unwrap();
    let www = tree(dir.path());
    let (node, nginx) = (edge(dir.path(), false), Nginx::start(dir.path(), &www));
    let modified = client(
        "curl",
        &["-sS", "-o", "/dev/null", "-w", "%header{last-modified}", &format!("http://{}/numbers.txt", nginx.address)],
    );
    let (since, old) = (format!("if-modified-since: {modified}"), "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT");
    // Not asked: a range of HEAD, which we ignore as RFC 9110 section 14.2 demands and nginx honours; a range of a variant,
    // which we give and nginx does not.
    // A range that ends before it begins is no range: we ignore it, nginx answers 416, and RFC 9110 section 14.2 lets both.
    let asked: [&[&str]; 14] = [
        &[],
        &["-I"],
        &["-r", "0-0"],
        &["-r", "5-"],
        &["-r", "-7"],
        &["-r", "0-99999999"],
        &["-r", "99999999-"],
        &["-H", "range: lines=1-5"],
        &["-H", "accept-encoding: gzip"],
        &["-H", "accept-encoding: gzip;q=0"],
        &["-H", &since],
        &["-H", old],
        &["-H", "if-none-match: *"],
        &["-H", "if-match: \"nothing\""],
    ];
    for path in
        ["/numbers.txt", "/style.css", "/", "/docs/", "/docs", "/docs/a%20b.txt", "/app.js", "/nowhere", "/.git/config"]
    {
        for args in asked {
            let is_missing = path == "/nowhere" || path == "/.git/config" || path == "/docs";
            let (ours, theirs) =
                (ask(node.http("public"), dir.path(), path, args), ask(nginx.address, dir.path(), path, args));
            // The age of files decides whether `If-Modified-Since` is met: nginx wants the very second, we take any later one.
            if args.contains(&since.as_str()) && path != "/numbers.txt" {
                continue;
            }
            if is_missing {
                assert_eq!(ours.status, theirs.status, "{path} {args:?}");
            } else {
                assert!(ours == theirs, "{path} {args:?}\nours:   {ours}\nnginx's: {theirs}");
            }
        }
    }
}
