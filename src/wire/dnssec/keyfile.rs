//! Key files as BIND writes them: `Kname.+013+12345.key` with the DNSKEY record, `.private` with the secret and its times.
//!
//! Both directions, as text only: reading files, their permissions and whether the halves fit is `dns::sign`'s. Times are
//! those of the private half; the comments of the public half repeat them for people.

use std::fmt::{self, Write as _};

use super::super::zone::WireName;
use super::super::{name, rdata, text};
use super::{Algorithm, SEP, ZONE_KEY, dnskey, key_tag};
use crate::base::civil;

/// A private key's octets. Shown by nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// When a key does what, in seconds since 1970 (RFC 7583; the names are BIND's).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Times {
    /// It was made.
    pub created: Option<u32>,
    /// It stands in the DNSKEY set.
    pub publish: Option<u32>,
    /// It signs.
    pub activate: Option<u32>,
    /// It signs no more.
    pub inactive: Option<u32>,
    /// It leaves the DNSKEY set.
    pub delete: Option<u32>,
    /// CDS and CDNSKEY ask the parent for it.
    pub sync_publish: Option<u32>,
    /// They do so no more.
    pub sync_delete: Option<u32>,
}

/// The fields of [`Times`] as the files name them.
const FIELDS: [&str; 7] = ["Created", "Publish", "Activate", "Inactive", "Delete", "SyncPublish", "SyncDelete"];

impl Times {
    fn slots(&mut self) -> [&mut Option<u32>; 7] {
        let Self { created, publish, activate, inactive, delete, sync_publish, sync_delete } = self;
        [created, publish, activate, inactive, delete, sync_publish, sync_delete]
    }
}

/// The public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// Whose key it is: the apex of a zone, lower case.
    pub owner: WireName,
    /// [`ZONE_KEY`], and perhaps [`SEP`].
    pub flags: u16,
    /// By what it signs.
    pub algorithm: Algorithm,
    /// The key, as DNSKEY has it.
    pub octets: Box<[u8]>,
}

impl Public {
    /// DNSKEY data.
    pub fn dnskey(&self) -> Vec<u8> {
        dnskey(self.flags, self.algorithm, &self.octets)
    }

    /// Its tag.
    pub fn tag(&self) -> u16 {
        key_tag(&self.dnskey())
    }

    /// Whether a DS record may point to it.
    pub const fn is_entry(&self) -> bool {
        self.flags & SEP != 0
    }

    /// The name of its files without an ending.
    pub fn stem(&self) -> String {
        format!("{}{:03}+{:05}", prefix(&self.owner), self.algorithm.number(), self.tag())
    }
}

/// What the names of key files of the zone at `owner` begin with, as BIND has it: what is no letter, digit, `-` or `_` in a
/// label stands as `%` and two digits, so that a zone of RFC 2317 (`0/25.2.0.192.in-addr.arpa.`) names no folder.
pub fn prefix(owner: &[u8]) -> String {
    let mut prefix = String::from("K");
    for label in name::labels(owner) {
        for octet in label {
            match octet.to_ascii_lowercase() {
                plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => prefix.push(plain.into()),
                other => {
                    let _ = write!(prefix, "%{other:02X}");
                }
            }
        }
        prefix.push('.');
    }
    prefix.push_str(if prefix.len() == 1 { ".+" } else { "+" });
    prefix
}

/// The private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Private {
    /// By what it signs.
    pub algorithm: Algorithm,
    /// The key: a scalar for ECDSA, a seed for Ed25519.
    pub secret: Secret,
    /// When it does what.
    pub times: Times,
}

/// Both halves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What the world sees.
    pub public: Public,
    /// What signs, and when.
    pub private: Private,
}

