//! Backends that fail in every way there is, and what clients see of it.

use super::*;

/// Answers `count` requests on each connection, then does as `then` says.
async fn answering_then_closing(count: usize) -> Origin {
    Origin::raw(move |mut tcp| async move {
        for _ in 0..count {
            read_head(&mut tcp).await;
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_costs_the_client_nothing() {
    let origin = Origin::named("ok").await;
    let edge = Edge::new(config(&[nowhere().await, origin.address]));
    let mut caller = edge.http1().await;
    for _ in 0..10 {
        assert_eq!(caller.call(get("/")).await.body, "ok");
        assert_eq!(caller.call(post("/", "x")).await.body, "ok", "nothing was sent, so even a POST may go elsewhere");
    }
    let dead = edge.load(0).take();
    assert!(dead.refused >= 5 && dead.ok == 0, "{dead:?}");
    assert!(edge.published.alarm().hush(), "the control loop was rung");
}

#[tokio::test]
async fn when_all_have_failed_the_reply_is_kind() {
    let edge = Edge::new(config(&[nowhere().await, nowhere().await]));
    let answer = edge.get("/").await;
    assert_eq!(answer.refusal(), (502, "upstream_unreachable".into()));
    let mut page = get("/");
    page.headers_mut().insert("accept", "text/html,*/*;q=0.5".parse().unwrap());
    let page = edge.http1().await.call(page).await;
    assert_eq!(page.status.as_u16(), 502);
    assert!(String::from_utf8_lossy(&page.body).contains("暂时无法连接"));
}

#[tokio::test]
async fn a_silent_backend_is_left_for_another() {
    let (silent, origin) = (Origin::silent().await, Origin::named("ok").await);
    let mut config = config(&[silent.address, origin.address]);
    config.services[0].retry.per_try = Some(Duration::from_millis(50));
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    for _ in 0..4 {
        assert_eq!(caller.call(get("/")).await.body, "ok");
    }
    assert!(edge.load(0).take().timeout >= 1);
    assert_eq!(edge.load(0).in_flight(), 0);
}

#[tokio::test]
async fn silence_everywhere_is_a_504_within_the_deadline() {
    let silent = Origin::silent().await;
    let mut config = config(&[silent.address]);
    config.services[0].deadline = Duration::from_millis(300);
    let edge = Edge::new(config);
    let answer = edge.get("/").await;
    assert_eq!(answer.refusal(), (504, "upstream_timeout".into()));
    assert!(silent.accepted.load(SeqCst) >= 1);
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let broken = Origin::raw(|mut tcp| async move { drop(read_head(&mut tcp).await) }).await;
    let edge = Edge::new(config(&[broken.address, broken.address]));
    let mut caller = edge.http1().await;
    assert_eq!(caller.call(post("/", "pay")).await.refusal(), (502, "upstream_broken".into()));
    assert_eq!(broken.accepted.load(SeqCst), 1);
    let mut keyed = post("/", "pay");
    keyed.headers_mut().insert("idempotency-key", "7".parse().unwrap());
    assert_eq!(caller.call(keyed).await.status.as_u16(), 502);
    assert!(broken.accepted.load(SeqCst) > 2, "with a key it may be");
}

#[tokio::test]
async fn a_gateway_error_is_tried_elsewhere_and_overload_is_not() {
    let failing = |status: u16, retry_after: bool| {
        Origin::new(move |_| async move {
            let mut response = Response::new(stage::full("no"));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            if retry_after {
                response.headers_mut().insert("retry-after", "1".parse().unwrap());
            }
            response
        })
    };
    let (bad, good) = (failing(502, false).await, Origin::named("ok").await);
    let edge = Edge::new(config(&[bad.address, good.address]));
    for _ in 0..4 {
        assert_eq!(edge.get("/").await.body, "ok");
    }
    assert!(edge.load(0).take().gateway_error >= 1);
    let full = failing(503, true).await;
    let edge = Edge::new(config(&[full.address, good.address]));
    let statuses: Vec<u16> = {
        let mut caller = edge.http1().await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(caller.call(get("/")).await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses.iter().filter(|s| **s == 503).count(), 2, "{statuses:?}");
    let sample = edge.load(0).take();
    assert_eq!((sample.pressure, sample.gateway_error), (2, 0));
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_nobodys_failure() {
    let origin = answering_then_closing(1).await;
    let edge = Edge::new(config(&[origin.address]));
    let mut caller = edge.http1().await;
    for _ in 0..10 {
        assert_eq!(caller.call(get("/")).await.body, "ok");
    }
    let sample = edge.load(0).take();
    assert_eq!((sample.ok, sample.failures()), (10, 0), "{sample:?}");
}

#[tokio::test]
async fn a_backend_that_breaks_off_half_way_is_seen_to() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let passed = Arc::clone(&gate);
    let origin = Origin::raw(move |mut tcp| {
        let gate = Arc::clone(&passed);
        async move {
            let head = read_head(&mut tcp).await;
            let framing = if head.starts_with("GET /chunked") {
                "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
            } else {
                "content-length: 100\r\n\r\nhello"
            };
            tcp.write_all(format!("HTTP/1.1 200 OK\r\n{framing}").as_bytes()).await.unwrap();
            gate.notified().await;
        }
    })
    .await;
    let edge = Edge::new(config(&[origin.address]));
    for path in ["/length", "/chunked"] {
        let mut caller = edge.http1().await;
        let response = caller.send(get(path)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        gate.notify_one();
        assert!(body.collect().await.is_err(), "{path}: never a clean end");
    }
    let mut resets = 0;
    eventually("both are counted", || {
        resets += edge.load(0).take().reset;
        resets == 2
    })
    .await;
    assert_eq!(edge.load(0).in_flight(), 0);
}

#[tokio::test]
async fn a_backend_that_breaks_off_before_the_client_has_a_byte_is_replaced() {
    let broken = Origin::raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
    })
    .await;
    let good = Origin::named("ok").await;
    let edge = Edge::new(config(&[broken.address, good.address]));
    let mut caller = edge.http1().await;
    for _ in 0..4 {
        let response = caller.send(get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        // Whether the end came together with the beginning is the kernel's affair: it is another backend's answer, or the
        // beginning of this one's; a clean end it never is, nor nothing at all.
        match response.into_body().collect().await {
            Ok(whole) => assert_eq!(whole.to_bytes(), "ok"),
            Err(_) => caller = edge.http1().await,
        }
    }
    assert!(edge.load(0).take().reset >= 1);
}

#[tokio::test]
async fn nonsense_from_a_backend_is_a_502() {
    for nonsense in
        ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "HTTP/1.1 101 S\r\n\r\n"]
    {
        let origin = Origin::raw(move |mut tcp| async move {
            read_head(&mut tcp).await;
            tcp.write_all(nonsense.as_bytes()).await.unwrap();
        })
        .await;
        let edge = Edge::new(config(&[origin.address]));
        assert_eq!(edge.get("/").await.refusal(), (502, "upstream_broken".into()), "{nonsense}");
        assert!(edge.load(0).take().reset >= 1);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_no_evidence() {
    let silent = Origin::silent().await;
    let edge = Edge::new(config(&[silent.address]));
    let mut tcp = edge.connect().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let load = edge.load(0);
    eventually("the request is under way", || load.in_flight() == 1).await;
    drop(tcp);
    eventually("it is over", || load.in_flight() == 0).await;
    assert_eq!(load.take().total(), 0);
}

#[tokio::test]
async fn retries_have_a_budget() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[nowhere().await, origin.address]);
    config.services[0].retry.budget = 0.0;
    // On a busy machine 400 at once take longer than a try may by what was observed, and each that is late needs a retry.
    config.services[0].retry.per_try = Some(Duration::from_secs(10));
    let edge = Edge::new(config);
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let mut caller = edge.http1().await;
        set.spawn(async move { caller.call(get("/")).await.status.as_u16() });
    }
    let mut failed = 0;
    while let Some(status) = set.join_next().await {
        failed += usize::from(status.unwrap() != 200);
    }
    // Half of 400 need a retry; without a share only the floor of 10 a second (over ten seconds) pays for some.
    assert!((50..=100).contains(&failed), "{failed}");
}

#[tokio::test]
async fn who_cannot_pay_for_another_try_waits_for_the_one_that_it_has() {
    let slow = Origin::new(|_| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Response::new(stage::full("slow"))
    })
    .await;
    let mut config = config(&[slow.address, nowhere().await]);
    config.services[0].retry = crate::config::Retry {
        per_try: Some(Duration::from_millis(50)),
        budget: 0.0,
        ..crate::config::Retry::default()
    };
    let edge = Edge::new(config);
    // More than the floor of 10 a second (over ten seconds) pays for; all at once, so that it does not come back meanwhile.
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let mut caller = edge.http1().await;
        set.spawn(async move { caller.call(get("/")).await });
    }
    let mut served = 0;
    while let Some(answer) = set.join_next().await {
        let answer = answer.unwrap();
        served += usize::from(answer.status == StatusCode::OK);
        assert_ne!(answer.status, StatusCode::GATEWAY_TIMEOUT, "left alone after 50 ms, with nobody else to ask");
    }
    // Of 150 that were sent to the slow one first, at most 100 were taken away from it.
    assert!(served >= 50, "{served}");
}

#[tokio::test]
async fn a_user_whose_home_is_down_is_asked_to_wait() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let mut config = config(&[a.address, b.address]);
    config.services[0].balance = Balance::UserHome;
    let edge = Edge::new(config);
    let of_user = |user: u32| {
        let mut request = post("/", "claim");
        request.headers_mut().insert("x-user-id", user.to_string().parse().unwrap());
        request
    };
    let mut caller = edge.http1().await;
    assert_eq!(caller.call(get("/")).await.refusal(), (400, "user_required".into()));
    let mut homes = Vec::new();
    for user in 0..20 {
        homes.push(caller.call(of_user(user)).await.body);
    }
    drop(a.task);
    let mut refused = 0;
    for (user, home) in (0..20).zip(&homes) {
        let answer = caller.call(of_user(user)).await;
        if home == "a" {
            assert_eq!(answer.refusal(), (503, "home_unavailable".into()));
            refused += 1;
        } else {
            assert_eq!(answer.body, "b");
        }
    }
    assert!((1..20).contains(&refused), "{refused}");
}

