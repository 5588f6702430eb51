//! What carries a client's seat: read from a request, written into a response that comes from another backend.
//!
//! A seat is sixteen hexadecimal digits, a hash: it says nothing of addresses to who does not know them already, and a forged
//! one leads to a backend of the same service or nowhere.

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Session;
use crate::wire::cookie;

/// The seat that a request names.
pub(super) fn read(session: &Session, headers: &HeaderMap) -> Option<u64> {
    let said = match session {
        Session::Cookie(name) => cookie::find(headers, name)?,
        Session::Header(name) => headers.get(name)?.as_bytes(),
    };
    let digits =
        std::str::from_utf8(said).ok().filter(|s| s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}

/// Tells the client its `seat`. A cookie is for the whole site, for the browser's session, out of reach of scripts and of other
/// sites' forms; where the client came by TLS, for TLS alone. Caches between must not give it to somebody else (RFC 9111
/// section 7.3).
pub(super) fn write(session: &Session, seat: u64, is_tls: bool, headers: &mut HeaderMap) {
    match session {
        Session::Cookie(name) => {
            let secure = if is_tls { "; Secure" } else { "" };
            let cookie = format!("{name}={seat:016x}; Path=/{secure}; HttpOnly; SameSite=Lax");
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                headers.append(SET_COOKIE, cookie);
                headers.append(CACHE_CONTROL, HeaderValue::from_static("no-cache=\"set-cookie\""));
            }
        }
        Session::Header(name) => {
            if let (Ok(name), Ok(seat)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(format!("{seat:016x}")))
            {
                headers.insert(name, seat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_seat_is_none() {
        let session = Session::Header("x-seat".into());
        for bad in ["", "1", "00000000000000000", "+000000000000001", "zzzzzzzzzzzzzzzz", "0x00000000000001"] {
            let headers = [(HeaderName::from_static("x-seat"), bad.parse().unwrap())].into_iter().collect();
            assert_eq!(read(&session, &headers), None, "{bad:?}");
        }
        assert_eq!(read(&session, &HeaderMap::new()), None);
    }

    #[test]
    fn a_cookie_has_all_its_attributes() {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_static("own=1"));
        write(&Session::Cookie("seat".into()), 0xab, true, &mut headers);
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["own=1", "seat=00000000000000ab; Path=/; Secure; HttpOnly; SameSite=Lax"]);
        assert_eq!(headers[CACHE_CONTROL], "no-cache=\"set-cookie\"");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seat: u64, is_tls: bool) {
            let mut response = HeaderMap::new();
            write(&Session::Cookie("seat".into()), seat, is_tls, &mut response);
            let pair = response[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
            let request = [(http::header::COOKIE, pair.parse().unwrap())].into_iter().collect();
            prop_assert_eq!(read(&Session::Cookie("seat".into()), &request), Some(seat));
            let mut response = HeaderMap::new();
            write(&Session::Header("x-seat".into()), seat, is_tls, &mut response);
            prop_assert_eq!(read(&Session::Header("x-seat".into()), &response), Some(seat));
        }
    }
}
