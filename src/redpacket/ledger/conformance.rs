//! The laws of [`Store`], as checks that run on any store, yours included.
//!
//! `run` wants a [`Subject`]: how to make an empty store and, where a store outlives its process, how to open it again.
//! It returns the laws that it checked, or the first [`Breach`]. It needs a tokio runtime and nothing else; it does not
//! panic, so that a program may run it at its own start.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Claimed, Store, StoreError};
use crate::base::clock::Wall;
use crate::redpacket::model::{
    ActivityId, BadId, Claim, Failure, GiftId, IdempotencyKey, Order, PacketId, RoleId, Settled, Settlement, State,
    UserId, Verdict, ZoneId,
};

/// How the suite gets stores of the kind under test.
pub trait Subject: Send + Sync {
    /// A new, empty store.
    fn fresh(&self) -> Result<Arc<dyn Store>, String>;

    /// `store` closed and opened again on what it left; nothing for a kind that does not outlive its process.
    fn reopened(&self, store: Arc<dyn Store>) -> Option<Result<Arc<dyn Store>, String>> {
        drop(store);
        None
    }
}

/// A law that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Breach {
    /// The store did something that the law forbids.
    #[error("{law}: {found}")]
    Law {
        /// Which.
        law: &'static str,
        /// What was seen.
        found: String,
    },
    /// The store answered with an error where none was due.
    #[error("{law}: the store failed: {source}")]
    Failed {
        /// While checking which law.
        law: &'static str,
        /// What it said.
        source: StoreError,
    },
    /// No store could be made.
    #[error("no store: {reason}")]
    NoStore {
        /// What was said.
        reason: String,
    },
}

type Outcome = Result<(), Breach>;

const STOCK: &str = "I1: a gift never gives more than its total, and what it gave adds up";
const ONCE: &str = "I2: one order for each (activity, packet, user)";
const KEYS: &str = "I2: the same key never means two different claims";
const DURABLE: &str = "I4: what was accepted is there after the store was opened again";
const LEASE: &str = "I5: an order has one holder at a time, and comes back when the lease ends";
const SETTLE: &str = "I5: delivered is delivered; late words change nothing but for the better";
const SUMS: &str = "I7: orders by state add up to what was issued";

/// Checks every law. Returns those that were checked: a store that cannot be opened again is not held to I4.
///
/// # Errors
/// The first law that does not hold, or the store's own failure.
pub async fn run(subject: &dyn Subject) -> Result<Vec<&'static str>, Breach> {
    stock(subject).await?;
    once(subject).await?;
    keys(subject).await?;
    lease(subject).await?;
    settle(subject).await?;
    sums(subject).await?;
    let mut held = vec![STOCK, ONCE, KEYS, LEASE, SETTLE, SUMS];
    if durable(subject).await? {
        held.push(DURABLE);
    }
    Ok(held)
}

fn fresh(subject: &dyn Subject) -> Result<Arc<dyn Store>, Breach> {
    subject.fresh().map_err(|reason| Breach::NoStore { reason })
}

fn failed(law: &'static str) -> impl Fn(StoreError) -> Breach {
    move |source| Breach::Failed { law, source }
}

fn hold(law: &'static str, holds: bool, found: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Breach::Law { law, found: found() }) }
}

fn bad(law: &'static str) -> impl Fn(BadId) -> Breach {
    move |e| Breach::Law { law, found: format!("the suite's own identifiers are broken: {e}") }
}

fn gift(law: &'static str) -> Result<GiftId, Breach> {
    GiftId::parse("lantern").map_err(bad(law))
}

fn claim(law: &'static str, user: &str, packet: &str, key: Option<&str>) -> Result<Claim, Breach> {
    Ok(Claim {
        activity_id: ActivityId::parse("conformance").map_err(bad(law))?,
        packet_id: PacketId::parse(packet).map_err(bad(law))?,
        user_id: UserId::parse(user).map_err(bad(law))?,
        gift_id: gift(law)?,
        zone_id: ZoneId::parse("zone-1").map_err(bad(law))?,
        role_id: RoleId::parse("role-1").map_err(bad(law))?,
        idempotency_key: key.map(IdempotencyKey::parse).transpose().map_err(bad(law))?,
    })
}

/// Runs all claims at the same time and returns what came of each, in no order.
async fn together(law: &'static str, store: &Arc<dyn Store>, claims: Vec<Claim>) -> Result<Vec<Claimed>, Breach> {
    let mut running = JoinSet::new();
    for claim in claims {
        let store = store.clone();
        running.spawn(async move { store.claim(claim, Wall(1_000)).await });
    }
    let mut all = Vec::new();
    while let Some(ended) = running.join_next().await {
        let claimed = ended.map_err(|e| Breach::Law { law, found: format!("a claim panicked: {e}") })?;
        all.push(claimed.map_err(failed(law))?);
    }
    Ok(all)
}

