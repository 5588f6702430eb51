//! Key files in a folder: read and checked whole, written so that nobody ever sees half of one.
//!
//! A folder may hold the keys of many zones; those of one are found by their names. Gives every key or every finding. The
//! private half is written with mode 0600, into a new file that then takes its name.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::signer::Pair;
use super::timeline::{Lapse, Life, timeline};
use crate::base::file;
use crate::config::{Signed, ZoneFile};
use crate::wire::dnssec::keyfile::{self, Key, KeyProblem, Times};
use crate::wire::name;
use crate::wire::zone::WireName;

/// The most keys of one zone (ours): two of each role and algorithm, twice.
const MAX_KEYS: usize = 16;
/// The largest key file: BIND's have some 300 octets.
const MAX_FILE: u64 = 16 << 10;
/// The most files that a folder is searched through.
const MAX_ENTRIES: usize = 100_000;

/// Keys that cannot sign a zone, with all reasons.
#[derive(Debug, thiserror::Error)]
pub struct KeysError {
    /// The zone's apex.
    pub origin: String,
    /// What is wrong; at least one.
    pub findings: Vec<Finding>,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {} cannot be signed:", self.origin)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n  {finding}"))
    }
}

/// One thing that is wrong with a file or a folder.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub path: PathBuf,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

/// What is wrong with keys, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A file or folder can't be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A file can't be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// A file is no key.
    #[error(transparent)]
    Key(#[from] KeyProblem),
    /// A file is larger than a key.
    #[error("larger than {MAX_FILE} octets: this is no key")]
    Large,
    /// The file's name says another key than its content.
    #[error("holds the key {found}: give the files back their names")]
    Name {
        /// What the content makes.
        found: String,
    },
    /// The halves do not belong together.
    #[error("the private key does not belong to the public one beside it: copy both from where they were made")]
    Halves,
    /// No key at all.
    #[error("no key of {origin} ({prefix}013+*.key) is here: make one with `springtide keys make {origin} --dir {}`", folder.display())]
    None {
        /// The zone.
        origin: String,
        /// What their names begin with.
        prefix: String,
        /// Where keys were looked for.
        folder: PathBuf,
    },
    /// No key that the parent could point to.
    #[error(
        "none of the keys has the flags 257: the parent's DS needs one to point to; make it with `springtide keys make --ksk`"
    )]
    NoEntry,
    /// More keys than a zone can need.
    #[error("more than {MAX_KEYS} keys of one zone: move those whose time is over elsewhere")]
    Many,
    /// Others may read the private key.
    #[error("others may read this private key (mode {mode:03o}): run `chmod 600` on it")]
    Open {
        /// Its permissions.
        mode: u32,
    },
}

/// Reads the keys of the zone at `origin` from `folder`; with them what is not good, but no reason to refuse.
///
/// # Errors
/// Everything that is wrong with them, and where they cannot sign a zone.
pub fn load(origin: &[u8], folder: &Path) -> Result<(Vec<Key>, Vec<Finding>), KeysError> {
    let (keys, warnings) = all(origin, folder)?;
    if keys.iter().any(|k| k.public.is_entry()) {
        return Ok((keys, warnings));
    }
    let (origin, prefix) = (name::show(origin), keyfile::prefix(origin));
    let none = || Problem::None { origin: origin.clone(), prefix, folder: folder.into() };
    let problem = if keys.is_empty() { none() } else { Problem::NoEntry };
    Err(KeysError { origin, findings: vec![Finding { path: folder.into(), problem }] })
}

