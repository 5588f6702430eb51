//! Explanations, read as an operator reads them.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Question, explain};
use crate::base::ids::BackendId;
use crate::config::{
    Action, Balance, Override, PathChange, PathMatch, Redirect, Rewrite, Route, RouteMatch, Scheme, Split, UserKey,
    ValueMatch,
};
use crate::decide::world::{SERVICE, routed, set_backend, set_datacenter};
use crate::snapshot::health::BackendState;
use crate::snapshot::{DcState, Snapshot};

fn route(name: &str, host: &str, prefix: &str, methods: &[&str]) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            host: Some(host.into()),
            path: PathMatch::Prefix(prefix.into()),
            methods: methods.iter().map(|m| (*m).into()).collect(),
            ..RouteMatch::default()
        },
        action: Action::Forward(SERVICE),
        user: UserKey::Header("x-user-id".into()),
        ..Route::default()
    }
}

fn world(balance: Balance) -> Snapshot {
    let routes = vec![
        route("all", "www.hongbao.test", "/", &[]),
        route("gifts", "www.hongbao.test", "/v1/gifts", &["GET"]),
        route("admin", "admin.hongbao.test", "/", &["GET"]),
    ];
    routed(balance, &[(40, &[1, 1]), (40, &[1, 1]), (20, &[1, 1])], routes)
}

fn ask(path: &str) -> Question {
    Question {
        method: "GET".into(),
        host: "WWW.hongbao.test:8080".into(),
        path: path.into(),
        headers: vec![("x-user-id".into(), "42".into())],
        client: IpAddr::from([192, 0, 2, 7]),
        user: None,
        tls: false,
    }
}

fn fates(answer: &Value) -> Vec<&str> {
    answer["routes"].as_array().unwrap().iter().map(|r| r["fate"].as_str().unwrap()).collect()
}

