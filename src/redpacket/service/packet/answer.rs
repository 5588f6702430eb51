//! What each call on packets is answered with.

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::shelf::{Glance, Taken};
use super::token::secret;
use super::{LIMIT, PacketService};
use crate::base::clock::Wall;
use crate::net::stage::Body;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::cash::audit::audit;
use crate::redpacket::ledger::cash::{Created, Deposit, Deposited, Opened, Opener};
use crate::redpacket::model::cash::{Closed, Mode, Packet, Packing, Phase, Seed, Share, Terms};
use crate::redpacket::model::{ActivityId, BadId, Code, IdempotencyKey, Moment, OrderNo, PacketId, State, UserId};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{deadline, json, page, query, user};
use crate::redpacket::service::letters::{LETTERS, Word};

/// How long a packet may be opened unless its maker says otherwise: what WeChat gives it (RED_PACKET 2.1).
const LASTS_S: u64 = 24 * 3_600;
/// The longest that it may be said.
const LONGEST_S: u64 = 7 * 24 * 3_600;
/// How long a grab is leave to open, at most.
const GRAB: Duration = Duration::from_mins(10);
/// The shortest key that may name a packet: whoever guesses the name may open it.
const KEY_BYTES: usize = 16;
/// Shares on a page of a summary: unless said otherwise, and at most.
const PAGE: (usize, usize) = (50, 200);
/// The header that may carry the key instead of the body; edges route by it.
const KEY_HEADER: &str = "idempotency-key";

type Answer = Result<Envelope, Box<Envelope>>;

/// A packet as a client wants it. Unknown fields are left to newer releases.
#[derive(Deserialize)]
struct Wish {
    total_fen: u64,
    count: u32,
    #[serde(default)]
    mode: Mode,
    expire_s: Option<u64>,
    idempotency_key: Option<IdempotencyKey>,
    activity_id: Option<ActivityId>,
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    grab_token: String,
    idempotency_key: Option<IdempotencyKey>,
}

/// A packet as everybody who knows its name sees it.
#[derive(Serialize)]
struct View<'a> {
    packet_id: &'a PacketId,
    activity_id: &'a ActivityId,
    state: Phase,
    mode: Mode,
    total_fen: u64,
    count: u32,
    opened_fen: u64,
    opened: u32,
    refund_fen: u64,
    created_at: Moment,
    expires_at: Moment,
}

impl<'a> View<'a> {
    fn of(packet: &'a Packet, now: Wall) -> Self {
        let Packing { packet_id, activity_id, terms, .. } = &packet.packing;
        Self {
            packet_id,
            activity_id,
            state: packet.phase_at(now),
            mode: terms.mode,
            total_fen: terms.total_fen,
            count: terms.count,
            opened_fen: packet.opened_fen(),
            opened: packet.opened_count(),
            refund_fen: packet.refund_fen,
            created_at: packet.created.into(),
            expires_at: packet.expires().into(),
        }
    }
}

/// A share as everybody who knows the packet sees it.
#[derive(Serialize)]
struct Line<'a> {
    user_id: &'a UserId,
    rank: u32,
    amount_fen: u64,
    opened_at: Moment,
}

/// A share as its owner sees it.
#[derive(Serialize)]
struct Mine {
    amount_fen: u64,
    rank: u32,
    order_no: OrderNo,
    opened_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
}

impl From<Taken> for Mine {
    fn from(taken: Taken) -> Self {
        let Taken { amount_fen, rank, order_no, opened } = taken;
        Self { amount_fen, rank, order_no, opened_at: opened.into(), state: None }
    }
}

impl From<&Share> for Mine {
    fn from(share: &Share) -> Self {
        Self { state: Some(share.booking.state), ..Taken::from(share).into() }
    }
}

