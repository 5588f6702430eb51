//! Queries and their answers as a table, and every answer read back by hickory-proto.

use hickory_proto::op::{Edns as HickoryEdns, Message};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use proptest::prelude::*;

use super::*;
use crate::config::OnAllDown;
use crate::dns::fixture::{self, Ask, ZONE, show, steer, with_health, world, zone};
use crate::snapshot::DcState;
use crate::wire::dns::{MAX_UDP, NSID, PLAIN_UDP};
use crate::wire::text;

const SOA: &str = "example.test. 60 SOA ns1.example.test. hostmaster.example.test. 1 3600 900 604800 60";

fn table() -> Table {
    Table::compile(&world())
}

fn ask(table: &Table, qname: &str, qtype: &str) -> String {
    show(&Ask::new(qname, qtype).of(table).0)
}

fn message(ask: &Ask, table: &Table) -> Message {
    Message::from_vec(&ask.of(table).0).unwrap()
}

fn edns(ask: &Ask, table: &Table) -> HickoryEdns {
    message(ask, table).edns.unwrap()
}

/// SOURCE and SCOPE of the answer.
fn scopes(ask: &Ask, table: &Table) -> Option<(u8, u8)> {
    match edns(ask, table).option(EdnsCode::Subnet)? {
        EdnsOption::Subnet(subnet) => Some((subnet.source_prefix(), subnet.scope_prefix())),
        other => panic!("{other:?}"),
    }
}

