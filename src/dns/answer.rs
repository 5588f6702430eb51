//! From a query to its answer: pure, without allocation, the same for every transport.
//!
//! The answer is built in the buffer that the query came in: the question stays where it is, case and all, and what
//! follows it is overwritten. Sends nothing, counts nothing: the [`Outcome`] says what there is to count.

use std::net::IpAddr;

use super::alias::Target;
use super::sets::Set;
use super::sign::{Cover, Signatures};
use super::signed::answer_signed;
use super::steered::Steered;
use super::table::{Fixed, Found, Node, Referral, Table};
use crate::base::clock::Wall;
use crate::base::ids::SteerId;
use crate::decide::steer::{Choice, Client, Nearness, Reason};
use crate::wire::dns::cookie::Cookie;
use crate::wire::dns::{
    BLOCK, Ede, Edns, Fault, Flaw, Full, HEADER, IN, MAX_TCP, MAX_UDP, Opt, Query, Rcode, Reply, Section, refuse, rtype,
};
use crate::wire::ecs::Subnet;
use crate::wire::{dns, name};

/// How many CNAMEs are followed; a longer chain is left to the resolver (BIND follows 16).
const MAX_CHAIN: usize = 8;
/// What ANY gets: HINFO `RFC8482`, for an hour (RFC 8482 section 4.2; gdnsd's TTL).
const MINIMAL_ANY: [u8; 21] = *b"\xc0\x0c\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00";

/// What came with the query beside its octets.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Who sent it: a resolver, mostly.
    pub client: IpAddr,
    /// How it came.
    pub transport: Transport,
    /// When: read once a batch, not once a query.
    pub now: Wall,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the answer has to fit one.
    Udp,
    /// In a TCP stream (RFC 7766).
    Tcp,
    /// In a TLS stream (RFC 7858).
    Tls,
    /// In an HTTPS request (RFC 8484).
    Https,
    /// In a QUIC stream of its own (RFC 9250).
    Quic,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// The transport of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == word)
    }

    /// Whether an answer has to fit a datagram, and its sender's address proves nothing.
    pub const fn is_datagram(self) -> bool {
        matches!(self, Self::Udp)
    }

    /// Whether nobody on the way can read it: there alone, padding hides something (RFC 7830 section 6).
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https | Self::Quic)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Less than a header.
    Short,
    /// An answer, not a query.
    Response,
}

impl Dropped {
    /// Both, for tables of counters.
    pub(super) const ALL: [Self; 2] = [Self::Short, Self::Response];

    /// The word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Response => "response",
        }
    }
}

/// What became of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is to be sent.
    Drop(Dropped),
    /// The answer stands in the buffer.
    Send(Sent),
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its length.
    pub length: usize,
    /// How it ends.
    pub rcode: Rcode,
    /// It did not fit.
    pub truncated: bool,
    /// What was asked for; 0 where the question could not be read.
    pub rtype: u16,
    /// Where the question ends in the answer; [`HEADER`] where it has none.
    pub question_end: usize,
    /// Where its OPT begins; `length` where it has none.
    pub opt: usize,
    /// What the client has shown of itself.
    pub standing: Standing,
    /// The zone that speaks, by its place in the table.
    pub zone: Option<u32>,
    /// The steered name that it is of, and what was chosen.
    pub steered: Option<(SteerId, Choice)>,
    /// Why a steered name is answered as it is, also where that is without data.
    pub reason: Option<(Reason, Nearness)>,
    /// What signing it took.
    pub signatures: Signatures,
}

/// What a client has shown of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: its address may be forged.
    Unknown,
    /// It speaks cookies, and has none of ours yet.
    Cookie,
    /// That it receives at its address: by a cookie of ours, or by a transport that takes a handshake.
    Proven,
}

impl Standing {
    /// All of them, for tables of counters.
    pub(super) const ALL: [Self; 3] = [Self::Unknown, Self::Cookie, Self::Proven];

    /// The word for it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Cookie => "cookie",
            Self::Proven => "proven",
        }
    }
}

impl Sent {
    /// An answer of `length` octets and nothing but a code.
    pub(super) const fn bare(length: usize, rcode: Rcode) -> Self {
        Self {
            length,
            rcode,
            truncated: false,
            rtype: 0,
            question_end: length,
            opt: length,
            standing: Standing::Unknown,
            zone: None,
            steered: None,
            reason: None,
            signatures: Signatures { kept: 0, made: 0, refused: 0, shared: 0 },
        }
    }

