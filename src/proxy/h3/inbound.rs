//! The body of a client's request, read from its stream as it is asked for: QUIC's flow control holds the client to that.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use quinn::{ReadError, RecvStream};
use tokio::sync::Notify;

use super::super::h2::pace::{Pace, TooSlow};
use super::super::serve::Client;
use super::session::{Session, number};
use crate::net::stage::BodyError;
use crate::wire::h3::head;
use crate::wire::h3::request::{Part, Reader, Wrong};
use crate::wire::h3::{Code, Fault};
use crate::wire::head::strip_trailers;

/// Octets that are read at a time.
const CHUNK: usize = 64 * 1024;
/// The stream of a request, as it is read.
pub(super) struct Source {
    stream: RecvStream,
    reader: Reader,
    rest: Bytes,
    has_ended: bool,
}

impl Source {
    /// Over `stream`, from which nothing was read yet.
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, reader: Reader::default(), rest: Bytes::new(), has_ended: false }
    }

    /// Reads the head. `Err(None)`: the client gave it up.
    pub(super) async fn head(&mut self, session: &Session) -> Result<Box<head::Request>, Option<Wrong>> {
        loop {
            match self.reader.step(&mut self.rest).map_err(Some)? {
                Part::Head(head) => return Ok(head),
                Part::Wait => match self.stream.read_chunk(CHUNK, true).await {
                    Ok(Some(chunk)) => self.rest = chunk.bytes,
                    Ok(None) => {
                        self.has_ended = true;
                        return Err(self.reader.end().err());
                    }
                    Err(_) => return Err(None),
                },
                _ => session.waste(1).map_err(|fault| Some(fault.into()))?,
            }
        }
    }

    /// Whether the client has said all there is, as far as can be told by now.
    ///
    /// # Errors
    /// It ended too early.
    pub(super) fn has_ended(&mut self, cx: &mut Context<'_>) -> Result<bool, Wrong> {
        if self.rest.is_empty() && !self.has_ended {
            // What breaks here breaks again where somebody waits for it.
            match self.poll_chunk(cx) {
                Poll::Ready(Ok(Some(chunk))) => self.rest = chunk,
                Poll::Ready(Ok(None)) => self.reader.end()?,
                Poll::Ready(Err(_)) | Poll::Pending => {}
            }
        }
        Ok(self.has_ended)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        // Nothing is kept between polls but in the stream itself.
        let chunk = ready!(pin!(self.stream.read_chunk(CHUNK, true)).poll(cx))?;
        self.has_ended = chunk.is_none();
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }

    /// Wants no more of it.
    pub(super) fn stop(&mut self, code: Code) {
        // Of a stream that has ended there is nothing to stop.
        let _ = self.stream.stop(number(code));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.has_ended {
            // RFC 9114 section 4.1: the response does not need the rest.
            self.stop(Code::NoError);
        }
    }
}

/// What a request's two directions have to know of each other.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Somebody asks for the body.
    pub(super) wanted: Notify,
    is_answered: AtomicBool,
    /// The error that the body ended with; 0 is none.
    fault: AtomicU32,
}

impl Link {
    /// The response begins: from here on the body may take its time, as in a conversation.
    pub(super) fn answer(&self) {
        self.is_answered.store(true, Relaxed);
    }

    /// What was wrong with the body.
    pub(super) fn fault(&self) -> Option<Code> {
        (self.fault.load(Relaxed) != 0).then_some(Code::MessageError)
    }
}

/// The body of a request.
pub(in crate::proxy) struct Inbound {
    source: Source,
    session: Arc<Session>,
    client: Arc<Client>,
    link: Arc<Link>,
    pace: Pace,
    is_asked: bool,
}

impl Inbound {
    pub(super) fn new(source: Source, session: Arc<Session>, client: Arc<Client>, link: Arc<Link>) -> Self {
        Self { source, session, client, link, pace: Pace::default(), is_asked: false }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.link.wanted.notify_one();
        }
        Poll::Ready(match ready!(self.poll(cx)) {
            Ok(Some(frame)) => {
                if self.source.has_ended(cx).is_err() {
                    Some(Err(self.fail(Fault::Stream(Code::MessageError))))
                } else {
                    Some(Ok(frame))
                }
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BodyError>> {
        loop {
            match self.source.reader.step(&mut self.source.rest) {
                Ok(Part::Data(data)) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Ok(Part::Trailers(trailers)) => {
                    if let Some(trailers) = strip_trailers(trailers) {
                        return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                    }
                }
                Ok(Part::Idle | Part::Head(_)) => {
                    if let Err(fault) = self.session.waste(1) {
                        return Poll::Ready(Err(self.fail(fault)));
                    }
                }
                Ok(Part::Wait) if self.source.has_ended => {
                    return Poll::Ready(match self.source.reader.end() {
                        Ok(()) => Ok(None),
                        Err(wrong) => Err(self.fail(fault_of(wrong))),
                    });
                }
                Ok(Part::Wait) => match self.source.poll_chunk(cx) {
                    Poll::Pending => {
                        self.pace.wait(|| self.client.worker.now());
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some(chunk))) => {
                        let is_in_time = self.pace.came(chunk.len(), || self.client.worker.now());
                        if !is_in_time && !self.link.is_answered.load(Relaxed) {
                            return Poll::Ready(Err(TooSlow.into()));
                        }
                        self.source.rest = chunk;
                    }
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Err(_)) => {
                        // There is nothing left to stop.
                        self.source.has_ended = true;
                        return Poll::Ready(Err("the client broke off".into()));
                    }
                },
                Err(wrong) => return Poll::Ready(Err(self.fail(fault_of(wrong)))),
            }
        }
    }

    /// The client broke the rules in the middle of its body.
    fn fail(&mut self, fault: Fault) -> BodyError {
        match fault {
            Fault::Connection(code) => self.session.close(code),
            Fault::Stream(code) => {
                self.link.fault.store(code as u32, Relaxed);
                self.source.stop(code);
                self.source.has_ended = true;
            }
        }
        fault.into()
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.source.has_ended && self.source.rest.is_empty()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match self.source.reader.remaining() {
            Some(octets) => SizeHint::with_exact(octets),
            None => SizeHint::default(),
        }
    }
}

/// What is wrong with a body is wrong with its message.
fn fault_of(wrong: Wrong) -> Fault {
    match wrong {
        Wrong::Fault(fault) => fault,
        Wrong::TooMuch(_) => Fault::Stream(Code::ExcessiveLoad),
    }
}
