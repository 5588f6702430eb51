//! Whom a request is for: the rules of `Host` and authority, and the one spelling that hosts are compared in.
//!
//! Stricter than RFC 9112 section 3.2 asks: where a request names its host twice, both must say the same, lest we and
//! whoever stands behind us read different ones.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::{HeaderMap, Uri, Version};
use smallvec::SmallVec;

/// Room for a host on the stack: a name has at most 253 bytes (RFC 1035 section 2.3.4).
pub type Buffer = SmallVec<[u8; 256]>;

/// Why a request's host was refused: a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// HTTP/1.1 without `Host`; HTTP/2 without `:authority` and without `Host`.
    #[error("no Host")]
    Missing,
    /// More than one `Host`, even if they say the same.
    #[error("more than one Host")]
    Multiple,
    /// `Host` and the target's authority name different hosts.
    #[error("Host differs from the request's target")]
    Mismatch,
    /// Not a name, an address in the right brackets, and perhaps a port.
    #[error("malformed Host")]
    Malformed,
}

/// A checked host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// As it was said, port and all; empty where HTTP/1.0 named none.
    pub said: &'a str,
    /// Without port and final dot; the case is the client's. IPv6 addresses keep their brackets.
    pub name: &'a str,
    /// The port, where one was said.
    pub port: Option<u16>,
}

/// The host that a request is for.
pub fn of<'a>(uri: &'a Uri, headers: &'a HeaderMap, version: Version) -> Result<Host<'a>, HostError> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostError::Multiple);
    }
    let field = field.map(|value| value.to_str().map_err(|_| HostError::Malformed).and_then(parse)).transpose()?;
    let target = uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    match (target, field) {
        (Some(target), Some(field)) => {
            let default = match uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            let is_same = target.name.eq_ignore_ascii_case(field.name)
                && target.port.unwrap_or(default) == field.port.unwrap_or(default);
            if is_same { Ok(target) } else { Err(HostError::Mismatch) }
        }
        // RFC 9112 section 3.2: an HTTP/1.1 request carries Host, whatever form its target has.
        (Some(_), None) if version == Version::HTTP_11 => Err(HostError::Missing),
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (None, None) if version < Version::HTTP_11 => Ok(Host { said: "", name: "", port: None }),
        (None, None) => Err(HostError::Missing),
    }
}

/// Reads `name`, `name:port`, `address:port` or `[address]:port`. Empty is malformed.
pub fn parse(said: &str) -> Result<Host<'_>, HostError> {
    let (name, rest) = if said.starts_with('[') {
        let end = said.find(']').ok_or(HostError::Malformed)?;
        let inside = said.get(1..end).ok_or(HostError::Malformed)?;
        inside.parse::<Ipv6Addr>().map_err(|_| HostError::Malformed)?;
        said.split_at(end + 1)
    } else {
        let (name, rest) = said.split_at(said.bytes().position(|b| b == b':').unwrap_or(said.len()));
        let name = name.strip_suffix('.').unwrap_or(name);
        if !is_name(name) {
            return Err(HostError::Malformed);
        }
        (name, rest)
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        // RFC 3986 section 3.2.3 allows an empty port.
        Some("") => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().map_err(|_| HostError::Malformed)?)
        }
        _ => return Err(HostError::Malformed),
    };
    Ok(Host { said, name, port })
}

/// Labels of letters, digits, `-` and `_`: what DNS and certificates know, and nothing that a parser could trip over.
fn is_name(name: &str) -> bool {
    let mut label = 0;
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return false,
        }
    }
    label > 0 && name.len() <= 253
}

