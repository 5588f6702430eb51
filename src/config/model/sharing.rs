//! Several services behind one route: shares of its requests, and copies of them.

use ipnet::IpNet;

use super::routing::UserKey;
use crate::base::ids::ServiceId;

/// Services that share the requests of a route: gray release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Each with its weight beside the others; 0 is reached by choice only.
    pub sides: Vec<(ServiceId, u32)>,
    /// How a client may choose its side.
    pub choice: Option<Override>,
}

/// How a client may choose its side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// A header or a cookie.
    pub by: UserKey,
    /// Its values, each with the place of the side in [`Split::sides`]. Any other value says nothing.
    pub values: Vec<(String, usize)>,
    /// Clients who may; empty: all.
    pub from: Vec<IpNet>,
}

/// Copies of requests for a service whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// The shadow.
    pub service: ServiceId,
    /// The share of requests that is copied. Default 1.
    pub share: f64,
    /// Copies under way at a time; beyond them none are made. Default 64.
    pub concurrent: u32,
}
