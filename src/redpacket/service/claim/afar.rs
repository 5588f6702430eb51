//! Claims between homes: what is done here for users who live elsewhere, and for other processes whose users live here.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::{Answer, ClaimService, LIMIT};
use crate::net::stage::Body;
use crate::redpacket::intents::{Intent, Opened, Outcome};
use crate::redpacket::model::{
    ActivityId, Claim, Code, GiftId, Moment, OrderNo, PacketId, RoleId, State, UserId, ZoneId,
};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::json;
use crate::redpacket::service::relay::{BATCH, Batch, Decided, Passed, Relay};

/// The least that writing an intent may take, however little of the deadline home has left.
const NOTE: Duration = Duration::from_millis(200);

/// An intent as its user sees it.
#[derive(Serialize)]
struct View<'a> {
    order_no: OrderNo,
    state: &'static str,
    activity_id: &'a ActivityId,
    packet_id: &'a PacketId,
    gift_id: &'a GiftId,
    zone_id: &'a ZoneId,
    role_id: &'a RoleId,
    asked_at: Moment,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Moment>,
}

impl ClaimService {
    /// A claim of a user who lives elsewhere: home's answer, or an intent where home gives none.
    pub(super) async fn afar(&self, relay: &Relay, claim: Claim, left: Duration, trace: &str) -> Answer {
        let started = self.clock.mono();
        let away = match relay.forward(&claim, trace, left).await {
            Ok(said) => return Ok(said),
            Err(away) => away,
        };
        tracing::debug!(?away, trace, "a user's home gave no answer");
        let refuse = |code| Box::new(Envelope::new(code, trace));
        let now = self.clock.wall();
        if let Err(refusal) = self.catalogue.admit(&claim.activity_id, &claim.packet_id, &claim.gift_id, now) {
            return Err(match (refusal.code, refusal.opens) {
                // Only home knows who claimed in time.
                (Code::Expired, _) => refuse(Code::Unavailable),
                (code, Some(at)) => Box::new(Envelope::new(code, trace).after(at.since(now))),
                (code, None) => refuse(code),
            });
        }
        let rest = left.saturating_sub(self.clock.mono().since(started)).max(NOTE);
        match timeout(rest, relay.note(claim, now)).await {
            Ok(Ok(Opened::New(intent) | Opened::Same(intent))) => match intent.settled {
                Some((outcome, _)) => Ok(tell(&intent, outcome.code(), trace)),
                None => Ok(tell(&intent, Code::Intent, trace)),
            },
            Ok(Ok(Opened::Conflict)) => Err(refuse(Code::KeyConflict)),
            Ok(Ok(Opened::Full)) => Err(refuse(Code::Unavailable)),
            Ok(Err(error)) => Err(Box::new(self.sorry(&error, trace))),
            // It may be written by now: the same claim again tells.
            Err(_) => Err(refuse(Code::Deadline)),
        }
    }

    /// An order, or what may become one, of a user who lives elsewhere.
    pub(super) async fn look_afar(&self, relay: &Relay, order_no: OrderNo, user: &UserId, trace: &str) -> Answer {
        let intent = relay.intent(order_no, user).await.map_err(|e| Box::new(self.sorry(&e, trace)))?;
        if let Some(open) = intent.as_ref().filter(|intent| intent.is_open()) {
            return Ok(tell(open, Code::Intent, trace));
        }
        let home = relay.look(order_no, user, trace).await;
        if let Ok(said) = &home
            && said.code != Code::NotFound
        {
            return home.map_err(|_| Box::new(Envelope::new(Code::Unavailable, trace)));
        }
        match (intent.as_ref().and_then(|intent| Some((intent, intent.settled?.0))), home) {
            // There is an order, and home does not say how it stands.
            (Some((intent, Outcome::Granted)), _) => Ok(tell(intent, Code::Pending, trace)),
            (Some((intent, refused)), _) => Ok(tell(intent, refused.code(), trace)),
            (None, Ok(nothing)) => Ok(nothing),
            (None, Err(_)) => Err(Box::new(Envelope::new(Code::Unavailable, trace))),
        }
    }

