//! Writes whole lines for those who must not wait: to a file that may be rotated, to standard output, or to syslog.
//!
//! Whoever has lines gathers them in memory, bounded, and a thread of its own comes by with a [`Pen`]. What cannot be written
//! is lost and counted; a disk that fills in the middle of a line tears that one, and the next begins on a line of its own.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::base::clock::Mono;

/// How often it looks whether its file is still the one of that name.
const LOOK: Duration = Duration::from_secs(1);
/// What every datagram to syslog begins with (RFC 3164): facility `daemon`, severity `info`, and who says it.
const SYSLOG: &[u8] = b"<30>springtide: ";

/// How often all files were asked to be opened again.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// Has every pen open its file again with its next line: it was rotated away. Without being asked, they notice within a second.
pub fn reopen() {
    TURNS.fetch_add(1, Relaxed);
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// To the end of a file. A pipe is one, too.
    File(PathBuf),
    /// To standard output.
    Stdout,
    /// To a datagram socket, a line each: `/dev/log`.
    Syslog(PathBuf),
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// They stand there.
    pub written: u64,
    /// They do not.
    pub lost: u64,
}

/// Writes lines.
#[derive(Debug)]
pub struct Pen {
    /// What is written, in the log.
    what: &'static str,
    open: Option<Open>,
    looked: Mono,
    turn: u64,
    /// What went wrong last, told once.
    told: Option<io::ErrorKind>,
    /// The last line was not written to its end.
    is_torn: bool,
}

#[derive(Debug)]
struct Open {
    sink: Sink,
    into: Into,
}

#[derive(Debug)]
enum Into {
    /// With its device and number.
    File(File, (u64, u64)),
    Stdout,
    Syslog(UnixDatagram),
}

impl Open {
    fn new(sink: &Sink) -> io::Result<Self> {
        let into = match sink {
            Sink::File(path) => {
                let file = File::options().create(true).append(true).open(path)?;
                let meta = file.metadata()?;
                Into::File(file, (meta.dev(), meta.ino()))
            }
            Sink::Stdout => Into::Stdout,
            Sink::Syslog(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Into::Syslog(socket)
            }
        };
        Ok(Self { sink: sink.clone(), into })
    }

    /// Whether it is still what its name stands for.
    fn is_there(&self) -> bool {
        match (&self.into, &self.sink) {
            (Into::File(_, id), Sink::File(path)) => std::fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == *id),
            _ => true,
        }
    }
}

impl Pen {
    /// A pen for `what`, such as "query log".
    pub const fn new(what: &'static str) -> Self {
        Self { what, open: None, looked: Mono::ZERO, turn: 0, told: None, is_torn: false }
    }

    /// Writes `sheet`, whole lines, to `sink`. Without one they are lost: they were made for one that is not wanted any more.
    pub fn put(&mut self, sink: Option<&Sink>, sheet: &[u8], now: Mono) -> Written {
        let turn = TURNS.load(Relaxed);
        if now.since(self.looked) >= LOOK || turn != self.turn {
            (self.looked, self.turn) = (now, turn);
            self.open = self.open.take().filter(Open::is_there);
        }
        self.open = self.open.take().filter(|open| Some(&open.sink) == sink);
        let all = lines(sheet);
        if all == 0 {
            return Written::default();
        }
        let Some(sink) = sink else { return Written { written: 0, lost: all } };
        let (written, result) = self.write(sink, sheet);
        match result {
            Ok(()) => self.told = None,
            Err(error) => {
                self.open = None;
                if self.told != Some(error.kind()) {
                    self.told = Some(error.kind());
                    tracing::warn!(%error, ?sink, "the {} can't be written: lines are lost until it can", self.what);
                }
            }
        }
        Written { written, lost: all - written }
    }

    /// Writes what it can; gives how many lines that were.
    fn write(&mut self, sink: &Sink, sheet: &[u8]) -> (u64, io::Result<()>) {
        if self.open.is_none() {
            match Open::new(sink) {
                Ok(open) => {
                    // A new file has no line that was torn.
                    self.is_torn = false;
                    self.open = Some(open);
                }
                Err(error) => return (0, Err(error)),
            }
        }
        let Some(open) = &mut self.open else { return (0, Ok(())) };
        match &mut open.into {
            Into::Syslog(socket) => datagrams(socket, sheet),
            Into::File(file, _) => stream(&mut self.is_torn, sheet, |rest| file.write(rest)),
            Into::Stdout => stream(&mut self.is_torn, sheet, |rest| io::stdout().lock().write(rest)),
        }
    }
}

