//! What passes a hop and what does not.

use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

fn names(map: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

const UNTRUSTED: Way = Way::Request { trusted: false };
const TRUSTED: Way = Way::Request { trusted: true };

#[test]
fn what_belongs_to_one_hop_stays_there() {
    let mut map = headers(&[
        ("host", "a.example"),
        ("connection", "keep-alive, X-Secret"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("proxy-anything", "x"),
        ("te", "gzip"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "x"),
        ("expect", "100-continue"),
        ("x-secret", "1"),
        ("x-secret", "2"),
        ("accept", "*/*"),
    ]);
    strip(&mut map, TRUSTED, false);
    assert_eq!(names(&map), ["accept", "host"]);
}

#[test]
fn a_connection_field_cannot_remove_what_decides() {
    let mut map = headers(&[
        ("host", "a.example"),
        (
            "connection",
            "host, content-length, Authorization, x-forwarded-for, Forwarded, cookie, content-type, nothing",
        ),
        ("content-length", "3"),
        ("content-type", "text/plain"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
    ]);
    strip(&mut map, TRUSTED, false);
    let kept = ["authorization", "content-length", "content-type", "cookie", "forwarded", "host", "x-forwarded-for"];
    assert_eq!(names(&map), kept);
}

#[test]
fn a_stranger_speaks_for_nobody_else() {
    let said = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-anything", "1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-priority", "0"),
        ("x-deadline-ms", "250"),
        ("x_user_id", "1"),
        ("x-user-id", "1"),
    ];
    let mut map = headers(&said);
    strip(&mut map, UNTRUSTED, false);
    assert_eq!(names(&map), ["x-deadline-ms", "x-user-id"], "a deadline may only shorten, so anybody may say one");
    let mut map = headers(&said);
    strip(&mut map, TRUSTED, false);
    assert_eq!(names(&map).len(), said.len() - 1, "a name with _ passes for nobody");
}

#[test]
fn trailers_are_asked_for_and_nothing_else() {
    for (said, kept) in [("trailers", true), ("Trailers, deflate;q=0.5", true), ("gzip", false), ("trailersx", false)] {
        let mut map = headers(&[("te", said)]);
        strip(&mut map, UNTRUSTED, false);
        assert_eq!(map.get("te").map(HeaderValue::as_bytes), kept.then_some(&b"trailers"[..]), "{said}");
    }
}

#[test]
fn a_response_keeps_its_trailer_and_its_marks() {
    let mut map = headers(&[
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
        ("x-overloaded", "1"),
        ("retry-after", "1"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
    ]);
    strip(&mut map, Way::Response, false);
    assert_eq!(names(&map), ["retry-after", "trailer", "x-overloaded"]);
}

#[test]
fn an_upgrade_goes_on_as_one_value_each() {
    let mut map = headers(&[("connection", "keep-alive, Upgrade, x-hop"), ("x-hop", "1"), ("upgrade", "websocket")]);
    strip(&mut map, UNTRUSTED, true);
    assert_eq!(names(&map), ["connection", "upgrade"]);
    assert_eq!((map["connection"].as_bytes(), map["upgrade"].as_bytes()), (&b"upgrade"[..], &b"websocket"[..]));
    let mut map = headers(&[("connection", "upgrade")]);
    strip(&mut map, UNTRUSTED, true);
    assert!(map.is_empty(), "nothing to upgrade to");
}

const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "WebSocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_websocket_is_told_from_what_only_looks_like_one() {
    let of = |map: &HeaderMap| upgrade(&Method::GET, Version::HTTP_11, map);
    let good = headers(&HANDSHAKE);
    assert_eq!(of(&good), Some(Upgrade::WebSocket));
    assert_eq!(upgrade(&Method::POST, Version::HTTP_11, &good), Some(Upgrade::Unknown));
    assert_eq!(upgrade(&Method::GET, Version::HTTP_10, &good), None);
    assert_eq!(upgrade(&Method::GET, Version::HTTP_2, &good), None);
    for (name, value) in [
        ("upgrade", "h2c"),
        ("sec-websocket-version", "13, 8"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "short"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
    ] {
        let mut map = good.clone();
        map.insert(HeaderName::from_static(name), value.parse().unwrap());
        assert_eq!(of(&map), Some(Upgrade::Unknown), "{name}: {value}");
    }
    let mut twice = good.clone();
    twice.append("upgrade", "h2c".parse().unwrap());
    assert_eq!(of(&twice), Some(Upgrade::Unknown));
    let mut plain = good.clone();
    plain.insert("connection", "keep-alive".parse().unwrap());
    assert_eq!(of(&plain), None);
    let mut nothing = good;
    nothing.remove("upgrade");
    assert_eq!(of(&nothing), None);
}

proptest! {
    #[test]
    fn whatever_comes_in_nothing_of_this_hop_goes_on(
        pairs in prop::collection::vec((
            prop::sample::select(&["connection", "te", "upgrade", "host", "x-a", "x_b", "proxy-x", "x-forwarded-for", "trailer", "keep-alive"][..]),
            "[ -~]{0,24}",
        ), 0..12),
        trusted: bool,
    ) {
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let mut map = headers(&pairs);
        let had_host = map.contains_key("host");
        strip(&mut map, Way::Request { trusted }, false);
        for gone in ["connection", "upgrade", "x_b", "proxy-x", "trailer", "keep-alive"] {
            prop_assert!(!map.contains_key(gone), "{}", gone);
        }
        prop_assert!(trusted || !map.contains_key("x-forwarded-for"));
        prop_assert!(map.get("te").is_none_or(|te| te == "trailers"));
        prop_assert_eq!(map.contains_key("host"), had_host);
        let again = map.clone();
        strip(&mut map, Way::Request { trusted }, false);
        prop_assert_eq!(map, again, "once is enough");
    }
}

#[test]
fn what_decides_does_not_come_behind_a_body() {
    let trailers = headers(&[
        ("grpc-status", "0"),
        ("x-sum", "1"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("host", "b"),
        ("connection", "close"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("authorization", "x"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("proxy-authorization", "x"),
        ("x_sum", "2"),
    ]);
    assert_eq!(names(&strip_trailers(trailers).unwrap()), ["grpc-status", "x-sum"]);
    assert_eq!(strip_trailers(headers(&[("host", "b")])), None);
}

#[test]
fn pieces_of_cookies_become_one_field() {
    let mut map = headers(&[("cookie", "a=b"), ("accept", "*/*"), ("cookie", "c=d"), ("cookie", "e=f")]);
    join_cookies(&mut map);
    assert_eq!(map.get_all("cookie").iter().collect::<Vec<_>>(), ["a=b; c=d; e=f"]);
    for alone in [&[][..], &[("cookie", "a=b")]] {
        let mut map = headers(alone);
        join_cookies(&mut map);
        assert_eq!(map, headers(alone));
    }
}
