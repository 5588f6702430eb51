//! HTTP/1 over a connection, without a task, a channel or a buffer of its own.
//!
//! [`Wire`] is what both sides have in common: a line, what was read from it and not used yet, what is to be written. Reads
//! go to a buffer that all connections of a thread share, and only what came is kept, so a connection that idles holds
//! nothing. [`client`] serves clients; the other side is `pool::h1`. How messages are read and written is `wire::h1`.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::line::Line;
use crate::wire::h1::body::{Decoder, Piece};
use crate::wire::h1::{Flaw, head, write};

pub(super) mod client;
pub(super) mod tunnel;

/// Most that is read at a time. Measured with 1 MiB bodies: half of it or twice as much costs up to twice as much.
const READ: usize = 32 * 1024;
/// From here on octets of a body are written from where they are, not copied behind the head.
const BULK: usize = 4 * 1024;
/// So much is gathered before it is written.
const GATHER: usize = 16 * 1024;

thread_local! {
    /// Where reads go.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// A connection that HTTP/1 is spoken over.
pub(super) struct Wire {
    line: Line,
    rest: BytesMut,
    /// How much of `rest` was searched for the end of a head.
    searched: usize,
    /// Whether the last read brought as much as it could.
    is_bulky: bool,
    out: Out,
}

/// What is to be written: `small`, then `bulk`, then `tail`.
#[derive(Default)]
struct Out {
    small: Vec<u8>,
    written: usize,
    bulk: Bytes,
    tail: &'static [u8],
    /// Whether it has waited for the others that are ready in this round.
    has_waited: bool,
}

/// Why a connection cannot be read any further.
#[derive(Debug)]
pub(super) enum Broken {
    /// What came is not HTTP, or not unambiguous.
    Flaw(Flaw),
    /// It ended in the middle of something.
    Cut,
}

/// What of a body comes next.
pub(super) enum Part {
    /// Octets of it, at least one.
    Data(Bytes),
    /// It has ended.
    End(Option<Box<http::HeaderMap>>),
}

impl Wire {
    /// Over `line`, from which nothing was read yet.
    pub(super) fn new(line: Line) -> Self {
        Self { line, rest: BytesMut::new(), searched: 0, is_bulky: false, out: Out::default() }
    }

    /// Whether something was read that nobody has used.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Reads once, behind what is there. `Ready(Ok(false))`: the peer sends no more.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_bulky {
            // Much comes at a time: copying it once more would cost more than room of its own.
            self.rest.reserve(READ);
            let read = ready!(poll_read_buf(Pin::new(&mut self.line), cx, &mut self.rest))?;
            self.is_bulky = read >= BULK;
            return Poll::Ready(Ok(read > 0));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.line).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            self.is_bulky = read.len() == READ;
            if self.rest.is_empty() {
                self.rest = BytesMut::from(read);
            } else {
                self.rest.extend_from_slice(read);
            }
            Poll::Ready(Ok(!read.is_empty()))
        })
    }

    /// The next head, as `read` reads it. `Ok(None)`: the peer ended the connection before one began.
    pub(super) fn poll_head<H>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl Fn(&Bytes) -> Result<H, Flaw>,
    ) -> Poll<Result<Option<H>, Broken>> {
        // Who waits for a head has no body on its way, and keeps no room for one.
        self.is_bulky = false;
        loop {
            if let Some(end) = head::end(&self.rest, self.searched).map_err(Broken::Flaw)? {
                self.searched = 0;
                let head = self.rest.split_to(end).freeze();
                self.tidy();
                return Poll::Ready(read(&head).map(Some).map_err(Broken::Flaw));
            }
            self.searched = self.rest.len();
            if !ready!(self.poll_fill(cx)).map_err(|_| Broken::Cut)? {
                return Poll::Ready(if self.rest.is_empty() { Ok(None) } else { Err(Broken::Cut) });
            }
        }
    }

    /// The next part of the body that `decoder` reads.
    pub(super) fn poll_part(&mut self, decoder: &mut Decoder, cx: &mut Context<'_>) -> Poll<Result<Part, Broken>> {
        loop {
            let step = decoder.step(&self.rest).map_err(Broken::Flaw)?;
            if step.skip > 0 {
                drop(self.rest.split_to(step.skip));
            }
            match step.what {
                Piece::Data(length) => {
                    let data = self.rest.split_to(length).freeze();
                    self.is_bulky &= !decoder.has_ended();
                    self.tidy();
                    return Poll::Ready(Ok(Part::Data(data)));
                }
                Piece::End(trailers) => {
                    self.is_bulky = false;
                    self.tidy();
                    return Poll::Ready(Ok(Part::End(trailers)));
                }
                Piece::Wait => {
                    self.tidy();
                    if !ready!(self.poll_fill(cx)).map_err(|_| Broken::Cut)? {
                        return Poll::Ready(if decoder.close() { Ok(Part::End(None)) } else { Err(Broken::Cut) });
                    }
                }
            }
        }
    }

    /// Gives room back that nothing stands in, and that nothing will soon.
    fn tidy(&mut self) {
        if self.rest.is_empty() && !self.is_bulky {
            self.rest = BytesMut::new();
        }
    }

    /// Where heads and small things are written to.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.out.bulk.is_empty() && self.out.tail.is_empty(), "nothing comes before what is in bulk");
        &mut self.out.small
    }

    /// How many octets wait to be written.
    pub(super) fn unsent(&self) -> usize {
        self.out.small.len() - self.out.written + self.out.bulk.len() + self.out.tail.len()
    }

    /// Whether no more should be added before [`Self::poll_flush`].
    pub(super) fn is_full(&self) -> bool {
        !self.out.bulk.is_empty() || !self.out.tail.is_empty() || self.out.small.len() >= GATHER
    }

    /// Adds octets of a body, in a chunk of their own if `in_chunks`.
    pub(super) fn add(&mut self, data: Bytes, in_chunks: bool) {
        if data.is_empty() {
            return;
        }
        let small = self.out();
        if in_chunks {
            write::chunk(small, data.len());
        }
        let tail: &'static [u8] = if in_chunks { b"\r\n" } else { b"" };
        if data.len() < BULK {
            small.extend_from_slice(&data);
            small.extend_from_slice(tail);
        } else {
            (self.out.bulk, self.out.tail) = (data, tail);
        }
    }

    /// Writes what there is to be written. Until it is ready nothing may be added.
    ///
    /// Heads and small bodies wait until every task that is ready has had its turn: what is written in one go finds its
    /// readers awake after the first, and waking one costs as much as writing (docs/PERFORMANCE.md).
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_fresh() {
            self.out.has_waited = true;
            // Polled once, it has the runtime wake this task behind all others.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            return Poll::Pending;
        }
        let out = &mut self.out;
        let mut line = Pin::new(&mut self.line);
        loop {
            let small = &out.small[out.written..];
            let parts = [io::IoSlice::new(small), io::IoSlice::new(&out.bulk), io::IoSlice::new(out.tail)];
            let written = if !out.bulk.is_empty() {
                ready!(line.as_mut().poll_write_vectored(cx, &parts))?
            } else if !small.is_empty() {
                ready!(line.as_mut().poll_write(cx, small))?
            } else if !out.tail.is_empty() {
                ready!(line.as_mut().poll_write(cx, out.tail))?
            } else {
                break;
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(written);
        }
        if out.written > 0 {
            *out = Out::default();
        }
        line.poll_flush(cx)
    }

    /// Throws away what was read. Says how much that was.
    pub(super) fn discard(&mut self) -> usize {
        std::mem::take(&mut self.rest).len()
    }

    /// Has the connection be reset when it is dropped, so that nobody takes its end for a clean one.
    pub(super) fn reset(&mut self) {
        self.line.reset();
    }

    /// Says that nothing more will be written.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

