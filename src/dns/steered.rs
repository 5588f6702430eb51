//! One steered name in one generation: the plan, and finished octets for every candidate.
//!
//! A, AAAA and HTTPS come from one choice: whoever asks for all three gets addresses of the same datacenters, and the hints
//! of the HTTPS record (RFC 9460 section 7.3) are those addresses.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use super::sets::record;
use crate::base::ids::{DatacenterId, SteerId};
use crate::config::OnAllDown;
use crate::decide::near::Near;
use crate::decide::steer::{Choice, Client, Fences, Plan, Reason};
use crate::snapshot::Snapshot;
use crate::wire::dns::{Full, IN, QNAME, Reply, Section, rtype};
use crate::wire::svcb;

/// TTL of the addresses of last resort, in seconds: the soonest that a resolver should come again (GSLB 3.7).
const LAST_RESORT_TTL: u32 = 5;

/// A steered name, compiled.
#[derive(Debug, Default)]
pub(super) struct Steered {
    plan: Option<Plan>,
    /// By candidate; names with the same datacenters share them, which keeps a thousand names in a processor's cache.
    sites: Arc<[Site]>,
    last_resort: Site,
    /// The `alpn` parameter; empty: no HTTPS record.
    alpn: Vec<u8>,
    pub(super) ttl: u32,
    /// Health is as it was seen last: this node believes that it is cut off, and judges nobody.
    pub(super) frozen: bool,
}

/// Sites by whose they are and by their TTL, while a table is compiled.
pub(super) type Sites = HashMap<(Vec<DatacenterId>, u32), Arc<[Site]>>;

/// The octets of one candidate's addresses.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// A and AAAA: how many records, and the records, owned by the question.
    records: [(u16, Vec<u8>); 2],
    /// The same addresses as hints.
    hints: [Vec<u8>; 2],
}

impl Site {
    fn new(addresses: &[IpAddr], ttl: u32) -> Self {
        let mut site = Self::default();
        for address in addresses {
            let (family, rtype, octets) = match address {
                IpAddr::V4(a) => (0, rtype::A, a.octets().to_vec()),
                IpAddr::V6(a) => (1, rtype::AAAA, a.octets().to_vec()),
            };
            let (count, records) = &mut site.records[family];
            record(rtype, ttl, &octets, records);
            *count += 1;
            site.hints[family].extend(octets);
        }
        site
    }
}

