//! Cash packets, those who open them, and the last question: does every packet add up to what its openers were told?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use springtide::redpacket::peer::{CallError, Peer, Reply};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Alive, SOON, ask, body, eventually, someone};

/// Prepaid, in fen.
pub(crate) const MONEY: u64 = 10_000_000;
/// Shares of each packet of a crowd.
pub(crate) const SHARES: usize = 100;

pub(crate) fn name(packet: usize) -> String {
    format!("packet-number-{packet:04}")
}

/// What is in a packet of a crowd, in fen.
pub(crate) fn total(packet: usize) -> u64 {
    5_000 + packet as u64
}

pub(crate) async fn pack(peer: &Peer, packet: usize, total_fen: u64, count: usize, mode: &str) -> Value {
    let wish = json!({ "total_fen": total_fen, "count": count, "mode": mode, "idempotency_key": name(packet) });
    let body = Bytes::from(wish.to_string());
    let reply = peer.call(Method::POST, "/v1/packets", body, &[("x-user-id", "campaign")], SOON).await.unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    super::body(&reply)
}

async fn say(peer: &Peer, packet: usize, call: &str, user: &str, token: &Value) -> Result<Reply, CallError> {
    let body = Bytes::from(json!({ "grab_token": token }).to_string());
    let path = format!("/v1/packets/{}/{call}", name(packet));
    peer.call(Method::POST, &path, body, &[("x-user-id", user)], SOON).await
}

/// Grabs and opens; nothing where there was no answer, or one that says to ask again.
pub(crate) async fn open(peer: &Peer, packet: usize, user: &str) -> Option<Value> {
    let answer = |reply: Reply| {
        let told = !reply.status.is_server_error();
        told.then(|| body(&reply))
    };
    let grabbed = answer(say(peer, packet, "grab", user, &json!("")).await.ok()?)?;
    if grabbed["code"] != "OK" {
        return Some(grabbed);
    }
    answer(say(peer, packet, "open", user, &grabbed["grab_token"]).await.ok()?)
}

/// What openers were told: (packet, user) -> (fen, rank, order number).
pub(crate) type Told = BTreeMap<(usize, String), (u64, u64, String)>;

/// Users that open one packet after another, and each until there is an answer, whichever process gives it.
pub(crate) struct Openers {
    alive: Alive,
    next: AtomicUsize,
    users: usize,
    packets: usize,
    told: Mutex<Told>,
    refused: AtomicUsize,
    answers: AtomicUsize,
}

impl Openers {
    /// `clients` clients: for each of `users` users a share of each of `packets` packets.
    pub(crate) fn start(alive: Alive, users: usize, packets: usize, clients: usize) -> (Arc<Self>, JoinSet<()>) {
        let crowd = Arc::new(Self {
            alive,
            next: AtomicUsize::new(0),
            users,
            packets,
            told: Mutex::default(),
            refused: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
        });
        let mut all = JoinSet::new();
        for client in 0..clients {
            all.spawn(crowd.clone().run(client));
        }
        (crowd, all)
    }

    /// How many have their answer.
    pub(crate) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    async fn run(self: Arc<Self>, client: usize) {
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            if turn >= self.users * self.packets {
                return;
            }
            let (packet, user) = (turn % self.packets, format!("user-{}", turn / self.packets));
            let answer = loop {
                match open(&*someone(&self.alive, client).await, packet, &user).await {
                    Some(answer) => break answer,
                    None => sleep(Duration::from_millis(2)).await,
                }
            };
            match answer["code"].as_str().unwrap() {
                "OK" | "ALREADY_CLAIMED" => {
                    let (fen, rank) = (answer["amount_fen"].as_u64().unwrap(), answer["rank"].as_u64().unwrap());
                    let order_no = answer["order_no"].as_str().unwrap().to_owned();
                    self.told.lock().unwrap().insert((packet, user), (fen, rank, order_no));
                }
                "SOLD_OUT" => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
                other => panic!("{user}: {other}: {answer}"),
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// I3, I4 and I5 of everything that was told: who was told of a share has it, every packet adds up to the fen, the wallet
    /// booked each share once, and the payer's account is what is left of [`MONEY`].
    pub(crate) async fn settled(&self, process: &Peer, wallet: &Peer) -> Told {
        let told = self.told.lock().unwrap().clone();
        let refused = self.packets * (self.users - SHARES);
        assert_eq!((told.len(), self.refused.load(Ordering::Relaxed)), (self.packets * SHARES, refused));
        let numbers: BTreeSet<_> = told.values().map(|(_, _, order_no)| order_no).collect();
        assert_eq!(numbers.len(), told.len(), "one share, one number");
        let audit = ask(process, "/internal/audit").await;
        assert_eq!((&audit["differences"], &audit["shares"]), (&json!(0), &json!(told.len())), "{audit}");
        for packet in 0..self.packets {
            let (mut fen, mut after, mut users) = (0, json!(0), BTreeSet::new());
            while !after.is_null() {
                let seen = ask(process, &format!("/v1/packets/{}?limit=60&after={after}", name(packet))).await;
                for claim in seen["shares"].as_array().unwrap() {
                    let user = claim["user_id"].as_str().unwrap().to_owned();
                    let (amount, rank, _) = &told[&(packet, user.clone())];
                    assert_eq!((&claim["amount_fen"], &claim["rank"]), (&json!(amount), &json!(rank)), "{user}");
                    fen += amount;
                    assert!(users.insert(user));
                }
                after.clone_from(&seen["next_after"]);
            }
            assert_eq!((fen, users.len()), (total(packet), SHARES), "packet {packet}");
        }
        let tally = eventually("all booked", async || {
            let tally = ask(wallet, "/stats").await;
            (tally["applied"].as_u64() >= Some(told.len() as u64)).then_some(tally)
        })
        .await;
        assert_eq!((&tally["applied"], &tally["orders"]), (&json!(told.len()), &json!(told.len())), "{tally}");
        let account = ask(process, "/internal/accounts/campaign").await;
        let spent: u64 = (0..self.packets).map(total).sum();
        assert_eq!(account["balance_fen"], MONEY - spent, "prepaid once, however often it started");
        eprintln!("{} shares, the wallet was told of {} twice", told.len(), tally["duplicates"]);
        told
    }
}

/// Fills `packets` packets for a crowd, of every mode in turn.
pub(crate) async fn fill(peer: &Peer, packets: usize) {
    for (packet, mode) in ["double_mean", "pre_split", "fixed"].into_iter().cycle().take(packets).enumerate() {
        pack(peer, packet, total(packet), SHARES, mode).await;
    }
}
