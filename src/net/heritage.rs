//! What a process finds at its start, left by whoever started it: sockets, and a line to a predecessor.
//!
//! systemd says so by `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` (sd_listen_fds(3)). A predecessor of ours says by
//! `SPRINGTIDE_SOCKETS` which descriptors are sockets (they keep their numbers, see [`descriptors`]), and by
//! `SPRINGTIDE_PREDECESSOR` who it is and where it listens for us. Either is believed only where it names this very process:
//! variables are handed on to children that nobody meant.

use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use super::sockets::Sockets;
use super::sys::descriptors;

/// The variables of systemd that are meant for one process, and go no further.
pub const OF_SYSTEMD: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];
/// Descriptors of sockets, with commas between; `a` behind one whose port was the system's choice.
pub const SOCKETS: &str = "SPRINGTIDE_SOCKETS";
/// The predecessor's process id, a colon, and the descriptor of the line to it.
pub const PREDECESSOR: &str = "SPRINGTIDE_PREDECESSOR";
/// Most sockets that are taken (ours; 256 workers on 64 addresses).
const MOST: usize = 16_384;

/// What is there.
#[derive(Debug)]
pub struct Heritage {
    /// Sockets, to be asked for.
    pub sockets: Sockets,
    /// The line to a predecessor that serves on the same ones and waits to be told that we do.
    pub line: Option<UnixStream>,
}

/// What the environment says: descriptors with whether their port was the system's choice, and that of the line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    sockets: Vec<(RawFd, bool)>,
    line: Option<RawFd>,
}

impl Heritage {
    /// Takes what came with this process. To be called once, before anything is opened.
    pub fn take() -> Self {
        let said = read(|name| std::env::var(name).ok(), std::process::id(), std::os::unix::process::parent_id());
        let numbers: Vec<RawFd> = said.sockets.iter().map(|(number, _)| *number).chain(said.line).collect();
        let mut taken = descriptors::adopt(&numbers).into_iter();
        let mut came: Vec<(OwnedFd, bool)> = Vec::new();
        for ((number, is_any), fd) in said.sockets.iter().zip(taken.by_ref()) {
            match fd {
                Ok(fd) => came.push((fd, *is_any)),
                Err(error) => {
                    tracing::warn!(number, %error, "a descriptor that should have come with the process has not");
                }
            }
        }
        let line = taken.next().and_then(Result::ok).map(UnixStream::from);
        Self { sockets: Sockets::inherited(came, line.is_some()), line }
    }
}

/// What the variables say to process `me`, the child of `parent`.
fn read(variable: impl Fn(&str) -> Option<String>, me: u32, parent: u32) -> Said {
    let number = |text: &str| text.parse::<RawFd>().ok().filter(|n| *n >= descriptors::FIRST);
    let predecessor = variable(PREDECESSOR).and_then(|text| {
        let (pid, line) = text.split_once(':')?;
        let line = number(line)?;
        (pid.parse() == Ok(parent)).then_some(line)
    });
    if let Some(line) = predecessor {
        let sockets = variable(SOCKETS).unwrap_or_default();
        let socket = |text: &str| {
            let bare = text.strip_suffix('a');
            Some((number(bare.unwrap_or(text))?, bare.is_some()))
        };
        return Said { sockets: sockets.split(',').filter_map(socket).take(MOST).collect(), line: Some(line) };
    }
    let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(me));
    let count = variable("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.parse::<usize>().ok());
    let numbers = (descriptors::FIRST..).take(count.unwrap_or_default().min(MOST));
    Said { sockets: numbers.map(|n| (n, false)).collect(), line: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Said {
        read(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()), 7, 5)
    }

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        let two = Said { sockets: vec![(3, false), (4, false)], line: None };
        assert_eq!(said(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "dns:edge")]), two);
        for others in [("8", "2"), ("7", "-1"), ("7", "x"), ("", "2")] {
            assert_eq!(said(&[("LISTEN_PID", others.0), ("LISTEN_FDS", others.1)]), Said::default(), "{others:?}");
        }
        assert_eq!(said(&[("LISTEN_FDS", "2")]), Said::default());
        assert_eq!(said(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "18446744073709551615")]).sockets.len(), MOST);
    }

    #[test]
    fn a_predecessor_is_the_parent_or_none() {
        let ours = Said { sockets: vec![(9, false), (12, true)], line: Some(4) };
        assert_eq!(said(&[(PREDECESSOR, "5:4"), (SOCKETS, "9,12a,x,1,")]), ours);
        for bad in ["6:4", "5:", "5:2", ":4", "5", ""] {
            assert_eq!(said(&[(PREDECESSOR, bad), (SOCKETS, "9")]), Said::default(), "{bad}");
        }
    }
}
