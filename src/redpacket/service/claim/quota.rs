//! Stock that moves between homes: who runs low asks another for some (RED_PACKET 2.7), and whoever has plenty gives.
//!
//! Once a second, for each gift: where less than a fifth is left, one other home is asked, each in its turn. Who gave no
//! answer may have given stock all the same, as may anybody whom a process before this one has asked: those are asked again
//! until they answer, also when nothing is needed. One question at a time; numbers and amounts are the stores' affair
//! ([`transfer`]). A home that is away costs the others nothing but its stock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Answer, ClaimService};
use crate::base::clock::Mono;
use crate::net::stage::Body;
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::transfer::{self, Need};
use crate::redpacket::ledger::{StoreError, Transfer};
use crate::redpacket::model::{Code, GiftId};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::json;
use crate::redpacket::service::relay::{Given, Relay, Wish};

/// How often it looks, and the least time between two questions for the same gift.
const LOOK: Duration = Duration::from_secs(1);
/// The longest time between two, where all others have nothing to spare: 8 s (ours).
const MOST_LOOKS: u32 = 8;

/// What is known of the others, for one gift.
#[derive(Default)]
struct Asked {
    /// Whose turn it is.
    turn: usize,
    /// Who has answered to the last question, so that nothing of theirs is on its way.
    settled: BTreeSet<String>,
    /// How many in turn had nothing to spare.
    empty: usize,
    /// Not before.
    next: Mono,
}

impl Asked {
    /// Whom to ask, and for what.
    fn choose(&mut self, others: &[String], need: Option<Need>, now: Mono) -> Option<(String, Need)> {
        if let Some(need) = need.filter(|_| now >= self.next) {
            let home = others.get(self.turn.checked_rem(others.len())?)?;
            self.turn = self.turn.wrapping_add(1);
            return Some((home.clone(), need));
        }
        let open = others.iter().find(|home| !self.settled.contains(*home))?;
        Some((open.clone(), Need::Recall))
    }

    /// What `home` said that it gives; nothing where it did not answer.
    fn heard(&mut self, home: String, need: Need, answer: Option<u64>, others: usize, now: Mono) {
        if answer.is_some() {
            self.settled.insert(home);
        } else {
            self.settled.remove(&home);
        }
        if need == Need::Recall {
            return;
        }
        match answer {
            Some(0) => self.empty = self.empty.saturating_add(1),
            Some(_) => self.empty = 0,
            None => {}
        }
        let rounds = self.empty.checked_div(others).unwrap_or_default();
        let looks = 1u32.checked_shl(rounds.min(31) as u32).unwrap_or(MOST_LOOKS).min(MOST_LOOKS);
        // A look is never on the second sharp.
        self.next = now + (LOOK * looks).mul_f64(0.9);
    }
}

impl ClaimService {
    /// Asks other homes for stock where it runs low, until `stop`. Without others, there is nothing to do.
    pub async fn refill(self: Arc<Self>, stop: CancellationToken) {
        let Some(relay) = self.relay.clone() else { return };
        let mut asked = HashMap::new();
        let looks = async {
            loop {
                if let Err(error) = self.look_round(&relay, &mut asked).await {
                    tracing::warn!(%error, "whether stock runs low cannot be told");
                }
                sleep(LOOK).await;
            }
        };
        // Wherever this ends, a transfer goes on under its number.
        tokio::select! {
            () = looks => {}
            () = stop.cancelled() => {}
        }
    }

    /// One look at every gift.
    async fn look_round(&self, relay: &Relay, asked: &mut HashMap<GiftId, Asked>) -> Result<(), StoreError> {
        let mut others = relay.others();
        if others.is_empty() {
            return Ok(());
        }
        for (gift, stock) in self.store.stats().await?.stock {
            let asked = asked.entry(gift.clone()).or_default();
            let need = Need::of(stock, self.known.is_sold_out(&gift));
            if let Some((home, need)) = asked.choose(&others, need, self.clock.mono()) {
                let answer = self.ask_for(relay, &home, &gift, need).await?;
                asked.heard(home.clone(), need, answer, others.len(), self.clock.mono());
                if answer.is_none() {
                    // Not for every gift again: the next look is soon.
                    others.retain(|other| *other != home);
                }
            }
        }
        Ok(())
    }

    /// Asks `home` for some of `gift`, and adds what it gives; nothing where that is not known.
    async fn ask_for(&self, relay: &Relay, home: &str, gift: &GiftId, need: Need) -> Result<Option<u64>, StoreError> {
        let number = self.store.turn(home.to_owned(), gift.clone()).await?;
        let amount = match relay.ask_for(home, gift.clone(), number, need).await {
            Ok(amount) => amount,
            Err(away) => {
                tracing::debug!(home, %gift, number, ?away, "no answer to a question for stock");
                return Ok(None);
            }
        };
        if amount == 0 {
            return Ok(Some(0));
        }
        let transfer = Transfer { with: home.to_owned(), gift: gift.clone(), number };
        let is_new = self.store.take(transfer, amount).await;
        // Whatever came of it: it may be there.
        self.known.restocked(gift);
        if is_new? {
            names::STOCK_TAKEN_TOTAL.counter(&[gift.as_str()]).increment(amount);
            tracing::info!(home, %gift, number, amount, "stock came from another home");
        }
        Ok(Some(amount))
    }

    /// For another home, which asks for stock.
    pub(super) async fn give(&self, relay: &Relay, body: Body, trace: &str) -> Answer {
        let wish: Wish = json(body, trace).await?;
        if !relay.is_asked(&wish) {
            tracing::warn!(
                of = wish.of,
                by = wish.by,
                trace,
                "a question for stock came that is not for this home by its file"
            );
            return Err(Box::new(Envelope::new(Code::Unavailable, trace)));
        }
        let sorry = |error: StoreError| Box::new(self.sorry(&error, trace));
        let stock = self.store.stats().await.map_err(sorry)?.stock;
        let stock = stock.into_iter().find(|(gift, _)| *gift == wish.gift_id).map(|(_, stock)| stock);
        let most = transfer::spare(stock.unwrap_or_default(), wish.need);
        let transfer = Transfer { with: wish.by.clone(), gift: wish.gift_id.clone(), number: wish.number };
        if let Some(amount) = self.store.give(transfer, most).await.map_err(sorry)? {
            return Ok(Envelope::new(Code::Ok, trace).with(Given { number: wish.number, amount }));
        }
        let (by, number, gift) = (wish.by, wish.number, wish.gift_id.as_str());
        tracing::warn!(
            by,
            number,
            gift,
            trace,
            "a question for stock has a number of the past: one of the stores has forgotten"
        );
        Err(Box::new(Envelope::new(Code::KeyConflict, trace)))
    }
}

#[cfg(test)]
mod tests;
