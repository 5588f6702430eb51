//! Compact denial of existence (RFC 9824): one NSEC record at the name that was asked for says which types it has.
//!
//! A name that does not exist gets one too, with the type NXNAME in its bitmap; so no answer discloses another name, and
//! one signature is the whole proof. The type that was just found empty is never in the bitmap: a steered name may have no
//! address of one family today and have one tomorrow.

use smallvec::SmallVec;

use super::super::steered::Steered;
use super::super::table::{Fixed, Node};
use crate::base::clock::Wall;
use crate::wire::dns::{Full, IN, Reply, Section, pointer, rtype};
use crate::wire::dnssec::{bitmap, successor};
use crate::wire::name;

/// Types of one name, in ascending order.
pub(in crate::dns) type Types = SmallVec<[u16; 24]>;

/// The types of a name that does not exist (RFC 9824 section 3.1).
pub(in crate::dns) const MISSING: [u16; 3] = [rtype::RRSIG, rtype::NSEC, rtype::NXNAME];

/// The types that `node` has in `zone` at `now`; `lacking`, which was asked for, is not there.
pub(in crate::dns) fn types(
    fixed: &Fixed,
    node: &Node,
    steered: Option<&Steered>,
    zone: u32,
    lacking: u16,
    now: Wall,
) -> Types {
    let mut types = Types::from_slice(&[rtype::RRSIG, rtype::NSEC]);
    let above = node.is_apex_seen_from(zone);
    if above || node.is_cut() {
        // RFC 4035 section 2.3: above a cut only NS and DS are spoken of.
        types.push(rtype::NS);
        types.extend(fixed.set(node, rtype::DS).map(|_| rtype::DS));
    } else {
        types.extend(fixed.sets(node).map(|s| s.rtype).filter(|t| *t != rtype::DS || !node.has_parent_here()));
        let made = [rtype::A, rtype::AAAA, rtype::HTTPS];
        types.extend(made.into_iter().filter(|t| steered.is_some_and(|s| s.has(*t))));
        if fixed.alias(node).is_some() {
            types.extend([rtype::A, rtype::AAAA]);
        }
        if fixed.is_apex(node, zone) {
            let keys = [rtype::DNSKEY, rtype::CDS, rtype::CDNSKEY];
            types.extend(keys.into_iter().filter(|t| fixed.signing.apex_set(zone, *t, now).is_some()));
        }
    }
    // The record itself is signed: that signature is there, whatever else is not.
    types.retain(|t| *t != lacking || *t == rtype::RRSIG);
    types.sort_unstable();
    types.dedup();
    types
}

/// Appends to `section` the NSEC record of the name at offset `owner`, which lies in the zone at `apex`, with these types.
pub(in crate::dns) fn put(
    reply: &mut Reply<'_>,
    section: Section,
    owner: usize,
    types: &[u16],
    (apex, ttl): (&[u8], u32),
) -> Result<(), Full> {
    let mut room = [0; name::MAX];
    let lower = reply.name(owner, &mut room).ok_or(Full)?;
    let mut next = [0; name::MAX];
    let next_length = successor::write(lower, &mut next).unwrap_or_default();
    let next = next.get(..next_length).unwrap_or_default();
    // RFC 4034 section 4.1.1: behind the last name of a zone comes its first.
    let next = if next_length == lower.len() + 2 || name::is_within(next, apex) { next } else { apex };
    let [p0, p1] = pointer(owner).ok_or(Full)?;
    let ([t0, t1], [c0, c1]) = (rtype::NSEC.to_be_bytes(), IN.to_be_bytes());
    let [l0, l1, l2, l3] = ttl.to_be_bytes();
    reply.put(section, 1, &[p0, p1, t0, t1, c0, c1, l0, l1, l2, l3, 0, 0])?;
    let data = reply.at();
    reply.raw(next)?;
    bitmap::write(types, |window| reply.raw(window))?;
    reply.patch(data - 2, (reply.at() - data) as u16);
    Ok(())
}

/// The TTL of a denial: that of the negative answer's SOA (RFC 9077 section 3.1), which stands in a record's head.
pub(in crate::dns) fn ttl(negative: &[u8]) -> u32 {
    negative.get(6..10).and_then(|t| t.first_chunk()).map_or(0, |t| u32::from_be_bytes(*t))
}
