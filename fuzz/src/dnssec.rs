//! Targets of DNSSEC: what is published and signed here, held against hickory-proto, whose codecs and verifier are not ours.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, RRSIG};
use hickory_proto::dnssec::{DigestType, Verifier as _};
use hickory_proto::op::Message;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinEncodable as _, BinEncoder, NameEncoding};
use springtide::base::clock::{Mono, Wall};
use springtide::config::check;
use springtide::control::step;
use springtide::dns::sign::ds_of;
use springtide::dns::table::Table;
use springtide::snapshot::Topology;
use springtide::snapshot::topology::Assets;
use springtide::wire::dns::cookie::Secrets;
use springtide::wire::dnssec::keyfile::{self, Key, Public, Times};
use springtide::wire::dnssec::{Algorithm, RrsigHead, SEP, SIGNATURE, ZONE_KEY, bitmap, canonical, successor};
use springtide::wire::name;

/// When the signed world is asked.
pub const SIGNED_AT: Wall = Wall(1_800_000_000_000);
/// The apex of the signed world.
const APEX: &[u8] = b"\x01t\0";

/// A type bitmap: what is read is written again as it was, and any types are read back.
pub fn dnssec_bitmap(data: &[u8]) {
    let write = |types: &[u16]| {
        let mut out = Vec::new();
        let done: Result<(), Infallible> = bitmap::write(types, |window| {
            assert!(window.len() <= bitmap::WINDOW);
            out.extend_from_slice(window);
            Ok(())
        });
        done.map_or_else(|never| match never {}, |()| out)
    };
    if let Some(types) = bitmap::read(data) {
        assert!(types.is_sorted_by(|a, b| a < b));
        assert_eq!(write(&types), data);
    }
    let mut types: Vec<u16> = data.as_chunks::<2>().0.iter().map(|t| u16::from_be_bytes(*t)).collect();
    types.sort_unstable();
    let written = write(&types);
    types.dedup();
    assert_eq!(bitmap::read(&written), Some(types.clone()));
    // As the data of an NSEC record it says the same to others.
    let Some(Record { data: RData::DNSSEC(DNSSECRData::NSEC(nsec)), .. }) = foreign(47, &[&[0], &*written].concat())
    else {
        return;
    };
    let mut said: Vec<u16> = nsec.type_bit_maps().map(u16::from).collect();
    said.sort_unstable();
    assert_eq!(said, types);
}

/// Two names, or a type and record data: the order is hickory's, and so is the form that is signed.
pub fn dnssec_canonical(data: &[u8]) {
    if let Some((a, b)) = first_name(data).and_then(|(a, rest)| Some((a, first_name(rest)?.0))) {
        let order = canonical::compare(a, b);
        assert_eq!(order, canonical::compare(b, a).reverse());
        assert_eq!(order == Ordering::Equal, a.eq_ignore_ascii_case(b));
        if let (Ok(left), Ok(right)) = (Name::from_bytes(a), Name::from_bytes(b)) {
            assert_eq!(order, left.cmp(&right), "{left} {right}");
        }
    }
    let Some((head, data)) = data.split_first_chunk::<2>() else { return };
    let rtype = u16::from_be_bytes(*head);
    let mut lowered = data.to_vec();
    canonical::lower(rtype, &mut lowered);
    assert!(lowered.eq_ignore_ascii_case(data));
    let mut again = lowered.clone();
    canonical::lower(rtype, &mut again);
    assert_eq!(again, lowered, "twice is once");
    // Types whose data hickory reads and writes in full.
    let known = matches!(rtype, 2 | 5 | 6 | 12 | 15 | 16 | 33 | 47 | 64 | 65);
    if let Some(record) = foreign(rtype, data).filter(|_| known) {
        let mut theirs = Vec::new();
        let mut encoder = BinEncoder::new(&mut theirs);
        encoder.set_canonical_form(true);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        // Where it does not keep what it reads, there is nothing to compare.
        if record.data.emit(&mut encoder).is_ok() && theirs.eq_ignore_ascii_case(data) {
            assert_eq!(theirs, lowered, "type {rtype}");
        }
    }
}

/// A name and a second one: the first one's successor is a name behind it, and the second does not lie between.
pub fn dnssec_successor(data: &[u8]) {
    let Some((name, rest)) = first_name(data) else {
        assert!(name::labels(data).count() <= data.len());
        return;
    };
    let name = name.to_ascii_lowercase();
    let mut next = [0; name::MAX];
    let Some(length) = successor::write(&name, &mut next) else {
        // Nothing follows where every label is full of the last octet.
        assert!(name.len() + 2 > name::MAX);
        return;
    };
    let next = &next[..length];
    assert_eq!(name::octets(next), Some(length));
    assert!(!next.iter().any(u8::is_ascii_uppercase));
    assert_eq!(canonical::compare(&name, next), Ordering::Less);
    if let Some((other, _)) = first_name(rest) {
        let other = other.to_ascii_lowercase();
        let between = canonical::compare(&name, &other).is_lt() && canonical::compare(&other, next).is_lt();
        assert!(!between, "{} lies between", name::show(&other));
    }
}

