//! `claim`: the receipt of a gift. 202 goes out after the order is durable, and the same claim gets the same order forever.
//!
//! `POST /v1/claims`, `GET /v1/claims/{order_no}`; for workers on this machine or with the token: `POST
//! /internal/lease`, `POST /internal/settle`, `GET /internal/stats`; for operators `GET /internal/dead`, `POST
//! /internal/resolve` and `GET /internal/orders?after=ORDER_NO&limit=N`. `/healthz` fails while the store cannot write. A
//! user's claims are all decided at one store, the user's home: it is what keeps anyone from claiming twice. With a
//! [`Relay`], claims of other homes' users are passed on or noted (see `afar`); without one, this process is everybody's
//! home, and the edge must see to it that it is. `POST /internal/{claims,intents,stock}` are the homes among themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use metrics::{Counter, Gauge, Histogram};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::base::clock::{Clock, SystemClock, Wall};
use crate::net::stage::{Body, Next, Reply, Stage};
use crate::observe::names::redpacket as names;
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::ledger::{Claimed, Stats, Store, StoreError};
use crate::redpacket::model::{
    ActivityId, Claim, Code, GiftId, IdempotencyKey, Moment, Order, OrderNo, PacketId, RoleId, Settlement, State,
    UserId, ZoneId,
};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{bears, deadline, is_local, json, nowhere, page, trace_id, user};
use crate::redpacket::service::known::Known;
use crate::redpacket::service::letters::{LETTERS, Word};
use crate::redpacket::service::relay::Relay;

mod afar;
mod quota;

type Answer = Result<Envelope, Box<Envelope>>;

/// How long a claim may take: the store's queue is bounded at less.
const LIMIT: Duration = Duration::from_millis(1_500);
/// What was promised for a delivery (RED_PACKET 2.1).
const PROMISE_S: u64 = 48 * 3_600;
/// Orders in one lease, at most.
const LEASE_ORDERS: usize = 256;
/// Orders that are read at a time by [`ClaimService::learn`].
const LEARN_ORDERS: usize = 1_024;
/// The longest lease.
const LEASE_MS: u64 = 600_000;
/// Words in one settlement, at most: what fits in a body.
const WORDS: usize = 256;

/// A claim as a client sends it. Unknown fields are left to newer releases.
#[derive(Deserialize)]
struct Wish {
    activity_id: Option<ActivityId>,
    packet_id: PacketId,
    gift_id: GiftId,
    #[serde(default)]
    zone_id: String,
    #[serde(default)]
    role_id: String,
    idempotency_key: Option<IdempotencyKey>,
}

#[derive(Deserialize)]
struct LeaseWish {
    limit: usize,
    lease_ms: u64,
}

#[derive(Deserialize)]
struct Words {
    words: Vec<Settlement>,
}

/// An order as its user sees it.
#[derive(Serialize)]
struct View<'a> {
    order_no: OrderNo,
    state: State,
    activity_id: &'a ActivityId,
    packet_id: &'a PacketId,
    gift_id: &'a GiftId,
    zone_id: &'a ZoneId,
    role_id: &'a RoleId,
    attempts: u32,
    accepted_at: Moment,
    updated_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta_s: Option<u64>,
}

/// The service.
pub struct ClaimService {
    store: Arc<dyn Store>,
    catalogue: Arc<Catalogue>,
    token: Option<String>,
    clock: Arc<dyn Clock>,
    /// Told when there is something to deliver.
    wake: Arc<Notify>,
    /// How fast orders leave, in orders a second; 0 where somebody else delivers.
    rate: f64,
    backlog: AtomicU64,
    known: Known,
    /// The way to other homes, where there are any.
    relay: Option<Arc<Relay>>,
    meters: Meters,
}

struct Meters {
    codes: Vec<(Code, Counter)>,
    seconds: Histogram,
    states: Vec<(State, Gauge)>,
    pending_age: Gauge,
}