fn addresses(ask: &Ask, table: &Table) -> Vec<String> {
    message(ask, table).answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn static_data_is_answered_by_the_rules() {
    let table = table();
    let nodata = format!("NoError aa rd |  | {SOA} |");
    let nxdomain = format!("Non-ExistentDomain aa rd |  | {SOA} |");
    let referral = concat!(
        "NoError rd |  | child.example.test. 300 NS ns.child.example.test.; child.example.test. 300 NS ns2.example.test.; ",
        "child.example.test. 300 NS ns.elsewhere.net. | ns.child.example.test. 300 A 192.0.2.100; ",
        "ns.child.example.test. 300 AAAA 2001:db8::100; ns2.example.test. 300 A 192.0.2.101"
    );
    let cases: &[(&str, &str, &str)] = &[
        // What is there.
        ("host", "A", "NoError aa rd | host.example.test. 300 A 192.0.2.1; host.example.test. 300 A 192.0.2.2 |  |"),
        ("host", "TXT", "NoError aa rd | host.example.test. 300 TXT hello worldagain |  |"),
        ("_s._tcp", "SRV", "NoError aa rd | _s._tcp.example.test. 300 SRV 1 2 443 host.example.test. |  |"),
        ("svc", "HTTPS", "NoError aa rd | svc.example.test. 300 HTTPS 1 . alpn=h2,h3, ipv4hint=192.0.2.9, |  |"),
        ("odd", "TYPE65280", "NoError aa rd | odd.example.test. 300 Unknown AQID |  |"),
        // What is not: the type, the name, an empty non-terminal, something beneath one.
        ("host", "MX", &nodata),
        ("nope", "A", &nxdomain),
        ("x.y.nope", "A", &nxdomain),
        ("down", "A", &nodata),
        ("deep.down", "TXT", &nodata),
        ("other.down", "A", &nxdomain),
        // CNAMEs: followed inside the zone, shown as they are when asked for, not followed beyond it.
        (
            "alias2",
            "AAAA",
            "NoError aa rd | alias2.example.test. 300 CNAME Alias.example.test.; Alias.example.test. 300 CNAME host.example.test.; host.example.test. 300 AAAA 2001:db8::1 |  |",
        ),
        ("alias", "CNAME", "NoError aa rd | alias.example.test. 300 CNAME host.example.test. |  |"),
        ("alias", "ANY", "NoError aa rd | alias.example.test. 300 CNAME host.example.test. |  |"),
        ("away", "A", "NoError aa rd | away.example.test. 300 CNAME www.elsewhere.net. |  |"),
        (
            "ring",
            "A",
            "NoError aa rd | ring.example.test. 300 CNAME ring2.example.test.; ring2.example.test. 300 CNAME ring.example.test. |  |",
        ),
        (
            "towww",
            "A",
            "NoError aa rd | towww.example.test. 300 CNAME www.example.test.; www.example.test. 20 A 203.0.113.1; www.example.test. 20 A 203.0.113.2 |  |",
        ),
        // Wildcards (RFC 4592): any depth, not where a name is nearer, not across an empty non-terminal.
        ("q.wild", "A", "NoError aa rd | q.wild.example.test. 300 A 192.0.2.4 |  |"),
        ("a.b.wild", "TXT", "NoError aa rd | a.b.wild.example.test. 300 TXT w |  |"),
        ("q.wild", "MX", &nodata),
        ("*.wild", "A", "NoError aa rd | *.wild.example.test. 300 A 192.0.2.4 |  |"),
        ("real.wild", "TXT", &nodata),
        ("q.real.wild", "A", &nxdomain),
        ("sub.wild", "A", &nodata),
        ("q.sub.wild", "A", &nxdomain),
        (
            "z.cwild",
            "AAAA",
            "NoError aa rd | z.cwild.example.test. 300 CNAME host.example.test.; host.example.test. 300 AAAA 2001:db8::1 |  |",
        ),
        // DNAME (RFC 6672): all beneath it is elsewhere, it itself is not.
        ("moved", "TXT", "NoError aa rd | moved.example.test. 300 TXT stays |  |"),
        ("moved", "A", &nodata),
        ("moved", "DNAME", "NoError aa rd | moved.example.test. 300 DNAME wild.example.test. |  |"),
        (
            "Real.moved",
            "A",
            "NoError aa rd | moved.example.test. 300 DNAME wild.example.test.; Real.moved.example.test. 300 CNAME Real.wild.example.test.; Real.wild.example.test. 300 A 192.0.2.5 |  |",
        ),
        (
            "a.b.moved",
            "TXT",
            "NoError aa rd | moved.example.test. 300 DNAME wild.example.test.; a.b.moved.example.test. 300 CNAME a.b.wild.example.test.; a.b.wild.example.test. 300 TXT w |  |",
        ),
        (
            "x.moved",
            "CNAME",
            "NoError aa rd | moved.example.test. 300 DNAME wild.example.test.; x.moved.example.test. 300 CNAME x.wild.example.test. |  |",
        ),
        (
            "x.gone",
            "A",
            "NoError aa rd | gone.example.test. 300 DNAME elsewhere.net.; x.gone.example.test. 300 CNAME x.elsewhere.net. |  |",
        ),
        (
            "x.turns",
            "A",
            "NoError aa rd | turns.example.test. 300 DNAME turns.example.test.; x.turns.example.test. 300 CNAME x.turns.example.test. |  |",
        ),
        (
            "x.one",
            "A",
            "NoError aa rd | one.example.test. 300 DNAME two.example.test.; x.one.example.test. 300 CNAME x.two.example.test.; two.example.test. 300 DNAME one.example.test.; x.two.example.test. 300 CNAME x.one.example.test. |  |",
        ),
        // Zone cuts: a referral with glue, at the cut and beneath; DS is the parent's to answer.
        ("child", "A", referral),
        ("child", "NS", referral),
        ("a.b.child", "A", referral),
        ("ns.child", "A", referral),
        (
            "child",
            "DS",
            "NoError aa rd | child.example.test. 300 DS 1 13 2 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF |  |",
        ),
        // ANY gets as little as may be.
        ("host", "ANY", "NoError aa rd | host.example.test. 3600 HINFO RFC8482 |  |"),
        ("www", "ANY", "NoError aa rd | www.example.test. 3600 HINFO RFC8482 |  |"),
        ("down", "ANY", &nodata),
        ("host", "AXFR", "QueryRefused rd |  |  |"),
        ("host", "OPT", "FormErr rd |  |  |"),
    ];
    for (qname, qtype, want) in cases {
        let got = ask(&table, &format!("{qname}.example.test."), qtype);
        let got = got.replace("FormError", "FormErr");
        assert_eq!(got, want.trim_end(), "{qname} {qtype}");
    }
    let lost = format!("Non-ExistentDomain aa rd | lost.example.test. 300 CNAME nowhere.example.test. | {SOA} |");
    assert_eq!(ask(&table, "lost.example.test.", "A"), lost, "RFC 6604: the code is that of the chain's end");
    for (apex, want) in [
        (
            "SOA",
            "NoError aa rd | example.test. 3600 SOA ns1.example.test. hostmaster.example.test. 1 3600 900 604800 60 |  |",
        ),
        ("NS", "NoError aa rd | example.test. 300 NS ns1.example.test.; example.test. 300 NS ns.elsewhere.net. |  |"),
        ("CAA", "NoError aa rd | example.test. 300 CAA 0 issue \"ca.example\" |  |"),
        ("DS", nodata.as_str()),
        ("A", nodata.as_str()),
    ] {
        assert_eq!(ask(&table, "example.test.", apex), want, "{apex}");
    }
    let long = format!("{0}.{0}.far.example.test.", "1".repeat(60));
    let far = ask(&table, &long, "A");
    assert!(far.starts_with("Nameshouldnotexist aa rd | far.example.test. 300 DNAME 2345"), "{far}");
    assert!(far.ends_with(".example.test. |  |") && !far.contains("CNAME"), "{far}");
    for outside in ["other.test.", ".", "test.", "xexample.test."] {
        assert_eq!(ask(&table, outside, "A"), "QueryRefused rd |  |  |", "{outside}");
    }
}

#[test]
fn the_question_keeps_its_case_and_owners_follow_it() {
    let table = table();
    let got = ask(&table, "HoSt.eXample.TEST.", "AAAA");
    assert_eq!(got, "NoError aa rd | HoSt.eXample.TEST. 300 AAAA 2001:db8::1 |  |");
    assert!(ask(&table, "NOPE.eXample.TEST.", "A").contains("| eXample.TEST. 60 SOA"));
    assert!(ask(&table, "x.ChilD.example.TEST.", "A").contains("| ChilD.example.TEST. 300 NS"));
}

#[test]
fn zones_of_ours_inside_each_other_speak_for_themselves() {
    let parent = "@ 60 IN SOA ns h 1 1 1 1 60\n@ 60 NS ns\nns 60 A 192.0.2.1\nsub 60 NS ns.sub\nsub 60 DS 1 13 2 aabb\nns.sub 60 A 192.0.2.9\nto 60 CNAME x.sub\nnods 60 NS ns\n";
    let child = "@ 30 IN SOA ns h 2 1 1 1 30\n@ 30 NS ns\nns 30 A 192.0.2.2\nx 30 A 192.0.2.3\n";
    let nods = "@ 30 IN SOA ns.p. h 3 1 1 1 30\n@ 30 NS ns.p.\n";
    // The order of the configuration does not matter.
    let zones = vec![zone("sub.p.", child), zone("p.", parent), zone("nods.p.", nods)];
    let table = Table::compile(&fixture::snapshot(zones, Vec::new()));
    assert_eq!(ask(&table, "x.sub.p.", "A"), "NoError aa rd | x.sub.p. 30 A 192.0.2.3 |  |");
    assert!(ask(&table, "y.sub.p.", "A").contains("| sub.p. 30 SOA ns.sub.p. h.sub.p. 2"));
    assert_eq!(ask(&table, "sub.p.", "NS"), "NoError aa rd | sub.p. 30 NS ns.sub.p. |  |");
    assert_eq!(ask(&table, "sub.p.", "DS"), "NoError aa rd | sub.p. 60 DS 1 13 2 AABB |  |", "the parent's");
    assert!(ask(&table, "nods.p.", "DS").contains("aa rd |  | p. 60 SOA ns.p. h.p. 1"), "the parent's SOA");
    assert_eq!(ask(&table, "to.p.", "A"), "NoError aa rd | to.p. 60 CNAME x.sub.p. |  |", "another zone");
}

#[test]
fn what_is_no_query_for_us_is_turned_away() {
    let table = table();
    let base = Ask::new("host.example.test.", "A");
    let code = |packet: &[u8]| {
        let mut out = [0; 512];
        match answer(&table, packet, &base.meta, &mut out) {
            Outcome::Drop(why) => Err(why),
            Outcome::Send(sent) => {
                assert_eq!(&out[..2], &packet[..2], "the id is kept");
                assert_ne!(out[2] & 0x80, 0, "QR is set");
                Ok((sent.rcode, sent.length))
            }
        }
    };
    let with = |at: usize, value: u8| {
        let mut packet = base.packet.clone();
        packet[at] = value;
        packet
    };
    assert_eq!(code(&[]), Err(Dropped::Short));
    assert_eq!(code(&base.packet[..11]), Err(Dropped::Short));
    assert_eq!(code(&with(2, 0x80)), Err(Dropped::Response));
    assert_eq!(code(&with(2, 0x28)), Ok((Rcode::NotImp, HEADER)));
    assert_eq!(code(&with(5, 0)), Ok((Rcode::FormErr, HEADER)));
    assert_eq!(code(&with(5, 2)), Ok((Rcode::FormErr, HEADER)));
    assert_eq!(code(&with(11, 1)), Ok((Rcode::FormErr, HEADER)), "a record is announced, and missing");
    assert_eq!(code(&base.packet[..20]), Ok((Rcode::FormErr, HEADER)));
    assert_eq!(code(&with(12, 0xc0)), Ok((Rcode::FormErr, HEADER)), "compression in the question");
    let whole = base.packet.len();
    for class in [3, 4, 254, 255] {
        assert_eq!(code(&with(whole - 1, class)), Ok((Rcode::Refused, whole)), "class {class}");
    }
}

#[test]
fn edns_is_answered_by_its_rules() {
    let table = table();
    let host = || Ask::new("host.example.test.", "A");
    assert!(message(&host(), &table).edns.is_none(), "no EDNS without EDNS");
    let plain = edns(&host().edns(4096), &table);
    assert_eq!((plain.max_payload(), plain.version(), plain.flags().dnssec_ok), (1232, 0, false));
    let named = edns(&host().option(NSID, b""), &table);
    assert!(
        matches!(named.option(EdnsCode::NSID), Some(EdnsOption::NSID(id)) if id.as_ref() == b"node-1"),
        "{named:?}"
    );
    assert!(plain.option(EdnsCode::NSID).is_none());

    let mut packet = host().edns(1232).bytes();
    let opt = packet.len() - 11;
    packet[opt + 7] = 0x80;
    let mut out = [0; 512];
    let length = |outcome| if let Outcome::Send(sent) = outcome { sent.length } else { 0 };
    let sent = length(answer(&table, &packet, &host().meta, &mut out));
    assert!(Message::from_vec(&out[..sent]).unwrap().edns.unwrap().flags().dnssec_ok, "DO is copied (RFC 3225)");
    packet[opt + 6] = 1;
    let sent = length(answer(&table, &packet, &host().meta, &mut out));
    let badvers = text::message(&out[..sent]).unwrap();
    assert_eq!((badvers.rcode, badvers.sections[0].len()), (16, 0));
    assert_eq!(Message::from_vec(&out[..sent]).unwrap().edns.unwrap().version(), 0, "what we speak");
    // Two OPTs, and one whose options break off.
    let mut two = host().edns(1232).bytes();
    two[11] = 2;
    two.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    assert_eq!(length(answer(&table, &two, &host().meta, &mut out)), HEADER);
    let mut broken = host().option(10, &[1; 8]).bytes();
    broken.pop();
    assert_eq!(length(answer(&table, &broken, &host().meta, &mut out)), HEADER);
}

#[test]
fn flags_are_copied_or_ours() {
    let table = table();
    let mut query = Ask::new("host.example.test.", "A");
    query.packet[2] = 0x07;
    query.packet[3] = 0xff;
    let (out, _) = query.of(&table);
    assert_eq!(out[2], 0x85, "QR, AA, RD; not TC");
    assert_eq!(out[3], 0x10, "CD stays; RA, Z and AD do not");
}

fn writeln_text(text: &mut String, line: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(text, line).unwrap();
}

#[test]
fn what_does_not_fit_is_truncated_whole() {
    let long = "x".repeat(120);
    let mut text = ZONE.to_owned();
    for i in 0..30 {
        writeln_text(&mut text, format_args!("fat TXT \"{i} {long}\"\n"));
    }
    for i in 0..5 {
        writeln_text(&mut text, format_args!("some TXT \"{i} {long}\"\n"));
    }
    let table = Table::compile(&fixture::snapshot(vec![zone("example.test.", &text)], Vec::new()));
    let fat = || Ask::new("fat.example.test.", "TXT");
    for (query, limit) in
        [(fat(), PLAIN_UDP), (fat().edns(100), PLAIN_UDP), (fat().edns(900), 900), (fat().edns(65_535), MAX_UDP)]
    {
        let (out, sent) = query.of(&table);
        assert!(sent.truncated && out.len() <= limit);
        assert!(show(&out).starts_with("NoError aa tc rd"), "{}", show(&out));
        assert_eq!(message(&query, &table).answers.len(), 0);
    }
    let whole = message(&fat().tcp(), &table);
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (30, false));
    // The limit is exact: an answer of just that size goes out, and not of one octet more.
    let some = Ask::new("some.example.test.", "TXT");
    let whole = some.clone().edns(1232).tcp().of(&table).0.len();
    assert!((PLAIN_UDP..MAX_UDP).contains(&whole));
    for size in [whole - 1, whole, whole + 1] {
        let (out, sent) = some.clone().edns(size as u16).of(&table);
        assert_eq!((sent.truncated, out.len() == whole), (whole > size, whole <= size), "{size}");
    }
    // A small answer beside many options still leaves room for them.
    let (out, sent) = Ask::new("host.example.test.", "A").option(NSID, b"").subnet("10.0.0.0/24").edns(512).of(&table);
    assert!(!sent.truncated && out.len() <= PLAIN_UDP);
}