/// Data of RRSIG, DNSKEY and DS: read and written as hickory does.
pub fn dnssec_records(data: &[u8]) {
    if let Some((head, signer, signature)) = RrsigHead::read(data) {
        assert_eq!([&head.octets()[..], signer, signature].concat(), data);
        if let Some(Record { data: RData::DNSSEC(DNSSECRData::RRSIG(theirs)), .. }) = foreign(46, data) {
            let input = theirs.input();
            assert_eq!(
                (u16::from(input.type_covered), u8::from(input.algorithm), input.num_labels, input.original_ttl),
                (head.covered, head.algorithm, head.labels, head.ttl)
            );
            assert_eq!(
                (input.sig_expiration.get(), input.sig_inception.get(), input.key_tag),
                (head.expiration, head.inception, head.tag)
            );
            assert_eq!(theirs.sig(), signature);
        }
    }
    let Some((&choice, rest)) = data.split_first() else { return };
    let algorithm = if choice & 1 == 0 { Algorithm::EcdsaP256 } else { Algorithm::Ed25519 };
    let Some((octets, rest)) = rest.split_at_checked(algorithm.public_octets()) else { return };
    let owner = first_name(rest).map_or(APEX, |(owner, _)| owner).to_ascii_lowercase();
    let flags = ZONE_KEY | if choice & 2 == 0 { 0 } else { SEP };
    let public = Public { owner: owner.into(), flags, algorithm, octets: octets.into() };
    let Some(Record { data: RData::DNSSEC(DNSSECRData::DNSKEY(theirs)), .. }) = foreign(48, &public.dnskey()) else {
        panic!("not read: {public:?}")
    };
    assert_eq!((theirs.flags(), theirs.calculate_key_tag().ok()), (flags, Some(public.tag())));
    let Ok(owner) = Name::from_bytes(&public.owner) else { return };
    assert_eq!(springtide::wire::dnssec::labels(&public.owner), owner.num_labels());
    let Ok(digest) = theirs.to_digest(&owner, DigestType::SHA256) else { panic!("no digest") };
    let ds = ds_of(&public);
    assert_eq!(&ds[4..], digest.as_ref());
    let Some(Record { data: RData::DNSSEC(DNSSECRData::DS(theirs)), .. }) = foreign(43, &ds) else {
        panic!("not read: {ds:?}")
    };
    assert_eq!((theirs.key_tag(), theirs.digest()), (public.tag(), digest.as_ref()));
}

/// Key files, the public half and the private one with an empty octet between: what is read is written as the same.
pub fn keyfile(data: &[u8]) {
    let (public, private) = data.split_at(data.iter().position(|b| *b == 0).unwrap_or(data.len()));
    let [public, private] = [public, private.get(1..).unwrap_or_default()].map(String::from_utf8_lossy);
    let lines = |text: &str| text.lines().count();
    let private = match keyfile::read_private(&private) {
        Ok(key) => {
            assert_eq!(keyfile::read_private(&keyfile::write_private(&key)).as_ref(), Ok(&key));
            assert!(!format!("{key:?}").contains(&format!("{:?}", key.secret.0)), "a secret is shown");
            Some(key)
        }
        Err(keyfile::KeyProblem::Field { line, .. }) => {
            assert!((1..=lines(&private)).contains(&line));
            None
        }
        Err(_) => None,
    };
    match keyfile::read_public(&public) {
        Ok(key) => {
            let times = private.map_or_else(Times::default, |p| p.times);
            let written = keyfile::write_public(&key, &times);
            assert_eq!(keyfile::read_public(&written).as_ref(), Ok(&key), "{written}");
            assert_eq!(name::parse(&name::show(&key.owner), None).as_deref(), Ok(&*key.owner));
            assert!(key.stem().starts_with('K') && key.stem().is_ascii());
        }
        Err(keyfile::KeyProblem::Record { line, .. }) => assert!((1..=lines(&public)).contains(&line)),
        Err(_) => {}
    }
}

