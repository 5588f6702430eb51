//! The store on PostgreSQL: the laws, random stories, and a server that dies, freezes and forgets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use springtide::base::clock::Wall;
use springtide::redpacket::ledger::conformance::{Making, Subject, run, walk};
use springtide::redpacket::ledger::{Claimed, Store, StoreError};
use springtide::redpacket::model::{
    ActivityId, Claim, Failure, GiftId, Order, OrderNo, PacketId, Resolution, RoleId, Settlement, UserId, Verdict,
    ZoneId,
};
use springtide::redpacket::store::postgres::{ConnectError, Options, PostgresStore};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, cut};

const SOON: Duration = Duration::from_mins(1);

pub(crate) fn claim(user: usize) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse("p").unwrap(),
        user_id: UserId::parse(&format!("user-{user}")).unwrap(),
        gift_id: GiftId::parse("g").unwrap(),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse("r").unwrap(),
        idempotency_key: None,
    }
}

/// Stores on a server of their own, which is struck.
struct OnServer {
    cluster: Cluster,
    database: Mutex<String>,
    blows: AtomicU64,
}

impl OnServer {
    fn open(&self) -> Making<'_> {
        Box::pin(async {
            let database = self.database.lock().await.clone();
            let store = PostgresStore::open(&Options::new(self.cluster.url(&database))).await;
            store.map(|s| Arc::new(s) as Arc<dyn Store>).map_err(|e| e.to_string())
        })
    }
}