/// Why a text is no key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// No DNSKEY record.
    #[error("there is no DNSKEY record: expected a line such as `example. IN DNSKEY 257 3 13 BASE64`")]
    NoRecord,
    /// A DNSKEY record that can't be read.
    #[error("line {line}: `{found}` stands where {expected} should")]
    Record {
        /// Where.
        line: usize,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A key that may not sign a zone.
    #[error("the flags {flags} do not make a zone's key: 256 is one that signs records, 257 one that a DS points to")]
    Flags {
        /// What the file says.
        flags: u16,
    },
    /// An algorithm that is not spoken here.
    #[error(
        "algorithm {found} is not signed with here: 13 (ECDSAP256SHA256) and 15 (ED25519) are; make a new key with `springtide keys make`"
    )]
    Algorithm {
        /// What the file says.
        found: String,
    },
    /// A key of the wrong length.
    #[error(
        "the {half} key has {found} octets, algorithm {algorithm} wants {wanted}: the file is damaged, copy it again"
    )]
    Length {
        /// `public` or `private`.
        half: &'static str,
        /// By what it signs.
        algorithm: Algorithm,
        /// How many it has.
        found: usize,
        /// How many it should have.
        wanted: usize,
    },
    /// A field is missing.
    #[error("`{field}:` is missing: the file is cut, or of another kind")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field has no meaning.
    #[error("line {line}: `{field}: {found}`: expected {expected}")]
    Field {
        /// Where.
        line: usize,
        /// Its name.
        field: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
}

/// Reads the public half.
///
/// # Errors
/// As [`KeyProblem`] lists.
pub fn read_public(text: &str) -> Result<Public, KeyProblem> {
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.split(';').next().unwrap_or_default().trim()));
    let (line, record) = lines.into_iter().find(|(_, l)| !l.is_empty()).ok_or(KeyProblem::NoRecord)?;
    let wrong = |found: &str, expected| KeyProblem::Record { line, found: found.into(), expected };
    let mut words = record.split_whitespace();
    let owner = words.next().unwrap_or_default();
    let owner = name::parse(owner, None).map_err(|_| wrong(owner, "the zone's name, with its final dot"))?;
    // A TTL and a class may stand ahead of the type, in either order.
    let rtype = words.find(|w| !w.eq_ignore_ascii_case("IN") && w.parse::<u32>().is_err()).unwrap_or_default();
    if !rtype.eq_ignore_ascii_case("DNSKEY") {
        return Err(wrong(rtype, "DNSKEY"));
    }
    let mut number = |expected| {
        let word = words.next().unwrap_or_default();
        word.parse::<u16>().map_err(|_| wrong(word, expected))
    };
    let (flags, protocol, algorithm) =
        (number("the key's flags")?, number("the protocol, 3")?, number("the algorithm's number")?);
    if protocol != 3 {
        return Err(wrong(&protocol.to_string(), "the protocol, 3"));
    }
    if flags & ZONE_KEY == 0 || flags & !(ZONE_KEY | SEP) != 0 {
        return Err(KeyProblem::Flags { flags });
    }
    let algorithm = known(u8::try_from(algorithm).ok(), &algorithm.to_string())?;
    let encoded: String = words.collect();
    let octets = rdata::base64(&encoded).ok_or_else(|| wrong(&encoded, "the key in base64"))?;
    length("public", algorithm, octets.len(), algorithm.public_octets())?;
    Ok(Public { owner: name::lower(&owner), flags, algorithm, octets: octets.into() })
}

