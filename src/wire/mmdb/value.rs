//! The data section of a MaxMind DB file: values one after the other, and pointers to values that stand elsewhere.

use std::cell::Cell;

use super::MmdbError;

/// How many values are read for each octet of the section, at most: a record reads its own octets and those that it points
/// to, and each record is read once.
const READS: u64 = 32;

/// A data section, or the metadata, which is one of its own.
#[derive(Debug)]
pub(super) struct Section<'a> {
    data: &'a [u8],
    /// How many more values will be read before the file is held to be endless.
    budget: Cell<u64>,
}

/// A value, as far as anybody here wants to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Text(&'a [u8]),
    Number(u64),
    /// So many keys with their values begin at this offset.
    Map(usize, usize),
    /// So many values begin at this offset.
    List(usize, usize),
    Other,
}

/// What stands at an offset.
struct Head {
    kind: u8,
    size: usize,
    /// Where the payload begins; for a pointer, where it points.
    at: usize,
    /// Where the next value begins, if this one holds no others.
    after: usize,
}

const POINTER: u8 = 1;
const TEXT: u8 = 2;
const MAP: u8 = 7;
const LIST: u8 = 11;
const FLAG: u8 = 14;

impl<'a> Section<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, budget: Cell::new(data.len() as u64 * READS + 1_024) }
    }

    /// The value at `at`, and where the next one begins; unknown for what holds others.
    pub(super) fn item(&self, at: usize) -> Result<(Item<'a>, Option<usize>), MmdbError> {
        let mut head = self.head(at)?;
        let mut after = None;
        if head.kind == POINTER {
            after = Some(head.after);
            let target = head.at;
            head = self.head(target)?;
            if head.kind == POINTER {
                return Err(MmdbError::Data(target));
            }
        }
        let payload = || self.data.get(head.at..head.after).ok_or(MmdbError::Data(at));
        let item = match head.kind {
            TEXT => Item::Text(payload()?),
            // 16, 32 and 64 bits without sign; more octets than eight are no number that we know.
            5 | 6 | 9 if head.size <= 8 => {
                Item::Number(payload()?.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)))
            }
            MAP => Item::Map(head.size, head.at),
            LIST => Item::List(head.size, head.at),
            _ => {
                payload()?;
                Item::Other
            }
        };
        let holds = matches!(item, Item::Map(..) | Item::List(..));
        Ok((item, after.or((!holds).then_some(head.after))))
    }

    /// Every key and the offset of its value in the map at `at`; what is no map has none.
    pub(super) fn entries(
        &self,
        at: usize,
        mut each: impl FnMut(&'a [u8], usize) -> Result<(), MmdbError>,
    ) -> Result<(), MmdbError> {
        let Item::Map(count, mut at) = self.item(at)?.0 else { return Ok(()) };
        for _ in 0..count {
            let (Item::Text(key), Some(value)) = self.item(at)? else { return Err(MmdbError::Data(at)) };
            each(key, value)?;
            at = self.after(value)?;
        }
        Ok(())
    }

    /// The offset of every value in the list at `at`; what is no list has none.
    pub(super) fn elements(
        &self,
        at: usize,
        mut each: impl FnMut(usize) -> Result<(), MmdbError>,
    ) -> Result<(), MmdbError> {
        let Item::List(count, mut at) = self.item(at)?.0 else { return Ok(()) };
        for _ in 0..count {
            each(at)?;
            at = self.after(at)?;
        }
        Ok(())
    }

    /// Where the value at `at` ends, with all that it holds. Follows no pointer.
    fn after(&self, mut at: usize) -> Result<usize, MmdbError> {
        let mut pending = 1u64;
        while pending > 0 {
            let head = self.head(at)?;
            pending += match head.kind {
                MAP => 2 * head.size as u64,
                LIST => head.size as u64,
                _ => 0,
            };
            pending -= 1;
            at = head.after;
        }
        Ok(at)
    }

    fn head(&self, at: usize) -> Result<Head, MmdbError> {
        self.budget.set(self.budget.get().checked_sub(1).ok_or(MmdbError::Endless)?);
        let damaged = MmdbError::Data(at);
        let rest = self.data.get(at..).ok_or(damaged)?;
        let (&control, mut rest) = rest.split_first().ok_or(damaged)?;
        let mut kind = control >> 5;
        let mut bytes = |count: usize| -> Result<usize, MmdbError> {
            let (taken, left) = rest.split_at_checked(count).ok_or(damaged)?;
            rest = left;
            Ok(taken.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
        };
        if kind == POINTER {
            let high = usize::from(control & 7);
            let length = usize::from(control >> 3 & 3) + 1;
            let low = bytes(length)?;
            let target = match length {
                1 => high << 8 | low,
                2 => (high << 16 | low) + 2_048,
                3 => (high << 24 | low) + 526_336,
                _ => low,
            };
            return Ok(Head { kind, size: 0, at: target, after: at + 1 + length });
        }
        if kind == 0 {
            // Extended: the types from 8 on.
            kind = (bytes(1)? as u8).checked_add(7).filter(|kind| *kind > 7).ok_or(damaged)?;
        }
        let size = match usize::from(control & 0x1f) {
            29 => 29 + bytes(1)?,
            30 => 285 + bytes(2)?,
            31 => 65_821 + bytes(3)?,
            size => size,
        };
        let at = self.data.len() - rest.len();
        let holds = matches!(kind, MAP | LIST | FLAG);
        Ok(Head { kind, size, at, after: if holds { at } else { at + size } })
    }
}
