//! Record sets as finished octets, those of one name side by side: to answer from them reads one place in memory.
//!
//! Each set is stored as a head (type, number of records, length) and its records behind it, owned by a pointer to the
//! question, so an answer is one copy. Built once, then only read.

use crate::wire::dns::{IN, QNAME};
use crate::wire::zone::RrSet;

/// Octets of a set's head: two of the type, two of the number of records, four of the records' length.
const HEAD: usize = 8;

/// The record sets of all names.
#[derive(Debug, Default)]
pub(super) struct Sets {
    octets: Vec<u8>,
    count: usize,
}

/// Where the sets of one name stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    at: usize,
    count: u16,
}

/// One record set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set<'t> {
    pub(super) rtype: u16,
    /// How many records it has.
    pub(super) records: u16,
    /// The records, owned by [`QNAME`].
    pub(super) octets: &'t [u8],
}

impl Sets {
    /// How many sets there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The sets of `run`.
    pub(super) fn of(&self, run: Run) -> impl Iterator<Item = Set<'_>> {
        let mut rest = self.octets.get(run.at..).unwrap_or_default();
        (0..run.count).map_while(move |_| {
            let ([t0, t1, n0, n1, length @ ..], behind) = rest.split_first_chunk::<HEAD>()?;
            let (octets, next) = behind.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
            rest = next;
            Some(Set { rtype: u16::from_ne_bytes([*t0, *t1]), records: u16::from_ne_bytes([*n0, *n1]), octets })
        })
    }

    /// Stores `sets` behind a copy of those of `before`; gives where all of them stand.
    pub(super) fn store<'s>(&mut self, before: Run, sets: impl Iterator<Item = &'s RrSet>) -> Run {
        let at = self.octets.len();
        let kept = self.of(before).map(|s| HEAD + s.octets.len()).sum::<usize>();
        self.octets.extend_from_within(before.at..before.at + kept);
        let mut count = before.count;
        for set in sets {
            let start = self.octets.len() + HEAD;
            self.octets.extend(set.rtype.to_ne_bytes());
            self.octets.extend([0; HEAD - 2]);
            let records = records(set, set.ttl, &mut self.octets).to_ne_bytes();
            let length = ((self.octets.len() - start) as u32).to_ne_bytes();
            self.octets[start - HEAD + 2..start].copy_from_slice(&[records.as_slice(), &length].concat());
            self.count += 1;
            count = count.saturating_add(1);
        }
        Run { at, count }
    }
}

/// Appends the records of `set`, each owned by [`QNAME`]; gives their number.
pub(super) fn records(set: &RrSet, ttl: u32, out: &mut Vec<u8>) -> u16 {
    for rdata in &set.rdatas {
        record(set.rtype, ttl, rdata, out);
    }
    set.rdatas.len() as u16
}

/// Appends one record, owned by [`QNAME`].
pub(super) fn record(rtype: u16, ttl: u32, rdata: &[u8], out: &mut Vec<u8>) {
    out.extend(QNAME);
    out.extend(rtype.to_be_bytes());
    out.extend(IN.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend((rdata.len() as u16).to_be_bytes());
    out.extend(rdata);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::rtype;

    #[test]
    fn sets_are_found_as_they_were_stored_and_join_those_before() {
        let set =
            |rtype, rdatas: &[&[u8]]| RrSet { rtype, ttl: 60, rdatas: rdatas.iter().map(|r| (*r).into()).collect() };
        let (a, txt, ds) = (set(rtype::A, &[&[1; 4], &[2; 4]]), set(rtype::TXT, &[b"\x01x"]), set(rtype::DS, &[&[]]));
        let mut sets = Sets::default();
        let first = sets.store(Run::default(), [&a, &txt].into_iter());
        let other = sets.store(Run::default(), [&ds].into_iter());
        let joined = sets.store(first, [&ds].into_iter());
        let shown = |run| sets.of(run).map(|s| (s.rtype, s.records, s.octets.to_vec())).collect::<Vec<_>>();
        let stored = |set: &RrSet| {
            let mut octets = Vec::new();
            (set.rtype, records(set, 60, &mut octets), octets)
        };
        assert_eq!(shown(first), [stored(&a), stored(&txt)]);
        assert_eq!(shown(other), [stored(&ds)]);
        assert_eq!(shown(joined), [stored(&a), stored(&txt), stored(&ds)]);
        assert!(shown(Run::default()).is_empty());
        assert_eq!(sets.len(), 4, "those that were copied count once");
    }
}
