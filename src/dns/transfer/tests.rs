//! Transfers read back by hickory-proto: what is sent is the zone, in whatever messages, and nobody gets it unasked.

use std::fmt::Write as _;
use std::path::PathBuf;

use hickory_proto::op::Message as Hickory;
use proptest::prelude::*;

use super::*;
use crate::config::{Config, Dns, Policy, ZoneFile};
use crate::dns::fixture::{self, ZONE, steer, zone};
use crate::dns::transfer::outgoing::publish;
use crate::snapshot::Topology;
use crate::snapshot::topology::Assets;
use crate::wire::name;
use crate::wire::zone::Zone;

const NOW: Wall = Wall(1_000_000);

fn key() -> Arc<Key> {
    Arc::new(Key::new(b"\x03xfr\0", tsig::Algorithm::Sha256, &[9; 32]))
}

/// A snapshot in which `zone` may be taken by `rule`, after `before`.
pub(super) fn world(zone: Zone, rule: Option<crate::config::Transfer>, before: Option<&Snapshot>) -> Snapshot {
    let mut snapshot = fixture::snapshot(vec![zone], vec![steer("www.example.test.", &[Policy::Weighted])]);
    let mut config = Config::clone(&snapshot.topology.config);
    let file = ZoneFile { origin: "example.test.".into(), file: PathBuf::new(), transfer: rule, ..ZoneFile::default() };
    config.dns = config.dns.map(|dns| Dns { zones: vec![file], ..dns });
    let mut assets = Assets { zones: snapshot.topology.assets.zones.clone(), keys: vec![key()], ..Assets::default() };
    assets.outgoing = publish(&config, &assets.zones, before.map(|b| &*b.topology));
    snapshot.topology = Arc::new(Topology::build(Arc::new(config), assets, None));
    snapshot
}

pub(super) fn open() -> crate::config::Transfer {
    crate::config::Transfer { allow: vec!["192.0.2.0/24".parse().unwrap()], key: None }
}

fn keyed() -> crate::config::Transfer {
    crate::config::Transfer { allow: Vec::new(), key: Some(0) }
}

pub(super) fn ask(rtype: u8, serial: Option<u32>) -> Vec<u8> {
    let mut query = vec![7, 7, 0, 0, 0, 1, 0, 0, 0, u8::from(serial.is_some()), 0, 0];
    query[9] = u8::from(serial.is_some());
    query.extend(name::parse("Example.test.", None).unwrap());
    query.extend([0, rtype, 0, 1]);
    if let Some(serial) = serial {
        query.extend(b"\xc0\x0c\0\x06\0\x01\0\0\0\0\0\x16\0\0");
        query.extend(serial.to_be_bytes());
        query.extend([0; 16]);
    }
    query
}

