//! Fences: a store decides for its users under one epoch at a time, never goes back, and decides for nobody else.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Breach, FENCE, Outcome, Subject, accepted, claim, failed, fresh, gift, hold, one};
use crate::base::clock::Wall;
use crate::config::homes::Sets;
use crate::redpacket::ledger::{Claimed, Fenced, Hold, Store, StoreError};
use crate::redpacket::model::{OrderNo, UserId};

/// Claims that are under way while the store is held anew.
const UNDER_WAY: usize = 200;

/// False where stores of this kind keep no epoch.
pub(super) async fn fences(subject: &dyn Subject) -> Result<bool, Breach> {
    let law = FENCE;
    let store = fresh(subject).await?;
    store.provision(gift(law)?, 999).await.map_err(failed(law))?;
    let half = (0..128).fold(Sets::default(), Sets::with);
    let at = |epoch, sets| Hold { epoch, sets };
    let (mut ours, mut theirs) = (users(half, true), users(half, false));
    let (mut our, mut their) = (|| ours.next().unwrap_or_default(), || theirs.next().unwrap_or_default());
    // Before anybody holds it, it decides for all.
    match store.fence(at(2, half), false).await {
        Err(StoreError::Unwritable { .. }) => return Ok(false),
        held => same(law, &held.map_err(failed(law))?, &Fenced::Held)?,
    }
    let first = claim(law, &our(), "p", None)?;
    let made = accepted(law, &store, first.clone()).await?;
    let stranger = their();
    refused(&store, &stranger, 2).await?;
    for (wanted, take_over, want) in [
        (at(1, half), true, Fenced::Older { epoch: 2 }),
        (at(2, half), false, Fenced::Held),
        (at(2, Sets::ALL), true, Fenced::Differs),
        (at(3, Sets::ALL), false, Fenced::Gains { sets: 128 }),
        (at(3, Sets::ALL), true, Fenced::Held),
    ] {
        same(law, &store.fence(wanted, take_over).await.map_err(failed(law))?, &want)?;
    }
    accepted(law, &store, claim(law, &stranger, "p", None)?).await?;
    same(law, &store.fence(at(4, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
    same(law, &store.fence(at(3, half), true).await.map_err(failed(law))?, &Fenced::Older { epoch: 4 })?;
    refused(&store, &their(), 4).await?;
    if let Some(beside) = subject.beside(&store) {
        let beside = beside.await.map_err(|reason| Breach::NoStore { reason })?;
        // A handle may be the same one twice; then there is no process of the past.
        if !Arc::ptr_eq(&beside, &store) {
            refused(&beside, &our(), 4).await?;
            under_way(&store, &beside, at(5, half), &mut our).await?;
        }
        same(law, &beside.fence(at(5, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
        let again = one(law, &beside, first).await?;
        hold(law, again == Claimed::Already(made), || format!("after a takeover: {again:?}"))?;
        // Who learns of the new file goes on.
        same(law, &store.fence(at(5, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
        accepted(law, &store, claim(law, &our(), "p", None)?).await?;
        return Ok(true);
    }
    if let Some(reopened) = subject.reopened(store) {
        let store = reopened.await.map_err(|reason| Breach::NoStore { reason })?;
        let late = store.fence(at(3, half), true).await.map_err(failed(law))?;
        same(law, &late, &Fenced::Older { epoch: 4 })?;
        refused(&store, &their(), 4).await?;
        same(law, &store.fence(at(4, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
    }
    Ok(true)
}

/// `new` holds the store while claims through `old` are under way: what is not committed by then never is.
async fn under_way(
    old: &Arc<dyn Store>,
    new: &Arc<dyn Store>,
    as_new: Hold,
    user: &mut impl FnMut() -> String,
) -> Outcome {
    let law = FENCE;
    let mut claims = JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (store, claim) = (old.clone(), claim(law, &user(), "p", None)?);
        claims.spawn(async move {
            tokio::task::yield_now().await;
            store.claim(claim, Wall(1_000)).await
        });
    }
    let fenced = new.fence(as_new, false).await.map_err(failed(law))?;
    same(law, &fenced, &Fenced::Held)?;
    let before = new.stats().await.map_err(failed(law))?.orders();
    while let Some(ended) = claims.join_next().await {
        match ended {
            Ok(Ok(Claimed::Accepted(_)) | Err(StoreError::Fenced { epoch: 5 })) => {}
            other => return hold(law, false, || format!("a claim beside a takeover: {other:?}")),
        }
    }
    refused(old, &user(), as_new.epoch).await?;
    let after = new.stats().await.map_err(failed(law))?.orders();
    hold(law, before == after, || format!("{before} orders when the new one held it, and {after} in the end"))
}

/// A claim of `user` is refused, and leaves nothing.
async fn refused(store: &Arc<dyn Store>, user: &str, under: u64) -> Outcome {
    let wish = claim(FENCE, user, "p", None)?;
    let number = wish.number();
    let late = store.claim(wish, Wall(1_000)).await;
    hold(FENCE, late == Err(StoreError::Fenced { epoch: under }), || format!("a claim that is not its own: {late:?}"))?;
    let found = store.find(number).await.map_err(failed(FENCE))?;
    hold(FENCE, found.is_none(), || format!("refused, and done: {found:?}"))
}

/// Users in these sets, or in none of them.
fn users(sets: Sets, inside: bool) -> impl Iterator<Item = String> {
    let is_in = move |user: &str| UserId::parse(user).is_ok_and(|user| sets.has(OrderNo::set_of(&user)) == inside);
    (0..).map(|n| format!("user-{n}")).filter(move |user| is_in(user))
}

fn same(law: &'static str, got: &Fenced, want: &Fenced) -> Outcome {
    hold(law, got == want, || format!("{got:?}, wanted {want:?}"))
}
