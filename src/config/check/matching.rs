//! What routes match: that requests can be so, that no route is dead, and which of two that cross goes first.

use std::collections::HashMap;

use super::Checker;
use crate::config::diag::{Code, Finding, Span};
use crate::config::kinds::{By, Keyed, Or};
use crate::config::model::{PathMatch, Route, RouteMatch, Segment, ValueMatch};
use crate::config::raw::{self, Like, Root};
use crate::config::reader::Said;
use crate::config::words::{HeaderName, Text, UrlPath};

/// Variables that a path may have (ours).
const MAX_VARIABLES: usize = 8;
/// Routes for one host, path and set of names that are compared with one another (ours: a bound for the worst file).
const MAX_ALIKE: usize = 64;

pub(super) fn matches(said: &raw::Match, checker: &mut Checker<'_>) -> RouteMatch {
    let path = match (&said.path, &said.path_prefix) {
        (Some(path), Some(prefix)) => {
            let finding = Finding::error(Code::Conflict, prefix.span, "a route matches one path or all below a prefix");
            checker.notes.push(finding.related(path.span, "here first").hint("keep `path` or `path_prefix`"));
            PathMatch::default()
        }
        (Some(path), None) => PathMatch::Exact(plain(path, checker)),
        (None, Some(prefix)) => {
            let path = plain(prefix, checker);
            let trimmed = path.trim_end_matches('/');
            PathMatch::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.to_owned() })
        }
        (None, None) => PathMatch::default(),
    };
    for said in said.path.iter().chain(&said.path_prefix) {
        variables(said, &path, checker);
    }
    let mut methods: Vec<String> = said.method.0.iter().map(|m| m.0.clone()).collect();
    methods.sort();
    methods.dedup();
    RouteMatch {
        host: said.host.as_ref().map(|h| h.0.clone()),
        path,
        methods,
        headers: named(&said.header, header_name, is_header_value, checker),
        query: named(&said.query, parameter_name, |_| true, checker),
        cookies: named(&said.cookie, cookie_name, is_cookie_value, checker),
    }
}

/// A path as requests have it once they are normalised: anything else would never match.
fn plain(said: &Said<UrlPath>, checker: &mut Checker<'_>) -> String {
    let path = &said.0;
    let without_rest = path.replace("{*", "{");
    if let Some(at) = path.find(['?', '#']) {
        let rest = path.get(at..).unwrap_or_default();
        let message = format!("a path is matched without `{rest}`");
        checker.error(Code::BadValue, said.span, message, format!("write \"{}\"", path.get(..at).unwrap_or_default()));
    } else if without_rest.contains('*') {
        let below = path.split('*').next().unwrap_or_default().trim_end_matches('/');
        let below = if below.is_empty() { "/" } else { below };
        let hint = format!("to match all below a path: `path_prefix = \"{below}\"`");
        checker.error(Code::BadValue, said.span, "`*` is matched as it stands", hint);
    } else if path.split('/').skip(1).any(|segment| segment == "." || segment == "..") {
        checker.error(
            Code::BadValue,
            said.span,
            "no request has `.` or `..` as a segment",
            "write the path that it leads to",
        );
    } else if path.contains("//") {
        checker.warn(Code::Doubtful, said.span, "this path has an empty segment", "requests hardly have `//`");
    } else if let Some(name) = path.split("/:").nth(1).and_then(|rest| rest.split('/').next()).filter(|n| !n.is_empty())
    {
        let message = format!("`:{name}` is matched as it stands");
        checker.warn(Code::Doubtful, said.span, message, format!("for any segment: `{{{name}}}`"));
    }
    path.clone()
}

/// Whether the variables of a path can be told apart and stand for whole segments.
fn variables(said: &Said<UrlPath>, path: &PathMatch, checker: &mut Checker<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    let mut segments = path.segments().peekable();
    while let Some(segment) = segments.next() {
        let (name, is_rest) = match segment {
            Segment::Literal(text) if text.contains(['{', '}']) => {
                let hint = "a variable stands for a whole segment: \"/v1/gifts/{id}\"";
                checker.error(Code::BadValue, said.span, format!("`{text}` is no segment of a path"), hint);
                return;
            }
            Segment::Literal(_) => continue,
            Segment::Variable(name) => (name, false),
            Segment::Rest(name) => (name, true),
        };
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !(1..=32).contains(&name.len()) || !name.bytes().all(fits) {
            let hint = "letters, digits and `_`, at most 32";
            checker.error(Code::BadValue, said.span, format!("`{name}` is not the name of a variable"), hint);
            return;
        }
        if seen.contains(&name) {
            let hint = "each variable has a name of its own";
            checker.error(Code::Duplicate, said.span, format!("variable `{name}` stands twice"), hint);
            return;
        }
        seen.push(name);
        if is_rest && (segments.peek().is_some() || matches!(path, PathMatch::Prefix(_))) {
            let hint = "it may end a `path`; a `path_prefix` takes all below without it";
            checker.error(Code::BadValue, said.span, format!("`{{*{name}}}` is not the end of a path"), hint);
            return;
        }
    }
    if seen.len() > MAX_VARIABLES {
        let finding = Finding::error(Code::OutOfRange, said.span, format!("{} variables are too many", seen.len()));
        checker.notes.push(finding.expected(format!("at most {MAX_VARIABLES}")));
    }
}

