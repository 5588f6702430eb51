//! Who a request came from and through: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via` (RFC 9110 section 7.6.3).
//!
//! What an untrusted peer says about others is replaced, what a trusted one says is continued. The values that hold for a
//! whole connection are made once, in [`Peer`].

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::header::{HeaderName, HeaderValue, VIA};
use http::{HeaderMap, Version};
use ipnet::IpNet;

use super::client_cert::Shown;
use super::h1;

/// `Forwarded`, which the `http` crate has no constant for.
pub const FORWARDED: &str = "forwarded";
/// Whom a request came from, oldest first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the client spoke it.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_NAME: HeaderName = HeaderName::from_static(FORWARDED);
/// The name by which hops of ours know each other in `Via`.
const PSEUDONYM: &str = "springtide";
/// So many addresses of `X-Forwarded-For` are looked at, from the right.
const MOST_HOPS: usize = 32;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address; IPv4 where it came mapped into IPv6.
    pub address: IpAddr,
    /// Whether what it says about others is believed.
    pub trusted: bool,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The certificate that it has shown, verified.
    pub certificate: Option<Arc<Shown>>,
    text: HeaderValue,
    /// Values for the first host that was asked for here; hardly any connection ever asks for a second one.
    first: OnceLock<Named>,
}

/// What is said of a peer and the host it asked for.
#[derive(Clone, Debug)]
struct Named {
    said: Box<str>,
    host: Option<HeaderValue>,
    element: Option<HeaderValue>,
    /// All of it as lines of a head, but for `Via`.
    lines: Box<[u8]>,
}

impl Named {
    fn new(peer: &Peer, said: &str) -> Self {
        let host = HeaderValue::from_str(said).ok().filter(|_| !said.is_empty());
        let element = HeaderValue::try_from(element(peer, said)).ok();
        let mut lines = Vec::with_capacity(160);
        let proto = HeaderValue::from_static(peer.scheme());
        let fields = [
            (&X_FORWARDED_FOR, Some(&peer.text)),
            (&X_FORWARDED_PROTO, Some(&proto)),
            (&X_FORWARDED_HOST, host.as_ref()),
            (&FORWARDED_NAME, element.as_ref()),
        ];
        for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            h1::write::field(&mut lines, name, value);
        }
        for (name, value) in peer.certificate.iter().flat_map(|shown| &shown.fields) {
            h1::write::field(&mut lines, name, value);
        }
        Self { said: said.into(), host, element, lines: lines.into() }
    }
}

impl Peer {
    /// The peer at `address`, believed where one of `trusted` holds it.
    pub fn new(address: IpAddr, tls: bool, trusted: &[IpNet]) -> Self {
        let address = address.to_canonical();
        let text = HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let trusted = trusted.iter().any(|net| net.contains(&address));
        Self { address, trusted, tls, certificate: None, text, first: OnceLock::new() }
    }

    /// The same peer, which has shown `certificate`.
    #[must_use]
    pub fn with(self, certificate: Option<Arc<Shown>>) -> Self {
        Self { certificate, first: OnceLock::new(), ..self }
    }

    /// `http` or `https`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    fn named(&self, said: &str) -> Cow<'_, Named> {
        let first = self.first.get_or_init(|| Named::new(self, said));
        if *first.said == *said { Cow::Borrowed(first) } else { Cow::Owned(Named::new(self, said)) }
    }

    /// Who the client is: the peer, or where that is trusted, the last one in `X-Forwarded-For` that is not.
    pub fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
        let mut client = self.address;
        if !self.trusted {
            return client;
        }
        let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = fields.flat_map(|field| field.as_bytes().rsplit(|&b| b == b','));
        for hop in hops.take(MOST_HOPS) {
            // What cannot be read ends the chain: nobody whom we trust wrote it.
            let Some(address) = read_address(hop) else { break };
            client = address;
            if !trusted.iter().any(|net| net.contains(&address)) {
                break;
            }
        }
        client
    }
}

