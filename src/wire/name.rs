//! Domain names: wire format (RFC 1035 section 3.1) and the text of master files (section 5.1).
//!
//! A name here is its length-prefixed labels and the final zero, never compressed; [`skip`] and [`expand`] read those of a
//! message, which may be. Comparing is left to bytes: whoever
//! wants it without regard to case lowers both sides first, which is safe because length octets (up to 63) are below `A`.

use std::fmt::Write as _;

/// The longest name, in octets of wire format.
pub const MAX: usize = 255;
/// The longest label.
pub const MAX_LABEL: usize = 63;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing where a name should be.
    #[error("a name is missing")]
    Empty,
    /// Two dots in a row, or one at the start.
    #[error("an empty label (two dots in a row, or a dot at the start)")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("a label of more than 63 octets")]
    LongLabel,
    /// A name of more than 255 octets.
    #[error("a name of more than 255 octets")]
    Long,
    /// `\` without a character or three digits up to 255 after it.
    #[error("a backslash must be followed by a character or by three digits up to 255")]
    Escape,
    /// A relative name where nothing says to what.
    #[error("a relative name, but there is no origin: end it with a dot")]
    Relative,
}

/// Reads a name as it stands in a master file; a relative one is completed with `origin`. Case is kept.
pub fn parse(text: &str, origin: Option<&[u8]>) -> Result<Vec<u8>, NameError> {
    match text {
        "" => return Err(NameError::Empty),
        "." => return Ok(vec![0]),
        "@" => return origin.map(<[u8]>::to_vec).ok_or(NameError::Relative),
        _ => {}
    }
    let mut name = Vec::with_capacity(text.len() + 2);
    let mut start = 0;
    name.push(0);
    let close = |name: &mut Vec<u8>, start: usize| match name.len() - start - 1 {
        0 => Err(NameError::EmptyLabel),
        n if n > MAX_LABEL => Err(NameError::LongLabel),
        n => {
            name[start] = n as u8;
            Ok(())
        }
    };
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => {
                close(&mut name, start)?;
                start = name.len();
                name.push(0);
            }
            b'\\' => name.push(unescape(&mut bytes).ok_or(NameError::Escape)?),
            other => name.push(other),
        }
        if name.len() > 2 * MAX {
            return Err(NameError::Long);
        }
    }
    if start + 1 < name.len() {
        close(&mut name, start)?;
        name.extend_from_slice(origin.ok_or(NameError::Relative)?);
    }
    if name.len() > MAX { Err(NameError::Long) } else { Ok(name) }
}

/// Octets that the name at the front of `data` takes, final zero and all. `None` where it is cut, compressed or too long.
pub fn octets(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = usize::from(*data.get(at)?);
        at += 1 + length;
        match length {
            0 => return (at <= MAX).then_some(at),
            1..=MAX_LABEL if at < MAX => {}
            _ => return None,
        }
    }
}

