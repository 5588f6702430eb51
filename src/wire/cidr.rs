//! Lists of prefixes with their classes: a line is a prefix, white space, and classes with commas between them.
//!
//! `#` begins a comment, empty lines mean nothing. Pure: text in, entries or everything that is wrong out; `dns::atlas` reads
//! the files. Of prefixes within each other the longest counts, so the order of lines means nothing, and none stands twice.

use std::net::IpAddr;

use ipnet::IpNet;

/// Findings that are kept of one list; beyond them nobody reads on (ours).
const KEPT: usize = 100;
/// Longest name of a class, as of everything that has a name.
const LONGEST: usize = 63;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'t> {
    /// Which, from 1.
    pub line: u32,
    /// The prefix.
    pub net: IpNet,
    classes: &'t str,
}

impl<'t> Entry<'t> {
    /// Its classes, at least one.
    pub fn classes(&self) -> impl Iterator<Item = &'t str> {
        self.classes.split(',').map(str::trim)
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It begins with no prefix.
    #[error("`{said}` is not a prefix: expected one such as 10.1.0.0/16 or 2001:db8::/32")]
    NoPrefix {
        /// What stands there, cut to a readable length.
        said: String,
    },
    /// An address without a length.
    #[error("{address} has no length: write {address}/{whole} for this address alone")]
    NoLength {
        /// The address.
        address: IpAddr,
        /// The length of a whole address.
        whole: u8,
    },
    /// Bits beyond the length.
    #[error("{net} has bits beyond its length: did you mean {}?", net.trunc())]
    Bits {
        /// As it is written.
        net: IpNet,
    },
    /// There is no class.
    #[error("{net} has no class: expected `{net}<TAB>class[,class]`")]
    NoClass {
        /// The prefix.
        net: IpNet,
    },
    /// A class that has no usable name.
    #[error("`{said}` is no name of a class: expected ASCII letters, digits, `-`, `_` and `.`, at most 63")]
    BadClass {
        /// What stands there, cut to a readable length.
        said: String,
    },
    /// A prefix for the second time.
    #[error("{net} stands twice, first in line {first}")]
    Twice {
        /// The prefix.
        net: IpNet,
        /// Where it stands first.
        first: u32,
    },
}

/// Reads a list.
///
/// # Errors
/// Lines with what is wrong with them, in order, at most 100.
pub fn parse(text: &str) -> Result<Vec<Entry<'_>>, Vec<(u32, Problem)>> {
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let said = line.split('#').next().unwrap_or_default().trim();
        if said.is_empty() {
            continue;
        }
        match entry(said) {
            Ok((net, classes)) => entries.push(Entry { line: number, net, classes }),
            Err(problem) => wrong.push((number, problem)),
        }
        if wrong.len() >= KEPT {
            return Err(wrong);
        }
    }
    let mut order: Vec<(IpNet, u32)> = entries.iter().map(|e| (e.net, e.line)).collect();
    order.sort_unstable();
    let twice = order.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    wrong.extend(twice.take(KEPT).map(|pair| (pair[1].1, Problem::Twice { net: pair[1].0, first: pair[0].1 })));
    if wrong.is_empty() {
        Ok(entries)
    } else {
        wrong.sort_by_key(|(line, _)| *line);
        wrong.truncate(KEPT);
        Err(wrong)
    }
}

fn entry(line: &str) -> Result<(IpNet, &str), Problem> {
    let (prefix, classes) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let Ok(net) = prefix.parse::<IpNet>() else {
        return Err(match prefix.parse::<IpAddr>() {
            Ok(address) => Problem::NoLength { address, whole: if address.is_ipv4() { 32 } else { 128 } },
            Err(_) => Problem::NoPrefix { said: short(prefix) },
        });
    };
    if net.trunc() != net {
        return Err(Problem::Bits { net });
    }
    let classes = classes.trim();
    if classes.is_empty() {
        return Err(Problem::NoClass { net });
    }
    match classes.split(',').map(str::trim).find(|class| !is_name(class)) {
        Some(class) => Err(Problem::BadClass { said: short(class) }),
        None => Ok((net, classes)),
    }
}

fn is_name(class: &str) -> bool {
    class.starts_with(|c: char| c.is_ascii_alphanumeric())
        && class.len() <= LONGEST
        && class.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn short(text: &str) -> String {
    text.chars().take(40).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<String> {
        parse(text).unwrap_err().iter().map(|(line, problem)| format!("{line}: {problem}")).collect()
    }

    #[test]
    fn a_list_is_read_with_its_comments() {
        let list = "# who is where\n10.0.0.0/8\tcn\n\n10.1.0.0/16   cn, hk # nested\r\n2001:db8::/32\tcn,lab.1\n";
        let entries = parse(list).unwrap();
        let shown: Vec<String> = entries
            .iter()
            .map(|e| format!("{} {} {}", e.line, e.net, e.classes().collect::<Vec<_>>().join("+")))
            .collect();
        assert_eq!(shown, ["2 10.0.0.0/8 cn", "4 10.1.0.0/16 cn+hk", "5 2001:db8::/32 cn+lab.1"]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let list = "10.0.0.0/8\n10.0.0.1 cn\n10.0.0.1/8 cn\nten cn\n10.0.0.0/8 c n\n10.0.0.0/8 a,,b\n10.0.0.0/33 cn\n";
        assert_eq!(
            said(list),
            [
                "1: 10.0.0.0/8 has no class: expected `10.0.0.0/8<TAB>class[,class]`",
                "2: 10.0.0.1 has no length: write 10.0.0.1/32 for this address alone",
                "3: 10.0.0.1/8 has bits beyond its length: did you mean 10.0.0.0/8?",
                "4: `ten` is not a prefix: expected one such as 10.1.0.0/16 or 2001:db8::/32",
                "5: `c n` is no name of a class: expected ASCII letters, digits, `-`, `_` and `.`, at most 63",
                "6: `` is no name of a class: expected ASCII letters, digits, `-`, `_` and `.`, at most 63",
                "7: `10.0.0.0/33` is not a prefix: expected one such as 10.1.0.0/16 or 2001:db8::/32",
            ]
        );
        assert_eq!(
            said("10.0.0.0/8 a\n10.1.0.0/16 a\n10.0.0.0/8 a\n"),
            ["3: 10.0.0.0/8 stands twice, first in line 1"]
        );
        assert_eq!(parse(&"x\n".repeat(1_000)).unwrap_err().len(), KEPT);
    }
}
