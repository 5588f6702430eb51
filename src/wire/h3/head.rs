//! Heads: a field section read into the `http` crate's types, and a response's head written as one.
//!
//! What RFC 9114 section 4.1.2 calls malformed is never handed on: names with capitals, fields of a connection, pseudo-fields
//! that are missing, doubled, unknown or late. Whether `Host` and `:authority` agree is for `wire::host`, as with HTTP/2.

use bytes::Bytes;
use http::header::{self, CONTENT_LENGTH, DATE, HeaderName, HeaderValue, TE};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::qpack::{self, Field, Section, Unread};
use crate::wire::h1::{FIELDS, TARGET_BYTES};
use crate::wire::host;

/// Longest method that is told apart from nonsense.
const METHOD_BYTES: usize = 32;

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of what, with scheme and authority where that was said.
    pub target: Uri,
    /// As they came.
    pub headers: HeaderMap,
    /// How many octets the body has, where that is said.
    pub length: Option<u64>,
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It cannot be decompressed: the connection cannot go on.
    #[error("a head that cannot be decompressed")]
    Compression,
    /// It is larger than [`HEAD_BYTES`](crate::wire::h1::HEAD_BYTES), counted as RFC 9114 section 4.2.2 does.
    #[error("the head is too long")]
    LongHead,
    /// More than [`FIELDS`] fields.
    #[error("too many fields")]
    ManyFields,
    /// The path is longer than [`TARGET_BYTES`].
    #[error("the target is too long")]
    LongTarget,
    /// A pseudo-field that is missing, unknown, doubled, behind other fields, or of the other direction.
    #[error("missing, unknown or misplaced pseudo-field")]
    Pseudo,
    /// A method that is no token, a scheme that is not HTTP's, a path that is none.
    #[error("malformed target")]
    Target,
    /// An authority that is no host.
    #[error("malformed authority")]
    Host,
    /// A name with capitals or other characters than a token's; a value with control characters or space around it.
    #[error("malformed field")]
    Field,
    /// A field that means something to a connection of HTTP/1 only.
    #[error("a field of a connection")]
    Connection,
    /// `Content-Length` that is not one number.
    #[error("malformed or repeated Content-Length")]
    Length,
}

impl From<Unread> for Flaw {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Broken => Self::Compression,
            Unread::Large => Self::LongHead,
            Unread::Many => Self::ManyFields,
        }
    }
}

/// Reads the head of a request.
///
/// # Errors
/// What is wrong with it.
pub fn request(section: &[u8]) -> Result<Request, Flaw> {
    let section = Section::read(section)?;
    let (mut pseudo, mut fields) = (Pseudo::default(), Fields::default());
    for field in section.fields() {
        match field.name() {
            [b':', name @ ..] if fields.map.is_empty() => pseudo.note(name, field)?,
            _ => fields.note(field)?,
        }
    }
    let (method, target) = pseudo.target(&fields.map)?;
    Ok(Request { method, target, headers: fields.map, length: fields.length })
}

/// Reads fields behind a body.
///
/// # Errors
/// What is wrong with them.
pub fn trailers(section: &[u8]) -> Result<HeaderMap, Flaw> {
    let section = Section::read(section)?;
    let mut fields = Fields::default();
    section.fields().try_for_each(|field| fields.note(field))?;
    Ok(fields.map)
}

/// The pseudo-fields of a request (RFC 9114 section 4.3.1).
#[derive(Default)]
struct Pseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
}

impl Pseudo {
    fn note(&mut self, name: &[u8], field: Field<'_>) -> Result<(), Flaw> {
        let is_first = match name {
            b"method" => {
                let method = Some(field.value()).filter(|m| m.len() <= METHOD_BYTES).ok_or(Flaw::Target)?;
                self.method.replace(Method::from_bytes(method).map_err(|_| Flaw::Target)?).is_none()
            }
            b"scheme" => {
                let scheme = match field.value() {
                    b"https" => Scheme::HTTPS,
                    b"http" => Scheme::HTTP,
                    _ => return Err(Flaw::Target),
                };
                self.scheme.replace(scheme).is_none()
            }
            b"authority" => self.authority.replace(field.shared()).is_none(),
            b"path" => self.path.replace(field.shared()).is_none(),
            // `:protocol` too (RFC 9220): it has to be offered before it is used.
            _ => return Err(Flaw::Pseudo),
        };
        if is_first { Ok(()) } else { Err(Flaw::Pseudo) }
    }

