//! Homes whose stores are PostgreSQL: two of them, each a database of its own and two processes that share it. One dies with
//! all it has; one is taken over by a newer file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use springtide::config::homes::Homes;
use springtide::redpacket::model::{OrderNo, UserId};
use springtide::redpacket::peer::Peer;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, free_port};
use super::crowd::{Process, body, claim, eventually};

const SOON: Duration = Duration::from_mins(1);
/// How long a claim waits for its answer before its user asks somebody else.
const PATIENCE: Duration = Duration::from_secs(2);

/// A home to be: its database, and where its processes listen.
struct House {
    cluster: Cluster,
    database: String,
    ports: [u16; 2],
}

impl House {
    async fn build() -> Self {
        let cluster = Cluster::start().await;
        let database = cluster.database().await;
        Self { cluster, database, ports: [free_port(), free_port()] }
    }

    fn urls(&self) -> String {
        self.ports.map(|port| format!("\"http://127.0.0.1:{port}\"")).join(", ")
    }

    /// Its process at `at`, by the file of homes at `homes`.
    fn process(&self, name: &str, at: usize, homes: &Path, extra: &[&str]) -> Process {
        let (url, listen) = (self.cluster.url(&self.database), format!("127.0.0.1:{}", self.ports[at]));
        let catalogue = homes.with_file_name("catalogue.json");
        let mut args = vec!["--store", "postgres", "--postgres", &url, "--listen", &listen, "--home", name];
        args.extend(["--homes", homes.to_str().unwrap(), "--catalogue", catalogue.to_str().unwrap()]);
        args.extend(["--bucket", if name == "a" { "0/2" } else { "1/2" }]);
        args.extend(extra);
        Process::start("claim", &args)
    }

    fn both(&self, name: &str, homes: &Path) -> [Process; 2] {
        [0, 1].map(|at| self.process(name, at, homes, &[]))
    }

    /// Orders in its database.
    async fn orders(&self) -> i64 {
        let client = self.cluster.connect(&self.database).await.unwrap();
        client.query_one("SELECT count(*) FROM redpacket.orders", &[]).await.unwrap().get(0)
    }
}

/// A folder with a catalogue that nobody empties.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut catalogue: Value = serde_json::from_str(include_str!("../../src/redpacket/catalogue.json")).unwrap();
    for gift in catalogue["gifts"].as_array_mut().unwrap() {
        gift["stock"] = 1_000_000.into();
    }
    std::fs::write(folder.path().join("catalogue.json"), catalogue.to_string()).unwrap();
    folder
}

