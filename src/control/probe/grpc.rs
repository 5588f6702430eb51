//! The gRPC probe: `grpc.health.v1.Health/Check` answers SERVING (gRPC Health Checking Protocol, grpc/grpc
//! doc/health-checking.md; framing and trailers: doc/PROTOCOL-HTTP2.md).
//!
//! One message of one field each way, so it is coded by hand. What is not SERVING is reported in HTTP's words, by the
//! mapping of google/rpc/code.proto: NOT_SERVING is 503, an unknown service 404, UNIMPLEMENTED 501.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::http::over_http2;
use super::{Answer, MAX_BODY_BYTES, Trouble, open};
use crate::config::UpstreamTls;
use crate::snapshot::health::ProbeFailure;
use crate::snapshot::topology::{Assets, Target};

const PATH: &str = "/grpc.health.v1.Health/Check";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GARBAGE: Trouble = Trouble::Failed(ProbeFailure::Garbage);

pub(super) async fn ask(target: &Target, service: &str, tls: Option<&UpstreamTls>, assets: &Assets) -> Answer {
    let request = request(target, service, tls).ok_or(Trouble::Unasked)?;
    over_http2(open(target, tls, assets, b"h2").await?, request, judge).await
}

fn request(target: &Target, service: &str, tls: Option<&UpstreamTls>) -> Option<Request<Full<Bytes>>> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let authority = tls.map_or_else(|| target.address.to_string(), |tls| tls.name.clone());
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(PATH).build().ok()?;
    Request::post(uri)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(USER_AGENT, super::USER_AGENT)
        .body(Full::new(question(service)))
        .ok()
}

async fn judge(response: Response<Incoming>) -> Answer {
    if response.status() != StatusCode::OK {
        return Err(Trouble::Failed(ProbeFailure::Status(response.status().as_u16())));
    }
    // "Trailers-only": an error without a message says so in the head.
    let (head, mut body) = response.into_parts();
    if let Some(verdict) = status(&head.headers) {
        verdict?;
    }
    let mut message = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| Trouble::behind(&e))?.into_data() {
            Ok(data) if message.len() + data.len() <= MAX_BODY_BYTES => message.extend_from_slice(&data),
            Ok(_) => return Err(GARBAGE),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    trailers.as_ref().and_then(status).unwrap_or(Err(GARBAGE))?;
    match serving(&message) {
        Some(ServingStatus::Serving) => Ok(()),
        Some(ServingStatus::ServiceUnknown) => Err(Trouble::Failed(ProbeFailure::Status(404))),
        Some(ServingStatus::Unknown | ServingStatus::NotServing) => Err(Trouble::Failed(ProbeFailure::Status(503))),
        None => Err(GARBAGE),
    }
}

/// What `grpc-status` says, where it is there.
fn status(headers: &HeaderMap) -> Option<Answer> {
    let code = headers.get(GRPC_STATUS)?;
    Some(match code.to_str().ok().and_then(|code| code.parse::<u8>().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Trouble::Failed(ProbeFailure::Status(as_http(code)))),
        None => Err(GARBAGE),
    })
}

/// The HTTP status that google/rpc/code.proto gives beside each gRPC code.
const fn as_http(code: u8) -> u16 {
    match code {
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServingStatus {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

/// A `HealthCheckRequest { string service = 1; }` in its frame: not compressed, length, message.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

/// The status in a framed `HealthCheckResponse { ServingStatus status = 1; }`; `None` where it is no such thing. Fields
/// that we don't know are skipped, the last of several counts, and an enum value of a later day is UNKNOWN.
fn serving(framed: &[u8]) -> Option<ServingStatus> {
    let (head, message) = framed.split_first_chunk::<5>()?;
    let [compressed, length @ ..] = *head;
    if compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = varint(&mut rest)?,
            (0, _) => return None,
            (_, 0) => drop(varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(match status {
        1 => ServingStatus::Serving,
        2 => ServingStatus::NotServing,
        3 => ServingStatus::ServiceUnknown,
        _ => ServingStatus::Unknown,
    })
}

fn put_varint(into: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        into.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    into.put_u8(value as u8);
}

/// Takes a varint of at most ten bytes off the front.
fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_question_is_framed_as_the_protocol_says() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn answers_are_read_with_fields_of_later_days() {
        let answer = |message: &[u8]| {
            let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            framed.extend_from_slice(message);
            serving(&framed)
        };
        assert_eq!(answer(&[]), Some(ServingStatus::Unknown));
        assert_eq!(answer(&[0x08, 1]), Some(ServingStatus::Serving));
        assert_eq!(answer(&[0x08, 2]), Some(ServingStatus::NotServing));
        assert_eq!(answer(&[0x08, 3]), Some(ServingStatus::ServiceUnknown));
        assert_eq!(answer(&[0x12, 2, 9, 9, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 1]), Some(ServingStatus::Serving));
        assert_eq!(answer(&[0x08]), None, "cut short");
        assert_eq!(answer(&[0x12, 200, 1]), None, "a length beyond the end");
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed, though we offered no compression");
        assert_eq!(serving(&[0, 0, 0, 0, 9, 8, 1]), None, "a frame cut short");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = serving(&bytes);
            let mut framed = vec![0, 0, 0, 0, bytes.len() as u8];
            framed.extend_from_slice(&bytes);
            let _ = serving(&framed);
        }

        #[test]
        fn varints_come_back(value in any::<u64>()) {
            let mut bytes = BytesMut::new();
            put_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
