//! How a steered name is answered in one generation: who may be answered with, settled once; a query only ranks.

use std::net::IpAddr;
use std::sync::Arc;

use super::policy::{Order, Picks, Rank, Soil, Tree, View};
use super::{Choice, Client, Fences, MAX_ANSWERS, MAX_CANDIDATES, Nearness, Reason};
use crate::base::hash;
use crate::base::ids::SteerId;
use crate::base::prefix::truncate;
use crate::config::{Config, Member, OnAllDown, OnEmpty, Policy, Steer, Who};
use crate::decide::near::Near;
use crate::snapshot::health::Candidate;
use crate::snapshot::{DcState, Snapshot};

/// What tells the draw of who leaves for want of capacity from all other draws.
const SPILL: u64 = 0x7370_696c_6c00_0001;
/// What tells the draw of the rotation of addresses from all other draws.
const TURN: u64 = 0x7475_726e_0000_0001;

/// One candidate as the plan sees it; `explain` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// Its seat in every hash: of the steered name and the datacenter's name, so the same on every node.
    pub(super) hash: u64,
    /// The datacenter's state for this name.
    pub state: DcState,
    /// Configured weight.
    pub configured: u32,
    /// Weight in thousandths as health, schedules and operators have it.
    pub effective: u64,
    /// The share of clients, in thousandths, that leaves it for want of capacity.
    pub shed: u32,
    /// What holds it down is planned, and no operator.
    pub planned: bool,
}

/// How a steered name is answered in one generation.
#[derive(Clone, Debug)]
pub struct Plan {
    seats: Vec<Seat>,
    /// For clients without a fence.
    open: Ground,
    /// For those inside each fence.
    fenced: Vec<Ground>,
    fences: Option<Arc<Fences>>,
    near: Option<Arc<Near>>,
    /// Candidates that clients leave: the candidate, its draw, and below which part of 2^32 a client leaves.
    spills: Vec<(u64, u64, u64)>,
    salt: u64,
    answers: usize,
    prefix: (u8, u8),
    /// The client's network tells apart what nothing else does.
    hashed: bool,
    /// The addresses of each datacenter rotate.
    turns: bool,
}

/// What one kind of client can be answered with.
#[derive(Clone, Debug)]
struct Ground {
    tree: Tree,
    /// By candidate, in thousandths: what it weighs now; 0 is not answered with.
    weights: Vec<u64>,
    /// What all answers have for their reason, where health leaves no choice.
    forced: Option<Reason>,
}

impl Plan {
    /// Plans for the steered name `id`. `None` where the snapshot has no such name.
    pub fn of(snapshot: &Snapshot, id: SteerId, near: &Arc<Near>, fences: Option<&Arc<Fences>>) -> Option<Self> {
        let config = &snapshot.topology.config;
        let dns = config.dns.as_ref()?;
        let steer = dns.steers.get(id.index())?;
        let health = snapshot.steers.get(id.index());
        let salt = hash::bytes(0, steer.name.as_bytes());
        let seat = |(i, &(dc, configured)): (usize, &(crate::base::ids::DatacenterId, u32))| {
            let name = config.datacenters.get(dc.index()).map_or("", |d| &d.name);
            let unjudged = Candidate { effective: u64::from(configured) * 1_000, ..Candidate::default() };
            let candidate = health.and_then(|h| h.candidates.get(i)).unwrap_or(&unjudged);
            Seat {
                hash: hash::bytes(salt, name.as_bytes()),
                state: candidate.state,
                configured,
                effective: candidate.effective,
                shed: snapshot.spill.get(dc.index()).map_or(0, |s| s.shed),
                planned: candidate.planned,
            }
        };
        let seats: Vec<Seat> = steer.datacenters.iter().take(MAX_CANDIDATES).enumerate().map(seat).collect();
        let mut plan = Self::new(seats, steer, dns.client_prefix);
        plan.hashed |= by_capacity(config, steer);
        if !plan.seats.is_empty() && steer.is_by_near() {
            plan = plan.with_near(near);
        }
        Some(match fences {
            Some(fences) => plan.with_fences(steer, fences),
            None => plan,
        })
    }

    /// The same where some are near.
    pub(super) fn with_near(self, near: &Arc<Near>) -> Self {
        Self { near: Some(Arc::clone(near)), ..self }
    }

    /// The same with fences.
    pub(super) fn with_fences(self, steer: &Steer, fences: &Arc<Fences>) -> Self {
        let allowed = fences.allowed().iter();
        let fenced = allowed.map(|&allowed| ground(&self.seats, steer, self.salt, Some(allowed))).collect();
        Self { fenced, fences: Some(Arc::clone(fences)), ..self }
    }

