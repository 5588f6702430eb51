//! Who the user is, and which backend is theirs.
//!
//! Two kinds of belonging. `user-hash` is a habit: rendezvous among what is healthy, so that a user stays where caches are
//! warm and moves when that fails. `user-home` is ownership: rendezvous by configured weight over all backends of all
//! datacenters, whatever their health and whatever is drained, so that two nodes that see different failures still send
//! a user to the one place that may decide (RED_PACKET I8). Only a changed configuration, or a changed file of homes, moves
//! a home. Where several processes share a home's store, health says which of them is asked ([`door`]). Where a service says
//! `home_down = "elsewhere"`, others take a note for a home that is down ([`is_reachable`]).

use std::net::IpAddr;

use http::HeaderMap;

use super::{Candidates, is_closed};
use crate::base::hash;
use crate::base::ids::{BackendId, ServiceId};
use crate::config::{Service, UserKey, homes};
use crate::decide::tried::Tried;
use crate::snapshot::health::BackendState;
use crate::snapshot::{DcState, Snapshot};
use crate::wire::cookie;

/// Seed of users' hashes; changing it moves everybody.
const SEED: u64 = 0x7573_6572;

/// The hash of a user by name. The same on every node and in every release.
pub const fn hash_of(user: &[u8]) -> u64 {
    hash::bytes(SEED, user)
}

/// The hash of the user that a request names, by the route's `key`. `None`: it names none. `path` is that which the route
/// was found by.
pub fn identify(key: &UserKey, path: &str, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
    name_of(key, path, headers, client, hash_of)
}

fn name_of(key: &UserKey, path: &str, headers: &HeaderMap, client: IpAddr, hash: impl Fn(&[u8]) -> u64) -> Option<u64> {
    match key {
        UserKey::Client => Some(match client.to_canonical() {
            IpAddr::V4(v4) => hash(&v4.octets()),
            IpAddr::V6(v6) => hash(&v6.octets()),
        }),
        UserKey::Header(name) => {
            headers.get(name.as_str()).map(http::HeaderValue::as_bytes).filter(|v| !v.is_empty()).map(hash)
        }
        UserKey::Cookie(name) => cookie::find(headers, name).filter(|v| !v.is_empty()).map(hash),
        // What stands before the first slash is no segment.
        UserKey::Path(_, at) => path.split('/').nth(at + 1).filter(|v| !v.is_empty()).map(|v| hash(v.as_bytes())),
    }
}

/// Who of `candidates` has `user` by rendezvous.
pub(crate) fn owner(candidates: &Candidates<'_>, user: u64) -> Option<BackendId> {
    let scores = candidates.iter().map(|c| (c.id, hash::rendezvous(c.backend.seat, user, f64::from(c.weight))));
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// The hash of the user by that name, for `service`: where a file says whose home is where, it is the one whose first byte
/// is the user's set.
pub fn hash_for(service: &Service, user: &[u8]) -> u64 {
    if service.homing.homes.is_some() { homes::hash_of(user) } else { hash_of(user) }
}

/// The hash of the user that a request names, for `service`; see [`identify`] and [`hash_for`].
pub fn identify_for(service: &Service, key: &UserKey, path: &str, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
    name_of(key, path, headers, client, |name| hash_for(service, name))
}

/// The home of `user` (of [`hash_for`]): the one backend of `service` that may hold the user's data. `None`: the service has no
/// backend with a weight.
pub fn home(snapshot: &Snapshot, service: ServiceId, user: u64) -> Option<BackendId> {
    door(snapshot, service, user, &Tried::new())
}

/// As [`home`], for a request that has been through `tried`. Of a home that is several processes by its file, one that is
/// worth asking and not full, as long as there is one; else always the same for a user.
pub fn door(snapshot: &Snapshot, service: ServiceId, user: u64, tried: &Tried) -> Option<BackendId> {
    let topology = &*snapshot.topology;
    if let Some(homes) = &topology.service(service).homing.homes {
        let home = homes.home_of(homes::set_of(user))?;
        let doors = topology.members_anywhere(service).filter(|id| home.is_at(topology.backend(*id).spec.address));
        let scores = doors.map(|id| {
            let is_reachable = is_reachable(snapshot, id, tried);
            let is_free = is_reachable && !is_closed(snapshot, id, tried);
            (id, (is_reachable, is_free), hash::rendezvous(topology.backend(id).seat, user, 1.0))
        });
        return scores.max_by(|a, b| a.1.cmp(&b.1).then(a.2.total_cmp(&b.2))).map(|(id, ..)| id);
    }
    let all = topology.members_anywhere(service).map(|id| (id, topology.backend(id)));
    let seated = all.filter(|(_, b)| b.spec.weight > 0);
    let scores = seated.map(|(id, b)| (id, hash::rendezvous(b.seat, user, f64::from(b.spec.weight))));
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// Whether an operator took that home down, itself or with its datacenter. Nothing else closes a home, where requests go
/// nowhere else.
pub fn is_home_down(snapshot: &Snapshot, home: BackendId) -> bool {
    let backend = snapshot.topology.backend(home);
    snapshot.backend(home).state == BackendState::AdminDown
        || snapshot.weight(backend.service, backend.spec.datacenter).state == DcState::AdminDown
}

/// Whether that home is worth asking: nobody took it down, health has not given it up, and this request has not failed
/// there. Only where requests may go elsewhere does this matter; it decides where a note is taken, never who decides.
pub fn is_reachable(snapshot: &Snapshot, home: BackendId, tried: &Tried) -> bool {
    let is_given_up = matches!(snapshot.backend(home).state, BackendState::Down | BackendState::Ejected);
    !is_given_up && !is_home_down(snapshot, home) && !tried.contains(home)
}

#[cfg(test)]
mod tests;
