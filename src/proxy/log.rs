//! The access log: a line for each request that is worth one. Workers gather them; a thread of its own writes.
//!
//! A worker's lines wait in memory that is its own, so that it waits for nobody: the lock is taken by the writer twenty
//! times a second, to exchange a full sheet for an empty one. What finds no room is lost and counted.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{REFERER, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version};

use super::h2::connect;
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::config::{AccessFormat, AccessLog, LogSink};
use crate::observe::access::{Access, Side};
use crate::observe::names::proxy::ACCESS_LINES;
use crate::observe::pen::{Pen, Sink};
use crate::snapshot::Published;
use crate::wire::host;

/// Octets of lines that may wait at one worker: at the writer's pace some 50,000 lines a second.
const ROOM: usize = 1 << 20;
/// How often the writer comes by; and where nothing is logged.
const TURN: Duration = Duration::from_millis(50);
const IDLE: Duration = Duration::from_secs(1);

/// Lines of one worker that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Sheet(Mutex<Page>);

#[derive(Debug, Default)]
struct Page {
    lines: Vec<u8>,
    lost: u64,
}

impl Sheet {
    /// Adds the line that `write` writes, if there is room.
    pub(super) fn add(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if page.lines.len() >= ROOM {
            page.lost += 1;
            return;
        }
        write(&mut page.lines);
        page.lines.push(b'\n');
    }

    /// Exchanges its lines for the empty `spare`; gives how many found no room.
    fn take(&self, spare: &mut Vec<u8>) -> u64 {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut page.lines, spare);
        std::mem::take(&mut page.lost)
    }
}

/// What the access log and a span need of a request; kept only where there is one of them.
pub(super) struct Told {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: String,
    version: Version,
    agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    /// Decides whether it is among those that are written by lot.
    draw: u64,
    pub(super) user: Option<u64>,
    /// When the last backend was asked, how long it took to connect to it, and when the head of its answer was there.
    pub(super) asked: Option<Mono>,
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Mono>,
    pub(super) is_hedged: bool,
    /// Who broke off, where the reason alone does not say it.
    pub(super) aborted: Option<Side>,
    /// It was an extended CONNECT.
    was_connect: bool,
}

impl Told {
    /// Of the request with `head`.
    pub(super) fn new(head: &Parts, draw: u64) -> Box<Self> {
        let host = host::of(&head.uri, &head.headers, head.version).map(|h| h.said.to_owned()).unwrap_or_default();
        let was_connect = connect::was_connect(&head.extensions);
        Box::new(Self {
            method: if was_connect { Method::CONNECT } else { head.method.clone() },
            uri: head.uri.clone(),
            host,
            version: head.version,
            agent: head.headers.get(USER_AGENT).cloned(),
            referer: head.headers.get(REFERER).cloned(),
            draw,
            user: None,
            asked: None,
            connect: None,
            first_byte: None,
            is_hedged: false,
            aborted: None,
            was_connect,
        })
    }

    /// The share of requests like this one that is written, by `log`; `None`: this one is not.
    pub(super) fn share(&self, log: &AccessLog, is_worth_it: bool) -> Option<f64> {
        if is_worth_it {
            return Some(1.0);
        }
        // 53 bits are what a double has.
        let lot = (self.draw >> 11) as f64 / (1u64 << 53) as f64;
        (lot < log.sample).then_some(log.sample)
    }

    /// Puts what it knows into `access`.
    pub(super) fn fill<'a>(&'a self, access: &mut Access<'a>) {
        access.method = self.method.as_str();
        access.path = self.uri.path();
        access.host = &self.host;
        access.protocol = match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_3 => "HTTP/3.0",
            _ => "HTTP/1.1",
        };
        // Nobody is joined with a backend but for this.
        access.upgrade = (access.status == 101 || (self.was_connect && access.status == 200)).then_some("websocket");
        (access.user, access.connect, access.is_hedged) = (self.user, self.connect, self.is_hedged);
        access.aborted = self.aborted.or(access.aborted);
        access.agent = self.agent.as_ref().map(HeaderValue::as_bytes);
        access.referer = self.referer.as_ref().map(HeaderValue::as_bytes);
    }
}

/// Writes `access` as `format` says.
pub(super) fn write(access: &Access<'_>, format: AccessFormat, out: &mut Vec<u8>) {
    match format {
        AccessFormat::Json => access.json(out),
        AccessFormat::Combined => access.combined(out),
    }
}

/// Writes what gathers on `sheets` to where the published configuration says, until nobody holds the other end of `working`;
/// then what is left.
pub(super) fn serve(sheets: &[Arc<Sheet>], published: &Published, working: &Receiver<Infallible>) {
    let (mut pen, mut spare) = (Pen::new("access log"), Vec::new());
    let (written, lost) = (ACCESS_LINES.counter(&["written"]), ACCESS_LINES.counter(&["lost"]));
    let mut pause = TURN;
    loop {
        let is_last = matches!(working.recv_timeout(pause), Err(RecvTimeoutError::Disconnected));
        let sink = published.load().topology.config.log.access.as_ref().map(|log| match &log.to {
            LogSink::File(path) => Sink::File(path.clone()),
            LogSink::Stdout => Sink::Stdout,
            LogSink::Syslog(path) => Sink::Syslog(path.clone()),
        });
        for sheet in sheets {
            spare.clear();
            let unheard = sheet.take(&mut spare);
            let done = pen.put(sink.as_ref(), &spare, SystemClock.mono());
            written.increment(done.written);
            lost.increment(done.lost + unheard);
        }
        if is_last {
            return;
        }
        pause = if sink.is_some() { TURN } else { IDLE };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_sheet_takes_no_more_and_says_how_many_it_refused() {
        let sheet = Sheet::default();
        let line = vec![b'x'; 1_023];
        for _ in 0..2_000 {
            sheet.add(|out| out.extend_from_slice(&line));
        }
        let mut taken = Vec::new();
        let lost = sheet.take(&mut taken);
        assert_eq!((taken.len(), lost), (ROOM, 2_000 - (ROOM / 1_024) as u64));
        sheet.add(|out| out.push(b'y'));
        let mut taken = Vec::new();
        assert_eq!((sheet.take(&mut taken), taken.as_slice()), (0, &b"y\n"[..]));
    }

    #[test]
    fn lots_are_as_frequent_as_they_are_meant_to_be() {
        let (parts, ()) = http::Request::new(()).into_parts();
        let log = |sample| AccessLog { to: LogSink::Stdout, format: AccessFormat::Json, sample, slow: Duration::ZERO };
        let mut rng = crate::base::entropy::Rng::seeded(7);
        let drawn = (0..10_000).filter(|_| Told::new(&parts, rng.next_u64()).share(&log(0.1), false).is_some()).count();
        assert!((900..1_100).contains(&drawn), "{drawn}");
        assert_eq!(Told::new(&parts, u64::MAX).share(&log(0.0), true), Some(1.0));
        assert_eq!(Told::new(&parts, 0).share(&log(0.0), false), None);
        assert_eq!(Told::new(&parts, u64::MAX).share(&log(1.0), false), Some(1.0));
    }
}
