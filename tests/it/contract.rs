//! The OpenAPI document: it is the program's own, and every answer of the running services is as it says.

use std::fs;

use crate::support::{Upstream, client, root, said, springtide};

#[test]
fn the_document_in_the_repository_is_the_programs() {
    let printed = springtide(&["docs", "openapi"]);
    assert!(printed.status.success(), "{}", said(&printed));
    let kept = fs::read(root().join("docs/openapi.json")).unwrap();
    assert!(printed.stdout == kept, "run: springtide docs openapi > docs/openapi.json");
}

#[test]
fn every_answer_is_as_the_document_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let catalogue = data("catalogue.json");
    // As the built-in one, and an activity that is over, one that has not begun, and a gift of which there is one.
    let mut campaign: serde_json::Value =
        serde_json::from_slice(&fs::read(root().join("src/redpacket/catalogue.json")).unwrap()).unwrap();
    let activities = campaign["activities"].as_array_mut().unwrap();
    activities.push(
        serde_json::json!({ "activity_id": "past", "starts": "2020-01-01T00:00:00Z", "ends": "2020-02-01T00:00:00Z" }),
    );
    activities.push(
        serde_json::json!({ "activity_id": "future", "starts": "2999-01-01T00:00:00Z", "ends": "2999-02-01T00:00:00Z" }),
    );
    campaign["gifts"].as_array_mut().unwrap().push(
        serde_json::json!({ "gift_id": "only-one", "game_id": "arena-nine", "title": "The Only One", "stock": 1 }),
    );
    fs::write(&catalogue, campaign.to_string()).unwrap();
    let game = Upstream::start("game", &[]);
    let recommend = Upstream::start("recommend", &["--catalogue", &catalogue]);
    let gifts = Upstream::start("gift-list", &["--catalogue", &catalogue, "--recommend", &recommend.url()]);
    let zones = Upstream::start("zones", &["--catalogue", &catalogue, "--game", &game.url()]);
    let claims =
        Upstream::start("claim", &["--catalogue", &catalogue, "--data", &data("claims"), "--game", &game.url()]);
    let packets =
        Upstream::start("packet", &["--data", &data("packets"), "--wallet", &game.url(), "--grant", "100000"]);
    let document = root().join("docs/openapi.json");
    let services =
        [("gift-list", &gifts), ("zones", &zones), ("recommend", &recommend), ("claim", &claims), ("packet", &packets)];
    let services = services.map(|(name, service)| format!("{name}={}", service.url()));
    let script = root().join("tests/it/contract/check.py");
    let arguments: Vec<&str> = [script.to_str().unwrap(), document.to_str().unwrap()]
        .into_iter()
        .chain(services.iter().map(String::as_str))
        .collect();
    let told = client("/usr/bin/python3", &arguments);
    assert!(told.ends_with("all good\n"), "{told}");
}
