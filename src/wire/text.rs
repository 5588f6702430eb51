//! Messages and record data as text, for `explain` and for people: the way back of [`super::rdata`].
//!
//! Reads any message within its bounds, with compression; gives `None` for what is broken. Not for the hot path.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::dns::{self, HEADER, rtype, sections};
use super::name;
use super::rdata::{self, Field, fields, type_name};
use super::svcb;

/// A message, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The response code, with EDNS's upper bits.
    pub rcode: u16,
    /// Flags that are set: `aa`, `tc`, `rd`.
    pub flags: Vec<&'static str>,
    /// Records of the answer, authority and additional sections, without the OPT.
    pub sections: [Vec<Record>; 3],
    /// SOURCE and SCOPE of the client subnet option, if there is one.
    pub subnet: Option<(u8, u8)>,
}

/// A record, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Owner.
    pub name: String,
    /// TTL in seconds.
    pub ttl: u32,
    /// Type.
    pub rtype: String,
    /// Data, in the form of master files.
    pub data: String,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} IN {} {}", self.name, self.ttl, self.rtype, self.data)
    }
}

/// Reads a message with one question.
pub fn message(packet: &[u8]) -> Option<Message> {
    let header = packet.first_chunk::<HEADER>()?;
    let (mut at, counts) = sections(packet)?;
    let flags = [(header[2] & 4, "aa"), (header[2] & 2, "tc"), (header[2] & 1, "rd")];
    let mut message = Message {
        rcode: u16::from(header[3] & 0x0f),
        flags: flags.into_iter().filter(|(bit, _)| *bit != 0).map(|(_, flag)| flag).collect(),
        ..Message::default()
    };
    for (section, count) in message.sections.iter_mut().zip(counts) {
        for _ in 0..count {
            let (owner, _) = name::expand(packet, at)?;
            let record = dns::Record::read(packet, at)?;
            at = record.end();
            if record.rtype == rtype::OPT {
                message.rcode |= (record.ttl >> 24 << 4) as u16;
                message.subnet = subnet(record.data);
            } else {
                section.push(Record {
                    name: name::show(&owner),
                    ttl: record.ttl,
                    rtype: type_name(record.rtype).into_owned(),
                    data: show(record.rtype, record.data),
                });
            }
        }
    }
    Some(message)
}

fn subnet(mut options: &[u8]) -> Option<(u8, u8)> {
    while let Some((&[c0, c1, l0, l1], rest)) = options.split_first_chunk::<4>() {
        let (value, after) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        if u16::from_be_bytes([c0, c1]) == super::ecs::CODE {
            return Some((*value.get(2)?, *value.get(3)?));
        }
        options = after;
    }
    None
}

/// Record data in the form of master files; what does not follow its type's form, in that of RFC 3597.
pub fn show(rtype: u16, data: &[u8]) -> String {
    fields(rtype).and_then(|fields| known(fields, data)).unwrap_or_else(|| {
        let mut text = format!("\\# {}", data.len());
        if !data.is_empty() {
            text.push(' ');
            push_hex(&mut text, data);
        }
        text
    })
}

fn known(fields: &[Field], data: &[u8]) -> Option<String> {
    let (mut words, mut rest) = (Vec::new(), data);
    for field in fields {
        let width = match field {
            Field::U8 | Field::Algorithm => 1,
            Field::U16 | Field::Type | Field::Certificate => 2,
            Field::U32 | Field::Ttl | Field::Ip4 => 4,
            Field::Ip6 => 16,
            Field::Name => name::octets(rest)?,
            Field::Text => 1 + usize::from(*rest.first()?),
            Field::Locator => 8,
            Field::Eui(octets) => usize::from(*octets),
            Field::Texts
            | Field::Bare
            | Field::Hex
            | Field::Base64
            | Field::Params
            | Field::Types
            | Field::Loc
            | Field::Hip => rest.len(),
        };
        let (octets, after) = rest.split_at_checked(width)?;
        rest = after;
        match field {
            Field::Texts if octets.is_empty() => return None,
            Field::Texts => {
                let mut strings = octets;
                while let Some((&length, tail)) = strings.split_first() {
                    let (string, after) = tail.split_at_checked(length.into())?;
                    words.push(quote(string));
                    strings = after;
                }
            }
            Field::Params => words.extend(svcb::show(octets)?),
            Field::Types => words.extend(rdata::bitmap_text(octets)?),
            _ => words.push(word(*field, octets)?),
        }
    }
    rest.is_empty().then(|| words.join(" "))
}