/// Conditions on named values, sorted by name. `name` reads a name or says why there is none of this kind.
fn named<B: By, const MAX: usize>(
    said: &Keyed<B, Or<Text, Or<crate::config::kinds::Yes, Like>>, MAX>,
    name: fn(&str) -> Result<String, &'static str>,
    fits: fn(&str) -> bool,
    checker: &mut Checker<'_>,
) -> Vec<(String, ValueMatch)> {
    let mut list: Vec<(String, ValueMatch)> = Vec::new();
    for (key, value) in &said.entries {
        let known = match name(&key.value) {
            Ok(known) => known,
            Err(hint) => {
                let message = format!("`{}` is not the name of a {}", key.value, B::NAME.trim_end_matches(" name"));
                checker.error(Code::BadValue, key.span, message, hint);
                continue;
            }
        };
        if B::NAME == raw::ByHeader::NAME && (known == "host" || known == "cookie") {
            let (what, instead) = if known == "host" { ("the host is", "`host`") } else { ("cookies are", "`cookie`") };
            let message = format!("{what} not matched as a header");
            checker.error(Code::Conflict, key.span, message, format!("use {instead}"));
        }
        if list.iter().any(|(other, _)| *other == known) {
            let message = format!("{} `{known}` stands twice", B::NAME.trim_end_matches(" name"));
            checker.error(Code::Duplicate, key.span, message, "their case does not count");
        }
        let wanted = match &value.value {
            Or::One(text) => ValueMatch::Exact(text.0.clone()),
            Or::Other(Or::One(_)) => ValueMatch::Any,
            Or::Other(Or::Other(like)) => match &like.prefix {
                Some(prefix) if prefix.0.is_empty() => ValueMatch::Any,
                Some(prefix) => ValueMatch::Prefix(prefix.0.clone()),
                None => continue,
            },
        };
        let can_be = match &wanted {
            ValueMatch::Any => true,
            ValueMatch::Exact(value) => fits(value) && value.trim() == value,
            ValueMatch::Prefix(value) => fits(value) && value.trim_start() == value,
        };
        if !can_be {
            let message = format!("no {} can have this value", B::NAME.trim_end_matches(" name"));
            checker.error(Code::BadValue, value.span, message, "visible characters, no space at either end");
        }
        list.push((known, wanted));
    }
    list.sort();
    list
}

fn header_name(text: &str) -> Result<String, &'static str> {
    HeaderName::of(text).map(|HeaderName(lower)| lower).ok_or("letters, digits and `-`, without the colon")
}

fn parameter_name(text: &str) -> Result<String, &'static str> {
    if (1..=256).contains(&text.len()) { Ok(text.to_owned()) } else { Err("1 to 256 bytes, decoded") }
}

fn cookie_name(text: &str) -> Result<String, &'static str> {
    // A token, as a header's name is (RFC 6265 section 4.1.1), but its case counts.
    HeaderName::of(text).map(|_| text.to_owned()).ok_or("letters, digits and `-`, without the value")
}

fn is_header_value(text: &str) -> bool {
    http::HeaderValue::from_str(text).is_ok()
}

fn is_cookie_value(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b'"')
}

/// Notes routes that no request can reach, because an earlier one takes the same. Who has more conditions is asked first,
/// so that only one with as many can take everything.
pub(super) fn dead(root: &Root, routes: &[Route], checker: &mut Checker<'_>) {
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, (route, said)) in routes.iter().zip(&root.route.0).enumerate() {
        if !said.clean {
            continue;
        }
        let earlier = seen.entry(route.matches.shape()).or_default();
        let taken = |i: &&usize| routes.get(**i).is_some_and(|other| covers(&other.matches, &route.matches));
        if let Some(first) = earlier.iter().find(taken).and_then(|i| Some((routes.get(*i)?, root.route.0.get(*i)?))) {
            let message = format!("no request reaches route `{}`: route `{}` takes them", route.name, first.0.name);
            checker.twice(place(said), place(first.1), message);
        } else if earlier.len() < MAX_ALIKE {
            earlier.push(index);
        }
    }
}

