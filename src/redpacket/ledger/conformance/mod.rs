//! The laws of [`Store`], as checks that run on any store, yours included.
//!
//! `run` wants a [`Subject`]: how to make an empty store and, where there is such a thing, how to open it again, to open it
//! a second time beside the first, and to take its power away. It returns the laws that it checked, or the first
//! [`Breach`]. [`walk`] holds a store against a [`Book`](super::Book), step by random step. Both need a tokio runtime and
//! nothing else; they do not panic, so that a program may run them at its own start.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Claimed, Store, StoreError};
use crate::base::clock::Wall;
use crate::redpacket::model::{
    ActivityId, BadId, Claim, GiftId, IdempotencyKey, Order, PacketId, RoleId, UserId, ZoneId,
};

mod claims;
mod crash;
mod deliveries;
mod fences;
mod moves;
mod sharing;
mod walk;

pub use walk::walk;

/// A store in the making, or why there is none.
pub type Making<'a> = Pin<Box<dyn Future<Output = Result<Arc<dyn Store>, String>> + Send + 'a>>;

/// How the suite gets stores of the kind under test.
pub trait Subject: Send + Sync {
    /// A new, empty store.
    fn fresh(&self) -> Making<'_>;

    /// `store` closed and opened again on what it left; nothing for a kind that does not outlive its process.
    fn reopened(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
        drop(store);
        None
    }

    /// Another handle on what `store` has, as another process would have it; nothing for a kind that belongs to one.
    fn beside(&self, store: &Arc<dyn Store>) -> Option<Making<'_>> {
        let _ = store;
        None
    }

    /// What keeps `store` dies at once, with whatever is under way, and comes back: its power fails, its server is killed.
    /// Gives a handle on what is left, which may be the old one; nothing for a kind that is gone with its power.
    fn struck(&self, store: Arc<dyn Store>) -> Option<Making<'_>> {
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
const CRASH: &str = "I4: what was accepted is there after its power failed under load";
const LEASE: &str = "I5: an order has one holder at a time, and comes back when the lease ends";
const SETTLE: &str = "I5: delivered is delivered; late words change nothing but for the better";
const LETTERS: &str = "I5: the dead are listed, and come back only by a person's word";
const SUMS: &str = "I7: orders by state add up to what was issued";
const TRAIL: &str = "I7: every order can be read, page by page, with what was tried";
const FENCE: &str = "I8: a store is held under one epoch at a time, never an older one, gains sets by a person's word only, and decides for no others";
const MOVES: &str = "I1: what all homes may issue stays the same while stock moves; a number moves it once";
const SHARED: &str = "I1, I2, I5 between processes that share the store";

/// Checks every law. Returns those that were checked: a store is not held to what its kind cannot do, such as to outlive
/// its process.
///
/// # Errors
/// The first law that does not hold, or the store's own failure.
pub async fn run(subject: &dyn Subject) -> Result<Vec<&'static str>, Breach> {
    claims::stock(subject).await?;
    claims::once(subject).await?;
    claims::keys(subject).await?;
    deliveries::lease(subject).await?;
    deliveries::settle(subject).await?;
    deliveries::sums(subject).await?;
    deliveries::trail(subject).await?;
    deliveries::letters(subject).await?;
    let mut held = vec![STOCK, ONCE, KEYS, LEASE, SETTLE, SUMS, TRAIL, LETTERS];
    for (law, checked) in [
        (FENCE, fences::fences(subject).await?),
        (MOVES, moves::moves(subject).await?),
        (SHARED, sharing::shared(subject).await?),
        (DURABLE, claims::durable(subject).await?),
        (CRASH, crash::crash(subject).await?),
    ] {
        held.extend(checked.then_some(law));
    }
    Ok(held)
}

async fn fresh(subject: &dyn Subject) -> Result<Arc<dyn Store>, Breach> {
    subject.fresh().await.map_err(|reason| Breach::NoStore { reason })
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
