//! Cash on PostgreSQL: the laws, random stories, connections that are cut at the worst moment, answers that are lost, and
//! packet processes that share a database and die under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use springtide::base::clock::Wall;
use springtide::redpacket::ledger::cash::audit::audit;
use springtide::redpacket::ledger::cash::conformance::{Making, Subject, run, walk};
use springtide::redpacket::ledger::cash::{Created, Deposit, Deposited, Opened, Opener, PacketStore};
use springtide::redpacket::model::cash::{Mode, Packing, Seed, Share, Terms};
use springtide::redpacket::model::{
    ActivityId, Failure, IdempotencyKey, PacketId, Resolution, Settled, Settlement, UserId, Verdict,
};
use springtide::redpacket::store::postgres::{Options, PostgresPackets};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::blows::replicated;
use super::cluster::{Cluster, cut};
use super::crowd::cash::{MONEY, Openers, fill, name};
use super::crowd::{Process, SOON, all_done, ask, body, deaths, eventually, luck, path, reconcile};
use super::lossy::Lossy;
use super::processes::meddle;

/// Cash stores on a server of their own, which is struck.
struct OnServer {
    cluster: Cluster,
    database: Mutex<String>,
    blows: AtomicU64,
}

impl OnServer {
    fn open(&self) -> Making<'_> {
        Box::pin(async {
            let database = self.database.lock().await.clone();
            let store = PostgresPackets::open(&Options::new(self.cluster.url(&database))).await;
            store.map(|s| Arc::new(s) as Arc<dyn PacketStore>).map_err(|e| e.to_string())
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

    fn reopened(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
        drop(store);
        Some(self.open())
    }

    fn beside(&self, _: &Arc<dyn PacketStore>) -> Option<Making<'_>> {
        Some(self.open())
    }

    /// In turn: every connection is cut, and the old handle must do; or the server dies, and an old or a new handle must.
    fn struck(&self, store: Arc<dyn PacketStore>) -> Option<Making<'_>> {
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
async fn it_keeps_the_laws_of_cash() {
    let cluster = Cluster::start().await;
    let subject = OnServer { cluster, database: Mutex::default(), blows: AtomicU64::new(0) };
    let held = run(&subject).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(held.len(), 11, "{held:?}");
}

/// One database, emptied for each story.
struct Emptied(&'static Cluster, String);

impl Subject for Emptied {
    fn fresh(&self) -> Making<'_> {
        Box::pin(async {
            let store = store(self.0, &self.1).await;
            let client = self.0.connect(&self.1).await.unwrap();
            let sql = "SET search_path = redpacket; TRUNCATE account, deposit, packet, share, booking, dead_share, till; \
                       INSERT INTO till (slot) SELECT generate_series(0, 31)";
            client.batch_execute(sql).await.map_err(|e| e.to_string())?;
            Ok(Arc::new(store) as Arc<dyn PacketStore>)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_the_book_of_cash_does() {
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
    all_done(all).await;
}

async fn store(cluster: &Cluster, database: &str) -> PostgresPackets {
    PostgresPackets::open(&Options::new(cluster.url(database))).await.unwrap()
}

pub(crate) fn packet(name: &str) -> PacketId {
    PacketId::parse(name).unwrap()
}

pub(crate) fn deposit(fen: u64) -> Deposit {
    let (payer, idempotency_key) = (UserId::parse("payer").unwrap(), IdempotencyKey::parse("paid").unwrap());
    Deposit { payer, idempotency_key, amount_fen: fen }
}

pub(crate) fn packing(name: &str, total_fen: u64, count: u32) -> Packing {
    Packing {
        packet_id: packet(name),
        activity_id: ActivityId::parse("spring").unwrap(),
        payer: UserId::parse("payer").unwrap(),
        terms: Terms { total_fen, count, mode: Mode::DoubleMean, seed: Seed::new([3; 16]) },
        lasts_ms: 1_000,
    }
}

pub(crate) fn openers(users: std::ops::Range<u32>) -> Vec<Opener> {
    let key = |user| IdempotencyKey::parse(&format!("key-{user}")).ok();
    users
        .map(|user| Opener { user_id: UserId::parse(&format!("u{user}")).unwrap(), idempotency_key: key(user) })
        .collect()
}

/// A store with 10,000 fen in one account and a packet `p` of 1,000 fen for 20.
pub(crate) async fn filled(cluster: &Cluster, database: &str) -> PostgresPackets {
    let store = store(cluster, database).await;
    assert!(matches!(store.deposit(deposit(10_000)).await.unwrap(), Deposited::Done(_)));
    assert!(matches!(store.create(packing("p", 1_000, 20), Wall(1)).await.unwrap(), Created::Funded(_)));
    store
}

async fn clean(store: &dyn PacketStore) {
    let report = audit(store).await.unwrap();
    assert_eq!(report.differences, 0, "{:?}", report.told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_the_middle_of_an_open_gives_nobody_two_shares() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = Arc::new(filled(cluster, &database).await);
    for round in 0..5 {
        let mut other = cluster.connect(&database).await.unwrap();
        // Whoever opens has locked the packet, written the shares, and waits to count them.
        let held = other.transaction().await.unwrap();
        held.batch_execute("SELECT FROM redpacket.till FOR UPDATE").await.unwrap();
        let mut opening = JoinSet::new();
        let users = openers(round * 3..round * 3 + 3);
        opening.spawn({
            let store = store.clone();
            async move { store.open(packet("p"), users, Wall(10)).await }
        });
        let waiting = cluster.waiting(&database).await;
        let client = cluster.connect("postgres").await.unwrap();
        client.execute("SELECT pg_terminate_backend($1)", &[&waiting]).await.unwrap();
        held.rollback().await.unwrap();
        let opens = timeout(SOON, opening.join_next()).await.expect("in time").unwrap().unwrap().unwrap();
        assert!(opens.each.iter().all(|o| matches!(o, Opened::Share(_))), "nothing of it was committed: {opens:?}");
        clean(&*store).await;
    }
    assert_eq!(store.shares(packet("p"), 0, 100).await.unwrap().len(), 15);
}

/// The server commits, and the line breaks before it can say so: the next try finds what was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_and_never_answered_is_found_and_not_done_again() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    drop(store(cluster, &database).await);
    let lossy = Lossy::before(cluster.port()).await;
    let url = format!("host=127.0.0.1 port={} user=postgres dbname={database}", lossy.port());
    let store = PostgresPackets::open(&Options::new(url)).await.unwrap();
    lossy.lose(2);
    assert!(matches!(store.deposit(deposit(10_000)).await.unwrap(), Deposited::Already(a) if a.balance_fen == 10_000));
    let made = store.create(packing("p", 1_000, 20), Wall(1)).await.unwrap();
    assert!(matches!(made, Created::Already(_)), "{made:?}");
    assert_eq!(store.account(deposit(1).payer).await.unwrap().unwrap().balance_fen, 9_000);
    lossy.lose(1);
    let opens = store.open(packet("p"), openers(0..8), Wall(10)).await.unwrap();
    assert!(opens.each.iter().all(|o| matches!(o, Opened::Already(_))), "{opens:?}");
    lossy.lose(1);
    let more = store.open(packet("p"), openers(5..10), Wall(10)).await.unwrap();
    let ranks: Vec<u32> = more
        .each
        .iter()
        .map(|o| match o {
            Opened::Already(s) => s.rank,
            _ => 0,
        })
        .collect();
    assert_eq!(ranks, [6, 7, 8, 9, 10]);
    let leased = store.lease(4, Wall(100), Wall(20)).await.unwrap();
    let words: Vec<Settlement> = leased.iter().map(|s| word(s, Verdict::Delivered)).collect();
    lossy.lose(1);
    // The word was taken; said again, it changes nothing.
    assert_eq!(store.settle(words, Wall(30)).await.unwrap(), [Settled::Stale; 4]);
    lossy.lose(1);
    assert!(store.sweep(10, Wall(5_000)).await.unwrap().is_empty(), "given back, and not told");
    assert_eq!(lossy.left(), 0);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.refunded_fen + totals.opened_fen, totals.left_fen, totals.all_shares()), (1_000, 0, 10));
    clean(&store).await;
}

fn word(share: &Share, verdict: Verdict) -> Settlement {
    Settlement { order_no: share.order_no, attempt: share.booking.attempts, verdict }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_of_cash_forbid_what_must_not_be() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let store = filled(cluster, &database).await;
    store.open(packet("p"), openers(0..3), Wall(2)).await.unwrap();
    let client = cluster.connect(&database).await.unwrap();
    client.batch_execute("SET search_path = redpacket").await.unwrap();
    for sql in [
        "UPDATE account SET balance = -1",
        "UPDATE account SET balance = deposited + 1",
        "UPDATE packet SET left_fen = -1",
        "UPDATE packet SET left_fen = total + 1",
        "UPDATE packet SET refund = 1",
        "UPDATE packet SET phase = 2",
        "UPDATE packet SET left_count = -1",
        "UPDATE packet SET left_count = count + 1",
        "UPDATE share SET amount = 0",
        "UPDATE share SET rank = 1",
        "UPDATE share SET user_id = 'u0', idempotency_key = 'key-0'",
        "INSERT INTO share SELECT '\\x0102030405060708090a0b0c0d0e0f1011', packet_id, 'x', NULL, rank, 1, 0, 0, 0, 0, 0, NULL, 0 \
         FROM share LIMIT 1",
        "INSERT INTO deposit SELECT payer, idempotency_key, 5 FROM deposit",
        "UPDATE booking SET state = 3",
        "DELETE FROM account",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert!(error.code().is_some_and(|c| c.code().starts_with("23")), "{sql}: {error:?}");
    }
    clean(&store).await;
}

/// A primary that dies while many open, and a synchronous standby that takes its place: whoever was told of a share has it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_loses_no_fen() {
    const USERS: u32 = 600;
    let (primary, standby, _, url) = replicated().await;
    let store = Arc::new(PostgresPackets::open(&Options::new(url)).await.unwrap());
    store.deposit(deposit(10_000)).await.unwrap();
    store.create(packing("p", 5_000, 500), Wall(1)).await.unwrap();
    let mut opening = JoinSet::new();
    for client in 0..8 {
        let store = store.clone();
        opening.spawn(async move {
            let mut told = Vec::new();
            for user in (client..USERS).step_by(8) {
                let opened = loop {
                    match store.open(packet("p"), openers(user..user + 1), Wall(2)).await {
                        Ok(opens) => break opens.each[0].clone(),
                        Err(error) => assert!(error.code().retryable(), "{error}"),
                    }
                };
                match opened {
                    Opened::Share(share) | Opened::Already(share) => told.push(share),
                    other => assert_eq!(other, Opened::SoldOut),
                }
            }
            told
        });
    }
    eventually("some have opened", async || {
        (store.totals().await.is_ok_and(|totals| totals.all_shares() >= 150)).then_some(())
    })
    .await;
    primary.strike().await;
    let promoted = standby.connect("postgres").await.unwrap();
    promoted.batch_execute("SELECT pg_promote()").await.unwrap();
    let mut told = Vec::new();
    while let Some(done) = timeout(SOON, opening.join_next()).await.expect("in time") {
        told.extend(done.unwrap());
    }
    told.sort_by_key(|share| share.rank);
    assert!(told.iter().map(|share| share.rank).eq(1..=500), "everyone has their own");
    assert_eq!(told.iter().map(|share| share.amount_fen).sum::<u64>(), 5_000);
    let kept = store.shares(packet("p"), 0, 1_000).await.unwrap();
    assert_eq!(kept, told, "as it was told");
    clean(&*store).await;
}

/// However many shares there are, no statement reads a whole table: the planner, left to itself, does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_of_cash_goes_by_an_index() {
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    drop(store(cluster, &database).await);
    let client = cluster.connect(&database).await.unwrap();
    // Sessions report what they did when they end; this one made the tables, and read them for their indexes.
    eventually("it has ended", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'springtide'";
        (client.query_one(sql, &[&database]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let scans = async || {
        let sql = "SELECT sum(seq_scan)::bigint, sum(idx_scan)::bigint FROM pg_stat_user_tables \
                   WHERE relname IN ('account', 'deposit', 'packet', 'share', 'booking', 'dead_share')";
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (before, _) = scans().await;
    let store = filled(cluster, &database).await;
    for at in 0..20 {
        store.deposit(deposit(10_000)).await.unwrap();
        store.create(packing(&format!("q{at}"), 100, 5), Wall(1)).await.unwrap();
        store.open(packet(&format!("q{at}")), openers(at..at + 3), Wall(2)).await.unwrap();
        let leased = store.lease(2, Wall(50), Wall(10)).await.unwrap();
        let words = leased.iter().map(|s| word(s, Verdict::Dead { why: Failure::Refused })).collect();
        store.settle(words, Wall(11)).await.unwrap();
        let dead = store.dead(1).await.unwrap();
        store.resolve(dead.iter().map(|s| s.order_no).collect(), Resolution::Compensate, Wall(12)).await.unwrap();
        store.share(packet("q0"), UserId::parse("u0").unwrap()).await.unwrap().unwrap();
        store.shares(packet("q0"), 0, 10).await.unwrap();
        store.scan_shares(None, 10).await.unwrap();
        store.scan(None, 10).await.unwrap();
        store.account(deposit(1).payer).await.unwrap().unwrap();
        store.totals().await.unwrap();
    }
    store.sweep(10, Wall(5_000)).await.unwrap();
    drop(store);
    let reported = async {
        while scans().await.1 < 200 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, reported).await.expect("the server counts");
    assert_eq!(scans().await.0, before, "whole tables were read");
}

/// Openers, two packet processes on one database, and a death after every few answers; then somebody meddles with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_packet_processes_share_a_database_and_die_by_turns() {
    const USERS: usize = 150;
    let (deaths, mut rng) = (deaths(14), luck());
    let packets = deaths.div_ceil(3);
    let cluster = Cluster::shared().await;
    let database = cluster.database().await;
    let dir = tempfile::tempdir().unwrap();
    let wallet_dir = dir.path().join("wallet");
    let wallet = Process::start("game", &["--data", path(&wallet_dir)]);
    let (origin, url, prepaid) = (wallet.origin(), cluster.url(&database), format!("campaign={MONEY}"));
    let args = ["--store", "postgres", "--postgres", &url, "--prepaid", &prepaid, "--wallet", &origin];
    let args = [&args[..], &["--delivery-timeout", "300ms", "--lease", "600ms"]].concat();
    let mut alive = vec![Process::start("packet", &args), Process::start("packet", &args)];
    let peers = |alive: &[Process]| alive.iter().map(|p| p.peer.clone()).collect::<Vec<_>>();
    fill(&alive[0].peer, packets).await;
    let (here, there) = watch::channel(peers(&alive));
    let (crowd, clients) = Openers::start(there, USERS, packets, 16);
    for death in 0..deaths {
        let each = USERS * packets / (deaths + 1);
        let enough = death * each + rng.below(each as u64) as usize;
        eventually("answers", async || (crowd.answers() >= enough).then_some(())).await;
        sleep(Duration::from_micros(rng.below(8_000))).await;
        // The other goes on meanwhile; clients of the dead one ask it.
        drop(alive.remove(death % 2));
        here.send_replace(peers(&alive));
        alive.insert(death % 2, Process::start("packet", &args));
        here.send_replace(peers(&alive));
    }
    timeout(SOON, all_done(clients)).await.expect("in time");
    let told = crowd.settled(&alive[1].peer, &wallet.peer).await;
    eventually("all written down", async || {
        let totals = ask(&alive[0].peer, "/internal/totals").await;
        (totals["shares"] == json!([["DELIVERED", told.len()]])).then_some(())
    })
    .await;
    eprintln!("{} shares of {packets} packets, {deaths} deaths", told.len());
    let at = alive[0].origin();
    let (code, report, _) = reconcile(&["--packets", &at, "--wallet", &origin]);
    assert_eq!(
        (code, &report["orders"], &report["differences"]),
        (Some(0), &json!(told.len()), &json!([])),
        "{report}"
    );
    drop((alive, wallet));
    let sides = ["--postgres", &url, "--wallet-data", path(&wallet_dir)];
    let (code, report, table) = reconcile(&sides);
    assert_eq!(
        (code, &report["orders"], &report["differences"]),
        (Some(0), &json!(told.len()), &json!([])),
        "{report}"
    );
    assert!(table.contains("0 differences") && table.contains("every fen was counted"), "{table}");
    // The wallet forgets one and books another twice; somebody deletes a share, and another one gets a second.
    let (lost, twice) = meddle(&wallet_dir);
    let mut others = told.iter().filter(|(_, (.., no))| *no != lost && *no != twice);
    let ((one, _), (.., gone)) = others.next().unwrap();
    let ((other, _), (.., doubled)) = others.find(|((packet, _), _)| packet != one).unwrap();
    let client = cluster.connect(&database).await.unwrap();
    let sql = format!(
        "SET search_path = redpacket; DELETE FROM share WHERE order_no = decode('{gone}', 'hex'); \
         INSERT INTO share SELECT '\\x0102030405060708090a0b0c0d0e0f1011', packet_id, user_id, NULL, 101, amount, created, \
           state, attempts, spent, due, failure, updated FROM share WHERE order_no = decode('{doubled}', 'hex')"
    );
    client.batch_execute(&sql).await.unwrap();
    let (code, report, table) = reconcile(&sides);
    assert_eq!(code, Some(2), "{report}");
    let made_up = "0102030405060708090a0b0c0d0e0f1011";
    let (one, other) = (format!("packet {}", name(*one)), format!("packet {}", name(*other)));
    for (kind, of) in [
        ("lost", lost.as_str()),
        ("given_twice", &twice),
        ("no_such_order", gone),
        ("lost", made_up),
        ("cash_differs", &one),
        ("cash_differs", &other),
    ] {
        assert!(table.lines().any(|line| line.contains(kind) && line.contains(of)), "{kind} {of}: {table}");
    }
}

/// Leave to open is known to every process on the database, and so is who has a share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_grabs_and_another_opens() {
    let cluster = Cluster::shared().await;
    let url = cluster.url(&cluster.database().await);
    let args = ["--store", "postgres", "--postgres", &url];
    let processes = [Process::start("packet", &args), Process::start("packet", &args)];
    let wish = json!({ "total_fen": 10, "count": 1, "idempotency_key": "a-packet-for-one-user", "expire_s": 600 });
    let call = async |at: usize, path: &str, user: &str, ask: serde_json::Value| {
        let (headers, ask) = ([("x-user-id", user)], Bytes::from(ask.to_string()));
        let reply = processes[at].peer.call(Method::POST, path, ask, &headers, SOON).await.unwrap();
        body(&reply)
    };
    let paid = json!({ "payer": "ann", "idempotency_key": "paid-1", "amount_fen": 10 });
    assert_eq!(call(0, "/internal/deposits", "ann", paid).await["balance_fen"], 10);
    assert_eq!(call(1, "/v1/packets", "ann", wish).await["code"], "OK");
    let at = "/v1/packets/a-packet-for-one-user";
    let grabbed = call(0, &format!("{at}/grab"), "bob", json!({})).await;
    let token = json!({ "grab_token": grabbed["grab_token"] });
    let opened = call(1, &format!("{at}/open"), "bob", token.clone()).await;
    assert_eq!((&opened["code"], &opened["amount_fen"]), (&json!("OK"), &json!(10)), "{opened}");
    let again = call(0, &format!("{at}/open"), "bob", token).await;
    assert_eq!((&again["code"], &again["order_no"]), (&json!("ALREADY_CLAIMED"), &opened["order_no"]));
    assert_eq!(call(0, &format!("{at}/grab"), "cho", json!({})).await["code"], "SOLD_OUT");
}