/// Where a route says what it matches.
fn place(said: &Said<raw::Route>) -> Span {
    if said.matches.written { said.matches.span } else { said.span }
}

/// Whether `earlier` leaves nothing to `later`, where all but methods and values is the same.
fn covers(earlier: &RouteMatch, later: &RouteMatch) -> bool {
    let methods = earlier.methods.is_empty() == later.methods.is_empty()
        && later.methods.iter().all(|m| earlier.methods.contains(m));
    let values = |m: &RouteMatch| -> Vec<ValueMatch> {
        m.headers.iter().chain(&m.query).chain(&m.cookies).map(|(_, value)| value.clone()).collect()
    };
    methods && values(earlier).iter().zip(&values(later)).all(|(wide, narrow)| wide.covers(narrow))
}

/// Warns of two paths of one host that cross: each takes requests that the other does not, and some they both would.
/// The order is clear, from left to right, but seldom thought of.
pub(super) fn crossing(root: &Root, routes: &[Route], checker: &mut Checker<'_>) {
    let mut seen: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
    for (index, (route, said)) in routes.iter().zip(&root.route.0).enumerate() {
        if !said.clean {
            continue;
        }
        let earlier = seen.entry(route.matches.host.as_deref()).or_default();
        for (other, first) in earlier.iter().filter_map(|&i| Some((routes.get(i)?, root.route.0.get(i)?))) {
            let (m, o) = (&route.matches, &other.matches);
            let is_apart =
                !m.methods.is_empty() && !o.methods.is_empty() && !m.methods.iter().any(|x| o.methods.contains(x));
            let Some((path, is_later)) = meeting(&o.path, &m.path).filter(|_| !is_apart) else { continue };
            let winner = if is_later { &route.name } else { &other.name };
            let message =
                format!("routes `{}` and `{}` both match {path}: `{winner}` takes it", other.name, route.name);
            let finding = Finding::warning(Code::Doubtful, place(said), message).related(place(first), "the other one");
            checker.notes.push(finding.hint("from left to right, a segment as it stands goes before a variable"));
        }
        let has_variables = route.matches.path.variables().next().is_some();
        if earlier.len() < MAX_ALIKE && (has_variables || !route.matches.path.is_exact()) {
            earlier.push(index);
        }
    }
}

/// A path that both take, and whether the second one gets it, where neither takes all that the other does.
fn meeting(a: &PathMatch, b: &PathMatch) -> Option<(String, bool)> {
    let of = |path: &PathMatch| -> Vec<Option<String>> {
        let segments = path.segments().filter_map(|segment| match segment {
            Segment::Literal(text) => Some(Some(text.to_owned())),
            Segment::Variable(_) => Some(None),
            Segment::Rest(_) => None,
        });
        segments.collect()
    };
    let (left, right, left_ends, right_ends) = (of(a), of(b), a.is_exact(), b.is_exact());
    let fits_length = match left.len().cmp(&right.len()) {
        std::cmp::Ordering::Less => !left_ends,
        std::cmp::Ordering::Equal => true,
        std::cmp::Ordering::Greater => !right_ends,
    };
    let compatible = |(x, y): (&Option<String>, &Option<String>)| x.is_none() || y.is_none() || x == y;
    if !fits_length || !left.iter().zip(&right).all(compatible) {
        return None;
    }
    let takes_all = |wide: &[Option<String>], wide_ends: bool, narrow: &[Option<String>], narrow_ends: bool| {
        let length = if wide_ends { narrow_ends && wide.len() == narrow.len() } else { wide.len() <= narrow.len() };
        length && wide.iter().zip(narrow).all(|(w, n)| w.is_none() || w == n)
    };
    if takes_all(&left, left_ends, &right, right_ends) || takes_all(&right, right_ends, &left, left_ends) {
        return None;
    }
    let is_right = left.iter().zip(&right).find(|(x, y)| x.is_some() != y.is_some()).map(|(x, _)| x.is_none())?;
    let one = |i: usize| left.get(i).cloned().flatten().or_else(|| right.get(i).cloned().flatten());
    let segments = (0..left.len().max(right.len())).map(|i| one(i).unwrap_or_else(|| "x".into()));
    Some((segments.fold(String::new(), |path, segment| format!("{path}/{segment}")), is_right))
}
