//! MaxMind DB files (format 2.0): reading what a file is, walking all of its networks, and reading what it says of each.
//!
//! Works on octets from anybody: every offset is checked, every walk has a budget that an honest file never comes near, and
//! nothing is read twice because a pointer says so. Knows no files and no configuration; `dns::atlas` calls it.
//!
//! Format: maxmind.github.io/MaxMind-DB. Networks come in the order of their addresses, the empty ones among them. IPv4
//! within IPv6 (6to4 and the like) is passed over: files repeat their IPv4 tree there, and clients are looked up by IPv4.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod value;

use value::{Item, Section};

/// What stands before the metadata.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// How far from the end the metadata may begin (the format's own limit).
const METADATA: usize = 128 << 10;
/// Zeros between tree and data.
const GAP: usize = 16;
/// How many nodes are visited for each that there is: honest trees need one visit, and another for what they share.
const VISITS: u64 = 4;

/// Why a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MmdbError {
    /// The marker of the metadata is not there.
    #[error("this is no MaxMind DB file, or its end is missing")]
    NoMetadata,
    /// A field of the metadata is missing or of another type.
    #[error("the metadata has no usable `{0}`")]
    Metadata(&'static str),
    /// Another version of the format.
    #[error("this is version {0} of the format; version 2 is read")]
    Version(u64),
    /// The search tree does not fit into the file.
    #[error("the file is damaged: its search tree is longer than the file")]
    Short,
    /// A node leads out of the tree and the data, or nodes lead in circles.
    #[error("the file is damaged: its search tree leads nowhere or in circles")]
    Tree,
    /// Data that can't be read at this offset of the data section.
    #[error("the file is damaged: its data cannot be read at offset {0}")]
    Data(usize),
    /// Reading the data takes longer than any honest file's.
    #[error("the file is damaged: its data refers to itself without end")]
    Endless,
}

/// An opened file.
#[derive(Debug)]
pub struct Mmdb<'a> {
    tree: &'a [u8],
    data: Section<'a>,
    nodes: u32,
    record_bits: u8,
    v6: bool,
    /// What kind of database it says it is, such as `GeoLite2-Country`.
    pub kind: &'a str,
    /// When it was built, in seconds since 1970.
    pub built: u64,
}

/// What a record says about the place of a network. Codes are as in the file: ISO 3166 in upper case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// Continent, such as `AS`.
    pub continent: Option<&'a str>,
    /// Country, such as `CN`; where none is said, that in which the network is registered.
    pub country: Option<&'a str>,
    /// Subdivisions without their country, such as `GD`, the largest first.
    pub subdivisions: Vec<&'a str>,
    /// GeoNames id of the city.
    pub city_id: Option<u64>,
    /// English name of the city.
    pub city: Option<&'a str>,
    /// Number of the autonomous system.
    pub asn: Option<u64>,
}

/// Where the record of a network stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record(u32);

#[derive(Clone, Copy)]
enum Next {
    Node(u32),
    Record(Record),
    Nothing,
}

impl<'a> Mmdb<'a> {
    /// Opens the file that `bytes` hold.
    ///
    /// # Errors
    /// As [`MmdbError`] lists, except for what only walking or reading finds.
    pub fn open(bytes: &'a [u8]) -> Result<Self, MmdbError> {
        let tail = bytes.len().saturating_sub(METADATA);
        let end = bytes.get(tail..).unwrap_or_default();
        let at = end.windows(MARKER.len()).rposition(|w| w == MARKER).ok_or(MmdbError::NoMetadata)?;
        let metadata = Section::new(end.get(at + MARKER.len()..).unwrap_or_default());
        let (mut nodes, mut record_bits, mut version) = (None, None, None);
        let (mut ip_version, mut built, mut kind) = (None, None, None);
        metadata.entries(0, |key, at| {
            let place = match key {
                b"node_count" => &mut nodes,
                b"record_size" => &mut record_bits,
                b"binary_format_major_version" => &mut version,
                b"ip_version" => &mut ip_version,
                b"build_epoch" => &mut built,
                b"database_type" => {
                    kind = metadata.text(at)?;
                    return Ok(());
                }
                _ => return Ok(()),
            };
            *place = metadata.number(at)?;
            Ok(())
        })?;
        let version = version.ok_or(MmdbError::Metadata("binary_format_major_version"))?;
        if version != 2 {
            return Err(MmdbError::Version(version));
        }
        let nodes = nodes.and_then(|n| u32::try_from(n).ok()).ok_or(MmdbError::Metadata("node_count"))?;
        let record_bits = match record_bits {
            Some(bits @ (24 | 28 | 32)) => bits as u8,
            _ => return Err(MmdbError::Metadata("record_size")),
        };
        let v6 = match ip_version {
            Some(4) => false,
            Some(6) => true,
            _ => return Err(MmdbError::Metadata("ip_version")),
        };
        let size = nodes as usize * usize::from(record_bits) / 4;
        let data_ends = tail + at;
        let tree = bytes.get(..size).filter(|_| size + GAP <= data_ends).ok_or(MmdbError::Short)?;
        let data = Section::new(bytes.get(size + GAP..data_ends).unwrap_or_default());
        Ok(Self { tree, data, nodes, record_bits, v6, kind: kind.unwrap_or(""), built: built.unwrap_or(0) })
    }

