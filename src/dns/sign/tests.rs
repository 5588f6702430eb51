//! Every kind of signed answer, read and verified by hickory-proto: a canonical form and a verifier that are not ours.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, RRSIG};
use hickory_proto::dnssec::{PublicKey as _, Verifier as _};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use serde_json::json;

use super::super::answer::Sent;
use super::super::fixture::{self, Ask, with_health, world};
use super::super::table::{Fixed, Table};
use super::*;
use crate::base::clock::{Clock as _, ManualClock, Mono, Wall};
use crate::base::ids::SteerId;
use crate::config::{Signed, ZoneFile};
use crate::snapshot::{Snapshot, Topology};
use crate::wire::dns::Rcode;
use crate::wire::dnssec::keyfile::{Key, Times};
use crate::wire::dnssec::{Algorithm, SEP, ZONE_KEY, bitmap};

mod walk;

const NOW: u32 = 1_800_000_000;
const CSK: u16 = ZONE_KEY | SEP;

pub(in crate::dns) fn rules() -> Signed {
    Signed {
        keys: "keys".into(),
        validity: Duration::from_hours(168),
        backdate: Duration::from_hours(1),
        refresh: 0.5,
        dnskey_ttl: Duration::from_hours(1),
        open_per_second: 1_000,
        known_per_second: 1_000,
    }
}

pub(in crate::dns) fn key(flags: u16, algorithm: Algorithm, times: Times) -> Key {
    let owner = name::lower(&name::parse("example.test.", None).unwrap());
    generate(owner, flags, algorithm, times).unwrap()
}

/// A signed world on a clock of its own.
struct Stage {
    table: Table,
    clock: Arc<ManualClock>,
}

impl Stage {
    fn new(keys: Vec<Key>, rules: &Signed) -> Self {
        Self::of(world(), keys, rules)
    }

    fn of(mut snapshot: Snapshot, keys: Vec<Key>, rules: &Signed) -> Self {
        sign_world(&mut snapshot, keys, rules);
        let clock = Arc::new(ManualClock::new(Mono::ZERO, Wall(u64::from(NOW) * 1_000)));
        let topology = &snapshot.topology;
        let mut fixed = Fixed::compile(&topology.config, &topology.assets.zones, &topology.assets.atlas, None);
        fixed.sign(topology, None);
        let table = Table { fixed: Arc::new(fixed), ..Table::compile(&snapshot) };
        Self { table, clock }
    }

    fn csk(algorithm: Algorithm) -> Self {
        Self::new(vec![key(CSK, algorithm, Times::default())], &rules())
    }

    fn now(&self) -> u32 {
        (self.clock.wall().0 / 1_000) as u32
    }

    fn ask(&self, ask: &Ask) -> (Message, Sent) {
        let (octets, sent) = ask.clone().at(self.clock.wall()).of(&self.table);
        (Message::from_vec(&octets).unwrap(), sent)
    }

    /// The keys that the zone publishes, proved by one of them.
    fn keys(&self) -> Vec<DNSKEY> {
        let (message, _) = self.ask(&Ask::new("example.test.", "DNSKEY").dnssec().tcp());
        let keys = dnskeys(&message);
        assert!(!keys.is_empty());
        assert!(verify(&message.answers, &keys, self.now(), &[]) > 0);
        keys
    }

    /// Asks, and verifies every set of the answer and authority sections but those of type `bare`.
    fn verified(&self, ask: &Ask, bare: &[RecordType]) -> Message {
        let keys = self.keys();
        let (message, sent) = self.ask(ask);
        assert!(!sent.truncated, "{ask:?}");
        verify(&message.answers, &keys, self.now(), &[]);
        verify(&message.authorities, &keys, self.now(), bare);
        assert!(message.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok));
        message
    }
}

