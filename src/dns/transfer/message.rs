//! One message of a transfer: the question, and as many records as it holds.
//!
//! Owners are compressed against the zone's name, which the question has, and against the owner before: most of what can
//! be had, for no table.

use crate::wire::dns::{HEADER, IN, MAX_UDP, QNAME, pointer, rtype};

/// What an OPT without options takes.
const OPT: usize = 11;

/// Makes the header of an answer out of that of a query: authoritative, no records, no error.
pub(super) fn answer_head(head: &mut [u8]) {
    if let Some(header) = head.first_chunk_mut::<HEADER>() {
        header[2] = 0x84 | header[2] & 1;
        header[3] &= 0x10;
        header[4..].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    }
}

/// A message being filled.
pub(super) struct Message {
    packet: Vec<u8>,
    apex: usize,
    edns: bool,
    fill: usize,
    limit: usize,
    records: u16,
    /// The owner before, and where it stands.
    owner: Vec<u8>,
    owner_at: usize,
}

impl Message {
    /// Behind `head`, for a zone whose name takes `apex` octets. It is full at `fill` octets; one record may take it up to
    /// `limit`.
    pub(super) fn begin(head: &[u8], apex: usize, edns: bool, fill: usize, limit: usize) -> Self {
        let mut packet = Vec::with_capacity(fill + 512);
        packet.extend_from_slice(head);
        let limit = if edns { limit - OPT } else { limit };
        Self { packet, apex, edns, fill, limit, records: 0, owner: Vec::new(), owner_at: 0 }
    }

    /// How many records it holds.
    pub(super) const fn records(&self) -> u16 {
        self.records
    }

    /// Appends a record; false where it does not fit.
    pub(super) fn put(&mut self, owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> bool {
        let start = self.packet.len();
        let most = start + owner.len() + 10 + rdata.len();
        if self.records > 0 && most > self.fill || most > self.limit || self.records == u16::MAX {
            return false;
        }
        if let Some(before) = pointer(self.owner_at).filter(|_| self.owner == owner) {
            self.packet.extend(before);
        } else {
            let labels = owner.len().saturating_sub(self.apex);
            self.packet.extend(owner.iter().take(labels));
            self.packet.extend(QNAME);
            // Beyond the reach of pointers every owner is written out.
            self.owner_at = if labels == 0 { HEADER } else { start };
            self.owner.clear();
            self.owner.extend_from_slice(owner);
        }
        self.packet.extend(rtype.to_be_bytes());
        self.packet.extend(IN.to_be_bytes());
        self.packet.extend(ttl.to_be_bytes());
        self.packet.extend((rdata.len() as u16).to_be_bytes());
        self.packet.extend_from_slice(rdata);
        self.records += 1;
        true
    }

    /// The whole message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.edns {
            let [size_high, size_low] = (MAX_UDP as u16).to_be_bytes();
            self.packet.extend([0, 0, rtype::OPT as u8, size_high, size_low, 0, 0, 0, 0, 0, 0]);
        }
        if let Some(header) = self.packet.first_chunk_mut::<HEADER>() {
            [header[6], header[7]] = self.records.to_be_bytes();
            header[11] = u8::from(self.edns);
        }
        self.packet
    }
}
