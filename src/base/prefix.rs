//! Longest-prefix match over addresses, with the depth of the leaf that holds an address.
//!
//! A leaf is a block of addresses, as large as possible, within which every address has the same value. Its depth is what
//! RFC 7871 calls the scope of an answer: never the length of the rule that matched, for a longer rule may lie beneath it.
//!
//! A map is a trie of 64-way nodes that find their children and leaves by counting bits (Asai and Ohara, "Poptrie",
//! SIGCOMM 2015): half a million prefixes lie in some megabytes, and a lookup reads one node for each six bits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

pub mod runs;

use runs::{Run, Runs, bits};

/// How many bits of an address a node of the trie decides.
const STRIDE: u32 = 6;

/// A finished map of both families.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    v4: Trie<V>,
    v6: Trie<V>,
}

/// The block that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<V> {
    /// What the longest matching rule says.
    pub value: V,
    /// Length of the block's prefix, in bits of its family.
    pub depth: u8,
}

impl<V: Copy + Eq> PrefixMap<V> {
    /// Builds the map of `rules`; what no rule matches has the value `otherwise`. Of equal prefixes the last one counts.
    pub fn build(rules: impl IntoIterator<Item = (IpNet, V)>, otherwise: V) -> Self {
        Self::of(&Runs::nested(rules, otherwise), otherwise)
    }

    /// Builds the map of `runs`; a family that they say nothing about has the value `otherwise`.
    pub fn of(runs: &Runs<V>, otherwise: V) -> Self {
        Self { v4: Trie::of(&runs.v4, otherwise), v6: Trie::of(&runs.v6, otherwise) }
    }

    /// The leaf that holds `address`.
    pub fn find(&self, address: IpAddr) -> Leaf<V> {
        match address {
            IpAddr::V4(_) => self.v4.find(bits(address)),
            IpAddr::V6(_) => self.v6.find(bits(address)),
        }
    }

    /// How much memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

/// The first `length` bits of `address`, the rest zero; `length` beyond the family's width keeps everything.
pub fn truncate(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let keep = u32::MAX.checked_shl(32u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V4((u32::from(a) & keep).into())
        }
        IpAddr::V6(a) => {
            let keep = u128::MAX.checked_shl(128u32.saturating_sub(length.into())).unwrap_or(0);
            IpAddr::V6((u128::from(a) & keep).into())
        }
    }
}

/// The prefixes within which an IPv6 address stands for an IPv4 one: mapped (RFC 4291 section 2.5.5.2), the well-known prefix
/// of NAT64 (RFC 6052 section 2.1), Teredo (RFC 4380 section 4), 6to4 (RFC 3056 section 2).
pub const EMBEDDINGS: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// The IPv4 address that `address` stands for by one of [`EMBEDDINGS`], and how many of its bits come before it.
pub fn embedded(address: Ipv6Addr) -> Option<(Ipv4Addr, u8)> {
    let bits = u128::from(address);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some((Ipv4Addr::from(bits as u32), 96)),
        // Teredo turns every bit of the client's address.
        [0x2001, 0, ..] => Some((Ipv4Addr::from(!(bits as u32)), 96)),
        [0x2002, ..] => Some((Ipv4Addr::from((bits >> 80) as u32), 16)),
        _ => None,
    }
}

#[derive(Clone, Debug)]
struct Trie<V> {
    /// The root first; the children of a node stand side by side.
    nodes: Vec<Node>,
    leaves: Vec<Leaf<V>>,
}

/// What the next six bits of an address lead to.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Which of the 64 slots lead to a node.
    children: u64,
    /// Which of the others have another leaf than the one before them.
    starts: u64,
    first_child: u32,
    first_leaf: u32,
}

impl<V: Copy + Eq> Trie<V> {
    fn of(runs: &[Run<V>], otherwise: V) -> Self {
        let everything = [Run { first: 0, value: otherwise }];
        let mut trie = Self { nodes: vec![Node::default()], leaves: Vec::new() };
        trie.grow(0, 0, 0, if runs.is_empty() { &everything } else { runs });
        trie.nodes.shrink_to_fit();
        trie.leaves.shrink_to_fit();
        trie
    }

    /// Fills node `at`, which stands for the block of `depth` bits that begins at `first`, where the first of `runs` holds.
    fn grow(&mut self, at: usize, first: u128, depth: u32, mut runs: &[Run<V>]) {
        let mut node = Node { first_leaf: self.leaves.len() as u32, ..Node::default() };
        let mut divided = Vec::new();
        let mut before = None;
        for slot in 0..1u128 << STRIDE {
            let first = first | slot << (128 - STRIDE) >> depth;
            // Beyond the last bit a slot is a part of one address.
            let last = first | u128::MAX.checked_shr(depth + STRIDE).unwrap_or(0);
            while let [_, tail @ ..] = runs
                && tail.first().is_some_and(|run| run.first <= first)
            {
                runs = tail;
            }
            let [run, tail @ ..] = runs else { break };
            let next = tail.first().map(|run| run.first);
            if next.is_some_and(|next| next <= last) {
                node.children |= 1 << slot;
                divided.push((first, runs));
                continue;
            }
            let leaf = Leaf { value: run.value, depth: depth_of(first, run.first, next) };
            if before != Some(leaf) {
                node.starts |= 1 << slot;
                self.leaves.push(leaf);
                before = Some(leaf);
            }
        }
        let first_child = self.nodes.len();
        node.first_child = first_child as u32;
        self.nodes[at] = node;
        self.nodes.resize(first_child + divided.len(), Node::default());
        for (child, (first, runs)) in divided.into_iter().enumerate() {
            self.grow(first_child + child, first, depth + STRIDE, runs);
        }
    }

    fn find(&self, mut bits: u128) -> Leaf<V> {
        let mut node = &self.nodes[0];
        loop {
            let slot = (bits >> (128 - STRIDE)) as u32;
            let below = (1u64 << slot) - 1;
            if node.children >> slot & 1 == 0 {
                let started = (node.starts & (below << 1 | 1)).count_ones();
                return self.leaves[(node.first_leaf + started - 1) as usize];
            }
            node = &self.nodes[(node.first_child + (node.children & below).count_ones()) as usize];
            bits <<= STRIDE;
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.leaves.as_slice())
    }
}

/// How long the shortest prefix of `address` is that holds neither the address before `first` nor `next`.
fn depth_of(address: u128, first: u128, next: Option<u128>) -> u8 {
    let apart = |other: u128| (address ^ other).leading_zeros() as u8 + 1;
    first.checked_sub(1).map_or(0, apart).max(next.map_or(0, apart))
}

#[cfg(test)]
mod tests;