impl ClaimService {
    /// Takes claims on `catalogue` into `store`.
    pub fn new(store: Arc<dyn Store>, catalogue: Arc<Catalogue>) -> Self {
        let meters = Meters {
            codes: Code::ALL.iter().map(|c| (*c, names::CLAIMS_TOTAL.counter(&[c.as_str()]))).collect(),
            seconds: names::CLAIM_DURATION_SECONDS.histogram(&[]),
            states: State::ALL.iter().map(|s| (*s, names::ORDERS.gauge(&[s.as_str()]))).collect(),
            pending_age: names::PENDING_AGE_SECONDS.gauge(&[]),
        };
        let (clock, wake) = (Arc::new(SystemClock), Arc::new(Notify::new()));
        let stock = catalogue.gifts.iter().fold(0, |sum: u64, gift| sum.saturating_add(gift.stock));
        let known = if store.is_alone() { Known::alone(stock) } else { Known::default() };
        let backlog = AtomicU64::new(0);
        Self { store, catalogue, token: None, clock, wake, rate: 0.0, backlog, known, relay: None, meters }
    }

    /// As one of several homes. The store must be held as the relay says ([`Store::fence`]).
    #[must_use]
    pub fn among(mut self, relay: Arc<Relay>) -> Self {
        self.relay = Some(relay);
        self
    }