    /// Makes this answer, which stands in `packet`, an answer without records: cut, so that the client comes again over TCP;
    /// or, where it speaks cookies, one that sends it back for its cookie, which is cheaper for both.
    pub fn shorten(&mut self, packet: &mut [u8]) {
        (self.steered, self.reason) = (None, None);
        (self.rcode, self.truncated) = match self.standing {
            Standing::Cookie => (Rcode::BadCookie, false),
            Standing::Unknown | Standing::Proven => (Rcode::NoError, true),
        };
        let opt = self.opt..self.length;
        self.length = dns::shorten(packet, self.question_end, opt, self.rcode, self.truncated);
        self.opt = self.question_end;
    }

    /// The name that was asked for, as it stands in the answer in `packet`; empty where there is no question.
    pub(super) fn qname<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        packet.get(HEADER..self.question_end.saturating_sub(4)).unwrap_or_default()
    }
}

/// Answers `query` into `out`. An `out` that is too small for the query itself cuts it, and so makes it malformed.
pub fn answer(table: &Table, query: &[u8], meta: &Meta, out: &mut [u8]) -> Outcome {
    let length = query.len().min(out.len());
    out[..length].copy_from_slice(&query[..length]);
    answer_in_place(table, out, length, meta)
}

/// Answers the query that the first `length` octets of `packet` hold, in place.
pub fn answer_in_place(table: &Table, packet: &mut [u8], length: usize, meta: &Meta) -> Outcome {
    let length = length.min(packet.len());
    let mut query = Query::default();
    match query.read(&packet[..length]) {
        Ok(()) => {}
        Err(Fault::Short) => return Outcome::Drop(Dropped::Short),
        Err(Fault::Response) => return Outcome::Drop(Dropped::Response),
        Err(Fault::Opcode) => return bare(packet, Rcode::NotImp),
        Err(Fault::Malformed) => return bare(packet, Rcode::FormErr),
        Err(Fault::Unasked) => return greet(table, packet, &query, meta),
    }
    let query = &query;
    let fixed = &*table.fixed;
    let limit = if meta.transport.is_datagram() { query.udp_limit(fixed.udp_size.into()) } else { MAX_TCP };
    if let Some(start) = query.signature {
        return answer_signed(table, packet, length, start, query, limit, meta);
    }
    let mut qname = [0; name::MAX];
    let qname_length = query.lower(packet, &mut qname);
    let mut opt = Opt::default();
    let standing = match &query.edns {
        Some(edns) => offer(&mut opt, edns, fixed, meta),
        None if !meta.transport.is_datagram() => Standing::Proven,
        None => Standing::Unknown,
    };
    let opt = query.edns.is_some().then_some(&mut opt);
    let subnet = opt.as_ref().and_then(|o| o.subnet).map(|(subnet, _)| subnet);
    let dnssec = query.edns.as_ref().is_some_and(|e| e.dnssec_ok && e.version == 0 && e.flaw.is_none());
    let mut work = Work {
        table,
        query,
        reply: Reply::begin(packet, query, limit, opt.as_ref().map_or(0, |o| o.reserve())),
        client: subnet.and_then(Subnet::address).unwrap_or(meta.client),
        now: meta.now,
        rcode: Rcode::NoError,
        why: None,
        authoritative: false,
        zone: None,
        steered: None,
        reason: None,
        dnssec: dnssec.then_some(standing == Standing::Proven),
        cover: None,
        place: (HEADER, None),
    };
    let truncated = match refused(query, meta.transport, standing, fixed) {
        Some((rcode, why)) => {
            (work.rcode, work.why) = (rcode, why);
            false
        }
        None => work.resolve(&mut qname, qname_length).and_then(|()| work.seal(Section::Answer)).is_err(),
    };
    work.finish(truncated, opt, standing)
}

pub(super) fn bare(packet: &mut [u8], rcode: Rcode) -> Outcome {
    Outcome::Send(Sent::bare(refuse(packet, rcode), rcode))
}

