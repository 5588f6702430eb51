//! Into how many classes client subnets divide the answers of a name: blocks of addresses, each with a scope of its own.
//!
//! A resolver asks for every class by itself and keeps it by itself (RFC 7871 section 7.3.1), so their number is what a map
//! costs resolvers, and what it costs us in queries. Where a hash tells clients apart, every client prefix is a class, and
//! there is nothing to count.

use std::net::IpAddr;

use super::Fences;
use super::plan::by_hash;
use crate::config::{Config, Steer};
use crate::decide::near::Near;

/// What alone divides the clients of a name: maps.
#[derive(Clone, Copy, Debug)]
pub struct Division<'m> {
    /// Who is near, where that counts.
    pub near: Option<&'m Near>,
    /// Who is fenced.
    pub fences: Option<&'m Fences>,
    prefix: (u8, u8),
}

impl<'m> Division<'m> {
    /// What divides the clients of `steer`; `None` where a hash tells them apart, or nothing does.
    pub fn of(config: &Config, steer: &Steer, near: &'m Near, fences: Option<&'m Fences>) -> Option<Self> {
        let near = Some(near).filter(|_| !steer.datacenters.is_empty() && steer.is_by_near());
        let prefix = config.dns.as_ref()?.client_prefix;
        (!by_hash(config, steer) && (near.is_some() || fences.is_some())).then_some(Self { near, fences, prefix })
    }

    /// How many classes there are. It takes a step for each of them.
    pub fn classes(&self) -> u64 {
        let (mut count, mut at) = (0, Some(0u32));
        while let Some(first) = at {
            count += 1;
            let size = 1u32.checked_shl(32 - u32::from(self.depth(IpAddr::V4(first.into()), self.prefix.0)));
            at = size.and_then(|size| first.checked_add(size));
        }
        let mut at = Some(0u128);
        while let Some(first) = at {
            count += 1;
            let size = 1u128.checked_shl(128 - u32::from(self.depth(IpAddr::V6(first.into()), self.prefix.1)));
            at = size.and_then(|size| first.checked_add(size));
        }
        count
    }

    /// How many bits tell of the block around `address`: those of the finer map.
    fn depth(&self, address: IpAddr, cap: u8) -> u8 {
        let fenced = self.fences.map_or(0, |fences| fences.find(address).1);
        self.near.map_or(0, |near| near.find(address).1).max(fenced).min(cap)
    }
}
