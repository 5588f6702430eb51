//! The few fields of an X.509 certificate (RFC 5280) that a server needs: names and dates of its own, the holder of a
//! client's.
//!
//! Not a validator: chains and signatures are the TLS library's work. A certificate is untrusted bytes all the same (an
//! operator's file may be anything), so the reader walks DER with bounds checked and never recurses.

use crate::base::civil;
use crate::base::clock::Wall;

mod holder;

pub use holder::{Holder, San, holder};

/// `subjectAltName`, 2.5.29.17 (RFC 5280 section 4.2.1.6).
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` and `[3]`, explicit, of `TBSCertificate`.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[2]` of `GeneralName`: dNSName.
const DNS_NAME: u8 = 0x82;
/// `[7]` of `GeneralName`: iPAddress.
const IP_ADDRESS: u8 = 0x87;
/// More names than any sane certificate has (the largest ones in public logs have a few thousand).
const MOST_NAMES: usize = 10_000;

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// DNS names, lower case; IP addresses in their text form.
    pub names: Vec<String>,
    /// From when it is good.
    pub not_before: Wall,
    /// Until when.
    pub not_after: Wall,
}

/// Reads a certificate in DER. `None`: it is none.
pub fn facts(der: &[u8]) -> Option<Facts> {
    let mut certificate = Reader(Reader(der).take(SEQUENCE)?);
    let mut tbs = Reader(certificate.take(SEQUENCE)?);
    tbs.skip_if(VERSION);
    // serialNumber, signature, issuer
    for _ in 0..3 {
        tbs.next()?;
    }
    let mut validity = Reader(tbs.take(SEQUENCE)?);
    let mut facts = Facts { not_before: time(&mut validity)?, not_after: time(&mut validity)?, names: Vec::new() };
    // subject, subjectPublicKeyInfo
    for _ in 0..2 {
        tbs.next()?;
    }
    while let Some((tag, value)) = tbs.next() {
        if tag == EXTENSIONS {
            let mut extensions = Reader(Reader(value).take(SEQUENCE)?);
            while let Some(extension) = extensions.take(SEQUENCE) {
                let mut extension = Reader(extension);
                if extension.take(OBJECT_ID)? == SUBJECT_ALT_NAME {
                    extension.skip_if(BOOLEAN);
                    facts.names = names(extension.take(OCTET_STRING)?)?;
                }
            }
        }
    }
    Some(facts)
}

fn names(value: &[u8]) -> Option<Vec<String>> {
    let mut list = Reader(Reader(value).take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some((tag, value)) = list.next() {
        if names.len() >= MOST_NAMES {
            return None;
        }
        match tag {
            DNS_NAME if value.is_ascii() => names.push(String::from_utf8_lossy(value).to_ascii_lowercase()),
            IP_ADDRESS => {
                let v4 = <[u8; 4]>::try_from(value).map(std::net::IpAddr::from);
                let v6 = <[u8; 16]>::try_from(value).map(std::net::IpAddr::from);
                names.extend(v4.or(v6).ok().map(|ip| ip.to_string()));
            }
            _ => {}
        }
    }
    Some(names)
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` up to 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(reader: &mut Reader<'_>) -> Option<Wall> {
    let (tag, text) = reader.next()?;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |range| -> Option<i64> { std::str::from_utf8(digits.get(range)?).ok()?.parse().ok() };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(0..2).map(|y| if y < 50 { 2000 + y } else { 1900 + y })?, 2),
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let field = |i: usize| number(rest + 2 * i..rest + 2 * i + 2);
    let (month, day) = (field(0)?, field(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = civil::days(year, month, day) * 86_400 + field(2)? * 3_600 + field(3)? * 60 + field(4)?;
    // Before 1970 is long ago, which is all that matters.
    Some(Wall(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)))
}

/// Reads DER values one after the other (X.690 section 8.1): tag, length, contents.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag and its contents. `None` at the end, and where the bytes are no DER.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        // No certificate needs tags above 30, which take more bytes.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match usize::from(*first) {
            short @ 0..=127 => (short, rest),
            long @ 0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(long & 0x7f)?;
                (digits.iter().fold(0, |n, &b| n << 8 | usize::from(b)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(t, _)| *t == tag).map(|(_, value)| value)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2024, 2, 29);
        params.not_after = date_time_ymd(2051, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_dates_are_read() {
        let facts = facts(&certificate(&["www.hongbao.test", "*.Hongbao.test", "127.0.1.1", "2001:db8::1"])).unwrap();
        assert_eq!(facts.names, ["www.hongbao.test", "*.hongbao.test", "127.0.1.1", "2001:db8::1"]);
        assert_eq!(facts.not_before, Wall(1_709_164_800_000));
        assert_eq!(facts.not_after, Wall(2_556_144_000_000), "GeneralizedTime from 2050 on");
    }

    #[test]
    fn a_certificate_without_names_has_none() {
        assert_eq!(facts(&certificate(&[])).unwrap().names, Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = facts(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_survived(at in 0usize..1_000, to: u8, cut in 0usize..1_000) {
            let mut der = certificate(&["www.hongbao.test"]);
            let (at, cut) = (at % der.len(), cut % der.len());
            prop_assert_eq!(facts(&der[..cut]), None, "half a certificate is none");
            // A damaged length may still frame something: what it says is not ours to judge, only that it is survived.
            der[at] = to;
            let _ = facts(&der);
            let _ = facts(&der[..cut]);
        }
    }
}
