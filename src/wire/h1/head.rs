//! Heads: the end of one is found while it comes in, and once it is whole it is read into the `http` crate's types.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::{FIELDS, Flaw, HEAD_BYTES, Length, Said, TARGET_BYTES};
use crate::wire::head::takes_trailers;

/// Longest method that is told apart from nonsense.
const METHOD_BYTES: usize = 32;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of what; in origin form as a rule.
    pub target: Uri,
    /// HTTP/1.1 or 1.0.
    pub version: Version,
    /// As they came, names in lower case.
    pub headers: HeaderMap,
    /// How the body is framed.
    pub length: Length,
    /// Whether the client means to go on with this connection.
    pub keeps: bool,
    /// Whether it understands fields behind a body.
    pub takes_trailers: bool,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status: 100 to 999.
    pub status: StatusCode,
    /// As they came, names in lower case.
    pub headers: HeaderMap,
    /// How the body is framed.
    pub length: Length,
    /// Whether the server means to go on with this connection.
    pub keeps: bool,
}

/// Where the head in `buffer` ends, behind its empty line; `None` where more has to come. The first `seen` octets were
/// looked at before and hold no end.
///
/// # Errors
/// A line that does not end with CRLF; more than [`HEAD_BYTES`] without an end.
pub fn end(buffer: &[u8], seen: usize) -> Result<Option<usize>, Flaw> {
    // An end may have begun in what was seen: CRLF CR.
    let from = seen.saturating_sub(3).min(buffer.len());
    for at in memchr::memchr_iter(b'\n', &buffer[from..]).map(|at| from + at) {
        match &buffer[..at] {
            [.., b'\n', b'\r'] | [b'\r'] => {
                let end = at + 1;
                return if end > HEAD_BYTES { Err(Flaw::LongHead) } else { Ok(Some(end)) };
            }
            [.., b'\r'] => {}
            _ => return Err(Flaw::LineEnd),
        }
    }
    if buffer.len() >= HEAD_BYTES { Err(Flaw::LongHead) } else { Ok(None) }
}

/// Reads the head of a request, which [`end`] has found.
///
/// # Errors
/// What is wrong with it.
pub fn request(head: &Bytes) -> Result<Request, Flaw> {
    let mut lines = Lines { head, at: 0 };
    let first = lines.next()?.ok_or(Flaw::FirstLine)?;
    let line = &head[first.clone()];
    let method_end = memchr::memchr(b' ', line).ok_or(Flaw::FirstLine)?;
    let target_end = memchr::memrchr(b' ', line).filter(|&at| at > method_end).ok_or(Flaw::FirstLine)?;
    let version = version(&line[target_end + 1..])?;
    let target = &line[method_end + 1..target_end];
    if target.len() > TARGET_BYTES {
        return Err(Flaw::LongTarget);
    }
    // A second space would be part of the target to one reader and its end to another.
    // A fragment is not sent (RFC 9110 section 7.1): some would cut it off, others look for a file of that name.
    if target.is_empty() || !target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return Err(Flaw::Target);
    }
    let method = line.get(..method_end).filter(|m| m.len() <= METHOD_BYTES).ok_or(Flaw::FirstLine)?;
    let method = Method::from_bytes(method).map_err(|_| Flaw::FirstLine)?;
    if !has_form(target) && method != Method::CONNECT {
        return Err(Flaw::Target);
    }
    let target = head.slice(first.start + method_end + 1..first.start + target_end);
    let target = Uri::from_maybe_shared(target).map_err(|_| Flaw::Target)?;
    let (headers, said) = fields(lines)?;
    let is_1_0 = version == Version::HTTP_10;
    let length = said.length(is_1_0)?.unwrap_or(Length::None);
    let takes_trailers = said.te && takes_trailers(&headers);
    Ok(Request { method, target, version, headers, length, keeps: said.keeps(is_1_0), takes_trailers })
}

