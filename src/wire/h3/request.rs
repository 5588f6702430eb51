//! What comes on a request's stream: one head, a body, perhaps trailers, and its end (RFC 9114 section 4.1).
//!
//! ```text
//!   head --HEADERS--> body --HEADERS--> done        frames of unknown types anywhere
//!                      | DATA*                      anything else, or in another order: the connection ends
//! ```

use bytes::Bytes;

use super::frame::{self, Frames, Piece, Wanted, kind};
use super::head::{self, Flaw};
use super::{Code, Fault};
use crate::wire::h1::HEAD_BYTES;

/// Reads the stream of a request.
#[derive(Debug, Default)]
pub struct Reader {
    frames: Frames,
    phase: Phase,
    /// Octets of the body that are promised and have not come; `None`: nothing was promised.
    left: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Head,
    Body,
    Done,
}

/// What comes next.
#[derive(Debug)]
pub enum Part {
    /// Nothing before more has come; all that had come was taken.
    Wait,
    /// The head.
    Head(Box<head::Request>),
    /// Octets of the body, at least one.
    Data(Bytes),
    /// Fields behind the body.
    Trailers(http::HeaderMap),
    /// A frame that says nothing.
    Idle,
}

/// Why the request cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Wrong {
    /// Its head is more than is taken here: the client can be told so.
    #[error("{0}")]
    TooMuch(Flaw),
    /// The client broke the rules.
    #[error("{0}")]
    Fault(#[from] Fault),
}

impl From<Flaw> for Wrong {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::LongHead | Flaw::ManyFields | Flaw::LongTarget => Self::TooMuch(flaw),
            Flaw::Compression => Self::Fault(Fault::Connection(Code::QpackDecompressionFailed)),
            _ => Self::Fault(Fault::Stream(Code::MessageError)),
        }
    }
}

impl Reader {
    /// Takes what comes next off `came`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn step(&mut self, came: &mut Bytes) -> Result<Part, Wrong> {
        let (phase, mut is_long) = (self.phase, false);
        let piece = self.frames.step(came, |kind, length| match (kind, phase) {
            (kind::HEADERS, Phase::Head | Phase::Body) if length > HEAD_BYTES as u64 => {
                is_long = true;
                Err(Fault::Stream(Code::ExcessiveLoad))
            }
            (kind::HEADERS, Phase::Head | Phase::Body) => Ok(Wanted::Whole),
            (kind::DATA, Phase::Body) => Ok(Wanted::Octets),
            (
                kind::DATA
                | kind::HEADERS
                | kind::CANCEL_PUSH
                | kind::SETTINGS
                | kind::PUSH_PROMISE
                | kind::GOAWAY
                | kind::MAX_PUSH_ID,
                _,
            ) => Err(Fault::Connection(Code::FrameUnexpected)),
            (kind, _) => frame::unknown(kind, length),
        });
        match piece {
            Err(_) if is_long => Err(Flaw::LongHead.into()),
            Err(fault) => Err(fault.into()),
            Ok(Piece::Wait) => Ok(Part::Wait),
            Ok(Piece::Skipped) => Ok(Part::Idle),
            Ok(Piece::Octets(data)) => {
                if let Some(left) = &mut self.left {
                    // RFC 9114 section 4.1.2: what was promised is what comes.
                    let rest = left.checked_sub(data.len() as u64);
                    *left = rest.ok_or(Fault::Stream(Code::MessageError))?;
                }
                Ok(Part::Data(data))
            }
            Ok(Piece::Whole(_, section)) if phase == Phase::Head => {
                let head = head::request(&section)?;
                (self.phase, self.left) = (Phase::Body, head.length);
                Ok(Part::Head(Box::new(head)))
            }
            Ok(Piece::Whole(_, section)) => {
                self.phase = Phase::Done;
                Ok(Part::Trailers(head::trailers(&section)?))
            }
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// It ended too early.
    pub fn end(&self) -> Result<(), Wrong> {
        Err(match self.phase {
            _ if self.frames.is_within() => Fault::Connection(Code::FrameError).into(),
            Phase::Head => Fault::Stream(Code::RequestIncomplete).into(),
            _ if self.left.is_some_and(|left| left > 0) => Fault::Stream(Code::MessageError).into(),
            Phase::Body | Phase::Done => return Ok(()),
        })
    }

    /// Octets of the body that are still to come, where that is known.
    pub const fn remaining(&self) -> Option<u64> {
        self.left
    }
}
