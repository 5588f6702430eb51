//! What a route changes: where it sends clients instead, what backends see of a request, which headers go where.

use serde::Serialize;

/// Sends the client elsewhere. What is not said stays as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host, lower case; IPv6 in brackets.
    pub host: Option<String>,
    /// The port. Default: the request's, or none where the scheme changes.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// The query, as it is to stand behind the path; empty: none.
    pub query: Option<String>,
}

/// A scheme of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In plaintext.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Another path. `{name}` stands for what the variable of that name matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// All of it.
    Whole(String),
    /// What the route's prefix matched; what follows stays.
    Prefix(String),
}

impl PathChange {
    /// As it was said.
    pub fn text(&self) -> &str {
        match self {
            Self::Whole(text) | Self::Prefix(text) => text,
        }
    }
}

/// What backends see instead of what the client sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The path; the query stays.
    pub path: Option<PathChange>,
    /// `Host`, lower case; IPv6 in brackets.
    pub host: Option<String>,
}

/// What happens to headers, in this order: removed, set, added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Names (lower case) that go.
    pub remove: Vec<String>,
    /// Names with the one value that each has afterwards.
    pub set: Vec<(String, String)>,
    /// Names with values that come beside what is there.
    pub add: Vec<(String, String)>,
}

impl HeaderEdits {
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}
