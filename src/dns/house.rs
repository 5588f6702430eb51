//! What the connections of one transport share: who is here, where answers are made, and the limits of the moment.
//!
//! TCP, TLS, HTTPS and QUIC have a house each, on a thread with a runtime of its own: a flood in one of them takes neither
//! room nor time from the others, nor from UDP. Everything a house holds is bounded.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{Meta, Outcome, Sent, Transport, answer};
use super::guard::Guard;
use super::guests::{Guests, Room};
use super::table::Table;
use super::tally::{FLUSH, Tally, Told};
use super::transfer::Gate;
use crate::base::clock::{Clock as _, SystemClock, Wall};
use crate::base::task::Task;
use crate::config::Connections;
use crate::observe::names::dns as metric;
use crate::snapshot::Published;
use crate::snapshot::views::Slot;
use crate::wire::dns::MAX_TCP;

/// What is read from a stream at once: some hundred queries.
const PAGE: usize = 8 * 1_024;
/// Who is still at a PROXY header or a handshake counts apart, a quarter of all connections: strangers who never finish
/// theirs push out each other, not those who did. Never fewer than this. Ours.
const LEAST_LOBBY: usize = 16;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or it broke.
    Client,
    /// It stood without a whole query for too long.
    Idle,
    /// It made room for another.
    Evicted,
    /// It did not take its answers.
    Slow,
    /// The TLS or QUIC handshake failed or took too long.
    Handshake,
    /// A balancer's PROXY header is missing or broken.
    Header,
    /// It broke the rules of its transport.
    Protocol,
    /// The server stops.
    Shutdown,
}

impl End {
    const ALL: [Self; 8] = [
        Self::Client,
        Self::Idle,
        Self::Evicted,
        Self::Slow,
        Self::Handshake,
        Self::Header,
        Self::Protocol,
        Self::Shutdown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Slow => "slow",
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Protocol => "protocol",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What the connections of one transport share.
pub(super) struct House {
    /// Who has come in.
    pub(super) guests: Arc<Guests>,
    /// Who is on the way in: at a PROXY header or a handshake.
    pub(super) lobby: Arc<Guests>,
    pub(super) shutdown: CancellationToken,
    pub(super) published: Arc<Published>,
    /// Who may transfer a zone now.
    pub(super) transfers: Gate,
    desk: Mutex<Desk>,
    /// What is read from any of the connections passes through here.
    page: Mutex<Box<[u8]>>,
    ends: [Counter; End::ALL.len()],
}

impl House {
    pub(super) fn new(
        transport: Transport,
        published: Arc<Published>,
        guard: &Guard,
        shutdown: CancellationToken,
    ) -> Self {
        let (tally, now) = (Tally::new(transport, guard), SystemClock.wall());
        Self {
            guests: Arc::new(Guests::new(metric::CONNECTIONS.gauge(&[transport.as_str()]))),
            lobby: Arc::new(Guests::new(Gauge::noop())),
            shutdown,
            published,
            transfers: Gate::default(),
            desk: Mutex::new(Desk { transport, tally, sheet: vec![0; MAX_TCP], now }),
            page: Mutex::new(vec![0; PAGE].into()),
            ends: End::ALL.map(|end| metric::CLOSED.counter(&[transport.as_str(), end.as_str()])),
        }
    }

    /// The limits of the moment: a reload changes them for who comes after it.
    pub(super) fn limits(&self) -> Connections {
        let snapshot = self.published.load();
        snapshot.topology.config.dns.as_ref().map(|dns| dns.connections).unwrap_or_default()
    }

    /// Whether connections from `peer` begin with a PROXY header.
    pub(super) fn is_proxy(&self, peer: IpAddr) -> bool {
        let snapshot = self.published.load();
        let proxies = snapshot.topology.config.dns.as_ref().map_or(&[][..], |dns| &dns.proxies);
        proxies.iter().any(|net| net.contains(&peer))
    }

    /// The path that is asked over HTTPS.
    pub(super) fn path(&self) -> Arc<str> {
        let snapshot = self.published.load();
        let https = snapshot.topology.config.dns.as_ref().and_then(|dns| dns.https.as_ref());
        https.map_or_else(|| Arc::from(""), |https| Arc::from(https.path.as_str()))
    }

    /// Lets `work` make answers, from one snapshot and uninterrupted. `None` where there is no name server any more.
    pub(super) fn at_desk<R>(&self, work: impl FnOnce(&mut Desk, &Table) -> R) -> Option<R> {
        let snapshot = self.published.look(Slot::Dns);
        let table = Table::of(&snapshot)?;
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.tally.follow(&snapshot.topology);
        desk.now = SystemClock.wall();
        Some(work(&mut desk, &table))
    }

    /// Lets `work` read into the page.
    pub(super) fn at_page<R>(&self, work: impl FnOnce(&mut [u8]) -> R) -> R {
        work(&mut self.page.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a connection that is over.
    pub(super) fn ended(&self, end: End) {
        if let Some(counter) = self.ends.get(end as usize) {
            counter.increment(1);
        }
    }

    /// Why a connection has to leave that was told to.
    pub(super) fn why_leave(&self) -> End {
        if self.shutdown.is_cancelled() { End::Shutdown } else { End::Evicted }
    }

    /// Keeps the counters until all of `accepting` have ended.
    pub(super) async fn keep(&self, accepting: Vec<Task>) {
        let mut told = Told(SystemClock.mono());
        let mut end = pin!(async {
            for task in accepting {
                task.ended().await;
            }
        });
        loop {
            let has_ended = timeout(FLUSH, end.as_mut()).await.is_ok();
            let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            told.again(&mut desk.tally, SystemClock.mono());
            if has_ended {
                return;
            }
        }
    }
}

/// How many guests `limits` let in.
pub(super) const fn room(limits: &Connections) -> Room {
    Room { total: limits.total, per_client: limits.per_client }
}

/// How many may be on the way in. All of them may come from one address: a balancer has no other.
pub(super) const fn lobby(limits: &Connections) -> Room {
    let quarter = limits.total / 4;
    let total = if quarter > LEAST_LOBBY { quarter } else { LEAST_LOBBY };
    Room { total, per_client: total }
}

/// Where answers are made, one at a time.
pub(super) struct Desk {
    transport: Transport,
    tally: Tally,
    /// Room for the largest answer.
    sheet: Vec<u8>,
    /// When this turn began: what is answered in it has this time.
    now: Wall,
}

impl Desk {
    /// The answer to `client`'s `query`, counted; `None` where there is to be none.
    pub(super) fn answer(&mut self, table: &Table, query: &[u8], client: IpAddr) -> Option<(&[u8], Sent)> {
        let meta = Meta { client, transport: self.transport, now: self.now };
        let outcome = answer(table, query, &meta, &mut self.sheet);
        self.tally.count(&meta, &self.sheet, &outcome, None);
        match outcome {
            Outcome::Send(sent) => Some((self.sheet.get(..sent.length)?, sent)),
            Outcome::Drop(_) => None,
        }
    }
}
