//! Where spans go, as the configuration in force has it, and who is told to send them.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::config::{Endpoint, Protocol};
use crate::net::tls;
use crate::proxy::spans::Page;
use crate::snapshot::Topology;
use crate::wire::otlp::{self, Attributes};

/// A collector.
pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// The endpoint's authority, as `Host` has it, and its path.
    pub(super) host: String,
    pub(super) path: Uri,
    /// How it is verified, where it speaks TLS.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    /// What is told of this node.
    resource: Vec<(String, String)>,
}

impl Target {
    /// The one of `topology`; `None`: nothing is exported.
    pub(super) fn of(topology: &Topology) -> Option<Self> {
        let config = &topology.config;
        let export = config.trace.as_ref()?.export.as_ref()?;
        let tls = match &export.tls {
            Some(wanted) => {
                // Both were there when the configuration was checked; in plaintext nothing is sent instead.
                let client = topology.assets.upstream_tls.get(wanted)?;
                Some((tls::speaking(client, Protocol::Http1), ServerName::try_from(wanted.name.clone()).ok()?))
            }
            None if export.endpoint.is_tls => return None,
            None => None,
        };
        let node = &config.node;
        let datacenter = node.datacenter.and_then(|id| config.datacenters.get(id.index()));
        let mut resource = vec![
            ("service.name".to_owned(), "springtide".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), node.name.clone()),
        ];
        resource.extend(datacenter.map(|d| ("springtide.datacenter".to_owned(), d.name.clone())));
        for (name, value) in &export.attributes {
            resource.retain(|(known, _)| known != name);
            resource.push((name.clone(), value.clone()));
        }
        let Endpoint { host, port, is_tls, path } = &export.endpoint;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_usual = *port == if *is_tls { 443 } else { 80 };
        Some(Self {
            host: if is_usual { host } else { format!("{host}:{port}") },
            path: path.parse().ok()?,
            endpoint: export.endpoint.clone(),
            tls,
            headers: topology.assets.export_headers.clone(),
            timeout: export.timeout,
            resource,
        })
    }

    /// The body of a request with `pages`.
    pub(super) fn request(&self, pages: &[Page]) -> Vec<u8> {
        let resource = |add: &mut Attributes<'_>| {
            self.resource.iter().for_each(|(name, value)| add.text(name, value.as_bytes()));
        };
        let scope = ("springtide", env!("CARGO_PKG_VERSION"));
        otlp::request(resource, scope, pages.iter().map(|page| page.octets.as_slice()))
    }
}
