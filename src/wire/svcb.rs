//! Service parameters of SVCB and HTTPS records (RFC 9460): from text to wire format.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::rdata::{base64, numbered, octets};
use super::text::{base64 as base64_text, quote};

/// Key numbers (RFC 9460 section 14.3.2, RFC 9461, RFC 9540, and the IANA's registry).
const KEYS: &[(&str, u16)] = &[
    ("mandatory", 0),
    ("alpn", ALPN),
    ("no-default-alpn", 2),
    ("port", 3),
    ("ipv4hint", IPV4HINT),
    ("ech", 5),
    ("ipv6hint", IPV6HINT),
    ("dohpath", 7),
    ("ohttp", 8),
    ("tls-supported-groups", 9),
];

/// Which protocols are spoken.
pub const ALPN: u16 = 1;
/// IPv4 addresses to begin with.
pub const IPV4HINT: u16 = 4;
/// IPv6 addresses to begin with.
pub const IPV6HINT: u16 = 6;

/// Why parameters can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParamError {
    /// No such key.
    #[error(
        "`{key}` is no service parameter: expected mandatory, alpn, no-default-alpn, port, ipv4hint, ech, ipv6hint, dohpath, ohttp, tls-supported-groups or keyNNNNN"
    )]
    Key {
        /// What stands there.
        key: String,
    },
    /// The same key twice.
    #[error("`{key}` stands twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// The value is not what the key takes.
    #[error("`{key}` takes {expected}")]
    Value {
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
}

/// Reads parameters, each `key`, `key=value` or `key="value"`; gives them sorted by key, as the wire wants them.
///
/// # Errors
/// As [`ParamError`] lists.
pub fn parse<'a>(params: impl Iterator<Item = &'a str>) -> Result<Vec<u8>, ParamError> {
    let mut sorted: Vec<(u16, Vec<u8>)> = Vec::new();
    for param in params {
        let (key, value) = param.split_once('=').map_or((param, None), |(k, v)| (k, Some(v)));
        let value = value.map(|v| v.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(v));
        let number = number(key).ok_or_else(|| ParamError::Key { key: key.into() })?;
        let data = encode(number, value).map_err(|expected| ParamError::Value { key: key.into(), expected })?;
        match sorted.binary_search_by_key(&number, |p| p.0) {
            Ok(_) => return Err(ParamError::Twice { key: key.into() }),
            Err(at) => sorted.insert(at, (number, data)),
        }
    }
    mandatory(&sorted)?;
    Ok(sorted.iter().flat_map(|(key, value)| param(*key, value)).collect())
}

/// What `mandatory` names has to be there, once, and not itself (RFC 9460 section 8).
fn mandatory(sorted: &[(u16, Vec<u8>)]) -> Result<(), ParamError> {
    let Some((0, keys)) = sorted.first() else { return Ok(()) };
    let (keys, _) = keys.as_chunks::<2>();
    let wrong = |expected| ParamError::Value { key: "mandatory".into(), expected };
    if !keys.is_sorted_by(|a, b| a < b) {
        return Err(wrong("each key once"));
    }
    let there = |key: u16| key != 0 && sorted.iter().any(|p| p.0 == key);
    let all = keys.iter().all(|key| there(u16::from_be_bytes(*key)));
    if all { Ok(()) } else { Err(wrong("keys that this record has, other than itself")) }
}

/// One parameter in wire format.
pub fn param(key: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + value.len());
    out.extend(key.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
    out
}

/// The value of `alpn`: each id with its length before it. Ids of no or more than 255 octets are left out.
pub fn alpn<'a>(ids: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    ids.filter(|id| (1..=255).contains(&id.len()))
        .flat_map(|id| std::iter::once(id.len() as u8).chain(id.iter().copied()))
        .collect()
}

/// Parameters in wire format as text, each `key` or `key=value`. `None` where they do not follow their form.
pub(super) fn show(mut data: &[u8]) -> Option<Vec<String>> {
    let (mut shown, mut last) = (Vec::new(), None);
    let mut params = Vec::new();
    while let Some((&[k0, k1, l0, l1], rest)) = data.split_first_chunk::<4>() {
        let key = u16::from_be_bytes([k0, k1]);
        let (value, after) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        if last.is_some_and(|last| last >= key) {
            return None;
        }
        (data, last) = (after, Some(key));
        params.push((key, value.to_vec()));
        let called = name(key);
        shown.push(match value_text(key, value)? {
            text if text.is_empty() => called,
            text => format!("{called}={text}"),
        });
    }
    (data.is_empty() && mandatory(&params).is_ok()).then_some(shown)
}

fn name(key: u16) -> String {
    KEYS.iter().find(|k| k.1 == key).map_or_else(|| format!("key{key}"), |k| k.0.to_owned())
}