    /// Whether others have an intent of a user who lives here; `otherwise` where they have not.
    pub(super) async fn seek(
        &self,
        relay: &Arc<Relay>,
        order_no: OrderNo,
        user: &UserId,
        otherwise: Box<Envelope>,
        trace: &str,
    ) -> Answer {
        if OrderNo::set_of(user) != order_no.set() {
            return Err(otherwise);
        }
        relay.seek(order_no, user, trace).await.ok_or(otherwise)
    }

    /// For another process: an intent that is kept here.
    pub(super) async fn kept(&self, relay: &Relay, order_no: OrderNo, user: &UserId, trace: &str) -> Answer {
        let intent = relay.intent(order_no, user).await.map_err(|e| Box::new(self.sorry(&e, trace)))?;
        let code = |intent: &Intent| match intent.settled {
            None => Code::Intent,
            Some((Outcome::Granted, _)) => Code::Pending,
            Some((refused, _)) => refused.code(),
        };
        intent
            .map(|intent| tell(&intent, code(&intent), trace))
            .ok_or_else(|| Box::new(Envelope::new(Code::NotFound, trace)))
    }

    /// For another process: a claim of a user who lives here.
    pub(super) async fn passed(&self, relay: &Relay, body: Body, trace: &str) -> Answer {
        let Passed { epoch, claim } = json(body, trace).await?;
        if !relay.decides(OrderNo::set_of(&claim.user_id), epoch) {
            return Err(stranger(relay, epoch, trace));
        }
        self.decide(claim, self.clock.wall(), LIMIT, trace).await
    }

    /// For another process: claims of users who live here, in the order in which they were asked for.
    pub(super) async fn late(&self, relay: &Relay, body: Body, trace: &str) -> Answer {
        let Batch { epoch, intents } = json(body, trace).await?;
        if intents.len() > BATCH {
            return Err(Box::new(Envelope::new(Code::BadRequest, trace)));
        }
        if !intents.iter().all(|late| relay.decides(OrderNo::set_of(&late.claim.user_id), epoch)) {
            return Err(stranger(relay, epoch, trace));
        }
        let now = self.clock.wall();
        // Another node's clock may be ahead; nobody asked later than now.
        let decided =
            intents.into_iter().map(|late| Box::pin(self.decide(late.claim, late.asked.min(now), LIMIT, trace)));
        let codes = in_order(decided.collect()).await;
        let codes = codes.into_iter().map(|answer| answer.map_or_else(|refused| refused.code, |said| said.code));
        Ok(Envelope::new(Code::Ok, trace).with(Decided { codes: codes.collect() }))
    }
}

/// What is not this process's to decide: not by its file, or not by one that is as new as the sender's.
fn stranger(relay: &Relay, epoch: u64, trace: &str) -> Box<Envelope> {
    tracing::warn!(
        theirs = epoch,
        ours = relay.hold().epoch,
        trace,
        "a claim came that is not this home's by its file"
    );
    Box::new(Envelope::new(Code::Unavailable, trace))
}

fn tell(intent: &Intent, code: Code, trace: &str) -> Envelope {
    let claim = &intent.claim;
    let state = match intent.settled {
        None => "INTENT",
        Some((Outcome::Granted, _)) => State::Accepted.as_str(),
        Some(_) => "REFUSED",
    };
    Envelope::new(code, trace).with(View {
        order_no: claim.number(),
        state,
        activity_id: &claim.activity_id,
        packet_id: &claim.packet_id,
        gift_id: &claim.gift_id,
        zone_id: &claim.zone_id,
        role_id: &claim.role_id,
        asked_at: intent.asked.into(),
        settled_at: intent.settled.map(|(_, at)| at.into()),
    })
}

/// Runs all of them at the same time, each begun before those behind it: what they put into the store's queue stands there
/// in this order, and shares a commit.
async fn in_order<F: Future>(futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut ended: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut is_all = true;
        for (slot, out) in running.iter_mut().zip(&mut ended) {
            let Some(future) = slot else { continue };
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => (*slot, *out) = (None, Some(value)),
                Poll::Pending => is_all = false,
            }
        }
        if is_all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
