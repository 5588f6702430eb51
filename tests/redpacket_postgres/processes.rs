//! Claim processes that share a database and are killed under load; and what reconciliation says of it, before and after
//! somebody has meddled.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::json;
use springtide::redpacket::model::OrderNo;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::cluster::Cluster;
use super::crowd::{Crowd, PROGRAM, Process, SOON, all_done, ask, claim, deaths, eventually, luck, path, reconcile};

type Number = &'static [u8; 17];

/// Makes the game forget one order that it applied, and give another twice. Tells which.
pub(crate) fn meddle(game: &Path) -> (String, String) {
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

/// Clients, two claim processes on one database, and a death after every few answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_a_database_and_die_by_turns() {
    const EACH: usize = 50;
    let (deaths, mut rng) = (deaths(14), luck());
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
    let (crowd, clients) = Crowd::start(there, users, 16);
    for death in 0..deaths {
        let enough = death * EACH + rng.below(EACH as u64) as usize;
        eventually("answers", async || (crowd.answers() >= enough).then_some(())).await;
        sleep(Duration::from_micros(rng.below(8_000))).await;
        // The other goes on meanwhile; clients of the dead one ask it.
        drop(alive.remove(death % 2));
        here.send_replace(peers(&alive));
        alive.insert(death % 2, Process::start("claim", &args));
        here.send_replace(peers(&alive));
    }
    timeout(SOON, all_done(clients)).await.expect("in time");
    let told = crowd.told.lock().unwrap().clone();
    assert_eq!(told.values().collect::<BTreeSet<_>>().len(), users, "one order each");
    let stats = eventually("all delivered", async || {
        let stats = ask(&alive[0].peer, "/internal/stats").await;
        (stats["delivered"].as_u64() == Some(users as u64)).then_some(stats)
    })
    .await;
    let ingots = stats["stock"].as_array().unwrap().iter().find(|s| s[0] == "gold-ingots").unwrap();
    assert_eq!(ingots[1]["issued"], users, "stock is exact");
    let tally = ask(&game.peer, "/stats").await;
    assert_eq!((&tally["applied"], &tally["orders"]), (&json!(users), &json!(users)), "{tally}");
    eprintln!("{users} orders, {deaths} deaths, the game was told of {} twice", tally["duplicates"]);
    drop((alive, game));
    let (code, report, table) = reconcile(&["--postgres", &url, "--game-data", path(&game_dir)]);
    assert_eq!((code, &report["orders"], &report["differences"]), (Some(0), &json!(users), &json!([])), "{report}");
    assert!(table.contains("0 differences"), "{table}");
    // Somebody deletes an order, and the game errs twice.
    let (lost, twice) = meddle(&game_dir);
    let gone = told.values().find(|no| **no != lost && **no != twice).unwrap();
    let client = cluster.connect(&database).await.unwrap();
    let sql = format!("DELETE FROM redpacket.orders WHERE order_no = decode('{gone}', 'hex')");
    client.batch_execute(&sql).await.unwrap();
    let (code, report, table) = reconcile(&["--postgres", &url, "--game-data", path(&game_dir)]);
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
        let stats = ask(&process.peer, "/internal/stats").await;
        (stats["delivered"] == 30).then_some(())
    })
    .await;
    // While they run, over HTTP.
    let mut command = Command::new(PROGRAM);
    let live = command.args(["reconcile", "--claims", &process.origin(), "--game", &game.origin()]).output().unwrap();
    assert!(live.status.success(), "{live:?}");
    drop((process, game));
    let orders = ["--data", path(&data), "--game-data", path(&game_dir)];
    let (code, report, _) = reconcile(&orders);
    assert_eq!((code, &report["orders"], &report["applied"]), (Some(0), &json!(30), &json!(30)), "{report}");
    let (lost, twice) = meddle(&game_dir);
    let (code, report, table) = reconcile(&orders);
    assert_eq!((code, &report["counts"]), (Some(2), &json!({ "lost": 1, "given_twice": 1 })), "{report}");
    assert!(table.contains(&lost) && table.contains(&twice), "{table}");
    let missing = Command::new(PROGRAM)
        .args(["reconcile", "--data", "/nonexistent", "--game-data"])
        .arg(&game_dir)
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1), "a store that is not there is no store without orders");
}
