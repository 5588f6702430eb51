//! URLs that something is sent to.

use std::net::Ipv6Addr;

use http::Uri;

use super::{Word, Wrong, short};
use crate::config::model::Endpoint;

/// Where spans go by OTLP, where a URL does not say it.
const PATH: &str = "/v1/traces";

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Url(pub(in crate::config) Endpoint);

impl Word for Url {
    fn words() -> String {
        "a URL such as \"http://127.0.0.1:4318\" or \"https://otlp.example.com/v1/traces\"".into()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new(format!("`{}` is not the URL of a collector", short(text)));
        let is_bare = !text.contains("://");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (is_tls, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ if is_bare => return Err(wrong().hint(format!("begin with the scheme: \"http://{text}\""))),
            Some("grpc" | "grpcs") => return Err(wrong().hint("OTLP over HTTP is spoken, mostly at port 4318")),
            _ => return Err(wrong().hint("http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') {
            return Err(wrong().hint("what it wants to be told of us stands in the file of `headers`"));
        }
        if uri.query().is_some() {
            return Err(wrong().hint("without a query"));
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if host.is_empty() || !(is_name(host) || host.parse::<Ipv6Addr>().is_ok()) {
            return Err(wrong());
        }
        // A port that is none is no part of the authority for the parser.
        let port = match authority.as_str().rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((_, port)) => {
                port.parse().ok().filter(|&p| p > 0).ok_or_else(|| wrong().hint("ports go from 1 to 65535"))?
            }
            None => port,
        };
        let path = if uri.path() == "/" { PATH } else { uri.path() };
        Ok(Self(Endpoint { is_tls, host: host.to_owned(), port, path: path.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(bool, String, u16, String)> {
        Url::parse(text).ok().map(|Url(e)| (e.is_tls, e.host, e.port, e.path))
    }

    #[test]
    fn a_collector_is_found_by_its_url() {
        let at = |is_tls, host: &str, port, path: &str| Some((is_tls, host.to_owned(), port, path.to_owned()));
        assert_eq!(read("http://127.0.0.1:4318"), at(false, "127.0.0.1", 4318, "/v1/traces"));
        assert_eq!(read("https://otlp.example.com/"), at(true, "otlp.example.com", 443, "/v1/traces"));
        assert_eq!(read("http://[::1]:4318/otlp/v1/traces"), at(false, "::1", 4318, "/otlp/v1/traces"));
        for bad in [
            "127.0.0.1:4318",
            "collector",
            "grpc://c:4317",
            "http://",
            "http://u:p@c",
            "http://c?x=1",
            "http://c:0",
            "http://c:70000",
            "http://c:x",
            "ftp://c",
            "http:///v1",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
