//! Descriptors that pass from one process to the next: those that came with this one, and those that go with a child.
//!
//! A descriptor keeps its number on the way: to move it in the child could overwrite one that the standard library needs
//! there between `fork` and `exec`.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The first number that is not one of the standard streams.
pub const FIRST: RawFd = 3;

/// Takes the descriptors `numbers` as its own; they do not go on to children by themselves. Works once in the life of a
/// process, at its start: what came with it is nobody else's then. A number that is not open gives its error.
pub fn adopt(numbers: &[RawFd]) -> Vec<io::Result<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return numbers.iter().map(|_| Err(io::ErrorKind::AlreadyExists.into())).collect();
    }
    let is_first = |i: usize| !numbers.get(..i).unwrap_or_default().contains(&numbers[i]);
    let take = |(i, &number): (usize, &RawFd)| {
        if number < FIRST || !is_first(i) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: it touches no memory; a number that is not open is an error.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open; whoever started this process opened it for it, and by the guard above it is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    };
    numbers.iter().enumerate().map(take).collect()
}

/// Has the process of `command` come with the descriptors `numbers`, which must stay open until it has been spawned.
pub fn pass_on(command: &mut Command, numbers: Vec<RawFd>) {
    let keep = move || {
        for &number in &numbers {
            // Of a copy that only the child has: the flag is one of the descriptor, not of what it refers to.
            // SAFETY: it touches no memory, and fcntl may be called between fork and exec (signal-safety(7)).
            if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: it neither allocates nor locks, as is demanded of what runs between fork and exec.
    unsafe { command.pre_exec(keep) };
}
