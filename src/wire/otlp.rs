//! OTLP 1.x, traces (opentelemetry-proto, `trace/v1` and `collector/trace/v1`): spans as protobuf, and what a collector says to them.
//!
//! Written here and not generated: what an exporter says is twenty fields, and it is written straight into the buffer that
//! goes out. Texts come from clients, so they are made UTF-8, which protobuf demands of strings, and cut. What is read is
//! bounded, and never more than a count and a sentence.

use smallvec::SmallVec;

/// Longest text of an attribute, in octets (ours; collectors cut far later).
const TEXT: usize = 1_024;
/// Longest sentence of a collector that is repeated.
const SENTENCE: usize = 256;

/// Bits of `Span.flags` beside those of W3C: whether it is known that the parent is elsewhere, and that it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// `STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// Which side of a request a span tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of who was asked.
    Server = 2,
    /// Of who asked.
    Client = 3,
}

/// A span, less its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<'a> {
    /// The trace; not 0.
    pub trace: u128,
    /// Its own id; not 0.
    pub id: u64,
    /// Whose it is a part of, and whether that is elsewhere.
    pub parent: Option<(u64, bool)>,
    /// The `tracestate` that it was begun with.
    pub state: &'a [u8],
    /// What it is called: of few values, for it is what spans are grouped by.
    pub name: &'a str,
    /// Which side.
    pub kind: Kind,
    /// When it began, in nanoseconds of Unix time.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Whether it is a failure of this side.
    pub is_error: bool,
}

impl Span<'_> {
    /// Writes it as a member of a list of spans, with the attributes that `attributes` adds.
    pub fn write(&self, out: &mut Vec<u8>, attributes: impl FnOnce(&mut Attributes<'_>)) {
        // ScopeSpans.spans
        nested(out, 2, |out| {
            octets(out, 1, &self.trace.to_be_bytes());
            octets(out, 2, &self.id.to_be_bytes());
            if !self.state.is_empty() {
                text(out, 3, self.state);
            }
            if let Some((parent, _)) = self.parent {
                octets(out, 4, &parent.to_be_bytes());
            }
            text(out, 5, self.name.as_bytes());
            number(out, 6, self.kind as u64);
            fixed64(out, 7, self.began);
            fixed64(out, 8, self.ended.max(self.began));
            attributes(&mut Attributes { out, field: 9 });
            if self.is_error {
                nested(out, 15, |out| number(out, 3, ERROR));
            }
            let remote = if self.parent.is_some_and(|(_, is_remote)| is_remote) { IS_REMOTE } else { 0 };
            // Every span that is written is a recorded one: flag 01 of W3C.
            fixed32(out, 16, HAS_IS_REMOTE | remote | 1);
        });
    }
}

/// Takes attributes.
#[derive(Debug)]
pub struct Attributes<'o> {
    out: &'o mut Vec<u8>,
    field: u32,
}

impl Attributes<'_> {
    fn add(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        nested(self.out, self.field, |out| {
            octets(out, 1, key.as_bytes());
            nested(out, 2, value);
        });
    }

    /// A text: what is not UTF-8 in it is replaced, and what is too long is cut.
    pub fn text(&mut self, key: &str, value: &[u8]) {
        self.add(key, |out| text(out, 1, value));
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.add(key, |out| number(out, 2, u64::from(value)));
    }

    /// A number of things.
    pub fn count(&mut self, key: &str, value: u64) {
        // As an int64, which has no more than 63 bits of them.
        self.add(key, |out| number(out, 3, value & (u64::MAX >> 1)));
    }

    /// A quantity.
    pub fn real(&mut self, key: &str, value: f64) {
        self.add(key, |out| fixed64(out, 4, value.to_bits()));
    }
}

