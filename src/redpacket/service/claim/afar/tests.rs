//! Claims between homes, one process at a time; `tests/homes.rs` has two real ones.

use http::Request;
use serde_json::{Value, json};

use super::super::tests::{NOW, claim, internal, look, send, with};
use super::*;
use crate::base::clock::{ManualClock, Mono, Wall};
use crate::config::homes::Homes;
use crate::net::stage::empty;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::intents::Bounds;
use crate::redpacket::ledger::{Fenced, Store};
use crate::redpacket::request::USER_HEADER;
use crate::redpacket::serve::Remote;
use crate::redpacket::store::intents::MemoryIntents;
use crate::redpacket::store::memory::MemoryStore;

/// The home `a` of two; nobody listens where `b` should be.
async fn home_a(catalogue: Catalogue, clock: &Arc<ManualClock>) -> (ClaimService, Arc<Relay>) {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "epoch = 4\n[[home]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\n[[home]]\nname = \"b\"\nurl = \"http://{nobody}\"\n"
    );
    let intents = Arc::new(MemoryIntents::new(Bounds { open: 2, settled: 9 }));
    let relay = Arc::new(Relay::new(Homes::parse(&text).unwrap(), "a", intents, None).unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    assert_eq!(store.fence(relay.hold(), false).await, Ok(Fenced::Held));
    let service = ClaimService::new(store, Arc::new(catalogue)).on(clock.clone()).among(relay.clone());
    service.provision(0, 1).await.unwrap();
    (service, relay)
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Mono::from_millis(1_000), Wall(NOW)))
}

/// Users who live here, or elsewhere.
fn users(relay: &Relay, here: bool) -> impl Iterator<Item = String> + '_ {
    let lives_here = |user: &str| relay.is_home(OrderNo::set_of(&UserId::parse(user).unwrap()));
    (0..).map(|n| format!("u{n}")).filter(move |user| lives_here(user) == here)
}

fn late(user: &str, asked: u64, epoch: u64) -> Value {
    let claim = json!({
        "activity_id": Catalogue::built_in().activities[0].activity_id, "packet_id": "p1", "user_id": user,
        "gift_id": "lantern-mount", "zone_id": "sr-1", "role_id": "r1",
    });
    json!({ "epoch": epoch, "intents": [{ "claim": claim, "asked": asked }] })
}

#[tokio::test]
async fn a_claim_whose_home_is_away_becomes_an_intent() {
    let (service, relay) = home_a(Catalogue::built_in(), &clock()).await;
    let mut strangers = users(&relay, false);
    let user = strangers.next().unwrap();
    let (status, noted) = claim(&service, Some(&user), with("idempotency_key", "k")).await;
    assert_eq!((status, noted["code"].as_str(), noted["state"].as_str()), (202, Some("INTENT"), Some("INTENT")));
    let (_, again) = claim(&service, Some(&user), with("idempotency_key", "k")).await;
    assert_eq!((&again["code"], &again["order_no"]), (&noted["code"], &noted["order_no"]));
    let mut other = with("idempotency_key", "k");
    other["role_id"] = "r2".into();
    assert_eq!(claim(&service, Some(&user), other).await.1["code"], "KEY_CONFLICT");
    let no = noted["order_no"].as_str().unwrap();
    assert_eq!(look(&service, &user, no).await.1["code"], "INTENT");
    assert_eq!(look(&service, "somebody-else", no).await.1["code"], "UNAVAILABLE", "home is not asked in vain");
    assert_eq!(claim(&service, Some(&strangers.next().unwrap()), with("gift_id", "nothing")).await.0, 403);
    let second = strangers.next().unwrap();
    assert_eq!(claim(&service, Some(&second), with("gift_id", "lantern-mount")).await.1["code"], "INTENT");
    let third = strangers.next().unwrap();
    let (status, full) = claim(&service, Some(&third), with("gift_id", "lantern-mount")).await;
    assert_eq!((status, full["code"].as_str()), (503, Some("UNAVAILABLE")), "past the bound nothing is promised");
    let sums = relay.measure().await.unwrap();
    assert_eq!((sums.open, sums.oldest), (2, Some(Wall(NOW))));
    let local = users(&relay, true).next().unwrap();
    assert_eq!(
        claim(&service, Some(&local), with("gift_id", "lantern-mount")).await.0,
        202,
        "who lives here is served"
    );
    assert_eq!(service.store.stats().await.unwrap().orders(), 1, "intents grant nothing");
}

