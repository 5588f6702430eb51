//! Sticky by user through a table that a topology makes once ([`Table`]), up to a bound of load.
//!
//! The user's slot says who. Where that one is out, or has more than its share and a quarter in flight, the user's hash jumps
//! to another slot, and again: the users of one that fails are spread over all the others, and come back to it when it does;
//! nobody else moves. Bound: Mirrokni et al., "Consistent Hashing with Bounded Loads", SODA 2018; jumps instead of the next
//! slot, which would pile a failed one's users onto one neighbour: Chen et al., arXiv 1908.08762.

use super::{Candidate, Candidates, Reason, user};
use crate::base::hash;
use crate::base::ids::BackendId;
use crate::base::maglev::Table;

/// How much above its share of what is in flight a backend may have (EDGE 3a; Envoy and HAProxy advise 1.2 to 2).
const BOUND: f64 = 1.25;
/// So many in flight are never too many (ours): in the calm, a bound of one or two would only break habits.
const CALM: f64 = 4.0;
/// Slots that a user looks at (ours): with a tenth of all well, 32 find none once in thirty; then rendezvous decides.
const JUMPS: u64 = 32;

/// Who of `candidates` has `user`; `members` is what `table` was made of.
pub(crate) fn owner(
    table: Option<&Table>,
    members: &[BackendId],
    candidates: &Candidates<'_>,
    user: u64,
) -> Option<(BackendId, Reason)> {
    let all = |what: &dyn Fn(&Candidate<'_>) -> u64| candidates.iter().map(what).sum::<u64>() as f64;
    let (load, weight) = (all(&|c| c.backend.load.in_flight().into()), all(&|c| c.weight.into()));
    let has_room = |c: &Candidate<'_>| {
        let bound = (BOUND * (load + 1.0) * f64::from(c.weight) / weight).ceil();
        f64::from(c.backend.load.in_flight()) < bound.max(CALM)
    };
    if let Some(table) = table {
        for jump in 0..JUMPS {
            let key = if jump == 0 { user } else { hash::join(user, jump) };
            let id = members.get(table.at(key)).copied();
            let found = candidates.iter().find(|c| Some(c.id) == id && stays(c, user) && has_room(c));
            if let Some(found) = found {
                return Some((found.id, if jump == 0 { Reason::UserHash } else { Reason::UserJump }));
            }
        }
    }
    user::owner(candidates, user).map(|id| (id, Reason::UserJump))
}

/// Whether `user` is among those whom a candidate keeps at its present weight: of one in slow start or under pressure the
/// same ones go and come back.
fn stays(candidate: &Candidate<'_>, user: u64) -> bool {
    let full = f64::from(candidate.backend.spec.weight) * 1_000.0;
    hash::unit(hash::join(user, candidate.backend.seat)) * full <= f64::from(candidate.weight)
}
