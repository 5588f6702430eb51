//! What backends are told of a client's certificate: `X-Client-Cert-*`, and the whole of it as `Client-Cert` (RFC 9440).
//!
//! The edge has verified it. What clients send in fields of these names never passes (`head::strip`), whether they are
//! trusted or not: who reads one may believe it.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue};

use super::text::base64;
use super::x509::{self, Holder, San};

/// The certificate, as a byte sequence of RFC 8941 (RFC 9440 section 2.2).
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
/// Its subject (RFC 4514).
pub const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
/// Its alternative names, a list of strings of RFC 8941: `"DNS:a.test", "URI:spiffe://b/c"`.
pub const SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
/// SHA-256 of it, in hexadecimal.
pub const FINGERPRINT: HeaderName = HeaderName::from_static("x-client-cert-fingerprint");
/// Longest field that is made (ours). What does not fit is left out whole: half a list says something else.
const FIELD_BYTES: usize = 8_192;

/// Whether a field of this name speaks of a client's certificate.
pub fn is_ours(name: &str) -> bool {
    name.strip_prefix("x-").unwrap_or(name).starts_with("client-cert")
}

/// A certificate that a client has shown, and that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Who holds it.
    pub holder: Holder,
    /// What backends are told.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

impl Shown {
    /// Of the certificate `der`; backends are told who holds it, and all of it, as the flags say. `None`: it cannot be read.
    pub fn of(der: &[u8], tells_holder: bool, tells_all: bool) -> Option<Self> {
        let holder = x509::holder(der)?;
        let mut fields = Vec::new();
        let mut field = |name: HeaderName, text: String| {
            if (1..=FIELD_BYTES).contains(&text.len()) {
                fields.extend(HeaderValue::try_from(text).ok().map(|value| (name, value)));
            }
        };
        if tells_holder || tells_all {
            field(SUBJECT, holder.subject.clone());
            field(SAN, list(&holder.names));
            let sum = digest::digest(&digest::SHA256, der);
            field(
                FINGERPRINT,
                sum.as_ref().iter().fold(String::with_capacity(64), |text, b| text + &format!("{b:02x}")),
            );
        }
        if tells_all {
            field(CLIENT_CERT, format!(":{}:", base64(der)));
        }
        Some(Self { holder, fields })
    }
}

fn list(names: &[San]) -> String {
    let mut text = String::new();
    for name in names {
        let (kind, name) = match name {
            San::Dns(name) => ("DNS", name.clone()),
            San::Uri(name) => ("URI", name.clone()),
            San::Email(name) => ("email", name.clone()),
            San::Ip(address) => ("IP", address.to_string()),
        };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}\"{kind}:{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        if text.len() > FIELD_BYTES {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_told_as_it_is_wanted() {
        let mut params = CertificateParams::new(vec!["claim.test".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "claim");
        params.subject_alt_names.push(SanType::URI("spiffe://a/b\",\"DNS:admin".try_into().unwrap()));
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let names = |shown: &Shown| shown.fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert!(Shown::of(&der, false, false).unwrap().fields.is_empty());
        assert_eq!(names(&Shown::of(&der, true, false).unwrap()), [SUBJECT, SAN, FINGERPRINT]);
        let all = Shown::of(&der, true, true).unwrap();
        assert_eq!(names(&all), [SUBJECT, SAN, FINGERPRINT, CLIENT_CERT]);
        assert_eq!(all.fields[0].1, "CN=claim");
        assert_eq!(all.fields[1].1, "\"DNS:claim.test\", \"URI:spiffe://a/b\\\",\\\"DNS:admin\"", "one name, not two");
        assert_eq!(all.fields[2].1.len(), 64);
        assert!(all.fields[3].1.to_str().unwrap().starts_with(":MII"));
        assert_eq!(Shown::of(b"nonsense", true, true), None);
    }

    #[test]
    fn names_of_such_fields_are_known() {
        for name in [CLIENT_CERT.as_str(), SUBJECT.as_str(), "client-cert-chain", "x-client-cert-verify"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["x-client", "client-id", "x-x-client-cert", "host"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
