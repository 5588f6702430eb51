//! DNS messages on the fast path: a query read in place, an answer written into the same buffer.
//!
//! The parser takes what resolvers send: a header, one question without compression, records that are skipped, and one
//! OPT (`edns`). It judges nothing but form. The writer appends to a buffer that already holds the question and never
//! writes past its limit. No allocation in either.

use std::ops::Range;

use super::name;

pub mod cookie;
mod edns;

pub use edns::{BLOCK, Ede, Edns, Flaw, NSID, Opt};

/// Octets of the header.
pub const HEADER: usize = 12;
/// Most that an answer over UDP takes where nothing else is said: fits every path without fragments (DNS flag day 2020;
/// gdnsd, NSD and Knot agree).
pub const MAX_UDP: usize = 1232;
/// What every client takes without EDNS (RFC 1035 section 4.2.1).
pub const PLAIN_UDP: usize = 512;
/// Most that a message takes over TCP.
pub const MAX_TCP: usize = 65_535;
/// A pointer to the question's name (RFC 1035 section 4.1.4).
pub const QNAME: [u8; 2] = [0xc0, HEADER as u8];
/// The highest offset that a pointer reaches.
pub const MAX_POINTER: usize = 0x3fff;
/// Class IN.
pub const IN: u16 = 1;

/// Types that the server itself knows.
#[expect(missing_docs, reason = "the names are the IANA's")]
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const CDS: u16 = 59;
    pub const CDNSKEY: u16 = 60;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const NXNAME: u16 = 128;
    pub const ANY: u16 = 255;
    pub const CAA: u16 = 257;
    /// Incremental transfer.
    pub const IXFR: u16 = 251;
    /// Transfer of a whole zone.
    pub const AXFR: u16 = 252;
    /// A signature of the message (RFC 8945).
    pub const TSIG: u16 = 250;
    /// No type of the wire: what an `ALIAS` line of a master file becomes; private use (RFC 6895 section 3.1).
    pub const ALIAS: u16 = 65_401;
    /// TKEY, TSIG, IXFR, AXFR, MAILB, MAILA: questions that are no records (RFC 6895 section 3.1).
    pub const META: std::ops::RangeInclusive<u16> = 249..=254;
}

/// How an answer ends (RFC 1035 section 4.1.1, RFC 6891 section 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rcode {
    /// As asked, or no data.
    NoError = 0,
    /// The query is malformed.
    FormErr = 1,
    /// We can't answer.
    ServFail = 2,
    /// The name does not exist.
    NxDomain = 3,
    /// Only queries are answered.
    NotImp = 4,
    /// Not our zone, or nothing that we give.
    Refused = 5,
    /// A DNAME makes a name that is too long (RFC 6672 section 2.2).
    YxDomain = 6,
    /// The message's signature is not accepted (RFC 8945 section 5.3).
    NotAuth = 9,
    /// An EDNS version that is not known here.
    BadVers = 16,
    /// Come again with the cookie that is in this answer (RFC 7873 section 8).
    BadCookie = 23,
}

impl Rcode {
    /// All of them, for tables of counters.
    pub const ALL: [Self; 10] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::YxDomain,
        Self::NotAuth,
        Self::BadVers,
        Self::BadCookie,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::YxDomain => "yxdomain",
            Self::NotAuth => "notauth",
            Self::BadVers => "badvers",
            Self::BadCookie => "badcookie",
        }
    }
}

/// A query, read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Where the question ends in the packet.
    pub question_end: usize,
    /// What is asked for.
    pub rtype: u16,
    /// Of which class.
    pub class: u16,
    /// EDNS, if the query has it.
    pub edns: Option<Edns>,
    /// Where its signature begins, if it has one: a TSIG record, which is the last (RFC 8945 section 5.1).
    pub signature: Option<usize>,
}

/// Why a packet is not a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Less than a header: not to be answered.
    Short,
    /// An answer: not to be answered, or two servers talk to each other for ever.
    Response,
    /// An opcode other than QUERY.
    Opcode,
    /// Not exactly one question, or what follows is broken.
    Malformed,
    /// No question, but a cookie, which is read: the client asks for ours (RFC 7873 section 5.4).
    Unasked,
}

