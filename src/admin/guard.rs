//! Who may ask: a bearer token where one is set; where none is, only who came by address, never a web page of another
//! site.
//!
//! Without a token the API listens on loopback alone (the configuration sees to it), but a browser on this machine
//! would carry any web page's requests there. Two checks stop that: the `Host` must be an address or `localhost` (a
//! page that rebinds its own name to 127.0.0.1 comes with that name), and a request that changes something must not
//! come from another origin.

use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::refusal::Refusal;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Paths that anyone may ask for: they tell nothing that a closed port would not, and the page asks for the token itself.
const OPEN: &[&str] = &["/", "/assets/dashboard.css", "/assets/dashboard.js", "/healthz", "/readyz"];

/// Lets a request pass, or says why not.
pub(super) fn admit(token: Option<&str>, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads && OPEN.contains(&path) {
        return Ok(());
    }
    match token {
        Some(token) if !bears(headers, token) => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "this admin API wants a token",
            "send `Authorization: Bearer TOKEN`; the command line takes --token-file",
        )),
        None if !by_address(headers) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "without a token the admin API answers only who asks for it by address",
            "use http://127.0.0.1:PORT or http://localhost:PORT, or set admin.token_file",
        )),
        _ if !reads && foreign(headers) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "a page of another origin asks for a change",
            "changes are made from the dashboard itself or from the command line",
        )),
        _ => Ok(()),
    }
}

fn bears(headers: &HeaderMap, token: &str) -> bool {
    let said = headers.get(AUTHORIZATION).and_then(|v| v.as_bytes().split_at_checked(7));
    said.is_some_and(|(scheme, said)| scheme.eq_ignore_ascii_case(b"bearer ") && same(said, token.as_bytes()))
}

/// Compares without telling by its time where the first difference is. The length may show.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0_u8, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    a.len() == b.len() && differ == 0
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next()?;
    if hosts.next().is_some() { None } else { host.to_str().ok()?.parse().ok() }
}

fn by_address(headers: &HeaderMap) -> bool {
    authority(headers).is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
    })
}

fn foreign(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return true;
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let said = origin.to_str().ok().and_then(|o| o.split_once("://")).and_then(|(_, rest)| rest.parse().ok());
    said.is_none_or(|origin: Authority| Some(origin) != authority(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: Option<&str>, method: &Method, path: &str, headers: &[(&'static str, &str)]) -> Option<u16> {
        let headers = headers.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect();
        admit(token, method, path, &headers).err().map(|r| r.status.as_u16())
    }

    #[test]
    fn without_a_token_only_an_address_or_localhost_is_a_host() {
        for (host, refused) in [
            ("127.0.0.1:9900", None),
            ("[::1]:9900", None),
            ("localhost:9900", None),
            ("LocalHost", None),
            ("evil.example:9900", Some(403)),
            ("127.0.0.1.evil.example", Some(403)),
            ("localhost.evil.example", Some(403)),
            ("", Some(403)),
        ] {
            assert_eq!(asked(None, &Method::GET, "/v1/state", &[("host", host)]), refused, "{host}");
        }
        assert_eq!(asked(None, &Method::GET, "/v1/state", &[]), Some(403));
        assert_eq!(asked(None, &Method::GET, "/v1/state", &[("host", "127.0.0.1"), ("host", "localhost")]), Some(403));
    }

    #[test]
    fn with_a_token_the_whole_token_and_nothing_but_the_token() {
        let ask =
            |auth: &str| asked(Some("sesame"), &Method::GET, "/metrics", &[("host", "a.b"), ("authorization", auth)]);
        assert_eq!(ask("Bearer sesame"), None);
        assert_eq!(ask("bearer sesame"), None);
        for wrong in ["Bearer sesam", "Bearer sesames", "Bearer Sesame", "Bearer ", "Basic sesame", "sesame", ""] {
            assert_eq!(ask(wrong), Some(401), "{wrong}");
        }
        assert_eq!(asked(Some("sesame"), &Method::GET, "/v1/state", &[("host", "127.0.0.1")]), Some(401));
    }

    #[test]
    fn health_and_the_empty_page_are_open_to_be_read() {
        for path in OPEN {
            assert_eq!(asked(Some("sesame"), &Method::GET, path, &[]), None, "{path}");
            assert_eq!(asked(Some("sesame"), &Method::POST, path, &[]), Some(401), "{path}");
        }
    }

    #[test]
    fn another_origin_changes_nothing() {
        let host = ("host", "127.0.0.1:9900");
        let ask = |headers: &[(&'static str, &str)]| asked(None, &Method::POST, "/v1/intents", headers);
        assert_eq!(ask(&[host]), None, "curl sends no origin");
        assert_eq!(ask(&[host, ("origin", "http://127.0.0.1:9900"), ("sec-fetch-site", "same-origin")]), None);
        for origin in ["http://evil.example", "http://127.0.0.1:8080", "null", "http://localhost:9900"] {
            assert_eq!(ask(&[host, ("origin", origin)]), Some(403), "{origin}");
        }
        assert_eq!(ask(&[host, ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(ask(&[host, ("sec-fetch-site", "same-site")]), Some(403));
    }
}
