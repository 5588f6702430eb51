//! Other paths and other places: what a route makes of where a request was going.

use std::fmt::Write as _;

use super::pattern::{Captures, Pattern};
use crate::config::{PathChange, PathMatch, Redirect, RouteMatch, Scheme, Segment};

/// Another path for the requests of one route.
#[derive(Clone, Debug)]
pub struct NewPath {
    from: Pattern,
    to: Template,
    keeps_rest: bool,
}

/// A path with gaps.
#[derive(Clone, Debug)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<str>),
    /// What the variable at this place of the pattern stands for.
    Variable(usize),
}

impl NewPath {
    /// Compiles `change` for requests that match `of`.
    pub fn of(change: &PathChange, of: &RouteMatch) -> Self {
        let text = change.text();
        let keeps_rest = matches!(change, PathChange::Prefix(_));
        let text = if keeps_rest { text.trim_end_matches('/') } else { text };
        Self { from: Pattern::of(&of.path), to: Template::of(text, &of.path), keeps_rest }
    }

    /// The path instead of `path`, which is normalised and matches.
    pub fn apply(&self, path: &str) -> Option<String> {
        let mut new = self.to.fill(&self.from.captures(path)?);
        if self.keeps_rest {
            new.push_str(self.from.behind(path)?);
        }
        if new.is_empty() {
            new.push('/');
        }
        Some(new)
    }
}

impl Template {
    fn of(text: &str, of: &PathMatch) -> Self {
        let names: Vec<&str> = of.variables().collect();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut literal = String::new();
        // Borrowed for its segments: a template is written like a path that is matched.
        for segment in PathMatch::Exact(text.to_owned()).segments() {
            literal.push('/');
            match segment {
                Segment::Literal(text) => literal.push_str(text),
                Segment::Variable(name) | Segment::Rest(name) => {
                    pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                    // The configuration's check lets no other names through.
                    pieces.push(Piece::Variable(names.iter().position(|n| *n == name).unwrap_or(usize::MAX)));
                }
            }
        }
        pieces.push(Piece::Text(literal.into()));
        Self(pieces)
    }

    fn fill(&self, captures: &Captures<'_>) -> String {
        let mut path = String::new();
        for piece in &self.0 {
            path.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Variable(at) => captures.get(*at).copied().unwrap_or_default(),
            });
        }
        path
    }
}

/// Where a request was going, as its client sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What the client speaks, to us or to who stands before us.
    pub scheme: Scheme,
    /// The host without its port; empty where HTTP/1.0 named none.
    pub host: &'a str,
    /// The port, where one was said.
    pub port: Option<u16>,
    /// The path, normalised.
    pub path: &'a str,
    /// The query, where there is one.
    pub query: Option<&'a str>,
}

/// A redirect, compiled.
#[derive(Clone, Debug)]
pub struct Detour {
    said: Redirect,
    path: Option<NewPath>,
}

impl Detour {
    /// Compiles `redirect` for requests that match `of`.
    pub fn of(redirect: &Redirect, of: &RouteMatch) -> Self {
        Self { path: redirect.path.as_ref().map(|change| NewPath::of(change, of)), said: redirect.clone() }
    }

    /// Its status.
    pub const fn status(&self) -> u16 {
        self.said.status
    }

