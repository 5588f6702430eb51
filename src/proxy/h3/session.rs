//! One connection: its streams, what may be wasted on it, and its end.
//!
//! ```text
//!   open --told to drain--> announced --a round trip--> leaving --last request--> closed     GOAWAY, GOAWAY again
//!    |  10,000 requests ------------------------------>    |
//!    +---- a rule broken, too much wasted, told to close --+--> closed at once
//! ```

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::arrival::OPENING;
use super::super::drain::Order;
use super::super::serve::Client;
use super::exchange::{self, Outcome};
use crate::net::sockets::Succession;
use crate::observe::names::proxy as names;
use crate::wire::h1::HEAD_BYTES;
use crate::wire::h3::control::{self, Control, DecoderSays, Word, encoder_says, kinds};
use crate::wire::h3::{Code, Fault, frame};

/// Requests of one connection, all in all (ours; nginx: 1,000 with HTTP/2, HAProxy without a limit).
const REQUESTS: u64 = 10_000;
/// Frames and streams that say nothing, on one connection (ours). Each request brings [`IDLE_EACH`] more.
const IDLE: u32 = 1_000;
const IDLE_EACH: u32 = 10;
/// Requests that may be given up unanswered beyond those that were answered (ours): more is a rapid reset (CVE-2023-44487).
const GIVEN_UP: u64 = 200;
/// The id of a stream that no client ever opens: nothing new may begin (RFC 9114 section 5.2).
const NO_STREAM_YET: u64 = (1 << 62) - 4;
/// How long requests that are on their way to us may take to arrive once the end is announced: a round trip, within limits.
const GRACE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long running requests have where a successor reads from the same socket (ours): meanwhile each loses packets to the other.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Octets that are read at a time.
const CHUNK: usize = 16 * 1024;

/// What all streams of a connection have in common.
pub(super) struct Session {
    connection: Connection,
    requests: AtomicU32,
    wasted: AtomicU32,
    /// Of the streams that there is one of each, those that have come.
    critical: AtomicU8,
}

impl Session {
    /// Counts something that says nothing.
    ///
    /// # Errors
    /// It has been too much.
    pub(super) fn waste(&self, times: u32) -> Result<(), Fault> {
        let before = self.wasted.fetch_add(times, Relaxed);
        let allowed = IDLE.saturating_add(self.requests.load(Relaxed).saturating_mul(IDLE_EACH));
        if before.saturating_add(times) > allowed { Err(Fault::Connection(Code::ExcessiveLoad)) } else { Ok(()) }
    }

    /// Ends the connection with `code`.
    pub(super) fn close(&self, code: Code) {
        if code != Code::NoError && self.connection.close_reason().is_none() {
            names::HTTP3_FAULTS.counter(&["connection", code.as_str()]).increment(1);
        }
        self.connection.close(number(code), b"");
    }
}

/// `code` as QUIC has it.
pub(super) const fn number(code: Code) -> VarInt {
    VarInt::from_u32(code as u32)
}

/// Serves `client` over `connection` until one of the two has had enough.
pub(super) async fn serve(client: &Arc<Client>, connection: Connection, succession: &Succession) {
    let session = Arc::new(Session {
        connection: connection.clone(),
        requests: AtomicU32::new(0),
        wasted: AtomicU32::new(0),
        critical: AtomicU8::new(0),
    });
    client.pulse.listen(&poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    let hello = async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(&control::hello(HEAD_BYTES as u64)).await.ok()?;
        Some(stream)
    };
    // Who gives us no stream for it does not mean to speak HTTP/3.
    let Ok(Some(goodbye)) = timeout(OPENING, hello).await else { return session.close(Code::StreamCreationError) };
    let talk = Talk {
        client,
        session: &session,
        goodbye,
        tasks: JoinSet::new(),
        streams: 0,
        running: HashSet::new(),
        answered: 0,
        given_up: 0,
        stage: Stage::Open,
    };
    let code = talk.run(succession).await;
    session.close(code);
}

/// How far it is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// What is on its way is still taken, until then.
    Announced(Instant),
    /// Nothing new is taken; what runs may finish until then, where there is such a time.
    Leaving(Option<Instant>),
}

