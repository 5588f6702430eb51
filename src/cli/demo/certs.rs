//! A certificate authority for the demo, and the certificate of its edges. Valid for this run, trusted by nobody else.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::DemoError;

/// The demo's domain; `.test` is kept for such use (RFC 6761 section 6.2).
pub(super) const DOMAIN: &str = "hongbao.test";

/// Writes `ca.pem`, `edge.pem` and `edge.key` into `folder`.
pub(super) fn write(folder: &Path) -> Result<(), DemoError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Springtide demo authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![DOMAIN.to_owned(), format!("*.{DOMAIN}")])?;
    params.distinguished_name.push(DnType::CommonName, DOMAIN);
    let edge = params.signed_by(&key, &authority)?;

    fs::write(folder.join("ca.pem"), authority.pem())?;
    fs::write(folder.join("edge.pem"), edge.pem())?;
    fs::write(folder.join("edge.key"), key.serialize_pem())?;
    Ok(())
}
