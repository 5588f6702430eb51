//! The body of a request on its way to a backend, for as many tries as it can be repeated.
//!
//! A short body of known length is collected first and can be sent again at will. Any other is streamed, and its first
//! [`KEEP`] bytes are kept while it passes: as long as nothing beyond them was sent, another try begins with what was kept
//! and goes on where the first one stopped. Longer bodies are never held in memory.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::h1;
use super::h2::pace::{Answered, Paced, TooSlow};
#[cfg(feature = "h3")]
use super::h3;
use super::reply::Reason;
use crate::net::stage::{self, Body, BodyError};
use crate::wire::h1::Flaw;
use crate::wire::h3::Fault;
use crate::wire::head;

/// Bytes of a body that are kept so that it can be sent again (ours).
pub(super) const KEEP: u64 = 64 * 1024;
/// A try's place in the kept chunks once it is through with everything.
const TRAILERS_SENT: usize = usize::MAX;
/// How long a client may stop sending in the middle of its body (ours).
pub(super) const STALL: Duration = Duration::from_secs(10);

/// A body as it comes in.
pub(super) enum Inbound {
    /// There is none.
    Empty,
    /// From the client's connection: HTTP/1.
    Line(h1::client::Inbound),
    /// From the client's connection: HTTP/2.
    Stream(Box<Paced>),
    /// From the client's connection: HTTP/3.
    #[cfg(feature = "h3")]
    Quic(Box<h3::Inbound>),
    /// From an embedder's filter.
    Boxed(Body),
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Line(body) => body.poll_frame(cx),
            Self::Stream(body) => Poll::Ready(match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) => strip(frame).map(Ok),
                other => other,
            }),
            #[cfg(feature = "h3")]
            Self::Quic(body) => body.poll_frame(cx),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Line(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
            #[cfg(feature = "h3")]
            Self::Quic(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Line(body) => body.size_hint(),
            Self::Stream(body) => body.size_hint(),
            #[cfg(feature = "h3")]
            Self::Quic(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}

impl Inbound {
    /// For a stage.
    pub(super) fn into_body(self) -> Body {
        match self {
            Self::Empty => stage::empty(),
            #[cfg(feature = "h3")]
            Self::Quic(_) => self.boxed_unsync(),
            Self::Line(_) | Self::Stream(_) => self.boxed_unsync(),
            Self::Boxed(body) => body,
        }
    }

    /// Who is told when the response begins, where its pace depends on that.
    pub(super) fn answered(&self) -> Option<Answered> {
        match self {
            Self::Stream(body) => Some(body.answered()),
            // It sees to that itself.
            #[cfg(feature = "h3")]
            Self::Quic(_) => None,
            Self::Empty | Self::Line(_) | Self::Boxed(_) => None,
        }
    }

    /// For a stage that must not get more than `limit` bytes of it.
    pub(super) fn into_limited_body(self, limit: u64) -> Body {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        http_body_util::Limited::new(self.into_body(), limit).boxed_unsync()
    }
}

/// `frame` less what may not stand in trailers; `None`, an end, where nothing is left.
fn strip(frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
    match frame.into_trailers() {
        Ok(trailers) => head::strip_trailers(trailers).map(Frame::trailers),
        Err(frame) => Some(frame),
    }
}

/// Why a body could not be sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body is longer than the route allows")]
    TooLarge,
    #[error("the client broke off")]
    Client,
    #[error("the body is malformed")]
    Malformed,
    #[error("the body comes too slowly")]
    TooSlow,
}

impl UploadError {
    fn of(error: &BodyError) -> Self {
        if error.is::<Flaw>() || error.is::<Fault>() {
            Self::Malformed
        } else if error.is::<TooSlow>() {
            Self::TooSlow
        } else {
            Self::Client
        }
    }
}

impl From<UploadError> for Reason {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge => Self::BodyTooLarge,
            UploadError::Client => Self::ClientGone,
            UploadError::Malformed => Self::BadRequest,
            UploadError::TooSlow => Self::BodyStalled,
        }
    }
}

/// Where the body comes from.
pub(super) enum Source {
    /// There is none.
    Empty,
    /// Collected.
    Whole(Bytes, Option<Box<HeaderMap>>),
    /// Streamed.
    Tape(Arc<Mutex<Tape>>),
}

/// What a timer that has run out should know of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of it was handed over: the backend has what it needs.
    Sent,
    /// The client has to send more; bytes taken so far.
    AtClient(u64),
    /// The backend has to take more; bytes taken so far.
    AtBackend(u64),
}

