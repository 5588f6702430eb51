//! The name server's targets: octets as queries, messages, options, names, record data, zones and prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use springtide::base::clock::{Mono, Wall};
use springtide::base::prefix::{PrefixMap, truncate};
use springtide::config::check;
use springtide::control::step;
use springtide::dns::answer::{Meta, Outcome, Sent, Transport, answer, answer_in_place};
use springtide::dns::sign::Signatures;
use springtide::dns::table::Table;
use springtide::dns::transfer::{self, Begun};
use springtide::dns::zone;
use springtide::snapshot::topology::Assets;
use springtide::snapshot::{Snapshot, Topology};
use springtide::wire::dns::cookie::{self, Cookie, Secrets};
use springtide::wire::dns::{Ede, Fault, MAX_UDP, Opt, Query, Rcode};
use springtide::wire::ecs::{self, Subnet};
use springtide::wire::tsig::{self, Algorithm, Key, Signer, Tsig};
use springtide::wire::zone::Zone;
use springtide::wire::{doh, lookup, master, name, rdata, text};

use super::dnssec;

/// A query as it comes in: what is read of it lies inside it.
pub fn dns_query(data: &[u8]) {
    let mut query = Query::default();
    match query.read(data) {
        Ok(()) => {}
        Err(Fault::Unasked) => {
            let cookie = query.edns.and_then(|e| e.cookie);
            assert!(data[4..6] == [0, 0] && cookie.is_some(), "who asks nothing has a cookie");
            return;
        }
        Err(_) => return,
    }
    assert!(query.question_end <= data.len());
    assert!((512..=MAX_UDP).contains(&query.udp_limit(MAX_UDP)));
    let mut lowered = [0; name::MAX];
    let length = query.lower(data, &mut lowered);
    assert_eq!(name::labels(&lowered[..length]).map(|l| l.len() + 1).sum::<usize>() + 1, length);
}

/// A query and its answer: the same for every way to ask, within its limit, readable, and of this question.
pub fn dns_answer(data: &[u8]) {
    let Some((&choice, query)) = data.split_first() else { return };
    let transport = Transport::ALL[usize::from(choice) % Transport::ALL.len()];
    let meta = Meta { client: Ipv4Addr::new(10, choice, 0, 1).into(), transport, now: Wall(1_000) };
    answered(&WORLD, query, &meta, choice);
    // The same where the zone is signed: what is asked with DO is verified. Time moves, so that budgets come anew.
    let meta = Meta { now: Wall(dnssec::SIGNED_AT.0 + u64::from(choice) * 1_000), ..meta };
    let Some((message, sent)) = answered(&dnssec::SIGNED, query, &meta, choice) else { return };
    let Ok(query) = Query::parse(query) else { return };
    // hickory-proto knows no client subnet without a family, which RFC 7871 section 6 allows.
    if query.edns.and_then(|e| e.subnet).is_none_or(|s| s.address().is_some()) && sent.rtype != 0 {
        let wanted = query.edns.is_some_and(|e| e.dnssec_ok && e.version == 0 && e.flaw.is_none());
        dnssec::verified(&message, wanted && query.signature.is_none() && !sent.truncated);
    }
}

/// The answer of one world, if there is one: held against everything that must hold for any.
fn answered(table: &Table, query: &[u8], meta: &Meta, choice: u8) -> Option<(Vec<u8>, Sent)> {
    let transport = meta.transport;
    let mut out = vec![0; 65_535];
    // Who comes first makes the signatures that all others find.
    let outcome = answer(table, query, meta, &mut out);
    let mut place = vec![0; 65_535];
    let length = query.len().min(place.len());
    place[..length].copy_from_slice(&query[..length]);
    let alike = |outcome: Outcome| match outcome {
        Outcome::Send(sent) => Outcome::Send(Sent { signatures: Signatures::default(), ..sent }),
        dropped @ Outcome::Drop(_) => dropped,
    };
    assert_eq!(alike(answer_in_place(table, &mut place, length, meta)), alike(outcome));
    let Outcome::Send(sent) = outcome else { return None };
    assert_eq!(place[..sent.length], out[..sent.length]);
    assert!(!transport.is_datagram() || sent.length <= MAX_UDP);
    assert_eq!(out[..2], query[..2], "the id is kept");
    let message = text::message(&out[..sent.length]);
    assert_eq!(message.map(|m| m.rcode), Some(sent.rcode as u16), "an answer of ours is a message");
    let mut read = Query::default();
    if let (Err(Fault::Unasked), Some(edns)) = (read.read(query), read.edns) {
        let echoed = out[..sent.length].windows(2).filter(|w| *w == [0, 10]).count() > 0;
        assert!(edns.flaw.is_some() || edns.version > 0 || echoed, "a cookie for a cookie");
        assert_eq!((&out[4..6], sent.rtype, sent.steered), (&[0, 0][..], 0, None), "and nothing else");
    }
    // Shortened, it is a message still.
    let mut short = sent;
    if short.rtype != 0 {
        short.shorten(&mut place);
        assert!(short.length <= sent.length);
        let message = text::message(&place[..short.length]);
        assert_eq!(message.map(|m| (m.rcode, m.sections[0].len())), Some((short.rcode as u16, 0)));
    }
    // A buffer of any size is enough for not panicking.
    let room = usize::from(choice) * 8;
    if let Outcome::Send(sent) = answer(table, query, meta, &mut vec![0; room]) {
        assert!(sent.length <= room);
    }
    out.truncate(sent.length);
    Some((out, sent))
}

