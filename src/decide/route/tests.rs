//! The order of precedence as tables, and the table against a plain reading of the same rules.

use proptest::prelude::*;

use super::*;
use crate::config::{PathMatch, Segment};

fn route(host: Option<&str>, path: PathMatch, methods: &[&str], headers: &[(&str, Option<&str>)]) -> Route {
    let wanted = |v: Option<&str>| v.map_or(ValueMatch::Any, |v| ValueMatch::Exact(v.into()));
    Route {
        matches: RouteMatch {
            host: host.map(Into::into),
            path,
            methods: methods.iter().map(|m| (*m).into()).collect(),
            headers: headers.iter().map(|(n, v)| ((*n).into(), wanted(*v))).collect(),
            ..RouteMatch::default()
        },
        ..Route::default()
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
    table.find(&Ask { host, path, query: "", method: &method, headers }).map(|f| f.route.index())
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
    let ask = |path, method| Ask { host: "a.example", path, query: "", method, headers: &headers };
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

#[test]
fn variables_stand_behind_what_is_written_and_before_what_is_open() {
    let table = RouteTable::compile(&[
        route(None, prefix("/"), &[], &[]),
        route(None, exact("/v1/gifts/{id}"), &[], &[]),
        route(None, exact("/v1/gifts/best"), &[], &[]),
        route(None, exact("/v1/{kind}/best"), &[], &[]),
        route(None, prefix("/v1/gifts"), &[], &[]),
        route(None, exact("/v1/gifts/{id}/items/{*rest}"), &[], &[]),
        route(None, prefix("/u/{user}/inbox"), &["GET"], &[]),
        route(None, exact("/u/{user}/{box}"), &[], &[]),
    ]);
    for (path, want) in [
        ("/v1/gifts/7", 1),
        ("/v1/gifts/best", 2),
        ("/v1/cards/best", 3),
        ("/v1/cards/worst", 0),
        ("/v1/gifts", 4),
        ("/v1/gifts/", 4),
        ("/v1/gifts/7/x", 4),
        ("/v1/gifts/7/items", 5),
        ("/v1/gifts/7/items/a/b", 5),
        ("/v1/gifts/best/items", 5),
        ("/u/7/inbox", 6),
        ("/u/7/inbox/1", 6),
        ("/u/7/sent", 7),
        ("/u//sent", 0),
        ("*", 0),
    ] {
        assert_eq!(get(&table, "a.example", path), Some(want), "{path}");
    }
    assert_eq!(lookup(&table, "a", "/u/7/inbox", "PUT", &HeaderMap::new()), Some(7), "conditions are asked on the way");
}

#[test]
fn values_are_matched_whole_by_how_they_begin_or_by_being_there() {
    let value = |list: &[(&str, ValueMatch)]| list.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
    let begins = |text: &str| ValueMatch::Prefix(text.into());
    let is = |text: &str| ValueMatch::Exact(text.into());
    let of = |matches: RouteMatch| Route { matches, ..Route::default() };
    let table = RouteTable::compile(&[
        of(RouteMatch::default()),
        of(RouteMatch { headers: value(&[("accept-language", begins("zh"))]), ..RouteMatch::default() }),
        of(RouteMatch { query: value(&[("v", is("2 b")), ("x", ValueMatch::Any)]), ..RouteMatch::default() }),
        of(RouteMatch {
            cookies: value(&[("side", begins("can"))]),
            query: value(&[("y", begins("1"))]),
            ..RouteMatch::default()
        }),
    ]);
    for (query, header, want) in [
        ("", ("accept-language", "zh-CN"), 1),
        ("", ("accept-language", "en, zh"), 0),
        ("v=2%20b&x", ("a", "b"), 2),
        ("x=1&v=3&v=2+b", ("a", "b"), 2),
        ("v=2%20b", ("a", "b"), 0),
        ("V=2%20b&x", ("a", "b"), 0),
        ("y=12", ("cookie", "a=1; side=canary"), 3),
        ("y=21", ("cookie", "a=1; side=canary"), 0),
        ("y=12", ("cookie", "side=stable; side=canary"), 0),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(header.0), header.1.parse().unwrap());
        let ask = Ask { host: "a", path: "/", query, method: &Method::GET, headers: &headers };
        assert_eq!(table.find(&ask).map(|f| f.route.index()), Some(want), "{query} {header:?}");
    }
    let ask = Ask { host: "a", path: "/", query: "v=1", method: &Method::GET, headers: &HeaderMap::new() };
    let header = Considered::Header("accept-language".into());
    let fates = [Considered::Taken, header, Considered::Query("v".into()), Considered::Query("y".into())];
    assert_eq!(table.trace(&ask).1, fates);
}

/// How good a path fits, from left to right: as it stands, a variable, all below; `None`: not at all.
fn path_rank(said: &PathMatch, path: &str) -> Option<Vec<u8>> {
    let mut segments = path[1..].split('/');
    let mut rank = Vec::new();
    for segment in said.segments() {
        rank.push(match segment {
            Segment::Literal(text) => (segments.next()? == text).then_some(2)?,
            Segment::Variable(_) => (!segments.next()?.is_empty()).then_some(1)?,
            Segment::Rest(_) => break,
        });
    }
    rank.push(if said.is_exact() { segments.next().is_none().then_some(3)? } else { 0 });
    Some(rank)
}

/// The rules of the module's header, read one by one over all routes.
fn plainly(routes: &[Route], host: &str, path: &str, method: &str, headers: &HeaderMap) -> Option<usize> {
    let rank = |i: usize, r: &Route| -> Option<(usize, Vec<u8>, usize, std::cmp::Reverse<usize>)> {
        let m = &r.matches;
        let host = match m.host.as_deref() {
            None => 0,
            Some(said) => match said.strip_prefix('*') {
                Some(rest) => (host.len() > rest.len() && host.ends_with(rest)).then_some(said.len())?,
                None => (host == said).then_some(usize::MAX)?,
            },
        };
        let path = path_rank(&m.path, path)?;
        let fits = (m.methods.is_empty() || m.methods.iter().any(|x| x == method))
            && m.headers
                .iter()
                .all(|(n, v)| headers.get(n).is_some_and(|h| !matches!(v, ValueMatch::Exact(v) if h != v.as_str())));
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

fn said_paths() -> impl Strategy<Value = PathMatch> {
    let segments = prop::collection::vec(prop::sample::select(&["a", "b", "ab", "{v}", "{v}"][..]), 0..4);
    (segments, 0..3).prop_map(|(segments, kind)| match (kind, segments.join("/")) {
        (0, path) => exact(&format!("/{path}")),
        (1, path) => prefix(&format!("/{path}")),
        (_, path) if path.is_empty() => exact("/{*rest}"),
        (_, path) => exact(&format!("/{path}/{{*rest}}")),
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let host =
        prop::option::of((hosts(), any::<bool>()).prop_map(|(h, wild)| if wild { format!("*.{h}") } else { h.into() }));
    let methods = prop::sample::subsequence(vec!["GET", "POST"], 0..2);
    let headers = prop::sample::subsequence(vec![("h", None), ("k", Some("1"))], 0..2);
    let one = (host, said_paths(), methods, headers).prop_map(|(h, p, m, k)| route(h.as_deref(), p, &m, &k));
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
        let (found, fates) = table.trace(&Ask { host, path: &path, query: "", method: &asked, headers: &headers });
        prop_assert_eq!(found.map(|f| f.route.index()), want);
        prop_assert_eq!(fates.iter().position(|f| *f == Considered::Taken), want);
    }

    #[test]
    fn no_question_makes_it_panic(routes in routes(), host in "\\PC{0,20}", path in "\\PC{0,20}") {
        let _ = get(&RouteTable::compile(&routes), &host, &path);
    }
}
