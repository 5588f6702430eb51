//! Queries that are read and that are refused, octet by octet.

use proptest::prelude::*;

use super::*;

fn query() -> Vec<u8> {
    let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend(b"\x03WwW\x04test\0\0\x1c\0\x01");
    packet.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 0]);
    packet
}

#[test]
fn a_query_is_read() {
    let packet = query();
    let read = Query::parse(&packet).unwrap();
    let edns = Edns { size: 4096, dnssec_ok: true, ..Edns::default() };
    assert_eq!(read, Query { question_end: 26, rtype: rtype::AAAA, class: IN, edns: Some(edns), signature: None });
    let mut name = [0xff; name::MAX];
    assert_eq!(read.lower(&packet, &mut name), 10);
    assert_eq!(&name[..10], b"\x03www\x04test\0");
    assert_eq!((read.udp_limit(MAX_UDP), read.udp_limit(4_000), read.udp_limit(9_000)), (MAX_UDP, 4_000, 4_096));
    assert_eq!(Query { edns: None, ..read }.udp_limit(MAX_UDP), PLAIN_UDP);
}

#[test]
fn what_is_broken_is_refused() {
    for cut in 0..query().len() {
        let want = if cut < HEADER { Fault::Short } else { Fault::Malformed };
        assert_eq!(Query::parse(&query()[..cut]), Err(want), "{cut}");
    }
    let with = |at: usize, value: u8| {
        let mut packet = query();
        packet[at] = value;
        Query::parse(&packet)
    };
    assert_eq!(with(2, 0x81), Err(Fault::Response));
    assert_eq!(with(2, 0x08), Err(Fault::Opcode));
    assert_eq!(with(4, 1), Err(Fault::Malformed), "257 questions");
    assert_eq!(with(12, 0x40), Err(Fault::Malformed), "a label type of old");
    assert_eq!(with(9, 1), Err(Fault::Malformed), "the OPT stands in the authority section");
    assert_eq!(with(26, 1), Err(Fault::Malformed), "the OPT has an owner");
    assert_eq!(with(36, 9), Err(Fault::Malformed), "options beyond the end");
    let mut trailing = query();
    trailing.extend([1, 2, 3]);
    assert!(Query::parse(&trailing).is_ok(), "what nobody counts is ignored");
}

#[test]
fn names_end_at_their_limit() {
    let of = |labels: &[usize]| {
        let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for n in labels {
            packet.push(*n as u8);
            packet.resize(packet.len() + n, b'x');
        }
        packet.extend([0, 0, 1, 0, 1]);
        Query::parse(&packet).is_ok()
    };
    assert!(of(&[63, 63, 63, 61]), "255 octets");
    assert!(!of(&[63, 63, 63, 62]), "256");
    assert!(of(&[1; 127]) && !of(&[1; 128]));
    assert!(of(&[]), "the root");
}

#[test]
fn other_records_are_skipped() {
    let mut packet = query();
    packet[11] = 2;
    packet.extend([0xc0, 12, 0, 250, 0, 255, 0, 0, 0, 0, 0, 2, 9, 9]);
    assert!(Query::parse(&packet).unwrap().edns.is_some());
    packet[9] = 1;
    assert_eq!(Query::parse(&packet), Err(Fault::Malformed));
}

#[test]
fn a_reply_never_passes_its_limit() {
    let packet = query();
    let read = Query::parse(&packet).unwrap();
    let mut out = [0xee; 100];
    out[..packet.len()].copy_from_slice(&packet);
    let mut reply = Reply::begin(&mut out, &read, 60, 11);
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4];
    assert_eq!(reply.put_owned(Section::Answer, 1, &record, 17), Ok(()));
    assert_eq!(reply.put(Section::Answer, 1, &record), Err(Full), "42 and 16 are more than 60 less the OPT");
    let opt = Opt { size: 1232, dnssec_ok: true, ..Opt::default() };
    let length = reply.finish(Rcode::BadVers, true, false, Some(&opt));
    assert_eq!(length, 26 + 16 + 11);
    assert_eq!(out[..12], [0xab, 0xcd, 0x85, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(out[26..28], [0xc0, 17], "the owner is another");
    assert_eq!(out[42..53], [0, 0, 41, 0x04, 0xd0, 1, 0, 0x80, 0, 0, 0], "BADVERS in both halves, DO copied");
    assert!(out[length..].iter().all(|b| *b == 0xee || *b == 0), "nothing behind it but the query's rest");
}

#[test]
fn records_are_read_one_behind_the_other() {
    let packet = query();
    let (at, counts) = sections(&packet).unwrap();
    assert_eq!((at, counts), (26, [0, 0, 1]));
    let opt = Record { rtype: rtype::OPT, class: 4_096, ttl: 0x8000, at: 37, data: &[] };
    assert_eq!((Record::read(&packet, at), opt.end()), (Some(opt), packet.len()));
    let pointed = [&packet[..], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 2, 7, 8]].concat();
    let record = Record { rtype: 1, class: IN, ttl: 256, at: 49, data: &[7, 8] };
    assert_eq!(Record::read(&pointed, opt.end()), Some(record));
    for cut in packet.len()..pointed.len() {
        assert_eq!(Record::read(&pointed[..cut], packet.len()), None, "{cut}");
    }
    assert_eq!((sections(&packet[..25]), sections(&packet[..11])), (Some((26, [0, 0, 1])), None));
}

#[test]
fn pointers_reach_as_far_as_they_reach() {
    assert_eq!(
        (pointer(12), pointer(MAX_POINTER), pointer(MAX_POINTER + 1)),
        (Some([0xc0, 12]), Some([0xff, 0xff]), None)
    );
}

proptest! {
    #[test]
    fn nothing_panics(packet in prop::collection::vec(prop_oneof![Just(0u8), Just(0xc0u8), 0u8..20, any::<u8>()], 0..80), lead: bool) {
        let mut packet = packet;
        if lead && packet.len() >= HEADER {
            packet[2..6].copy_from_slice(&[0, 0, 0, 1]);
        }
        if let Ok(query) = Query::parse(&packet) {
            prop_assert!(query.question_end <= packet.len());
            prop_assert!(query.lower(&packet, &mut [0; name::MAX]) <= name::MAX);
        }
    }
}
