//! Files of our own writer, in every record size and family; and files that lie.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::writer::{Value, asn, city, country, map, text, write};
use super::*;
use crate::base::prefix::runs::Runs;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// What holds where, by the walk.
fn runs(file: &Mmdb<'_>) -> Runs<Option<Record>> {
    let mut runs = Runs::default();
    file.walk(|first, record| runs.append(first, record)).unwrap();
    runs
}

#[test]
fn what_was_written_is_read() {
    let networks = [
        (net("10.0.0.0/8"), country("AS", "CN")),
        (net("10.1.0.0/16"), city("EU", "DE", "BY", "Munich", 2_867_714)),
        (net("10.1.2.0/24"), asn(4_134)),
        (net("192.0.2.7/32"), map([("registered_country", map([("iso_code", text("FR"))]))])),
        (net("2001:db8::/32"), country("EU", "GB")),
        (net("2001:db8:ffff:ffff::1/128"), asn(4_294_967_295)),
    ];
    for (v6, bits) in [(true, 24), (true, 28), (true, 32), (false, 24), (false, 28), (false, 32)] {
        let bytes = write("Test-City", v6, bits, &networks);
        let file = Mmdb::open(&bytes).unwrap();
        assert_eq!((file.kind, file.built), ("Test-City", 1_700_000_000));
        let runs = runs(&file);
        let place = |address: &str| {
            let record = runs.at(address.parse().unwrap()).flatten()?;
            Some(file.place(record).unwrap())
        };
        let cn = Place { continent: Some("AS"), country: Some("CN"), ..Place::default() };
        assert_eq!(place("10.200.0.1"), Some(cn), "{v6} {bits}");
        let munich = Place {
            continent: Some("EU"),
            country: Some("DE"),
            subdivisions: vec!["BY"],
            city_id: Some(2_867_714),
            city: Some("Munich"),
            asn: None,
        };
        assert_eq!(place("10.1.255.255"), Some(munich), "{v6} {bits}");
        assert_eq!(place("10.1.2.3"), Some(Place { asn: Some(4_134), ..Place::default() }));
        assert_eq!(place("192.0.2.7").and_then(|p| p.country), Some("FR"), "registered there");
        assert_eq!((place("192.0.2.6"), place("0.0.0.0"), place("255.255.255.255")), (None, None, None));
        assert_eq!(place("2001:db8::5").and_then(|p| p.country), v6.then_some("GB"));
        assert_eq!(place("2001:db8:ffff:ffff::1").and_then(|p| p.asn), v6.then_some(4_294_967_295));
        assert_eq!(place("2002:a01:203::"), None, "6to4 repeats IPv4 and is passed over");
        assert_eq!(place("::10.1.2.3"), None);
    }
}

#[test]
fn long_texts_and_many_records_are_read() {
    let long = "x".repeat(20_000);
    let networks: Vec<(IpNet, Value)> = (0..2_000u32)
        .map(|i| {
            let address = IpAddr::from(i.wrapping_mul(2_654_435_761).to_be_bytes());
            let record = map([
                ("filler", text(&long[..(i as usize * 7) % 300])),
                ("autonomous_system_number", Value::Number(i)),
            ]);
            (IpNet::new(address, 24).unwrap().trunc(), record)
        })
        .chain([(net("2001:db8::/32"), map([("filler", text(&long)), ("country", map([("iso_code", text("NL"))]))]))])
        .collect();
    let bytes = write("Test-ASN", true, 28, &networks);
    let file = Mmdb::open(&bytes).unwrap();
    let runs = runs(&file);
    for (net, _) in &networks {
        let place = file.place(runs.at(net.network()).flatten().unwrap()).unwrap();
        let wanted = networks.iter().rev().find(|(n, _)| n == net).map(|(_, value)| value).unwrap();
        let Value::Map(entries) = wanted else { panic!() };
        match &entries[1].1 {
            Value::Number(number) => assert_eq!(place.asn, Some(u64::from(*number))),
            _ => assert_eq!(place.country, Some("NL")),
        }
    }
}

#[test]
fn what_is_no_such_file_is_said() {
    assert_eq!(Mmdb::open(b"").unwrap_err(), MmdbError::NoMetadata);
    assert_eq!(Mmdb::open(b"\x1f\x8b gzip").unwrap_err(), MmdbError::NoMetadata);
    let bytes = write("Test", true, 24, &[(net("10.0.0.0/8"), asn(1))]);
    assert_eq!(Mmdb::open(&bytes[..bytes.len() / 4]).unwrap_err(), MmdbError::NoMetadata);
    let at = bytes.windows(MARKER.len()).position(|w| w == MARKER).unwrap();
    assert_eq!(Mmdb::open(&bytes[at - 4..]).unwrap_err(), MmdbError::Short);
    assert_eq!(Mmdb::open(&bytes[..at + MARKER.len()]).unwrap_err(), MmdbError::Data(0));
}

