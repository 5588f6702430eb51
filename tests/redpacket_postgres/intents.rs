//! Intents on PostgreSQL: the laws, random stories, and two handles on one database.

use std::sync::Arc;

use springtide::base::clock::Wall;
use springtide::config::homes::Sets;
use springtide::redpacket::intents::conformance::{Making, Subject, run, walk};
use springtide::redpacket::intents::{Bounds, Intents, Opened, Outcome};
use springtide::redpacket::model::{ActivityId, Claim, GiftId, PacketId, RoleId, UserId, ZoneId};
use springtide::redpacket::store::postgres::{Options, PostgresIntents};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::cluster::Cluster;

struct OnServer(&'static Cluster, Mutex<String>);

impl OnServer {
    fn open(&self, bounds: Bounds) -> Making<'_> {
        Box::pin(async move {
            let options = Options::new(self.0.url(&self.1.lock().await));
            let store = PostgresIntents::open(&options, bounds).await;
            store.map(|s| Arc::new(s) as Arc<dyn Intents>).map_err(|e| e.to_string())
        })
    }
}

impl Subject for OnServer {
    fn fresh(&self, bounds: Bounds) -> Making<'_> {
        Box::pin(async move {
            *self.1.lock().await = self.0.database().await;
            self.open(bounds).await
        })
    }

    fn reopened(&self, store: Arc<dyn Intents>, bounds: Bounds) -> Option<Making<'_>> {
        drop(store);
        Some(self.open(bounds))
    }
}

/// One database, emptied for each story.
struct Emptied(&'static Cluster, String);

impl Subject for Emptied {
    fn fresh(&self, bounds: Bounds) -> Making<'_> {
        Box::pin(async move {
            let store = PostgresIntents::open(&Options::new(self.0.url(&self.1)), bounds).await;
            let store = store.map_err(|e| e.to_string())?;
            let client = self.0.connect(&self.1).await.unwrap();
            let sql = "SET search_path = redpacket; TRUNCATE intent; UPDATE intent_sums SET counts = '{0,0,0,0,0,0}'";
            client.batch_execute(sql).await.map_err(|e| e.to_string())?;
            Ok(Arc::new(store) as Arc<dyn Intents>)
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_laws() {
    let subject = OnServer(Cluster::shared().await, Mutex::default());
    assert_eq!(run(&subject).await.unwrap_or_else(|e| panic!("{e}")).len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_what_the_shelf_does() {
    let cluster = Cluster::shared().await;
    let subject = Emptied(cluster, cluster.database().await);
    for seed in 0..16 {
        walk(&subject, seed, 60).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

fn claim(user: usize) -> Claim {
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

/// Two processes of one home write for the same users at the same time: one intent each, the bound is of both together,
/// and either settles what the other wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_of_a_home_have_one_list() {
    const USERS: usize = 400;
    const BOUND: u64 = 300;
    let cluster = Cluster::shared().await;
    let options = Options::new(cluster.url(&cluster.database().await));
    let bounds = Bounds { open: BOUND, settled: 1_000 };
    let both = [0, 1].map(|_| PostgresIntents::open(&options, bounds));
    let [a, b] = both;
    let both = [Arc::new(a.await.unwrap()), Arc::new(b.await.unwrap())];
    let mut opening = JoinSet::new();
    for user in 0..USERS {
        for store in both.clone() {
            opening.spawn(async move { store.open(claim(user), Wall(user as u64)).await.unwrap() });
        }
    }
    let (mut new, mut same, mut full) = (0, 0, 0);
    while let Some(opened) = opening.join_next().await {
        match opened.unwrap() {
            Opened::New(_) => new += 1,
            Opened::Same(_) => same += 1,
            Opened::Full => full += 1,
            Opened::Conflict => panic!("nobody's wish has changed"),
        }
    }
    assert_eq!((new, same + full), (BOUND, 2 * USERS as u64 - BOUND));
    let [a, b] = both;
    assert_eq!((a.sums().await.unwrap(), a.sums().await.unwrap().open), (b.sums().await.unwrap(), BOUND));
    let due = a.due(Sets::ALL, 1_000).await.unwrap();
    assert_eq!(due.len() as u64, BOUND);
    let words: Vec<_> = due.iter().map(|intent| (intent.number(), Outcome::Granted)).collect();
    let (first, second) = tokio::join!(a.settle(words.clone(), Wall(9)), b.settle(words, Wall(9)));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.iter().zip(&second).all(|(a, b)| a ^ b), "each is settled by one of the two");
    assert_eq!((b.sums().await.unwrap().open, b.due(Sets::ALL, 9).await.unwrap().len()), (0, 0));
}
