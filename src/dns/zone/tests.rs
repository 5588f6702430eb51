//! What makes a zone, and what is said of one that is none.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::BinEncodable as _;
use hickory_proto::serialize::txt::Parser;

use super::*;
use crate::config::{Policy, Signed};
use crate::dns::fixture::{self, ZONE, steer};

const HEAD: &str = "$TTL 60\n@ IN SOA ns h 1 2 3 4 5\n@ NS ns\n";

fn findings(text: &str) -> Vec<String> {
    let origin = name::parse("t.", None).unwrap();
    let found = parse(text, Path::new("t.zone"), &origin, &mut |_| Err("no files here".into()));
    found.map_or_else(|f| f.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

#[test]
fn a_good_zone_is_a_map_of_sets() {
    let zone = fixture::zone("Example.TEST.", ZONE);
    assert_eq!(zone.origin_text, "example.test.");
    let host = &zone.names[&name::lower(&name::parse("host.example.test.", None).unwrap())];
    let sets: Vec<(u16, u32, usize)> = host.iter().map(|s| (s.rtype, s.ttl, s.rdatas.len())).collect();
    assert_eq!(sets, [(rtype::A, 300, 2), (rtype::AAAA, 300, 1), (rtype::TXT, 300, 1)]);
    assert!(findings(HEAD).is_empty());
}

#[test]
fn a_set_has_one_ttl_and_no_record_twice() {
    let zone = fixture::zone("t.", &format!("{HEAD}a 50 A 192.0.2.1\nA 40 A 192.0.2.2\na 90 A 192.0.2.1\n"));
    let set = &zone.names[&b"\x01a\x01t\0"[..]][0];
    assert_eq!((set.ttl, set.rdatas.len()), (40, 2));
}

#[test]
fn what_is_no_zone_is_told_all_at_once_with_lines_and_remedies() {
    let text = concat!(
        "$TTL 60\n",
        "@ SOA ns h 1 2 3 4 5\n",
        "@ SOA ns h 2 2 3 4 5\n",
        "a SOA ns h 1 2 3 4 5\n",
        "b CNAME a\n",
        "b TXT x\n",
        "c CNAME a\n",
        "c CNAME b\n",
        "d.elsewhere. A 192.0.2.1\n",
        "e A 192.0.2\n",
        "f DNAME a\n",
        "f DNAME b\n",
        "g TYPE46 \\# 1 00\n",
        "x.f TXT x\n",
        "y.x.f TXT x\n",
        "*.h DNAME a\n",
        "i DNAME a\n",
        "i NS a\n",
        "j ALIAS a\n",
        "j A 192.0.2.1\n",
    );
    assert_eq!(
        findings(text),
        [
            "t.zone:0: the apex has no NS record: name the servers of the zone, such as `@ 3600 IN NS ns1`".replace(":0:", ":"),
            "t.zone:2: the apex has 2 SOA records: a zone has exactly one, such as `@ 3600 IN SOA ns1 hostmaster 1 3600 900 604800 60`".into(),
            "t.zone:4: a.t. has a SOA record, which belongs to the apex alone".into(),
            "t.zone:5: b.t. has a CNAME and also TXT: a CNAME stands alone (RFC 1034 section 3.6.2)".into(),
            "t.zone:7: c.t. has 2 CNAME records: there can be one".into(),
            "t.zone:9: d.elsewhere. lies outside the zone t.: end the name without a dot to mean one inside, or put it into its own zone's file".into(),
            "t.zone:10: `192.0.2` stands where an IPv4 address should".into(),
            "t.zone:11: f.t. has 2 DNAME records: there can be one".into(),
            "t.zone:13: g.t. has a TYPE46 record, which cannot be served from a file here: load the unsigned zone".into(),
            "t.zone:14: x.f.t. lies beneath the DNAME of f.t., which takes its place: delete the record, or the DNAME (RFC 6672 section 2.4)".into(),
            "t.zone:15: y.x.f.t. lies beneath the DNAME of f.t., which takes its place: delete the record, or the DNAME (RFC 6672 section 2.4)".into(),
            "t.zone:16: *.h.t. has a DNAME, but a wildcard stands for names, not for what lies beneath them".into(),
            "t.zone:17: i.t. has a DNAME, but its NS records delegate the names beneath it".into(),
            "t.zone:20: j.t. has an ALIAS and also A: the addresses are those of the ALIAS's target; delete the one or the other".into(),
        ]
    );
    assert_eq!(findings("").len(), 1);
    assert!(findings("")[0].contains("the apex has 0 SOA records"));
}

#[test]
fn files_are_read_with_what_they_include() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.zone");
    let write = |name: &str, text: &str| {
        File::create(folder.path().join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    };
    write("t.zone", &format!("{HEAD}$INCLUDE more.zone\n"));
    write("more.zone", "a A 192.0.2.1\n");
    let zone = ZoneFile { origin: "t.".into(), file: path.clone(), ..ZoneFile::default() };
    assert_eq!(load(&zone).unwrap().names.len(), 2);
    write("more.zone", "a A 192.0.2\n");
    let error = load(&zone).unwrap_err().to_string();
    assert!(
        error.starts_with("zone t. cannot be served:\n") && error.contains("more.zone:1: `192.0.2` stands"),
        "{error}"
    );
    let missing = ZoneFile { origin: "t.".into(), file: folder.path().join("none.zone"), ..ZoneFile::default() };
    let error = load(&missing).unwrap_err().to_string();
    assert!(error.contains("none.zone: cannot be read: No such file"), "{error}");
    assert!(
        load(&ZoneFile { origin: "t..".into(), file: path, ..ZoneFile::default() })
            .unwrap_err()
            .to_string()
            .contains("the zone's name: an empty label")
    );
}

#[test]
fn keys_of_a_zone_signed_here_do_not_stand_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.zone");
    let key = "@ 60 DNSKEY 257 3 13 AAAA";
    std::fs::write(&path, format!("@ 60 SOA ns h 1 3600 900 604800 60\n@ 60 NS ns\n{key}\nsub 60 NS ns\n")).unwrap();
    let plain = ZoneFile { origin: "t.".into(), file: path, ..ZoneFile::default() };
    load(&plain).unwrap();
    let signed = Signed {
        keys: folder.path().into(),
        validity: Duration::from_hours(24),
        backdate: Duration::from_hours(1),
        refresh: 0.5,
        dnskey_ttl: Duration::from_hours(1),
        open_per_second: 100,
        known_per_second: 100,
    };
    let error = load(&ZoneFile { dnssec: Some(signed), ..plain }).unwrap_err().to_string();
    assert!(error.contains("t.zone:3: t. has a DNSKEY record"), "{error}");
    assert!(error.contains("delete the record"), "{error}");
}

#[test]
fn steered_names_must_not_contradict_their_zone() {
    let text =
        format!("{HEAD}www A 192.0.2.1\nwww TXT fine\nsvc HTTPS 1 .\nali CNAME www\nsub NS ns\nmoved DNAME www\n");
    let zones = [Arc::new(fixture::zone("t.", &text))];
    let mut bare = steer("svc.t.", &[Policy::Weighted]);
    bare.alpn.clear();
    let with = |name: &str| steer(name, &[Policy::Weighted]);
    let steers = vec![
        with("www.t."),
        with("svc.t."),
        bare,
        with("ali.t."),
        with("x.sub.t."),
        with("sub.t."),
        with("free.t."),
        with("moved.t."),
        with("x.moved.t."),
        with("t."),
    ];
    let dns = Dns { steers, ..Dns::default() };
    let said: Vec<String> = conflicts(&dns, &zones).iter().map(ToString::to_string).collect();
    let remedy = "record here would contradict that: delete the record, or do not steer the name";
    assert_eq!(
        said,
        [
            format!("www.t. is steered, and its A {remedy}"),
            format!("svc.t. is steered, and its HTTPS {remedy}"),
            format!("ali.t. is steered, and its CNAME {remedy}"),
            "x.sub.t. is steered, but sub.t. is delegated to other servers: nobody would ask here".into(),
            "sub.t. is steered, but sub.t. is delegated to other servers: nobody would ask here".into(),
            "x.moved.t. is steered, but the DNAME of moved.t. stands for all names beneath it: steer the name that it leads to".into(),
        ]
    );
}

/// What hickory-proto makes of a master file: owner, type, TTL and data of each record, sorted.
fn by_hickory(text: &str, origin: &str) -> Vec<(Vec<u8>, u16, u32, Vec<u8>)> {
    let (_, sets) = Parser::new(text, None, Some(Name::from_ascii(origin).unwrap())).parse().unwrap();
    let mut all: Vec<_> = sets
        .values()
        .flat_map(|set| set.records_without_rrsigs().collect::<Vec<_>>())
        .map(|r| {
            let owner = r.name.to_lowercase().to_bytes().unwrap();
            (owner, u16::from(r.record_type()), r.ttl, r.data.to_bytes().unwrap())
        })
        .collect();
    all.sort();
    all
}

fn by_us(text: &str, origin: &str) -> Vec<(Vec<u8>, u16, u32, Vec<u8>)> {
    let zone = fixture::zone(origin, text);
    let mut all: Vec<_> = zone
        .names
        .iter()
        .flat_map(|(owner, sets)| sets.iter().flat_map(move |set| set.rdatas.iter().map(move |d| (owner, set, d))))
        .map(|(owner, set, data)| (owner.to_vec(), set.rtype, set.ttl, data.to_vec()))
        .collect();
    all.sort();
    all
}

#[test]
fn another_reader_agrees_where_it_can() {
    let text = concat!(
        "$TTL 300\n$ORIGIN example.test.\n",
        "@ 3600 IN SOA ns1 hostmaster.other. (\n 1 3600 ; refresh\n 900 604800 60 )\n@ NS ns1\n@ MX 10 mail.example.net.\n",
        "ns1 A 192.0.2.53\n  AAAA 2001:db8::53\n_s._tcp 60 IN SRV 1 2 443 host\nhost TXT \"one two\" three\n",
        "@ CAA 0 issue \"ca.example\"\nc CNAME host\nt.a.b TLSA 3 1 1 00ff00ff\nk SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789\n",
        "n NAPTR 100 10 \"u\" \"E2U+sip\" \"!^.*$!sip:x@example.test!\" .\nh HTTPS 1 . alpn=h2,h3 port=8443\n",
    );
    assert_eq!(by_us(text, "example.test."), by_hickory(text, "example.test."));
}

#[test]
fn why_the_parser_is_our_own() {
    // A key that is written as every manual shows it: hickory-proto 0.26.3 takes these quotes for data.
    let dkim = format!("{HEAD}k TXT ( \"v=DKIM1; \" \"p=abc\" )\n");
    let strings =
        |records: Vec<(Vec<u8>, u16, u32, Vec<u8>)>| records.into_iter().find(|r| r.1 == rtype::TXT).unwrap().3;
    assert_eq!(strings(by_us(&dkim, "t.")), b"\x09v=DKIM1; \x05p=abc");
    let theirs = std::panic::catch_unwind(|| strings(by_hickory(&dkim, "t.")));
    assert!(
        theirs.is_err() || theirs.is_ok_and(|t| t != b"\x09v=DKIM1; \x05p=abc"),
        "hickory reads it now: use its parser"
    );
    let escape = format!("{HEAD}k TXT \"a\\065b\"\n");
    assert_eq!(strings(by_us(&escape, "t.")), b"\x03aAb");
    assert_ne!(strings(by_hickory(&escape, "t.")), b"\x03aAb", "hickory reads it now: use its parser");
}

#[test]
fn of_many_wrong_records_the_first_are_named() {
    let many = |line: fn(usize) -> String| (0..5_000).map(line).collect::<String>();
    let beside = many(|n| format!("a{n} A 192.0.2.1\na{n} CNAME b\n"));
    let outside = many(|n| format!("a{n}.elsewhere. A 192.0.2.1\n"));
    for wrong in [beside, outside] {
        assert_eq!(findings(&format!("{HEAD}{wrong}")).len(), MAX_FINDINGS);
    }
}
