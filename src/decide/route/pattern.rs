//! A path as a route says it, ready to be compared with those of requests, and what its variables stand for in one.

use smallvec::SmallVec;

use crate::config::{PathMatch, Segment};
use crate::wire::path;

/// What the variables of a pattern stand for in a path, in the order of the pattern.
pub type Captures<'a> = SmallVec<[&'a str; 8]>;

/// A path of a route.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    pub(super) parts: Vec<Part>,
    /// Whether everything below is taken too.
    pub(super) below: bool,
    /// Whether what is below has a name.
    names_rest: bool,
}

/// One segment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// This text, normalised.
    Literal(Box<str>),
    /// Anything but nothing.
    Variable,
}

impl Pattern {
    /// Reads `said`. Literals are normalised as requests are, so that `/caf%C3%A9` and `/caf%c3%a9` are one path.
    pub fn of(said: &PathMatch) -> Self {
        let parts = said.segments().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(Part::Literal(literal(text))),
            Segment::Variable(_) => Some(Part::Variable),
            Segment::Rest(_) => None,
        });
        Self {
            parts: parts.collect(),
            below: !said.is_exact(),
            names_rest: matches!(said.segments().last(), Some(Segment::Rest(_))),
        }
    }

    /// Whether a variable is in it.
    pub fn has_variables(&self) -> bool {
        self.names_rest || self.parts.contains(&Part::Variable)
    }

    /// Whether `path`, which is normalised, is one that it takes.
    pub fn takes(&self, path: &str) -> bool {
        self.matched(path).is_some()
    }

    /// What its variables stand for in `path`; a named rest comes last and is empty where nothing is left. `None`: it does
    /// not take `path`.
    pub fn captures<'a>(&self, path: &'a str) -> Option<Captures<'a>> {
        let (mut captures, rest) = self.matched(path)?;
        if self.names_rest {
            captures.push(rest.unwrap_or_default());
        }
        Some(captures)
    }

    /// What of `path` stands behind the segments of the pattern: empty, or with the slash that it begins with.
    pub fn behind<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (_, rest) = self.matched(path)?;
        match rest {
            Some(rest) => path.get(path.len().checked_sub(rest.len() + 1)?..),
            None => Some(""),
        }
    }

    /// What the variables stand for, and what is left behind the last segment.
    fn matched<'a>(&self, path: &'a str) -> Option<(Captures<'a>, Option<&'a str>)> {
        let mut captures = Captures::new();
        let mut rest = path.strip_prefix('/');
        if rest.is_none() && !(self.below && self.parts.is_empty()) {
            return None;
        }
        for part in &self.parts {
            let (segment, after) = split(rest?);
            rest = after;
            match part {
                Part::Literal(text) => (**text == *segment).then_some(())?,
                Part::Variable => captures.push(Some(segment).filter(|s| !s.is_empty())?),
            }
        }
        (self.below || rest.is_none()).then_some((captures, rest))
    }
}

/// The first segment of what follows a slash, and what follows the next one.
pub(super) fn split(rest: &str) -> (&str, Option<&str>) {
    rest.split_once('/').map_or((rest, None), |(segment, after)| (segment, Some(after)))
}

fn literal(text: &str) -> Box<str> {
    let whole = format!("/{text}");
    path::normalise(&whole).map_or_else(|_| text.into(), |normal| normal.trim_start_matches('/').into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(text: &str) -> Pattern {
        Pattern::of(&PathMatch::Exact(text.into()))
    }

    fn prefix(text: &str) -> Pattern {
        Pattern::of(&PathMatch::Prefix(text.into()))
    }

    #[test]
    fn variables_stand_for_whole_segments() {
        let captured = |pattern: Pattern, path: &'static str| pattern.captures(path).map(|c| c.to_vec());
        assert_eq!(captured(exact("/v1/gifts/{id}"), "/v1/gifts/7"), Some(vec!["7"]));
        for path in ["/v1/gifts", "/v1/gifts/", "/v1/gifts/7/", "/v1/gifts/7/x", "/v2/gifts/7", "*", ""] {
            assert_eq!(captured(exact("/v1/gifts/{id}"), path), None, "{path}");
        }
        assert_eq!(captured(exact("/{a}/x/{b}"), "/1/x/2"), Some(vec!["1", "2"]));
        assert_eq!(captured(prefix("/u/{user}"), "/u/7/a/b"), Some(vec!["7"]));
        for (path, rest) in [("/files", ""), ("/files/", ""), ("/files/a/b%2F/", "a/b%2F/")] {
            assert_eq!(captured(exact("/files/{*rest}"), path), Some(vec![rest]), "{path}");
        }
        assert_eq!(captured(exact("/{*rest}"), "/"), Some(vec![""]));
        assert_eq!(captured(exact("/files/{*rest}"), "/filesx"), None);
    }

    #[test]
    fn what_is_behind_a_prefix_begins_with_its_slash() {
        for (pattern, path, behind) in [
            ("/v1", "/v1", ""),
            ("/v1", "/v1/", "/"),
            ("/v1", "/v1/a/b", "/a/b"),
            ("/", "/a", "/a"),
            ("/", "/", "/"),
            ("/u/{id}", "/u/7/x", "/x"),
        ] {
            assert_eq!(prefix(pattern).behind(path), Some(behind), "{pattern} {path}");
        }
        assert_eq!(prefix("/").behind("*"), Some(""));
    }

    proptest! {
        #[test]
        fn what_it_captures_stands_in_the_path(
            path in "(/[ab]{0,2}){1,5}", pattern in "(/([ab]{1,2}|\\{v\\})){0,4}", below: bool,
        ) {
            let said = if below { PathMatch::Prefix(pattern) } else { PathMatch::Exact(pattern) };
            let pattern = Pattern::of(&said);
            if let (Some(captures), Some(behind)) = (pattern.captures(&path), pattern.behind(&path)) {
                let mut values = captures.iter();
                let said = pattern.parts.iter().map(|part| match part {
                    Part::Literal(text) => format!("/{text}"),
                    Part::Variable => format!("/{}", values.next().unwrap()),
                });
                let again = said.collect::<String>() + behind;
                prop_assert_eq!(&again, &path);
            }
        }
    }
}