#[test]
fn one_choice_makes_a_aaaa_and_https() {
    let table = table();
    for subnet in 0..200u8 {
        let of = |qtype| Ask::new("www.example.test.", qtype).subnet(&format!("10.9.{subnet}.0/24"));
        let v4 = addresses(&of("A"), &table);
        let v6 = addresses(&of("AAAA"), &table);
        let https = addresses(&of("HTTPS"), &table);
        let octets: Vec<&str> = v4.iter().filter_map(|a| a.rsplit('.').next()).collect();
        let sixes: Vec<&str> = v6.iter().filter_map(|a| a.split(':').nth(2)).collect();
        assert_eq!((octets.len(), &octets), (2, &sixes));
        let hints = format!("1 . alpn=h2,http/1.1, ipv4hint={}, ipv6hint={},", v4.join(","), v6.join(","));
        assert_eq!(https[0].trim(), hints);
    }
}

#[test]
fn a_steered_name_without_addresses_of_a_family_has_no_data() {
    let mut snapshot = world();
    let topology = std::sync::Arc::get_mut(&mut snapshot.topology).unwrap();
    let config = std::sync::Arc::get_mut(&mut topology.config).unwrap();
    config.datacenters.iter_mut().for_each(|dc| dc.addresses.retain(IpAddr::is_ipv4));
    config.dns.as_mut().unwrap().steers[2].alpn.clear();
    let table = Table::compile(&snapshot);
    let quad = Ask::new("www.example.test.", "AAAA").subnet("10.1.2.0/24");
    assert_eq!(ask(&table, "www.example.test.", "AAAA"), format!("NoError aa rd |  | {SOA} |"));
    assert_eq!(scopes(&quad, &table), Some((24, 0)), "negatives are everybody's (RFC 7871 section 7.4)");
    let https = ask(&table, "www.example.test.", "HTTPS");
    assert!(https.contains("ipv4hint=") && !https.contains("ipv6hint"), "{https}");
    assert_eq!(ask(&table, "order.example.test.", "HTTPS"), format!("NoError aa rd |  | {SOA} |"));
}

