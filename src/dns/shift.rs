//! What a change of the files or of `near` moves: the share of IPv4 addresses that are near to other datacenters than before.
//!
//! Compares what is in force with what takes its place, name by name, before anybody is answered by it. Reports, and decides
//! nothing: that `springtide reload` and the log show it is what keeps a swapped database from moving a continent unseen.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::table::Fixed;
use crate::config::Steer;
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
    let had: HashMap<&str, (usize, &Steer)> =
        steers(before).enumerate().map(|(id, steer)| (steer.name.as_str(), (id, steer))).collect();
    let mut pairs: Vec<(&Arc<Near>, &Arc<Near>, Shifted)> = Vec::new();
    for (id, steer) in steers(after).enumerate() {
        let Some(&(old_id, was)) = had.get(steer.name.as_str()) else { continue };
        if !steer.is_by_near() || !was.is_by_near() {
            continue;
        }
        let names: Vec<&str> = candidates(after, steer).collect();
        let (Some(then), Some(now)) = (old.near(old_id), new.near(id)) else { continue };
        if !candidates(before, was).eq(names.iter().copied()) {
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

fn steers(topology: &Topology) -> impl Iterator<Item = &Steer> {
    topology.config.dns.iter().flat_map(|dns| &dns.steers)
}

fn candidates<'t>(topology: &'t Topology, steer: &'t Steer) -> impl Iterator<Item = &'t str> {
    topology.config.candidates(steer).map(|dc| dc.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Datacenter, Member, Policy, Pool, Who};
    use crate::dns::fixture;

    /// The topology of three names, where Shenzhen is near to `near`: one by `near`, one whose pool is, one that is not.
    fn world(near: &str) -> Arc<Topology> {
        let dc = |place| Member { who: Who::Datacenter(place), weight: 0, standby: false };
        let south =
            Pool { name: "south".into(), policy: vec![Policy::Near], members: vec![dc(0), dc(1)], fail_below: 0.5 };
        let pooled = Steer {
            members: vec![Member { who: Who::Pool(south), weight: 80, standby: false }, dc(2)],
            ..fixture::steer("pooled.example.test.", &[Policy::Failover])
        };
        let steers = vec![
            fixture::steer("plain.example.test.", &[Policy::Near]),
            pooled,
            fixture::steer("weighted.example.test.", &[Policy::Weighted]),
        ];
        let topology = fixture::snapshot(Vec::new(), steers).topology;
        let mut config = (*topology.config).clone();
        let Datacenter { near: said, .. } = &mut config.datacenters[0];
        *said = vec![crate::config::Locality::Net(near.parse().unwrap())];
        Arc::new(Topology::build(Arc::new(config), topology.assets.clone(), None))
    }

    #[test]
    fn a_name_whose_pool_steers_by_near_moves_with_the_files() {
        let moved = shifts(&world("10.64.0.0/10"), &world("10.128.0.0/10"));
        let names: Vec<&str> = moved.iter().flat_map(|s| &s.names).map(String::as_str).collect();
        assert_eq!(names, ["plain.example.test.", "pooled.example.test."]);
        assert!(moved.iter().all(|s| (s.moved - 2.0 / 1_024.0).abs() < 1e-9), "{moved:?}");
        assert_eq!(shifts(&world("10.64.0.0/10"), &world("10.64.0.0/10")), []);
    }
}
