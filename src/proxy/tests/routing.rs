//! Where requests go, and what is changed of them on the way.

use super::*;
use crate::config::ValueMatch;

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
