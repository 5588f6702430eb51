//! What the name server answers from: every name hashed, every record set as finished octets.
//!
//! The static part is compiled once for a topology and hangs in it; what health moves is compiled for each generation
//! (`steered`). Names at or beneath a zone cut have no node but the cut itself: whoever looks for them walks up to it and
//! gets the referral.

use std::collections::HashMap;
use std::sync::Arc;

use super::alias::{self, Aliases, Target};
use super::guard::Rules;
use super::index::Index;
use super::scopes;
use super::sets::{Run, Set, Sets, record, records};
use super::sign::Signing;
use super::steered::{Sites, Steered};
use crate::base::clock::{Clock as _, SystemClock};
use crate::base::ids::{DatacenterId, SteerId};
use crate::config::{Config, Locality, Steer};
use crate::decide::near::Near;
use crate::decide::steer::{Fences, Plan};
use crate::observe::names::dns as metric;
use crate::snapshot::atlas::Atlas;
use crate::snapshot::views::Slot;
use crate::snapshot::{Snapshot, Topology};
use crate::wire::dns::cookie::Secrets;
use crate::wire::dns::rtype;
use crate::wire::name;
use crate::wire::tsig::Key;
use crate::wire::zone::{RrSet, Zone};

/// The largest TTL of a negative answer, in seconds (RFC 2308 section 5 asks for one to three hours).
const MAX_NEGATIVE_TTL: u32 = 10_800;
/// Longest NSID, so that an OPT has a bound.
const MAX_NSID: usize = 64;
const NONE: u32 = u32::MAX;

/// The compiled view of one generation: all that [`super::answer::answer`] reads.
#[derive(Debug)]
pub struct Table {
    pub(super) fixed: Arc<Fixed>,
    pub(super) steered: Vec<Arc<Steered>>,
}

/// What does not change while the topology stands.
#[derive(Debug, Default)]
pub(super) struct Fixed {
    index: Index,
    nodes: Vec<Node>,
    sets: Sets,
    zones: Vec<ZoneEnds>,
    referrals: Vec<Referral>,
    aliases: Aliases,
    /// By steered name: who is near.
    near: Vec<Arc<Near>>,
    /// By steered name: who is fenced.
    fences: Vec<Option<Arc<Fences>>>,
    /// By steered name: into how many classes client subnets divide its answers; `None`: no map does.
    classes: Vec<Option<u64>>,
    /// Secrets shared with secondaries.
    pub(super) keys: Vec<Arc<Key>>,
    /// What signs the zones that are signed.
    pub(super) signing: Signing,
    /// Our name, as the NSID option has it.
    pub(super) nsid: Box<[u8]>,
    /// Whether client subnets are honoured.
    pub(super) ecs: bool,
    /// The largest answer over UDP.
    pub(super) udp_size: u16,
    /// For how long a connection may be idle, in tenths of a second (RFC 7828 section 3.1).
    pub(super) idle: u16,
    /// What DNS cookies are made with.
    pub(super) secrets: Secrets,
    /// Whether a client that speaks cookies has to show one of ours.
    pub(super) require_cookie: bool,
    /// Who gets how many answers.
    pub(super) rules: Rules,
    /// How many bits stand for a client.
    pub(super) client_prefix: (u8, u8),
}

/// A name that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    sets: Run,
    zone: u32,
    /// Its zone is a child of one that is served too: then this is the parent, which answers for DS.
    parent_zone: u32,
    wildcard: u32,
    steer: u32,
    referral: u32,
    alias: u32,
    /// What lies beneath it is elsewhere (RFC 6672).
    dname: bool,
}

/// What closes an answer without data.
#[derive(Debug, Default)]
struct ZoneEnds {
    apex: Box<[u8]>,
    /// The SOA with the negative TTL, owned by [`QNAME`](crate::wire::dns::QNAME).
    negative: Box<[u8]>,
}

