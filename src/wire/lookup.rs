//! A query of our own and its answer: what a stub resolver says and understands.
//!
//! Follows CNAMEs and DNAME's CNAMEs within the answer; believes nothing that does not give back id, question and the case
//! of its letters. Reads any octets without panicking, and no more records than an answer has room for.

use super::dns::{HEADER, IN, MAX_UDP, Record, rtype};
use super::name;

/// How many CNAMEs are followed.
const MAX_CHAIN: usize = 16;
/// How many records are kept of one answer.
const MAX_RECORDS: usize = 1_024;
/// How long "nothing" holds where the answer does not say, in seconds.
const NEGATIVE_TTL: u32 = 60;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These records, whose chain holds for `ttl` seconds.
    Records {
        /// The shortest TTL on the way to them.
        ttl: u32,
        /// Their data.
        rdatas: Vec<Box<[u8]>>,
    },
    /// There is no such name, or nothing of this type, for `ttl` seconds.
    Nothing {
        /// How long (RFC 2308 section 5).
        ttl: u32,
    },
    /// It did not fit: ask again over TCP.
    Truncated,
    /// The server failed, or refuses.
    Failed,
}

/// A query for `rtype` of `name` (wire format), with recursion; `id` gives its id, `case` the case of its letters, and
/// `options` what its OPT holds.
pub fn query(name: &[u8], rtype: u16, id: u64, case: u64, options: &[u8]) -> Vec<u8> {
    let [i0, i1, ..] = id.to_be_bytes();
    let mut packet = vec![i0, i1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let mut bits = case;
    for octet in name {
        // Length octets are no letters (name).
        let upper = octet.is_ascii_lowercase() && bits & 1 == 1;
        packet.push(if upper { octet.to_ascii_uppercase() } else { *octet });
        bits = bits.rotate_right(1);
    }
    packet.extend(rtype.to_be_bytes());
    packet.extend(IN.to_be_bytes());
    let ([s0, s1], [l0, l1]) = ((MAX_UDP as u16).to_be_bytes(), (options.len() as u16).to_be_bytes());
    packet.extend([0, 0, rtype::OPT as u8, s0, s1, 0, 0, 0, 0, l0, l1]);
    packet.extend(options);
    packet
}

/// What `packet` answers to `query`; `None` where it is no answer to it.
pub fn read(query: &[u8], packet: &[u8], rtype: u16) -> Option<Found> {
    let question = query.get(HEADER..name::skip(query, HEADER)? + 4)?;
    let header = packet.first_chunk::<HEADER>()?;
    let count = |i: usize| u16::from_be_bytes([header[i], header[i + 1]]);
    let same = header[..2] == query[..2] && header[2] & 0xf8 == 0x80 && count(4) == 1;
    if !same || packet.get(HEADER..HEADER + question.len())? != question {
        return None;
    }
    match header[3] & 15 {
        _ if header[2] & 2 != 0 => return Some(Found::Truncated),
        0 | 3 => {}
        _ => return Some(Found::Failed),
    }
    let mut at = HEADER + question.len();
    let answers = section(packet, &mut at, count(6))?;
    let authority = section(packet, &mut at, count(8))?;
    let mut wanted = name::lower(question.get(..question.len().checked_sub(4)?)?);
    let mut ttl = u32::MAX;
    for _ in 0..=MAX_CHAIN {
        let here = || answers.iter().filter(|o| o.owner == wanted).map(|o| &o.record);
        let found: Vec<&Record> = here().filter(|r| r.rtype == rtype).take(MAX_RECORDS).collect();
        if !found.is_empty() {
            let ttl = found.iter().map(|r| r.ttl).min().unwrap_or(0).min(ttl);
            let rdatas: Option<Vec<Box<[u8]>>> = found.iter().map(|record| data(packet, record)).collect();
            return Some(rdatas.map_or(Found::Failed, |rdatas| Found::Records { ttl, rdatas }));
        }
        let Some(alias) = here().find(|r| r.rtype == rtype::CNAME) else {
            let soa = authority.iter().map(|o| &o.record).find(|r| r.rtype == rtype::SOA);
            // MINIMUM is the last field, whatever names stand before it.
            let minimum = soa.and_then(|s| Some(u32::from_be_bytes(*s.data.last_chunk()?).min(s.ttl)));
            return Some(Found::Nothing { ttl: minimum.unwrap_or(NEGATIVE_TTL).min(ttl) });
        };
        ttl = ttl.min(alias.ttl);
        wanted = name::lower(&name::expand(packet, alias.at)?.0);
    }
    Some(Found::Failed)
}

/// What a record says, without compression; `None` where that is not what its type says.
fn data(packet: &[u8], record: &Record<'_>) -> Option<Box<[u8]>> {
    match record.rtype {
        rtype::A => (record.data.len() == 4).then(|| record.data.into()),
        rtype::AAAA => (record.data.len() == 16).then(|| record.data.into()),
        // Priority, weight and port, then the target, which has no business to be compressed and sometimes is (RFC 2782).
        rtype::SRV => {
            let (target, end) = name::expand(packet, record.at + SRV_FIXED)?;
            let fixed = record.data.get(..SRV_FIXED)?;
            (end == record.end()).then(|| [fixed, &name::lower(&target)].concat().into())
        }
        _ => Some(record.data.into()),
    }
}

/// The octets of SRV data before its target.
const SRV_FIXED: usize = 6;

struct Owned<'p> {
    owner: Box<[u8]>,
    record: Record<'p>,
}

