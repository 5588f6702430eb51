//! Master files (RFC 1035 section 5): text in, records and ALL findings out, each with its line.
//!
//! Takes `$ORIGIN`, `$TTL` (RFC 2308), `$INCLUDE` and BIND's `$GENERATE`; parentheses, quotes and escapes anywhere; TTL and class in either
//! order; RFC 3597's form for any type. Reads no file itself: the caller gives what an `$INCLUDE` names. Whether the
//! records make a zone is for the caller to judge.
//!
//! Why not hickory-proto's parser: it loses lines, takes quotes inside parentheses literally and reads `\DDD` wrong in
//! strings, so that a long DKIM key is served broken without a word (`dns::zone` has the test).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::name::{self, NameError};
use super::rdata::{self, RdataError};

mod generate;
mod lexer;

use lexer::{Entry, Lexer};

/// How deep files may include each other.
const MAX_DEPTH: usize = 8;
/// How many files one zone may be spread over.
const MAX_FILES: usize = 1_000;
/// How many findings are kept.
pub const MAX_FINDINGS: usize = 50;
/// How many records `$GENERATE` may make in one zone.
const MAX_GENERATED: usize = 1_000_000;

/// A word of an entry, as it stands: escapes are not resolved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Without the quotes around it.
    pub text: &'a str,
    /// Whether it stood in quotes.
    pub quoted: bool,
    /// Its line, from 1.
    pub line: u32,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, from 1.
    pub line: u32,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub place: Place,
    /// Owner, lower case, wire format.
    pub owner: Box<[u8]>,
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// Data, names in it uncompressed and in the case in which they were written.
    pub rdata: Box<[u8]>,
}

/// Something that is wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}:{}: {problem}", place.file.display(), place.line)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

