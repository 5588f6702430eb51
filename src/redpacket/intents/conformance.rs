//! The laws of [`Intents`], as checks that run on any kind, yours included.
//!
//! `run` wants a [`Subject`] and returns the laws that it checked, or the first [`Breach`]; [`walk`] holds a store against
//! a [`Shelf`], step by random step. Neither panics.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::{Bounds, Intents, Opened, Outcome, Shelf};
use crate::base::clock::Wall;
use crate::base::entropy::Rng;
use crate::config::homes::Sets;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::model::{ActivityId, BadId, Claim, GiftId, IdempotencyKey, PacketId, RoleId, UserId, ZoneId};

/// A store in the making, or why there is none.
pub type Making<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn Intents>, String>> + Send + 'a>>;

/// How the suite gets stores of the kind under test.
pub trait Subject: Send + Sync {
    /// A new, empty one.
    fn fresh(&self, bounds: Bounds) -> Making<'_>;

    /// `store` closed and opened again on what it left; nothing for a kind that does not outlive its process.
    fn reopened(&self, store: Arc<dyn Intents>, bounds: Bounds) -> Option<Making<'_>> {
        drop((store, bounds));
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

const ONCE: &str = "one intent a number; the same key never means two different claims";
const BOUND: &str = "past the bound nothing is promised, and room comes back";
const ORDER: &str = "open intents come in order of asking, of the sets that were asked for";
const SETTLE: &str = "an intent is settled once; what was refused stands in nobody's way";
const DURABLE: &str = "what was promised is there after the store was opened again";
const STORY: &str = "a random story ends in the store as on the shelf";

type Held = Result<(), Breach>;

/// Checks every law that holds for this kind.
///
/// # Errors
/// The first law that does not hold, or the store's own failure.
pub async fn run(subject: &dyn Subject) -> Result<Vec<&'static str>, Breach> {
    once(subject).await?;
    bound(subject).await?;
    order(subject).await?;
    settle(subject).await?;
    let mut held = vec![ONCE, BOUND, ORDER, SETTLE];
    held.extend(durable(subject).await?.then_some(DURABLE));
    Ok(held)
}

async fn once(subject: &dyn Subject) -> Held {
    let (law, store) = (ONCE, fresh(subject, Bounds::default()).await?);
    let claim = |user, packet, role, key| claim(law, user, packet, role, key);
    let first = store.open(claim("u", "p", "r", Some("k"))?, Wall(5)).await.map_err(failed(law))?;
    let Opened::New(first) = first else { return breach(law, format!("a first claim: {first:?}")) };
    for (wish, want) in [
        (claim("u", "p", "r", Some("k"))?, Opened::Same(first.clone())),
        (claim("u", "p", "s", Some("k"))?, Opened::Conflict),
        (claim("u", "q", "r", Some("k"))?, Opened::Conflict),
        (claim("u", "p", "s", Some("l"))?, Opened::Same(first.clone())),
        (claim("u", "p", "s", None)?, Opened::Same(first.clone())),
    ] {
        let got = store.open(wish.clone(), Wall(9)).await.map_err(failed(law))?;
        hold(law, got == want, || format!("{wish:?}: {got:?}"))?;
    }
    let other = store.open(claim("v", "p", "r", Some("k"))?, Wall(9)).await.map_err(failed(law))?;
    hold(law, matches!(other, Opened::New(_)), || format!("another user's key: {other:?}"))?;
    let found = store.find(first.number()).await.map_err(failed(law))?;
    hold(law, found.as_ref() == Some(&first), || format!("found {found:?}"))
}