/// The world of `dns_answer`, signed with the key of RFC 8080 section 6.1: its signatures are the same each time.
pub static SIGNED: LazyLock<Table> = LazyLock::new(|| {
    let public = "t. IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=";
    let private = "Private-key-format: v1.3\nAlgorithm: 15\nPrivateKey: ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=\n";
    let (Ok(public), Ok(private)) = (keyfile::read_public(public), keyfile::read_private(private)) else {
        panic!("the key of the RFC is not read")
    };
    // No clock but the query's decides, so budgets are large: a second may last as long as the run.
    let file = "file = \"world.zone\"";
    let rules =
        format!("{file}\ndnssec = {{ keys = \"keys\", open_per_second = 1000000, known_per_second = 1000000 }}");
    let text = include_str!("world.toml").replace(file, &rules);
    let config = check::parse(&text, Path::new("fuzz.toml")).unwrap_or_else(|findings| panic!("{findings}"));
    let zone = super::dns::parse_zone("t.", include_str!("world.zone"));
    let zone = zone.unwrap_or_else(|findings| panic!("{findings:?}"));
    let keys: Arc<[Key]> = [Key { public, private }].into();
    let signing = [(APEX.into(), keys)].into();
    let assets = Assets { zones: vec![Arc::new(zone)], signing, cookies: Secrets::one([7; 16]), ..Assets::default() };
    let topology = Topology::build(Arc::new(config), assets, None);
    Table::compile(&step::first(topology, None, Mono::from_millis(1_000), SIGNED_AT))
});

/// An answer of the signed world: every signature in it verifies, and what is ours to sign is signed. `whole`: nothing was
/// left out, and signatures were wanted.
pub fn verified(octets: &[u8], whole: bool) {
    let message = Message::from_vec(octets).unwrap_or_else(|e| panic!("{e}: {}", octets.escape_ascii()));
    for (section, referral) in [(&message.answers, false), (&message.authorities, !message.metadata.authoritative)] {
        let mut sets: BTreeMap<(Name, RecordType), Vec<&Record>> = BTreeMap::new();
        for record in section {
            sets.entry((record.name.clone(), record.record_type())).or_default().push(record);
        }
        let beneath_dname = section.iter().any(|r| u16::from(r.record_type()) == 39);
        for ((owner, rtype), records) in sets.iter().filter(|((_, t), _)| *t != RecordType::RRSIG) {
            let signatures =
                sets.get(&(owner.clone(), RecordType::RRSIG)).into_iter().flatten().filter_map(|r| signature(r));
            let mut covered = 0;
            for signature in signatures.filter(|s| s.input().type_covered == *rtype) {
                let all = records.iter().copied();
                let good = KEY.verify_rrsig(owner, DNSClass::IN, signature, all);
                assert!(good.is_ok(), "{owner} {rtype}: {good:?}");
                assert_eq!(signature.sig().len(), SIGNATURE);
                covered += 1;
            }
            let bare = referral && *rtype == RecordType::NS || beneath_dname && *rtype == RecordType::CNAME;
            let ours = Name::from_bytes(APEX).is_ok_and(|apex| apex.zone_of(owner));
            assert!(covered == 1 || bare || !whole || !ours, "{owner} {rtype} is not signed");
            for record in records {
                if let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data {
                    let (next, apex) = (nsec.next_domain_name(), Name::from_bytes(APEX));
                    assert!(apex.is_ok_and(|apex| apex.zone_of(next)), "{owner} NSEC {next} leads out of the zone");
                }
            }
        }
    }
}

/// What verifies: hickory's form of the key.
static KEY: LazyLock<DNSKEY> = LazyLock::new(|| {
    let octets = [
        0x97, 0x4d, 0x96, 0xa2, 0x2d, 0x22, 0x4b, 0xc0, 0x1a, 0xdb, 0x91, 0x50, 0x91, 0x47, 0x7d, 0x44, 0xcc, 0xd9,
        0x1c, 0x9a, 0x41, 0xa1, 0x14, 0x30, 0x01, 0x01, 0x17, 0xd5, 0x2c, 0x59, 0x24, 0x0e,
    ];
    match foreign(48, &springtide::wire::dnssec::dnskey(257, Algorithm::Ed25519, &octets)) {
        Some(Record { data: RData::DNSSEC(DNSSECRData::DNSKEY(key)), .. }) => key,
        other => panic!("no key: {other:?}"),
    }
});

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// One record of the root as hickory reads it from a message.
fn foreign(rtype: u16, data: &[u8]) -> Option<Record> {
    let length = u16::try_from(data.len()).ok()?;
    let mut message = vec![0, 0, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    message.extend(rtype.to_be_bytes());
    message.extend([0, 1, 0, 0, 0, 0]);
    message.extend(length.to_be_bytes());
    message.extend(data);
    Message::from_vec(&message).ok()?.answers.pop()
}

/// The name at the front of `data`, and what follows it.
fn first_name(data: &[u8]) -> Option<(&[u8], &[u8])> {
    data.split_at_checked(name::octets(data)?)
}
