//! Which datacenters a client is sent to by a steered name, in what order, why, and for whom else the answer is good.
//!
//! A [`Plan`] is made once for a name and a generation: who may be answered with and at what weight. [`Plan::choose`] then
//! ranks them for one client. Every policy refines the order that those before it left: `near` splits into near and far,
//! `weighted`, `failover` and `spread` are total, so nothing after them counts. No clock, no random number: the same
//! client gets the same answer from every node, and a change moves only the clients that it must.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use super::near::Near;
use crate::base::hash;
use crate::base::ids::SteerId;
use crate::base::prefix::truncate;
use crate::config::{OnAllDown, Policy};
use crate::snapshot::{DcState, Snapshot, SteerHealth};

/// The most datacenters that one answer holds: as many as the configuration takes.
pub const MAX_ANSWERS: usize = 16;

/// The client as far as it counts: its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, cut to the length that stands for a client.
    pub network: IpAddr,
    key: u64,
}

impl Client {
    /// The client at `address`, by the first `prefix` (IPv4, IPv6) bits of it.
    pub fn new(address: IpAddr, prefix: (u8, u8)) -> Self {
        let network = truncate(address, if address.is_ipv4() { prefix.0 } else { prefix.1 });
        let key = match network {
            IpAddr::V4(a) => hash::mix(u64::from(u32::from(a)) | 4 << 32),
            IpAddr::V6(a) => {
                let bits = u128::from(a);
                hash::join((bits >> 64) as u64, bits as u64 ^ 6)
            }
        };
        Self { network, key }
    }
}

/// Why the choice is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The first is near to the client.
    Near,
    /// What is near has lost a part of its health, and this client belongs to the part that goes elsewhere.
    NearShed,
    /// By weight.
    Weighted,
    /// The first in order that can serve.
    Failover,
    /// In rotation.
    Spread,
    /// Everything has failed: all but what an operator took down, as if it were healthy.
    ServeAll,
    /// Everything has failed: the addresses for that case.
    LastResort,
    /// Everything has failed, or is taken down: there is no data.
    Nodata,
    /// Everything has failed: SERVFAIL.
    Servfail,
}

/// Datacenters for one client, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    picks: [u16; MAX_ANSWERS],
    len: u8,
    /// Why.
    pub reason: Reason,
    /// How many bits of the client's address the answer depends on, within the limits of [`Plan`].
    pub scope: u8,
}

impl Choice {
    /// Candidates by their place in `Steer::datacenters`. Empty with [`Reason::LastResort`], `Nodata` and `Servfail`.
    pub fn picks(&self) -> &[u16] {
        self.picks.get(..self.len.into()).unwrap_or_default()
    }
}

/// One candidate as the plan sees it; `explain` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// Its seat in every hash: of the steered name and the datacenter's name, so the same on every node.
    hash: u64,
    /// The datacenter's state for this name.
    pub state: DcState,
    /// Configured weight.
    pub configured: u32,
    /// Weight in thousandths as health and operators have it.
    pub effective: u64,
    /// The weight that counts now; 0 is not answered with.
    pub weight: f64,
}

/// Where one candidate stands for one client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rank {
    /// Which candidate.
    pub index: u16,
    /// 0: near; 1: the rest; 2: near, but this client is shed.
    pub group: u8,
    /// Within its group the highest is first.
    pub score: f64,
}

/// What decides within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Weighted,
    Spread,
    Listed,
}

/// How a steered name is answered in one generation.
#[derive(Clone, Debug)]
pub struct Plan {
    seats: Vec<Seat>,
    near: Option<Arc<Near>>,
    order: Order,
    salt: u64,
    answers: usize,
    prefix: (u8, u8),
    /// What all answers have for their reason, where health leaves no choice.
    forced: Option<Reason>,
}

