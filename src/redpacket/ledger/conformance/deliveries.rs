//! What the queue is held to: leases and words (I5), sums (I7), the log, and dead letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    Breach, LEASE, LETTERS, Outcome, SETTLE, SUMS, Subject, TRAIL, accepted, claim, failed, fresh, gift, hold, together,
};
use crate::base::clock::Wall;
use crate::redpacket::ledger::Store;
use crate::redpacket::model::{Failure, Order, OrderNo, Resolution, Settled, Settlement, State, Trail, Verdict};

/// I5, leases: several workers at once, then time passes.
pub(super) async fn lease(subject: &dyn Subject) -> Outcome {
    let law = LEASE;
    let store = fresh(subject).await?;
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
pub(super) async fn settle(subject: &dyn Subject) -> Outcome {
    let law = SETTLE;
    let store = fresh(subject).await?;
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
pub(super) async fn sums(subject: &dyn Subject) -> Outcome {
    let law = SUMS;
    let store = fresh(subject).await?;
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

/// Leases `order_no` at `now` and says `verdict` about it.
async fn attempt(
    law: &'static str,
    store: &Arc<dyn Store>,
    order_no: OrderNo,
    verdict: Verdict,
    now: Wall,
) -> Result<Order, Breach> {
    let leased = store.lease(99, Wall(now.0 + 100), now).await.map_err(failed(law))?;
    let order = leased.into_iter().find(|o| o.order_no == order_no);
    let order =
        order.ok_or_else(|| Breach::Law { law, found: format!("{order_no} is due at {now:?} and was not leased") })?;
    let word = Settlement { order_no, attempt: order.attempts, verdict };
    let said = store.settle(vec![word], now).await.map_err(failed(law))?;
    hold(law, matches!(said.as_slice(), [Settled::Moved(_)]), || format!("a word in time: {said:?}"))?;
    Ok(order)
}

/// I7, the log of each order, and the pages in which they are read.
pub(super) async fn trail(subject: &dyn Subject) -> Outcome {
    let law = TRAIL;
    let store = fresh(subject).await?;
    store.provision(gift(law)?, 100).await.map_err(failed(law))?;
    let mut numbers = BTreeSet::new();
    for i in 0..25 {
        numbers.insert(accepted(law, &store, claim(law, &format!("user-{i}"), "p", None)?).await?.order_no);
    }
    let first = claim(law, "user-0", "p", None)?.number();
    // Leased and put off: nothing was tried, so nothing is written, and no try is spent.
    attempt(law, &store, first, Verdict::Defer { at: Wall(1_050) }, Wall(1_000)).await?;
    let order =
        attempt(law, &store, first, Verdict::Retry { at: Wall(3_000), why: Failure::Timeout }, Wall(1_100)).await?;
    hold(law, (order.attempts, order.tries()) == (2, 1), || format!("the first try after it was put off: {order:?}"))?;
    attempt(law, &store, first, Verdict::Delivered, Wall(3_000)).await?;
    // The game applied the first try as well, and says so late: nothing moves, so nothing is written.
    let late = Settlement { order_no: first, attempt: 2, verdict: Verdict::Delivered };
    store.settle(vec![late], Wall(3_100)).await.map_err(failed(law))?;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(after, 10).await.map_err(failed(law))?;
        hold(law, page.len() <= 10, || format!("a page of 10 with {}", page.len()))?;
        let Some(last) = page.last() else { break };
        after = Some(last.order.order_no);
        seen.extend(page);
    }
    let order: Vec<OrderNo> = seen.iter().map(|t| t.order.order_no).collect();
    hold(law, order == numbers.iter().copied().collect::<Vec<_>>(), || format!("pages of 25 orders: {order:?}"))?;
    let logged: Vec<_> = seen.iter().filter(|t| !t.attempts.is_empty()).collect();
    let log: Vec<_> = logged.iter().flat_map(|t| t.attempts.iter().map(|a| (a.attempt, a.at, a.failure))).collect();
    let expected = [(2, Wall(1_100), Some(Failure::Timeout)), (3, Wall(3_000), None)];
    hold(law, logged.len() == 1 && log == expected, || format!("one order was tried twice: {log:?}"))?;
    hold(law, seen.iter().map(Trail::delivered).sum::<usize>() == 1, || "one was delivered".into())
}

/// I5, dead letters and what a person may do with them.
pub(super) async fn letters(subject: &dyn Subject) -> Outcome {
    let law = LETTERS;
    let store = fresh(subject).await?;
    store.provision(gift(law)?, 10).await.map_err(failed(law))?;
    let mut numbers = Vec::new();
    for (i, user) in ["u", "v", "w"].into_iter().enumerate() {
        let order_no = accepted(law, &store, claim(law, user, "p", None)?).await?.order_no;
        let now = Wall(1_000 + i as u64 * 200);
        attempt(law, &store, order_no, Verdict::Dead { why: Failure::Refused }, now).await?;
        numbers.push(order_no);
    }
    let dead = store.dead(2).await.map_err(failed(law))?;
    let listed: Vec<_> = dead.iter().map(|o| o.order_no).collect();
    hold(law, listed == numbers[..2] && dead.iter().all(|o| o.failure == Some(Failure::Refused)), || {
        format!("the first two of three dead: {dead:?}")
    })?;
    let alive = accepted(law, &store, claim(law, "x", "p", None)?).await?.order_no;
    let say = async |order_nos: Vec<OrderNo>, resolution, now| {
        store.resolve(order_nos, resolution, Wall(now)).await.map_err(failed(law))
    };
    let (retry, gone) = (Settled::Moved(State::RetryWait), Settled::Moved(State::Compensated));
    let told = say(vec![numbers[0], alive], Resolution::Replay, 5_000).await?;
    hold(law, told == [retry, Settled::Stale], || format!("replay of a dead and a living one: {told:?}"))?;
    let told = say(vec![numbers[1]], Resolution::Compensate, 5_000).await?;
    hold(law, told == [gone], || format!("compensate: {told:?}"))?;
    let told = say(vec![numbers[1]], Resolution::Replay, 5_000).await?;
    hold(law, told == [Settled::Stale], || format!("replay of what was compensated: {told:?}"))?;
    let left: Vec<_> = store.dead(9).await.map_err(failed(law))?.iter().map(|o| o.order_no).collect();
    hold(law, left == [numbers[2]], || format!("one dead of three is left: {left:?}"))?;
    let order = attempt(law, &store, numbers[0], Verdict::Delivered, Wall(5_000)).await?;
    hold(law, (order.attempts, order.tries()) == (2, 1), || format!("the first try of a second round: {order:?}"))?;
    let stats = store.stats().await.map_err(failed(law))?;
    hold(law, (stats.delivered, stats.dead, stats.compensated, stats.orders()) == (1, 1, 1, 4), || format!("{stats:?}"))
}
