//! Lists of backends as files say them: a backend in each line, or JSON. Text in, a whole list out, or the first mistake.
//!
//! ```text
//! # comment
//! 10.1.0.11:7000
//! 10.1.0.12:7000 weight=2 name=gift-2
//! [{"address": "10.1.0.13:7000", "weight": 2}, "10.1.0.14:7000"]      (the whole file, instead of lines)
//! ```
//!
//! A list with a mistake in it is no list: a line that somebody broke must not take a backend away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Deserialize;

use crate::config::MOST_FOUND;
use crate::snapshot::discovered::Found;

/// Longest name of a backend.
const LONGEST_NAME: usize = 63;
/// Largest weight, as in the configuration.
const MOST_WEIGHT: u32 = 1_000_000;

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It begins with no address.
    #[error("`{said}` is not an address such as 10.1.0.11:7000 or [2001:db8::11]:7000")]
    Address {
        /// What stands there.
        said: String,
    },
    /// The address has no port, and the configuration gives none.
    #[error("{ip} has no port: write it, or `port = ...` beside `file`")]
    NoPort {
        /// The address.
        ip: IpAddr,
    },
    /// Nobody can be called there.
    #[error("nobody can be called at {address}")]
    Nobody {
        /// Where.
        address: SocketAddr,
    },
    /// A weight that is none.
    #[error("`{said}` is not a weight: a whole number from 0 to {MOST_WEIGHT}")]
    Weight {
        /// What stands there.
        said: String,
    },
    /// A name that is none.
    #[error("`{said}` is not a name: at most {LONGEST_NAME} of ASCII letters, digits, `-`, `_`, `.`, `:` and `/`")]
    Name {
        /// What stands there.
        said: String,
    },
    /// A word that means nothing.
    #[error("`{said}` means nothing here: expected `weight=N` or `name=NAME`")]
    Word {
        /// What stands there.
        said: String,
    },
    /// The same address twice.
    #[error("{address} stands twice")]
    Twice {
        /// Which.
        address: SocketAddr,
    },
    /// More than one source may have.
    #[error("more than {MOST_FOUND} backends")]
    TooMany,
    /// JSON that is none, or says something else.
    #[error("{reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
}

/// Reads a list. `port`: of addresses without one; `weight`: of those of whom nothing is said.
///
/// # Errors
/// The first mistake.
pub fn read(text: &str, port: Option<u16>, weight: u32) -> Result<Vec<Found>, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = is_json(text);
    let mut list = List { found: Vec::new(), seen: std::collections::HashSet::new() };
    if is_json {
        let entries = serde_json::from_str::<Vec<Json>>(text);
        let entries = entries.map_err(|e| at(e.line().max(1), Problem::Json { reason: e.to_string() }))?;
        for (index, entry) in entries.into_iter().enumerate() {
            // The parser has left the lines behind: the entry's number says which.
            list.add(entry.found(port, weight).map_err(|problem| at(index + 1, problem))?, index + 1)?;
        }
    } else {
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                list.add(entry(line, port, weight).map_err(|problem| at(index + 1, problem))?, index + 1)?;
            }
        }
    }
    Ok(list.found)
}

/// Whether it is written in JSON: a bracket opens it, and no port follows that closes, as after an address of version 6.
fn is_json(text: &str) -> bool {
    let rest = text.trim_start();
    let after = rest.strip_prefix('[').map(str::trim_start);
    after.is_some_and(|after| after.starts_with(['{', '"', ']']))
}

const fn at(line: usize, problem: Problem) -> Mistake {
    Mistake { line, problem }
}

struct List {
    found: Vec<Found>,
    seen: std::collections::HashSet<SocketAddr>,
}

impl List {
    fn add(&mut self, found: Found, line: usize) -> Result<(), Mistake> {
        if !self.seen.insert(found.address) {
            return Err(at(line, Problem::Twice { address: found.address }));
        }
        if self.found.len() == MOST_FOUND {
            return Err(at(line, Problem::TooMany));
        }
        self.found.push(found);
        Ok(())
    }
}

/// An entry in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Json {
    Plain(String),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    address: String,
    weight: Option<u32>,
    name: Option<String>,
}

impl Json {
    fn found(self, port: Option<u16>, weight: u32) -> Result<Found, Problem> {
        let Full { address, weight: said, name } = match self {
            Self::Plain(address) => Full { address, weight: None, name: None },
            Self::Full(full) => full,
        };
        let weight = said.map_or(Ok(weight), |said| weighed(said, &said.to_string()))?;
        let name = name.as_deref().map(named).transpose()?;
        Ok(Found { address: addressed(&address, port)?, weight, name })
    }
}

fn entry(line: &str, port: Option<u16>, weight: u32) -> Result<Found, Problem> {
    let mut words = line.split_whitespace();
    let address = addressed(words.next().unwrap_or_default(), port)?;
    let mut found = Found { address, weight, name: None };
    for word in words {
        match word.split_once('=') {
            Some(("weight", said)) => {
                let number = said.parse().map_err(|_| Problem::Weight { said: short(said) })?;
                found.weight = weighed(number, said)?;
            }
            Some(("name", said)) => found.name = Some(named(said)?),
            _ => return Err(Problem::Word { said: short(word) }),
        }
    }
    Ok(found)
}