#[test]
fn scopes_follow_rfc_7871() {
    let table = table();
    let scope = |name: &str, qtype: &str, net: &str| {
        scopes(&Ask::new(&format!("{name}.example.test."), qtype).subnet(net), &table)
    };
    // Hashed by subnet: as long as what stands for a client, deeper than what was said if need be.
    assert_eq!(scope("www", "A", "10.1.2.0/24"), Some((24, 24)));
    assert_eq!(scope("www", "A", "10.1.0.0/16"), Some((16, 24)));
    assert_eq!(scope("www", "A", "10.1.2.3/32"), Some((32, 24)));
    assert_eq!(scope("www", "HTTPS", "2001:db8::/56"), Some((56, 56)));
    assert_eq!(scope("towww", "A", "10.1.2.0/24"), Some((24, 24)), "a chain's is that of its end");
    // Everybody's: static data, negatives, a choice that nobody's address changes, and those who ask for nobody.
    for (name, qtype, net) in [
        ("host", "A", "10.1.2.0/24"),
        ("nope", "A", "10.1.2.0/24"),
        ("www", "TXT", "10.1.2.0/24"),
        ("order", "A", "10.1.2.0/24"),
    ] {
        assert_eq!(scope(name, qtype, net), Some((24, 0)), "{name} {qtype}");
    }
    assert_eq!(scope("www", "A", "0.0.0.0/0"), Some((0, 0)));
    assert_eq!(
        edns(&Ask::new("www.example.test.", "A").edns(1232), &table).option(EdnsCode::Subnet),
        None,
        "only if asked"
    );
    // SOURCE 0 means the resolver's own address.
    let resolver =
        |r: &str| addresses(&Ask::new("near.example.test.", "A").from(r).subnet("0.0.0.0/0"), &table)[0].clone();
    assert_eq!((resolver("10.3.1.1").as_str(), resolver("10.2.1.1").as_str()), ("203.0.113.3", "203.0.113.2"));
    // dig's `+subnet=0`: family 0, nothing behind it.
    let unspecific = Ask::new("www.example.test.", "A").option(8, &[0, 0, 0, 0]);
    let answered = text::message(&unspecific.of(&table).0).unwrap();
    assert_eq!((answered.rcode, answered.sections[0].len(), answered.subnet), (0, 2, Some((0, 0))));
    for bad in [&[0, 1, 24, 1, 10, 1, 2][..], &[0, 1, 24, 0, 10, 1], &[0, 3, 8, 0, 10], &[0, 1]] {
        let (out, sent) = Ask::new("www.example.test.", "A").option(8, bad).of(&table);
        assert_eq!(sent.rcode, Rcode::FormErr);
        assert!(Message::from_vec(&out).unwrap().edns.unwrap().option(EdnsCode::Subnet).is_none());
    }
}

