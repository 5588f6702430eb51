//! What comes in, read with distrust: a bounded body in bounded time, identifiers that parse, and who is asking from
//! where.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::model::{Code, OrderNo, UserId};
use super::reply::Envelope;
use super::serve::Remote;
use crate::base::entropy::Rng;
use crate::net::stage::Body;

/// The largest body that any service reads. A claim is below 1 KiB.
pub const BODY_BYTES: usize = 64 << 10;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(5);
/// Entries in a page of a list, at most: what stays below a peer's bound for replies.
pub const PAGE: usize = 1_000;
/// The header that says who the user is. The edge vouches for it.
pub const USER_HEADER: &str = "x-user-id";
/// The header with the request's id.
pub const TRACE_HEADER: &str = "x-request-id";
/// The header with the time that is left for the answer, in ms. It can only shorten a service's own limit.
pub const DEADLINE_HEADER: &str = "x-deadline-ms";

/// The request's id: the caller's where it gave a decent one, or else a new one.
pub fn trace_id(headers: &HeaderMap) -> String {
    let decent = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let given = headers.get(TRACE_HEADER).and_then(|v| v.to_str().ok()).filter(decent);
    given.map_or_else(|| format!("{:016x}", Rng::from_os().next_u64()), Into::into)
}

/// Who asks.
///
/// # Errors
/// An answer for the client: there is no such header, or it is no user's id.
pub fn user(headers: &HeaderMap, trace: &str) -> Result<UserId, Box<Envelope>> {
    let text = headers.get(USER_HEADER).and_then(|v| v.to_str().ok());
    let refuse = |words: String| Box::new(Envelope::new(Code::BadRequest, trace).saying(words));
    let text = text.ok_or_else(|| refuse(format!("The header {USER_HEADER} must say who the user is.")))?;
    UserId::parse(text).map_err(|e| refuse(format!("{USER_HEADER}: {e}.")))
}

/// How long the answer may take: `own`, or what the caller has left where that is less.
pub fn deadline(headers: &HeaderMap, own: Duration) -> Duration {
    let left = headers.get(DEADLINE_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    left.map_or(own, |ms| own.min(Duration::from_millis(ms)))
}

/// The value of `key` in the query, unless it stands there with escapes: no identifier needs any.
pub fn query<'a>(uri: &'a Uri, key: &str) -> Option<&'a str> {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
}

/// Which page of a list by order number is asked for: `after` (none: from the beginning) and `limit` (at most, and without
/// it, [`PAGE`]).
///
/// # Errors
/// What is wrong, in words.
pub fn page(uri: &Uri) -> Result<(Option<OrderNo>, usize), String> {
    let after = query(uri, "after").map(OrderNo::parse).transpose().map_err(|e| e.to_string())?;
    let limit = query(uri, "limit").map_or(Ok(PAGE), str::parse).map_err(|_| "limit is a number".to_owned())?;
    Ok((after, limit.min(PAGE)))
}

/// The whole body, at most [`BODY_BYTES`] in 5 s.
///
/// # Errors
/// An answer for the client: too long, too slow, or broken off.
pub async fn collect(body: Body, trace: &str) -> Result<Bytes, Box<Envelope>> {
    let refuse = |words: &str| Box::new(Envelope::new(Code::BadRequest, trace).saying(words));
    match timeout(BODY_TIME, read(body)).await {
        Ok(whole) => whole.map_err(refuse),
        Err(_) => Err(refuse("The body took longer than 5 s.")),
    }
}

async fn read(mut body: Body) -> Result<Bytes, &'static str> {
    const LARGE: &str = "The body is larger than 64 KiB.";
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(LARGE);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| "The body broke off.")?.into_data() else { continue };
        if whole.len() + data.len() > BODY_BYTES {
            return Err(LARGE);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The body as JSON of this shape.
///
/// # Errors
/// As [`collect`], or the body is not that.
pub async fn json<T: DeserializeOwned>(body: Body, trace: &str) -> Result<T, Box<Envelope>> {
    let bytes = collect(body, trace).await?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Box::new(Envelope::new(Code::BadRequest, trace).saying(format!("The body is not right: {e}."))))
}

/// Whether the request comes straight from this machine: from loopback, and through no proxy that said so. What only
/// operators and our own processes may do asks for this.
pub fn is_local(head: &Parts) -> bool {
    let from_here = head.extensions.get::<Remote>().is_some_and(|r| r.0.ip().to_canonical().is_loopback());
    let forwarded = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
    from_here && !forwarded.iter().any(|name| head.headers.contains_key(*name))
}

/// Whether the request carries `token` as its bearer.
pub fn bears(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(http::header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    // Compares all bytes, so that the time does not tell how many were right.
    given.is_some_and(|given| {
        given.len() == token.len() && given.iter().zip(token.as_bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0
    })
}

/// The answer to a path or method that does not exist.
pub fn nowhere(trace: &str) -> Response<Body> {
    Envelope::new(Code::NotFound, trace).respond()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::net::stage::{empty, full};

    #[test]
    fn a_user_is_named_or_the_client_told_how() {
        let mut headers = HeaderMap::new();
        assert!(user(&headers, "t").unwrap_err().message.contains("x-user-id"));
        headers.insert(USER_HEADER, "no way".parse().unwrap());
        assert_eq!(user(&headers, "t").unwrap_err().code, Code::BadRequest);
        headers.insert(USER_HEADER, "u1".parse().unwrap());
        assert_eq!(user(&headers, "t").unwrap().as_str(), "u1");
    }

    #[test]
    fn only_what_comes_straight_from_here_is_local() {
        let from = |address: &str, header: Option<&str>| {
            let mut request = Request::new(empty());
            request.extensions_mut().insert(Remote(address.parse().unwrap()));
            if let Some(name) = header {
                request
                    .headers_mut()
                    .insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), "x".parse().unwrap());
            }
            is_local(&request.into_parts().0)
        };
        assert!(from("127.0.0.1:1", None) && from("127.0.1.1:1", None) && from("[::ffff:127.0.0.1]:1", None));
        assert!(
            !from("10.0.0.1:1", None)
                && !from("127.0.0.1:1", Some("via"))
                && !is_local(&Request::new(empty()).into_parts().0)
        );
    }

    #[test]
    fn a_deadline_can_only_be_shortened() {
        let own = Duration::from_secs(1);
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DEADLINE_HEADER, text.parse().unwrap());
            deadline(&headers, own)
        };
        assert_eq!(with("200"), Duration::from_millis(200));
        assert_eq!(with("200000"), own);
        assert_eq!(with("soon"), own);
    }

    #[test]
    fn a_token_is_right_or_wrong() {
        let mut headers = HeaderMap::new();
        assert!(!bears(&headers, "secret"));
        headers.insert("authorization", "Bearer secret".parse().unwrap());
        assert!(bears(&headers, "secret") && !bears(&headers, "secres") && !bears(&headers, "secre"));
    }

    /// A body of which nothing ever comes.
    struct Silent;
    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = crate::net::stage::BodyError;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let never = Silent.boxed_unsync();
        assert!(collect(never, "t").await.unwrap_err().message.contains("5 s"));
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        assert_eq!(collect(full("ab"), "t").await.unwrap(), "ab");
        let large = collect(full(vec![b'x'; BODY_BYTES + 1]), "t").await.unwrap_err();
        assert!(large.message.contains("64 KiB"));
        assert!(json::<Vec<u8>>(full("{"), "t").await.unwrap_err().message.contains("not right"));
    }
}
