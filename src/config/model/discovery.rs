//! Where backends are found that the file does not name.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::ids::{DatacenterId, ServiceId};

/// Most backends that one source may have (ours: Maglev's table wants a hundred slots for each).
pub const MOST_FOUND: usize = 1_024;

/// How backends are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Who is asked for names; those of the system where this is empty.
    pub resolvers: Vec<SocketAddr>,
    /// Where to look, services in their order.
    pub sources: Vec<Source>,
}

/// A place where backends of a service in a datacenter are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose.
    pub service: ServiceId,
    /// Where they stand.
    pub datacenter: DatacenterId,
    /// What is asked.
    pub origin: Origin,
    /// The weight of those of whom nothing is said; the factor of SRV weights is not this one.
    pub weight: u32,
    /// How long it must say that most of its backends have gone before that is believed.
    pub keep: Duration,
}

/// What is asked for backends. Displayed, it names the source in metrics, tables and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Addresses of a name, at a port.
    Dns {
        /// Absolute, lower case.
        name: String,
        /// Where they listen.
        port: u16,
    },
    /// SRV records of a name.
    Srv {
        /// Absolute, lower case.
        name: String,
    },
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// The port of addresses without one.
        port: Option<u16>,
    },
    /// Backends that announce themselves.
    Register {
        /// Which addresses may; none are named where all may.
        allow: Vec<IpNet>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns { name, port } => write!(f, "dns:{name}:{port}"),
            Self::Srv { name } => write!(f, "srv:{name}"),
            Self::File { path, .. } => write!(f, "file:{}", path.display()),
            Self::Register { .. } => f.write_str("register"),
        }
    }
}