#[test]
fn client_subnets_can_be_ignored() {
    let mut snapshot = world();
    let topology = std::sync::Arc::get_mut(&mut snapshot.topology).unwrap();
    std::sync::Arc::get_mut(&mut topology.config).unwrap().dns.as_mut().unwrap().ecs = false;
    let table = Table::compile(&snapshot);
    let query = Ask::new("near.example.test.", "A").from("10.2.0.1").subnet("10.3.0.0/24");
    assert_eq!(scopes(&query, &table), None);
    assert_eq!(addresses(&query, &table)[0], "203.0.113.2");
}

#[test]
fn when_everything_is_down_the_policy_speaks() {
    let mut steer = steer("www.example.test.", &[crate::config::Policy::Weighted]);
    let ask_with = |steer: &crate::config::Steer, states: [DcState; 3]| {
        let base = fixture::snapshot(vec![zone("example.test.", ZONE)], vec![steer.clone()]);
        let down = with_health(&base, SteerId::new(0), |health| {
            health.all_down = true;
            for (candidate, state) in health.candidates.iter_mut().zip(states) {
                (candidate.state, candidate.effective) = (state, 0);
            }
        });
        ask(&Table::compile(&down), "www.example.test.", "A")
    };
    let failed = [DcState::Failed; 3];
    assert!(ask_with(&steer, failed).starts_with("NoError aa rd | www.example.test. 20 A 203.0.113."));
    let operated = ask_with(&steer, [DcState::AdminDown, DcState::Drained, DcState::Failed]);
    assert_eq!(operated, "NoError aa rd | www.example.test. 20 A 203.0.113.3 |  |", "only what no operator took out");
    steer.on_all_down = OnAllDown::LastResort(vec!["192.0.2.99".parse().unwrap()]);
    assert_eq!(ask_with(&steer, failed), "NoError aa rd | www.example.test. 5 A 192.0.2.99 |  |");
    steer.on_all_down = OnAllDown::Nodata;
    assert_eq!(ask_with(&steer, failed), format!("NoError aa rd |  | {SOA} |"));
    steer.on_all_down = OnAllDown::Servfail;
    assert_eq!(ask_with(&steer, failed), "ServerFailure rd |  |  |");
    steer.on_all_down = OnAllDown::ServeAll;
    assert_eq!(
        ask_with(&steer, [DcState::AdminDown; 3]),
        format!("NoError aa rd |  | {SOA} |"),
        "never what is taken down"
    );
}

