//! The packet service: what each call is answered with, and how a crowd is served.

use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::base::clock::{ManualClock, Mono, Wall};
use crate::net::stage::{empty, full};
use crate::redpacket::ledger::Answer;
use crate::redpacket::ledger::cash::{Account, Created, OPENERS, Opener, Opens};
use crate::redpacket::model::cash::{Packet, Packing, Share};
use crate::redpacket::model::{IdempotencyKey, OrderNo, Resolution, Settled, Settlement};
use crate::redpacket::request::USER_HEADER;
use crate::redpacket::serve::Remote;
use crate::redpacket::store::cash::MemoryPackets;

const NOW: u64 = 1_801_828_800_000;
const PACKET: &str = "packet-of-new-year-1";

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Mono::from_millis(1_000), Wall(NOW)))
}

async fn fund(service: &PacketService, fen: u64) {
    let idempotency_key = IdempotencyKey::parse("prepaid").unwrap();
    let deposit = Deposit { payer: UserId::parse("alice").unwrap(), idempotency_key, amount_fen: fen };
    assert!(matches!(service.deposit(deposit).await, Ok(Deposited::Done(_))));
}

async fn service() -> (PacketService, Arc<ManualClock>) {
    let clock = clock();
    let store = Arc::new(MemoryPackets::new());
    let service = PacketService::on(store, Tokens::random().unwrap(), clock.clone());
    fund(&service, 100_000).await;
    (service, clock)
}

