//! Fences: clients that may be sent to some datacenters only, whatever health and nearness say (data residency).
//!
//! Made once for a topology. A fence never opens: who is inside one stays inside it while everything in it has failed.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::base::prefix::{EMBEDDINGS, PrefixMap};
use crate::config::Fence;

/// Who is fenced: the longest prefix over all fences of a name decides.
#[derive(Clone, Debug)]
pub struct Fences {
    map: PrefixMap<u16>,
    /// By class, from 1 on: the candidates that are allowed, as bits.
    allowed: Vec<u64>,
}

impl Fences {
    /// Builds the classes. `None` where there are no fences.
    pub fn build(fences: &[Fence]) -> Option<Self> {
        if fences.is_empty() {
            return None;
        }
        // Nobody is looked up where IPv6 stands for IPv4, but leaves end where it begins.
        let walls = EMBEDDINGS.iter().map(|net| (IpNet::V6(*net), u16::MAX));
        let rules =
            fences.iter().zip(1..).flat_map(|(fence, class)| fence.clients.iter().map(move |net| (*net, class)));
        let bits = |only: &[usize]| only.iter().filter(|i| **i < 64).fold(0, |set, i| set | 1 << i);
        Some(Self {
            map: PrefixMap::build(rules.chain(walls), 0),
            allowed: fences.iter().map(|f| bits(&f.only)).collect(),
        })
    }

    /// The fence around `address`, by its place in the configuration plus one, and how many bits of it tell; 0: none.
    pub fn find(&self, address: IpAddr) -> (usize, u8) {
        let leaf = self.map.find(address);
        (leaf.value.into(), leaf.depth)
    }

    /// Which candidates may be answered with inside each fence, as bits.
    pub(super) fn allowed(&self) -> &[u64] {
        &self.allowed
    }
}
