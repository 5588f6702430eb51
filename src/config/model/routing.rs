//! Routes of the edge: what a request must be like, and what becomes of it.

use std::time::Duration;

use super::change::{HeaderEdits, Redirect, Rewrite};
use super::files::Files;
use super::securing::Requirement;
use super::sharing::{Mirror, Split};
use crate::base::ids::ServiceId;

/// A route of the edge.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// What it matches.
    pub matches: RouteMatch,
    /// What a request must bring beside.
    pub requires: Option<Requirement>,
    /// What it does.
    pub action: Action,
    /// What backends see instead of what the client sent.
    pub rewrite: Rewrite,
    /// Headers that backends see otherwise.
    pub request_headers: HeaderEdits,
    /// Headers that clients see otherwise, of refusals too.
    pub response_headers: HeaderEdits,
    /// Where copies go, if anywhere.
    pub mirror: Option<Mirror>,
    /// Who the user is.
    pub user: UserKey,
    /// How long a request may take in all. Default: the service's.
    pub deadline: Option<Duration>,
    /// Whether a POST with an `Idempotency-Key` header may be tried again. Default true.
    pub retry_keyed: bool,
    /// Whether a GET that is slow is asked of a second backend too. Default false.
    pub hedge: bool,
    /// Longest request body. Default 1 MiB.
    pub max_body: u64,
}

impl Route {
    /// The services that it forwards to.
    pub fn services(&self) -> impl Iterator<Item = ServiceId> {
        let (one, several) = match &self.action {
            Action::Forward(service) => (Some(*service), &[][..]),
            Action::Split(split) => (None, &split.sides[..]),
            Action::Respond { .. } | Action::Redirect(_) | Action::Files(_) => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().map(|(service, _)| *service))
    }
}

impl Default for Route {
    /// Takes every request and knows nothing of it.
    fn default() -> Self {
        Self {
            name: String::new(),
            matches: RouteMatch::default(),
            requires: None,
            action: Action::Respond { status: 404, content_type: "text/plain".into(), body: String::new() },
            rewrite: Rewrite::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            mirror: None,
            user: UserKey::Client,
            deadline: None,
            retry_keyed: true,
            hedge: false,
            max_body: 1 << 20,
        }
    }
}

/// What a route matches; everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// Host, lower case; `*.example` matches one or more labels before it. `None`: any.
    pub host: Option<String>,
    /// Path.
    pub path: PathMatch,
    /// Methods; empty: any.
    pub methods: Vec<String>,
    /// Header names (lower case) with what is wanted of each; any of several values will do.
    pub headers: Vec<(String, ValueMatch)>,
    /// Parameters of the query with what is wanted of each, both decoded; any of several values will do.
    pub query: Vec<(String, ValueMatch)>,
    /// Cookies with what is wanted of each; of several with one name the first counts.
    pub cookies: Vec<(String, ValueMatch)>,
}

impl RouteMatch {
    /// Whether two matches are asked in one breath: what they match differs in values at the most.
    pub(in crate::config) fn shape(&self) -> String {
        fn names(list: &[(String, ValueMatch)]) -> Vec<&str> {
            list.iter().map(|(name, _)| name.as_str()).collect()
        }
        let path = self.path.segments().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(text),
            Segment::Variable(_) => Some("{}"),
            Segment::Rest(_) => None,
        });
        let path: Vec<&str> = path.collect();
        let (headers, query, cookies) = (names(&self.headers), names(&self.query), names(&self.cookies));
        format!("{:?} {} {path:?} {headers:?} {query:?} {cookies:?}", self.host, self.path.is_exact())
    }
}

/// What is wanted of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueMatch {
    /// That it is there.
    Any,
    /// That it is this one.
    Exact(String),
    /// That it begins so.
    Prefix(String),
}

impl ValueMatch {
    /// Whether every value that `narrow` takes is taken.
    pub fn covers(&self, narrow: &Self) -> bool {
        match (self, narrow) {
            (Self::Any, _) => true,
            (Self::Exact(wide), Self::Exact(narrow)) => wide == narrow,
            (Self::Prefix(wide), Self::Exact(narrow) | Self::Prefix(narrow)) => narrow.starts_with(wide.as_str()),
            (_, _) => false,
        }
    }
}

/// How a path is matched, segment by segment. `{name}` in the place of a segment stands for any one that is not empty;
/// `{*name}` as the last one of an exact path makes it that path without it and all below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(String),
    /// This path and all below it, by whole segments.
    Prefix(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

impl PathMatch {
    /// As it was said.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }

    /// Its segments. The root as a prefix has none; a final slash of an exact path is an empty one behind it.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let text = match self {
            Self::Exact(text) => text.strip_prefix('/'),
            Self::Prefix(text) => text.trim_end_matches('/').strip_prefix('/'),
        };
        text.into_iter().flat_map(|text| text.split('/')).map(Segment::of)
    }

    /// Whether it ends where its segments do.
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_)) && !matches!(self.segments().last(), Some(Segment::Rest(_)))
    }

    /// Names of its variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments().filter_map(|segment| match segment {
            Segment::Variable(name) | Segment::Rest(name) => Some(name),
            Segment::Literal(_) => None,
        })
    }
}

/// One segment of a path that is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// This text.
    Literal(&'a str),
    /// Any that is not empty, by this name.
    Variable(&'a str),
    /// All that follows, by this name.
    Rest(&'a str),
}

impl<'a> Segment<'a> {
    fn of(text: &'a str) -> Self {
        match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(name) => name.strip_prefix('*').map_or(Self::Variable(name), Self::Rest),
            None => Self::Literal(text),
        }
    }
}

/// What a route does with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Passes it to a service.
    Forward(ServiceId),
    /// Passes it to one of several services.
    Split(Split),
    /// Answers by itself.
    Respond {
        /// Status.
        status: u16,
        /// Content type.
        content_type: String,
        /// Body.
        body: String,
    },
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers with files of a folder.
    Files(Box<Files>),
}

/// Who the user of a request is: the key of stickiness and limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserKey {
    /// The client's address.
    #[default]
    Client,
    /// A header's value.
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// A part of the path, which has this name in the route's own and stands there at this place, from 0.
    Path(String, usize),
}