#[test]
fn the_last_resort_is_not_everybodys_where_some_are_fenced() {
    let fence = crate::config::Fence {
        clients: vec![crate::config::Locality::Net("10.9.0.0/16".parse().unwrap())],
        only: vec![1, 2],
    };
    let steer = crate::config::Steer {
        on_all_down: OnAllDown::LastResort(vec!["192.0.2.99".parse().unwrap()]),
        fences: vec![fence],
        ..steer("www.example.test.", &[crate::config::Policy::Weighted])
    };
    let base = fixture::snapshot(vec![zone("example.test.", ZONE)], vec![steer]);
    let down = with_health(&base, SteerId::new(0), |health| {
        health.all_down = true;
        for candidate in &mut health.candidates {
            (candidate.state, candidate.effective) = (DcState::Failed, 0);
        }
    });
    let table = Table::compile(&down);
    let ask = |subnet: &str| Ask::new("www.example.test.", "A").subnet(subnet);
    assert_eq!(addresses(&ask("10.9.2.0/24"), &table), [""; 0], "who is fenced gets none of it");
    assert_eq!(addresses(&ask("10.1.2.0/24"), &table), ["192.0.2.99"]);
    let scope = scopes(&ask("10.1.2.0/24"), &table).unwrap().1;
    assert!(scope >= 13, "10.9/16 and 10.1.2/24 part at the thirteenth bit, not at {scope}");
}

