//! Who holds a certificate: its subject as text (RFC 4514) and its alternative names, each of its kind.
//!
//! The certificate was verified by whoever asks. What it says is still another's: nothing here trusts a length, and the
//! text is visible ASCII whatever the certificate has in it.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{
    BOOLEAN, DNS_NAME, EXTENSIONS, IP_ADDRESS, MOST_NAMES, OBJECT_ID, OCTET_STRING, Reader, SEQUENCE, SUBJECT_ALT_NAME,
    VERSION,
};

const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
/// `[1]` of `GeneralName`: rfc822Name.
const EMAIL: u8 = 0x81;
/// `[6]` of `GeneralName`: uniformResourceIdentifier.
const URI: u8 = 0x86;
/// Longest subject that is written out. Ours: common names have at most 64 characters, and there are a dozen attributes.
const SUBJECT_BYTES: usize = 2_048;

/// The keywords of RFC 4514 section 3, with their attribute types.
const KEYWORDS: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
];

/// Who holds a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The subject, the most specific part first; empty where it is longer than is written out.
    pub subject: String,
    /// Alternative names of the kinds that are known here, in the order of the certificate.
    pub names: Vec<San>,
}

/// An alternative name of a subject (RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San {
    /// A DNS name, lower case.
    Dns(String),
    /// A URI.
    Uri(String),
    /// An email address, its domain in lower case.
    Email(String),
    /// An address.
    Ip(IpAddr),
}

/// Who holds the certificate `der`. `None`: it is none.
pub fn holder(der: &[u8]) -> Option<Holder> {
    let mut certificate = Reader(Reader(der).take(SEQUENCE)?);
    let mut tbs = Reader(certificate.take(SEQUENCE)?);
    tbs.skip_if(VERSION);
    // serialNumber, signature, issuer, validity
    for _ in 0..4 {
        tbs.next()?;
    }
    let subject = subject(tbs.take(SEQUENCE)?)?;
    let mut holder = Holder { subject, names: Vec::new() };
    while let Some((tag, value)) = tbs.next() {
        if tag == EXTENSIONS {
            let mut extensions = Reader(Reader(value).take(SEQUENCE)?);
            while let Some(extension) = extensions.take(SEQUENCE) {
                let mut extension = Reader(extension);
                if extension.take(OBJECT_ID)? == SUBJECT_ALT_NAME {
                    extension.skip_if(BOOLEAN);
                    holder.names = names(extension.take(OCTET_STRING)?)?;
                }
            }
        }
    }
    Some(holder)
}

fn names(value: &[u8]) -> Option<Vec<San>> {
    let mut list = Reader(Reader(value).take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some((tag, value)) = list.next() {
        if names.len() >= MOST_NAMES {
            return None;
        }
        // What is not visible ASCII is no name of these kinds (IA5String, and neither of them has spaces or controls).
        let text = || std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
        names.extend(match tag {
            DNS_NAME => text().map(|t| San::Dns(t.to_ascii_lowercase())),
            URI => text().map(|t| San::Uri(t.to_owned())),
            EMAIL => text().and_then(|t| t.rsplit_once('@')).map(|(local, domain)| {
                let domain = domain.to_ascii_lowercase();
                San::Email(format!("{local}@{domain}"))
            }),
            IP_ADDRESS => {
                let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(value).map(IpAddr::from);
                v4.or(v6).ok().map(San::Ip)
            }
            _ => None,
        });
    }
    Some(names)
}

/// A distinguished name as RFC 4514 section 2 writes it: from the last part to the first.
fn subject(name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = Reader(name);
    while let Some((tag, set)) = sets.next() {
        if tag != SET {
            return None;
        }
        let (mut pairs, mut part) = (Reader(set), String::new());
        while let Some(pair) = pairs.take(SEQUENCE) {
            let mut pair = Reader(pair);
            let (kind, (tag, value)) = (pair.take(OBJECT_ID)?, pair.next()?);
            if !part.is_empty() {
                part.push('+');
            }
            attribute(&mut part, kind, tag, value);
        }
        parts.push(part);
        if parts.iter().map(String::len).sum::<usize>() > SUBJECT_BYTES {
            return Some(String::new());
        }
    }
    parts.reverse();
    Some(parts.join(","))
}

/// `KEYWORD=text`; what has no keyword, or is no text, stands as its number and its octets (section 2.4).
fn attribute(out: &mut String, kind: &[u8], tag: u8, value: &[u8]) {
    let keyword = KEYWORDS.iter().find(|(known, _)| *known == kind).map(|(_, keyword)| *keyword);
    let is_text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING);
    match keyword {
        Some(keyword) if is_text => {
            out.push_str(keyword);
            out.push('=');
            escape(out, value);
        }
        _ => {
            out.push_str(keyword.map_or_else(|| dotted(kind), str::to_owned).as_str());
            out.push_str("=#");
            // A value in DER: a length below 128 is its own octet; longer ones are rare, and cut.
            let value = value.get(..127).unwrap_or(value);
            let _ = write!(out, "{tag:02x}{:02x}", value.len());
            for b in value {
                let _ = write!(out, "{b:02x}");
            }
        }
    }
}