    /// With the token that workers on other machines must bear.
    #[must_use]
    pub fn guarded(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    /// With a worker beside it that delivers `rate` orders a second and listens to [`Self::wake`]; for the estimate that
    /// users get.
    #[must_use]
    pub fn delivering(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// On another clock.
    #[must_use]
    pub fn on(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What is notified when there is something to deliver.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// Puts `part` of `of` parts of every gift's stock into the store.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn provision(&self, part: u32, of: u32) -> Result<(), StoreError> {
        for gift in &self.catalogue.gifts {
            let total = crate::redpacket::ledger::share(gift.stock, part, of);
            let gift = gift.gift_id.clone();
            let done = self.store.provision(gift.clone(), total).await;
            self.known.restocked(&gift);
            done?;
        }
        Ok(())
    }

    /// Looks once through all orders that the store has, so that who has nothing need not be looked up in it once a gift is
    /// sold out. To be called beside the serving; where others write to the store as well, there is nothing to learn.
    ///
    /// # Errors
    /// The store cannot read. What was learnt stays; once more is as good as once.
    pub async fn learn(&self) -> Result<(), StoreError> {
        let mut after = None;
        while self.known.learns() {
            let trails = self.store.scan(after, LEARN_ORDERS).await?;
            let Some(last) = trails.last() else { break };
            after = Some(last.order.order_no);
            for trail in &trails {
                self.known.tell(&trail.order.claim);
            }
        }
        self.known.complete();
        Ok(())
    }

    /// Reads the store's sums into the metrics. To be called about once a second.
    ///
    /// # Errors
    /// The store cannot read.
    pub async fn measure(&self) -> Result<Stats, StoreError> {
        let stats = self.store.stats().await?;
        self.backlog.store(stats.open(), Ordering::Relaxed);
        for (state, gauge) in &self.meters.states {
            gauge.set(stats.of(*state) as f64);
        }
        let age = stats.oldest_open.map_or(Duration::ZERO, |at| self.clock.wall().since(at));
        self.meters.pending_age.set(age.as_secs_f64());
        for (alarm, on) in stats.alarms(self.clock.wall(), Duration::from_secs(PROMISE_S)) {
            names::ALARM.gauge(&[alarm.as_str()]).set(f64::from(u8::from(on)));
        }
        for (gift, stock) in &stats.stock {
            names::STOCK_LEFT.gauge(&[gift.as_str()]).set(stock.left() as f64);
            // Another process that shares the store may have added some.
            if stock.left() > 0 && self.known.is_sold_out(gift) {
                self.known.restocked(gift);
            }
        }
        if let Some(relay) = &self.relay {
            relay.measure().await?;
        }
        Ok(stats)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let trace = trace_id(&head.headers);
        let answer = match (&head.method, head.uri.path()) {
            (&Method::GET, "/healthz") => {
                let code = if self.store.writable() { Code::Ok } else { Code::Unavailable };
                Ok(Envelope::new(code, &trace))
            }
            (&Method::POST, "/v1/claims") => {
                let started = self.clock.mono();
                let answer = self.claim(&head.headers, body, &trace).await.unwrap_or_else(|refused| *refused);
                self.meters.seconds.record(self.clock.mono().since(started).as_secs_f64());
                if let Some((_, counter)) = self.meters.codes.iter().find(|(code, _)| *code == answer.code) {
                    counter.increment(1);
                }
                Ok(answer)
            }
            (&Method::GET, path) if path.starts_with("/v1/claims/") => self.look(&head.headers, path, &trace).await,
            (_, path) if path.starts_with("/internal/") => {
                let borne = self.token.as_ref().is_some_and(|token| bears(&head.headers, token));
                if !borne && !is_local(&head) {
                    return nowhere(&trace);
                }
                self.internal(&head, body, &trace).await
            }
            _ => return nowhere(&trace),
        };
        answer.unwrap_or_else(|refused| *refused).respond()
    }

    async fn claim(&self, headers: &HeaderMap, body: Body, trace: &str) -> Answer {
        let user_id = user(headers, trace)?;
        let limit = deadline(headers, LIMIT);
        let wish: Wish = json(body, trace).await?;
        let refuse = |code| Box::new(Envelope::new(code, trace));
        let role =
            |e: crate::redpacket::model::BadId| Box::new(Envelope::new(Code::BadRole, trace).saying(e.to_string()));
        let first = self.catalogue.activities.first().map(|a| a.activity_id.clone());
        let claim = Claim {
            activity_id: wish.activity_id.or(first).ok_or_else(|| refuse(Code::NotEligible))?,
            packet_id: wish.packet_id,
            user_id,
            gift_id: wish.gift_id,
            zone_id: ZoneId::parse(&wish.zone_id).map_err(role)?,
            role_id: RoleId::parse(&wish.role_id).map_err(role)?,
            idempotency_key: wish.idempotency_key,
        };
        let set = OrderNo::set_of(&claim.user_id);
        match self.relay.as_ref().filter(|relay| !relay.is_home(set)) {
            Some(relay) => self.afar(relay, claim, limit, trace).await,
            None => self.decide(claim, self.clock.wall(), limit, trace).await,
        }
    }

    /// Decides a claim that was asked for at `asked`, as its user's home.
    async fn decide(&self, claim: Claim, asked: Wall, limit: Duration, trace: &str) -> Answer {
        let refuse = |code| Box::new(Envelope::new(code, trace));
        if let Some(accepted) = self.known.claimed(&claim) {
            return Ok(remind(&claim, accepted, trace));
        }
        if let Err(refusal) = self.catalogue.admit(&claim.activity_id, &claim.packet_id, &claim.gift_id, asked) {
            // Who claimed in time keeps what they have, also when they ask again after the end.
            if refusal.code == Code::Expired
                && let Ok(Some(order)) = self.store.find(claim.number()).await
                && order.claim == claim
            {
                return Ok(self.show(Envelope::new(Code::AlreadyClaimed, trace), &order));
            }
            let envelope = Envelope::new(refusal.code, trace);
            return Err(Box::new(match refusal.opens {
                Some(at) => envelope.after(at.since(asked)),
                None => envelope,
            }));
        }
        if self.known.is_sold_out(&claim.gift_id) && self.known.has_nothing(&claim) {
            return Err(refuse(Code::SoldOut));
        }
        // Who has no order gets none, and the writer is not asked. A key may belong to another claim: only it knows.
        if claim.idempotency_key.is_none()
            && self.known.is_sold_out(&claim.gift_id)
            && matches!(timeout(limit, self.store.find(claim.number())).await, Ok(Ok(None)))
        {
            return Err(refuse(Code::SoldOut));
        }
        let (gift, stocked) = (claim.gift_id.clone(), self.known.stocked());
        self.known.tell(&claim);
        let claimed = match timeout(limit, self.store.claim(claim, self.clock.wall())).await {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(error)) => return Err(Box::new(self.sorry(&error, trace))),
            // It may be committed by now: the same claim again tells.
            Err(_) => return Err(refuse(Code::Deadline)),
        };
        let envelope = Envelope::new(claimed.code(), trace);
        match &claimed {
            Claimed::Accepted(order) => {
                self.known.note(order);
                self.backlog.fetch_add(1, Ordering::Relaxed);
                self.wake.notify_one();
                Ok(self.show(envelope, order))
            }
            Claimed::Already(order) => {
                self.known.note(order);
                Ok(self.show(envelope, order))
            }
            Claimed::SoldOut => {
                self.known.sold_out(&gift, stocked);
                Err(Box::new(envelope))
            }
            Claimed::KeyConflict | Claimed::NoSuchGift => Err(Box::new(envelope)),
        }
    }

    /// One order, for the user whose it is. To anybody else it does not exist.
    async fn look(&self, headers: &HeaderMap, path: &str, trace: &str) -> Answer {
        let (order_no, user) = question(headers, path, "/v1/claims/", trace)?;
        match &self.relay {
            Some(relay) if !relay.is_home(order_no.set()) => self.look_afar(relay, order_no, &user, trace).await,
            Some(relay) => match self.look_here(order_no, &user, trace).await {
                Err(none) if none.code == Code::NotFound => self.seek(relay, order_no, &user, none, trace).await,
                found => found,
            },
            None => self.look_here(order_no, &user, trace).await,
        }
    }

    /// An order in this process's store.
    async fn look_here(&self, order_no: OrderNo, user: &UserId, trace: &str) -> Answer {
        let found = self.store.find(order_no).await.map_err(|e| Box::new(self.sorry(&e, trace)))?;
        let order = found.filter(|order| order.claim.user_id == *user);
        let nothing = || Box::new(Envelope::new(Code::NotFound, trace).saying("There is no such order of yours."));
        let order = order.ok_or_else(nothing)?;
        let code = if order.state.open() { Code::Pending } else { Code::Ok };
        let envelope = Envelope::new(code, trace);
        Ok(self.show(
            match order.state {
                State::Delivered => envelope.saying("Your gift has been delivered."),
                State::Dead => envelope.saying("Your gift could not be delivered yet; we are looking into it."),
                State::Compensated => envelope.saying("Your gift could not be delivered; you were compensated."),
                _ => envelope,
            },
            &order,
        ))
    }

    async fn internal(&self, head: &Parts, body: Body, trace: &str) -> Answer {
        let sorry = |e: StoreError| Box::new(self.sorry(&e, trace));
        let now = self.clock.wall();
        let ok = Envelope::new(Code::Ok, trace);
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/internal/stats") => Ok(ok.with(self.store.stats().await.map_err(sorry)?)),
            (&Method::GET, "/internal/orders") => {
                let (after, limit) =
                    page(&head.uri).map_err(|words| Box::new(Envelope::new(Code::BadRequest, trace).saying(words)))?;
                let trails = self.store.scan(after, limit).await.map_err(sorry)?;
                Ok(ok.with(serde_json::json!({ "trails": trails })))
            }
            (&Method::POST, "/internal/lease") => {
                let wish: LeaseWish = json(body, trace).await?;
                let until = now + Duration::from_millis(wish.lease_ms.min(LEASE_MS));
                let orders = self.store.lease(wish.limit.min(LEASE_ORDERS), until, now).await.map_err(sorry)?;
                Ok(ok.with(serde_json::json!({ "orders": orders })))
            }
            (&Method::GET, "/internal/dead") => {
                let dead = self.store.dead(LETTERS).await.map_err(sorry)?;
                Ok(ok.with(serde_json::json!({ "orders": dead })))
            }
            (&Method::POST, "/internal/resolve") => {
                let Word { order_nos, resolution } = Word::read(body, trace).await?;
                let settled = self.store.resolve(order_nos, resolution, now).await.map_err(sorry)?;
                self.wake.notify_one();
                Ok(ok.with(serde_json::json!({ "settled": settled })))
            }
            (&Method::POST, "/internal/settle") => {
                let Words { mut words } = json(body, trace).await?;
                words.truncate(WORDS);
                let settled = self.store.settle(words, now).await.map_err(sorry)?;
                Ok(ok.with(serde_json::json!({ "settled": settled })))
            }
            (method, path) => match &self.relay {
                Some(relay) => self.among_homes(relay, method, path, &head.headers, body, trace).await,
                None => Err(Box::new(Envelope::new(Code::NotFound, trace))),
            },
        }
    }

