//! `/v1/events`: generations as they come, as server-sent events, each with what has changed in words.
//!
//! One task looks at each new generation, keeps the last changes, and tells the followers. Everything is bounded: the
//! journal, the followers, and what may wait for each of them; who does not keep up is let go and may come again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};

use super::Shared;
use super::api::Site;
use super::changes::{Moment, between};
use super::refusal::Refusal;
use crate::base::task::{self, Task};
use crate::observe::names::admin as names;

/// Moments that the journal keeps.
const JOURNAL: usize = 200;
/// Followers at a time.
const FOLLOWERS: usize = 32;
/// Moments that may wait for the slowest follower.
const BEHIND: usize = 64;
/// Pieces that may wait in one follower's body.
const PIECES: usize = 8;
/// A comment goes out this often, so that both sides notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a follower may take nothing before it is let go.
const KEEP_UP_WITHIN: Duration = Duration::from_secs(10);

/// The journal and its followers.
#[derive(Debug)]
pub(super) struct Live {
    journal: Mutex<VecDeque<Arc<Moment>>>,
    news: broadcast::Sender<Arc<Moment>>,
    seats: Arc<Semaphore>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self {
            journal: Mutex::new(VecDeque::new()),
            news: broadcast::Sender::new(BEHIND),
            seats: Arc::new(Semaphore::new(FOLLOWERS)),
        }
    }

    fn record(&self, moment: Moment) {
        let moment = Arc::new(moment);
        if !moment.changes.is_empty() {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            if journal.len() == JOURNAL {
                journal.pop_front();
            }
            journal.push_back(Arc::clone(&moment));
        }
        // Nobody may be following; the journal has it.
        let _ = self.news.send(moment);
    }

    /// The journal, newest first.
    fn recent(&self) -> Vec<Moment> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.iter().rev().map(|m| Moment::clone(m)).collect()
    }
}

/// Follows the generations until the shutdown.
pub(super) fn watch(shared: Arc<Shared>) -> Task {
    let mut generations = shared.context.published.subscribe();
    let mut before = shared.context.published.full();
    task::spawn("admin journal", async move {
        loop {
            tokio::select! {
                () = shared.shutdown.cancelled() => return,
                changed = generations.changed() => if changed.is_err() { return },
            }
            let after = shared.context.published.full();
            let (now, wall) = (shared.context.clock.mono(), shared.context.clock.wall());
            let changes = between(&before, &after, now, wall);
            shared.live.record(Moment { generation: after.generation, at_ms: wall.0, changes });
            before = after;
        }
    })
}

/// `GET /v1/changes`: the journal, newest first.
pub(super) async fn changes(State(shared): Site) -> Json<Vec<Moment>> {
    Json(shared.live.recent())
}

/// `GET /v1/events`: the generation at once, then every further one.
pub(super) async fn events(State(shared): Site) -> Result<Response, Refusal> {
    let Ok(seat) = Arc::clone(&shared.live.seats).try_acquire_owned() else {
        let error = format!("{FOLLOWERS} clients follow already");
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, "poll /v1/state instead"));
    };
    let (pieces, body) = mpsc::channel(PIECES);
    let news = shared.live.news.subscribe();
    let first = Moment {
        generation: shared.context.published.load().generation,
        at_ms: shared.context.clock.wall().0,
        changes: Vec::new(),
    };
    task::spawn("admin follower", follow(shared, seat, first, news, pieces)).detach();
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(Pieces(body))).into_response())
}

async fn follow(
    shared: Arc<Shared>,
    seat: OwnedSemaphorePermit,
    first: Moment,
    news: broadcast::Receiver<Arc<Moment>>,
    pieces: mpsc::Sender<Bytes>,
) {
    names::STREAMS.gauge(&[]).increment(1.0);
    if tell(&shared, first, news, pieces).await.is_err() {
        names::STREAMS_DROPPED.counter(&[]).increment(1);
    }
    names::STREAMS.gauge(&[]).decrement(1.0);
    drop(seat);
}

/// A follower does not keep up.
struct TooSlow;

async fn tell(
    shared: &Shared,
    first: Moment,
    mut news: broadcast::Receiver<Arc<Moment>>,
    pieces: mpsc::Sender<Bytes>,
) -> Result<(), TooSlow> {
    let mut piece = event(&first);
    loop {
        match tokio::time::timeout(KEEP_UP_WITHIN, pieces.send(piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(TooSlow),
        }
        piece = tokio::select! {
            () = shared.shutdown.cancelled() => return Ok(()),
            () = pieces.closed() => return Ok(()),
            () = tokio::time::sleep(HEARTBEAT) => Bytes::from_static(b":\n\n"),
            told = news.recv() => event(&*told.map_err(|_| TooSlow)?),
        };
    }
}

/// One moment as the HTML standard writes an event (9.2.6): JSON has no line breaks, so one `data` line holds it.
fn event(moment: &Moment) -> Bytes {
    let data = serde_json::to_string(moment).unwrap_or_default();
    Bytes::from(format!("event: generation\nid: {}\ndata: {data}\n\n", moment.generation))
}

/// A body that gives what a channel brings.
struct Pieces(mpsc::Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::world::{self, Wanted};
    use crate::snapshot::Published;

    fn shared() -> Arc<Shared> {
        let (events, _) = mpsc::channel(1);
        let context = world::context(Wanted::default(), Arc::new(Published::new(world::snapshot())), events);
        Arc::new(Shared::new(context, "127.0.0.1:1".parse().unwrap(), CancellationToken::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_takes_nothing_is_let_go() {
        let shared = shared();
        let unread = events(State(Arc::clone(&shared))).await.unwrap();
        assert_eq!(shared.live.seats.available_permits(), FOLLOWERS - 1);
        let freed = async {
            let _seats = shared.live.seats.acquire_many(FOLLOWERS as u32).await.unwrap();
        };
        tokio::time::timeout(20 * HEARTBEAT, freed).await.expect("heartbeats alone fill what it does not take");
        drop(unread);
    }

    #[tokio::test]
    async fn followers_are_counted_and_a_seat_comes_back_with_its_body() {
        let shared = shared();
        let mut bodies = Vec::new();
        for _ in 0..FOLLOWERS {
            bodies.push(events(State(Arc::clone(&shared))).await.unwrap());
        }
        assert_eq!(events(State(Arc::clone(&shared))).await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        bodies.pop();
        let _seat = tokio::time::timeout(HEARTBEAT, shared.live.seats.acquire()).await.unwrap().unwrap();
        assert!(events(State(Arc::clone(&shared))).await.is_err(), "the seat is ours");
    }

    #[tokio::test]
    async fn the_journal_keeps_the_newest() {
        let live = Live::new();
        for generation in 0..(JOURNAL as u64 + 5) {
            let change =
                crate::admin::Change { subject: "a".into(), from: "b".into(), to: "c".into(), why: "d".into() };
            live.record(Moment { generation, at_ms: 0, changes: vec![change] });
        }
        live.record(Moment { generation: 999, at_ms: 0, changes: vec![] });
        let recent = live.recent();
        assert_eq!(
            (recent.len(), recent[0].generation),
            (JOURNAL, JOURNAL as u64 + 4),
            "newest first, none that is empty"
        );
    }
}
