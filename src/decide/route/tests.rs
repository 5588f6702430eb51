//! The order of precedence as tables, and the table against a plain reading of the same rules.

use proptest::prelude::*;

use super::*;
use crate::base::ids::ServiceId;
use crate::config::{Action, UserKey};

fn route(host: Option<&str>, path: PathMatch, methods: &[&str], headers: &[(&str, Option<&str>)]) -> Route {
    Route {
        name: String::new(),
        matches: RouteMatch {
            host: host.map(Into::into),
            path,
            methods: methods.iter().map(|m| (*m).into()).collect(),
            headers: headers.iter().map(|(n, v)| ((*n).into(), v.map(Into::into))).collect(),
        },
        action: Action::Forward(ServiceId::new(0)),
        user: UserKey::Client,
        deadline: None,
        retry_keyed: true,
        hedge: false,
        max_body: 0,
    }
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn lookup(table: &RouteTable, host: &str, path: &str, method: &str, headers: &HeaderMap) -> Option<usize> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    table.find(&Ask { host, path, method: &method, headers }).map(|f| f.route.index())
}

fn get(table: &RouteTable, host: &str, path: &str) -> Option<usize> {
    lookup(table, host, path, "GET", &HeaderMap::new())
}

#[test]
fn hosts_exact_before_wildcard_before_any() {
    let table = RouteTable::compile(&[
        route(None, prefix("/"), &[], &[]),
        route(Some("*.example"), prefix("/"), &[], &[]),
        route(Some("*.shop.example"), prefix("/"), &[], &[]),
        route(Some("www.shop.example"), prefix("/"), &[], &[]),
    ]);
    for (host, want) in [
        ("www.shop.example", 3),
        ("WWW.Shop.Example.:8443", 3),
        ("api.shop.example", 2),
        ("a.b.shop.example", 2),
        ("shop.example", 1),
        ("example", 0),
        ("notexample", 0),
        ("xshop.example", 1),
        ("", 0),
        ("[2001:db8::1]:80", 0),
    ] {
        assert_eq!(get(&table, host, "/"), Some(want), "{host}");
    }
}

#[test]
fn a_host_without_the_path_leaves_it_to_a_weaker_one() {
    let table = RouteTable::compile(&[
        route(Some("www.example"), exact("/only"), &[], &[]),
        route(Some("*.example"), prefix("/wide"), &[], &[]),
        route(None, prefix("/"), &[], &[]),
    ]);
    assert_eq!(get(&table, "www.example", "/only"), Some(0));
    assert_eq!(get(&table, "www.example", "/wide/x"), Some(1));
    assert_eq!(get(&table, "www.example", "/else"), Some(2));
}

#[test]
fn paths_exact_before_the_longest_prefix_by_whole_segments() {
    let table = RouteTable::compile(&[
        route(None, prefix("/"), &[], &[]),
        route(None, prefix("/v1"), &[], &[]),
        route(None, prefix("/v1/gifts/"), &[], &[]),
        route(None, exact("/v1/gifts"), &[], &[]),
        route(None, prefix("/v1/gif"), &[], &[]),
        route(None, prefix("/caf%c3%a9"), &[], &[]),
    ]);
    for (path, want) in [
        ("/", 0),
        ("/v1", 1),
        ("/v1/", 1),
        ("/v10", 0),
        ("/v1/gifts", 3),
        ("/v1/gifts/", 2),
        ("/v1/gifts/7", 2),
        ("/v1/giftsx", 1),
        ("/v1/gif", 4),
        ("/v1/gif/x", 4),
        ("/caf%C3%A9/menu", 5),
        ("*", 0),
    ] {
        assert_eq!(get(&table, "a.example", path), Some(want), "{path}");
    }
}

#[test]
fn more_conditions_win_and_the_file_breaks_ties() {
    let table = RouteTable::compile(&[
        route(None, prefix("/"), &[], &[]),
        route(None, prefix("/"), &["GET", "HEAD"], &[]),
        route(None, prefix("/"), &["GET"], &[("x-canary", Some("yes"))]),
        route(None, prefix("/"), &[], &[("x-canary", None)]),
        route(None, prefix("/"), &["GET"], &[]),
    ]);
    let with = |value: &str| [(HeaderName::from_static("x-canary"), value.parse().unwrap())].into_iter().collect();
    let none = HeaderMap::new();
    assert_eq!(lookup(&table, "a", "/", "GET", &none), Some(1), "the earlier of two with as many conditions");
    assert_eq!(lookup(&table, "a", "/", "POST", &none), Some(0));
    assert_eq!(lookup(&table, "a", "/", "GET", &with("yes")), Some(2));
    assert_eq!(lookup(&table, "a", "/", "GET", &with("no")), Some(1));
    assert_eq!(lookup(&table, "a", "/", "POST", &with("no")), Some(3));
    let mut both: HeaderMap = with("no");
    both.append("x-canary", "yes".parse().unwrap());
    assert_eq!(lookup(&table, "a", "/", "GET", &both), Some(2), "any of several values will do");
}

