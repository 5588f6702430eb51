//! Whether a client's HTTP/2 connection does work, or only makes us work (EDGE 4, gap 10).
//!
//! Every frame that honest clients seldom send costs the connection some glitches, unless something has earned it: a
//! response that went out whole, or data that has passed. What was spent comes back with time. At three quarters of the
//! budget the client is asked to leave, at all of it the connection is cut. Kinds and yardsticks are HAProxy's (a total and
//! 75 %) and Envoy's (10 WINDOW_UPDATE a DATA frame, 100 PRIORITY a stream); what each costs, and that it comes back, is ours.
//!
//! Also counted here: streams in all, and whether the client has left us no room to send.

use crate::base::clock::Mono;
use crate::wire::h2::{Frame, Seen, WINDOW, error, flag, kind};

/// Thousandths of a glitch.
const GLITCH: u64 = 1_000;
/// The whole budget comes back in so many seconds.
const FORGIVEN_IN: u64 = 10;
/// CONTINUATION frames of one block that cost nothing: as many as the longest head that is read here needs.
const CONTINUATIONS: u32 = 4;
/// WINDOW_UPDATE frames that a DATA frame of ours, or a new stream, pays for (Envoy's).
const UPDATES: u32 = 10;
/// PRIORITY frames that a new stream pays for.
const PRIORITIES: u32 = 5;
/// Most that is earned in advance.
const SAVINGS: u32 = 1_000;
/// What a connection may do before it has earned anything.
const GIFT: u32 = 100;
/// Streams that are watched at a time; more than are ever open.
const WATCHED: usize = 512;

/// What costs glitches: the label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glitch {
    /// A stream that the client has reset (CVE-2023-44487).
    Reset,
    /// One of many frames that a head comes in (CVE-2024-27316).
    Continuation,
    /// Settings, or an acknowledgement of some that were never sent.
    Settings,
    /// A ping that no data has paid for, or an answer to none.
    Ping,
    /// Another order of streams.
    Priority,
    /// Room to send in that nothing was sent into.
    WindowUpdate,
    /// A frame of a body with nothing in it.
    Empty,
    /// A kind of frame that clients do not send.
    Unknown,
    /// A stream that we had to reset for what was sent on it (CVE-2025-8671).
    Provoked,
    /// A stream beyond those that the connection has.
    Stream,
}

impl Glitch {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Reset,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::WindowUpdate,
        Self::Empty,
        Self::Unknown,
        Self::Provoked,
        Self::Stream,
    ];

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::Empty => "empty",
            Self::Unknown => "unknown",
            Self::Provoked => "provoked",
            Self::Stream => "stream",
        }
    }

    /// What one costs.
    const fn cost(self) -> u64 {
        match self {
            Self::Reset | Self::Priority | Self::WindowUpdate | Self::Empty | Self::Unknown | Self::Stream => GLITCH,
            Self::Ping => 2 * GLITCH,
            Self::Settings | Self::Provoked => 5 * GLITCH,
            Self::Continuation => 20 * GLITCH,
        }
    }
}

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Glitches at once; a tenth of them comes back every second.
    pub glitches: u32,
    /// Streams in all.
    pub streams: u32,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Stay,
    /// It has had all its streams: no new ones, those that run may finish.
    Done,
    /// The same, for its glitches.
    Leave,
    /// It ends here and now.
    Cut,
}

/// The account of one connection.
#[derive(Clone, Debug)]
pub struct Account {
    terms: Terms,
    /// In thousandths of a glitch.
    spent: u64,
    forgiven_at: Mono,
    /// What the last glitch was.
    last: Option<Glitch>,
    /// CONTINUATION frames since the last HEADERS.
    continuations: u32,
    /// WINDOW_UPDATE, PING and PRIORITY frames that are paid for.
    updates: u32,
    pings: u32,
    priorities: u32,
    /// Our settings and pings that are not acknowledged.
    owed: (u32, u32),
    streams: Streams,
}

