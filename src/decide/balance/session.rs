//! Who a client stays with: the backend whose seat it names, as long as it may be asked.
//!
//! A seat is a number that stands for service, datacenter and address on every node alike (`Backend::seat`), so any node finds
//! it and no table is kept. A drained backend keeps its sessions: draining ends when they do, or when an operator takes it
//! down. One that is out, full or tried already is nobody's: the request goes where the policy says, and the client learns of
//! its new seat with the answer.

use super::{Choice, Reason, Tier, Wanted};
use crate::base::clock::Mono;
use crate::decide::place;
use crate::decide::tried::Tried;
use crate::snapshot::health::BackendState;
use crate::snapshot::{DcState, Snapshot};

/// The backend that the client names, if it may be asked.
pub(super) fn keep(snapshot: &Snapshot, wanted: &Wanted, tried: &Tried, now: Mono) -> Option<Choice> {
    let (topology, seat) = (&*snapshot.topology, wanted.seat?);
    let id = topology.members_anywhere(wanted.service).find(|id| topology.backend(*id).seat == seat)?;
    let (backend, health) = (topology.backend(id), snapshot.backend(id));
    let datacenter = backend.spec.datacenter;
    let is_left_in = health.state.usable() || health.state == BackendState::Drained;
    let may = is_left_in
        && health.state != BackendState::HalfOpen
        && snapshot.weight(wanted.service, datacenter).state != DcState::AdminDown
        && !tried.contains(id)
        && !super::is_closed(snapshot, id, tried);
    may.then(|| Choice {
        backend: id,
        datacenter,
        placed: if Some(datacenter) == wanted.local { place::Reason::Local } else { place::Reason::Home },
        reason: Reason::Session,
        tier: Tier::Fresh,
        expected_ns: backend.load.latency_ns(now),
    })
}