/// The request that brings `spans` (as [`Span::write`] writes them) of who has the attributes that `resource` adds.
pub fn request<'s>(
    resource: impl FnOnce(&mut Attributes<'_>),
    scope: (&str, &str),
    spans: impl Iterator<Item = &'s [u8]> + Clone,
) -> Vec<u8> {
    let mut head = Vec::new();
    nested(&mut head, 1, |out| resource(&mut Attributes { out, field: 1 }));
    let mut told = Vec::new();
    nested(&mut told, 1, |out| {
        text(out, 1, scope.0.as_bytes());
        text(out, 2, scope.1.as_bytes());
    });
    let inner = told.len() + spans.clone().map(<[u8]>::len).sum::<usize>();
    let mut framed = Vec::new();
    prefix(&mut framed, 2, inner);
    let outer = head.len() + framed.len() + inner;
    let mut out = Vec::with_capacity(outer + 12);
    prefix(&mut out, 1, outer);
    for part in [&head, &framed, &told] {
        out.extend_from_slice(part);
    }
    spans.for_each(|some| out.extend_from_slice(some));
    out
}

/// What a collector has not taken of what it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How many spans.
    pub spans: u64,
    /// Why, in its words.
    pub why: String,
}

/// What a collector that says yes has not taken all the same: `ExportTraceServiceResponse.partial_success`. What cannot be
/// read says nothing.
pub fn rejected(response: &[u8]) -> Rejected {
    let mut rejected = Rejected::default();
    for (_, partial) in Fields(response).filter_map(Field::message).filter(|(field, _)| *field == 1) {
        for field in Fields(partial) {
            match field {
                // A negative count is none.
                Field::Number(1, spans) => rejected.spans = if spans >> 63 == 0 { spans } else { 0 },
                Field::Message(2, why) => rejected.why = sentence(why),
                _ => {}
            }
        }
    }
    rejected
}

/// Why a collector says no: the message of a `google.rpc.Status`. Empty where it says nothing.
pub fn refusal(response: &[u8]) -> String {
    let said = Fields(response).filter_map(Field::message).find(|(field, _)| *field == 2);
    said.map(|(_, why)| sentence(why)).unwrap_or_default()
}

/// What a log may repeat of `text`.
fn sentence(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..SENTENCE).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn fixed32(out: &mut Vec<u8>, field: u32, value: u32) {
    varint(out, u64::from(field) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

fn prefix(out: &mut Vec<u8>, field: u32, length: usize) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, length as u64);
}

fn octets(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    prefix(out, field, value.len());
    out.extend_from_slice(value);
}

/// A string, which protobuf wants to be UTF-8, of a length that it may have.
fn text(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    let value = value.get(..TEXT).unwrap_or(value);
    nested(out, field, |out| {
        let mut pieces = value.utf8_chunks().peekable();
        while let Some(piece) = pieces.next() {
            out.extend_from_slice(piece.valid().as_bytes());
            // A character that was cut is no replacement.
            let is_cut = pieces.peek().is_none() && value.len() == TEXT;
            if !piece.invalid().is_empty() && !is_cut {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    });
}

/// A message of a length that is known once it is written: one octet is kept for it, which nearly always is enough.
fn nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, u64::from(field) << 3 | 2);
    let at = out.len();
    out.push(0);
    write(out);
    let inner = out.len() - at - 1;
    if let (Ok(short @ 0..0x80), Some(place)) = (u8::try_from(inner), out.get_mut(at)) {
        *place = short;
        return;
    }
    let mut length = SmallVec::<[u8; 10]>::new();
    let mut rest = inner;
    while rest >= 0x80 {
        length.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    length.push(rest as u8);
    out.splice(at..=at, length);
}

/// A field of a message.
enum Field<'a> {
    Number(u64, u64),
    Message(u64, &'a [u8]),
    Other,
}

impl<'a> Field<'a> {
    fn message(self) -> Option<(u64, &'a [u8])> {
        if let Self::Message(field, octets) = self { Some((field, octets)) } else { None }
    }
}

/// The fields of a message, up to the first that cannot be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(octets)
    }

    fn field(&mut self) -> Option<Field<'a>> {
        let tag = self.varint()?;
        let field = tag >> 3;
        match tag & 7 {
            0 => self.varint().map(|value| Field::Number(field, value)),
            1 => self.take(8).map(|_| Field::Other),
            2 => {
                let length = self.varint()?;
                self.take(length).map(|octets| Field::Message(field, octets))
            }
            5 => self.take(4).map(|_| Field::Other),
            _ => None,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        field
    }
}

#[cfg(test)]
mod tests;
