//! Longest-prefix match over addresses, with the depth of the leaf that holds an address.
//!
//! A leaf is a block of addresses, as large as possible, within which every address has the same value: the rules' trie
//! with values pushed down to the leaves and equal siblings merged. Its depth is what RFC 7871 calls the scope of an
//! answer: never the length of the rule that matched, for a longer rule may lie beneath it.

use std::net::IpAddr;

use ipnet::IpNet;

/// A finished map: the leaves of both families, sorted by their first address.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    v4: Vec<Stored<V>>,
    v6: Vec<Stored<V>>,
}

/// The block that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<V> {
    /// What the longest matching rule says.
    pub value: V,
    /// Length of the block's prefix, in bits of its family.
    pub depth: u8,
}

#[derive(Clone, Copy, Debug)]
struct Stored<V> {
    /// First address, aligned to the top of 128 bits in both families.
    first: u128,
    leaf: Leaf<V>,
}

#[derive(Clone, Copy)]
struct Node<V> {
    value: Option<V>,
    children: [u32; 2],
}

impl<V: Copy + Eq> PrefixMap<V> {
    /// Builds the map of `rules`; what no rule matches has the value `otherwise`. Of equal prefixes the last one counts.
    pub fn build(rules: impl IntoIterator<Item = (IpNet, V)>, otherwise: V) -> Self {
        let (mut v4, mut v6) = (Trie::new(otherwise), Trie::new(otherwise));
        for (net, value) in rules {
            let trie = if matches!(net, IpNet::V4(_)) { &mut v4 } else { &mut v6 };
            trie.insert(bits(net.network()), net.prefix_len(), value);
        }
        Self { v4: v4.leaves(), v6: v6.leaves() }
    }

    /// The leaf that holds `address`.
    pub fn find(&self, address: IpAddr) -> Leaf<V> {
        let leaves = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let bits = bits(address);
        // The first leaf begins at zero, so there is always one at or before the address.
        let at = leaves.partition_point(|l| l.first <= bits).saturating_sub(1);
        leaves[at].leaf
    }

    /// How many leaves there are, both families together.
    pub fn leaves(&self) -> usize {
        self.v4.len() + self.v6.len()
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

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => a.into(),
    }
}

struct Trie<V> {
    nodes: Vec<Node<V>>,
    otherwise: V,
}

impl<V: Copy + Eq> Trie<V> {
    fn new(otherwise: V) -> Self {
        Self { nodes: vec![Node { value: None, children: [0; 2] }], otherwise }
    }

    fn insert(&mut self, bits: u128, length: u8, value: V) {
        let mut at = 0;
        for depth in 0..u32::from(length) {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if self.nodes[at].children[side] == 0 {
                self.nodes[at].children[side] = self.nodes.len() as u32;
                self.nodes.push(Node { value: None, children: [0; 2] });
            }
            at = self.nodes[at].children[side] as usize;
        }
        self.nodes[at].value = Some(value);
    }

    fn leaves(&self) -> Vec<Stored<V>> {
        let mut out = Vec::new();
        self.walk(0, 0, 0, self.otherwise, &mut out);
        out
    }

