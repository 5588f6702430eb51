//! Which datacenter serves a request.
//!
//! The local one first, with the share that its health leaves it (`factor`); the rest spills to the others in proportion
//! to their effective weights: the same numbers as in DNS answers (EDGE 3c). Where everything has failed it fails open to
//! whatever operators did not take down. It never invents health: the numbers are the snapshot's.

use smallvec::SmallVec;

use super::balance::is_failing;
use super::tried::Tried;
use crate::base::clock::Mono;
use crate::base::ids::{DatacenterId, ServiceId};
use crate::snapshot::{DcState, Snapshot};

/// Below this factor (thousandths) a datacenter looks bad enough to retry elsewhere (EDGE 3g: H < 0.7).
const LOOKS_BAD: u32 = 700;
/// So many failed tries of one request in one datacenter, and the next goes elsewhere. Ours: with three tries the last
/// one leaves a datacenter that died a moment ago, however many backends it has.
const TRIES_A_DATACENTER: usize = 2;

/// Why a datacenter was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// This node stands there, and it is well.
    Local,
    /// This node stands nowhere: by effective weight.
    Weight,
    /// The local one is not well, or only in part.
    Spill,
    /// Earlier tries failed elsewhere.
    Retry,
    /// Every datacenter has failed; this is one that no operator took down.
    FailOpen,
    /// The user's home is there.
    Home,
}

impl Reason {
    /// The word for it in logs, metrics and `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Weight => "weight",
            Self::Spill => "spill",
            Self::Retry => "retry",
            Self::FailOpen => "fail-open",
            Self::Home => "home",
        }
    }
}

/// One datacenter's part of what is to be placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Which.
    pub datacenter: DatacenterId,
    /// Its part, 0 to 1; all parts sum to 1.
    pub share: f64,
    /// Why a request would go there.
    pub reason: Reason,
}

/// Parts of datacenters; on the stack up to eight of them.
pub type Shares = SmallVec<[Share; 8]>;

/// The datacenter for the next try of a request, by `draw` in `[0, 1)`. `None`: there is none.
pub fn place(
    snapshot: &Snapshot,
    service: ServiceId,
    local: Option<DatacenterId>,
    draw: f64,
    tried: &Tried,
    now: Mono,
) -> Option<(DatacenterId, Reason)> {
    let shares = shares(snapshot, service, local, tried, now);
    let mut left = draw;
    for part in &shares {
        if left < part.share {
            return Some((part.datacenter, part.reason));
        }
        left -= part.share;
    }
    // Rounding alone leads here: the parts sum to 1.
    shares.last().map(|part| (part.datacenter, part.reason))
}

/// How requests for `service` that arrive in `local` are divided among datacenters, the local one first. Empty: no
/// datacenter may serve.
pub fn shares(
    snapshot: &Snapshot,
    service: ServiceId,
    local: Option<DatacenterId>,
    tried: &Tried,
    now: Mono,
) -> Shares {
    let retry = !tried.is_empty();
    let every = Every { snapshot, service, local, tried, now };
    // On a retry, first only where it promises more than what has failed already.
    let healthy = if retry { every.healthy(true).or_else(|| every.healthy(false)) } else { every.healthy(false) };
    let mut shares = healthy
        .or_else(|| every.last_resort(|state| matches!(state, DcState::Serving | DcState::Returning | DcState::Failed)))
        .or_else(|| every.last_resort(|state| state == DcState::Drained))
        .unwrap_or_default();
    if retry {
        for part in shares.iter_mut().filter(|p| matches!(p.reason, Reason::Spill | Reason::Weight)) {
            part.reason = Reason::Retry;
        }
    }
    shares
}

struct Every<'a> {
    snapshot: &'a Snapshot,
    service: ServiceId,
    local: Option<DatacenterId>,
    tried: &'a Tried,
    now: Mono,
}

