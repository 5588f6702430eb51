//! HTTP/1.1 and 1.0 on the wire (RFC 9112), read more strictly than it asks: what two readers could take for two different
//! messages is refused, in both directions (EDGE 4, gaps 1 to 3, 6 and 7).
//!
//! Lines end with CRLF and nothing else; one `Content-Length` of digits or one `Transfer-Encoding: chunked`, never both; no
//! folded lines, no space around names, no control characters; every length is bounded. What is written is framed anew from
//! the length of the body, and never copied from what came in.

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRANSFER_ENCODING};

pub mod body;
pub mod head;
pub mod write;

/// Largest head: request or status line and fields (EDGE 4, gap 11).
pub const HEAD_BYTES: usize = 32 * 1024;
/// Most fields in a head (EDGE 4, gap 11), and in trailers.
pub const FIELDS: usize = 100;
/// Longest target of a request (EDGE 4, gap 11).
pub const TARGET_BYTES: usize = 8 * 1024;

/// What is wrong with a message. The connection that it came over cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// A line that ends with LF alone, or a CR that ends none (RFC 9112 section 2.2).
    #[error("a line does not end with CRLF")]
    LineEnd,
    /// The first line is not `method target version`, or `version status reason`.
    #[error("malformed first line")]
    FirstLine,
    /// Another version than 1.1 and 1.0.
    #[error("unknown version of HTTP")]
    Version,
    /// A target that is no URI.
    #[error("malformed target")]
    Target,
    /// The target is longer than [`TARGET_BYTES`].
    #[error("the target is too long")]
    LongTarget,
    /// The head is longer than [`HEAD_BYTES`].
    #[error("the head is too long")]
    LongHead,
    /// More than [`FIELDS`] fields.
    #[error("too many fields")]
    ManyFields,
    /// A field without a name of token characters and a colon right behind it; a folded line is one.
    #[error("malformed field")]
    Field,
    /// `Content-Length` that is not one number.
    #[error("malformed or repeated Content-Length")]
    Length,
    /// `Transfer-Encoding` that is not one `chunked`, or in HTTP/1.0.
    #[error("Transfer-Encoding other than chunked")]
    Coding,
    /// `Transfer-Encoding` and `Content-Length`.
    #[error("both Transfer-Encoding and Content-Length")]
    Both,
    /// A chunk without a size, or whose end is missing.
    #[error("malformed chunk")]
    Chunk,
    /// Chunk extensions or trailers that are too long, or malformed.
    #[error("malformed trailers")]
    Trailers,
}

/// How the body of a message is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// There is none.
    None,
    /// So many octets, perhaps 0.
    Exact(u64),
    /// In chunks.
    Chunked,
    /// It ends with the connection; responses only.
    UntilClose,
}

/// What the fields of a head say of its body and its connection, noted while they are read.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// How many `Content-Length` there are, and what the last one says.
    lengths: usize,
    octets: Option<u64>,
    /// How many `Transfer-Encoding` there are, and whether the last one is `chunked` and nothing else.
    codings: usize,
    is_chunked: bool,
    close: bool,
    keep: bool,
    te: bool,
}

impl Said {
    fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        headers.iter().for_each(|(name, value)| said.note(name, value));
        said
    }

    fn note(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            let digits = value.to_str().ok().filter(|d| (1..=18).contains(&d.len()));
            let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            self.octets = digits.and_then(|d| d.parse().ok());
            self.lengths += 1;
        } else if *name == TRANSFER_ENCODING {
            self.is_chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
            self.codings += 1;
        } else if *name == CONNECTION {
            for token in value.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == TE {
            self.te = true;
        }
    }

    /// How the body is framed; `None` where nothing is said.
    fn length(&self, is_1_0: bool) -> Result<Option<Length>, Flaw> {
        match (self.lengths, self.codings) {
            (0, 0) => Ok(None),
            (0, 1) if self.is_chunked && !is_1_0 => Ok(Some(Length::Chunked)),
            (0, _) => Err(Flaw::Coding),
            (1, 0) => Ok(Some(Length::Exact(self.octets.ok_or(Flaw::Length)?))),
            (_, 0) => Err(Flaw::Length),
            _ => Err(Flaw::Both),
        }
    }

    /// Whether the sender means to go on (RFC 9112 section 9.3).
    const fn keeps(&self, is_1_0: bool) -> bool {
        !self.close && (self.keep || !is_1_0)
    }
}

#[cfg(test)]
mod tests;