/// A zone cut.
#[derive(Debug, Default)]
pub(super) struct Referral {
    /// How long the cut's name is, in octets.
    pub(super) depth: usize,
    pub(super) records: u16,
    pub(super) ns: Box<[u8]>,
    /// Addresses of name servers at or beneath the cut: which NS record they belong to, how many, their octets.
    pub(super) glue: Vec<(u16, u16, Box<[u8]>)>,
}

/// Where a name leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'t> {
    /// It exists, or a wildcard stands for it.
    Node(&'t Node),
    /// It lies at or beneath a zone cut.
    Cut(&'t Node, &'t Referral),
    /// It lies beneath a DNAME, whose owner is so many octets long.
    Redirect(&'t Node, usize),
    /// It does not exist in this zone.
    Missing(u32),
    /// None of our zones.
    Outside,
}

impl Table {
    /// The table of `snapshot`, compiled if this is the first who asks: as a rule [`publish`] has.
    pub fn of(snapshot: &Snapshot) -> Option<Arc<Self>> {
        snapshot.views.of(Slot::Dns, || timed("steered", || Self::compile(snapshot)))
    }

    /// Compiles the table of `snapshot`.
    pub fn compile(snapshot: &Snapshot) -> Self {
        Self::follow(snapshot, None)
    }

    /// Compiles the table of `snapshot`, with all that has not moved from the one `before`.
    fn follow(snapshot: &Snapshot, before: Option<(&Snapshot, &Self)>) -> Self {
        let fixed = Fixed::of(&snapshot.topology);
        let before = before.filter(|(_, table)| Arc::ptr_eq(&table.fixed, &fixed));
        let mut sites = Sites::new();
        let one = |(i, near): (usize, &Arc<Near>)| {
            let id = SteerId::new(i);
            let kept = before.and_then(|(old, table)| {
                let steered = table.steered.get(i)?;
                Steered::stands(id, old, snapshot).then(|| Arc::clone(steered))
            });
            let fences = fixed.fences.get(i).and_then(Option::as_ref);
            kept.unwrap_or_else(|| Arc::new(Steered::compile(snapshot, id, near, fences, &mut sites)))
        };
        let steered = fixed.near.iter().enumerate().map(one).collect();
        Self { steered, fixed: Arc::clone(&fixed) }
    }

    /// Where `name`, in lower case, leads.
    pub(super) fn find(&self, name: &[u8]) -> Found<'_> {
        self.fixed.find(name)
    }

    /// The targets of ALIAS names.
    pub(super) fn aliases(&self) -> &[Arc<Target>] {
        self.fixed.aliases.targets()
    }

    /// The addresses that the ALIAS at `owner` stands for; `None` while they are not known.
    pub(super) fn alias_sets(&self, owner: &[u8]) -> Option<Vec<RrSet>> {
        let Found::Node(node) = self.find(owner) else { return None };
        self.fixed.alias(node)?.look().as_deref().map(alias::Known::sets)
    }

    /// The steered name that `node` is.
    pub(super) fn steered(&self, node: &Node) -> Option<(SteerId, &Steered)> {
        self.steered.get(node.steer as usize).map(|s| (SteerId::new(node.steer as usize), &**s))
    }
}

/// How every steered name of `snapshot` is decided, and nothing of the names around them: what a comparison of two worlds needs.
pub fn plans(snapshot: &Snapshot) -> Vec<Option<Plan>> {
    let topology = &snapshot.topology;
    let steers = topology.config.dns.as_ref().map_or(&[][..], |dns| &dns.steers);
    let (near, fences) = match topology.views.peek::<Fixed>(Slot::Dns) {
        Some(fixed) => (fixed.near.clone(), fixed.fences.clone()),
        None => surroundings(&topology.config, steers, &topology.assets.atlas),
    };
    let around = near.iter().zip(&fences).enumerate();
    around.map(|(i, (near, fences))| Plan::of(snapshot, SteerId::new(i), near, fences.as_ref())).collect()
}