/// A DNS cookie: what is read is answered; what we made is known for an hour. The rest as a file of secrets.
pub fn dns_cookie(data: &[u8]) {
    let secrets = Secrets::one([7; 16]);
    let client = Ipv4Addr::new(192, 0, 2, 1).into();
    let (now, rest) = data.split_first_chunk::<4>().map_or((0, data), |(now, rest)| (u32::from_be_bytes(*now), rest));
    if let Ok(cookie) = Cookie::parse(rest) {
        let Some((_, whole)) = secrets.answer(&cookie, client, now) else { panic!("no answer to a cookie") };
        assert_eq!(whole[..cookie::CLIENT], rest[..cookie::CLIENT], "the client's own comes back");
        let again = Cookie::parse(&whole).map(|c| secrets.answer(&c, client, now));
        assert_eq!(again, Ok(Some((true, whole))), "ours is good, and comes back while it is young");
    } else {
        assert!(!(rest.len() == 8 || (16..=40).contains(&rest.len())));
    }
    if let Ok(secrets) = Secrets::parse(&String::from_utf8_lossy(rest)) {
        assert!(!secrets.is_empty());
    }
}

/// What an OPT says: written, and read back out of a query.
pub fn dns_opt(data: &[u8]) {
    let Some((&[flags, s0, s1, tenth, block], rest)) = data.split_first_chunk::<5>() else { return };
    let (subnet, nsid) = rest.split_at(rest.len().min(20));
    let whole = rest.first_chunk().copied();
    let subnet = Subnet::parse(subnet).ok();
    let opt = Opt {
        size: u16::from_be_bytes([s0, s1]),
        dnssec_ok: flags & 1 != 0,
        compact_ok: flags & 32 != 0,
        subnet: subnet.as_ref().map(|s| (s, 0)),
        nsid: nsid.get(..nsid.len().min(64)).unwrap_or_default(),
        cookie: whole.filter(|_| flags & 2 != 0),
        keepalive: (flags & 4 != 0).then_some(tenth.into()),
        error: (flags & 8 != 0).then_some(Ede::NOT_AUTHORITATIVE),
        block: (flags & 16 != 0).then_some(block.into()),
    };
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
    let before = packet.len();
    packet.resize(before + 1_000, 0);
    let length = opt.write(Rcode::NoError, before, &mut packet[before..]);
    packet.truncate(before + length);
    assert!(length >= 11 && (opt.error.is_some() || opt.block.is_some() || length <= opt.reserve()));
    let Ok(Query { edns: Some(read), .. }) = Query::parse(&packet) else { panic!("not read back") };
    assert_eq!((read.size, read.dnssec_ok, read.flaw), (opt.size, opt.dnssec_ok, None));
    assert_eq!(
        (read.nsid, read.keepalive, read.cookie.is_some()),
        (!opt.nsid.is_empty(), opt.keepalive.is_some(), opt.cookie.is_some())
    );
    assert_eq!(read.subnet, opt.subnet.map(|(s, _)| *s));
    // Any octets as options.
    packet.truncate(before);
    packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    if let Ok(length) = u16::try_from(rest.len()) {
        packet.extend(length.to_be_bytes());
        packet.extend(rest);
        let _ = Query::parse(&packet);
    }
}

/// A message from anybody, as text.
pub fn dns_text(data: &[u8]) {
    text::message(data);
}

