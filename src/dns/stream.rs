//! The TCP loop (RFC 7766, RFC 9210): everything that is in the read buffer is answered with one write.
//!
//! One thread with a runtime of its own. Bounded everywhere: connections in all and by client, octets read and written
//! ahead, time between queries, time to take an answer. At a limit the connection that has been idle longest makes room.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{Meta, Outcome, Transport, answer};
use super::table::Table;
use super::tally::Tally;
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::base::task;
use crate::observe::names::dns as metric;
use crate::snapshot::Published;
use crate::snapshot::views::Slot;
use crate::wire::dns::MAX_TCP;

/// Limits of the TCP side. All of them are ours, near to what gdnsd and Knot have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one client address.
    pub per_client: usize,
    /// How long a connection may stand without a whole query. RFC 7766 section 6.2.3 wants seconds.
    pub idle: Duration,
    /// How long the peer may take to take what is written.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 1_024, per_client: 128, idle: Duration::from_secs(15), write: Duration::from_secs(5) }
    }
}

/// What is read at once: some hundred queries.
const READ_AHEAD: usize = 8 * 1_024;
/// What is gathered before it is written: as many answers. With what is read it bounds what a connection holds between
/// queries; a larger query or answer is given back when it is done.
const WRITE_AHEAD: usize = 16 * 1_024;
/// How often counters go to the metrics.
const FLUSH: Duration = Duration::from_secs(1);
/// How long to wait when the system gives no further connections (no file descriptors).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Idle,
    Evicted,
    Slow,
    Shutdown,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Slow => "slow",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Who is connected.
struct Guests {
    limits: Limits,
    open: Mutex<Open>,
    count: Gauge,
}

#[derive(Default)]
struct Open {
    next: u64,
    guests: HashMap<u64, Guest>,
}

struct Guest {
    from: IpAddr,
    active: Mono,
    leave: CancellationToken,
}