/// How a stream's task has ended.
#[derive(Clone, Copy)]
enum Ended {
    Request(Outcome),
    Listener(Result<(), Fault>),
}

struct Talk<'c> {
    client: &'c Arc<Client>,
    session: &'c Arc<Session>,
    /// Our control stream.
    goodbye: SendStream,
    tasks: JoinSet<Ended>,
    /// Requests that have come.
    streams: u64,
    running: HashSet<tokio::task::Id>,
    answered: u64,
    given_up: u64,
    stage: Stage,
}

impl Talk<'_> {
    /// Until the end. With what code it ends.
    async fn run(mut self, succession: &Succession) -> Code {
        let connection = self.session.connection.clone();
        let mut order = Order::None;
        loop {
            if matches!(self.stage, Stage::Leaving(_)) && self.running.is_empty() {
                return Code::NoError;
            }
            let event = tokio::select! {
                biased;
                told = self.told(order) => Event::Told(told),
                Some(ended) = self.tasks.join_next_with_id() => Event::Ended(ended),
                stream = connection.accept_bi() => Event::Request(stream.ok()),
                stream = connection.accept_uni() => Event::Stream(stream.ok()),
                () = until(self.stage) => Event::Time,
            };
            let done = match event {
                // Told to, or over already.
                Event::Told(Order::Close) | Event::Request(None) | Event::Stream(None) => return Code::NoError,
                Event::Told(told) => {
                    order = told;
                    self.part(succession.has_heir()).await;
                    Ok(())
                }
                Event::Time if matches!(self.stage, Stage::Leaving(_)) => return Code::NoError,
                Event::Time => {
                    self.leave(None).await;
                    Ok(())
                }
                Event::Ended(Ok((id, ended))) => {
                    self.running.remove(&id);
                    self.ended(ended)
                }
                Event::Ended(Err(panicked)) => {
                    self.running.remove(&panicked.id());
                    Ok(())
                }
                Event::Request(Some((send, receive))) => {
                    self.request(send, receive).await;
                    Ok(())
                }
                Event::Stream(Some(stream)) => self.session.waste(1).map(|()| {
                    let session = Arc::clone(self.session);
                    self.tasks.spawn(async move { Ended::Listener(listen(&session, stream).await) });
                }),
            };
            if let Err(Fault::Connection(code) | Fault::Stream(code)) = done {
                return code;
            }
        }
    }

    /// What it is told, once that is something else than `known`.
    fn told(&self, known: Order) -> impl Future<Output = Order> + use<> {
        let client = Arc::clone(self.client);
        poll_fn(move |_| match client.pulse.order() {
            order if order == known => Poll::Pending,
            order => Poll::Ready(order),
        })
    }

    async fn request(&mut self, mut send: SendStream, mut receive: RecvStream) {
        if matches!(self.stage, Stage::Leaving(_)) {
            // RFC 9114 section 5.2: it was not looked at, and may be sent elsewhere.
            let _ = (send.reset(number(Code::RequestRejected)), receive.stop(number(Code::RequestRejected)));
            return;
        }
        self.streams += 1;
        self.session.requests.fetch_add(1, Relaxed);
        let (client, session) = (Arc::clone(self.client), Arc::clone(self.session));
        let task =
            self.tasks.spawn(async move { Ended::Request(exchange::serve(&client, &session, send, receive).await) });
        self.running.insert(task.id());
        if self.streams == REQUESTS {
            self.leave(None).await;
        }
    }

    fn ended(&mut self, ended: Ended) -> Result<(), Fault> {
        match ended {
            Ended::Request(Outcome::Answered) => self.answered += 1,
            Ended::Request(Outcome::GivenUp) => self.given_up += 1,
            Ended::Request(Outcome::Broken(fault)) => {
                self.given_up += 1;
                if let Fault::Connection(_) = fault {
                    return Err(fault);
                }
            }
            Ended::Listener(heard) => return heard,
        }
        let is_too_much = self.given_up > self.answered + GIVEN_UP;
        if is_too_much { Err(Fault::Connection(Code::ExcessiveLoad)) } else { Ok(()) }
    }

    /// Announces the end: what is on its way already is still taken.
    async fn part(&mut self, has_heir: bool) {
        if matches!(self.stage, Stage::Leaving(_)) {
            return;
        }
        if has_heir {
            return self.leave(Some(sleep(LAST_WORDS))).await;
        }
        if self.stage == Stage::Open {
            self.say(NO_STREAM_YET).await;
            let grace = (2 * self.session.connection.rtt()).clamp(GRACE.0, GRACE.1);
            self.stage = Stage::Announced(sleep(grace));
        }
    }

    /// Takes nothing new from here on.
    async fn leave(&mut self, until: Option<Instant>) {
        if !matches!(self.stage, Stage::Leaving(_)) {
            self.say(self.streams * 4).await;
        }
        self.stage = Stage::Leaving(until);
    }

    async fn say(&mut self, stream: u64) {
        // Who does not even take a dozen octets hears of it when the connection closes.
        let _ = timeout(GRACE.1, self.goodbye.write_all(&control::go_away(stream))).await;
    }
}

