//! Cookies, extended errors and limits, over whole answers.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use proptest::prelude::*;

use super::*;
use crate::base::clock::Wall;
use crate::config::DnsGuard;
use crate::dns::answer::{Meta, Outcome, Transport, answer};
use crate::dns::fixture::{self, Ask, NOW, for_a_cookie, show, world};
use crate::dns::table::Table;
use crate::snapshot::Topology;
use crate::wire::dns::cookie::{CODE, Secrets};
use crate::wire::dns::{HEADER, NSID};
use crate::wire::text;

/// RFC 9018 appendix A.
const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
const CLIENT: [u8; 8] = [0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57];
const RESOLVER: &str = "198.51.100.100";

/// The world with a guard and with the RFC's secret.
fn table(guard: DnsGuard) -> Table {
    let mut snapshot = world();
    let old = &snapshot.topology;
    let mut config = (*old.config).clone();
    config.dns.as_mut().unwrap().guard = guard;
    let mut assets = old.assets.clone();
    assets.cookies = Secrets::parse(SECRET).unwrap();
    snapshot.topology = Arc::new(Topology::build(Arc::new(config), assets, None));
    Table::compile(&snapshot)
}

fn limited(limit: RateLimit) -> Table {
    table(DnsGuard { rate_limit: limit, ..DnsGuard::default() })
}

/// The option of this code in an answer.
fn option(packet: &[u8], code: u16) -> Option<Vec<u8>> {
    let message = Message::from_vec(packet).unwrap();
    let edns = message.edns?;
    match edns.option(EdnsCode::from(code))? {
        EdnsOption::Unknown(_, data) => Some(data.clone()),
        EdnsOption::Subnet(_) | EdnsOption::NSID(_) => Some(Vec::new()),
        other => panic!("{other:?}"),
    }
}

fn host() -> Ask {
    Ask::new("host.example.test.", "A").from(RESOLVER)
}

#[test]
fn a_cookie_comes_with_a_normal_answer() {
    let table = table(DnsGuard::default());
    let (first, sent) = host().option(CODE, &CLIENT).of(&table);
    assert_eq!(sent.standing, Standing::Cookie);
    assert!(show(&first).starts_with("NoError aa rd edns=1232 | host.example.test. 300 A"), "no round trip is forced");
    let cookie = option(&first, CODE).unwrap();
    let rfc =
        [&CLIENT[..], &[1, 0, 0, 0, 0x5c, 0xf7, 0x9f, 0x11, 0x1f, 0x81, 0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80]].concat();
    assert_eq!(cookie, rfc);
    let (again, sent) = host().option(CODE, &cookie).of(&table);
    assert_eq!((sent.standing, option(&again, CODE)), (Standing::Proven, Some(cookie.clone())));
    // Not echoed blindly: for another address, or of another length, it is no cookie of ours.
    let (stolen, sent) = host().from("198.51.100.101").option(CODE, &cookie).of(&table);
    assert_ne!((sent.standing, option(&stolen, CODE)), (Standing::Proven, Some(cookie.clone())));
    let (strange, sent) = host().option(CODE, &[&CLIENT[..], &[7; 32]].concat()).of(&table);
    assert_eq!((sent.standing, option(&strange, CODE)), (Standing::Cookie, Some(rfc)));
    for length in [0, 1, 7, 9, 15, 41] {
        let (out, sent) = host().option(CODE, &vec![7; length]).of(&table);
        assert_eq!((sent.rcode, option(&out, CODE)), (Rcode::FormErr, None), "{length}");
    }
    let (none, sent) = host().edns(1232).of(&table);
    assert_eq!((sent.standing, option(&none, CODE)), (Standing::Unknown, None), "only if asked");
    let (tcp, sent) = host().option(CODE, &CLIENT).tcp().of(&table);
    assert_eq!((sent.standing, option(&tcp, CODE).map(|c| c.len())), (Standing::Proven, Some(24)));
    let spoken = host().option(CODE, &CLIENT).of(&Table::compile(&world())).0;
    assert_eq!(option(&spoken, CODE), None, "no secret, no cookies");
}

