//! What went wrong with a statement, in the only terms that matter here: was it done, and does trying again make sense.
//!
//! PostgreSQL's classes (appendix A of its manual): 08 connection, 25006 read only (a standby after a failover), 40
//! rollback (serialisation, deadlock), 53 out of resources, 55P03 lock not to be had, 57 operator. What has no code broke
//! with its connection.

use tokio_postgres::error::SqlState;

use crate::redpacket::ledger::StoreError;

/// Why a statement or transaction has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server undid it, and it may well work the next time.
    Undone(String),
    /// The connection is gone, or too slow to wait for. What had been sent may be done, or be done later.
    Lost(String),
    /// No connection could be made: nothing was sent.
    Unreachable(String),
    /// The server cannot do it now: disk full, no memory, read only. Nothing was done.
    Refused(String),
    /// What the database holds is not what was written into it.
    Damaged(StoreError),
}

impl Fault {
    /// What became of a statement that failed with `error`.
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let reason = words(error);
        let Some(code) = error.code() else { return Self::Lost(reason) };
        let gone = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::DATABASE_DROPPED,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ];
        match code {
            // These arrive instead of a result; the connection ends with them, and a commit may have gone before.
            code if gone.contains(code) || code.code().starts_with("08") => Self::Lost(reason),
            code if code.code().starts_with("40") => Self::Undone(reason),
            &SqlState::LOCK_NOT_AVAILABLE | &SqlState::QUERY_CANCELED => Self::Undone(reason),
            _ => Self::Refused(reason),
        }
    }

    /// What became of a connection that could not be made. A wrong password or database (classes 28 and 3D) stays wrong.
    pub(super) fn at_the_door(error: &tokio_postgres::Error) -> Self {
        let shut = error.code().is_some_and(|code| matches!(code.code().get(..2), Some("28" | "3D")));
        if shut { Self::Refused(words(error)) } else { Self::Unreachable(words(error)) }
    }

    /// What was said.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Undone(reason) | Self::Lost(reason) | Self::Unreachable(reason) | Self::Refused(reason) => reason,
            Self::Damaged(error) => error.to_string(),
        }
    }

    /// Whether another try may go better. A full disk is tried again as well: it is checked as often as the others, and
    /// whoever waits has a deadline.
    pub(super) const fn passing(&self) -> bool {
        !matches!(self, Self::Damaged(_))
    }

    /// What a caller is told when there is no time for another try; `sent` where an earlier try may have been done.
    pub(super) fn told(self, sent: bool) -> StoreError {
        match self {
            Self::Damaged(error) => error,
            Self::Lost(reason) => StoreError::Unknown { reason },
            Self::Undone(reason) | Self::Unreachable(reason) | Self::Refused(reason) if sent => {
                StoreError::Unknown { reason }
            }
            Self::Undone(reason) | Self::Unreachable(reason) | Self::Refused(reason) => {
                StoreError::Unwritable { reason }
            }
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of(&error)
    }
}

/// The error and what is behind it: the crate's own words name the kind alone.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}
