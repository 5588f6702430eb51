//! Zones: fresh, stale, manual, and never an error for the game's sake.

use http_body_util::BodyExt;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::base::clock::{ManualClock, Wall};
use crate::net::listen::{Share, tcp};
use crate::net::stage::empty;
use crate::redpacket::request::USER_HEADER;
use crate::redpacket::serve::{Running, serve};
use crate::redpacket::service::GameService;
use crate::redpacket::store::deliveries::Deliveries;

async fn ask(service: &ZonesService, user: &str, game: &str) -> (u16, Value) {
    let request = Request::get(format!("/v1/zones?game_id={game}")).header(USER_HEADER, user);
    let response = service.handle(request.body(empty()).unwrap(), Next::end()).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn game(stop: &CancellationToken) -> (Running, Peer) {
    let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
    let stage = GameService::new(Deliveries::in_memory().unwrap());
    let running = serve(listener, Arc::new(stage), stop.clone()).unwrap();
    let peer = Peer::new(format!("http://{}", running.address()).parse().unwrap());
    (running, peer)
}

#[tokio::test]
async fn fresh_then_stale_then_by_hand() {
    let stop = CancellationToken::new();
    let (running, peer) = game(&stop);
    let clock = Arc::new(ManualClock::new(Mono::from_millis(1_000), Wall(1)));
    let service = ZonesService::new(Arc::new(Catalogue::built_in()), Some(peer)).on(clock.clone());
    let (status, fresh) = ask(&service, "u1", "sky-riders").await;
    assert_eq!((status, fresh["freshness"].as_str()), (200, Some("fresh")), "{fresh}");
    assert!(!fresh["roles"].as_array().unwrap().is_empty());
    stop.cancel();
    running.stopped().await;
    assert_eq!(ask(&service, "u1", "sky-riders").await.1["freshness"], "fresh", "from the cache");
    clock.advance(FRESH);
    let (status, stale) = ask(&service, "u1", "sky-riders").await;
    assert_eq!((status, stale["freshness"].as_str(), &stale["roles"]), (200, Some("stale"), &fresh["roles"]));
    assert_eq!(stale["degraded"], serde_json::json!(["game"]));
    clock.advance(STALE);
    assert_eq!(ask(&service, "u1", "sky-riders").await.1["freshness"], "manual", "too old to be of use");
    let (status, manual) = ask(&service, "u2", "sky-riders").await;
    assert_eq!((status, manual["freshness"].as_str()), (200, Some("manual")));
    assert_eq!(manual["zones"].as_array().map(Vec::len), Some(2), "servers to choose from");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_words() {
    let service = ZonesService::new(Arc::new(Catalogue::built_in()), None);
    assert_eq!(ask(&service, "u1", "no-such-game").await.0, 404);
    assert_eq!(ask(&service, "u1", "").await.0, 400);
    assert_eq!(ask(&service, "not a user", "sky-riders").await.0, 400);
    assert_eq!(ask(&service, "u1", "sky-riders").await.1["freshness"], "manual");
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
    let mut cache = Cache::default();
    let key = |n: usize| (UserId::parse(&n.to_string()).unwrap(), GameId::parse("g").unwrap());
    let entry = (Known::from([]), Mono::ZERO);
    for n in 0..KEPT * 2 {
        cache.keep(key(n), entry.clone());
        assert!(cache.find(&key(0)).is_some(), "asked for all the time");
    }
    assert!(cache.young.len() + cache.old.len() <= KEPT);
    assert!(cache.find(&key(1)).is_none());
}
