//! `packet`: money in packets. Make one, grab, open; every answer about a fen goes out after it is durable.
//!
//! `POST /v1/packets`, `GET /v1/packets/{id}`, `POST /v1/packets/{id}/grab`, `POST /v1/packets/{id}/open`; for payments,
//! operators and audits on this machine or with the token: `POST /internal/deposits`, `GET /internal/accounts/{payer}`, `GET
//! /internal/{totals,audit,dead}`, `GET /internal/shares?after=ORDER_NO&limit=N`, `POST /internal/resolve`. A grab is answered
//! from memory (`shelf`) and gives a token, without which nobody opens; those who open one packet stand in one line (`line`)
//! and share commits. All calls for a packet should come to one process (the edge sees to that, by rendezvous on its name):
//! that keeps its line single. Where processes share a store, what memory says is true all the same: who has a share has it,
//! what is sold out is sold out, and in all else the store decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response};
use metrics::{Counter, Gauge, Histogram};
use tokio::sync::{Notify, Semaphore};

use self::line::Lines;
use self::shelf::{Glance, Shelf};
use crate::base::clock::{Clock, SystemClock};
use crate::net::stage::{Body, Next, Reply, Stage};
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::cash::{Deposit, Deposited, PacketStore, Totals};
use crate::redpacket::model::cash::Phase;
use crate::redpacket::model::{Code, PacketId, State, UserId};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{bears, is_local, nowhere, trace_id};

mod answer;
mod line;
mod shelf;
mod token;

pub use token::Tokens;

/// How long an answer may take: the store's queue is bounded at less.
const LIMIT: Duration = Duration::from_millis(1_500);
/// Packets that are read onto the shelf at the same time.
const READS: usize = 8;
/// Shares that are read onto it at once.
const PAGE: usize = 1_000;
/// Packets that are given back in one commit.
const SWEEP: usize = 256;
/// Such commits in one sweep; what is left has its turn a second later.
const SWEEPS: usize = 16;

/// The service.
pub struct PacketService {
    store: Arc<dyn PacketStore>,
    lines: Arc<Lines>,
    shelf: Arc<Mutex<Shelf>>,
    tokens: Tokens,
    token: Option<String>,
    grant_fen: u64,
    clock: Arc<dyn Clock>,
    /// Told when there is something to book.
    wake: Arc<Notify>,
    reads: Semaphore,
    meters: Meters,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Grab,
    Open,
}

struct Meters {
    codes: Vec<(Call, Code, Counter)>,
    seconds: Histogram,
    phases: Vec<(Phase, Gauge)>,
    states: Vec<(State, Gauge)>,
    fen: [Gauge; 5],
    age: Gauge,
}

impl Meters {
    fn new() -> Self {
        let calls = [(Call::Create, "create"), (Call::Grab, "grab"), (Call::Open, "open")];
        let codes = calls.iter().flat_map(|(call, name)| {
            Code::ALL.iter().map(|c| (*call, *c, names::PACKET_ANSWERS_TOTAL.counter(&[name, c.as_str()])))
        });
        let fen = |place| names::CASH_FEN.gauge(&[place]);
        Self {
            codes: codes.collect(),
            seconds: names::OPEN_DURATION_SECONDS.histogram(&[]),
            phases: Phase::ALL.iter().map(|p| (*p, names::PACKETS.gauge(&[p.as_str()]))).collect(),
            states: State::ALL.iter().map(|s| (*s, names::BOOKINGS.gauge(&[s.as_str()]))).collect(),
            fen: [fen("deposited"), fen("accounts"), fen("packets"), fen("opened"), fen("refunded")],
            age: names::BOOKING_AGE_SECONDS.gauge(&[]),
        }
    }
}

impl PacketService {
    /// Keeps packets in `store`, and gives leave to open them by `tokens`.
    pub fn new(store: Arc<dyn PacketStore>, tokens: Tokens) -> Self {
        Self::on(store, tokens, Arc::new(SystemClock))
    }

    /// On another clock.
    pub fn on(store: Arc<dyn PacketStore>, tokens: Tokens, clock: Arc<dyn Clock>) -> Self {
        let shelf = Arc::<Mutex<Shelf>>::default();
        let lines = Arc::new(Lines::new(store.clone(), shelf.clone(), clock.clone()));
        let (wake, reads) = (Arc::new(Notify::new()), Semaphore::new(READS));
        let meters = Meters::new();
        Self { store, lines, shelf, tokens, token: None, grant_fen: 0, clock, wake, reads, meters }
    }

    /// With the token that payments and audits from other machines must bear.
    #[must_use]
    pub fn guarded(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// With so many fen as a present for every payer who has no account: for demonstrations.
    #[must_use]
    pub const fn granting(mut self, fen: u64) -> Self {
        self.grant_fen = fen;
        self
    }

    /// What is notified when there is something to book.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Puts money into an account.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn deposit(&self, deposit: Deposit) -> Result<Deposited, StoreError> {
        self.store.deposit(deposit).await
    }