#[test]
fn a_miss_by_method_says_what_would_do() {
    let table = RouteTable::compile(&[
        route(Some("a.example"), exact("/x"), &["GET", "PUT"], &[]),
        route(Some("a.example"), prefix("/x"), &["PUT", "DELETE"], &[]),
        route(Some("b.example"), prefix("/"), &["PATCH"], &[]),
    ]);
    let headers = HeaderMap::new();
    let ask = |path, method| Ask { host: "a.example", path, method, headers: &headers };
    assert_eq!(table.find(&ask("/x", &Method::POST)), None);
    assert_eq!(table.methods_allowed(&ask("/x", &Method::POST)), [Method::GET, Method::PUT, Method::DELETE]);
    assert!(table.methods_allowed(&ask("/y", &Method::POST)).is_empty());
    let (found, fates) = table.trace(&ask("/x", &Method::PUT));
    assert_eq!(found.map(|f| (f.route.index(), f.host, f.path_exact)), Some((0, HostRank::Exact, true)));
    assert_eq!(fates, [Considered::Taken, Considered::Outranked, Considered::Host]);
}

#[test]
fn an_empty_table_has_no_route() {
    assert_eq!(get(&RouteTable::compile(&[]), "a", "/"), None);
    assert!(RouteTable::default().is_empty());
}

/// The rules of the module's header, read one by one over all routes.
fn plainly(routes: &[Route], host: &str, path: &str, method: &str, headers: &HeaderMap) -> Option<usize> {
    let rank = |i: usize, r: &Route| -> Option<(usize, usize, usize, std::cmp::Reverse<usize>)> {
        let m = &r.matches;
        let host = match m.host.as_deref() {
            None => 0,
            Some(said) => match said.strip_prefix('*') {
                Some(rest) => (host.len() > rest.len() && host.ends_with(rest)).then_some(said.len())?,
                None => (host == said).then_some(usize::MAX)?,
            },
        };
        let path = match &m.path {
            PathMatch::Exact(said) => (said == path).then_some(usize::MAX)?,
            PathMatch::Prefix(said) => {
                let said = said.trim_end_matches('/');
                (path == said || path.starts_with(&format!("{said}/"))).then_some(said.len())?
            }
        };
        let fits = (m.methods.is_empty() || m.methods.iter().any(|x| x == method))
            && m.headers
                .iter()
                .all(|(n, v)| headers.get(n).is_some_and(|h| v.as_ref().is_none_or(|v| h == v.as_str())));
        fits.then_some((host, path, usize::from(!m.methods.is_empty()) + m.headers.len(), std::cmp::Reverse(i)))
    };
    let ranked = routes.iter().enumerate().filter_map(|(i, r)| rank(i, r).map(|k| (k, i)));
    ranked.max().map(|(_, i)| i)
}

fn hosts() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["a", "b.a", "c.b.a", "d.c.b.a", "x"][..])
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "ab", "c"][..]), 0..4)
        .prop_map(|s| format!("/{}", s.join("/")))
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let host =
        prop::option::of((hosts(), any::<bool>()).prop_map(|(h, wild)| if wild { format!("*.{h}") } else { h.into() }));
    let path = (paths(), any::<bool>()).prop_map(|(p, whole)| if whole { exact(&p) } else { prefix(&p) });
    let methods = prop::sample::subsequence(vec!["GET", "POST"], 0..2);
    let headers = prop::sample::subsequence(vec![("h", None), ("k", Some("1"))], 0..2);
    let one = (host, path, methods, headers).prop_map(|(h, p, m, k)| route(h.as_deref(), p, &m, &k));
    prop::collection::vec(one, 0..24)
}

proptest! {
    #[test]
    fn the_table_reads_the_rules_as_a_person_does(
        routes in routes(), host in hosts(), path in paths(), post: bool, named: bool, valued in 0u8..3,
    ) {
        let table = RouteTable::compile(&routes);
        let mut headers = HeaderMap::new();
        if named { headers.insert("h", "v".parse().unwrap()); }
        if valued > 0 { headers.insert("k", valued.to_string().parse().unwrap()); }
        let method = if post { "POST" } else { "GET" };
        let want = plainly(&routes, host, &path, method, &headers);
        prop_assert_eq!(lookup(&table, host, &path, method, &headers), want);
        let asked = Method::from_bytes(method.as_bytes()).unwrap();
        let (found, fates) = table.trace(&Ask { host, path: &path, method: &asked, headers: &headers });
        prop_assert_eq!(found.map(|f| f.route.index()), want);
        prop_assert_eq!(fates.iter().position(|f| *f == Considered::Taken), want);
    }

    #[test]
    fn no_question_makes_it_panic(routes in routes(), host in "\\PC{0,20}", path in "\\PC{0,20}") {
        let _ = get(&RouteTable::compile(&routes), &host, &path);
    }
}
