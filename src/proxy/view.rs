//! What the edge derives from a topology once and reads with every request: the route table and TLS towards upstreams.
//!
//! It hangs in the topology, which only a reload replaces, so every generation of one topology shares it.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::base::ids::ServiceId;
use crate::config::Service;
use crate::decide::route::RouteTable;
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
            transports: topology.config.services.iter().map(|service| Transport::of(topology, service)).collect(),
        }
    }

    /// How the backends of `service` are spoken to.
    pub fn transport(&self, service: ServiceId) -> &Transport {
        self.transports.get(service.index()).unwrap_or(&Transport::Unusable)
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