impl PacketService {
    /// Makes a packet out of the user's account. Its key is its name: the same key is the same packet.
    pub(super) async fn create(&self, head: &Parts, body: Body, trace: &str) -> Answer {
        let payer = user(&head.headers, trace)?;
        let limit = deadline(&head.headers, LIMIT);
        let wish: Wish = json(body, trace).await?;
        let bad = |words: String| Box::new(Envelope::new(Code::BadRequest, trace).saying(words));
        let key = keyed(&head.headers, wish.idempotency_key).map_err(bad)?;
        let packet_id = PacketId::parse(key.as_str()).map_err(|e| bad(format!("{e}.")))?;
        let lasts_s = wish.expire_s.unwrap_or(LASTS_S);
        if !(1..=LONGEST_S).contains(&lasts_s) {
            return Err(bad(format!("expire_s must be from 1 to {LONGEST_S}.")));
        }
        let seed = secret().map(Seed::new).map_err(|_| Box::new(Envelope::new(Code::Unavailable, trace)))?;
        let terms = Terms { total_fen: wish.total_fen, count: wish.count, mode: wish.mode, seed };
        terms.check().map_err(|e| bad(format!("{e}.")))?;
        let activity_id = match wish.activity_id {
            Some(activity) => activity,
            None => ActivityId::parse("cash").map_err(|e| bad(e.to_string()))?,
        };
        let packing = Packing { packet_id, activity_id, payer, terms, lasts_ms: lasts_s * 1_000 };
        let now = self.clock.wall();
        let created = self.within(limit, trace, self.fund(packing, now)).await?;
        let envelope = Envelope::new(created.code(), trace);
        match created {
            Created::Funded(packet) => {
                self.shelf().learn(&packet, []);
                Ok(envelope.with(View::of(&packet, now)))
            }
            Created::Already(packet) => {
                Ok(envelope.saying("This packet was made already.").with(View::of(&packet, now)))
            }
            Created::KeyConflict => Err(Box::new(envelope.saying("This key was used for a different packet."))),
            Created::Unfunded | Created::Refused => Err(Box::new(envelope)),
        }
    }

    /// Makes it; where the payer has no account and there are grants, with one.
    async fn fund(&self, packing: Packing, now: Wall) -> Result<Created, StoreError> {
        let created = self.store.create(packing.clone(), now).await?;
        if created != Created::Unfunded || self.grant_fen == 0 {
            return Ok(created);
        }
        if self.store.account(packing.payer.clone()).await?.is_some() {
            return Ok(created);
        }
        // The same key for all time: a payer gets one grant, whoever asks how often.
        let Ok(idempotency_key) = IdempotencyKey::parse("grant") else { return Ok(created) };
        let (payer, amount_fen) = (packing.payer.clone(), self.grant_fen);
        self.store.deposit(Deposit { payer, idempotency_key, amount_fen }).await?;
        self.store.create(packing, now).await
    }

    /// Whether there is something to open, from memory, and the leave to do it.
    pub(super) async fn grab(&self, head: &Parts, id: &str, trace: &str) -> Answer {
        let user = user(&head.headers, trace)?;
        let id = named(id, trace)?;
        let limit = deadline(&head.headers, LIMIT);
        match self.within(limit, trace, self.know(&id, &user)).await? {
            Glance::Left(left, ends) => Ok(self.leave(&id, &user, Some(left), ends, trace)),
            // It changes under our eyes: let the ledger decide.
            Glance::Unknown => Ok(self.leave(&id, &user, None, Wall(u64::MAX), trace)),
            known => answered(known, trace),
        }
    }

    fn leave(&self, id: &PacketId, user: &UserId, left: Option<u32>, ends: Wall, trace: &str) -> Envelope {
        let until = (self.clock.wall() + GRAB).min(ends);
        let grab_token = self.tokens.grant(id, user, until);
        let more = json!({ "grab_token": grab_token, "left_hint": left, "expires_at": Moment::from(until) });
        Envelope::new(Code::Ok, trace).with(more)
    }