impl Steered {
    /// Compiles the steered name `id`, with the `sites` that names before it have, too.
    pub(super) fn compile(
        snapshot: &Snapshot,
        id: SteerId,
        near: &Arc<Near>,
        fences: Option<&Arc<Fences>>,
        sites: &mut Sites,
    ) -> Self {
        let config = &snapshot.topology.config;
        let Some(steer) = config.dns.as_ref().and_then(|d| d.steers.get(id.index())) else { return Self::default() };
        let floor = steer.ttl_min.as_secs() as u32;
        let ttl = snapshot.steers.get(id.index()).map_or(floor, |s| s.ttl);
        let ids: Vec<&[u8]> = steer.alpn.iter().map(String::as_bytes).collect();
        let alpn = svcb::alpn(ids.into_iter());
        let last_resort = match &steer.on_all_down {
            OnAllDown::LastResort(addresses) => Site::new(addresses, ttl.min(LAST_RESORT_TTL)),
            _ => Site::default(),
        };
        let site = |dc: &DatacenterId| Site::new(config.datacenters.get(dc.index()).map_or(&[], |d| &d.addresses), ttl);
        let whose = steer.datacenters.iter().map(|(dc, _)| *dc).collect();
        let sites = match sites.entry((whose, ttl)) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                let made = new.key().0.iter().map(site).collect();
                Arc::clone(new.insert(made))
            }
        };
        Self {
            plan: Plan::of(snapshot, id, near, fences),
            sites,
            last_resort,
            alpn: if alpn.is_empty() { Vec::new() } else { svcb::param(svcb::ALPN, &alpn) },
            ttl,
            frozen: snapshot.isolated_since.is_some(),
        }
    }

    /// Whether the name has records of this type at all.
    pub(super) fn has(&self, rtype: u16) -> bool {
        matches!(rtype, rtype::A | rtype::AAAA) || rtype == rtype::HTTPS && !self.alpn.is_empty()
    }

    /// How it is decided.
    pub(super) const fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Whether `id` would be compiled to the same from `before` and `after`, both being of one topology.
    pub(super) fn stands(id: SteerId, before: &Snapshot, after: &Snapshot) -> bool {
        let steer = before.topology.config.dns.as_ref().and_then(|d| d.steers.get(id.index()));
        let shed = |s: &Snapshot, dc: usize| s.spill.get(dc).map_or(0, |s| s.shed);
        before.steers.get(id.index()) == after.steers.get(id.index())
            && before.isolated_since.is_some() == after.isolated_since.is_some()
            && steer.is_some_and(|s| {
                s.datacenters.iter().all(|(dc, _)| shed(before, dc.index()) == shed(after, dc.index()))
            })
    }

    /// The choice for `client`.
    pub(super) fn choose(&self, client: &Client) -> Option<Choice> {
        self.plan.as_ref().map(|plan| plan.choose(client))
    }

    /// Appends the records of `rtype` for `choice` to the answer, under the owner at offset `owner`. False: there are none.
    ///
    /// # Errors
    /// The answer does not fit.
    pub(super) fn put(&self, reply: &mut Reply<'_>, owner: usize, rtype: u16, choice: &Choice) -> Result<bool, Full> {
        let last = [&self.last_resort];
        let sites = choice.picks().iter().filter_map(|i| self.sites.get(usize::from(*i)));
        let last = last.into_iter().filter(|_| choice.reason == Reason::LastResort);
        let sites = sites.chain(last);
        let ttl = if choice.reason == Reason::LastResort { self.ttl.min(LAST_RESORT_TTL) } else { self.ttl };
        match rtype {
            rtype::A => put_addresses(reply, owner, sites, 0, choice.turn),
            rtype::AAAA => put_addresses(reply, owner, sites, 1, choice.turn),
            rtype::HTTPS if !self.alpn.is_empty() => self.put_https(reply, owner, &sites, ttl),
            _ => Ok(false),
        }
    }

    fn put_https<'s>(
        &self,
        reply: &mut Reply<'_>,
        owner: usize,
        sites: &(impl Iterator<Item = &'s Site> + Clone),
        ttl: u32,
    ) -> Result<bool, Full> {
        if sites.clone().next().is_none() {
            return Ok(false);
        }
        let [t0, t1] = rtype::HTTPS.to_be_bytes();
        let [c0, c1] = IN.to_be_bytes();
        let [l0, l1, l2, l3] = ttl.to_be_bytes();
        // ServiceMode, priority 1, the owner itself as the target.
        let head = [QNAME[0], QNAME[1], t0, t1, c0, c1, l0, l1, l2, l3, 0, 0, 0, 1, 0];
        reply.put_owned(Section::Answer, 1, &head, owner)?;
        let data = reply.at() - 3;
        reply.raw(&self.alpn)?;
        for (family, key) in [(0, svcb::IPV4HINT), (1, svcb::IPV6HINT)] {
            let length: usize = sites.clone().map(|s| s.hints[family].len()).sum();
            if length > 0 {
                let ([k0, k1], [n0, n1]) = (key.to_be_bytes(), (length as u16).to_be_bytes());
                reply.raw(&[k0, k1, n0, n1])?;
                // Hints do not turn: they are within a record, and each turn would be another one to sign.
                sites.clone().try_for_each(|s| reply.raw(&s.hints[family]))?;
            }
        }
        reply.patch(data - 2, (reply.at() - data) as u16);
        Ok(true)
    }
}

fn put_addresses<'s>(
    reply: &mut Reply<'_>,
    owner: usize,
    sites: impl Iterator<Item = &'s Site>,
    family: usize,
    turn: u16,
) -> Result<bool, Full> {
    let mut any = false;
    for (count, octets) in sites.map(|s| &s.records[family]) {
        let (head, tail) = turned(octets, *count, turn);
        let first = if head.is_empty() { *count } else { *count - turn % *count };
        reply.put_owned(Section::Answer, first, tail, owner)?;
        if !head.is_empty() {
            reply.put_owned(Section::Answer, *count - first, head, owner)?;
        }
        any |= *count > 0;
    }
    Ok(any)
}

/// `octets` of `count` equal pieces, cut where the rotation begins: what comes last, and what comes first.
fn turned(octets: &[u8], count: u16, turn: u16) -> (&[u8], &[u8]) {
    let place = usize::from(turn.checked_rem(count).unwrap_or(0));
    let piece = octets.len().checked_div(count.into()).unwrap_or(0);
    octets.split_at_checked(place * piece).unwrap_or((&[], octets))
}
