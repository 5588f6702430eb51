//! Where requests go, and what is changed of them on the way.

use super::*;
use crate::config::{HeaderEdits, Mirror, Override, PathChange, Redirect, Rewrite, Scheme, Split, UserKey, ValueMatch};

/// A service for each name, each on an origin that says its name, and routes to them by what they match.
async fn sides(routes: Vec<(&'static str, RouteMatch)>) -> (Edge, Vec<Origin>) {
    let mut config = config(&[]);
    (config.services, config.routes) = (Vec::new(), Vec::new());
    let mut origins = Vec::new();
    for (i, (name, matches)) in routes.into_iter().enumerate() {
        let origin = Origin::named(name).await;
        config.services.push(service(name, &[origin.address]));
        config.routes.push(Route { matches, ..route(name, "/", Action::Forward(ServiceId::new(i))) });
        origins.push(origin);
    }
    (Edge::new(config), origins)
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch { path: PathMatch::Exact(path.into()), ..RouteMatch::default() }
}

#[tokio::test]
async fn paths_queries_and_cookies_choose_the_route() {
    let is = |name: &str, value: &str| vec![(name.to_owned(), ValueMatch::Exact(value.into()))];
    let (edge, origins) = sides(vec![
        ("rest", RouteMatch::default()),
        ("one", exact("/v1/gifts/{id}")),
        ("files", exact("/files/{*rest}")),
        ("two", RouteMatch { query: is("v", "a b"), ..exact("/v1/gifts/{id}") }),
        ("canary", RouteMatch { cookies: is("side", "canary"), ..RouteMatch::default() }),
    ])
    .await;
    let mut caller = edge.http1().await;
    for (path, cookie, want) in [
        ("/v1/gifts/7", "", "one"),
        ("/v1//gifts/%37", "", "one"),
        ("/v1/gifts/7?v=a+b", "", "two"),
        ("/v1/gifts/7?v=a%20b&v=", "", "two"),
        ("/v1/gifts/7/x", "", "rest"),
        ("/v1/gifts/", "", "rest"),
        ("/files", "", "files"),
        ("/files/a/../b", "", "files"),
        ("/v1/gifts/", "a=1; side=canary", "canary"),
        ("/v1/gifts/7", "side=canary", "one"),
    ] {
        let mut request = get(path);
        if !cookie.is_empty() {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        assert_eq!(caller.call(request).await.body, want, "{path} {cookie}");
    }
    assert_eq!(origins[1].request(1).uri().path(), "/v1/gifts/7", "what was matched is what is forwarded");
}

#[tokio::test]
async fn backends_see_other_paths_hosts_and_headers() {
    let origin = Origin::new(|_| async {
        Response::builder().header("server", "secret").header("x-old", "1").body(stage::full("ok")).unwrap()
    })
    .await;
    let mut config = config(&[origin.address]);
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    let whole = route("whole", "/", Action::Forward(ServiceId::new(0)));
    config.routes = vec![
        Route {
            matches: exact("/v1/gifts/{id}"),
            rewrite: Rewrite {
                path: Some(PathChange::Whole("/gift/{id}/show".into())),
                host: Some("gifts.internal".into()),
            },
            request_headers: HeaderEdits {
                remove: vec!["x-secret".into()],
                set: pairs(&[("x-env", "prod")]),
                add: pairs(&[("x-tag", "b"), ("x-tag", "c")]),
            },
            response_headers: HeaderEdits {
                remove: vec!["server".into()],
                set: pairs(&[("x-old", "2")]),
                add: pairs(&[("strict-transport-security", "max-age=60")]),
            },
            ..whole
        },
        Route {
            rewrite: Rewrite { path: Some(PathChange::Prefix("/".into())), host: None },
            response_headers: HeaderEdits { set: pairs(&[("x-old", "3")]), ..HeaderEdits::default() },
            max_body: 10,
            ..route("strip", "/api", Action::Forward(ServiceId::new(0)))
        },
    ];
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let mut request = get("/v1/gifts/a%2Fb?x=%20&y");
    for (name, value) in [("x-secret", "s"), ("x-env", "dev"), ("x-tag", "a"), ("connection", "x-env, x-tag")] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = caller.call(request).await;
    let seen = origin.request(0);
    assert_eq!(seen.uri(), "/gift/a%2Fb/show?x=%20&y");
    assert_eq!(seen.headers()["host"], "gifts.internal");
    assert_eq!(seen.headers()["x-forwarded-host"], "example.test");
    assert_eq!(seen.headers()["x-env"], "prod", "what a client calls its hop's cannot undo it");
    assert_eq!(seen.headers().get_all("x-tag").iter().collect::<Vec<_>>(), ["b", "c"]);
    assert!(!seen.headers().contains_key("x-secret"));
    assert!(!answer.headers.contains_key("server"));
    assert_eq!(
        (&answer.headers["x-old"], &answer.headers["strict-transport-security"]),
        (&"2".parse().unwrap(), &"max-age=60".parse().unwrap())
    );
    for (path, want) in [("/api/v2/x?q", "/v2/x?q"), ("/api", "/"), ("/api/", "/"), ("/api//x/../y", "/y")] {
        caller.call(get(path)).await;
        assert_eq!(origin.request(origin.requests() - 1).uri(), want, "{path}");
    }
    let refused = caller.call(post("/api/x", "more than ten bytes")).await;
    assert_eq!(refused.headers["x-old"], "3", "refusals of the route are its responses too");
    assert_eq!(refused.refusal(), (413, "body_too_large".into()));
}

fn redirect(status: u16) -> Redirect {
    Redirect { status, scheme: None, host: None, port: None, path: None, query: None }
}

#[tokio::test]
async fn clients_are_sent_elsewhere() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    let path = |text: &str| Some(PathChange::Whole(text.into()));
    let moved = Redirect { path: path("/new/{id}"), host: Some("new.test".into()), ..redirect(301) };
    let same = Redirect { path: path("/same"), ..redirect(302) };
    config.routes.push(Route { matches: exact("/old/{id}"), ..route("moved", "/", Action::Redirect(moved)) });
    config.routes.push(Route { matches: exact("/same"), ..route("same", "/", Action::Redirect(same)) });
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let answer = caller.call(get("/old/7?a=b")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["location"]),
        (301, &"http://new.test/new/7?a=b".parse().unwrap())
    );
    assert!(answer.body.is_empty());
    assert_eq!(caller.call(get("/old/7/x")).await.body, "ok");
    assert_eq!(caller.call(get("/same")).await.refusal(), (508, "loop".into()));
    let post = caller.call(post("/old/7", "body")).await;
    assert_eq!(post.status, 301);
}

