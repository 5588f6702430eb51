//! Structured logs: one line for each event, as text or as JSON, to stderr, in UTC.
//!
//! Who logs never waits for who reads: lines go through a bounded queue to a thread of their own, and where stderr is
//! stuck (a full pipe, a stalled journal) they are dropped and counted instead of stopping the data path. The count is
//! said in the log as soon as there is room.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::base::clock::Wall;

/// Lines that may wait. Ours: some seconds of a busy log, a few MiB.
const QUEUE: usize = 8_192;

/// How long the end of the process waits for stderr, and how often it tries.
const GOODBYE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(10);

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TraceError::Format { text: text.to_owned() }),
        }
    }
}

/// Logs could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// No such format.
    #[error("`{text}` is no log format: write \"text\" or \"json\"")]
    Format {
        /// What was said.
        text: String,
    },
    /// The filter can't be read.
    #[error(
        "`{filter}` is no log filter ({reason}): write a level, or levels by part, such as \"info,springtide::dns=debug\""
    )]
    Filter {
        /// What was said.
        filter: String,
        /// What was wrong with it.
        reason: String,
    },
    /// Somebody has set up logs before; theirs stay.
    #[error("logs are set up already")]
    Taken,
    /// The thread that writes could not be started.
    #[error("the log's thread cannot be started: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Sets up logs for the process: what passes `filter` (a level, or `target=level` pairs), to stderr. Keep what it
/// returns until the end: dropping it writes what still waits, for at
/// most two seconds.
pub fn init(format: Format, filter: &str) -> Result<Logs, TraceError> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|e| TraceError::Filter { filter: filter.to_owned(), reason: e.to_string() })?;
    let (lines, logs) = lines(io::stderr(), format).map_err(|source| TraceError::Thread { source })?;
    // The default timer is UTC in RFC 3339; colours are for those who pipe through something that likes them.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_ansi(false);
    let set = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    set.map(|()| logs).map_err(|_| TraceError::Taken)
}

/// Owns the thread that writes; dropping it waits until every line so far is written, for at most two seconds.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Logs {
    queue: SyncSender<Entry>,
    /// Gives nothing and ends with the thread.
    ended: Receiver<()>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        // The end is the one moment at which waiting is right, but not for ever: stderr may never move again.
        let waited = (0..GOODBYE.as_millis() / PATIENCE.as_millis()).any(|_| {
            let told = !matches!(self.queue.try_send(Entry::End), Err(TrySendError::Full(_)));
            told || !matches!(self.ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Timeout))
        });
        if waited {
            let _ = self.ended.recv_timeout(GOODBYE);
        }
    }
}

enum Entry {
    Line(Vec<u8>),
    End,
}

/// Where subscribers write.
#[derive(Clone, Debug)]
struct Lines {
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

fn lines(into: impl Write + Send + 'static, format: Format) -> io::Result<(Lines, Logs)> {
    let (queue, arriving) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let lost = Arc::clone(&dropped);
    let (end, ended) = sync_channel::<()>(0);
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let _told_when_dropped = end;
        write(&arriving, &lost, format, into);
    })?;
    Ok((Lines { queue: queue.clone(), dropped }, Logs { queue, ended }))
}

fn write(arriving: &Receiver<Entry>, lost: &AtomicU64, format: Format, mut into: impl Write) {
    // Nobody is left to tell where stderr is gone, so its errors end here.
    while let Ok(entry) = arriving.recv() {
        if let Entry::Line(line) = &entry {
            let _ = into.write_all(line);
        }
        let lost = lost.swap(0, Relaxed);
        let _ = match format {
            _ if lost == 0 => Ok(()),
            Format::Text => writeln!(into, "WARN {lost} log lines were lost: stderr did not take them"),
            Format::Json => writeln!(into, r#"{{"level":"WARN","message":"log lines lost","lost":{lost}}}"#),
        };
        if matches!(entry, Entry::End) {
            break;
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::with_capacity(256) }
    }
}

/// One event's line: gathered, then sent whole.
struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = Entry::Line(std::mem::take(&mut self.bytes));
        if let Err(TrySendError::Full(_)) = self.lines.queue.try_send(line) {
            self.lines.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// An id for a request that brought none: 28 hex digits, sortable by time. `draw` makes it unique; it is a name, not a
/// secret.
pub fn request_id(now: Wall, draw: u64) -> String {
    format!("{:012x}{draw:016x}", now.0 & 0xffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    /// Writes into memory, each write only when it is let.
    struct Gate {
        written: Arc<Mutex<Vec<u8>>>,
        open: Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.open.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[expect(clippy::disallowed_methods, reason = "closing this queue is all that is done with it")]
    fn gate() -> (Sender<()>, Gate, Arc<Mutex<Vec<u8>>>) {
        let (open, opened) = std::sync::mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        (open, Gate { written: Arc::clone(&written), open: opened }, written)
    }

    #[test]
    fn a_stuck_reader_stops_nobody_and_the_loss_is_told() {
        let (open, gate, written) = gate();
        let (lines, logs) = lines(gate, Format::Json).unwrap();
        // One is in the writer's hands, a queue of them waits, the rest finds no room.
        for i in 0..QUEUE + 101 {
            writeln!(lines.make_writer(), "line {i}").unwrap();
        }
        let lost = lines.dropped.load(Relaxed);
        assert!((99..=101).contains(&lost), "{lost}");
        drop(open);
        drop(logs);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n"));
        assert!(text.contains(&format!("\"lost\":{lost}}}")), "{}", &text[text.len() - 200..]);
    }

    #[test]
    fn lines_come_out_as_they_are_asked_for() {
        let (open, gate, written) = gate();
        drop(open);
        let (lines, logs) = lines(gate, Format::Json).unwrap();
        let builder = tracing_subscriber::fmt().with_writer(lines).with_ansi(false);
        let subscriber = builder.json().flatten_event(true).with_span_list(false).finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(weight = 40, service = "gifts", "moved"));
        drop(logs);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["weight"], &line["level"]), (&"moved".into(), &40.into(), &"INFO".into()));
        assert!(line["timestamp"].as_str().is_some_and(|t| t.ends_with('Z')), "UTC: {line}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("\"json\""));
        let error = init(Format::Text, "info,springtide=shouting").unwrap_err();
        assert!(matches!(&error, TraceError::Filter { filter, .. } if filter.contains("shouting")), "{error}");
    }

    #[test]
    fn request_ids_sort_by_time() {
        let (a, b) = (request_id(Wall(1_000), u64::MAX), request_id(Wall(1_001), 0));
        assert!(a < b && a.len() == 28 && b.len() == 28);
    }
}