async fn one(law: &'static str, store: &Arc<dyn Store>, claim: Claim) -> Result<Claimed, Breach> {
    store.claim(claim, Wall(1_000)).await.map_err(failed(law))
}

async fn accepted(law: &'static str, store: &Arc<dyn Store>, claim: Claim) -> Result<Order, Breach> {
    match one(law, store, claim).await? {
        Claimed::Accepted(order) => Ok(order),
        other => Err(Breach::Law { law, found: format!("a first claim with stock left gave {other:?}") }),
    }
}

/// I1, with more claimants than gifts, all at once.
async fn stock(subject: &dyn Subject) -> Outcome {
    let law = STOCK;
    let store = fresh(subject)?;
    let unknown = one(law, &store, claim(law, "early", "p", None)?).await?;
    hold(law, unknown == Claimed::NoSuchGift, || format!("a gift that nobody provisioned gave {unknown:?}"))?;
    store.provision(gift(law)?, 40).await.map_err(failed(law))?;
    let claims = (0..100).map(|i| claim(law, &format!("user-{i}"), "p", None)).collect::<Result<_, _>>()?;
    let all = together(law, &store, claims).await?;
    let given = all.iter().filter(|c| matches!(c, Claimed::Accepted(_))).count();
    let refused = all.iter().filter(|c| **c == Claimed::SoldOut).count();
    hold(law, (given, refused) == (40, 60), || format!("100 claims on 40: {given} accepted, {refused} sold out"))?;
    let stats = store.stats().await.map_err(failed(law))?;
    let left: Vec<u64> = stats.stock.iter().map(|(_, s)| s.left()).collect();
    hold(law, left == [0] && stats.stock.iter().all(|(_, s)| s.issued == 40), || {
        format!("stock says {:?}", stats.stock)
    })?;
    store.provision(gift(law)?, 41).await.map_err(failed(law))?;
    accepted(law, &store, claim(law, "late", "p", None)?).await?;
    let end = one(law, &store, claim(law, "later", "p", None)?).await?;
    hold(law, end == Claimed::SoldOut, || format!("41 given, 41 provisioned, and then {end:?}"))?;
    store.provision(gift(law)?, 10).await.map_err(failed(law))?;
    let cut = one(law, &store, claim(law, "latest", "p", None)?).await?;
    hold(law, cut == Claimed::SoldOut, || format!("the total was cut below what was given, and then {cut:?}"))
}

/// I2, the same claim from everywhere at once and again later.
async fn once(subject: &dyn Subject) -> Outcome {
    let law = ONCE;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 50).await.map_err(failed(law))?;
    let claims = (0..90).map(|i| claim(law, &format!("user-{}", i % 3), "p", None)).collect::<Result<_, _>>()?;
    let all = together(law, &store, claims).await?;
    let mut numbers = BTreeSet::new();
    let mut made = 0;
    for claimed in &all {
        match claimed {
            Claimed::Accepted(order) => {
                made += 1;
                numbers.insert(order.order_no);
            }
            Claimed::Already(order) => {
                numbers.insert(order.order_no);
            }
            other => hold(law, false, || format!("a repeated claim gave {other:?}"))?,
        }
    }
    hold(law, made == 3 && numbers.len() == 3, || format!("3 users: {made} orders made, numbers {numbers:?}"))?;
    let again = one(law, &store, claim(law, "user-1", "p", None)?).await?;
    let expected = claim(law, "user-1", "p", None)?.number();
    hold(law, matches!(&again, Claimed::Already(o) if o.order_no == expected), || format!("again gave {again:?}"))?;
    let other = accepted(law, &store, claim(law, "user-1", "q", None)?).await?;
    hold(law, other.order_no != expected, || "another packet has the same number".into())?;
    let stats = store.stats().await.map_err(failed(law))?;
    hold(law, stats.stock.iter().all(|(_, s)| s.issued == 4), || format!("4 orders, and stock says {:?}", stats.stock))
}

