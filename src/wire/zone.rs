//! A static zone as data: owner names and ready-made record sets, independent of how they were parsed.
//!
//! The name server's loader builds it from a master file; `answer` reads it. Names are lower case, in wire format
//! (RFC 1035 section 3.1), without compression.

use std::collections::BTreeMap;

/// A name in wire format, lower case: length-prefixed labels and the final zero.
pub type WireName = Box<[u8]>;

/// One record set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RrSet {
    /// Type.
    pub rtype: u16,
    /// TTL in seconds.
    pub ttl: u32,
    /// RDATA of each record, names in it uncompressed.
    pub rdatas: Vec<Box<[u8]>>,
}

/// One zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Apex.
    pub origin: WireName,
    /// The apex as text, with the final dot.
    pub origin_text: String,
    /// Record sets by owner name.
    pub names: BTreeMap<WireName, Vec<RrSet>>,
}
