//! Whether a file has to be sent (RFC 9110 section 13), in the order of section 13.2.2.

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName};

use crate::base::clock::Wall;
use crate::wire::date;

/// What is there to be compared with.
#[derive(Clone, Copy, Debug)]
pub struct Current<'a> {
    /// Its entity tag, a strong one, with its quotes.
    pub etag: &'a [u8],
    /// When it was changed last; a whole second.
    pub modified: Wall,
}

/// What becomes of a GET or HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered.
    Send,
    /// The client has it already: 304.
    NotModified,
    /// It is not what the client takes it for: 412.
    Failed,
}

/// Judges the conditions in `headers` of a GET or HEAD.
pub fn judge(headers: &HeaderMap, current: &Current<'_>) -> Fate {
    if headers.contains_key(IF_MATCH) {
        if !names(headers, &IF_MATCH, current.etag, Strength::Strong) {
            return Fate::Failed;
        }
    } else if let Some(since) = date_of(headers, &IF_UNMODIFIED_SINCE)
        && current.modified > since
    {
        return Fate::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if names(headers, &IF_NONE_MATCH, current.etag, Strength::Weak) {
            return Fate::NotModified;
        }
    } else if let Some(since) = date_of(headers, &IF_MODIFIED_SINCE)
        && current.modified <= since
    {
        return Fate::NotModified;
    }
    Fate::Send
}

/// Whether parts may be sent: `If-Range` is not there, or names what is there (RFC 9110 section 13.1.5). A date names it only
/// where it cannot have changed twice within its second.
pub fn may_send_parts(headers: &HeaderMap, current: &Current<'_>, now: Wall) -> bool {
    let Some(said) = headers.get(IF_RANGE) else { return true };
    match said.as_bytes() {
        tag @ (&[b'"', ..] | &[b'W', b'/', ..]) => tag == current.etag,
        said => date::parse(said) == Some(current.modified) && now.since(current.modified).as_secs() >= 1,
    }
}

/// A field that says a date, once; what is none is passed over.
fn date_of(headers: &HeaderMap, name: &HeaderName) -> Option<Wall> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| date::parse(value.as_bytes()))?
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

/// Whether the tags of a field have `etag` among them (RFC 9110 section 8.8.3.2), or `*`.
fn names(headers: &HeaderMap, name: &HeaderName, etag: &[u8], strength: Strength) -> bool {
    headers.get_all(name).iter().any(|field| {
        let field = field.as_bytes();
        field.trim_ascii() == b"*"
            || Tags(field).any(|(is_weak, tag)| tag == etag && !(is_weak && strength == Strength::Strong))
    })
}

/// The tags of a list: whether each is weak, and the tag with its quotes. Ends where something else stands.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = (bool, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let begins = self.0.iter().position(|b| !matches!(b, b' ' | b'\t' | b','))?;
        let rest = self.0.get(begins..)?;
        let (is_weak, rest) = rest.strip_prefix(b"W/").map_or((false, rest), |rest| (true, rest));
        // A comma may stand within the quotes.
        let length = rest.strip_prefix(b"\"")?.iter().position(|&b| b == b'"')? + 2;
        let (tag, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((is_weak, tag))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Wall = Wall(784_111_777_000);
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const NOW: Wall = Wall(784_111_999_000);

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    fn fate(fields: &[(&'static str, &str)]) -> Fate {
        judge(&headers(fields), &Current { etag: b"\"a,b\"", modified: AT })
    }

    #[test]
    fn conditions_are_judged_in_the_order_of_the_rfc() {
        use Fate::{Failed, NotModified, Send};
        let table: [(&[(&str, &str)], Fate); 20] = [
            (&[], Send),
            (&[("if-match", "*")], Send),
            (&[("if-match", "\"x\", \"a,b\"")], Send),
            (&[("if-match", "\"x\"")], Failed),
            (&[("if-match", "W/\"a,b\"")], Failed),
            (&[("if-match", "nonsense")], Failed),
            // If-Match makes If-Unmodified-Since meaningless.
            (&[("if-match", "\"a,b\""), ("if-unmodified-since", BEFORE)], Send),
            (&[("if-unmodified-since", BEFORE)], Failed),
            (&[("if-unmodified-since", THEN)], Send),
            (&[("if-unmodified-since", "yesterday")], Send),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "W/\"a,b\"")], NotModified),
            (&[("if-none-match", "\"x\",\t\"a,b\"")], NotModified),
            (&[("if-none-match", "\"x\"")], Send),
            // So does If-None-Match with If-Modified-Since.
            (&[("if-none-match", "\"x\""), ("if-modified-since", THEN)], Send),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", BEFORE)], Send),
            (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
            (&[("if-match", "\"x\""), ("if-none-match", "\"a,b\"")], Failed),
            (&[("if-match", "*"), ("if-none-match", "\"a,b\"")], NotModified),
        ];
        for (fields, expected) in table {
            assert_eq!(fate(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn parts_are_sent_of_what_the_client_has_parts_of() {
        let current = Current { etag: b"\"a\"", modified: AT };
        for (said, expected) in
            [("\"a\"", true), ("W/\"a\"", false), ("\"b\"", false), (THEN, true), (BEFORE, false), ("x", false)]
        {
            assert_eq!(may_send_parts(&headers(&[("if-range", said)]), &current, NOW), expected, "{said}");
        }
        assert!(
            !may_send_parts(&headers(&[("if-range", THEN)]), &current, AT),
            "it may still change within this second"
        );
        assert!(may_send_parts(&HeaderMap::new(), &current, NOW));
    }

    proptest! {
        #[test]
        fn lists_of_tags_have_an_end(list in "[W/\", a*]{0,40}") {
            let tags: Vec<_> = Tags(list.as_bytes()).collect();
            prop_assert!(tags.iter().all(|(_, t)| t.len() >= 2 && t.first() == Some(&b'"') && t.last() == Some(&b'"')));
            prop_assert!(tags.len() <= list.len());
        }
    }
}