/// When `pause` from now is over.
fn sleep(pause: Duration) -> Instant {
    tokio::time::sleep(pause).deadline()
}

enum Event {
    Told(Order),
    Ended(Result<(tokio::task::Id, Ended), tokio::task::JoinError>),
    Request(Option<(SendStream, RecvStream)>),
    Stream(Option<RecvStream>),
    Time,
}

/// Waits for what ends `stage`.
async fn until(stage: Stage) {
    match stage {
        Stage::Announced(until) | Stage::Leaving(Some(until)) => sleep_until(until).await,
        Stage::Open | Stage::Leaving(None) => std::future::pending().await,
    }
}

/// Listens to a stream of one direction.
async fn listen(session: &Session, mut stream: RecvStream) -> Result<(), Fault> {
    const GONE: Fault = Fault::Connection(Code::ClosedCriticalStream);
    let mut first = Vec::new();
    let (kind, mut came) = loop {
        // One that ends before it has said what it is says nothing.
        let Ok(Some(chunk)) = stream.read_chunk(CHUNK, true).await else { return Ok(()) };
        first.extend_from_slice(&chunk.bytes);
        if let Some((kind, length)) = frame::varint(&first) {
            break (kind, Bytes::from(first).slice(length..));
        }
    };
    match kind {
        kinds::CONTROL | kinds::QPACK_ENCODER | kinds::QPACK_DECODER => {
            // RFC 9114 section 6.2.1, RFC 9204 section 4.2: one of each.
            let bit = 1 << kind;
            if session.critical.fetch_or(bit, Relaxed) & bit != 0 {
                return Err(Fault::Connection(Code::StreamCreationError));
            }
        }
        // Clients push nothing (RFC 9114 section 6.2.2).
        kinds::PUSH => return Err(Fault::Connection(Code::StreamCreationError)),
        _ => {
            let _ = stream.stop(number(Code::StreamCreationError));
            return Ok(());
        }
    }
    let mut ear = Ear::of(kind);
    loop {
        ear.hear(&mut came, session)?;
        came = match stream.read_chunk(CHUNK, true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) | Err(ReadError::Reset(_)) => return Err(GONE),
            Err(_) => return Ok(()),
        };
    }
}

/// Who listens to what kind of stream.
enum Ear {
    Control(Control),
    Encoder,
    Decoder(DecoderSays),
}

impl Ear {
    fn of(kind: u64) -> Self {
        match kind {
            kinds::QPACK_ENCODER => Self::Encoder,
            kinds::QPACK_DECODER => Self::Decoder(DecoderSays::default()),
            _ => Self::Control(Control::default()),
        }
    }

    fn hear(&mut self, came: &mut Bytes, session: &Session) -> Result<(), Fault> {
        match self {
            Self::Control(control) => loop {
                match control.step(came)? {
                    Word::Wait => return Ok(()),
                    Word::Settings => {}
                    Word::Idle => session.waste(1)?,
                }
            },
            Self::Encoder => session.waste(encoder_says(came)? as u32),
            Self::Decoder(says) => session.waste(says.take(came)? as u32),
        }
    }
}
