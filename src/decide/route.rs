//! Which route a request takes.
//!
//! The most specific match wins, as in the Kubernetes Gateway API: host (exact, then the longest wildcard, then any), path
//! (segment by segment from the left: as it stands, then a variable, then what a prefix leaves open; a path that ends before
//! a prefix of the same segments), then the number of further conditions (method, headers, query, cookies), then the order
//! of the file. The table is compiled once for a topology; a lookup hashes the host and walks a tree of segments, without
//! allocating. It refuses to repair anything: host and path come in checked (`wire::host`, `wire::path`).

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use crate::base::ids::RouteId;
use crate::config::{Route, RouteMatch, ValueMatch};
use crate::wire::{cookie, host, query};

pub mod change;
pub mod pattern;
mod tree;

use pattern::Pattern;
use tree::Tree;

/// What is asked of the table.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Host, in any case, with or without port and final dot; empty where the request had none.
    pub host: &'a str,
    /// Path, normalised, without the query.
    pub path: &'a str,
    /// Query, as it came; empty where there is none.
    pub query: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// The route that a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub route: RouteId,
    /// By what its host was matched.
    pub host: HostRank,
    /// Whether its path ends where that of the request does.
    pub path_exact: bool,
}

/// By what a host was matched, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRank {
    /// The route takes any host.
    Any,
    /// A wildcard whose fixed part has this many bytes.
    Wildcard(usize),
    /// The name itself.
    Exact,
}

/// What became of one route in a traced lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Considered {
    /// It is the one.
    Taken,
    /// It matches, but another is more specific or stands earlier in the file.
    Outranked,
    /// Another host.
    Host,
    /// Another path.
    Path,
    /// Another method.
    Method,
    /// This header is missing, or has another value.
    Header(String),
    /// This parameter of the query is missing, or has another value.
    Query(String),
    /// This cookie is missing, or has another value.
    Cookie(String),
}

impl Considered {
    /// The word for it in `explain`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Outranked => "outranked",
            Self::Host => "other host",
            Self::Path => "other path",
            Self::Method => "other method",
            Self::Header(_) => "header missing or different",
            Self::Query(_) => "query parameter missing or different",
            Self::Cookie(_) => "cookie missing or different",
        }
    }
}

/// All routes, ready to be searched.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Matcher>,
    exact: HashMap<Box<str>, Tree>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Tree>,
    any: Tree,
}

/// One route with its conditions parsed.
#[derive(Debug)]
struct Matcher {
    host: HostPattern,
    path: Pattern,
    methods: Vec<Method>,
    conditions: Vec<Condition>,
}

/// Something that a named value has to be.
#[derive(Debug)]
struct Condition {
    of: Named,
    wanted: ValueMatch,
}

/// A value of a request that has a name.
#[derive(Debug)]
enum Named {
    Header(HeaderName),
    Query(String),
    Cookie(String),
}

#[derive(Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    Wildcard(String),
    Exact(String),
}

impl RouteTable {
    /// Compiles `routes`.
    pub fn compile(routes: &[Route]) -> Self {
        let mut table = Self { routes: routes.iter().map(|r| Matcher::new(&r.matches)).collect(), ..Self::default() };
        let mut order: Vec<usize> = (0..table.routes.len()).collect();
        // Stable: the file's order decides between equals.
        order.sort_by_key(|&i| std::cmp::Reverse(table.routes[i].constraints()));
        for i in order {
            let matcher = &table.routes[i];
            let tree = match &matcher.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Wildcard(rest) => table.wildcard.entry(rest.as_str().into()).or_default(),
                HostPattern::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
            };
            tree.insert(&matcher.path, i);
        }
        table
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The route for `ask`.
    pub fn find(&self, ask: &Ask<'_>) -> Option<Found> {
        let mut buffer = SmallVec::new();
        let host = host::canonical(ask.host, &mut buffer);
        let named = |(route, path_exact): (usize, bool), host| Found { route: RouteId::new(route), host, path_exact };
        if let Some(hit) = self.exact.get(host).and_then(|tree| self.within(tree, ask)) {
            return Some(named(hit, HostRank::Exact));
        }
        if !self.wildcard.is_empty() {
            // From the longest suffix to the shortest; a wildcard stands for at least one label.
            for (at, _) in host.match_indices('.') {
                let rest = host.get(at + 1..).unwrap_or_default();
                if let Some(hit) = self.wildcard.get(rest).and_then(|tree| self.within(tree, ask)) {
                    return Some(named(hit, HostRank::Wildcard(rest.len())));
                }
            }
        }
        self.within(&self.any, ask).map(|hit| named(hit, HostRank::Any))
    }

