//! The tables, made and brought up to date by the program itself: each version a text of SQL, run once.
//!
//! Under an advisory lock, in one transaction, so that of several nodes that start together one does it and the others
//! find it done. A schema that is newer than the program is refused: what an old program would write into it is anybody's
//! guess.

use super::fault::Fault;
use super::line::Line;
use super::place::ConnectError;

/// Every version, in order; the last is what this release works with.
const VERSIONS: &[&str] = &[
    // Orders, stock, delivery.
    include_str!("schema/0001.sql"),
    // Homes.
    include_str!("schema/0002.sql"),
    // Cash.
    include_str!("schema/0003.sql"),
    // Stock that moves between homes.
    include_str!("schema/0004.sql"),
];

/// The advisory lock's key: `redpack` in ASCII.
const LOCK: i64 = 0x72_6564_7061_636b;

/// What this release knows.
fn known() -> i32 {
    i32::try_from(VERSIONS.len()).unwrap_or(i32::MAX)
}

/// Why it is not up to date.
pub(super) enum Trouble {
    /// The connection, or a server that cannot now.
    Fault(Fault),
    /// For good.
    Error(ConnectError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Brings the tables up to date where they are not.
pub(super) async fn bring_up(line: &Line) -> Result<(), Trouble> {
    if version(line).await? == known() {
        return Ok(());
    }
    // Others may be at it for longer than a statement may take.
    line.say("SET statement_timeout = 0; SET lock_timeout = '60s'").await?;
    // Before the transaction: within one, a session goes on believing that a table which it looked for is not there.
    line.wait(&format!("SELECT pg_advisory_lock({LOCK})")).await?;
    line.say("BEGIN").await?;
    let found = version(line).await?;
    if found > known() {
        return Err(Trouble::Error(ConnectError::Newer { found, known: known() }));
    }
    line.wait(
        "CREATE SCHEMA IF NOT EXISTS redpacket; \
         CREATE TABLE IF NOT EXISTS redpacket.migration (version integer PRIMARY KEY, release text NOT NULL, \
         applied timestamptz NOT NULL DEFAULT now())",
    )
    .await?;
    for (version, text) in (1..).zip(VERSIONS).skip(usize::try_from(found).unwrap_or_default()) {
        let release = env!("CARGO_PKG_VERSION");
        let note = format!("INSERT INTO redpacket.migration (version, release) VALUES ({version}, '{release}')");
        match line.wait(&format!("{text};\n{note}")).await {
            Ok(()) => tracing::info!(store = "postgres", version, "schema made"),
            Err(Fault::Refused(reason)) => return Err(Trouble::Error(ConnectError::Schema { version, reason })),
            Err(fault) => return Err(fault.into()),
        }
    }
    // Where this does not get so far, the lock ends with the connection.
    line.say("COMMIT").await?;
    line.say(&format!("SELECT pg_advisory_unlock({LOCK})")).await.map_err(Trouble::from)
}

/// The version that the database has; 0 where there is none.
async fn version(line: &Line) -> Result<i32, Fault> {
    let rows = line.look("SELECT to_regclass('redpacket.migration') IS NOT NULL").await?;
    let exists = rows.first().map(|row| row.try_get::<_, bool>(0)).transpose()?;
    if exists != Some(true) {
        return Ok(0);
    }
    let rows = line.look("SELECT coalesce(max(version), 0) FROM redpacket.migration").await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}
