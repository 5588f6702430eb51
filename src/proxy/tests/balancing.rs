//! Limits, hedges and sessions, over real sockets.

use super::*;
use crate::config::{Limits, Session};

/// Answers after `delay`.
async fn slow(name: &'static str, delay: Duration) -> Origin {
    Origin::new(move |_| async move {
        tokio::time::sleep(delay).await;
        Response::new(stage::full(name))
    })
    .await
}

#[tokio::test]
async fn where_one_backend_is_full_another_is_asked_and_where_all_are_the_reply_is_kind() {
    let (a, b) = (Origin::silent().await, Origin::silent().await);
    let mut config = config(&[a.address, b.address]);
    config.services[0].limits = Limits { requests: 1, ..Limits::default() };
    let edge = Edge::new(config);
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut caller = edge.http1().await;
        waiting.push(task::spawn("waits", async move { drop(caller.send(post("/", "x")).await) }));
        eventually("one more is under way", || edge.load(0).in_flight() + edge.load(1).in_flight() == n).await;
    }
    assert_eq!((edge.load(0).in_flight(), edge.load(1).in_flight()), (1, 1));
    assert_eq!(edge.get("/").await.refusal(), (503, "overloaded".into()));
    drop(waiting);
    eventually("both are free again", || edge.load(0).in_flight() + edge.load(1).in_flight() == 0).await;
    let failures: u32 = (0..2).map(|id| edge.load(id).take().failures()).sum();
    assert_eq!(failures, 0, "a limit of ours says nothing about a backend");
}

#[tokio::test]
async fn a_backend_without_a_free_connection_is_passed_over_without_a_retry() {
    let (full, other) = (Origin::silent().await, Origin::named("other").await);
    let mut config = config(&[full.address, other.address]);
    config.services[0].limits = Limits { connections: 1, ..Limits::default() };
    config.services[0].retry.tries = 1;
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let waits = task::spawn("waits", async move { drop(caller.send(post("/", "x")).await) });
    eventually("the only connection is taken", || edge.load(0).in_flight() == 1).await;
    let mut caller = edge.http1().await;
    for _ in 0..10 {
        assert_eq!(caller.call(post("/", "y")).await.body, "other", "not even a POST minds");
    }
    assert_eq!(full.accepted.load(SeqCst), 1);
    assert_eq!(edge.load(0).connections.load(SeqCst), 1);
    drop(waits);
    eventually("the place is given back", || edge.load(0).connections.load(SeqCst) == 0).await;
    assert_eq!(edge.load(0).pending.load(SeqCst), 0);
}

#[tokio::test]
async fn when_no_backend_has_a_connection_to_give_the_reply_is_kind() {
    let full = Origin::silent().await;
    let mut config = config(&[full.address]);
    config.services[0].limits = Limits { connections: 1, ..Limits::default() };
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let _waits = task::spawn("waits", async move { drop(caller.send(post("/", "x")).await) });
    eventually("the only connection is taken", || edge.load(0).in_flight() == 1).await;
    assert_eq!(edge.get("/").await.refusal(), (503, "overloaded".into()));
}

#[tokio::test]
async fn retries_under_way_are_limited() {
    let (dead, silent) = (nowhere().await, Origin::silent().await);
    let mut config = config(&[dead, silent.address]);
    config.services[0].limits = Limits { retries: 1, ..Limits::default() };
    config.services[0].retry.tries = 2;
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    // In turn: the dead one, whose retry is heard by nobody.
    let _waits = task::spawn("waits", async move { drop(caller.send(post("/", "x")).await) });
    eventually("a retry waits", || edge.load(1).in_flight() == 1).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut caller = edge.http1().await;
        let call = caller.call(post("/", "y"));
        answers.push(tokio::time::timeout(Duration::from_secs(1), call).await.map(|answer| answer.refusal().0));
    }
    assert!(answers.contains(&Ok(502)), "what meets the dead one is not tried again: {answers:?}");
}

/// An edge with two backends, the first of which has been quick so far, so that the 95th percentile is known.
fn hedging(hedge: bool, first: Origin, second: Origin) -> (Edge, Origin, Origin) {
    let mut config = config(&[first.address, second.address]);
    config.routes[0].hedge = hedge;
    config.services[0].retry.hedge_budget = 1.0;
    (Edge::new(config), first, second)
}

/// Quick for its first `quick` requests, then silent.
async fn falling_silent(quick: usize) -> Origin {
    let count = Arc::new(AtomicUsize::new(0));
    Origin::new(move |_| {
        let count = Arc::clone(&count);
        async move {
            if count.fetch_add(1, SeqCst) >= quick {
                std::future::pending::<()>().await;
            }
            Response::new(stage::full("first"))
        }
    })
    .await
}

