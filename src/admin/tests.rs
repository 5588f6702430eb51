//! The whole API over real connections.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::world::{self, Wanted, World, open};
use super::{Shared, api, intents};
use crate::snapshot::Published;
use crate::snapshot::health::{BackendState, DcState};

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

async fn send(world: &World, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.unwrap().unwrap();
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

async fn ask(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(world, &format!("{method} {path} HTTP/1.1\r\nhost: {}", world.server.address()), &body).await
}

async fn get(world: &World, path: &str) -> Answer {
    ask(world, "GET", path, &Value::Null).await
}

#[tokio::test]
async fn the_state_is_one_picture_of_one_snapshot() {
    let world = open(Wanted::default());
    let state: super::report::State = serde_json::from_str(&get(&world, "/v1/state").await.body).unwrap();
    assert_eq!((state.node.name.as_str(), state.generation), ("sz-edge-1", 12));
    assert_eq!(state.edges.len(), 2);
    assert!(state.edges.iter().all(|e| e.generation == Some(12)));
    let gifts = &state.services[0];
    assert_eq!(gifts.datacenters[2].state, DcState::Failed);
    assert_eq!((gifts.datacenters[1].usable, gifts.datacenters[1].backends), (1, 2));
    let shares: f64 = gifts.datacenters.iter().map(|cell| cell.share).sum();
    assert!((shares - 1.0).abs() < 1e-3, "{shares}");
    assert_eq!(state.steers[0].candidates[2].held_by.as_deref(), Some("gift-list"));
    let unwell: Vec<BackendState> = state.unhealthy.iter().map(|b| b.state).collect();
    assert_eq!(unwell, [BackendState::Ejected, BackendState::Down, BackendState::Down]);
    assert_eq!(state.fleet, [world.server.address()], "a node without a fleet is its own");
}

#[tokio::test]
async fn every_verdict_comes_with_its_evidence() {
    let world = open(Wanted::default());
    let health: super::evidence::Health = serde_json::from_str(&get(&world, "/v1/health").await.body).unwrap();
    assert_eq!((health.backends.len(), health.targets.len()), (12, 12));
    let dead = health.targets.iter().find(|t| t.address == "10.3.0.11:7000").unwrap();
    assert_eq!((dead.streak_failed, dead.fall, dead.leaky, dead.backends.as_slice()), (6, 2, 6, [4].as_slice()));
    assert_eq!(health.backends[4].target, health.targets.iter().position(|t| t == dead));
    assert_eq!(health.backends[4].why, "probe: refused, 6 in a row, last 200ms ago");
    let out = &health.backends[2];
    assert_eq!(out.why, "live traffic: connections failed in a row; 8.0s left, ejection 2");
    assert_eq!((out.recent.ok, out.recent.reset, out.samples.len()), (40, 3, 1));
    let part: super::evidence::Health =
        serde_json::from_str(&get(&world, "/v1/health?only=unhealthy").await.body).unwrap();
    assert_eq!(part.backends.len(), 3);
}

#[tokio::test]
async fn an_intent_is_answered_once_it_is_in_force_and_goes_as_it_came() {
    let world = open(Wanted::default());
    let order = json!({"subject": "shanghai", "wish": "drain", "for": "10m", "by": "alice", "reason": "new kernel"});
    let drained = ask(&world, "POST", "/v1/intents", &order).await;
    assert_eq!(drained.status, 200, "{}", drained.body);
    assert_eq!(drained.json()["generation"], 13);
    assert_eq!(drained.json()["intents"][0]["left_s"], 600);
    assert_eq!(world.published.load().intents.entries[0].by, "alice");
    let state = get(&world, "/v1/state").await.json();
    let told = &state["intents"][0];
    assert_eq!((&told["subject"], &told["wish"], &told["backends"]), (&json!("shanghai"), &json!("drain"), &json!(4)));
    let unwell: Vec<&Value> = state["unhealthy"].as_array().unwrap().iter().map(|b| &b["datacenter"]).collect();
    assert_eq!(unwell, ["tianjin", "tianjin"], "what is drained is none the worse for it");

    let back = ask(&world, "DELETE", "/v1/intents", &json!({"subject": "shanghai"})).await.json();
    assert_eq!((&back["changed"], &back["generation"]), (&json!(true), &json!(14)));
    let again = ask(&world, "DELETE", "/v1/intents", &json!({"subject": "shanghai"})).await;
    assert_eq!((again.status, &again.json()["changed"]), (200, &json!(false)));

    let weight = json!({"subject": "claim@tianjin", "wish": {"weight": 5}});
    assert_eq!(ask(&world, "POST", "/v1/intents", &weight).await.json()["intents"][0]["wish"], "weight 5");
}

#[tokio::test]
async fn an_intent_that_makes_no_sense_is_refused_with_what_would() {
    let world = open(Wanted::default());
    for (order, status, hint) in [
        (json!({"subject": "shangai", "wish": "drain"}), 404, "there are: shenzhen, shanghai, tianjin"),
        (json!({"subject": "gifts@shanghai", "wish": "drain"}), 404, "there are: gift-list, claim"),
        (json!({"subject": "10.9.9.9:1", "wish": "down"}), 404, "GET /v1/health"),
        (json!({"subject": "", "wish": "down"}), 422, "springtide status"),
        (json!({"subject": "shanghai", "wish": "drain", "for": "10"}), 422, "taken back"),
        (json!({"subject": "shanghai", "wish": "drain", "for": "0s"}), 422, "taken back"),
        (json!({"subject": "shanghai", "wish": {"weight": 1_000_001}}), 422, "1000000"),
        (json!({"subject": "shanghai", "wish": "drain", "reason": "a\nb"}), 422, "shorter"),
        (json!({"subject": "shanghai", "wish": "fly"}), 400, "\"wish\": \"drain\""),
        (json!({"subject": "shanghai", "wish": "drain", "fro": "10m"}), 400, "\"for\": \"10m\""),
    ] {
        let refused = ask(&world, "POST", "/v1/intents", &order).await;
        assert_eq!(refused.status, status, "{order}: {}", refused.body);
        let problem: super::Problem = serde_json::from_str(&refused.body).unwrap();
        let said = format!("{} {}", problem.error, problem.hint);
        assert!(said.contains(hint), "{order}: {said}");
    }
    assert_eq!(world.published.load().generation, 12, "nothing reached the control loop");
}

#[tokio::test]
async fn the_last_that_serves_goes_only_by_force() {
    let world = open(Wanted::default());
    let drained = ask(&world, "POST", "/v1/intents", &json!({"subject": "shenzhen", "wish": "drain"})).await;
    assert_eq!(drained.json()["left"][1], json!(["claim", 60.0]), "what an operator should know");
    let down = |force: bool| json!({"subject": "gift-list@shanghai", "wish": "down", "force": force});
    let refused = ask(&world, "POST", "/v1/intents", &down(false)).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.json()["hint"].as_str().unwrap().contains("--force"));
    assert_eq!(ask(&world, "POST", "/v1/intents", &down(true)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_control_loop_that_is_stuck_or_gone_does_not_hang_its_operators() {
    let (events, stuck) = mpsc::channel(1);
    let context = world::context(Wanted::default(), Arc::new(Published::new(world::snapshot())), events);
    let shared = Arc::new(Shared::new(context, "127.0.0.1:1".parse().unwrap(), CancellationToken::new()));
    let order = || Ok(Bytes::from_static(br#"{"subject": "shanghai", "wish": "drain"}"#));
    let refused = intents::wish(State(Arc::clone(&shared)), order()).await.unwrap_err();
    assert_eq!(
        (refused.status, refused.problem.error.as_str()),
        (503.try_into().unwrap(), "the control loop does not answer")
    );
    drop(stuck);
    assert_eq!(intents::wish(State(shared), order()).await.unwrap_err().status, 503);
}

#[tokio::test]
async fn explain_hands_over_what_was_asked() {
    let world = open(Wanted::default());
    let dns = get(&world, "/v1/explain/dns?name=www.hongbao.test&type=HTTPS&client=10.2.3.0/24").await.json();
    assert_eq!(dns, json!({"generation": 12, "name": "www.hongbao.test", "type": "HTTPS", "client": "10.2.3.0"}));
    let path = "/v1/explain/http?host=a.test&path=/x%3Fy&method=post&user=42&header=X-A:%20b&header=c:d&client=::1";
    let http = get(&world, path).await.json();
    assert_eq!((&http["method"], &http["path"], &http["client"]), (&json!("POST"), &json!("/x?y"), &json!("::1")));
    assert_eq!(http["headers"], json!([["x-a", "b"], ["c", "d"]]));
    let top = get(&world, "/v1/dns/top?rows=7&transport=tcp").await.json();
    assert_eq!(top, json!({"rows": 7, "transport": "tcp"}));
    assert_eq!(get(&world, "/v1/dns/top").await.json(), json!({"rows": 20, "transport": null}));
    assert!(get(&world, "/v1/dns/keys").await.json()["at"].is_u64());
    for bad in [
        "/v1/explain/dns",
        "/v1/explain/dns?name=",
        "/v1/explain/dns?name=a&client=b",
        "/v1/explain/dns?name=a&colour=b",
        "/v1/explain/http?path=/",
        "/v1/explain/http?host=a&header=b",
        "/v1/health?only=sick",
        "/v1/dns/top?rows=many",
        "/v1/dns/top?transport=pigeon",
    ] {
        let refused = get(&world, bad).await;
        assert_eq!(refused.status, 400, "{bad}");
        assert!(refused.json()["hint"].as_str().unwrap().starts_with("usage: /v1/"), "{bad}");
    }
}

#[tokio::test]
async fn the_rim_holds() {
    let world = open(Wanted { token: Some("sesame".into()), ..Wanted::default() });
    let refused = get(&world, "/v1/state").await;
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    let let_in = send(&world, "GET /v1/state HTTP/1.1\r\nhost: any.name\r\nauthorization: Bearer sesame", "").await;
    assert_eq!(let_in.status, 200);
    assert_eq!(get(&world, "/readyz").await.body, "ready\n");

    let world = open(Wanted::default());
    let foreign = send(&world, "POST /v1/reload HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example", "").await;
    assert_eq!(foreign.status, 403);
    assert_eq!(send(&world, "GET /v1/state HTTP/1.1\r\nhost: evil.example", "").await.status, 403);
    let large = ask(&world, "POST", "/v1/intents", &json!({"subject": "x".repeat(20_000), "wish": "drain"})).await;
    assert_eq!(large.status, 413);
    assert!(large.json()["hint"].as_str().unwrap().starts_with("send JSON like"));
    assert_eq!(get(&world, "/v2").await.status, 404);
    let post = ask(&world, "POST", "/v1/state", &Value::Null).await;
    assert_eq!((post.status, post.json()["error"].as_str()), (405, Some("POST does nothing here")));
}

#[tokio::test]
async fn beyond_its_seats_a_connection_waits_until_one_is_free() {
    let world = open(Wanted::default());
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut seated = Vec::new();
    for _ in 0..super::serve::CONNECTIONS {
        let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
        stream.write_all(request).await.unwrap();
        hears(&mut stream, "ok\n").await;
        seated.push(stream);
    }
    let mut waiting = TcpStream::connect(world.server.address()).await.unwrap();
    waiting.write_all(request).await.unwrap();
    seated[0].write_all(request).await.unwrap();
    hears(&mut seated[0], "ok\n").await;
    let error = waiting.try_read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody serves it yet");
    seated.pop();
    hears(&mut waiting, "ok\n").await;
}

#[tokio::test]
async fn a_reload_that_fails_says_all_and_changes_nothing() {
    let world = open(Wanted::default());
    let refused = ask(&world, "POST", "/v1/reload", &Value::Null).await;
    assert_eq!(refused.status, 422);
    assert!(refused.json()["error"].as_str().unwrap().contains("springtide.toml:3:1"));
    assert!(refused.json()["hint"].as_str().unwrap().contains("old configuration is in force"));
}

#[tokio::test]
async fn the_api_counts_its_own_requests() {
    crate::observe::recorder::install();
    let world = open(Wanted::default());
    assert_eq!(get(&world, "/nowhere/in/particular").await.status, 404);
    let text = get(&world, "/metrics").await.body;
    assert!(text.contains("springtide_admin_requests_total{path=\"other\",status=\"404\"}"), "{text}");
    assert!(!text.contains("particular"), "a path that does not exist is no label");
}

#[tokio::test]
async fn backends_have_series_for_as_long_as_they_are_there() {
    let world = open(Wanted::default());
    let snapshot = world.published.full();
    let first = &snapshot.topology.backends[0];
    first.load.account(&[5, 1, 0, 0, 0, 0, 0], 2_500_000_000, 10, 20);
    let text = get(&world, "/metrics").await.body;
    let address = first.spec.address;
    for line in [
        format!(
            "springtide_backend_tries_total{{service=\"gift-list\",datacenter=\"shenzhen\",backend=\"{address}\",outcome=\"ok\"}} 5\n"
        ),
        format!(
            "springtide_backend_tries_seconds_total{{service=\"gift-list\",datacenter=\"shenzhen\",backend=\"{address}\"}} 2.5\n"
        ),
        "# TYPE springtide_backend_in_flight gauge\n".to_owned(),
        "springtide_backend_untold 0\n".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    let series = text.lines().filter(|l| l.starts_with("springtide_backend_weight{")).count();
    assert_eq!(series, snapshot.topology.backends.len());
}

#[tokio::test]
async fn the_page_brings_everything_with_it() {
    let world = open(Wanted::default());
    let page = get(&world, "/").await;
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for asset in ["/assets/dashboard.css", "/assets/dashboard.js"] {
        assert!(page.body.contains(asset), "{asset}");
        assert_eq!(get(&world, asset).await.status, 200, "{asset}");
    }
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "nothing from elsewhere");
}

#[test]
fn every_route_stands_in_the_docs() {
    let docs = include_str!("../../docs/API.md");
    let code = include_str!("api.rs");
    let routes = code.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next());
    let missing: Vec<&str> =
        routes.filter(|r| !r.starts_with("/assets/") && !docs.contains(&format!("`{r}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn followers_hear_of_each_change_and_the_journal_keeps_it() {
    let world = open(Wanted::default());
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    hears(&mut stream, "\"generation\":12").await;
    let order = json!({"subject": "tianjin", "wish": "drain", "for": "1h", "by": "bob", "reason": "cooling"});
    assert_eq!(ask(&world, "POST", "/v1/intents", &order).await.status, 200);
    let told = hears(&mut stream, "\"generation\":13").await;
    assert!(told.contains("drain for 1h") && told.contains("by bob: cooling"), "{told}");
    let journal = get(&world, "/v1/changes").await.json();
    assert_eq!(journal[0]["changes"][0]["subject"], "tianjin");
    let World { server, shutdown, .. } = world;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), server.stopped())
        .await
        .expect("a follower does not hold the node up");
    hears(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn who_was_let_in_before_the_shutdown_is_answered_and_the_silent_hold_nobody_up() {
    let world = open(Wanted::default());
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let connect = || async { TcpStream::connect(world.server.address()).await.unwrap() };
    let (mut fresh, mut halfway, mut silent, mut kept) =
        (connect().await, connect().await, connect().await, connect().await);
    let (first, rest) = request.split_at(7);
    halfway.write_all(first).await.unwrap();
    // Who came last are served, and so all have been let in.
    kept.write_all(request).await.unwrap();
    hears(&mut kept, "ok\n").await;
    let mut follower = connect().await;
    follower.write_all(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    hears(&mut follower, "\"generation\":12").await;
    world.shutdown.cancel();
    // By now everybody has heard of it.
    hears(&mut follower, "0\r\n\r\n").await;
    for (stream, request) in [(&mut fresh, &request[..]), (&mut halfway, rest), (&mut kept, request)] {
        stream.write_all(request).await.unwrap();
        let answer = hears(stream, "ok\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "closed in order");
    }
    let World { server, .. } = world;
    tokio::time::timeout(Duration::from_secs(10), server.stopped()).await.expect("within two seconds and a little");
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
}

/// Reads until `text` has come.
async fn hears(stream: &mut TcpStream, text: &str) -> String {
    let mut heard = String::new();
    let mut buffer = [0; 4_096];
    while !heard.contains(text) {
        let n = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "the stream ended at {heard}");
        heard += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    heard
}

#[tokio::test]
async fn one_comparison_runs_at_a_time_though_nobody_waits_for_it() {
    let (began, mut beginning) = mpsc::channel(2);
    let (end, ending) = std::sync::mpsc::sync_channel::<()>(2);
    let ending = std::sync::Mutex::new(ending);
    let foresee: super::Foresee = Arc::new(move |_, _, _, _| {
        began.blocking_send(()).unwrap();
        ending.lock().unwrap().recv().unwrap();
        Ok(json!({}))
    });
    let (events, _arriving) = mpsc::channel(1);
    let context = world::context(
        Wanted { foresee: Some(foresee), ..Wanted::default() },
        Arc::new(Published::new(world::snapshot())),
        events,
    );
    let shared = Arc::new(Shared::new(context, "127.0.0.1:1".parse().unwrap(), CancellationToken::new()));
    let plan = || api::plan(State(Arc::clone(&shared)), Json(json!({})));
    {
        let mut asking = Box::pin(plan());
        tokio::select! {
            _ = &mut asking => panic!("it does not end by itself"),
            _ = beginning.recv() => {}
        }
        // Who asked has hung up: what he waited for is dropped, and runs on.
    }
    assert!(plan().await.is_err(), "another comparison is under way");
    end.send(()).unwrap();
    end.send(()).unwrap();
    let ended = async {
        while plan().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("when it has ended, another may be asked for");
}