impl Out {
    /// Whether it is small, and has not waited for its turn yet.
    fn is_fresh(&self) -> bool {
        !self.has_waited && self.bulk.is_empty() && !self.small.is_empty()
    }

    fn advance(&mut self, written: usize) {
        let of_small = written.min(self.small.len() - self.written);
        self.written += of_small;
        let written = written - of_small;
        let of_bulk = written.min(self.bulk.len());
        drop(self.bulk.split_to(of_bulk));
        self.tail = self.tail.get(written - of_bulk..).unwrap_or_default();
    }
}

/// As a stream of octets, once it is no HTTP any more: what was read already comes first.
impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.line).poll_read(cx, buf);
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest.split_to(length));
        self.tidy();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn nothing_is_added_before_the_end_of_a_chunk_is_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = Wire::new(Line::Plain(tcp));
        wire.add(Bytes::from(vec![b'x'; BULK]), true);
        let whole = wire.out.small.len() + BULK + 2;
        // A socket takes as much as it likes: the last time all but one octet of the chunk's CRLF.
        for written in [1, wire.out.small.len(), BULK - 1, 1, 0] {
            assert!(wire.is_full(), "{whole} octets are still to be written");
            wire.out.advance(written);
        }
        assert!(wire.is_full());
        wire.out.advance(1);
        assert!(!wire.is_full() && wire.out.tail.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_waits_for_a_head_holds_no_room() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wire = Wire::new(Line::Plain(listener.accept().await.unwrap().0));
        // More requests at once than one read takes.
        let request = b"GET /some/where/over/there HTTP/1.1\r\nhost: example.test\r\n\r\n";
        let many = 4 * READ / request.len();
        let (sent, read) = tokio::join!(async { peer.write_all(&request.repeat(many)).await }, async {
            for _ in 0..many {
                let head = std::future::poll_fn(|cx| wire.poll_head(cx, head::request)).await;
                assert!(head.is_ok_and(|head| head.is_some()));
            }
            wire
        });
        sent.unwrap();
        let (mut wire, mut cx) = (read, Context::from_waker(std::task::Waker::noop()));
        assert!(wire.poll_head(&mut cx, head::request).is_pending());
        assert_eq!(wire.rest.capacity(), 0);
    }
}
