//! The worker against the real mock game over loopback: once in effect, whatever goes wrong between the two.

use tokio::time::timeout;

use super::*;
use crate::base::clock::Wall;
use crate::base::task::spawn;
use crate::net::listen::{Share, tcp};
use crate::redpacket::ledger::{Claimed, Stats};
use crate::redpacket::model::{ActivityId, Claim, GiftId, PacketId, RoleId, State, UserId, ZoneId};
use crate::redpacket::serve::{Running, serve};
use crate::redpacket::service::{ClaimService, GameService};
use crate::redpacket::store::deliveries::Deliveries;
use crate::redpacket::store::memory::MemoryStore;

const SOON: Duration = Duration::from_secs(20);

struct Scene {
    store: Arc<dyn Store>,
    game: Arc<Peer>,
    stop: CancellationToken,
    _running: Running,
}

impl Scene {
    async fn new(orders: u32) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        store.provision(GiftId::parse("g").unwrap(), u64::from(orders)).await.unwrap();
        for user in 0..orders {
            let claim = Claim {
                activity_id: ActivityId::parse("a").unwrap(),
                packet_id: PacketId::parse("p").unwrap(),
                user_id: UserId::parse(&format!("u{user}")).unwrap(),
                gift_id: GiftId::parse("g").unwrap(),
                zone_id: ZoneId::parse("z").unwrap(),
                role_id: RoleId::parse("r").unwrap(),
                idempotency_key: None,
            };
            assert!(matches!(store.claim(claim, Wall(1)).await.unwrap(), Claimed::Accepted(_)));
        }
        let stop = CancellationToken::new();
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let running =
            serve(listener, Arc::new(GameService::new(Deliveries::in_memory().unwrap())), stop.clone()).unwrap();
        let game = Arc::new(Peer::new(format!("http://{}", running.address()).parse().unwrap()));
        Self { store, game, stop, _running: running }
    }

    fn games(&self, pace: &Pace) -> Arc<Games> {
        Arc::new(Games::one(Peer::new(self.game.origin().clone()), pace))
    }

    async fn dial(&self, fault: &str) {
        self.game.post("/fault", Bytes::from(fault.to_owned()), SOON).await.unwrap();
    }

    async fn tally(&self) -> serde_json::Value {
        serde_json::from_slice(&self.game.get("/stats", SOON).await.unwrap().body).unwrap()
    }

    async fn until(&self, holds: impl Fn(&Stats) -> bool) -> Stats {
        let wait = async {
            loop {
                let stats = self.store.stats().await.unwrap();
                if holds(&stats) {
                    return stats;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.expect("in time")
    }
}

fn quick() -> Pace {
    let backoff = Backoff {
        first: Duration::from_millis(5),
        most: Duration::from_millis(20),
        attempts: 200,
        within: Duration::from_hours(999_999),
    };
    Pace { rate: 5_000.0, limit: Duration::from_millis(200), lease: Duration::from_secs(1), backoff, ..Pace::default() }
}

#[tokio::test]
async fn every_order_is_delivered_once() {
    let scene = Scene::new(200).await;
    let worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&quick()), quick());
    let stop = CancellationToken::new();
    let task = spawn("worker", worker.run(stop.clone()));
    scene.until(|s| s.delivered == 200).await;
    stop.cancel();
    timeout(SOON, task.ended()).await.expect("it stops");
    let tally = scene.tally().await;
    assert_eq!((&tally["applied"], &tally["duplicates"]), (&200.into(), &0.into()), "{tally}");
    scene.stop.cancel();
}

#[tokio::test]
async fn replies_that_get_lost_lead_to_repeats_and_not_to_second_gifts() {
    let scene = Scene::new(60).await;
    scene.dial(r#"{"lose_reply": true, "percent": 50}"#).await;
    let worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&quick()), quick());
    let _task = spawn("worker", worker.run(scene.stop.clone()));
    scene.until(|s| s.delivered == 60).await;
    let tally = scene.tally().await;
    assert_eq!((&tally["applied"], &tally["orders"]), (&60.into(), &60.into()), "{tally}");
    assert!(tally["duplicates"].as_u64() > Some(0), "{tally}");
    scene.stop.cancel();
}

#[tokio::test]
async fn what_is_refused_for_good_is_dead_and_what_makes_no_sense_is_tried_again() {
    let scene = Scene::new(3).await;
    scene.dial(r#"{"status": 404}"#).await;
    let worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&quick()), quick());
    let _task = spawn("worker", worker.run(scene.stop.clone()));
    let stats = scene.until(|s| s.dead == 3).await;
    assert_eq!(stats.open(), 0);

    let scene = Scene::new(3).await;
    scene.dial(r#"{"garbage": true}"#).await;
    let pace = Pace { backoff: Backoff { attempts: 3, ..quick().backoff }, ..quick() };
    let worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&pace), pace);
    let _task = spawn("worker", worker.run(scene.stop.clone()));
    scene.until(|s| s.dead == 3).await;
    assert_eq!(scene.tally().await["received"], 0);
}

