//! How a listener shakes hands: versions, key exchange, tickets, and who must show a certificate.
//!
//! Made from files with every load, whole or not at all; a connection takes the terms of the moment in which it comes in. A
//! session that is resumed brings along the certificate that its client showed in the first place: [`shown`] verifies it
//! anew, so that neither a revocation nor another listener's leniency is outlived by a ticket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection};

use super::{HTTP, TlsError, choose, provider, read, read_certificates, tickets};
use crate::base::clock::Wall;
use crate::config::{ClientAuth, ClientCertificate, ListenerTls, PassOn, TlsVersion};
use crate::snapshot::topology::{Certificate, Terms};
use crate::wire::client_cert::Shown;

/// The terms of a listener with these `certificates`, which are those of `tls`. Its own tickets hold on from those
/// `before`.
///
/// # Errors
/// A file that cannot be used.
pub fn terms(tls: &ListenerTls, certificates: &[Certificate], before: Option<&Terms>) -> Result<Terms, TlsError> {
    let setup = |source| TlsError::Setup { source };
    let versions = match tls.min_version {
        TlsVersion::V12 => &[&TLS13, &TLS12][..],
        TlsVersion::V13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(exchanging(tls.post_quantum))
        .with_protocol_versions(versions)
        .map_err(setup)?;
    let clients = tls.clients.as_ref().map(verifier).transpose()?;
    let builder = match &clients {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(Own(certificates.to_vec())));
    server.alpn_protocols = HTTP.iter().map(|id| id.to_vec()).collect();
    let own = before.filter(|before| !before.is_of_fleet).map(|before| Arc::clone(&before.server.ticketer));
    server.ticketer = match (&tls.tickets, own) {
        (Some(file), _) => tickets::load(file)?,
        (None, Some(own)) => own,
        (None, None) => aws_lc_rs::Ticketer::new().map_err(setup)?,
    };
    // Tickets do; a cache beside them would cost memory and a lock for each handshake.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 1;
    let pass_on = tls.clients.as_ref().map_or(PassOn::Nothing, |clients| clients.pass_on);
    Ok(Terms { server: Arc::new(server), clients, pass_on, is_of_fleet: tls.tickets.is_some() })
}

/// The provider with these groups, the better one first. The hybrid one is safe if either of its halves is (RFC 9794 has
/// the terms, draft-ietf-tls-ecdhe-mlkem the group); it costs a client some 1,100 octets and us some 30 us.
fn exchanging(post_quantum: bool) -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519, SECP256R1, SECP384R1];
    if post_quantum {
        provider.kx_groups.insert(0, X25519MLKEM768);
    }
    Arc::new(provider)
}

fn verifier(clients: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &clients.ca {
        for authority in read_certificates(path)? {
            roots.add(authority).map_err(|e| TlsError::Authority { path: path.clone(), source: e.into() })?;
        }
    }
    let path = || clients.crl.first().or(clients.ca.first()).cloned().unwrap_or_default();
    let lists = clients.crl.iter().map(|path| revoked(path)).collect::<Result<Vec<_>, _>>()?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .with_crls(lists.into_iter().flatten())
        .allow_unknown_revocation_status();
    if clients.wanted == ClientCertificate::Request {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|e| TlsError::Authority { path: path(), source: e.into() })
}

/// The lists of revoked certificates in a file: PEM, or one in DER.
fn revoked(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let octets = read(path)?;
    if octets.first() == Some(&0x30) {
        return Ok(vec![CertificateRevocationListDer::from(octets)]);
    }
    let broken = |source| TlsError::Pem { path: path.into(), source };
    let lists: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(&octets).collect::<Result<_, _>>().map_err(broken)?;
    if lists.is_empty() { Err(broken(pem::Error::NoItemsFound)) } else { Ok(lists) }
}

/// A client has not shown what it must.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotShown {
    /// The session that it resumes was made without a certificate, and here one is required.
    #[error("a session without a certificate")]
    None,
    /// The certificate of the session that it resumes is not good any more, or not here.
    #[error("the certificate of a session: {0}")]
    Refused(rustls::Error),
    /// It cannot be read.
    #[error("a certificate that cannot be read")]
    Unreadable,
}

/// The certificate that the client of `session` has shown under `terms`, verified; `None`: it was not asked, or had none.
///
/// # Errors
/// As [`NotShown`] lists: the connection is not to be served.
pub fn shown(terms: &Terms, session: &ServerConnection, now: Wall) -> Result<Option<Arc<Shown>>, NotShown> {
    let is_resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    judged(terms, session.peer_certificates(), is_resumed.then_some(now))
}

/// The same where a client has shown the chain `shown`, which is verified again where it is said when that is.
///
/// # Errors
/// As [`NotShown`] lists: the connection is not to be served.
pub fn judged(
    terms: &Terms,
    shown: Option<&[CertificateDer<'_>]>,
    again: Option<Wall>,
) -> Result<Option<Arc<Shown>>, NotShown> {
    let Some(verifier) = &terms.clients else { return Ok(None) };
    let Some((own, others)) = shown.and_then(<[_]>::split_first) else {
        return if verifier.client_auth_mandatory() { Err(NotShown::None) } else { Ok(None) };
    };
    if let Some(now) = again {
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        verifier.verify_client_cert(own, others, now).map_err(NotShown::Refused)?;
    }
    let shown = Shown::of(own, terms.pass_on != PassOn::Nothing, terms.pass_on == PassOn::Certificate);
    shown.map(Arc::new).map(Some).ok_or(NotShown::Unreadable)
}

/// Chooses among the certificates of a listener.
#[derive(Debug)]
struct Own(Vec<Certificate>);

impl ResolvesServerCert for Own {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let verifiable = |key: &dyn rustls::sign::SigningKey| key.choose_scheme(hello.signature_schemes()).is_some();
        choose(&self.0, hello.server_name(), verifiable).map(|c| Arc::clone(&c.key))
    }
}