    /// Takes a share. The same user gets the same one however often they ask.
    pub(super) async fn open(&self, head: &Parts, body: Body, id: &str, trace: &str) -> Answer {
        let user_id = user(&head.headers, trace)?;
        let id = named(id, trace)?;
        let limit = deadline(&head.headers, LIMIT);
        let ask: Ask = json(body, trace).await?;
        let known = self.within(limit, trace, self.know(&id, &user_id)).await?;
        if !matches!(known, Glance::Left(..) | Glance::Unknown) {
            return answered(known, trace);
        }
        if !self.tokens.holds(&ask.grab_token, &id, &user_id, self.clock.wall()) {
            let envelope = Envelope::new(Code::NotEligible, trace);
            return Err(Box::new(envelope.saying("Grab the packet first: this is no leave to open it now.")));
        }
        let opener = Opener { user_id, idempotency_key: ask.idempotency_key };
        let opened = self.within(limit, trace, self.lines.open(id, opener)).await?;
        let envelope = Envelope::new(opened.code(), trace);
        match &opened {
            Opened::Share(share) => {
                self.wake.notify_one();
                Ok(envelope.with(Mine::from(share)))
            }
            Opened::Already(share) => answered(Glance::Taken(share.into()), trace),
            Opened::SoldOut => answered(Glance::Closed(Closed::SoldOut), trace),
            Opened::Expired => answered(Glance::Closed(Closed::Expired), trace),
            Opened::NoSuchPacket => answered(Glance::Nothing, trace),
            Opened::KeyConflict => Err(Box::new(envelope.saying("This key was used for a different packet."))),
        }
    }

    /// A packet, a page of its shares, and the asker's own.
    pub(super) async fn look(&self, head: &Parts, trace: &str) -> Answer {
        let id = named(head.uri.path().trim_start_matches("/v1/packets/"), trace)?;
        let bad = |words: &str| Box::new(Envelope::new(Code::BadRequest, trace).saying(words));
        let number = |key: &str, other: usize| query(&head.uri, key).map_or(Ok(other), str::parse);
        let after =
            number("after", 0).ok().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| bad("after is a rank."))?;
        let many = number("limit", PAGE.0).map_err(|_| bad("limit is a number."))?.clamp(1, PAGE.1);
        let limit = deadline(&head.headers, LIMIT);
        let Some(packet) = self.within(limit, trace, self.store.find(id.clone())).await? else {
            return answered(Glance::Nothing, trace);
        };
        let shares = self.within(limit, trace, self.store.shares(id.clone(), after, many)).await?;
        let mine = match user(&head.headers, trace) {
            Ok(user) => self.within(limit, trace, self.store.share(id, user)).await?,
            Err(_) => None,
        };
        let lines: Vec<Line<'_>> = shares.iter().map(line).collect();
        let next_after = shares.last().filter(|_| shares.len() == many).map(|share| share.rank);
        let more = json!({ "shares": lines, "next_after": next_after, "mine": mine.as_ref().map(Mine::from) });
        let mut envelope = Envelope::new(Code::Ok, trace).with(View::of(&packet, self.clock.wall()));
        if let (Some(data), serde_json::Value::Object(more)) = (envelope.data.as_object_mut(), more) {
            data.extend(more);
        }
        Ok(envelope)
    }

    /// Payments, audits, reconciliation and dead letters.
    pub(super) async fn internal(&self, head: &Parts, body: Body, trace: &str) -> Answer {
        let ok = Envelope::new(Code::Ok, trace);
        let sorry = |e: StoreError| self.sorry(&e, trace);
        let path = head.uri.path();
        match (&head.method, path) {
            (&Method::POST, "/internal/deposits") => {
                let deposit: Deposit = json(body, trace).await?;
                match self.deposit(deposit).await.map_err(sorry)? {
                    Deposited::Done(account) => Ok(ok.with(account)),
                    Deposited::Already(account) => Ok(ok.saying("This deposit counted already.").with(account)),
                    Deposited::KeyConflict => {
                        let envelope = Envelope::new(Code::KeyConflict, trace);
                        Err(Box::new(envelope.saying("This key was used for a different deposit.")))
                    }
                    Deposited::Refused => {
                        let envelope = Envelope::new(Code::BadRequest, trace);
                        Err(Box::new(envelope.saying("amount_fen is nothing, or more than a ledger can hold.")))
                    }
                }
            }
            (&Method::GET, "/internal/totals") => Ok(ok.with(self.store.totals().await.map_err(sorry)?)),
            (&Method::GET, "/internal/shares") => {
                let (after, limit) =
                    page(&head.uri).map_err(|words| Box::new(Envelope::new(Code::BadRequest, trace).saying(words)))?;
                let shares = self.store.scan_shares(after, limit).await.map_err(sorry)?;
                Ok(ok.with(json!({ "shares": shares })))
            }
            (&Method::GET, "/internal/dead") => {
                let shares = self.store.dead(LETTERS).await.map_err(sorry)?;
                Ok(ok.with(json!({ "shares": shares })))
            }
            (&Method::POST, "/internal/resolve") => {
                let Word { order_nos, resolution } = Word::read(body, trace).await?;
                let settled = self.store.resolve(order_nos, resolution, self.clock.wall()).await.map_err(sorry)?;
                self.wake.notify_one();
                Ok(ok.with(json!({ "settled": settled })))
            }
            (&Method::GET, "/internal/audit") => Ok(ok.with(audit(&*self.store).await.map_err(sorry)?)),
            (&Method::GET, path) if path.starts_with("/internal/accounts/") => {
                let payer = UserId::parse(path.trim_start_matches("/internal/accounts/"));
                let payer = payer.map_err(|e| bad_name(&e, trace))?;
                let account = self.store.account(payer).await.map_err(sorry)?;
                account.map(|account| ok.with(account)).ok_or_else(|| Box::new(Envelope::new(Code::NotFound, trace)))
            }
            _ => Err(Box::new(Envelope::new(Code::NotFound, trace))),
        }
    }

    /// `work`, while there is time. What it was doing may be done all the same: the same request again tells.
    async fn within<T>(
        &self,
        limit: Duration,
        trace: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Box<Envelope>> {
        let late = StoreError::Unknown { reason: "out of time".into() };
        timeout(limit, work).await.unwrap_or(Err(late)).map_err(|e| self.sorry(&e, trace))
    }
}