/// Reads the private half.
///
/// # Errors
/// As [`KeyProblem`] lists.
pub fn read_private(text: &str) -> Result<Private, KeyProblem> {
    let (mut algorithm, mut secret, mut times, mut format) = (None, None, Times::default(), false);
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let line_number = i + 1;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let (field, value) = (field.trim(), value.trim());
        let wrong = |found: &str, expected| KeyProblem::Field {
            line: line_number,
            field: field.into(),
            found: found.into(),
            expected,
        };
        match field {
            "Private-key-format" if value.starts_with("v1.") => format = true,
            "Private-key-format" => return Err(wrong(value, "v1.3")),
            "Algorithm" => {
                let number = value.split_whitespace().next().unwrap_or_default();
                algorithm = Some(known(number.parse().ok(), value)?);
            }
            // What is wrong with a secret is not repeated.
            "PrivateKey" => secret = Some(rdata::base64(value).ok_or_else(|| wrong("...", "a key in base64"))?),
            _ => {
                if let Some(slot) = FIELDS.iter().position(|f| *f == field) {
                    let seconds = seconds(value).ok_or_else(|| wrong(value, "a time in UTC such as 20260131120000"))?;
                    if let Some(slot) = times.slots().into_iter().nth(slot) {
                        *slot = Some(seconds);
                    }
                }
                // Other fields are BIND's own: kept apart from what counts here.
            }
        }
    }
    if !format {
        return Err(KeyProblem::Missing { field: "Private-key-format" });
    }
    let algorithm = algorithm.ok_or(KeyProblem::Missing { field: "Algorithm" })?;
    let secret = secret.ok_or(KeyProblem::Missing { field: "PrivateKey" })?;
    // Both algorithms have 32 octets: a scalar of P-256, a seed of Ed25519.
    length("private", algorithm, secret.len(), 32)?;
    Ok(Private { algorithm, secret: Secret(secret.into()), times })
}

fn known(number: Option<u8>, shown: &str) -> Result<Algorithm, KeyProblem> {
    number.and_then(Algorithm::of).ok_or_else(|| KeyProblem::Algorithm { found: shown.into() })
}

fn length(half: &'static str, algorithm: Algorithm, found: usize, wanted: usize) -> Result<(), KeyProblem> {
    if found == wanted { Ok(()) } else { Err(KeyProblem::Length { half, algorithm, found, wanted }) }
}

/// The public half as a file.
pub fn write_public(public: &Public, times: &Times) -> String {
    let role = if public.is_entry() { "key-signing" } else { "zone-signing" };
    let owner = name::show(&public.owner);
    let mut out = format!("; This is a {role} key, keyid {}, for {owner}\n", public.tag());
    for (field, time) in named(times) {
        let _ = writeln!(out, "; {field}: {}", stamp(time));
    }
    let (flags, algorithm) = (public.flags, public.algorithm.number());
    let _ = writeln!(out, "{owner} IN DNSKEY {flags} 3 {algorithm} {}", text::base64(&public.octets));
    out
}

/// The private half as a file.
pub fn write_private(private: &Private) -> String {
    let mut out = format!(
        "Private-key-format: v1.3\nAlgorithm: {}\nPrivateKey: {}\n",
        private.algorithm,
        text::base64(&private.secret.0)
    );
    for (field, time) in named(&private.times) {
        let _ = writeln!(out, "{field}: {}", stamp(time));
    }
    out
}

fn named(times: &Times) -> Vec<(&'static str, u32)> {
    let mut times = *times;
    FIELDS.into_iter().zip(times.slots()).filter_map(|(field, time)| Some((field, (*time)?))).collect()
}

