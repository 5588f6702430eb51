//! A race: where the first backend takes longer than nearly all answers do, a second one is asked beside it.
//!
//! Whoever answers first and well wins; the other is dropped, which closes its HTTP/1.1 connection or resets its stream. The
//! loser is counted as cancelled, and as slow at least as it was. A try that fails while the other is under way is noted as any
//! failed try is, and the other goes on alone. When to ask and whether it is paid for is `decide::hedge`'s.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http::{Method, Response};

use super::{Errand, Fault, Leg, Source};
use crate::base::clock::Mono;
use crate::config::{Balance, Route, Service};
use crate::decide::balance::Wanted;
use crate::decide::retry;
use crate::decide::tried::Tried;
use crate::proxy::download::Line;
use crate::proxy::tally::{Entry, Try};
use crate::snapshot::load::Outcome;

/// The head of a response, or why there is none.
type Answer = Result<(Response<()>, Line), Fault>;

/// A try that has ended.
pub(super) struct Asked<'a> {
    pub(super) leg: Leg<'a>,
    pub(super) attempt: Try,
    pub(super) answer: Answer,
    /// Whether a second backend was asked beside the first.
    pub(super) was_hedged: bool,
}

/// Who was first.
enum First {
    One(Answer),
    Two(Answer),
}

/// Whether a request may be hedged: it only reads, has no body, and there is somebody else to ask.
pub(super) fn may(route: &Route, service: &Service, method: &Method, source: &Source, is_upgrading: bool) -> bool {
    route.hedge
        && matches!(*method, Method::GET | Method::HEAD)
        && matches!(source, Source::Empty)
        && service.balance != Balance::UserHome
        && !is_upgrading
}

/// Asks at `leg`, and after a while perhaps somebody else too.
pub(super) async fn race<'a>(
    errand: &Errand<'a>,
    entry: &Entry,
    leg: Leg<'a>,
    attempt: Try,
    wanted: &Wanted,
    tried: &mut Tried,
    began: Mono,
) -> Asked<'a> {
    let after = {
        let mut wits = errand.worker.wits();
        let hedge = wits.hedges.of(errand.sight.snapshot.topology.edition, errand.service, errand.worker.workers);
        hedge.earn(errand.spec().retry.hedge_budget, began);
        hedge.after()
    };
    let asked = run(errand, entry, leg, attempt, wanted, tried, began, after).await;
    let took = errand.worker.now().since(began);
    let mut wits = errand.worker.wits();
    wits.hedges.of(errand.sight.snapshot.topology.edition, errand.service, errand.worker.workers).record(took);
    asked
}

#[expect(clippy::too_many_arguments, reason = "a try, and all that a second one needs")]
async fn run<'a>(
    errand: &Errand<'a>,
    entry: &Entry,
    leg: Leg<'a>,
    attempt: Try,
    wanted: &Wanted,
    tried: &mut Tried,
    began: Mono,
    after: Option<Duration>,
) -> Asked<'a> {
    let mut one = pin!(errand.attempt(&leg, entry, began));
    let Some(after) = after.filter(|after| *after < leg.patience) else {
        let answer = one.await;
        return Asked { leg, attempt, answer, was_hedged: false };
    };
    if let Ok(answer) = tokio::time::timeout(after, &mut one).await {
        return Asked { leg, attempt, answer, was_hedged: false };
    }
    let now = errand.worker.now();
    let Some(mut second) = beside(errand, &leg, wanted, tried, now) else {
        let answer = one.await;
        return Asked { leg, attempt, answer, was_hedged: false };
    };
    let hedges = &errand.sight.kit(errand.service).hedges;
    hedges[0].increment(1);
    let other = Try::begin(entry, errand.sight, second.backend, true, now);
    second.span = other.span();
    let mut two = pin!(errand.attempt(&second, entry, now));
    let first = first(one.as_mut(), two.as_mut()).await;
    let now = errand.worker.now();
    match first {
        First::One(answer) if is_good(&answer) => {
            other.outrun(now);
            Asked { leg, attempt, answer, was_hedged: true }
        }
        First::Two(answer) if is_good(&answer) => {
            attempt.outrun(now);
            hedges[1].increment(1);
            Asked { leg: second, attempt: other, answer, was_hedged: true }
        }
        First::One(answer) => {
            fail(attempt, &leg, &answer, tried, now);
            let answer = two.await;
            Asked { leg: second, attempt: other, answer, was_hedged: true }
        }
        First::Two(answer) => {
            fail(other, &second, &answer, tried, now);
            let answer = one.await;
            Asked { leg, attempt, answer, was_hedged: true }
        }
    }
}

/// Where a second request goes; `None`: there is nobody else, or it is not paid for.
fn beside<'a>(errand: &Errand<'a>, leg: &Leg<'_>, wanted: &Wanted, tried: &Tried, now: Mono) -> Option<Leg<'a>> {
    let mut tried = tried.clone();
    tried.note(leg.backend, leg.datacenter, Outcome::Cancelled);
    let second = errand.choose(&Wanted { seat: None, ..*wanted }, &mut tried, now).ok()?;
    if second.backend == leg.backend {
        return None;
    }
    let mut wits = errand.worker.wits();
    let paid = wits.hedges.of(errand.sight.snapshot.topology.edition, errand.service, errand.worker.workers).spend(now);
    if !paid {
        errand.sight.kit(errand.service).hedges[2].increment(1);
    }
    paid.then_some(second)
}

/// Waits for the first of two.
async fn first(one: Pin<&mut impl Future<Output = Answer>>, two: Pin<&mut impl Future<Output = Answer>>) -> First {
    let (mut one, mut two) = (one, two);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = one.as_mut().poll(cx) {
            return Poll::Ready(First::One(answer));
        }
        two.as_mut().poll(cx).map(First::Two)
    })
    .await
}

/// Whether an answer ends the race.
fn is_good(answer: &Answer) -> bool {
    answer.as_ref().is_ok_and(|(response, _)| retry::classify(response.status(), response.headers()).1.is_none())
}

/// Ends a try that lost by failing.
fn fail(attempt: Try, leg: &Leg<'_>, answer: &Answer, tried: &mut Tried, now: Mono) {
    let outcome = match answer {
        Ok((response, _)) => retry::classify(response.status(), response.headers()).0,
        Err(fault) => fault.outcome,
    };
    tried.note(leg.backend, leg.datacenter, outcome);
    attempt.fail(outcome, now);
}
