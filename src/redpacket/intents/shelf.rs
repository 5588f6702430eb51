//! Intents as a plain value: the laws of [`Intents`](super::Intents) without IO, locks or clocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Bounds, Intent, Opened, Outcome, Ruling, Sums, rule};
use crate::base::clock::Wall;
use crate::config::homes::Sets;
use crate::redpacket::model::{Claim, IdempotencyKey, OrderNo, UserId};

/// Intents, by number, by key and by age.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    bounds: Bounds,
    intents: BTreeMap<OrderNo, Intent>,
    /// Of those that stand.
    keys: HashMap<(UserId, IdempotencyKey), OrderNo>,
    open: BTreeSet<(Wall, OrderNo)>,
    settled: BTreeSet<(Wall, OrderNo)>,
}

impl Shelf {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// See [`Intents::open`](super::Intents::open).
    pub fn open(&mut self, claim: Claim, now: Wall) -> Opened {
        let order_no = claim.number();
        let key = claim.idempotency_key.clone().map(|key| (claim.user_id.clone(), key));
        let under_key = key.as_ref().and_then(|key| self.keys.get(key)).copied();
        let old = self.intents.get(&order_no);
        match (rule(&claim, old, under_key, self.open.len() as u64, self.bounds), old) {
            (Ruling::Same, Some(old)) => Opened::Same(old.clone()),
            (Ruling::Conflict | Ruling::Same, _) => Opened::Conflict,
            (Ruling::Full, _) => Opened::Full,
            (Ruling::Write, old) => {
                if let Some((_, at)) = old.and_then(|old| old.settled) {
                    self.settled.remove(&(at, order_no));
                }
                let intent = Intent::new(claim, now);
                self.keys.extend(key.map(|key| (key, order_no)));
                self.open.insert((now, order_no));
                self.intents.insert(order_no, intent.clone());
                Opened::New(intent)
            }
        }
    }

    /// See [`Intents::find`](super::Intents::find).
    pub fn find(&self, order_no: OrderNo) -> Option<&Intent> {
        self.intents.get(&order_no)
    }

    /// See [`Intents::due`](super::Intents::due).
    pub fn due(&self, sets: Sets, limit: usize) -> Vec<Intent> {
        let open = self.open.iter().filter(|(_, no)| sets.has(no.set()));
        open.filter_map(|(_, no)| self.intents.get(no)).take(limit).cloned().collect()
    }

    /// See [`Intents::settle`](super::Intents::settle).
    pub fn settle(&mut self, order_no: OrderNo, outcome: Outcome, now: Wall) -> bool {
        let Some(intent) = self.intents.get_mut(&order_no).filter(|intent| intent.is_open()) else { return false };
        intent.settled = Some((outcome, now));
        self.open.remove(&(intent.asked, order_no));
        self.settled.insert((now, order_no));
        if outcome != Outcome::Granted {
            let intent = intent.clone();
            self.free(&intent);
        }
        while self.settled.len() as u64 > self.bounds.settled {
            let Some((_, oldest)) = self.settled.pop_first() else { break };
            if let Some(gone) = self.intents.remove(&oldest).filter(Intent::stands) {
                self.free(&gone);
            }
        }
        true
    }

    /// See [`Intents::sums`](super::Intents::sums).
    pub fn sums(&self) -> Sums {
        let mut settled = BTreeMap::new();
        for (outcome, _) in self.intents.values().filter_map(|intent| intent.settled) {
            *settled.entry(outcome).or_default() += 1;
        }
        Sums { open: self.open.len() as u64, oldest: self.open.first().map(|(at, _)| *at), settled }
    }

    fn free(&mut self, intent: &Intent) {
        if let Some(key) = &intent.claim.idempotency_key {
            self.keys.remove(&(intent.claim.user_id.clone(), key.clone()));
        }
    }
}
