//! The red-packet processes killed, stopped and misused: the real binary, real sockets, real files.
//!
//! A seed decides when to kill; `CRASH_SEED=` replays one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the seed of a failed run")]

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[path = "redpacket_crash/cash.rs"]
mod cash;
#[path = "crowd/mod.rs"]
mod crowd;

use crowd::{Crowd, Process, SOON, all_done, ask, body, claim, deaths, eventually, luck, path};

/// I1, I2, I4 and I5 over many deaths at random moments under load.
#[tokio::test]
async fn what_was_promised_survives_every_death_and_is_given_once() {
    const EACH: usize = 60;
    let (rounds, mut rng) = (deaths(20), luck());
    let dir = tempfile::tempdir().unwrap();
    let game = Process::start("game", &["--data", path(&dir.path().join("game"))]);
    let (orders, origin) = (dir.path().join("claims"), game.origin());
    let args = [
        "--data",
        path(&orders),
        "--game",
        &origin,
        "--delivery-timeout",
        "300ms",
        "--lease",
        "600ms",
        "--rate",
        "5000 rps",
    ];
    let (here, alive) = watch::channel(Vec::new());
    let (crowd, clients) = Crowd::start(alive, rounds * EACH, 16);
    let run = async {
        for round in 0..rounds {
            let process = Process::start("claim", &args);
            here.send_replace(vec![process.peer.clone()]);
            // Somewhere in this round's answers, and a moment into what follows them.
            let enough = round * EACH + rng.below(EACH as u64) as usize;
            eventually("answers", async || (crowd.answers() >= enough).then_some(())).await;
            sleep(Duration::from_micros(rng.below(8_000))).await;
            here.send_replace(Vec::new());
            process.kill();
        }
        let process = Process::start("claim", &args);
        here.send_replace(vec![process.peer.clone()]);
        all_done(clients).await;
        process
    };
    let process = timeout(Duration::from_secs(35 + rounds as u64), run).await.expect("within its time");
    // What was leased at a death waits for its lease's end, and what failed then for its next try.
    let patience = SOON + Duration::from_millis(500 * rounds as u64);
    let delivered = async {
        loop {
            let stats = ask(&process.peer, "/internal/stats").await;
            if stats["delivered"].as_u64() == Some((rounds * EACH) as u64) {
                return stats;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let stats = timeout(patience, delivered).await.expect("all delivered in time");
    let told = crowd.told.lock().unwrap().clone();
    assert_eq!(told.len(), rounds * EACH);
    assert_eq!(told.values().collect::<BTreeSet<_>>().len(), told.len(), "one order each");
    for (user, order_no) in &told {
        let headers = [("x-user-id", user.as_str())];
        let path = format!("/v1/claims/{order_no}");
        let found = process.peer.call(Method::GET, &path, Bytes::new(), &headers, SOON).await.unwrap();
        assert_eq!((found.status.as_u16(), body(&found)["state"].as_str()), (200, Some("DELIVERED")), "{user}");
        assert_eq!(ask(&game.peer, &format!("/ledger/{order_no}")).await["order_no"], order_no.as_str());
    }
    let ingots = stats["stock"].as_array().unwrap().iter().find(|s| s[0] == "gold-ingots").unwrap();
    assert_eq!(ingots[1]["issued"], told.len(), "stock is exact");
    let tally = ask(&game.peer, "/stats").await;
    assert_eq!((&tally["applied"], &tally["orders"]), (&json!(told.len()), &json!(told.len())), "{tally}");
    eprintln!("{} orders, {rounds} deaths, the game was told of {} twice", told.len(), tally["duplicates"]);
}

#[tokio::test]
async fn a_worker_of_its_own_delivers_what_several_claim_processes_hold() {
    let dir = tempfile::tempdir().unwrap();
    let game = Process::start("game", &[]);
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    let claims = [Process::start("claim", &["--data", path(&one)]), Process::start("claim", &["--data", path(&two)])];
    for user in 0..20 {
        let reply = claim(&claims[user % 2].peer, &format!("u{user}")).await.unwrap();
        assert_eq!(reply.status, 202);
    }
    let urls = format!("{},{}", claims[0].origin(), claims[1].origin());
    let worker = Process::start("delivery", &["--claims", &urls, "--game", &game.origin()]);
    assert_eq!(ask(&worker.peer, "/healthz").await["code"], "OK");
    eventually("all delivered", async || (ask(&game.peer, "/stats").await["applied"] == 20).then_some(())).await;
    for process in &claims {
        eventually("written down", async || {
            (ask(&process.peer, "/internal/stats").await["delivered"] == 10).then_some(())
        })
        .await;
    }
    let metrics = worker.peer.get("/metrics", SOON).await.unwrap();
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(text.contains("springtide_redpacket_deliveries_total{game=\"others\",result=\"delivered\"} 20"), "{text}");
    assert!(worker.stop().await.success());
}

#[tokio::test]
async fn a_stop_lets_running_requests_end_and_starts_again_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let game = Process::start("game", &[]);
    let slow = Bytes::from_static(b"{\"delay_ms\": 400}");
    game.peer.post("/fault", slow, SOON).await.unwrap();
    let origin = game.origin();
    let args = ["--data", path(dir.path()), "--game", &origin];
    let process = Process::start("claim", &args);
    let reply = claim(&process.peer, "u1").await.unwrap();
    assert_eq!(reply.status, 202);
    let order_no = body(&reply)["order_no"].clone();
    eventually("under way", async || (ask(&process.peer, "/internal/stats").await["delivering"] == 1).then_some(()))
        .await;
    assert!(process.stop().await.success());
    assert_eq!(ask(&game.peer, "/stats").await["applied"], 1, "the delivery that was under way ended");
    let process = Process::start("claim", &args);
    let again = claim(&process.peer, "u1").await.unwrap();
    assert_eq!((again.status.as_u16(), &body(&again)["order_no"]), (200, &order_no));
    assert_eq!(body(&again)["state"], "DELIVERED", "and was written down");
}

#[tokio::test]
async fn two_processes_cannot_have_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Process::start("claim", &["--data", path(dir.path())]);
    let mut second = Process::command("claim", &["--data", path(dir.path())]);
    let mut child = second.stderr(Stdio::piped()).spawn().unwrap();
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(words.contains("in use by another process"), "{words}");
}

#[tokio::test]
async fn over_its_limit_a_process_says_so_at_once() {
    let game = Process::start("game", &["--limit", "2"]);
    game.peer.post("/fault", Bytes::from_static(b"{\"delay_ms\": 10000}"), SOON).await.unwrap();
    let mut stuck = JoinSet::new();
    for n in 0..2 {
        let peer = game.peer.clone();
        // Again where it was turned away itself, by a question of ours that stood in its place.
        stuck.spawn(async move {
            while peer.get(&format!("/roles?user=u{n}&game_id=g"), SOON).await.unwrap().status == 503 {}
        });
    }
    let refused = eventually("it is full", async || {
        let reply = game.peer.get("/stats", SOON).await.unwrap();
        (reply.status == 503).then_some(reply)
    })
    .await;
    let refused = body(&refused);
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("OVERLOADED"), &json!(true)));
    assert_eq!(ask(&game.peer, "/healthz").await["code"], "OK", "busy is not dead");
}
