//! Stock that moves: the store as giver and as taker, with a [`Book`] as the other home. At every step both together have
//! what they were given, less what is on its way.

use std::sync::Arc;

use super::{Breach, MOVES, Outcome, Subject, accepted, claim, failed, fresh, gift, hold, one};
use crate::redpacket::ledger::{Book, Claimed, Stock, Store, StoreError, Transfer};

/// What each of the two homes is given.
const EACH: u64 = 20;

/// False where stores of this kind move no stock.
pub(super) async fn moves(subject: &dyn Subject) -> Result<bool, Breach> {
    let store = provisioned(subject).await?;
    match store.turn("b".into(), gift(MOVES)?).await {
        Err(StoreError::Unwritable { .. }) => return Ok(false),
        turn => same("the first number", &turn.map_err(failed(MOVES))?, &1)?,
    }
    gives(subject, store).await?;
    takes(subject).await?;
    Ok(true)
}

async fn provisioned(subject: &dyn Subject) -> Result<Arc<dyn Store>, Breach> {
    let store = fresh(subject).await?;
    store.provision(gift(MOVES)?, EACH).await.map_err(failed(MOVES))?;
    Ok(store)
}

/// The store is the giver.
async fn gives(subject: &dyn Subject, store: Arc<dyn Store>) -> Outcome {
    let mut book = Book::default();
    book.provision(gift(MOVES)?, EACH);
    for user in 0..6 {
        accepted(MOVES, &store, claim(MOVES, &format!("user-{user}"), "p", None)?).await?;
    }
    // Of 14: at most half, and no more than was asked for; the same number is the same transfer.
    for (number, most, want) in [
        (2, 5, None),
        (1, 0, Some(0)),
        (1, 5, Some(5)),
        (1, 9, Some(5)),
        (2, 100, Some(5)),
        (1, 1, None),
        (4, 1, None),
        (3, 100, Some(2)),
    ] {
        let asked = Transfer { with: "b".into(), gift: gift(MOVES)?, number };
        let given = store.give(asked.clone(), most).await.map_err(failed(MOVES))?;
        same(&format!("number {number}, at most {most}"), &given, &want)?;
        let before = sum(&store, &book).await?;
        if let Some(amount @ 1..) = given {
            book.take(&Transfer { with: "a".into(), ..asked }, amount);
        }
        let after = sum(&store, &book).await?;
        hold(MOVES, before <= after && after == 2 * EACH, || format!("of {}, both have {before}, {after}", 2 * EACH))?;
    }
    same("the giver's stock", &stock(&store).await?, &Stock { total: 8, issued: 6 })?;
    // Each home has numbers of its own.
    let to_c = Transfer { with: "c".into(), gift: gift(MOVES)?, number: 1 };
    same("to another home", &store.give(to_c.clone(), 1).await.map_err(failed(MOVES))?, &Some(1))?;
    let beside = beside(subject, &store).await?;
    // What every start says undoes nothing, and what was said stays said.
    beside.provision(gift(MOVES)?, EACH).await.map_err(failed(MOVES))?;
    same("after a start", &stock(&store).await?, &Stock { total: 7, issued: 6 })?;
    same("again, after a start", &beside.give(to_c.clone(), 1).await.map_err(failed(MOVES))?, &Some(1))?;
    // The last one goes once, whoever asks, and with it the last claim.
    let last = Transfer { number: 2, ..to_c };
    let (left, right) = tokio::join!(store.give(last.clone(), 1), beside.give(last.clone(), 1));
    for given in [left, right] {
        same("the last, asked for twice at once", &given.map_err(failed(MOVES))?, &Some(1))?;
    }
    same("the giver's stock at the end", &stock(&beside).await?, &Stock { total: 6, issued: 6 })?;
    let end = one(MOVES, &store, claim(MOVES, "late", "p", None)?).await?;
    hold(MOVES, end == Claimed::SoldOut, || format!("all was given, and then {end:?}"))?;
    let none = Transfer { number: 3, ..last.clone() };
    same("of nothing", &store.give(none, 1).await.map_err(failed(MOVES))?, &Some(0))?;
    drop(beside);
    let Some(again) = subject.reopened(store) else { return Ok(()) };
    let store = again.await.map_err(|reason| Breach::NoStore { reason })?;
    store.provision(gift(MOVES)?, EACH).await.map_err(failed(MOVES))?;
    same("opened again", &stock(&store).await?, &Stock { total: 6, issued: 6 })?;
    same("the last, after that", &store.give(last, 1).await.map_err(failed(MOVES))?, &Some(1))
}