impl Plan {
    /// Plans for the steered name `id`. `None` where the snapshot has no such name.
    pub fn of(snapshot: &Snapshot, id: SteerId, near: &Arc<Near>) -> Option<Self> {
        let config = &snapshot.topology.config;
        let dns = config.dns.as_ref()?;
        let steer = dns.steers.get(id.index())?;
        let salt = hash::bytes(0, steer.name.as_bytes());
        let unjudged = SteerHealth::default();
        let health = snapshot.steers.get(id.index()).unwrap_or(&unjudged);
        let mut seats: Vec<Seat> = steer
            .datacenters
            .iter()
            .enumerate()
            .map(|(i, &(dc, configured))| {
                let whole = u64::from(configured) * 1_000;
                let candidate = health.candidates.get(i);
                let effective = candidate.map_or(whole, |c| c.effective);
                Seat {
                    hash: hash::bytes(salt, config.datacenters[dc.index()].name.as_bytes()),
                    state: candidate.map_or(DcState::Serving, |c| c.state),
                    configured,
                    effective,
                    weight: 0.0,
                }
            })
            .collect();
        let healthy = !health.all_down && seats.iter().any(|s| s.effective > 0);
        let forced = if healthy {
            for seat in &mut seats {
                seat.weight = seat.effective as f64;
            }
            None
        } else {
            Some(all_down(&mut seats, &steer.on_all_down))
        };
        let mut policies = steer.policy.iter();
        let mut near_first = false;
        let order = loop {
            match policies.next() {
                Some(Policy::Near) => near_first = true,
                Some(Policy::Weighted) => break Order::Weighted,
                Some(Policy::Spread) => break Order::Spread,
                Some(Policy::Failover) | None => break Order::Listed,
            }
        };
        let near = near_first.then(|| Arc::clone(near));
        let answers = steer.answers.clamp(1, MAX_ANSWERS);
        Some(Self { seats, near, order, salt, answers, prefix: dns.client_prefix, forced })
    }

    /// The candidates, as in `Steer::datacenters`.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The best candidates for `client`.
    pub fn choose(&self, client: &Client) -> Choice {
        let view = self.look(client);
        let mut best = [Rank { index: 0, group: u8::MAX, score: 0.0 }; MAX_ANSWERS];
        let mut len = 0;
        for rank in (0..self.seats.len()).filter_map(|i| self.rank(i, &view)) {
            // Insertion into a short sorted list: `answers` is two or three.
            let mut at = len;
            while at > 0 && before(&rank, &best[at - 1]) {
                at -= 1;
            }
            if at < self.answers {
                len = self.answers.min(len + 1);
                best[at..len].rotate_right(1);
                best[at] = rank;
            }
        }
        let reason = match (self.forced, best.first()) {
            (Some(reason), _) => reason,
            (None, Some(first)) if first.group == 0 && view.near.is_some() => Reason::Near,
            _ if view.shed => Reason::NearShed,
            _ => match self.order {
                Order::Weighted => Reason::Weighted,
                Order::Spread => Reason::Spread,
                Order::Listed => Reason::Failover,
            },
        };
        Choice { picks: best.map(|r| r.index), len: len as u8, reason, scope: view.scope }
    }

    /// Every candidate that can be answered with, best first: what [`Plan::choose`] takes the head of.
    pub fn ranking(&self, client: &Client) -> Vec<Rank> {
        let view = self.look(client);
        let mut ranks: Vec<Rank> = (0..self.seats.len()).filter_map(|i| self.rank(i, &view)).collect();
        ranks.sort_by(|a, b| if before(a, b) { Ordering::Less } else { Ordering::Greater });
        ranks
    }

    /// Whether candidate `index` is near to `client`.
    pub fn is_near(&self, index: usize, client: &Client) -> bool {
        self.look(client).near.is_some_and(|near| near.get(index) == Some(&true))
    }

    /// The block of addresses, by network and length, within which everybody has the same datacenters near. `None` where
    /// `near` does not count.
    pub fn near_leaf(&self, client: &Client) -> Option<(IpAddr, u8)> {
        let (_, depth) = self.near.as_ref()?.find(client.network);
        Some((truncate(client.network, depth), depth))
    }

