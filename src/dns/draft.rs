//! Queries that are not whole yet, where a connection has many streams: all of them share one budget of octets.
//!
//! Flow control bounds what nobody has read. What has been read of a query, HTTP and QUIC give back to the client as credit
//! for more, though it is still here: this bounds that. Copies what comes, so that small pieces hold no larger buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What the unfinished queries of one connection may take.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    held: Arc<AtomicUsize>,
    octets: usize,
}

impl Budget {
    /// This many octets in all.
    pub(super) fn new(octets: usize) -> Self {
        Self { held: Arc::default(), octets }
    }

    /// A query that begins, and that has at most `longest` octets.
    pub(super) fn draft(&self, longest: usize) -> Draft {
        Draft { octets: Vec::new(), longest, budget: self.clone() }
    }
}

/// Why a piece is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// The query itself would be too long.
    Query,
    /// All of them together would be.
    Budget,
}

/// A query on its way in.
#[derive(Debug)]
pub(super) struct Draft {
    octets: Vec<u8>,
    longest: usize,
    budget: Budget,
}

impl Draft {
    /// Takes the next piece.
    ///
    /// # Errors
    /// It is too much, and not taken.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Excess> {
        if self.octets.len() + piece.len() > self.longest {
            return Err(Excess::Query);
        }
        let Budget { held, octets } = &self.budget;
        if held.fetch_add(piece.len(), Relaxed) + piece.len() > *octets {
            held.fetch_sub(piece.len(), Relaxed);
            return Err(Excess::Budget);
        }
        self.octets.extend_from_slice(piece);
        Ok(())
    }

    /// What has come.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.octets.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_in_each_and_in_all_and_given_back() {
        let budget = Budget::new(10);
        let mut one = budget.draft(6);
        assert_eq!((one.push(&[1; 6]), one.push(&[1])), (Ok(()), Err(Excess::Query)));
        let mut other = budget.draft(6);
        assert_eq!((other.push(&[2; 5]), other.push(&[2; 4])), (Err(Excess::Budget), Ok(())));
        assert_eq!((one.octets(), other.octets()), (&[1; 6][..], &[2; 4][..]));
        drop(one);
        assert_eq!(other.push(&[2; 2]), Ok(()));
        assert_eq!(budget.draft(6).push(&[3; 4]), Ok(()));
        drop(other);
        assert_eq!(budget.held.load(Relaxed), 0);
    }
}
