//! Precedence, exact leaves, and what a change moves.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::prefix::embedded;
use crate::snapshot::atlas::Stamp;

fn places(said: &[&str]) -> Vec<Locality> {
    let one = |text: &&str| match text.split_once(':').unwrap_or(("", "")) {
        ("class", name) => Locality::Class(name.into()),
        ("asn", number) => Locality::Asn(number.parse().unwrap()),
        ("city", name) => Locality::City(name.into()),
        ("subdivision", code) => Locality::Subdivision(code.into()),
        ("country", code) => Locality::Country(code.into()),
        ("continent", code) => Locality::Continent(code.into()),
        _ => Locality::Net(text.parse().unwrap()),
    };
    said.iter().map(one).collect()
}

/// A file that says this of these prefixes, the longest first.
fn source(origin: Origin, rules: &[(&str, &[&str])]) -> Source {
    let list = origin == Origin::List;
    let mut marks = vec![Mark::default()];
    let nets = rules.iter().map(|(net, said)| {
        let net: IpNet = net.parse().unwrap();
        let localities = places(said);
        let said = localities.iter().fold(0, |said, l| said | u8::from(!list) << Rank::of(l) as u8);
        marks.push(Mark { localities, said, length: if list { net.prefix_len() } else { 0 } });
        (net, marks.len() as u32 - 1)
    });
    let runs = Runs::nested(nets.collect::<Vec<_>>(), 0);
    let networks = rules.len() as u64;
    Source { file: "file".into(), origin, runs, marks, networks, stamp: Stamp::default(), took: Duration::ZERO }
}

fn database(rules: &[(&str, &[&str])]) -> Source {
    source(Origin::Database { kind: "Test".into(), built: 0 }, rules)
}

fn built(candidates: &[Vec<Locality>], atlas: &Atlas) -> Near {
    Near::build(&candidates.iter().map(Vec::as_slice).collect::<Vec<_>>(), atlas)
}

/// Who is near, by place, and the depth of the leaf.
fn at(near: &Near, address: &str) -> (Vec<usize>, u8) {
    let (set, depth) = near.find(address.parse().unwrap());
    ((0..8).filter(|i| set.is_some_and(|set| set.get(*i) == Some(&true))).collect(), depth)
}

#[test]
fn the_most_exact_that_is_said_counts() {
    let atlas = Atlas {
        sources: vec![
            source(
                Origin::List,
                &[("10.1.0.0/16", &["class:office"]), ("10.1.9.0/24", &["class:lab", "class:office"])],
            ),
            database(&[
                ("10.0.0.0/8", &["country:CN", "continent:AS"]),
                ("10.64.0.0/10", &["country:DE", "continent:EU"]),
            ]),
            database(&[("10.128.0.0/9", &["asn:4134"]), ("10.192.0.0/10", &["subdivision:CN-GD", "city:shenzhen"])]),
        ],
    };
    let near = built(
        &[
            places(&["continent:AS", "10.1.2.0/24"]),
            places(&["country:CN", "class:lab"]),
            places(&["asn:4134", "class:office", "10.0.0.0/8"]),
            places(&["subdivision:CN-GD", "10.1.2.128/25"]),
            places(&["city:shenzhen", "country:DE"]),
        ],
        &atlas,
    );
    assert_eq!(at(&near, "10.1.2.1"), (vec![0], 25), "the longest prefix, and a longer one beneath it");
    assert_eq!(at(&near, "10.1.2.200"), (vec![3], 25));
    assert_eq!(at(&near, "10.1.9.1"), (vec![1, 2], 24), "two classes of one line");
    assert_eq!(at(&near, "10.1.10.1"), (vec![2], 11 + 12), "the list's /16 before our /8; its leaf ends at 10.1.8/23");
    assert_eq!(at(&near, "10.200.0.1").0, [2], "our prefix before everything that databases say");
    let plain = built(
        &[
            places(&["continent:AS"]),
            places(&["country:CN"]),
            places(&["asn:4134"]),
            places(&["subdivision:CN-GD"]),
            places(&["city:shenzhen", "country:DE"]),
        ],
        &atlas,
    );
    assert_eq!(at(&plain, "10.1.9.1"), (vec![1], 10), "the country before its continent");
    assert_eq!(at(&plain, "10.64.0.1"), (vec![4], 10), "the first database is right about the country");
    assert_eq!(at(&plain, "10.129.0.1"), (vec![2], 10), "the system before the country");
    assert_eq!(at(&plain, "10.200.0.1"), (vec![4], 10), "the city before its subdivision");
    assert_eq!(at(&plain, "11.0.0.1"), (vec![], 8));
    let far = built(&[places(&["continent:AS"]), places(&["country:FR"])], &atlas);
    assert_eq!(at(&far, "10.1.9.1").0, [0], "nobody asks for its country: the continent counts");
    assert_eq!(at(&far, "10.64.0.1").0, [0usize; 0]);
}

#[test]
fn leaves_end_where_ipv4_begins_within_ipv6() {
    let near = built(&[places(&["0.0.0.0/1", "2000::/3"]), places(&["128.0.0.0/1"])], &Atlas::default());
    assert_eq!(at(&near, "2003::1"), (vec![0], 16), "6to4 is its sibling");
    assert_eq!(at(&near, "2a00::1"), (vec![0], 5));
    assert_eq!(at(&near, "8000::1"), (vec![], 1));
}