/// Compiles what does not depend on health, ahead of the first query: a reload does it off the data path. What is known of
/// the targets of ALIAS names, and what was signed, is taken over from the topology `before`.
pub fn prepare(topology: &Topology, before: Option<&Topology>) {
    Fixed::make(topology, before);
}

/// Compiles what `after` answers from, before it is published: what has moved since `before`, the rest is shared with it.
pub fn publish(before: Option<&Snapshot>, after: &Snapshot) {
    if after.topology.config.dns.is_some() {
        let known = before.and_then(|old| Some((old, old.views.peek::<Table>(Slot::Dns)?)));
        after.views.of(Slot::Dns, || timed("steered", || Table::follow(after, known)));
    }
}

fn timed<T>(part: &'static str, compile: impl FnOnce() -> T) -> T {
    let began = SystemClock.mono();
    let made = compile();
    metric::COMPILE.histogram(&[part]).record(SystemClock.mono().since(began).as_secs_f64());
    made
}

impl Fixed {
    pub(super) fn of(topology: &Topology) -> Arc<Self> {
        Self::make(topology, None)
    }

    fn make(topology: &Topology, before: Option<&Topology>) -> Arc<Self> {
        let before = before.and_then(|b| b.views.peek::<Self>(Slot::Dns));
        let assets = &topology.assets;
        let compile = || {
            let mut fixed = Self::compile(&topology.config, &assets.zones, &assets.atlas, before.map(|b| &b.aliases));
            fixed.keys.clone_from(&assets.keys);
            fixed.secrets.clone_from(&assets.cookies);
            fixed.sign(topology, before);
            fixed
        };
        let made = topology.views.of(Slot::Dns, || timed("static", compile));
        made.unwrap_or_default()
    }

    /// Who is near, for the steered name of this number.
    pub(super) fn near(&self, steer: usize) -> Option<&Arc<Near>> {
        self.near.get(steer)
    }

    /// Into how many classes client subnets divide the answers of the steered name of this number.
    pub(super) fn classes(&self, steer: usize) -> Option<u64> {
        self.classes.get(steer).copied().flatten()
    }

    /// How much memory the maps of who is near take, in bytes.
    pub(super) fn near_bytes(&self) -> usize {
        let maps: HashMap<_, usize> = self.near.iter().map(|near| (Arc::as_ptr(near), near.bytes())).collect();
        maps.values().sum()
    }

    /// Makes ready to sign; a topology without signed zones costs nothing.
    pub(super) fn sign(&mut self, topology: &Topology, before: Option<&Self>) {
        let Some(dns) = &topology.config.dns else { return };
        let apexes = self.zones.iter().map(|z| &*z.apex);
        let (size, before) = (self.sets.len() + self.nodes.len(), before.map(|b| &b.signing));
        self.signing = Signing::compile(dns, &topology.assets, apexes, size, before);
    }

    pub(super) fn compile(config: &Config, zones: &[Arc<Zone>], atlas: &Atlas, before: Option<&Aliases>) -> Self {
        let mut fixed = Self::default();
        let Some(dns) = &config.dns else { return fixed };
        fixed.ecs = dns.ecs;
        fixed.client_prefix = dns.client_prefix;
        fixed.udp_size = dns.guard.udp_size;
        fixed.idle = u16::try_from(dns.connections.idle.as_millis() / 100).unwrap_or(u16::MAX);
        fixed.require_cookie = dns.guard.cookies.require;
        fixed.rules = Rules::new(&dns.guard.rate_limit);
        fixed.nsid = config.node.name.as_bytes().iter().copied().take(MAX_NSID).collect();
        // Parents first, so that a child's apex finds whose child it is.
        let mut order: Vec<&Zone> = zones.iter().map(AsRef::as_ref).collect();
        order.sort_by_key(|z| z.origin.len());
        let apexes = apexes(order.iter().copied());
        for (zone, number) in order.iter().zip(0..) {
            fixed.add_zone(zone, number, &apexes);
            for (owner, sets) in zone.names.iter().filter(|(_, sets)| alias::target(sets).is_some()) {
                let node = fixed.index.find(owner).and_then(|n| fixed.nodes.get_mut(n as usize));
                // At and beneath a zone cut no name is ours.
                if let (Some(node), Some(target)) =
                    (node.filter(|n| n.zone == number && n.referral == NONE), alias::target(sets))
                {
                    node.alias = fixed.aliases.place(&name::lower(target), before);
                }
            }
        }
        (fixed.near, fixed.fences) = surroundings(config, &dns.steers, atlas);
        fixed.classes = scopes::count(config, dns, &fixed.near, &fixed.fences);
        for (steer, number) in dns.steers.iter().zip(0..) {
            let Ok(owner) = name::parse(&steer.name, None).map(|n| name::lower(&n)) else { continue };
            let zone = zone_of(&owner, &apexes).and_then(|i| order.get(i as usize).map(|z| (i, z)));
            if let Some((zone, data)) = zone
                && cut_above(&owner, data).is_none()
                && (owner == data.origin || !data.names.get(&owner).is_some_and(|sets| is_cut(sets)))
            {
                let node = fixed.node(&owner, zone);
                fixed.nodes[node as usize].steer = number;
            }
        }
        fixed
    }

