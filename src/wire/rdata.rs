//! Record data: from the text of a master file to wire format, a row of a table for each type.
//!
//! A type that is not in the table can still be served: RFC 3597's `TYPE123 \# LENGTH HEX` takes any. Names in record data
//! stay uncompressed, which is always allowed and makes the octets good for any message.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::master::Token;
use super::name::{self, NameError};
use super::svcb;

mod forms;

pub(super) use forms::{bitmap, bitmap_text, certificate_name, eui_text, hip_text, loc_text};

/// What a field of record data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Ip4,
    Ip6,
    Name,
    U8,
    U16,
    U32,
    Ttl,
    /// One character-string.
    Text,
    /// Character-strings to the end.
    Texts,
    /// Octets without a length, to the end.
    Bare,
    /// Hexadecimal to the end; may be spread over several tokens.
    Hex,
    /// Base64 to the end; may be spread over several tokens.
    Base64,
    /// Parameters of RFC 9460, to the end.
    Params,
    /// A type by its name.
    Type,
    /// A DNSSEC algorithm: a number, or its mnemonic.
    Algorithm,
    /// A certificate type of RFC 4398: a number, or its mnemonic.
    Certificate,
    /// A bitmap of types, to the end (RFC 4034 section 4.1.2).
    Types,
    /// A place on earth (RFC 1876), to the end.
    Loc,
    /// A host identity (RFC 8005), to the end.
    Hip,
    /// So many octets, in hexadecimal with hyphens (RFC 7043).
    Eui(u8),
    /// 64 bits as four groups of hexadecimal digits (RFC 6742).
    Locator,
}

use Field::{
    Algorithm, Bare, Base64, Certificate, Eui, Hex, Hip, Ip4, Ip6, Loc, Locator, Params, Text, Texts, Ttl, Type, Types,
    U8, U16, U32,
};

const NAME: &[Field] = &[Field::Name];
const DIGEST: &[Field] = &[U16, Algorithm, U8, Hex];
const KEY: &[Field] = &[U16, U8, Algorithm, Base64];
const SERVICE: &[Field] = &[U16, Field::Name, Params];

/// Every type with a text form here.
const TYPES: &[(&str, u16, &[Field])] = &[
    ("A", 1, &[Ip4]),
    ("NS", 2, NAME),
    ("CNAME", 5, NAME),
    ("SOA", 6, &[Field::Name, Field::Name, U32, Ttl, Ttl, Ttl, Ttl]),
    ("PTR", 12, NAME),
    ("HINFO", 13, &[Text, Text]),
    ("MX", 15, &[U16, Field::Name]),
    ("TXT", 16, &[Texts]),
    ("RP", 17, &[Field::Name, Field::Name]),
    ("AFSDB", 18, &[U16, Field::Name]),
    ("X25", 19, &[Text]),
    ("RT", 21, &[U16, Field::Name]),
    ("PX", 26, &[U16, Field::Name, Field::Name]),
    ("GPOS", 27, &[Text, Text, Text]),
    ("AAAA", 28, &[Ip6]),
    ("LOC", 29, &[Loc]),
    ("SRV", 33, &[U16, U16, U16, Field::Name]),
    ("NAPTR", 35, &[U16, U16, Text, Text, Text, Field::Name]),
    ("KX", 36, &[U16, Field::Name]),
    ("CERT", 37, &[Certificate, U16, Algorithm, Base64]),
    ("DNAME", 39, NAME),
    ("DS", 43, DIGEST),
    ("SSHFP", 44, &[U8, U8, Hex]),
    ("DNSKEY", 48, KEY),
    ("DHCID", 49, &[Base64]),
    ("TLSA", 52, &[U8, U8, U8, Hex]),
    ("SMIMEA", 53, &[U8, U8, U8, Hex]),
    ("HIP", 55, &[Hip]),
    ("CDS", 59, DIGEST),
    ("CDNSKEY", 60, KEY),
    ("OPENPGPKEY", 61, &[Base64]),
    ("CSYNC", 62, &[U32, U16, Types]),
    ("ZONEMD", 63, &[U32, U8, U8, Hex]),
    ("SVCB", 64, SERVICE),
    ("HTTPS", 65, SERVICE),
    ("DSYNC", 66, &[Type, U8, U16, Field::Name]),
    ("SPF", 99, &[Texts]),
    ("NID", 104, &[U16, Locator]),
    ("L32", 105, &[U16, Ip4]),
    ("L64", 106, &[U16, Locator]),
    ("LP", 107, &[U16, Field::Name]),
    ("EUI48", 108, &[Eui(6)]),
    ("EUI64", 109, &[Eui(8)]),
    ("URI", 256, &[U16, U16, Bare]),
    ("CAA", 257, &[U8, Text, Bare]),
    ("AVC", 258, &[Texts]),
    ("RESINFO", 261, &[Texts]),
    ("WALLET", 262, &[Texts]),
    // No record: addresses that are looked up elsewhere stand in its place. The number is the one PowerDNS has for it.
    ("ALIAS", super::dns::rtype::ALIAS, NAME),
];

