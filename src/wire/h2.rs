//! Frames of HTTP/2 as they pass (RFC 9113 section 4.1): of what kind, how long, of which stream. What is in them is looked at
//! in three places only: the error of RST_STREAM, the increment of WINDOW_UPDATE, and two values of SETTINGS.
//!
//! For who stands beside a connection and counts; whoever speaks HTTP/2 has read all of it already. Memory is constant,
//! nothing is copied but a head that comes in pieces.

/// Kinds of frames (RFC 9113 section 6; PRIORITY_UPDATE: RFC 9218 section 7.1).
pub mod kind {
    #![allow(missing_docs, reason = "names of the RFC")]
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
    pub const PRIORITY_UPDATE: u8 = 0x10;
}

/// Flags of frames (RFC 9113 section 6).
pub mod flag {
    #![allow(missing_docs, reason = "names of the RFC")]
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
}

/// Errors of streams (RFC 9113 section 7).
pub mod error {
    #![allow(missing_docs, reason = "names of the RFC")]
    pub const PROTOCOL_ERROR: u32 = 0x1;
    pub const FLOW_CONTROL_ERROR: u32 = 0x3;
    pub const STREAM_CLOSED: u32 = 0x5;
    pub const FRAME_SIZE_ERROR: u32 = 0x6;
    pub const REFUSED_STREAM: u32 = 0x7;
    pub const ENHANCE_YOUR_CALM: u32 = 0xb;
}