    /// The plan for these candidates; nobody is near, and nobody is fenced.
    pub(super) fn new(seats: Vec<Seat>, steer: &Steer, prefix: (u8, u8)) -> Self {
        let salt = hash::bytes(0, steer.name.as_bytes());
        let spills = seats.iter().enumerate().filter(|(_, s)| s.shed > 0);
        let spills =
            spills.map(|(i, s)| (1 << i, hash::join(s.hash, SPILL), (u64::from(s.shed.min(1_000)) << 32) / 1_000));
        Self {
            spills: spills.collect(),
            open: ground(&seats, steer, salt, None),
            fenced: Vec::new(),
            fences: None,
            near: None,
            salt,
            answers: steer.answers.clamp(1, MAX_ANSWERS),
            prefix,
            hashed: by_policy(steer, seats.len()),
            turns: turns(&steer.policy),
            seats,
        }
    }

    /// The candidates, as in `Steer::datacenters`.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The best candidates for `client`.
    pub fn choose(&self, client: &Client) -> Choice {
        let (ground, scope) = self.ground(client);
        let (view, scope) = self.look(client, ground, scope);
        let mut picks = Picks::new(self.answers);
        let near = ground.tree.rank(&view, &mut picks);
        let reason = match ground.forced {
            Some(reason) => reason,
            None if view.spilled != 0 && spills_first(ground, view) => Reason::Spilled,
            None => match (near, ground.tree.order()) {
                (0, _) if view.near != 0 => Reason::Near,
                (2, _) => Reason::NearShed,
                (_, Order::Weighted | Order::Even) => Reason::Weighted,
                (_, Order::Spread) => Reason::Spread,
                (_, Order::Listed) => Reason::Failover,
            },
        };
        let turn = if self.turns { (hash::join(self.salt ^ TURN, client.key) >> 48) as u16 } else { 0 };
        let nearness = match (&self.near, view.near) {
            (None, _) => Nearness::Unasked,
            (Some(_), 0) => Nearness::Nobody,
            (Some(_), _) => Nearness::Somebody,
        };
        Choice { picks: picks.list, len: picks.len as u8, reason, scope, turn, nearness }
    }

    /// Every candidate that can be answered with, best first: what [`Plan::choose`] takes the head of.
    pub fn ranking(&self, client: &Client) -> Vec<Rank> {
        let (ground, scope) = self.ground(client);
        ground.tree.ranking(&self.look(client, ground, scope).0)
    }

    /// What candidate `index` weighs for `client` now, in thousandths: 0 is not answered with.
    pub fn weight(&self, index: usize, client: &Client) -> u64 {
        self.ground(client).0.weights.get(index).copied().unwrap_or(0)
    }

    /// The fence around `client`, by its place in `Steer::fences`.
    pub fn fence(&self, client: &Client) -> Option<usize> {
        self.fences.as_ref()?.find(client.network).0.checked_sub(1)
    }

    /// Whether the fence around `client` lets it go to candidate `index`.
    pub fn lets(&self, index: usize, client: &Client) -> bool {
        let allowed = self.fence(client).and_then(|fence| self.fences.as_ref()?.allowed().get(fence).copied());
        allowed.is_none_or(|allowed| index < MAX_CANDIDATES && allowed >> index & 1 == 1)
    }

    /// Whether candidate `index` is near to `client`.
    pub fn is_near(&self, index: usize, client: &Client) -> bool {
        self.near
            .as_ref()
            .is_some_and(|near| index < MAX_CANDIDATES && bits(near.find(client.network).0) >> index & 1 == 1)
    }

    /// The block of addresses, by network and length, within which everybody has the same datacenters near. `None` where
    /// `near` does not count.
    pub fn near_leaf(&self, client: &Client) -> Option<(IpAddr, u8)> {
        let (_, depth) = self.near.as_ref()?.find(client.network);
        Some((truncate(client.network, depth), depth))
    }

    fn cap(&self, client: &Client) -> u8 {
        if client.network.is_ipv4() { self.prefix.0 } else { self.prefix.1 }
    }

    /// What `client` can be answered with, and how many bits of it tell.
    fn ground(&self, client: &Client) -> (&Ground, u8) {
        let Some(fences) = &self.fences else { return (&self.open, 0) };
        let (fence, depth) = fences.find(client.network);
        let fenced = fence.checked_sub(1).and_then(|fence| self.fenced.get(fence));
        (fenced.unwrap_or(&self.open), depth.min(self.cap(client)))
    }

    fn look(&self, client: &Client, ground: &Ground, scope: u8) -> (View, u8) {
        let cap = self.cap(client);
        let mut view = View { near: 0, spilled: 0, key: client.key };
        let mut scope = if self.hashed { cap } else { scope };
        if let Some(near) = &self.near {
            let (nearby, depth) = near.find(client.network);
            scope = scope.max(depth.min(cap));
            view.near = bits(nearby);
        }
        // When everything has failed, load is no reason to go elsewhere.
        if !self.spills.is_empty() && ground.forced.is_none() {
            let leaves = |(_, draw, below): &&(u64, u64, u64)| hash::join(*draw, client.key) >> 32 < *below;
            view.spilled = self.spills.iter().filter(leaves).fold(0, |set, (bit, ..)| set | bit);
        }
        // What tells clients apart by IPv4 within IPv6 tells nothing of the rest of IPv6.
        let told = self.hashed || self.near.is_some() || self.fences.is_some();
        (view, if told { scope + client.before } else { scope })
    }
}

