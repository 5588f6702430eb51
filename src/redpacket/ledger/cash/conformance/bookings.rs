//! What the queue for booking is held to: leases, workers' words, and a person's (I5).

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::{Bench, Breach, LEASE, LETTERS, Outcome, SETTLE, Subject};
use crate::base::clock::Wall;
use crate::redpacket::model::cash::Mode;
use crate::redpacket::model::{Failure, OrderNo, Resolution, Settled, Settlement, State, Verdict};

/// I5, leases: several workers at once, then time passes.
pub(super) async fn lease(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(LEASE, subject).await?;
    bench.pay("k", 1_000).await?;
    bench.funded(bench.packing("p", 1_000, 20, Mode::DoubleMean)?, 1).await?;
    for n in 0..20 {
        bench.share("p", &format!("u{n}"), 500).await?;
    }
    let take = async |limit, until, now| bench.store.lease(limit, Wall(until), Wall(now)).await.map_err(bench.failed());
    let early = take(100, 2_000, 499).await?;
    bench.hold(early.is_empty(), || format!("{} leased before they were due", early.len()))?;
    let mut workers = JoinSet::new();
    for _ in 0..8 {
        let store = bench.store.clone();
        workers.spawn(async move { store.lease(4, Wall(2_000), Wall(500)).await });
    }
    let mut held = Vec::new();
    while let Some(ended) = workers.join_next().await {
        let shares = ended.map_err(|e| Breach::Law { law: LEASE, found: format!("a lease panicked: {e}") })?;
        held.extend(shares.map_err(bench.failed())?);
    }
    let distinct: BTreeSet<_> = held.iter().map(|s| s.order_no).collect();
    bench.hold((held.len(), distinct.len()) == (20, 20), || {
        format!("8 workers asked for 4 of 20: {} leases of {} shares", held.len(), distinct.len())
    })?;
    let first = held.iter().all(|s| s.booking.state == State::Delivering && s.booking.attempts == 1);
    bench.hold(first, || format!("{:?}", held.first()))?;
    let none = take(100, 3_000, 1_999).await?;
    bench.hold(none.is_empty(), || format!("{} leased while another holds them", none.len()))?;
    let again = take(100, 3_000, 2_000).await?;
    bench.hold(again.len() == 20 && again.iter().all(|s| s.booking.attempts == 2), || {
        format!("{} of 20 came back when the lease ended", again.len())
    })?;
    bench.counted().await
}

/// I5, what workers say.
pub(super) async fn settle(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(SETTLE, subject).await?;
    bench.pay("k", 1_000).await?;
    bench.funded(bench.packing("p", 1_000, 2, Mode::DoubleMean)?, 1).await?;
    let order_no = bench.share("p", "u", 100).await?.order_no;
    let say = async |attempt, verdict, now| {
        let word = Settlement { order_no, attempt, verdict };
        let all = bench.store.settle(vec![word], Wall(now)).await.map_err(bench.failed())?;
        match all.as_slice() {
            [one] => Ok(*one),
            other => Err(Breach::Law { law: SETTLE, found: format!("one word, answers {other:?}") }),
        }
    };
    let expect = |got: Settled, want: Settled, what: &str| bench.hold(got == want, || format!("{what}: {got:?}"));
    let retry = |at| Verdict::Retry { at: Wall(at), why: Failure::Timeout };
    let take =
        async |until, now| bench.store.lease(9, Wall(until), Wall(now)).await.map(|s| s.len()).map_err(bench.failed());
    expect(say(1, Verdict::Delivered, 110).await?, Settled::Stale, "booked, but never leased")?;
    bench.hold(take(2_000, 110).await? == 1, || "not leased when due".into())?;
    expect(say(1, retry(5_000), 120).await?, Settled::Moved(State::RetryWait), "failed once")?;
    bench.hold(take(6_000, 4_999).await? == 0, || "leased before the retry was due".into())?;
    bench.hold(take(6_000, 5_000).await? == 1, || "not leased when the retry was due".into())?;
    expect(say(1, Verdict::Dead { why: Failure::Refused }, 5_100).await?, Settled::Stale, "an old attempt's failure")?;
    expect(say(1, Verdict::Delivered, 5_200).await?, Settled::Moved(State::Delivered), "an old attempt's success")?;
    expect(say(2, retry(9_000), 5_300).await?, Settled::Stale, "a failure after the booking")?;
    bench.hold(take(99_000, 90_000).await? == 0, || "leased after it was booked".into())?;
    let found = bench.store.share(bench.packet("p")?, bench.user("u")?).await.map_err(bench.failed())?;
    bench.hold(found.as_ref().is_some_and(|s| s.booking.state == State::Delivered), || format!("found {found:?}"))?;
    let totals = bench.store.totals().await.map_err(bench.failed())?;
    bench.hold(totals.shares_in(State::Delivered) == 1 && totals.oldest_open.is_none(), || format!("{totals:?}"))?;
    bench.counted().await
}

