//! Zones on their way to secondaries: AXFR (RFC 5936) and IXFR (RFC 1995) as many messages, signed where a key is asked for.
//!
//! Judges who may take a zone, then gives one finished message after the other; whoever has the stream writes them. Holds
//! the version that it began with until its end, whatever is published meanwhile. Does no IO and reads no clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use super::alias;
use super::answer::flawed;
use super::table::Table;
use crate::base::clock::Wall;
use crate::snapshot::Snapshot;
use crate::wire::dns::{Ede, HEADER, IN, MAX_TCP, Opt, Query, Rcode, Record, Reply, rtype};
use crate::wire::name;
use crate::wire::tsig::{self, Bad, Key, Signer, Tsig};
use crate::wire::zone::{Change, Entry, Outgoing, RrSet, WireName, is_later, serial};

pub(super) mod keys;
mod message;
pub(super) mod outgoing;
mod send;

use message::Message;
pub(super) use send::{Gate, send};

/// Octets that a message is filled to: what one TLS record carries. A record that is longer by itself gets a longer one.
const FILL: usize = 15 * 1_024;

/// Whether `query` asks for a transfer over a stream: a query as such (RFC 5936 section 2.1), no answer and no notice.
pub fn is_asked(query: &[u8]) -> bool {
    // This is asked of everything that comes in a stream, so it looks at no more than it must.
    let is_query = query.get(2).is_some_and(|flags| flags & 0xf8 == 0);
    let wanted = || query.get(name::skip(query, HEADER)?..)?.first_chunk::<2>();
    is_query && matches!(wanted(), Some([0, 251 | 252]))
}

/// What a query for a transfer gets.
#[derive(Debug)]
pub enum Begun {
    /// This one message.
    Answer(Vec<u8>, Rcode),
    /// As many messages as it takes.
    Transfer(Box<Transfer>),
}

/// Judges `query`, for which [`is_asked`] holds.
pub fn begin(snapshot: &Snapshot, query: &[u8], client: IpAddr, now: Wall) -> Begun {
    let mut packet = query.to_vec();
    let Ok(asked) = Query::parse(query) else {
        let length = crate::wire::dns::refuse(&mut packet, Rcode::FormErr);
        packet.truncate(length);
        return Begun::Answer(packet, Rcode::FormErr);
    };
    let assets = &snapshot.topology.assets;
    let seconds = now.0 / 1_000;
    let signed = asked.signature.map(|start| verify(query, start, &assets.keys, seconds)).transpose();
    let (key, signer) = match signed {
        Ok(signed) => signed.unzip(),
        Err(fault) => {
            packet.resize(MAX_TCP, 0);
            let (length, rcode) = fault.answer(&mut packet, MAX_TCP, &asked, seconds);
            packet.truncate(length);
            return Begun::Answer(packet, rcode);
        }
    };
    if let Some((rcode, why)) = asked.edns.as_ref().and_then(flawed) {
        return refuse(packet, &asked, signer, seconds, rcode, why);
    }
    match judge(snapshot, query, &asked, client, key) {
        Ok(outgoing) => {
            let aliases = if outgoing.aliases.is_empty() { Some(BTreeMap::new()) } else { expand(snapshot, outgoing) };
            let Some(aliases) = aliases else {
                return refuse(packet, &asked, signer, seconds, Rcode::ServFail, None);
            };
            let wanted = if asked.rtype == rtype::IXFR { old_serial(query, &asked) } else { None };
            Begun::Transfer(Box::new(Transfer::new(query, &asked, Arc::clone(outgoing), aliases, wanted, signer)))
        }
        Err(rcode) => refuse(packet, &asked, signer, seconds, rcode, None),
    }
}

