//! The power fails while many open, again and again.

use tokio::task::JoinSet;

use super::{Bench, Breach, CRASH, Subject};
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::Opened;
use crate::redpacket::model::cash::Mode;

/// I4 and I3 where the power fails while many open. False where this kind of store cannot be struck.
pub(super) async fn crash(subject: &dyn Subject) -> Result<bool, Breach> {
    let mut bench = Bench::new(CRASH, subject).await?;
    bench.pay("k", 100_000).await?;
    bench.funded(bench.packing("p", 100_000, 1_000, Mode::DoubleMean)?, 1).await?;
    for round in 0..5_u32 {
        let mut running = JoinSet::new();
        for n in 0..60 {
            let (store, packet) = (bench.store.clone(), bench.packet("p")?);
            let openers = vec![bench.opener(&format!("u{round}-{n}"), None)?, bench.opener(&format!("v{n}"), None)?];
            running.spawn(async move { store.open(packet, openers, Wall(100)).await.map(|o| o.each) });
        }
        // Some have their answer when the power fails, the others never get one.
        let mut told = Vec::new();
        while told.len() < 20 {
            match running.join_next().await {
                Some(Ok(Ok(each))) => told.extend(each),
                Some(_) => {}
                None => break,
            }
        }
        running.abort_all();
        while running.join_next().await.is_some() {}
        let Some(left) = subject.struck(bench.store) else { return Ok(false) };
        bench.store = left.await.map_err(|reason| Breach::NoStore { reason })?;
        for opened in told {
            let (Opened::Share(share) | Opened::Already(share)) = opened else { continue };
            let found = bench.store.share(share.packet_id.clone(), share.user_id.clone()).await;
            let found = found.map_err(bench.failed())?;
            let kept = found.is_some_and(|f| (f.amount_fen, f.rank) == (share.amount_fen, share.rank));
            bench.hold(kept, || format!("{} was told of a share that is gone", share.user_id))?;
        }
        bench.counted().await?;
    }
    Ok(true)
}