impl Query {
    /// Reads the query in `packet`.
    ///
    /// # Errors
    /// As [`Fault`] lists. A query with an EDNS version or option that is wrong is still a query, and says so.
    pub fn parse(packet: &[u8]) -> Result<Self, Fault> {
        let mut query = Self::default();
        query.read(packet)?;
        Ok(query)
    }

    /// The same, into a query that is there already: moving one costs half as much as reading it.
    ///
    /// # Errors
    /// The same.
    pub fn read(&mut self, packet: &[u8]) -> Result<(), Fault> {
        *self = Self::default();
        let header = packet.first_chunk::<HEADER>().ok_or(Fault::Short)?;
        if header[2] & 0x80 != 0 {
            return Err(Fault::Response);
        }
        if header[2] & 0x78 != 0 {
            return Err(Fault::Opcode);
        }
        match [header[4], header[5]] {
            [0, 1] => self.asked(packet, header).ok_or(Fault::Malformed),
            [0, 0] => Err(self.unasked(packet).map_or(Fault::Malformed, |()| Fault::Unasked)),
            _ => Err(Fault::Malformed),
        }
    }

    /// Reads a message without a question, where its OPT is all that it has, and has a cookie.
    fn unasked(&mut self, packet: &[u8]) -> Option<()> {
        let (start, [0, 0, 1]) = sections(packet)? else { return None };
        let record = Record::read(packet, start).filter(|r| r.rtype == rtype::OPT && r.at == start + 1 + 10)?;
        (self.question_end, self.class) = (HEADER, IN);
        let edns = self.edns.insert(Edns::default());
        edns.read(packet.get(start + 1..)?.first_chunk()?, record.data)?;
        edns.cookie.is_some().then_some(())
    }

    fn asked(&mut self, packet: &[u8], header: &[u8; HEADER]) -> Option<()> {
        let mut at = HEADER;
        loop {
            let length = usize::from(*packet.get(at)?);
            if length > name::MAX_LABEL {
                return None;
            }
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
        if at - HEADER > name::MAX {
            return None;
        }
        let [t0, t1, c0, c1] = *packet.get(at..)?.first_chunk::<4>()?;
        let question_end = at + 4;
        let count = |i: usize| usize::from(u16::from_be_bytes([header[i], header[i + 1]]));
        let (before, additional) = (count(6) + count(8), count(10));
        // Each record takes at least eleven octets, so a lying count ends at the end of the packet.
        let mut at = question_end;
        for i in 0..before + additional {
            let owner = at;
            at = name::skip(packet, at)?;
            let fixed = packet.get(at..)?.first_chunk::<10>()?;
            let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
            let data = packet.get(at + 10..at + 10 + length)?;
            match u16::from_be_bytes([fixed[0], fixed[1]]) {
                // RFC 6891 section 6.1.1: one at most, in the additional section, owned by the root.
                rtype::OPT if self.edns.is_some() || i < before || packet.get(owner) != Some(&0) => return None,
                rtype::OPT => self.edns.insert(Edns::default()).read(fixed, data)?,
                rtype::TSIG if i < before || i + 1 < before + additional => return None,
                rtype::TSIG => self.signature = Some(owner),
                _ => {}
            }
            at += 10 + length;
        }
        self.question_end = question_end;
        (self.rtype, self.class) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Some(())
    }

    /// Copies the question's name in lower case to the front of `into`; gives its length.
    pub fn lower(&self, packet: &[u8], into: &mut [u8; name::MAX]) -> usize {
        let qname = packet.get(HEADER..self.question_end.saturating_sub(4)).unwrap_or_default();
        let Some(used) = into.get_mut(..qname.len()) else { return 0 };
        // Each octet once: to read again what has just been written in other portions stalls the processor.
        for (to, from) in used.iter_mut().zip(qname) {
            *to = from.to_ascii_lowercase();
        }
        used.len()
    }

    /// The most that an answer over UDP may take, where we send no more than `ceiling`.
    pub fn udp_limit(&self, ceiling: usize) -> usize {
        self.edns.as_ref().map_or(PLAIN_UDP, |e| usize::from(e.size).clamp(PLAIN_UDP, ceiling.max(PLAIN_UDP)))
    }
}

/// Where the records of `message` begin, and how many its answer, authority and additional sections have.
pub fn sections(message: &[u8]) -> Option<(usize, [u16; 3])> {
    let header = message.first_chunk::<HEADER>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut at = HEADER;
    for _ in 0..count(4) {
        at = name::skip(message, at)? + 4;
    }
    Some((at, [count(6), count(8), count(10)]))
}

/// A record of a message behind its owner (RFC 1035 section 4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'m> {
    /// Type.
    pub rtype: u16,
    /// Class; the size of an OPT.
    pub class: u16,
    /// TTL in seconds; flags of an OPT.
    pub ttl: u32,
    /// Where its data begins.
    pub at: usize,
    /// Its data. Names in it may point elsewhere into the message.
    pub data: &'m [u8],
}