impl Guests {
    fn new(limits: Limits) -> Self {
        Self { limits, open: Mutex::default(), count: metric::CONNECTIONS.gauge(&[]) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in. At a limit the one that has been idle longest is asked to leave: of the same client where that
    /// is at its own limit, else of all.
    fn enter(&self, from: IpAddr, now: Mono) -> (u64, CancellationToken) {
        let mut open = self.lock();
        let of_client = open.guests.values().filter(|g| g.from == from).count();
        let oldest = |open: &Open, of: &dyn Fn(&Guest) -> bool| {
            open.guests.iter().filter(|(_, g)| of(g)).min_by_key(|(id, g)| (g.active, **id)).map(|(id, _)| *id)
        };
        let leaves = if of_client >= self.limits.per_client {
            oldest(&open, &|g| g.from == from)
        } else if open.guests.len() >= self.limits.connections {
            oldest(&open, &|_| true)
        } else {
            None
        };
        if let Some(guest) = leaves.and_then(|id| open.guests.remove(&id)) {
            guest.leave.cancel();
        }
        let id = open.next;
        open.next += 1;
        let leave = CancellationToken::new();
        open.guests.insert(id, Guest { from, active: now, leave: leave.clone() });
        self.count.set(open.guests.len() as f64);
        (id, leave)
    }

    fn active(&self, id: u64, now: Mono) {
        if let Some(guest) = self.lock().guests.get_mut(&id) {
            guest.active = now;
        }
    }

    fn leave(&self, id: u64) {
        let mut open = self.lock();
        open.guests.remove(&id);
        self.count.set(open.guests.len() as f64);
    }
}

/// What every connection shares.
struct House {
    published: Arc<Published>,
    guests: Guests,
    desk: Mutex<Desk>,
    shutdown: CancellationToken,
}

/// Where answers are made, one at a time.
struct Desk {
    tally: Tally,
    /// Room for the largest answer.
    sheet: Vec<u8>,
}

impl House {
    fn new(published: Arc<Published>, limits: Limits, shutdown: CancellationToken) -> Self {
        let desk = Desk { tally: Tally::new(Transport::Tcp), sheet: vec![0; MAX_TCP] };
        Self { published, guests: Guests::new(limits), desk: Mutex::new(desk), shutdown }
    }

    fn desk(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers what comes in on `listeners` until `shutdown`; then until every connection has got what it had asked for.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    published: Arc<Published>,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let house = Arc::new(House::new(published, limits, shutdown));
    let accepting: Vec<_> =
        listeners.into_iter().map(|listener| task::spawn("dns-accept", accept(listener, Arc::clone(&house)))).collect();
    while !house.shutdown.is_cancelled() {
        tokio::select! {
            () = sleep(FLUSH) => {}
            () = house.shutdown.cancelled() => {}
        }
        house.desk().tally.flush();
    }
    for task in accepting {
        task.ended().await;
    }
}

async fn accept(listener: TcpListener, house: Arc<House>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            () = house.shutdown.cancelled() => break,
        };
        let Ok((stream, from)) = accepted else {
            // No descriptors, most likely: the connections that we have will free some.
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        open.spawn(attend(stream, from, Arc::clone(&house)));
    }
    while open.join_next().await.is_some() {}
}

async fn attend(mut stream: impl AsyncRead + AsyncWrite + Unpin, from: SocketAddr, house: Arc<House>) {
    let (id, leave) = house.guests.enter(from.ip(), SystemClock.mono());
    let end = converse(&mut stream, id, from.ip(), &leave, &house).await;
    house.guests.leave(id);
    metric::CLOSED.counter(&[end.as_str()]).increment(1);
    if end != End::Slow {
        // Says goodbye in order, for as long as it may take to take an answer.
        let _ = timeout(house.guests.limits.write, stream.shutdown()).await;
    }
}

async fn converse(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    id: u64,
    from: IpAddr,
    leave: &CancellationToken,
    house: &House,
) -> End {
    let meta = Meta { client: from, transport: Transport::Tcp };
    let mut input = Input::default();
    let mut output = Vec::new();
    loop {
        // A query that never becomes whole is idleness too: the timer runs until one does.
        let mut idle = pin!(sleep(house.guests.limits.idle));
        while !input.has_query() {
            let read = tokio::select! {
                biased;
                read = input.read(stream) => read,
                () = leave.cancelled() => return End::Evicted,
                () = house.shutdown.cancelled() => return End::Shutdown,
                () = &mut idle => return End::Idle,
            };
            match read {
                Ok(0) | Err(_) => return End::Client,
                Ok(_) => {}
            }
        }
        house.guests.active(id, SystemClock.mono());
        while input.has_query() {
            output.clear();
            answer_all(&mut input, &mut output, &meta, house);
            match timeout(house.guests.limits.write, stream.write_all(&output)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return End::Client,
                Err(_) => return End::Slow,
            }
        }
        output.shrink_to(WRITE_AHEAD);
        tokio::task::consume_budget().await;
    }
}

/// Answers the whole queries in `input`, until `output` has grown enough for one write.
fn answer_all(input: &mut Input, output: &mut Vec<u8>, meta: &Meta, house: &House) {
    let snapshot = house.published.look(Slot::Dns);
    let Some(table) = Table::of(&snapshot) else { return };
    let mut desk = house.desk();
    let Desk { tally, sheet } = &mut *desk;
    tally.follow(&snapshot.topology);
    while output.len() < WRITE_AHEAD
        && let Some(query) = input.next_query()
    {
        let outcome = answer(&table, query, meta, sheet);
        tally.count(&outcome);
        if let Outcome::Send(sent) = outcome
            && let Some(message) = sheet.get(..sent.length)
        {
            output.extend((sent.length as u16).to_be_bytes());
            output.extend_from_slice(message);
        }
    }
}

/// What has been read and not been answered yet.
#[derive(Default)]
struct Input {
    octets: Vec<u8>,
    at: usize,
}

impl Input {
    fn pending(&self) -> &[u8] {
        self.octets.get(self.at..).unwrap_or_default()
    }

    /// The first query and what it takes with its length before it; `None` while it is not whole.
    fn first(&self) -> Option<(&[u8], usize)> {
        let (length, rest) = self.pending().split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        Some((rest.get(..length)?, 2 + length))
    }

    fn has_query(&self) -> bool {
        self.first().is_some()
    }

    fn next_query(&mut self) -> Option<&[u8]> {
        let taken = self.first()?.1;
        let start = self.at + 2;
        self.at += taken;
        self.octets.get(start..self.at)
    }

    /// Reads more behind what is pending. Never holds more than one query of the largest size and what is read at once.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.octets.drain(..self.at);
        self.at = 0;
        self.octets.shrink_to(2 * READ_AHEAD);
        self.octets.reserve(READ_AHEAD);
        let mut room = (&mut *stream).take(READ_AHEAD as u64);
        room.read_buf(&mut self.octets).await
    }
}

#[cfg(test)]
mod tests;
