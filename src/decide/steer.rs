//! Which datacenters a client is sent to by a steered name, in what order, why, and for whom else the answer is good.
//!
//! ```text
//!   operator  >  schedule  >  fence  >  health  >  capacity  >  near  >  weighted, failover, spread  >  how many answers
//!   ------ Seat ---------     -- a Tree for each fence ------    ----------- Tree::walk ------------     Plan::choose
//! ```
//!
//! What stands left of `capacity` does not depend on the client beyond its fence, so [`Plan`] settles it once a generation:
//! it holds a tree of what can be answered, one for each fence, and a query only ranks. No clock, no random number: the
//! same client gets the same answer from every node, and a change moves only the clients that it must.

use std::net::IpAddr;

use serde::Serialize;

use crate::base::hash;
use crate::base::prefix::{embedded, truncate};

mod classes;
mod fence;
mod plan;
mod policy;

pub use classes::Division;
pub use fence::Fences;
pub use plan::{Plan, Seat};
pub use policy::Rank;

/// The most datacenters that one answer holds: as many as the configuration takes.
pub const MAX_ANSWERS: usize = 16;
/// The most candidates of one name: as many datacenters as the configuration takes, and the bits of a set of them.
pub const MAX_CANDIDATES: usize = 64;

/// How many crowds clients fall into where few sets of datacenters must do for all of them (ours): few enough that every
/// set is signed in no time, and a weight is met within some percent.
const CROWDS: u64 = 32;

/// The client as far as it counts: its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, cut to the length that stands for a client. IPv4 where the address stands for one within IPv6.
    pub network: IpAddr,
    /// How many bits of the address as it was told come before those of `network`.
    before: u8,
    key: u64,
}

impl Client {
    /// The client at `address`, by the first `prefix` (IPv4, IPv6) bits of it.
    pub fn new(address: IpAddr, prefix: (u8, u8)) -> Self {
        let inner = if let IpAddr::V6(address) = address { embedded(address) } else { None };
        let (address, before) = inner.map_or((address, 0), |(inner, before)| (inner.into(), before));
        let network = truncate(address, if address.is_ipv4() { prefix.0 } else { prefix.1 });
        let key = match network {
            IpAddr::V4(a) => hash::mix(u64::from(u32::from(a)) | 4 << 32),
            IpAddr::V6(a) => {
                let bits = u128::from(a);
                hash::join((bits >> 64) as u64, bits as u64 ^ 6)
            }
        };
        Self { network, before, key }
    }

    /// The client as one of a crowd: drawn for as many others are, fenced and near to whom it was, so that a name has no
    /// more than so many choices for each place.
    #[must_use]
    pub const fn in_crowd(&self) -> Self {
        Self { key: hash::mix(self.key % CROWDS), ..*self }
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
    /// What would be first is short of capacity, and this client belongs to the part that goes elsewhere.
    Spilled,
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
    /// Everything has failed, or is taken down or fenced off: there is no data.
    Nodata,
    /// The same: SERVFAIL.
    Servfail,
    /// The same: REFUSED.
    Refused,
}

impl Reason {
    /// All of them, for tables of counters.
    pub const ALL: [Self; 11] = [
        Self::Near,
        Self::NearShed,
        Self::Spilled,
        Self::Weighted,
        Self::Failover,
        Self::Spread,
        Self::ServeAll,
        Self::LastResort,
        Self::Nodata,
        Self::Servfail,
        Self::Refused,
    ];

    /// The word for it, as it is serialized, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::NearShed => "near_shed",
            Self::Spilled => "spilled",
            Self::Weighted => "weighted",
            Self::Failover => "failover",
            Self::Spread => "spread",
            Self::ServeAll => "serve_all",
            Self::LastResort => "last_resort",
            Self::Nodata => "nodata",
            Self::Servfail => "servfail",
            Self::Refused => "refused",
        }
    }
}

/// What the map of who is near had to say of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// It was not asked: `near` decides nothing here.
    Unasked,
    /// Nobody is near.
    Nobody,
    /// Somebody is near.
    Somebody,
}

impl Nearness {
    /// All of them, for tables of counters.
    pub const ALL: [Self; 3] = [Self::Unasked, Self::Nobody, Self::Somebody];

    /// The word for it, where it was asked.
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Unasked => None,
            Self::Nobody => Some("nobody"),
            Self::Somebody => Some("somebody"),
        }
    }
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
    /// Where the addresses of each datacenter begin, where they rotate.
    pub turn: u16,
    /// Whether anybody is near.
    pub nearness: Nearness,
}

impl Choice {
    /// Candidates by their place in `Steer::datacenters`. Empty with [`Reason::LastResort`], `Nodata`, `Servfail`, `Refused`.
    pub fn picks(&self) -> &[u16] {
        self.picks.get(..self.len.into()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
