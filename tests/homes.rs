//! Two homes as real processes, and what may become of them under load: killed, stopped, cut off from each other. Whatever
//! happens: everybody who was told anything has one order in the end, and nobody has two.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, clippy::pedantic, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "tests measure with the system's clock")]

#[path = "../benches/cutoff/city.rs"]
mod city;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use city::{City, Crowd, Lines, SOON};
use http::Method;
use serde_json::{Value, json};
use springtide::base::entropy::Rng;
use springtide::config::homes::Homes;
use springtide::redpacket::model::{OrderNo, UserId};
use springtide::redpacket::peer::Peer;
use tokio::time::{sleep, timeout};

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_springtide"))
}

/// Waits until the crowd has been answered so often with one of `codes`.
async fn until(crowd: &Crowd, codes: &[&str], times: usize) {
    let enough = async {
        let mut seen = 0;
        while seen < times {
            sleep(Duration::from_millis(10)).await;
            let now = crowd.look();
            seen += codes.iter().map(|code| now.count(code)).sum::<usize>();
        }
    };
    timeout(SOON, enough).await.unwrap_or_else(|_| panic!("fewer than {times} answers of {codes:?}"));
}

const GRANTED: &[&str] = &["ACCEPTED", "ALREADY_CLAIMED"];

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_stopped_or_killed_loses_nothing_and_gives_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let city = Arc::new(City::found(binary(), folder.path(), None));
    let (crowd, running) = Crowd::gather(&city, 8, Duration::from_millis(5));
    until(&crowd, GRANTED, 100).await;
    for at in [0, 1] {
        city.signal(at, "-STOP");
        until(&crowd, &["INTENT"], 60).await;
        city.signal(at, "-CONT");
        until(&crowd, GRANTED, 50).await;
        // While intents may still be on their way, either side dies.
        city.strike(at);
        until(&crowd, GRANTED, 50).await;
        city.strike(1 - at);
        until(&crowd, GRANTED, 50).await;
    }
    crowd.go_home(running).await;
    city.settled().await;
    let (users, intents) = crowd.judge().await;
    assert!(users > 400 && intents >= 60, "{users} users, {intents} intents");
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_cut_off_from_each_other_give_intents_and_settle_them() {
    let folder = tempfile::tempdir().unwrap();
    let city = Arc::new(City::found(binary(), folder.path(), Some(Lines::lay())));
    let (crowd, running) = Crowd::gather(&city, 8, Duration::from_millis(5));
    let lines = city.lines.as_ref().unwrap();
    until(&crowd, GRANTED, 100).await;
    for _ in 0..2 {
        lines.cut(true);
        until(&crowd, &["INTENT"], 200).await;
        lines.cut(false);
        until(&crowd, GRANTED, 100).await;
    }
    crowd.go_home(running).await;
    city.settled().await;
    let (users, intents) = crowd.judge().await;
    assert!(users > 600 && intents >= 400, "{users} users, {intents} intents");
}

#[test]
fn yesterdays_file_does_not_open_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let start = |homes: &str, extra: &[&str]| {
        std::fs::write(folder.path().join("homes.toml"), homes).unwrap();
        let output = Command::new(binary())
            .args(["upstream", "claim", "--while-stdin-open", "--log", "error", "--home", "a", "--homes"])
            .arg(folder.path().join("homes.toml"))
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(extra)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let homes = |epoch: u32, of_a: &str, of_b: &str| {
        format!(
            "epoch = {epoch}\n[[home]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\nsets = [\"{of_a}\"]\n\
             [[home]]\nname = \"b\"\nurl = \"http://127.0.0.1:2\"\nsets = [\"{of_b}\"]\n"
        )
    };
    assert!(start(&homes(2, "00-7f", "80-ff"), &[]).0);
    let (went, words) = start(&homes(1, "00-7f", "80-ff"), &[]);
    assert!(!went && words.contains("held under epoch 2"), "{words}");
    let (went, words) = start(&homes(2, "00-8f", "90-ff"), &[]);
    assert!(!went && words.contains("greater epoch"), "{words}");
    let (went, words) = start(&homes(3, "00-8f", "90-ff"), &[]);
    assert!(!went && words.contains("16 sets") && words.contains("--take-over"), "{words}");
    assert!(start(&homes(3, "00-8f", "90-ff"), &["--take-over"]).0);
    let (went, words) = start(&homes(4, "00-8f", "8f-ff"), &[]);
    assert!(!went && words.contains("set 8f has two homes: a and b"), "{words}");
}

/// Sets of the home `name` by the file, and of the other.
fn sets(city: &City, name: &str) -> (Vec<u8>, Vec<u8>) {
    let homes = Homes::load(&city.folder().join("homes.toml")).unwrap();
    let sets = homes.sets_of(homes.place(name).unwrap());
    (0..=u8::MAX).partition(|set| sets.has(*set))
}

