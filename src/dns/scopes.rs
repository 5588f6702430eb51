//! Whether client subnets divide the answers of any name into more classes than are allowed.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use super::table::Fixed;
use crate::config::{Config, Dns};
use crate::decide::near::Near;
use crate::decide::steer::{Division, Fences};
use crate::snapshot::Topology;

/// Into how many classes client subnets divide the answers of each steered name, as [`Division`] has it. Names that the same
/// maps divide are counted once.
pub(super) fn count(
    config: &Config,
    dns: &Dns,
    near: &[Arc<Near>],
    fences: &[Option<Arc<Fences>>],
) -> Vec<Option<u64>> {
    let mut known = HashMap::new();
    let names = dns.steers.iter().zip(near).zip(fences);
    let classes = names.map(|((steer, near), fences)| {
        let division = Division::of(config, steer, near, fences.as_deref()).filter(|_| dns.ecs)?;
        let clients: Vec<_> = steer.fences.iter().map(|fence| fence.clients.as_slice()).collect();
        Some(*known.entry((division.near.map(ptr::from_ref), clients)).or_insert_with(|| division.classes()))
    });
    classes.collect()
}

/// A name whose answers client subnets would divide into too many classes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` would have {classes} classes of client subnets, more than the {most} of `dns.ecs_max_classes`: name fewer or wider places in `near` and `fence`, lower `dns.client_prefix_v4` and `_v6`, or raise it"
)]
pub struct Divided {
    /// The name.
    pub name: String,
    /// How many it would have.
    pub classes: u64,
    /// How many it may have.
    pub most: u64,
}

/// The names of `topology` that have more classes than its configuration allows.
pub fn too_divided(topology: &Topology) -> Vec<Divided> {
    let Some((dns, most)) = topology.config.dns.as_ref().and_then(|dns| Some((dns, dns.ecs_max_classes?))) else {
        return Vec::new();
    };
    let fixed = Fixed::of(topology);
    let classes = dns.steers.iter().enumerate().filter_map(|(i, steer)| Some((steer, fixed.classes(i)?)));
    let beyond = classes.filter(|(_, classes)| *classes > most);
    beyond.map(|(steer, classes)| Divided { name: steer.name.clone(), classes, most }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Policy;
    use crate::dns::fixture;

    /// The names are near to 10.1/16, 10.2/16, 10.1.128/20, 10.3/16 and 2001:db8:1000::/36.
    fn topology(most: u64, policy: &[Policy]) -> Topology {
        let steers = vec![fixture::steer("www.example.test.", policy), fixture::steer("www2.example.test.", policy)];
        let built = fixture::snapshot(vec![fixture::zone("example.test.", fixture::ZONE)], steers).topology;
        let mut config = (*built.config).clone();
        config.dns.iter_mut().for_each(|dns| dns.ecs_max_classes = Some(most));
        Topology::build(Arc::new(config), built.assets.clone(), None)
    }

    #[test]
    fn classes_are_the_blocks_that_are_told_a_scope() {
        let near = [Policy::Near, Policy::Failover];
        let all: Vec<u64> = too_divided(&topology(1, &near)).iter().map(|d| d.classes).collect();
        let count = all[0];
        assert_eq!(all, [count, count]);
        // IPv4, block by block: seven bits lead to 10.0.0.0/8 and eight more to the three /16 and the one beside them, of
        // which one is divided by four bits more. Of IPv6, what stands for IPv4 is divided alike.
        assert!((56..400).contains(&count), "{count}");
        assert_eq!(too_divided(&topology(count, &near)), []);
        let said = too_divided(&topology(count - 1, &near))[0].to_string();
        assert!(
            said.starts_with(&format!(
                "`www.example.test.` would have {count} classes of client subnets, more than the"
            )),
            "{said}"
        );
        assert_eq!(too_divided(&topology(1, &[Policy::Near, Policy::Weighted])), [], "a hash tells them apart");
        assert_eq!(too_divided(&topology(1, &[Policy::Failover])), [], "nothing tells them apart");
    }
}
