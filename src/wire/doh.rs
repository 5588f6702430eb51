//! What DNS over HTTPS adds to a message (RFC 8484): the query in a URL, and for how long an answer may be cached.
//!
//! Pure. Refuses what is not to the letter: one spelling of a query is one entry in every cache on the way.

use super::dns::{Record, rtype, sections};

/// Octets of SOA data behind its two names: five numbers of 32 bits.
const SOA_NUMBERS: usize = 20;

/// The value of `dns` in a URL's query; `None` where there is none, or more than one.
pub fn parameter(query: &str) -> Option<&str> {
    let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("dns="));
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The octets of `text`: base64 with the alphabet for URLs and without padding (RFC 4648 section 5, RFC 8484 section 4.1).
/// `None` where a character is foreign, the length impossible, or bits are set that belong to no octet.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let mut chunks = text.as_bytes().chunks_exact(4);
    for chunk in chunks.by_ref() {
        let bits = bits(chunk)?;
        octets.extend([(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
    }
    let rest = chunks.remainder();
    let bits = bits(rest)? << (6 * (4 - rest.len()) as u32);
    match rest.len() {
        0 => {}
        2 if bits.trailing_zeros() >= 16 => octets.push((bits >> 16) as u8),
        3 if bits.trailing_zeros() >= 8 => octets.extend([(bits >> 16) as u8, (bits >> 8) as u8]),
        _ => return None,
    }
    Some(octets)
}

/// Up to four characters as bits, the first one on top.
fn bits(characters: &[u8]) -> Option<u32> {
    characters.iter().try_fold(0, |bits, &c| {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        Some(bits << 6 | u32::from(value))
    })
}

/// For how many seconds a cache may keep `message`: the least TTL of what answers, and without an answer what the SOA in
/// the authority section allows (RFC 8484 section 5.1, RFC 2308 section 5). `None`: not at all.
pub fn freshness(message: &[u8]) -> Option<u32> {
    let (mut at, [answers, authority, _]) = sections(message)?;
    let mut least = None;
    for _ in 0..answers {
        let record = Record::read(message, at)?;
        least = Some(least.map_or(record.ttl, |least: u32| least.min(record.ttl)));
        at = record.end();
    }
    if least.is_some() {
        return least;
    }
    for _ in 0..authority {
        let record = Record::read(message, at)?;
        if record.rtype == rtype::SOA {
            // MINIMUM is the last of them.
            let minimum = record.data.last_chunk().filter(|_| record.data.len() >= SOA_NUMBERS)?;
            return Some(record.ttl.min(u32::from_be_bytes(*minimum)));
        }
        at = record.end();
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(octets: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in octets.chunks(3) {
            let mut all = [0; 4];
            all[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(all);
            for i in 0..=chunk.len() {
                text.push(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize].into());
            }
        }
        text
    }

    #[test]
    fn the_example_of_the_rfc_is_read() {
        // RFC 8484 section 4.1.1.
        let url = "dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlA2NvbQAAAQAB";
        let query = decode(parameter(url).unwrap()).unwrap();
        assert_eq!(query.len(), 33);
        assert_eq!(query[12..29], *b"\x03www\x07example\x03com\0");
    }

    #[test]
    fn one_parameter_and_one_spelling() {
        assert_eq!(parameter("a=1&dns=AA&b"), Some("AA"));
        assert_eq!(parameter("dns="), Some(""));
        for none in ["", "dns", "xdns=AA", "DNS=AA", "dns=AA&dns=AA"] {
            assert_eq!(parameter(none), None, "{none}");
        }
        assert_eq!(decode("").as_deref(), Some(&[][..]));
        for wrong in ["A", "AB", "AAB", "AA==", "AA=", "A+AA", "A/AA", "AA A", "AAAAA", "%41A", "é"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    fn record(rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 12];
        record.extend(rtype.to_be_bytes());
        record.extend([0, 1]);
        record.extend(ttl.to_be_bytes());
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        record
    }

    fn message(answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![0, 0, 0x84, 0, 0, 1, 0, answers.len() as u8, 0, authority.len() as u8, 0, 0];
        message.extend(b"\x01a\x04test\0\0\x01\0\x01");
        message.extend(answers.concat());
        message.extend(authority.concat());
        message
    }

    #[test]
    fn an_answer_is_fresh_as_long_as_its_shortest_record() {
        let a = |ttl| record(1, ttl, &[192, 0, 2, 1]);
        let soa = |ttl, minimum: u32| record(6, ttl, &[&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat());
        assert_eq!(freshness(&message(&[a(300), a(20)], &[soa(5, 5)])), Some(20));
        assert_eq!(freshness(&message(&[a(0)], &[])), Some(0));
        assert_eq!(freshness(&message(&[], &[soa(3_600, 60)])), Some(60));
        assert_eq!(freshness(&message(&[], &[soa(30, 60)])), Some(30));
        assert_eq!(freshness(&message(&[], &[record(2, 300, &[0])])), None, "a referral answers nothing");
        assert_eq!(freshness(&message(&[], &[])), None);
        assert_eq!(freshness(&message(&[], &[record(6, 300, &[0, 0])])), None, "a SOA without its numbers");
        assert_eq!(freshness(&[0; 11]), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&octets)), Some(octets));
        }

        #[test]
        fn nothing_panics(octets in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            freshness(&octets);
            decode(&text);
            parameter(&text);
        }
    }
}