/// The answer that memory knows.
fn answered(known: Glance, trace: &str) -> Answer {
    let say = |code, words: &str| Envelope::new(code, trace).saying(words);
    match known {
        Glance::Taken(taken) => {
            Ok(say(Code::AlreadyClaimed, "You have opened this packet already.").with(Mine::from(taken)))
        }
        Glance::Closed(Closed::SoldOut) => Err(Box::new(say(Code::SoldOut, "Every share of this packet is taken."))),
        Glance::Closed(Closed::Expired) => Err(Box::new(say(Code::Expired, "The time of this packet is over."))),
        Glance::Nothing => Err(Box::new(say(Code::NotFound, "There is no such packet."))),
        Glance::Unknown | Glance::Left(..) => Err(Box::new(Envelope::new(Code::Unavailable, trace))),
    }
}

/// The key of a new packet: of the header or of the body, and where both say one, the same.
fn keyed(headers: &HeaderMap, said: Option<IdempotencyKey>) -> Result<IdempotencyKey, String> {
    let header = headers.get(KEY_HEADER).map(|value| value.to_str().unwrap_or_default());
    let header = header.map(IdempotencyKey::parse).transpose().map_err(|e| format!("{e}."))?;
    let key = match (header, said) {
        (Some(header), Some(said)) if header != said => {
            return Err("The header idempotency-key and the body say two different keys.".into());
        }
        (header, said) => header.or(said),
    };
    let key = key.ok_or("A packet needs an idempotency_key, which becomes its name.")?;
    if key.as_str().len() < KEY_BYTES {
        return Err(format!("idempotency_key must have at least {KEY_BYTES} characters, or others guess it."));
    }
    Ok(key)
}

fn named(id: &str, trace: &str) -> Result<PacketId, Box<Envelope>> {
    PacketId::parse(id).map_err(|e| bad_name(&e, trace))
}

fn bad_name(error: &BadId, trace: &str) -> Box<Envelope> {
    Box::new(Envelope::new(Code::BadRequest, trace).saying(format!("{error}.")))
}

fn line(share: &Share) -> Line<'_> {
    let Share { user_id, rank, amount_fen, opened, .. } = share;
    Line { user_id, rank: *rank, amount_fen: *amount_fen, opened_at: (*opened).into() }
}
