//! What is sent: heads and the framing of bodies.
//!
//! Framing comes from how long the body is known to be; fields of the map that would frame it (`Content-Length`,
//! `Transfer-Encoding`) are passed over.

use bytes::BufMut;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode};

use super::{Length, Said};
use crate::wire::head::may_trail;

/// Interim answer to `Expect: 100-continue` (RFC 9110 section 10.1.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// End of a chunked body without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the head of a request for `target`; `more` writes further lines behind its `headers`.
pub fn request(
    out: &mut Vec<u8>,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    more: impl FnOnce(&mut Vec<u8>),
    length: Length,
) {
    out.reserve(512 + target.len() + 48 * headers.len());
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    fields(out, headers);
    more(out);
    match length {
        Length::Exact(octets) => content_length(out, octets),
        Length::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Length::None | Length::UntilClose => {}
    }
    out.put_slice(b"\r\n");
}

/// Writes the head of a response. `length`: how the body will be framed. `None` writes what `headers` say themselves, as for
/// HEAD and 304, which have no body and may tell what it would be. `date` is written where there is none
/// (RFC 9110 section 6.6.1).
pub fn response(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, length: Length, keeps: Keeps, date: &[u8]) {
    out.reserve(256 + 48 * headers.len());
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or("Status").as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers);
    if !headers.contains_key(DATE) {
        out.put_slice(b"date: ");
        out.put_slice(date);
        out.put_slice(b"\r\n");
    }
    match length {
        Length::Exact(octets) => content_length(out, octets),
        Length::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Length::None if !status.is_informational() && status != StatusCode::NO_CONTENT => {
            if let Ok(Some(Length::Exact(octets))) = Said::of(headers).length(false) {
                content_length(out, octets);
            }
        }
        Length::None | Length::UntilClose => {}
    }
    match keeps {
        _ if headers.contains_key(CONNECTION) => {}
        Keeps::Yes => {}
        Keeps::Aloud => out.put_slice(b"connection: keep-alive\r\n"),
        Keeps::No => out.put_slice(b"connection: close\r\n"),
    }
    out.put_slice(b"\r\n");
}

/// What a response says of its connection, unless its fields say something themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// It goes on, as HTTP/1.1 has it by itself.
    Yes,
    /// It goes on, said to a client of HTTP/1.0 that asked.
    Aloud,
    /// It is closed behind the body.
    No,
}

/// Writes the line before a chunk of `length` octets, which is not 0. CRLF follows the chunk.
pub fn chunk(out: &mut Vec<u8>, length: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.put_u8(HEX[length >> (4 * digit) & 15]);
    }
    out.put_slice(b"\r\n");
}

/// Writes the end of a chunked body.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    match trailers {
        None => out.put_slice(LAST_CHUNK),
        Some(trailers) => {
            out.put_slice(b"0\r\n");
            trailers.iter().filter(|(name, _)| may_trail(name)).for_each(|(name, value)| field(out, name, value));
            out.put_slice(b"\r\n");
        }
    }
}

fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            field(out, name, value);
        }
    }
}

/// Writes one field.
pub fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, octets: u64) {
    out.put_slice(b"content-length: ");
    number(out, octets);
    out.put_slice(b"\r\n");
}

/// Writes `n` in decimal digits.
pub fn number(out: &mut Vec<u8>, n: u64) {
    let mut digits = [0; 20];
    let (mut at, mut left) = (digits.len(), n);
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}