#[tokio::test]
async fn a_listener_sends_everybody_to_https_who_is_not_there() {
    let origin = Origin::named("ok").await;
    let mut config = config(&[origin.address]);
    config.listeners[0].redirect = Some(Redirect { scheme: Some(Scheme::Https), ..redirect(308) });
    config.listeners[0].trusted = vec!["127.0.0.1/32".parse().unwrap()];
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let answer = caller.call(get("/a//b/../c?x=y")).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["location"]),
        (308, &"https://example.test/a/c?x=y".parse().unwrap())
    );
    let mut request = get("/a");
    request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    assert_eq!(caller.call(request).await.body, "ok", "a trusted hop says that the client is there");
    assert_eq!(caller.call(get("/..")).await.status, 400);
}

#[tokio::test]
async fn a_user_stays_on_one_side_and_may_choose_the_other() {
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let mut config = config(&[old.address]);
    config.services.push(service("next", &[new.address]));
    let values = vec![("always".to_owned(), 1), ("never".to_owned(), 0)];
    let choice = Override { by: UserKey::Header("x-canary".into()), values, from: Vec::new() };
    let sides = vec![(ServiceId::new(0), 1), (ServiceId::new(1), 1)];
    config.routes[0].action = Action::Split(Split { sides, choice: Some(choice) });
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    let with = |user: u32, canary: &str| {
        let mut request = get("/");
        request.headers_mut().insert("x-user-id", user.into());
        if !canary.is_empty() {
            request.headers_mut().insert("x-canary", canary.parse().unwrap());
        }
        request
    };
    let mut on_new = 0;
    for user in 0..64 {
        let first = caller.call(with(user, "")).await.body;
        assert_eq!(caller.call(with(user, "sometimes")).await.body, first, "{user}");
        assert_eq!(caller.call(with(user, "always")).await.body, "new", "{user}");
        assert_eq!(caller.call(with(user, "never")).await.body, "old", "{user}");
        on_new += usize::from(first == "new");
    }
    assert!((16..=48).contains(&on_new), "{on_new} of 64");
}

#[tokio::test]
async fn a_shadow_gets_copies_and_nobody_waits_for_it() {
    let origin = Origin::named("ok").await;
    let shadow = Origin::new(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "short");
        Response::new(stage::full(vec![0; 100_000]))
    })
    .await;
    let mut config = config(&[origin.address]);
    config.services.push(service("shadow", &[shadow.address]));
    config.routes[0].mirror = Some(Mirror { service: ServiceId::new(1), share: 1.0, concurrent: 64 });
    let edge = Edge::new(config);
    let mut caller = edge.http1().await;
    for i in 1..=5 {
        assert_eq!(caller.call(post("/x?y", "short")).await.body, "ok");
        eventually("a copy", || shadow.requests() == i).await;
        eventually("its end", || edge.load(1).in_flight() == 0).await;
    }
    let copy = shadow.request(0);
    assert_eq!((copy.method(), copy.uri().to_string().as_str()), (&Method::POST, "/x?y"));
    assert_eq!(copy.headers()["x-mirrored-by"], "all");
    assert!(!origin.request(0).headers().contains_key("x-mirrored-by"));
    assert_eq!(caller.call(post("/", vec![b'x'; 100_000])).await.body, "ok");
    assert_eq!(shadow.requests(), 5, "long bodies are not copied");
}

#[tokio::test]
async fn a_shadow_that_is_silent_or_gone_costs_the_original_nothing() {
    let (origin, shadow) = (Origin::named("ok").await, Origin::silent().await);
    for address in [shadow.address, nowhere().await] {
        let mut config = config(&[origin.address]);
        config.services.push(service("shadow", &[address]));
        config.routes[0].mirror = Some(Mirror { service: ServiceId::new(1), share: 1.0, concurrent: 2 });
        let edge = Edge::new(config);
        let mut caller = edge.http1().await;
        for _ in 0..20 {
            assert_eq!(caller.call(get("/")).await.body, "ok");
            assert!(edge.load(1).in_flight() <= 2, "no more copies than may be under way");
        }
    }
    assert!(shadow.accepted.load(SeqCst) <= 2);
}