/// The zone that is asked for, where `client` may take it.
fn judge<'s>(
    snapshot: &'s Snapshot,
    query: &[u8],
    asked: &Query,
    client: IpAddr,
    key: Option<&Key>,
) -> Result<&'s Arc<Outgoing>, Rcode> {
    let mut room = [0; name::MAX];
    let length = asked.lower(query, &mut room);
    let apex = room.get(..length).unwrap_or_default();
    let (config, assets) = (&snapshot.topology.config, &snapshot.topology.assets);
    if asked.class != IN {
        return Err(Rcode::Refused);
    }
    let at = assets.zones.iter().position(|z| *z.origin == *apex).ok_or(Rcode::NotAuth)?;
    let dns = config.dns.as_ref().ok_or(Rcode::Refused)?;
    let rule = dns.zones.get(at).and_then(|z| z.transfer.as_ref()).ok_or(Rcode::Refused)?;
    let here = rule.allow.is_empty() || rule.allow.iter().any(|net| net.contains(&client.to_canonical()));
    let wanted = rule.key.map(|i| assets.keys.get(i).map(|k| k.name()));
    let signed = match wanted {
        None => !rule.allow.is_empty(),
        Some(name) => name.is_some() && name == key.map(Key::name),
    };
    let outgoing = assets.outgoing.get(at).and_then(Option::as_ref).ok_or(Rcode::Refused)?;
    if here && signed { Ok(outgoing) } else { Err(Rcode::Refused) }
}

/// The serial that the client has: its SOA stands in the authority section (RFC 1995 section 3).
fn old_serial(query: &[u8], asked: &Query) -> Option<u32> {
    let authority = u16::from_be_bytes(*query.get(8..10)?.first_chunk()?);
    // The owner is the question's name, spelled out or pointed to.
    let soa = Record::read(query, asked.question_end).filter(|r| authority == 1 && r.rtype == rtype::SOA)?;
    serial(soa.data)
}

/// What stands for the zone's ALIAS names now; `None` while that is not known: a secondary comes again.
fn expand(snapshot: &Snapshot, outgoing: &Outgoing) -> Option<BTreeMap<WireName, Vec<RrSet>>> {
    let table = Table::of(snapshot)?;
    let one = |owner: &WireName| {
        let mut sets = table.alias_sets(owner)?;
        let said = outgoing.zone.names.get(owner).map(Vec::as_slice).unwrap_or_default();
        let https = said.iter().find_map(alias::https).filter(|h| said.iter().all(|s| s.rtype != h.rtype));
        sets.extend(https);
        Some((owner.clone(), sets))
    };
    outgoing.aliases.iter().map(one).collect()
}

/// A signature that is not accepted: why, itself where it can be read, and the key where one fits.
pub(super) struct Unverified<'q, 'k> {
    bad: Bad,
    tsig: Option<Tsig<'q>>,
    key: Option<&'k Key>,
}

/// Verifies the signature of `query` that begins at `start`; gives its key, and what signs the answer.
pub(super) fn verify<'q, 'k>(
    query: &'q [u8],
    start: usize,
    keys: &'k [Arc<Key>],
    now: u64,
) -> Result<(&'k Key, Signer), Unverified<'q, 'k>> {
    let tsig = Tsig::read(query, start).ok_or(Unverified { bad: Bad::Form, tsig: None, key: None })?;
    let key = tsig.key(keys).ok_or(Unverified { bad: Bad::Key, tsig: Some(tsig), key: None })?;
    match tsig.verify(query, key, &[], now) {
        Ok(()) => Ok((key, Signer::answering(&tsig, key))),
        Err(bad) => Err(Unverified { bad, tsig: Some(tsig), key: Some(key) }),
    }
}

