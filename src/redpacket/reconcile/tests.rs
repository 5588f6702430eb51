//! What reconciliation finds: nothing where all is well, and each thing that can be wrong.

use std::sync::Arc;

use super::*;
use crate::base::clock::Wall;
use crate::redpacket::ledger::Claimed;
use crate::redpacket::ledger::Store;
use crate::redpacket::ledger::cash::{Deposit, Opener, PacketStore};
use crate::redpacket::model::cash::{Mode, Packing, Seed, Terms};
use crate::redpacket::model::{
    ActivityId, Claim, Failure, GiftId, PacketId, Resolution, RoleId, Settlement, Trail, UserId, Verdict, ZoneId,
};
use crate::redpacket::store::cash::MemoryPackets;
use crate::redpacket::store::deliveries::Deliveries;
use crate::redpacket::store::memory::MemoryStore;

fn claim(user: u32) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse("p").unwrap(),
        user_id: UserId::parse(&format!("user-{user}")).unwrap(),
        gift_id: GiftId::parse("g").unwrap(),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse("r").unwrap(),
        idempotency_key: None,
    }
}

/// Orders of these users, leased.
async fn accepted(store: &MemoryStore, users: std::ops::Range<u32>) {
    store.provision(GiftId::parse("g").unwrap(), 10_000).await.unwrap();
    for user in users {
        assert!(matches!(store.claim(claim(user), Wall(1)).await.unwrap(), Claimed::Accepted(_)));
    }
}

async fn say(store: &MemoryStore, user: u32, verdict: Verdict) {
    let word = Settlement { order_no: claim(user).number(), attempt: 1, verdict };
    store.settle(vec![word], Wall(3)).await.unwrap();
}

#[tokio::test]
async fn what_fits_is_clean_and_what_does_not_is_named() {
    let (one, two) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let game = Deliveries::in_memory().unwrap();
    accepted(&one, 0..1_500).await;
    accepted(&two, 1_500..1_600).await;
    for store in [&one, &two] {
        store.lease(10_000, Wall(100), Wall(2)).await.unwrap();
    }
    for user in 0..1_600 {
        // Some are with the game and not settled: that is on the way.
        game.apply(claim(user).number(), Wall(2)).await.unwrap();
        if user >= 10 {
            say(if user < 1_500 { &one } else { &two }, user, Verdict::Delivered).await;
        }
    }
    let orders = || [Orders::Store(one.clone()), Orders::Store(two.clone())];
    let game = Game::Ledger(game);
    let report = reconcile(&orders(), &game).await.unwrap();
    assert!(report.clean() && !report.moving, "{report:?}");
    assert_eq!((report.orders, report.delivered, report.applied, report.on_the_way), (1_600, 1_590, 1_600, 10));
    // Each thing that can be wrong, once.
    accepted(&two, 1_600..1_603).await;
    accepted(&one, 1_602..1_603).await;
    two.lease(10, Wall(100), Wall(2)).await.unwrap();
    let Game::Ledger(ledger) = &game else { unreachable!() };
    say(&two, 1_600, Verdict::Delivered).await;
    say(&two, 1_601, Verdict::Dead { why: Failure::Refused }).await;
    ledger.apply(claim(1_601).number(), Wall(3)).await.unwrap();
    ledger.apply(claim(7_777).number(), Wall(3)).await.unwrap();
    let report = reconcile(&orders(), &game).await.unwrap();
    let counts: Vec<_> = report.counts.iter().map(|(kind, n)| (*kind, *n)).collect();
    let wrong = [Kind::Lost, Kind::NoSuchOrder, Kind::TwoOrders, Kind::GivenAndDead];
    assert_eq!(counts, wrong.map(|kind| (kind, 1)), "{:?}", report.differences);
    let lost = report.differences.iter().find(|d| d.kind == Kind::Lost).unwrap();
    assert_eq!(lost.of, claim(1_600).number().to_string());
    two.resolve(vec![claim(1_601).number()], Resolution::Compensate, Wall(9)).await.unwrap();
    let report = reconcile(&orders(), &game).await.unwrap();
    assert_eq!(report.counts.get(&Kind::GivenAndCompensated), Some(&1), "{report:?}");
}

