//! The handshake of WebSocket (RFC 6455 section 4), as far as who stands between has to know it.
//!
//! Over HTTP/2 (RFC 8441) there is no key and no proof; towards a backend that speaks HTTP/1 we ask with a key of our own, and
//! its answer has to prove that it has read it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::text::base64;

/// What is hashed behind the key (RFC 6455 section 1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key` of these random bits.
pub fn key(high: u64, low: u64) -> String {
    base64(&[high.to_be_bytes(), low.to_be_bytes()].concat())
}

/// The `Sec-WebSocket-Accept` that proves that somebody has read `key`.
pub fn accept(key: &[u8]) -> String {
    base64(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC].concat()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_has_an_example() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key(0, 0), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(key(u64::MAX, 1).len(), 24);
    }
}