fn word(field: Field, octets: &[u8]) -> Option<String> {
    Some(match field {
        Field::U8 | Field::Algorithm => octets.first()?.to_string(),
        Field::Type => type_name(u16::from_be_bytes(*octets.first_chunk()?)).into_owned(),
        Field::Certificate => rdata::certificate_name(u16::from_be_bytes(*octets.first_chunk()?)),
        Field::Eui(_) => rdata::eui_text(octets),
        Field::Loc => rdata::loc_text(octets)?,
        Field::Hip => rdata::hip_text(octets)?,
        Field::Locator => {
            let (groups, _) = octets.as_chunks::<2>();
            let groups: Vec<String> = groups.iter().map(|g| format!("{:04x}", u16::from_be_bytes(*g))).collect();
            groups.join(":")
        }
        Field::U16 => u16::from_be_bytes(*octets.first_chunk()?).to_string(),
        Field::U32 | Field::Ttl => u32::from_be_bytes(*octets.first_chunk()?).to_string(),
        Field::Ip4 => Ipv4Addr::from(*octets.first_chunk::<4>()?).to_string(),
        Field::Ip6 => Ipv6Addr::from(*octets.first_chunk::<16>()?).to_string(),
        Field::Name => name::show(octets),
        Field::Text => quote(octets.get(1..)?),
        Field::Hex if !octets.is_empty() => {
            let mut text = String::new();
            push_hex(&mut text, octets);
            text
        }
        Field::Base64 if !octets.is_empty() => base64(octets),
        Field::Bare => quote(octets),
        _ => return None,
    })
}

/// A character-string in quotes, with what would be misread escaped.
pub(super) fn quote(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(octet as char);
            }
            0x20..=0x7e => text.push(octet as char),
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('"');
    text
}

pub(super) fn push_hex(text: &mut String, octets: &[u8]) {
    for octet in octets {
        let _ = write!(text, "{octet:02x}");
    }
}

pub(super) fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks(3) {
        let word = group.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::{master, rdata};
    use super::*;

    fn read_back(rtype: u16, text: &str) -> Option<Vec<u8>> {
        let line = format!("x. 1 IN TYPE{rtype} {text}\n");
        let contents = master::parse(&line, Path::new(""), b"\0", &mut |_| Err(String::new()));
        assert!(contents.findings.is_empty(), "{line}: {:?}", contents.findings);
        contents.records.first().map(|r| r.rdata.to_vec())
    }

    #[test]
    fn records_read_as_they_are_written() {
        for (rtype, text) in [
            ("A", "192.0.2.1"),
            ("AAAA", "2001:db8::1"),
            ("MX", "10 mail.example."),
            ("TXT", r#""a b" "c\"d\\\000""#),
            ("SOA", "ns.example. h.example. 1 3600 900 604800 60"),
            ("CAA", r#"0 "issue" "ca.example""#),
            ("DS", "1 13 2 00ff"),
            ("DNSKEY", "257 3 13 aGkh"),
            ("DNSKEY", "257 3 13 aGk="),
            ("HTTPS", r#"1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1"#),
            (
                "SVCB",
                r#"16 foo.example. mandatory=alpn,ipv4hint alpn="f\\\\oo\\,bar,h2" no-default-alpn ipv4hint=192.0.2.1 ech=aGkh key667="\210x""#,
            ),
            ("CERT", "PKIX 1 13 aGkh"),
            ("CERT", "9 1 13 aGkh"),
            ("CSYNC", "66 3 A NS AAAA TYPE1234"),
            ("ZONEMD", "2018031500 1 1 00ff"),
            ("DSYNC", "CDS 1 5359 rr.example."),
            ("EUI48", "00-00-5e-00-53-2a"),
            ("EUI64", "00-00-5e-ef-10-00-00-2a"),
            ("NID", "10 0014:4fff:ff20:ee64"),
            ("LOC", "42 21 54.000 N 71 6 18.000 W -24.00m 30m 10000m 10m"),
            ("LOC", "0 0 0.001 S 180 0 0.000 E 0.00m 0.01m 90000000m 0m"),
            ("HIP", "2 200100107b1a74df365639cc39f1d578 aGkh rvs1.example. rvs2.example."),
            ("ALIAS", "lb.example."),
            ("TYPE65280", r"\# 3 010203"),
            ("TYPE65280", r"\# 0"),
            ("TXT", r"\# 0"),
        ] {
            let rtype = rdata::type_of(rtype).unwrap();
            let wire = read_back(rtype, text).unwrap();
            assert_eq!(show(rtype, &wire), text);
        }
    }

    proptest! {
        /// Whatever the octets: the text that they give reads back as the same octets.
        #[test]
        fn any_data_survives_its_text(
            rtype in prop::sample::select(vec![1u16, 2, 5, 6, 12, 13, 15, 16, 28, 29, 33, 35, 37, 43, 44, 48, 52, 55, 61, 62, 63, 64, 65, 66, 99, 104, 108, 109, 256, 257, 1234]),
            data in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..60),
        ) {
            let text = show(rtype, &data);
            prop_assert_eq!(read_back(rtype, &text), Some(data), "{}", text);
        }

        #[test]
        fn no_message_panics(packet in prop::collection::vec(prop_oneof![Just(0xc0u8), 0u8..20, any::<u8>()], 0..80)) {
            message(&packet);
        }
    }
}
