//! Fences: clients that may be sent to some datacenters only, whatever health and nearness say (data residency).
//!
//! Made once for a topology. A fence never opens: who is inside one stays inside it while everything in it has failed.

use std::net::IpAddr;

use super::MAX_CANDIDATES;
use crate::config::{Fence, Locality};
use crate::decide::near::Near;
use crate::snapshot::atlas::Atlas;

/// Who is fenced: found as nearness is, with fences in the place of candidates.
#[derive(Clone, Debug)]
pub struct Fences {
    around: Near,
    /// By fence: the candidates that are allowed, as bits.
    allowed: Vec<u64>,
}

impl Fences {
    /// Builds the classes, with what `atlas` says of clients. `None` where there are no fences.
    pub fn build(fences: &[Fence], atlas: &Atlas) -> Option<Self> {
        if fences.is_empty() {
            return None;
        }
        let clients: Vec<&[Locality]> = fences.iter().map(|f| f.clients.as_slice()).collect();
        let bits = |only: &[usize]| only.iter().filter(|i| **i < MAX_CANDIDATES).fold(0, |set, i| set | 1 << i);
        let allowed = fences.iter().map(|f| bits(&f.only)).collect();
        Some(Self { around: Near::build(&clients, atlas), allowed })
    }

    /// The fence around `address`, by its place in the configuration plus one, and how many bits of it tell; 0: none.
    pub fn find(&self, address: IpAddr) -> (usize, u8) {
        let (around, depth) = self.around.find(address);
        (around.and_then(|all| all.iter().position(|around| *around)).map_or(0, |place| place + 1), depth)
    }

    /// Which candidates may be answered with inside each fence, as bits.
    pub(super) fn allowed(&self) -> &[u64] {
        &self.allowed
    }
}