fn names() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec![
        "host", "alias", "alias2", "www", "near", "order", "turn", "ring", "away", "lost", "wild", "sub", "child",
        "ns", "down", "deep", "a", "*", "big", "nope", "example", "test", "svc", "xn--p1ai", "HOST", "\\000", "towww",
        "cwild",
    ]);
    (prop::collection::vec(label, 0..5), any::<bool>()).prop_map(|(labels, inside)| {
        let end = if inside { "example.test." } else { "" };
        let mut name = labels.join(".");
        if !name.is_empty() && !name.ends_with('.') {
            name.push('.');
        }
        name += end;
        if name.is_empty() { ".".into() } else { name }
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    let qtype = prop::sample::select(vec![
        "A",
        "AAAA",
        "HTTPS",
        "TXT",
        "NS",
        "SOA",
        "DS",
        "MX",
        "ANY",
        "CNAME",
        "SRV",
        "TYPE65280",
    ]);
    let subnet =
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, n)| ipnet::Ipv4Net::new(a.into(), n).unwrap().trunc().to_string());
    (names(), qtype, prop::option::of(any::<u16>()), prop::option::of(subnet), any::<bool>(), any::<bool>()).prop_map(
        |(name, qtype, size, subnet, nsid, tcp)| {
            let mut ask = Ask::new(&name, qtype);
            if let Some(size) = size {
                ask = ask.edns(size);
            }
            if let Some(subnet) = subnet {
                ask = ask.subnet(&subnet);
            }
            if nsid {
                ask = ask.option(NSID, b"");
            }
            if tcp { ask.tcp() } else { ask }
        },
    )
}