pub(in crate::dns) fn sign_world(snapshot: &mut Snapshot, keys: Vec<Key>, rules: &Signed) {
    let mut config = (*snapshot.topology.config).clone();
    let dns = config.dns.as_mut().unwrap();
    dns.zones = vec![ZoneFile {
        origin: "example.test.".into(),
        file: "x".into(),
        dnssec: Some(rules.clone()),
        ..ZoneFile::default()
    }];
    let mut assets = snapshot.topology.assets.clone();
    assets.signing.insert(name::lower(&name::parse("example.test.", None).unwrap()), keys.into());
    snapshot.topology = Arc::new(Topology::build(Arc::new(config), assets, None));
    snapshot.views = Arc::default();
}

fn dnskeys(message: &Message) -> Vec<DNSKEY> {
    let keys = message.answers.iter().filter_map(|r| match &r.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key.clone()),
        _ => None,
    });
    keys.collect()
}

fn signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(sig)) => Some(sig),
        _ => None,
    }
}

/// Holds every set against its signatures; gives how many were verified.
fn verify(section: &[Record], keys: &[DNSKEY], now: u32, bare: &[RecordType]) -> usize {
    let mut sets: BTreeMap<(Name, RecordType), Vec<&Record>> = BTreeMap::new();
    for record in section.iter().filter(|r| signature(r).is_none()) {
        sets.entry((record.name.clone(), record.record_type())).or_default().push(record);
    }
    let mut verified = 0;
    for ((owner, rtype), records) in &sets {
        let of_set = section.iter().filter(|r| r.name == *owner);
        let signatures: Vec<(&Record, &RRSIG)> = of_set.filter_map(|r| Some((r, signature(r)?))).collect();
        let covering: Vec<_> = signatures.iter().filter(|(_, s)| s.input().type_covered == *rtype).collect();
        if bare.contains(rtype) {
            assert!(covering.is_empty(), "{owner} {rtype} is signed");
            continue;
        }
        assert!(!covering.is_empty(), "{owner} {rtype} is not signed");
        for (record, sig) in covering {
            let input = sig.input();
            assert_eq!((record.ttl, input.original_ttl), (records[0].ttl, records[0].ttl), "{owner} {rtype}");
            assert_eq!(input.signer_name.to_string(), "example.test.");
            assert!(input.sig_inception.get() <= now && now < input.sig_expiration.get(), "{owner} {rtype}");
            let key = keys.iter().find(|k| k.calculate_key_tag().unwrap() == input.key_tag).unwrap();
            assert_eq!(key.public_key().algorithm(), input.algorithm);
            let all = records.iter().copied();
            key.verify_rrsig(owner, DNSClass::IN, sig, all).unwrap_or_else(|e| panic!("{owner} {rtype}: {e}"));
            verified += 1;
        }
    }
    verified
}

/// The NSEC records of a message's authority: owner, next name, types.
fn nsec(message: &Message) -> Vec<(String, String, Vec<u16>)> {
    let all = message.authorities.iter().chain(&message.answers);
    let found = all.filter_map(|r| match &r.data {
        RData::DNSSEC(DNSSECRData::NSEC(nsec)) => {
            let types = nsec.type_bit_maps().map(u16::from).collect();
            Some((r.name.to_string(), nsec.next_domain_name().to_string(), types))
        }
        _ => None,
    });
    found.collect()
}

fn denial(message: &Message) -> (String, Vec<u16>) {
    let [(owner, next, types)] = <[_; 1]>::try_from(nsec(message)).unwrap();
    assert_eq!(next, format!("\\000.{owner}"), "nothing lies between");
    (owner, types)
}

