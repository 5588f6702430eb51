//! Backends: hyper, which notes every message that reaches it; nginx and HAProxy in front of it, so that what they make of
//! our octets is seen there; and one that plays responses from the corpus.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::support::eventually;

/// A message that has arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method and target.
    pub what: String,
    /// Octets of its body; `None`: it broke off.
    pub octets: Option<usize>,
    /// `name: value`, names in lower case.
    pub fields: Vec<String>,
}

/// The hyper server that notes what reaches it, and says so.
#[derive(Clone)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    /// Starts one; it ends with the test.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let recorder = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = Arc::clone(&recorder.seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    let seen = Arc::clone(&seen);
                    let service = service_fn(move |request| note(Arc::clone(&seen), request));
                    tokio::spawn(async move {
                        let http = hyper::server::conn::http1::Builder::new()
                            .max_headers(200)
                            .serve_connection(TokioIo::new(tcp), service);
                        let _ = http.await;
                    });
                }
            });
        });
        recorder
    }

    /// What has arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn note(all: Arc<Mutex<Vec<Seen>>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let fields = head.headers.iter().map(field).collect();
    let what = format!("{} {}", head.method, head.uri);
    let at = {
        let mut all = all.lock().unwrap();
        all.push(Seen { what: what.clone(), octets: None, fields });
        all.len() - 1
    };
    let Ok(whole) = body.collect().await else { return Ok(Response::new(Full::default())) };
    let trailers: Vec<String> = whole.trailers().into_iter().flatten().map(field).collect();
    let octets = whole.to_bytes().len();
    let seen = &mut all.lock().unwrap()[at];
    seen.octets = Some(octets);
    seen.fields.extend(trailers.into_iter().map(|t| format!("trailer {t}")));
    Ok(Response::new(Full::from(format!("{what} {octets}"))))
}

/// A server of somebody else's; ends with the test.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    fn start(program: &str, args: &[&str], address: SocketAddr, dir: &Path) -> Self {
        let log = fs::File::create(dir.join(format!("{program}.out"))).unwrap();
        let run =
            Command::new(program).args(args).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let child = run.unwrap_or_else(|e| panic!("{program} is not here ({e}); `bash tests/run.sh` installs it"));
        let server = Self { child, address };
        eventually(program, Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
        server
    }

    /// nginx in front of `origin`.
    pub fn nginx(dir: &Path, origin: SocketAddr) -> Self {
        let address = free();
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log nginx.log info;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n  access_log off; client_max_body_size 0; large_client_header_buffers 8 64k;\n\
               client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
               upstream origin {{ server {origin}; keepalive 8; }}\n\
               server {{ listen {address}; location / {{\n\
                 proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_set_header Host $http_host; }} }}\n}}\n"
        );
        let path = dir.join("nginx.conf");
        fs::write(&path, text).unwrap();
        let prefix = format!("{}/", dir.display());
        Self::start("nginx", &["-p", &prefix, "-e", "nginx.log", "-c", path.to_str().unwrap()], address, dir)
    }

    /// HAProxy in front of `origin`.
    pub fn haproxy(dir: &Path, origin: SocketAddr) -> Self {
        let address = free();
        let text = format!(
            "global\n  nbthread 1\n  tune.bufsize 65536\n  tune.http.maxhdr 256\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  \
             timeout server 30s\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  server o {origin}\n"
        );
        let path = dir.join("haproxy.cfg");
        fs::write(&path, text).unwrap();
        Self::start("haproxy", &["-db", "-f", path.to_str().unwrap()], address, dir)
    }
}

/// An address that is free now; who asks for it takes it a moment later.
fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::peers::free_port()))
}

/// A backend that plays a response to every request for its path, and an honest one to any other.
pub struct Player {
    /// Where it listens.
    pub address: SocketAddr,
    /// Targets of the requests of each connection.
    pub connections: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Player {
    /// Starts one with what it answers to which path: what it writes, write by write, and whether it ends the connection
    /// behind it.
    pub fn start(plays: Vec<(String, Vec<Vec<u8>>, bool)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Vec<String>>>>::default());
        let (all, plays) = (Arc::clone(&connections), Arc::new(plays));
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (all, plays) = (Arc::clone(&all), Arc::clone(&plays));
                std::thread::spawn(move || play(tcp, &all, &plays));
            }
        });
        Self { address, connections }
    }
}

fn play(mut tcp: std::net::TcpStream, all: &Mutex<Vec<Vec<String>>>, plays: &[(String, Vec<Vec<u8>>, bool)]) {
    use std::io::{Read, Write};
    tcp.set_nodelay(true).ok();
    let me = {
        let mut all = all.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let (mut heard, mut octets) = (Vec::new(), [0; 16_384]);
    loop {
        while let Some(end) = heard.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&heard[..end]).into_owned();
            let length = head
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
            while heard.len() < end + 4 + length {
                match tcp.read(&mut octets) {
                    Ok(n @ 1..) => heard.extend(&octets[..n]),
                    _ => return,
                }
            }
            heard.drain(..end + 4 + length);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            all.lock().unwrap()[me].push(target.clone());
            let Some((_, writes, ends)) = plays.iter().find(|(path, ..)| *path == target) else {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nGET {target} 0", target.len() + 6);
                tcp.write_all(answer.as_bytes()).ok();
                continue;
            };
            for octets in writes {
                tcp.write_all(octets).ok();
            }
            if *ends {
                tcp.shutdown(std::net::Shutdown::Write).ok();
            }
        }
        match tcp.read(&mut octets) {
            Ok(n @ 1..) => heard.extend(&octets[..n]),
            _ => return,
        }
    }
}