    /// Where `asked` is sent: a `Location`. `None`: to where it was going already.
    pub fn location(&self, asked: &Place<'_>) -> Option<String> {
        let said = &self.said;
        let scheme = said.scheme.unwrap_or(asked.scheme);
        let host = said.host.as_deref().unwrap_or(asked.host);
        let kept = asked.port.filter(|_| scheme == asked.scheme);
        let port = said.port.or(kept).filter(|port| *port != scheme.port());
        let replaced = self.path.as_ref().and_then(|new| new.apply(asked.path));
        let path = replaced.as_deref().unwrap_or(asked.path);
        let query = said.query.as_deref().or(asked.query).filter(|query| !query.is_empty());
        let is_here = scheme == asked.scheme
            && host.eq_ignore_ascii_case(asked.host)
            && port == asked.port.filter(|port| *port != asked.scheme.port())
            && path == asked.path
            && query == asked.query.filter(|query| !query.is_empty());
        if is_here {
            return None;
        }
        let mut location = String::with_capacity(16 + host.len() + path.len() + query.map_or(0, str::len));
        if !host.is_empty() {
            location.push_str(scheme.as_str());
            location.push_str("://");
            location.push_str(host);
            if let Some(port) = port {
                let _ = write!(location, ":{port}");
            }
        }
        // A reference with two slashes would name a host; a normalised path has none, a configured one neither.
        location.push('/');
        location.push_str(path.trim_start_matches('/'));
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        Some(location)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(path: &str) -> RouteMatch {
        RouteMatch { path: PathMatch::Exact(path.into()), ..RouteMatch::default() }
    }

    fn prefix(path: &str) -> RouteMatch {
        RouteMatch { path: PathMatch::Prefix(path.into()), ..RouteMatch::default() }
    }

    #[test]
    fn paths_are_replaced_whole_or_by_prefix() {
        let whole = |text: &str| PathChange::Whole(text.into());
        let instead = |text: &str| PathChange::Prefix(text.into());
        for (of, change, path, want) in [
            (exact("/v1/gifts/{id}"), whole("/gift/{id}/show"), "/v1/gifts/7", "/gift/7/show"),
            (exact("/{a}/{b}"), whole("/{b}/{a}/{b}"), "/1/2", "/2/1/2"),
            (exact("/old/{*rest}"), whole("/new/{rest}"), "/old/a/b", "/new/a/b"),
            (exact("/old/{*rest}"), whole("/new/{rest}"), "/old", "/new/"),
            (prefix("/api"), instead("/"), "/api/v1/x", "/v1/x"),
            (prefix("/api"), instead("/"), "/api", "/"),
            (prefix("/api"), instead("/"), "/api/", "/"),
            (prefix("/"), instead("/below"), "/x", "/below/x"),
            (prefix("/u/{user}"), instead("/people/{user}/"), "/u/7/inbox", "/people/7/inbox"),
            (exact("/files/{*rest}"), instead("/static"), "/files/a", "/static/a"),
            (prefix("/"), whole("/"), "/x/y", "/"),
        ] {
            assert_eq!(NewPath::of(&change, &of).apply(path).as_deref(), Some(want), "{change:?} {path}");
        }
    }

    const NOWHERE: Redirect = Redirect { status: 308, scheme: None, host: None, port: None, path: None, query: None };

    const ASKED: Place<'static> =
        Place { scheme: Scheme::Http, host: "www.a.test", port: None, path: "/x/y", query: Some("q=1") };

    #[test]
    fn what_is_not_said_stays() {
        let https = || Redirect { scheme: Some(Scheme::Https), ..NOWHERE };
        let host = || Redirect { host: Some("b.test".into()), ..NOWHERE };
        let path = PathChange::Prefix("/z".into());
        for (redirect, asked, want) in [
            (https(), ASKED, "https://www.a.test/x/y?q=1"),
            (https(), Place { port: Some(8_080), ..ASKED }, "https://www.a.test/x/y?q=1"),
            (Redirect { port: Some(8_443), ..https() }, ASKED, "https://www.a.test:8443/x/y?q=1"),
            (Redirect { port: Some(443), ..https() }, ASKED, "https://www.a.test/x/y?q=1"),
            (host(), Place { port: Some(8_080), ..ASKED }, "http://b.test:8080/x/y?q=1"),
            (Redirect { query: Some(String::new()), ..host() }, ASKED, "http://b.test/x/y"),
            (Redirect { query: Some("a=b".into()), ..NOWHERE }, ASKED, "http://www.a.test/x/y?a=b"),
            (Redirect { path: Some(path), ..NOWHERE }, ASKED, "http://www.a.test/z/y?q=1"),
            (Redirect { query: Some(String::new()), ..NOWHERE }, Place { host: "", ..ASKED }, "/x/y"),
        ] {
            let location = Detour::of(&redirect, &prefix("/x")).location(&asked);
            assert_eq!(location.as_deref(), Some(want), "{redirect:?}");
        }
    }

    #[test]
    fn nobody_is_sent_to_where_they_are() {
        let https = Redirect { scheme: Some(Scheme::Https), ..NOWHERE };
        let there = Place { scheme: Scheme::Https, ..ASKED };
        assert_eq!(Detour::of(&https, &prefix("/")).location(&there), None);
        let host = Redirect { host: Some("www.a.test".into()), ..NOWHERE };
        assert_eq!(Detour::of(&host, &prefix("/")).location(&Place { host: "WWW.A.test", ..ASKED }), None);
    }

    proptest! {
        #[test]
        fn no_path_of_a_request_can_name_another_host(path in "(/[a-z%2F.]{0,4}){1,4}", keep: bool) {
            if let Ok(path) = crate::wire::path::normalise(&path) {
                let change = if keep { PathChange::Prefix("/".into()) } else { PathChange::Whole("/{rest}".into()) };
                let redirect = Redirect { path: Some(change), ..NOWHERE };
                let place = Place { host: "", path: &path, ..ASKED };
                if let Some(to) = Detour::of(&redirect, &exact("/{*rest}")).location(&place) {
                    prop_assert!(to.starts_with('/') && !to.starts_with("//"), "{}", to);
                }
            }
        }
    }
}