#[test]
fn every_kind_of_answer_is_verified_with_both_algorithms() {
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
        let stage = Stage::csk(algorithm);
        for (name, rtype) in [
            ("host", "A"),
            ("HoSt", "AAAA"),
            ("host", "TXT"),
            ("host", "ANY"),
            ("host", "TYPE46"),
            ("mail", "A"),
            ("alias2", "A"),
            ("away", "A"),
            ("lost", "A"),
            ("ring", "A"),
            ("towww", "HTTPS"),
            ("q.wild", "A"),
            ("Q.w.wild", "TXT"),
            ("*.wild", "A"),
            ("q.wild", "MX"),
            ("x.cwild", "AAAA"),
            ("deep.down", "A"),
            ("nope", "A"),
            ("nope", "TYPE47"),
            ("host", "TYPE47"),
            ("child", "DS"),
            ("svc", "HTTPS"),
            ("_s._tcp", "SRV"),
            ("odd", "TYPE65280"),
            ("big", "TXT"),
            ("www", "A"),
            ("www", "AAAA"),
            ("www", "HTTPS"),
            ("www", "TXT"),
            ("near", "A"),
            ("turn", "HTTPS"),
        ] {
            let ask = Ask::new(&format!("{name}.example.test."), rtype).dnssec();
            let message = stage.verified(&ask, &[]);
            assert_eq!(message.metadata.response_code, ResponseCode::NoError, "{name} {rtype}");
            assert!(!message.answers.is_empty() || !message.authorities.is_empty());
            // All that is in an answer without DO is in one with it, in the same order.
            let (plain, _) = stage.ask(&Ask::new(&format!("{name}.example.test."), rtype).edns(1232));
            if rtype.parse::<u16>().is_err() && !rtype.starts_with("TYPE4") {
                let data = |m: &Message| -> Vec<String> {
                    let unsigned = m.answers.iter().filter(|r| signature(r).is_none());
                    unsigned.map(ToString::to_string).collect()
                };
                assert_eq!(data(&plain), data(&message), "{name} {rtype}");
            }
            assert!(plain.answers.iter().chain(&plain.authorities).all(|r| signature(r).is_none()));
        }
        for rtype in ["SOA", "NS", "MX", "CAA", "DNSKEY", "CDS", "CDNSKEY"] {
            let message = stage.verified(&Ask::new("example.test.", rtype).dnssec(), &[]);
            assert!(!message.answers.is_empty(), "{rtype}");
        }
    }
}

#[test]
fn denials_are_compact_and_say_what_exists() {
    let stage = Stage::csk(Algorithm::EcdsaP256);
    let types = |name: &str, rtype: &str| {
        let owner = format!("{name}example.test.");
        let (said, types) = denial(&stage.verified(&Ask::new(&owner, rtype).dnssec(), &[]));
        assert_eq!(said, owner);
        types
    };
    assert_eq!(types("nope.", "A"), [46, 47, 128]);
    assert_eq!(types("a.b.nope.", "A"), [46, 47, 128]);
    assert_eq!(types("deep.down.", "A"), [46, 47], "an empty non-terminal exists");
    assert_eq!(types("deep.down.", "TYPE46"), [46, 47], "what says so is signed itself");
    assert_eq!(types("host.", "MX"), [1, 16, 28, 46, 47]);
    assert_eq!(types("q.wild.", "MX"), [1, 16, 46, 47], "as the wildcard has it");
    assert_eq!(types("www.", "MX"), [1, 28, 46, 47, 65]);
    assert_eq!(types("", "A"), [2, 6, 15, 46, 47, 48, 59, 60, 257]);
}

#[test]
fn behind_the_last_name_of_the_zone_comes_its_apex() {
    let stage = Stage::csk(Algorithm::Ed25519);
    // 255 octets, and no label of it can grow.
    let last = |octets: usize| "\\255".repeat(octets);
    let owner = [last(48), last(63), last(63), last(63), "example.test.".into()].join(".");
    assert_eq!(name::parse(&owner, None).unwrap().len(), 255);
    let message = stage.verified(&Ask::new(&owner, "A").dnssec().tcp(), &[]);
    assert_eq!(nsec(&message)[0].1, "example.test.");
}

