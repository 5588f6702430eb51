//! How long a request may take, and what the next hop is told about it.
//!
//! The route's limit, or else the service's; a client may shorten it (`X-Deadline-Ms`, `grpc-timeout`), never lengthen it.
//! Deadlines travel as what remains, never as a point in time: clocks differ. EDGE 3h.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// What remains for the whole request, in milliseconds.
pub const X_DEADLINE_MS: HeaderName = HeaderName::from_static("x-deadline-ms");
/// The same, gRPC's way.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What a hop keeps for itself of what it passes on.
const KEPT: Duration = Duration::from_millis(5);

/// How long a request may take, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// In all, retries included, from the moment when its head was read.
    pub budget: Duration,
    /// Who said so.
    pub by: By,
}

/// Who set a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The service.
    Service,
    /// The route.
    Route,
    /// The client, who wants it sooner than we ask. When such a deadline passes it says nothing about the backend: record
    /// the try as cancelled, or a client that asks for 1 ms could get every backend ejected.
    Client,
}

impl By {
    /// The word for it in logs and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Route => "route",
            Self::Client => "client",
        }
    }
}

/// The deadline of a request with `headers`, on a route with (`route`) or without a limit of its own, to a service with
/// the limit `service`.
pub fn deadline(route: Option<Duration>, service: Duration, headers: &HeaderMap) -> Deadline {
    let ours = match route {
        Some(budget) => Deadline { budget, by: By::Route },
        None => Deadline { budget: service, by: By::Service },
    };
    let asked = [headers.get(X_DEADLINE_MS).and_then(millis), headers.get(GRPC_TIMEOUT).and_then(grpc)];
    match asked.into_iter().flatten().min() {
        Some(budget) if budget < ours.budget => Deadline { budget, by: By::Client },
        _ => ours,
    }
}

/// What `remaining` leaves the next hop, in milliseconds: 5 less, at least 1.
pub fn left_ms(remaining: Duration) -> u64 {
    u64::try_from(remaining.saturating_sub(KEPT).as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Tells the next hop what `remaining` leaves it. `grpc-timeout` is rewritten where it stands.
pub fn pass_on(headers: &mut HeaderMap, remaining: Duration) {
    let left = left_ms(remaining);
    headers.insert(X_DEADLINE_MS, HeaderValue::from(left));
    if headers.contains_key(GRPC_TIMEOUT)
        && let Ok(value) = HeaderValue::try_from(format!("{}m", left.min(99_999_999)))
    {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

fn millis(value: &HeaderValue) -> Option<Duration> {
    digits(value.to_str().ok()?, 10).map(Duration::from_millis)
}

/// `grpc-timeout`: at most eight digits and a unit ("gRPC over HTTP2", Requests).
fn grpc(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits(number, 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3_600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// At most `most` digits and nothing else; `u64::from_str` would take a sign.
fn digits(text: &str, most: usize) -> Option<u64> {
    (text.len() <= most && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    type Pairs<'a> = &'a [(&'static str, &'a str)];

    fn headers(pairs: Pairs<'_>) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_client_may_shorten_and_never_lengthen() {
        let cases: &[(Pairs<'_>, u64, By)] = &[
            (&[], 1_000, By::Service),
            (&[("x-deadline-ms", "250")], 250, By::Client),
            (&[("x-deadline-ms", "5000")], 1_000, By::Service),
            (&[("grpc-timeout", "100m")], 100, By::Client),
            (&[("grpc-timeout", "1H")], 1_000, By::Service),
            (&[("x-deadline-ms", "300"), ("grpc-timeout", "200m")], 200, By::Client),
        ];
        for (pairs, ms, by) in cases {
            let got = deadline(None, SECOND, &headers(pairs));
            assert_eq!(got, Deadline { budget: Duration::from_millis(*ms), by: *by }, "{pairs:?}");
        }
        let route = deadline(Some(3 * SECOND), SECOND, &headers(&[]));
        assert_eq!(route, Deadline { budget: 3 * SECOND, by: By::Route });
    }

    #[test]
    fn nonsense_is_no_deadline() {
        for bad in ["", "-1", "+5", "1.5", "1e3", "99999999999", " 5", "5ms"] {
            assert_eq!(deadline(None, SECOND, &headers(&[("x-deadline-ms", bad)])).by, By::Service, "{bad:?}");
        }
        for bad in ["", "m", "100", "123456789m", "-1m", "1x", "1 m"] {
            assert_eq!(deadline(None, SECOND, &headers(&[("grpc-timeout", bad)])).by, By::Service, "{bad:?}");
        }
    }

    #[test]
    fn the_next_hop_is_told_less_than_we_have() {
        let mut map = headers(&[("x-deadline-ms", "900"), ("grpc-timeout", "1S")]);
        pass_on(&mut map, Duration::from_millis(700));
        assert_eq!((map["x-deadline-ms"].as_bytes(), map["grpc-timeout"].as_bytes()), (&b"695"[..], &b"695m"[..]));
        let mut map = headers(&[]);
        pass_on(&mut map, Duration::from_millis(2));
        assert_eq!(map["x-deadline-ms"], "1");
        assert!(!map.contains_key("grpc-timeout"));
    }
}
