//! What sources of backends have found: by source, the list that is in force.
//!
//! It is a part of the topology's assets, so it is swapped with everything else, whole or not at all. A list keeps its order:
//! who stays stands where it stood, who is new comes after it. What may be believed of an answer is `decide::discover`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Source};

/// A backend that was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Found {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share beside the others.
    pub weight: u32,
    /// What it is called where it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
}

/// Which source, by what it is about: the same after a reload, and on disk.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceKey {
    /// The service's name.
    pub service: String,
    /// The datacenter's name.
    pub datacenter: String,
    /// What is asked, as [`Origin`](crate::config::Origin) is displayed.
    pub origin: String,
}

impl SourceKey {
    /// That of `source` in `config`.
    pub fn of(config: &Config, source: &Source) -> Self {
        let service = config.services.get(source.service.index()).map(|s| s.name.clone());
        let datacenter = config.datacenters.get(source.datacenter.index()).map(|d| d.name.clone());
        Self {
            service: service.unwrap_or_default(),
            datacenter: datacenter.unwrap_or_default(),
            origin: source.origin.to_string(),
        }
    }
}

/// Every list in force. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered(Arc<BTreeMap<SourceKey, Arc<[Found]>>>);

impl Discovered {
    /// What `source` has found; nothing where it was never asked.
    pub fn of(&self, source: &SourceKey) -> Arc<[Found]> {
        self.0.get(source).cloned().unwrap_or_default()
    }

    /// Whether a list of `source` is known at all, be it an empty one.
    pub fn knows(&self, source: &SourceKey) -> bool {
        self.0.contains_key(source)
    }

    /// All lists.
    pub fn lists(&self) -> impl Iterator<Item = (&SourceKey, &Arc<[Found]>)> {
        self.0.iter()
    }
}

impl FromIterator<(SourceKey, Arc<[Found]>)> for Discovered {
    fn from_iter<I: IntoIterator<Item = (SourceKey, Arc<[Found]>)>>(lists: I) -> Self {
        Self(Arc::new(lists.into_iter().collect()))
    }
}