#[test]
fn a_second_gift_and_a_log_that_differs_are_seen() {
    let order = crate::redpacket::model::Order::accept(claim(1), Wall(1));
    let order_no = order.order_no;
    let entry = |given| Entry { order_no, applied_at: Wall(1), received: 2, given };
    let trail = |state, attempts: Vec<crate::redpacket::model::Attempt>| Trail {
        order: crate::redpacket::model::Order { state, ..order.clone() },
        attempts,
    };
    let word = crate::redpacket::model::Attempt { attempt: 1, at: Wall(1), failure: None };
    let kinds = |trail: &Trail, entry: Entry| -> Vec<Kind> {
        judge(Some(&Promise::Order(trail.clone())), Some(&entry)).into_iter().map(|(kind, _)| kind).collect()
    };
    let good = trail(State::Delivered, vec![word]);
    assert_eq!(kinds(&good, entry(1)), []);
    assert_eq!(kinds(&good, entry(2)), [Kind::GivenTwice]);
    assert_eq!(kinds(&trail(State::Delivered, vec![]), entry(1)), [Kind::LogDiffers]);
    assert_eq!(kinds(&trail(State::RetryWait, vec![word]), entry(1)), [Kind::LogDiffers]);
}

#[tokio::test]
async fn one_order_is_found_by_its_number() {
    let store = Arc::new(MemoryStore::new());
    accepted(&store, 0..5).await;
    let orders = Orders::Store(store);
    for user in 0..5 {
        let order_no = claim(user).number();
        assert_eq!(orders.one(order_no).await.unwrap().map(|p| p.order_no()), Some(order_no));
    }
    assert!(orders.one(OrderNo::from_bytes([0; 17])).await.unwrap().is_none());
}

#[tokio::test]
async fn shares_are_held_against_the_wallet() {
    let till = Arc::new(MemoryPackets::new());
    let payer = UserId::parse("payer").unwrap();
    let idempotency_key = crate::redpacket::model::IdempotencyKey::parse("paid").unwrap();
    till.deposit(Deposit { payer: payer.clone(), idempotency_key, amount_fen: 5_000 }).await.unwrap();
    let terms = Terms { total_fen: 1_000, count: 20, mode: Mode::Fixed, seed: Seed::new([1; 16]) };
    let (packet_id, activity_id) = (PacketId::parse("p").unwrap(), ActivityId::parse("a").unwrap());
    let packing = Packing { packet_id: packet_id.clone(), activity_id, payer, terms, lasts_ms: 1_000 };
    till.create(packing, Wall(1)).await.unwrap();
    let opener = |n| Opener { user_id: UserId::parse(&format!("u{n}")).unwrap(), idempotency_key: None };
    till.open(packet_id, (0..12).map(opener).collect(), Wall(2)).await.unwrap();
    let wallet = Deliveries::in_memory().unwrap();
    let leased = till.lease(12, Wall(100), Wall(2)).await.unwrap();
    let word = |at: usize, verdict| Settlement { order_no: leased[at].order_no, attempt: 1, verdict };
    for (at, share) in leased.iter().enumerate().take(10) {
        wallet.apply(share.order_no, Wall(3)).await.unwrap();
        till.settle(vec![word(at, Verdict::Delivered)], Wall(4)).await.unwrap();
    }
    // Booked, and not settled yet: on the way.
    wallet.apply(leased[10].order_no, Wall(3)).await.unwrap();
    let (shares, game) = ([Orders::Till(till.clone())], Game::Ledger(wallet));
    let report = reconcile(&shares, &game).await.unwrap();
    assert!(report.clean() && !report.moving, "{report:?}");
    assert_eq!((report.orders, report.delivered, report.applied, report.on_the_way), (12, 10, 11, 1));
    assert_eq!(report.cash.map(|cash| (cash.packets, cash.shares, cash.shares_fen)), Some((1, 12, 600)));
    let Game::Ledger(wallet) = &game else { unreachable!() };
    till.settle(vec![word(11, Verdict::Delivered)], Wall(5)).await.unwrap();
    till.settle(vec![word(10, Verdict::Dead { why: Failure::Refused })], Wall(5)).await.unwrap();
    wallet.apply(claim(7).number(), Wall(6)).await.unwrap();
    let report = reconcile(&shares, &game).await.unwrap();
    let counts: Vec<_> = report.counts.iter().map(|(kind, n)| (*kind, *n)).collect();
    assert_eq!(counts, [Kind::Lost, Kind::NoSuchOrder, Kind::GivenAndDead].map(|kind| (kind, 1)), "{report:?}");
}

#[test]
fn what_an_audit_tells_is_told_by_packet() {
    let mut report = Report::default();
    let told = vec!["packet p: 9 of 10 shares".to_owned(), "11 shares were counted, the sums say 10".to_owned()];
    report.note_cash(&audit::Report { differences: 5, told, ..audit::Report::default() });
    assert_eq!(report.counts.get(&Kind::CashDiffers), Some(&5));
    let of: Vec<&str> = report.differences.iter().map(|d| d.of.as_str()).collect();
    assert_eq!(of, ["packet p", "all packets"]);
}
