//! Where the secrets of DNS cookies come from: the fleet's file, or a random one that lives as long as the process.

use std::path::PathBuf;

use crate::base::file;
use crate::config::DnsCookies;
use crate::net::tls;
use crate::wire::dns::cookie::{SecretError, Secrets};

/// Largest file that is read: secrets with a page of remarks.
const MAX_FILE: u64 = 64 * 1024;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// It can't be read.
    #[error("{}: the cookie secrets cannot be read: {source}", path.display())]
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
        source: SecretError,
    },
}

/// The secrets that `cookies` asks for. `before` are those in force until now: where no file is named they stay, so that a
/// reload makes no client learn a new cookie.
///
/// # Errors
/// The file can't be read or holds something else.
pub fn load(cookies: &DnsCookies, before: Option<(&DnsCookies, &Secrets)>) -> Result<Secrets, SecretsError> {
    let Some(path) = &cookies.key_file else {
        let kept = before.filter(|(c, s)| c.key_file.is_none() && !s.is_empty()).map(|(_, s)| s.clone());
        // Without randomness there is no TLS either; then cookies are not spoken.
        return Ok(kept.or_else(|| tls::random().map(Secrets::one)).unwrap_or_default());
    };
    let (text, _) =
        file::text(path, MAX_FILE).map_err(|source| SecretsError::Unreadable { path: path.clone(), source })?;
    Secrets::parse(&text).map_err(|source| SecretsError::Wrong { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_keeps_what_was_made_up_and_reads_what_was_written() {
        let own = DnsCookies::default();
        let first = load(&own, None).unwrap();
        assert!(!first.is_empty());
        assert_ne!(load(&own, None).unwrap(), first, "every process has its own");
        assert_eq!(load(&own, Some((&own, &first))).unwrap(), first);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cookies");
        let shared = DnsCookies { key_file: Some(path.clone()), require: false };
        let absent = load(&shared, None).unwrap_err().to_string();
        assert!(absent.contains("cookies: the cookie secrets cannot be read"), "{absent}");
        std::fs::write(&path, "00112233445566778899aabbccddeeff\n").unwrap();
        let written = load(&shared, Some((&own, &first))).unwrap();
        assert_ne!(written, first);
        assert_ne!(load(&own, Some((&shared, &written))).unwrap(), written, "the file's are not kept without it");
        std::fs::write(&path, "secret\n").unwrap();
        let wrong = load(&shared, Some((&shared, &written))).unwrap_err().to_string();
        assert!(
            wrong.ends_with(
                "line 1 is no secret: expected 32 hexadecimal digits, as `openssl rand -hex 16` prints them"
            ),
            "{wrong}"
        );
        std::fs::write(&path, "00112233445566778899aabbccddeeff\n".repeat(2_000)).unwrap();
        let large = load(&shared, Some((&shared, &written))).unwrap_err().to_string();
        assert!(large.ends_with("larger than 65536 octets"), "its first part is not it: {large}");
    }
}
