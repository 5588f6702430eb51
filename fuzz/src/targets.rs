//! What must hold whatever the bytes are: one body for each target.
//!
//! `fuzz_targets/NAME.rs` lets a fuzzer look for bytes that break a body; `tests/fuzz_corpus.rs` replays
//! `corpus/NAME/*` with every test run, so that a target cannot rot and a finding stays found.

#![allow(unreachable_pub, reason = "a module of each target and of the tests, with no crate of its own")]

#[path = "discover.rs"]
mod discover;
#[path = "dns.rs"]
mod dns;
#[path = "dnssec.rs"]
mod dnssec;
#[path = "files.rs"]
mod files;
#[path = "geo.rs"]
mod geo;
#[path = "h1.rs"]
mod h1;
#[path = "h2.rs"]
mod h2;
#[path = "h3.rs"]
mod h3;
#[path = "routing.rs"]
mod routing;

use std::path::Path;
use std::time::Duration;

pub use discover::{backend_list, srv_answer};
pub use dns::{
    dns_answer, dns_cookie, dns_opt, dns_query, dns_text, doh, ecs, lookup, name, prefix, rdata, transfer, tsig, zone,
};
pub use dnssec::{dnssec_bitmap, dnssec_canonical, dnssec_records, dnssec_successor, keyfile};
pub use files::{files_coding, files_conditions, files_name, files_range};
pub use geo::{cidr, mmdb};
pub use h1::{h1_chunked, h1_request, h1_response, h1_written};
pub use h2::h2_frames;
pub use h3::{h3_control, h3_head, h3_request};
use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
pub use routing::{query, route};
use springtide::base::clock::Wall;
use springtide::config::check;
use springtide::config::diag::Severity;
use springtide::wire::forwarded::{self, Peer};
use springtide::wire::otlp::{self, Kind, Span};
use springtide::wire::proxy_line::{self, Line};
use springtide::wire::ticket::{self, KEY, Keys, NONCE};
use springtide::wire::trace_context::{self, Parent};
use springtide::wire::{client_cert, cookie, head, host, path, x509};

/// What a fuzzer calls with its bytes.
pub type Body = fn(&[u8]);

/// Every target by its name, which is also its folder in the corpus.
pub const ALL: &[(&str, Body)] = &[
    ("backend_list", backend_list),
    ("cidr", cidr),
    ("config", config),
    ("cookie", cookie),
    ("dns_answer", dns_answer),
    ("dns_cookie", dns_cookie),
    ("dns_opt", dns_opt),
    ("dns_query", dns_query),
    ("dns_text", dns_text),
    ("dnssec_bitmap", dnssec_bitmap),
    ("dnssec_canonical", dnssec_canonical),
    ("dnssec_records", dnssec_records),
    ("dnssec_successor", dnssec_successor),
    ("doh", doh),
    ("ecs", ecs),
    ("files_coding", files_coding),
    ("files_conditions", files_conditions),
    ("files_name", files_name),
    ("files_range", files_range),
    ("h1_chunked", h1_chunked),
    ("h1_request", h1_request),
    ("h1_response", h1_response),
    ("h1_written", h1_written),
    ("h2_frames", h2_frames),
    ("h3_control", h3_control),
    ("h3_head", h3_head),
    ("h3_request", h3_request),
    ("head_forwarded", head_forwarded),
    ("host", host),
    ("keyfile", keyfile),
    ("lookup", lookup),
    ("mmdb", mmdb),
    ("name", name),
    ("otlp", otlp),
    ("path_normalise", path_normalise),
    ("proxy_line", proxy_line),
    ("prefix", prefix),
    ("query", query),
    ("rdata", rdata),
    ("route", route),
    ("srv_answer", srv_answer),
    ("ticket", ticket),
    ("trace_context", trace_context),
    ("transfer", transfer),
    ("tsig", tsig),
    ("x509", x509),
    ("zone", zone),
];

