//! What operators want, resolved against what exists: from names and addresses to ids.
//!
//! A wish for something that does not exist is kept (a reload may bring it) and has no effect. Where wishes for a place and
//! for a part of it differ, the harder state wins (down over drain), and the weight nearest to the part. What is planned for
//! a datacenter counts where no operator says otherwise.

use std::net::SocketAddr;

use super::schedule;
use crate::base::clock::Wall;
use crate::base::ids::{DatacenterId, ServiceId};
use crate::config::Planned;
use crate::snapshot::Topology;
use crate::snapshot::intent::{Intents, Subject, Wish};
use crate::snapshot::topology::Backend;

/// How an operator takes something out. Ordered: the harder one last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taken {
    /// Nothing new.
    Drained,
    /// Nothing at all.
    Down,
}

/// What is wanted of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Whether and how it is taken out.
    pub taken: Option<Taken>,
    /// The weight that replaces the configured one.
    pub weight: Option<u32>,
    /// A part of this is planned, and no operator's wish.
    pub planned: bool,
}

impl Order {
    const fn add(&mut self, wish: Wish) {
        match wish {
            // Down stays down, whatever else is said of the same thing.
            Wish::Drain if self.taken.is_none() => self.taken = Some(Taken::Drained),
            Wish::Drain => {}
            Wish::Down => self.taken = Some(Taken::Down),
            Wish::Weight(weight) => self.weight = Some(weight),
        }
    }
}

/// All that is wanted.
#[derive(Clone, Debug)]
pub struct Orders {
    datacenters: Vec<Order>,
    services: Vec<Order>,
    backends: Vec<(SocketAddr, Option<ServiceId>, Wish)>,
}

impl Orders {
    /// Resolves `intents` against `topology`, and adds what is planned for `wall`.
    pub fn of(intents: &Intents, topology: &Topology, wall: Wall) -> Self {
        let config = &topology.config;
        let width = config.datacenters.len();
        let datacenter_of = |name: &str| config.datacenters.iter().position(|d| d.name == name);
        let service_of = |name: &str| config.services.iter().position(|s| s.name == name);
        let mut orders = Self {
            datacenters: vec![Order::default(); width],
            services: vec![Order::default(); width * config.services.len()],
            backends: Vec::new(),
        };
        for intent in &intents.entries {
            match &intent.subject {
                Subject::Datacenter(name) => {
                    if let Some(order) = datacenter_of(name).and_then(|d| orders.datacenters.get_mut(d)) {
                        order.add(intent.wish);
                    }
                }
                Subject::Service { service, datacenter } => {
                    let at = service_of(service).zip(datacenter_of(datacenter)).map(|(s, d)| s * width + d);
                    if let Some(order) = at.and_then(|at| orders.services.get_mut(at)) {
                        order.add(intent.wish);
                    }
                }
                Subject::Backend { address, service } => {
                    let known = service.as_deref().map(|s| service_of(s).map(ServiceId::new));
                    if let (Ok(address), None | Some(Some(_))) = (address.parse(), known) {
                        orders.backends.push((address, known.flatten(), intent.wish));
                    }
                }
            }
        }
        // A wish of now comes before a plan of yesterday.
        for plan in schedule::in_force(config.dns.as_ref(), wall) {
            let Some(order) = orders.datacenters.get_mut(plan.datacenter.index()) else { continue };
            match plan.action {
                Planned::Drain if order.taken.is_none() => (order.taken, order.planned) = (Some(Taken::Drained), true),
                Planned::Weight(weight) if order.weight.is_none() => {
                    (order.weight, order.planned) = (Some(weight), true);
                }
                Planned::Drain | Planned::Weight(_) => {}
            }
        }
        // What speaks of one service comes last, so that its weight wins over what speaks of all.
        orders.backends.sort_by_key(|(_, service, _)| service.is_some());
        orders
    }

    /// Of a datacenter as a whole.
    pub fn datacenter(&self, datacenter: DatacenterId) -> Order {
        self.datacenters.get(datacenter.index()).copied().unwrap_or_default()
    }

    /// Of a service in a datacenter by itself, without what is said of the datacenter.
    pub fn service_alone(&self, service: ServiceId, datacenter: DatacenterId) -> Order {
        self.services.get(service.index() * self.datacenters.len() + datacenter.index()).copied().unwrap_or_default()
    }

    /// Of a service in a datacenter.
    pub fn service(&self, service: ServiceId, datacenter: DatacenterId) -> Order {
        let (part, whole) = (self.service_alone(service, datacenter), self.datacenter(datacenter));
        let planned = whole.planned;
        Order { taken: part.taken.max(whole.taken), weight: part.weight.or(whole.weight), planned }
    }

    /// Of a backend: the state with all that it is part of, the weight of its own.
    pub fn backend(&self, backend: &Backend) -> Order {
        let mut order = Order::default();
        for (address, service, wish) in &self.backends {
            if *address == backend.spec.address && service.is_none_or(|s| s == backend.service) {
                order.add(*wish);
            }
        }
        order.taken = order.taken.max(self.service(backend.service, backend.spec.datacenter).taken);
        order
    }
}
