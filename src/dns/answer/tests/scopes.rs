//! Every scope that is returned is good for everybody in it: asked of the name server itself, over random maps.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{addresses, scopes};
use crate::base::ids::SteerId;
use crate::base::prefix::embedded;
use crate::config::{Locality, Policy};
use crate::dns::fixture::{Ask, ZONE, snapshot, steer, with_health, zone};
use crate::dns::table::Table;
use crate::snapshot::{DcState, Snapshot};

const NAMES: [(&str, &[Policy]); 2] = [
    ("order.example.test.", &[Policy::Near, Policy::Failover]),
    ("share.example.test.", &[Policy::Near, Policy::Weighted]),
];

/// The fixture's three datacenters with these prefixes near, and both ways to go on from there.
fn world(near: &[Vec<IpNet>]) -> Snapshot {
    let mut snapshot = snapshot(vec![zone("example.test.", ZONE)], NAMES.map(|(n, p)| steer(n, p)).into());
    let topology = std::sync::Arc::get_mut(&mut snapshot.topology).unwrap();
    let config = std::sync::Arc::get_mut(&mut topology.config).unwrap();
    for (datacenter, nets) in config.datacenters.iter_mut().zip(near) {
        datacenter.near = nets.iter().copied().map(Locality::Net).collect();
    }
    snapshot
}

fn table(near: [&[&str]; 3]) -> Table {
    Table::compile(&world(&near.map(|nets| nets.iter().map(|n| n.parse().unwrap()).collect())))
}

/// The first address for this subnet, and the scope.
fn ask(table: &Table, name: &str, net: IpNet) -> (String, u8) {
    let ask = Ask::new(name, "A").subnet(&net.to_string());
    (addresses(&ask, table).swap_remove(0), scopes(&ask, table).unwrap().1)
}

fn order(table: &Table, net: &str) -> (String, u8) {
    ask(table, "order.example.test.", net.parse().unwrap())
}

#[test]
fn a_view_within_another_narrows_the_scope_of_both() {
    // Knot's subnet mode answers 10.2.0.0/24 for the whole of 10/8, and so for 10.1/16 too.
    let table = table([&["10.0.0.0/8"], &["10.1.0.0/16"], &[]]);
    assert_eq!(order(&table, "10.2.0.0/24"), ("203.0.113.1".into(), 15));
    assert_eq!(order(&table, "10.0.9.0/24"), ("203.0.113.1".into(), 16));
    assert_eq!(order(&table, "10.1.9.0/24"), ("203.0.113.2".into(), 16));
    // And nobody's answer for everybody.
    assert_eq!(order(&table, "192.0.2.0/24"), ("203.0.113.1".into(), 1));
    assert_eq!(order(&table, "11.0.0.0/24"), ("203.0.113.1".into(), 8));
}

#[test]
fn a_scope_is_neither_the_source_nor_the_rule() {
    let table = table([&["10.0.0.0/9"], &["10.128.0.0/9"], &["10.0.0.0/30"]]);
    assert_eq!(order(&table, "10.64.0.0/24").1, 10, "PowerDNS would say 24");
    assert_eq!(order(&table, "10.0.0.0/8").1, 24, "deeper than what was told: answered for the network's address");
    assert_eq!(order(&table, "10.0.0.0/32").1, 24, "and no deeper than what stands for a client");
}

#[test]
fn ipv4_within_ipv6_is_near_by_its_own_and_keeps_its_place() {
    let table = table([&["0.0.0.0/0", "::/0"], &["10.1.0.0/16"], &[]]);
    assert_eq!(order(&table, "2002:a01:203::/48"), ("203.0.113.2".into(), 16 + 16), "6to4");
    assert_eq!(order(&table, "64:ff9b::a01:203/128"), ("203.0.113.2".into(), 96 + 16), "NAT64");
    assert_eq!(order(&table, "2001:0:1:2:3:4:f5fe:fdfc/128"), ("203.0.113.2".into(), 96 + 16), "Teredo");
    assert_eq!(order(&table, "2003::/56"), ("203.0.113.1".into(), 16), "its neighbour ends where 6to4 begins");
    let resolver = Ask::new("order.example.test.", "A").from("::ffff:10.1.2.3");
    assert_eq!(addresses(&resolver, &table)[0], "203.0.113.2");
}