/// I5, dead letters and what a person may do with them.
pub(super) async fn letters(subject: &dyn Subject) -> Outcome {
    let bench = Bench::new(LETTERS, subject).await?;
    bench.pay("k", 1_000).await?;
    bench.funded(bench.packing("p", 1_000, 4, Mode::Fixed)?, 1).await?;
    for n in 0..4 {
        bench.share("p", &format!("u{n}"), 10 + n).await?;
    }
    let leased = bench.store.lease(9, Wall(500), Wall(100)).await.map_err(bench.failed())?;
    let numbers: Vec<OrderNo> = leased.iter().map(|s| s.order_no).collect();
    bench.hold(numbers.len() == 4, || format!("four shares, leased {numbers:?}"))?;
    for (order_no, now) in numbers.iter().take(3).zip(200..) {
        let word = Settlement { order_no: *order_no, attempt: 1, verdict: Verdict::Dead { why: Failure::Refused } };
        bench.store.settle(vec![word], Wall(now)).await.map_err(bench.failed())?;
    }
    let dead = bench.store.dead(2).await.map_err(bench.failed())?;
    let right = dead.iter().map(|s| s.order_no).eq(numbers[..2].iter().copied())
        && dead.iter().all(|s| s.booking.failure == Some(Failure::Refused));
    bench.hold(right, || format!("the first two of three dead: {dead:?}"))?;
    let none = bench.store.lease(9, Wall(700), Wall(300)).await.map_err(bench.failed())?;
    bench.hold(none.is_empty(), || format!("the dead were leased: {none:?}"))?;
    let say = async |order_nos: &[OrderNo], resolution, now| {
        bench.store.resolve(order_nos.to_vec(), resolution, Wall(now)).await.map_err(bench.failed())
    };
    let told = say(&[numbers[0], numbers[3]], Resolution::Replay, 310).await?;
    let again = Settled::Moved(State::RetryWait);
    bench.hold(told == [again, Settled::Stale], || format!("replay of a dead and a living one: {told:?}"))?;
    let told = say(&[numbers[1]], Resolution::Compensate, 320).await?;
    bench.hold(told == [Settled::Moved(State::Compensated)], || format!("closed by a person: {told:?}"))?;
    let told = say(&[numbers[1], numbers[0]], Resolution::Compensate, 330).await?;
    bench.hold(told == [Settled::Stale, Settled::Stale], || format!("a second word: {told:?}"))?;
    let replayed = bench.store.lease(9, Wall(600), Wall(340)).await.map_err(bench.failed())?;
    let one: Vec<_> = replayed.iter().map(|s| (s.order_no, s.booking.attempts, s.booking.tries())).collect();
    bench.hold(one == [(numbers[0], 2, 1)], || format!("a replay has its tries from the beginning: {one:?}"))?;
    let word = Settlement { order_no: numbers[0], attempt: 2, verdict: Verdict::Delivered };
    bench.store.settle(vec![word], Wall(350)).await.map_err(bench.failed())?;
    let left = bench.store.dead(9).await.map_err(bench.failed())?;
    bench.hold(left.iter().map(|s| s.order_no).eq([numbers[2]]), || format!("one dead of three is left: {left:?}"))?;
    let totals = bench.store.totals().await.map_err(bench.failed())?;
    let states = [State::Delivered, State::Dead, State::Compensated, State::Delivering].map(|s| totals.shares_in(s));
    bench.hold(states == [1, 1, 1, 1], || format!("{totals:?}"))?;
    bench.counted().await
}
