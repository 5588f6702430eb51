//! Static files: names, ranges, codings and conditions.

use http::header::{ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};
use http::{HeaderMap, HeaderValue};
use springtide::base::clock::Wall;
use springtide::config::Coding;
use springtide::decide::files::conditions::{self, Current, Fate};
use springtide::decide::files::range::Ranges;
use springtide::decide::files::{coding, name, range};
use springtide::wire::{date, path};

/// Any text as a path: what it means lies below the root, and means the same when it is normalised again.
pub fn files_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = path::normalise(text) else { return };
    for shows_hidden in [false, true] {
        let Some(name) = name::name(&path, shows_hidden) else { continue };
        assert!(!name.path.contains(&0) && name.path.first() != Some(&b'/') && name.path.last() != Some(&b'/'));
        for segment in name.path.split(|&b| b == b'/').filter(|_| !name.path.is_empty()) {
            assert!(!segment.is_empty() && segment != b"." && segment != b"..");
            assert!(shows_hidden || segment.first() != Some(&b'.') || segment == b".well-known");
        }
    }
}

/// Any octets as `Range` of a file of any length: parts lie in it, and apart.
pub fn files_range(data: &[u8]) {
    let Some((length, value)) = data.split_first_chunk::<3>() else { return };
    let length = u64::from(u32::from_be_bytes([0, length[0], length[1], length[2]]));
    if let Ranges::Parts(parts) = range::ranges(value, length) {
        assert!(!parts.is_empty() && parts.len() <= 16);
        for (i, part) in parts.iter().enumerate() {
            assert!(part.first <= part.last && part.last < length);
            assert!(parts.iter().skip(i + 1).all(|p| p.first > part.last || part.first > p.last), "parts overlap");
        }
    }
}

/// Any octets as `Accept-Encoding`, a line each: nothing is chosen twice, and nothing that is refused by name.
pub fn files_coding(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|&b| b == b'\n').take(8) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(ACCEPT_ENCODING, value);
        }
    }
    let offered = [Coding::Br, Coding::Zstd, Coding::Gzip];
    let chosen = coding::choose(&headers, &offered);
    assert!(chosen.iter().enumerate().all(|(i, coding)| !chosen[i + 1..].contains(coding)));
    assert!(coding::choose(&headers, &[]).is_empty());
}

/// Any octets as conditions, a line each: who has the file is not sent it, whatever else stands there; dates come back.
pub fn files_conditions(data: &[u8]) {
    let mut lines = data.split(|&b| b == b'\n');
    let mut headers = HeaderMap::new();
    for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE] {
        if let Some(Ok(value)) = lines.next().filter(|line| !line.is_empty()).map(HeaderValue::from_bytes) {
            headers.append(name, value);
        }
    }
    let current = Current { etag: b"\"a-b\"", modified: Wall(784_111_777_000) };
    let fate = conditions::judge(&headers, &current);
    conditions::may_send_parts(&headers, &current, Wall(u64::MAX));
    if !headers.contains_key(IF_MATCH) {
        assert_ne!(fate, Fate::Failed);
        headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"x\", W/\"a-b\""));
        assert_eq!(conditions::judge(&headers, &current), Fate::NotModified);
    }
    if let Some(at) = date::parse(data) {
        assert!(at.0 / 1_000 > 253_402_300_799 || date::parse(&date::http(at)) == Some(at));
    }
}
