//! Whether a client has shown the certificate that a route requires.

use crate::config::{Requirement, SanMatch};
use crate::wire::x509::{Holder, San};

/// Whether the client that has shown the certificate of `holder`, verified, or none, meets `requirement`.
pub fn is_met(requirement: &Requirement, holder: Option<&Holder>) -> bool {
    match (requirement, holder) {
        (_, None) => false,
        (Requirement::ClientCertificate, Some(_)) => true,
        (Requirement::ClientNamed(wanted), Some(holder)) => {
            holder.names.iter().any(|name| wanted.iter().any(|wanted| is_named(wanted, name)))
        }
    }
}

fn is_named(wanted: &SanMatch, name: &San) -> bool {
    match (wanted, name) {
        (SanMatch::Dns(wanted), San::Dns(name))
        | (SanMatch::Uri(wanted), San::Uri(name))
        | (SanMatch::Email(wanted), San::Email(name)) => wanted == name,
        // A certificate for a wildcard names nobody.
        (SanMatch::Below(parent), San::Dns(name)) => {
            name.split_once('.').is_some_and(|(label, rest)| rest == parent && !label.is_empty() && label != "*")
        }
        (SanMatch::Ip(wanted), San::Ip(name)) => wanted == name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_with_names_of_its_kind() {
        let holder = |names: &[San]| Holder { subject: String::new(), names: names.to_vec() };
        let dns = |name: &str| San::Dns(name.into());
        let below = Requirement::ClientNamed(vec![SanMatch::Below("gifts.internal".into())]);
        for (name, is_met_by) in [
            ("claim.gifts.internal", true),
            ("gifts.internal", false),
            ("a.claim.gifts.internal", false),
            ("*.gifts.internal", false),
            (".gifts.internal", false),
        ] {
            assert_eq!(is_met(&below, Some(&holder(&[dns("other"), dns(name)]))), is_met_by, "{name}");
        }
        let uri =
            Requirement::ClientNamed(vec![SanMatch::Uri("spiffe://a/b".into()), SanMatch::Ip([10, 0, 0, 1].into())]);
        assert!(is_met(&uri, Some(&holder(&[San::Uri("spiffe://a/b".into())]))));
        assert!(is_met(&uri, Some(&holder(&[San::Ip([10, 0, 0, 1].into())]))));
        assert!(!is_met(&uri, Some(&holder(&[dns("spiffe://a/b"), dns("10.0.0.1")]))), "a DNS name is no URI");
        assert!(!is_met(&uri, Some(&holder(&[]))));
        assert!(!is_met(&uri, None));
        assert!(is_met(&Requirement::ClientCertificate, Some(&holder(&[]))));
        assert!(!is_met(&Requirement::ClientCertificate, None));
    }
}