#[tokio::test]
async fn where_others_take_a_note_a_broken_home_costs_its_users_nothing() {
    let broken = Origin::raw(|mut tcp| async move { drop(read_head(&mut tcp).await) }).await;
    let silent = Origin::silent().await;
    for home in [nowhere().await, broken.address, silent.address] {
        let note = Origin::named("note").await;
        let mut config = config(&[home, note.address]);
        config.services[0].balance = Balance::UserHome;
        config.services[0].homing.down = crate::config::HomeDown::Elsewhere;
        config.services[0].deadline = Duration::from_millis(800);
        let edge = Edge::new(config);
        let mut caller = edge.http1().await;
        for user in 0..8 {
            let mut request = post("/", "claim");
            request.headers_mut().insert("x-user-id", user.to_string().parse().unwrap());
            request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
            assert_eq!(caller.call(request).await.body, "note", "{user}");
        }
    }
}

#[tokio::test]
async fn a_home_that_may_have_done_it_is_left_for_a_note_only_under_a_key() {
    let broken = Origin::raw(|mut tcp| async move { drop(read_head(&mut tcp).await) }).await;
    let note = Origin::named("note").await;
    let mut config = config(&[broken.address, note.address]);
    config.services[0].balance = Balance::UserHome;
    config.services[0].homing.down = crate::config::HomeDown::Elsewhere;
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let mut refused = 0;
    for user in 0..20 {
        let mut request = post("/", "claim");
        request.headers_mut().insert("x-user-id", user.to_string().parse().unwrap());
        let answer = caller.call(request).await;
        if answer.body != "note" {
            assert_eq!(answer.refusal(), (503, "home_unavailable".into()));
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn what_an_operator_took_down_gets_nothing_more() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let edge = Edge::new(config(&[a.address, b.address]));
    let mut caller = edge.http1().await;
    for _ in 0..4 {
        caller.call(get("/")).await;
    }
    let before = a.requests();
    assert!(before > 0);
    edge.take_down(a.address);
    for _ in 0..10 {
        assert_eq!(caller.call(get("/")).await.body, "b");
    }
    assert_eq!(a.requests(), before);
    edge.take_down(b.address);
    assert_eq!(caller.call(get("/")).await.refusal(), (503, "service_unavailable".into()));
}

#[tokio::test]
async fn another_datacenter_takes_over() {
    let there = Origin::named("there").await;
    let mut config = config(&[nowhere().await, there.address]);
    config.services[0].backends[1].datacenter = DatacenterId::new(1);
    let edge = Edge::new(config);
    for _ in 0..5 {
        assert_eq!(edge.get("/").await.body, "there");
    }
}