/// Why record data can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RdataError {
    /// A field is missing.
    #[error("{rtype} data ends where {expected} should stand")]
    Missing {
        /// The record's type.
        rtype: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A field is not what it should be.
    #[error("`{found}` stands where {expected} should")]
    Field {
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// A name is broken.
    #[error("`{found}`: {error}")]
    Name {
        /// What stands there.
        found: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// More fields than the type has.
    #[error("`{found}` stands behind the end of {rtype} data")]
    Extra {
        /// The record's type.
        rtype: String,
        /// What stands there.
        found: String,
    },
    /// A service parameter is broken.
    #[error("{0}")]
    Params(#[from] svcb::ParamError),
    /// No text form for the type here.
    #[error("the text form of {rtype} is not known here: write it as `{rtype} \\# LENGTH HEX` (RFC 3597)")]
    NoTextForm {
        /// The record's type.
        rtype: String,
    },
    /// The data is longer than a record can hold.
    #[error("{rtype} data of more than 65535 octets")]
    Long {
        /// The record's type.
        rtype: String,
    },
}

/// The number of the type that is called `text`: a mnemonic, or `TYPE123`. Case does not matter.
pub fn type_of(text: &str) -> Option<u16> {
    if text.eq_ignore_ascii_case("ANY") {
        return Some(super::dns::rtype::ANY);
    }
    let known = TYPES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text)).map(|t| t.1);
    known.or_else(|| numbered(text, "TYPE"))
}

/// What the type is called.
pub fn type_name(rtype: u16) -> Cow<'static, str> {
    match TYPES.iter().find(|t| t.1 == rtype) {
        Some((name, ..)) => Cow::Borrowed(name),
        None if rtype == super::dns::rtype::ANY => Cow::Borrowed("ANY"),
        None => Cow::Owned(format!("TYPE{rtype}")),
    }
}

/// What data of the type consists of, where that is known.
pub(super) fn fields(rtype: u16) -> Option<&'static [Field]> {
    TYPES.iter().find(|t| t.1 == rtype).map(|t| t.2)
}

