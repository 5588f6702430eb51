//! What is planned for datacenters by time: drains and weights, each from a moment until another.
//!
//! Nothing is remembered and nothing fires: what is in force follows from the configuration and the wall clock, so a restart
//! in the middle of a drain drains, and every node with the same file and a right clock does the same at the same time.

use std::time::Duration;

use crate::base::clock::Wall;
use crate::base::ids::DatacenterId;
use crate::config::{Dns, Schedule};

/// What is in force at `wall`, in the order of the configuration.
pub fn in_force(dns: Option<&Dns>, wall: Wall) -> impl Iterator<Item = &Schedule> {
    let all = dns.map(|d| d.schedules.as_slice()).unwrap_or_default();
    all.iter().filter(move |s| s.from <= wall && wall < s.until)
}

/// How long it is until what is planned for one of `datacenters` begins or ends, at the soonest.
pub fn until_next(schedules: &[Schedule], datacenters: &[(DatacenterId, u32)], wall: Wall) -> Option<Duration> {
    let ours = schedules.iter().filter(|s| datacenters.iter().any(|(dc, _)| *dc == s.datacenter));
    ours.flat_map(|s| [s.from, s.until]).filter(|at| *at > wall).map(|at| at.since(wall)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Planned;

    fn plan(dc: usize, from: u64, until: u64, action: Planned) -> Schedule {
        Schedule { datacenter: DatacenterId::new(dc), from: Wall(from), until: Wall(until), action }
    }

    #[test]
    fn a_plan_is_in_force_from_its_first_moment_until_before_its_last() {
        let schedules = vec![plan(0, 1_000, 2_000, Planned::Drain), plan(1, 0, 9_000, Planned::Weight(7))];
        let dns = Dns { schedules, ..Dns::default() };
        let at = |wall| in_force(Some(&dns), Wall(wall)).map(|s| (s.datacenter.index(), s.action)).collect::<Vec<_>>();
        let (drain, weight) = ((0, Planned::Drain), (1, Planned::Weight(7)));
        assert_eq!((at(999), at(1_000)), (vec![weight], vec![drain, weight]));
        assert_eq!((at(1_999), at(2_000), at(9_000)), (vec![drain, weight], vec![weight], vec![]));
        assert_eq!(in_force(None, Wall(1_500)).count(), 0);
    }

    #[test]
    fn the_next_boundary_counts_for_names_that_have_the_datacenter() {
        let schedules = [plan(0, 1_000, 2_000, Planned::Drain), plan(1, 500, 9_000, Planned::Drain)];
        let until = |dcs: &[usize], wall| {
            let all: Vec<_> = dcs.iter().map(|dc| (DatacenterId::new(*dc), 1)).collect();
            until_next(&schedules, &all, Wall(wall)).map(|d| d.as_millis())
        };
        assert_eq!((until(&[0], 0), until(&[0], 1_000), until(&[0], 2_000)), (Some(1_000), Some(1_000), None));
        assert_eq!((until(&[0, 1], 0), until(&[2], 0)), (Some(500), None));
    }
}
