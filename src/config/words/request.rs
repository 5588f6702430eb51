//! Parts of requests: hosts, paths, headers, methods, statuses, and who the user is.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::address::domain_labels;
use super::{Word, Wrong, short};
use crate::config::guess::{did_you_mean, nearest};
use crate::config::model;

/// A host of requests: a name, `*.` and a name, or an address.
#[derive(Clone, Debug)]
pub(in crate::config) struct HostPattern(pub(in crate::config) String);

impl Word for HostPattern {
    fn words() -> String {
        "a host such as \"www.example.com\" or \"*.example.com\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let bracketed =
            name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).is_some_and(|n| n.parse::<IpAddr>().is_ok());
        if domain_labels(name) || bracketed {
            return Ok(Self(lower));
        }
        let wrong = Wrong::new(format!("`{}` is not a host", short(text)));
        let bare = lower.split_once("://").map_or(lower.as_str(), |(_, rest)| rest);
        let bare = bare.split(['/', ':']).next().unwrap_or_default().trim_end_matches('.');
        Err(if text == "*" {
            wrong.hint("leave `host` out to match any")
        } else if bare != lower && domain_labels(bare) {
            wrong.hint(format!("the host alone, without scheme, port, path or final dot: \"{bare}\""))
        } else if name.contains('*') {
            wrong.hint("`*.` may stand at the beginning, for one or more labels")
        } else {
            wrong
        })
    }
}

/// The path of a request.
#[derive(Clone, Debug)]
pub(in crate::config) struct UrlPath(pub(in crate::config) String);

impl Word for UrlPath {
    fn words() -> String {
        "a path that begins with `/`".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^/" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not a path", short(text)));
        if !text.starts_with('/') {
            return Err(
                match text.split_once("://").and_then(|(_, rest)| rest.find('/').and_then(|at| rest.get(at..))) {
                    Some(path) => wrong().hint(format!("the path alone: \"{path}\"")),
                    None => wrong().hint(format!("did you mean \"/{text}\"?")),
                },
            );
        }
        if text.len() > 2_048 {
            return Err(Wrong::range("this path is longer than 2048 bytes"));
        }
        if text.bytes().any(|b| !b.is_ascii_graphic()) {
            return Err(wrong().hint("write it as it stands in a request: printable ASCII, everything else as %XX"));
        }
        Ok(Self(text.into()))
    }
}

/// The name of a header, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct HeaderName(pub(in crate::config) String);

impl HeaderName {
    /// Reads one; also where a header stands as a key.
    pub(in crate::config) fn of(text: &str) -> Option<Self> {
        let name = text.parse::<http::HeaderName>().ok()?;
        (text.len() <= 256).then(|| Self(name.as_str().to_owned()))
    }
}

impl Word for HeaderName {
    fn words() -> String {
        "the name of a header such as \"x-user-id\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not the name of a header", short(text)));
        Self::of(text).ok_or_else(|| wrong().hint("letters, digits and `-`, without the colon"))
    }
}

/// The method of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Method(pub(in crate::config) String);

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];

impl Word for Method {
    fn words() -> String {
        "a method such as \"GET\" or \"POST\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = Wrong::new(format!("`{}` is not a method", short(text)));
        let upper = text.to_ascii_uppercase();
        if text != upper && METHODS.contains(&upper.as_str()) {
            return Err(wrong.hint(format!("methods are case-sensitive: \"{upper}\"")));
        }
        if text == "CONNECT" {
            return Err(wrong.hint("CONNECT is never routed"));
        }
        let valid = text.len() <= 32 && text.parse::<http::Method>().is_ok();
        if !valid || (!METHODS.contains(&text) && nearest(text, METHODS.iter().copied()).is_some()) {
            return Err(match did_you_mean(text, METHODS.iter().copied()) {
                Some(hint) => wrong.hint(hint),
                None => wrong,
            });
        }
        Ok(Self(text.into()))
    }
}

/// Statuses that are a success: `200`, `200-299`.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Statuses(pub(in crate::config) u16, pub(in crate::config) u16);

impl Word for Statuses {
    fn words() -> String {
        "a status or a range of them, such as \"200\" or \"200-299\"".into()
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = Wrong::new(format!("`{}` is not a range of statuses", short(text)));
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) if 100 <= low && low <= high && high <= 599 => Ok(Self(low, high)),
            (Ok(low), Ok(high)) if (100..=599).contains(&high) && low > high => {
                Err(wrong.hint(format!("the lower one first: \"{high}-{low}\"")))
            }
            _ if text.len() == 3 && text.to_ascii_lowercase().ends_with("xx") => {
                let class = text.chars().next().unwrap_or('2');
                Err(wrong.hint(format!("write \"{class}00-{class}99\"")))
            }
            _ => Err(wrong),
        }
    }

    fn from_number(number: &str) -> Option<String> {
        Some(format!("put it in quotes: \"{number}\""))
    }
}

/// Who the user of a request is.
#[derive(Clone, Debug)]
pub(in crate::config) struct User(pub(in crate::config) model::UserKey);

impl Word for User {
    fn words() -> String {
        "who the user is: \"header:NAME\", \"cookie:NAME\", \"path:NAME\" or \"client\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` does not say who the user is", short(text)));
        match text.split_once(':') {
            None if text == "client" => Ok(Self(model::UserKey::Client)),
            None => Err(wrong().hint(format!("a header of that name would be \"header:{text}\""))),
            Some(("header", name)) => match HeaderName::of(name) {
                Some(HeaderName(name)) => Ok(Self(model::UserKey::Header(name))),
                None => Err(wrong().hint(format!("`{}` is not the name of a header", short(name)))),
            },
            Some(("cookie", name)) => {
                // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1), but its case counts.
                let token = name.parse::<http::HeaderName>().is_ok() && name.len() <= 256;
                let fits = token.then(|| Self(model::UserKey::Cookie(name.to_owned())));
                fits.ok_or_else(|| wrong().hint(format!("`{}` is not the name of a cookie", short(name))))
            }
            // Which part of the path that is, the route says: `check` looks it up.
            Some(("path", name)) if !name.is_empty() => Ok(Self(model::UserKey::Path(name.to_owned(), 0))),
            Some((kind @ ("jwt" | "query"), _)) => Err(Wrong::later(&format!("{kind}:"), "use a header or a cookie")),
            Some((kind, name)) => Err(match nearest(kind, ["header", "cookie", "path"]) {
                Some(kind) => wrong().hint(format!("did you mean \"{kind}:{name}\"?")),
                None => wrong(),
            }),
        }
    }
}

/// What carries a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Seat(pub(in crate::config) model::Session);

impl Word for Seat {
    fn words() -> String {
        "what carries the session: \"cookie:NAME\" or \"header:NAME\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        match User::parse(text) {
            Ok(User(model::UserKey::Cookie(name))) => Ok(Self(model::Session::Cookie(name))),
            Ok(User(model::UserKey::Header(name))) => Ok(Self(model::Session::Header(name))),
            _ => Err(Wrong::new(format!("`{}` does not say what carries the session", short(text)))
                .hint("for example \"cookie:seat\"; `balance = \"maglev\"` is sticky by user without one")),
        }
    }
}

/// An ALPN id.
#[derive(Clone, Debug)]
pub(in crate::config) struct Alpn(pub(in crate::config) String);

impl Word for Alpn {
    fn words() -> String {
        "an ALPN id such as \"h2\" or \"http/1.1\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let fits =
            (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'"');
        if fits { Ok(Self(text.into())) } else { Err(Wrong::new(format!("`{}` is not an ALPN id", short(text)))) }
    }
}