impl Unverified<'_, '_> {
    /// Writes the whole answer into `packet`, which begins with `query` (RFC 8945 section 5.3.2): without a signature, but
    /// where key and signature fit, and only its time or its length is wrong. Gives its length, and how it ends.
    pub(super) fn answer(&self, packet: &mut [u8], limit: usize, query: &Query, now: u64) -> (usize, Rcode) {
        let rcode = if self.bad == Bad::Form { Rcode::FormErr } else { Rcode::NotAuth };
        let length = end(packet, limit, query, rcode, None);
        let told = match (self.bad, self.tsig, self.key) {
            (Bad::Form, ..) | (_, None, _) => None,
            (bad @ (Bad::Time | Bad::Trunc), Some(tsig), Some(key)) => {
                Signer::answering(&tsig, key).sign(packet, length, now, Some((bad, tsig.time())))
            }
            (bad, Some(tsig), _) => tsig::refuse(packet, length, &tsig, bad),
        };
        (told.unwrap_or(length), rcode)
    }
}

/// Writes an answer that says nothing but `rcode`, and why.
fn end(packet: &mut [u8], limit: usize, query: &Query, rcode: Rcode, why: Option<Ede>) -> usize {
    let opt = query.edns.as_ref().map(|edns| Opt { error: why, ..edns.plain() });
    Reply::begin(packet, query, limit, 0).finish(rcode, false, false, opt.as_ref())
}

fn refuse(
    mut packet: Vec<u8>,
    asked: &Query,
    signer: Option<Signer>,
    now: u64,
    rcode: Rcode,
    why: Option<Ede>,
) -> Begun {
    packet.resize(MAX_TCP, 0);
    let length = end(&mut packet, MAX_TCP, asked, rcode, why);
    let signed = signer.and_then(|mut signer| signer.sign(&mut packet, length, now, None));
    packet.truncate(signed.unwrap_or(length));
    Begun::Answer(packet, rcode)
}

/// A transfer under way.
#[derive(Debug)]
pub struct Transfer {
    head: Vec<u8>,
    edns: bool,
    outgoing: Arc<Outgoing>,
    aliases: BTreeMap<WireName, Vec<RrSet>>,
    signer: Option<Signer>,
    /// What is left to be sent, in order.
    parts: std::vec::IntoIter<Part>,
    part: Option<Part>,
    /// Records sent.
    pub records: u64,
    /// What it is, for the log.
    pub kind: &'static str,
}

/// A run of records.
#[derive(Clone, Debug)]
enum Part {
    One(Entry),
    /// Those of a map behind this name, and how many of the next name have been sent.
    Map(Map, Option<WireName>, usize),
    /// Those that a change removed, or added, from this one on.
    Removed(Arc<Change>, usize),
    Added(Arc<Change>, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    Zone,
    Steered,
    Aliases,
}

impl Transfer {
    fn new(
        query: &[u8],
        asked: &Query,
        outgoing: Arc<Outgoing>,
        aliases: BTreeMap<WireName, Vec<RrSet>>,
        old: Option<u32>,
        signer: Option<Signer>,
    ) -> Self {
        let soa = outgoing.zone.soa().unwrap_or_default();
        let (kind, parts) = plan(&outgoing, &soa, old);
        let mut head = query.get(..asked.question_end).unwrap_or_default().to_vec();
        message::answer_head(&mut head);
        let parts = parts.into_iter();
        Self { head, edns: asked.edns.is_some(), outgoing, aliases, signer, parts, part: None, records: 0, kind }
    }

    /// Whether all of it has been given.
    pub fn is_done(&self) -> bool {
        self.part.is_none() && self.parts.len() == 0
    }

    /// The apex of the zone, for the log.
    pub(super) fn origin(&self) -> &str {
        &self.outgoing.zone.origin_text
    }

