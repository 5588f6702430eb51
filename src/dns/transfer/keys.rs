//! The secrets that are shared with secondaries (TSIG, RFC 8945): read from the files of the configuration.
//!
//! All that is wrong is told at once. A secret that others may read is used, and told of.

use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::file;
use crate::config::{Config, DnsKey, KeyAlgorithm};
use crate::wire::tsig::{Algorithm, Key};
use crate::wire::{name, rdata};

/// The longest file with a secret.
const MAX_SECRET: u64 = 4_096;
/// The shortest secret that is taken, in octets. RFC 8945 section 8 wants as many as the hash has; half of it is enough for
/// those that are there already.
const MIN_SECRET: usize = 16;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("key {name}: {}: {problem}", file.display())]
pub struct KeyError {
    /// The key.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What is wrong.
    pub problem: KeyProblem,
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// The file can't be read.
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    /// It is not what it should be.
    #[error("is not one secret in base64; `tsig-keygen` of BIND makes one: put what stands behind `secret` there")]
    NotBase64,
    /// It is too short to be a secret.
    #[error("the secret has {octets} octets; fewer than {MIN_SECRET} can be guessed")]
    Short {
        /// How many it has.
        octets: usize,
    },
    /// The name is none.
    #[error("its name is no domain name: {0}")]
    Name(name::NameError),
    /// Others may read it.
    #[error("others may read this secret (mode {mode:03o}): run `chmod 600` on it")]
    Open {
        /// Its permissions.
        mode: u32,
    },
}

/// What came of reading all secrets.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Those that can be used; all of them, where there are no errors.
    pub keys: Vec<Arc<Key>>,
    /// Those that cannot.
    pub errors: Vec<KeyError>,
    /// What is not good, but no reason to refuse.
    pub warnings: Vec<KeyError>,
}

/// Reads the secrets that `config` names.
pub fn load(config: &Config) -> Loaded {
    let mut loaded = Loaded::default();
    for key in config.dns.iter().flat_map(|dns| &dns.keys) {
        let told = |problem| KeyError { name: key.name.clone(), file: key.secret_file.clone(), problem };
        match read(key) {
            Ok((made, metadata)) => {
                loaded.keys.push(Arc::new(made));
                let open = file::open_to_others(&metadata);
                loaded.warnings.extend(open.map(|mode| told(KeyProblem::Open { mode })));
            }
            Err(problem) => loaded.errors.push(told(problem)),
        }
    }
    loaded
}

fn read(key: &DnsKey) -> Result<(Key, Metadata), KeyProblem> {
    let algorithm = match key.algorithm {
        KeyAlgorithm::HmacSha256 => Algorithm::Sha256,
        KeyAlgorithm::HmacSha384 => Algorithm::Sha384,
        KeyAlgorithm::HmacSha512 => Algorithm::Sha512,
    };
    let wire = name::parse(&key.name, Some(b"\0")).map_err(KeyProblem::Name)?;
    let (text, metadata) = file::text(&key.secret_file, MAX_SECRET).map_err(KeyProblem::Read)?;
    let secret = rdata::base64(text.trim()).ok_or(KeyProblem::NotBase64)?;
    if secret.len() < MIN_SECRET {
        return Err(KeyProblem::Short { octets: secret.len() });
    }
    Ok((Key::new(&wire, algorithm, &secret), metadata))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::Dns;

    #[test]
    fn secrets_are_whole_long_enough_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let key = DnsKey { name: "xfr".into(), algorithm: KeyAlgorithm::default(), secret_file: path.clone() };
        let config = Config { dns: Some(Dns { keys: vec![key], ..Dns::default() }), ..Config::default() };
        let said = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let loaded = load(&config);
            let shown = |all: &[KeyError]| all.iter().map(|e| e.problem.to_string()).collect::<Vec<_>>().join("\n");
            (loaded.keys.len(), shown(&loaded.errors), shown(&loaded.warnings))
        };
        let secret = "AAECAwQFBgcICQoLDA0ODw==\n";
        assert_eq!(said(secret, 0o600), (1, String::new(), String::new()));
        assert_eq!(
            said(secret, 0o640),
            (1, String::new(), "others may read this secret (mode 640): run `chmod 600` on it".into())
        );
        let long = said(&"AAAA".repeat(2_000), 0o600);
        assert_eq!(
            long,
            (0, "cannot be read: larger than 4096 octets".into(), String::new()),
            "a part of it is no secret"
        );
        assert_eq!(said("AAAA", 0o600).1, "the secret has 3 octets; fewer than 16 can be guessed");
        assert!(said("it's none", 0o600).1.starts_with("is not one secret in base64"));
    }
}