/// The spelling that hosts are compared in: lower case, without port and final dot. Never fails; what is no host comes
/// back as something that no configuration names. Allocates only for what is longer than any host.
pub fn canonical<'a>(said: &'a str, buffer: &'a mut Buffer) -> &'a str {
    let name = match parse(said) {
        Ok(host) => host.name,
        Err(_) => said,
    };
    if !name.bytes().any(|b| b.is_ascii_uppercase()) {
        return name;
    }
    buffer.clear();
    buffer.extend(name.bytes().map(|b| b.to_ascii_lowercase()));
    std::str::from_utf8(buffer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Case<'a> = (&'a str, &'a [&'a str], Version, Result<&'a str, HostError>);

    fn map(hosts: &[&str]) -> HeaderMap {
        hosts.iter().map(|h| (HOST, h.parse().unwrap())).collect()
    }

    #[test]
    fn a_request_names_one_host() {
        use HostError::{Malformed, Mismatch, Missing, Multiple};
        let v11 = Version::HTTP_11;
        let cases: &[Case<'_>] = &[
            ("/", &["a.example"], v11, Ok("a.example")),
            ("/", &["A.example.:8080"], v11, Ok("A.example")),
            ("/", &["[2001:db8::1]:80"], v11, Ok("[2001:db8::1]")),
            ("/", &["192.0.2.1"], v11, Ok("192.0.2.1")),
            ("/", &["a.example:"], v11, Ok("a.example")),
            ("/", &[], v11, Err(Missing)),
            ("/", &[""], v11, Err(Malformed)),
            ("/", &["a.example", "a.example"], v11, Err(Multiple)),
            ("/", &["a.example", "b.example"], Version::HTTP_2, Err(Multiple)),
            ("http://a.example/", &["A.EXAMPLE:80"], v11, Ok("a.example")),
            ("http://a.example/", &["b.example"], v11, Err(Mismatch)),
            ("http://a.example:81/", &["a.example"], v11, Err(Mismatch)),
            ("https://a.example/", &["a.example:443"], Version::HTTP_2, Ok("a.example")),
            ("https://a.example/", &["a.example:80"], Version::HTTP_2, Err(Mismatch)),
            ("http://a.example/", &[], v11, Err(Missing)),
            ("https://a.example/", &[], Version::HTTP_2, Ok("a.example")),
            ("/", &["a.example"], Version::HTTP_2, Ok("a.example")),
            ("/", &[], Version::HTTP_2, Err(Missing)),
            ("/", &[], Version::HTTP_10, Ok("")),
            ("/", &["a.example"], Version::HTTP_10, Ok("a.example")),
            ("http://user@a.example/", &["a.example"], v11, Err(Malformed)),
        ];
        for (uri, hosts, version, want) in cases {
            let (uri, headers) = (uri.parse::<Uri>().unwrap(), map(hosts));
            assert_eq!(of(&uri, &headers, *version).map(|h| h.name), *want, "{uri} {hosts:?} {version:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        let longer = "a.".repeat(127) + "aa";
        for bad in [
            "a b",
            "a/b",
            "a@b",
            "a..b",
            ".a",
            "a.example..",
            "a:b",
            "a:80:80",
            "a:123456",
            "a:+80",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[fe80::1%25eth0]",
            "a\\b",
            "a,b",
            "a;b",
            "%61",
            "ä.example",
            ".",
            &long,
            &longer,
        ] {
            assert_eq!(parse(bad), Err(HostError::Malformed), "{bad:?}");
        }
        assert_eq!(parse("a:65536"), Err(HostError::Malformed));
        assert_eq!(parse("a:65535").map(|h| h.port), Ok(Some(65_535)));
    }

    proptest! {
        #[test]
        fn one_spelling_for_all_ways_to_say_it(name in "[a-zA-Z0-9_-]{1,12}(\\.[a-zA-Z0-9-]{1,12}){0,4}", port in 0u16.., dot: bool) {
            let lower = name.to_ascii_lowercase();
            let dot = if dot { "." } else { "" };
            for said in [format!("{name}{dot}"), format!("{name}{dot}:{port}"), lower.clone()] {
                let mut buffer = Buffer::new();
                prop_assert_eq!(canonical(&said, &mut buffer), lower.as_str());
            }
        }

        #[test]
        fn no_text_makes_it_panic(said in "\\PC{0,40}") {
            let mut buffer = Buffer::new();
            let once = canonical(&said, &mut buffer).to_owned();
            prop_assert!(!once.bytes().any(|b| b.is_ascii_uppercase()));
            if let Ok(host) = parse(&said) {
                prop_assert!(host.name.len() <= 253 && !host.name.is_empty());
            }
        }
    }
}
