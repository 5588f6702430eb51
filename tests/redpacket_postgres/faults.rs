//! Serialisation failures and deadlocks, forced upon both stores: the answer is right, and nothing happens twice.

use std::sync::Arc;

use springtide::base::clock::Wall;
use springtide::redpacket::ledger::cash::audit::audit;
use springtide::redpacket::ledger::cash::{Created, Deposited, Opened, PacketStore};
use springtide::redpacket::ledger::{Claimed, Store};
use springtide::redpacket::model::{GiftId, Settled, Settlement, State, Verdict};
use springtide::redpacket::store::postgres::{Options, PostgresPackets};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::blows::{claim, crowd, exact};
use super::cash::{deposit, filled, openers, packet, packing};
use super::cluster::Cluster;
use super::crowd::{SOON, eventually};

/// Every other transaction that counts in `table` fails with `code`: in the statement, or when it is committed.
async fn fail(client: &Client, table: &str, code: &str, at_commit: bool) {
    let (kind, when) = if at_commit {
        ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW")
    } else {
        ("TRIGGER", "FOR EACH STATEMENT")
    };
    let sql = format!(
        "SET search_path = redpacket; DROP TRIGGER IF EXISTS strike ON {table}; DROP SEQUENCE IF EXISTS blows; \
         CREATE SEQUENCE blows; CREATE OR REPLACE FUNCTION strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           IF nextval('redpacket.blows') % 2 <> 0 THEN RAISE EXCEPTION 'forced' USING ERRCODE = '{code}'; END IF; \
           RETURN NULL; END $$; \
         CREATE {kind} strike AFTER UPDATE ON {table} {when} EXECUTE FUNCTION strike()"
    );
    client.batch_execute(&sql).await.unwrap();
}

/// How often it was asked.
async fn blows(client: &Client) -> i64 {
    client.query_one("SELECT last_value FROM redpacket.blows", &[]).await.unwrap().get(0)
}