#[test]
fn a_name_that_is_missing_is_nxdomain_only_for_those_who_can_take_it() {
    let stage = Stage::csk(Algorithm::EcdsaP256);
    let ask = |name: &str| Ask::new(&format!("{name}.example.test."), "A");
    for name in ["nope", "lost"] {
        assert_eq!(stage.ask(&ask(name)).1.rcode, Rcode::NxDomain, "unsigned, as ever");
        assert_eq!(stage.ask(&ask(name).dnssec()).1.rcode, Rcode::NoError);
        let (octets, sent) = ask(name).dnssec().compact().of(&stage.table);
        assert_eq!(sent.rcode, Rcode::NxDomain);
        let opt = octets.windows(5).rposition(|w| w == [0, 0, 41, 4, 208]).unwrap();
        assert_eq!(octets[opt + 7], 0xc0, "CO is answered by CO");
    }
    assert_eq!(stage.ask(&ask("host").dnssec().compact()).1.rcode, Rcode::NoError);
    assert_eq!(stage.ask(&Ask::new("host.example.test.", "TYPE128")).1.rcode, Rcode::FormErr);
}

#[test]
fn delegations_are_proved_secure_or_insecure() {
    let zone = format!("{}insecure NS ns.insecure\nns.insecure A 192.0.2.200\n", fixture::ZONE);
    let snapshot = fixture::snapshot(vec![fixture::zone("example.test.", &zone)], Vec::new());
    let stage = Stage::of(snapshot, vec![key(CSK, Algorithm::EcdsaP256, Times::default())], &rules());
    let ask = |name: &str, rtype: &str| Ask::new(&format!("{name}.example.test."), rtype).dnssec();
    let secure = stage.verified(&ask("www.child", "A"), &[RecordType::NS]);
    assert!(secure.authorities.iter().any(|r| r.record_type() == RecordType::DS));
    assert!(nsec(&secure).is_empty() && !secure.metadata.authoritative);
    assert!(secure.additionals.iter().all(|r| signature(r).is_none()), "glue is not signed");
    let insecure = stage.verified(&ask("www.insecure", "A"), &[RecordType::NS]);
    assert_eq!(denial(&insecure), ("insecure.example.test.".into(), vec![2, 46, 47]));
    let asked = stage.verified(&ask("insecure", "DS"), &[]);
    assert_eq!(denial(&asked), ("insecure.example.test.".into(), vec![2, 46, 47]));
    assert!(asked.metadata.authoritative);
}

#[test]
fn a_zone_of_ours_beneath_a_signed_one_is_seen_from_above_as_a_cut() {
    let child = "$TTL 60\n@ SOA ns h 1 1 1 1 60\n@ NS ns\nns A 192.0.2.1\n";
    let parent = format!("{}sub NS ns.sub\nns.sub A 192.0.2.1\n", fixture::ZONE);
    let zones = vec![fixture::zone("example.test.", &parent), fixture::zone("sub.example.test.", child)];
    let stage = Stage::of(
        fixture::snapshot(zones, Vec::new()),
        vec![key(CSK, Algorithm::EcdsaP256, Times::default())],
        &rules(),
    );
    let message = stage.verified(&Ask::new("sub.example.test.", "DS").dnssec(), &[]);
    assert_eq!(denial(&message).1, [2, 46, 47]);
    let (unsigned, _) = stage.ask(&Ask::new("ns.sub.example.test.", "A").dnssec());
    assert!(unsigned.answers.iter().all(|r| signature(r).is_none()), "the zone beneath is not signed");
}