/// Any text as a configuration: it is refused with a reason or accepted with warnings at most, every finding stands in
/// the text, in order, and can be rendered in every way.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let findings = match check::parse(&text, Path::new("any.toml")) {
        Ok(config) => {
            assert!(config.warnings.iter().all(|f| f.severity == Severity::Warning), "an error was passed over");
            config.warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(|f| f.severity == Severity::Error), "refused without a reason");
            findings
        }
    };
    let lines = text.split('\n').count();
    for finding in findings.iter() {
        assert!(finding.span.is_none_or(|s| s.start <= s.end && s.end <= text.len()), "{finding:?}");
        assert!(finding.line <= lines && (finding.span.is_none() || finding.column >= 1), "{finding:?}");
    }
    assert!(findings.iter().is_sorted_by_key(|f| f.span.map(|s| s.start)), "out of order");
    assert!(findings.render(true).len() >= findings.to_string().len(), "colours take nothing away");
    assert_eq!(findings.to_json()["findings"].as_array().map(Vec::len), Some(findings.iter().len()));
}

/// Whatever is said of a trace: what is read is written again as it was read.
pub fn trace_context(data: &[u8]) {
    let mut lines = data.split(|&b| b == b'\n');
    if let Some(parent) = lines.next().and_then(Parent::parse) {
        assert!(parent.trace != 0 && parent.span != 0);
        assert_eq!(Parent::parse(parent.to_string().as_bytes()), Some(parent));
    }
    trace_context::may_pass(lines);
}

/// Any octets as `Cookie` fields, a line each: what is found lies in one of them, behind its name.
pub fn cookie(data: &[u8]) {
    let (name, fields) = data.split_at(data.iter().position(|&b| b == 0).unwrap_or(data.len()));
    let Ok(name) = std::str::from_utf8(name) else { return };
    let mut headers = HeaderMap::new();
    for field in fields.split(|&b| b == b'\n').take(64) {
        if let Ok(value) = HeaderValue::from_bytes(field.strip_prefix(b"\0").unwrap_or(field)) {
            headers.append(COOKIE, value);
        }
    }
    let found = cookie::find(&headers, name);
    let within = |value: &[u8]| headers.values().any(|f| f.as_bytes().as_ptr_range().contains(&value.as_ptr()));
    assert!(found.is_none_or(|value| value.is_empty() || within(value)));
    assert!(found.is_none_or(|value| !value.contains(&b';')), "one pair and no more");
    // A sender who names one cookie and nothing else gets its value back.
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b';' | b'=' | b'"');
    if !name.is_empty() && name.bytes().all(plain) {
        let value: Vec<u8> = fields.iter().copied().filter(|&b| plain(b)).collect();
        let mut headers = HeaderMap::new();
        let pair = [name.as_bytes(), b"=", &value].concat();
        let Ok(field) = HeaderValue::from_bytes(&pair) else { panic!("graphic octets make a field") };
        headers.append(COOKIE, field);
        assert_eq!(cookie::find(&headers, name), Some(&value[..]));
    }
}

/// Any lines as header fields: nothing of this hop goes on, and the last one in the chain is the peer.
pub fn head_forwarded(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&b| b == b'\n').take(64) {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').unwrap_or(line.len()));
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.strip_prefix(b":").unwrap_or_default()))
        {
            headers.append(name, value);
        }
    }
    let everybody = ["0.0.0.0/0".parse().unwrap()];
    for trusted in [&everybody[..], &[]] {
        let mut headers = headers.clone();
        let peer = Peer::new([192, 0, 2, 1].into(), true, trusted);
        let _ = (
            peer.client(&headers, trusted),
            forwarded::hops(&headers),
            head::upgrade(&Method::GET, Version::HTTP_11, &headers),
        );
        let had_host = headers.contains_key("host");
        head::strip(&mut headers, head::Way::Request { trusted: peer.trusted }, false);
        for gone in ["connection", "transfer-encoding", "upgrade", "keep-alive", "trailer"] {
            assert!(!headers.contains_key(gone), "{gone} goes on");
        }
        assert!(!headers.keys().any(|name| name.as_str().contains('_')), "a name with _ goes on");
        assert_eq!(headers.contains_key("host"), had_host);
        forwarded::stamp(&mut headers, &peer, "a.example:1", Version::HTTP_11);
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        let chain = headers["x-forwarded-for"].as_bytes();
        assert!(chain.ends_with(b"192.0.2.1") && (peer.trusted || chain == b"192.0.2.1"), "who the peer is stays true");
    }
}

