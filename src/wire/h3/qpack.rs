//! QPACK (RFC 9204) without a dynamic table: fields by the number of a common one, or spelled out.

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;

use super::huffman;
use super::table::STATIC;
use crate::wire::h1::{FIELDS, HEAD_BYTES};

/// What each field counts beyond its octets (RFC 9114 section 4.2.2).
const FIELD_COSTS: usize = 32;
/// Pseudo-fields of a request are few, and none comes twice.
const PSEUDO_FIELDS: usize = 8;

/// Why a field section was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unread {
    /// It cannot be decompressed, and with a dynamic table nothing after it could.
    #[error("cannot be decompressed")]
    Broken,
    /// It is larger than what is taken here.
    #[error("too large")]
    Large,
    /// It has more fields than are taken here.
    #[error("too many fields")]
    Many,
}

/// A part of a field.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Of the static table.
    Static(&'static str),
    /// Spelled out: from where to where in the text.
    Spelled(usize, usize),
}

/// The fields of a section, in order.
#[derive(Clone, Debug)]
pub struct Section {
    fields: SmallVec<[(Part, Part, bool); 24]>,
    text: Bytes,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'s> {
    section: &'s Section,
    name: Part,
    value: Part,
    /// It must not be kept where others could guess at it (RFC 9204 section 7.1.3).
    pub is_sensitive: bool,
}

impl Section {
    /// Reads a field section.
    ///
    /// # Errors
    /// It is broken, or too much.
    pub fn read(octets: &[u8]) -> Result<Self, Unread> {
        let mut reader = Reader { rest: octets };
        // RFC 9204 section 4.5.1: nothing is needed of a dynamic table, and no base is below zero.
        let (required, _) = reader.integer(8)?;
        let (_, first) = reader.integer(7)?;
        if required != 0 || first & 0x80 != 0 {
            return Err(Unread::Broken);
        }
        let (mut fields, mut text, mut size) = (SmallVec::new(), Vec::new(), 0);
        while let Some(&first) = reader.rest.first() {
            let field = if first & 0x80 != 0 {
                let (name, value) = reader.named(6, first & 0x40 != 0)?;
                (Part::Static(name), Part::Static(value), false)
            } else if first & 0x40 != 0 {
                let (name, _) = reader.named(4, first & 0x10 != 0)?;
                (Part::Static(name), reader.string(7, &mut text)?, first & 0x20 != 0)
            } else if first & 0x20 != 0 {
                let name = reader.string(3, &mut text)?;
                (name, reader.string(7, &mut text)?, first & 0x10 != 0)
            } else {
                // Fields of the dynamic table by an index behind the base.
                return Err(Unread::Broken);
            };
            size += field.0.len() + field.1.len() + FIELD_COSTS;
            if size > HEAD_BYTES {
                return Err(Unread::Large);
            }
            if fields.len() == FIELDS + PSEUDO_FIELDS {
                return Err(Unread::Many);
            }
            fields.push(field);
        }
        Ok(Self { fields, text: Bytes::from(text) })
    }

    /// Its fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|&(name, value, is_sensitive)| Field { section: self, name, value, is_sensitive })
    }

    fn octets(&self, part: Part) -> &[u8] {
        match part {
            Part::Static(text) => text.as_bytes(),
            Part::Spelled(from, to) => self.text.get(from..to).unwrap_or_default(),
        }
    }
}

impl<'s> Field<'s> {
    /// Its name, as it came.
    pub fn name(&self) -> &'s [u8] {
        self.section.octets(self.name)
    }

    /// Its value, as it came.
    pub fn value(&self) -> &'s [u8] {
        self.section.octets(self.value)
    }

    /// Its value, not copied.
    pub fn shared(&self) -> Bytes {
        match self.value {
            Part::Static(text) => Bytes::from_static(text.as_bytes()),
            Part::Spelled(from, to) => self.section.text.slice(from..to),
        }
    }
}

impl Part {
    const fn len(self) -> usize {
        match self {
            Self::Static(text) => text.len(),
            Self::Spelled(from, to) => to - from,
        }
    }
}

struct Reader<'o> {
    rest: &'o [u8],
}