async fn bound(subject: &dyn Subject) -> Held {
    let (law, store) = (BOUND, fresh(subject, Bounds { open: 3, settled: 2 }).await?);
    let open = async |user: &str, now| store.open(claim(law, user, "p", "r", None)?, now).await.map_err(failed(law));
    let mut numbers = Vec::new();
    for user in ["a", "b", "c"] {
        let got = open(user, Wall(1)).await?;
        let Opened::New(intent) = got else { return breach(law, format!("{user}: {got:?}")) };
        numbers.push(intent.number());
    }
    let full = open("d", Wall(2)).await?;
    hold(law, full == Opened::Full, || format!("the fourth of three: {full:?}"))?;
    let again = open("a", Wall(2)).await?;
    hold(law, matches!(again, Opened::Same(_)), || format!("who has one keeps it: {again:?}"))?;
    for (at, no) in numbers.iter().enumerate() {
        store.settle(vec![(*no, Outcome::Granted)], Wall(3 + at as u64)).await.map_err(failed(law))?;
    }
    let sums = store.sums().await.map_err(failed(law))?;
    let kept = sums.settled.values().sum::<u64>();
    hold(law, (sums.open, kept, sums.oldest) == (0, 2, None), || format!("2 are kept: {sums:?}"))?;
    let room = open("d", Wall(9)).await?;
    hold(law, matches!(room, Opened::New(_)), || format!("room again: {room:?}"))
}

async fn order(subject: &dyn Subject) -> Held {
    let (law, store) = (ORDER, fresh(subject, Bounds::default()).await?);
    let mut all = Vec::new();
    for n in 0..60u64 {
        let asked = Wall(1_000 - n * 7 % 60);
        let wish = claim(law, &format!("user-{n}"), "p", "r", None)?;
        all.push((asked, wish.number()));
        store.open(wish, asked).await.map_err(failed(law))?;
    }
    all.sort_unstable();
    let half = (0..128).fold(Sets::default(), Sets::with);
    for (sets, limit) in [(Sets::ALL, 100), (Sets::ALL, 7), (half, 100), (half, 5), (Sets::default(), 9)] {
        let due = store.due(sets, limit).await.map_err(failed(law))?;
        let got: Vec<_> = due.iter().map(|intent| (intent.asked, intent.number())).collect();
        let want: Vec<_> = all.iter().filter(|(_, no)| sets.has(no.set())).take(limit).copied().collect();
        hold(law, got == want, || format!("{} came, {} wanted, or in another order", got.len(), want.len()))?;
    }
    Ok(())
}

async fn settle(subject: &dyn Subject) -> Held {
    let (law, store) = (SETTLE, fresh(subject, Bounds::default()).await?);
    let wish = |key| claim(law, "u", "p", "r", key);
    let no = wish(None)?.number();
    store.open(wish(Some("k"))?, Wall(1)).await.map_err(failed(law))?;
    let words = vec![(no, Outcome::SoldOut), (no, Outcome::Granted)];
    let moved = store.settle(words, Wall(2)).await.map_err(failed(law))?;
    hold(law, moved == [true, false], || format!("one word, and then another: {moved:?}"))?;
    let due = store.due(Sets::ALL, 9).await.map_err(failed(law))?;
    hold(law, due.is_empty(), || format!("settled, and due: {due:?}"))?;
    let found = store.find(no).await.map_err(failed(law))?.and_then(|intent| intent.settled);
    hold(law, found == Some((Outcome::SoldOut, Wall(2))), || format!("what home said: {found:?}"))?;
    let again = store.open(claim(law, "u", "q", "r", Some("k"))?, Wall(3)).await.map_err(failed(law))?;
    hold(law, matches!(again, Opened::New(_)), || format!("the key of what was refused: {again:?}"))?;
    let again = store.open(wish(None)?, Wall(4)).await.map_err(failed(law))?;
    hold(law, matches!(&again, Opened::New(intent) if intent.asked == Wall(4)), || format!("asked again: {again:?}"))?;
    store.settle(vec![(no, Outcome::Granted)], Wall(5)).await.map_err(failed(law))?;
    let stands = store.open(wish(None)?, Wall(6)).await.map_err(failed(law))?;
    hold(law, matches!(&stands, Opened::Same(intent) if !intent.is_open()), || format!("granted: {stands:?}"))
}