#[tokio::test]
async fn a_slow_get_is_asked_of_a_second_backend_and_the_first_answer_counts() {
    let (edge, first, second) = hedging(true, falling_silent(50).await, Origin::named("second").await);
    let mut caller = edge.http1().await;
    for _ in 0..100 {
        caller.call(get("/")).await;
    }
    edge.load(0).take();
    let before = first.requests();
    for _ in 0..6 {
        assert_eq!(caller.call(get("/")).await.body, "second");
    }
    assert!(first.requests() > before, "it was asked, and did not answer");
    let sample = edge.load(0).take();
    assert_eq!((sample.timeout, sample.failures()), (0, 0), "outrun, long before a try is late: {sample:?}");
    eventually("losers are cancelled", || edge.load(0).in_flight() == 0).await;
    assert!(edge.load(0).seen_at().is_some() && second.requests() >= 50 + 6);
}

#[tokio::test]
async fn what_must_not_be_done_twice_is_not_hedged() {
    for (hedge, method) in [(true, Method::POST), (true, Method::PUT), (false, Method::GET)] {
        let (first, second) = (slow("first", Duration::from_millis(2)).await, Origin::named("second").await);
        let (edge, first, second) = hedging(hedge, first, second);
        let mut caller = edge.http1().await;
        for _ in 0..100 {
            caller.call(request(method.clone(), "/", "")).await;
        }
        assert_eq!(first.requests() + second.requests(), 100, "{method}, hedge = {hedge}");
    }
}

#[tokio::test]
async fn a_race_that_both_lose_is_one_failure() {
    let silent = Arc::new(AtomicUsize::new(0));
    let origin = || {
        let silent = Arc::clone(&silent);
        Origin::new(move |_| {
            let silent = Arc::clone(&silent);
            async move {
                if silent.load(SeqCst) > 0 {
                    std::future::pending::<()>().await;
                }
                Response::new(stage::full("well"))
            }
        })
    };
    let (edge, _first, _second) = hedging(true, origin().await, origin().await);
    let mut caller = edge.http1().await;
    for _ in 0..100 {
        assert_eq!(caller.call(get("/")).await.body, "well");
    }
    silent.store(1, SeqCst);
    let mut late = get("/");
    late.headers_mut().insert("x-deadline-ms", "400".parse().unwrap());
    assert_eq!(caller.call(late).await.refusal(), (504, "upstream_timeout".into()));
    eventually("nothing is left under way", || edge.load(0).in_flight() + edge.load(1).in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_stays_where_its_cookie_says() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let mut config = config(&[a.address, b.address]);
    config.services[0].session = Some(Session::Cookie("seat".into()));
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let first = caller.call(get("/")).await;
    let cookie = first.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!(first.headers["cache-control"], "no-cache=\"set-cookie\"");
    let pair = cookie.split(';').next().unwrap().to_owned();
    let known = || {
        let mut request = get("/");
        request.headers_mut().insert("cookie", format!("other=1; {pair}").parse().unwrap());
        request
    };
    for _ in 0..6 {
        let answer = caller.call(known()).await;
        assert_eq!(answer.body, first.body);
        assert!(!answer.headers.contains_key("set-cookie"), "it knows");
    }
    let (theirs, other) = if first.body == "a" { (&a, "b") } else { (&b, "a") };
    edge.take_down(theirs.address);
    let moved = caller.call(known()).await;
    assert_eq!(moved.body, other);
    let anew = moved.headers["set-cookie"].to_str().unwrap();
    assert!(anew.starts_with("seat=") && !anew.starts_with(&pair), "{anew}");
    let mut forged = get("/");
    forged.headers_mut().insert("cookie", "seat=0123456789abcdef".parse().unwrap());
    assert_eq!(caller.call(forged).await.status, StatusCode::OK, "a seat that nobody has is none");
}

#[tokio::test]
async fn a_client_stays_where_its_header_says_and_leaves_who_is_dead() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let mut config = config(&[a.address, b.address]);
    config.services[0].session = Some(Session::Header("x-seat".into()));
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let first = caller.call(get("/")).await;
    let known = || {
        let mut request = get("/");
        request.headers_mut().insert("x-seat", first.headers["x-seat"].clone());
        request
    };
    for _ in 0..4 {
        assert_eq!(caller.call(known()).await.body, first.body);
    }
    let (gone, other) = if first.body == "a" { (a, "b") } else { (b, "a") };
    drop(gone.task);
    let moved = caller.call(known()).await;
    assert_eq!(moved.body, other, "refused, and tried elsewhere");
    assert_ne!(moved.headers["x-seat"], first.headers["x-seat"]);
}
