//! In which coding a file goes out, where it lies there in several (RFC 9110 section 12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use smallvec::SmallVec;

use crate::config::Coding;

/// Members of `Accept-Encoding` that are looked at (ours).
const MEMBERS: usize = 32;

/// Codings to be tried in this order before the file itself.
pub type Codings = SmallVec<[Coding; 3]>;

/// Which of `offered` (the best first) a client prefers to the file itself.
pub fn choose(headers: &HeaderMap, offered: &[Coding]) -> Codings {
    let mut chosen = Codings::new();
    if offered.is_empty() || !headers.contains_key(ACCEPT_ENCODING) {
        return chosen;
    }
    let plain = weight(headers, "identity").unwrap_or(0);
    let wishes = offered.iter().map(|coding| (weight(headers, coding.as_str()).unwrap_or(0), *coding));
    let mut wishes: SmallVec<[(u32, Coding); 3]> = wishes.filter(|(q, _)| *q > 0 && *q >= plain).collect();
    // A stable sort: of those that are wanted as much, the best first.
    wishes.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
    chosen.extend(wishes.into_iter().map(|(_, coding)| coding));
    chosen
}

/// How much `coding` is wanted, in thousandths; `None`: nothing is said of it. For `identity`, `*` says nothing.
fn weight(headers: &HeaderMap, coding: &str) -> Option<u32> {
    let (mut own, mut any) = (None, None);
    let fields = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    for member in fields.flat_map(|field| field.split(',')).take(MEMBERS) {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let name = name.strip_prefix("x-").unwrap_or(name);
        let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let q = q.map_or(1_000, thousandths);
        if name.eq_ignore_ascii_case(coding) {
            own = own.or(Some(q));
        } else if name == "*" {
            any = any.or(Some(q));
        }
    }
    own.or(any.filter(|_| coding != "identity"))
}

/// A weight (RFC 9110 section 12.4.2); what is none is 0.
fn thousandths(q: &str) -> u32 {
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    match whole {
        "1" => 1_000,
        "0" if is_number => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 3] = [Coding::Br, Coding::Zstd, Coding::Gzip];

    fn chosen(accept: &str) -> Vec<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        choose(&headers, &ALL).iter().map(|c| c.as_str()).collect()
    }

    #[test]
    fn the_client_chooses_and_then_we_do() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", &["br", "zstd", "gzip"][..]),
            ("gzip", &["gzip"]),
            ("x-gzip", &["gzip"]),
            ("GZIP;q=0.5, br;q=0.4", &["gzip", "br"]),
            ("gzip;q=0, *", &["br", "zstd"]),
            ("*;q=0", &[]),
            ("identity", &[]),
            ("identity, gzip;q=0.5", &[]),
            ("identity;q=0.5, gzip", &["gzip"]),
            ("identity;q=0, gzip", &["gzip"]),
            ("gzip;q=1.000;x=y", &["gzip"]),
            ("gzip;q=nonsense, br; q=0.001", &["br"]),
            ("", &[]),
        ] {
            assert_eq!(chosen(accept), expected, "{accept}");
        }
        assert!(choose(&HeaderMap::new(), &ALL).is_empty(), "who says nothing gets the file itself");
    }

    proptest! {
        #[test]
        fn whatever_is_said_only_what_is_offered_comes_once(accept in "[a-z*;=, .0-9]{0,60}") {
            let chosen = chosen(&accept);
            let mut once = chosen.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), chosen.len());
        }
    }
}