fn section<'p>(packet: &'p [u8], at: &mut usize, count: u16) -> Option<Vec<Owned<'p>>> {
    let mut records = Vec::new();
    for _ in 0..count {
        let owner = name::lower(&name::expand(packet, *at)?.0);
        let mut record = Record::read(packet, *at)?;
        *at = record.end();
        // RFC 2181 section 8: with its highest bit set it is nought.
        record.ttl = if i32::try_from(record.ttl).is_ok() { record.ttl } else { 0 };
        if record.class == IN {
            records.push(Owned { owner, record });
        }
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(query: &[u8], flags: [u8; 2], answers: &[&[u8]], authority: &[&[u8]]) -> Vec<u8> {
        let mut packet = query[..query.len() - 11].to_vec();
        packet[2..4].copy_from_slice(&flags);
        packet[7] = answers.len() as u8;
        packet[9] = authority.len() as u8;
        packet[11] = 0;
        packet.extend(answers.concat());
        packet.extend(authority.concat());
        packet
    }

    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x04\x01b\xc0\x0e";
    const ADDRESS: &[u8] = b"\x01B\x01z\0\0\x01\0\x01\0\0\0\x14\0\x04\xc0\0\x02\x01";
    const SOA: &[u8] = b"\x01z\0\0\x06\0\x01\0\0\0\x1e\0\x16\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x07";

    #[test]
    fn an_answer_is_followed_to_its_end() {
        let query = query(b"\x01a\x01z\0", rtype::A, 7 << 48, 0, &[]);
        let found = |flags, answers: &[&[u8]], authority: &[&[u8]]| {
            read(&query, &answer(&query, flags, answers, authority), rtype::A)
        };
        let one = Found::Records { ttl: 20, rdatas: vec![Box::from([192, 0, 2, 1])] };
        assert_eq!(found([0x81, 0x80], &[ADDRESS, ALIAS], &[]), Some(one));
        assert_eq!(found([0x81, 0x80], &[ALIAS], &[SOA]), Some(Found::Nothing { ttl: 7 }));
        assert_eq!(found([0x81, 0x83], &[], &[]), Some(Found::Nothing { ttl: 60 }));
        assert_eq!(found([0x83, 0x80], &[], &[]), Some(Found::Truncated));
        assert_eq!(found([0x81, 0x82], &[], &[]), Some(Found::Failed));
        assert_eq!(found([0x01, 0x80], &[], &[]), None, "a query");
        let ring: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x02\xc0\x0c";
        assert_eq!(found([0x81, 0x80], &[ring], &[]), Some(Found::Failed));
    }

    #[test]
    fn the_target_of_an_srv_record_is_whole_whether_or_not_it_was_compressed() {
        let query = query(b"\x01a\x01z\0", rtype::SRV, 7 << 48, 0, &[]);
        let found = |record: &[u8]| read(&query, &answer(&query, [0x81, 0x80], &[record], &[]), rtype::SRV);
        let wanted = Found::Records { ttl: 5, rdatas: vec![Box::from(*b"\0\x01\0\x02\0\x50\x01b\x01z\0")] };
        let head = b"\xc0\x0c\0\x21\0\x01\0\0\0\x05\0";
        let with = |length: u8, data: &[u8]| [head, &[length][..], data].concat();
        assert_eq!(found(&with(11, b"\0\x01\0\x02\0\x50\x01B\x01z\0")), Some(wanted.clone()));
        assert_eq!(found(&with(10, b"\0\x01\0\x02\0\x50\x01b\xc0\x0e")), Some(wanted));
        assert_eq!(found(&with(12, b"\0\x01\0\x02\0\x50\x01b\x01z\0\0")), Some(Found::Failed), "more than a name");
        assert_eq!(found(&with(5, b"\0\x01\0\x02\0")), Some(Found::Failed), "no name at all");
    }

    #[test]
    fn what_does_not_give_everything_back_is_no_answer() {
        let mixed = query(b"\x01a\x01z\0", rtype::A, 7 << 48, u64::MAX, &[]);
        assert_eq!(&mixed[HEADER..HEADER + 5], b"\x01A\x01Z\0");
        let right = answer(&mixed, [0x81, 0x80], &[ADDRESS], &[]);
        assert!(read(&mixed, &right, rtype::A).is_some());
        for at in [0, 1, 13, 15, 18, 20] {
            let mut wrong = right.clone();
            wrong[at] ^= 0x20;
            assert_eq!(read(&mixed, &wrong, rtype::A), None, "octet {at}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(rest in prop::collection::vec(prop_oneof![Just(0xc0u8), 0u8..20, any::<u8>()], 0..80)) {
            let query = query(b"\x01a\0", rtype::AAAA, 1, 2, &[]);
            let mut packet = query[..query.len() - 11].to_vec();
            packet[2] = 0x80;
            packet[7] = 2;
            packet.extend(rest);
            read(&query, &packet, rtype::AAAA);
        }
    }
}