/// A file whose tree is all of these records of 24 bits.
fn lying(tree: &[u32]) -> Vec<u8> {
    let bytes = write("Test", true, 24, &[]);
    let metadata = bytes.windows(MARKER.len()).position(|w| w == MARKER).unwrap();
    let mut out: Vec<u8> = tree.iter().flat_map(|r| r.to_be_bytes()[1..].to_vec()).collect();
    out.extend([0; 16]);
    let count = bytes.windows(10).position(|w| w == b"node_count").unwrap() + 10;
    out.extend(&bytes[metadata..count]);
    // A number of one octet instead of the one node that the empty file has.
    out.extend([0xc1, (tree.len() / 2) as u8]);
    out.extend(&bytes[count + 2..]);
    out
}

#[test]
fn trees_that_lie_end() {
    let walk = |tree: &[u32]| {
        let bytes = lying(tree);
        let file = Mmdb::open(&bytes).unwrap();
        let mut networks = 0u64;
        let walked = file.walk(|_, _| networks += 1);
        assert!(networks < 100_000);
        walked
    };
    assert_eq!(walk(&[1, 1]), Ok(()), "empty");
    assert_eq!(walk(&[0, 1]), Err(MmdbError::Tree), "the root is its own left child");
    assert_eq!(walk(&[1, 1, 1, 1]), Err(MmdbError::Tree), "a circle");
    assert_eq!(walk(&[3, 5]), Err(MmdbError::Tree), "between tree and data");
    // Every node leads twice to the next: 2^60 networks of honest looks.
    let ladder: Vec<u32> = (1..=60).flat_map(|n| [n, n]).collect();
    assert_eq!(walk(&ladder), Err(MmdbError::Tree));
}

#[test]
fn data_that_lies_is_refused() {
    let place = |data: &[u8]| {
        let section = Section::new(data);
        let mut entries = 0;
        section.entries(0, |_, _| {
            entries += 1;
            Ok(())
        })?;
        Ok(entries)
    };
    assert_eq!(place(b"\xe1\x41a\x41b"), Ok(1));
    assert_eq!(place(b"\xe1\x41a"), Err(MmdbError::Data(3)), "no value");
    assert_eq!(place(b"\xe1\xa1\x01"), Err(MmdbError::Data(1)), "a key that is a number");
    assert_eq!(place(b"\x20\x00"), Err(MmdbError::Data(0)), "a pointer to itself");
    assert_eq!(place(b"\xff\xff\xff\xff"), Err(MmdbError::Data(4)), "seventeen million entries and none");
    assert_eq!(place(b"\x00\xff"), Err(MmdbError::Data(0)), "a type that no octet holds");
    assert_eq!(place(b"\x41a"), Ok(0), "a text has no entries");
    // A map of maps of pointers back to the first: each is read where it stands and followed nowhere.
    assert_eq!(place(b"\xe2\x41a\x20\x00\x41b\x20\x00"), Ok(2));
}

proptest! {
    /// Longest match over the networks, by our own map and by the file.
    #[test]
    fn a_walk_says_what_the_networks_say(
        networks in prop::collection::vec((any::<u32>(), 1u8..=32, 0u32..5), 0..40),
        probes in prop::collection::vec(any::<u32>(), 16),
        bits in prop::sample::select(vec![24u8, 28, 32]),
        v6: bool,
    ) {
        let narrow = |bits: u32| IpAddr::from((bits & 0x0303_0303).to_be_bytes());
        let mut known: HashMap<IpNet, u32> = HashMap::new();
        for (address, length, number) in networks {
            known.insert(IpNet::new(narrow(address), length).unwrap().trunc(), number);
        }
        let all: Vec<(IpNet, Value)> = known.iter().map(|(net, number)| (*net, asn(*number))).collect();
        let bytes = write("Test", v6, bits, &all);
        let file = Mmdb::open(&bytes).unwrap();
        let runs = runs(&file);
        let wanted = Runs::nested(known.iter().map(|(net, number)| (*net, Some(u64::from(*number)))), None);
        for probe in probes {
            let address = narrow(probe);
            let said = runs.at(address).flatten().and_then(|r| file.place(r).unwrap().asn);
            prop_assert_eq!(Some(said), wanted.at(address));
        }
    }

    #[test]
    fn octets_that_were_changed_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let networks = [(net("10.0.0.0/8"), city("AS", "CN", "GD", "Shenzhen", 1_795_565)), (net("2001:db8::/32"), asn(3))];
        let mut bytes = write("Test", true, 28, &networks);
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if let Ok(file) = Mmdb::open(&bytes) {
            let mut records = Vec::new();
            let _ = file.walk(|_, record| records.extend(record));
            records.truncate(100);
            for record in records {
                let _ = file.place(record);
            }
        }
    }
}