    /// Appends the next message, with its length before it, at `now`; false where there is none left, or where what is left
    /// cannot be said in a message.
    pub fn next(&mut self, out: &mut Vec<u8>, now: Wall) -> bool {
        let reserved = self.signer.as_ref().map_or(0, Signer::octets);
        let mut message =
            Message::begin(&self.head, self.outgoing.zone.origin.len(), self.edns, FILL, MAX_TCP - reserved);
        while let Some(mut part) = self.part.take().or_else(|| self.parts.next()) {
            if !fill(&mut part, &mut message, &self.outgoing, &self.aliases) {
                self.part = Some(part);
                break;
            }
        }
        if message.records() == 0 {
            return false;
        }
        self.records += u64::from(message.records());
        let mut packet = message.finish();
        let length = packet.len();
        if let Some(signer) = &mut self.signer {
            packet.resize(length + reserved, 0);
            let Some(length) = signer.sign(&mut packet, length, now.0 / 1_000, None) else { return false };
            packet.truncate(length);
        }
        out.extend((packet.len() as u16).to_be_bytes());
        out.append(&mut packet);
        true
    }
}

/// What is sent: the SOA alone where the client has the latest, the changes since its version where they are known, all of
/// the zone else (RFC 1995 section 4).
fn plan(outgoing: &Arc<Outgoing>, soa: &Entry, old: Option<u32>) -> (&'static str, Vec<Part>) {
    let whole = || {
        let maps = [Map::Zone, Map::Steered, Map::Aliases].map(|map| Part::Map(map, None, 0));
        let ends = || std::iter::once(Part::One(soa.clone()));
        ("whole", ends().chain(maps).chain(ends()).collect())
    };
    let (Some(old), Some(new)) = (old, soa.serial()) else { return whole() };
    if !is_later(new, old) {
        return ("unchanged", vec![Part::One(soa.clone())]);
    }
    let first = outgoing.history.iter().position(|c| c.from.serial() == Some(old));
    // What an ALIAS stands for moves without a serial: no change tells of it.
    let Some(first) = first.filter(|_| outgoing.aliases.is_empty()) else { return whole() };
    let mut parts = vec![Part::One(soa.clone())];
    for change in outgoing.history.iter().skip(first) {
        parts.push(Part::One(change.from.clone()));
        parts.push(Part::Removed(Arc::clone(change), 0));
        parts.push(Part::One(change.to.clone()));
        parts.push(Part::Added(Arc::clone(change), 0));
    }
    parts.push(Part::One(soa.clone()));
    ("changes", parts)
}

/// Puts what fits of `part`; true where that is all of it.
fn fill(part: &mut Part, message: &mut Message, outgoing: &Outgoing, aliases: &BTreeMap<WireName, Vec<RrSet>>) -> bool {
    match part {
        Part::One(entry) => message.put(&entry.owner, entry.rtype, entry.ttl, &entry.rdata),
        Part::Removed(change, at) => fill_entries(&change.removed, at, message),
        Part::Added(change, at) => fill_entries(&change.added, at, message),
        Part::Map(map, after, skip) => {
            let names = match map {
                Map::Zone => &outgoing.zone.names,
                Map::Steered => &outgoing.steered,
                Map::Aliases => aliases,
            };
            fill_names(names, after, skip, message)
        }
    }
}

fn fill_entries(entries: &[Entry], at: &mut usize, message: &mut Message) -> bool {
    for entry in entries.iter().skip(*at) {
        if !message.put(&entry.owner, entry.rtype, entry.ttl, &entry.rdata) {
            return false;
        }
        *at += 1;
    }
    true
}

fn fill_names(
    names: &BTreeMap<WireName, Vec<RrSet>>,
    after: &mut Option<WireName>,
    skip: &mut usize,
    message: &mut Message,
) -> bool {
    let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut done = None;
    for (owner, sets) in names.range::<[u8], _>((from, Bound::Unbounded)) {
        // The SOA begins and ends a transfer; an ALIAS has become addresses.
        let sets = sets.iter().filter(|s| !matches!(s.rtype, rtype::SOA | rtype::ALIAS));
        let records = sets.flat_map(|set| set.rdatas.iter().map(move |rdata| (set, rdata)));
        for (set, rdata) in records.skip(*skip) {
            if !message.put(owner, set.rtype, set.ttl, rdata) {
                if let Some(done) = done {
                    *after = Some(WireName::clone(done));
                }
                return false;
            }
            *skip += 1;
        }
        (done, *skip) = (Some(owner), 0);
    }
    true
}

#[cfg(test)]
mod tests;
