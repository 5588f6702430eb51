//! What a change would do before it is made: which share of a population would be sent elsewhere, from where, to where.
//!
//! Both sides are asked by the plans that answer queries, so nothing is estimated but the population itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::steer::{Client, Plan};
use crate::base::hash;

/// Clients of a prefix that is wider than a client: so many of its networks stand for it.
const SAMPLES: u32 = 256;
/// Most entries of a population (ours: every /16 and as much again).
const MOST: usize = 1 << 17;
/// What stands for an answer without a datacenter.
pub const NOBODY: &str = "(nobody)";

/// Clients with their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Population(Vec<(IpAddr, f64)>);

/// A population cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PopulationError {
    /// A line means nothing.
    #[error(
        "line {line}: expected an address or a prefix, with a weight behind it if it is not 1, or a line of JSON with \
         a `client`"
    )]
    Line {
        /// Which, from 1 on.
        line: usize,
    },
    /// There is nobody in it.
    #[error("nobody is in it")]
    Empty,
    /// There are too many.
    #[error("more than {MOST} lines: take a part of them")]
    Long,
}

impl Population {
    /// One network of every IPv4 /16 that can have clients, all of one weight.
    pub fn sixteenths() -> Self {
        // The third octet varies, so that no rule for the first /24 of a /16 stands for all of it.
        let one = |i: u32| IpAddr::V4((i << 16 | (hash::mix(i.into()) as u32 & 0xff) << 8).into());
        let unicast = |first: u32| first != 0 && first != 127 && first < 224;
        Self((0..65_536u32).filter(|i| unicast(i >> 8)).map(|i| (one(i), 1.0)).collect())
    }

    /// Reads a list: an address or a prefix a line, and its weight (by default 1). Of a query log in JSON, the `client` of
    /// each line. Empty lines and `#` comments are nothing.
    ///
    /// # Errors
    /// A line means nothing, there are none, or there are too many.
    pub fn parse(text: &str) -> Result<Self, PopulationError> {
        let mut all = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (net, weight) = entry(line).ok_or(PopulationError::Line { line: number })?;
            all.push((net, weight));
            if all.len() > MOST {
                return Err(PopulationError::Long);
            }
        }
        let clients: Vec<(IpAddr, f64)> = all.into_iter().flat_map(|(net, weight)| spread(net, weight)).collect();
        if clients.iter().any(|(_, weight)| *weight > 0.0) { Ok(Self(clients)) } else { Err(PopulationError::Empty) }
    }

    /// At most `most` of it, evenly taken.
    #[must_use]
    pub fn thinned(self, most: usize) -> Self {
        let step = self.0.len().div_ceil(most.max(1)).max(1);
        Self(self.0.into_iter().step_by(step).collect())
    }

    /// How many clients stand for it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn entry(line: &str) -> Option<(IpNet, f64)> {
    let net = |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    if line.starts_with('{') {
        let said: serde_json::Value = serde_json::from_str(line).ok()?;
        return Some((net(said.get("client")?.as_str()?)?, 1.0));
    }
    let mut words = line.split([' ', '\t', ',']).filter(|w| !w.is_empty());
    let net = net(words.next()?)?;
    let weight: f64 = words.next().map_or(Some(1.0), |w| w.parse().ok())?;
    (weight >= 0.0 && weight.is_finite() && words.next().is_none()).then_some((net, weight))
}

/// The networks that stand for `net`, evenly over it.
fn spread(net: IpNet, weight: f64) -> Vec<(IpAddr, f64)> {
    // As clients are told apart by default.
    let width = if net.addr().is_ipv4() { 24 } else { 56 };
    let bits = u32::from(u8::saturating_sub(width, net.prefix_len()));
    let count = if bits >= SAMPLES.ilog2() { SAMPLES } else { 1 << bits };
    let each = |i: u32| match net.network() {
        IpAddr::V4(a) => IpAddr::V4((u32::from(a) + ((u64::from(i) << (bits + 8)) / u64::from(count)) as u32).into()),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) + (u128::from(i) << (bits + 72)) / u128::from(count)).into()),
    };
    if bits == 0 {
        return vec![(net.addr(), weight)];
    }
    (0..count).map(|i| (each(i), weight / f64::from(count))).collect()
}

