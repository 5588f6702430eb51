//! TLS at both ends, who must show a certificate, and who may speak for others.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// Certificates of a listener; SNI chooses among them, the first one serves who asks for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chain and key, PEM files.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// The oldest version that is spoken. Default 1.2.
    pub min_version: TlsVersion,
    /// Whether X25519MLKEM768 is offered and preferred. Default true.
    pub post_quantum: bool,
    /// Keys of session tickets that a fleet shares. `None`: this process has its own.
    pub tickets: Option<Tickets>,
    /// How clients show who they are. `None`: they are not asked.
    pub clients: Option<ClientAuth>,
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self { pairs: Vec::new(), min_version: TlsVersion::default(), post_quantum: true, tickets: None, clients: None }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2, RFC 5246.
    #[default]
    V12,
    /// 1.3, RFC 8446.
    V13,
}

/// Keys of session tickets that a fleet shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// Where they are.
    pub file: PathBuf,
    /// How long a session may be resumed. Default 12 h.
    pub lifetime: Duration,
}

/// How the clients of a listener show who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Authorities to verify against, PEM; at least one.
    pub ca: Vec<PathBuf>,
    /// Lists of revoked certificates, PEM or DER.
    pub crl: Vec<PathBuf>,
    /// Whether they must.
    pub wanted: ClientCertificate,
    /// What backends are told.
    pub pass_on: PassOn,
}

/// Whether a client has to show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It may.
    Request,
    /// It must, or there is no connection.
    #[default]
    Require,
}

/// What backends are told of a client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PassOn {
    /// Nothing.
    Nothing,
    /// Who holds it.
    #[default]
    Identity,
    /// That, and all of it (RFC 9440).
    Certificate,
}

/// TLS towards backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name to verify and to send as SNI.
    pub name: String,
    /// File with the authorities to trust, PEM.
    pub ca: PathBuf,
    /// Our own certificate chain and its key, PEM files, for backends that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// The PROXY protocol, as it is spoken to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// Version 1, text.
    V1,
    /// Version 2, binary.
    V2,
}

/// What a request must bring beside what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// A verified certificate of the client.
    ClientCertificate,
    /// One that has one of these names.
    ClientNamed(Vec<SanMatch>),
}

/// A name that a client's certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SanMatch {
    /// A DNS name, lower case.
    Dns(String),
    /// Any DNS name with exactly one label before this one, lower case.
    Below(String),
    /// A URI, to the letter.
    Uri(String),
    /// An email address, its domain in lower case.
    Email(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for SanMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) | Self::Email(name) => f.write_str(name),
            Self::Below(parent) => write!(f, "*.{parent}"),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}