    fn target(self, headers: &HeaderMap) -> Result<(Method, Uri), Flaw> {
        let method = self.method.ok_or(Flaw::Pseudo)?;
        let authority = self.authority.map(|said| {
            let text = std::str::from_utf8(&said).map_err(|_| Flaw::Host)?;
            host::parse(text).map_err(|_| Flaw::Host)?;
            Authority::from_maybe_shared(said).map_err(|_| Flaw::Host)
        });
        let authority = authority.transpose()?;
        let mut parts = uri::Parts::default();
        if method == Method::CONNECT {
            // RFC 9114 section 4.4: a host and a port, and nothing else.
            if self.scheme.is_some() || self.path.is_some() || authority.is_none() {
                return Err(Flaw::Pseudo);
            }
            parts.authority = authority;
        } else {
            let (scheme, path) = self.scheme.zip(self.path).ok_or(Flaw::Pseudo)?;
            if authority.is_none() && !headers.contains_key(header::HOST) {
                return Err(Flaw::Pseudo);
            }
            // Without an authority a URI has no place for a scheme.
            parts.scheme = authority.is_some().then_some(scheme);
            parts.authority = authority;
            parts.path_and_query = Some(path_of(path, &method)?);
        }
        let target = Uri::from_parts(parts).map_err(|_| Flaw::Target)?;
        Ok((method, target))
    }
}

fn path_of(path: Bytes, method: &Method) -> Result<PathAndQuery, Flaw> {
    if path.len() > TARGET_BYTES {
        return Err(Flaw::LongTarget);
    }
    // A fragment is not sent (RFC 9110 section 7.1): some would cut it off, others look for a file of that name.
    let is_clean = path.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    let is_path = path.first() == Some(&b'/') || *method == Method::OPTIONS && path == "*";
    if !is_clean || !is_path {
        return Err(Flaw::Target);
    }
    PathAndQuery::from_maybe_shared(path).map_err(|_| Flaw::Target)
}

/// The other fields.
#[derive(Default)]
struct Fields {
    map: HeaderMap,
    length: Option<u64>,
}

impl Fields {
    fn note(&mut self, field: Field<'_>) -> Result<(), Flaw> {
        if self.map.len() == FIELDS {
            return Err(Flaw::ManyFields);
        }
        if field.name().starts_with(b":") {
            return Err(Flaw::Pseudo);
        }
        let name = HeaderName::from_lowercase(field.name()).map_err(|_| Flaw::Field)?;
        if is_of_connection(&name) || name == TE && field.value() != b"trailers" {
            return Err(Flaw::Connection);
        }
        // RFC 9110 section 5.5: space around a value is no part of it, so whoever sends it means mischief.
        let is_blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
        if is_blank(field.value().first()) || is_blank(field.value().last()) {
            return Err(Flaw::Field);
        }
        if name == CONTENT_LENGTH {
            let digits = std::str::from_utf8(field.value()).ok().filter(|d| (1..=18).contains(&d.len()));
            let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
            let length = digits.and_then(|d| d.parse().ok()).ok_or(Flaw::Length)?;
            if self.length.replace(length).is_some() {
                return Err(Flaw::Length);
            }
        }
        let mut value = HeaderValue::from_maybe_shared(field.shared()).map_err(|_| Flaw::Field)?;
        value.set_sensitive(field.is_sensitive);
        self.map.try_append(name, value).map_err(|_| Flaw::ManyFields)?;
        Ok(())
    }
}

/// RFC 9114 section 4.2.
fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Writes the field section of a response. `length` is what the body has, where that is known and not said by a field;
/// `date` stands where no field says one.
pub fn put_response(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, length: Option<u64>, date: &[u8]) {
    qpack::begin(out);
    qpack::put_status(out, status);
    put_fields(out, headers);
    if let Some(octets) = length.filter(|_| !headers.contains_key(CONTENT_LENGTH)) {
        qpack::put(out, CONTENT_LENGTH.as_str(), &HeaderValue::from(octets));
    }
    if !headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_bytes(date)
    {
        qpack::put(out, DATE.as_str(), &date);
    }
}

/// Writes the field section of a head before the head (RFC 9110 section 15.2).
pub fn put_interim(out: &mut Vec<u8>, status: StatusCode) {
    qpack::begin(out);
    qpack::put_status(out, status);
}

/// Writes the field section of trailers.
pub fn put_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    qpack::begin(out);
    put_fields(out, trailers);
}

fn put_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        if !is_of_connection(name) {
            qpack::put(out, name.as_str(), value);
        }
    }
}