fn value_text(key: u16, value: &[u8]) -> Option<String> {
    match key {
        0 => {
            let (keys, rest) = value.as_chunks::<2>();
            let sorted = keys.is_sorted_by(|a, b| a < b) && !keys.is_empty() && rest.is_empty();
            sorted.then(|| keys.iter().map(|k| name(u16::from_be_bytes(*k))).collect::<Vec<_>>().join(","))
        }
        ALPN => {
            let (mut ids, mut rest) = (Vec::new(), value);
            while let Some((&length, tail)) = rest.split_first() {
                let (id, after) = tail.split_at_checked(length.into()).filter(|_| length > 0)?;
                let escaped = id.iter().flat_map(|b| match b {
                    b',' | b'\\' => vec![b'\\', *b],
                    _ => vec![*b],
                });
                ids.push(escaped.collect::<Vec<u8>>());
                rest = after;
            }
            (!ids.is_empty()).then(|| quote(&ids.join(&b',')))
        }
        2 | 8 => value.is_empty().then(String::new),
        9 => {
            let (groups, rest) = value.as_chunks::<2>();
            let whole = !groups.is_empty() && rest.is_empty();
            whole.then(|| groups.iter().map(|g| u16::from_be_bytes(*g).to_string()).collect::<Vec<_>>().join(","))
        }
        3 => value.try_into().ok().map(|port| u16::from_be_bytes(port).to_string()),
        IPV4HINT => hints(value, |a: [u8; 4]| Ipv4Addr::from(a).to_string()),
        IPV6HINT => hints(value, |a: [u8; 16]| Ipv6Addr::from(a).to_string()),
        5 => (!value.is_empty()).then(|| base64_text(value)),
        _ if value.is_empty() => Some(String::new()),
        _ => Some(quote(value)),
    }
}

fn hints<const N: usize>(value: &[u8], show: impl Fn([u8; N]) -> String) -> Option<String> {
    let (addresses, rest) = value.as_chunks::<N>();
    let whole = !addresses.is_empty() && rest.is_empty();
    whole.then(|| addresses.iter().map(|a| show(*a)).collect::<Vec<_>>().join(","))
}

fn number(key: &str) -> Option<u16> {
    KEYS.iter().find(|(name, _)| *name == key).map(|k| k.1).or_else(|| numbered(key, "key"))
}

fn encode(key: u16, value: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = value.unwrap_or_default();
    let decoded = || octets(text).filter(|v| u16::try_from(v.len()).is_ok());
    match key {
        0 => {
            let mut keys = text.split(',').map(number).collect::<Option<Vec<_>>>().ok_or("a list of keys")?;
            keys.sort_unstable();
            Ok(keys.iter().flat_map(|k| k.to_be_bytes()).collect())
        }
        ALPN => {
            let ids = list(&decoded().ok_or("protocol ids")?);
            let fit = !ids.is_empty() && ids.iter().all(|id| (1..=255).contains(&id.len()));
            if fit { Ok(alpn(ids.iter().map(Vec::as_slice))) } else { Err("protocol ids, such as h2,http/1.1") }
        }
        2 | 8 if value.is_none() => Ok(Vec::new()),
        2 | 8 => Err("no value"),
        9 => {
            let groups = text.split(',').map(|g| g.parse::<u16>().ok()).collect::<Option<Vec<_>>>();
            Ok(groups.ok_or("a list of group numbers")?.iter().flat_map(|g| g.to_be_bytes()).collect())
        }
        3 => text.parse::<u16>().map(|p| p.to_be_bytes().to_vec()).map_err(|_| "a port number"),
        IPV4HINT => addresses(text, |a: Ipv4Addr| a.octets().to_vec()).ok_or("IPv4 addresses"),
        IPV6HINT => addresses(text, |a: Ipv6Addr| a.octets().to_vec()).ok_or("IPv6 addresses"),
        5 => base64(text).ok_or("base64"),
        _ => decoded().ok_or("a string"),
    }
}

fn addresses<A: std::str::FromStr>(text: &str, octets: impl Fn(A) -> Vec<u8>) -> Option<Vec<u8>> {
    text.split(',').map(|a| a.parse().ok().map(&octets)).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// Splits at commas; `\,` and `\\` stand for themselves (RFC 9460 appendix A.1).
fn list(value: &[u8]) -> Vec<Vec<u8>> {
    let mut items = vec![Vec::new()];
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        let literal = match byte {
            b',' => {
                items.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next(),
            other => Some(other),
        };
        if let Some(item) = items.last_mut() {
            item.extend(literal);
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_as_rfc_9460_appendix_d_writes_them() {
        let cases: &[(&[&str], &[u8])] = &[
            (&["port=53"], b"\0\x03\0\x02\0\x35"),
            (&["key667=hello"], b"\x02\x9b\0\x05hello"),
            (&[r#"key667="hello\210qoo""#], b"\x02\x9b\0\x09hello\xd2qoo"),
            (&["ipv6hint=2001:db8::1"], b"\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"),
            (
                &["alpn=h2,h3-19", "mandatory=ipv4hint,alpn", "ipv4hint=192.0.2.1"],
                b"\0\0\0\x04\0\x01\0\x04\0\x01\0\x09\x02h2\x05h3-19\0\x04\0\x04\xc0\0\x02\x01",
            ),
            (&[r#"alpn="f\\\\oo\\,bar,h2""#], b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"),
            (&["no-default-alpn"], b"\0\x02\0\0"),
            (&[], b""),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text.iter().copied()).as_deref(), Ok(*want), "{text:?}");
        }
    }

    #[test]
    fn broken_parameters_are_named() {
        for (text, says) in [
            (&["colour=red"][..], "`colour` is no service parameter"),
            (&["port=1", "port=2"], "`port` stands twice"),
            (&["port=70000"], "`port` takes a port number"),
            (&["alpn=h2,,h3"], "`alpn` takes protocol ids"),
            (&["ipv4hint=::1"], "`ipv4hint` takes IPv4 addresses"),
            (&["no-default-alpn=1"], "takes no value"),
        ] {
            assert!(parse(text.iter().copied()).unwrap_err().to_string().contains(says), "{text:?}");
        }
    }
}
