//! What the answers of steered names are derived from, by datacenter and by service: so that ten thousand names are not looked
//! at ten times a second to find that nothing has changed.
//!
//! One number holds all that a name takes from one place, exactly; two of them that are equal lead to the same answers.

use std::time::Duration;

use crate::base::clock::{Mono, Wall};
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::{Config, Steer};
use crate::decide::orders::Orders;
use crate::decide::{schedule, ttl, weight};
use crate::snapshot::{Snapshot, Topology};

/// Set in a packed time that is there.
const SOME: u128 = 1 << 32;
/// Bits of a packed time or weight that may be missing.
const OPTIONAL: u32 = 33;

/// What all names are derived from at one moment.
pub(super) struct Basis<'a> {
    config: &'a Config,
    /// One for everything, one for each datacenter, one for each service in each datacenter; in the lowest bits of each the
    /// seconds until something may change there.
    pub(super) packed: Vec<u128>,
}

impl<'a> Basis<'a> {
    /// That of `next`, in which backends and weights have been derived.
    pub(super) fn of(next: &Snapshot, topology: &'a Topology, orders: &Orders, now: Mono, wall: Wall) -> Self {
        let config = &*topology.config;
        let dns = config.dns.as_ref();
        // No TTL is longer, so a change beyond it is none yet: a wish that ends in an hour counts down for nobody.
        let longest = dns.iter().flat_map(|d| &d.steers).map(|s| s.ttl_base).max().unwrap_or_default().as_secs();
        let near = |at: Option<Duration>| at.map(|at| at.as_secs()).filter(|at| *at < longest).map(|at| at as u32);
        let intent = ttl::until_intent(&next.intents, wall);
        let soonest = if next.isolated_since.is_some() { Some(Duration::ZERO) } else { intent };
        let mut packed = vec![u128::from(topology.serial) << OPTIONAL | optional(near(soonest))];
        let planned = dns.map(|d| d.schedules.as_slice()).unwrap_or_default();
        packed.extend(topology.datacenter_ids().map(|dc| {
            let order = orders.datacenter(dc);
            let taken = order.taken.map_or(0, |t| 1 + t as u128);
            let soonest = near(schedule::until_next(planned, &[(dc, 0)], wall));
            join(&[(taken, 2), (order.planned.into(), 1), (optional(order.weight), OPTIONAL)], soonest)
        }));
        let ramp = config.health.ramp;
        packed.extend(
            topology.service_ids().flat_map(|service| topology.datacenter_ids().map(move |dc| (service, dc))).map(
                |(service, dc)| {
                    let members = topology.members(service, dc);
                    if members.is_empty() {
                        return 0;
                    }
                    let member = |&id: &crate::base::ids::BackendId| {
                        let target = topology.backend(id).target;
                        let probe = |t: crate::base::ids::TargetId| Some(&topology.targets.get(t.index())?.probe);
                        let verdict = target.and_then(|t| ttl::until_verdict(next.target(t), probe(t)?));
                        let ejection = next.backend(id).ejected.map(|(_, until)| until.since(now));
                        verdict.into_iter().chain(ejection).min()
                    };
                    let weight = next.weight(service, dc);
                    let soonest = members.iter().filter_map(member).chain(ttl::until_weight(weight, ramp, now)).min();
                    let wished = optional(orders.service_alone(service, dc).weight);
                    join(
                        &[(weight.state as u128 + 1, 4), (weight.factor.into(), 32), (wished, OPTIONAL)],
                        near(soonest),
                    )
                },
            ),
        );
        Self { config, packed }
    }

    /// Whether anything has changed since `before` that `steer` is derived from.
    pub(super) fn differs(&self, before: &[u128], steer: &Steer) -> bool {
        before.len() != self.packed.len() || self.places(steer).any(|at| before.get(at) != self.packed.get(at))
    }

    /// When an answer for `steer` could change at the soonest; `None`: nothing points to a change within any TTL.
    pub(super) fn soonest(&self, steer: &Steer) -> Option<Duration> {
        let seconds = |at: usize| self.packed.get(at).filter(|p| **p & SOME != 0).map(|p| u64::from(*p as u32));
        self.places(steer).filter_map(seconds).min().map(Duration::from_secs)
    }

    /// Where what `steer` is derived from stands.
    fn places<'s>(&'s self, steer: &'s Steer) -> impl Iterator<Item = usize> + 's {
        let width = self.config.datacenters.len();
        let of = move |service: ServiceId, dc: DatacenterId| 1 + width + service.index() * width + dc.index();
        let each = move |&(dc, _): &(DatacenterId, u32)| {
            let services = weight::deciding(steer, self.config).map(move |service| of(service, dc));
            std::iter::once(1 + dc.index()).chain(services)
        };
        std::iter::once(0).chain(steer.datacenters.iter().flat_map(each))
    }
}

fn optional(value: Option<u32>) -> u128 {
    value.map_or(0, |value| SOME | u128::from(value))
}

/// Numbers of so many bits each side by side, the time until a change in the lowest.
fn join(parts: &[(u128, u32)], soonest: Option<u32>) -> u128 {
    parts.iter().fold(0, |all, (value, bits)| all << bits | value) << OPTIONAL | optional(soonest)
}