    fn look(&self, client: &Client) -> View<'_> {
        let cap = if client.network.is_ipv4() { self.prefix.0 } else { self.prefix.1 };
        // A hash of the network tells apart what `near` does not. Whether it does must not depend on health, or a cache
        // would keep a scope that has become too wide.
        let hashed = self.order != Order::Listed && self.seats.len() > 1;
        let mut view = View { near: None, shed: false, scope: if hashed { cap } else { 0 }, key: client.key };
        if let Some(near) = &self.near {
            let (nearby, depth) = near.find(client.network);
            view.scope = view.scope.max(depth.min(cap));
            view.near = nearby;
            // In a fixed order the first serves until it fails: a share of its clients would narrow every scope for little.
            view.shed = hashed && view.near.is_some_and(|near| self.sheds(near, client));
        }
        view
    }

    /// Whether `client` is among those that what is near can no longer carry. A share of clients by hash, so that each
    /// further loss moves further clients and none of them back.
    fn sheds(&self, near: &[bool], client: &Client) -> bool {
        let (mut whole, mut left, mut seat) = (0u64, 0u64, self.salt);
        for (s, _) in self.seats.iter().zip(near).filter(|(_, near)| **near) {
            // What health or an operator has left of it; more than configured brings nobody here from afar.
            whole += u64::from(s.configured) * 1_000;
            left += s.effective.min(u64::from(s.configured) * 1_000);
            seat = hash::join(seat, s.hash);
        }
        // When all is down, all is served as if healthy.
        self.forced.is_none() && left < whole && hash::unit(hash::join(client.key, seat)) > left as f64 / whole as f64
    }

    fn rank(&self, index: usize, view: &View<'_>) -> Option<Rank> {
        let seat = self.seats.get(index).filter(|s| s.weight > 0.0)?;
        let near = view.near.map(|near| near.get(index) == Some(&true));
        let group = match near {
            Some(true) if view.shed => 2,
            Some(false) => 1,
            Some(true) | None => 0,
        };
        let score = match self.order {
            Order::Weighted => hash::rendezvous(seat.hash, view.key, seat.weight),
            Order::Listed => -(index as f64),
            Order::Spread => {
                let count = self.seats.len();
                let turn = hash::join(self.salt, view.key) as usize % count;
                -(((index + count - turn) % count) as f64)
            }
        };
        Some(Rank { index: index as u16, group, score })
    }
}

struct View<'a> {
    near: Option<&'a [bool]>,
    shed: bool,
    scope: u8,
    key: u64,
}

fn before(a: &Rank, b: &Rank) -> bool {
    a.group.cmp(&b.group).then(b.score.total_cmp(&a.score)).then(a.index.cmp(&b.index)) == Ordering::Less
}

/// Sets the weights for when everything has failed; what an operator took down has none in any case.
///
/// Serving all prefers what could serve if we are wrong about it: first what failed, then what is configured to take
/// nothing or has no backends, and only if that is nobody, what is being drained.
fn all_down(seats: &mut [Seat], policy: &OnAllDown) -> Reason {
    let tier = |s: &Seat| match s.state {
        DcState::AdminDown => None,
        DcState::Drained => Some(2),
        DcState::Absent => Some(1),
        _ => Some(u8::from(s.configured == 0)),
    };
    match policy {
        OnAllDown::ServeAll => match seats.iter().filter_map(tier).min() {
            Some(best) => {
                for seat in seats.iter_mut().filter(|s| tier(s) == Some(best)) {
                    seat.weight = f64::from(seat.configured.max(1));
                }
                Reason::ServeAll
            }
            None => Reason::Nodata,
        },
        OnAllDown::LastResort(_) => Reason::LastResort,
        OnAllDown::Nodata => Reason::Nodata,
        OnAllDown::Servfail => Reason::Servfail,
    }
}

#[cfg(test)]
mod tests;