impl<'m> Record<'m> {
    /// The record that begins at `start`. `None`: it breaks off, or its owner is none.
    pub fn read(message: &'m [u8], start: usize) -> Option<Self> {
        let at = name::skip(message, start)?;
        let [t0, t1, c0, c1, a, b, c, d, l0, l1] = *message.get(at..)?.first_chunk()?;
        let at = at + 10;
        let data = message.get(at..at + usize::from(u16::from_be_bytes([l0, l1])))?;
        let (rtype, class) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        Some(Self { rtype, class, ttl: u32::from_be_bytes([a, b, c, d]), at, data })
    }

    /// Where it ends.
    pub const fn end(&self) -> usize {
        self.at + self.data.len()
    }
}

/// Turns the query's header in `packet` into the head of a bare refusal, without a question; gives its length.
pub fn refuse(packet: &mut [u8], rcode: Rcode) -> usize {
    let Some(header) = packet.first_chunk_mut::<HEADER>() else { return 0 };
    // Opcode and RD stay (RFC 1035 section 4.1.1); everything else is ours.
    header[2] = 0x80 | header[2] & 0x79;
    header[3] = rcode as u8 & 0x0f;
    header[4..].fill(0);
    HEADER
}

/// A place in an answer that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    at: usize,
    counts: [u16; 3],
}

/// Makes the answer in `packet`, whose question ends at `question_end` and whose last record is the OPT in `opt`, one without
/// records but that. Gives its length.
pub fn shorten(packet: &mut [u8], question_end: usize, opt: Range<usize>, rcode: Rcode, truncated: bool) -> usize {
    let length = question_end + opt.len();
    packet.copy_within(opt, question_end);
    edns::unsay(packet.get_mut(question_end..length).unwrap_or_default(), rcode);
    if let Some(header) = packet.first_chunk_mut::<HEADER>() {
        header[2] = header[2] & !0x06 | u8::from(truncated) << 1;
        header[3] = header[3] & 0x10 | rcode as u8 & 0x0f;
        header[6..].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(length > question_end)]);
    }
    length
}

/// An answer on its way into a buffer that holds the question already.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut [u8],
    at: usize,
    /// Records end here.
    limit: usize,
    /// The message ends here.
    end: usize,
    question_end: usize,
    counts: [u16; 3],
}

/// A section of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What was asked for.
    Answer = 0,
    /// Who knows better, or for how long there is nothing.
    Authority = 1,
    /// Addresses of those.
    Additional = 2,
}