/// What DNS over HTTPS reads: a query in a URL that has one spelling, and for how long a message is fresh.
pub fn doh(data: &[u8]) {
    doh::freshness(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(octets) = doh::parameter(text).and_then(doh::decode) {
        let digits = text.split('&').find_map(|pair| pair.strip_prefix("dns=")).map_or(0, str::len);
        assert_eq!(octets.len(), digits * 3 / 4);
    }
}

/// The client subnet option: what is read is written again as it was.
pub fn ecs(data: &[u8]) {
    let Ok(subnet) = Subnet::parse(data) else { return };
    let mut out = [0; ecs::MAX_WRITTEN];
    let length = subnet.write(0, &mut out);
    assert_eq!(&out[4..length], data);
    if let Some(address) = subnet.address() {
        assert_eq!(truncate(address, subnet.source()), address, "no bits beyond SOURCE");
    }
}

/// A name as text: what is read shows as a text that reads as the same name.
pub fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(wire) = name::parse(text, Some(b"\x06origin\0")) else { return };
    assert!(wire.len() <= name::MAX);
    assert_eq!(name::parse(&name::show(&wire), None).as_deref(), Ok(&*wire));
}

/// Record data of any type: its text reads as the same octets.
pub fn rdata(data: &[u8]) {
    let Some((head, data)) = data.split_first_chunk::<2>() else { return };
    let rtype = u16::from_be_bytes(*head);
    if data.len() > usize::from(u16::MAX) {
        return;
    }
    let line = format!("x. 1 IN TYPE{rtype} {}\n", text::show(rtype, data));
    let read = master::parse(&line, Path::new("x"), b"\0", &mut |_| Err(String::new()));
    assert!(read.findings.is_empty(), "{line}: {:?}", read.findings);
    assert_eq!(read.records.first().map(|r| &*r.rdata), Some(data), "{line}");
    assert_eq!(rdata::type_of(&rdata::type_name(rtype)), Some(rtype));
}

/// A master file: a zone, or findings with lines inside it; what is a zone is answered from.
pub fn zone(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_zone("z.", &text) {
        Err(findings) => {
            let lines = text.lines().count() as u32;
            assert!(findings.iter().all(|f| f.place.line <= lines + 1), "{findings:?}");
        }
        Ok(zone) => {
            let names: Vec<Box<[u8]>> = zone.names.keys().cloned().collect();
            let table = table("[node]\nname = \"fuzz\"\n[dns]\nlisten = \"127.0.0.1:5300\"\n", vec![zone]);
            let meta = Meta { client: Ipv4Addr::LOCALHOST.into(), transport: Transport::Tcp, now: Wall(1_000) };
            // One line makes a million names ($GENERATE): then some of them speak for all.
            let (step, mut out) = (names.len().div_ceil(1_000).max(1), vec![0; 65_535]);
            for owner in names.into_iter().step_by(step) {
                for rtype in [1u16, 5, 16, 43, 255] {
                    let mut query = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                    query.extend(&owner);
                    query.extend(rtype.to_be_bytes());
                    query.extend([0, 1]);
                    let Outcome::Send(sent) = answer(&table, &query, &meta, &mut out) else { panic!("dropped") };
                    assert!(text::message(&out[..sent.length]).is_some());
                    assert_ne!(sent.rcode, Rcode::Refused, "a name of the zone is ours");
                }
            }
        }
    }
}

/// An answer to a query of our own: what is read of it has the size of an address.
pub fn lookup(data: &[u8]) {
    let query = lookup::query(b"\x01a\x01t\0", 28, 7, 9, &[]);
    let mut packet = query[..query.len() - 11].to_vec();
    packet[2] = 0x81;
    // The header's counts and whatever follows the question are the fuzzer's.
    let Some((counts, rest)) = data.split_first_chunk::<7>() else { return };
    packet[3] = counts[0];
    packet[6..12].copy_from_slice(&counts[1..]);
    packet.extend_from_slice(rest);
    if let Some(lookup::Found::Records { rdatas, .. }) = lookup::read(&query, &packet, 28) {
        assert!(!rdatas.is_empty() && rdatas.iter().all(|r| r.len() == 16));
    }
    lookup::read(&query, data, 28);
}

/// A query for a transfer: refused, or a sequence of messages that are messages and end.
pub fn transfer(data: &[u8]) {
    if !transfer::is_asked(data) {
        return;
    }
    match transfer::begin(&TRANSFERS, data, Ipv4Addr::LOCALHOST.into(), Wall(1_000_000)) {
        Begun::Answer(packet, rcode) => {
            assert!(text::message(&packet).is_some_and(|m| m.rcode == rcode as u16), "a refusal of ours is a message");
        }
        Begun::Transfer(mut transfer) => {
            let mut out = Vec::new();
            while transfer.next(&mut out, Wall(1_000_000)) {}
            let mut rest = out.as_slice();
            while let Some((length, after)) = rest.split_first_chunk::<2>() {
                let (message, after) = after.split_at(u16::from_be_bytes(*length).into());
                assert!(text::message(message).is_some(), "a message of ours is one");
                rest = after;
            }
            assert!(transfer.is_done());
        }
    }
}