#[tokio::test]
async fn home_judges_as_of_the_moment_that_was_asked() {
    let clock = clock();
    let mut catalogue = Catalogue::built_in();
    catalogue.activities[0].ends = Some(Moment::from(Wall(NOW + 5_000)));
    let (service, relay) = home_a(catalogue, &clock).await;
    let mut locals = users(&relay, true);
    let (in_time, too_late, stranger) =
        (locals.next().unwrap(), locals.next().unwrap(), users(&relay, false).next().unwrap());
    clock.advance(Duration::from_mins(1));
    let settle = async |wish: Value| {
        let (status, said) = internal(&service, "127.0.0.1:5", "/internal/intents", wish).await;
        (status, said["codes"].clone())
    };
    assert_eq!(settle(late(&in_time, NOW + 4_999, 4)).await, (200, json!(["ACCEPTED"])));
    assert_eq!(settle(late(&in_time, NOW + 4_999, 4)).await, (200, json!(["ALREADY_CLAIMED"])), "its answer was lost");
    assert_eq!(settle(late(&too_late, NOW + 5_001, 4)).await, (200, json!(["EXPIRED"])));
    assert_eq!(settle(late(&too_late, NOW, 5)).await.0, 503, "the sender knows a newer file");
    assert_eq!(settle(late(&stranger, NOW, 4)).await.0, 503, "not this home's");
    assert_eq!(internal(&service, "10.0.0.9:5", "/internal/intents", late(&too_late, NOW, 4)).await.0, 404);
    assert_eq!(claim(&service, Some(&in_time), with("gift_id", "lantern-mount")).await.1["code"], "ALREADY_CLAIMED");
    assert_eq!(service.store.stats().await.unwrap().orders(), 1);
}

#[tokio::test]
async fn nothing_is_passed_on_twice() {
    let (service, relay) = home_a(Catalogue::built_in(), &clock()).await;
    let stranger = users(&relay, false).next().unwrap();
    let mut passed = late(&stranger, NOW, 4);
    passed["claim"] = passed["intents"][0]["claim"].clone();
    assert_eq!(internal(&service, "127.0.0.1:5", "/internal/claims", passed).await.0, 503);
    assert_eq!(relay.measure().await.unwrap().open, 0, "and nothing is noted for a process that can do it itself");
    let local = users(&relay, true).next().unwrap();
    let mut passed = late(&local, NOW, 3);
    passed["claim"] = passed["intents"][0]["claim"].clone();
    let (status, said) = internal(&service, "127.0.0.1:5", "/internal/claims", passed).await;
    assert_eq!((status, said["code"].as_str()), (202, Some("ACCEPTED")), "an older file that is right about this user");
    let no = said["order_no"].as_str().unwrap();
    let mut request = Request::get(format!("/internal/claims/{no}")).header(USER_HEADER, &local).body(empty()).unwrap();
    request.extensions_mut().insert(Remote("127.0.0.1:5".parse().unwrap()));
    assert_eq!(send(&service, request).await.1["code"], "PENDING");
}

#[tokio::test]
async fn who_begins_first_is_first() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let begun = AtomicUsize::new(0);
    let all = (0..64).map(|n| {
        let begun = &begun;
        Box::pin(async move {
            let place = begun.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            (n, place)
        })
    });
    for (n, place) in in_order(all.collect()).await {
        assert_eq!(n, place);
    }
}