#[test]
fn steered_answers_are_signed_for_every_set_and_ttl_and_kept() {
    let mut snapshot = world();
    let rules = rules();
    sign_world(&mut snapshot, vec![key(CSK, Algorithm::EcdsaP256, Times::default())], &rules);
    let base = Stage::of(snapshot.clone(), snapshot.topology.assets.signing.values().next().unwrap().to_vec(), &rules);
    let mut made = 0;
    for ttl in crate::decide::ttl::STEPS {
        for failed in [None, Some(0), Some(1)] {
            let next = with_health(&snapshot, SteerId::new(0), |health| {
                health.ttl = ttl;
                if let Some(failed) = failed {
                    health.candidates[failed].state = crate::snapshot::DcState::Failed;
                    health.candidates[failed].effective = 0;
                }
            });
            let stage = Stage {
                table: Table { fixed: Arc::clone(&base.table.fixed), ..Table::compile(&next) },
                clock: Arc::clone(&base.clock),
            };
            for rtype in ["A", "AAAA", "HTTPS"] {
                for client in 0..16 {
                    let ask = Ask::new("www.example.test.", rtype).dnssec().subnet(&format!("10.{client}.0.0/24"));
                    let message = stage.verified(&ask, &[]);
                    assert_eq!(message.answers[0].ttl, ttl);
                    made += u32::from(stage.ask(&ask).1.signatures.made);
                }
            }
        }
    }
    assert_eq!(made, 0, "the second of a kind finds the signature of the first");
}

#[test]
fn a_signature_is_made_once_until_it_is_due() {
    let stage = Stage::csk(Algorithm::Ed25519);
    let host = Ask::new("host.example.test.", "A").dnssec();
    let took = |ask: &Ask| {
        let Signatures { kept, made, refused, .. } = stage.ask(ask).1.signatures;
        (kept, made, refused)
    };
    assert_eq!(took(&host), (0, 1, 0));
    assert_eq!(took(&host), (1, 0, 0));
    assert_eq!(took(&Ask::new("HOST.example.TEST.", "A").dnssec()), (1, 0, 0), "whatever the case");
    assert_eq!(took(&Ask::new("host.example.test.", "A").edns(1232)), (0, 0, 0));
    // Before 7/8 of half a life nothing is due, after half of it everything is.
    stage.clock.advance(Duration::from_secs(7 * 86_400 / 16 * 7 - 10));
    assert_eq!(took(&host), (1, 0, 0));
    stage.clock.advance(Duration::from_secs(7 * 86_400 / 16 + 20));
    assert_eq!(took(&host), (0, 1, 0));
    stage.verified(&host, &[]);
}

#[test]
fn made_up_names_have_a_budget_and_nothing_is_sent_unsigned() {
    let rules = Signed { open_per_second: 5, ..rules() };
    let stage = Stage::new(vec![key(CSK, Algorithm::Ed25519, Times::default())], &rules);
    // What is configured has no budget: made ahead.
    stage.verified(&Ask::new("example.test.", "SOA").dnssec(), &[]);
    stage.verified(&Ask::new("host.example.test.", "MX").dnssec(), &[]);
    let ask = |i: u32| Ask::new(&format!("n{i}.example.test."), "A").dnssec();
    let sent: Vec<Sent> = (0..20).map(|i| stage.ask(&ask(i)).1).collect();
    assert_eq!(sent.iter().filter(|s| !s.truncated && s.rcode == Rcode::NoError).count(), 5);
    assert_eq!(sent.iter().filter(|s| s.truncated).count(), 15, "come by TCP");
    let streams: Vec<(Message, Sent)> = (100..110).map(|i| stage.ask(&ask(i).tcp())).collect();
    assert_eq!(streams.iter().filter(|(_, s)| s.rcode == Rcode::NoError).count(), 5, "a budget of its own");
    let failed: Vec<_> = streams.iter().filter(|(_, s)| s.rcode == Rcode::ServFail).collect();
    assert_eq!(failed.len(), 5);
    assert!(failed.iter().all(|(m, s)| !s.truncated && m.answers.is_empty() && m.authorities.is_empty()));
    for known in ["host", "www", "deep.down"] {
        stage.verified(&Ask::new(&format!("{known}.example.test."), "A").dnssec(), &[]);
    }
    let wildcards = (0..5).filter(|i| {
        let ask = Ask::new(&format!("w{i}.wild.example.test."), "A").dnssec();
        stage.ask(&ask).1.truncated
    });
    assert_eq!(wildcards.count(), 5, "wildcards draw on it, too");
    stage.verified(&ask(0), &[]);
    stage.clock.advance(Duration::from_secs(1));
    stage.verified(&ask(50), &[]);
}

