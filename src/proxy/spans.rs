//! Spans of one worker that wait for whoever exports them: written into memory of its own, bounded by number and octets.
//!
//! As with the access log, a request waits for nobody: the lock is taken by the exporter ten times a second, to exchange a
//! full page for an empty one. What finds no room is lost and counted.

use std::sync::{Mutex, PoisonError};

/// Spans, and octets of them, that may wait at one worker: at the exporter's pace some 20,000 spans a second (ours).
const ROOM: (u32, usize) = (2_048, 1 << 20);

/// Spans of one worker that wait.
#[derive(Debug, Default)]
pub(super) struct Spans(Mutex<Page>);

/// Spans, one behind the other, as `wire::otlp` writes them.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) octets: Vec<u8>,
    /// How many are in it.
    pub(super) count: u32,
    /// How many found no room.
    pub(super) lost: u64,
}

impl Spans {
    /// Adds the span that `write` writes, if there is room.
    pub(super) fn add(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if page.count >= ROOM.0 || page.octets.len() >= ROOM.1 {
            page.lost += 1;
            return;
        }
        write(&mut page.octets);
        page.count += 1;
    }

    /// What has gathered.
    #[cfg(any(feature = "otlp", test))]
    pub(super) fn take(&self) -> Page {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_takes_no_more_and_says_how_many_it_refused() {
        let spans = Spans::default();
        (0..ROOM.0 + 3).for_each(|_| spans.add(|out| out.push(b'x')));
        let page = spans.take();
        assert_eq!((page.octets.len(), page.count, page.lost), (ROOM.0 as usize, ROOM.0, 3));
        (0..3).for_each(|_| spans.add(|out| out.extend_from_slice(&vec![0; ROOM.1 / 2])));
        let page = spans.take();
        assert_eq!((page.octets.len(), page.count, page.lost), (ROOM.1, 2, 1));
    }
}
