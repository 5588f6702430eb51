//! What the edge derives from a topology once and reads with every request: the route table, what routes change, and TLS
//! towards upstreams.
//!
//! It hangs in the topology, which only a reload replaces, so every generation of one topology shares it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::change::{self, Change};
use super::files::Shelf;
use super::mirror::Mirror;
use crate::base::ids::{ListenerId, RouteId, ServiceId};
use crate::config::{Action, Requirement, Route, Service};
use crate::decide::route::RouteTable;
use crate::decide::route::change::Detour;
use crate::decide::split::Sides;
use crate::net::tls;
use crate::snapshot::views::Slot;
use crate::snapshot::{Snapshot, Topology};

/// What the edge reads of a topology.
#[derive(Debug)]
pub struct View {
    /// The topology's serial.
    pub serial: u64,
    /// Routes, ready to be searched.
    pub routes: RouteTable,
    transports: Vec<Transport>,
    /// By route.
    ways: Vec<RouteView>,
    /// By listener: where everybody is sent.
    detours: Vec<Option<Box<Detour>>>,
    tells_ends: bool,
}

/// What a route has beyond a service; nothing, mostly.
#[derive(Debug, Default)]
pub(super) struct RouteView {
    /// What it changes.
    pub(super) change: Option<Box<Change>>,
    /// Where it sends its clients.
    pub(super) detour: Option<Box<Detour>>,
    /// The services that share its requests.
    pub(super) sides: Option<Box<Sides>>,
    /// Where copies go.
    pub(super) mirror: Option<Arc<Mirror>>,
    /// What a request must bring beside.
    pub(super) requires: Option<Box<Requirement>>,
    /// The files that it shows.
    pub(super) shelf: Option<Arc<Shelf>>,
}

/// How a service's backends are spoken to, below HTTP.
#[derive(Clone, Debug)]
pub enum Transport {
    /// In plaintext.
    Plain,
    /// Over TLS.
    Tls {
        /// With the ALPN of the service's protocol.
        config: Arc<ClientConfig>,
        /// The name to verify.
        name: ServerName<'static>,
    },
    /// TLS is wanted, and what it needs was not loaded: nothing is sent, least of all in plaintext.
    Unusable,
}

impl View {
    /// The view of the snapshot's topology; compiled by the first who asks.
    pub fn of(snapshot: &Snapshot) -> Arc<Self> {
        let topology = &snapshot.topology;
        // Another type in our slot would be a mistake in the program; compiling anew is slow but right.
        topology.views.of(Slot::Proxy, || Self::compile(topology)).unwrap_or_else(|| Arc::new(Self::compile(topology)))
    }

    fn compile(topology: &Topology) -> Self {
        Self {
            serial: topology.serial,
            routes: RouteTable::compile(&topology.config.routes),
            ways: topology.config.routes.iter().map(|route| RouteView::of(route, topology)).collect(),
            detours: topology.config.listeners.iter().map(change::detour_of).collect(),
            tells_ends: topology.config.services.iter().any(|service| service.proxy_protocol.is_some()),
            transports: topology.config.services.iter().map(|service| Transport::of(topology, service)).collect(),
        }
    }

    /// What `route` has beyond a service.
    pub(super) fn way(&self, route: RouteId) -> Option<&RouteView> {
        self.ways.get(route.index())
    }

    /// The files that routes show.
    pub(super) fn shelves(&self) -> impl Iterator<Item = &Arc<Shelf>> {
        self.ways.iter().filter_map(|way| way.shelf.as_ref())
    }

    /// Where `listener` sends everybody who is not there yet.
    pub(super) fn detour(&self, listener: ListenerId) -> Option<&Detour> {
        self.detours.get(listener.index())?.as_deref()
    }

    /// Whether backends of any service are told of the ends of a client's connection.
    pub(super) fn tells_ends(&self) -> bool {
        self.tells_ends
    }

    /// How the backends of `service` are spoken to.
    pub fn transport(&self, service: ServiceId) -> &Transport {
        self.transports.get(service.index()).unwrap_or(&Transport::Unusable)
    }
}

impl RouteView {
    /// Whether what backends are told of this hop has to stand in the head itself: somebody looks at it, or changes it.
    pub(super) fn needs_fields(&self) -> bool {
        self.change.is_some() || self.mirror.is_some()
    }

    fn of(route: &Route, topology: &Topology) -> Self {
        let name = |service: ServiceId| topology.service(service).name.as_str();
        let (detour, sides) = match &route.action {
            Action::Redirect(redirect) => (Some(change::detour(redirect, &route.matches)), None),
            Action::Split(split) => (None, Some(Box::new(Sides::of(split, name)))),
            Action::Forward(_) | Action::Respond { .. } | Action::Files(_) => (None, None),
        };
        let requires = route.requires.clone().map(Box::new);
        let (mirror, shelf) = (Mirror::of(route), Shelf::of(route));
        Self { change: Change::of(route), detour, sides, mirror, requires, shelf }
    }
}

impl Transport {
    fn of(topology: &Topology, service: &Service) -> Self {
        let Some(wanted) = &service.tls else { return Self::Plain };
        match (topology.assets.upstream_tls.get(wanted), ServerName::try_from(wanted.name.clone())) {
            (Some(config), Ok(name)) => Self::Tls { config: tls::speaking(config, service.protocol), name },
            _ => Self::Unusable,
        }
    }
}