/// Any text as a host: refused, or one name in one spelling that reads the same again.
pub fn host(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut buffer = host::Buffer::new();
    let spelled = host::canonical(&text, &mut buffer);
    assert!(!spelled.bytes().any(|b| b.is_ascii_uppercase()));
    if let Ok(host) = host::parse(&text) {
        assert!((1..=253).contains(&host.name.len()) && host.name.is_ascii());
        assert!(spelled.eq_ignore_ascii_case(host.name));
        let mut again = host::Buffer::new();
        assert_eq!(host::canonical(spelled, &mut again), spelled, "one spelling");
    }
}

/// Any text as a path: refused, or normal for good and inside the root.
pub fn path_normalise(data: &[u8]) {
    if let Ok(once) = path::normalise(&String::from_utf8_lossy(data)) {
        assert_eq!(path::normalise(&once).as_deref(), Ok(&*once), "twice is once");
        assert!(once.starts_with('/') && once.is_ascii() && !once.contains("//"));
        assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
    }
}

/// Any bytes as a PROXY header: a reader that takes what it is asked to take ends behind the header, within bounds.
pub fn proxy_line(data: &[u8]) {
    let mut taken = 0;
    loop {
        match proxy_line::parse(&data[..taken]) {
            Ok(Line::More(octets)) if taken + octets <= data.len() => {
                assert!(octets > 0);
                taken += octets;
                assert!(taken <= proxy_line::MAX_V2);
            }
            Ok(Line::Whole { length, ends }) => {
                assert_eq!(length, taken, "not an octet too many");
                assert_eq!(proxy_line::parse(data), Ok(Line::Whole { length, ends }), "what follows changes nothing");
                for written in [proxy_line::text(ends.as_ref()), proxy_line::binary(ends.as_ref())] {
                    let length = written.len();
                    assert_eq!(
                        proxy_line::parse(&written),
                        Ok(Line::Whole { length, ends }),
                        "said on, it is the same"
                    );
                }
                return;
            }
            Ok(Line::More(_)) | Err(_) => return,
        }
    }
}

/// Any bytes as a session ticket, and as a session that is sealed in one.
pub fn ticket(data: &[u8]) {
    let now = Wall(1_800_000_000_000);
    let keys = Keys::of(&[[7; KEY], [8; KEY]]).unwrap();
    let lifetime = Duration::from_hours(1);
    assert_eq!(keys.open(data, lifetime, now), None, "nobody guesses a tag");
    if let Some(mut ticket) = keys.seal(data, [9; NONCE], now) {
        assert_eq!(keys.open(&ticket, lifetime, now).as_deref(), Some(data));
        let at = data.first().map_or(0, |&at| usize::from(at) % ticket.len());
        ticket[at] ^= 1;
        assert_eq!(keys.open(&ticket, lifetime, now), None, "what was touched is no ticket");
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(secrets) = ticket::parse(text)
    {
        assert_eq!(ticket::parse(&ticket::write(&secrets, "")), Ok(secrets));
    }
}

/// Any bytes as a certificate.
pub fn x509(data: &[u8]) {
    if let Some(facts) = x509::facts(data) {
        assert!(facts.names.iter().all(|name| name.is_ascii()));
    }
    if let Some(shown) = client_cert::Shown::of(data, true, true) {
        for (_, value) in &shown.fields {
            assert!(value.to_str().is_ok(), "a backend can read it");
        }
    }
}

/// A collector's answer; and the same octets as a text of a span, whose message stays as long as it says that it is.
pub fn otlp(data: &[u8]) {
    let why = otlp::rejected(data).why;
    assert!(!why.chars().chain(otlp::refusal(data).chars()).any(char::is_control));
    let span = Span {
        trace: 1,
        id: 2,
        parent: None,
        state: data,
        name: "GET",
        kind: Kind::Client,
        began: 3,
        ended: 4,
        is_error: data.is_empty(),
    };
    let mut spans = Vec::new();
    span.write(&mut spans, |add| add.text("text", data));
    let request = otlp::request(|add| add.text("service.name", data), ("springtide", "0"), [&spans[..]].into_iter());
    assert!(request.windows(spans.len()).any(|part| part == spans));
    // Written messages are read like any, and hold nothing that a collector would say.
    otlp::rejected(&request);
}
