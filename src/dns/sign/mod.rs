//! Live DNSSEC: every answer of a signed zone is signed as it is, static or steered, and what does not exist is denied.
//!
//! Signing stands behind the answer, not in it: whatever wrote record sets into a message, [`Cover`] walks over them, finds
//! the signature of each by a print of its content, and appends it. So a set is signed once for each answer set and TTL
//! step, and again by the first who asks after half its life; all others copy 64 octets from a cache of fixed memory
//! (`cache`). Signing on a miss costs some 20 us, so each zone has a budget a second of it, by who decides how many sets
//! there are: the configuration, clients' networks, or whoever makes up names. Beyond it a steered name gives what many
//! clients share (`Client::in_crowd`); else UDP clients are told to come by TCP, which forged addresses cannot, and TCP,
//! with a budget of its own, ends in SERVFAIL. An answer without its signature is never sent.
//!
//! Wildcards are signed at the name that was asked for, with all its labels (RFC 9824 section 3.3), so one signature is
//! the whole proof. Denial is in `denial`, keys and their times in `keys` and `timeline`, alarms in `watch`.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::Fixed;
use crate::base::clock::Wall;
use crate::config::{Dns, Signed};
use crate::snapshot::topology::Assets;
use crate::wire::dns::{Full, IN, QNAME, Reply, Section, pointer, rtype};
use crate::wire::dnssec::{RRSIG_HEAD, RrsigHead, SIGNATURE, labels};
use crate::wire::name;
use crate::wire::zone::WireName;

mod cache;
pub(super) mod denial;
pub mod keys;
pub mod roll;
mod signer;
mod timeline;
pub(super) mod watch;

use cache::{Cache, Print, Region, Signature};
use signer::{Epoch, SigningKey, ZoneSigner};
pub use signer::{ds_of, generate};
pub use timeline::Lapse;
pub use watch::report;

/// Answer sets of one steered name that the cache has room for, of those chosen for networks and of those chosen for crowds:
/// pairs of eleven datacenters, or three types at six TTLs of a handful of pairs.
const SETS_OF_A_STEER: usize = 64;

/// The signed zones of a table.
#[derive(Debug, Default)]
pub(super) struct Signing {
    /// By zone.
    zones: Vec<Option<ZoneSigner>>,
    cache: Option<Arc<Cache>>,
}

/// How many signatures an answer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Found.
    pub kept: u16,
    /// Made.
    pub made: u16,
    /// Refused: the budget was spent, or the library failed.
    pub refused: u16,
    /// Sets of a steered name that gave way to what many clients share, for the same reason.
    pub shared: u16,
}

/// Why a set has no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    /// It does not fit.
    Full,
    /// It may not be made now.
    Refused,
}

impl From<Full> for Bare {
    fn from(Full: Full) -> Self {
        Self::Full
    }
}

impl Signing {
    /// Makes the signers of the zones at `apexes`, with `size` sets in all. Takes over the signatures of `before`.
    pub(super) fn compile<'z>(
        dns: &Dns,
        assets: &Assets,
        apexes: impl Iterator<Item = &'z [u8]>,
        size: usize,
        before: Option<&Self>,
    ) -> Self {
        let signed = dns.zones.iter().filter_map(|zone| Some((zone, zone.dnssec.as_ref()?)));
        let rules: HashMap<WireName, &Signed> = signed
            .filter_map(|(zone, rules)| Some((name::lower(&name::parse(&zone.origin, None).ok()?), rules)))
            .collect();
        let signer = |apex: &[u8]| ZoneSigner::new(apex, rules.get(apex)?, assets.signing.get(apex)?);
        let zones: Vec<Option<ZoneSigner>> = apexes.map(signer).collect();
        let chosen = dns.steers.len().saturating_mul(SETS_OF_A_STEER);
        let known = size.saturating_add(chosen);
        let cache = zones.iter().any(Option::is_some).then(|| {
            let kept = before.and_then(|b| b.cache.as_ref()).filter(|c| c.fits(known, chosen));
            kept.map_or_else(|| Arc::new(Cache::new(known, chosen)), Arc::clone)
        });
        Self { zones, cache }
    }

    fn zone(&self, zone: u32) -> Option<&ZoneSigner> {
        self.zones.get(zone as usize)?.as_ref()
    }

    /// What signs answers of this zone at `now`; `None` where nothing does.
    pub(super) fn cover(&self, zone: u32, stream: bool, now: Wall) -> Option<Cover<'_>> {
        let (signer, cache, now) = (self.zone(zone)?, self.cache.as_ref()?, seconds(now));
        let epoch = signer.epoch(now)?;
        Some(Cover { signer, cache, epoch, now, stream, sealed: 0, lacking: false, signatures: Signatures::default() })
    }

    /// The records of this type that the zone has at its apex because it is signed: how many, and their octets.
    pub(super) fn apex_set(&self, zone: u32, wanted: u16, now: Wall) -> Option<(u16, &[u8])> {
        if !matches!(wanted, rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY) {
            return None;
        }
        self.zone(zone)?.epoch(seconds(now))?.set(wanted)
    }

    /// Every signed zone.
    fn signers(&self) -> impl Iterator<Item = &ZoneSigner> {
        self.zones.iter().flatten()
    }
}

