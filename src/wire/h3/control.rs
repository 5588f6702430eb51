//! The streams of one direction (RFC 9114 section 6.2): the client's control stream, and what it says to our QPACK.

use bytes::{Buf, Bytes};

use super::frame::{self, Frames, Piece, Wanted, kind};
use super::{Code, Fault};

/// Types of streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
pub mod kinds {
    /// Settings, and the end.
    pub const CONTROL: u64 = 0x0;
    /// A response that nobody asked for.
    pub const PUSH: u64 = 0x1;
    /// From the peer's encoder to our decoder.
    pub const QPACK_ENCODER: u64 = 0x2;
    /// From the peer's decoder to our encoder.
    pub const QPACK_DECODER: u64 = 0x3;
}

/// The largest field section that we take, counted as in RFC 9114 section 4.2.2.
const SETTINGS_MAX_FIELD_SECTION_SIZE: u64 = 0x6;
/// Settings of HTTP/2 that mean nothing here and may not be sent (RFC 9114 section 7.2.4.1).
const SETTINGS_OF_HTTP2: [u64; 4] = [0x2, 0x3, 0x4, 0x5];
/// Longest SETTINGS that are read (ours): each setting takes at most 16 octets.
const SETTINGS_BYTES: u64 = 1024;
/// Most settings (ours).
const SETTINGS: usize = 32;

/// What our control stream begins with: its type, and settings.
pub fn hello(field_section: u64) -> Vec<u8> {
    let (mut settings, mut out) = (Vec::new(), Vec::new());
    frame::put_varint(&mut settings, SETTINGS_MAX_FIELD_SECTION_SIZE);
    frame::put_varint(&mut settings, field_section);
    frame::put_varint(&mut out, kinds::CONTROL);
    frame::put_header(&mut out, kind::SETTINGS, settings.len());
    out.extend_from_slice(&settings);
    out
}

/// The frame that says which request of the client is the first that will not be answered (RFC 9114 section 5.2).
pub fn go_away(stream: u64) -> Vec<u8> {
    let (mut id, mut out) = (Vec::new(), Vec::new());
    frame::put_varint(&mut id, stream);
    frame::put_header(&mut out, kind::GOAWAY, id.len());
    out.extend_from_slice(&id);
    out
}

/// What a client says on its control stream.
#[derive(Debug, Default)]
pub struct Control {
    frames: Frames,
    is_settled: bool,
    max_push: Option<u64>,
    goaway: Option<u64>,
}

/// What was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing before more has come.
    Wait,
    /// Its settings, once. We send nothing that depends on them.
    Settings,
    /// Something that changes nothing.
    Idle,
}

impl Control {
    /// Takes what comes next off `came`.
    ///
    /// # Errors
    /// What may not be said there, or not then, or not so.
    pub fn step(&mut self, came: &mut Bytes) -> Result<Word, Fault> {
        let is_settled = self.is_settled;
        let piece = self.frames.step(came, |kind, length| match kind {
            kind::SETTINGS if is_settled => Err(Fault::Connection(Code::FrameUnexpected)),
            kind::SETTINGS if length > SETTINGS_BYTES => Err(Fault::Connection(Code::ExcessiveLoad)),
            kind::SETTINGS => Ok(Wanted::Whole),
            _ if !is_settled => Err(Fault::Connection(Code::MissingSettings)),
            kind::DATA | kind::HEADERS | kind::PUSH_PROMISE => Err(Fault::Connection(Code::FrameUnexpected)),
            // One integer, and nothing else.
            kind::CANCEL_PUSH | kind::GOAWAY | kind::MAX_PUSH_ID if !(1..=8).contains(&length) => {
                Err(Fault::Connection(Code::FrameError))
            }
            kind::CANCEL_PUSH | kind::GOAWAY | kind::MAX_PUSH_ID => Ok(Wanted::Whole),
            kind => frame::unknown(kind, length),
        })?;
        match piece {
            Piece::Wait => Ok(Word::Wait),
            Piece::Whole(kind::SETTINGS, settings) => {
                settle(&settings)?;
                self.is_settled = true;
                Ok(Word::Settings)
            }
            Piece::Whole(kind, frame) => self.hear(kind, &frame).map(|()| Word::Idle),
            Piece::Octets(_) | Piece::Skipped => Ok(Word::Idle),
        }
    }

    fn hear(&mut self, kind: u64, frame: &[u8]) -> Result<(), Fault> {
        let whole = frame::varint(frame).filter(|(_, length)| *length == frame.len());
        let (id, _) = whole.ok_or(Fault::Connection(Code::FrameError))?;
        let is_fine = match kind {
            kind::MAX_PUSH_ID => self.max_push.replace(id).is_none_or(|before| before <= id),
            // The id of a push; the number may only fall (RFC 9114 section 5.2).
            kind::GOAWAY => self.goaway.replace(id).is_none_or(|before| before >= id),
            // No push was ever promised that could be given up.
            _ => false,
        };
        if is_fine { Ok(()) } else { Err(Fault::Connection(Code::IdError)) }
    }
}

/// Looks at settings: none of HTTP/2's, none twice (RFC 9114 section 7.2.4).
fn settle(settings: &[u8]) -> Result<(), Fault> {
    let mut seen: smallvec::SmallVec<[u64; 8]> = smallvec::SmallVec::new();
    let mut rest = settings;
    while !rest.is_empty() {
        let cut = Fault::Connection(Code::FrameError);
        let (id, length) = frame::varint(rest).ok_or(cut)?;
        rest = rest.get(length..).unwrap_or_default();
        let (_, length) = frame::varint(rest).ok_or(cut)?;
        rest = rest.get(length..).unwrap_or_default();
        if SETTINGS_OF_HTTP2.contains(&id) || seen.contains(&id) {
            return Err(Fault::Connection(Code::SettingsError));
        }
        if seen.len() == SETTINGS {
            return Err(Fault::Connection(Code::ExcessiveLoad));
        }
        seen.push(id);
    }
    Ok(())
}

/// Reads what the peer's encoder says. There is no table for it to fill: it can do no more than say that it knows.
///
/// # Errors
/// Anything but a capacity of 0 (RFC 9204 section 4.3).
pub fn encoder_says(came: &[u8]) -> Result<usize, Fault> {
    let is_fine = came.iter().all(|&octet| octet == 0b0010_0000);
    if is_fine { Ok(came.len()) } else { Err(Fault::Connection(Code::QpackEncoderStreamError)) }
}

/// What the peer's decoder says.
#[derive(Debug, Default)]
pub struct DecoderSays {
    /// Octets of an integer that is not over.
    within: usize,
}

impl DecoderSays {
    /// Takes all of `came`. Says how many instructions it was.
    ///
    /// # Errors
    /// Anything but a stream given up: nothing that we sent can be acknowledged or counted (RFC 9204 section 4.4).
    pub fn take(&mut self, came: &mut Bytes) -> Result<usize, Fault> {
        const WRONG: Fault = Fault::Connection(Code::QpackDecoderStreamError);
        let mut instructions = 0;
        while came.has_remaining() {
            let octet = came.get_u8();
            if self.within > 0 {
                // An integer of 62 bits behind a prefix of 6 takes nine more octets (RFC 9204 section 4.1.1).
                self.within = if octet < 0x80 { 0 } else { self.within + 1 };
                if self.within > 9 {
                    return Err(WRONG);
                }
            } else if octet >> 6 == 0b01 {
                instructions += 1;
                self.within = usize::from(octet & 0x3f == 0x3f);
            } else {
                return Err(WRONG);
            }
        }
        Ok(instructions)
    }
}
