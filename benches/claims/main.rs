//! Durable claims a second and their latency, by store: `cargo bench --bench claims -- [--clients 64] [--seconds 10]
//! [--before N] [--redb DIR] [--postgres URL]`. Closed loop: each client claims for one new user after the other. `--before`
//! puts so many orders into the store first. Beside it, on the same disk: `redis-benchmark -t set -c 64` against a Redis with
//! `appendfsync always`, and pgbench's simple insert.

#![allow(clippy::print_stdout, reason = "the figures are the output")]
#![allow(clippy::disallowed_methods, reason = "a bench measures with the system's clock")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench that cannot go on ends")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use springtide::base::clock::{Clock, SystemClock};
use springtide::redpacket::ledger::{Claimed, Store};
use springtide::redpacket::model::{ActivityId, Claim, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};
use springtide::redpacket::store::redb::RedbStore;

fn claim(user: u64) -> Claim {
    Claim {
        activity_id: ActivityId::parse("spring-2027").unwrap(),
        packet_id: PacketId::parse("packet-1").unwrap(),
        user_id: UserId::parse(&format!("user-{user:012}")).unwrap(),
        gift_id: GiftId::parse("gold-ingots").unwrap(),
        zone_id: ZoneId::parse("hh-1").unwrap(),
        role_id: RoleId::parse("role-0001").unwrap(),
        idempotency_key: Some(IdempotencyKey::parse(&format!("key-{user:012}")).unwrap()),
    }
}

/// Claims for users from `next` on until `until` says that it is enough; gives every claim's latency.
async fn client(store: Arc<dyn Store>, next: Arc<AtomicU64>, until: impl Fn(u64) -> bool) -> Vec<Duration> {
    let mut all = Vec::new();
    loop {
        let user = next.fetch_add(1, Ordering::Relaxed);
        if until(user) {
            return all;
        }
        let claim = claim(user);
        let began = Instant::now();
        let claimed = store.claim(claim, SystemClock.wall()).await.expect("the store takes claims");
        all.push(began.elapsed());
        assert!(matches!(claimed, Claimed::Accepted(_)), "a new user: {claimed:?}");
    }
}

async fn crowd(
    store: &Arc<dyn Store>,
    next: &Arc<AtomicU64>,
    clients: usize,
    until: impl Fn(u64) -> bool + Copy + Send + 'static,
) -> Vec<Duration> {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..clients {
        running.spawn(client(store.clone(), next.clone(), until));
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        all.extend(done.unwrap());
    }
    all.sort_unstable();
    all
}

async fn measure(store: Arc<dyn Store>, clients: usize, seconds: u64, before: u64) {
    store.provision(GiftId::parse("gold-ingots").unwrap(), 1 << 40).await.unwrap();
    // A store that has been measured before has its users already.
    let next = Arc::new(AtomicU64::new(SystemClock.wall().0 * 1_000));
    let start = next.load(Ordering::Relaxed);
    crowd(&store, &next, 256, move |user| user >= start + before).await;
    let began = Instant::now();
    let over = began + Duration::from_secs(seconds);
    let all = crowd(&store, &next, clients, move |_| Instant::now() >= over).await;
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    let orders = store.stats().await.unwrap().orders();
    println!(
        "{:10} {clients:7} clients {rate:9.0} claims/s   p50 {:7.2} ms   p99 {:7.2} ms   p99.9 {:7.2} ms   {orders} orders",
        store.name(),
        at(0.5),
        at(0.99),
        at(0.999),
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, otherwise: u64| value(name).map_or(otherwise, |n| n.parse().expect("a number"));
    let (clients, seconds, before) = (number("--clients", 64), number("--seconds", 10), number("--before", 0));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(dir) = value("--redb") {
            let store = RedbStore::open(&PathBuf::from(dir).join("claims.redb")).unwrap();
            measure(Arc::new(store), clients as usize, seconds, before).await;
        }
        #[cfg(feature = "postgres")]
        if let Some(url) = value("--postgres") {
            use springtide::redpacket::store::postgres::{Options, PostgresStore};
            let mut options = Options::new(url);
            options.connections = number("--connections", 8) as usize;
            let store = PostgresStore::open(&options).await.unwrap();
            measure(Arc::new(store), clients as usize, seconds, before).await;
        }
    });
}
