//! Where the database is and how to be let in; what a connection must be like before anything is entrusted to it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use crate::config::model::UpstreamTls;
use crate::net::tls;

/// How long a connection may take to be made, each host of the list.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the kernel waits for an answer to what was sent, before it gives the connection up.
const UNACKED: Duration = Duration::from_secs(5);

/// How to use a database.
#[derive(Clone)]
pub struct Options {
    /// Where, as a URL or in `key=value` form (libpq's); several hosts for a primary and its standbys.
    pub url: String,
    /// The password, where the URL has none.
    pub password: Option<String>,
    /// A file with the password; counts before the others.
    pub password_file: Option<PathBuf>,
    /// A file with the authorities to trust, PEM: with it, nothing but TLS is spoken.
    pub ca: Option<PathBuf>,
    /// Connections, at most: half of them for claims.
    pub connections: usize,
    /// How long the server may take for one statement.
    pub statement_limit: Duration,
}

impl Options {
    /// The defaults: 8 connections, 2 s a statement.
    pub fn new(url: impl Into<String>) -> Self {
        let statement_limit = Duration::from_secs(2);
        Self { url: url.into(), password: None, password_file: None, ca: None, connections: 8, statement_limit }
    }
}

/// Why a store on PostgreSQL could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be understood. Its text is left out: it may hold a password.
    #[error("the database's URL cannot be understood: {reason}")]
    Url {
        /// What is wrong.
        reason: String,
    },
    /// A file of the options cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No database was reached in time.
    #[error("no connection to the database: {reason}")]
    Unreachable {
        /// What was said last.
        reason: String,
    },
    /// The database does not let us in, or is not there.
    #[error("the database refuses: {reason}")]
    Refused {
        /// What the server said.
        reason: String,
    },
    /// The server is set up so that it may forget what it has confirmed.
    #[error("the server runs with {setting} = off: it may forget orders that it has confirmed. Set it to on")]
    Forgetful {
        /// Which setting.
        setting: &'static str,
    },
    /// The tables are those of a newer release.
    #[error("the database has schema {found}, and this release knows {known}: use the release that made it")]
    Newer {
        /// What it has.
        found: i32,
        /// What we know.
        known: i32,
    },
    /// The tables could not be made.
    #[error("schema {version} cannot be made: {reason}")]
    Schema {
        /// Which version.
        version: i32,
        /// What the server said.
        reason: String,
    },
}

/// A database, ready to be connected to.
pub(super) struct Place {
    pub(super) config: Config,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) statement_limit: Duration,
}

impl Place {
    pub(super) fn new(options: &Options) -> Result<Self, ConnectError> {
        let mut config =
            Config::from_str(&options.url).map_err(|e| ConnectError::Url { reason: super::fault::words(&e) })?;
        if config.get_hosts().is_empty() {
            return Err(ConnectError::Url { reason: "it names no host".into() });
        }
        match (&options.password_file, &options.password) {
            (Some(path), _) => drop(config.password(secret(path)?)),
            (None, Some(password)) => drop(config.password(password)),
            (None, None) => {}
        }
        if config.get_application_name().is_none() {
            config.application_name("springtide");
        }
        // A standby takes no orders: of several hosts, the one that does is used.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.connect_timeout(*config.get_connect_timeout().unwrap_or(&CONNECT));
        config.tcp_user_timeout(UNACKED).keepalives_idle(UNACKED);
        let tls = match &options.ca {
            Some(ca) => {
                config.ssl_mode(SslMode::Require);
                let tls = UpstreamTls { name: String::new(), ca: ca.clone(), certificate: None };
                let file = |e: tls::TlsError| ConnectError::File { path: ca.clone(), reason: e.to_string() };
                Some(tls::client_config(&tls).map_err(file)?)
            }
            None if config.get_ssl_mode() == SslMode::Require => {
                return Err(ConnectError::Url { reason: "it asks for TLS, and no file says whom to trust".into() });
            }
            None => None,
        };
        Ok(Self { config, tls, statement_limit: options.statement_limit })
    }

    /// How long it may take to be connected and let in, whichever host of the list it is.
    pub(super) fn dial_limit(&self) -> Duration {
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX);
        self.config.get_connect_timeout().unwrap_or(&CONNECT).saturating_mul(hosts).saturating_add(self.statement_limit)
    }

    /// The hosts, for logs: no user, no password.
    pub(super) fn hosts(&self) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<_> = self.config.get_hosts().iter().map(host).collect();
        format!("{}/{}", hosts.join(","), self.config.get_dbname().unwrap_or("(default)"))
    }
}

fn secret(path: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| ConnectError::File { path: path.to_path_buf(), reason: e.to_string() })?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(ConnectError::File { path: path.to_path_buf(), reason: "there is no password in it".into() });
    }
    Ok(text.to_owned())
}
