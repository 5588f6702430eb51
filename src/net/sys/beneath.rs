//! Opening files below a folder, and nowhere else.
//!
//! `openat2` has the kernel see to it (RESOLVE_BENEATH; Linux 5.6): no `..`, no absolute link, no link that leads out, whoever
//! renames what meanwhile. Where it is missing or forbidden, the way is walked step by step, and no link is followed at all.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How a file is opened: without waiting for whoever writes to a pipe, and without becoming anybody's terminal.
const READ: i32 = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_BENEATH: u64 = 0x08;
/// How often a name is resolved again that was moved meanwhile.
const AGAIN: usize = 4;

/// `struct open_how` (openat2(2)).
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// A folder that files are opened below.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// The folder at `path`, wherever links lead.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        open(libc::AT_FDCWD, &path, flags).map(Self)
    }

    /// What stands at `name` below it: a path without `..` and without a slash before it; empty is the folder itself.
    ///
    /// # Errors
    /// The system's; what leads out of the folder is not found.
    pub fn file(&self, name: &[u8]) -> io::Result<File> {
        static IS_MISSING: AtomicBool = AtomicBool::new(false);
        let name = if name.is_empty() { b"." } else { name };
        let name = CString::new(name).map_err(|_| io::ErrorKind::NotFound)?;
        if !IS_MISSING.load(Relaxed) {
            match self.resolve(&name) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    IS_MISSING.store(true, Relaxed);
                }
                // Out of the root, or round and round: it is not there.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EXDEV | libc::ELOOP)) => {
                    return Err(io::ErrorKind::NotFound.into());
                }
                done => return done,
            }
        }
        self.walk(name.to_bytes())
    }

    fn resolve(&self, name: &CStr) -> io::Result<File> {
        let how = How { flags: READ as u64, mode: 0, resolve: RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
        for _ in 0..AGAIN {
            // SAFETY: the name ends with NUL, `how` is as long as it is said to be, and both outlive the call.
            let fd = unsafe {
                libc::syscall(libc::SYS_openat2, self.0.as_raw_fd(), name.as_ptr(), &raw const how, size_of::<How>())
            };
            match (fd, io::Error::last_os_error()) {
                (-1, error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
                (-1, error) => return Err(error),
                // SAFETY: it was opened just now, and nobody else has it.
                (fd, _) => return Ok(unsafe { File::from_raw_fd(fd as RawFd) }),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Without `openat2`: each step from where the last one led, and no link followed.
    fn walk(&self, name: &[u8]) -> io::Result<File> {
        let mut at: Option<OwnedFd> = None;
        let mut steps = name.split(|&b| b == b'/').peekable();
        while let Some(step) = steps.next() {
            if step == b".." || step.is_empty() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let step = CString::new(step).map_err(|_| io::ErrorKind::NotFound)?;
            let is_last = steps.peek().is_none();
            let flags = if is_last { READ } else { libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC };
            let from = at.as_ref().unwrap_or(&self.0).as_raw_fd();
            let next = open(from, &step, flags | libc::O_NOFOLLOW).map_err(|e| match e.raw_os_error() {
                Some(libc::ELOOP) => io::ErrorKind::NotFound.into(),
                _ => e,
            })?;
            if is_last {
                return Ok(next.into());
            }
            at = Some(next);
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn open(at: RawFd, name: &CStr, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: the name ends with NUL and outlives the call.
    match unsafe { libc::openat(at, name.as_ptr(), flags) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it was opened just now, and nobody else has it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    type Open = fn(&Root, &[u8]) -> io::Result<File>;

    #[test]
    fn nothing_is_opened_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, secret) = (dir.path().join("www"), dir.path().join("secret"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(&secret, "secret").unwrap();
        std::fs::write(root.join("a/b/c"), "inside").unwrap();
        symlink("b/c", root.join("a/link")).unwrap();
        symlink(&secret, root.join("absolute")).unwrap();
        symlink("../secret", root.join("above")).unwrap();
        symlink("..", root.join("a/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let root = Root::open(&root).unwrap();
        let ways: [(&str, Open); 2] = [("openat2", Root::file), ("step by step", Root::walk)];
        for (way, open) in ways {
            let read = |name: &[u8]| {
                let mut text = String::new();
                open(&root, name)?.read_to_string(&mut text).map(|_| text)
            };
            assert_eq!(read(b"a/b/c").unwrap(), "inside", "{way}");
            for name in [
                &b"absolute"[..],
                b"above",
                b"../secret",
                b"a/../../secret",
                b"loop",
                b"magic/etc/passwd",
                b"a\0b",
                b"nowhere",
            ] {
                let name_text = String::from_utf8_lossy(name).into_owned();
                let kind = read(name).expect_err(&name_text).kind();
                assert!(
                    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
                    "{way}: {name_text}: {kind:?}"
                );
            }
        }
        // Links within are followed where the kernel looks after it.
        assert!(Root::file(&root, b"a/link").is_ok() && Root::file(&root, b"a/up/a/b/c").is_ok());
        assert!(root.walk(b"a/link").is_err());
    }
}