impl Reader<'_> {
    /// An integer with a prefix of so many bits (RFC 7541 section 5.1), and the octet that it begins in.
    fn integer(&mut self, bits: u32) -> Result<(usize, u8), Unread> {
        let (&first, mut rest) = self.rest.split_first().ok_or(Unread::Broken)?;
        let mask = (1usize << bits) - 1;
        let mut value = usize::from(first) & mask;
        if value == mask {
            let mut shift = 0;
            loop {
                let (&octet, behind) = rest.split_first().ok_or(Unread::Broken)?;
                rest = behind;
                value += usize::from(octet & 0x7f) << shift;
                shift += 7;
                if octet & 0x80 == 0 {
                    break;
                }
                // Nothing here is longer than a section, which four octets more than cover.
                if shift > 21 {
                    return Err(Unread::Broken);
                }
            }
        }
        self.rest = rest;
        Ok((value, first))
    }

    /// The field of the static table with the number that comes.
    fn named(&mut self, bits: u32, is_static: bool) -> Result<(&'static str, &'static str), Unread> {
        let (index, _) = self.integer(bits)?;
        STATIC.get(index).copied().filter(|_| is_static).ok_or(Unread::Broken)
    }

    /// A string, put behind `text`; its length has a prefix of so many bits, and in front of it says whether it is coded.
    fn string(&mut self, bits: u32, text: &mut Vec<u8>) -> Result<Part, Unread> {
        let (length, first) = self.integer(bits)?;
        let (said, rest) = self.rest.split_at_checked(length).ok_or(Unread::Broken)?;
        self.rest = rest;
        let from = text.len();
        if first >> bits & 1 == 1 {
            if !huffman::decode(said, text) {
                return Err(Unread::Broken);
            }
        } else {
            text.extend_from_slice(said);
        }
        Ok(Part::Spelled(from, text.len()))
    }
}

/// Writes the beginning of a field section: nothing is needed of a dynamic table.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
}

/// Writes a field, by number where all of it or its name is in the static table.
pub fn put(out: &mut Vec<u8>, name: &str, value: &HeaderValue) {
    let keep = value.is_sensitive();
    let Some((index, values)) = indexed(name) else {
        put_string(out, if keep { 0x30 } else { 0x20 }, 3, name.as_bytes());
        return put_string(out, 0, 7, value.as_bytes());
    };
    let same = (0..values).map(|at| index + at).find(|&at| STATIC[at].1.as_bytes() == value.as_bytes());
    if let Some(index) = same.filter(|_| !keep) {
        return put_integer(out, 0xc0, 6, index);
    }
    put_integer(out, if keep { 0x70 } else { 0x50 }, 4, index);
    put_string(out, 0, 7, value.as_bytes());
}

/// Writes the status of a response.
pub fn put_status(out: &mut Vec<u8>, status: http::StatusCode) {
    let index = match status.as_u16() {
        100 => 63,
        103 => 24,
        200 => 25,
        204 => 64,
        206 => 65,
        302 => 66,
        304 => 26,
        400 => 67,
        403 => 68,
        404 => 27,
        421 => 69,
        425 => 70,
        500 => 71,
        503 => 28,
        _ => {
            put_integer(out, 0x50, 4, 24);
            return put_string(out, 0, 7, status.as_str().as_bytes());
        }
    };
    put_integer(out, 0xc0, 6, index);
}

fn put_string(out: &mut Vec<u8>, flags: u8, bits: u32, text: &[u8]) {
    put_integer(out, flags, bits, text.len());
    out.extend_from_slice(text);
}

fn put_integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let mask = (1usize << bits) - 1;
    if value < mask {
        return out.push(flags | value as u8);
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Where fields of responses begin in the static table, and how many there are in a row.
fn indexed(name: &str) -> Option<(usize, usize)> {
    Some(match name {
        "age" => (2, 1),
        "content-disposition" => (3, 1),
        "content-length" => (4, 1),
        "date" => (6, 1),
        "etag" => (7, 1),
        "last-modified" => (10, 1),
        "link" => (11, 1),
        "location" => (12, 1),
        "set-cookie" => (14, 1),
        "accept-ranges" => (32, 1),
        "access-control-allow-headers" => (33, 2),
        "access-control-allow-origin" => (35, 1),
        "cache-control" => (36, 6),
        "content-encoding" => (42, 2),
        "content-type" => (44, 11),
        "strict-transport-security" => (56, 3),
        "vary" => (59, 2),
        "x-content-type-options" => (61, 1),
        "x-xss-protection" => (62, 1),
        "access-control-allow-credentials" => (73, 2),
        "access-control-allow-methods" => (76, 3),
        "access-control-expose-headers" => (79, 1),
        "alt-svc" => (83, 1),
        "content-security-policy" => (85, 1),
        "server" => (92, 1),
        "timing-allow-origin" => (93, 1),
        "x-frame-options" => (97, 2),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_fields_are_theirs() {
        for (name, _) in STATIC {
            let Some((from, many)) = indexed(name) else { continue };
            assert!((from..from + many).all(|at| STATIC[at].0 == name), "{name}");
        }
        let mut out = Vec::new();
        for (at, (_, value)) in STATIC.iter().enumerate().filter(|(_, (name, _))| *name == ":status") {
            out.clear();
            put_status(&mut out, value.parse().unwrap());
            let section = Section::read(&[&[0, 0], &out[..]].concat()).unwrap();
            assert_eq!(section.fields().next().unwrap().value(), value.as_bytes(), "{at}");
            assert_eq!(out.len(), 1 + usize::from(at >= 63), "by number");
        }
    }
}
