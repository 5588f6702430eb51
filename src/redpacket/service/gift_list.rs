//! `gift-list`: what there is, in the order that this user may like; in the default order when nobody can say.
//!
//! `GET /v1/gifts` -> `{list_version, source: personal|default, items}`. Critical, so nothing it depends on can fail it:
//! recommend has 150 ms, a breaker, and its reply is checked. Strong ETags: the body is the same bytes for the same
//! list, which is why the request's id stands in a header only.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use metrics::Counter;
use serde::{Deserialize, Serialize};

use super::recommend::Taste;
use crate::base::clock::{Clock, SystemClock};
use crate::base::hash;
use crate::net::stage::{Body, Next, Reply, Stage, empty, full};
use crate::observe::names::redpacket as names;
use crate::redpacket::catalogue::{Catalogue, Gift};
use crate::redpacket::model::{Code, GameId, GiftId, UserId};
use crate::redpacket::pace::Breaker;
use crate::redpacket::peer::Peer;
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{USER_HEADER, deadline, nowhere, trace_id, user};

/// What recommend may cost a list (RED_PACKET F1).
const BUDGET: Duration = Duration::from_millis(150);
/// The most gifts that a reply of recommend is read for.
const TASTES: usize = 256;

/// Why a list is in the default order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The breaker is open: it was not even asked.
    Open,
    /// No reply in time, or no connection.
    Slow,
    /// A reply that says that it failed.
    Failed,
    /// A reply that makes no sense.
    Garbage,
}

impl Why {
    const ALL: [Self; 4] = [Self::Open, Self::Slow, Self::Failed, Self::Garbage];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Garbage => "garbage",
        }
    }
}

#[derive(Serialize)]
struct Item<'a> {
    gift_id: &'a GiftId,
    game_id: &'a GameId,
    title: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    titles: &'a BTreeMap<String, String>,
    stock_hint: &'static str,
    rank: usize,
}

struct Adviser {
    peer: Peer,
    breaker: Mutex<Breaker>,
}

/// The service.
pub struct GiftListService {
    catalogue: Arc<Catalogue>,
    version: String,
    advisers: Vec<Adviser>,
    turn: AtomicUsize,
    clock: SystemClock,
    degraded: [Counter; 4],
}

impl GiftListService {
    /// Lists `catalogue`, in the order that one of `recommend` says, where there is any.
    pub fn new(catalogue: Arc<Catalogue>, recommend: Vec<Peer>) -> Self {
        let advisers = recommend.into_iter().map(|peer| Adviser { peer, breaker: Mutex::default() }).collect();
        let degraded = Why::ALL.map(|why| names::DEGRADED_TOTAL.counter(&["gift-list", why.as_str()]));
        let version = catalogue.version();
        Self { catalogue, version, advisers, turn: AtomicUsize::new(0), clock: SystemClock, degraded }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, _) = request.into_parts();
        let trace = trace_id(&head.headers);
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/healthz") => Envelope::new(Code::Ok, &trace).respond(),
            (&Method::GET | &Method::HEAD, "/v1/gifts") => self.list(&head.headers, &trace).await,
            _ => nowhere(&trace),
        }
    }

    async fn list(&self, headers: &HeaderMap, trace: &str) -> Response<Body> {
        // Whoever is not known gets the default list: that is no degradation.
        let who = match headers.contains_key(USER_HEADER).then(|| user(headers, trace)) {
            Some(Err(refused)) => return refused.respond(),
            Some(Ok(user)) if !self.advisers.is_empty() => Some(user),
            _ => None,
        };
        let order = match &who {
            Some(user) => self.ask(user, deadline(headers, BUDGET), trace).await.map(Some),
            None => Ok(None),
        };
        let mut envelope = Envelope::new(Code::Ok, trace);
        envelope.trace_id = None;
        let source = match &order {
            Ok(Some(_)) => "personal",
            Ok(None) => "default",
            Err(why) => {
                tracing::debug!(reason = why.as_str(), "the default list");
                self.degraded[*why as usize].increment(1);
                envelope.degraded.push("recommend");
                "default"
            }
        };
        let gifts = arrange(&self.catalogue.gifts, order.ok().flatten().as_deref().unwrap_or_default());
        let items: Vec<Item<'_>> = gifts.iter().enumerate().map(|(at, gift)| item(gift, at + 1)).collect();
        let body = envelope
            .with(serde_json::json!({ "list_version": self.version, "source": source, "items": items }))
            .bytes();
        let tag = format!("\"{:016x}\"", hash::bytes(0x7461_6700, &body));
        // A fallback must not outlive its reason; a personal list is nobody else's.
        let cache = match (&who, source) {
            (None, _) => "public, max-age=10, stale-while-revalidate=60, stale-if-error=3600",
            (Some(_), "personal") => "private, max-age=10, stale-while-revalidate=60, stale-if-error=3600",
            (Some(_), _) => "private, no-cache",
        };
        let known = headers.get_all(IF_NONE_MATCH).iter().any(|held| holds(held, &tag));
        let mut response = Response::new(if known { empty() } else { full(body) });
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
        headers.insert(VARY, HeaderValue::from_static(USER_HEADER));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        response
    }

    /// Asks recommend: the next in turn whose breaker lets us, once. A second try would cost a second budget.
    async fn ask(&self, user: &UserId, budget: Duration, trace: &str) -> Result<Vec<Taste>, Why> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.mono();
        let count = self.advisers.len();
        let mut turns = (0..count).filter_map(|i| self.advisers.get(first.wrapping_add(i) % count));
        let open = |a: &&Adviser| a.breaker.lock().unwrap_or_else(PoisonError::into_inner).allow(now);
        let adviser = turns.find(open).ok_or(Why::Open)?;
        let path = format!("/v1/recommend?user={user}");
        let headers = [(crate::redpacket::request::TRACE_HEADER, trace)];
        let reply = adviser.peer.call(Method::GET, &path, bytes::Bytes::new(), &headers, budget).await;
        let tastes = match reply {
            Ok(reply) if reply.status == StatusCode::OK => read(&reply.body, &self.catalogue).ok_or(Why::Garbage),
            Ok(_) => Err(Why::Failed),
            Err(error) => {
                tracing::debug!(%error, origin = %adviser.peer.origin(), "recommend did not answer");
                Err(Why::Slow)
            }
        };
        let mut breaker = adviser.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match &tastes {
            Ok(_) => breaker.succeeded(),
            Err(_) => breaker.failed(self.clock.mono()),
        }
        tastes
    }
}