impl Account {
    /// Of a connection that begins `now`.
    pub const fn new(terms: Terms, now: Mono) -> Self {
        Self {
            terms,
            spent: 0,
            forgiven_at: now,
            last: None,
            continuations: 0,
            updates: GIFT,
            pings: GIFT,
            priorities: GIFT,
            owed: (0, 0),
            streams: Streams::new(),
        }
    }

    /// The client has sent this. What it cost, if anything.
    pub fn heard(&mut self, seen: Seen, now: Mono) -> Option<Glitch> {
        let frame = match seen {
            Seen::Frame(frame) => frame,
            Seen::InitialWindow(window) => {
                self.streams.reopen(window);
                return None;
            }
            // A client's means nothing (RFC 8441 section 3).
            Seen::ConnectProtocol(_) => return None,
        };
        let glitch = self.weigh(&frame)?;
        self.forgive(now);
        self.spent += glitch.cost();
        self.last = Some(glitch);
        Some(glitch)
    }

    /// What a frame of the client's costs, if anything has to be paid for it.
    fn weigh(&mut self, frame: &Frame) -> Option<Glitch> {
        let is_ack = frame.has(flag::ACK);
        let (is_paid, glitch) = match frame.kind {
            kind::HEADERS => {
                self.continuations = 0;
                let is_new = self.streams.open(frame.stream);
                if is_new {
                    earn(&mut self.updates, UPDATES);
                    earn(&mut self.priorities, PRIORITIES);
                }
                (!is_new || self.streams.total <= self.terms.streams, Glitch::Stream)
            }
            kind::CONTINUATION => {
                self.continuations += 1;
                (self.continuations <= CONTINUATIONS && frame.length > 0, Glitch::Continuation)
            }
            kind::DATA => {
                if frame.length > 0 {
                    earn(&mut self.pings, 1);
                }
                (frame.length > 0 || frame.has(flag::END_STREAM), Glitch::Empty)
            }
            kind::RST_STREAM => {
                self.streams.close(frame.stream);
                (false, Glitch::Reset)
            }
            kind::SETTINGS => (is_ack && pay(&mut self.owed.0), Glitch::Settings),
            kind::PING => (pay(if is_ack { &mut self.owed.1 } else { &mut self.pings }), Glitch::Ping),
            kind::PRIORITY | kind::PRIORITY_UPDATE => (pay(&mut self.priorities), Glitch::Priority),
            kind::WINDOW_UPDATE => {
                self.streams.widen(frame.stream, i64::from(frame.word & 0x7fff_ffff));
                (pay(&mut self.updates), Glitch::WindowUpdate)
            }
            _ => (false, Glitch::Unknown),
        };
        (!is_paid).then_some(glitch)
    }

    /// We have sent this. What the client has made us do, if it counts.
    pub fn said(&mut self, seen: Seen, now: Mono) -> Option<Glitch> {
        let Seen::Frame(frame) = seen else { return None };
        let is_ack = frame.has(flag::ACK);
        match frame.kind {
            kind::DATA => {
                self.streams.widen(0, -i64::from(frame.length));
                self.streams.widen(frame.stream, -i64::from(frame.length));
                earn(&mut self.updates, UPDATES);
                earn(&mut self.pings, 1);
            }
            kind::SETTINGS if !is_ack => self.owed.0 += 1,
            kind::PING if !is_ack => self.owed.1 += 1,
            kind::RST_STREAM => {
                self.streams.close(frame.stream);
                let is_theirs = [
                    error::PROTOCOL_ERROR,
                    error::FLOW_CONTROL_ERROR,
                    error::STREAM_CLOSED,
                    error::FRAME_SIZE_ERROR,
                    error::ENHANCE_YOUR_CALM,
                ]
                .contains(&frame.word);
                if is_theirs {
                    self.forgive(now);
                    self.spent += Glitch::Provoked.cost();
                    self.last = Some(Glitch::Provoked);
                    return self.last;
                }
            }
            _ => {}
        }
        if matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.has(flag::END_STREAM) {
            self.streams.close(frame.stream);
            // Somebody who takes what he asks for may change his mind as often.
            self.spent = self.spent.saturating_sub(GLITCH);
        }
        None
    }

