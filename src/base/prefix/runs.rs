//! Stretches of addresses with one value each, in order and without gaps: what prefix maps are made from and merged from.
//!
//! Rules that nest, a database's networks and a list's prefixes all become runs; laid over each other they become the one
//! map that queries are answered by. Building sorts and sweeps: no trie, and memory in proportion to the runs.

use std::net::IpAddr;

use ipnet::IpNet;

/// From this address on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<V> {
    /// First address, at the top of 128 bits in both families.
    pub(super) first: u128,
    pub(super) value: V,
}

/// What holds where, over both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs<V> {
    pub(super) v4: Vec<Run<V>>,
    pub(super) v6: Vec<Run<V>>,
}

impl<V: Copy + Eq> Runs<V> {
    /// The longest rule wins, of equal prefixes the last one; what no rule matches has the value `otherwise`.
    pub fn nested(rules: impl IntoIterator<Item = (IpNet, V)>, otherwise: V) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, value) in rules {
            let rules = if matches!(net, IpNet::V4(_)) { &mut v4 } else { &mut v6 };
            rules.push(Rule { first: bits(net.network()), length: net.prefix_len(), value });
        }
        Self { v4: sweep(v4, otherwise), v6: sweep(v6, otherwise) }
    }

    /// From `first` on this value holds, up to what is appended next; each family in order, from its lowest address.
    pub fn append(&mut self, first: IpAddr, value: V) {
        let runs = if first.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        append(runs, bits(first), value);
    }

    /// What holds at `address`; `None` only where nothing was ever appended.
    pub fn at(&self, address: IpAddr) -> Option<V> {
        let (runs, bits) = (if address.is_ipv4() { &self.v4 } else { &self.v6 }, bits(address));
        let after = runs.partition_point(|run| run.first <= bits);
        runs.get(after.checked_sub(1)?).map(|run| run.value)
    }

    /// How many runs there are, both families together.
    pub fn count(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Lays `layers` over each other: `combine` says what holds where those values of theirs meet.
    pub fn overlay<W: Copy + Eq>(layers: &[&Runs<V>], mut combine: impl FnMut(&[V]) -> W) -> Runs<W> {
        let family = |of: fn(&Runs<V>) -> &[Run<V>], combine: &mut dyn FnMut(&[V]) -> W| {
            meet(&layers.iter().map(|l| of(l)).collect::<Vec<_>>(), combine)
        };
        Runs { v4: family(|l| &l.v4, &mut combine), v6: family(|l| &l.v6, &mut combine) }
    }
}

pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => a.into(),
    }
}

struct Rule<V> {
    first: u128,
    length: u8,
    value: V,
}

/// Appends a run; one that begins where the last did takes its place, one that says the same as it lengthens it.
fn append<V: Copy + Eq>(runs: &mut Vec<Run<V>>, first: u128, value: V) {
    if runs.last().is_some_and(|last| last.first == first) {
        runs.pop();
    }
    if runs.last().is_none_or(|last| last.value != value) {
        runs.push(Run { first, value });
    }
}

fn sweep<V: Copy + Eq>(mut rules: Vec<Rule<V>>, otherwise: V) -> Vec<Run<V>> {
    // Stable: of equal prefixes the last one comes last, and so on top.
    rules.sort_by_key(|rule| (rule.first, rule.length));
    let mut runs = vec![Run { first: 0, value: otherwise }];
    // The rules around the place that the sweep has come to, the longest last, each with its last address.
    let mut around: Vec<(u128, V)> = Vec::new();
    let leave = |around: &mut Vec<(u128, V)>, runs: &mut Vec<Run<V>>| {
        let ended = around.pop();
        if let Some(next) = ended.and_then(|(last, _)| last.checked_add(1)) {
            append(runs, next, around.last().map_or(otherwise, |(_, value)| *value));
        }
    };
    for rule in rules {
        while around.last().is_some_and(|(last, _)| *last < rule.first) {
            leave(&mut around, &mut runs);
        }
        let last = rule.first | u128::MAX.checked_shr(rule.length.into()).unwrap_or(0);
        append(&mut runs, rule.first, rule.value);
        around.push((last, rule.value));
    }
    while !around.is_empty() {
        leave(&mut around, &mut runs);
    }
    runs
}

fn meet<V: Copy + Eq, W: Copy + Eq>(layers: &[&[Run<V>]], combine: &mut dyn FnMut(&[V]) -> W) -> Vec<Run<W>> {
    let mut out = Vec::new();
    let mut rest: Vec<&[Run<V>]> = layers.to_vec();
    let mut values: Vec<V> = layers.iter().filter_map(|l| l.first().map(|run| run.value)).collect();
    if values.len() != layers.len() {
        // A layer that says nothing about this family: there is nothing to meet.
        return out;
    }
    let mut first = 0;
    loop {
        let mut next: Option<u128> = None;
        for (value, runs) in values.iter_mut().zip(&mut rest) {
            while let [run, tail @ ..] = *runs
                && run.first <= first
            {
                *value = run.value;
                *runs = tail;
            }
            next = match (next, runs.first()) {
                (Some(next), Some(run)) => Some(next.min(run.first)),
                (next, run) => next.or(run.map(|run| run.first)),
            };
        }
        append(&mut out, first, combine(&values));
        match next {
            Some(next) => first = next,
            None => return out,
        }
    }
}