/// Answers a client that asks for nothing but a cookie (RFC 7873 section 5.4): with a cookie, and no records.
fn greet(table: &Table, packet: &mut [u8], query: &Query, meta: &Meta) -> Outcome {
    let fixed = &*table.fixed;
    let Some(edns) = query.edns.as_ref().filter(|_| !fixed.secrets.is_empty()) else {
        return bare(packet, Rcode::FormErr);
    };
    let mut opt = Opt::default();
    let standing = offer(&mut opt, edns, fixed, meta);
    let rcode = match (edns.version, edns.flaw, edns.cookie) {
        (1.., ..) => Rcode::BadVers,
        (_, Some(_), _) => Rcode::FormErr,
        // It wants to know whether the cookie that it has is good still.
        (.., Some(cookie)) if cookie.is_shown() && !is_good(&cookie, fixed, meta) => Rcode::BadCookie,
        _ => Rcode::NoError,
    };
    let length = Reply::begin(packet, query, MAX_UDP, 0).finish(rcode, false, false, Some(&opt));
    Outcome::Send(Sent { question_end: HEADER, opt: HEADER, standing, ..Sent::bare(length, rcode) })
}

/// Whether `cookie` is one of ours, and `client`'s.
fn is_good(cookie: &Cookie, fixed: &Fixed, meta: &Meta) -> bool {
    fixed.secrets.answer(cookie, meta.client, seconds(meta)).is_some_and(|(good, _)| good)
}

/// RFC 9018 section 4.3 counts seconds in 32 bits.
const fn seconds(meta: &Meta) -> u32 {
    (meta.now.0 / 1_000) as u32
}

/// Writes into `opt` what the answer's OPT will say, as far as that does not depend on the answer; tells what the client has
/// shown of itself.
#[inline]
fn offer<'t>(opt: &mut Opt<'t>, edns: &'t Edns, fixed: &'t Fixed, meta: &Meta) -> Standing {
    let known = edns.version == 0 && edns.flaw.is_none();
    let cookie =
        edns.cookie.as_ref().filter(|_| known).and_then(|c| fixed.secrets.answer(c, meta.client, seconds(meta)));
    let standing = match cookie {
        _ if !meta.transport.is_datagram() => Standing::Proven,
        Some((true, _)) => Standing::Proven,
        Some((false, _)) => Standing::Cookie,
        None => Standing::Unknown,
    };
    opt.size = fixed.udp_size;
    opt.dnssec_ok = edns.dnssec_ok;
    opt.compact_ok = edns.compact_ok;
    opt.subnet = edns.subnet.as_ref().filter(|_| known && fixed.ecs).map(|subnet| (subnet, 0));
    opt.nsid = if edns.nsid && known { &fixed.nsid } else { &[] };
    if let Some((_, whole)) = cookie {
        opt.cookie = Some(whole);
    }
    // RFC 7828 section 3.3: to a client that asked, over TCP and TLS alone.
    opt.keepalive = (edns.keepalive && matches!(meta.transport, Transport::Tcp | Transport::Tls)).then_some(fixed.idle);
    // RFC 7830 section 4: only where the query is padded, and never in clear text.
    opt.block = (edns.padding && meta.transport.is_encrypted()).then_some(BLOCK);
    standing
}

/// What is wrong with a well-formed query before anything is looked up.
fn refused(query: &Query, transport: Transport, standing: Standing, fixed: &Fixed) -> Option<(Rcode, Option<Ede>)> {
    query.edns.as_ref().and_then(flawed).or_else(|| match query.rtype {
        // RFC 9824 section 3.5: NXNAME is a mark, not a question.
        rtype::OPT | rtype::NXNAME => Some((Rcode::FormErr, Some(Ede::INVALID_TYPE))),
        _ if fixed.require_cookie && standing == Standing::Cookie => Some((Rcode::BadCookie, None)),
        // Over UDP the SOA alone tells whether to come over TCP (RFC 1995 section 2).
        rtype::IXFR if query.class == IN && transport.is_datagram() => None,
        asked if query.class != IN || rtype::META.contains(&asked) => Some((Rcode::Refused, Some(Ede::NOT_SUPPORTED))),
        _ => None,
    })
}

