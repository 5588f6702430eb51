//! The power fails under load, again and again: nothing that was promised is gone, and nothing is there twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Breach, CRASH, Subject, claim, failed, fresh, gift, hold};
use crate::base::clock::Wall;
use crate::redpacket::ledger::{Claimed, Store};
use crate::redpacket::model::{Claim, OrderNo, Settlement, Trail, Verdict};

/// How often the power fails.
const BLOWS: usize = 6;
/// Clients at the same time.
const CLIENTS: usize = 24;
/// Claims answered between two blows.
const BETWEEN: usize = 40;
/// The gift's stock: more than what is claimed, so that no client is sent away.
const TOTAL: u64 = 1_000_000;
/// How long all of it may take; a store that hangs is a breach.
const LIMIT: Duration = Duration::from_mins(4);

/// What the clients know.
struct Crowd {
    /// The store of this moment; none while its power is off.
    store: Mutex<Option<Arc<dyn Store>>>,
    /// What users were promised.
    promised: Mutex<BTreeMap<OrderNo, Claim>>,
    next: AtomicUsize,
    answered: AtomicUsize,
    over: AtomicBool,
}

impl Crowd {
    fn store(&self) -> Option<Arc<dyn Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, store: Option<Arc<dyn Store>>) -> Option<Arc<dyn Store>> {
        std::mem::replace(&mut *self.store.lock().unwrap_or_else(PoisonError::into_inner), store)
    }

    /// Claims for one user after another, each until there is an answer.
    async fn client(self: Arc<Self>) -> Result<(), Breach> {
        while !self.over.load(Ordering::Relaxed) {
            let user = self.next.fetch_add(1, Ordering::Relaxed);
            let claim = claim(CRASH, &format!("user-{user}"), "p", Some(&format!("key-{user}")))?;
            loop {
                let answer = match self.store() {
                    Some(store) => Some(store.claim(claim.clone(), Wall(1_000)).await),
                    None => None,
                };
                match answer {
                    Some(Ok(Claimed::Accepted(order) | Claimed::Already(order))) => {
                        self.promised.lock().unwrap_or_else(PoisonError::into_inner).insert(order.order_no, claim);
                        self.answered.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Some(Ok(other)) => hold(CRASH, false, || format!("a claim with stock left: {other:?}"))?,
                    Some(Err(_)) | None => sleep(Duration::from_millis(2)).await,
                }
            }
        }
        Ok(())
    }

    /// Leases and delivers meanwhile.
    async fn worker(self: Arc<Self>) -> Result<(), Breach> {
        let mut now = 2_000;
        while !self.over.load(Ordering::Relaxed) {
            now += 1_000;
            if let Some(store) = self.store()
                && let Ok(orders) = store.lease(16, Wall(now + 500), Wall(now)).await
            {
                let word = |o: &crate::redpacket::model::Order| Settlement {
                    order_no: o.order_no,
                    attempt: o.attempts,
                    verdict: Verdict::Delivered,
                };
                // Words that are lost are said again by whoever leases the order next.
                let _ = store.settle(orders.iter().map(word).collect(), Wall(now)).await;
            }
            sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }
}

/// False where a store of this kind does not outlive its power.
pub(super) async fn crash(subject: &dyn Subject) -> Result<bool, Breach> {
    let store = fresh(subject).await?;
    store.provision(gift(CRASH)?, TOTAL).await.map_err(failed(CRASH))?;
    let Some(first) = subject.struck(store) else { return Ok(false) };
    let store = first.await.map_err(|reason| Breach::NoStore { reason })?;
    let crowd = Arc::new(Crowd {
        store: Mutex::new(Some(store)),
        promised: Mutex::default(),
        next: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(crowd.clone().worker());
    for _ in 0..CLIENTS {
        tasks.spawn(crowd.clone().client());
    }
    let blows = async {
        for blow in 1..=BLOWS {
            while crowd.answered.load(Ordering::Relaxed) < blow * BETWEEN {
                sleep(Duration::from_millis(1)).await;
            }
            let Some(store) = crowd.put(None) else { continue };
            let Some(back) = subject.struck(store) else { continue };
            crowd.put(Some(back.await.map_err(|reason| Breach::NoStore { reason })?));
        }
        crowd.over.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Breach::Law { law: CRASH, found: format!("a client panicked: {e}") })??;
        }
        Ok(())
    };
    match timeout(LIMIT, blows).await {
        Ok(done) => done?,
        Err(_) => hold(CRASH, false, || format!("not over in {LIMIT:?}: the store hangs"))?,
    }
    let Some(store) = crowd.put(None) else { return Ok(false) };
    let promised = std::mem::take(&mut *crowd.promised.lock().unwrap_or_else(PoisonError::into_inner));
    account(&store, &promised).await?;
    Ok(true)
}

/// Every promise kept, every order once, all of it adding up.
async fn account(store: &Arc<dyn Store>, promised: &BTreeMap<OrderNo, Claim>) -> Result<(), Breach> {
    let (mut orders, mut delivered, mut after) = (0, 0, None);
    let mut missing = promised.clone();
    loop {
        let page = store.scan(after, 200).await.map_err(failed(CRASH))?;
        let Some(last) = page.last() else { break };
        after = Some(last.order.order_no);
        orders += page.len() as u64;
        delivered += page.iter().map(Trail::delivered).sum::<usize>() as u64;
        for trail in &page {
            missing.remove(&trail.order.order_no);
        }
    }
    hold(CRASH, missing.is_empty(), || format!("{} of {} promises are gone", missing.len(), promised.len()))?;
    let stats = store.stats().await.map_err(failed(CRASH))?;
    let issued: u64 = stats.stock.iter().map(|(_, s)| s.issued).sum();
    hold(CRASH, (stats.orders(), issued, stats.delivered) == (orders, orders, delivered), || {
        format!("{orders} orders and {delivered} deliveries in the log, and the sums say {stats:?}")
    })?;
    hold(CRASH, orders as usize >= promised.len(), || format!("{orders} orders for {} promises", promised.len()))
}
