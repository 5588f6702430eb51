//! Maps against their definition: the longest rule, and the largest block around an address that has one value.

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
    assert_eq!((at(&whole, "1.2.3.4"), at(&whole, "::1")), ((4, 0), (0, 0)));
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

#[test]
fn ipv4_within_ipv6_is_found() {
    let inner = |a: &str| embedded(a.parse().unwrap()).map(|(v4, before)| (v4.to_string(), before));
    let ours = |before| Some(("10.1.2.3".to_owned(), before));
    assert_eq!(inner("::ffff:10.1.2.3"), ours(96));
    assert_eq!(inner("64:ff9b::10.1.2.3"), ours(96));
    assert_eq!(inner("2001:0:c000:22d:8000:63bf:f5fe:fdfc"), ours(96), "RFC 4380: the client's address inverted");
    assert_eq!(inner("2002:a01:203:7::9"), ours(16));
    for other in ["2001:db8::1", "::10.1.2.3", "64:ff9b:1::a01:203", "2003:a01:203::"] {
        assert_eq!(inner(other), None, "{other}");
    }
    assert!(EMBEDDINGS.iter().all(|net| embedded(net.network()).is_some() && embedded(net.broadcast()).is_some()));
}

#[test]
fn layers_meet_where_any_of_them_changes() {
    let nets = |list: &[&str], value: u8| Runs::nested(list.iter().map(|n| (n.parse().unwrap(), value)), 0);
    let (a, b) = (nets(&["10.0.0.0/8", "2001:db8::/32"], 1), nets(&["10.128.0.0/9", "11.0.0.0/8"], 2));
    let both = Runs::overlay(&[&a, &b], |values| values.iter().sum::<u8>());
    let at = |address: &str| both.at(address.parse().unwrap());
    assert_eq!(["9.9.9.9", "10.1.1.1", "10.200.1.1", "11.1.1.1", "12.0.0.0"].map(at), [0, 1, 3, 2, 0].map(Some));
    assert_eq!(["2001:db8::1", "2001:db9::"].map(at), [1, 0].map(Some));
    assert_eq!(both.count(), 5 + 3, "no run for what changes nothing");
    assert_eq!(Runs::overlay(&[&a], |values| values[0]), a);
}

/// Rules in a narrow space, so that they meet; each prefix once.
fn rules() -> impl Strategy<Value = Vec<(IpNet, u8)>> {
    let family = (any::<u32>(), 0u8..=32, 0u8..=128, any::<bool>(), 0u8..4);
    prop::collection::vec(family, 0..24).prop_map(|all| {
        let mut nets: Vec<(IpNet, u8)> = Vec::new();
        for (bits, short, long, v4, value) in all {
            let length = if v4 { short } else { long };
            let net = IpNet::new(narrow(bits, v4), length).unwrap().trunc();
            if !nets.iter().any(|(n, _)| *n == net) {
                nets.push((net, value));
            }
        }
        nets
    })
}

fn narrow(bits: u32, v4: bool) -> IpAddr {
    let bits = bits & 0x0303_0303;
    let (high, low) = (u128::from(bits), u128::from(bits.reverse_bits()));
    if v4 { IpAddr::V4(bits.into()) } else { IpAddr::V6((high << 96 | low << 60 | high).into()) }
}

fn naive(rules: &[(IpNet, u8)], address: IpAddr) -> u8 {
    rules.iter().filter(|(n, _)| n.contains(&address)).max_by_key(|(n, _)| n.prefix_len()).map_or(9, |r| r.1)
}

/// All values within `block`: the rules can change them at its beginning, at theirs, and behind their ends.
fn values(rules: &[(IpNet, u8)], block: IpNet) -> std::collections::BTreeSet<u8> {
    let after = |last: IpAddr| match last {
        IpAddr::V4(a) => u32::from(a).checked_add(1).map(|a| IpAddr::V4(a.into())),
        IpAddr::V6(a) => u128::from(a).checked_add(1).map(|a| IpAddr::V6(a.into())),
    };
    let edges = rules.iter().flat_map(|(net, _)| [Some(net.network()), after(net.broadcast())]).flatten();
    let inside = edges.filter(|a| block.contains(a)).chain([block.network()]);
    inside.map(|a| naive(rules, a)).collect()
}

proptest! {
    /// Against the definition: the longest rule that contains the address; every address of a leaf agrees, and a leaf is as
    /// large as it can be. Exact: every place where a value can change is looked at.
    #[test]
    fn leaves_say_what_rules_say_and_are_as_large_as_can_be(
        rules in rules(),
        probes in prop::collection::vec((any::<u32>(), any::<bool>()), 16),
    ) {
        let runs = Runs::nested(rules.iter().copied(), 9);
        let map = PrefixMap::of(&runs, 9);
        for (bits, v4) in probes {
            let address = narrow(bits, v4);
            let leaf = map.find(address);
            prop_assert_eq!(leaf.value, naive(&rules, address));
            prop_assert_eq!(runs.at(address), Some(leaf.value));
            let block = IpNet::new(address, leaf.depth).unwrap().trunc();
            prop_assert_eq!(values(&rules, block).len(), 1, "{} is of one value", block);
            if let Some(parent) = block.supernet() {
                prop_assert!(values(&rules, parent).len() > 1, "{} could be {}", block, parent);
            }
        }
    }
}
