//! The body of a request over HTTP/2, held to a pace.
//!
//! Over HTTP/1 a connection carries one body, and the sweep looks after it. Here one stream must not hide behind another, so
//! each keeps its own time: only what we wait for the client counts, and it is looked at when something comes. Who sends
//! nothing at all is told so by whoever waits for it. Once the response has begun, the two talk as they like: a client of a
//! call that streams both ways may well be silent while it listens.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::base::clock::Mono;
use crate::net::stage::BodyError;
use crate::proxy::worker::Worker;

/// Octets a second (EDGE 4, gap 9).
const RATE: u64 = 1_024;
/// So long nothing is asked for (EDGE 4, gap 9: from 5 s on; and as HTTP/1 has it, 10 s more behind).
const GRACE: Duration = Duration::from_secs(15);

/// A body that comes at a pace, or not at all.
pub(in crate::proxy) struct Paced {
    body: Incoming,
    worker: Arc<Worker>,
    pace: Pace,
    answered: Answered,
}

/// Whether the response to a request has begun.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Answered(Arc<AtomicBool>);

impl Answered {
    /// It has.
    pub(in crate::proxy) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// It came too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body comes too slowly")]
pub(in crate::proxy) struct TooSlow;

impl Paced {
    pub(in crate::proxy) fn new(body: Incoming, worker: &Arc<Worker>) -> Self {
        Self { body, worker: Arc::clone(worker), pace: Pace::default(), answered: Answered::default() }
    }

    /// To be told when the response begins: nothing is owed from then on.
    pub(in crate::proxy) fn answered(&self) -> Answered {
        self.answered.clone()
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.pace.wait(|| self.worker.now());
        }
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other.map(|result| result.map_err(Into::into))),
        };
        let octets = frame.data_ref().map_or(0, Bytes::len);
        let is_free = self.answered.get() || self.body.is_end_stream();
        let is_in_time = is_free || self.pace.came(octets, || self.worker.now());
        Poll::Ready(Some(if is_in_time { Ok(frame) } else { Err(TooSlow.into()) }))
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How a body comes.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Pace {
    since: Option<Mono>,
    waited: Duration,
    octets: u64,
}

impl Pace {
    /// We wait for more, from `now` on.
    pub(in crate::proxy) fn wait(&mut self, now: impl FnOnce() -> Mono) {
        self.since.get_or_insert_with(now);
    }

    /// So many octets have come. Whether that is fast enough, all in all.
    pub(in crate::proxy) fn came(&mut self, octets: usize, now: impl FnOnce() -> Mono) -> bool {
        self.octets += octets as u64;
        let Some(since) = self.since.take() else { return true };
        self.waited += now().since(since);
        self.waited < GRACE + Duration::from_millis(self.octets.saturating_mul(1_000) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many pieces of `octets`, one a second, it was too slow.
    fn patience(octets: usize) -> Option<u64> {
        let mut pace = Pace::default();
        (1..1_000).find(|&second| {
            pace.wait(|| Mono::from_millis((second - 1) * 1_000));
            !pace.came(octets, || Mono::from_millis(second * 1_000))
        })
    }

    #[test]
    fn what_drips_is_too_slow() {
        assert_eq!([0, 1, 512, 1_023, 1_024].map(patience), [Some(15), Some(16), Some(30), None, None]);
    }

    #[test]
    fn what_is_not_waited_for_is_not_late() {
        let mut pace = Pace::default();
        pace.wait(|| Mono::from_millis(0));
        assert!(pace.came(1, || Mono::from_millis(10_000)));
        // The backend took nothing for an hour; then we wait for a moment.
        pace.wait(|| Mono::from_millis(3_600_000));
        assert!(pace.came(1, || Mono::from_millis(3_601_000)));
    }
}