/// Whether who would be first is one that the client leaves.
fn spills_first(ground: &Ground, view: View) -> bool {
    let mut picks = Picks::new(1);
    ground.tree.rank(&View { spilled: 0, ..view }, &mut picks);
    picks.len > 0 && view.spilled >> picks.list[0] & 1 == 1
}

/// Settles what clients inside a fence (or without one) can be answered with.
fn ground(seats: &[Seat], steer: &Steer, salt: u64, fence: Option<u64>) -> Ground {
    let allowed = fence.unwrap_or(u64::MAX);
    let lets = |i: usize| allowed >> i & 1 == 1;
    let weights: Vec<u64> = seats.iter().enumerate().map(|(i, s)| if lets(i) { s.effective } else { 0 }).collect();
    let tree = Tree::grow(&Soil { seats, weights: &weights, allowed, all: false }, salt, &steer.policy, &steer.members);
    if !tree.is_empty() {
        return Ground { tree, weights, forced: None };
    }
    let (weights, reason) = all_down(seats, allowed, fence.is_some(), steer);
    let tree = Tree::grow(&Soil { seats, weights: &weights, allowed, all: true }, salt, &steer.policy, &steer.members);
    Ground { tree, weights, forced: Some(reason) }
}

/// The weights for when everything has failed; what an operator took down has none in any case.
///
/// Serving all prefers what could serve if we are wrong about it: first what failed, then what is configured to take
/// nothing or has no backends, and only if that is nobody, what is being drained.
fn all_down(seats: &[Seat], allowed: u64, fenced: bool, steer: &Steer) -> (Vec<u64>, Reason) {
    let tier = |(i, s): (usize, &Seat)| match s.state {
        _ if allowed >> i & 1 == 0 => None,
        DcState::AdminDown => None,
        DcState::Drained => Some(2),
        DcState::Absent => Some(1),
        _ => Some(u8::from(s.configured == 0)),
    };
    let nobody = vec![0; seats.len()];
    let on_empty = match steer.on_empty {
        OnEmpty::Nodata => Reason::Nodata,
        OnEmpty::Refused => Reason::Refused,
        OnEmpty::Servfail => Reason::Servfail,
    };
    let best = seats.iter().enumerate().filter_map(tier).min();
    match (&steer.on_all_down, best) {
        // The addresses of last resort stand outside every fence.
        (OnAllDown::LastResort(_), _) if fenced => (nobody, on_empty),
        (OnAllDown::LastResort(_), _) => (nobody, Reason::LastResort),
        (_, None) if fenced || steer.on_all_down == OnAllDown::ServeAll => (nobody, on_empty),
        (OnAllDown::ServeAll, best) => {
            let weight =
                |(i, s): (usize, &Seat)| if tier((i, s)) == best { u64::from(s.configured.max(1)) * 1_000 } else { 0 };
            (seats.iter().enumerate().map(weight).collect(), Reason::ServeAll)
        }
        (OnAllDown::Nodata, _) => (nobody, Reason::Nodata),
        (OnAllDown::Servfail, _) => (nobody, Reason::Servfail),
        (OnAllDown::Refused, _) => (nobody, Reason::Refused),
    }
}

/// Whether a hash of their network tells the clients of `steer` apart. This must not depend on health or load, or a cache
/// would keep a scope that has become too wide.
pub(super) fn by_hash(config: &Config, steer: &Steer) -> bool {
    by_policy(steer, steer.datacenters.len()) || by_capacity(config, steer)
}

fn by_policy(steer: &Steer, datacenters: usize) -> bool {
    datacenters > 1 && told_apart(&steer.policy, &steer.members) || turns(&steer.policy)
}

/// Whether what is beyond a capacity goes elsewhere, by a hash.
fn by_capacity(config: &Config, steer: &Steer) -> bool {
    steer.datacenters.len() > 1 && config.candidates(steer).any(|d| d.capacity_rps.is_some())
}

/// Whether some group tells its clients apart by a hash of their network.
fn told_apart(policy: &[Policy], members: &[Member]) -> bool {
    policy.iter().any(|p| matches!(p, Policy::Weighted | Policy::Spread))
        || members.iter().any(|m| matches!(&m.who, Who::Pool(p) if told_apart(&p.policy, &p.members)))
}

/// Whether `spread` stands behind another policy that ranks: then it is addresses that rotate.
fn turns(policy: &[Policy]) -> bool {
    let ranks = policy.iter().filter(|p| **p != Policy::Near);
    ranks.count() > 1 && policy.last() == Some(&Policy::Spread)
}

fn bits(nearby: Option<&[bool]>) -> u64 {
    nearby.unwrap_or_default().iter().take(MAX_CANDIDATES).rev().fold(0, |set, near| set << 1 | u64::from(*near))
}
