//! `springtide keys tickets`: makes and rotates the file of keys that a fleet seals its session tickets with.
//!
//! Works on the file alone, whole or not at all, and for its owner only. Nodes take it up with their next reload.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::base::clock::{Clock as _, SystemClock};
use crate::base::file;
use crate::dns::sign::keys::when;
use crate::net::tls;
use crate::wire::ticket::{self, KeysError, MOST_KEYS, Secret};

/// Largest file that is read.
const MAX_FILE: u64 = 64 * 1024;

/// A file of keys, and how many stay in it.
#[derive(Debug, Args)]
pub(super) struct TicketsArgs {
    /// The file (`tickets.file` of a listener's `tls`). Where there is none it is made; otherwise its keys are rotated.
    file: PathBuf,
    /// How many keys stay: the first makes tickets, the second will be the next to, the others open those of before.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=MOST_KEYS as i64))]
    keep: u8,
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TicketKeysFailure {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It holds something else: nothing is written over it.
    #[error("{}: {source}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeysError,
    },
    /// There is no randomness.
    #[error("the system gives no random numbers")]
    Entropy,
}

impl TicketsArgs {
    #[expect(clippy::print_stdout, reason = "what was done and what follows is the output")]
    pub(super) fn run(self) -> Result<ExitCode, TicketKeysFailure> {
        let path = &self.file;
        let failed = |source| TicketKeysFailure::File { path: path.clone(), source };
        let before: Vec<Secret> = match file::text(path, MAX_FILE) {
            Ok((text, _)) => {
                ticket::parse(&text).map_err(|source| TicketKeysFailure::Wrong { path: path.clone(), source })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed(source)),
        };
        let fresh = || tls::random::<{ ticket::KEY }>().ok_or(TicketKeysFailure::Entropy);
        let mut after = before.clone();
        if before.is_empty() {
            after = ticket::rotate(&after, fresh()?, self.keep.into());
        }
        after = ticket::rotate(&after, fresh()?, self.keep.into());
        let now = u32::try_from(SystemClock.wall().0 / 1_000).unwrap_or(u32::MAX);
        let text = ticket::write(&after, &format!("Rotated {}.", when(now)));
        file::replace(path, text.as_bytes(), 0o600).map_err(failed)?;
        let done = if before.is_empty() { "made" } else { "rotated" };
        println!("{}: {done}, {} keys.", path.display(), after.len());
        println!("Copy it to every node, then reload them; until then they open each other's tickets all the same.");
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_made_and_rotated_and_nothing_else_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tickets");
        let run = || TicketsArgs { file: file.clone(), keep: 3 }.run();
        let keys = || ticket::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
        run().unwrap();
        let first = keys();
        assert_eq!(first.len(), 2);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        run().unwrap();
        let second = keys();
        assert_eq!((second.len(), second[0], second[2]), (3, first[1], first[0]));
        run().unwrap();
        assert_eq!((keys().len(), keys()[0], keys()[2]), (3, second[1], second[0]));
        std::fs::write(&file, "something else\n").unwrap();
        assert!(run().unwrap_err().to_string().contains("line 1 is no key"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else\n");
    }
}
