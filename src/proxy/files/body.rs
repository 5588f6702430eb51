//! A file on its way to the client: pieces of it, and what stands between them.

use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::Readers;
use super::shelf::{Content, Stamp};
use crate::decide::files::range::Part;
use crate::net::stage::BodyError;

/// Octets that are read at a time, and that a response holds while the client takes them (ours).
const CHUNK: u64 = 64 * 1024;

/// What comes next.
enum Piece {
    /// These octets.
    Octets(Bytes),
    /// This part of the file.
    Part(Part),
}

type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// A body of pieces.
pub(super) struct Pieces {
    source: Option<(Arc<File>, Stamp)>,
    readers: Readers,
    queue: VecDeque<Piece>,
    reading: Option<Reading>,
    left: u64,
}

impl Pieces {
    /// Of `content`, with nothing in it yet.
    pub(super) fn of(content: &Content, readers: &Readers) -> Self {
        let source = match content {
            Content::Kept(_) => None,
            Content::File(file, stamp) => Some((Arc::clone(file), *stamp)),
        };
        Self { source, readers: readers.clone(), queue: VecDeque::new(), reading: None, left: 0 }
    }

    /// Adds octets that are no part of the file.
    pub(super) fn push(&mut self, octets: Bytes) {
        self.left += octets.len() as u64;
        self.queue.push_back(Piece::Octets(octets));
    }

    /// Adds a part of the file.
    pub(super) fn push_part(&mut self, content: &Content, part: Part) {
        match content {
            Content::Kept(octets) => self.push(slice(octets, part)),
            Content::File(..) => {
                self.left += part.length();
                self.queue.push_back(Piece::Part(part));
            }
        }
    }
}

/// A part of what is in memory.
pub(super) fn slice(octets: &Bytes, part: Part) -> Bytes {
    let (first, end) = (part.first as usize, part.last as usize + 1);
    // Parts are made for the file's length.
    if end <= octets.len() && first < end { octets.slice(first..end) } else { Bytes::new() }
}

/// Reads `length` octets of `file` from `at` on. May take its time.
///
/// # Errors
/// The disk's; and that the file is not what it was when it had this `stamp`.
pub(super) fn read(file: &File, stamp: &Stamp, at: u64, length: u64) -> io::Result<Bytes> {
    let mut octets = BytesMut::zeroed(length as usize);
    file.read_exact_at(&mut octets, at)?;
    if Stamp::of(&file.metadata()?) != *stamp {
        return Err(io::Error::other("the file has changed while it was read"));
    }
    Ok(octets.freeze())
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if let Some(reading) = &mut this.reading {
                let read = ready!(reading.as_mut().poll(cx));
                this.reading = None;
                let octets = match read {
                    Ok(octets) => octets,
                    Err(error) => {
                        this.queue.clear();
                        return Poll::Ready(Some(Err(error.into())));
                    }
                };
                this.left -= octets.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(octets))));
            }
            match this.queue.pop_front() {
                None => return Poll::Ready(None),
                Some(Piece::Octets(octets)) => {
                    this.left -= octets.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(octets))));
                }
                Some(Piece::Part(part)) => {
                    let length = part.length().min(CHUNK);
                    if length < part.length() {
                        this.queue.push_front(Piece::Part(Part { first: part.first + length, last: part.last }));
                    }
                    let Some((file, stamp)) = this.source.clone() else { return Poll::Ready(None) };
                    let readers = this.readers.clone();
                    this.reading =
                        Some(Box::pin(
                            async move { readers.run(move || read(&file, &stamp, part.first, length)).await },
                        ));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.queue.is_empty() && self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