impl Every<'_> {
    fn ids(&self) -> impl Iterator<Item = DatacenterId> + use<'_> {
        let others = self.snapshot.topology.datacenter_ids().filter(|&dc| Some(dc) != self.local);
        self.local.into_iter().chain(others).filter(|&dc| !self.tried.is_exhausted(dc))
    }

    /// By health and weight. With `promising`, only datacenters which earlier tries give no reason to avoid.
    fn healthy(&self, promising: bool) -> Option<Shares> {
        let mut shares = Shares::new();
        let mut kept = 0.0;
        for datacenter in self.ids() {
            let weight = self.snapshot.weight(self.service, datacenter);
            let serves = matches!(weight.state, DcState::Serving | DcState::Returning) && weight.effective > 0;
            if !serves || (promising && self.looks_bad(datacenter)) {
                continue;
            }
            if Some(datacenter) == self.local {
                kept = (f64::from(weight.factor) / 1_000.0).clamp(0.0, 1.0);
                shares.push(Share { datacenter, share: 0.0, reason: Reason::Local });
            } else {
                let reason = if self.local.is_some() { Reason::Spill } else { Reason::Weight };
                shares.push(Share { datacenter, share: weight.effective as f64, reason });
            }
        }
        let elsewhere: f64 = shares.iter().map(|p| p.share).sum();
        let is_local_in = shares.first().is_some_and(|p| p.reason == Reason::Local);
        if !is_local_in {
            kept = 0.0;
        } else if elsewhere <= 0.0 {
            kept = 1.0;
        }
        for part in &mut shares {
            part.share = if part.reason == Reason::Local { kept } else { (1.0 - kept) * part.share / elsewhere };
        }
        shares.retain(|part| part.share > 0.0);
        (!shares.is_empty()).then_some(shares)
    }

    /// Whatever is in one of the states that `may` names, whatever its health: the local one if it is among them and has
    /// not failed this request yet, else by configured weight.
    fn last_resort(&self, may: impl Fn(DcState) -> bool) -> Option<Shares> {
        let config = &self.snapshot.topology.config;
        let mut open: Shares = self
            .ids()
            .filter(|&dc| may(self.snapshot.weight(self.service, dc).state))
            .filter(|&dc| !self.snapshot.topology.members(self.service, dc).is_empty())
            .map(|datacenter| {
                // A weight of zero means "takes nothing"; here it means "takes least".
                let share = config.datacenters.get(datacenter.index()).map_or(0.0, |d| f64::from(d.weight)).max(1e-3);
                Share { datacenter, share, reason: Reason::FailOpen }
            })
            .collect();
        let fewest = open.iter().map(|p| self.tried.failures_in(p.datacenter)).min()?;
        open.retain(|part| self.tried.failures_in(part.datacenter) == fewest);
        if open.first().is_some_and(|part| Some(part.datacenter) == self.local) {
            open.truncate(1);
        }
        let total: f64 = open.iter().map(|p| p.share).sum();
        for part in &mut open {
            part.share /= total;
        }
        Some(open)
    }

    /// Whether this request had better go elsewhere next. It has failed there, and: it did so often enough, or the
    /// datacenter is in a bad way, or nobody is left there whom it has not tried and who has not just failed others. The
    /// last one halves the retries that a datacenter's sudden death costs, until its verdict is there.
    fn looks_bad(&self, datacenter: DatacenterId) -> bool {
        let failures = self.tried.failures_in(datacenter);
        let weak = self.snapshot.weight(self.service, datacenter).factor < LOOKS_BAD;
        let is_fresh = || {
            let members = self.snapshot.topology.members(self.service, datacenter);
            members.iter().any(|&id| {
                !self.tried.contains(id)
                    && self.snapshot.backend(id).state.usable()
                    && !is_failing(self.snapshot.topology.backend(id), self.now)
            })
        };
        failures > 0 && (failures >= TRIES_A_DATACENTER || weak || !is_fresh())
    }
}

#[cfg(test)]
mod tests;