/// A file in which `a` has these sets and `b` the others, under another epoch.
fn write_homes(city: &City, epoch: u64, of_a: &[u8]) {
    let path = city.folder().join("homes.toml");
    let homes = Homes::load(&path).unwrap();
    let mut text = format!("epoch = {epoch}\n");
    for home in homes.all() {
        let is_its = |set: &u8| of_a.contains(set) == (home.name == "a");
        let sets: Vec<String> = (0..=u8::MAX).filter(is_its).map(|set| format!("\"{set:02x}\"")).collect();
        let (name, url) = (&home.name, &home.doors[0].url);
        text += &format!("[[home]]\nname = \"{name}\"\nurl = \"{url}\"\nsets = [{}]\n", sets.join(", "));
    }
    std::fs::write(path.with_extension("new"), text).unwrap();
    std::fs::rename(path.with_extension("new"), path).unwrap();
}

/// Users who live in these sets.
fn users(sets: Vec<u8>) -> impl Iterator<Item = String> {
    let lives = move |user: &String| sets.contains(&OrderNo::set_of(&UserId::parse(user).unwrap()));
    (0..).map(|n| format!("citizen-{n}")).filter(lives)
}

/// What a claim of `user` is told at `peer`; `-` without an answer.
async fn claim(peer: &Peer, user: &str) -> String {
    let wish = json!({ "packet_id": "p1", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r1" });
    let headers = [("x-user-id", user), ("idempotency-key", "k")];
    let reply = peer.call(Method::POST, "/v1/claims", wish.to_string().into(), &headers, Duration::from_secs(4)).await;
    let said = reply.ok().and_then(|reply| serde_json::from_slice::<Value>(&reply.body).ok()).unwrap_or_default();
    said["code"].as_str().or(said["error"].as_str()).unwrap_or("-").to_owned()
}

async fn soon(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Sets move while both homes run: the one that loses them passes their users on at once, the one that is to have them wants
/// a person's word, and until then their claims are intents.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_moves_users_without_a_restart_and_gains_want_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let city = City::found(binary(), folder.path(), None);
    let (mut of_a, of_b) = sets(&city, "a");
    let moving = of_a.split_off(of_a.len() - 16);
    let (mut stay, mut move_on, mut others) = (users(of_a.clone()), users(moving), users(of_b));
    let epoch = async |at: usize| city.metric(at, "springtide_redpacket_homes_epoch").await;
    for user in [stay.next().unwrap(), others.next().unwrap()] {
        assert_eq!(claim(&city.peer(0), &user).await, "ACCEPTED");
    }
    write_homes(&city, 2, &of_a);
    soon("a goes by the new file", async || epoch(0).await == 2.0).await;
    soon("b complains", async || city.metric(1, "springtide_redpacket_homes_refused").await == 1.0).await;
    assert_eq!(epoch(1).await, 1.0);
    for user in move_on.by_ref().take(5) {
        assert_eq!(claim(&city.peer(0), &user).await, "INTENT", "no longer here, and not there yet");
    }
    assert_eq!(claim(&city.peer(0), &stay.next().unwrap()).await, "ACCEPTED");
    assert_eq!(city.orders(0).await, 2);
    city.strike_and_start(1, &["--take-over"]);
    city.settled().await;
    assert_eq!(claim(&city.peer(0), &move_on.next().unwrap()).await, "ACCEPTED");
    assert_eq!((city.orders(0).await, city.orders(1).await), (2, 1 + 5 + 1));
}

/// Users of one home only claim: they get the other home's part of the gift, too, whichever of the two dies meanwhile, also
/// with stock on its way. In the end every gift has been given once, and nobody gets one more.
#[tokio::test(flavor = "multi_thread")]
async fn stock_goes_where_it_is_claimed_and_none_of_it_is_lost_or_given_twice() {
    const STOCK: u64 = 400;
    let folder = tempfile::tempdir().unwrap();
    let city = City::stocked(binary(), folder.path(), None, STOCK);
    let both = async || (city.stock(0, "gold-ingots").await, city.stock(1, "gold-ingots").await);
    assert_eq!(both().await, ((STOCK / 2, 0), (STOCK / 2, 0)));
    let seed = std::env::var("CRASH_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| Rng::from_os().next_u64());
    eprintln!("CRASH_SEED={seed}");
    let mut luck = Rng::seeded(seed);
    let (of_a, of_b) = sets(&city, "a");
    let (mut of_a, mut of_b) = (users(of_a), users(of_b));
    let (mut given, mut deaths, mut user) = (0, 0, of_a.next().unwrap());
    let began = Instant::now();
    while given < STOCK {
        assert!(began.elapsed() < SOON, "{given} of {STOCK} given, {deaths} deaths: {:?}", both().await);
        match claim(&city.peer(0), &user).await.as_str() {
            "ACCEPTED" | "ALREADY_CLAIMED" => {
                given += 1;
                user = of_a.next().unwrap();
            }
            "SOLD_OUT" if deaths < 12 => {
                // Who starts asks at once: this is when stock is on its way.
                city.strike(0);
                sleep(Duration::from_millis(luck.below(40))).await;
                city.strike(luck.below(2) as usize);
                deaths += 2;
            }
            "SOLD_OUT" | "DEADLINE" | "UNAVAILABLE" | "-" => sleep(Duration::from_millis(20)).await,
            other => panic!("{other}"),
        }
        let ((total_a, issued_a), (total_b, issued_b)) = both().await;
        assert!(total_a + total_b <= STOCK && issued_a <= total_a && issued_b == 0, "{:?}", both().await);
    }
    let done =
        |((total_a, issued_a), (total_b, issued_b))| (total_a + total_b, issued_a, issued_b) == (STOCK, STOCK, 0);
    soon("every gift is somewhere", async || done(both().await)).await;
    assert_eq!(claim(&city.peer(0), &of_a.next().unwrap()).await, "SOLD_OUT");
    assert_eq!(claim(&city.peer(1), &of_b.next().unwrap()).await, "SOLD_OUT");
    assert_eq!((city.orders(0).await, city.orders(1).await), (STOCK, 0));
    assert!(deaths >= 2, "nobody died");
}

/// A real edge before both homes.
struct Gate {
    child: std::process::Child,
    peer: Peer,
    admin: Peer,
}

impl Gate {
    fn open(city: &City) -> Self {
        let [a, b] = [0, 1].map(|at| city.peer(at).origin().to_string().trim_start_matches("http://").to_owned());
        let config = city.folder().join("edge.toml");
        let text = format!(
            "[node]\nname = \"edge\"\ndatacenter = \"here\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[datacenter]]\nname = \"here\"\n\
             [[service]]\nname = \"claim\"\nbalance = \"user-home\"\nhomes = \"homes.toml\"\nhome_down = \"elsewhere\"\n\
             deadline = \"3s\"\nprobe = {{ http = \"/healthz\" }}\nbackends.here = [\"{a}\", \"{b}\"]\n\
             [[listener]]\nname = \"public\"\nlisten = \"127.0.0.1:0\"\n\
             [[route]]\nmatch = {{ path_prefix = \"/v1/claims\" }}\nservice = \"claim\"\nuser = \"header:x-user-id\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(binary())
            .args(["run", "-c"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(config.with_extension("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(config.with_extension("log")).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the edge did not start:\n{}", log()));
        let peer = |address: &Value| Peer::new(format!("http://{}", address.as_str().unwrap()).parse().unwrap());
        Self { child, peer: peer(&ready["http"]["public"][0]), admin: peer(&ready["admin"]) }
    }

    /// Under which epoch it sends users home.
    async fn epoch(&self) -> u64 {
        let path = "/v1/explain/http?host=x&path=/v1/claims&method=POST&user=u";
        let said: Value = serde_json::from_slice(&self.admin.get(path, SOON).await.unwrap().body).unwrap();
        said["service"]["homes"]["epoch"].as_u64().unwrap_or_else(|| panic!("{said}"))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Behind an edge, a home's death costs its users no answer: from the first claim on they are told INTENT by the other, and
/// once it is back they have their orders. And the edge follows the file as the homes do.
#[tokio::test(flavor = "multi_thread")]
async fn through_an_edge_the_users_of_a_dead_home_are_noted_elsewhere_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let city = City::found(binary(), folder.path(), None);
    let gate = Gate::open(&city);
    let (of_a, of_b) = sets(&city, "a");
    let (mut of_a_users, mut of_b_users) = (users(of_a.clone()), users(of_b));
    for _ in 0..10 {
        assert_eq!(claim(&gate.peer, &of_a_users.next().unwrap()).await, "ACCEPTED");
        assert_eq!(claim(&gate.peer, &of_b_users.next().unwrap()).await, "ACCEPTED");
    }
    city.kill(0);
    let mut noted = Vec::new();
    for n in 0..30 {
        let user = of_a_users.next().unwrap();
        assert_eq!(claim(&gate.peer, &user).await, "INTENT", "claim {n} after its home's death");
        assert_eq!(claim(&gate.peer, &of_b_users.next().unwrap()).await, "ACCEPTED", "the living home's users");
        noted.push(user);
    }
    city.strike(0);
    city.settled().await;
    soon("users go home again", async || claim(&gate.peer, &of_a_users.next().unwrap()).await == "ACCEPTED").await;
    for user in &noted {
        assert_eq!(claim(&gate.peer, user).await, "ALREADY_CLAIMED", "{user}");
    }
    assert!(city.orders(0).await > 10 + 30, "each of them once, at home");
    assert_eq!(city.orders(1).await, 10 + 30);
    assert_eq!(gate.epoch().await, 1);
    let path = city.folder().join("homes.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("epoch = 1", "epoch = 2").replace("name = \"b\"", "name = \"a\"")).unwrap();
    let refused = async || {
        let page = gate.admin.get("/metrics", SOON).await.unwrap();
        String::from_utf8_lossy(&page.body).lines().any(|line| line == "springtide_control_reload_refused 1")
    };
    soon("the edge refuses a file that is wrong", &refused).await;
    assert_eq!(gate.epoch().await, 1);
    std::fs::write(&path, good.replace("epoch = 1", "epoch = 2")).unwrap();
    soon("the edge goes by the new file", async || gate.epoch().await == 2).await;
    soon("and has nothing to complain of", async || !refused().await).await;
}
