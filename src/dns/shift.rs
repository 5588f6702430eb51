//! What a change of the files or of `near` moves: the share of IPv4 addresses that are near to other datacenters than before.
//!
//! Compares what is in force with what takes its place, name by name, before anybody is answered by it. Reports, and decides
//! nothing: that `springtide reload` and the log show it is what keeps a swapped database from moving a continent unseen.

use std::sync::Arc;

use serde::Serialize;

use super::table::Fixed;
use crate::config::Policy;
use crate::decide::near::Near;
use crate::snapshot::Topology;

/// Steered names that the change moves, and how much. Names of equal candidates stand together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shifted {
    /// The names.
    pub names: Vec<String>,
    /// The share of IPv4 addresses that are near to other datacenters than before.
    pub moved: f64,
    /// By datacenter.
    pub datacenters: Vec<Reach>,
}

/// The share of IPv4 addresses that is near to a datacenter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reach {
    /// The datacenter.
    pub name: String,
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

/// What moves when `after` takes the place of `before`, for names that both steer by `near` among equal candidates. Empty:
/// nothing moves.
pub fn shifts(before: &Topology, after: &Topology) -> Vec<Shifted> {
    let (old, new) = (Fixed::of(before), Fixed::of(after));
    let mut pairs: Vec<(&Arc<Near>, &Arc<Near>, Shifted)> = Vec::new();
    for (id, steer) in after.config.dns.iter().flat_map(|dns| dns.steers.iter().enumerate()) {
        let was =
            before.config.dns.iter().flat_map(|dns| dns.steers.iter().enumerate()).find(|(_, s)| s.name == steer.name);
        let Some((old_id, was)) = was.filter(|_| steer.policy.contains(&Policy::Near)) else { continue };
        let names = candidates(after, steer);
        let (Some(then), Some(now)) = (old.near(old_id), new.near(id)) else { continue };
        if candidates(before, was) != names {
            continue;
        }
        if let Some((.., known)) = pairs.iter_mut().find(|(a, b, _)| Arc::ptr_eq(a, then) && Arc::ptr_eq(b, now)) {
            known.names.push(steer.name.clone());
            continue;
        }
        let shift = then.shift(now);
        let share = |(name, (before, after)): (&str, (f64, f64))| Reach { name: name.to_owned(), before, after };
        let datacenters = names.into_iter().zip(shift.near).map(share).collect();
        pairs.push((then, now, Shifted { names: vec![steer.name.clone()], moved: shift.moved, datacenters }));
    }
    pairs.into_iter().map(|(.., shifted)| shifted).filter(|shifted| shifted.moved > 0.0).collect()
}

fn candidates<'t>(topology: &'t Topology, steer: &crate::config::Steer) -> Vec<&'t str> {
    let datacenters = &topology.config.datacenters;
    steer.datacenters.iter().filter_map(|(dc, _)| datacenters.get(dc.index()).map(|dc| dc.name.as_str())).collect()
}
