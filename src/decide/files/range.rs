//! Which parts of a file were asked for (RFC 9110 section 14).
//!
//! A `Range` that cannot be read, or that asks for more than is sensible, is passed over, as section 14.2 allows: the whole
//! file goes out. Parts that overlap or nearly touch are sent as one; many that overlap are an attack, and passed over too.

use smallvec::SmallVec;

/// Most ranges that are looked at (ours).
const MOST: usize = 16;
/// Most of them that may overlap another one (RFC 9110 section 14.2: more than two are suspicious).
const OVERLAPS: usize = 2;
/// Parts that lie no further apart are sent as one: what stands between parts is longer.
const GAP: u64 = 80;

/// A part of a file, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its first octet.
    pub first: u64,
    /// Its last one.
    pub last: u64,
}

impl Part {
    /// How long it is.
    pub const fn length(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// What of a file is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// All of it: nothing else was asked for, or nothing that counts.
    Whole,
    /// These parts, at least one, in the order in which they were asked for.
    Parts(SmallVec<[Part; 1]>),
    /// Nothing that was asked for is there: 416.
    Unsatisfiable,
}

/// What `range`, the value of the field, asks for of a file of `length` octets.
pub fn ranges(range: &[u8], length: u64) -> Ranges {
    let Some(asked) = asked(range) else { return Ranges::Whole };
    let mut parts: SmallVec<[Part; 1]> = SmallVec::new();
    let mut overlaps = 0;
    for part in asked.into_iter().filter_map(|spec| spec.of(length)) {
        match parts.iter_mut().find(|known| touch(known, &part)) {
            Some(known) => {
                overlaps += usize::from(part.first <= known.last && known.first <= part.last);
                *known = Part { first: known.first.min(part.first), last: known.last.max(part.last) };
            }
            None => parts.push(part),
        }
    }
    if overlaps > OVERLAPS {
        return Ranges::Whole;
    }
    settle(&mut parts);
    if parts.is_empty() { Ranges::Unsatisfiable } else { Ranges::Parts(parts) }
}

/// Whether two parts are sent as one.
fn touch(a: &Part, b: &Part) -> bool {
    a.first <= b.last.saturating_add(GAP) && b.first <= a.last.saturating_add(GAP)
}

/// Joins what has grown together.
fn settle(parts: &mut SmallVec<[Part; 1]>) {
    let mut at = 0;
    while let Some(&part) = parts.get(at) {
        match parts.iter().skip(at + 1).position(|other| touch(&part, other)) {
            Some(behind) => {
                let other = parts.remove(at + 1 + behind);
                if let Some(known) = parts.get_mut(at) {
                    *known = Part { first: part.first.min(other.first), last: part.last.max(other.last) };
                }
                // It may touch an earlier one now.
                at = 0;
            }
            None => at += 1,
        }
    }
}

/// One range as it was said.
#[derive(Clone, Copy)]
enum Spec {
    /// From here to there, or to the end.
    From(u64, Option<u64>),
    /// So many octets at the end.
    Last(u64),
}

impl Spec {
    /// What it means; `None`: nothing of it is there.
    fn of(self, length: u64) -> Option<Part> {
        let end = length.checked_sub(1)?;
        match self {
            Self::From(first, last) => (first <= end).then(|| Part { first, last: last.unwrap_or(end).min(end) }),
            Self::Last(0) => None,
            Self::Last(octets) => Some(Part { first: length.saturating_sub(octets), last: end }),
        }
    }
}

/// The ranges of a field; `None` where it cannot be read, or has too many.
fn asked(range: &[u8]) -> Option<SmallVec<[Spec; 4]>> {
    let (unit, list) = range.split_at(range.iter().position(|&b| b == b'=')?);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = SmallVec::new();
    let items = list.get(1..)?.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    for item in items.filter(|item| !item.is_empty()) {
        if specs.len() == MOST {
            return None;
        }
        let (first, last) = item.split_at(item.iter().position(|&b| b == b'-')?);
        let last = last.get(1..)?;
        specs.push(match (first, last) {
            (b"", last) => Spec::Last(number(last)?),
            (first, b"") => Spec::From(number(first)?, None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                Spec::From(first, Some(last).filter(|last| *last >= first).map(Some)?)
            }
        });
    }
    (!specs.is_empty()).then_some(specs)
}

/// Digits, as many as one likes.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(range: &str, length: u64) -> Vec<(u64, u64)> {
        match ranges(range.as_bytes(), length) {
            Ranges::Parts(parts) => parts.iter().map(|p| (p.first, p.last)).collect(),
            other => panic!("{range}: {other:?}"),
        }
    }

    #[test]
    fn ranges_mean_what_the_rfc_says() {
        assert_eq!(parts("bytes=0-499", 10_000), [(0, 499)]);
        assert_eq!(parts("bytes=9500-", 10_000), [(9_500, 9_999)]);
        assert_eq!(parts("bytes=-500", 10_000), [(9_500, 9_999)]);
        assert_eq!(parts("bytes=-50000", 10_000), [(0, 9_999)]);
        assert_eq!(parts("bytes=0-0, -1", 10_000), [(0, 0), (9_999, 9_999)]);
        assert_eq!(parts("Bytes=9000-99999999999999999999999", 10_000), [(9_000, 9_999)]);
        assert_eq!(parts("bytes=9000-,0-9,,20000-", 10_000), [(9_000, 9_999), (0, 9)]);
        // What overlaps, touches or nearly does is one.
        assert_eq!(parts("bytes=0-99,50-199,200-299,379-399", 10_000), [(0, 399)]);
        assert_eq!(parts("bytes=0-9,500-509,300-310,20-480", 10_000), [(0, 509)]);
    }

    #[test]
    fn what_is_not_there_is_told_and_what_makes_no_sense_is_passed_over() {
        for nothing in ["bytes=10000-", "bytes=10000-20000,50000-", "bytes=-0"] {
            assert_eq!(ranges(nothing.as_bytes(), 10_000), Ranges::Unsatisfiable, "{nothing}");
        }
        assert_eq!(ranges(b"bytes=0-", 0), Ranges::Unsatisfiable);
        for nonsense in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-4",
            "lines=0-4",
            "bytes=1",
            "bytes=0-4,x",
            "bytes=--4",
            "bytes=+1-2",
        ] {
            assert_eq!(ranges(nonsense.as_bytes(), 10_000), Ranges::Whole, "{nonsense}");
        }
        let many = format!("bytes={}", (0..17).map(|i| format!("{0}-{0}", i * 500)).collect::<Vec<_>>().join(","));
        assert_eq!(ranges(many.as_bytes(), 10_000), Ranges::Whole);
        let bomb = format!("bytes={}", "0-,".repeat(10));
        assert_eq!(ranges(bomb.as_bytes(), 10_000), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_in_the_file_and_apart(range in "bytes=([0-9]{0,4}-[0-9]{0,4},?){0,18}", length in 0u64..6_000) {
            if let Ranges::Parts(parts) = ranges(range.as_bytes(), length) {
                prop_assert!(!parts.is_empty() && parts.len() <= MOST);
                for (i, a) in parts.iter().enumerate() {
                    prop_assert!(a.first <= a.last && a.last < length);
                    prop_assert!(parts.iter().skip(i + 1).all(|b| !touch(a, b)));
                }
            }
        }
    }
}