/// As signatures count time: seconds since 1970, which end in 2106 (RFC 4034 section 3.1.5).
fn seconds(now: Wall) -> u32 {
    u32::try_from(now.0 / 1_000).unwrap_or(u32::MAX)
}

/// Signs one message of one zone.
pub(super) struct Cover<'t> {
    signer: &'t ZoneSigner,
    cache: &'t Cache,
    epoch: &'t Epoch,
    now: u32,
    /// Whether the client has shown its address.
    stream: bool,
    /// How far the message is signed; 0: nowhere.
    sealed: usize,
    /// A signature could not be given.
    lacking: bool,
    pub(super) signatures: Signatures,
}

impl Cover<'_> {
    /// Passes over what stands up to `at`: it is not to be signed.
    pub(super) const fn pass(&mut self, at: usize) {
        self.sealed = at;
    }

    /// Whether the client has shown its address.
    pub(super) const fn is_stream(&self) -> bool {
        self.stream
    }

    /// Whether a signature could not be given.
    pub(super) const fn is_lacking(&self) -> bool {
        self.lacking
    }

    /// Appends to `section`, which is the one being written, the signatures of every set in it that has none yet. What
    /// belongs to the configuration is what `fixed` knows.
    ///
    /// # Errors
    /// They do not fit, or may not be made.
    pub(super) fn seal(
        &mut self,
        reply: &mut Reply<'_>,
        section: Section,
        begin: usize,
        fixed: &Fixed,
    ) -> Result<(), Bare> {
        let sealed = self.walk(reply, section, begin, fixed, Region::Known);
        sealed.inspect_err(|why| self.lacking |= *why == Bare::Refused)
    }

    /// Appends the signatures of the set that was just written, one of those that are chosen for a client's network. False:
    /// it has none, and none may be made: another set has to take its place.
    ///
    /// # Errors
    /// They do not fit.
    pub(super) fn seal_choice(&mut self, reply: &mut Reply<'_>, begin: usize, fixed: &Fixed) -> Result<bool, Full> {
        let refused = self.signatures.refused;
        match self.walk(reply, Section::Answer, begin, fixed, Region::Chosen) {
            Ok(()) => Ok(true),
            Err(Bare::Full) => Err(Full),
            Err(Bare::Refused) => {
                self.signatures = Signatures { refused, shared: self.signatures.shared + 1, ..self.signatures };
                Ok(false)
            }
        }
    }

    /// Gives the answer up: what it should hold can't be signed.
    pub(super) const fn give_up(&mut self) {
        self.lacking = true;
    }

    /// Signs all that is not signed yet; sets of `configured` names stand in that region.
    fn walk(
        &mut self,
        reply: &mut Reply<'_>,
        section: Section,
        begin: usize,
        fixed: &Fixed,
        configured: Region,
    ) -> Result<(), Bare> {
        let (mut at, end) = (self.sealed.max(begin), reply.at());
        let mut beneath_dname = false;
        while at < end {
            let Some(head) = reply.written(at, 12).first_chunk::<12>().copied() else { return Err(Bare::Refused) };
            let mut next = at;
            while next < end
                && let Some(other) = reply.written(next, 12).first_chunk::<12>()
                && other[..4] == head[..4]
            {
                next += 12 + usize::from(u16::from_be_bytes([other[10], other[11]]));
            }
            let covered = u16::from_be_bytes([head[2], head[3]]);
            // RFC 6672 section 5.3.1: the CNAME that a DNAME makes is proved by the DNAME.
            let made = std::mem::replace(&mut beneath_dname, covered == rtype::DNAME) && covered == rtype::CNAME;
            if !made {
                self.sign(reply, section, &head, at..next.min(end), fixed, configured)?;
            }
            at = next;
        }
        self.sealed = reply.at();
        Ok(())
    }

    fn sign(
        &mut self,
        reply: &mut Reply<'_>,
        section: Section,
        head: &[u8; 12],
        set: std::ops::Range<usize>,
        fixed: &Fixed,
        configured: Region,
    ) -> Result<(), Bare> {
        // Owners are pointers to names that stand in full: the question's, or one in the data of a CNAME.
        let offset = usize::from(u16::from_be_bytes([head[0] & 0x3f, head[1]]));
        let mut room = [0; name::MAX];
        let owner = reply.name(offset, &mut room).filter(|_| head[0] >= 0xc0).ok_or(Bare::Refused)?;
        let covered = u16::from_be_bytes([head[2], head[3]]);
        let octets = reply.written(set.start, set.len());
        let print = print(self.cache, owner, head, octets);
        let region = if fixed.knows(owner) { configured } else { Region::Open };
        let shape = RrsigHead {
            covered,
            algorithm: 0,
            labels: labels(owner),
            ttl: u32::from_be_bytes([head[6], head[7], head[8], head[9]]),
            expiration: 0,
            inception: 0,
            tag: 0,
        };
        let of_keys = matches!(covered, rtype::DNSKEY | rtype::CDS | rtype::CDNSKEY);
        let epoch = self.epoch;
        let who = if of_keys { &epoch.moment.entries } else { &epoch.moment.signers };
        let signer = self.signer;
        for key in who.iter().filter_map(|i| signer.keys.get(*i)) {
            let print = print.with(&key.public);
            let (signature, made) = match self.fresh(region, print) {
                Some(signature) => (signature, false),
                None => self.make(key, shape, owner, reply.written(set.start, set.len()), region, print)?,
            };
            self.signatures.made += u16::from(made);
            self.signatures.kept += u16::from(!made);
            let head = RrsigHead {
                algorithm: key.algorithm.number(),
                expiration: signature.expiration,
                inception: signature.inception,
                tag: key.tag,
                ..shape
            };
            self.put(reply, section, offset, &head, &signature)?;
        }
        Ok(())
    }

    /// The kept signature, if it needs not be made anew.
    fn fresh(&self, region: Region, print: Print) -> Option<Signature> {
        self.cache.find(region, print).filter(|found| {
            let rules = &self.signer.rules;
            let validity = rules.validity.as_secs() as u32;
            let refresh = (rules.refresh * f64::from(validity)) as u32;
            // Up to an eighth earlier, each at a time of its own, so that what was made together is not remade together.
            let due = refresh - refresh / 8 / 256 * print.byte();
            let age = self.now.checked_sub(found.inception.saturating_add(rules.backdate.as_secs() as u32));
            self.good(found) && age.is_some_and(|age| age < due)
        })
    }

    const fn good(&self, signature: &Signature) -> bool {
        signature.inception <= self.now && self.now < signature.expiration
    }

    /// Makes a signature, or where it may not be made, finds one that still holds.
    fn make(
        &mut self,
        key: &SigningKey,
        shape: RrsigHead,
        owner: &[u8],
        records: &[u8],
        region: Region,
        print: Print,
    ) -> Result<(Signature, bool), Bare> {
        let rules = &self.signer.rules;
        let inception = self.now.saturating_sub(rules.backdate.as_secs() as u32);
        let expiration = self.now.saturating_add(rules.validity.as_secs() as u32);
        let limit = if region == Region::Known { rules.known_per_second } else { rules.open_per_second };
        let may = self.signer.budget.take(region, self.stream, self.now, limit);
        let head = RrsigHead { algorithm: key.algorithm.number(), expiration, inception, tag: key.tag, ..shape };
        let made = if may { key.sign(&head, &self.signer.apex, owner, records) } else { None };
        if let Some(octets) = made {
            let signature = Signature { inception, expiration, octets };
            self.cache.keep(region, print, &signature);
            return Ok((signature, true));
        }
        self.signatures.refused += 1;
        let old = self.cache.find(region, print).filter(|found| self.good(found));
        old.map(|signature| (signature, false)).ok_or(Bare::Refused)
    }

    fn put(
        &self,
        reply: &mut Reply<'_>,
        section: Section,
        owner: usize,
        head: &RrsigHead,
        signature: &Signature,
    ) -> Result<(), Bare> {
        let apex = &*self.signer.apex;
        let [p0, p1] = pointer(owner).unwrap_or(QNAME);
        let ([t0, t1], [c0, c1]) = (rtype::RRSIG.to_be_bytes(), IN.to_be_bytes());
        let [l0, l1, l2, l3] = head.ttl.to_be_bytes();
        let [n0, n1] = ((RRSIG_HEAD + apex.len() + SIGNATURE) as u16).to_be_bytes();
        reply.put(section, 1, &[p0, p1, t0, t1, c0, c1, l0, l1, l2, l3, n0, n1])?;
        reply.raw(&head.octets())?;
        reply.raw(apex)?;
        reply.raw(&signature.octets)?;
        Ok(())
    }
}

/// The print of one set: of its records in any order, for a steered answer's order is its client's.
fn print(cache: &Cache, owner: &[u8], head: &[u8; 12], mut records: &[u8]) -> Print {
    let empty = cache.print();
    let mut datas = empty;
    while let Some((fixed, tail)) = records.split_first_chunk::<12>() {
        let length = usize::from(u16::from_be_bytes([fixed[10], fixed[11]]));
        let (data, after) = tail.split_at_checked(length).unwrap_or((tail, &[]));
        datas = datas.plus(empty.with(data));
        records = after;
    }
    // Type, class and TTL stand together.
    datas.with(owner).with(&head[2..10])
}

#[cfg(test)]
mod tests;
