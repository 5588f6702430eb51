//! Which file a path means.
//!
//! The path was normalised and has no dot segments any more; here each segment is decoded once, and what would be something
//! else to a file system than to a URL is nothing: a slash within a segment, NUL, a dot segment in disguise. Names that begin
//! with a dot are nobody's business, unless the route says so, but for `.well-known` (RFC 8615).

/// Longest name below the root (Linux' PATH_MAX).
const LONGEST: usize = 4_096;
/// Deepest (ours).
const DEEPEST: usize = 64;

/// A file below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Octets of its path, without a slash at either end; empty: the root itself.
    pub path: Vec<u8>,
    /// It was asked for as a folder: with a slash behind it.
    pub is_folder: bool,
}

/// The file that `path` means, which is normalised and begins with a slash or is empty. `None`: none.
pub fn name(path: &str, shows_hidden: bool) -> Option<Name> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let is_folder = path.ends_with('/');
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut out = Vec::with_capacity(inner.len());
    if inner.is_empty() {
        return Some(Name { path: out, is_folder });
    }
    for (depth, segment) in inner.split('/').enumerate() {
        if depth > 0 {
            out.push(b'/');
        }
        let begins = out.len();
        decode(segment.as_bytes(), &mut out)?;
        let segment = out.get(begins..)?;
        let is_harmless = !segment.is_empty() && !segment.iter().any(|&b| b == b'/' || b.is_ascii_control());
        let is_hidden = segment.first() == Some(&b'.') && segment != b".well-known";
        let is_dots = matches!(segment, b"." | b"..");
        if !is_harmless || is_dots || (is_hidden && !shows_hidden) || depth >= DEEPEST || out.len() > LONGEST {
            return None;
        }
    }
    Some(Name { path: out, is_folder })
}

fn decode(segment: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let mut rest = segment;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_first_chunk::<2>()?;
            rest = tail;
            out.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        } else {
            out.push(byte);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::path::normalise;

    #[test]
    fn paths_mean_files_or_nothing() {
        for (path, file, is_folder) in [
            ("", "", false),
            ("/", "", true),
            ("/a.txt", "a.txt", false),
            ("/a/b/", "a/b", true),
            ("/a%20b", "a b", false),
            ("/%E7%A6%8F", "福", false),
            ("/.well-known/security.txt", ".well-known/security.txt", false),
            ("/a..b", "a..b", false),
            ("/a.", "a.", false),
        ] {
            assert_eq!(name(path, false), Some(Name { path: file.into(), is_folder }), "{path}");
        }
        for path in
            ["/.git/config", "/a/.env", "/a%2Fb", "/a%00", "/a%0A", "/..", "/a/%2E%2E/b", "//a", "/a//b", "/%", "/%4"]
        {
            assert_eq!(name(path, false), None, "{path}");
        }
        assert_eq!(name("/.git", true).unwrap().path, b".git");
        assert_eq!(name("/..", true), None);
        assert_eq!(name(&"/a".repeat(100), false), None);
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_root(path in "(/|\\.|%2[eEfF]|%5[cC]|%00|;|a|é){0,30}") {
            let path = format!("/{path}");
            let Ok(path) = normalise(&path) else { return Ok(()) };
            if let Some(name) = name(&path, true) {
                let text = String::from_utf8_lossy(&name.path).into_owned();
                prop_assert!(!text.starts_with('/') && !text.contains('\0'));
                prop_assert!(text.is_empty() || text.split('/').all(|s| !s.is_empty() && s != "." && s != ".."), "{text}");
            }
        }
    }
}