    fn add_zone(&mut self, zone: &Zone, number: u32, apexes: &HashMap<&[u8], u32>) {
        let at_apex = zone.names.get(&zone.origin).map(Vec::as_slice).unwrap_or_default();
        let negative = negative(at_apex).unwrap_or_default();
        self.zones.push(ZoneEnds { apex: zone.origin.clone(), negative });
        let apex = self.node(&zone.origin, number);
        self.nodes[apex as usize].zone = number;
        for (owner, sets) in &zone.names {
            let of = |wanted: fn(u16) -> bool| sets.iter().filter(move |s| wanted(s.rtype)).collect::<Vec<_>>();
            if cut_above(owner, zone).is_some() {
                continue;
            }
            if zone_of(owner, apexes) != Some(number) {
                // Beneath the apex of a zone of our own that zone speaks; at its apex, only DS is ours.
                if apexes.contains_key(&**owner)
                    && name::parent(owner).and_then(|up| zone_of(up, apexes)) == Some(number)
                {
                    let node = self.node(owner, number);
                    self.nodes[node as usize].parent_zone = number;
                    self.store(node, &of(|t| t == rtype::DS));
                }
                continue;
            }
            let node = self.node(owner, number);
            if *owner == zone.origin {
                self.store(node, &of(|t| t != rtype::DS));
            } else if is_cut(sets) {
                self.store(node, &of(|t| t == rtype::DS));
                self.nodes[node as usize].referral = self.referrals.len() as u32;
                self.referrals.push(referral(owner, zone));
            } else {
                self.store(node, &of(|_| true));
            }
        }
    }

    /// The node of `owner`, with every name between it and the apex: empty non-terminals exist (RFC 8020).
    fn node(&mut self, owner: &[u8], zone: u32) -> u32 {
        if let Some(node) = self.index.find(owner) {
            return node;
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Node {
            sets: Run::default(),
            zone,
            parent_zone: NONE,
            wildcard: NONE,
            steer: NONE,
            referral: NONE,
            alias: NONE,
            dname: false,
        });
        self.index.insert(owner, node);
        let apex_length = self.zones.get(zone as usize).map_or(0, |z| z.apex.len());
        if owner.len() > apex_length
            && let Some(up) = name::parent(owner)
        {
            let up = self.node(up, zone);
            if owner.starts_with(b"\x01*") {
                self.nodes[up as usize].wildcard = node;
            }
        }
        node
    }

    /// Gives `node` these record sets, beside those that it has from the zone above.
    fn store(&mut self, node: u32, sets: &[&RrSet]) {
        let Some(node) = self.nodes.get_mut(node as usize) else { return };
        let https = sets.iter().find_map(|set| alias::https(set)).filter(|h| sets.iter().all(|s| s.rtype != h.rtype));
        let real = sets.iter().copied().chain(&https).filter(|s| s.rtype != rtype::ALIAS);
        node.sets = self.sets.store(node.sets, real);
        node.dname |= sets.iter().any(|s| s.rtype == rtype::DNAME);
    }