    /// Gives back what is due by `now`.
    fn forgive(&mut self, now: Mono) {
        let millis = now.since(self.forgiven_at).as_millis() as u64;
        if millis > 0 {
            let due = millis.saturating_mul(u64::from(self.terms.glitches)) / FORGIVEN_IN;
            self.spent = self.spent.saturating_sub(due);
            self.forgiven_at = now;
        }
    }

    /// What becomes of it.
    pub fn verdict(&self) -> Verdict {
        let budget = u64::from(self.terms.glitches) * GLITCH;
        if self.spent >= budget {
            Verdict::Cut
        } else if self.spent * 4 >= budget * 3 {
            Verdict::Leave
        } else if self.streams.total >= self.terms.streams {
            Verdict::Done
        } else {
            Verdict::Stay
        }
    }

    /// What the last glitch was.
    pub const fn last(&self) -> Option<Glitch> {
        self.last
    }

    /// The last stream that the client has opened.
    pub const fn last_stream(&self) -> u32 {
        self.streams.highest
    }

    /// Whether there is a response for which the client has left no room.
    pub fn is_shut(&self) -> bool {
        self.streams.shut > 0 || (self.streams.window <= 0 && !self.streams.open.is_empty())
    }
}

/// Adds to what is paid for, up to [`SAVINGS`].
fn earn(savings: &mut u32, amount: u32) {
    *savings = (*savings + amount).min(SAVINGS);
}

/// Takes one from what is paid for; false: there was none.
fn pay(savings: &mut u32) -> bool {
    let is_paid = *savings > 0;
    *savings = savings.saturating_sub(1);
    is_paid
}

/// The streams that are open, with the room that the client leaves each (RFC 9113 section 6.9).
#[derive(Clone, Debug)]
struct Streams {
    /// By id, which only grow.
    open: Vec<(u32, i64)>,
    highest: u32,
    total: u32,
    /// The room of a new one, and of all of them.
    initial: i64,
    window: i64,
    /// How many have no room.
    shut: u32,
}

impl Streams {
    const fn new() -> Self {
        let window = WINDOW as i64;
        Self { open: Vec::new(), highest: 0, total: 0, initial: window, window, shut: 0 }
    }

    /// Whether `stream` is a new one.
    fn open(&mut self, stream: u32) -> bool {
        if stream <= self.highest {
            return false;
        }
        self.highest = stream;
        self.total = self.total.saturating_add(1);
        if self.open.len() < WATCHED {
            self.open.push((stream, self.initial));
            self.shut += u32::from(self.initial <= 0);
        }
        true
    }

    fn close(&mut self, stream: u32) {
        if let Ok(at) = self.open.binary_search_by_key(&stream, |s| s.0) {
            let (_, window) = self.open.remove(at);
            self.shut -= u32::from(window <= 0);
        }
    }

    /// The room of `stream`, or of the connection, grows by `octets`.
    fn widen(&mut self, stream: u32, octets: i64) {
        if stream == 0 {
            self.window = self.window.saturating_add(octets);
        } else if let Ok(at) = self.open.binary_search_by_key(&stream, |s| s.0)
            && let Some((_, window)) = self.open.get_mut(at)
        {
            let was_shut = *window <= 0;
            *window = window.saturating_add(octets);
            self.shut = self.shut + u32::from(*window <= 0) - u32::from(was_shut);
        }
    }

    /// The room of every stream changes with that of a new one (RFC 9113 section 6.9.2).
    fn reopen(&mut self, initial: u32) {
        let more = i64::from(initial) - self.initial;
        self.initial += more;
        self.open.iter_mut().for_each(|(_, window)| *window = window.saturating_add(more));
        self.shut = self.open.iter().filter(|(_, window)| *window <= 0).count() as u32;
    }
}

#[cfg(test)]
mod tests;
