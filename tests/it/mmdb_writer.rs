//! Writes small MaxMind DB files (format 2.0) for tests: made here, so that no database of others lies in the repository.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Text(String),
    Number(u32),
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
}

/// A text.
pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A map.
pub fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The record of a country on a continent.
pub fn country(continent: &str, country: &str) -> Value {
    map([("continent", map([("code", text(continent))])), ("country", map([("iso_code", text(country))]))])
}

/// The record of a city: continent, country, subdivision, English name, GeoNames id.
pub fn city(continent: &str, country: &str, subdivision: &str, name: &str, id: u32) -> Value {
    let names = map([("de", text("anders")), ("en", text(name))]);
    map([
        ("city", map([("geoname_id", Value::Number(id)), ("names", names)])),
        ("continent", map([("code", text(continent))])),
        ("country", map([("iso_code", text(country))])),
        ("subdivisions", Value::List(vec![map([("iso_code", text(subdivision))])])),
    ])
}

/// The record of an autonomous system.
pub fn asn(number: u32) -> Value {
    map([("autonomous_system_number", Value::Number(number)), ("autonomous_system_organization", text("somebody"))])
}

/// A file with these networks, with records of this many bits, for IPv6 (then IPv4 stands under `::/96`, and again under
/// 6to4, as MaxMind has it) or for IPv4 alone. Of networks within each other the longer one counts.
pub fn write(kind: &str, v6: bool, record_bits: u8, networks: &[(IpNet, Value)]) -> Vec<u8> {
    let mut data = Data::default();
    let mut networks: Vec<(u128, u8, usize)> = networks
        .iter()
        .filter_map(|(net, value)| {
            let (bits, length) = match net.network() {
                IpAddr::V4(a) if v6 => (u128::from(u32::from(a)), net.prefix_len() + 96),
                IpAddr::V4(a) => (u128::from(u32::from(a)) << 96, net.prefix_len()),
                IpAddr::V6(_) if !v6 => return None,
                IpAddr::V6(a) => (a.into(), net.prefix_len()),
            };
            Some((bits, length, data.record(value)))
        })
        .collect();
    networks.sort_by_key(|(_, length, _)| *length);
    let mut nodes = vec![[Side::Nothing; 2]];
    for (bits, length, at) in networks {
        put(&mut nodes, bits, length, Side::Record(at));
    }
    if v6 && let Some(inner) = node_at(&nodes, 0, 96) {
        put(&mut nodes, 0x2002 << 112, 16, Side::Node(inner));
    }
    let mut out = Vec::new();
    for node in &nodes {
        let [left, right] = node.map(|side| match side {
            Side::Nothing => nodes.len(),
            Side::Node(node) => node,
            Side::Record(at) => nodes.len() + 16 + at,
        } as u32);
        let (left, right) = (left.to_be_bytes(), right.to_be_bytes());
        match record_bits {
            24 => out.extend([&left[1..], &right[1..]].concat()),
            28 => out.extend([&left[1..], &[left[0] << 4 | right[0]], &right[1..]].concat()),
            _ => out.extend([left, right].concat()),
        }
    }
    out.extend([0; 16]);
    out.extend(&data.octets);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    let mut metadata = Data::default();
    metadata.head(7, 9);
    for (key, kind_of, number) in [
        ("binary_format_major_version", 5, 2),
        ("binary_format_minor_version", 5, 0),
        ("build_epoch", 9, 1_700_000_000),
        ("ip_version", 5, if v6 { 6 } else { 4 }),
        ("node_count", 6, nodes.len() as u64),
        ("record_size", 5, u64::from(record_bits)),
    ] {
        metadata.value(&text(key));
        metadata.number(kind_of, number);
    }
    metadata.value(&text("database_type"));
    metadata.value(&text(kind));
    metadata.value(&text("description"));
    metadata.value(&map([("en", text("made for a test"))]));
    metadata.value(&text("languages"));
    metadata.value(&Value::List(vec![text("en")]));
    out.extend(metadata.octets);
    out
}

#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    Record(usize),
}

fn put(nodes: &mut Vec<[Side; 2]>, bits: u128, length: u8, what: Side) {
    let mut at = 0;
    for depth in 0..length {
        let side = usize::from(bits >> (127 - depth) & 1 == 1);
        if depth + 1 == length {
            nodes[at][side] = what;
            return;
        }
        at = match nodes[at][side] {
            Side::Node(node) => node,
            // What held here goes on to hold beside the longer network.
            shorter => {
                nodes.push([shorter; 2]);
                let node = nodes.len() - 1;
                nodes[at][side] = Side::Node(node);
                node
            }
        };
    }
    nodes[0] = [what; 2];
}

fn node_at(nodes: &[[Side; 2]], bits: u128, length: u8) -> Option<usize> {
    (0..length).try_fold(0, |at, depth| match nodes[at][usize::from(bits >> (127 - depth) & 1 == 1)] {
        Side::Node(node) => Some(node),
        _ => None,
    })
}

#[derive(Default)]
struct Data {
    octets: Vec<u8>,
    known: BTreeMap<Value, usize>,
}

impl Data {
    /// Where this record stands; equal ones stand there once, and what stands already is pointed to.
    fn record(&mut self, value: &Value) -> usize {
        if let Some(at) = self.known.get(value) {
            return *at;
        }
        let at = self.octets.len();
        self.known.insert(value.clone(), at);
        self.value(value);
        at
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => {
                let at = self.octets.len();
                if let Some(&known) = self.known.get(value).filter(|known| **known < at) {
                    self.pointer(known);
                    return;
                }
                self.known.insert(value.clone(), at);
                self.head(2, text.len());
                self.octets.extend(text.as_bytes());
            }
            Value::Number(number) => self.number(6, u64::from(*number)),
            Value::Map(entries) => {
                self.head(7, entries.len());
                for (key, value) in entries {
                    self.value(&text(key));
                    self.value(value);
                }
            }
            Value::List(values) => {
                self.head(11, values.len());
                for value in values {
                    self.value(value);
                }
            }
        }
    }

    fn number(&mut self, kind: u8, number: u64) {
        let octets: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
        self.head(kind, octets.len());
        self.octets.extend(octets);
    }

    fn pointer(&mut self, to: usize) {
        let [.., b, c, d] = (to as u32).to_be_bytes();
        match to {
            0..2_048 => self.octets.extend([0x20 | c, d]),
            2_048..526_336 => {
                let [.., b, c, d] = (to as u32 - 2_048).to_be_bytes();
                self.octets.extend([0x28 | b, c, d]);
            }
            _ => self.octets.extend([0x38, 0, b, c, d]),
        }
    }

    fn head(&mut self, kind: u8, size: usize) {
        let (short, long): (u8, Vec<u8>) = match size {
            0..29 => (size as u8, vec![]),
            29..285 => (29, vec![(size - 29) as u8]),
            _ => (30, ((size - 285) as u16).to_be_bytes().to_vec()),
        };
        if kind > 7 {
            self.octets.extend([short, kind - 7]);
        } else {
            self.octets.push(kind << 5 | short);
        }
        self.octets.extend(long);
    }
}