impl Stage for GiftListService {
    fn name(&self) -> &'static str {
        "gift-list"
    }

    fn handle<'a>(&'a self, request: Request<Body>, _: Next<'a>) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

/// Reads a reply of recommend; nothing where it is not one, or says nothing about any of our gifts.
fn read(body: &[u8], catalogue: &Catalogue) -> Option<Vec<Taste>> {
    #[derive(Deserialize)]
    struct Reply {
        gifts: Vec<Taste>,
    }
    let Reply { gifts } = serde_json::from_slice(body).ok()?;
    let sane = gifts.len() <= TASTES && gifts.iter().all(|t| t.score.is_finite());
    let known: HashSet<&GiftId> = catalogue.gifts.iter().map(|g| &g.gift_id).collect();
    (sane && gifts.iter().any(|t| known.contains(&t.gift_id))).then_some(gifts)
}

/// Every gift once: games that the user plays first, then by score; what nobody scored comes last, in its own order.
fn arrange<'a>(gifts: &'a [Gift], tastes: &[Taste]) -> Vec<&'a Gift> {
    let mut order: Vec<&Gift> = gifts.iter().collect();
    let taste = |gift: &Gift| tastes.iter().find(|t| t.gift_id == gift.gift_id);
    let key = |gift: &Gift| taste(gift).map_or((2, 0.0), |t| (u8::from(!t.registered), -t.score));
    order.sort_by(|a, b| {
        let ((level_a, score_a), (level_b, score_b)) = (key(a), key(b));
        level_a.cmp(&level_b).then(score_a.total_cmp(&score_b))
    });
    order
}

const fn item(gift: &Gift, rank: usize) -> Item<'_> {
    let stock_hint = match gift.stock {
        0 => "none",
        1..1_000 => "few",
        _ => "plenty",
    };
    let Gift { gift_id, game_id, title, titles, .. } = gift;
    Item { gift_id, game_id, title: title.as_str(), titles, stock_hint, rank }
}