    /// What the homes ask each other. Nothing of it is passed on again.
    async fn among_homes(
        &self,
        relay: &Relay,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
        trace: &str,
    ) -> Answer {
        match (method, path) {
            (&Method::POST, "/internal/claims") => self.passed(relay, body, trace).await,
            (&Method::POST, "/internal/intents") => self.late(relay, body, trace).await,
            (&Method::POST, "/internal/stock") => self.give(relay, body, trace).await,
            (&Method::GET, path) if path.starts_with("/internal/claims/") => {
                let (order_no, user) = question(headers, path, "/internal/claims/", trace)?;
                self.look_here(order_no, &user, trace).await
            }
            (&Method::GET, path) if path.starts_with("/internal/intents/") => {
                let (order_no, user) = question(headers, path, "/internal/intents/", trace)?;
                self.kept(relay, order_no, &user, trace).await
            }
            _ => Err(Box::new(Envelope::new(Code::NotFound, trace))),
        }
    }

    fn show(&self, envelope: Envelope, order: &Order) -> Envelope {
        let claim = &order.claim;
        envelope.with(View {
            order_no: order.order_no,
            state: order.state,
            activity_id: &claim.activity_id,
            packet_id: &claim.packet_id,
            gift_id: &claim.gift_id,
            zone_id: &claim.zone_id,
            role_id: &claim.role_id,
            attempts: order.attempts,
            accepted_at: order.created.into(),
            updated_at: order.updated.into(),
            eta_s: order.state.open().then(|| self.eta(order)),
        })
    }

