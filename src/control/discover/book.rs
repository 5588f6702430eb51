//! What sources have found, on disk: what a restart begins with where a source cannot be asked.
//!
//! Written soon after a list has changed, read once on start; whole or not at all. Whatever is wrong with the file is a
//! warning, and the start goes on without it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::clock::Wall;
use crate::base::file;
use crate::config::MOST_FOUND;
use crate::snapshot::Discovered;
use crate::snapshot::discovered::{Found, SourceKey};

const NAME: &str = "discovered.json";
const FORMAT: u32 = 1;
/// Largest file that is read (ours: 100,000 backends of 100 octets, and as much again).
const MOST_BYTES: u64 = 32 << 20;

/// Why there is no book.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file makes no sense.
    #[error("{}: not a list of backends of ours: {reason}", path.display())]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// All that was known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    format: u32,
    /// By source.
    pub entries: Vec<Entry>,
}

/// What was known of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    #[serde(flatten)]
    pub source: SourceKey,
    /// When it last answered.
    pub answered: Wall,
    /// The list that was in force.
    pub backends: Vec<Found>,
    /// Of those that announced themselves, how long their registrations last, in milliseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ttls_ms: BTreeMap<SocketAddr, u64>,
}

impl Book {
    /// A book of these.
    pub const fn of(entries: Vec<Entry>) -> Self {
        Self { format: FORMAT, entries }
    }

    /// The lists in it.
    pub fn discovered(&self) -> Discovered {
        let list = |entry: &Entry| entry.backends.iter().take(MOST_FOUND).cloned().collect::<Vec<_>>().into();
        self.entries.iter().map(|entry| (entry.source.clone(), list(entry))).collect()
    }

    /// What is known of `source`.
    pub fn of_source(&self, source: &SourceKey) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.source == *source)
    }
}

impl Entry {
    /// How long the registration of a backend lasts.
    pub fn ttl(&self, address: SocketAddr) -> Option<Duration> {
        self.ttls_ms.get(&address).copied().map(Duration::from_millis)
    }
}

/// Reads what was known in `state_dir`; an empty book where nothing was.
///
/// # Errors
/// The file can't be read, is larger than any of ours, or is not what we wrote.
pub fn load(state_dir: &Path) -> Result<Book, BookError> {
    let path = state_dir.join(NAME);
    let corrupt = |reason: String| BookError::Corrupt { path: path.clone(), reason };
    let octets = match file::read(&path, MOST_BYTES) {
        Ok((octets, _)) => octets,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(e) if e.kind() == io::ErrorKind::FileTooLarge => return Err(corrupt(e.to_string())),
        Err(source) => return Err(BookError::Io { path, source }),
    };
    match serde_json::from_slice::<Book>(&octets) {
        Ok(book) if book.format == FORMAT => Ok(book),
        Ok(book) => Err(corrupt(format!("format {}", book.format))),
        Err(e) => Err(corrupt(e.to_string())),
    }
}

/// Writes `book` to `state_dir`: whole or not at all, and on disk when it returns.
///
/// # Errors
/// The file can't be written.
pub fn save(book: &Book, state_dir: &Path) -> Result<(), BookError> {
    let path = state_dir.join(NAME);
    let write = || file::replace(&path, &serde_json::to_vec(book)?, 0o644);
    write().map_err(|source| BookError::Io { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_no_book_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()).unwrap(), Book::default(), "nothing is known at first");
        let address: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let source = SourceKey { service: "s".into(), datacenter: "d".into(), origin: "register".into() };
        let backends = vec![Found { address, weight: 3, name: Some("one".into()) }];
        let ttls_ms = BTreeMap::from([(address, 5_000)]);
        let book = Book::of(vec![Entry { source: source.clone(), answered: Wall(7), backends, ttls_ms }]);
        save(&book, folder.path()).unwrap();
        let read = load(folder.path()).unwrap();
        assert_eq!(read, book);
        assert_eq!(read.discovered().of(&source).len(), 1);
        let entry = read.of_source(&source).unwrap();
        assert_eq!((entry.ttl(address), entry.answered), (Some(Duration::from_secs(5)), Wall(7)));
        for wrong in ["", "{", r#"{"format":9,"entries":[]}"#, r#"{"format":1,"entries":[{}]}"#] {
            std::fs::write(folder.path().join(NAME), wrong).unwrap();
            assert!(matches!(load(folder.path()), Err(BookError::Corrupt { .. })), "{wrong}");
        }
    }
}
