//! TLS at both ends: certificates from files, the terms of listeners, a client side that verifies and shows who we are.
//!
//! One provider (aws-lc-rs), named explicitly and never taken from the process. A listener's terms are those of the snapshot
//! in which a connection comes in, so a reload needs no new listener; the name server chooses its certificate from the
//! snapshot at each handshake. It refuses keys that don't fit, names the file and says what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::base::clock::Wall;
use crate::base::file;
use crate::config::{ListenerTls, Protocol, SecureWay, UpstreamTls};
use crate::snapshot::Published;
use crate::snapshot::topology::Certificate;
use crate::wire::x509;

mod terms;
mod tickets;

pub use terms::{NotShown, judged, shown, terms};
pub use tickets::TicketsError;

/// When to warn: what renews itself does so a month ahead (Let's Encrypt's advice), so two weeks before it is overdue.
pub const EXPIRES_SOON: Duration = Duration::from_hours(14 * 24);

/// Certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; check that it exists and that this user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not PEM.
    #[error("{}: broken PEM ({source}); it must hold whole -----BEGIN/END----- blocks", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{}: no certificate in it; it must hold the chain as -----BEGIN CERTIFICATE----- blocks, the server's own first", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no private key.
    #[error("{}: no private key in it; it must hold one unencrypted -----BEGIN PRIVATE KEY----- block (PKCS #8, PKCS #1 or SEC1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate or the key cannot be used.
    #[error("{}: cannot be used: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The first certificate of the chain is not the one of this key.
    #[error("{}: is not the key of the first certificate in {}; the chain must begin with the server's own certificate", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate names no host.
    #[error("{}: the certificate has no subjectAltName, and clients look nowhere else (RFC 9525); issue one that names its hosts", path.display())]
    Nameless {
        /// The file.
        path: PathBuf,
    },
    /// None of the certificates is an authority that can be trusted.
    #[error("{}: no usable authority in it: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The keys of session tickets cannot be used.
    #[error(transparent)]
    Tickets(#[from] TicketsError),
    /// The cryptography library refused its own defaults.
    #[error("TLS cannot be set up: {source}")]
    Setup {
        /// What is wrong.
        source: rustls::Error,
    },
}

/// The certificates of a listener, in the order of the configuration, each with its key and the names it is good for.
pub fn load_certificates(tls: &ListenerTls) -> Result<Vec<Certificate>, TlsError> {
    tls.pairs.iter().map(|(chain, key)| load_pair(chain, key)).collect()
}

fn load_pair(chain_path: &Path, key_path: &Path) -> Result<Certificate, TlsError> {
    let certificate = load_own(chain_path, key_path)?;
    // A client finds us by a name; we ourselves, as a client, may have none.
    if certificate.names.is_empty() {
        return Err(TlsError::Nameless { path: chain_path.into() });
    }
    Ok(certificate)
}

fn load_own(chain_path: &Path, key_path: &Path) -> Result<Certificate, TlsError> {
    let chain = read_certificates(chain_path)?;
    let key_pem = read(key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoKey { path: key_path.into() },
        source => TlsError::Pem { path: key_path.into(), source },
    })?;
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Unusable { path, source }
    };
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(unusable(key_path))?;
    let facts = chain.first().and_then(|own| x509::facts(own)).ok_or_else(|| {
        unusable(chain_path)(rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding))
    })?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().or_else(|e| match e {
        // The library cannot tell for every kind of key; a wrong one then shows at the first handshake.
        rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown) => Ok(()),
        rustls::Error::InconsistentKeys(_) => {
            Err(TlsError::Mismatch { certificate: chain_path.into(), key: key_path.into() })
        }
        source => Err(unusable(chain_path)(source)),
    })?;
    Ok(Certificate { names: facts.names, key: Arc::new(certified) })
}

/// A certificate that is over, or soon will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The first of its names.
    pub name: String,
    /// What is left; zero when it is over.
    pub remaining: Duration,
}

impl fmt::Display for Expiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, remaining } = self;
        match remaining.as_secs() / 86_400 {
            _ if remaining.is_zero() => write!(f, "the certificate for {name} has expired; clients refuse it"),
            0 => write!(f, "the certificate for {name} expires within a day"),
            days => write!(f, "the certificate for {name} expires in {days} days"),
        }?;
        f.write_str(": put a new one in its file, then reload")
    }
}

/// Those of `certificates` that expire within [`EXPIRES_SOON`] of `now`. Still served: late is better than nothing.
pub fn expiring(certificates: &[Certificate], now: Wall) -> Vec<Expiring> {
    let left = |certificate: &Certificate| {
        let facts = x509::facts(certificate.key.cert.first()?)?;
        let remaining = facts.not_after.since(now);
        let subject = || x509::holder(certificate.key.cert.first()?).map(|holder| holder.subject);
        let name = facts.names.first().cloned().or_else(subject).unwrap_or_default();
        (remaining < EXPIRES_SOON).then_some(Expiring { name, remaining })
    };
    certificates.iter().filter_map(left).collect()
}