/// Puts `text` in the place of the file, whole.
fn put(path: &Path, text: &str) {
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

/// The code and the number that `user` is told by a claim at `peer`; nothing without an answer.
async fn ask(peer: &Peer, user: &str) -> Option<(String, String)> {
    let reply = timeout(PATIENCE, claim(peer, user)).await.ok()?.ok()?;
    let said = body(&reply);
    Some((said["code"].as_str()?.to_owned(), said["order_no"].as_str().unwrap_or_default().to_owned()))
}

async fn metric(peer: &Peer, name: &str) -> Option<u64> {
    let page = peer.get("/metrics", SOON).await.ok()?;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Clients that claim for one user after another at any process that answers, each until somebody has said 202 or 200.
struct Crowd {
    peers: Vec<Arc<Peer>>,
    next: AtomicUsize,
    until: AtomicUsize,
    /// User -> number, and whether an intent was what was told.
    told: Mutex<BTreeMap<String, (String, bool)>>,
}

impl Crowd {
    async fn walk(self: Arc<Self>, client: usize) {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.until.load(Ordering::Relaxed) {
                return;
            }
            let user = format!("user-{n}");
            for turn in client.. {
                match ask(&self.peers[turn % self.peers.len()], &user).await {
                    Some((code, no)) if matches!(code.as_str(), "ACCEPTED" | "ALREADY_CLAIMED" | "INTENT") => {
                        self.told.lock().unwrap().insert(user, (no, code == "INTENT"));
                        break;
                    }
                    Some((code, _)) => {
                        assert!(matches!(code.as_str(), "UNAVAILABLE" | "DEADLINE" | "OVERLOADED"), "{code}");
                    }
                    None => {}
                }
                sleep(Duration::from_millis(3)).await;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn count(&self) -> (usize, usize) {
        let told = self.told.lock().unwrap();
        (told.len(), told.values().filter(|(_, is_intent)| *is_intent).count())
    }

    async fn reaches(&self, what: &str, holds: impl Fn(usize, usize) -> bool) {
        eventually(what, async || {
            let (all, intents) = self.count();
            holds(all, intents).then_some(())
        })
        .await;
    }
}

/// A home dies with its database and both of its processes, while claims are under way; a process of the other dies with the
/// intents that it has written. Whoever was told anything has one order in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_dies_with_its_database_loses_nothing_and_gives_nothing_twice() {
    let folder = folder();
    let (a, b) = (House::build().await, House::build().await);
    let homes = folder.path().join("homes.toml");
    let home = |name: &str, house: &House| format!("[[home]]\nname = \"{name}\"\nurl = [{}]\n", house.urls());
    put(&homes, &format!("epoch = 1\n{}{}", home("a", &a), home("b", &b)));
    let (of_a, [b0, b1]) = (a.both("a", &homes), b.both("b", &homes));
    let peers = of_a.iter().chain([&b0, &b1]).map(|process| process.peer.clone()).collect();
    let until = AtomicUsize::new(usize::MAX);
    let crowd = Arc::new(Crowd { peers, next: AtomicUsize::new(0), until, told: Mutex::default() });
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(crowd.clone().walk(client));
    }
    crowd.reaches("answers", |all, _| all >= 150).await;
    // All of it at once, in the middle of claims.
    drop(of_a);
    a.cluster.strike().await;
    let before = crowd.count().1;
    crowd.reaches("intents", |_, intents| intents >= before + 60).await;
    // Who wrote some of them dies; the other has them all.
    drop(b0);
    let before = crowd.count().1;
    crowd.reaches("intents", |_, intents| intents >= before + 30).await;
    a.cluster.run().await;
    let of_a = a.both("a", &homes);
    let before = crowd.count().0;
    crowd.reaches("answers", |all, _| all >= before + 100).await;
    crowd.until.store(0, Ordering::Relaxed);
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    };
    timeout(SOON, all).await.expect("everybody is answered");
    eventually("all intents settled", async || {
        let client = b.cluster.connect(&b.database).await.unwrap();
        let open = client.query_one("SELECT counts[1] FROM redpacket.intent_sums", &[]).await.unwrap();
        (open.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let told = crowd.told.lock().unwrap().clone();
    for (user, (no, _)) in &told {
        for peer in [&of_a[1].peer, &b1.peer] {
            let path = format!("/v1/claims/{no}");
            let said = eventually("an answer", async || {
                let headers = [("x-user-id", user.as_str())];
                let reply = peer.call(Method::GET, &path, Bytes::new(), &headers, SOON).await.ok()?;
                Some(body(&reply)).filter(|said| said["code"] != "UNAVAILABLE")
            })
            .await;
            assert_eq!((&said["state"], &said["order_no"]), (&json!("ACCEPTED"), &json!(no)), "{user}: {said}");
        }
    }
    let (users, intents) = crowd.count();
    let orders = usize::try_from(a.orders().await + b.orders().await).unwrap();
    assert_eq!(orders, users, "one order for everybody who was told, and none beside");
    eprintln!("{users} users, {intents} of them by an intent first");
}

/// Files of homes for one house of two, at different places, so that its processes learn of a change one by one.
struct Files(PathBuf, String);

impl Files {
    fn put(&self, at: usize, epoch: u64, of_a: &str, of_b: &str) -> PathBuf {
        let path = self.0.join(format!("homes-{at}.toml"));
        let Self(_, urls) = self;
        put(
            &path,
            &format!(
                "epoch = {epoch}\n[[home]]\nname = \"a\"\nurl = [{urls}]\nsets = [\"{of_a}\"]\n\
                 [[home]]\nname = \"b\"\nurl = \"http://127.0.0.1:1\"\nsets = [\"{of_b}\"]\n"
            ),
        );
        path
    }
}

/// A process under an older epoch is refused from the moment on at which another holds the database under a newer one; it
/// goes on once it has the file; and what its file may not say, it complains of and does not do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_epoch_shuts_out_the_older_and_a_changed_file_is_followed() {
    let folder = folder();
    let house = House::build().await;
    let files = Files(folder.path().to_owned(), house.urls());
    let mut users = BTreeMap::<u8, Vec<String>>::new();
    for user in (0..20_000).map(|n| format!("user-{n}")) {
        users.entry(OrderNo::set_of(&UserId::parse(&user).unwrap()) >> 6).or_default().push(user);
    }
    let mut user = |quarter: u8| users.get_mut(&quarter).unwrap().pop().unwrap();
    let code = async |peer: &Peer, user: &str| ask(peer, user).await.unwrap().0;

    let old = house.process("a", 0, &files.put(0, 1, "00-7f", "80-ff"), &[]);
    for quarter in [0, 1] {
        assert_eq!(code(&old.peer, &user(quarter)).await, "ACCEPTED");
    }
    assert_eq!(code(&old.peer, &user(2)).await, "INTENT");
    let new = house.process("a", 1, &files.put(1, 2, "00-3f", "40-ff"), &[]);
    let shut_out = user(0);
    assert_eq!(code(&old.peer, &shut_out).await, "UNAVAILABLE", "by a store that is held under a newer epoch");
    assert_eq!(code(&new.peer, &shut_out).await, "ACCEPTED", "and nothing was done");
    let orders = house.orders().await;
    for quarter in [0, 1] {
        assert_eq!(code(&old.peer, &user(quarter)).await, "UNAVAILABLE");
    }
    assert_eq!(house.orders().await, orders);
    // The older file opens nothing; the newer one is enough to go on.
    files.put(0, 2, "00-3f", "40-ff");
    let waiting = user(0);
    eventually("the newer file is followed", async || (code(&old.peer, &waiting).await == "ACCEPTED").then_some(()))
        .await;
    assert_eq!(code(&old.peer, &user(1)).await, "INTENT", "who has moved is passed on");
    assert_eq!(metric(&old.peer, "springtide_redpacket_homes_epoch").await, Some(2));
    for (epoch, of_a, of_b, what) in [
        (1, "00-7f", "80-ff", "older"),
        (2, "00-7f", "80-ff", "the same epoch, and other users"),
        (3, "00-7f", "80-ff", "users of another home"),
        (3, "00-7f", "7f-ff", "two homes for a set"),
    ] {
        files.put(0, epoch, of_a, of_b);
        eventually(what, async || {
            metric(&old.peer, "springtide_redpacket_homes_refused").await.filter(|refused| *refused == 1)
        })
        .await;
        assert_eq!(metric(&old.peer, "springtide_redpacket_homes_epoch").await, Some(2), "{what}");
        assert_eq!(code(&old.peer, &user(0)).await, "ACCEPTED", "{what}");
        files.put(0, 2, "00-3f", "40-ff");
        eventually("mended", async || {
            metric(&old.peer, "springtide_redpacket_homes_refused").await.filter(|refused| *refused == 0)
        })
        .await;
    }
    // A person's word; the other process takes the same file as it is held by then. Its intents of these users are home now.
    drop(new);
    files.put(0, 3, "00-7f", "80-ff");
    let _taken = house.process("a", 1, &files.put(1, 3, "00-7f", "80-ff"), &["--take-over"]);
    eventually("the file that was taken over by", async || {
        metric(&old.peer, "springtide_redpacket_homes_epoch").await.filter(|epoch| *epoch == 3)
    })
    .await;
    assert_eq!(code(&old.peer, &user(1)).await, "ACCEPTED");
    let client = house.cluster.connect(&house.database).await.unwrap();
    eventually("only the stranger's intent is left", async || {
        let open = client.query_one("SELECT counts[1], counts[2] FROM redpacket.intent_sums", &[]).await.unwrap();
        ((open.get::<_, i64>(0), open.get::<_, i64>(1)) == (1, 1)).then_some(())
    })
    .await;
    // Nobody is left behind by a file without this home: it decides for nobody.
    let lone = "epoch = 4\n[[home]]\nname = \"b\"\nurl = \"http://127.0.0.1:1\"\n";
    assert!(Homes::parse(lone).is_ok());
    put(&folder.path().join("homes-0.toml"), lone);
    eventually("it has let go", async || {
        metric(&old.peer, "springtide_redpacket_homes_epoch").await.filter(|epoch| *epoch == 4)
    })
    .await;
    assert_eq!(code(&old.peer, &user(0)).await, "INTENT");
}