/// The code of the extended error in a message that ends with it.
fn ede(message: &[u8]) -> Option<u16> {
    let at = message.windows(2).rposition(|w| w == [0, 15])?;
    message.get(at + 4..at + 6)?.first_chunk().map(|c| u16::from_be_bytes(*c))
}

#[test]
fn a_question_for_a_mark_is_told_so() {
    let stage = Stage::csk(Algorithm::Ed25519);
    for rtype in ["TYPE128", "OPT"] {
        let (octets, sent) = Ask::new("host.example.test.", rtype).dnssec().of(&stage.table);
        assert_eq!((sent.rcode, ede(&octets)), (Rcode::FormErr, Some(30)), "{rtype}");
    }
}

#[test]
fn answers_of_a_node_that_is_cut_off_say_so() {
    let snapshot = world();
    let cut = Snapshot { isolated_since: Some(Mono::from_millis(5)), views: Arc::default(), ..snapshot.clone() };
    let ask = Ask::new("www.example.test.", "A").edns(1232);
    let told = |snapshot: &Snapshot| ede(&ask.of(&Table::compile(snapshot)).0);
    assert_eq!((told(&snapshot), told(&cut)), (None, Some(3)));
    assert!(
        Ask::new("host.example.test.", "A").edns(1232).of(&Table::compile(&cut)).0.windows(2).all(|w| w != [0, 15])
    );
}

#[test]
fn keys_that_run_out_are_told_once_an_hour_and_reported() {
    let times = Times { activate: Some(0), inactive: Some(NOW + 86_400), ..Times::default() };
    let keys = vec![key(CSK, Algorithm::Ed25519, Times::default()), key(ZONE_KEY, Algorithm::Ed25519, times)];
    let mut snapshot = world();
    sign_world(&mut snapshot, keys, &rules());
    Fixed::of(&snapshot.topology);
    let mut last = watch::Last::default();
    let at = |seconds: u32| Wall(u64::from(NOW + seconds) * 1_000);
    let mut look = |seconds| {
        watch::look(&snapshot, &mut last, at(seconds));
        last.said.get(&("example.test.".to_owned(), "zsk")).map(|at| at - NOW)
    };
    assert_eq!([0, 5, 3_600, 3_605].map(&mut look), [0, 0, 3_600, 3_600].map(Some));
    assert!(!last.said.contains_key(&("example.test.".to_owned(), "any")));
    let zone = |seconds| report(&snapshot, at(seconds))["zones"][0].clone();
    assert_eq!(
        zone(0)["lapses"],
        json!([{"keys": "zsk", "in_s": 86_400, "alarm": true,
        "says": format!("the zone-signing keys of this zone run out at {}", keys::when(NOW + 86_400))}])
    );
    assert_eq!(zone(90_000)["lapses"][0]["in_s"], 0);
    assert_eq!(
        zone(90_000)["keys"].as_array().unwrap().iter().map(|k| k["role"].as_str().unwrap()).collect::<Vec<_>>(),
        ["KSK", "ZSK"]
    );
    assert_eq!(zone(90_000)["keys"][1]["state"], "retired");
}