    /// Gives back what is left of packets whose time is over, at most 4,096 of them. To be called about once a second.
    ///
    /// # Errors
    /// The store cannot write; what was not given back will be.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        let mut all = 0;
        for _ in 0..SWEEPS {
            let swept = self.store.sweep(SWEEP, self.clock.wall()).await?;
            for packet in &swept {
                self.shelf().update(packet);
            }
            all += swept.len();
            if swept.len() < SWEEP {
                break;
            }
        }
        Ok(all)
    }

    /// Reads the store's sums into the metrics. To be called about once a second.
    ///
    /// # Errors
    /// The store cannot read.
    pub async fn measure(&self) -> Result<Totals, StoreError> {
        let totals = self.store.totals().await?;
        let Totals { deposited_fen, balances_fen, left_fen, opened_fen, refunded_fen, .. } = totals;
        let all = [deposited_fen, balances_fen, left_fen, opened_fen, refunded_fen];
        self.meters.fen.iter().zip(all).for_each(|(gauge, fen)| gauge.set(fen as f64));
        self.meters.phases.iter().for_each(|(phase, gauge)| gauge.set(totals.packets_in(*phase) as f64));
        self.meters.states.iter().for_each(|(state, gauge)| gauge.set(totals.shares_in(*state) as f64));
        let age = totals.oldest_open.map_or(Duration::ZERO, |at| self.clock.wall().since(at));
        self.meters.age.set(age.as_secs_f64());
        if !totals.add_up() {
            tracing::error!(?totals, "the sums of the ledger do not add up");
        }
        Ok(totals)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let trace = trace_id(&head.headers);
        let path = head.uri.path();
        let answer = match (&head.method, path) {
            (&Method::GET, "/healthz") => {
                let code = if self.store.writable() { Code::Ok } else { Code::Unavailable };
                Ok(Envelope::new(code, &trace))
            }
            (&Method::POST, "/v1/packets") => Ok(self.count(Call::Create, self.create(&head, body, &trace).await)),
            (_, path) if path.starts_with("/internal/") => {
                let borne = self.token.as_ref().is_some_and(|token| bears(&head.headers, token));
                if !borne && !is_local(&head) {
                    return nowhere(&trace);
                }
                self.internal(&head, body, &trace).await
            }
            (method, path) => match (method, path.strip_prefix("/v1/packets/").map(|rest| rest.split_once('/'))) {
                (&Method::GET, Some(None)) => self.look(&head, &trace).await,
                (&Method::POST, Some(Some((id, "grab")))) => {
                    Ok(self.count(Call::Grab, self.grab(&head, id, &trace).await))
                }
                (&Method::POST, Some(Some((id, "open")))) => {
                    let started = self.clock.mono();
                    let answer = self.open(&head, body, id, &trace).await;
                    self.meters.seconds.record(self.clock.mono().since(started).as_secs_f64());
                    Ok(self.count(Call::Open, answer))
                }
                _ => return nowhere(&trace),
            },
        };
        answer.unwrap_or_else(|refused| *refused).respond()
    }

    fn count(&self, call: Call, answer: Result<Envelope, Box<Envelope>>) -> Envelope {
        let answer = answer.unwrap_or_else(|refused| *refused);
        if let Some((.., counter)) = self.meters.codes.iter().find(|(c, code, _)| (*c, *code) == (call, answer.code)) {
            counter.increment(1);
        }
        answer
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn glance(&self, id: &PacketId, user: &UserId) -> Glance {
        self.shelf().glance(id, user, (self.clock.mono(), self.clock.wall()))
    }

    /// What is known of a packet for `user`, read out of the store where memory does not have it. Never
    /// [`Glance::Unknown`], but where it changes faster than it can be read: then the store itself decides.
    async fn know(&self, id: &PacketId, user: &UserId) -> Result<Glance, StoreError> {
        let known = self.glance(id, user);
        if known != Glance::Unknown {
            return Ok(known);
        }
        // Waiting here is bounded by the limit of the service. The semaphore is never closed.
        let _permit = self.reads.acquire().await.map_err(|_| StoreError::Stopped)?;
        // Others may have waited for the same.
        let known = self.glance(id, user);
        if known != Glance::Unknown {
            return Ok(known);
        }
        let Some(packet) = self.store.find(id.clone()).await? else {
            self.shelf().strange(id.clone(), self.clock.mono());
            return Ok(Glance::Nothing);
        };
        let mut after = 0;
        loop {
            let page = self.store.shares(id.clone(), after, PAGE).await?;
            self.shelf().learn(&packet, &page);
            match page.last() {
                Some(last) if page.len() == PAGE => after = last.rank,
                _ => return Ok(self.glance(id, user)),
            }
        }
    }

    fn sorry(&self, error: &StoreError, trace: &str) -> Box<Envelope> {
        tracing::warn!(store = self.store.name(), %error, trace, "a request failed on the store");
        let envelope = Envelope::new(error.code(), trace);
        Box::new(match error.code() {
            Code::Deadline => envelope.saying("This took too long. Please try again; nothing is given or paid twice."),
            _ => envelope,
        })
    }
}

impl Stage for PacketService {
    fn name(&self) -> &'static str {
        "packet"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests;