/// What is wrong, with what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A quote without its end on the same line.
    #[error("the quote is not closed on its line; a long string is written as several, side by side")]
    OpenQuote,
    /// A parenthesis without its end.
    #[error("the parenthesis that opens here is never closed")]
    OpenParenthesis,
    /// A closing parenthesis without an open one.
    #[error("`)` without `(` before it")]
    StrayParenthesis,
    /// The owner is broken.
    #[error("owner `{owner}`: {error}")]
    Owner {
        /// What stands there.
        owner: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// An entry that begins with a blank, before any owner.
    #[error("the line begins with a blank, which means the owner of the record before it; there is none")]
    NoOwner,
    /// A record ends before its type.
    #[error("a type is missing, such as A, AAAA or TXT")]
    NoType,
    /// No such type.
    #[error("`{found}` is no type that is known here: write other types as TYPE123 \\# LENGTH HEX (RFC 3597)")]
    UnknownType {
        /// What stands there.
        found: String,
    },
    /// A class other than IN.
    #[error("class {found}: only IN is served")]
    Class {
        /// What stands there.
        found: String,
    },
    /// No TTL is known.
    #[error("no TTL: give the record one, or put `$TTL 300` at the top of the file")]
    NoTtl,
    /// The data is broken.
    #[error("{0}")]
    Data(#[from] RdataError),
    /// A `$` word that is not known.
    #[error("`{found}` is no directive that is known here: expected $ORIGIN, $TTL, $INCLUDE or $GENERATE")]
    Directive {
        /// What stands there.
        found: String,
    },
    /// A directive without what it needs.
    #[error("{directive} takes {expected}")]
    Argument {
        /// The directive.
        directive: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A file can't be read.
    #[error("{} cannot be read: {reason}", file.display())]
    Include {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// More generated records than a zone may have.
    #[error("$GENERATE makes more than {MAX_GENERATED} records: write a wildcard, or several zones")]
    Generated,
    /// Files include each other too deeply.
    #[error("$INCLUDE more than {MAX_DEPTH} files deep, or {MAX_FILES} in all: does a file include itself?")]
    Depth,
}

/// What a master file holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Records in their order.
    pub records: Vec<Record>,
    /// What is wrong; the first fifty.
    pub findings: Vec<Finding>,
}

/// Reads `text`, which came from `file`, for the zone at `origin`. `read` gives the text of an included file.
pub fn parse(
    text: &str,
    file: &Path,
    origin: &[u8],
    read: &mut dyn FnMut(&Path) -> Result<String, String>,
) -> Contents {
    let mut reader = Reader { contents: Contents::default(), read, files: 0, generated: 0, ttl: None, last_ttl: None };
    reader.file(text, &Arc::from(file), origin, None, 0);
    reader.contents
}

struct Reader<'r> {
    contents: Contents,
    read: &'r mut dyn FnMut(&Path) -> Result<String, String>,
    files: usize,
    generated: usize,
    ttl: Option<u32>,
    last_ttl: Option<u32>,
}

impl Reader<'_> {
    fn file(&mut self, text: &str, file: &Arc<Path>, origin: &[u8], owner: Option<Box<[u8]>>, depth: usize) {
        let (mut origin, mut owner) = (origin.to_vec(), owner);
        let mut lexer = Lexer { rest: text, line: 1 };
        while let Some(entry) = lexer.entry() {
            let done = entry.and_then(|entry| {
                let line = entry.tokens.first().map_or(entry.line, |t| t.line);
                let at = |problem| (line, problem);
                match entry.tokens.split_first() {
                    Some((first, rest)) if !entry.blank && !first.quoted && first.text.starts_with('$') => {
                        let place = Place { file: Arc::clone(file), line };
                        self.directive(first.text, rest, &place, &mut origin, &mut owner, depth).map_err(at)
                    }
                    _ => self.record(&entry, file, &origin, &mut owner).map_err(at),
                }
            });
            if let Err((line, problem)) = done {
                if self.contents.findings.len() >= MAX_FINDINGS {
                    return;
                }
                self.contents.findings.push(Finding { place: Place { file: Arc::clone(file), line }, problem });
            }
        }
    }

    fn directive(
        &mut self,
        word: &str,
        rest: &[Token<'_>],
        place: &Place,
        origin: &mut Vec<u8>,
        owner: &mut Option<Box<[u8]>>,
        depth: usize,
    ) -> Result<(), Problem> {
        let name = |token: &Token<'_>, origin: &[u8]| {
            name::parse(token.text, Some(origin)).map_err(|error| Problem::Owner { owner: token.text.into(), error })
        };
        match (word.to_ascii_uppercase().as_str(), rest) {
            ("$ORIGIN", [to]) => *origin = name(to, origin)?,
            ("$ORIGIN", _) => return Err(Problem::Argument { directive: "$ORIGIN", expected: "one name" }),
            ("$TTL", [time]) if rdata::ttl(time.text).is_some() => self.ttl = rdata::ttl(time.text),
            ("$TTL", _) => {
                return Err(Problem::Argument { directive: "$TTL", expected: "one time, such as 300 or 1h" });
            }
            ("$INCLUDE", [path, under @ ..]) if under.len() <= 1 => {
                let inner = under.first().map_or_else(|| Ok(origin.clone()), |to| name(to, origin))?;
                self.files += 1;
                if depth >= MAX_DEPTH || self.files > MAX_FILES {
                    return Err(Problem::Depth);
                }
                let target = place.file.parent().unwrap_or(Path::new("")).join(path.text);
                let text = (self.read)(&target);
                let text = text.map_err(|reason| Problem::Include { file: target.clone(), reason })?;
                self.file(&text, &target.into(), &inner, owner.clone(), depth + 1);
            }
            ("$INCLUDE", _) => {
                return Err(Problem::Argument { directive: "$INCLUDE", expected: "a file and, if wanted, an origin" });
            }
            ("$GENERATE", [range, lines @ ..]) => self.generate(*range, lines, place, origin, owner)?,
            ("$GENERATE", []) => return Err(generate::WRONG),
            _ => return Err(Problem::Directive { found: word.into() }),
        }
        Ok(())
    }

    /// Reads a line for each number of the range, as if it stood in the file.
    fn generate(
        &mut self,
        range: Token<'_>,
        line: &[Token<'_>],
        place: &Place,
        origin: &[u8],
        owner: &mut Option<Box<[u8]>>,
    ) -> Result<(), Problem> {
        let range = generate::range(range.text).ok_or(generate::WRONG)?;
        let template = generate::template(line).ok_or(generate::WRONG)?;
        self.generated = self.generated.saturating_add(range.size_hint().0);
        if self.generated > MAX_GENERATED {
            return Err(Problem::Generated);
        }
        for number in range {
            let text = generate::line(&template, number).ok_or(generate::WRONG)?;
            let entry = Lexer { rest: &text, line: place.line }.entry();
            if let Some(entry) = entry {
                self.record(&entry.map_err(|(_, problem)| problem)?, &place.file, origin, owner)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        entry: &Entry<'_>,
        file: &Arc<Path>,
        origin: &[u8],
        last: &mut Option<Box<[u8]>>,
    ) -> Result<(), Problem> {
        let mut tokens = entry.tokens.as_slice();
        if !entry.blank
            && let [first, rest @ ..] = tokens
        {
            let wire = name::parse(first.text, Some(origin));
            // Even a record that fails has said who owns the next one.
            *last = wire.as_deref().ok().map(name::lower);
            wire.map_err(|error| Problem::Owner { owner: first.text.into(), error })?;
            tokens = rest;
        }
        let owner = last.clone().ok_or(Problem::NoOwner)?;
        let mut ttl = None;
        let rtype = loop {
            let [word, rest @ ..] = tokens else { return Err(Problem::NoType) };
            tokens = rest;
            if word.text.eq_ignore_ascii_case("IN") {
                continue;
            }
            if let Some(rtype) = rdata::type_of(word.text) {
                break rtype;
            }
            match rdata::ttl(word.text) {
                Some(seconds) if ttl.is_none() => ttl = Some(seconds),
                _ if ["CH", "HS", "ANY", "NONE"].iter().any(|c| word.text.eq_ignore_ascii_case(c)) => {
                    return Err(Problem::Class { found: word.text.into() });
                }
                _ => return Err(Problem::UnknownType { found: word.text.into() }),
            }
        };
        self.last_ttl = ttl.or(self.last_ttl);
        let ttl = ttl.or(self.ttl).or(self.last_ttl).ok_or(Problem::NoTtl)?;
        let rdata = rdata::parse(rtype, tokens, origin)?.into();
        let place = Place { file: Arc::clone(file), line: entry.line };
        self.contents.records.push(Record { place, owner, rtype, ttl, rdata });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Contents {
        parse(text, Path::new("t.zone"), b"\x01t\0", &mut |path| match path.to_str() {
            Some("sub.zone") => Ok("$TTL 7\nx A 192.0.2.7\n".into()),
            Some("loop.zone") => Ok("$INCLUDE loop.zone\n".into()),
            _ => Err("no such file".into()),
        })
    }

    fn shown(contents: &Contents) -> Vec<String> {
        let show = |r: &Record| {
            let (owner, rtype) = (name::show(&r.owner), rdata::type_name(r.rtype));
            format!("{}: {owner} {} {rtype} {}", r.place.line, r.ttl, r.rdata.escape_ascii())
        };
        contents.records.iter().map(show).collect()
    }

    fn findings(text: &str) -> Vec<String> {
        read(text).findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn entries_are_read_in_all_their_forms() {
        let text = concat!(
            "$TTL 60 ; a comment\n",
            "\n",
            "@  3600 IN SOA ns ( hostmaster ; inside\n",
            "     1 1h 15m\n",
            "     1w 60 )\n",
            "   IN 5 NS ns\n",
            "WWW A 192.0.2.1\n",
            "    TXT ( \"two; \" \"parts\\\"\" ) ; \"not\n",
            "$ORIGIN sub\n",
            "a   CNAME @\n",
            "a\\.b. IN TYPE7 \\# 1 ff\r\n",
            "h HTTPS 1 . alpn=\"h2,h3\"\n",
            "$INCLUDE sub.zone inc.t.\n",
            "z A 192.0.2.9",
        );
        let contents = read(text);
        assert_eq!(contents.findings.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(
            shown(&contents),
            [
                r"3: t. 3600 SOA \x02ns\x01t\x00\nhostmaster\x01t\x00\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x03\x84\x00\t:\x80\x00\x00\x00<",
                r"6: t. 5 NS \x02ns\x01t\x00",
                r"7: www.t. 60 A \xc0\x00\x02\x01",
                r#"8: www.t. 60 TXT \x05two; \x06parts\""#,
                r"10: a.sub.t. 60 CNAME \x03sub\x01t\x00",
                r"11: a\.b. 60 TYPE7 \xff",
                r"12: h.sub.t. 60 HTTPS \x00\x01\x00\x00\x01\x00\x06\x02h2\x02h3",
                r"2: x.inc.t. 7 A \xc0\x00\x02\x07",
                r"14: z.sub.t. 7 A \xc0\x00\x02\t",
            ]
        );
    }

    #[test]
    fn all_findings_come_at_once_each_with_its_line() {
        let text = concat!(
            "a A 192.0.2.1\n",
            "$TTL x\n",
            "b 60 A 1.2.3\n",
            "c TXT \"open\n",
            "d 60 )\n",
            "e..f A 192.0.2.1\n",
            "  A 192.0.2.1\n",
            "g 60 CH TXT x\n",
            "$GENERATE 1-2 a$ A 192.0.2\n",
            "h 60 NOPE x\n",
            "i 60\n",
            "$INCLUDE missing\n",
            "j 60 ( A\n",
            "$NOPE\n",
            "$GENERATE 2-1 a$ 60 A 192.0.2.$\n",
            "$GENERATE 0-2000000 a$ 60 A 192.0.2.1\n",
            "k 60 A 192.0.2.1\n",
        );
        let generated = text.lines().position(|l| l.contains("2000000")).map(|l| l + 1);
        assert_eq!(generated, Some(16), "the last directive is bounded");
        assert_eq!(
            findings(text),
            [
                "t.zone:1: no TTL: give the record one, or put `$TTL 300` at the top of the file",
                "t.zone:2: $TTL takes one time, such as 300 or 1h",
                "t.zone:3: `1.2.3` stands where an IPv4 address should",
                "t.zone:4: the quote is not closed on its line; a long string is written as several, side by side",
                "t.zone:5: `)` without `(` before it",
                "t.zone:6: owner `e..f`: an empty label (two dots in a row, or a dot at the start)",
                "t.zone:7: the line begins with a blank, which means the owner of the record before it; there is none",
                "t.zone:8: class CH: only IN is served",
                "t.zone:9: `192.0.2` stands where an IPv4 address should",
                "t.zone:10: `NOPE` is no type that is known here: write other types as TYPE123 \\# LENGTH HEX (RFC 3597)",
                "t.zone:11: a type is missing, such as A, AAAA or TXT",
                "t.zone:12: missing cannot be read: no such file",
                "t.zone:13: the parenthesis that opens here is never closed",
                "t.zone:14: `$NOPE` is no directive that is known here: expected $ORIGIN, $TTL, $INCLUDE or $GENERATE",
                "t.zone:15: $GENERATE takes a range such as 1-100 or 0-30/10, an owner, a type and data, with `$` or `${offset,width,base}` for the number",
                "t.zone:16: $GENERATE makes more than 1000000 records: write a wildcard, or several zones",
            ]
        );
        assert_eq!(
            shown(&read("$GENERATE 1-2 a$ A 192.0.2\nk 60 A 192.0.2.1\n")).len(),
            1,
            "what is right is read all the same"
        );
    }

    #[test]
    fn a_file_that_includes_itself_ends() {
        let found = findings("$INCLUDE loop.zone\n");
        assert_eq!(
            found,
            ["loop.zone:1: $INCLUDE more than 8 files deep, or 1000 in all: does a file include itself?"]
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[ \t\n\"();\\\\$a-cA0-9.中]{0,80}") {
            read(&text);
        }
    }
}