    /// How long until an order is likely delivered: its place in the queue at the worker's rate, and its next try.
    fn eta(&self, order: &Order) -> u64 {
        if self.rate <= 0.0 {
            return PROMISE_S;
        }
        let queue = self.backlog.load(Ordering::Relaxed) as f64 / self.rate;
        let next = if order.state == State::RetryWait { order.due } else { Wall::default() };
        let wait = next.since(self.clock.wall()).as_secs() + 1;
        (queue.ceil() as u64).max(wait).min(PROMISE_S)
    }

    fn sorry(&self, error: &StoreError, trace: &str) -> Envelope {
        tracing::warn!(store = self.store.name(), %error, trace, "a request failed on the store");
        Envelope::new(error.code(), trace)
    }
}

/// Whose order is asked for.
fn question(headers: &HeaderMap, path: &str, before: &str, trace: &str) -> Result<(OrderNo, UserId), Box<Envelope>> {
    let user = user(headers, trace)?;
    let number = OrderNo::parse(path.trim_start_matches(before));
    let number = number.map_err(|e| Box::new(Envelope::new(Code::BadRequest, trace).saying(e.to_string())))?;
    Ok((number, user))
}

/// ALREADY_CLAIMED from memory: everything but how the order stands, which `GET` tells.
fn remind(claim: &Claim, accepted: Wall, trace: &str) -> Envelope {
    Envelope::new(Code::AlreadyClaimed, trace).with(serde_json::json!({
        "order_no": claim.number(),
        "activity_id": claim.activity_id,
        "packet_id": claim.packet_id,
        "gift_id": claim.gift_id,
        "zone_id": claim.zone_id,
        "role_id": claim.role_id,
        "accepted_at": Moment::from(accepted),
    }))
}

impl Stage for ClaimService {
    fn name(&self) -> &'static str {
        "claim"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests;
