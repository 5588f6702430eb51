//! Looks at a file of backends: by its time and length each second, by its octets where these have moved.
//!
//! A file that was written a moment ago may be half of itself: it is looked at again shortly after, so often and no more.
//! Links are followed, so a link that is put elsewhere is another file.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::list::{self, Mistake};
use crate::base::clock::Wall;
use crate::base::{file, hash};
use crate::snapshot::discovered::Found;

/// Largest list that is read: a thousand backends need a tenth of it.
const MOST_BYTES: u64 = 1 << 20;
/// A file that is younger may be half written.
pub(super) const YOUNG: Duration = Duration::from_millis(150);
/// Times of files may be so coarse: what is younger is read whatever its time says.
const COARSE: Duration = Duration::from_secs(2);

/// What a file was when it was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    stamp: (u64, u64, i64, i64, u64),
    hash: u64,
    coarse: bool,
}

/// What a look has shown.
#[derive(Debug)]
pub(super) enum Look {
    /// It is what it was.
    Same,
    /// It was written a moment ago.
    Young,
    /// It says this.
    List(Vec<Found>, Seen),
    /// It cannot be read.
    Unreadable(io::Error),
    /// It says nothing that makes sense; what it was is remembered, so that it is said once.
    Mistake(Mistake, Seen),
}

/// Looks at the file at `path`; `before`: what it was; `hasty`: young as it may be.
pub(super) fn look(path: &Path, port: Option<u16>, weight: u32, before: Option<Seen>, hasty: bool, now: Wall) -> Look {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return Look::Unreadable(error),
    };
    if before.is_some_and(|before| !before.coarse && before.stamp == stamp(&metadata)) {
        return Look::Same;
    }
    let age = now.since(written(&metadata));
    if age < YOUNG && !hasty {
        return Look::Young;
    }
    let (text, metadata) = match file::text(path, MOST_BYTES) {
        Ok(read) => read,
        Err(error) => return Look::Unreadable(error),
    };
    let seen = Seen { stamp: stamp(&metadata), hash: hash::bytes(0, text.as_bytes()), coarse: age < COARSE };
    if before
        .is_some_and(|before| before.hash == seen.hash && before.stamp == seen.stamp && before.coarse == seen.coarse)
    {
        return Look::Same;
    }
    match list::read(&text, port, weight) {
        Ok(found) => Look::List(found, seen),
        Err(mistake) => Look::Mistake(mistake, seen),
    }
}

fn stamp(metadata: &Metadata) -> (u64, u64, i64, i64, u64) {
    (metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())
}

fn written(metadata: &Metadata) -> Wall {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(metadata.modified().map_or(0, |time| u64::try_from(since(time).as_millis()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_when_it_has_changed_and_is_not_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let glance = |before, hasty, later: u64| {
            let now = fs::metadata(&path).map_or(Wall(0), |m| written(&m)) + Duration::from_millis(later);
            look(&path, None, 1, before, hasty, now)
        };
        assert!(matches!(glance(None, false, 0), Look::Unreadable(_)));
        fs::write(&path, "10.0.0.1:80\n").unwrap();
        assert!(matches!(glance(None, false, 10), Look::Young));
        let Look::List(found, young) = glance(None, true, 10) else { panic!("hasty") };
        assert_eq!(found.len(), 1);
        assert!(matches!(glance(Some(young), true, 10), Look::Same), "the same octets");
        let Look::List(_, seen) = glance(Some(young), false, 5_000) else { panic!("read once more, for good") };
        assert!(matches!(glance(Some(seen), false, 5_000), Look::Same));
        fs::write(folder.path().join("other"), "10.0.0.2:80\n10.0.0.3").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        let Look::Mistake(mistake, wrong) = glance(Some(seen), false, 5_000) else { panic!("a mistake") };
        assert_eq!(mistake.line, 2);
        assert!(matches!(glance(Some(wrong), false, 5_000), Look::Same), "said once");
        // A link that points elsewhere is another file.
        let link = folder.path().join("link");
        fs::write(folder.path().join("a"), "10.0.0.1:80").unwrap();
        fs::write(folder.path().join("b"), "10.0.0.9:80").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        let far = Wall(u64::MAX / 2);
        let Look::List(_, seen) = look(&link, None, 1, None, false, far) else { panic!("a") };
        std::os::unix::fs::symlink("b", folder.path().join("new")).unwrap();
        fs::rename(folder.path().join("new"), &link).unwrap();
        let Look::List(found, _) = look(&link, None, 1, Some(seen), false, far) else { panic!("b") };
        assert_eq!(found[0].address.to_string(), "10.0.0.9:80");
    }
}