/// What is wrong with a query's EDNS, whatever it asks for.
pub(super) fn flawed(edns: &Edns) -> Option<(Rcode, Option<Ede>)> {
    match edns {
        Edns { version: 1.., .. } => Some((Rcode::BadVers, None)),
        Edns { flaw: Some(Flaw::Subnet), .. } => Some((Rcode::FormErr, Some(Ede::other("malformed client subnet")))),
        Edns { flaw: Some(Flaw::Cookie), .. } => Some((Rcode::FormErr, Some(Ede::other("malformed cookie")))),
        Edns { flaw: None, .. } => None,
    }
}

struct Work<'t, 'p> {
    table: &'t Table,
    query: &'p Query,
    reply: Reply<'p>,
    client: IpAddr,
    now: Wall,
    rcode: Rcode,
    /// Why, where a code alone would leave people guessing.
    why: Option<Ede>,
    authoritative: bool,
    zone: Option<u32>,
    steered: Option<(SteerId, Choice)>,
    reason: Option<(Reason, Nearness)>,
    /// Whether signatures are wanted, and then whether the client has shown its address.
    dnssec: Option<bool>,
    /// What signs the answer.
    cover: Option<Cover<'t>>,
    /// The name that was reached: where it stands in the message, and its node.
    place: (usize, Option<&'t Node>),
}

impl<'t> Work<'t, '_> {
    /// Looks up the name that the first `length` octets of `name` hold, in lower case, and writes what there is; follows
    /// CNAMEs inside the zone.
    fn resolve(&mut self, name: &mut [u8; name::MAX], mut length: usize) -> Result<(), Full> {
        let question = length;
        // Where the name that is looked for stands in the message: the question, then a CNAME's data.
        let mut owner = HEADER;
        let mut passed = [(0u16, 0u16); MAX_CHAIN];
        for step in 0..=MAX_CHAIN {
            let found = self.table.find(name.get(..length).unwrap_or_default());
            let Some(speaker) = self.speaker(found) else { return Ok(()) };
            self.place = (owner, None);
            let (node, redirected) = match found {
                Found::Cut(node, referral) if self.query.rtype == rtype::DS && referral.depth == length => (node, None),
                Found::Cut(node, referral) => return self.refer((node, referral), speaker, length, owner),
                Found::Redirect(node, depth) => (node, Some(depth)),
                Found::Node(node) => (node, None),
                Found::Missing(_) | Found::Outside => {
                    self.authoritative = true;
                    // RFC 6604 section 2: the code is that of the last name in the chain.
                    self.rcode = self.missing();
                    return self.close(speaker, question);
                }
            };
            self.authoritative = true;
            self.place.1 = Some(node);
            let alias = match redirected {
                Some(_) => None,
                None => match self.cname(node) {
                    None => return self.data(node, speaker, owner, question),
                    alias => alias,
                },
            };
            // A name that stands here for the second time is a ring: the resolver has seen all of it.
            let wanted = name.get(..length).unwrap_or_default();
            let before = passed.iter().take(step).map(|&(at, n)| self.reply.written(at.into(), n.into()));
            let seen = before.into_iter().any(|name| name.eq_ignore_ascii_case(wanted));
            let Some(place) = passed.get_mut(step).filter(|_| !seen) else { return Ok(()) };
            *place = (owner as u16, length as u16);
            let data = match (alias, redirected) {
                (Some(set), _) => {
                    let data = self.reply.at() + 12;
                    self.reply.put_owned(Section::Answer, set.records, set.octets, owner)?;
                    Some(data)
                }
                (None, depth) => self.redirect(node, length.saturating_sub(depth.unwrap_or(length)), owner)?,
            };
            let Some(data) = data else { return Ok(()) };
            let target = self.reply.written(data, name::MAX);
            let Some(room) = name.get_mut(..target.len()) else { return Ok(()) };
            room.copy_from_slice(target);
            room.make_ascii_lowercase();
            (length, owner) = (target.len(), data);
        }
        Ok(())
    }

    /// The zone that speaks of what was found. `None` where no more is to be said: it lies outside of our zones, or a chain
    /// leaves the zone, which is the resolver's to follow.
    fn speaker(&mut self, found: Found<'t>) -> Option<u32> {
        let speaker = match found {
            Found::Node(node) | Found::Cut(node, _) => node.zone_for(self.query.rtype),
            Found::Redirect(node, _) => node.zone_for(0),
            Found::Missing(zone) => zone,
            Found::Outside => {
                if self.zone.is_none() {
                    (self.rcode, self.why) = (Rcode::Refused, Some(Ede::NOT_AUTHORITATIVE));
                }
                return None;
            }
        };
        if self.zone.is_none() {
            self.secure(speaker);
            self.zone = Some(speaker);
        }
        (self.zone == Some(speaker)).then_some(speaker)
    }