impl Source {
    /// Takes hold of `inbound`, which may be at most `limit` bytes long.
    ///
    /// `taken` is how much of it was read, also where that comes to nothing.
    ///
    /// # Errors
    /// The reason to refuse the request: too large, broken off, or stalled.
    pub(super) async fn of(inbound: Inbound, limit: u64, taken: &mut u64) -> Result<Self, Reason> {
        if inbound.is_end_stream() {
            return Ok(Self::Empty);
        }
        let hint = inbound.size_hint();
        if hint.lower() > limit {
            return Err(Reason::BodyTooLarge);
        }
        match hint.exact() {
            Some(length) if length <= KEEP => collect(inbound, limit, taken).await,
            _ => Ok(Self::Tape(Arc::new(Mutex::new(Tape::new(inbound, hint, limit))))),
        }
    }

    /// The body for one try; `None` where too much of it has gone for another one.
    pub(super) fn upload(&self) -> Option<Upload> {
        match self {
            Self::Empty => Some(Upload::Empty),
            Self::Whole(bytes, trailers) => Some(Upload::Whole(Some(bytes.clone()), trailers.clone())),
            Self::Tape(tape) => lock(tape).kept.is_some().then(|| Upload::Tape(Arc::clone(tape), 0)),
        }
    }

    /// Whether another try could still send all of it.
    pub(super) fn repeatable(&self) -> bool {
        match self {
            Self::Empty | Self::Whole(..) => true,
            Self::Tape(tape) => lock(tape).kept.is_some(),
        }
    }

    /// How far it has got.
    pub(super) fn progress(&self) -> Progress {
        match self {
            Self::Empty | Self::Whole(..) => Progress::Sent,
            Self::Tape(tape) => {
                let tape = lock(tape);
                match (tape.ended, tape.waiting) {
                    (true, _) => Progress::Sent,
                    (false, true) => Progress::AtClient(tape.taken),
                    (false, false) => Progress::AtBackend(tape.taken),
                }
            }
        }
    }

    /// How many octets were read of it.
    pub(super) fn taken(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Whole(bytes, _) => bytes.len() as u64,
            Self::Tape(tape) => lock(tape).taken,
        }
    }

    /// Somebody who remembers it, where it can still go wrong.
    pub(super) fn witness(&self) -> Option<Witness> {
        match self {
            Self::Empty | Self::Whole(..) => None,
            Self::Tape(tape) => Some(Witness(Arc::clone(tape))),
        }
    }

    /// What was wrong with the body itself, if that is what stopped a try.
    pub(super) fn fault(&self) -> Option<UploadError> {
        match self {
            Self::Empty | Self::Whole(..) => None,
            Self::Tape(tape) => lock(tape).fault,
        }
    }
}

/// Remembers a body that is still being sent while its answer comes back.
pub(super) struct Witness(Arc<Mutex<Tape>>);

impl Witness {
    /// How many octets were read of it.
    pub(super) fn taken(&self) -> u64 {
        lock(&self.0).taken
    }

    /// Whether it was the body itself that stopped.
    pub(super) fn blames_client(&self) -> bool {
        lock(&self.0).fault.is_some()
    }
}