async fn send(service: &PacketService, request: Request<Body>) -> (u16, Value) {
    let response = service.handle(request, Next::end()).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn post(service: &PacketService, user: &str, path: &str, body: Value) -> (u16, Value) {
    send(service, Request::post(path).header(USER_HEADER, user).body(full(body.to_string())).unwrap()).await
}

async fn get(service: &PacketService, user: &str, path: &str) -> (u16, Value) {
    send(service, Request::get(path).header(USER_HEADER, user).body(empty()).unwrap()).await
}

async fn internal(service: &PacketService, from: &str, request: http::request::Builder, body: Value) -> (u16, Value) {
    let mut request = request.body(full(body.to_string())).unwrap();
    request.extensions_mut().insert(Remote(from.parse().unwrap()));
    send(service, request).await
}

fn wish(total_fen: u64, count: u32) -> Value {
    json!({ "total_fen": total_fen, "count": count, "idempotency_key": PACKET, "request_id": "ignored" })
}

async fn grab(service: &PacketService, user: &str) -> (u16, Value) {
    post(service, user, &format!("/v1/packets/{PACKET}/grab"), json!({})).await
}

async fn open(service: &PacketService, user: &str, token: &Value) -> (u16, Value) {
    post(service, user, &format!("/v1/packets/{PACKET}/open"), json!({ "grab_token": token })).await
}

async fn grab_and_open(service: &PacketService, user: &str) -> (u16, Value) {
    let (status, grabbed) = grab(service, user).await;
    if status == 200 && grabbed["code"] == "OK" {
        open(service, user, &grabbed["grab_token"]).await
    } else {
        (status, grabbed)
    }
}

fn is(answer: &(u16, Value), status: u16, code: &str) -> bool {
    (answer.0, answer.1["code"].as_str()) == (status, Some(code))
}

#[tokio::test]
async fn a_packet_is_made_grabbed_opened_and_looked_at() {
    let (service, _) = service().await;
    let made = post(&service, "alice", "/v1/packets", wish(1_000, 3)).await;
    assert!(is(&made, 200, "OK"), "{made:?}");
    assert_eq!((&made.1["packet_id"], &made.1["state"]), (&json!(PACKET), &json!("FUNDED")));
    assert_eq!(made.1["expires_at"], "2027-02-06T12:00:00Z");
    let again = post(&service, "alice", "/v1/packets", wish(1_000, 3)).await;
    assert!(is(&again, 200, "OK") && again.1["packet_id"] == PACKET, "{again:?}");
    let grabbed = grab(&service, "bob").await;
    assert!(is(&grabbed, 200, "OK") && grabbed.1["left_hint"] == 3, "{grabbed:?}");
    let opened = open(&service, "bob", &grabbed.1["grab_token"]).await;
    assert!(is(&opened, 200, "OK") && opened.1["rank"] == 1, "{opened:?}");
    for again in [open(&service, "bob", &json!("")).await, grab(&service, "bob").await] {
        assert!(is(&again, 200, "ALREADY_CLAIMED"), "{again:?}");
        assert_eq!((&again.1["amount_fen"], &again.1["order_no"]), (&opened.1["amount_fen"], &opened.1["order_no"]));
    }
    for user in ["carol", "dave"] {
        assert!(is(&grab_and_open(&service, user).await, 200, "OK"), "{user}");
    }
    assert!(is(&grab(&service, "eve").await, 410, "SOLD_OUT"));
    let (status, seen) = get(&service, "bob", &format!("/v1/packets/{PACKET}?limit=2")).await;
    assert_eq!((status, &seen["state"], &seen["opened_fen"]), (200, &json!("EXHAUSTED"), &json!(1_000)));
    assert_eq!((seen["shares"].as_array().unwrap().len(), &seen["next_after"]), (2, &json!(2)));
    assert_eq!((&seen["mine"]["rank"], &seen["mine"]["state"]), (&json!(1), &json!("ACCEPTED")));
    let (_, rest) = get(&service, "eve", &format!("/v1/packets/{PACKET}?after=2")).await;
    assert_eq!(
        (&rest["shares"][0]["user_id"], &rest["mine"], &rest["next_after"]),
        (&json!("dave"), &json!(null), &json!(null))
    );
    let totals = service.measure().await.unwrap();
    assert_eq!((totals.opened_fen, totals.balances_fen), (1_000, 99_000));
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_by_name() {
    let (service, _) = service().await;
    let with = |key: &str, value: Value| {
        let mut wish = wish(1_000, 3);
        wish[key] = value;
        wish
    };
    for (body, status, code) in [
        (json!({}), 400, "BAD_REQUEST"),
        (wish(1_000, 0), 400, "BAD_REQUEST"),
        (wish(2, 3), 400, "BAD_REQUEST"),
        (with("idempotency_key", json!("short")), 400, "BAD_REQUEST"),
        (with("idempotency_key", Value::Null), 400, "BAD_REQUEST"),
        (with("total_fen", json!(-5)), 400, "BAD_REQUEST"),
        (with("total_fen", json!(10.5)), 400, "BAD_REQUEST"),
        (with("mode", json!("lucky")), 400, "BAD_REQUEST"),
        (with("expire_s", json!(0)), 400, "BAD_REQUEST"),
        (with("expire_s", json!(700_000)), 400, "BAD_REQUEST"),
        (wish(100_001, 3), 402, "UNFUNDED"),
        (wish(1_000, 3), 200, "OK"),
        (wish(1_001, 3), 422, "KEY_CONFLICT"),
        (with("mode", json!("fixed")), 422, "KEY_CONFLICT"),
    ] {
        let answer = post(&service, "alice", "/v1/packets", body.clone()).await;
        assert!(is(&answer, status, code), "{body}: {answer:?}");
    }
    assert!(is(&post(&service, "mallory", "/v1/packets", wish(1_000, 3)).await, 422, "KEY_CONFLICT"), "alice's");
    let header =
        Request::post("/v1/packets").header(USER_HEADER, "alice").header("idempotency-key", "another-key-of-16");
    let both = send(&service, header.body(full(wish(1_000, 3).to_string())).unwrap()).await;
    assert!(is(&both, 400, "BAD_REQUEST"), "{both:?}");
    let header =
        Request::post("/v1/packets").header(USER_HEADER, "alice").header("idempotency-key", "another-key-of-16");
    let body = json!({ "total_fen": 100, "count": 2, "mode": "pre_split" });
    let one = send(&service, header.body(full(body.to_string())).unwrap()).await;
    assert!(is(&one, 200, "OK") && one.1["packet_id"] == "another-key-of-16", "{one:?}");
}

#[tokio::test]
async fn nobody_opens_without_a_grab_of_their_own() {
    let (service, clock) = service().await;
    post(&service, "alice", "/v1/packets", wish(1_000, 3)).await;
    for token in [json!(""), json!("1.2"), json!("ffffffffffff.00000000000000000000000000000000")] {
        assert!(is(&open(&service, "bob", &token).await, 403, "NOT_ELIGIBLE"), "{token}");
    }
    let token = grab(&service, "bob").await.1["grab_token"].clone();
    assert!(is(&open(&service, "carol", &token).await, 403, "NOT_ELIGIBLE"), "bob's");
    clock.advance(Duration::from_mins(10));
    assert!(is(&open(&service, "bob", &token).await, 403, "NOT_ELIGIBLE"), "over");
    assert!(is(&grab_and_open(&service, "bob").await, 200, "OK"));
    for path in ["/v1/packets/nothing-of-the-kind/grab", "/v1/packets/nothing-of-the-kind/open"] {
        assert!(is(&post(&service, "bob", path, json!({ "grab_token": "" })).await, 404, "NOT_FOUND"));
    }
    assert!(is(&get(&service, "bob", "/v1/packets/nothing-of-the-kind").await, 404, "NOT_FOUND"));
    assert!(is(&get(&service, "bob", "/v1/packets/no%20way").await, 400, "BAD_REQUEST"));
    assert!(is(&get(&service, "bob", &format!("/v1/packets/{PACKET}?after=x")).await, 400, "BAD_REQUEST"));
    let nobody = Request::post(format!("/v1/packets/{PACKET}/grab")).body(empty()).unwrap();
    assert_eq!(send(&service, nobody).await.0, 400, "no user");
}

#[tokio::test]
async fn a_grant_is_given_once() {
    let (service, _) = service().await;
    let service = service.granting(500);
    let wish = |n: u32| json!({ "total_fen": 300, "count": 2, "mode": "random", "idempotency_key": format!("packet-of-bob-no-{n}") });
    assert!(is(&post(&service, "bob", "/v1/packets", wish(1)).await, 200, "OK"));
    assert!(is(&post(&service, "bob", "/v1/packets", wish(2)).await, 402, "UNFUNDED"), "200 of 500 are left");
}

#[tokio::test]
async fn a_key_opens_one_packet() {
    let (service, _) = service().await;
    post(&service, "alice", "/v1/packets", wish(1_000, 3)).await;
    let mut other = wish(1_000, 3);
    other["idempotency_key"] = "packet-of-new-year-2".into();
    post(&service, "alice", "/v1/packets", other).await;
    for (packet, status, code) in [(PACKET, 200, "OK"), ("packet-of-new-year-2", 422, "KEY_CONFLICT")] {
        let (_, grabbed) = post(&service, "bob", &format!("/v1/packets/{packet}/grab"), json!({})).await;
        let ask = json!({ "grab_token": grabbed["grab_token"], "idempotency_key": "k1" });
        let answer = post(&service, "bob", &format!("/v1/packets/{packet}/open"), ask).await;
        assert!(is(&answer, status, code), "{answer:?}");
    }
}

#[tokio::test]
async fn what_nobody_opened_goes_back_when_the_time_is_over() {
    let (service, clock) = service().await;
    let mut short = wish(1_000, 3);
    short["expire_s"] = 60.into();
    post(&service, "alice", "/v1/packets", short).await;
    let share = grab_and_open(&service, "bob").await.1["amount_fen"].as_u64().unwrap();
    let token = grab(&service, "carol").await.1["grab_token"].clone();
    assert_eq!(service.sweep().await, Ok(0));
    clock.advance(Duration::from_mins(1));
    assert!(is(&grab(&service, "dave").await, 410, "EXPIRED"));
    assert!(is(&open(&service, "carol", &token).await, 410, "EXPIRED"));
    assert!(is(&grab(&service, "bob").await, 200, "ALREADY_CLAIMED"), "who opened in time keeps it");
    assert_eq!(get(&service, "bob", &format!("/v1/packets/{PACKET}")).await.1["state"], "EXPIRED");
    assert_eq!(service.sweep().await, Ok(1));
    assert_eq!(service.sweep().await, Ok(0));
    let (_, seen) = get(&service, "bob", &format!("/v1/packets/{PACKET}")).await;
    assert_eq!((&seen["state"], &seen["refund_fen"]), (&json!("REFUNDED"), &json!(1_000 - share)));
    let asked = internal(&service, "127.0.0.1:9", Request::get("/internal/accounts/alice"), Value::Null).await;
    assert_eq!(asked.1["balance_fen"], 100_000 - share);
}

#[tokio::test]
async fn money_comes_in_from_here_or_with_the_token() {
    let (service, _) = service().await;
    let service = service.guarded("secret".into());
    let deposit = |amount: u64| json!({ "payer": "bob", "idempotency_key": "pay-1", "amount_fen": amount });
    let ask = || Request::post("/internal/deposits");
    assert_eq!(internal(&service, "10.0.0.9:5", ask(), deposit(500)).await.0, 404);
    let guess = ask().header("authorization", "Bearer guess");
    assert_eq!(internal(&service, "10.0.0.9:5", guess, deposit(500)).await.0, 404);
    let known = ask().header("authorization", "Bearer secret");
    let (status, account) = internal(&service, "10.0.0.9:5", known, deposit(500)).await;
    assert_eq!((status, &account["balance_fen"]), (200, &json!(500)));
    let (status, account) = internal(&service, "127.0.0.1:5", ask(), deposit(500)).await;
    assert_eq!((status, &account["balance_fen"]), (200, &json!(500)), "once");
    assert!(is(&internal(&service, "127.0.0.1:5", ask(), deposit(501)).await, 422, "KEY_CONFLICT"));
    let nothing = json!({ "payer": "bob", "idempotency_key": "pay-2", "amount_fen": 0 });
    assert!(is(&internal(&service, "127.0.0.1:5", ask(), nothing).await, 400, "BAD_REQUEST"));
    let (status, audit) = internal(&service, "127.0.0.1:5", Request::get("/internal/audit"), Value::Null).await;
    assert_eq!((status, &audit["differences"]), (200, &json!(0)));
    let totals = internal(&service, "127.0.0.1:5", Request::get("/internal/totals"), Value::Null).await.1;
    assert_eq!(totals["deposited_fen"], 100_500);
}

/// A memory store that counts what reaches it, and can be told to fail.
#[derive(Default)]
struct Watched {
    store: MemoryPackets,
    opens: AtomicU64,
    openers: AtomicU64,
    reads: AtomicU64,
    trouble: Mutex<Option<StoreError>>,
}

impl Watched {
    fn say<'a, T: Send + 'a>(&self, answer: Answer<'a, T>) -> Answer<'a, T> {
        match self.trouble.lock().unwrap().clone() {
            Some(error) => Box::pin(std::future::ready(Err(error))),
            None => answer,
        }
    }
}

impl PacketStore for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }
    fn deposit(&self, deposit: Deposit) -> Answer<'_, Deposited> {
        self.say(self.store.deposit(deposit))
    }
    fn account(&self, payer: UserId) -> Answer<'_, Option<Account>> {
        self.say(self.store.account(payer))
    }
    fn create(&self, packing: Packing, now: Wall) -> Answer<'_, Created> {
        self.say(self.store.create(packing, now))
    }
    fn open(&self, packet_id: PacketId, openers: Vec<Opener>, now: Wall) -> Answer<'_, Opens> {
        self.opens.fetch_add(1, Ordering::Relaxed);
        self.openers.fetch_add(openers.len() as u64, Ordering::Relaxed);
        let answer = self.say(self.store.open(packet_id, openers, now));
        // As slow as a disk, so that others gather meanwhile.
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answer.await
        })
    }
    fn find(&self, packet_id: PacketId) -> Answer<'_, Option<Packet>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.say(self.store.find(packet_id))
    }
    fn share(&self, packet_id: PacketId, user_id: UserId) -> Answer<'_, Option<Share>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.say(self.store.share(packet_id, user_id))
    }
    fn shares(&self, packet_id: PacketId, after: u32, limit: usize) -> Answer<'_, Vec<Share>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.say(self.store.shares(packet_id, after, limit))
    }
    fn sweep(&self, limit: usize, now: Wall) -> Answer<'_, Vec<Packet>> {
        self.say(self.store.sweep(limit, now))
    }
    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Share>> {
        self.say(self.store.lease(limit, until, now))
    }
    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        self.say(self.store.settle(words, now))
    }
    fn dead(&self, limit: usize) -> Answer<'_, Vec<Share>> {
        self.say(self.store.dead(limit))
    }
    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        self.say(self.store.resolve(order_nos, resolution, now))
    }
    fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Share>> {
        self.say(self.store.scan_shares(after, limit))
    }
    fn scan(&self, after: Option<PacketId>, limit: usize) -> Answer<'_, Vec<Packet>> {
        self.say(self.store.scan(after, limit))
    }
    fn totals(&self) -> Answer<'_, Totals> {
        self.say(self.store.totals())
    }
    fn writable(&self) -> bool {
        self.trouble.lock().unwrap().is_none()
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_shares_its_commits_and_the_rest_is_answered_from_memory() {
    let store = Arc::new(Watched::default());
    let service = Arc::new(PacketService::on(store.clone(), Tokens::random().unwrap(), clock()));
    fund(&service, 50_000).await;
    post(&service, "alice", "/v1/packets", wish(50_000, 500)).await;
    let mut crowd = JoinSet::new();
    for n in 0..5_000 {
        let service = service.clone();
        crowd.spawn(async move { grab_and_open(&service, &format!("u{n}")).await });
    }
    let (mut fen, mut codes) = (0, std::collections::BTreeMap::<String, u32>::new());
    while let Some(answer) = crowd.join_next().await {
        let (_, body) = answer.unwrap();
        fen += body["amount_fen"].as_u64().unwrap_or_default();
        *codes.entry(body["code"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!((fen, codes["OK"]), (50_000, 500), "{codes:?}");
    // The line was full for some, who did not get to hear more than that.
    assert_eq!(codes.values().sum::<u32>(), 5_000);
    let (opens, openers) = (store.opens.load(Ordering::Relaxed), store.openers.load(Ordering::Relaxed));
    assert!(opens * (OPENERS as u64) < openers + 2 * OPENERS as u64, "{opens} commits for {openers}");
    for n in 0..5_000 {
        let (_, body) = grab(&service, &format!("u{n}")).await;
        assert!(["ALREADY_CLAIMED", "SOLD_OUT"].contains(&body["code"].as_str().unwrap()), "{body}");
    }
    assert_eq!(store.reads.load(Ordering::Relaxed), 0, "whoever made it knows it");
    // Another process, or this one after a restart, reads it once.
    let cold = PacketService::on(store.clone(), Tokens::random().unwrap(), clock());
    for n in 0..5_000 {
        let (_, body) = grab(&cold, &format!("u{n}")).await;
        assert!(["ALREADY_CLAIMED", "SOLD_OUT"].contains(&body["code"].as_str().unwrap()), "{body}");
        post(&cold, "eve", "/v1/packets/there-is-no-such-packet/grab", json!({})).await;
    }
    assert_eq!(store.reads.load(Ordering::Relaxed), 3, "the packet, its shares, and that there is no other");
}

#[tokio::test(start_paused = true)]
async fn a_store_in_trouble_never_leads_to_a_promise() {
    let reason = || "disk full".to_owned();
    for (trouble, status, code) in [
        (StoreError::Overloaded, 503, "OVERLOADED"),
        (StoreError::Unwritable { reason: reason() }, 503, "UNAVAILABLE"),
        (StoreError::Unknown { reason: reason() }, 504, "DEADLINE"),
        (StoreError::Stopped, 503, "UNAVAILABLE"),
    ] {
        let store = Arc::new(Watched::default());
        let service = PacketService::on(store.clone(), Tokens::random().unwrap(), clock());
        fund(&service, 1_000).await;
        post(&service, "alice", "/v1/packets", wish(1_000, 3)).await;
        let token = grab(&service, "bob").await.1["grab_token"].clone();
        *store.trouble.lock().unwrap() = Some(trouble);
        let mut other = wish(1_000, 3);
        other["idempotency_key"] = "packet-of-new-year-2".into();
        for answer in [open(&service, "bob", &token).await, post(&service, "alice", "/v1/packets", other).await] {
            assert!(is(&answer, status, code), "{answer:?}");
            assert!(!answer.1.to_string().contains("disk"), "no business of a user's: {answer:?}");
        }
        let health = Request::get("/healthz").body(empty()).unwrap();
        assert_eq!(send(&service, health).await.0, 503);
        *store.trouble.lock().unwrap() = None;
        // What the store did although it could not say so is found, what it did not is done now.
        assert_eq!(open(&service, "bob", &token).await.0, 200, "asked again, it is told");
    }
}
