//! The ticketer of a fleet: seals and opens session tickets under the keys of a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ProducesTickets;

use super::random;
use crate::base::clock::{Clock, SystemClock};
use crate::base::file;
use crate::config::Tickets;
use crate::wire::ticket::{self, Keys, KeysError};

/// Largest file that is read: as many keys as may be, with a page of remarks.
const MAX_FILE: u64 = 64 * 1024;

/// The file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketsError {
    /// It can't be read.
    #[error("{}: the keys of session tickets cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("{}: {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeysError,
    },
}

/// Seals and opens the tickets of a fleet.
#[derive(Debug)]
struct Fleet {
    keys: Keys,
    lifetime: Duration,
}

impl ProducesTickets for Fleet {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(session, random()?, SystemClock.wall())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.open(ticket, self.lifetime, SystemClock.wall())
    }
}

/// The ticketer that `wanted` asks for.
///
/// # Errors
/// As [`TicketsError`] lists.
pub(super) fn load(wanted: &Tickets) -> Result<Arc<dyn ProducesTickets>, TicketsError> {
    let path = &wanted.file;
    let (text, metadata) =
        file::text(path, MAX_FILE).map_err(|source| TicketsError::Unreadable { path: path.clone(), source })?;
    if let Some(mode) = file::open_to_others(&metadata) {
        let (file, mode) = (path.display(), format!("{mode:03o}"));
        tracing::warn!(target: "config", %file, mode, "others may read the keys of session tickets: chmod 600");
    }
    let wrong = |source| TicketsError::Wrong { path: path.clone(), source };
    let secrets = ticket::parse(&text).map_err(wrong)?;
    // Of 32 octets each: the library takes them all.
    let keys = Keys::of(&secrets).ok_or_else(|| wrong(KeysError::Empty))?;
    Ok(Arc::new(Fleet { keys, lifetime: wanted.lifetime }))
}