proptest! {
    /// hickory-proto reads every answer; it is of this question; it fits; and it is the same in place.
    #[test]
    fn every_answer_is_a_message_to_another_reader(ask in asks()) {
        let table = table();
        let query = ask.bytes();
        let asked = Message::from_vec(&query).unwrap();
        let (out, sent) = ask.of(&table);
        let message = Message::from_vec(&out).unwrap_or_else(|e| panic!("{e}: {}", out.escape_ascii()));
        prop_assert_eq!(message.metadata.id, asked.metadata.id);
        prop_assert_eq!(&message.queries, &asked.queries);
        prop_assert_eq!(message.edns.is_some(), asked.edns.is_some());
        let limit = match ask.meta.transport {
            Transport::Udp => asked.edns.as_ref().map_or(512, |e| usize::from(e.max_payload()).clamp(512, 1232)),
            _ => 65_535,
        };
        prop_assert!(out.len() <= limit);
        prop_assert_eq!(message.metadata.truncation, sent.truncated);
        if message.metadata.response_code.to_string() == "No Error" && message.answers.is_empty() && !sent.truncated {
            prop_assert!(!message.authorities.is_empty(), "an answer without data says for how long, or who knows");
        }
        let mut place = vec![0; 65_535];
        place[..query.len()].copy_from_slice(&query);
        prop_assert_eq!(answer_in_place(&table, &mut place, query.len(), &ask.meta), Outcome::Send(sent));
        prop_assert_eq!(&place[..sent.length], &out[..]);
    }

    /// Whatever comes in, and however small the buffer: no panic, no answer longer than the buffer.
    #[test]
    fn no_octets_make_it_panic(ask in asks(), cut in 0usize..80, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), room in 0usize..700) {
        let table = table();
        let mut packet = ask.bytes();
        packet.truncate(packet.len().saturating_sub(cut.saturating_sub(20)));
        for (at, value) in flips {
            if !packet.is_empty() {
                let at = at.index(packet.len());
                packet[at] = value;
            }
        }
        let mut out = vec![0; room];
        if let Outcome::Send(sent) = answer(&table, &packet, &ask.meta, &mut out) {
            prop_assert!(sent.length <= room);
        }
    }
}

mod scopes;
