//! Queries and their answers as a table, and every answer read back by hickory-proto.

use proptest::prelude::*;

use super::*;
use crate::base::ids::SteerId;
use crate::dns::fixture::{self, Ask, show, with_health, world, zone};
use crate::snapshot::DcState;

fn table() -> Table {
    Table::compile(&world())
}

fn ask(table: &Table, qname: &str, qtype: &str) -> String {
    show(&Ask::new(qname, qtype).of(table).0)
}

#[test]
fn probe() {
    let table = table();
    for (q, t) in [
        ("host.example.test.", "A"),
        ("HOST.example.TEST.", "TXT"),
        ("host.example.test.", "MX"),
        ("nope.example.test.", "A"),
        ("deep.example.test.", "A"),
        ("down.example.test.", "A"),
        ("deep.down.example.test.", "A"),
        ("alias2.example.test.", "AAAA"),
        ("away.example.test.", "A"),
        ("lost.example.test.", "A"),
        ("ring.example.test.", "A"),
        ("alias.example.test.", "CNAME"),
        ("alias.example.test.", "ANY"),
        ("host.example.test.", "ANY"),
        ("towww.example.test.", "A"),
        ("q.wild.example.test.", "A"),
        ("a.b.wild.example.test.", "TXT"),
        ("real.wild.example.test.", "TXT"),
        ("q.sub.wild.example.test.", "A"),
        ("sub.wild.example.test.", "A"),
        ("z.cwild.example.test.", "A"),
        ("child.example.test.", "A"),
        ("a.b.child.example.test.", "A"),
        ("child.example.test.", "DS"),
        ("child.example.test.", "NS"),
        ("ns.child.example.test.", "A"),
        ("example.test.", "SOA"),
        ("example.test.", "NS"),
        ("example.test.", "DS"),
        ("example.test.", "A"),
        ("example.test.", "CAA"),
        ("svc.example.test.", "HTTPS"),
        ("_s._tcp.example.test.", "SRV"),
        ("odd.example.test.", "TYPE65280"),
        ("other.test.", "A"),
        (".", "NS"),
        ("host.example.test.", "AXFR"),
        ("www.example.test.", "A"),
        ("www.example.test.", "AAAA"),
        ("www.example.test.", "HTTPS"),
        ("www.example.test.", "TXT"),
        ("order.example.test.", "A"),
        ("www.example.test.", "ANY"),
        ("x.www.example.test.", "A"),
        ("big.example.test.", "TXT"),
    ] {
        println!("{q} {t}: {}", ask(&table, q, t));
    }
}
