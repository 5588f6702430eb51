//! Bodies: where the octets of one are in what comes in, and where it ends.
//!
//! ```text
//!   size line --> data --> CRLF --> size line ...      chunked
//!       | 0                                            every line is bounded, and so are extensions of all lines together
//!       v
//!   trailers --> end
//! ```

use bytes::Bytes;
use http::HeaderMap;

use super::{Flaw, Length, head};
use crate::wire::head::strip_trailers;

/// Longest line with the size of a chunk, extensions and all (ours).
const LINE_BYTES: usize = 1024;
/// Most octets of chunk extensions in one body (hyper's limit): they are read past and mean nothing.
const EXTENSION_BYTES: usize = 16 * 1024;
/// Largest trailers.
const TRAILER_BYTES: usize = 8 * 1024;

/// Reads a body, piece by piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ended,
    Exact(u64),
    UntilClose,
    /// Before the line with a chunk's size.
    Size,
    /// So much of a chunk is still to come.
    Data(u64),
    /// Before the CRLF behind a chunk's data.
    Close,
    Trailers,
}

/// What the octets at the front of a buffer are: first framing, `skip` octets to be passed over, and then this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Octets of framing.
    pub skip: usize,
    /// What stands behind them.
    pub what: Piece,
}

/// What stands behind the framing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing that can be told yet: more has to come. What is left over is never more than some kilobytes.
    Wait,
    /// So many octets of the body, at least one.
    Data(usize),
    /// Nothing: the body has ended, with the fields that came behind a chunked one, if any did.
    End(Option<Box<HeaderMap>>),
}

impl Decoder {
    /// For a body that is framed in this way.
    pub const fn new(length: Length) -> Self {
        let state = match length {
            Length::None | Length::Exact(0) => State::Ended,
            Length::Exact(octets) => State::Exact(octets),
            Length::Chunked => State::Size,
            Length::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0 }
    }

    /// Whether all of it was read.
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Octets that are still to come, where that is known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Ended => Some(0),
            State::Exact(octets) => Some(octets),
            _ => None,
        }
    }

    /// What `buffer` begins with; it counts as taken.
    ///
    /// # Errors
    /// What is wrong with the chunks.
    pub fn step(&mut self, buffer: &[u8]) -> Result<Step, Flaw> {
        let mut skip = 0;
        let what = loop {
            let rest = buffer.get(skip..).unwrap_or_default();
            match self.state {
                State::Ended => break Piece::End(None),
                _ if rest.is_empty() => break Piece::Wait,
                State::UntilClose => break Piece::Data(rest.len()),
                State::Exact(left) => {
                    let taken = clip(rest, left);
                    self.state = if taken as u64 == left { State::Ended } else { State::Exact(left - taken as u64) };
                    break Piece::Data(taken);
                }
                State::Data(left) => {
                    let taken = clip(rest, left);
                    self.state = if taken as u64 == left { State::Close } else { State::Data(left - taken as u64) };
                    break Piece::Data(taken);
                }
                State::Close => match rest {
                    [b'\r', b'\n', ..] => (self.state, skip) = (State::Size, skip + 2),
                    [b'\r'] => break Piece::Wait,
                    _ => return Err(Flaw::Chunk),
                },
                State::Size => match memchr::memchr(b'\n', rest.get(..LINE_BYTES).unwrap_or(rest)) {
                    Some(end) => {
                        let size = self.size(&rest[..end])?;
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                        skip += end + 1;
                    }
                    None if rest.len() < LINE_BYTES => break Piece::Wait,
                    None => return Err(Flaw::Chunk),
                },
                State::Trailers => match head::end(rest, 0).map_err(|_| Flaw::Trailers)? {
                    Some(end) if end <= TRAILER_BYTES => {
                        self.state = State::Ended;
                        skip += end;
                        break Piece::End(trailers(&rest[..end])?);
                    }
                    None if rest.len() <= TRAILER_BYTES => break Piece::Wait,
                    _ => return Err(Flaw::Trailers),
                },
            }
        };
        Ok(Step { skip, what })
    }

    /// Ends a body that ends with its connection. False: more was promised.
    pub fn close(&mut self) -> bool {
        let is_end = matches!(self.state, State::UntilClose | State::Ended);
        if is_end {
            self.state = State::Ended;
        }
        is_end
    }

    /// The size that a line without its LF says.
    fn size(&mut self, line: &[u8]) -> Result<u64, Flaw> {
        let line = line.strip_suffix(b"\r").ok_or(Flaw::LineEnd)?;
        let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
        let (digits, extension) = line.split_at(digits);
        // RFC 9112 section 7.1.1 allows blanks before the semicolon, and no reader agrees with another one on them.
        if !(1..=15).contains(&digits.len()) || !matches!(extension, [] | [b';', ..]) {
            return Err(Flaw::Chunk);
        }
        if extension.iter().any(|&b| b < b' ' && b != b'\t' || b == 0x7f) {
            return Err(Flaw::Chunk);
        }
        self.extensions += extension.len();
        if self.extensions > EXTENSION_BYTES {
            return Err(Flaw::Chunk);
        }
        let value = |b: &u8| u64::from((*b as char).to_digit(16).unwrap_or_default());
        Ok(digits.iter().fold(0, |size, digit| size << 4 | value(digit)))
    }
}

/// The fields of trailers that may stand there; `None` where there are none.
fn trailers(octets: &[u8]) -> Result<Option<Box<HeaderMap>>, Flaw> {
    if octets == b"\r\n" {
        return Ok(None);
    }
    let fields = head::trailers(&Bytes::copy_from_slice(octets)).map_err(|_| Flaw::Trailers)?;
    Ok(strip_trailers(fields).map(Box::new))
}

fn clip(rest: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
}
