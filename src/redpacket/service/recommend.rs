//! `recommend`: which gifts a user may like. Deterministic scores stand in for a model; the point is to be done without.
//!
//! `GET /v1/recommend?user=U` -> `{gifts: [{gift_id, score, registered}]}`, best first. `POST /fault` makes it slow, dead
//! or senseless.

use std::sync::Arc;

use http::{Method, Request, Response};
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use crate::base::hash;
use crate::net::stage::{Body, Next, Reply, Stage};
use crate::redpacket::catalogue::Catalogue;
use crate::redpacket::model::{Code, GiftId, UserId};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{nowhere, query, trace_id};

/// One gift's place in a user's eyes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Taste {
    /// The gift.
    pub(super) gift_id: GiftId,
    /// How much the user may like it, 0 to 1.
    pub(super) score: f64,
    /// Whether the user plays its game already: those come first, whatever the score.
    #[serde(default)]
    pub(super) registered: bool,
}

/// The service.
pub struct RecommendService {
    catalogue: Arc<Catalogue>,
    faults: Faults,
}

impl RecommendService {
    /// Recommends out of `catalogue`.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, faults: Faults::default() }
    }

    fn tastes(&self, user: &UserId) -> Vec<Taste> {
        let who = hash::bytes(0x7461_7374, user.as_str().as_bytes());
        let mut tastes: Vec<Taste> = self
            .catalogue
            .gifts
            .iter()
            .map(|gift| Taste {
                gift_id: gift.gift_id.clone(),
                score: hash::unit(hash::join(who, hash::bytes(1, gift.gift_id.as_str().as_bytes()))),
                registered: hash::join(who, hash::bytes(2, gift.game_id.as_str().as_bytes())).is_multiple_of(3),
            })
            .collect();
        tastes.sort_by(|a, b| {
            (b.registered, b.score).partial_cmp(&(a.registered, a.score)).unwrap_or(std::cmp::Ordering::Equal)
        });
        tastes
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let trace = trace_id(&head.headers);
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/healthz") => Envelope::new(Code::Ok, &trace).respond(),
            (_, "/fault") => self.faults.turn(&head, body).await,
            (&Method::GET, "/v1/recommend") => {
                if let Err(instead) = self.faults.suffer().await {
                    return instead;
                }
                match UserId::parse(query(&head.uri, "user").unwrap_or_default()) {
                    Ok(user) => {
                        let gifts = serde_json::json!({ "gifts": self.tastes(&user) });
                        Envelope::new(Code::Ok, &trace).with(gifts).respond()
                    }
                    Err(e) => Envelope::new(Code::BadRequest, &trace).saying(format!("user: {e}.")).respond(),
                }
            }
            _ => nowhere(&trace),
        }
    }
}

impl Stage for RecommendService {
    fn name(&self) -> &'static str {
        "recommend"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_gets_the_same_and_others_something_else() {
        let service = RecommendService::new(Arc::new(Catalogue::built_in()));
        let of = |user: &str| service.tastes(&UserId::parse(user).unwrap());
        assert_eq!(of("u1"), of("u1"));
        assert_eq!(of("u1").len(), 8);
        let firsts: std::collections::HashSet<_> = (0..50).map(|i| of(&format!("u{i}"))[0].gift_id.clone()).collect();
        assert!(firsts.len() > 3, "{firsts:?}");
        for user in 0..50 {
            let tastes = of(&format!("u{user}"));
            assert!(tastes.is_sorted_by_key(|t| !t.registered), "registered games first");
        }
    }
}