#[tokio::test]
async fn a_worker_elsewhere_does_the_same_over_http() {
    let scene = Scene::new(40).await;
    let catalogue = Arc::new(crate::redpacket::catalogue::Catalogue::built_in());
    let claims = Arc::new(ClaimService::new(scene.store.clone(), catalogue));
    let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
    let running = serve(listener, claims, scene.stop.clone()).unwrap();
    let peer = Peer::new(format!("http://{}", running.address()).parse().unwrap());
    let worker = Worker::new(Source::Claims(peer), scene.games(&quick()), quick());
    let _task = spawn("worker", worker.run(scene.stop.clone()));
    scene.until(|s| s.delivered == 40).await;
    assert_eq!(scene.tally().await["applied"], 40);
    scene.stop.cancel();
}

#[tokio::test]
async fn it_never_goes_faster_than_its_rate() {
    let scene = Scene::new(60).await;
    let pace = Pace { rate: 100.0, ..quick() };
    let worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&pace), pace);
    let started = SystemClock.mono();
    let _task = spawn("worker", worker.run(scene.stop.clone()));
    scene.until(|s| s.delivered == 60).await;
    let took = SystemClock.mono().since(started);
    assert!(took >= Duration::from_millis(590), "60 orders at 100 a second, the first at once: {took:?}");
}

#[tokio::test]
async fn an_order_whose_lease_is_nearly_over_is_left_alone() {
    let scene = Scene::new(1).await;
    let pace = Pace { lease: Duration::from_millis(150), limit: Duration::from_millis(200), ..quick() };
    let mut worker = Worker::new(Source::Store(scene.store.clone()), scene.games(&pace), pace);
    let now = SystemClock.wall();
    let orders = scene.store.lease(1, now + pace.lease, now).await.unwrap();
    assert_eq!(orders[0].state, State::Delivering);
    let mut hands = Hands::of(1);
    hands.lanes[0].waiting = orders.iter().map(Errand::from).collect();
    worker.start(&mut hands);
    assert!(hands.lanes[0].waiting.is_empty() && hands.running.is_empty());
}

/// Two games, one of which is in trouble: the other's gifts arrive as if nothing were the matter.
#[tokio::test]
async fn a_game_in_trouble_holds_up_its_own_gifts_only() {
    let (ill, well) = (Scene::new(0).await, Scene::new(0).await);
    ill.dial(r#"{"status": 503}"#).await;
    let catalogue = crate::redpacket::catalogue::Catalogue::built_in();
    // Older, so that they come first.
    for (gift, user, now) in
        (0..600u64).map(|n| ("firecracker", n, 1)).chain((0..200u64).map(|n| ("gold-ingots", n, 2)))
    {
        let gift = GiftId::parse(gift).unwrap();
        ill.store.provision(gift.clone(), 1_000).await.unwrap();
        let claim = Claim {
            activity_id: ActivityId::parse("a").unwrap(),
            packet_id: PacketId::parse(gift.as_str()).unwrap(),
            user_id: UserId::parse(&format!("u{user}")).unwrap(),
            gift_id: gift,
            zone_id: ZoneId::parse("z").unwrap(),
            role_id: RoleId::parse("r").unwrap(),
            idempotency_key: None,
        };
        ill.store.claim(claim, Wall(now)).await.unwrap();
    }
    let pace = Pace { rate: 100.0, backoff: Backoff::default(), ..quick() };
    let pace = Pace { backoff: Backoff { within: Duration::from_hours(999_999), ..pace.backoff }, ..pace };
    let peer = |scene: &Scene| Peer::new(scene.game.origin().clone());
    let arena = crate::redpacket::model::GameId::parse("arena-nine").unwrap();
    let games = Games::of(&catalogue, vec![(arena, peer(&ill), 100.0)], Some(peer(&well)), &pace).unwrap();
    let worker = Worker::new(Source::Store(ill.store.clone()), Arc::new(games), pace);
    let _task = spawn("worker", worker.run(ill.stop.clone()));
    let stats = ill.until(|s| s.delivered == 200).await;
    assert_eq!((stats.open(), stats.dead), (600, 0), "the other game's wait, and none is lost");
    assert_eq!(well.tally().await["applied"], 200);
    // The game is well again, and gets all that waited.
    ill.dial("{}").await;
    ill.until(|s| s.delivered > 250).await;
    assert_eq!(ill.tally().await["duplicates"], 0);
}
