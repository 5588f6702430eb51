//! Fences: a store decides for its users under one epoch at a time, and never goes back.

use std::sync::Arc;

use super::{Breach, FENCE, Subject, accepted, claim, failed, fresh, gift, hold, one};
use crate::config::homes::Sets;
use crate::redpacket::ledger::{Claimed, Fenced, Hold, StoreError};

/// False where stores of this kind keep no epoch.
pub(super) async fn fences(subject: &dyn Subject) -> Result<bool, Breach> {
    let law = FENCE;
    let store = fresh(subject).await?;
    store.provision(gift(law)?, 9).await.map_err(failed(law))?;
    let half = (0..128).fold(Sets::default(), Sets::with);
    let at = |epoch, sets| Hold { epoch, sets };
    match store.fence(at(2, half), false).await {
        Err(StoreError::Unwritable { .. }) => return Ok(false),
        held => same(law, &held.map_err(failed(law))?, &Fenced::Held)?,
    }
    let made = accepted(law, &store, claim(law, "first", "p", None)?).await?;
    for (wanted, take_over, want) in [
        (at(1, half), true, Fenced::Older { epoch: 2 }),
        (at(2, half), false, Fenced::Held),
        (at(2, Sets::ALL), true, Fenced::Differs),
        (at(3, Sets::ALL), false, Fenced::Gains { sets: 128 }),
        (at(3, Sets::ALL), true, Fenced::Held),
        (at(4, half), false, Fenced::Held),
        (at(3, half), true, Fenced::Older { epoch: 4 }),
    ] {
        same(law, &store.fence(wanted, take_over).await.map_err(failed(law))?, &want)?;
    }
    if let Some(beside) = subject.beside(&store) {
        let beside = beside.await.map_err(|reason| Breach::NoStore { reason })?;
        same(law, &beside.fence(at(5, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
        let again = one(law, &beside, claim(law, "first", "p", None)?).await?;
        hold(law, again == Claimed::Already(made), || format!("after a takeover: {again:?}"))?;
        // A handle may be the same one twice; then there is no process of the past.
        if !Arc::ptr_eq(&beside, &store) {
            let late = one(law, &store, claim(law, "second", "p", None)?).await;
            let refused = matches!(&late, Err(Breach::Failed { source: StoreError::Fenced { epoch: 5 }, .. }));
            hold(law, refused, || format!("a claim of the past: {late:?}"))?;
            let again = one(law, &beside, claim(law, "second", "p", None)?).await?;
            hold(law, matches!(again, Claimed::Accepted(_)), || format!("nothing of it was done: {again:?}"))?;
        }
        return Ok(true);
    }
    if let Some(reopened) = subject.reopened(store) {
        let store = reopened.await.map_err(|reason| Breach::NoStore { reason })?;
        let late = store.fence(at(3, half), true).await.map_err(failed(law))?;
        same(law, &late, &Fenced::Older { epoch: 4 })?;
        same(law, &store.fence(at(4, half), false).await.map_err(failed(law))?, &Fenced::Held)?;
    }
    Ok(true)
}

fn same(law: &'static str, got: &Fenced, want: &Fenced) -> Result<(), Breach> {
    hold(law, got == want, || format!("{got:?}, wanted {want:?}"))
}