/// The answer does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<'a> Reply<'a> {
    /// Begins behind the question of `query`, which `out` begins with. The whole answer, with `reserved` octets for the
    /// OPT, takes at most `limit`.
    pub fn begin(out: &'a mut [u8], query: &Query, limit: usize, reserved: usize) -> Self {
        let end = limit.min(out.len());
        let limit = end.saturating_sub(reserved);
        Self { out, at: query.question_end, limit, end, question_end: query.question_end, counts: [0; 3] }
    }

    /// Where the next octet goes.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Appends `bytes`, `records` records of `section`.
    pub fn put(&mut self, section: Section, records: u16, bytes: &[u8]) -> Result<(), Full> {
        self.raw(bytes)?;
        self.counts[section as usize] += records;
        Ok(())
    }

    /// Appends records that are stored with [`QNAME`] for their owner, under the owner at offset `owner`.
    pub fn put_owned(&mut self, section: Section, records: u16, bytes: &[u8], owner: usize) -> Result<(), Full> {
        let start = self.at;
        self.put(section, records, bytes)?;
        if owner != HEADER {
            let pointer = pointer(owner).ok_or(Full)?;
            let mut at = start;
            while at < self.at {
                let Some(record) = self.out.get_mut(at..self.at) else { break };
                let Some(head) = record.first_chunk_mut::<12>() else { break };
                [head[0], head[1]] = pointer;
                at += 12 + usize::from(u16::from_be_bytes([head[10], head[11]]));
            }
        }
        Ok(())
    }

    /// Appends octets that belong to no count: the rest of a record whose head has been put.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.at + bytes.len();
        if end > self.limit {
            return Err(Full);
        }
        let Some(room) = self.out.get_mut(self.at..end) else { return Err(Full) };
        room.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// The name that stands at `at` in full, in lower case, in `room`. `None` where none does.
    pub fn name<'r>(&self, at: usize, room: &'r mut [u8; name::MAX]) -> Option<&'r [u8]> {
        let written = self.written(at, name::MAX);
        let written = written.get(..name::octets(written)?)?;
        let lower = room.get_mut(..written.len())?;
        lower.copy_from_slice(written);
        lower.make_ascii_lowercase();
        Some(lower)
    }

    /// Appends `n` octets that have been written before, from `at` on.
    pub fn again(&mut self, at: usize, n: usize) -> Result<(), Full> {
        let end = self.at + n;
        if end > self.limit || at + n > self.at {
            return Err(Full);
        }
        self.out.copy_within(at..at + n, self.at);
        self.at = end;
        Ok(())
    }

    /// Writes the 16-bit number at `at`, which has been written before.
    pub fn patch(&mut self, at: usize, value: u16) {
        if let Some(place) = self.out.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Up to `n` octets that have been written from `at` on.
    pub fn written(&self, at: usize, n: usize) -> &[u8] {
        self.out.get(at..self.at.min(at + n)).unwrap_or_default()
    }

    /// Where the answer is, for [`Reply::back_to`].
    pub const fn mark(&self) -> Mark {
        Mark { at: self.at, counts: self.counts }
    }

    /// Takes everything back that was appended since `mark`.
    pub const fn back_to(&mut self, mark: Mark) {
        (self.at, self.counts) = (mark.at, mark.counts);
    }

    /// Takes everything behind the question back.
    pub const fn clear(&mut self) {
        self.at = self.question_end;
        self.counts = [0; 3];
    }

    /// Finishes: writes the header and, where the query has EDNS, the OPT. Gives the length of the message.
    pub fn finish(self, rcode: Rcode, authoritative: bool, truncated: bool, opt: Option<&Opt<'_>>) -> usize {
        let Self { out, mut at, end, counts: [answers, authority, mut additional], .. } = self;
        if let Some(opt) = opt
            && let Some(room) = out.get_mut(at..end)
        {
            let length = opt.write(rcode, at, room);
            at += length;
            additional += u16::from(length > 0);
        }
        if let Some(header) = out.first_chunk_mut::<HEADER>() {
            // RD and CD are copied (RFC 1035 section 4.1.1, RFC 4035 section 3.1.6).
            header[2] = 0x80 | u8::from(authoritative) << 2 | u8::from(truncated) << 1 | header[2] & 1;
            header[3] = header[3] & 0x10 | rcode as u8 & 0x0f;
            // QDCOUNT is the query's: one, or none.
            [header[6], header[7]] = answers.to_be_bytes();
            [header[8], header[9]] = authority.to_be_bytes();
            [header[10], header[11]] = additional.to_be_bytes();
        }
        at
    }
}

/// A compression pointer to `offset`; `None` where a pointer does not reach.
pub fn pointer(offset: usize) -> Option<[u8; 2]> {
    (offset <= MAX_POINTER).then(|| (0xc000 | offset as u16).to_be_bytes())
}

#[cfg(test)]
mod tests;
