//! The response that a file makes: its head, and how much of it goes out.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, LAST_MODIFIED, RANGE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::Readers;
use super::body::{self, Pieces};
use super::shelf::{Content, Copy, Shelf};
use crate::base::clock::Wall;
use crate::decide::files::conditions::{self, Current, Fate};
use crate::decide::files::range::{self, Part, Ranges};
use crate::proxy::download::Out;
use crate::wire::date;

/// How a request for a file was answered: the label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Whole,
    Part,
    NotModified,
    Failed,
    Unsatisfiable,
    Folder,
    Missing,
}

impl How {
    pub(super) const ALL: [Self; 7] =
        [Self::Whole, Self::Part, Self::NotModified, Self::Failed, Self::Unsatisfiable, Self::Folder, Self::Missing];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
            Self::NotModified => "not_modified",
            Self::Failed => "precondition_failed",
            Self::Unsatisfiable => "unsatisfiable",
            Self::Folder => "folder",
            Self::Missing => "missing",
        }
    }
}

/// Answers the request with `head` with `copy`. `boundary`: something random.
pub(super) fn answer(
    shelf: &Shelf,
    head: &Parts,
    copy: &Copy,
    now: Wall,
    boundary: u64,
    readers: &Readers,
) -> Response<Out> {
    let mut response = Response::new(Out::full(Bytes::new()));
    *response.status_mut() = copy.status;
    described(shelf, copy, now, response.headers_mut());
    // Conditions and ranges are for what is there (RFC 9110 section 13.2.1).
    if copy.status != StatusCode::OK {
        response.headers_mut().remove(ACCEPT_RANGES);
        shelf.count(How::Missing);
        return whole(response, head, copy, readers);
    }
    let current = Current { etag: copy.volume.etag.as_bytes(), modified: copy.volume.modified };
    match conditions::judge(&head.headers, &current) {
        Fate::Send => {}
        Fate::NotModified => {
            shelf.count(How::NotModified);
            return without(response, StatusCode::NOT_MODIFIED);
        }
        Fate::Failed => {
            shelf.count(How::Failed);
            return without(response, StatusCode::PRECONDITION_FAILED);
        }
    }
    let range = head.headers.get(RANGE).filter(|_| head.method == Method::GET);
    let range = range.filter(|_| conditions::may_send_parts(&head.headers, &current, now));
    match range.map_or(Ranges::Whole, |range| range::ranges(range.as_bytes(), copy.volume.length)) {
        Ranges::Whole => {
            shelf.count(How::Whole);
            whole(response, head, copy, readers)
        }
        Ranges::Unsatisfiable => {
            shelf.count(How::Unsatisfiable);
            let length = format!("bytes */{}", copy.volume.length);
            response.headers_mut().insert(CONTENT_RANGE, value(length));
            without(response, StatusCode::RANGE_NOT_SATISFIABLE)
        }
        Ranges::Parts(parts) => {
            shelf.count(How::Part);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            match parts.as_slice() {
                [part] => single(response, copy, *part, readers),
                parts => several(response, copy, parts, boundary, readers),
            }
        }
    }
}

/// What is said of a file, however much of it is sent.
fn described(shelf: &Shelf, copy: &Copy, now: Wall, headers: &mut HeaderMap) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(copy.kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(ETAG, copy.volume.etag.clone());
    // Not later than now (RFC 9110 section 8.8.2.1).
    let modified = date::http(copy.volume.modified.min(now));
    headers.insert(LAST_MODIFIED, HeaderValue::from_bytes(&modified).unwrap_or(HeaderValue::from_static("")));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(coding) = copy.coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    }
    if !shelf.files.precompressed.is_empty() {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    let said = shelf.files.cache_control.as_ref().filter(|_| copy.status == StatusCode::OK);
    if let Some(said) = said.and_then(|said| HeaderValue::from_str(said).ok()) {
        headers.insert(CACHE_CONTROL, said);
    }
}

/// A response that says something of a file and sends nothing of it.
fn without(mut response: Response<Out>, status: StatusCode) -> Response<Out> {
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.remove(CONTENT_ENCODING);
    if status != StatusCode::NOT_MODIFIED {
        headers.remove(ETAG);
        headers.remove(LAST_MODIFIED);
        headers.remove(CACHE_CONTROL);
    }
    response
}

fn whole(mut response: Response<Out>, head: &Parts, copy: &Copy, readers: &Readers) -> Response<Out> {
    if head.method == Method::HEAD {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(copy.volume.length));
        return response;
    }
    *response.body_mut() = match (&copy.volume.content, copy.volume.length.checked_sub(1)) {
        (_, None) => return response,
        (Content::Kept(octets), _) => Out::full(octets.clone()),
        (content @ Content::File(..), Some(last)) => parts_of(content, Part { first: 0, last }, readers),
    };
    response
}

fn single(mut response: Response<Out>, copy: &Copy, part: Part, readers: &Readers) -> Response<Out> {
    let said = format!("bytes {}-{}/{}", part.first, part.last, copy.volume.length);
    response.headers_mut().insert(CONTENT_RANGE, value(said));
    *response.body_mut() = match &copy.volume.content {
        Content::Kept(octets) => Out::full(body::slice(octets, part)),
        content @ Content::File(..) => parts_of(content, part, readers),
    };
    response
}

/// Several parts in one body (RFC 9110 section 14.6).
fn several(
    mut response: Response<Out>,
    copy: &Copy,
    parts: &[Part],
    boundary: u64,
    readers: &Readers,
) -> Response<Out> {
    let boundary = format!("{boundary:016x}");
    let mut pieces = Pieces::of(&copy.volume.content, readers);
    for part in parts {
        let (kind, Part { first, last }, length) = (copy.kind, *part, copy.volume.length);
        let head =
            format!("\r\n--{boundary}\r\ncontent-type: {kind}\r\ncontent-range: bytes {first}-{last}/{length}\r\n\r\n");
        pieces.push(Bytes::from(head));
        pieces.push_part(&copy.volume.content, *part);
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let kind = format!("multipart/byteranges; boundary={boundary}");
    response.headers_mut().insert(CONTENT_TYPE, value(kind));
    *response.body_mut() = Out::boxed(pieces.boxed_unsync());
    response
}

fn parts_of(content: &Content, part: Part, readers: &Readers) -> Out {
    let mut pieces = Pieces::of(content, readers);
    pieces.push_part(content, part);
    Out::boxed(pieces.boxed_unsync())
}

/// Text of ours as a field.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
