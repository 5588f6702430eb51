//! Smooth weighted round robin, as nginx has it: everybody earns his weight, the richest is picked and pays for all.
//!
//! Over any stretch of picks each backend is within one pick of its share, and picks of one backend are spread out. The
//! accounts are a worker's own ([`Turn`]); weights and candidates may change between calls.

use super::Candidates;
use crate::base::ids::BackendId;

/// The accounts of one worker, by backend. Begins anew with each topology.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    serial: u64,
    accounts: Vec<i64>,
}

impl Turn {
    /// Nobody has had a turn yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn next(&mut self, serial: u64, candidates: &Candidates<'_>) -> Option<BackendId> {
        // Only ever forward: a request that began before a reload must not throw away what is kept for those after it.
        if serial > self.serial {
            *self = Self { serial, accounts: Vec::new() };
        }
        let highest = candidates.iter().map(|c| c.id.index()).max()?;
        if self.accounts.len() <= highest {
            self.accounts.resize(highest + 1, 0);
        }
        let total: i64 = candidates.iter().map(|c| i64::from(c.weight)).sum();
        // Bounded, lest a weight that fell by orders of magnitude leaves a debt for hours; wide enough never to be felt
        // while weights stand.
        let most = total.saturating_mul(i64::try_from(candidates.len()).unwrap_or(i64::MAX));
        let mut richest: Option<(i64, BackendId)> = None;
        for candidate in candidates {
            let account = self.accounts.get_mut(candidate.id.index())?;
            *account = (*account + i64::from(candidate.weight)).clamp(-most, most);
            if richest.is_none_or(|(most, _)| *account > most) {
                richest = Some((*account, candidate.id));
            }
        }
        let (_, id) = richest?;
        *self.accounts.get_mut(id.index())? -= total;
        Some(id)
    }
}