    /// Tells of every network of both families in order: its first address and its record, if it has one.
    ///
    /// # Errors
    /// The tree leads nowhere or in circles; what was told by then is of no use.
    pub fn walk(&self, mut each: impl FnMut(IpAddr, Option<Record>)) -> Result<(), MmdbError> {
        let visits = Cell::new(u64::from(self.nodes) * VISITS + 1_024);
        let mut inner = self.root();
        for _ in 0..if self.v6 { 96 } else { 0 } {
            if let Next::Node(node) = inner {
                inner = self.next(node, 0)?;
            }
        }
        let mut told = |first: u128, record| each(Ipv4Addr::from((first >> 96) as u32).into(), record);
        self.descend(inner, 0, 0, 32, None, &visits, &mut told)?;
        let mut told = |first: u128, record| each(Ipv6Addr::from(first).into(), record);
        let shared = if let Next::Node(node) = inner { Some(node) } else { None };
        let root = if self.v6 { self.root() } else { Next::Nothing };
        self.descend(root, 0, 0, 128, shared, &visits, &mut told)
    }

    fn root(&self) -> Next {
        if self.nodes == 0 { Next::Nothing } else { Next::Node(0) }
    }

    /// Tells of what lies beneath `next`, except beneath the node `shared`.
    #[expect(clippy::too_many_arguments, reason = "a walk in one function, and its state")]
    fn descend(
        &self,
        next: Next,
        first: u128,
        depth: u32,
        width: u32,
        shared: Option<u32>,
        visits: &Cell<u64>,
        told: &mut dyn FnMut(u128, Option<Record>),
    ) -> Result<(), MmdbError> {
        let node = match next {
            Next::Nothing => {
                told(first, None);
                return Ok(());
            }
            Next::Record(record) => {
                told(first, Some(record));
                return Ok(());
            }
            Next::Node(node) if Some(node) == shared => {
                told(first, None);
                return Ok(());
            }
            Next::Node(node) => node,
        };
        visits.set(visits.get().checked_sub(1).filter(|_| depth < width).ok_or(MmdbError::Tree)?);
        for side in 0..2u8 {
            let first = first | u128::from(side) << (127 - depth);
            self.descend(self.next(node, side)?, first, depth + 1, width, shared, visits, told)?;
        }
        Ok(())
    }

    fn next(&self, node: u32, side: u8) -> Result<Next, MmdbError> {
        let size = usize::from(self.record_bits) / 4;
        let node = self.tree.get(node as usize * size..).and_then(|t| t.get(..size)).ok_or(MmdbError::Tree)?;
        let value = match (node, side) {
            (&[a, b, c, ..], 0) if self.record_bits == 24 => u32::from_be_bytes([0, a, b, c]),
            (&[.., a, b, c], _) if self.record_bits == 24 => u32::from_be_bytes([0, a, b, c]),
            (&[a, b, c, high, ..], 0) if self.record_bits == 28 => u32::from_be_bytes([high >> 4, a, b, c]),
            (&[_, _, _, high, a, b, c], _) => u32::from_be_bytes([high & 0x0f, a, b, c]),
            (&[a, b, c, d, ..], 0) | (&[.., a, b, c, d], _) => u32::from_be_bytes([a, b, c, d]),
            _ => return Err(MmdbError::Tree),
        };
        match value.checked_sub(self.nodes) {
            None => Ok(Next::Node(value)),
            Some(0) => Ok(Next::Nothing),
            Some(beyond) => {
                let at = beyond.checked_sub(GAP as u32).ok_or(MmdbError::Tree)?;
                Ok(Next::Record(Record(at)))
            }
        }
    }

    /// What the file says of the networks that have this record; what is not understood is left out.
    ///
    /// # Errors
    /// The data is damaged.
    pub fn place(&self, record: Record) -> Result<Place<'a>, MmdbError> {
        let data = &self.data;
        let mut place = Place::default();
        let mut registered = None;
        data.entries(record.0 as usize, |key, at| {
            match key {
                b"autonomous_system_number" => place.asn = data.number(at)?,
                b"continent" => place.continent = data.member(at, b"code")?,
                b"country" => place.country = data.member(at, b"iso_code")?,
                b"registered_country" => registered = data.member(at, b"iso_code")?,
                b"subdivisions" => data.elements(at, |at| {
                    place.subdivisions.extend(data.member(at, b"iso_code")?);
                    Ok(())
                })?,
                b"city" => data.entries(at, |key, at| {
                    match key {
                        b"geoname_id" => place.city_id = data.number(at)?,
                        b"names" => place.city = data.member(at, b"en")?,
                        _ => {}
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        place.country = place.country.or(registered);
        Ok(place)
    }
}

impl<'a> Section<'a> {
    fn text(&self, at: usize) -> Result<Option<&'a str>, MmdbError> {
        Ok(match self.item(at)?.0 {
            Item::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        })
    }

    fn number(&self, at: usize) -> Result<Option<u64>, MmdbError> {
        Ok(if let Item::Number(number) = self.item(at)?.0 { Some(number) } else { None })
    }

    /// The text under `wanted` in the map at `at`.
    fn member(&self, at: usize, wanted: &[u8]) -> Result<Option<&'a str>, MmdbError> {
        let mut found = None;
        self.entries(at, |key, at| {
            if key == wanted {
                found = self.text(at)?;
            }
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
#[allow(dead_code, unreachable_pub, clippy::pedantic, reason = "shared with the process tests")]
#[path = "../../../tests/it/mmdb_writer.rs"]
pub(crate) mod writer;

#[cfg(test)]
mod tests;