/// One side of a change: how a name is steered.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// How.
    pub plan: &'a Plan,
    /// Names of its candidates.
    pub datacenters: &'a [&'a str],
    /// What stands for a client.
    pub prefix: (u8, u8),
}

impl<'a> Side<'a> {
    fn first(&self, address: IpAddr) -> &'a str {
        let choice = self.plan.choose(&Client::new(address, self.prefix));
        choice.picks().first().and_then(|i| self.datacenters.get(usize::from(*i))).copied().unwrap_or(NOBODY)
    }
}

/// What a change does to one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Movement {
    /// The name.
    pub name: String,
    /// The share of the population whose first datacenter is another one after the change.
    pub moved: f64,
    /// Shares by datacenter before; empty: the name is new.
    pub before: BTreeMap<String, f64>,
    /// Shares by datacenter after; empty: the name goes.
    pub after: BTreeMap<String, f64>,
    /// Who moves.
    pub flows: Vec<Flow>,
}

/// A share of the population that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// How much of the whole.
    pub share: f64,
}

/// What happens to `name` between `before` and `after`.
pub fn movement(name: &str, before: Option<Side<'_>>, after: Option<Side<'_>>, population: &Population) -> Movement {
    let (mut from, mut to, mut flows) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let whole: f64 = population.0.iter().map(|(_, weight)| weight).sum();
    for (address, weight) in &population.0 {
        let (old, new) = (before.map(|s| s.first(*address)), after.map(|s| s.first(*address)));
        for (side, name) in [(&mut from, old), (&mut to, new)] {
            if let Some(name) = name {
                *side.entry(name.to_owned()).or_insert(0.0) += weight;
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            *flows.entry((old, new)).or_insert(0.0) += weight;
        }
    }
    for share in from.values_mut().chain(to.values_mut()) {
        *share /= whole;
    }
    let mut flows: Vec<Flow> = flows
        .into_iter()
        .map(|((from, to), weight)| Flow { from: from.to_owned(), to: to.to_owned(), share: weight / whole })
        .collect();
    flows.sort_by(|a, b| b.share.total_cmp(&a.share));
    // Not `sum`: of nothing that is -0.
    let moved = flows.iter().map(|f| f.share).fold(0.0, |all, share| all + share);
    Movement { name: name.to_owned(), moved, before: from, after: to, flows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn populations_are_read_and_wide_prefixes_spread_over_their_networks() {
        let text = "# ours\n10.0.0.0/8 3\n\n192.0.2.7\n2001:db8::/32\t2\n{\"at\": 1, \"client\": \"198.51.100.1\"}\n";
        let population = Population::parse(text).unwrap();
        assert_eq!(population.len(), 256 + 1 + 256 + 1);
        let whole: f64 = population.0.iter().map(|(_, w)| w).sum();
        assert!((whole - 7.0).abs() < 1e-9);
        let wide: IpNet = "10.0.0.0/8".parse().unwrap();
        assert_eq!(population.0.iter().filter(|(a, _)| wide.contains(a)).count(), 256);
        assert_eq!(population.0[255].0, IpAddr::from([10, 255, 0, 0]));
        assert_eq!(spread("10.0.0.0/23".parse().unwrap(), 1.0).len(), 2);
        assert_eq!(spread("0.0.0.0/0".parse().unwrap(), 1.0)[255].0, IpAddr::from([255, 0, 0, 0]));
        for (text, wrong) in [
            ("", PopulationError::Empty),
            ("10.0.0.0/8 0", PopulationError::Empty),
            ("\nten", PopulationError::Line { line: 2 }),
            ("10.0.0.1 -1", PopulationError::Line { line: 1 }),
            ("10.0.0.1 1 2", PopulationError::Line { line: 1 }),
            ("{\"name\": \"a\"}", PopulationError::Line { line: 1 }),
        ] {
            assert_eq!(Population::parse(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn every_sixteenth_that_can_have_clients_stands_once() {
        let all = Population::sixteenths();
        assert_eq!(all.len(), 222 * 256);
        assert!(all.clone().thinned(1_000).len() <= 1_000 && all.clone().thinned(1 << 20) == all);
    }

    #[test]
    fn where_nobody_moves_nothing_moves_and_not_less() {
        let still = movement("www.", None, None, &Population::sixteenths());
        assert!(still.flows.is_empty() && still.moved.is_sign_positive(), "{}", still.moved);
    }
}