/// Writes this hop into a request's `headers`, from which `head::strip` has already removed what `peer` may not say.
/// `host` is what the client asked for, as it said it; `version` is the client's.
pub fn stamp(headers: &mut HeaderMap, peer: &Peer, host: &str, version: Version) {
    let named = peer.named(host);
    continue_list(headers, &X_FORWARDED_FOR, &peer.text);
    // A trusted hop before us knows better what the client itself spoke.
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme()));
    }
    if let Some(host) = &named.host
        && !headers.contains_key(X_FORWARDED_HOST)
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if let Some(element) = &named.element {
        continue_list(headers, &FORWARDED_NAME, element);
    }
    for (name, value) in peer.certificate.iter().flat_map(|shown| &shown.fields) {
        headers.insert(name.clone(), value.clone());
    }
    via(headers, version);
}

/// The same as lines of a head, to stand behind the fields of a request of which `head::strip` has removed what `peer`, who
/// is not trusted, may not say: nothing of it is left that would have to be continued, but `Via`, whose lines are a list.
pub fn write(out: &mut Vec<u8>, peer: &Peer, host: &str, version: Version) {
    out.extend_from_slice(&peer.named(host).lines);
    out.extend_from_slice(b"via: ");
    out.extend_from_slice(via_element(version).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes this hop into `Via`; of responses too.
pub fn via(headers: &mut HeaderMap, version: Version) {
    headers.append(VIA, HeaderValue::from_static(via_element(version)));
}

const fn via_element(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => "1.0 springtide",
        Version::HTTP_2 => "2 springtide",
        Version::HTTP_3 => "3 springtide",
        _ => "1.1 springtide",
    }
}

/// How many hops of ours a request has passed: more than a few is a loop.
pub fn hops(headers: &HeaderMap) -> usize {
    let members = headers.get_all(VIA).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let names = members.filter_map(|member| member.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).nth(1));
    names.filter(|name| name.eq_ignore_ascii_case(PSEUDONYM.as_bytes())).count()
}

/// One element of `Forwarded`. IPv6 addresses and hosts with a port are quoted (RFC 7239 sections 4 and 6).
fn element(peer: &Peer, host: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64 + host.len());
    let _ = match peer.address {
        IpAddr::V4(v4) => write!(text, "for={v4}"),
        IpAddr::V6(v6) => write!(text, "for=\"[{v6}]\""),
    };
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    // A checked host holds neither quotes nor backslashes; one that does is left out.
    if !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        let quote = if host.bytes().all(is_token) { "" } else { "\"" };
        let _ = write!(text, ";host={quote}{host}{quote}");
    }
    let _ = write!(text, ";proto={}", peer.scheme());
    text
}