/// What a client begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The window of a stream before anybody has said anything (RFC 9113 section 6.9.2).
pub const WINDOW: u32 = 65_535;
/// Octets before a frame's payload.
pub const HEAD: usize = 9;
/// One entry of SETTINGS (RFC 9113 section 6.5.1).
const SETTING: usize = 6;
/// SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2).
const INITIAL_WINDOW: u16 = 0x4;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const CONNECT_PROTOCOL: u16 = 0x8;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`], or any other.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
    /// Octets of its payload.
    pub length: u32,
    /// Of RST_STREAM the error, of WINDOW_UPDATE the increment; else, and where it is cut short, 0.
    pub word: u32,
}

impl Frame {
    /// Whether it has this flag.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A frame; of its payload no more need have come than [`Frame::word`].
    Frame(Frame),
    /// An entry of a SETTINGS frame: how far new streams may go unasked.
    InitialWindow(u32),
    /// Another: whether extended CONNECT is taken.
    ConnectProtocol(bool),
}

/// One direction of a connection.
#[derive(Clone, Debug)]
pub struct Reader {
    step: Step,
    held: [u8; HEAD],
    have: usize,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many octets mean nothing here.
    Skip(u32),
    /// A head comes next.
    Head,
    /// The first octets of a frame's payload do.
    Word(Frame),
    /// Entries of SETTINGS do, in so many octets.
    Settings(u32),
}

impl Reader {
    /// What a client sends: the preface comes first.
    pub const fn of_client() -> Self {
        Self { step: Step::Skip(PREFACE.len() as u32), held: [0; HEAD], have: 0 }
    }

    /// What a server sends.
    pub const fn of_server() -> Self {
        Self { step: Step::Head, held: [0; HEAD], have: 0 }
    }

    /// Whether all that has passed was whole frames.
    pub const fn is_between(&self) -> bool {
        matches!(self.step, Step::Head) && self.have == 0
    }

    /// Reads what passes next, in pieces of any size.
    pub fn read(&mut self, mut octets: &[u8], mut each: impl FnMut(Seen)) {
        loop {
            self.step = match self.step {
                Step::Skip(left) => {
                    let passed = octets.len().min(left as usize);
                    octets = octets.get(passed..).unwrap_or_default();
                    let left = left - passed as u32;
                    if left > 0 {
                        self.step = Step::Skip(left);
                        return;
                    }
                    Step::Head
                }
                Step::Head => {
                    let Some(head) = self.gather(&mut octets) else { return };
                    let frame = frame(head);
                    match frame.kind {
                        kind::RST_STREAM | kind::WINDOW_UPDATE if frame.length >= 4 => Step::Word(frame),
                        kind => {
                            each(Seen::Frame(frame));
                            let has_entries = kind == kind::SETTINGS && !frame.has(flag::ACK);
                            if has_entries { Step::Settings(frame.length) } else { Step::Skip(frame.length) }
                        }
                    }
                }
                Step::Word(frame) => {
                    let Some(word) = self.gather(&mut octets) else { return };
                    each(Seen::Frame(Frame { word: u32::from_be_bytes(word), ..frame }));
                    Step::Skip(frame.length - 4)
                }
                Step::Settings(left) if left < SETTING as u32 => Step::Skip(left),
                Step::Settings(left) => {
                    let Some([a, b, value @ ..]) = self.gather::<SETTING>(&mut octets) else { return };
                    let value = u32::from_be_bytes(value);
                    match u16::from_be_bytes([a, b]) {
                        INITIAL_WINDOW => each(Seen::InitialWindow(value)),
                        CONNECT_PROTOCOL => each(Seen::ConnectProtocol(value == 1)),
                        _ => {}
                    }
                    Step::Settings(left - SETTING as u32)
                }
            };
        }
    }

    /// The next `N` octets, at most [`HEAD`]; `None` and all of `octets` kept where these are too few.
    fn gather<const N: usize>(&mut self, octets: &mut &[u8]) -> Option<[u8; N]> {
        if self.have == 0
            && let Some((whole, rest)) = octets.split_first_chunk::<N>()
        {
            *octets = rest;
            return Some(*whole);
        }
        let (part, rest) = octets.split_at(octets.len().min(N - self.have));
        for (to, from) in self.held.iter_mut().skip(self.have).zip(part) {
            *to = *from;
        }
        (self.have, *octets) = (self.have + part.len(), rest);
        let whole = self.held.first_chunk::<N>().filter(|_| self.have == N).copied();
        if whole.is_some() {
            self.have = 0;
        }
        whole
    }
}

fn frame([l0, l1, l2, kind, flags, s0, s1, s2, s3]: [u8; HEAD]) -> Frame {
    let length = u32::from_be_bytes([0, l0, l1, l2]);
    // The first bit is reserved and means nothing.
    let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
    Frame { kind, flags, stream, length, word: 0 }
}

/// The last frame of a server that has had enough: GOAWAY with `error`; streams up to `last` may have been acted on
/// (RFC 9113 section 6.8).
pub fn goaway(last: u32, error: u32) -> [u8; HEAD + 8] {
    let mut frame = [0; HEAD + 8];
    frame[..HEAD].copy_from_slice(&[0, 0, 8, kind::GOAWAY, 0, 0, 0, 0, 0]);
    frame[HEAD..HEAD + 4].copy_from_slice(&(last & 0x7fff_ffff).to_be_bytes());
    frame[HEAD + 4..].copy_from_slice(&error.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(reader: &mut Reader, octets: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        reader.read(octets, |s| seen.push(s));
        seen
    }

    fn written(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
        out
    }

    #[test]
    fn frames_are_seen_with_what_counts_of_them() {
        let mut octets = PREFACE.to_vec();
        octets.extend(written(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 0, 7, 0, 8, 0, 0, 0, 1]));
        octets.extend(written(kind::SETTINGS, flag::ACK, 0, b""));
        octets.extend(written(kind::WINDOW_UPDATE, 0, 0x8000_0001, &9u32.to_be_bytes()));
        octets.extend(written(kind::RST_STREAM, 0, 3, &error::STREAM_CLOSED.to_be_bytes()));
        octets.extend(written(kind::RST_STREAM, 0, 5, b"odd"));
        octets.extend(written(kind::DATA, flag::END_STREAM, 1, &[b'x'; 300]));
        let seen = all(&mut Reader::of_client(), &octets);
        let frame = |kind, flags, stream, length, word| Seen::Frame(Frame { kind, flags, stream, length, word });
        assert_eq!(
            seen,
            [
                frame(kind::SETTINGS, 0, 0, 18, 0),
                Seen::InitialWindow(7),
                Seen::ConnectProtocol(true),
                frame(kind::SETTINGS, 1, 0, 0, 0),
                frame(kind::WINDOW_UPDATE, 0, 1, 4, 9),
                frame(kind::RST_STREAM, 0, 3, 4, 5),
                frame(kind::RST_STREAM, 0, 5, 3, 0),
                frame(kind::DATA, 1, 1, 300, 0),
            ]
        );
    }

    #[test]
    fn a_goodbye_is_a_frame() {
        let mut reader = Reader::of_server();
        let seen = all(&mut reader, &goaway(7, error::ENHANCE_YOUR_CALM));
        assert_eq!(seen, [Seen::Frame(Frame { kind: kind::GOAWAY, flags: 0, stream: 0, length: 8, word: 0 })]);
        assert!(reader.is_between());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(octets in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(1usize..40, 1..40)) {
            // Short frames, mostly, so that there are many.
            let octets: Vec<u8> = octets.chunks(9).flat_map(|c| {
                let mut c = c.to_vec();
                c.iter_mut().take(2).for_each(|b| *b = 0);
                c
            }).collect();
            let mut whole = Reader::of_server();
            let expected = all(&mut whole, &octets);
            let (mut reader, mut seen, mut rest) = (Reader::of_server(), Vec::new(), &octets[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, tail) = rest.split_at(rest.len().min(*cut));
                seen.extend(all(&mut reader, piece));
                rest = tail;
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(reader.is_between(), whole.is_between());
        }
    }
}