    /// Emits the leaves below node `at`, which stands for the block that begins at `first`; merges equal siblings.
    fn walk(&self, at: usize, first: u128, depth: u8, inherited: V, out: &mut Vec<Stored<V>>) {
        let node = &self.nodes[at];
        let value = node.value.unwrap_or(inherited);
        if node.children == [0; 2] {
            out.push(Stored { first, leaf: Leaf { value, depth } });
            return;
        }
        let before = out.len();
        for (side, &child) in node.children.iter().enumerate() {
            let first = first | (side as u128) << (127 - u32::from(depth));
            if child == 0 {
                out.push(Stored { first, leaf: Leaf { value, depth: depth + 1 } });
            } else {
                self.walk(child as usize, first, depth + 1, value, out);
            }
        }
        if let [left, right] = out[before..]
            && left.leaf == right.leaf
            && left.leaf.depth == depth + 1
        {
            out.truncate(before);
            out.push(Stored { first, leaf: Leaf { value: left.leaf.value, depth } });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(rules: &[(&str, u8)]) -> PrefixMap<u8> {
        PrefixMap::build(rules.iter().map(|(net, v)| (net.parse().unwrap(), *v)), 0)
    }

    fn at(map: &PrefixMap<u8>, address: &str) -> (u8, u8) {
        let leaf = map.find(address.parse().unwrap());
        (leaf.value, leaf.depth)
    }

    #[test]
    fn the_longest_prefix_wins_and_the_leaf_is_deeper_than_its_rule_where_another_lies_beneath() {
        let m = map(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("2001:db8::/32", 3)]);
        assert_eq!(at(&m, "10.1.2.3"), (2, 16));
        assert_eq!(at(&m, "10.0.2.3"), (1, 16), "10.1/16 is its sibling");
        assert_eq!(at(&m, "10.2.0.1"), (1, 15));
        assert_eq!(at(&m, "10.128.0.1"), (1, 9));
        assert_eq!(at(&m, "11.0.0.1"), (0, 8));
        assert_eq!(at(&m, "192.0.2.1"), (0, 1));
        assert_eq!(at(&m, "2001:db8:5::1"), (3, 32));
        assert_eq!(at(&m, "ff02::1"), (0, 1));
    }

    #[test]
    fn equal_siblings_are_one_leaf() {
        let m = map(&[("10.0.0.0/9", 1), ("10.128.0.0/9", 1)]);
        assert_eq!(at(&m, "10.200.0.1"), (1, 8));
        let whole = map(&[("0.0.0.0/1", 4), ("128.0.0.0/1", 4)]);
        assert_eq!((at(&whole, "1.2.3.4"), whole.leaves()), ((4, 0), 2));
        assert_eq!(at(&map(&[("0.0.0.0/0", 7), ("10.0.0.1/32", 8)]), "10.0.0.1"), (8, 32));
    }

    #[test]
    fn an_address_is_cut_to_its_prefix() {
        let cut = |a: &str, n| truncate(a.parse().unwrap(), n).to_string();
        assert_eq!(cut("10.1.2.3", 24), "10.1.2.0");
        assert_eq!(cut("10.1.2.3", 0), "0.0.0.0");
        assert_eq!(cut("10.1.2.3", 56), "10.1.2.3");
        assert_eq!(cut("2001:db8:1:2ff::1", 56), "2001:db8:1:200::");
        assert_eq!(cut("2001:db8::1", 0), "::");
    }

    proptest! {
        /// Against the definition: the longest rule that contains the address; and every address of a leaf agrees.
        #[test]
        fn leaves_say_what_rules_say(
            rules in prop::collection::vec((any::<u32>(), 0u8..=32, 0u8..4), 0..24),
            probes in prop::collection::vec(any::<u32>(), 32),
        ) {
            let mut nets: Vec<(IpNet, u8)> = Vec::new();
            for (address, length, value) in rules {
                // A narrow space, so that rules meet.
                let net = IpNet::new(IpAddr::V4((address & 0x0303_0303).into()), length).unwrap().trunc();
                if !nets.iter().any(|(n, _)| *n == net) {
                    nets.push((net, value));
                }
            }
            let m = PrefixMap::build(nets.iter().copied(), 9);
            let naive = |a: IpAddr| nets.iter().filter(|(n, _)| n.contains(&a)).max_by_key(|(n, _)| n.prefix_len()).map_or(9, |r| r.1);
            for probe in probes {
                let inside = IpAddr::V4((probe & 0x0303_0303).into());
                let leaf = m.find(inside);
                prop_assert_eq!(leaf.value, naive(inside));
                let flip = probe.checked_shr(u32::from(leaf.depth)).unwrap_or(0);
                let IpAddr::V4(base) = truncate(inside, leaf.depth) else { unreachable!() };
                let sibling = IpAddr::V4((u32::from(base) | flip).into());
                prop_assert_eq!(naive(sibling), leaf.value, "{} and {} share a leaf", inside, sibling);
            }
        }
    }
}