/// Makes `value` the last member of the list `name`: one field, as most readers expect.
fn continue_list(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) {
    if !headers.contains_key(name) {
        headers.insert(name.clone(), value.clone());
        return;
    }
    let mut list: Vec<u8> = Vec::with_capacity(64);
    for said in headers.get_all(name) {
        list.extend_from_slice(said.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value.as_bytes());
    if let Ok(list) = HeaderValue::try_from(list) {
        headers.insert(name.clone(), list);
    }
}

/// An address as hops write it: bare, with a port, in brackets, in quotes.
fn read_address(said: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(said).ok()?.trim().trim_matches('"');
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if text.matches(':').count() == 1 => text.split_once(':')?.0,
        None => text,
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    fn text<'a>(map: &'a HeaderMap, name: &str) -> &'a str {
        map.get(name).map_or("-", |v| v.to_str().unwrap())
    }

    #[test]
    fn a_first_hop_says_who_asked_for_what() {
        let peer = Peer::new("2001:db8::7".parse().unwrap(), true, &[]);
        let mut map = HeaderMap::new();
        stamp(&mut map, &peer, "www.hongbao.test:8443", Version::HTTP_2);
        assert_eq!(text(&map, "x-forwarded-for"), "2001:db8::7");
        assert_eq!(text(&map, "x-forwarded-proto"), "https");
        assert_eq!(text(&map, "x-forwarded-host"), "www.hongbao.test:8443");
        assert_eq!(text(&map, "forwarded"), "for=\"[2001:db8::7]\";host=\"www.hongbao.test:8443\";proto=https");
        assert_eq!(text(&map, "via"), "2 springtide");
        for host in ["other.test", "www.hongbao.test:8443"] {
            let mut map = HeaderMap::new();
            stamp(&mut map, &peer, host, Version::HTTP_2);
            assert_eq!(text(&map, "x-forwarded-host"), host, "another host on the same connection");
        }
    }

    #[test]
    fn a_trusted_hop_is_continued() {
        let peer = Peer::new("::ffff:10.0.0.1".parse().unwrap(), false, &nets(&["10.0.0.0/8"]));
        assert!(peer.trusted);
        let mut map = headers(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.test"),
            ("forwarded", "for=192.0.2.1"),
            ("via", "1.1 cache"),
        ]);
        stamp(&mut map, &peer, "shop.test", Version::HTTP_11);
        assert_eq!(text(&map, "x-forwarded-for"), "192.0.2.1, 192.0.2.2, 10.0.0.1");
        assert_eq!(map.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(text(&map, "x-forwarded-proto"), "https");
        assert_eq!(text(&map, "forwarded"), "for=192.0.2.1, for=10.0.0.1;host=shop.test;proto=http");
        assert_eq!(map.get_all("via").iter().count(), 2);
    }

    #[test]
    fn the_client_is_the_last_one_whom_nobody_trusts() {
        let trusted = nets(&["10.0.0.0/8", "2001:db8::/32"]);
        let inside = Peer::new("10.0.0.1".parse().unwrap(), false, &trusted);
        let outside = Peer::new("192.0.2.9".parse().unwrap(), false, &trusted);
        for (said, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("6.6.6.6, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db9::1]:4711", "2001:db9::1"),
            ("2001:db9::1", "2001:db9::1"),
            ("\"[2001:db9::1]\"", "2001:db9::1"),
            ("6.6.6.6, nonsense", "10.0.0.1"),
            ("6.6.6.6, nonsense, 10.0.0.2", "10.0.0.2"),
            ("", "10.0.0.1"),
        ] {
            let map = headers(&[("x-forwarded-for", said)]);
            assert_eq!(inside.client(&map, &trusted).to_string(), client, "{said:?}");
            assert_eq!(outside.client(&map, &trusted).to_string(), "192.0.2.9");
        }
    }

    #[test]
    fn a_loop_is_counted() {
        let map = headers(&[("via", "1.1 springtide, 1.1 cache (springtide)"), ("via", "2 Springtide")]);
        assert_eq!(hops(&map), 2);
        assert_eq!(hops(&HeaderMap::new()), 0);
    }

    proptest! {
        #[test]
        fn nothing_said_makes_it_panic(said in proptest::collection::vec(any::<u8>(), 0..60), host in "\\PC{0,30}") {
            let trusted = nets(&["0.0.0.0/0"]);
            let peer = Peer::new("10.0.0.1".parse().unwrap(), false, &trusted);
            let mut map = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&said) {
                map.insert(X_FORWARDED_FOR, value.clone());
                map.insert(FORWARDED_NAME, value.clone());
                map.insert(VIA, value);
            }
            let _ = (peer.client(&map, &trusted), hops(&map));
            stamp(&mut map, &peer, &host, Version::HTTP_11);
            prop_assert!(map[X_FORWARDED_FOR].as_bytes().ends_with(b"10.0.0.1"));
            prop_assert_eq!(map.get_all(X_FORWARDED_FOR).iter().count(), 1);
            prop_assert!(map[FORWARDED_NAME].as_bytes().ends_with(b"proto=http"));
        }
    }
}