    /// The route for `ask`, with what became of every route, in the order of the file. For `explain`: slow and plain.
    pub fn trace(&self, ask: &Ask<'_>) -> (Option<Found>, Vec<Considered>) {
        let found = self.find(ask);
        let considered = self.routes.iter().enumerate().map(|(i, matcher)| match matcher.refusal(ask) {
            Some(why) => why,
            None if found.is_some_and(|f| f.route.index() == i) => Considered::Taken,
            None => Considered::Outranked,
        });
        (found, considered.collect())
    }

    /// Methods that would have found a route where `find` did not: what a 405 has to say in `Allow`. Empty where the
    /// method is not what is wrong, so that the answer is 404.
    pub fn methods_allowed(&self, ask: &Ask<'_>) -> Vec<Method> {
        let mut methods: Vec<Method> = Vec::new();
        for matcher in self.routes.iter().filter(|m| m.refusal(ask) == Some(Considered::Method)) {
            for method in &matcher.methods {
                if !methods.contains(method) {
                    methods.push(method.clone());
                }
            }
        }
        methods
    }

    fn within(&self, tree: &Tree, ask: &Ask<'_>) -> Option<(usize, bool)> {
        tree.find(ask.path, |i| self.routes.get(i).is_some_and(|matcher| matcher.unmet(ask).is_none()))
    }
}

impl Matcher {
    fn new(said: &RouteMatch) -> Self {
        // The configuration's check lets no other names through.
        let headers =
            said.headers.iter().filter_map(|(name, wanted)| Some((Named::Header(name.parse().ok()?), wanted.clone())));
        let query = said.query.iter().map(|(name, wanted)| (Named::Query(name.clone()), wanted.clone()));
        let cookies = said.cookies.iter().map(|(name, wanted)| (Named::Cookie(name.clone()), wanted.clone()));
        let conditions = headers.chain(query).chain(cookies).map(|(of, wanted)| Condition { of, wanted });
        Self {
            host: said.host.as_deref().map_or(HostPattern::Any, HostPattern::new),
            path: Pattern::of(&said.path),
            methods: said.methods.iter().filter_map(|m| Method::from_bytes(m.as_bytes()).ok()).collect(),
            conditions: conditions.collect(),
        }
    }

    /// How many conditions it has beyond host and path.
    fn constraints(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.conditions.len()
    }

    /// The first condition beyond host and path that `ask` does not meet.
    fn unmet(&self, ask: &Ask<'_>) -> Option<Considered> {
        if !self.methods.is_empty() && !self.methods.contains(ask.method) {
            return Some(Considered::Method);
        }
        self.conditions.iter().find(|condition| !condition.holds(ask)).map(Condition::refusal)
    }

    /// Why `ask` does not match at all.
    fn refusal(&self, ask: &Ask<'_>) -> Option<Considered> {
        let mut buffer = SmallVec::new();
        if !self.host.takes(host::canonical(ask.host, &mut buffer)) {
            return Some(Considered::Host);
        }
        if self.path.takes(ask.path) { self.unmet(ask) } else { Some(Considered::Path) }
    }
}

impl Condition {
    fn holds(&self, ask: &Ask<'_>) -> bool {
        match &self.of {
            Named::Header(name) => ask.headers.get_all(name).iter().any(|v| is_wanted(&self.wanted, v.as_bytes())),
            Named::Query(name) => query::values(ask.query, name).any(|value| match &self.wanted {
                ValueMatch::Any => true,
                ValueMatch::Exact(wanted) => value.is(wanted),
                ValueMatch::Prefix(wanted) => value.begins_with(wanted),
            }),
            Named::Cookie(name) => cookie::find(ask.headers, name).is_some_and(|v| is_wanted(&self.wanted, v)),
        }
    }

    fn refusal(&self) -> Considered {
        match &self.of {
            Named::Header(name) => Considered::Header(name.as_str().to_owned()),
            Named::Query(name) => Considered::Query(name.clone()),
            Named::Cookie(name) => Considered::Cookie(name.clone()),
        }
    }
}

fn is_wanted(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Any => true,
        ValueMatch::Exact(wanted) => value == wanted.as_bytes(),
        ValueMatch::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
    }
}

impl HostPattern {
    fn new(said: &str) -> Self {
        let mut buffer = SmallVec::new();
        match said.strip_prefix("*.") {
            Some(rest) => Self::Wildcard(host::canonical(rest, &mut buffer).to_owned()),
            None => Self::Exact(host::canonical(said, &mut buffer).to_owned()),
        }
    }

    fn takes(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == name,
            Self::Wildcard(rest) => {
                host.strip_suffix(rest.as_str()).and_then(|head| head.strip_suffix('.')).is_some_and(|h| !h.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests;
