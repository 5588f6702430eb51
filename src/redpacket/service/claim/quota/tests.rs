//! Whom a home asks for stock and when, and what it gives itself; `tests/homes.rs` has two real ones.

use serde_json::{Value, json};

use super::super::tests::internal;
use super::*;
use crate::config::homes::Homes;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::intents::Bounds;
use crate::redpacket::ledger::Store;
use crate::redpacket::store::intents::MemoryIntents;
use crate::redpacket::store::memory::MemoryStore;

const HOMES: &str = "epoch = 1\n[[home]]\nname = \"a\"\nurl = \"http://127.0.0.1:1\"\n[[home]]\nname = \"b\"\nurl = \"http://127.0.0.1:2\"\n";

fn others() -> Vec<String> {
    ["b", "c"].map(str::to_owned).into()
}

#[test]
fn each_is_asked_in_turn_and_less_often_while_nobody_has_any() {
    let (mut asked, others, mut now) = (Asked::default(), others(), Mono::from_millis(1_000));
    for home in &others {
        asked.heard(home.clone(), Need::Recall, Some(0), others.len(), now);
    }
    let need = Some(Need::Out);
    for (home, wait) in [("b", 1), ("c", 2), ("b", 2), ("c", 4), ("b", 4), ("c", 8), ("b", 8), ("c", 8)] {
        assert_eq!(asked.choose(&others, need, now), Some((home.to_owned(), Need::Out)));
        asked.heard(home.to_owned(), Need::Out, Some(0), others.len(), now);
        assert_eq!(asked.choose(&others, need, now + Duration::from_millis(wait * 890)), None);
        now = now + Duration::from_millis(wait * 910);
    }
    let (chosen, need) = asked.choose(&others, need, now).unwrap();
    asked.heard(chosen, need, Some(5), others.len(), now);
    assert!(asked.choose(&others, Some(need), now + LOOK).is_some(), "somebody has some again");
}

#[test]
fn whoever_may_have_given_some_is_asked_until_there_is_an_answer() {
    let (mut asked, others, now) = (Asked::default(), others(), Mono::from_millis(1_000));
    let mut recall = |answer| {
        let (home, need) = asked.choose(&others, None, now)?;
        assert_eq!(need, Need::Recall);
        asked.heard(home.clone(), need, answer, others.len(), now);
        Some(home)
    };
    assert_eq!(recall(None).as_deref(), Some("b"), "a process before this one may have asked");
    assert_eq!(recall(Some(3)).as_deref(), Some("b"));
    assert_eq!(recall(Some(0)).as_deref(), Some("c"));
    assert_eq!(recall(None), None, "nothing is on its way");
    asked.heard("c".into(), Need::Out, None, others.len(), now);
    assert_eq!(asked.choose(&others, None, now), Some(("c".into(), Need::Recall)));
}

#[tokio::test]
async fn a_home_gives_to_homes_of_its_file_only_and_each_number_once() {
    let intents = Arc::new(MemoryIntents::new(Bounds { open: 2, settled: 9 }));
    let relay = Arc::new(Relay::new(Homes::parse(HOMES).unwrap(), "a", intents, None).unwrap());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let gift = GiftId::parse("lantern-mount").unwrap();
    store.provision(gift.clone(), 100).await.unwrap();
    let service = ClaimService::new(store.clone(), Arc::new(Catalogue::built_in())).among(relay);
    let ask = async |of: &str, by: &str, number: u64, need: Value| {
        let wish = json!({ "of": of, "by": by, "gift_id": gift, "number": number, "need": need });
        let (status, said) = internal(&service, "127.0.0.1:5", "/internal/stock", wish).await;
        (status, said["amount"].as_u64())
    };
    let low = json!({ "low": { "left": 10 } });
    assert_eq!(ask("b", "a", 1, low.clone()).await, (503, None), "somebody else is meant");
    assert_eq!(ask("a", "a", 1, low.clone()).await, (503, None), "itself");
    assert_eq!(ask("a", "c", 1, low.clone()).await, (503, None), "no home");
    assert_eq!(ask("a", "b", 1, json!("recall")).await, (200, Some(0)));
    assert_eq!(ask("a", "b", 1, low.clone()).await, (200, Some(45)));
    assert_eq!(ask("a", "b", 1, json!("recall")).await, (200, Some(45)), "its answer was lost");
    assert_eq!(ask("a", "b", 3, low).await, (422, None));
    assert_eq!(ask("a", "b", 2, json!("out")).await, (200, Some(28)));
    assert_eq!(store.stats().await.unwrap().stock[0].1.total, 100 - 45 - 28);
}