#[test]
fn the_whole_way_is_told() {
    let snapshot = world(Balance::P2c);
    let answer = explain(&snapshot, &ask("/v1//gifts/7?x=1"));
    assert_eq!(answer["request"]["path"], "/v1/gifts/7");
    assert_eq!(fates(&answer), ["outranked", "taken", "other host"]);
    assert_eq!(answer["route"], json!({ "name": "gifts", "matched": "exact host, longest prefix" }));
    assert_eq!(answer["user"]["key"], "header:x-user-id");
    assert_eq!(answer["datacenters"][0]["share"], 1.0);
    assert_eq!(answer["pick"]["placed"], "local");
    assert_eq!(answer["deadline"], json!({ "ms": 500.0, "by": "service" }));
    let shares: Vec<f64> =
        answer["backends"].as_array().unwrap().iter().map(|b| b["share"].as_f64().unwrap()).collect();
    assert!((shares[0] - 0.5).abs() < 0.1 && (shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
}

#[test]
fn conditions_that_are_not_met_are_named() {
    let matches = RouteMatch {
        path: PathMatch::Exact("/v1/gifts/{id}".into()),
        query: vec![("v".into(), ValueMatch::Exact("2".into()))],
        ..RouteMatch::default()
    };
    let cookies = vec![("side".into(), ValueMatch::Any)];
    let routes = vec![
        Route { name: "new".into(), matches: matches.clone(), action: Action::Forward(SERVICE), ..Route::default() },
        Route { name: "side".into(), matches: RouteMatch { cookies, ..matches.clone() }, ..Route::default() },
    ];
    let snapshot = routed(Balance::P2c, &[(1, &[1])], routes);
    let answer = explain(&snapshot, &ask("/v1/gifts/7?v=2"));
    assert_eq!(answer["route"], json!({ "name": "new", "matched": "any host, pattern" }));
    assert_eq!(answer["routes"][1]["cookie"], "side");
    let missed = explain(&snapshot, &ask("/v1/gifts/7"));
    assert_eq!(missed["routes"][0]["query"], "v");
    assert_eq!(missed["refused"]["status"], 404);
}

#[test]
fn redirects_rewrites_and_sides_are_told() {
    let path = |text: &str| Some(PathChange::Prefix(text.into()));
    let choice = Override { by: UserKey::Header("x-canary".into()), values: vec![("always".into(), 1)], from: vec![] };
    let split = Split { sides: vec![(SERVICE, 1), (SERVICE, 0)], choice: Some(choice) };
    let redirect =
        Redirect { status: 308, scheme: Some(Scheme::Https), host: None, port: None, path: path("/new"), query: None };
    let rewrite = Rewrite { path: path("/"), host: Some("gifts.internal".into()) };
    let snapshot = routed(
        Balance::P2c,
        &[(1, &[1])],
        vec![
            Route { action: Action::Redirect(redirect), ..route("old", "www.hongbao.test", "/old", &[]) },
            Route { rewrite, action: Action::Split(split), ..route("split", "www.hongbao.test", "/v1", &[]) },
        ],
    );
    let old = explain(&snapshot, &ask("/old/x?a=b"));
    assert_eq!(old["redirects"], json!({ "status": 308, "location": "https://www.hongbao.test/new/x?a=b" }));
    let mut question = ask("/v1/gifts");
    let answer = explain(&snapshot, &question);
    assert_eq!(answer["rewritten"], json!({ "path": "/gifts", "host": "gifts.internal" }));
    assert_eq!((&answer["split"]["because"], &answer["split"]["sides"][0]["share"]), (&json!("user"), &json!(1.0)));
    assert_eq!(answer["pick"]["placed"], "local");
    question.headers.push(("x-canary".into(), "always".into()));
    assert_eq!(explain(&snapshot, &question)["split"]["because"], "override");
    question.headers.clear();
    assert_eq!(explain(&snapshot, &question)["split"]["because"], "lot");
}

#[test]
fn what_is_out_says_why() {
    let mut snapshot = world(Balance::P2c);
    set_backend(&mut snapshot, BackendId::new(0), BackendState::Ejected);
    set_datacenter(&mut snapshot, 0, DcState::Serving, 700);
    let answer = explain(&snapshot, &ask("/v1/gifts"));
    assert_eq!(answer["backends"][0]["excluded"], "ejected");
    assert_eq!(answer["backends"][0]["share"], 0.0);
    assert_eq!(answer["backends"][1]["excluded"], Value::Null);
    let shares: Vec<f64> =
        answer["datacenters"].as_array().unwrap().iter().map(|d| d["share"].as_f64().unwrap()).collect();
    assert!(shares.iter().zip([0.7, 0.2, 0.1]).all(|(got, want)| (got - want).abs() < 1e-9), "{shares:?}");
}

#[test]
fn a_home_is_named_and_a_closed_one_too() {
    let mut snapshot = world(Balance::UserHome);
    let answer = explain(&snapshot, &ask("/v1/gifts"));
    let rows = answer["backends"].as_array().unwrap();
    let at = rows.iter().position(|b| b["home"] == true).unwrap();
    assert_eq!(rows[at]["share"], 1.0);
    assert_eq!(answer["pick"]["backend"], rows[at]["backend"]);
    set_backend(&mut snapshot, BackendId::new(at), BackendState::AdminDown);
    let closed = explain(&snapshot, &ask("/v1/gifts"));
    assert_eq!(closed["pick"], json!({ "none": "home-down", "home": rows[at]["backend"] }));
    let stranger = explain(&snapshot, &Question { headers: Vec::new(), ..ask("/v1/gifts") });
    assert_eq!(stranger["pick"]["none"], "no-user");
    let named = explain(&snapshot, &Question { headers: Vec::new(), user: Some("42".into()), ..ask("/v1/gifts") });
    assert_eq!(named["user"], answer["user"]);
}

#[test]
fn refusals_are_told_with_their_status() {
    let snapshot = world(Balance::P2c);
    let refused = |question| explain(&snapshot, &question)["refused"].clone();
    assert_eq!(refused(Question { host: "nobody.test".into(), ..ask("/") })["status"], 404);
    let post = Question { method: "POST".into(), host: "admin.hongbao.test".into(), ..ask("/") };
    assert_eq!(refused(post), json!({ "status": 405, "because": "no route takes this method", "allow": ["GET"] }));
    assert_eq!(refused(ask("/../etc/passwd"))["because"], "path: the path leads out of the root");
    assert_eq!(refused(Question { host: "a b".into(), ..ask("/") })["status"], 400);
}