#[test]
fn a_change_says_how_much_of_ipv4_it_moves() {
    let near = |a: &[&str], b: &[&str]| built(&[places(a), places(b)], &Atlas::default());
    let before = near(&["10.0.0.0/8"], &["128.0.0.0/1"]);
    let same = before.shift(&near(&["10.0.0.0/9", "10.128.0.0/9"], &["128.0.0.0/1"]));
    assert_eq!((same.moved, same.near.as_slice()), (0.0, &[(1.0 / 256.0, 1.0 / 256.0), (0.5, 0.5)][..]));
    let other = before.shift(&near(&["10.0.0.0/9", "192.0.0.0/2"], &["128.0.0.0/2"]));
    assert_eq!(other.moved.to_bits(), (0.25 + 1.0 / 512.0f64).to_bits(), "halves are exact");
    assert_eq!(other.near, [(1.0 / 256.0, 0.25 + 1.0 / 512.0), (0.5, 0.25)]);
}

const WORDS: [&str; 8] =
    ["class:a", "class:b", "asn:1", "city:x", "subdivision:CN-GD", "country:CN", "country:DE", "continent:AS"];

fn net(bits: u32, length: u8, v4: bool) -> String {
    let bits = bits & 0x0303_0303;
    let address: IpAddr =
        if v4 { IpAddr::V4(bits.into()) } else { IpAddr::V6((u128::from(bits | 0x2000_0000) << 96).into()) };
    IpNet::new(address, length).unwrap().trunc().to_string()
}

fn said(of: std::ops::Range<usize>) -> impl Strategy<Value = Vec<(String, Vec<&'static str>)>> {
    let rule =
        (any::<u32>(), 0u8..=32, any::<bool>(), prop::collection::vec(prop::sample::select(WORDS[of].to_vec()), 1..3));
    prop::collection::vec(rule, 0..8).prop_map(|rules| {
        let mut seen = std::collections::BTreeSet::new();
        let rules = rules.into_iter().map(|(bits, length, v4, said)| (net(bits, length, v4), said));
        rules.filter(|(net, _)| seen.insert(net.clone())).collect()
    })
}

fn slices<'r>(rules: &'r [(String, Vec<&'static str>)]) -> Vec<(&'r str, &'r [&'static str])> {
    rules.iter().map(|(net, said)| (net.as_str(), said.as_slice())).collect()
}

proptest! {
    /// The map says what its reasons say; everybody in a leaf has the same near; and a leaf could not be larger.
    #[test]
    fn a_map_is_right_everywhere_and_its_leaves_are_exact(
        list in said(0..2),
        databases in prop::collection::vec(said(2..8), 0..3),
        words in prop::collection::vec(prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..4), 3),
        nets in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>(), 0usize..3), 0..6),
        probes in prop::collection::vec((any::<u32>(), any::<bool>(), any::<u128>()), 12),
    ) {
        let mut candidates: Vec<Vec<Locality>> = words.iter().map(|w| places(w)).collect();
        for (bits, length, v4, who) in nets {
            candidates[who].extend(places(&[&net(bits, length, v4)]));
        }
        let mut sources = vec![source(Origin::List, &slices(&list))];
        sources.extend(databases.iter().map(|rules| database(&slices(rules))));
        let atlas = Atlas { sources };
        let asked: Vec<&[Locality]> = candidates.iter().map(Vec::as_slice).collect();
        let near = Near::build(&asked, &atlas);
        let why = |address: IpAddr| -> Vec<usize> {
            let mut who: Vec<usize> =
                hits(&asked, &atlas, address).into_iter().filter(|h| h.counts).flat_map(|h| h.candidates).collect();
            who.sort_unstable();
            who.dedup();
            who
        };
        for (bits, v4, noise) in probes {
            let address: IpAddr = net(bits, 32, v4).parse::<IpNet>().unwrap().network();
            let stands_for_ipv4 = |address| matches!(address, IpAddr::V6(a) if embedded(a).is_some());
            if stands_for_ipv4(address) {
                // A client there is looked up by its IPv4 address.
                continue;
            }
            let (set, depth) = near.find(address);
            let who: Vec<usize> = (0..3).filter(|i| set.is_some_and(|set| set[*i])).collect();
            prop_assert_eq!(&who, &why(address), "{}", address);
            let block = IpNet::new(address, depth).unwrap().trunc();
            let inside = match (block.network(), block.hostmask()) {
                (IpAddr::V4(a), IpAddr::V4(m)) => IpAddr::V4((u32::from(a) | u32::from(m) & noise as u32).into()),
                (IpAddr::V6(a), IpAddr::V6(m)) => IpAddr::V6((u128::from(a) | u128::from(m) & noise).into()),
                _ => unreachable!(),
            };
            for other in [block.network(), block.broadcast(), inside] {
                prop_assert_eq!(&who, &why(other), "{} and {} share {}", address, other, block);
                prop_assert!(!stands_for_ipv4(other), "{} ends before {}", block, other);
            }
        }
    }
}
