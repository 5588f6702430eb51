//! One cookie out of a request's `Cookie` fields (RFC 6265 section 5.4), by name, without allocating.

use http::{HeaderMap, header};

/// The value of cookie `name`: the first one, without the quotes around it. HTTP/2 may split cookies over several fields
/// (RFC 9113 section 8.2.3).
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|&b| b == b';'));
    pairs.find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=')?;
        let (key, value) = pair.split_at(at);
        (key.trim_ascii() == name.as_bytes()).then(|| unquoted(value.get(1..).unwrap_or_default().trim_ascii()))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", "uid2=x; uid=42;  theme=\"dark\"; empty=; bare; eq=a=b".parse().unwrap());
        headers.append("cookie", "late=1; uid=43".parse().unwrap());
        let get = |name| find(&headers, name);
        assert_eq!(get("uid"), Some(&b"42"[..]));
        assert_eq!(get("theme"), Some(&b"dark"[..]));
        assert_eq!(get("empty"), Some(&b""[..]));
        assert_eq!(get("eq"), Some(&b"a=b"[..]));
        assert_eq!(get("late"), Some(&b"1"[..]));
        assert_eq!((get("bare"), get("UID"), get("id")), (None, None, None));
        assert_eq!(find(&HeaderMap::new(), "uid"), None);
    }
}