/// I2, idempotency keys.
async fn keys(subject: &dyn Subject) -> Outcome {
    let law = KEYS;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 10).await.map_err(failed(law))?;
    let first = accepted(law, &store, claim(law, "u", "p", Some("key-1"))?).await?;
    let other_role = |key| {
        let mut changed = claim(law, "u", "p", key)?;
        changed.role_id = RoleId::parse("role-2").map_err(bad(law))?;
        Ok::<_, Breach>(changed)
    };
    let conflict = one(law, &store, other_role(Some("key-1"))?).await?;
    hold(law, conflict == Claimed::KeyConflict, || format!("same key, other role: {conflict:?}"))?;
    let conflict = one(law, &store, claim(law, "u", "q", Some("key-1"))?).await?;
    hold(law, conflict == Claimed::KeyConflict, || format!("same key, other packet: {conflict:?}"))?;
    let original = one(law, &store, other_role(Some("key-2"))?).await?;
    hold(law, original == Claimed::Already(first), || format!("new key, other role, same packet: {original:?}"))?;
    accepted(law, &store, claim(law, "v", "p", Some("key-1"))?).await?;
    accepted(law, &store, claim(law, "w", "p", None)?).await?;
    let mut changed = claim(law, "w", "p", None)?;
    changed.role_id = RoleId::parse("role-2").map_err(bad(law))?;
    let conflict = one(law, &store, changed).await?;
    hold(law, conflict == Claimed::KeyConflict, || format!("no key twice, other role: {conflict:?}"))?;
    let stats = store.stats().await.map_err(failed(law))?;
    hold(law, stats.orders() == 3, || format!("3 claims held, {} orders", stats.orders()))
}

/// I5, leases: several workers at once, then time passes.
async fn lease(subject: &dyn Subject) -> Outcome {
    let law = LEASE;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 100).await.map_err(failed(law))?;
    for i in 0..20 {
        accepted(law, &store, claim(law, &format!("user-{i}"), "p", None)?).await?;
    }
    let early = store.lease(100, Wall(2_000), Wall(999)).await.map_err(failed(law))?;
    hold(law, early.is_empty(), || format!("{} orders leased before they were due", early.len()))?;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        workers.spawn(async move { store.lease(4, Wall(2_000), Wall(1_000)).await });
    }
    let mut held = Vec::new();
    while let Some(ended) = workers.join_next().await {
        let orders = ended.map_err(|e| Breach::Law { law, found: format!("a lease panicked: {e}") })?;
        held.extend(orders.map_err(failed(law))?);
    }
    let distinct: BTreeSet<_> = held.iter().map(|o| o.order_no).collect();
    hold(law, held.len() == 20 && distinct.len() == 20, || {
        format!("8 workers asked for 4 of 20: {} leases of {} orders", held.len(), distinct.len())
    })?;
    hold(law, held.iter().all(|o| o.state == State::Delivering && o.attempts == 1), || format!("{:?}", held.first()))?;
    let none = store.lease(100, Wall(3_000), Wall(1_999)).await.map_err(failed(law))?;
    hold(law, none.is_empty(), || format!("{} orders leased while another holds them", none.len()))?;
    let again = store.lease(100, Wall(3_000), Wall(2_000)).await.map_err(failed(law))?;
    hold(law, again.len() == 20 && again.iter().all(|o| o.attempts == 2), || {
        format!("{} of 20 came back when the lease ended", again.len())
    })
}

/// I5, what workers say.
async fn settle(subject: &dyn Subject) -> Outcome {
    let law = SETTLE;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 10).await.map_err(failed(law))?;
    let order = accepted(law, &store, claim(law, "u", "p", None)?).await?;
    let say = async |attempt, verdict, now| {
        let word = Settlement { order_no: order.order_no, attempt, verdict };
        let all = store.settle(vec![word], Wall(now)).await.map_err(failed(law))?;
        match all.as_slice() {
            [one] => Ok(*one),
            other => Err(Breach::Law { law, found: format!("one word, answers {other:?}") }),
        }
    };
    let expect = |got: Settled, want: Settled, what: &str| hold(law, got == want, || format!("{what}: {got:?}"));
    let retry = |at| Verdict::Retry { at: Wall(at), why: Failure::Timeout };
    expect(say(1, Verdict::Delivered, 1_100).await?, Settled::Stale, "delivered, but never leased")?;
    let take = async |until, now| store.lease(9, Wall(until), Wall(now)).await.map(|o| o.len()).map_err(failed(law));
    hold(law, take(2_000, 1_100).await? == 1, || "not leased when due".into())?;
    expect(say(1, retry(5_000), 1_200).await?, Settled::Moved(State::RetryWait), "failed once")?;
    hold(law, take(6_000, 4_999).await? == 0, || "leased before the retry was due".into())?;
    hold(law, take(6_000, 5_000).await? == 1, || "not leased when the retry was due".into())?;
    expect(say(1, Verdict::Dead { why: Failure::Refused }, 5_100).await?, Settled::Stale, "an old attempt's failure")?;
    expect(say(1, Verdict::Delivered, 5_200).await?, Settled::Moved(State::Delivered), "an old attempt's success")?;
    expect(say(2, retry(9_000), 5_300).await?, Settled::Stale, "a failure after the delivery")?;
    expect(say(2, Verdict::Delivered, 5_400).await?, Settled::Stale, "delivered again")?;
    hold(law, take(99_000, 90_000).await? == 0, || "leased after it was delivered".into())?;
    let found = store.find(order.order_no).await.map_err(failed(law))?;
    hold(law, found.as_ref().is_some_and(|o| o.state == State::Delivered), || format!("found {found:?}"))?;
    let second = accepted(law, &store, claim(law, "v", "p", None)?).await?;
    hold(law, take(8_000, 7_000).await? == 1, || "not leased when due".into())?;
    let word = Settlement { order_no: second.order_no, attempt: 1, verdict: Verdict::Dead { why: Failure::Refused } };
    let unknown = Settlement { order_no: claim(law, "nobody", "p", None)?.number(), ..word };
    let all = store.settle(vec![unknown, word], Wall(7_100)).await.map_err(failed(law))?;
    hold(law, all == [Settled::Stale, Settled::Moved(State::Dead)], || format!("unknown and dead: {all:?}"))?;
    hold(law, take(99_000, 90_000).await? == 0, || "leased after it was given up".into())
}

