//! Who the user is, and which backend is theirs.
//!
//! Two kinds of belonging. `user-hash` is a habit: rendezvous among what is healthy, so that a user stays where caches are
//! warm and moves when that fails. `user-home` is ownership: rendezvous by configured weight over all backends of all
//! datacenters, whatever their health and whatever is drained, so that two nodes that see different failures still send
//! a user to the one place that may decide (RED_PACKET I8). Only a changed configuration moves a home.

use std::net::IpAddr;

use http::HeaderMap;

use super::Candidates;
use crate::base::hash;
use crate::base::ids::{BackendId, ServiceId};
use crate::config::UserKey;
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
    match key {
        UserKey::Client => Some(match client.to_canonical() {
            IpAddr::V4(v4) => hash_of(&v4.octets()),
            IpAddr::V6(v6) => hash_of(&v6.octets()),
        }),
        UserKey::Header(name) => {
            headers.get(name.as_str()).map(http::HeaderValue::as_bytes).filter(|v| !v.is_empty()).map(hash_of)
        }
        UserKey::Cookie(name) => cookie::find(headers, name).filter(|v| !v.is_empty()).map(hash_of),
        // What stands before the first slash is no segment.
        UserKey::Path(_, at) => path.split('/').nth(at + 1).filter(|v| !v.is_empty()).map(|v| hash_of(v.as_bytes())),
    }
}

/// Who of `candidates` has `user` by rendezvous.
pub(crate) fn owner(candidates: &Candidates<'_>, user: u64) -> Option<BackendId> {
    let scores = candidates.iter().map(|c| (c.id, hash::rendezvous(c.backend.seat, user, f64::from(c.weight))));
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// The home of `user`: the one backend of `service` that may hold the user's data. `None`: the service has no backend
/// with a weight.
pub fn home(snapshot: &Snapshot, service: ServiceId, user: u64) -> Option<BackendId> {
    let topology = &*snapshot.topology;
    let all = topology.members_anywhere(service).map(|id| (id, topology.backend(id)));
    let seated = all.filter(|(_, b)| b.spec.weight > 0);
    let scores = seated.map(|(id, b)| (id, hash::rendezvous(b.seat, user, f64::from(b.spec.weight))));
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(id, _)| id)
}

/// Whether an operator took that home down, itself or with its datacenter. Nothing else closes a home.
pub fn is_home_down(snapshot: &Snapshot, home: BackendId) -> bool {
    let backend = snapshot.topology.backend(home);
    snapshot.backend(home).state == BackendState::AdminDown
        || snapshot.weight(backend.service, backend.spec.datacenter).state == DcState::AdminDown
}