/// Reads whatever keys of the zone at `origin` there are in `folder`, as [`load`] does, be they enough for a zone or not.
///
/// # Errors
/// Everything that is wrong with them.
pub fn all(origin: &[u8], folder: &Path) -> Result<(Vec<Key>, Vec<Finding>), KeysError> {
    let shown = name::show(origin);
    let (mut keys, mut findings, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    match stems(folder, &keyfile::prefix(origin)) {
        Ok(stems) if stems.len() > MAX_KEYS => findings.push(Finding { path: folder.into(), problem: Problem::Many }),
        Ok(stems) => {
            for stem in stems {
                match read(folder, &stem, &mut warnings) {
                    Ok(key) => keys.push(key),
                    Err(finding) => findings.push(finding),
                }
            }
        }
        Err(error) => findings.push(Finding { path: folder.into(), problem: Problem::Read(error) }),
    }
    if findings.is_empty() { Ok((keys, warnings)) } else { Err(KeysError { origin: shown, findings }) }
}

/// Reads the keys of a zone of the configuration; gives its apex, its keys and what is not good.
///
/// # Errors
/// Everything that is wrong with them.
pub fn of(zone: &ZoneFile, rules: &Signed) -> Result<(WireName, Vec<Key>, Vec<Finding>), KeysError> {
    // A name that is none is the zone's finding; no key has it.
    let origin = name::parse(&zone.origin, None).map(|n| name::lower(&n)).unwrap_or_default();
    let (keys, warnings) = load(&origin, &rules.keys)?;
    Ok((origin, keys, warnings))
}

/// The names of key files that begin with `prefix`, without their endings, in order.
fn stems(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut stems = Vec::new();
    for entry in fs::read_dir(folder)?.take(MAX_ENTRIES) {
        let file = entry?.file_name();
        let stem = file.to_str().and_then(|f| f.strip_suffix(".key"));
        stems.extend(stem.filter(|s| s.starts_with(prefix)).map(str::to_owned));
    }
    stems.sort_unstable();
    Ok(stems)
}

/// Reads both halves of one key.
fn read(folder: &Path, stem: &str, warnings: &mut Vec<Finding>) -> Result<Key, Finding> {
    let [public_path, private_path] = ["key", "private"].map(|end| folder.join(format!("{stem}.{end}")));
    let at = |path: &Path, problem| Finding { path: path.into(), problem };
    let (text, _) = text(&public_path).map_err(|p| at(&public_path, p))?;
    let public = keyfile::read_public(&text).map_err(|p| at(&public_path, p.into()))?;
    if public.stem() != stem {
        return Err(at(&public_path, Problem::Name { found: public.stem() }));
    }
    let (text, metadata) = self::text(&private_path).map_err(|p| at(&private_path, p))?;
    let private = keyfile::read_private(&text).map_err(|p| at(&private_path, p.into()))?;
    let key = Key { public, private };
    if key.private.algorithm != key.public.algorithm || Pair::of(&key).is_none() {
        return Err(at(&private_path, Problem::Halves));
    }
    if let Some(mode) = file::open_to_others(&metadata) {
        warnings.push(at(&private_path, Problem::Open { mode }));
    }
    Ok(key)
}

fn text(path: &Path) -> Result<(String, Metadata), Problem> {
    file::text(path, MAX_FILE).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => Problem::Large,
        _ => Problem::Read(error),
    })
}

/// Writes both halves of `key` to `folder`, in the place of those before; gives the path without an ending.
///
/// # Errors
/// A file cannot be written. Where it is the public half, the private one is in its place already: the same key, perhaps with
/// other times.
pub fn store(key: &Key, folder: &Path) -> Result<PathBuf, Finding> {
    let stem = key.public.stem();
    let path = |end: &str| folder.join(format!("{stem}.{end}"));
    // The private half first: whoever finds a public half finds both.
    let halves = [
        (path("private"), keyfile::write_private(&key.private), 0o600),
        (path("key"), keyfile::write_public(&key.public, &key.private.times), 0o644),
    ];
    for (path, text, mode) in halves {
        file::replace(&path, text.as_bytes(), mode)
            .map_err(|e| Finding { path: path.clone(), problem: Problem::Write(e) })?;
    }
    Ok(folder.join(stem))
}

/// A time for people: `2026-01-31 12:00:00 UTC`.
pub fn when(seconds: u32) -> String {
    let stamp = keyfile::stamp(seconds);
    let part = |from: usize, to: usize| stamp.get(from..to).unwrap_or_default();
    let (date, time) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 14)]);
    format!("{} {} UTC", date.join("-"), time.join(":"))
}

/// The keys that the parent's DS set should name at `now`.
pub fn asked(keys: &[Key], now: u32) -> Vec<&Key> {
    keys.iter().filter(|k| k.public.is_entry() && Life::of(&k.private.times).is_asked_for(now)).collect()
}

/// What lapses with these keys from `now` on, and when each begins.
pub fn lapses(keys: &[Key], now: u32) -> Vec<(Lapse, u32)> {
    let moments = timeline(keys);
    Lapse::ALL.into_iter().filter_map(|lapse| Some((lapse, lapse.from(moments.iter(), now)?))).collect()
}

/// What `key` is among `keys`: a KSK or a ZSK where there are both, else a CSK.
pub fn role(key: &Key, keys: &[Key]) -> &'static str {
    match (key.public.is_entry(), keys.iter().any(|k| !k.public.is_entry())) {
        (false, _) => "ZSK",
        (true, true) => "KSK",
        (true, false) => "CSK",
    }
}

/// What a key does at a time, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not in the zone yet.
    Future,
    /// It stands in the DNSKEY set and does not sign records yet.
    Published,
    /// It signs.
    Active,
    /// It stands in the DNSKEY set and signs records no more.
    Retired,
    /// It has left the zone.
    Gone,
}

impl State {
    /// What the key with these times does at `now`.
    pub fn of(times: &Times, now: u32) -> Self {
        let life = Life::of(times);
        match () {
            () if life.delete <= now => Self::Gone,
            () if life.is_active(now) => Self::Active,
            () if life.inactive <= now => Self::Retired,
            () if life.is_listed(now) => Self::Published,
            () => Self::Future,
        }
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Future => "future",
            Self::Published => "published",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Gone => "gone",
        }
    }
}

#[cfg(test)]
mod tests;