/// I7, at every step of a mixed run.
async fn sums(subject: &dyn Subject) -> Outcome {
    let law = SUMS;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 30).await.map_err(failed(law))?;
    for round in 0..10_u64 {
        let claims =
            (0..6).map(|i| claim(law, &format!("user-{}", round * 4 + i), "p", None)).collect::<Result<_, _>>()?;
        together(law, &store, claims).await?;
        let now = Wall(10_000 * (round + 1));
        let leased = store.lease(5, Wall(now.0 + 500), now).await.map_err(failed(law))?;
        let words = leased.iter().enumerate().map(|(i, o)| Settlement {
            order_no: o.order_no,
            attempt: o.attempts,
            verdict: match i % 3 {
                0 => Verdict::Delivered,
                1 => Verdict::Retry { at: Wall(now.0 + 10), why: Failure::Unavailable },
                _ => Verdict::Dead { why: Failure::Garbage },
            },
        });
        store.settle(words.collect(), now).await.map_err(failed(law))?;
        let stats = store.stats().await.map_err(failed(law))?;
        let issued: u64 = stats.stock.iter().map(|(_, s)| s.issued).sum();
        hold(law, stats.orders() == issued && issued <= 30, || format!("issued {issued}, orders {stats:?}"))?;
        hold(law, stats.oldest_open.is_some() == (stats.open() > 0), || {
            format!("the oldest of {} open: {stats:?}", stats.open())
        })?;
    }
    Ok(())
}

/// I4: all of it, after the store was opened again. False where this kind of store cannot be.
async fn durable(subject: &dyn Subject) -> Result<bool, Breach> {
    let law = DURABLE;
    let store = fresh(subject)?;
    store.provision(gift(law)?, 25).await.map_err(failed(law))?;
    let claims = (0..20).map(|i| claim(law, &format!("user-{i}"), "p", Some(&format!("key-{i}"))));
    let all = together(law, &store, claims.collect::<Result<_, _>>()?).await?;
    let leased = store.lease(5, Wall(2_000), Wall(1_000)).await.map_err(failed(law))?;
    let word = |o: &Order| Settlement { order_no: o.order_no, attempt: 1, verdict: Verdict::Delivered };
    store.settle(leased.iter().take(3).map(word).collect(), Wall(1_500)).await.map_err(failed(law))?;
    let before = store.stats().await.map_err(failed(law))?;
    let Some(reopened) = subject.reopened(store) else { return Ok(false) };
    let store = reopened.map_err(|reason| Breach::NoStore { reason })?;
    let after = store.stats().await.map_err(failed(law))?;
    hold(law, before == after, || format!("before {before:?}, after {after:?}"))?;
    for claimed in &all {
        let Claimed::Accepted(order) = claimed else { continue };
        let found = store.find(order.order_no).await.map_err(failed(law))?;
        hold(law, found.is_some_and(|f| f.claim == order.claim), || {
            format!("{} was accepted and is gone", order.order_no)
        })?;
    }
    let again = one(law, &store, claim(law, "user-7", "p", Some("key-7"))?).await?;
    hold(law, matches!(again, Claimed::Already(_)), || format!("the same claim again: {again:?}"))?;
    let conflict = one(law, &store, claim(law, "user-7", "q", Some("key-7"))?).await?;
    hold(law, conflict == Claimed::KeyConflict, || format!("the same key, another packet: {conflict:?}"))?;
    let due = store.lease(100, Wall(9_000), Wall(2_000)).await.map_err(failed(law))?;
    hold(law, due.len() == 17, || format!("{} of 17 undelivered orders came back", due.len()))?;
    Ok(true)
}
