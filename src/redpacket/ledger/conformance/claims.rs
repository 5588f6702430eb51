//! What claims are held to: stock (I1), one order each (I2), keys (I2), and that promises outlive the process (I4).

use std::collections::BTreeSet;

use super::{
    Breach, DURABLE, KEYS, ONCE, Outcome, STOCK, Subject, accepted, bad, claim, failed, fresh, gift, hold, one,
    together,
};
use crate::base::clock::Wall;
use crate::redpacket::ledger::Claimed;
use crate::redpacket::model::{Order, RoleId, Settlement, Verdict};

/// I1, with more claimants than gifts, all at once.
pub(super) async fn stock(subject: &dyn Subject) -> Outcome {
    let law = STOCK;
    let store = fresh(subject).await?;
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
pub(super) async fn once(subject: &dyn Subject) -> Outcome {
    let law = ONCE;
    let store = fresh(subject).await?;
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
pub(super) async fn keys(subject: &dyn Subject) -> Outcome {
    let law = KEYS;
    let store = fresh(subject).await?;
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

/// I4: all of it, after the store was opened again. False where this kind of store cannot be.
pub(super) async fn durable(subject: &dyn Subject) -> Result<bool, Breach> {
    let law = DURABLE;
    let store = fresh(subject).await?;
    store.provision(gift(law)?, 25).await.map_err(failed(law))?;
    let claims = (0..20).map(|i| claim(law, &format!("user-{i}"), "p", Some(&format!("key-{i}"))));
    let all = together(law, &store, claims.collect::<Result<_, _>>()?).await?;
    let leased = store.lease(5, Wall(2_000), Wall(1_000)).await.map_err(failed(law))?;
    let word = |o: &Order| Settlement { order_no: o.order_no, attempt: 1, verdict: Verdict::Delivered };
    store.settle(leased.iter().take(3).map(word).collect(), Wall(1_500)).await.map_err(failed(law))?;
    let before = store.stats().await.map_err(failed(law))?;
    let Some(reopened) = subject.reopened(store) else { return Ok(false) };
    let store = reopened.await.map_err(|reason| Breach::NoStore { reason })?;
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
