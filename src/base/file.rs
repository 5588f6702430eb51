//! Files: read up to a bound, and put in the place of another whole or not at all.
//!
//! What is too large is an error and never a part; who may read a file can be asked, and is nobody's decision here.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Reads the file at `path`, which has no more than `most` octets. What is told of it is of before it was read: what is
/// written meanwhile is noticed by whoever looks again.
///
/// # Errors
/// It cannot be read; or, as [`io::ErrorKind::FileTooLarge`], it is larger.
pub fn read(path: &Path, most: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut octets = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut octets)?;
    if octets.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {most} octets")));
    }
    Ok((octets, metadata))
}

/// Reads text as [`read`] reads octets.
///
/// # Errors
/// Those of [`read`]; or it is not UTF-8.
pub fn text(path: &Path, most: u64) -> io::Result<(String, Metadata)> {
    let (octets, metadata) = read(path, most)?;
    let text = String::from_utf8(octets).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))?;
    Ok((text, metadata))
}

/// The permissions of a file, where somebody else than its owner may do anything with it.
pub fn open_to_others(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Puts `octets` in the place of the file at `path`: whole, or not at all, and on disk when it returns. `mode` is who may
/// read it.
///
/// # Errors
/// It cannot be written. What was at `path` is still there, unless nothing but the folder's own entry did not reach the disk.
pub fn replace(path: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let new = beside(path);
    // A process of our number that ended while it wrote may have left one.
    let _ = fs::remove_file(&new);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // The rename itself lasts only once the folder is on disk.
        File::open(folder(path))?.sync_all()
    };
    written().inspect_err(|_| {
        // What is half written is of no use; that it cannot be deleted either says the error that follows.
        let _ = fs::remove_file(&new);
    })
}

/// Where `path` stands: for a name alone that is the folder that we are in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_an_error_and_never_a_part() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap().0, b"12345");
        let wrong = text(&path, 4).unwrap_err();
        assert_eq!((wrong.kind(), wrong.to_string().as_str()), (io::ErrorKind::FileTooLarge, "larger than 4 octets"));
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(text(&path, 5).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.key");
        replace(&path, b"old", 0o600).unwrap();
        assert_eq!(open_to_others(&fs::metadata(&path).unwrap()), None);
        assert_eq!((super::folder(Path::new("key")), super::folder(&path)), (Path::new("."), folder.path()));
        // What a dead process left is in nobody's way.
        fs::write(beside(&path), "half").unwrap();
        replace(&path, b"new", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(open_to_others(&fs::metadata(&path).unwrap()), Some(0o644));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // A folder is in the place: the rename fails, and nothing is left behind.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("x"), "").unwrap();
        assert!(replace(&taken, b"new", 0o644).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