fn from(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// All messages of a transfer.
fn messages(begun: Begun) -> Vec<Vec<u8>> {
    let Begun::Transfer(mut transfer) = begun else { panic!("{begun:?}") };
    let mut all = Vec::new();
    loop {
        let mut out = Vec::new();
        if !transfer.next(&mut out, NOW) {
            assert!(transfer.is_done());
            return all;
        }
        assert_eq!(usize::from(u16::from_be_bytes([out[0], out[1]])), out.len() - 2);
        all.push(out[2..].to_vec());
    }
}

/// Owner, type, TTL and data of all records, in their order.
fn records(messages: &[Vec<u8>]) -> Vec<(String, u16, u32, Vec<u8>)> {
    use hickory_proto::serialize::binary::BinEncodable as _;
    let read = messages.iter().flat_map(|m| Hickory::from_vec(m).unwrap().answers);
    let one = |r: hickory_proto::rr::Record| {
        (r.name.to_lowercase().to_string(), u16::from(r.record_type()), r.ttl, r.data.to_bytes().unwrap())
    };
    read.map(one).collect()
}

fn refusal(begun: &Begun) -> Rcode {
    match begun {
        Begun::Answer(_, rcode) => *rcode,
        Begun::Transfer(_) => panic!("it was given"),
    }
}

#[test]
fn a_whole_zone_is_sent_between_its_soas() {
    let snapshot = world(zone("example.test.", ZONE), Some(open()), None);
    let sent = records(&messages(begin(&snapshot, &ask(252, None), from("192.0.2.9"), NOW)));
    let of_zone: usize = snapshot.topology.assets.zones[0].names.values().flatten().map(|set| set.rdatas.len()).sum();
    // The SOA twice; six addresses and an HTTPS record for the steered name.
    assert_eq!(sent.len(), of_zone + 1 + 7);
    assert_eq!((sent[0].1, &sent[0]), (6, &sent[sent.len() - 1]));
    let www: Vec<_> = sent.iter().filter(|r| r.0 == "www.example.test.").map(|r| (r.1, r.2)).collect();
    assert_eq!(www, [(1, 5), (1, 5), (1, 5), (28, 5), (28, 5), (28, 5), (65, 5)]);
}

#[test]
fn a_large_zone_takes_many_messages_and_a_long_record_one() {
    let mut text = ZONE.to_owned();
    for i in 0..3_000 {
        writeln!(text, "n{i} A 192.0.2.1").unwrap();
    }
    writeln!(text, "long TYPE65281 \\# 40000 {}", "00".repeat(40_000)).unwrap();
    let snapshot = world(zone("example.test.", &text), Some(keyed()), None);
    let mut query = ask(252, None);
    let length = query.len();
    query.resize(length + 200, 0);
    let mut asking = Signer::asking(&key());
    let signed = asking.sign(&mut query, length, 1_000, None).unwrap();
    query.truncate(signed);
    let all = messages(begin(&snapshot, &query, from("198.51.100.1"), NOW));
    assert!(all.len() > 4 && all.iter().any(|m| m.len() > 40_000), "{}", all.len());
    assert!(all.iter().filter(|m| m.len() > FILL + 200).count() == 1);
    let names = records(&all).iter().filter(|r| r.0.starts_with('n')).count();
    assert!(names >= 3_000);
    let first = Tsig::read(&all[0], tsig::find(&all[0]).unwrap().unwrap()).unwrap();
    assert_eq!(first.verify(&all[0], &key(), asking.mac(), 1_000), Ok(()));
    assert!(all.iter().all(|m| tsig::find(m).unwrap().is_some()), "each message is signed");
}

#[test]
fn changes_are_sent_alone_where_they_are_known() {
    let version = |serial: u32, more: &str| {
        let text = ZONE.replacen(" 1 3600 900", &format!(" {serial} 3600 900"), 1) + more;
        zone("example.test.", &text)
    };
    let first = world(version(1, "gone A 192.0.2.77\n"), Some(open()), None);
    let second = world(version(2, "come A 192.0.2.78\n"), Some(open()), Some(&first));
    let third = world(version(5, "come A 192.0.2.79\n"), Some(open()), Some(&second));
    let get = |snapshot: &Snapshot, serial| {
        let sent = records(&messages(begin(snapshot, &ask(251, Some(serial)), from("192.0.2.9"), NOW)));
        let show = |r: &(String, u16, u32, Vec<u8>)| match r.1 {
            6 => format!("SOA {}", serial_of(&r.3)),
            _ => format!("{} {:?}", r.0.split('.').next().unwrap(), r.3.last().unwrap()),
        };
        sent.iter().map(show).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(get(&third, 1), "SOA 5, SOA 1, gone 77, SOA 2, come 78, SOA 2, come 78, SOA 5, come 79, SOA 5");
    assert_eq!(get(&third, 2), "SOA 5, SOA 2, come 78, SOA 5, come 79, SOA 5");
    assert_eq!((get(&third, 5), get(&third, 6)), ("SOA 5".into(), "SOA 5".into()));
    assert!(get(&third, 4).starts_with("SOA 5, "), "a version that we never had: all of it");
    let whole = |text: &str| text.matches(", ").count() > 30;
    assert!(whole(&get(&third, 4)) && whole(&get(&first, 0)));
    // The same version again keeps the history; another content under the same serial has none.
    let same = world(version(5, "come A 192.0.2.79\n"), Some(open()), Some(&third));
    assert_eq!(get(&same, 2), get(&third, 2));
    let sly = world(version(5, "come A 192.0.2.80\n"), Some(open()), Some(&third));
    assert!(whole(&get(&sly, 2)), "all of it");
    let back = world(version(3, ""), Some(open()), Some(&third));
    assert!(back.topology.assets.outgoing[0].as_ref().unwrap().history.is_empty());
}

fn serial_of(rdata: &[u8]) -> u32 {
    serial(rdata).unwrap()
}

#[test]
fn nobody_takes_what_he_may_not() {
    let ours = || zone("example.test.", ZONE);
    let shut = world(ours(), None, None);
    assert_eq!(refusal(&begin(&shut, &ask(252, None), from("192.0.2.9"), NOW)), Rcode::Refused);
    let open = world(ours(), Some(open()), None);
    assert_eq!(refusal(&begin(&open, &ask(252, None), from("198.51.100.9"), NOW)), Rcode::Refused);
    let mapped = begin(&open, &ask(252, None), from("::ffff:192.0.2.9"), NOW);
    assert!(matches!(mapped, Begun::Transfer(_)), "the same client on a socket for both families");
    let keyed = world(ours(), Some(keyed()), None);
    assert_eq!(refusal(&begin(&keyed, &ask(252, None), from("192.0.2.9"), NOW)), Rcode::Refused);
    let mut elsewhere = ask(252, None);
    elsewhere[13] = b'x';
    assert_eq!(refusal(&begin(&open, &elsewhere, from("192.0.2.9"), NOW)), Rcode::NotAuth);
    let sign = |key: &Key, at: u64| {
        let mut query = ask(252, None);
        let length = query.len();
        query.resize(length + 200, 0);
        let signed = Signer::asking(key).sign(&mut query, length, at, None).unwrap();
        query.truncate(signed);
        query
    };
    let told = |query: &[u8]| {
        let Begun::Answer(packet, rcode) = begin(&keyed, query, from("192.0.2.9"), NOW) else { panic!("it was given") };
        let tsig = tsig::find(&packet).unwrap().and_then(|at| Tsig::read(&packet, at));
        (rcode, tsig.unwrap().error())
    };
    let other = |name: &[u8], secret| Key::new(name, tsig::Algorithm::Sha256, &[secret; 32]);
    assert_eq!(told(&sign(&other(b"\x03xfr\0", 8), 1_000)), (Rcode::NotAuth, 16));
    assert_eq!(told(&sign(&other(b"\x05other\0", 9), 1_000)), (Rcode::NotAuth, 17));
    assert_eq!(told(&sign(&key(), 100)), (Rcode::NotAuth, 18));
    assert!(matches!(begin(&keyed, &sign(&key(), 1_000), from("192.0.2.9"), NOW), Begun::Transfer(_)));
}

#[test]
fn a_signature_cut_short_is_refused_with_one_that_can_be_checked() {
    let keyed = world(zone("example.test.", ZONE), Some(keyed()), None);
    let mut query = ask(252, None);
    let length = query.len();
    query.resize(length + 200, 0);
    let signed = Signer::asking(&key()).sign(&mut query, length, 1_000, None).unwrap();
    query.truncate(signed);
    // Half of the 32 octets, which RFC 8945 section 5.2.2.1 lets a peer send: id, error and other data stand behind them.
    let mac = signed - 6 - 32;
    query.drain(mac + 16..mac + 32);
    query[mac - 1] = 16;
    // The length of the data stands behind the key's name, type, class and TTL.
    query[length + 5 + 9] -= 16;
    let Begun::Answer(packet, rcode) = begin(&keyed, &query, from("192.0.2.9"), NOW) else { panic!("it was given") };
    let tsig = Tsig::read(&packet, tsig::find(&packet).unwrap().unwrap()).unwrap();
    assert_eq!((rcode, tsig.error()), (Rcode::NotAuth, 22));
    assert_eq!(tsig.verify(&packet, &key(), &query[mac..mac + 16], 1_000), Ok(()));
    // Its time is ours: only who is out of time gets his own back.
    assert_eq!(tsig.time(), 1_000);
}

#[test]
fn what_is_wrong_with_a_query_is_wrong_with_one_for_a_transfer() {
    let open = world(zone("example.test.", ZONE), Some(open()), None);
    let with_opt = |version: u8, options: &[u8]| {
        let mut query = ask(252, None);
        query[11] = 1;
        query.extend([0, 0, 41, 4, 208, 0, version, 0, 0, 0, options.len() as u8]);
        query.extend_from_slice(options);
        query
    };
    let ask = |query: &[u8]| begin(&open, query, from("192.0.2.9"), NOW);
    assert!(matches!(ask(&with_opt(0, &[])), Begun::Transfer(_)));
    assert_eq!(refusal(&ask(&with_opt(1, &[]))), Rcode::BadVers);
    assert_eq!(refusal(&ask(&with_opt(0, &[0, 8, 0, 1, 9]))), Rcode::FormErr, "a client subnet that is none");
    assert_eq!(refusal(&ask(&with_opt(0, &[0, 10, 0, 1, 9]))), Rcode::FormErr, "a cookie that is none");
}

#[test]
fn only_transfers_are_taken_for_transfers() {
    assert!(is_asked(&ask(252, None)) && is_asked(&ask(251, Some(1))));
    assert!(!is_asked(&ask(6, None)) && !is_asked(&[]) && !is_asked(&[0; 12]));
    let flagged = |flags: u8| {
        let mut query = ask(252, None);
        query[2] = flags;
        query
    };
    assert!(is_asked(&flagged(1)), "recursion may be desired");
    // An answer, and a notice (RFC 1996): others judge them.
    assert!(!is_asked(&flagged(0x80)) && !is_asked(&flagged(4 << 3)));
}

proptest! {
    #[test]
    fn no_query_panics(
        rtype in 250u8..254,
        serial in prop::option::of(any::<u32>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let snapshot = world(zone("example.test.", ZONE), Some(open()), None);
        let mut query = ask(rtype, serial);
        for (at, octet) in changes {
            let at = at.index(query.len());
            query[at] = octet;
        }
        query.truncate(query.len() - cut.index(query.len()) / 4);
        if is_asked(&query)
            && let Begun::Transfer(mut transfer) = begin(&snapshot, &query, from("192.0.2.9"), NOW)
        {
            let mut out = Vec::new();
            while transfer.next(&mut out, NOW) {}
            prop_assert!(transfer.is_done());
        }
    }
}