#[test]
fn scopes_do_not_follow_health() {
    let near: [&[&str]; 3] = [&["10.0.0.0/8"], &["10.1.0.0/16"], &["10.1.2.0/24"]];
    let well = world(&near.map(|nets| nets.iter().map(|n| n.parse().unwrap()).collect()));
    let ill = with_health(&well, SteerId::new(0), |health| {
        health.candidates[1].state = DcState::Failed;
        health.candidates[1].effective = 0;
    });
    let (well, ill) = (Table::compile(&well), Table::compile(&ill));
    for net in ["10.1.9.0/24", "10.1.2.0/24", "10.2.0.0/24", "11.0.0.0/24"] {
        assert_eq!(order(&well, net).1, order(&ill, net).1, "{net}");
    }
    assert_ne!(order(&well, "10.1.9.0/24").0, order(&ill, "10.1.9.0/24").0);
}

/// Addresses of a narrow space, so that prefixes meet; some of IPv6 stand for IPv4.
fn address(bits: u32, kind: u8) -> IpAddr {
    let bits = bits & 0x0303_0303;
    let v6 = |high: u128| IpAddr::V6(high.into());
    match kind % 5 {
        0 | 1 => IpAddr::V4(bits.into()),
        2 => v6(u128::from(bits | 0x2000_0000) << 96 | u128::from(bits) << 64),
        3 => v6(0x2002 << 112 | u128::from(bits) << 80),
        _ => v6(0x64_ff9b << 96 | u128::from(bits)),
    }
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = (any::<u32>(), 0u8..3, 0u8..=32);
    let net = net.prop_map(|(bits, kind, length)| IpNet::new(address(bits, kind), length).unwrap().trunc());
    prop::collection::vec(net, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn everybody_in_a_scope_gets_the_same_answer(
        near in prop::collection::vec(nets(), 3),
        asked in prop::collection::vec((any::<u32>(), any::<u8>(), 1u8..=128, prop::collection::vec(any::<u128>(), 4)), 8),
    ) {
        let table = Table::compile(&world(&near));
        for (bits, kind, source, noise) in asked {
            let at = address(bits, kind);
            let whole = if at.is_ipv4() { 32 } else { 128 };
            let net = IpNet::new(at, source.min(whole)).unwrap().trunc();
            for (name, _) in NAMES {
                let (answer, scope) = ask(&table, name, net);
                let block = IpNet::new(net.network(), scope.min(whole)).unwrap().trunc();
                for noise in &noise {
                    let other = match (block.network(), block.hostmask()) {
                        (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4((u32::from(a) | u32::from(m) & *noise as u32).into()),
                        (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6((u128::from(a) | u128::from(m) & noise).into()),
                        _ => unreachable!(),
                    };
                    // IPv4-mapped addresses come from sockets, and in no client subnet.
                    if matches!(other, IpAddr::V6(a) if a.segments()[..6] == [0, 0, 0, 0, 0, 0xffff]) {
                        continue;
                    }
                    let inside = ask(&table, name, IpNet::new(other, whole).unwrap());
                    prop_assert_eq!(&inside.0, &answer, "{} was told /{}, but {} differs", net, scope, other);
                    // And who is inside is told no more than what he shares, but where IPv4 begins.
                    let inner = |a| matches!(a, IpAddr::V6(a) if embedded(a).is_some());
                    prop_assert!(inner(other) == inner(net.network()) || scope >= 96, "{} in {}/{}", other, net, scope);
                }
            }
        }
    }
}