const KINDS: [(&str, bool); 4] = [("40001", false), ("40001", true), ("40P01", false), ("40P01", true)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_survive_transactions_that_the_server_undoes() {
    let cluster = Cluster::shared().await;
    for (code, at_commit) in KINDS {
        let database = cluster.database().await;
        let store = Arc::new(cluster.store(&database).await);
        store.provision(GiftId::parse("g").unwrap(), 100).await.unwrap();
        let client = cluster.connect(&database).await.unwrap();
        fail(&client, "tally", code, at_commit).await;
        let told = timeout(SOON, crowd(&store, 30, 6)).await.expect("in time");
        exact(&store, &told).await;
        let leased = store.lease(50, Wall(100), Wall(10)).await.unwrap();
        assert!(leased.iter().all(|o| o.attempts == 1) && leased.len() == 30, "{code}: leased once: {leased:?}");
        let word = |o: &springtide::redpacket::model::Order| Settlement {
            order_no: o.order_no,
            attempt: 1,
            verdict: Verdict::Delivered,
        };
        let settled = store.settle(leased.iter().map(word).collect(), Wall(20)).await.unwrap();
        assert_eq!(settled, vec![Settled::Moved(State::Delivered); 30], "{code}");
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.delivered, stats.orders(), stats.stock[0].1.issued), (30, 30, 30), "{code}: {stats:?}");
        assert!(blows(&client).await > 8, "{code}: it was forced");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cash_survives_transactions_that_the_server_undoes() {
    let cluster = Cluster::shared().await;
    for (code, at_commit) in KINDS {
        let database = cluster.database().await;
        let store = Arc::new(PostgresPackets::open(&Options::new(cluster.url(&database))).await.unwrap());
        let client = cluster.connect(&database).await.unwrap();
        fail(&client, "till", code, at_commit).await;
        // Each of these is what it is where nothing fails: what was undone was not done.
        assert!(matches!(store.deposit(deposit(5_000)).await.unwrap(), Deposited::Done(a) if a.balance_fen == 5_000));
        assert!(matches!(store.create(packing("p", 1_000, 20), Wall(1)).await.unwrap(), Created::Funded(_)));
        let mut opening = JoinSet::new();
        for from in [0, 6, 12, 18] {
            let store = store.clone();
            opening.spawn(async move { store.open(packet("p"), openers(from..from + 6), Wall(2)).await });
        }
        let (mut shares, mut refused) = (0, 0);
        while let Some(opens) = timeout(SOON, opening.join_next()).await.expect("in time") {
            for opened in opens.unwrap().unwrap().each {
                match opened {
                    Opened::Share(_) => shares += 1,
                    Opened::SoldOut => refused += 1,
                    other => panic!("{code}: {other:?}"),
                }
            }
        }
        assert_eq!((shares, refused), (20, 4), "{code}");
        let leased = store.lease(50, Wall(100), Wall(10)).await.unwrap();
        assert!(leased.iter().all(|s| s.booking.attempts == 1) && leased.len() == 20, "{code}: leased once");
        let word = |s: &springtide::redpacket::model::cash::Share| Settlement {
            order_no: s.order_no,
            attempt: 1,
            verdict: Verdict::Delivered,
        };
        let settled = store.settle(leased.iter().map(word).collect(), Wall(20)).await.unwrap();
        assert_eq!(settled, vec![Settled::Moved(State::Delivered); 20], "{code}");
        assert!(matches!(store.create(packing("q", 500, 5), Wall(1)).await.unwrap(), Created::Funded(_)));
        let swept = store.sweep(10, Wall(9_000)).await.unwrap();
        assert_eq!(swept.iter().map(|p| p.refund_fen).collect::<Vec<_>>(), [500], "{code}: once");
        assert_eq!(store.account(deposit(1).payer).await.unwrap().unwrap().balance_fen, 4_000, "{code}");
        assert_eq!(audit(&*store).await.unwrap().told, Vec::<String>::new(), "{code}");
        assert!(blows(&client).await >= 16, "{code}: it was forced");
    }
}

/// Another session holds the rows of `first`, which the store wants last, and asks for those of `then`, which it has by then:
/// a circle, and the server ends it at the cost of who waited first.
async fn circle<T>(cluster: &Cluster, database: &str, [first, then]: [&str; 2], work: impl Future<Output = T>) -> T {
    let mut other = cluster.connect(database).await.unwrap();
    // It is never the one to look for deadlocks.
    other.batch_execute("SET deadlock_timeout = '10min'").await.unwrap();
    let held = other.transaction().await.unwrap();
    held.batch_execute(&format!("SELECT FROM redpacket.{first} FOR UPDATE")).await.unwrap();
    let meddle = async {
        cluster.waiting(database).await;
        held.batch_execute(&format!("SELECT FROM redpacket.{then} FOR UPDATE")).await.expect("the store is the victim");
        held.rollback().await.unwrap();
    };
    let (done, ()) = timeout(SOON, async { tokio::join!(work, meddle) }).await.expect("in time");
    let client = cluster.connect("postgres").await.unwrap();
    eventually("the server counts a deadlock", async || {
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1";
        (client.query_one(sql, &[&database]).await.unwrap().get::<_, i64>(0) > 0).then_some(())
    })
    .await;
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_was_the_victim_of_a_deadlock_is_made_once() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = Arc::new(cluster.store(&database).await);
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    let told = crowd(&store, 2, 1).await;
    let claimed = circle(cluster, &database, ["tally", "bucket"], store.claim(claim(7), Wall(1))).await.unwrap();
    let Claimed::Accepted(order) = claimed else { panic!("{claimed:?}") };
    let mut told = told;
    told.insert(7, order.order_no);
    exact(&store, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_that_was_the_victim_of_a_deadlock_is_opened_once() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = filled(cluster, &database).await;
    let work = store.open(packet("p"), openers(0..5), Wall(2));
    let opens = circle(cluster, &database, ["till", "packet"], work).await.unwrap();
    assert!(opens.each.iter().all(|o| matches!(o, Opened::Share(_))), "{opens:?}");
    assert_eq!(opens.packet.unwrap().opened_count(), 5);
    let report = audit(&store).await.unwrap();
    assert_eq!((report.shares, report.differences), (5, 0), "{:?}", report.told);
}
