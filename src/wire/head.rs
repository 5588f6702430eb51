//! What a hop may pass on of a head, and what it may not (RFC 9110 section 7.6.1; EDGE 4, gaps 4 and 5).
//!
//! Works in place: a request's own header map goes on to the backend, less what is removed. It refuses nothing; what makes
//! a request a 400 is `host`, `path`, and the inspector in front of the parser.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Version};
use smallvec::SmallVec;

use super::{client_cert, forwarded};

/// Which way a head travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a client that is believed what it says of others, or not.
    Request {
        /// Believed.
        trusted: bool,
    },
    /// Back from a backend.
    Response,
}

/// Another protocol that a request asks for on its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket over HTTP/1.1 (RFC 6455). Over HTTP/2 it comes as an extended CONNECT (RFC 8441), which is not offered yet.
    WebSocket,
    /// Something else, or WebSocket said in a way that breaks RFC 6455 section 4.2.1: not passed on.
    Unknown,
}

/// Fields that a `Connection` field must not remove, whatever it names: they decide where a message ends, whom it is for
/// and who may do what.
const KEPT: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION, header::COOKIE];

/// Fields that speak of the request with the authority of a hop; from anybody else they are removed.
const TRUSTED_ONLY: [&str; 5] = ["x-real-ip", "x-priority", "x-admit-level", "x-overloaded", "true-client-ip"];

/// Removes what belongs to one hop: `Connection` and what it names, `Keep-Alive`, `Proxy-*`, `TE` (but `trailers`),
/// `Transfer-Encoding`, `Upgrade`; of requests also `Trailer`, `Expect` (answered here), `Proxy`, names with `_` (read as `-`
/// by CGI and its heirs), what speaks of the client's certificate, and from clients that are not trusted everything that only a hop may say.
///
/// With `upgrading`, `Connection: upgrade` and `Upgrade` stand afterwards as one value each.
pub fn strip(headers: &mut HeaderMap, way: Way, upgrading: bool) {
    let mut gone: SmallVec<[HeaderName; 12]> = SmallVec::new();
    let (mut names_others, mut has_te) = (false, false);
    for name in headers.keys() {
        names_others |= *name == header::CONNECTION;
        has_te |= *name == header::TE;
        if is_for_one_hop(name) || matches!(way, Way::Request { trusted } if !may_pass(name, trusted)) {
            gone.push(name.clone());
        }
    }
    let named = names_others.then(|| headers.get_all(header::CONNECTION));
    for token in named.iter().flatten().flat_map(tokens) {
        if let Ok(name) = HeaderName::from_bytes(token)
            && !KEPT.contains(&name)
            && !is_forwarding(name.as_str())
            && name != header::TE
            && name != header::UPGRADE
            && headers.contains_key(&name)
        {
            gone.push(name);
        }
    }
    let takes_trailers = has_te && way != Way::Response && takes_trailers(headers);
    let upgrade = upgrading.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    for name in gone {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
}

/// Which of the fields that decide something a request has: one look at its names instead of a search for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    /// `Via`.
    pub const VIA: Self = Self(1);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(2);
    /// `Accept`, `Accept-Language`.
    pub const TASTE: Self = Self(4);
    /// `X-Deadline-Ms`.
    pub const DEADLINE: Self = Self(8);
    /// `grpc-timeout`.
    pub const GRPC_TIMEOUT: Self = Self(16);
    /// `X-Request-Id`.
    pub const REQUEST_ID: Self = Self(32);

    /// Those of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self(0), |marks, name| Self(marks.0 | Self::of_name(name).0))
    }

    /// Whether any of `these` is there.
    pub const fn has(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }

    fn of_name(name: &HeaderName) -> Self {
        if *name == header::ACCEPT || *name == header::ACCEPT_LANGUAGE {
            Self::TASTE
        } else if *name == header::VIA {
            Self::VIA
        } else if *name == header::UPGRADE {
            Self::UPGRADE
        } else {
            match name.as_str() {
                "x-deadline-ms" => Self::DEADLINE,
                "grpc-timeout" => Self::GRPC_TIMEOUT,
                "x-request-id" => Self::REQUEST_ID,
                _ => Self(0),
            }
        }
    }
}

/// What a request asks to be upgraded to; `None`: nothing. HTTP/2 and HTTP/1.0 know no `Upgrade`.
pub fn upgrade(method: &Method, version: Version, headers: &HeaderMap) -> Option<Upgrade> {
    if version != Version::HTTP_11 || !has_token(headers, &header::CONNECTION, b"upgrade") {
        return None;
    }
    let mut asked = headers.get_all(header::UPGRADE).iter();
    let first = asked.next()?;
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    let is_websocket = *method == Method::GET
        && asked.next().is_none()
        && first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
        && one(&header::SEC_WEBSOCKET_VERSION).is_some_and(|v| v.as_bytes() == b"13")
        && one(&header::SEC_WEBSOCKET_KEY).is_some_and(|v| v.len() == 24)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|v| v.as_bytes() == b"0");
    Some(if is_websocket { Upgrade::WebSocket } else { Upgrade::Unknown })
}

/// Whether a field may stand behind a body: nothing that frames or routes, that says who may do what or how the body is to
/// be read (RFC 9110 section 6.5.1), and nothing that would not pass in a head of a client that is not trusted.
pub fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 18] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::CACHE_CONTROL,
        header::PRAGMA,
        header::MAX_FORWARDS,
        header::RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
    ];
    !NEVER.contains(name) && !is_for_one_hop(name) && may_pass(name, false)
}

/// Removes from trailers what may not stand there. `None`: nothing is left.
pub fn strip_trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let gone: SmallVec<[HeaderName; 4]> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

/// Joins the pieces into which HTTP/2 may cut `Cookie` (RFC 9113 section 8.2.3): to HTTP/1 they would be several fields.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else { return };
    let mut whole = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(piece.as_bytes());
    }
    // What is made of values is one.
    if let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        headers.insert(header::COOKIE, whole);
    }
}

fn is_for_one_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TE
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || name.as_str() == "keep-alive"
        || name.as_str().starts_with("proxy-")
        || name.as_str() == "http2-settings"
}

fn may_pass(name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str();
    // `Proxy` becomes HTTP_PROXY in CGI and its heirs, which take it for the way out (CVE-2016-5385, httpoxy).
    if *name == header::TRAILER || *name == header::EXPECT || text == "proxy" || text.contains('_') {
        return false;
    }
    // Whoever says who a client is: we have verified it ourselves, or nobody has.
    if client_cert::is_ours(text) {
        return false;
    }
    trusted || !(is_forwarding(text) || TRUSTED_ONLY.contains(&text))
}

fn is_forwarding(name: &str) -> bool {
    name == forwarded::FORWARDED || name.starts_with("x-forwarded-")
}

/// Whether the sender of a request understands fields behind a body (RFC 9110 section 6.5.1).
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        tokens(value)
            .any(|t| t.split(|&b| b == b';').next().is_some_and(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers")))
    })
}

/// Whether a comma-separated list, in however many fields of this name, has `token`, in any case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().any(|value| tokens(value).any(|t| t.eq_ignore_ascii_case(token)))
}

/// The members of a comma-separated list.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests;
