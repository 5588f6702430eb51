//! Claim processes that share a database and are killed under load; and what reconciliation says of it, before and after
//! somebody has meddled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use springtide::base::entropy::Rng;
use springtide::redpacket::model::OrderNo;
use springtide::redpacket::peer::{CallError, Peer, Reply};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cluster::Cluster;

const SOON: Duration = Duration::from_mins(1);

/// A process of ours, killed with its test.
struct Process {
    child: Child,
    peer: Arc<Peer>,
}

impl Process {
    fn start(upstream: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_springtide"));
        command.arg("upstream").arg(upstream).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.env("RUST_LOG", "error").spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{upstream}: {line:?}: {e}"));
        let origin = format!("http://{}", ready["listen"].as_str().unwrap());
        Self { child, peer: Arc::new(Peer::new(origin.parse().unwrap())) }
    }

    fn origin(&self) -> String {
        self.peer.origin().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

async fn claim(peer: &Peer, user: &str) -> Result<Reply, CallError> {
    let wish = json!({ "packet_id": "p1", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r1" });
    let body = Bytes::from(wish.to_string());
    peer.call(Method::POST, "/v1/claims", body, &[("x-user-id", user)], SOON).await
}

/// Waits until `holds`, asking again and again.
async fn eventually<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
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

/// Clients that claim for one user after another, at any process that lives, until there is an answer.
struct Crowd {
    alive: watch::Receiver<Vec<Arc<Peer>>>,
    next: AtomicUsize,
    users: usize,
    told: Mutex<BTreeMap<String, String>>,
}

impl Crowd {
    async fn run(self: Arc<Self>, client: usize) {
        loop {
            let user = self.next.fetch_add(1, Ordering::Relaxed);
            if user >= self.users {
                return;
            }
            let user = format!("user-{user}");
            let order_no = loop {
                let mut alive = self.alive.clone();
                let peers = alive.wait_for(|peers| !peers.is_empty()).await.unwrap().clone();
                match claim(&peers[client % peers.len()], &user).await {
                    Ok(reply) if matches!(reply.status.as_u16(), 200 | 202) => {
                        break body(&reply)["order_no"].as_str().unwrap().to_owned();
                    }
                    Ok(reply) => assert!(reply.status.is_server_error(), "{user}: {reply:?}"),
                    Err(_) => sleep(Duration::from_millis(2)).await,
                }
            };
            self.told.lock().unwrap().insert(user, order_no);
        }
    }
}

/// The command, its exit code, and its JSON.
fn reconcile(orders: &[&str], game: &Path) -> (Option<i32>, Value, String) {
    let run = |json: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_springtide"));
        command.arg("reconcile").args(orders).arg("--game-data").arg(game).args(json).output().unwrap()
    };
    let (table, json) = (run(&[]), run(&["--json"]));
    assert_eq!(table.status.code(), json.status.code());
    let report = serde_json::from_slice(&json.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&json.stderr)));
    (json.status.code(), report, String::from_utf8(table.stdout).unwrap())
}

type Number = &'static [u8; 17];

/// Makes the game forget one order that it applied, and give another twice. Tells which.
fn meddle(game: &Path) -> (String, String) {
    let db = redb::Database::open(game.join("game.redb")).unwrap();
    let (ledger, given) =
        (TableDefinition::<'_, Number, (u64, u64)>::new("ledger"), TableDefinition::<'_, Number, u64>::new("given"));
    let numbers: Vec<[u8; 17]> = {
        let txn = db.begin_read().unwrap();
        txn.open_table(ledger).unwrap().iter().unwrap().take(2).map(|e| *e.unwrap().0.value()).collect()
    };
    let txn = db.begin_write().unwrap();
    txn.open_table(ledger).unwrap().remove(&numbers[0]).unwrap();
    txn.open_table(given).unwrap().remove(&numbers[0]).unwrap();
    txn.open_table(given).unwrap().insert(&numbers[1], 2).unwrap();
    txn.commit().unwrap();
    (OrderNo::from_bytes(numbers[0]).to_string(), OrderNo::from_bytes(numbers[1]).to_string())
}

/// How often processes die; `CRASH_ROUNDS=200` for a long run.
fn deaths() -> usize {
    std::env::var("CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(14)
}

/// Clients, two claim processes on one database, and a death after every few answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_database_and_die_by_turns() {
    const EACH: usize = 50;
    let deaths = deaths();
    let seed =
        std::env::var("CRASH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| Rng::from_os().next_u64());
    eprintln!("CRASH_SEED={seed}");
    let mut rng = Rng::seeded(seed);
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let dir = tempfile::tempdir().unwrap();
    let game_dir = dir.path().join("game");
    let game = Process::start("game", &["--data", game_dir.to_str().unwrap()]);
    let (origin, url) = (game.origin(), cluster.url(&database));
    let args = [
        "--store",
        "postgres",
        "--postgres",
        &url,
        "--game",
        &origin,
        "--delivery-timeout",
        "300ms",
        "--lease",
        "600ms",
    ];
    let mut alive = vec![Process::start("claim", &args), Process::start("claim", &args)];
    let peers = |alive: &[Process]| alive.iter().map(|p| p.peer.clone()).collect::<Vec<_>>();
    let (here, there) = watch::channel(peers(&alive));
    let users = deaths * EACH;
    let crowd = Arc::new(Crowd { alive: there, next: AtomicUsize::new(0), users, told: Mutex::default() });
    let mut clients = JoinSet::new();
    for client in 0..16 {
        clients.spawn(crowd.clone().run(client));
    }
    for death in 0..deaths {
        let enough = death * EACH + rng.below(EACH as u64) as usize;
        eventually("answers", async || (crowd.told.lock().unwrap().len() >= enough).then_some(())).await;
        sleep(Duration::from_micros(rng.below(8_000))).await;
        // The other goes on meanwhile; clients of the dead one ask it.
        drop(alive.remove(death % 2));
        here.send_replace(peers(&alive));
        alive.insert(death % 2, Process::start("claim", &args));
        here.send_replace(peers(&alive));
    }
    timeout(SOON, async { while clients.join_next().await.is_some_and(|c| c.is_ok()) {} }).await.expect("in time");
    let told = crowd.told.lock().unwrap().clone();
    assert_eq!(told.values().collect::<BTreeSet<_>>().len(), users, "one order each");
    let stats = eventually("all delivered", async || {
        let stats = body(&alive[0].peer.get("/internal/stats", SOON).await.unwrap());
        (stats["delivered"].as_u64() == Some(users as u64)).then_some(stats)
    })
    .await;
    let ingots = stats["stock"].as_array().unwrap().iter().find(|s| s[0] == "gold-ingots").unwrap();
    assert_eq!(ingots[1]["issued"], users, "stock is exact");
    let tally = body(&game.peer.get("/stats", SOON).await.unwrap());
    assert_eq!((&tally["applied"], &tally["orders"]), (&json!(users), &json!(users)), "{tally}");
    eprintln!("{users} orders, {deaths} deaths, the game was told of {} twice", tally["duplicates"]);
    drop((alive, game));
    let (code, report, table) = reconcile(&["--postgres", &url], &game_dir);
    assert_eq!((code, &report["orders"], &report["differences"]), (Some(0), &json!(users), &json!([])), "{report}");
    assert!(table.contains("0 differences"), "{table}");
    // Somebody deletes an order, and the game errs twice.
    let (lost, twice) = meddle(&game_dir);
    let gone = told.values().find(|no| **no != lost && **no != twice).unwrap();
    let client = cluster.connect(&database).await.unwrap();
    let sql = format!("DELETE FROM redpacket.orders WHERE order_no = decode('{gone}', 'hex')");
    client.batch_execute(&sql).await.unwrap();
    let (code, report, table) = reconcile(&["--postgres", &url], &game_dir);
    let counts = json!({ "lost": 1, "given_twice": 1, "no_such_order": 1, "stock_differs": 1, "sums_differ": 1 });
    assert_eq!((code, &report["counts"]), (Some(2), &counts), "{report}");
    for (kind, of) in [("lost", &lost), ("given_twice", &twice), ("no_such_order", gone)] {
        assert!(table.lines().any(|line| line.contains(kind) && line.contains(of.as_str())), "{kind} {of}: {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redb_a_loss_and_a_double_are_found_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (game_dir, data) = (dir.path().join("game"), dir.path().join("claims"));
    let game = Process::start("game", &["--data", game_dir.to_str().unwrap()]);
    let process = Process::start("claim", &["--data", data.to_str().unwrap(), "--game", &game.origin()]);
    for user in 0..30 {
        assert_eq!(claim(&process.peer, &format!("user-{user}")).await.unwrap().status, 202);
    }
    eventually("all delivered", async || {
        let stats = body(&process.peer.get("/internal/stats", SOON).await.unwrap());
        (stats["delivered"] == 30).then_some(())
    })
    .await;
    // While they run, over HTTP.
    let mut command = Command::new(env!("CARGO_BIN_EXE_springtide"));
    let live = command.args(["reconcile", "--claims", &process.origin(), "--game", &game.origin()]).output().unwrap();
    assert!(live.status.success(), "{live:?}");
    drop((process, game));
    let orders = ["--data", data.to_str().unwrap()];
    let (code, report, _) = reconcile(&orders, &game_dir);
    assert_eq!((code, &report["orders"], &report["applied"]), (Some(0), &json!(30), &json!(30)), "{report}");
    let (lost, twice) = meddle(&game_dir);
    let (code, report, table) = reconcile(&orders, &game_dir);
    assert_eq!((code, &report["counts"]), (Some(2), &json!({ "lost": 1, "given_twice": 1 })), "{report}");
    assert!(table.contains(&lost) && table.contains(&twice), "{table}");
    let missing = Command::new(env!("CARGO_BIN_EXE_springtide"))
        .args(["reconcile", "--data", "/nonexistent", "--game-data"])
        .arg(&game_dir)
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1), "a store that is not there is no store without orders");
}