fn addressed(said: &str, port: Option<u16>) -> Result<SocketAddr, Problem> {
    let address = match (said.parse::<SocketAddr>(), said.parse::<IpAddr>(), port) {
        (Ok(address), ..) => address,
        (_, Ok(ip), Some(port)) => SocketAddr::new(ip, port),
        (_, Ok(ip), None) => return Err(Problem::NoPort { ip }),
        _ => return Err(Problem::Address { said: short(said) }),
    };
    if is_callable(address) { Ok(address) } else { Err(Problem::Nobody { address }) }
}

/// Whether a backend may be there at all.
pub(super) fn is_callable(address: SocketAddr) -> bool {
    address.port() > 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

fn weighed(weight: u32, said: &str) -> Result<u32, Problem> {
    if weight <= MOST_WEIGHT { Ok(weight) } else { Err(Problem::Weight { said: short(said) }) }
}

/// A name that may stand in tables and logs.
pub(super) fn named(said: &str) -> Result<Arc<str>, Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    let is_name = (1..=LONGEST_NAME).contains(&said.len()) && said.chars().all(fits);
    if is_name { Ok(said.into()) } else { Err(Problem::Name { said: short(said) }) }
}

fn short(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_and_json_say_the_same() {
        let lines =
            "# gifts\n\n10.1.0.11:7000  # the first\n10.1.0.12 weight=2 name=gift-2\r\n[2001:db8::1]:70 name=six\n";
        let json = r#" ["10.1.0.11:7000", {"address": "10.1.0.12", "weight": 2, "name": "gift-2"},
            {"address": "[2001:db8::1]:70", "name": "six"}]"#;
        let read_lines = read(lines, Some(7_000), 5).unwrap();
        assert_eq!(read_lines, read(json, Some(7_000), 5).unwrap());
        let told: Vec<_> = read_lines.iter().map(|f| (f.address.to_string(), f.weight, f.name.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("10.1.0.11:7000".into(), 5, None),
                ("10.1.0.12:7000".into(), 2, Some("gift-2")),
                ("[2001:db8::1]:70".into(), 5, Some("six"))
            ]
        );
        assert_eq!(read("", None, 1), Ok(Vec::new()));
        assert_eq!(read(" [ ] ", None, 1), Ok(Vec::new()));
        assert_eq!(read("[2001:db8::1]:70", None, 1).unwrap().len(), 1, "no JSON");
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, told) in [
            ("10.0.0.1:80\ngifts.internal:80", "line 2: `gifts.internal:80` is not an address"),
            ("10.0.0.1", "line 1: 10.0.0.1 has no port"),
            ("\n\n10.0.0.1:0", "line 3: nobody can be called at 10.0.0.1:0"),
            ("0.0.0.0:80", "line 1: nobody can be called at 0.0.0.0:80"),
            ("10.0.0.1:80 weight=-1", "line 1: `-1` is not a weight"),
            ("10.0.0.1:80 weight=1000001", "line 1: `1000001` is not a weight"),
            ("10.0.0.1:80 backup", "line 1: `backup` means nothing here"),
            ("10.0.0.1:80 name=", "line 1: `` is not a name"),
            ("10.0.0.1:80\n10.0.0.1:80", "line 2: 10.0.0.1:80 stands twice"),
            ("[{\"address\": \"10.0.0.1:80\", \"wait\": 1}]", "line 1: data did not match"),
            ("[\"10.0.0.1:80\",\n", "line 2: EOF"),
        ] {
            let mistake = read(text, None, 1).unwrap_err().to_string();
            assert!(mistake.starts_with(told), "{text:?}: {mistake}");
        }
        let many: Vec<String> = (0..=MOST_FOUND).map(|i| format!("10.1.{}.{}:80", i / 256, i % 256)).collect();
        assert_eq!(read(&many.join("\n"), None, 1).unwrap_err(), at(MOST_FOUND + 1, Problem::TooMany));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_can_be_called(text in "[\\[\\]{}\":,#= \\n0-9a-z.]{0,120}") {
            for found in read(&text, Some(80), 1).unwrap_or_default() {
                prop_assert!(is_callable(found.address));
            }
        }

        #[test]
        fn what_is_written_is_read(hosts in prop::collection::btree_map(any::<u32>(), 0u32..=MOST_WEIGHT, 0..50)) {
            let callable = hosts.iter().map(|(ip, weight)| (SocketAddr::new(IpAddr::V4((*ip).into()), 80), *weight));
            let callable: Vec<_> = callable.filter(|(address, _)| is_callable(*address)).collect();
            let lines: Vec<String> = callable.iter().map(|(address, weight)| format!("{address} weight={weight}")).collect();
            let read = read(&lines.join("
    "), None, 1).unwrap();
            prop_assert_eq!(read.iter().map(|f| (f.address, f.weight)).collect::<Vec<_>>(), callable);
        }
    }
}