/// `PREFIX123`, as RFC 3597 section 5 writes what has no name.
pub(super) fn numbered(text: &str, prefix: &str) -> Option<u16> {
    let (head, digits) = text.split_at_checked(prefix.len())?;
    let plain = head.eq_ignore_ascii_case(prefix) && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Reads the data of a record of type `rtype` from its tokens; relative names are completed with `origin`.
///
/// # Errors
/// As [`RdataError`] lists.
pub fn parse(rtype: u16, tokens: &[Token<'_>], origin: &[u8]) -> Result<Vec<u8>, RdataError> {
    let named = || type_name(rtype).into_owned();
    if let [marker, rest @ ..] = tokens
        && !marker.quoted
        && marker.text == r"\#"
    {
        return generic(rest, named);
    }
    let Some(fields) = fields(rtype) else {
        return Err(RdataError::NoTextForm { rtype: named() });
    };
    let mut out = Vec::new();
    let mut rest = tokens;
    for field in fields {
        let expected = field.expected();
        let to_the_end = matches!(field, Texts | Hex | Base64 | Params | Types | Loc | Hip);
        if to_the_end {
            let min = usize::from(!matches!(field, Params | Types));
            if rest.len() < min {
                return Err(RdataError::Missing { rtype: named(), expected });
            }
            many(*field, rest, origin, &mut out)?;
            rest = &[];
        } else {
            let Some((token, after)) = rest.split_first() else {
                return Err(RdataError::Missing { rtype: named(), expected });
            };
            one(*field, *token, origin, &mut out)?;
            rest = after;
        }
    }
    if let Some(extra) = rest.first() {
        return Err(RdataError::Extra { rtype: named(), found: extra.text.into() });
    }
    if out.len() > usize::from(u16::MAX) { Err(RdataError::Long { rtype: named() }) } else { Ok(out) }
}

impl Field {
    const fn expected(self) -> &'static str {
        match self {
            Ip4 => "an IPv4 address",
            Ip6 => "an IPv6 address",
            Self::Name => "a name",
            U8 => "a number up to 255",
            U16 => "a number up to 65535",
            U32 => "a number up to 4294967295",
            Ttl => "a time in seconds, or such as 1h30m",
            Text | Texts => "a string of at most 255 octets",
            Bare => "a string",
            Hex => "hexadecimal digits in pairs",
            Base64 => "base64",
            Params => "service parameters",
            Type => "a type, such as A or TYPE123",
            Algorithm => "an algorithm, as a number up to 255 or such as ECDSAP256SHA256",
            Certificate => "a certificate type, as a number or such as PKIX",
            Types => "types, such as A NS AAAA",
            Loc => "a place, such as 52 22 23.000 N 4 53 32.000 E -2.00m 1m 10000m 10m",
            Hip => "an algorithm, a host identity tag in hexadecimal, a key in base64 and names of servers",
            Eui(6) => "six octets, such as 00-00-5e-00-53-2a",
            Eui(_) => "eight octets, such as 00-00-5e-ef-10-00-00-2a",
            Locator => "four groups of hexadecimal digits, such as 2001:0db8:1140:1000",
        }
    }
}

fn one(field: Field, token: Token<'_>, origin: &[u8], out: &mut Vec<u8>) -> Result<(), RdataError> {
    let wrong = || RdataError::Field { found: token.text.into(), expected: field.expected() };
    match field {
        Ip4 => out.extend(token.text.parse::<Ipv4Addr>().map_err(|_| wrong())?.octets()),
        Ip6 => out.extend(token.text.parse::<Ipv6Addr>().map_err(|_| wrong())?.octets()),
        Field::Name => {
            let found = || token.text.to_owned();
            let wire = name::parse(token.text, Some(origin));
            out.extend(wire.map_err(|error| RdataError::Name { found: found(), error })?);
        }
        U8 => out.push(token.text.parse().map_err(|_| wrong())?),
        U16 => out.extend(token.text.parse::<u16>().map_err(|_| wrong())?.to_be_bytes()),
        U32 => out.extend(token.text.parse::<u32>().map_err(|_| wrong())?.to_be_bytes()),
        Ttl => out.extend(time(token.text).ok_or_else(wrong)?.to_be_bytes()),
        Text => {
            let text = octets(token.text).filter(|t| t.len() <= 255).ok_or_else(wrong)?;
            out.push(text.len() as u8);
            out.extend(text);
        }
        Bare => out.extend(octets(token.text).ok_or_else(wrong)?),
        Type => out.extend(type_of(token.text).ok_or_else(wrong)?.to_be_bytes()),
        Algorithm => out.push(forms::algorithm(token.text).ok_or_else(wrong)?),
        Certificate => out.extend(forms::certificate(token.text).ok_or_else(wrong)?.to_be_bytes()),
        Eui(octets) => out.extend(forms::eui(token.text, octets.into()).ok_or_else(wrong)?),
        Locator => out.extend(forms::locator(token.text).ok_or_else(wrong)?),
        Texts | Hex | Base64 | Params | Types | Loc | Hip => return Err(wrong()),
    }
    Ok(())
}

fn many(field: Field, tokens: &[Token<'_>], origin: &[u8], out: &mut Vec<u8>) -> Result<(), RdataError> {
    let joined = || tokens.iter().map(|t| t.text).collect::<String>();
    let wrong = |found: String| RdataError::Field { found, expected: field.expected() };
    match field {
        Texts => tokens.iter().try_for_each(|token| one(Text, *token, origin, out))?,
        Hex => out.extend(hex(&joined()).ok_or_else(|| wrong(joined()))?),
        Base64 => out.extend(base64(&joined()).ok_or_else(|| wrong(joined()))?),
        Params => out.extend(svcb::parse(tokens.iter().map(|t| t.text))?),
        Types => {
            let types = tokens.iter().map(|t| type_of(t.text).ok_or_else(|| wrong(t.text.into())));
            out.extend(bitmap(types.collect::<Result<Vec<_>, _>>()?));
        }
        Loc => {
            let words: Vec<&str> = tokens.iter().map(|t| t.text).collect();
            out.extend(forms::loc(&words).ok_or_else(|| wrong(words.join(" ")))?);
        }
        Hip => {
            let words: Vec<&str> = tokens.iter().map(|t| t.text).collect();
            out.extend(forms::hip(&words, origin).ok_or_else(|| wrong(words.join(" ")))?);
        }
        _ => return Err(wrong(joined())),
    }
    Ok(())
}

/// `\# LENGTH HEX` (RFC 3597 section 5).
fn generic(tokens: &[Token<'_>], named: impl Fn() -> String) -> Result<Vec<u8>, RdataError> {
    let expected = "a length, and as many octets in hexadecimal";
    let (length, rest) = tokens.split_first().ok_or_else(|| RdataError::Missing { rtype: named(), expected })?;
    let digits: String = rest.iter().map(|t| t.text).collect();
    let data = hex(&digits).filter(|d| length.text.parse::<u16>().is_ok_and(|n| usize::from(n) == d.len()));
    data.ok_or_else(|| RdataError::Field { found: format!("{} {digits}", length.text), expected })
}

/// The octets of a character-string with its escapes resolved (RFC 1035 section 5.1).
pub(super) fn octets(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'\\' { name::unescape(&mut bytes)? } else { byte });
    }
    Some(out)
}

/// A TTL: a [`time`] of at most 2^31 - 1 seconds (RFC 2181 section 8).
pub fn ttl(text: &str) -> Option<u32> {
    time(text).filter(|&seconds| i32::try_from(seconds).is_ok())
}

/// A time in seconds, or with units as BIND writes them (`1h30m`); 32 bits, as SOA has them (RFC 1035 section 3.3.13).
fn time(text: &str) -> Option<u32> {
    let (mut total, mut number) = (0u32, None::<u32>);
    for byte in text.bytes() {
        let scale = match byte.to_ascii_lowercase() {
            digit @ b'0'..=b'9' => {
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(u32::from(digit - b'0'))?);
                continue;
            }
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(scale)?)?;
    }
    match number {
        Some(seconds) => total.checked_add(seconds),
        None if text.is_empty() => None,
        None => Some(total),
    }
}