fn lock(tape: &Mutex<Tape>) -> std::sync::MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn collect(mut inbound: Inbound, limit: u64, taken: &mut u64) -> Result<Source, Reason> {
    let (mut first, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    let gather = std::future::poll_fn(|cx| {
        while let Some(frame) = ready!(Pin::new(&mut inbound).poll_frame(cx)) {
            match frame.map_err(|e| UploadError::of(&e))?.into_data() {
                Ok(data) if first.is_empty() => first = data,
                Ok(data) => more.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
            }
            *taken = (first.len() + more.len()) as u64;
            if *taken > limit.min(KEEP) {
                return Poll::Ready(Err(Reason::BodyTooLarge));
            }
            if inbound.is_end_stream() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    });
    tokio::time::timeout(STALL, gather).await.map_err(|_| Reason::BodyStalled)??;
    if !more.is_empty() {
        let mut whole = BytesMut::with_capacity(first.len() + more.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&more);
        first = whole.freeze();
    }
    Ok(if first.is_empty() && trailers.is_none() { Source::Empty } else { Source::Whole(first, trailers) })
}

/// A streamed body with what was kept of it.
pub(super) struct Tape {
    inbound: Inbound,
    hint: SizeHint,
    limit: u64,
    taken: u64,
    kept: Option<Vec<Bytes>>,
    trailers: Option<HeaderMap>,
    ended: bool,
    waiting: bool,
    fault: Option<UploadError>,
}

impl Tape {
    const fn new(inbound: Inbound, hint: SizeHint, limit: u64) -> Self {
        Self {
            inbound,
            hint,
            limit,
            taken: 0,
            kept: Some(Vec::new()),
            trailers: None,
            ended: false,
            waiting: false,
            fault: None,
        }
    }

    /// The next frame for a try that has had `at` of the kept ones.
    fn poll(&mut self, at: &mut usize, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(chunk) = self.kept.as_ref().and_then(|kept| kept.get(*at)) {
            *at += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        if self.ended {
            let is_due = std::mem::replace(at, TRAILERS_SENT) != TRAILERS_SENT;
            return Poll::Ready(self.trailers.clone().filter(|_| is_due).map(|t| Ok(Frame::trailers(t))));
        }
        let polled = Pin::new(&mut self.inbound).poll_frame(cx);
        self.waiting = polled.is_pending();
        let frame = match ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(e)) => return Poll::Ready(Some(Err(*self.fault.insert(UploadError::of(&e))))),
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(data) => {
                self.taken += data.len() as u64;
                self.ended = self.inbound.is_end_stream();
                if self.taken > self.limit {
                    return Poll::Ready(Some(Err(*self.fault.insert(UploadError::TooLarge))));
                }
                if self.taken > KEEP {
                    self.kept = None;
                } else if let Some(kept) = &mut self.kept {
                    kept.push(data.clone());
                    *at += 1;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                self.ended = true;
                self.trailers = frame.into_trailers().ok();
                *at = TRAILERS_SENT;
                Poll::Ready(self.trailers.clone().map(|t| Ok(Frame::trailers(t))))
            }
        }
    }
}

/// The body of one try.
pub(super) enum Upload {
    /// None.
    Empty,
    /// Collected; taken when sent.
    Whole(Option<Bytes>, Option<Box<HeaderMap>>),
    /// Streamed, with how many of the kept chunks this try has sent.
    Tape(Arc<Mutex<Tape>>, usize),
}

impl Upload {
    /// Whether fields may come behind its octets, however long these are known to be.
    pub(super) fn has_trailers(&self) -> bool {
        matches!(self, Self::Whole(_, Some(_)))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes, trailers) => {
                let data = bytes.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(|t| Frame::trailers(*t))).map(Ok))
            }
            Self::Tape(tape, at) => lock(tape).poll(at, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Tape(tape, at) => {
                let tape = lock(tape);
                let sent = tape.kept.as_ref().is_none_or(|kept| *at >= kept.len());
                tape.ended && sent && (tape.trailers.is_none() || *at == TRAILERS_SENT)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Tape(tape, 0) => lock(tape).hint,
            Self::Tape(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A body of these frames, of unknown length.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn chunks(sizes: &[usize]) -> Inbound {
        let chunk = |(i, n): (usize, &usize)| Frame::data(Bytes::from(vec![i as u8; *n]));
        Inbound::Boxed(Frames(sizes.iter().enumerate().map(chunk).collect()).boxed_unsync())
    }

    #[tokio::test]
    async fn a_streamed_body_is_sent_again_from_what_was_kept() {
        let source = Source::of(chunks(&[10, 20, 30]), 1_000, &mut 0).await.unwrap();
        let mut first = source.upload().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        drop(first);
        let second = source.upload().unwrap().collect().await.unwrap().to_bytes();
        assert_eq!(second.len(), 60);
        assert_eq!(source.upload().unwrap().collect().await.unwrap().to_bytes(), second);
        assert_eq!(source.progress(), Progress::Sent);
    }

    #[tokio::test]
    async fn beyond_what_is_kept_there_is_no_other_try() {
        let source = Source::of(chunks(&[KEEP as usize, 1, 1]), 1 << 20, &mut 0).await.unwrap();
        let mut first = source.upload().unwrap();
        first.frame().await.unwrap().unwrap();
        assert!(source.repeatable());
        first.frame().await.unwrap().unwrap();
        assert!(!source.repeatable() && source.upload().is_none());
        assert_eq!(first.collect().await.unwrap().to_bytes().len(), 1, "the running try goes on");
    }

    #[tokio::test]
    async fn a_limit_holds_for_known_and_for_unknown_lengths() {
        let known = Inbound::Boxed(stage::full(vec![0; 11]));
        assert_eq!(Source::of(known, 10, &mut 0).await.err(), Some(Reason::BodyTooLarge));
        let source = Source::of(chunks(&[5, 5, 1]), 10, &mut 0).await.unwrap();
        assert!(source.upload().unwrap().collect().await.is_err());
        assert_eq!(source.fault(), Some(UploadError::TooLarge));
    }

    #[tokio::test]
    async fn trailers_arrive_with_every_try() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Frame::data(Bytes::from_static(b"x")), Frame::trailers(trailers.clone())];
        let source = Source::of(Inbound::Boxed(Frames(frames.into()).boxed_unsync()), 10, &mut 0).await.unwrap();
        for _ in 0..2 {
            let whole = source.upload().unwrap().collect().await.unwrap();
            assert_eq!(whole.trailers(), Some(&trailers));
            assert_eq!(whole.to_bytes(), "x");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_a_short_body_is_told_so() {
        struct Silent;
        impl HttpBody for Silent {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                Poll::Pending
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(5)
            }
        }
        let source = Source::of(Inbound::Boxed(Silent.boxed_unsync()), 10, &mut 0).await;
        assert_eq!(source.err(), Some(Reason::BodyStalled));
    }
}