#[test]
fn who_asks_for_nothing_but_a_cookie_gets_one() {
    let (table, meta) = (table(DnsGuard::default()), host().meta);
    let ask = |query: &[u8]| {
        let mut out = vec![0; 512];
        let Outcome::Send(sent) = answer(&table, query, &meta, &mut out) else { panic!("dropped") };
        out.truncate(sent.length);
        (sent, out)
    };
    let (sent, first) = ask(&for_a_cookie(&[7; 8]));
    assert_eq!((sent.rcode, sent.standing, sent.question_end, sent.opt), (Rcode::NoError, Standing::Cookie, 12, 12));
    assert_eq!(first[..12], [0xab, 0xcd, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!((&first[12..15], &first[21..35]), (&[0, 0, 41][..], &[0, 28, 0, 10, 0, 24, 7, 7, 7, 7, 7, 7, 7, 7][..]));
    let whole = &first[27..51];
    assert_eq!(first.len(), 51, "a cookie, and no records");
    // It is good here, and what is not gets another.
    let (sent, again) = ask(&for_a_cookie(whole));
    assert_eq!((sent.rcode, sent.standing, &again[27..]), (Rcode::NoError, Standing::Proven, whole));
    for wrong in [[7; 24].as_slice(), &[7; 16]] {
        let (sent, other) = ask(&for_a_cookie(wrong));
        assert_eq!((sent.rcode, &other[27..]), (Rcode::BadCookie, whole), "{}", wrong.len());
    }
    // Neither a question nor a cookie, a broken one, or anything beside it: no query.
    let mut beside = for_a_cookie(&[7; 8]);
    beside[9] = 1;
    let mut bare = for_a_cookie(&[]);
    bare.truncate(23);
    bare[22] = 0;
    for none in [beside, bare, for_a_cookie(&[7; 9]), for_a_cookie(&[7; 8])[..12].to_vec()] {
        let (sent, refused) = ask(&none);
        assert_eq!((sent.rcode, refused.len()), (Rcode::FormErr, 12), "{none:?}");
    }
    let mut version = for_a_cookie(&[7; 8]);
    version[18] = 1;
    assert_eq!(ask(&version).0.rcode, Rcode::BadVers);
    let none = answer(&Table::compile(&world()), &for_a_cookie(&[7; 8]), &meta, &mut [0; 512]);
    assert!(matches!(none, Outcome::Send(Sent { rcode: Rcode::FormErr, length: 12, .. })), "no secret, no cookies");
}

#[test]
fn a_cookie_can_be_required_of_those_who_speak_it() {
    let mut guard = DnsGuard::default();
    guard.cookies.require = true;
    let table = table(guard);
    let (out, sent) = host().option(CODE, &CLIENT).of(&table);
    let message = text::message(&out).unwrap();
    assert_eq!((sent.rcode, message.rcode, message.sections[0].len()), (Rcode::BadCookie, 23, 0));
    let (_, sent) = host().option(CODE, &option(&out, CODE).unwrap()).of(&table);
    assert_eq!((sent.rcode, sent.standing), (Rcode::NoError, Standing::Proven));
    assert_eq!(host().edns(1232).of(&table).1.rcode, Rcode::NoError, "those who do not are served");
    assert_eq!(host().option(CODE, &CLIENT).tcp().of(&table).1.rcode, Rcode::NoError);
}

#[test]
fn refusals_say_why_to_those_who_can_read_it() {
    let table = table(DnsGuard::default());
    let why = |ask: Ask| option(&ask.of(&table).0, 15).map(|o| (o[1], String::from_utf8_lossy(&o[2..]).into_owned()));
    let empty = |code| Some((code, String::new()));
    assert_eq!(why(Ask::new("other.test.", "A").edns(1232)), empty(20));
    assert_eq!(why(Ask::new("host.example.test.", "AXFR").edns(1232)), empty(21));
    assert_eq!(why(host().option(8, &[0, 9, 0, 0])), Some((0, "malformed client subnet".into())));
    assert_eq!(why(host().option(CODE, &[1; 3])), Some((0, "malformed cookie".into())));
    assert_eq!(why(host().edns(1232)), None, "what is well needs no reason");
    let plain = Ask::new("other.test.", "A").of(&table).0;
    assert!(Message::from_vec(&plain).unwrap().edns.is_none(), "without EDNS there is no place for it");
}

#[test]
fn the_largest_answer_is_configurable() {
    for size in [512, 1232, 1400, 4096] {
        let table = table(DnsGuard { udp_size: size, ..DnsGuard::default() });
        let (out, _) = host().edns(65_535).of(&table);
        assert_eq!(Message::from_vec(&out).unwrap().edns.unwrap().max_payload(), size);
    }
}

/// What became of an answer, and what was sent.
type Given = (Option<(Class, Fate)>, Vec<u8>);

/// Asks `guard` for one answer after the other; what became of them.
fn ask_all(guard: &Guard, table: &Table, ask: &Ask, times: usize, now: Mono) -> Vec<Given> {
    let mut rng = crate::base::entropy::Rng::seeded(1);
    let query = ask.bytes();
    (0..times)
        .map(|_| {
            let mut packet = vec![0; 4_096];
            let mut outcome = answer(table, &query, &ask.meta, &mut packet);
            let Outcome::Send(sent) = &mut outcome else { panic!("{outcome:?}") };
            let limited = guard.pass(&table.fixed.rules, ask.meta.client, sent, &mut packet, now, &mut rng);
            let is_sent = !matches!(limited, Some((_, Fate::Dropped)));
            (limited, if is_sent { packet[..sent.length].to_vec() } else { Vec::new() })
        })
        .collect()
}

fn strict() -> RateLimit {
    RateLimit { answers: 10.0, nxdomains: 5.0, errors: 2.0, slip: 2, dry_run: false, ..RateLimit::default() }
}

const T0: Mono = Mono::from_millis(10_000);

#[test]
fn over_the_limit_answers_are_dropped_or_cut() {
    let (guard, table) = (fixture::guard(), limited(strict()));
    let results = ask_all(&guard, &table, &host().subnet("10.1.2.0/24").option(NSID, b""), 1_000, T0);
    let fates = |fate| results.iter().filter(|(l, _)| l.is_some_and(|(_, f)| f == fate)).count();
    assert_eq!(results.iter().filter(|(limited, _)| limited.is_none()).count(), 10);
    assert!((400..600).contains(&fates(Fate::Dropped)), "about half: {}", fates(Fate::Dropped));
    assert_eq!(fates(Fate::Dropped) + fates(Fate::Truncated), 990);
    let (_, cut) = results.iter().find(|(l, _)| *l == Some((Class::Answers, Fate::Truncated))).unwrap();
    assert_eq!(show(cut), "NoError aa tc rd edns=1232 |  |  |".replace(" aa", ""));
    assert_eq!(option(cut, NSID), Some(Vec::new()), "its OPT is kept");
    assert!(results.iter().all(|(l, out)| out.is_empty() == (l.map(|l| l.1) == Some(Fate::Dropped))));
    // Nor is any type too odd to be cut: 0 is no record, and its answer has an SOA.
    let odd = ask_all(&guard, &table, &Ask::new("host.example.test.", "TYPE0").from(RESOLVER), 100, T0);
    let (_, cut) = odd.iter().find(|(l, _)| *l == Some((Class::Answers, Fate::Truncated))).unwrap();
    assert_eq!(show(cut), "NoError tc rd |  |  |");
    // Another address of the same network is the same client; the next network is not.
    assert!(ask_all(&guard, &table, &host().from("198.51.100.1"), 1, T0)[0].0.is_some());
    assert!(ask_all(&guard, &table, &host().from("198.51.101.1"), 1, T0)[0].0.is_none());
    // Each class by itself, and time heals.
    let nope = Ask::new("nope.example.test.", "A").from(RESOLVER);
    let admitted = |ask: &Ask, now| ask_all(&guard, &table, ask, 50, now).iter().filter(|(l, _)| l.is_none()).count();
    assert_eq!((admitted(&nope, T0), admitted(&Ask::new("x.", "A").from(RESOLVER), T0)), (5, 2));
    assert_eq!(admitted(&host(), T0 + Duration::from_millis(500)), 5);
}

#[test]
fn who_has_proven_itself_is_never_limited_and_who_speaks_cookies_is_told_how() {
    let (guard, table) = (fixture::guard(), limited(RateLimit { slip: 1, ..strict() }));
    let results = ask_all(&guard, &table, &host().option(CODE, &CLIENT), 100, T0);
    let (_, told) = results.iter().find(|(l, _)| l.is_some()).unwrap();
    let message = text::message(told).unwrap();
    assert_eq!((message.rcode, message.sections[0].len()), (23, 0), "BADCOOKIE");
    assert_eq!(told[2] & 0x02, 0, "not cut: over UDP it will do");
    let proven = host().option(CODE, &option(told, CODE).unwrap());
    assert!(ask_all(&guard, &table, &proven, 100, T0).iter().all(|(l, _)| l.is_none()));
    assert!(ask_all(&guard, &table, &host().tcp(), 100, T0).iter().all(|(l, _)| l.is_none()));
}

#[test]
fn the_exempt_are_exempt_and_a_dry_run_only_counts() {
    let (guard, exempt) =
        (fixture::guard(), limited(RateLimit { exempt: vec!["198.51.100.96/27".parse().unwrap()], ..strict() }));
    assert!(ask_all(&guard, &exempt, &host(), 100, T0).iter().all(|(l, _)| l.is_none()));
    assert!(ask_all(&guard, &exempt, &host().from("198.51.100.1"), 1, T0)[0].0.is_some());
    let dry = limited(RateLimit { dry_run: true, ..strict() });
    let results = ask_all(&guard, &dry, &host(), 100, T0);
    assert!(results.iter().all(|(_, out)| show(out).starts_with("NoError aa rd | host")));
    assert!(results.iter().all(|(l, _)| *l == Some((Class::Answers, Fate::Counted))));
    // All kinds together.
    let all = limited(RateLimit { all: Some(3.0), ..strict() });
    let results = ask_all(&fixture::guard(), &all, &host(), 5, T0);
    assert_eq!(results[4].0.map(|l| l.0), Some(Class::All));
}

#[test]
fn ipv6_networks_and_mapped_addresses_are_told_apart() {
    let prefix = (24, 56);
    let of = |text: &str| key(text.parse::<IpAddr>().unwrap().to_canonical(), prefix);
    assert_eq!(of("2001:db8:1:200::1"), of("2001:db8:1:2ff::2"));
    assert_ne!(of("2001:db8:1:200::1"), of("2001:db8:1:300::1"));
    assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.200"));
    assert_eq!(key([10, 0, 0, 1].into(), (32, 128)) & 7, 0, "room for the class");
    assert_ne!(key([10, 0, 0, 1].into(), (32, 128)), key([10, 0, 0, 2].into(), (32, 128)));
}

proptest! {
    /// A shortened answer is a message of the same question, without records, within the limit; its OPT says what it said.
    #[test]
    fn a_shortened_answer_is_a_message(
        name in prop::sample::select(vec!["host", "www", "nope", "alias2", "child", "big", "towww"]),
        qtype in prop::sample::select(vec!["A", "AAAA", "TXT", "HTTPS", "ANY", "MX"]),
        cookie: bool, subnet: bool, edns: bool, nsid: bool,
    ) {
        let table = table(DnsGuard::default());
        let mut ask = Ask::new(&format!("{name}.example.test."), qtype).from(RESOLVER);
        if edns { ask = ask.edns(1232); }
        if subnet { ask = ask.subnet("10.1.2.0/24"); }
        if cookie { ask = ask.option(CODE, &CLIENT); }
        if nsid { ask = ask.option(NSID, b""); }
        let (mut packet, mut sent) = ask.of(&table);
        let before = (option_codes(&packet), packet[..2].to_vec());
        sent.shorten(&mut packet);
        packet.truncate(sent.length);
        let message = Message::from_vec(&packet).unwrap();
        let asked = Message::from_vec(&ask.bytes()).unwrap();
        prop_assert_eq!(&message.queries, &asked.queries);
        prop_assert!(message.answers.is_empty() && message.authorities.is_empty() && message.additionals.is_empty());
        prop_assert_eq!(message.metadata.truncation, !cookie);
        prop_assert_eq!(text::message(&packet).unwrap().rcode, if cookie { 23 } else { 0 });
        let mut codes = before.0;
        codes.retain(|c| *c != 15);
        let mut after = option_codes(&packet);
        after.retain(|c| *c != 15);
        prop_assert_eq!((after, packet[..2].to_vec()), (codes, before.1));
        if subnet {
            prop_assert_eq!(text::message(&packet).unwrap().subnet.map(|s| s.1), Some(0), "no data is everybody's");
        }
        prop_assert!(packet.len() >= HEADER);
    }
}

fn option_codes(packet: &[u8]) -> Vec<u16> {
    let message = Message::from_vec(packet).unwrap();
    let mut codes: Vec<u16> =
        message.edns.iter().flat_map(|e| e.options().as_ref().iter().map(|(c, _)| u16::from(*c))).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn time_is_the_batch_s() {
    let table = table(DnsGuard::default());
    let at = |seconds: u64| Meta {
        client: RESOLVER.parse().unwrap(),
        transport: Transport::Udp,
        now: Wall(seconds * 1_000),
    };
    let cookie = option(&host().option(CODE, &CLIENT).of(&table).0, CODE).unwrap();
    let query = host().option(CODE, &cookie).bytes();
    let standing = |seconds| {
        let mut out = [0; 1_232];
        match answer(&table, &query, &at(seconds), &mut out) {
            Outcome::Send(sent) => sent.standing,
            Outcome::Drop(why) => panic!("{why:?}"),
        }
    };
    let made = NOW.0 / 1_000;
    assert_eq!((standing(made + 3_600), standing(made + 3_601)), (Standing::Proven, Standing::Cookie));
}
