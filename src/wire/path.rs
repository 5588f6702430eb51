//! A request's path, normalised once, for matching and for forwarding alike (EDGE 4, gap 8).
//!
//! Unreserved characters are decoded, other escapes kept in upper case (`%2F` stays what it is), `//` becomes `/`, dot
//! segments are resolved (RFC 3986 section 6.2.2). What cannot be read in one way only is refused instead of repaired:
//! broken escapes, control characters, ways out of the root, and segments that are dot segments to somebody who decodes
//! further than we do (`..%2f`) or cuts parameters off (`..;x`).

use std::borrow::Cow;

/// Why a path was refused: a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with /")]
    Relative,
    /// `%` without two hexadecimal digits after it.
    #[error("broken percent-escape in the path")]
    Escape,
    /// A control character, plain or escaped.
    #[error("control character in the path")]
    Control,
    /// More `..` than there are segments before it.
    #[error("the path leads out of the root")]
    AboveRoot,
    /// A segment that others would take for a dot segment.
    #[error("ambiguous dot segment in the path")]
    Ambiguous,
}

/// Normalises `path`, which has no query. Borrows where there is nothing to do, as with nearly every request.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, PathError> {
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    let mut out = String::with_capacity(decoded.len());
    // Where each segment in `out` begins, at its slash.
    let mut starts: Vec<usize> = Vec::new();
    let mut segments = decoded.split('/').skip(1).filter(|segment| !segment.is_empty()).peekable();
    let mut is_dir = decoded.ends_with('/');
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => is_dir |= is_last,
            ".." => {
                out.truncate(starts.pop().ok_or(PathError::AboveRoot)?);
                is_dir |= is_last;
            }
            _ if is_ambiguous(segment) => return Err(PathError::Ambiguous),
            _ => {
                starts.push(out.len());
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    if is_dir || out.is_empty() {
        out.push('/');
    }
    Ok(Cow::Owned(out))
}

/// Whether there is nothing to decode, to merge, to resolve or to refuse.
fn is_normal(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|&byte| {
        let is_fine = is_plain(byte) && !(before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
        is_fine
    })
}

/// Characters that stand for themselves in a path (RFC 3986 section 3.3), and `/`.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || b"/:@!$&'()*+,;=".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Escapes in their one form: unreserved characters plain, everything else that is not plain escaped in upper case.
fn decode(path: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(path.len() + 8);
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let (byte, was_escaped) = if byte == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>().ok_or(PathError::Escape)?;
            rest = tail;
            let digit = |b: u8| char::from(b).to_digit(16).ok_or(PathError::Escape);
            ((digit(digits[0])? * 16 + digit(digits[1])?) as u8, true)
        } else {
            (byte, false)
        };
        if byte.is_ascii_control() {
            return Err(PathError::Control);
        }
        if is_unreserved(byte) || (!was_escaped && is_plain(byte)) {
            out.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Ok(out)
}

/// Whether `segment` holds a dot segment for who decodes slashes and backslashes in it, or cuts parameters off.
fn is_ambiguous(segment: &str) -> bool {
    let mut rest = segment;
    loop {
        let end = ["%2F", "%5C", ";", "%3B"].into_iter().filter_map(|mark| rest.find(mark)).min();
        let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if matches!(part, "." | "..") {
            return true;
        }
        let Some(end) = end else { return false };
        let mark = if rest[end..].starts_with(';') { 1 } else { 3 };
        rest = rest.get(end + mark..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (said, meant) in [
            ("/", "/"),
            ("", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/.", "/"),
            ("/%7euser", "/~user"),
            ("/%61%62", "/ab"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%252e%252e/", "/%252e%252e/"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a\\b", "/a%5Cb"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a%3bv", "/a%3Bv"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a b", "/a%20b"),
            ("/a\"{}|^`<>", "/a%22%7B%7D%7C%5E%60%3C%3E"),
        ] {
            assert_eq!(normalise(said).as_deref(), Ok(meant), "{said:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use PathError::{AboveRoot, Ambiguous, Control, Escape, Relative};
        for (bad, why) in [
            ("a", Relative),
            ("*", Relative),
            ("http://x/", Relative),
            ("/%", Escape),
            ("/%2", Escape),
            ("/%zz", Escape),
            ("/%+1", Escape),
            ("/a%00", Control),
            ("/a%0d%0a", Control),
            ("/a%7f", Control),
            ("/a\tb", Control),
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("/%2e%2e/b", AboveRoot),
            ("/a/..%2fb", Ambiguous),
            ("/a/..%5cb", Ambiguous),
            ("/a/x%2f..%2fb", Ambiguous),
            ("/a/..;/b", Ambiguous),
            ("/a/.;x/b", Ambiguous),
            ("/a/..\\b", Ambiguous),
            ("/a/..%3bx", Ambiguous),
        ] {
            assert_eq!(normalise(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn nothing_to_do_costs_nothing() {
        for path in ["/", "/v1/gifts", "/v1/gifts/", "/a.b/c-d_e~f", "/a;v=1:@!$&'()*+,="] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn twice_is_once(path in "(/|\\.|%2e|%2F|%61|%25|a|;|\\\\|é|\\PC){0,24}") {
            if let Ok(once) = normalise(&format!("/{path}")) {
                prop_assert_eq!(normalise(&once), Ok(Cow::Borrowed(&*once)));
                prop_assert!(once.starts_with('/') && once.is_ascii());
                prop_assert!(!once.contains("//"));
                prop_assert!(once.split('/').all(|s| s != "." && s != ".."));
            }
        }
    }
}
