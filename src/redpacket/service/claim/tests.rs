//! The claim service: what each claim is answered with.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;
use crate::base::clock::{ManualClock, Mono};
use crate::net::stage::{empty, full};
use crate::redpacket::ledger::Answer;
use crate::redpacket::model::{Resolution, Settled, Trail};
use crate::redpacket::request::USER_HEADER;
use crate::redpacket::serve::Remote;
use crate::redpacket::store::memory::MemoryStore;
use crate::redpacket::store::redb::RedbStore;

pub(super) const NOW: u64 = 1_801_828_800_000;

async fn service() -> ClaimService {
    let store = Arc::new(MemoryStore::new());
    let clock = ManualClock::new(Mono::from_millis(1_000), Wall(NOW));
    let service = ClaimService::new(store, Arc::new(Catalogue::built_in())).on(Arc::new(clock));
    service.provision(0, 1).await.unwrap();
    service
}

pub(super) async fn send(service: &ClaimService, request: Request<Body>) -> (u16, Value) {
    let response = service.handle(request, Next::end()).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

pub(super) async fn claim(service: &ClaimService, user: Option<&str>, body: Value) -> (u16, Value) {
    let mut request = Request::post("/v1/claims");
    if let Some(user) = user {
        request = request.header(USER_HEADER, user);
    }
    send(service, request.body(full(body.to_string())).unwrap()).await
}

pub(super) async fn look(service: &ClaimService, user: &str, order_no: &str) -> (u16, Value) {
    let request = Request::get(format!("/v1/claims/{order_no}")).header(USER_HEADER, user);
    send(service, request.body(empty()).unwrap()).await
}

pub(super) async fn internal(service: &ClaimService, from: &str, path: &str, body: Value) -> (u16, Value) {
    let mut request = Request::post(path).body(full(body.to_string())).unwrap();
    request.extensions_mut().insert(Remote(from.parse::<SocketAddr>().unwrap()));
    send(service, request).await
}

fn wish() -> Value {
    json!({ "packet_id": "p1", "gift_id": "lantern-mount", "zone_id": "sr-1", "role_id": "r1", "request_id": "ignored" })
}

pub(super) fn with(key: &str, value: &str) -> Value {
    let mut wish = wish();
    wish[key] = value.into();
    wish
}

#[tokio::test]
async fn a_claim_is_accepted_once_and_remembered() {
    let service = service().await;
    let (status, first) = claim(&service, Some("u1"), wish()).await;
    assert_eq!((status, first["code"].as_str(), first["state"].as_str()), (202, Some("ACCEPTED"), Some("ACCEPTED")));
    let (status, again) = claim(&service, Some("u1"), wish()).await;
    assert_eq!((status, again["code"].as_str()), (200, Some("ALREADY_CLAIMED")));
    assert_eq!(again["order_no"], first["order_no"]);
    let (status, other) = claim(&service, Some("u2"), wish()).await;
    assert_eq!(status, 202);
    assert_ne!(other["order_no"], first["order_no"]);
    let order_no = first["order_no"].as_str().unwrap();
    let (status, found) = look(&service, "u1", order_no).await;
    assert_eq!(
        (status, found["code"].as_str(), found["accepted_at"].as_str()),
        (202, Some("PENDING"), Some("2027-02-05T12:00:00Z"))
    );
    assert_eq!(look(&service, "u2", order_no).await.0, 404, "not theirs");
    assert!(serde_json::to_vec(&first).unwrap().len() <= 500, "{first}");
}

#[tokio::test]
async fn what_cannot_be_claimed_is_refused_by_name() {
    let service = service().await;
    let code = async |user, wish| {
        let (status, body) = claim(&service, user, wish).await;
        (status, body["code"].as_str().unwrap().to_owned())
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(code(None, wish()).await, is(400, "BAD_REQUEST"));
    assert_eq!(code(Some("a b"), wish()).await, is(400, "BAD_REQUEST"));
    assert_eq!(code(Some("u1"), json!({})).await, is(400, "BAD_REQUEST"));
    assert_eq!(code(Some("u1"), json!("text")).await, is(400, "BAD_REQUEST"));
    assert_eq!(code(Some("u1"), with("gift_id", "nothing")).await, is(403, "NOT_ELIGIBLE"));
    assert_eq!(code(Some("u1"), with("activity_id", "autumn")).await, is(403, "NOT_ELIGIBLE"));
    assert_eq!(code(Some("u1"), with("role_id", "")).await, is(422, "BAD_ROLE"));
    assert_eq!(code(Some("u1"), with("idempotency_key", "k")).await, is(202, "ACCEPTED"));
    let mut changed = with("idempotency_key", "k");
    changed["role_id"] = "r2".into();
    assert_eq!(code(Some("u1"), changed).await, is(422, "KEY_CONFLICT"));
    let request = Request::delete("/v1/claims").body(empty()).unwrap();
    assert_eq!(send(&service, request).await.0, 404);
}

#[tokio::test]
async fn the_last_gift_is_the_last() {
    let service = service().await;
    let gift = GiftId::parse("lantern-mount").unwrap();
    service.store.provision(gift, 1).await.unwrap();
    assert_eq!(claim(&service, Some("u1"), wish()).await.0, 202);
    let (status, body) = claim(&service, Some("u2"), wish()).await;
    assert_eq!((status, body["code"].as_str(), body["retryable"].as_bool()), (410, Some("SOLD_OUT"), Some(false)));
    assert_eq!(claim(&service, Some("u1"), wish()).await.0, 200, "who has one keeps it");
}

#[tokio::test]
async fn sold_out_is_said_without_the_store_once_all_orders_are_known() {
    let dir = tempfile::TempDir::new().unwrap();
    let open = || {
        let store = RedbStore::open(&dir.path().join("claims.redb")).unwrap();
        ClaimService::new(Arc::new(store), Arc::new(Catalogue::built_in()))
    };
    let service = open();
    service.provision(0, 1).await.unwrap();
    assert_eq!(claim(&service, Some("u1"), with("idempotency_key", "k1")).await.0, 202);
    drop(service);
    let service = open();
    service.store.provision(GiftId::parse("lantern-mount").unwrap(), 2).await.unwrap();
    assert_eq!(claim(&service, Some("u2"), wish()).await.0, 202);
    assert_eq!(claim(&service, Some("u3"), wish()).await.0, 410);
    service.learn().await.unwrap();
    // What is answered at the first look waited for no store.
    let at_once = async |user: &str, wish: Value| {
        let mut asked = Box::pin(claim(&service, Some(user), wish));
        match poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await {
            Poll::Ready((_, answer)) => answer["code"].clone(),
            Poll::Pending => Value::Null,
        }
    };
    assert_eq!(at_once("u4", wish()).await, "SOLD_OUT");
    assert_eq!(at_once("u4", with("idempotency_key", "k4")).await, "SOLD_OUT");
    assert_eq!(at_once("u2", wish()).await, "ALREADY_CLAIMED");
    assert_eq!(
        claim(&service, Some("u1"), with("role_id", "r2")).await.1["code"],
        "ALREADY_CLAIMED",
        "an order of before"
    );
    assert_eq!(claim(&service, Some("u1"), with("idempotency_key", "k1")).await.0, 200);
    service.store.provision(GiftId::parse("lantern-mount").unwrap(), 3).await.unwrap();
    service.measure().await.unwrap();
    assert_eq!(claim(&service, Some("u4"), wish()).await.0, 202, "there is more");
}

#[tokio::test]
async fn a_window_opens_and_closes() {
    let mut catalogue = Catalogue::built_in();
    catalogue.activities[0].starts = Some(Moment::from(Wall(NOW + 5_000)));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::new(Mono::from_millis(1_000), Wall(NOW)));
    let early = ClaimService::new(store.clone(), Arc::new(catalogue.clone())).on(clock.clone());
    early.provision(0, 1).await.unwrap();
    let (status, body) = claim(&early, Some("u1"), wish()).await;
    assert_eq!(
        (status, body["code"].as_str(), body["retry_after_ms"].as_u64()),
        (425, Some("NOT_STARTED"), Some(5_000))
    );
    clock.advance(Duration::from_secs(5));
    assert_eq!(claim(&early, Some("u1"), wish()).await.0, 202);
    catalogue.activities[0].ends = Some(Moment::from(Wall(NOW + 5_001)));
    let late = ClaimService::new(store, Arc::new(catalogue)).on(clock.clone());
    clock.advance(Duration::from_secs(5));
    assert_eq!(claim(&late, Some("u2"), wish()).await.1["code"], "EXPIRED");
    assert_eq!(claim(&late, Some("u1"), wish()).await.1["code"], "ALREADY_CLAIMED", "who claimed in time keeps it");
}

/// A store in trouble.
struct Sick(Option<StoreError>);

impl Sick {
    fn say<T: Send + 'static>(&self) -> Answer<'_, T> {
        let error = self.0.clone();
        Box::pin(async move {
            match error {
                Some(error) => Err(error),
                None => std::future::pending().await,
            }
        })
    }
}

impl Store for Sick {
    fn name(&self) -> &'static str {
        "sick"
    }
    fn provision(&self, _: GiftId, _: u64) -> Answer<'_, ()> {
        self.say()
    }
    fn claim(&self, _: Claim, _: Wall) -> Answer<'_, Claimed> {
        self.say()
    }
    fn find(&self, _: OrderNo) -> Answer<'_, Option<Order>> {
        self.say()
    }
    fn lease(&self, _: usize, _: Wall, _: Wall) -> Answer<'_, Vec<Order>> {
        self.say()
    }
    fn settle(&self, _: Vec<Settlement>, _: Wall) -> Answer<'_, Vec<Settled>> {
        self.say()
    }
    fn dead(&self, _: usize) -> Answer<'_, Vec<Order>> {
        self.say()
    }
    fn resolve(&self, _: Vec<OrderNo>, _: Resolution, _: Wall) -> Answer<'_, Vec<Settled>> {
        self.say()
    }
    fn scan(&self, _: Option<OrderNo>, _: usize) -> Answer<'_, Vec<Trail>> {
        self.say()
    }
    fn stats(&self) -> Answer<'_, Stats> {
        self.say()
    }
    fn writable(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_never_leads_to_a_promise() {
    let reason = || "disk full".to_owned();
    let cases = [
        (None, 504, "DEADLINE"),
        (Some(StoreError::Overloaded), 503, "OVERLOADED"),
        (Some(StoreError::Unwritable { reason: reason() }), 503, "UNAVAILABLE"),
        (Some(StoreError::Unknown { reason: reason() }), 504, "DEADLINE"),
        (Some(StoreError::Stopped), 503, "UNAVAILABLE"),
    ];
    for (trouble, status, code) in cases {
        let service = ClaimService::new(Arc::new(Sick(trouble)), Arc::new(Catalogue::built_in()));
        let (got, body) = claim(&service, Some("u1"), wish()).await;
        assert_eq!((got, body["code"].as_str(), body["retryable"].as_bool()), (status, Some(code), Some(true)));
        assert!(!body.to_string().contains("disk"), "no business of a user's: {body}");
        let health = Request::get("/healthz").body(empty()).unwrap();
        assert_eq!(send(&service, health).await.0, 503);
    }
}

#[tokio::test]
async fn workers_lease_and_settle_from_here_only() {
    let service = service().await;
    let order_no = claim(&service, Some("u1"), wish()).await.1["order_no"].clone();
    let ask = json!({ "limit": 10, "lease_ms": 1_000 });
    assert_eq!(internal(&service, "10.0.0.9:5", "/internal/lease", ask.clone()).await.0, 404);
    let (status, leased) = internal(&service, "127.0.0.1:5", "/internal/lease", ask).await;
    assert_eq!((status, &leased["orders"][0]["order_no"]), (200, &order_no), "{leased}");
    let words = json!({ "words": [{ "order_no": order_no, "attempt": 1, "result": "delivered" }] });
    let (status, settled) = internal(&service, "127.0.0.1:5", "/internal/settle", words).await;
    assert_eq!((status, &settled["settled"]), (200, &json!([{ "moved": "DELIVERED" }])), "{settled}");
    let (status, found) = look(&service, "u1", order_no.as_str().unwrap()).await;
    assert_eq!((status, found["code"].as_str(), found["state"].as_str()), (200, Some("OK"), Some("DELIVERED")));
    let stats = service.measure().await.unwrap();
    assert_eq!((stats.delivered, stats.open()), (1, 0));
}

#[tokio::test]
async fn workers_elsewhere_need_the_token() {
    let service = service().await.guarded("secret".into());
    let mut request = Request::get("/internal/stats").header("authorization", "Bearer secret").body(empty()).unwrap();
    request.extensions_mut().insert(Remote("10.0.0.9:5".parse().unwrap()));
    assert_eq!(send(&service, request).await.0, 200);
    let mut request = Request::get("/internal/stats").header("authorization", "Bearer guess").body(empty()).unwrap();
    request.extensions_mut().insert(Remote("10.0.0.9:5".parse().unwrap()));
    assert_eq!(send(&service, request).await.0, 404);
}