/// Section 2.4: a backslash before what has a meaning, and two digits for what is not visible.
fn escape(out: &mut String, value: &[u8]) {
    let last = value.len().saturating_sub(1);
    for (i, &b) in value.iter().enumerate() {
        let is_edge_space = b == b' ' && (i == 0 || i == last);
        match b {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => out.extend(['\\', char::from(b)]),
            b'#' if i == 0 => out.push_str("\\#"),
            b' ' if is_edge_space => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(b)),
            _ => {
                let _ = write!(out, "\\{b:02x}");
            }
        }
    }
}

/// An object identifier in figures (X.690 section 8.19).
fn dotted(oid: &[u8]) -> String {
    let (mut text, mut number, mut is_first) = (String::new(), 0_u64, true);
    for &b in oid {
        number = number.wrapping_shl(7) | u64::from(b & 0x7f);
        if b & 0x80 != 0 {
            continue;
        }
        let _ = if is_first {
            let top = (number / 40).min(2);
            write!(text, "{top}.{}", number - top * 40)
        } else {
            write!(text, ".{number}")
        };
        (number, is_first) = (0, false);
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(subject: &[(DnType, &str)], names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_read_by_their_kinds() {
        let names = vec![
            SanType::DnsName("Claim.Gifts.internal".try_into().unwrap()),
            SanType::URI("spiffe://gifts.internal/claim".try_into().unwrap()),
            SanType::Rfc822Name("Ops@Gifts.internal".try_into().unwrap()),
            SanType::IpAddress([10, 0, 0, 1].into()),
        ];
        let holder = holder(&certificate(&[], names)).unwrap();
        assert_eq!(
            holder.names,
            [
                San::Dns("claim.gifts.internal".into()),
                San::Uri("spiffe://gifts.internal/claim".into()),
                San::Email("Ops@gifts.internal".into()),
                San::Ip([10, 0, 0, 1].into()),
            ]
        );
        assert_eq!(holder.subject, "");
    }

    #[test]
    fn a_subject_is_text_whatever_is_in_it() {
        let of = |subject: &[(DnType, &str)]| holder(&certificate(subject, Vec::new())).unwrap().subject;
        let plain = [(DnType::CountryName, "CN"), (DnType::OrganizationName, "Gifts"), (DnType::CommonName, "claim 1")];
        assert_eq!(of(&plain), "CN=claim 1,O=Gifts,C=CN");
        assert_eq!(of(&[(DnType::CommonName, " #a,b+c=\"d\" ")]), "CN=\\ #a\\,b\\+c\\=\\\"d\\\"\\ ");
        assert_eq!(of(&[(DnType::CommonName, "#x")]), "CN=\\#x");
        assert_eq!(of(&[(DnType::CommonName, "红包\r\nx")]), "CN=\\e7\\ba\\a2\\e5\\8c\\85\\0d\\0ax");
        assert_eq!(of(&[(DnType::CustomDnType(vec![2, 5, 4, 5]), "7")]), "2.5.4.5=#0c0137");
        assert_eq!(of(&[(DnType::CommonName, &"x".repeat(3_000))]), "");
    }

    #[test]
    fn what_is_no_certificate_has_no_holder() {
        let whole = certificate(&[(DnType::CommonName, "a")], Vec::new());
        assert!(holder(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(holder(&whole[..cut]), None);
        }
    }
}