/// A signed message: nothing verifies by chance, and what we sign does.
pub fn tsig(data: &[u8]) {
    let key = Key::new(b"\x03key\0", Algorithm::Sha256, &[5; 32]);
    if let Ok(Some(start)) = tsig::find(data)
        && let Some(read) = Tsig::read(data, start)
    {
        assert!(read.verify(data, &key, &[], read.time()).is_err(), "nobody knows this key");
    }
    let Ok(None) = tsig::find(data) else { return };
    let mut packet = data.to_vec();
    packet.resize(data.len() + key.record_octets(), 0);
    let Some(length) = Signer::asking(&key).sign(&mut packet, data.len(), 77, None) else { return };
    // Octets behind the last record may read as the beginning of the signature's: we sign whole messages only.
    let Ok(Some(start)) = tsig::find(&packet[..length]) else { return };
    if start != data.len() {
        return;
    }
    let read = Tsig::read(&packet[..length], start).unwrap_or_else(|| panic!("what we wrote is read"));
    assert_eq!(read.verify(&packet[..length], &key, &[], 77), Ok(()));
}

/// A prefix map against its definition, and its leaves against themselves.
pub fn prefix(data: &[u8]) {
    let (rules, _) = data.as_chunks::<6>();
    let mut nets: Vec<(IpNet, u8)> = Vec::new();
    for &[a, b, c, d, length, value] in rules.iter().take(64) {
        let address = if value & 1 == 0 { v4([a, b, c, d]) } else { v6([a, b, c, d]) };
        let Ok(net) = IpNet::new(address, length % (if value & 1 == 0 { 33 } else { 129 })) else { continue };
        if !nets.iter().any(|(n, _)| *n == net.trunc()) {
            nets.push((net.trunc(), value));
        }
    }
    let map = PrefixMap::build(nets.iter().copied(), 0);
    let said =
        |a: IpAddr| nets.iter().filter(|(n, _)| n.contains(&a)).max_by_key(|(n, _)| n.prefix_len()).map_or(0, |r| r.1);
    for &[a, b, c, d, ..] in rules.iter().take(64) {
        for address in [v4([a, b, c, d]), v6([a, b, c, d]), v4([d, c, b, a])] {
            let leaf = map.find(address);
            assert_eq!(leaf.value, said(address));
            assert_eq!(leaf.value, said(truncate(address, leaf.depth)), "the first address of the leaf agrees");
        }
    }
}

fn v4(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn v6([a, b, c, d]: [u8; 4]) -> IpAddr {
    Ipv6Addr::from([a, b, c, d, d, c, b, a, a, b, c, d, d, c, b, a]).into()
}

pub fn parse_zone(origin: &str, text: &str) -> Result<Zone, Vec<zone::Finding>> {
    let origin = name::parse(origin, None).unwrap_or_default();
    zone::parse(text, Path::new("fuzz.zone"), &origin, &mut |_| Err("no files here".into()))
}

fn table(config: &str, zones: Vec<Zone>) -> Table {
    let config = check::parse(config, Path::new("fuzz.toml")).unwrap_or_else(|findings| panic!("{findings}"));
    let zones = zones.into_iter().map(Arc::new).collect();
    let assets = Assets { zones, cookies: Secrets::one([7; 16]), ..Assets::default() };
    let topology = Topology::build(Arc::new(config), assets, None);
    Table::compile(&step::first(topology, None, Mono::from_millis(1_000), Wall(1_000)))
}

/// The same world with its zone open to the local host.
static TRANSFERS: LazyLock<Snapshot> = LazyLock::new(|| {
    let zone = parse_zone("t.", include_str!("world.zone")).unwrap_or_else(|findings| panic!("{findings:?}"));
    let text = include_str!("world.toml")
        .replace("file = \"world.zone\"", "file = \"world.zone\"\ntransfer = { allow = \"127.0.0.0/8\" }");
    let config = check::parse(&text, Path::new("fuzz.toml")).unwrap_or_else(|findings| panic!("{findings}"));
    let zones = vec![Arc::new(zone)];
    let outgoing = springtide::dns::publish_zones(&config, &zones, None);
    let topology = Topology::build(Arc::new(config), Assets { zones, outgoing, ..Assets::default() }, None);
    step::first(topology, None, Mono::from_millis(1_000), Wall(1_000))
});

/// One zone with everything that `answer` has a branch for, and steered names.
static WORLD: LazyLock<Table> = LazyLock::new(|| {
    let zone = parse_zone("t.", include_str!("world.zone")).unwrap_or_else(|findings| panic!("{findings:?}"));
    table(include_str!("world.toml"), vec![zone])
});
