//! How a command is told of a PostgreSQL database. A password comes from a file or from the environment, never from the
//! command line, which everybody on the machine can read.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::base::units;
use crate::redpacket::store::postgres::Options;

/// The environment's variable with the password.
const PASSWORD: &str = "SPRINGTIDE_POSTGRES_PASSWORD";

/// Where the database is.
#[derive(Args)]
pub(super) struct PostgresArgs {
    /// The PostgreSQL database with the orders or packets: `postgres://user@host/database` (several hosts for a primary and its
    /// standbys: `host1,host2`), or libpq's `key=value` form. Its password comes from the file below, or from the
    /// environment as SPRINGTIDE_POSTGRES_PASSWORD.
    #[arg(long, value_name = "URL", env = "SPRINGTIDE_POSTGRES", hide_env_values = true)]
    pub(super) postgres: Option<String>,
    /// A file with the database's password.
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_password_file: Option<PathBuf>,
    /// A file with the authorities that the database's certificate is verified against, PEM. With it, only TLS is spoken.
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_ca: Option<PathBuf>,
    /// Connections to the database, at most; of a claim process, half of them are for claims.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
    postgres_connections: u16,
    /// How long the database may take for one statement.
    #[arg(long, default_value = "2s", value_parser = units::duration, value_name = "TIME")]
    postgres_statement_timeout: Duration,
}

impl PostgresArgs {
    /// The options of the store; nothing where no database is named.
    pub(super) fn options(&self) -> Option<Options> {
        let url = self.postgres.as_ref()?;
        let mut options = Options::new(url.clone());
        options.password = std::env::var(PASSWORD).ok().filter(|password| !password.is_empty());
        options.password_file.clone_from(&self.postgres_password_file);
        options.ca.clone_from(&self.postgres_ca);
        options.connections = usize::from(self.postgres_connections);
        options.statement_limit = self.postgres_statement_timeout;
        Some(options)
    }
}

impl std::fmt::Debug for PostgresArgs {
    /// The URL is left out: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresArgs").field("connections", &self.postgres_connections).finish_non_exhaustive()
    }
}
