//! Dead letters: a game that refuses for good, and a person who has them delivered after all.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Upstream, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);

fn post(url: &str, user: &str, body: &Value) -> Value {
    let (user, body) = (format!("x-user-id: {user}"), body.to_string());
    let args = ["-sS", "-m", "10", url, "-H", &user, "-H", "content-type: application/json", "-d", &body];
    serde_json::from_str(&client("curl", &args)).unwrap()
}

#[test]
fn what_was_given_up_is_listed_and_delivered_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let game = Upstream::start("game", &[]);
    let data = dir.path().join("claims");
    let claims = Upstream::start("claim", &["--data", data.to_str().unwrap(), "--game", &game.url()]);
    post(&format!("{}/fault", game.url()), "nobody", &json!({ "status": 404 }));
    for user in ["ann", "bob", "cho"] {
        let wish = json!({ "packet_id": "p", "gift_id": "firecracker", "zone_id": "an-1", "role_id": "r" });
        assert_eq!(post(&format!("{}/v1/claims", claims.url()), user, &wish)["code"], "ACCEPTED");
    }
    let letters = |args: &[&str]| springtide(&[&["letters"], args, &["--claims", &claims.url()]].concat());
    let listed = || -> Vec<Value> {
        let output = letters(&["list", "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["orders"].as_array().unwrap().clone()
    };
    let dead = eventually("three are given up", SOON, || Some(listed()).filter(|dead| dead.len() == 3));
    let table = said(&letters(&["list"]));
    assert!(table.contains("ann") && table.contains("refused") && table.contains("firecracker"), "{table}");
    post(&format!("{}/fault", game.url()), "nobody", &json!({}));
    let first = dead[0]["order_no"].as_str().unwrap();
    let closed = letters(&["compensate", first]);
    assert!(closed.status.success() && said(&closed).contains("1 orders closed"), "{}", said(&closed));
    let again = letters(&["replay", first]);
    assert!(!again.status.success() && said(&again).contains("not dead"), "{}", said(&again));
    let replayed = letters(&["replay", "--all"]);
    assert!(replayed.status.success() && said(&replayed).contains("2 orders"), "{}", said(&replayed));
    eventually("the game has them", SOON, || {
        let stats: Value = serde_json::from_str(&client("curl", &["-sS", &format!("{}/stats", game.url())])).unwrap();
        (stats["applied"] == 2).then_some(())
    });
    assert!(said(&letters(&["list"])).contains("No dead letters"));
    let nobody = springtide(&["letters", "list", "--claims", "http://127.0.0.1:1"]);
    assert!(!nobody.status.success() && said(&nobody).contains("cannot connect"), "{}", said(&nobody));
}

/// The same for money: a wallet that refuses, and shares that are booked after all.
#[test]
fn shares_that_were_given_up_are_listed_and_booked_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let wallet = Upstream::start("game", &[]);
    let data = dir.path().join("packets");
    let packets = Upstream::start(
        "packet",
        &["--data", data.to_str().unwrap(), "--wallet", &wallet.url(), "--prepaid", "campaign=1000"],
    );
    post(&format!("{}/fault", wallet.url()), "nobody", &json!({ "status": 404 }));
    let wish = json!({ "total_fen": 300, "count": 3, "mode": "fixed", "idempotency_key": "a-packet-for-three" });
    assert_eq!(post(&format!("{}/v1/packets", packets.url()), "campaign", &wish)["code"], "OK");
    let at = format!("{}/v1/packets/a-packet-for-three", packets.url());
    for user in ["ann", "bob", "cho"] {
        let token = &post(&format!("{at}/grab"), user, &json!({}))["grab_token"];
        assert_eq!(post(&format!("{at}/open"), user, &json!({ "grab_token": token }))["amount_fen"], 100);
    }
    let letters = |args: &[&str]| springtide(&[&["letters"], args, &["--packets", &packets.url()]].concat());
    let listed = || -> Vec<Value> {
        let output = letters(&["list", "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["shares"].as_array().unwrap().clone()
    };
    let dead = eventually("three are given up", SOON, || Some(listed()).filter(|dead| dead.len() == 3));
    let table = said(&letters(&["list"]));
    assert!(table.contains("bob") && table.contains("refused") && table.contains("100 fen of"), "{table}");
    post(&format!("{}/fault", wallet.url()), "nobody", &json!({}));
    let closed = letters(&["compensate", dead[0]["order_no"].as_str().unwrap()]);
    assert!(closed.status.success() && said(&closed).contains("1 orders closed"), "{}", said(&closed));
    let replayed = letters(&["replay", "--all"]);
    assert!(replayed.status.success() && said(&replayed).contains("2 orders"), "{}", said(&replayed));
    eventually("the wallet has them", SOON, || {
        let stats: Value = serde_json::from_str(&client("curl", &["-sS", &format!("{}/stats", wallet.url())])).unwrap();
        (stats["applied"] == 2).then_some(())
    });
    assert!(said(&letters(&["list"])).contains("No dead letters"));
    let sides = ["--packets", &packets.url(), "--wallet", &wallet.url()];
    let report = eventually("all settled", SOON, || {
        let output = springtide(&[&["reconcile", "--json"], &sides[..]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (report["delivered"] == 2 && report["moving"] == false).then_some((output.status.code(), report))
    });
    assert_eq!((report.0, &report.1["cash"]["shares_fen"]), (Some(0), &json!(300)), "{}", report.1);
}