    /// Ends the message: with `opt` completed, and without records where they did not fit.
    fn finish(mut self, truncated: bool, mut opt: Option<&mut Opt<'_>>, standing: Standing) -> Outcome {
        let truncated = truncated && !self.failed();
        if truncated {
            // RFC 2181 section 9: what does not fit is not sent in part.
            self.reply.clear();
        }
        // Only an answer that was chosen for the client's network is its alone (RFC 7871 section 7.4).
        let chosen = self.steered.filter(|_| !truncated && self.rcode == Rcode::NoError);
        if let Some(opt) = &mut opt {
            opt.error = self.why;
            if let (Some((subnet, scope)), Some((_, choice))) = (&mut opt.subnet, &chosen)
                && subnet.source() > 0
            {
                *scope = choice.scope;
            }
        }
        let at = self.reply.at();
        Outcome::Send(Sent {
            length: self.reply.finish(self.rcode, self.authoritative, truncated, opt.as_deref()),
            rcode: self.rcode,
            truncated,
            rtype: self.query.rtype,
            question_end: self.query.question_end,
            opt: at,
            standing,
            zone: self.zone,
            steered: chosen.filter(|(_, choice)| !choice.picks().is_empty()),
            reason: self.reason,
            signatures: self.cover.map(|c| c.signatures).unwrap_or_default(),
        })
    }

    /// Follows the DNAME of `node` (RFC 6672 section 3.1) for the name at offset `owner`, which has `prefix` octets in front
    /// of the DNAME's: puts the DNAME, and a CNAME made from it. Gives where that one's data stands; `None` where the
    /// answer ends here.
    fn redirect(&mut self, node: &Node, prefix: usize, owner: usize) -> Result<Option<usize>, Full> {
        let fixed = &self.table.fixed;
        let Some(set) = fixed.set(node, rtype::DNAME) else { return Ok(None) };
        let octets = set.octets;
        self.reply.put_owned(Section::Answer, set.records, octets, owner + prefix)?;
        let (Some(head), Some(target)) = (octets.first_chunk::<12>(), octets.get(12..)) else { return Ok(None) };
        if prefix + target.len() > name::MAX {
            self.rcode = Rcode::YxDomain;
            return Ok(None);
        }
        let mut cname = *head;
        [cname[2], cname[3]] = rtype::CNAME.to_be_bytes();
        [cname[10], cname[11]] = ((prefix + target.len()) as u16).to_be_bytes();
        self.reply.put_owned(Section::Answer, 1, &cname, owner)?;
        let data = self.reply.at();
        // The labels in front stand in the message already, in the case in which they were asked for.
        self.reply.again(owner, prefix)?;
        self.reply.raw(target)?;
        // Whoever asks for the CNAME has it.
        Ok((!matches!(self.query.rtype, rtype::CNAME | rtype::ANY)).then_some(data))
    }