/// A line, a datagram; one that finds no room is lost, and those behind it may still fit.
fn datagrams(socket: &UnixDatagram, sheet: &[u8]) -> (u64, io::Result<()>) {
    let (mut written, mut result) = (0, Ok(()));
    for line in sheet.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        match socket.send(&[SYSLOG, line].concat()) {
            Ok(_) => written += 1,
            Err(error) => result = Err(error),
        }
    }
    (written, result)
}

/// Writes `sheet` by as many calls as it takes.
fn stream(
    is_torn: &mut bool,
    sheet: &[u8],
    mut write: impl FnMut(&[u8]) -> io::Result<usize>,
) -> (u64, io::Result<()>) {
    if *is_torn {
        match write(b"\n") {
            Ok(1) => *is_torn = false,
            Ok(_) => return (0, Err(io::ErrorKind::WriteZero.into())),
            Err(error) => return (0, Err(error)),
        }
    }
    let mut rest = sheet;
    let result = loop {
        match write(rest) {
            _ if rest.is_empty() => break Ok(()),
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let done = sheet.get(..sheet.len() - rest.len()).unwrap_or_default();
    *is_torn = done.last().is_some_and(|b| *b != b'\n');
    (lines(done), result)
}

fn lines(sheet: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', sheet).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Mono {
        Mono::from_millis(n * 1_000)
    }

    #[test]
    fn a_file_is_followed_when_it_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let (mut pen, sink) = (Pen::new("log"), Sink::File(path.clone()));
        let whole = |n| Written { written: n, lost: 0 };
        assert_eq!(pen.put(Some(&sink), b"1\n2\n", second(10)), whole(2));
        std::fs::rename(&path, dir.path().join("a.log.1")).unwrap();
        assert_eq!(pen.put(Some(&sink), b"3\n", second(10)), whole(1), "into the one that was renamed");
        assert_eq!(pen.put(Some(&sink), b"4\n", second(11)), whole(1), "into the new one");
        std::fs::rename(&path, dir.path().join("a.log.2")).unwrap();
        reopen();
        assert_eq!(pen.put(Some(&sink), b"5\n", second(11)), whole(1), "at once, when it is told");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((read("a.log.1"), read("a.log.2"), read("a.log")), ("1\n2\n3\n".into(), "4\n".into(), "5\n".into()));
        assert_eq!(pen.put(None, b"6\n", second(11)), Written { written: 0, lost: 1 });
        let nowhere = Sink::File(dir.path().join("none/a.log"));
        assert_eq!(pen.put(Some(&nowhere), b"7\n8\n", second(11)), Written { written: 0, lost: 2 });
        assert_eq!(pen.put(Some(&Sink::File("/dev/full".into())), b"9\n", second(12)), Written { written: 0, lost: 1 });
        assert_eq!(pen.put(Some(&sink), b"", second(12)), Written::default());
    }

    #[test]
    fn a_torn_line_does_not_spoil_the_next() {
        let (mut disk, mut room, mut is_torn) = (Vec::new(), 7, false);
        let sheet = b"one\ntwo\nthree\n";
        let mut write = |bytes: &[u8]| {
            let n = bytes.len().min(room).min(3);
            room -= n;
            disk.extend_from_slice(&bytes[..n]);
            if n == 0 && !bytes.is_empty() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
        };
        let (written, result) = stream(&mut is_torn, sheet, &mut write);
        assert_eq!((written, result.unwrap_err().kind(), is_torn), (1, io::ErrorKind::StorageFull, true));
        let mut write = |bytes: &[u8]| {
            disk.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        let (written, result) = stream(&mut is_torn, b"four\n", &mut write);
        assert!(result.is_ok() && written == 1 && !is_torn);
        assert_eq!(disk, b"one\ntwo\nfour\n");
    }

    #[test]
    fn syslog_gets_a_datagram_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut pen = Pen::new("log");
        assert_eq!(pen.put(Some(&Sink::Syslog(path)), b"a\nb\n", second(1)), Written { written: 2, lost: 0 });
        let mut buffer = [0; 64];
        for want in ["<30>springtide: a", "<30>springtide: b"] {
            let length = daemon.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], want.as_bytes());
        }
        // Nobody reads: what does not fit is lost, and nothing waits.
        let flood = b"line\n".repeat(100_000);
        let done = pen.put(Some(&Sink::Syslog(dir.path().join("log"))), &flood, second(1));
        assert!(done.lost > 0 && done.written + done.lost == 100_000, "{done:?}");
    }
}