#[test]
fn what_does_not_fit_is_truncated_whole() {
    let stage = Stage::csk(Algorithm::EcdsaP256);
    let ask = |size| Ask::new("example.test.", "DNSKEY").dnssec().edns(size);
    let mut snapshot = fixture::snapshot(vec![fixture::zone("example.test.", fixture::ZONE)], Vec::new());
    sign_world(&mut snapshot, Vec::new(), &rules());
    let keys = (0..8).map(|_| key(CSK, Algorithm::EcdsaP256, Times::default())).collect();
    let many = Stage::of(snapshot, keys, &rules());
    let (message, sent) = many.ask(&ask(1232));
    assert!(sent.truncated && message.answers.is_empty());
    assert_eq!(many.keys().len(), 8, "by TCP all of it comes");
    assert!(!stage.ask(&ask(1232)).1.truncated);
}

#[test]
fn keys_change_at_their_times_without_a_reload() {
    let at = |s: u32| Some(NOW + s);
    let old = Times { publish: Some(0), activate: Some(0), inactive: at(1_000), delete: at(2_000), ..Times::default() };
    let new = Times { publish: at(500), activate: at(1_000), ..Times::default() };
    let zsk = |times| key(ZONE_KEY, Algorithm::EcdsaP256, times);
    let (old, new) = (zsk(old), zsk(new));
    let tags = [old.public.tag(), new.public.tag()];
    let stage = Stage::new(vec![key(CSK, Algorithm::EcdsaP256, Times::default()), old, new], &rules());
    let host = Ask::new("host.example.test.", "A").dnssec();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let message = stage.verified(&host, &[]);
        let tag = message.answers.iter().find_map(signature).unwrap().input().key_tag;
        seen.push((stage.keys().len(), tags.iter().position(|t| *t == tag)));
        stage.clock.advance(Duration::from_secs(500));
    }
    assert_eq!(seen, [(2, Some(0)), (3, Some(0)), (3, Some(1)), (3, Some(1)), (2, Some(1))]);
}

#[test]
fn a_zone_whose_keys_have_run_out_stays_valid() {
    let times =
        Times { publish: Some(0), activate: Some(0), inactive: Some(NOW), delete: Some(NOW), ..Times::default() };
    let stage = Stage::new(vec![key(CSK, Algorithm::EcdsaP256, times)], &rules());
    stage.verified(&Ask::new("host.example.test.", "A").dnssec(), &[]);
    let signer = stage.table.fixed.signing.signers().next().unwrap();
    assert_eq!(signer.lapse(Lapse::Any, NOW), Some(NOW));
    assert_eq!(signer.lapse(Lapse::Any, NOW - 10), Some(NOW));
    assert_eq!(signer.lapse(Lapse::Zsk, NOW), None);
}

#[test]
fn signatures_outlive_a_reload() {
    let mut snapshot = world();
    sign_world(&mut snapshot, vec![key(CSK, Algorithm::Ed25519, Times::default())], &rules());
    let compile = |before: Option<&Fixed>| {
        let mut fixed = Fixed::compile(
            &snapshot.topology.config,
            &snapshot.topology.assets.zones,
            &snapshot.topology.assets.atlas,
            None,
        );
        fixed.sign(&snapshot.topology, before);
        Table { fixed: Arc::new(fixed), ..Table::compile(&snapshot) }
    };
    let first = compile(None);
    let ask = Ask::new("host.example.test.", "A").dnssec();
    assert_eq!(ask.of(&first).1.signatures.made, 1);
    let second = compile(Some(&first.fixed));
    assert_eq!(ask.of(&second).1.signatures, Signatures { kept: 1, ..Signatures::default() });
}

#[test]
fn key_tags_and_bitmaps_are_those_of_hickory() {
    let stage = Stage::csk(Algorithm::EcdsaP256);
    for key in stage.keys() {
        let ours = &stage.table.fixed.signing.signers().next().unwrap().keys[0];
        assert_eq!(key.calculate_key_tag().unwrap(), ours.tag);
    }
    assert_eq!(bitmap::read(&[0, 6, 0x40, 0, 0, 0, 0, 3]), Some(vec![1, 46, 47]));
}