    /// Whether `name` itself, in lower case, is configured: not by a wildcard.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        !name.starts_with(b"\x01*") && self.index.find(name).is_some()
    }

    /// Whether `node` is the apex of `zone`.
    pub(super) fn is_apex(&self, node: &Node, zone: u32) -> bool {
        node.zone == zone && self.set(node, rtype::SOA).is_some()
    }

    /// The record sets of `node`.
    pub(super) fn sets(&self, node: &Node) -> impl Iterator<Item = Set<'_>> {
        self.sets.of(node.sets)
    }

    /// The record set of this type.
    pub(super) fn set(&self, node: &Node, rtype: u16) -> Option<Set<'_>> {
        self.sets(node).find(|s| s.rtype == rtype)
    }

    /// The target whose addresses are those of `node`.
    pub(super) fn alias(&self, node: &Node) -> Option<&Target> {
        self.aliases.get(node.alias)
    }

    /// How many zones there are.
    pub(super) const fn zones(&self) -> usize {
        self.zones.len()
    }

    /// The apex of a zone, as text.
    pub(super) fn zone_name(&self, zone: usize) -> String {
        self.zones.get(zone).map(|z| name::show(&z.apex)).unwrap_or_default()
    }

    /// The apex of a zone and its negative SOA.
    pub(super) fn ends(&self, zone: u32) -> (&[u8], &[u8]) {
        self.zones.get(zone as usize).map_or((&[], &[]), |z| (&*z.apex, &*z.negative))
    }

    fn find(&self, name: &[u8]) -> Found<'_> {
        if let Some(node) = self.index.find(name).and_then(|n| self.nodes.get(n as usize)) {
            return self.at(node);
        }
        let mut at = name;
        while let Some(up) = name::parent(at) {
            at = up;
            // The closest encloser (RFC 4592 section 3.3.1): the first ancestor that exists.
            let Some(encloser) = self.index.find(at).and_then(|n| self.nodes.get(n as usize)) else { continue };
            return match (self.at(encloser), self.nodes.get(encloser.wildcard as usize)) {
                (cut @ Found::Cut(..), _) => cut,
                _ if encloser.dname => Found::Redirect(encloser, at.len()),
                (_, Some(wildcard)) => self.at(wildcard),
                (_, None) => Found::Missing(encloser.zone),
            };
        }
        Found::Outside
    }

    fn at<'t>(&'t self, node: &'t Node) -> Found<'t> {
        self.referrals.get(node.referral as usize).map_or(Found::Node(node), |r| Found::Cut(node, r))
    }
}

impl Node {
    /// Whether it is the cut of a zone that others serve.
    pub(super) const fn is_cut(&self) -> bool {
        self.referral != NONE
    }

    /// Whether `zone` is the one above, and it the apex of a zone that is served here, too.
    pub(super) const fn is_apex_seen_from(&self, zone: u32) -> bool {
        self.parent_zone != NONE && self.parent_zone == zone
    }

    /// Whether the zone above is served here, too.
    pub(super) const fn has_parent_here(&self) -> bool {
        self.parent_zone != NONE
    }

    /// The zone that speaks for it; for DS the one above, where that is ours too.
    pub(super) const fn zone_for(&self, rtype: u16) -> u32 {
        if rtype == rtype::DS && self.parent_zone != NONE { self.parent_zone } else { self.zone }
    }
}

fn negative(apex: &[RrSet]) -> Option<Box<[u8]>> {
    let soa = apex.iter().find(|s| s.rtype == rtype::SOA)?;
    let rdata = soa.rdatas.first()?;
    // MINIMUM is the last field; RFC 2308 section 5: no longer than the SOA itself lives.
    let minimum = u32::from_be_bytes(*rdata.last_chunk()?);
    let mut out = Vec::new();
    record(rtype::SOA, soa.ttl.min(minimum).min(MAX_NEGATIVE_TTL), rdata, &mut out);
    Some(out.into())
}