/// Where the name at `at` of a message ends in place: behind its final zero, or behind the pointer that it ends with.
pub fn skip(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The name at `at` of a message, followed through its pointers (RFC 1035 section 4.1.4), and where it ends in place.
pub fn expand(message: &[u8], mut at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut wire, mut end) = (Vec::new(), None);
    loop {
        let length = *message.get(at)?;
        match length {
            0 => {
                wire.push(0);
                return Some((wire, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let next = at + 1 + usize::from(length);
                wire.extend_from_slice(message.get(at..next)?);
                at = next;
            }
            0xc0.. => {
                let to = usize::from(u16::from_be_bytes([length & 0x3f, *message.get(at + 1)?]));
                end = end.or(Some(at + 2));
                // Only backwards, so this ends.
                if to >= at {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
        // The final zero must fit, too.
        if wire.len() >= MAX {
            return None;
        }
    }
}

/// What stands after a backslash: `X` or `DDD` (RFC 1035 section 5.1). `None` where it is neither.
pub fn unescape(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let first = bytes.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut value = u32::from(first - b'0');
    for _ in 0..2 {
        let digit = bytes.next().filter(u8::is_ascii_digit)?;
        value = value * 10 + u32::from(digit - b'0');
    }
    u8::try_from(value).ok()
}

/// The name in text, with the final dot; what would be misread is escaped.
pub fn show(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for label in labels(name) {
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(byte as char);
                }
                0x21..=0x7e => text.push(byte as char),
                other => {
                    let _ = write!(text, "\\{other:03}");
                }
            }
        }
        text.push('.');
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// The labels of a name, without their lengths and without the root. Ends early where `name` is not well formed.
pub fn labels(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = name;
    std::iter::from_fn(move || {
        let (&length, tail) = rest.split_first()?;
        let (label, after) = tail.split_at_checked(length.into())?;
        rest = after;
        (length > 0).then_some(label)
    })
}

/// The name without its first label; `None` for the root.
pub fn parent(name: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*name.first()?);
    if length == 0 { None } else { name.get(1 + length..).filter(|rest| !rest.is_empty()) }
}

/// Whether `name` is `apex` or lies beneath it; both in the same case.
pub fn is_within(name: &[u8], apex: &[u8]) -> bool {
    let mut at = name;
    while at.len() > apex.len() {
        match parent(at) {
            Some(up) => at = up,
            None => return false,
        }
    }
    at == apex
}

/// The name in lower case.
pub fn lower(name: &[u8]) -> Box<[u8]> {
    name.to_ascii_lowercase().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_and_wire_agree() {
        let origin = parse("Example.Test.", None).unwrap();
        assert_eq!(origin, b"\x07Example\x04Test\0");
        assert_eq!(parse("www", Some(&origin)).unwrap(), b"\x03www\x07Example\x04Test\0");
        assert_eq!(parse("@", Some(&origin)).unwrap(), origin);
        assert_eq!(parse(r"a\.b\032c.", None).unwrap(), b"\x05a.b c\0");
        assert_eq!(show(b"\x05a.b c\x03\xe4\xb8\xad\0"), r"a\.b\032c.\228\184\173.");
        assert_eq!((show(b"\0"), parse(".", None).unwrap()), (".".into(), vec![0]));
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_reason() {
        let long = format!("{}.", "a".repeat(64));
        let longer = "abcdefg.".repeat(32);
        for (text, error) in [
            ("", NameError::Empty),
            (".a.", NameError::EmptyLabel),
            ("a..b.", NameError::EmptyLabel),
            ("a", NameError::Relative),
            ("@", NameError::Relative),
            (r"a\", NameError::Escape),
            (r"a\25", NameError::Escape),
            (r"a\256.", NameError::Escape),
            (long.as_str(), NameError::LongLabel),
            (longer.as_str(), NameError::Long),
        ] {
            assert_eq!(parse(text, None), Err(error), "{text}");
        }
    }

    #[test]
    fn ancestors_are_found_by_whole_labels() {
        let name = parse("a.b.example.", None).unwrap();
        assert_eq!(parent(&name), Some(&b"\x01b\x07example\0"[..]));
        assert_eq!((parent(b"\x07example\0"), parent(b"\0")), (Some(&b"\0"[..]), None));
        assert!(is_within(&name, b"\x07example\0") && is_within(&name, b"\0") && is_within(&name, &name));
        assert!(!is_within(b"\x08xexample\0", b"\x07example\0") && !is_within(b"\x07example\0", &name));
    }

    proptest! {
        #[test]
        fn every_name_survives_its_text(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
            let mut wire: Vec<u8> = labels.iter().flat_map(|l| std::iter::once(l.len() as u8).chain(l.iter().copied())).collect();
            wire.push(0);
            prop_assert_eq!(parse(&show(&wire), None), Ok(wire));
        }
    }

    #[test]
    fn a_name_takes_so_many_octets_and_no_pointer_is_one() {
        assert_eq!((octets(b"\0"), octets(b"\x01a\x02bc\0 and more")), (Some(1), Some(6)));
        assert_eq!((octets(b""), octets(b"\x01a"), octets(b"\x05a\0")), (None, None, None));
        assert_eq!((octets(b"\xc0\x0c\0"), octets(b"\x40\0")), (None, None));
        let long = |last: usize| {
            [&[&[63][..], &[b'a'; 63]].concat().repeat(3)[..], &[last as u8], &vec![b'b'; last], &[0]].concat()
        };
        assert_eq!((octets(&long(61)), octets(&long(62))), (Some(MAX), None));
    }
}
