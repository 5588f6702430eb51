//! Several processes on one store: what holds for one handle holds for two together.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Breach, SHARED, Subject, claim, failed, fresh, gift, hold, one};
use crate::base::clock::Wall;
use crate::redpacket::ledger::{Claimed, Store};

/// False where stores of this kind belong to one process.
pub(super) async fn shared(subject: &dyn Subject) -> Result<bool, Breach> {
    let law = SHARED;
    let left = fresh(subject).await?;
    let Some(right) = subject.beside(&left) else { return Ok(false) };
    let right = right.await.map_err(|reason| Breach::NoStore { reason })?;
    let both = [left, right];
    for store in &both {
        store.provision(gift(law)?, 60).await.map_err(failed(law))?;
    }
    crowd(law, &both).await?;
    workers(law, &both).await?;
    // What one has accepted, the other knows; what one has used up, the other does not give.
    let [left, right] = &both;
    left.provision(gift(law)?, 61).await.map_err(failed(law))?;
    let Claimed::Accepted(order) = one(law, left, claim(law, "late", "p", None)?).await? else {
        return Err(Breach::Law { law, found: "the 61st of 61 was refused".into() });
    };
    let found = right.find(order.order_no).await.map_err(failed(law))?;
    hold(law, found.is_some_and(|o| o == order), || "an order accepted by one is unknown to the other".into())?;
    let end = one(law, right, claim(law, "later", "p", None)?).await?;
    hold(law, end == Claimed::SoldOut, || format!("the 62nd of 61, from the other: {end:?}"))?;
    Ok(true)
}

/// 90 users for 60 gifts, each at both handles at once.
async fn crowd(law: &'static str, both: &[Arc<dyn Store>; 2]) -> Result<(), Breach> {
    let mut running = JoinSet::new();
    for i in 0..90 {
        for store in both {
            let (store, claim) = (store.clone(), claim(law, &format!("user-{i}"), "p", None)?);
            running.spawn(async move { store.claim(claim, Wall(1_000)).await });
        }
    }
    let (mut made, mut already, mut numbers) = (0, 0, BTreeSet::new());
    while let Some(ended) = running.join_next().await {
        match ended.map_err(|e| Breach::Law { law, found: format!("a claim panicked: {e}") })?.map_err(failed(law))? {
            Claimed::Accepted(order) => {
                made += 1;
                numbers.insert(order.order_no);
            }
            Claimed::Already(order) => {
                already += 1;
                numbers.insert(order.order_no);
            }
            Claimed::SoldOut => {}
            other => hold(law, false, || format!("a claim gave {other:?}"))?,
        }
    }
    hold(law, (made, already, numbers.len()) == (60, 60, 60), || {
        format!("60 gifts, each claimed twice: {made} made, {already} found, {} numbers", numbers.len())
    })?;
    for store in both {
        let stats = store.stats().await.map_err(failed(law))?;
        let issued: u64 = stats.stock.iter().map(|(_, s)| s.issued).sum();
        hold(law, (issued, stats.orders()) == (60, 60), || format!("60 given, and one of the two says {stats:?}"))?;
    }
    Ok(())
}

/// Leases taken through both at once.
async fn workers(law: &'static str, both: &[Arc<dyn Store>; 2]) -> Result<(), Breach> {
    let mut running = JoinSet::new();
    for i in 0..16 {
        let store = both[i % 2].clone();
        running.spawn(async move { store.lease(5, Wall(3_000), Wall(2_000)).await });
    }
    let (mut leases, mut orders) = (0, BTreeSet::new());
    while let Some(ended) = running.join_next().await {
        let leased = ended.map_err(|e| Breach::Law { law, found: format!("a lease panicked: {e}") })?;
        for order in leased.map_err(failed(law))? {
            leases += 1;
            orders.insert(order.order_no);
        }
    }
    // A lease that finds all of its sight taken by others may come back with less; nobody may get what another has.
    let rest = both[0].lease(100, Wall(3_000), Wall(2_000)).await.map_err(failed(law))?;
    leases += rest.len();
    orders.extend(rest.iter().map(|o| o.order_no));
    hold(law, leases == 60 && orders.len() == 60, || {
        format!("60 orders, two processes: {leases} leases of {} orders", orders.len())
    })
}
