//! Routes and what they read of requests.

use http::{HeaderMap, Method};
use springtide::config::{PathMatch, Route, RouteMatch, ValueMatch};
use springtide::decide::route::pattern::Pattern;
use springtide::decide::route::{Ask, RouteTable};
use springtide::wire::{path, query as parameters};

/// Any text as a query, with a name and a value before it: what is found is what decoding by hand finds.
pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(3, '\n');
    let (name, wanted) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let query = lines.next().unwrap_or_default();
    let values: Vec<_> = parameters::values(query, name).collect();
    assert!(values.len() <= query.split('&').count(), "more values than parameters");
    for value in values {
        let decoded: Vec<u8> = value.bytes().collect();
        assert!(decoded.len() <= value.said().len(), "decoding makes nothing longer");
        assert_eq!(value.is(wanted), decoded == wanted.as_bytes());
        assert_eq!(value.begins_with(wanted), decoded.starts_with(wanted.as_bytes()));
    }
}

/// A path in the first line, a query in the second, a route in each further one: the tree finds the route that a look at
/// each of them finds, and what variables stand for is in the path.
pub fn route(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let (path, query) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Ok(path) = path::normalise(path) else { return };
    let said = |line: &str| {
        let (line, condition) = line.split_once(' ').unwrap_or((line, ""));
        let path = match line.strip_prefix('=') {
            Some(exact) => PathMatch::Exact(exact.into()),
            None => PathMatch::Prefix(line.into()),
        };
        let wanted = condition.split_once('=').map_or(ValueMatch::Any, |(_, v)| ValueMatch::Prefix(v.into()));
        let name = condition.split('=').next().unwrap_or_default();
        let query = if name.is_empty() { Vec::new() } else { vec![(name.to_owned(), wanted)] };
        Route { matches: RouteMatch { path, query, ..RouteMatch::default() }, ..Route::default() }
    };
    let routes: Vec<Route> = lines.take(64).map(said).collect();
    let table = RouteTable::compile(&routes);
    let ask = Ask { host: "a.example", path: &path, query, method: &Method::GET, headers: &HeaderMap::new() };
    let (found, fates) = table.trace(&ask);
    assert_eq!(fates.len(), routes.len());
    let taken = fates.iter().filter(|f| f.as_str() == "taken").count();
    let outranked = fates.iter().any(|f| f.as_str() == "outranked");
    assert_eq!(taken, usize::from(found.is_some()), "what is found was taken");
    assert!(!outranked || found.is_some(), "somebody matches, and nobody was found");
    if let Some(found) = found {
        let pattern = Pattern::of(&routes[found.route.index()].matches.path);
        let captures = pattern.captures(&path);
        assert!(
            captures.is_some_and(|values| values.iter().all(|value| path.contains(*value))),
            "what was found matches"
        );
        assert!(pattern.behind(&path).is_some_and(|rest| path.ends_with(rest)));
    }
}