/// `tcp`, a listener's server side, as HTTP/3 beside it has it: with its certificates, tickets and judge of clients. QUIC has
/// TLS 1.3 and no other (RFC 9001 section 4.2). Nothing is read before the handshake is over (0-RTT), which could be replayed.
pub fn http3_config(tcp: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = tcp.clone();
    config.alpn_protocols = vec![b"h3".to_vec()];
    config.max_early_data_size = 0;
    Arc::new(config)
}

/// The server side of one of the name server's encrypted ways: its certificate from the snapshot of the moment, tickets under
/// rotating keys. Make one and share it: tickets hold within one configuration.
pub fn dns_server_config(published: Arc<Published>, way: SecureWay) -> Result<Arc<ServerConfig>, TlsError> {
    match way {
        // RFC 7858 section 3.1 names no ALPN; "dot" is what the IANA has for it, and who offers none is served too.
        SecureWay::Tls => serving(published, way, ALL_VERSIONS, &[b"dot"]),
        SecureWay::Https => serving(published, way, ALL_VERSIONS, &HTTP),
        // QUIC has TLS 1.3 and no other (RFC 9001 section 4.2).
        SecureWay::Quic => serving(published, way, &[&TLS13], &[b"doq"]),
    }
}

/// The largest file of certificates or of a key: all authorities of a system take some 200 KiB.
const MAX_PEM: u64 = 16 << 20;
/// What a browser may speak, the better one first.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

fn serving(
    published: Arc<Published>,
    way: SecureWay,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let setup = |source| TlsError::Setup { source };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chooser { published, way }));
    config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
    // Tickets do; a cache beside them would cost memory and a lock for each handshake.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The certificate that we ourselves show to an upstream, where one is configured.
///
/// # Errors
/// Its files cannot be used.
pub fn own_certificate(tls: &UpstreamTls) -> Result<Option<Certificate>, TlsError> {
    tls.certificate.as_ref().map(|(chain, key)| load_own(chain, key)).transpose()
}

/// The client side towards an upstream: verifies against `tls.ca` alone, and shows our certificate where it is asked for
/// one. Its ALPN is empty; [`speaking`] sets it.
pub fn client_config(tls: &UpstreamTls) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in read_certificates(&tls.ca)? {
        roots.add(authority).map_err(|e| TlsError::Authority { path: tls.ca.clone(), source: e.into() })?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| TlsError::Authority { path: tls.ca.clone(), source: e.into() })?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup { source })?
        .with_webpki_verifier(verifier);
    let config = match own_certificate(tls)? {
        Some(own) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*own.key).clone()))),
        None => config.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// The same client side with the ALPN of `protocol`. Make it once for a service: sessions are resumed within one.
pub fn speaking(config: &ClientConfig, protocol: Protocol) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Arc::new(config)
}

/// Octets that nobody can guess; `None` where the system has none to give.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut octets = [0; N];
    provider().secure_random.fill(&mut octets).is_ok().then_some(octets)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = file::read(path, MAX_PEM).map(|(octets, _)| octets);
    read.map_err(|source| TlsError::Unreadable { path: path.into(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { path: path.into(), source })?;
    if certificates.is_empty() { Err(TlsError::NoCertificate { path: path.into() }) } else { Ok(certificates) }
}

/// Chooses a certificate at each handshake.
#[derive(Debug)]
struct Chooser {
    published: Arc<Published>,
    way: SecureWay,
}

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.published.load();
        let certificates = snapshot.topology.assets.dns_certificates.get(self.way as usize)?;
        choose(certificates, hello.server_name(), |key| key.choose_scheme(hello.signature_schemes()).is_some())
            .map(|c| Arc::clone(&c.key))
    }
}

/// The certificate for `name`: one with that very name, else with a wildcard for it, else the first; of equals one whose
/// key the client can verify (RSA and ECDSA may stand side by side).
fn choose<'a>(
    certificates: &'a [Certificate],
    name: Option<&str>,
    verifiable: impl Fn(&dyn rustls::sign::SigningKey) -> bool,
) -> Option<&'a Certificate> {
    let name = name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let parent = name.split_once('.').map(|(_, parent)| parent);
    let rank = |certificate: &Certificate| {
        let is_exact = certificate.names.contains(&name);
        let is_wild =
            || certificate.names.iter().any(|n| n.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent));
        let fit = if is_exact { 2 } else { i32::from(is_wild()) };
        (fit, verifiable(&*certificate.key.key))
    };
    // `max_by_key` gives the last of equals; the first is wanted.
    certificates.iter().rev().max_by_key(|certificate| rank(certificate))
}

#[cfg(test)]
mod tests;
