//! A static zone as data: owner names and ready-made record sets, independent of how they were parsed.
//!
//! The name server's loader builds it from a master file; `answer` reads it. Names are lower case, in wire format
//! (RFC 1035 section 3.1), without compression.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::dns::rtype;

/// A name in wire format, lower case: length-prefixed labels and the final zero.
pub type WireName = Box<[u8]>;

/// One record set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RrSet {
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA of each record, names in it uncompressed.
    pub rdatas: Vec<Box<[u8]>>,
}

/// One zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Apex.
    pub origin: WireName,
    /// The apex as text, with the final dot.
    pub origin_text: String,
    /// Record sets by owner name.
    pub names: BTreeMap<WireName, Vec<RrSet>>,
}

/// A zone as its secondaries get it.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// What the master file says.
    pub zone: Arc<Zone>,
    /// What is said for the names that are steered: a secondary steers nothing.
    pub steered: BTreeMap<WireName, Vec<RrSet>>,
    /// Names with an ALIAS, which become addresses when they are sent.
    pub aliases: Vec<WireName>,
    /// How it came to be as it is, the latest last. Bounded by who makes it.
    pub history: Vec<Arc<Change>>,
}

/// What differs between two versions of a zone (RFC 1995 section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The SOA before.
    pub from: Entry,
    /// The SOA after.
    pub to: Entry,
    /// Records that have gone.
    pub removed: Vec<Entry>,
    /// Records that have come.
    pub added: Vec<Entry>,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Owner.
    pub owner: WireName,
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// Data.
    pub rdata: Box<[u8]>,
}

impl Entry {
    /// Serial of a SOA.
    pub fn serial(&self) -> Option<u32> {
        serial(&self.rdata)
    }
}

/// The serial in the data of a SOA: five numbers end it (RFC 1035 section 3.3.13).
pub fn serial(rdata: &[u8]) -> Option<u32> {
    rdata.last_chunk::<20>().and_then(|numbers| numbers.first_chunk()).map(|serial| u32::from_be_bytes(*serial))
}

/// Whether serial `a` is later than `b` (RFC 1982 section 3.2).
pub const fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl Zone {
    /// The SOA at the apex; there is one in every zone that has been checked.
    pub fn soa(&self) -> Option<Entry> {
        let set = self.names.get(&self.origin)?.iter().find(|s| s.rtype == rtype::SOA)?;
        let rdata = set.rdatas.first()?.clone();
        Some(Entry { owner: self.origin.clone(), rtype: rtype::SOA, ttl: set.ttl, rdata })
    }

    /// Its serial.
    pub fn serial(&self) -> Option<u32> {
        self.soa()?.serial()
    }
}

impl Outgoing {
    /// What differs from `before`; at most `limit` records, `None` beyond that.
    pub fn since(&self, before: &Self, limit: usize) -> Option<Change> {
        let mut change = Change { from: before.zone.soa()?, to: self.zone.soa()?, ..Change::default() };
        let maps = [(&before.zone.names, &self.zone.names), (&before.steered, &self.steered)];
        for (old, new) in maps {
            differ(old, new, limit, &mut change)?;
        }
        Some(change)
    }
}

type Names = BTreeMap<WireName, Vec<RrSet>>;

/// Walks both maps in their common order.
fn differ(old: &Names, new: &Names, limit: usize, change: &mut Change) -> Option<()> {
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let (before, after) = match (olds.peek(), news.peek()) {
            (None, None) => return Some(()),
            (Some(_), None) => (olds.next(), None),
            (None, Some(_)) => (None, news.next()),
            (Some(a), Some(b)) => match a.0.cmp(b.0) {
                std::cmp::Ordering::Less => (olds.next(), None),
                std::cmp::Ordering::Greater => (None, news.next()),
                std::cmp::Ordering::Equal => (olds.next(), news.next()),
            },
        };
        if before == after {
            continue;
        }
        let (gone, come) = (entries(before), entries(after));
        change.removed.extend(gone.iter().filter(|e| !come.contains(e)).cloned());
        change.added.extend(come.iter().filter(|e| !gone.contains(e)).cloned());
        if change.removed.len() + change.added.len() > limit {
            return None;
        }
    }
}

/// The records of one name; the SOA has its own place in a change, and an ALIAS is no record.
fn entries(name: Option<(&WireName, &Vec<RrSet>)>) -> Vec<Entry> {
    let Some((owner, sets)) = name else { return Vec::new() };
    let sets = sets.iter().filter(|s| !matches!(s.rtype, rtype::SOA | rtype::ALIAS));
    let records = sets.flat_map(|set| set.rdatas.iter().map(move |rdata| (set, rdata)));
    let entry = |(set, rdata): (&RrSet, &WireName)| Entry {
        owner: owner.clone(),
        rtype: set.rtype,
        ttl: set.ttl,
        rdata: rdata.clone(),
    };
    records.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sets<'a> = &'a [(u16, u32, &'a [u8])];

    fn version(names: &[(&str, Sets<'_>)]) -> Outgoing {
        let mut zone = Zone { origin: Box::from(&b"\x01z\0"[..]), ..Zone::default() };
        let mut soa = b"\0\0".to_vec();
        soa.extend([0; 20]);
        zone.names.insert(zone.origin.clone(), vec![RrSet { rtype: 6, ttl: 1, rdatas: vec![soa.into()] }]);
        for (owner, sets) in names {
            let sets = sets.iter().map(|(t, ttl, data)| RrSet { rtype: *t, ttl: *ttl, rdatas: vec![(*data).into()] });
            zone.names.insert(owner.as_bytes().into(), sets.collect());
        }
        Outgoing { zone: Arc::new(zone), ..Outgoing::default() }
    }

    #[test]
    fn a_change_is_what_has_gone_and_what_has_come() {
        let old = version(&[
            ("a", &[(1, 60, b"1111")]),
            ("b", &[(1, 60, b"2222"), (16, 5, b"\x01x")]),
            ("c", &[(1, 1, b"3333")]),
        ]);
        let new = version(&[
            ("b", &[(1, 60, b"2222"), (16, 6, b"\x01x")]),
            ("c", &[(1, 1, b"3333")]),
            ("d", &[(1, 1, b"4444")]),
        ]);
        let change = new.since(&old, 100).unwrap();
        let show = |all: &[Entry]| {
            all.iter()
                .map(|e| format!("{} {} {}", e.owner.escape_ascii(), e.rtype, e.ttl))
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert_eq!((show(&change.removed), show(&change.added)), ("a 1 60, b 16 5".into(), "b 16 6, d 1 1".into()));
        assert_eq!(new.since(&old, 3), None, "beyond the limit");
        let none = new.since(&new, 0).unwrap();
        assert!(none.removed.is_empty() && none.added.is_empty());
    }

    #[test]
    fn serials_go_round() {
        assert!(is_later(1, 0) && is_later(0, u32::MAX) && is_later(0x7fff_ffff, 0));
        assert!(!is_later(0, 1) && !is_later(5, 5) && !is_later(u32::MAX, 0));
    }
}