impl Subject for OnServer {
    fn fresh(&self) -> Making<'_> {
        Box::pin(async {
            *self.database.lock().await = self.cluster.database().await;
            self.open().await
        })
    }

    fn reopened(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }

    fn beside(&self, _: &Arc<dyn Store>) -> Option<Making<'_>> {
        Some(self.open())
    }

    /// In turn: every connection is cut, and the old handle must do; or the server dies, and an old or a new handle must.
    fn struck(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        Some(Box::pin(async move {
            let blow = self.blows.fetch_add(1, Ordering::Relaxed);
            if blow.is_multiple_of(3) {
                cut(&self.cluster, &self.database.lock().await.clone()).await;
                return Ok(store);
            }
            self.cluster.strike().await;
            self.cluster.run().await;
            if blow % 3 == 1 { Ok(store) } else { self.open().await }
        }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_laws() {
    let cluster = Cluster::start().await;
    let subject = OnServer { cluster, database: Mutex::default(), blows: AtomicU64::new(0) };
    let held = run(&subject).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(held.len(), 13, "{held:?}");
}

/// One database, emptied for each story.
struct Emptied(&'static Cluster, String);

impl Subject for Emptied {
    fn fresh(&self) -> Making<'_> {
        Box::pin(async {
            let store = self.0.store(&self.1).await;
            let client = self.0.connect(&self.1).await.unwrap();
            let sql = "SET search_path = redpacket; TRUNCATE bucket, gift, transfer, orders, outbox, dead, delivery_log; \
                       UPDATE tally SET accepted = 0, delivering = 0, retry_wait = 0, delivered = 0, dead = 0, compensated = 0";
            client.batch_execute(sql).await.map_err(|e| e.to_string())?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_the_book_does() {
    const STORIES: u64 = 64;
    let cluster = Cluster::shared().await;
    let mut all = JoinSet::new();
    for part in 0..4 {
        all.spawn(async move {
            let subject = Emptied(cluster, cluster.database().await);
            for seed in (0..STORIES).filter(|seed| seed % 4 == part) {
                walk(&subject, seed, 80).await.unwrap_or_else(|e| panic!("{e}"));
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

/// Everybody claims until there is an answer; what they were told is returned.
pub(crate) async fn crowd(store: &Arc<PostgresStore>, users: usize, clients: usize) -> BTreeMap<usize, OrderNo> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (store, next) = (store.clone(), next.clone());
        all.spawn(async move {
            let mut told = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user >= users {
                    return told;
                }
                loop {
                    match store.claim(claim(user), Wall(1)).await {
                        Ok(Claimed::Accepted(order) | Claimed::Already(order)) => {
                            break told.push((user, order.order_no));
                        }
                        Ok(other) => panic!("user {user}: {other:?}"),
                        Err(error) => assert!(error.code().retryable(), "{error}"),
                    }
                }
            }
        });
    }
    let mut told = BTreeMap::new();
    while let Some(done) = all.join_next().await {
        told.extend(done.unwrap());
    }
    told
}

pub(crate) async fn exact(store: &PostgresStore, told: &BTreeMap<usize, OrderNo>) {
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.orders(), stats.stock[0].1.issued), (told.len() as u64, told.len() as u64), "{stats:?}");
    let all = store.scan(None, told.len() * 2).await.unwrap();
    let expected: std::collections::BTreeSet<_> = told.values().copied().collect();
    let found: std::collections::BTreeSet<_> = all.iter().map(|t| t.order.order_no).collect();
    assert_eq!((all.len(), found), (told.len(), expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_all_the_time_lose_nothing_and_double_nothing() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = Arc::new(cluster.store(&database).await);
    store.provision(GiftId::parse("g").unwrap(), 5_000).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut cutting = JoinSet::new();
    cutting.spawn({
        let (over, database) = (over.clone(), database.clone());
        async move {
            let mut cuts = 0;
            while !over.load(Ordering::Relaxed) {
                cut(cluster, &database).await;
                cuts += 1;
                sleep(Duration::from_millis(120)).await;
            }
            cuts
        }
    });
    let told = timeout(SOON, crowd(&store, 1_500, 24)).await.expect("in time");
    over.store(true, Ordering::Relaxed);
    let cuts = cutting.join_next().await.unwrap().unwrap();
    exact(&store, &told).await;
    eprintln!("{} orders through {cuts} cuts", told.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_gets_honest_answers_and_is_forgiven() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let mut options = Options::new(cluster.url(&database));
    options.statement_limit = Duration::from_millis(400);
    let store = Arc::new(PostgresStore::open(&options).await.unwrap());
    store.provision(GiftId::parse("g").unwrap(), 500).await.unwrap();
    let warm = crowd(&store, 20, 4).await;
    assert_eq!(warm.len(), 20);
    cluster.freeze(true);
    let mut all = JoinSet::new();
    for user in 0..60 {
        let store = store.clone();
        all.spawn(async move { (user, store.claim(claim(user), Wall(1)).await) });
    }
    let mut unknown = 0;
    while let Some(done) = timeout(SOON, all.join_next()).await.expect("nobody waits for ever") {
        let (user, answer) = done.unwrap();
        let error = answer.expect_err("a server that stands still has answered");
        assert!(error.code().retryable(), "{user}: {error}");
        unknown += usize::from(matches!(error, StoreError::Unknown { .. }));
    }
    assert!(unknown > 0, "what had been sent may be done");
    cluster.freeze(false);
    let told = timeout(SOON, crowd(&store, 60, 8)).await.expect("in time");
    assert_eq!(told.len(), 60);
    exact(&store, &told).await;
    let healed = async {
        while !store.writable() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, healed).await.expect("health comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_refuses_heals_and_is_believed_dead_meanwhile() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let store = Arc::new(cluster.store(&database).await);
    store.provision(GiftId::parse("g").unwrap(), 500).await.unwrap();
    assert!(store.writable());
    cluster.strike().await;
    let error = store.claim(claim(1), Wall(1)).await.unwrap_err();
    assert!(error.code().retryable(), "{error}");
    assert!(!store.writable(), "health checks are told");
    cluster.run().await;
    let healed = async {
        while !store.writable() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, healed).await.expect("without a single claim");
    let told = crowd(&store, 50, 8).await;
    exact(&store, &told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_together_make_the_tables_once() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let mut all = JoinSet::new();
    for _ in 0..6 {
        let url = cluster.url(&database);
        all.spawn(async move { PostgresStore::open(&Options::new(url)).await.map(drop) });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap().unwrap();
    }
    let client = cluster.connect(&database).await.unwrap();
    let rows = client.query("SELECT version FROM redpacket.migration ORDER BY version", &[]).await.unwrap();
    let versions: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let newest = i32::try_from(versions.len()).unwrap();
    assert!(newest >= 1 && versions.iter().copied().eq(1..=newest), "each once, in order: {versions:?}");
    client.batch_execute("INSERT INTO redpacket.migration (version, release) VALUES (99, '9.9')").await.unwrap();
    let error = PostgresStore::open(&Options::new(cluster.url(&database))).await.err().unwrap();
    assert!(matches!(error, ConnectError::Newer { found: 99, known } if known == newest), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_themselves_forbid_what_must_not_be() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = Arc::new(cluster.store(&database).await);
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    crowd(&store, 3, 3).await;
    let client = cluster.connect(&database).await.unwrap();
    client.batch_execute("SET search_path = redpacket").await.unwrap();
    for sql in [
        "UPDATE bucket SET issued = quota + 1",
        "UPDATE bucket SET issued = -1",
        "UPDATE bucket SET quota = issued - 1",
        "INSERT INTO orders SELECT '\\x0102030405060708090a0b0c0d0e0f1011', activity_id, packet_id, user_id, gift_id, \
         zone_id, role_id, NULL, 0, 0, 0, 0, 0, 0, NULL, 0 FROM orders LIMIT 1",
        "UPDATE outbox SET state = 3",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert!(error.code().is_some_and(|c| c.code().starts_with("23")), "{sql}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_may_forget_is_refused_or_overruled() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let client = cluster.connect(&database).await.unwrap();
    client.batch_execute("ALTER SYSTEM SET synchronous_commit = off").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let store = cluster.store(&database).await;
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    drop(store);
    client.batch_execute("ALTER SYSTEM SET fsync = off").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let refused = async {
        loop {
            match PostgresStore::open(&Options::new(cluster.url(&database))).await {
                Err(error) => return error,
                Ok(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let error = timeout(SOON, refused).await.expect("in time");
    assert!(matches!(error, ConnectError::Forgetful { setting: "fsync" }), "{error}");
    let error = PostgresStore::open(&Options::new("postgres://")).await.err().unwrap();
    assert!(matches!(error, ConnectError::Url { .. }), "{error}");
    let error = PostgresStore::open(&Options::new("postgres://u:secret@h/d?sslmode=require")).await.err().unwrap();
    assert!(matches!(error, ConnectError::Url { .. }) && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_verified_and_wants_the_right_password() {
    let cluster = Cluster::start().await;
    let database = cluster.database().await;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    cluster.put("data/server.crt", &own.cert.pem());
    cluster.put("data/server.key", &own.signing_key.serialize_pem());
    cluster.put("data/pg_hba.conf", "local all all trust\nhostssl all orders all scram-sha-256\n");
    let client = cluster.connect(&database).await.unwrap();
    client.batch_execute("CREATE ROLE orders SUPERUSER LOGIN PASSWORD 'a secret'").await.unwrap();
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let file = |name: &str, text: &str| {
        let path = cluster.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let host = format!("hostaddr=127.0.0.1 host=localhost port={} user=orders dbname={database}", cluster.port());
    let mut options = Options::new(&host);
    options.ca = Some(file("ca.pem", &own.cert.pem()));
    options.password_file = Some(file("password", "a secret\n"));
    let opened = async {
        loop {
            // The server may not have read its new settings yet.
            match PostgresStore::open(&options).await {
                Ok(store) => return store,
                Err(error) => assert!(!error.to_string().contains("a secret"), "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let store = Arc::new(timeout(SOON, opened).await.expect("in time"));
    store.provision(GiftId::parse("g").unwrap(), 10).await.unwrap();
    assert_eq!(crowd(&store, 5, 2).await.len(), 5);
    options.password_file = Some(file("password", "a guess\n"));
    let error = PostgresStore::open(&options).await.err().unwrap();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
    options.ca = Some(file("ca.pem", &other.cert.pem()));
    let error = PostgresStore::open(&options).await.err().unwrap();
    assert!(matches!(&error, ConnectError::Unreachable { reason } if reason.contains("certificate")), "{error}");
}

/// A primary, a synchronous standby that follows it, a database, and its URL with both.
pub(crate) async fn replicated() -> (Cluster, Cluster, String, String) {
    let primary = Cluster::start().await;
    let database = primary.database().await;
    let standby = primary.follow().await;
    let client = primary.connect("postgres").await.unwrap();
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let following = async {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, following).await.expect("the standby follows");
    let hosts = format!("{},{}", primary.path().display(), standby.path().display());
    let ports = format!("{},{}", primary.port(), standby.port());
    let url = format!("host={hosts} port={ports} user=postgres dbname={database}");
    (primary, standby, database, url)
}

/// A primary that dies and a synchronous standby that takes its place: whoever was told of an order has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_nothing_that_was_promised() {
    let (primary, standby, database, url) = replicated().await;
    let store = Arc::new(PostgresStore::open(&Options::new(url)).await.unwrap());
    store.provision(GiftId::parse("g").unwrap(), 5_000).await.unwrap();
    let mut claiming = JoinSet::new();
    claiming.spawn({
        let store = store.clone();
        async move { crowd(&store, 1_200, 16).await }
    });
    let enough = async {
        while store.stats().await.is_ok_and(|s| s.orders() < 300) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, enough).await.expect("in time");
    primary.strike().await;
    let promoted = standby.connect("postgres").await.unwrap();
    promoted.batch_execute("SELECT pg_promote()").await.unwrap();
    let told = timeout(SOON, claiming.join_next()).await.expect("in time").unwrap().unwrap();
    assert_eq!(told.len(), 1_200);
    exact(&store, &told).await;
    assert!(primary.connect(&database).await.is_none(), "it is the standby that answers");
}

/// However many orders there are, no statement reads a whole table: the planner, left to itself, does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_goes_by_an_index() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = Arc::new(cluster.store(&database).await);
    let client = cluster.connect(&database).await.unwrap();
    let scans = async || {
        let sql = "SELECT sum(seq_scan)::bigint, sum(idx_scan)::bigint FROM pg_stat_user_tables \
                   WHERE relname IN ('orders', 'outbox', 'delivery_log', 'dead')";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    store.provision(GiftId::parse("g").unwrap(), 500).await.unwrap();
    let (before, _) = scans().await;
    crowd(&store, 100, 8).await;
    for _ in 0..4 {
        let orders = store.lease(20, Wall(50), Wall(10)).await.unwrap();
        let word = |o: &Order| Settlement {
            order_no: o.order_no,
            attempt: 1,
            verdict: Verdict::Dead { why: Failure::Refused },
        };
        store.settle(orders.iter().map(word).collect(), Wall(11)).await.unwrap();
        let dead = store.dead(10).await.unwrap();
        store.resolve(dead.iter().map(|o| o.order_no).collect(), Resolution::Compensate, Wall(12)).await.unwrap();
        store.find(dead[0].order_no).await.unwrap().unwrap();
        store.scan(Some(dead[0].order_no), 10).await.unwrap();
        store.stats().await.unwrap();
    }
    // Sessions report what they did when they end.
    drop(store);
    let reported = async {
        while scans().await.1 < 100 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, reported).await.expect("the server counts");
    assert_eq!(scans().await.0, before, "whole tables were read");
}