    /// The CNAME set of `node`, where it stands in the way of what is asked for.
    fn cname(&self, node: &Node) -> Option<Set<'t>> {
        let asked = matches!(self.query.rtype, rtype::CNAME | rtype::ANY);
        if asked { None } else { self.table.fixed.set(node, rtype::CNAME) }
    }

    fn data(&mut self, node: &Node, zone: u32, owner: usize, question: usize) -> Result<(), Full> {
        let wanted = if self.query.rtype == rtype::IXFR { rtype::SOA } else { self.query.rtype };
        let fixed = &self.table.fixed;
        if self.keys(node, zone, owner)? {
            return Ok(());
        }
        if let Some((id, steered)) = self.table.steered(node).filter(|(_, s)| s.has(wanted)) {
            return self.steer(id, steered, zone, owner, question);
        }
        if let Some(set) = fixed.set(node, wanted) {
            return self.reply.put_owned(Section::Answer, set.records, set.octets, owner);
        }
        if let (rtype::A | rtype::AAAA, Some(target)) = (wanted, fixed.alias(node)) {
            return self.addresses(target, zone, owner, question);
        }
        // RRSIG belongs to other sets and is no answer alone: it gets what ANY gets.
        let any = wanted == rtype::ANY || wanted == rtype::RRSIG && self.cover.is_some();
        let any = any && (fixed.sets(node).next().is_some() || self.table.steered(node).is_some());
        match fixed.set(node, rtype::CNAME).filter(|_| any) {
            Some(set) => self.reply.put_owned(Section::Answer, set.records, set.octets, owner),
            None if any => self.reply.put_owned(Section::Answer, 1, &MINIMAL_ANY, owner),
            None => self.close(zone, question),
        }
    }

    /// Answers with what is known of the target of an ALIAS.
    fn addresses(&mut self, target: &Target, zone: u32, owner: usize, question: usize) -> Result<(), Full> {
        let known = target.look();
        let Some(family) = known.as_deref().and_then(|k| k.family(self.query.rtype)) else {
            // Not "no data": nobody should keep what we only do not know.
            (self.rcode, self.authoritative) = (Rcode::ServFail, false);
            self.why = Some(if target.has_failed() { Ede::NO_REACHABLE_AUTHORITY } else { Ede::NOT_READY });
            return Ok(());
        };
        if known.as_deref().is_some_and(|k| k.stale) {
            self.why = Some(Ede::STALE);
        }
        match family.count {
            0 => self.close(zone, question),
            count => self.reply.put_owned(Section::Answer, count, &family.octets, owner),
        }
    }

    fn steer(&mut self, id: SteerId, steered: &Steered, zone: u32, owner: usize, question: usize) -> Result<(), Full> {
        let client = Client::new(self.client, self.table.fixed.client_prefix);
        let Some(choice) = steered.choose(&client) else { return self.close(zone, question) };
        self.reason = Some((choice.reason, choice.nearness));
        if steered.frozen {
            self.why = Some(Ede::STALE);
        }
        if let Reason::Servfail | Reason::Refused | Reason::Nodata = choice.reason {
            self.why = Some(Ede::other("no datacenter can serve this client now"));
        }
        if let Reason::Servfail | Reason::Refused = choice.reason {
            self.rcode = if choice.reason == Reason::Refused { Rcode::Refused } else { Rcode::ServFail };
            self.authoritative = false;
            return Ok(());
        }
        // What leads here is signed first, so that what was chosen may be taken back alone.
        self.seal(Section::Answer)?;
        let before = self.reply.mark();
        if !steered.put(&mut self.reply, owner, self.query.rtype, &choice)? {
            return self.close(zone, question);
        }
        let choice = self.seal_choice(steered, (&client, choice), owner, before)?;
        self.steered = Some((id, choice));
        Ok(())
    }

    /// Ends an answer without data: the SOA says for how long there is none (RFC 2308).
    fn close(&mut self, zone: u32, question: usize) -> Result<(), Full> {
        if self.nsec(zone)? {
            return Ok(());
        }
        self.seal(Section::Answer)?;
        let (apex, soa) = self.table.fixed.ends(zone);
        // The question lies in the zone, so its name ends with the apex.
        let owner = HEADER + question.saturating_sub(apex.len());
        self.reply.put_owned(Section::Authority, u16::from(!soa.is_empty()), soa, owner)?;
        self.deny(zone)
    }

    /// Refers to the servers of the zone beneath: NS, and the addresses that nobody else could give (RFC 9471).
    fn refer(
        &mut self,
        (node, referral): (&'t Node, &Referral),
        zone: u32,
        length: usize,
        owner: usize,
    ) -> Result<(), Full> {
        self.seal(Section::Answer)?;
        let start = self.reply.at();
        let owner = owner + length.saturating_sub(referral.depth);
        self.reply.put_owned(Section::Authority, referral.records, &referral.ns, owner)?;
        self.prove_cut(node, zone, owner)?;
        let (mut at, mut record) = (start, 0);
        for (ns, records, octets) in &referral.glue {
            while record < *ns {
                let Some(length) = self.reply.written(at + 10, 2).first_chunk::<2>() else { return Ok(()) };
                at += 12 + usize::from(u16::from_be_bytes(*length));
                record += 1;
            }
            self.reply.put_owned(Section::Additional, *records, octets, at + 12)?;
        }
        Ok(())
    }
}

mod secure;
#[cfg(test)]
mod tests;
