//! Which route a request takes.
//!
//! The most specific match wins, as in the Kubernetes Gateway API: host (exact, then the longest wildcard, then any), path
//! (exact, then the longest prefix, by whole segments), then the number of further conditions (method, headers), then
//! the order of the file. The table is compiled once for a topology; a lookup hashes the host and searches sorted paths,
//! without allocating. It refuses to repair anything: host and path come in checked (`wire::host`, `wire::path`).

use std::collections::HashMap;

use http::{HeaderMap, HeaderName, Method};
use smallvec::SmallVec;

use crate::base::ids::RouteId;
use crate::config::{PathMatch, Route, RouteMatch};
use crate::wire::{host, path};

/// What is asked of the table.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Host, in any case, with or without port and final dot; empty where the request had none.
    pub host: &'a str,
    /// Path, normalised, without the query.
    pub path: &'a str,
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
    /// Whether its path was matched as a whole.
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
        }
    }
}

/// All routes, ready to be searched.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<Matcher>,
    exact: HashMap<Box<str>, Bucket>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Bucket>,
    any: Bucket,
}

/// One route with its conditions parsed.
#[derive(Debug)]
struct Matcher {
    host: HostPattern,
    path: String,
    path_exact: bool,
    methods: Vec<Method>,
    headers: Vec<(String, Option<HeaderName>, Option<String>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum HostPattern {
    Any,
    Wildcard(String),
    Exact(String),
}

/// The routes of one host, as a sorted list of paths. Each knows its nearest ancestor in the list, so that the longest
/// prefix is the predecessor of the path asked for, or one of its ancestors: whatever sorts between a prefix and the path
/// begins with that prefix too.
#[derive(Debug, Default)]
struct Bucket {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Without a final slash where it is a prefix; the root is empty.
    path: Box<str>,
    parent: Option<usize>,
    /// Routes for this path and no other, best first.
    exact: Vec<usize>,
    /// Routes for this path and all below it, best first.
    below: Vec<usize>,
}

impl RouteTable {
    /// Compiles `routes`. Patterns are normalised as requests are, so that `/caf%C3%A9` and `/café` are one path.
    pub fn compile(routes: &[Route]) -> Self {
        let mut table = Self { routes: routes.iter().map(|r| Matcher::new(&r.matches)).collect(), ..Self::default() };
        let mut order: Vec<usize> = (0..table.routes.len()).collect();
        // Stable: the file's order decides between equals.
        order.sort_by_key(|&i| std::cmp::Reverse(table.routes[i].constraints()));
        for i in order {
            let matcher = &table.routes[i];
            let bucket = match &matcher.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Wildcard(rest) => table.wildcard.entry(rest.as_str().into()).or_default(),
                HostPattern::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
            };
            bucket.insert(&matcher.path, matcher.path_exact, i);
        }
        let all = table.exact.values_mut().chain(table.wildcard.values_mut()).chain([&mut table.any]);
        all.for_each(Bucket::link);
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
        if let Some(hit) = self.exact.get(host).and_then(|bucket| self.within(bucket, ask)) {
            return Some(named(hit, HostRank::Exact));
        }
        if !self.wildcard.is_empty() {
            // From the longest suffix to the shortest; a wildcard stands for at least one label.
            for (at, _) in host.match_indices('.') {
                let rest = host.get(at + 1..).unwrap_or_default();
                if let Some(hit) = self.wildcard.get(rest).and_then(|bucket| self.within(bucket, ask)) {
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

    fn within(&self, bucket: &Bucket, ask: &Ask<'_>) -> Option<(usize, bool)> {
        let fits = |&&i: &&usize| self.routes.get(i).is_some_and(|matcher| matcher.conditions(ask).is_none());
        let place = bucket.nodes.binary_search_by(|node| (*node.path).cmp(ask.path));
        let mut at = match place {
            Ok(same) => {
                let exact = bucket.nodes.get(same)?.exact.iter().find(fits);
                if let Some(&route) = exact {
                    return Some((route, true));
                }
                Some(same)
            }
            Err(next) => next.checked_sub(1),
        };
        while let Some(node) = at.and_then(|i| bucket.nodes.get(i)) {
            if is_below(ask.path, &node.path)
                && let Some(&route) = node.below.iter().find(fits)
            {
                return Some((route, false));
            }
            at = node.parent;
        }
        None
    }
}

impl Bucket {
    fn insert(&mut self, path: &str, exact: bool, route: usize) {
        let at = match self.nodes.binary_search_by(|node| (*node.path).cmp(path)) {
            Ok(at) => at,
            Err(at) => {
                let node = Node { path: path.into(), parent: None, exact: Vec::new(), below: Vec::new() };
                self.nodes.insert(at, node);
                at
            }
        };
        if let Some(node) = self.nodes.get_mut(at) {
            if exact { node.exact.push(route) } else { node.below.push(route) }
        }
    }

    /// Gives each path its nearest ancestor.
    fn link(&mut self) {
        let mut line: Vec<usize> = Vec::new();
        for i in 0..self.nodes.len() {
            while let Some(&top) = line.last()
                && !self.nodes[i].path.starts_with(&*self.nodes[top].path)
            {
                line.pop();
            }
            self.nodes[i].parent = line.last().copied();
            line.push(i);
        }
    }
}

impl Matcher {
    fn new(said: &RouteMatch) -> Self {
        let (text, path_exact) = match &said.path {
            PathMatch::Exact(text) => (text, true),
            PathMatch::Prefix(text) => (text, false),
        };
        let path = path::normalise(text).map_or_else(|_| text.clone(), Into::into);
        Self {
            host: said.host.as_deref().map_or(HostPattern::Any, HostPattern::new),
            path: if path_exact { path } else { path.trim_end_matches('/').to_owned() },
            path_exact,
            methods: said.methods.iter().filter_map(|m| Method::from_bytes(m.as_bytes()).ok()).collect(),
            headers: said.headers.iter().map(|(n, v)| (n.clone(), n.parse().ok(), v.clone())).collect(),
        }
    }

    /// How many conditions it has beyond host and path.
    fn constraints(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len()
    }

    /// The first condition beyond host and path that `ask` does not meet.
    fn conditions(&self, ask: &Ask<'_>) -> Option<Considered> {
        if !self.methods.is_empty() && !self.methods.contains(ask.method) {
            return Some(Considered::Method);
        }
        let missing = self.headers.iter().find(|(_, name, wanted)| {
            let mut values = name.iter().flat_map(|name| ask.headers.get_all(name));
            !match wanted {
                Some(wanted) => values.any(|value| value.as_bytes() == wanted.as_bytes()),
                None => values.next().is_some(),
            }
        });
        missing.map(|(name, ..)| Considered::Header(name.clone()))
    }

    /// Why `ask` does not match at all.
    fn refusal(&self, ask: &Ask<'_>) -> Option<Considered> {
        let mut buffer = SmallVec::new();
        if !self.host.takes(host::canonical(ask.host, &mut buffer)) {
            return Some(Considered::Host);
        }
        let on_path = if self.path_exact { ask.path == self.path } else { is_below(ask.path, &self.path) };
        if on_path { self.conditions(ask) } else { Some(Considered::Path) }
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

/// Whether `path` is `prefix` or below it, by whole segments; `prefix` has no final slash.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty())
}

#[cfg(test)]
mod tests;
