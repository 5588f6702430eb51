//! Several processes on one store: what holds for one handle holds for two together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Bench, Breach, SHARED, Subject};
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::{Created, Opened, PacketStore};
use crate::redpacket::model::UserId;
use crate::redpacket::model::cash::Mode;

/// False where stores of this kind belong to one process.
pub(super) async fn shared(subject: &dyn Subject) -> Result<bool, Breach> {
    let bench = Bench::new(SHARED, subject).await?;
    let Some(right) = subject.beside(&bench.store) else { return Ok(false) };
    let right = right.await.map_err(|reason| Breach::NoStore { reason })?;
    let both = [bench.store.clone(), right];
    bench.pay("k", 10_000).await?;
    packets(&bench, &both).await?;
    openers(&bench, &both).await?;
    keys(&bench, &both).await?;
    workers(&bench, &both).await?;
    bench.counted().await?;
    Ok(true)
}

fn panicked(error: &tokio::task::JoinError) -> Breach {
    Breach::Law { law: SHARED, found: format!("a call panicked: {error}") }
}

/// The same ten packets, each made through both at once, out of money for eight.
async fn packets(bench: &Bench, both: &[Arc<dyn PacketStore>; 2]) -> Result<(), Breach> {
    let mut running = JoinSet::new();
    for n in 0..10 {
        for store in both {
            let (store, packing) = (store.clone(), bench.packing(&format!("p{n}"), 1_200, 60, Mode::DoubleMean)?);
            running.spawn(async move { store.create(packing, Wall(1)).await });
        }
    }
    let (mut made, mut again, mut refused) = (0, 0, 0);
    while let Some(ended) = running.join_next().await {
        match ended.map_err(|e| panicked(&e))?.map_err(bench.failed())? {
            Created::Funded(_) => made += 1,
            Created::Already(_) => again += 1,
            Created::Unfunded => refused += 1,
            other => bench.hold(false, || format!("a packet gave {other:?}"))?,
        }
    }
    bench.hold((made, again, refused) == (8, 8, 4), || {
        format!("10 packets, each twice, money for 8: {made} made, {again} found, {refused} not paid for")
    })?;
    let balance = bench.balance().await?;
    bench.hold(balance == 400, || format!("{balance} fen are left of 400"))
}

/// 90 users for the 60 shares of one packet, each through both at once.
async fn openers(bench: &Bench, both: &[Arc<dyn PacketStore>; 2]) -> Result<(), Breach> {
    let page = both[1].scan(None, 1).await.map_err(bench.failed())?;
    let id = page.first().map(|p| p.id().clone());
    let id = id.ok_or_else(|| Breach::Law { law: SHARED, found: "what one made the other does not see".into() })?;
    let mut running = JoinSet::new();
    for n in 0..90 {
        for store in both {
            let (store, id, opener) = (store.clone(), id.clone(), bench.opener(&format!("u{n}"), None)?);
            running.spawn(async move { store.open(id, vec![opener], Wall(2)).await });
        }
    }
    let (mut shares, mut again, mut refused) = (BTreeMap::<UserId, u64>::new(), 0, 0);
    while let Some(ended) = running.join_next().await {
        for opened in ended.map_err(|e| panicked(&e))?.map_err(bench.failed())?.each {
            match opened {
                Opened::Share(share) => {
                    let second = shares.insert(share.user_id.clone(), share.amount_fen);
                    bench.hold(second.is_none(), || format!("{} got two shares", share.user_id))?;
                }
                Opened::Already(_) => again += 1,
                Opened::SoldOut => refused += 1,
                other => bench.hold(false, || format!("an open packet gave {other:?}"))?,
            }
        }
    }
    let fen: u64 = shares.values().sum();
    bench.hold((shares.len(), fen, again, refused) == (60, 1_200, 60, 60), || {
        format!("{} shares of 60, {fen} fen of 1200, {again} found again, {refused} refused", shares.len())
    })
}

/// One key of one user for two packets at once, through two processes: it opens one of them.
async fn keys(bench: &Bench, both: &[Arc<dyn PacketStore>; 2]) -> Result<(), Breach> {
    let all = both[0].scan(None, 3).await.map_err(bench.failed())?;
    let fresh: Vec<_> = all.iter().skip(1).map(|p| p.id().clone()).collect();
    let mut running = JoinSet::new();
    for n in 0..30 {
        for (store, id) in both.iter().zip(&fresh) {
            let opener = bench.opener(&format!("u{n}"), Some("the-same"))?;
            let (store, id) = (store.clone(), id.clone());
            running.spawn(async move { store.open(id, vec![opener], Wall(3)).await });
        }
    }
    let (mut shares, mut conflicts) = (BTreeSet::new(), 0);
    while let Some(ended) = running.join_next().await {
        for opened in ended.map_err(|e| panicked(&e))?.map_err(bench.failed())?.each {
            match opened {
                Opened::Share(share) => {
                    bench
                        .hold(shares.insert(share.user_id.clone()), || format!("{} used a key twice", share.user_id))?;
                }
                Opened::KeyConflict => conflicts += 1,
                other => bench.hold(false, || format!("a key gave {other:?}"))?,
            }
        }
    }
    bench.hold((shares.len(), conflicts) == (30, 30), || format!("{} shares, {conflicts} conflicts", shares.len()))
}

/// Leases taken through both at once.
async fn workers(bench: &Bench, both: &[Arc<dyn PacketStore>; 2]) -> Result<(), Breach> {
    let mut running = JoinSet::new();
    for n in 0..20 {
        let store = both[n % 2].clone();
        running.spawn(async move { store.lease(6, Wall(3_000), Wall(2_000)).await });
    }
    let (mut leases, mut numbers) = (0, BTreeSet::new());
    while let Some(ended) = running.join_next().await {
        for share in ended.map_err(|e| panicked(&e))?.map_err(bench.failed())? {
            leases += 1;
            numbers.insert(share.order_no);
        }
    }
    // A lease that finds all of its sight taken by others may come back with less; nobody may get what another has.
    let rest = both[0].lease(100, Wall(3_000), Wall(2_000)).await.map_err(bench.failed())?;
    leases += rest.len();
    numbers.extend(rest.iter().map(|s| s.order_no));
    bench.hold((leases, numbers.len()) == (90, 90), || {
        format!("90 shares, two processes: {leases} leases of {} shares", numbers.len())
    })
}