/// Whether a target is in origin, absolute or asterisk form (RFC 9112 section 3.2); a host alone is one for CONNECT only.
fn has_form(target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    target.starts_with(b"/") || target == b"*" || begins(b"http://") || begins(b"https://")
}

/// Reads the head of a response to a request with `method`, which [`end`] has found.
///
/// # Errors
/// What is wrong with it.
pub fn response(head: &Bytes, method: &Method) -> Result<Response, Flaw> {
    let mut lines = Lines { head, at: 0 };
    let first = lines.next()?.ok_or(Flaw::FirstLine)?;
    let line = &head[first];
    // The reason, and the space before it, may be missing (RFC 9112 section 4 wants the space; nobody misses it).
    let (version_said, rest) = line.split_at_checked(8).ok_or(Flaw::FirstLine)?;
    let version = version(version_said)?;
    let status = match rest {
        [b' ', status @ ..] if status.len() == 3 || status.get(3) == Some(&b' ') => &status[..3],
        _ => return Err(Flaw::FirstLine),
    };
    if rest.iter().any(|&b| b < b' ' && b != b'\t' || b == 0x7f) {
        return Err(Flaw::FirstLine);
    }
    let status = StatusCode::from_bytes(status).map_err(|_| Flaw::FirstLine)?;
    let (headers, said) = fields(lines)?;
    let is_1_0 = version == Version::HTTP_10;
    let framed = said.length(is_1_0)?;
    // RFC 9112 section 6.3.
    let has_none = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = if has_none { Length::None } else { framed.unwrap_or(Length::UntilClose) };
    let keeps = said.keeps(is_1_0) && length != Length::UntilClose;
    Ok(Response { status, headers, length, keeps })
}

/// Reads trailers: fields up to an empty line, and nothing else.
pub(super) fn trailers(head: &Bytes) -> Result<HeaderMap, Flaw> {
    fields(Lines { head, at: 0 }).map(|(fields, _)| fields)
}

fn version(said: &[u8]) -> Result<Version, Flaw> {
    match said {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Flaw::Version)
        }
        _ => Err(Flaw::FirstLine),
    }
}

fn fields(mut lines: Lines<'_>) -> Result<(HeaderMap, Said), Flaw> {
    let mut said = Said::default();
    let mut headers = HeaderMap::with_capacity(memchr::memchr_iter(b'\n', lines.head).count().min(FIELDS));
    while let Some(at) = lines.next()? {
        let line = &lines.head[at.clone()];
        if line.is_empty() {
            return Ok((headers, said));
        }
        if headers.len() >= FIELDS {
            return Err(Flaw::ManyFields);
        }
        let colon = memchr::memchr(b':', line).ok_or(Flaw::Field)?;
        // Token characters only: neither a space before the colon nor a folded line passes.
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Flaw::Field)?;
        let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
        let value = &line[colon + 1..];
        let start = value.iter().position(|b| !is_blank(b)).unwrap_or(value.len());
        let end = value.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
        let offset = at.start + colon + 1;
        // Control characters but tab are refused here.
        let value = HeaderValue::from_maybe_shared(lines.head.slice(offset + start..offset + end));
        let value = value.map_err(|_| Flaw::Field)?;
        said.note(&name, &value);
        headers.try_append(name, value).map_err(|_| Flaw::ManyFields)?;
    }
    Err(Flaw::Field)
}

/// The lines of a head, without their ends.
struct Lines<'h> {
    head: &'h Bytes,
    at: usize,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<std::ops::Range<usize>>, Flaw> {
        let Some(rest) = self.head.get(self.at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
        let length = memchr::memchr(b'\n', rest).ok_or(Flaw::LineEnd)?;
        if length == 0 || rest[length - 1] != b'\r' {
            return Err(Flaw::LineEnd);
        }
        let line = self.at..self.at + length - 1;
        self.at += length + 1;
        Ok(Some(line))
    }
}