/// Hexadecimal digits in pairs.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Base64 with its padding (RFC 4648 section 4).
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 || body.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for group in body.as_bytes().chunks(4) {
        let mut word = 0u32;
        for i in 0..4 {
            word = word << 6 | u32::from(group.get(i).map_or(Some(0), |b| value(*b))?);
        }
        out.extend(word.to_be_bytes().iter().skip(1).take(group.len() - 1));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtype: &str, text: &str) -> Result<Vec<u8>, RdataError> {
        let tokens: Vec<Token<'_>> = text
            .split_whitespace()
            .map(|t| Token { text: t.trim_matches('"'), quoted: t.starts_with('"'), line: 1 })
            .collect();
        parse(type_of(rtype).unwrap(), &tokens, b"\x01o\0")
    }

    #[test]
    fn each_type_has_its_octets() {
        let cases: &[(&str, &str, &[u8])] = &[
            ("A", "192.0.2.1", &[192, 0, 2, 1]),
            ("MX", "10 mx", b"\0\x0a\x02mx\x01o\0"),
            ("TXT", r#""a\"b" c\032d"#, b"\x03a\"b\x03c d"),
            ("TXT", r#""""#, b"\0"),
            ("SRV", "1 2 443 .", b"\0\x01\0\x02\x01\xbb\0"),
            ("CAA", r#"0 issue "ca.example""#, b"\0\x05issueca.example"),
            ("DS", "1 13 2 ABcd 01", b"\0\x01\x0d\x02\xab\xcd\x01"),
            ("DNSKEY", "257 3 13 aGk= ", b"\x01\x01\x03\x0dhi"),
            (
                "SOA",
                "ns h 7 1h 1h30m 1w 60",
                b"\x02ns\x01o\0\x01h\x01o\0\0\0\0\x07\0\0\x0e\x10\0\0\x15\x18\0\x09\x3a\x80\0\0\0\x3c",
            ),
            ("TYPE999", r"\# 3 0a0b 0c", &[10, 11, 12]),
            ("A", r"\# 4 0a000001", &[10, 0, 0, 1]),
            ("HTTPS", "1 . port=8443 alpn=h2,h3", b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x20\xfb"),
        ];
        for (rtype, text, want) in cases {
            assert_eq!(read(rtype, text).as_deref(), Ok(*want), "{rtype} {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (rtype, text, says) in [
            ("A", "300.1.1.1", "`300.1.1.1` stands where an IPv4 address should"),
            ("A", "", "A data ends where an IPv4 address should stand"),
            ("A", "1.2.3.4 5.6.7.8", "`5.6.7.8` stands behind the end of A data"),
            ("MX", "mail 10", "`mail` stands where a number up to 65535 should"),
            ("CNAME", "a..b.", "`a..b.`: an empty label"),
            ("TYPE999", "x", "write it as `TYPE999 \\# LENGTH HEX`"),
            ("TYPE999", r"\# 2 0a", "a length, and as many octets"),
            ("DS", "1 13 2 abc", "hexadecimal digits in pairs"),
            ("SOA", "a b 1 2 3 4 9x", "`9x` stands where a time in seconds"),
        ] {
            let error = read(rtype, text).unwrap_err().to_string();
            assert!(error.contains(says), "{rtype} {text}: {error}");
        }
    }

    #[test]
    fn times_have_units_and_a_limit() {
        assert_eq!((ttl("0"), ttl("1h30m"), ttl("1W"), ttl("1m5")), (Some(0), Some(5_400), Some(604_800), Some(65)));
        assert_eq!(
            (ttl(""), ttl("h"), ttl("1x"), ttl("-1"), ttl("2147483648"), ttl("99999999999")),
            (None, None, None, None, None, None)
        );
    }

    #[test]
    fn types_are_known_by_name_and_number() {
        assert_eq!(
            (type_of("aaaa"), type_of("TYPE65"), type_of("type65536"), type_of("TYPE"), type_of("TYPE+1")),
            (Some(28), Some(65), None, None, None)
        );
        assert_eq!((type_name(28), type_name(1234)), ("AAAA".into(), "TYPE1234".into()));
        for (name, number, _) in TYPES {
            assert_eq!((type_of(name), &*type_name(*number)), (Some(*number), *name));
        }
    }

    #[test]
    fn base64_reads_rfc_4648s_vectors() {
        for (text, want) in
            [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(base64(text).as_deref(), Some(want.as_bytes()));
        }
        for bad in ["Zg=", "Z===", "Zm9", "Zm=v", "", "===="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }
}