/// The store is the taker.
async fn takes(subject: &dyn Subject) -> Outcome {
    let store = provisioned(subject).await?;
    let mut book = Book::default();
    book.provision(gift(MOVES)?, EACH);
    let number = store.turn("b".into(), gift(MOVES)?).await.map_err(failed(MOVES))?;
    let Some(amount @ 1..) = book.give(&Transfer { with: "a".into(), gift: gift(MOVES)?, number }, 7) else {
        return hold(MOVES, false, || "the suite's own book gives nothing".into());
    };
    let sent = Transfer { with: "b".into(), gift: gift(MOVES)?, number };
    same("while it is on its way", &sum(&store, &book).await?, &(2 * EACH - amount))?;
    let early = Transfer { number: number + 1, ..sent.clone() };
    same("a number too early", &store.take(early.clone(), amount).await.map_err(failed(MOVES))?, &false)?;
    let beside = beside(subject, &store).await?;
    let (left, right) = tokio::join!(store.take(sent.clone(), amount), beside.take(sent.clone(), amount));
    let news = [left.map_err(failed(MOVES))?, right.map_err(failed(MOVES))?];
    hold(MOVES, news[0] != news[1], || format!("told of one transfer twice at once: {news:?}"))?;
    same("once it has come", &sum(&beside, &book).await?, &(2 * EACH))?;
    same("the next number", &beside.turn("b".into(), gift(MOVES)?).await.map_err(failed(MOVES))?, &(number + 1))?;
    same("told again", &store.take(sent.clone(), amount).await.map_err(failed(MOVES))?, &false)?;
    // More by the configuration is more, on top of what came.
    store.provision(gift(MOVES)?, EACH + 1).await.map_err(failed(MOVES))?;
    same("the taker's stock", &stock(&beside).await?, &Stock { total: EACH + 1 + amount, issued: 0 })?;
    for user in 0..=EACH + amount {
        accepted(MOVES, &store, claim(MOVES, &format!("user-{user}"), "p", None)?).await?;
    }
    let end = one(MOVES, &beside, claim(MOVES, "late", "p", None)?).await?;
    hold(MOVES, end == Claimed::SoldOut, || format!("all was issued, and then {end:?}"))?;
    drop(beside);
    let Some(again) = subject.reopened(store) else { return Ok(()) };
    let store = again.await.map_err(|reason| Breach::NoStore { reason })?;
    store.provision(gift(MOVES)?, EACH).await.map_err(failed(MOVES))?;
    let all = EACH + amount;
    same("opened again", &stock(&store).await?, &Stock { total: all, issued: all + 1 })?;
    same("told after that", &store.take(sent, amount).await.map_err(failed(MOVES))?, &false)
}

/// Another handle on it; the same, where stores of its kind have one.
async fn beside(subject: &dyn Subject, store: &Arc<dyn Store>) -> Result<Arc<dyn Store>, Breach> {
    match subject.beside(store) {
        Some(beside) => beside.await.map_err(|reason| Breach::NoStore { reason }),
        None => Ok(store.clone()),
    }
}

async fn stock(store: &Arc<dyn Store>) -> Result<Stock, Breach> {
    let stats = store.stats().await.map_err(failed(MOVES))?;
    Ok(stats.stock.first().map(|(_, stock)| *stock).unwrap_or_default())
}

/// What both may issue in all.
async fn sum(store: &Arc<dyn Store>, book: &Book) -> Result<u64, Breach> {
    let other: u64 = book.stats().stock.iter().map(|(_, stock)| stock.total).sum();
    Ok(stock(store).await?.total + other)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, want: &T) -> Outcome {
    hold(MOVES, found == want, || format!("{what}: {found:?}, not {want:?}"))
}