async fn durable(subject: &dyn Subject) -> Result<bool, Breach> {
    let (law, bounds) = (DURABLE, Bounds::default());
    let store = fresh(subject, bounds).await?;
    for n in 0..20u64 {
        let wish = claim(law, &format!("user-{n}"), "p", "r", Some("k"))?;
        let no = wish.number();
        store.open(wish, Wall(n)).await.map_err(failed(law))?;
        if n % 4 == 0 {
            store.settle(vec![(no, Outcome::SoldOut)], Wall(50)).await.map_err(failed(law))?;
        }
    }
    let before = (store.sums().await, store.due(Sets::ALL, 99).await);
    let Some(reopened) = subject.reopened(store, bounds) else { return Ok(false) };
    let store = reopened.await.map_err(|reason| Breach::NoStore { reason })?;
    let after = (store.sums().await, store.due(Sets::ALL, 99).await);
    hold(law, before == after, || format!("before {before:?}, after {after:?}"))?;
    let again = store.open(claim(law, "user-1", "q", "r", Some("k"))?, Wall(99)).await.map_err(failed(law))?;
    hold(law, again == Opened::Conflict, || format!("the key of an open one: {again:?}"))?;
    Ok(true)
}

/// Tells a story of `steps` steps, made from `seed`, to a fresh store of this kind and to a shelf.
///
/// # Errors
/// The first step after which the two differ; the words name the seed.
pub async fn walk(subject: &dyn Subject, seed: u64, steps: usize) -> Held {
    let law = STORY;
    let bounds = Bounds { open: 6, settled: 4 };
    let (store, mut shelf) = (fresh(subject, bounds).await?, Shelf::new(bounds));
    let mut rng = Rng::seeded(seed);
    for at in 0..steps {
        let now = Wall(at as u64);
        let (user, packet) = (format!("user-{}", rng.below(5)), format!("packet-{}", rng.below(3)));
        let (role, key) = (format!("role-{}", rng.below(2)), format!("key-{}", rng.below(3)));
        let wish = claim(law, &user, &packet, &role, rng.chance(0.5).then_some(key.as_str()))?;
        let no = wish.number();
        let same = if rng.chance(0.6) {
            let got = store.open(wish.clone(), now).await.map_err(failed(law))?;
            got == shelf.open(wish, now)
        } else {
            let outcome = if rng.chance(0.5) { Outcome::Granted } else { Outcome::SoldOut };
            let moved = store.settle(vec![(no, outcome)], now).await.map_err(failed(law))?;
            moved == [shelf.settle(no, outcome, now)]
        };
        let found = store.find(no).await.map_err(failed(law))?;
        let sums = store.sums().await.map_err(failed(law))?;
        let alike = found.as_ref() == shelf.find(no) && sums == shelf.sums();
        hold(law, same && alike, || format!("seed {seed}, step {at}: {found:?}, {sums:?}"))?;
    }
    let due = store.due(Sets::ALL, 100).await.map_err(failed(law))?;
    hold(law, due == shelf.due(Sets::ALL, 100), || format!("seed {seed}: in the end, {due:?}"))
}

async fn fresh(subject: &dyn Subject, bounds: Bounds) -> Result<Arc<dyn Intents>, Breach> {
    subject.fresh(bounds).await.map_err(|reason| Breach::NoStore { reason })
}

fn failed(law: &'static str) -> impl Fn(StoreError) -> Breach {
    move |source| Breach::Failed { law, source }
}

fn hold(law: &'static str, holds: bool, found: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(Breach::Law { law, found: found() }) }
}

fn breach<T>(law: &'static str, found: String) -> Result<T, Breach> {
    Err(Breach::Law { law, found })
}

fn claim(law: &'static str, user: &str, packet: &str, role: &str, key: Option<&str>) -> Result<Claim, Breach> {
    let bad = |e: BadId| Breach::Law { law, found: format!("the suite's own identifiers are broken: {e}") };
    Ok(Claim {
        activity_id: ActivityId::parse("conformance").map_err(bad)?,
        packet_id: PacketId::parse(packet).map_err(bad)?,
        user_id: UserId::parse(user).map_err(bad)?,
        gift_id: GiftId::parse("lantern").map_err(bad)?,
        zone_id: ZoneId::parse("zone").map_err(bad)?,
        role_id: RoleId::parse(role).map_err(bad)?,
        idempotency_key: key.map(IdempotencyKey::parse).transpose().map_err(bad)?,
    })
}
