//! Frames (RFC 9114 section 7): where one begins, of what type it is, where it ends.
//!
//! ```text
//!   header --wanted whole--> gather --all there--> header
//!          --body----------> data ----------------> header
//!          --unknown-------> skip ----------------> header
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::{Code, Fault};

/// Types of frames (RFC 9114 section 7.2).
pub mod kind {
    /// Octets of a body.
    pub const DATA: u64 = 0x0;
    /// A field section.
    pub const HEADERS: u64 = 0x1;
    /// Gives up a push.
    pub const CANCEL_PUSH: u64 = 0x3;
    /// Settings.
    pub const SETTINGS: u64 = 0x4;
    /// Promises a push.
    pub const PUSH_PROMISE: u64 = 0x5;
    /// The end is near.
    pub const GOAWAY: u64 = 0x7;
    /// How many pushes are welcome.
    pub const MAX_PUSH_ID: u64 = 0xd;
    /// Types of HTTP/2 that mean nothing here and may not be sent (RFC 9114 section 7.2.8).
    pub const OF_HTTP2: [u64; 4] = [0x2, 0x6, 0x8, 0x9];
}

/// Longest frame that is read past (ours): grease and priorities take some dozen octets.
pub const UNKNOWN_BYTES: u64 = 16 * 1024;
/// A type and a length.
const HEADER_BYTES: usize = 16;

/// Reads a variable-length integer (RFC 9000 section 16): its value, and how many octets it takes. `None`: more has to come.
pub fn varint(octets: &[u8]) -> Option<(u64, usize)> {
    let first = *octets.first()?;
    let length = 1usize << (first >> 6);
    let rest = octets.get(1..length)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, octet| value << 8 | u64::from(*octet)), length))
}

/// Writes `value`, at most 2^62 - 1, in the fewest octets.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// Writes the beginning of a frame with `length` octets in it.
pub fn put_header(out: &mut Vec<u8>, kind: u64, length: usize) {
    put_varint(out, kind);
    put_varint(out, length as u64);
}

/// Writes a frame with what `with` puts into it, shorter than 2^30 octets.
pub fn put_framed(out: &mut Vec<u8>, kind: u64, with: impl FnOnce(&mut Vec<u8>)) {
    put_varint(out, kind);
    let length = out.len();
    // Room for a length that is not known yet: four octets say any.
    out.extend_from_slice(&[0; 4]);
    let from = out.len();
    with(out);
    let said = (out.len() - from) as u32 | 0x8000_0000;
    if let Some(room) = out.get_mut(length..from) {
        room.copy_from_slice(&said.to_be_bytes());
    }
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Give it whole.
    Whole,
    /// Give its octets as they come.
    Octets,
    /// Read past it.
    Nothing,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Nothing before more has come; all that had come was taken.
    Wait,
    /// A whole frame of this type.
    Whole(u64, Bytes),
    /// Octets of a frame, at least one.
    Octets(Bytes),
    /// A frame that begins here and is read past.
    Skipped,
}

/// The frames of one stream.
#[derive(Debug, Default)]
pub struct Frames {
    state: State,
    /// Of a header or of a frame that is wanted whole, what has come.
    gathered: BytesMut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Header,
    /// So much is still to come of a frame of this type.
    Whole(u64, usize),
    Octets(u64),
    Skip(u64),
}

impl Frames {
    /// Whether a frame has begun and not ended.
    pub fn is_within(&self) -> bool {
        self.state != State::Header || !self.gathered.is_empty()
    }

    /// Takes what comes next off `came`. `rule` says what is wanted of a frame of a type and a length; a whole one is not
    /// longer than it allows.
    ///
    /// # Errors
    /// Those of `rule`.
    pub fn step(
        &mut self,
        came: &mut Bytes,
        mut rule: impl FnMut(u64, u64) -> Result<Wanted, Fault>,
    ) -> Result<Piece, Fault> {
        loop {
            match self.state {
                State::Header => {
                    let Some((kind, length)) = self.header(came) else { return Ok(Piece::Wait) };
                    match rule(kind, length)? {
                        Wanted::Whole => self.state = State::Whole(kind, usize::try_from(length).unwrap_or(usize::MAX)),
                        Wanted::Octets if length > 0 => self.state = State::Octets(length),
                        // An empty frame brings nothing and costs as much as another one.
                        Wanted::Octets => return Ok(Piece::Skipped),
                        Wanted::Nothing => {
                            self.state = if length > 0 { State::Skip(length) } else { State::Header };
                            return Ok(Piece::Skipped);
                        }
                    }
                }
                State::Whole(kind, length) => {
                    let Some(frame) = self.whole(came, length) else { return Ok(Piece::Wait) };
                    self.state = State::Header;
                    return Ok(Piece::Whole(kind, frame));
                }
                _ if came.is_empty() => return Ok(Piece::Wait),
                State::Octets(left) => {
                    let octets = came.split_to(clip(came, left));
                    let left = left - octets.len() as u64;
                    self.state = if left > 0 { State::Octets(left) } else { State::Header };
                    return Ok(Piece::Octets(octets));
                }
                State::Skip(left) => {
                    let skipped = clip(came, left);
                    came.advance(skipped);
                    let left = left - skipped as u64;
                    self.state = if left > 0 { State::Skip(left) } else { State::Header };
                }
            }
        }
    }

    fn header(&mut self, came: &mut Bytes) -> Option<(u64, u64)> {
        if self.gathered.is_empty()
            && let Some((header, length)) = header(came)
        {
            came.advance(length);
            return Some(header);
        }
        // It comes in pieces: octet by octet, at most sixteen.
        while self.gathered.len() < HEADER_BYTES && came.has_remaining() {
            self.gathered.extend_from_slice(&[came.get_u8()]);
            if let Some((header, _)) = header(&self.gathered) {
                self.gathered = BytesMut::new();
                return Some(header);
            }
        }
        None
    }

    fn whole(&mut self, came: &mut Bytes, length: usize) -> Option<Bytes> {
        let missing = length - self.gathered.len();
        if self.gathered.is_empty() && came.len() >= missing {
            return Some(came.split_to(missing));
        }
        let piece = came.split_to(came.len().min(missing));
        self.gathered.extend_from_slice(&piece);
        (self.gathered.len() == length).then(|| std::mem::take(&mut self.gathered).freeze())
    }
}

/// The type and the length that `octets` begin with, and how many octets they take.
fn header(octets: &[u8]) -> Option<((u64, u64), usize)> {
    let (kind, first) = varint(octets)?;
    let (length, second) = varint(octets.get(first..)?)?;
    Some(((kind, length), first + second))
}

fn clip(came: &Bytes, left: u64) -> usize {
    usize::try_from(left).map_or(came.len(), |left| left.min(came.len()))
}

/// What to do with a frame of a type that we do not know.
pub(super) fn unknown(kind: u64, length: u64) -> Result<Wanted, Fault> {
    if kind::OF_HTTP2.contains(&kind) {
        return Err(Fault::Connection(Code::FrameUnexpected));
    }
    if length > UNKNOWN_BYTES { Err(Fault::Connection(Code::ExcessiveLoad)) } else { Ok(Wanted::Nothing) }
}
