//! Red-packet processes as tests start and kill them, and the clients that go on asking meanwhile.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use springtide::base::entropy::Rng;
use springtide::redpacket::peer::{CallError, Peer, Reply};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub(crate) mod cash;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_springtide");

pub(crate) const SOON: Duration = Duration::from_mins(1);

/// A process of ours, killed with its test.
pub(crate) struct Process {
    child: Child,
    pub(crate) peer: Arc<Peer>,
}

impl Process {
    pub(crate) fn command(upstream: &str, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("upstream").arg(upstream).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env("RUST_LOG", "error");
        command
    }

    /// Starts it and reads where it listens out of its ready line.
    pub(crate) fn start(upstream: &str, args: &[&str]) -> Self {
        let mut child = Self::command(upstream, args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{upstream}: {line:?}: {e}"));
        assert_eq!((&ready["ready"], ready["upstream"].as_str()), (&json!(true), Some(upstream)));
        assert_eq!(ready["pid"], child.id());
        let origin = format!("http://{}", ready["listen"].as_str().unwrap());
        Self { child, peer: Arc::new(Peer::new(origin.parse().unwrap())) }
    }

    pub(crate) fn origin(&self) -> String {
        self.peer.origin().to_string()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        let term = Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
        assert!(term.success());
        let wait = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.expect("it stops in time")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

pub(crate) async fn ask(peer: &Peer, path: &str) -> Value {
    body(&peer.get(path, SOON).await.unwrap())
}

pub(crate) async fn claim(peer: &Peer, user: &str) -> Result<Reply, CallError> {
    let wish = json!({ "packet_id": "p1", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r1" });
    let body = Bytes::from(wish.to_string());
    peer.call(Method::POST, "/v1/claims", body, &[("x-user-id", user)], SOON).await
}

/// Waits until `holds`, asking again and again.
pub(crate) async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = holds().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How often processes die; `CRASH_ROUNDS=200` for a long run.
pub(crate) fn deaths(otherwise: usize) -> usize {
    std::env::var("CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// What decides when they die; `CRASH_SEED=` replays one.
pub(crate) fn luck() -> Rng {
    let seed = std::env::var("CRASH_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| Rng::from_os().next_u64());
    eprintln!("CRASH_SEED={seed}");
    Rng::seeded(seed)
}

/// `springtide reconcile` with `args`: its exit code, its JSON and its table.
pub(crate) fn reconcile(args: &[&str]) -> (Option<i32>, Value, String) {
    let run = |json: &[&str]| Command::new(PROGRAM).arg("reconcile").args(args).args(json).output().unwrap();
    let (table, json) = (run(&[]), run(&["--json"]));
    assert_eq!(table.status.code(), json.status.code());
    let report = serde_json::from_slice(&json.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&json.stderr)));
    (json.status.code(), report, String::from_utf8(table.stdout).unwrap())
}

/// Who is alive at the moment.
pub(crate) type Alive = watch::Receiver<Vec<Arc<Peer>>>;

/// One of those alive, as soon as there is one: clients spread over them.
pub(crate) async fn someone(alive: &Alive, client: usize) -> Arc<Peer> {
    let mut alive = alive.clone();
    let peers = alive.wait_for(|peers| !peers.is_empty()).await.unwrap().clone();
    peers[client % peers.len()].clone()
}

/// Clients that claim for one user after another, and for each until there is an answer, whichever process gives it.
pub(crate) struct Crowd {
    alive: Alive,
    next: AtomicUsize,
    users: usize,
    /// User -> order number, as told by a 202 or a 200.
    pub(crate) told: Mutex<BTreeMap<String, String>>,
}

impl Crowd {
    /// `clients` clients for `users` users.
    pub(crate) fn start(alive: Alive, users: usize, clients: usize) -> (Arc<Self>, JoinSet<()>) {
        let crowd = Arc::new(Self { alive, next: AtomicUsize::new(0), users, told: Mutex::default() });
        let mut all = JoinSet::new();
        for client in 0..clients {
            all.spawn(crowd.clone().run(client));
        }
        (crowd, all)
    }

    /// How many have their answer.
    pub(crate) fn answers(&self) -> usize {
        self.told.lock().unwrap().len()
    }

    async fn run(self: Arc<Self>, client: usize) {
        loop {
            let user = self.next.fetch_add(1, Ordering::Relaxed);
            if user >= self.users {
                return;
            }
            let user = format!("user-{user}");
            let order_no = loop {
                match claim(&*someone(&self.alive, client).await, &user).await {
                    Ok(reply) if matches!(reply.status.as_u16(), 200 | 202) => {
                        break body(&reply)["order_no"].as_str().unwrap().to_owned();
                    }
                    Ok(reply) => assert!(reply.status.is_server_error(), "{user}: {reply:?}"),
                    // Killed before the answer: who knows. The same claim again tells, once there is somebody to ask.
                    Err(_) => sleep(Duration::from_millis(2)).await,
                }
            };
            self.told.lock().unwrap().insert(user, order_no);
        }
    }
}

/// Waits for all of `clients`, none of which may fail.
pub(crate) async fn all_done(mut clients: JoinSet<()>) {
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}