/// Seconds since 1970 as `YYYYMMDDHHMMSS` in UTC.
pub fn stamp(seconds: u32) -> String {
    let (days, rest) = (i64::from(seconds / 86_400), seconds % 86_400);
    let (year, month, day) = civil::date(days);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// The way back of [`stamp`]. `None` where it is no such time, or after 2106.
pub fn seconds(stamp: &str) -> Option<u32> {
    let part = |from: usize, to: usize| {
        stamp.get(from..to).filter(|s| s.bytes().all(|b| b.is_ascii_digit())).and_then(|s| s.parse::<i64>().ok())
    };
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    let total = u32::try_from(civil::days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second).ok()?;
    // A day or an hour that does not exist comes back as another.
    (stamp.len() == 14 && self::stamp(total) == stamp).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "; This is a key-signing key, keyid 3613, for example.com.\n; Created: 20260101000000\nexample.com. \
                       3600 IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=\n";
    const PRIVATE: &str = "Private-key-format: v1.2\nAlgorithm: 15 (ED25519)\nPrivateKey: \
                           ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=\nCreated: 20260101000000\nPublish: \
                           20260102000000\nActivate: 20260103010203\nPredecessor: 1234\n";

    #[test]
    fn the_key_of_rfc_8080_is_read_and_written() {
        let public = read_public(KEY).unwrap();
        assert_eq!((public.flags, public.tag(), public.stem().as_str()), (257, 3613, "Kexample.com.+015+03613"));
        let private = read_private(PRIVATE).unwrap();
        assert_eq!(private.times.activate, Some(1_767_402_123));
        assert_eq!(private.times.inactive, None);
        assert_eq!(read_public(&write_public(&public, &private.times)).unwrap(), public);
        assert_eq!(read_private(&write_private(&private)).unwrap(), private);
        assert!(!format!("{private:?}").contains("ODIy") && !format!("{private:?}").contains("79"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, says) in [
            ("", "there is no DNSKEY record"),
            ("; only a comment\n", "there is no DNSKEY record"),
            ("example 3600 IN DNSKEY 257 3 13 AA==", "line 1: `example` stands where the zone's name"),
            ("example. IN A 1.2.3.4", "`A` stands where DNSKEY should"),
            ("example. IN DNSKEY x 3 13 AA==", "`x` stands where the key's flags should"),
            ("example. IN DNSKEY 257 2 13 AA==", "`2` stands where the protocol"),
            ("example. IN DNSKEY 0 3 13 AA==", "the flags 0"),
            ("example. IN DNSKEY 385 3 13 AA==", "the flags 385"),
            ("example. IN DNSKEY 257 3 8 AA==", "algorithm 8 is not signed with here"),
            ("example. IN DNSKEY 257 3 13 ?", "the key in base64"),
            (
                "example. IN DNSKEY 257 3 13 AA==",
                "the public key has 1 octets, algorithm 13 (ECDSAP256SHA256) wants 64",
            ),
        ] {
            assert!(read_public(text).unwrap_err().to_string().contains(says), "{text}: {:?}", read_public(text));
        }
        let replaced = |from: &str, to: &str| read_private(&PRIVATE.replace(from, to)).unwrap_err().to_string();
        assert!(replaced("Private-key-format: v1.2\n", "").contains("`Private-key-format:` is missing"));
        assert!(replaced("v1.2", "v2.0").contains("line 1: `Private-key-format: v2.0`"));
        assert!(replaced("15 (ED25519)", "8 (RSASHA256)").contains("algorithm 8 (RSASHA256)"));
        assert!(replaced("20260103010203", "20260230000000").contains("line 6: `Activate: 20260230000000`"));
        let cut = replaced("ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=", "ODIy");
        assert!(cut.contains("the private key has 3 octets"), "{cut}");
        let damaged = replaced("ODIyNjAz", "ODIyN?Az");
        assert!(damaged.contains("line 3") && !damaged.contains("ODIy"), "{damaged}");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!((stamp(0), stamp(951_782_400)), ("19700101000000".into(), "20000229000000".into()));
        assert_eq!((stamp(u32::MAX), seconds("21060207062815")), ("21060207062815".into(), Some(u32::MAX)));
        for bad in
            ["", "2026", "20261301000000", "20260100000000", "20260101240000", "2026010100000x", "21060207062816"]
        {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    /// As `dnssec-keygen` of BIND 9.18 names its files.
    #[test]
    fn files_are_named_as_bind_names_them() {
        for (owner, named) in [
            ("0/25.2.0.192.in-addr.arpa.", "K0%2F25.2.0.192.in-addr.arpa.+"),
            ("A_b-c.Test.", "Ka_b-c.test.+"),
            (r"x\.y*~+.test.", "Kx%2Ey%2A%7E%2B.test.+"),
            (r"\255a.test.", "K%FFa.test.+"),
            (".", "K.+"),
        ] {
            assert_eq!(prefix(&name::parse(owner, None).unwrap()), named);
        }
    }

    proptest! {
        #[test]
        fn times_survive_their_text(at in any::<u32>()) {
            prop_assert_eq!(seconds(&stamp(at)), Some(at));
        }
    }
}