fn referral(cut: &[u8], zone: &Zone) -> Referral {
    let sets = zone.names.get(cut).map(Vec::as_slice).unwrap_or_default();
    let Some(ns) = sets.iter().find(|s| s.rtype == rtype::NS) else { return Referral::default() };
    let mut octets = Vec::new();
    let records = records(ns, ns.ttl, &mut octets);
    let mut glue = Vec::new();
    for (i, target) in ns.rdatas.iter().enumerate() {
        let target = name::lower(target);
        let of_target = zone.names.get(&target).map(Vec::as_slice).unwrap_or_default();
        for set in of_target.iter().filter(|s| matches!(s.rtype, rtype::A | rtype::AAAA)) {
            let mut octets = Vec::new();
            let records = self::records(set, set.ttl, &mut octets);
            glue.push((i as u16, records, octets.into()));
        }
    }
    Referral { depth: cut.len(), records, ns: octets.into(), glue }
}

/// The topmost zone cut strictly between `owner` and the apex of `zone`.
pub(super) fn cut_above<'n>(owner: &'n [u8], zone: &Zone) -> Option<&'n [u8]> {
    let mut found = None;
    let mut at = name::parent(owner);
    while let Some(name) = at.filter(|n| n.len() > zone.origin.len()) {
        if zone.names.get(name).is_some_and(|sets| is_cut(sets)) {
            found = Some(name);
        }
        at = name::parent(name);
    }
    found
}

/// The topmost DNAME between `owner` and the apex of `zone`, the apex among them.
pub(super) fn dname_above<'n>(owner: &'n [u8], zone: &Zone) -> Option<&'n [u8]> {
    let above = std::iter::successors(name::parent(owner), |n| name::parent(n));
    let inside = above.take_while(|n| n.len() >= zone.origin.len());
    inside.filter(|n| zone.names.get(*n).is_some_and(|sets| sets.iter().any(|s| s.rtype == rtype::DNAME))).last()
}

/// Whether a name with these sets, other than the apex, is a zone cut.
pub(super) fn is_cut(sets: &[RrSet]) -> bool {
    sets.iter().any(|s| s.rtype == rtype::NS)
}

/// The numbers of `zones`, by their apexes.
pub(super) fn apexes<'z>(zones: impl Iterator<Item = &'z Zone>) -> HashMap<&'z [u8], u32> {
    zones.zip(0..).map(|(zone, number)| (&*zone.origin, number)).collect()
}

/// The deepest of the zones with these `apexes` that `owner` lies in.
pub(super) fn zone_of(owner: &[u8], apexes: &HashMap<&[u8], u32>) -> Option<u32> {
    let mut at = Some(owner);
    while let Some(name) = at {
        if let Some(zone) = apexes.get(name) {
            return Some(*zone);
        }
        at = name::parent(name);
    }
    None
}

/// What each candidate of `steer` says is near to it.
pub(super) fn localities<'c>(config: &'c Config, steer: &'c Steer) -> Vec<&'c [Locality]> {
    config.candidates(steer).map(|dc| dc.near.as_slice()).collect()
}

/// Who is near, and who is fenced, by steered name. Names with the same candidates share the first.
fn surroundings(config: &Config, steers: &[Steer], atlas: &Atlas) -> (Vec<Arc<Near>>, Vec<Option<Arc<Fences>>>) {
    let mut known: HashMap<Vec<DatacenterId>, Arc<Near>> = HashMap::new();
    let near = |steer: &Steer| {
        let build = || Arc::new(timed("near", || Near::build(&localities(config, steer), atlas)));
        Arc::clone(known.entry(steer.datacenters.iter().map(|(dc, _)| *dc).collect()).or_insert_with(build))
    };
    let fences = |steer: &Steer| Fences::build(&steer.fences, atlas).map(Arc::new);
    (steers.iter().map(near).collect(), steers.iter().map(fences).collect())
}