/// Whether `held` (If-None-Match, RFC 9110 section 13.1.2: weak comparison) names `tag`.
fn holds(held: &HeaderValue, tag: &str) -> bool {
    held.to_str().is_ok_and(|list| {
        list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::net::listen::{Share, tcp};
    use crate::redpacket::serve::serve;
    use crate::redpacket::service::RecommendService;

    fn catalogue() -> Arc<Catalogue> {
        Arc::new(Catalogue::built_in())
    }

    async fn ask(service: &GiftListService, user: Option<&str>, tag: Option<&str>) -> (u16, Option<String>, Value) {
        let mut request = Request::get("/v1/gifts");
        for (name, value) in [(USER_HEADER, user), ("if-none-match", tag)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = service.handle(request.body(empty()).unwrap(), Next::end()).await;
        let status = response.status().as_u16();
        let tag = response.headers().get(ETAG).map(|t| t.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, tag, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn a_list_is_the_same_bytes_until_it_changes() {
        let service = GiftListService::new(catalogue(), Vec::new());
        let (status, tag, body) = ask(&service, None, None).await;
        assert_eq!(
            (status, body["source"].as_str(), &body["degraded"]),
            (200, Some("default"), &serde_json::json!([]))
        );
        assert_eq!(body["items"][0]["gift_id"], "lantern-mount");
        let (status, again, _) = ask(&service, None, tag.as_deref()).await;
        assert_eq!((status, again), (304, tag));
        assert_eq!(ask(&service, None, Some("\"other\"")).await.0, 200);
        assert_eq!(ask(&service, Some("no way"), None).await.0, 400);
    }

    #[tokio::test]
    async fn recommend_orders_the_list_and_its_death_costs_nothing() {
        let stop = CancellationToken::new();
        let listener = tcp("127.0.0.1:0".parse().unwrap(), Share::Alone).unwrap();
        let recommend = serve(listener, Arc::new(RecommendService::new(catalogue())), stop.clone()).unwrap();
        let origin: crate::redpacket::peer::Origin = format!("http://{}", recommend.address()).parse().unwrap();
        let service = GiftListService::new(catalogue(), vec![Peer::new(origin.clone())]);
        let (_, _, personal) = ask(&service, Some("u1"), None).await;
        assert_eq!(personal["source"], "personal", "{personal}");
        assert_eq!(personal["items"].as_array().map(Vec::len), Some(8));

        let dial = Peer::new(origin);
        let turn = async |json: &'static str| dial.post("/fault", json.into(), Duration::from_secs(5)).await.unwrap();
        turn(r#"{"garbage": true}"#).await;
        let (status, _, body) = ask(&service, Some("u1"), None).await;
        assert_eq!(
            (status, body["source"].as_str(), body["degraded"][0].as_str()),
            (200, Some("default"), Some("recommend"))
        );
        turn(r#"{"status": 503}"#).await;
        assert_eq!(ask(&service, Some("u1"), None).await.2["source"], "default");
        turn("{}").await;
        assert_eq!(ask(&service, Some("u1"), None).await.2, personal, "well again");

        stop.cancel();
        recommend.stopped().await;
        for _ in 0..6 {
            assert_eq!(ask(&service, Some("u1"), None).await.2["source"], "default");
        }
        let budget = Duration::from_secs(5);
        let refused = service.ask(&UserId::parse("u1").unwrap(), budget, "t").await.unwrap_err();
        assert_eq!(refused, Why::Open, "not even asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_recommend_costs_its_budget_and_then_nothing() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", silent.local_addr().unwrap());
        let service = GiftListService::new(catalogue(), vec![Peer::new(origin.parse().unwrap())]);
        for call in 0..8 {
            let body = tokio::time::timeout(BUDGET * 2, ask(&service, Some("u1"), None)).await.unwrap().2;
            assert_eq!(body["source"], "default", "call {call}");
        }
        let now = tokio::time::timeout(Duration::ZERO, ask(&service, Some("u1"), None)).await;
        assert_eq!(now.expect("without a wait").2["degraded"][0], "recommend");
    }

    #[test]
    fn whatever_recommend_says_every_gift_stands_there_once() {
        let catalogue = catalogue();
        let taste = |id: &str, score, registered| Taste { gift_id: GiftId::parse(id).unwrap(), score, registered };
        let tastes = [taste("gold-ingots", 0.2, false), taste("unknown", 9.0, true), taste("double-xp", 0.1, true)];
        let order: Vec<&str> = arrange(&catalogue.gifts, &tastes).iter().map(|g| g.gift_id.as_str()).collect();
        assert_eq!(order[..4], ["double-xp", "gold-ingots", "lantern-mount", "dragon-cloak"]);
        assert_eq!(order.iter().collect::<HashSet<_>>().len(), 8);
    }

    #[test]
    fn senseless_replies_are_seen_as_such() {
        let catalogue = Catalogue::built_in();
        for bad in ["", "[]", "{}", r#"{"gifts": []}"#, r#"{"gifts": [{"gift_id": "nobody", "score": 1}]}"#] {
            assert!(read(bad.as_bytes(), &catalogue).is_none(), "{bad}");
        }
        assert!(read(br#"{"gifts": [{"gift_id": "lucky-draw", "score": 1}], "new": 1}"#, &catalogue).is_some());
    }
}
