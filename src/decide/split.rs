//! Which of several services has a request: gray releases, by stable shares of users.
//!
//! A user is on one side as long as the weights stay: weighted rendezvous over the names of the services, the same on every
//! node, in every release, and in every route that splits among them. When a weight grows, users come to that side and no
//! other moves; when it shrinks, they go back where they were. Requests without a user are dealt by lot. A header or a
//! cookie may name the side outright, where the configuration lists its value and the client is one who may.

use std::net::IpAddr;

use http::HeaderMap;

use crate::base::entropy::Rng;
use crate::base::hash;
use crate::base::ids::ServiceId;
use crate::config::{Override, Split, UserKey};
use crate::wire::cookie;

/// Seed of services' names; changing it moves users.
const SEED: u64 = 0x0073_706c_6974;

/// A split, compiled.
#[derive(Clone, Debug)]
pub struct Sides {
    list: Vec<Side>,
    total: u64,
    choice: Option<Override>,
}

#[derive(Clone, Debug)]
struct Side {
    service: ServiceId,
    seed: u64,
    weight: u32,
}

/// Why a request is on its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client chose it.
    Override,
    /// Its user belongs there.
    User,
    /// By lot: the request names no user.
    Lot,
}

impl Why {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Override, Self::User, Self::Lot];

    /// The word for it in metrics and in `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::User => "user",
            Self::Lot => "lot",
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The place of the side in the split.
    pub side: usize,
    /// Its service.
    pub service: ServiceId,
    /// Why.
    pub why: Why,
}

impl Sides {
    /// Compiles `split` of services with the names that `name` knows.
    pub fn of<'n>(split: &Split, name: impl Fn(ServiceId) -> &'n str) -> Self {
        let side = |(service, weight): &(ServiceId, u32)| Side {
            service: *service,
            seed: hash::bytes(SEED, name(*service).as_bytes()),
            weight: *weight,
        };
        let list: Vec<Side> = split.sides.iter().map(side).collect();
        Self { total: list.iter().map(|s| u64::from(s.weight)).sum(), list, choice: split.choice.clone() }
    }

    /// The side of a request from `client` with `headers`, whose user hashes to `user`. `None`: no side has a weight.
    pub fn choose(&self, headers: &HeaderMap, client: IpAddr, user: Option<u64>, rng: &mut Rng) -> Option<Choice> {
        let chosen = self.named(headers, client).map(|side| (side, Why::Override));
        let (side, why) = match (chosen, user) {
            (Some(chosen), _) => chosen,
            (None, Some(user)) => (self.owner(user)?, Why::User),
            (None, None) => (self.drawn(rng.below(self.total.max(1)))?, Why::Lot),
        };
        Some(Choice { side, service: self.list.get(side)?.service, why })
    }

    /// The share of each side, in the order of the split.
    pub fn shares(&self) -> impl Iterator<Item = (ServiceId, f64)> {
        let total = self.total.max(1) as f64;
        self.list.iter().map(move |side| (side.service, f64::from(side.weight) / total))
    }

    /// The side that the client names.
    fn named(&self, headers: &HeaderMap, client: IpAddr) -> Option<usize> {
        let choice = self.choice.as_ref()?;
        let value = match &choice.by {
            UserKey::Header(name) => headers.get(name.as_str()).map(http::HeaderValue::as_bytes)?,
            UserKey::Cookie(name) => cookie::find(headers, name)?,
            UserKey::Client | UserKey::Path(..) => return None,
        };
        let (_, side) = choice.values.iter().find(|(known, _)| known.as_bytes() == value)?;
        let client = client.to_canonical();
        let may = choice.from.is_empty() || choice.from.iter().any(|net| net.contains(&client));
        may.then_some(*side)
    }

    fn owner(&self, user: u64) -> Option<usize> {
        let weighty = self.list.iter().enumerate().filter(|(_, side)| side.weight > 0);
        let scores = weighty.map(|(i, side)| (i, hash::rendezvous(side.seed, user, f64::from(side.weight))));
        scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
    }

    fn drawn(&self, lot: u64) -> Option<usize> {
        let mut upto = 0;
        self.list.iter().position(|side| {
            upto += u64::from(side.weight);
            lot < upto
        })
    }
}

#[cfg(test)]
mod tests;
