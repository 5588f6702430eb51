//! The book of cash under random use: whatever is asked of it in whatever order, no fen is lost or made.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::redpacket::model::cash::{Mode, Seed, Terms};
use crate::redpacket::model::{ActivityId, Failure, Verdict};

/// Something that may happen to a store.
#[derive(Clone, Debug)]
pub(in crate::redpacket) enum Step {
    Deposit { payer: u8, key: u8, amount: u64 },
    Create { packet: u8, payer: u8, total: u64, count: u32, mode: usize, lasts: u64 },
    Open { packet: u8, openers: Vec<(u8, Option<u8>)> },
    Sweep { limit: usize },
    Lease { limit: usize, hold: u64 },
    Settle { packet: u8, user: u8, attempt: u32, verdict: Verdict },
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Delivered),
        2 => (0u64..400).prop_map(|at| Verdict::Retry { at: Wall(at), why: Failure::Timeout }),
        1 => (0u64..400).prop_map(|at| Verdict::Defer { at: Wall(at) }),
        1 => Just(Verdict::Dead { why: Failure::Refused }),
    ]
}

/// Few packets, payers and users, so that everything meets everything.
pub(in crate::redpacket) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let opener = (0u8..8, prop::option::weighted(0.3, 0u8..3));
    let step = prop_oneof![
        2 => (0u8..2, 0u8..4, 0u64..900).prop_map(|(payer, key, amount)| Step::Deposit { payer, key, amount }),
        3 => (0u8..4, 0u8..2, 0u64..600, 0u32..7, 0usize..3, 5u64..150).prop_map(
            |(packet, payer, total, count, mode, lasts)| Step::Create { packet, payer, total, count, mode, lasts }),
        7 => (0u8..4, prop::collection::vec(opener, 0..5)).prop_map(|(packet, openers)| Step::Open { packet, openers }),
        2 => (0usize..4).prop_map(|limit| Step::Sweep { limit }),
        2 => (0usize..5, 0u64..40).prop_map(|(limit, hold)| Step::Lease { limit, hold }),
        2 => (0u8..4, 0u8..8, 0u32..4, verdict())
            .prop_map(|(packet, user, attempt, verdict)| Step::Settle { packet, user, attempt, verdict }),
    ];
    prop::collection::vec(step, 1..80)
}

pub(in crate::redpacket) fn user(n: u8) -> UserId {
    UserId::parse(&format!("user-{n}")).unwrap()
}

pub(in crate::redpacket) fn packet_id(n: u8) -> PacketId {
    PacketId::parse(&format!("packet-{n}")).unwrap()
}

fn key(n: u8) -> IdempotencyKey {
    IdempotencyKey::parse(&format!("key-{n}")).unwrap()
}

pub(in crate::redpacket) fn deposit(payer: u8, n: u8, amount_fen: u64) -> Deposit {
    Deposit { payer: user(payer), idempotency_key: key(n), amount_fen }
}

pub(in crate::redpacket) fn packing(
    packet: u8,
    payer: u8,
    total_fen: u64,
    count: u32,
    mode: usize,
    lasts: u64,
) -> Packing {
    Packing {
        packet_id: packet_id(packet),
        activity_id: ActivityId::parse("spring").unwrap(),
        payer: user(payer),
        terms: Terms { total_fen, count, mode: Mode::ALL[mode], seed: Seed::new([packet; 16]) },
        lasts_ms: lasts,
    }
}

pub(in crate::redpacket) fn openers(all: &[(u8, Option<u8>)]) -> Vec<Opener> {
    all.iter().map(|(n, k)| Opener { user_id: user(*n), idempotency_key: k.map(key) }).collect()
}

pub(in crate::redpacket) fn number(packet: u8, n: u8) -> OrderNo {
    OrderNo::of(&ActivityId::parse("spring").unwrap(), &packet_id(packet), &user(n), "cash")
}

/// I3 and I7 of everything that is in the book.
fn counted(book: &CashBook) -> Result<(), TestCaseError> {
    let totals = book.totals();
    prop_assert!(totals.add_up(), "I3: {:?}", totals);
    for packet in book.packets.values() {
        let shares = book.shares(packet.id(), 0, 1_000);
        let sum: u64 = shares.iter().map(|s| s.amount_fen).sum();
        let terms = packet.packing.terms;
        prop_assert_eq!(sum + packet.left_fen + packet.refund_fen, terms.total_fen, "I3");
        prop_assert!(shares.len() <= terms.count as usize && shares.iter().all(|s| s.amount_fen >= 1), "I3");
        prop_assert!(shares.iter().zip(1..).all(|(s, rank)| s.rank == rank), "ranks are 1, 2, 3");
        prop_assert_eq!(packet.phase.live(), book.ends.contains(&(packet.expires(), packet.id().clone())));
    }
    let open = book.shares.values().filter(|s| s.booking.state.open()).count();
    prop_assert_eq!((book.due.len(), book.open.len()), (open, open), "I7");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_happens_no_fen_is_lost_or_made(steps in steps()) {
        let mut book = CashBook::default();
        // Who has which share, and what came in, as the answers said.
        let mut told: HashMap<(u8, u8), Share> = HashMap::new();
        let mut paid = 0;
        for (at, step) in steps.into_iter().enumerate() {
            let now = Wall(at as u64 * 5);
            let before = book.totals();
            match step {
                Step::Deposit { payer, key, amount } => {
                    if let Deposited::Done(_) = book.deposit(deposit(payer, key, amount)) {
                        paid += amount;
                    } else {
                        prop_assert_eq!(&book.totals(), &before);
                    }
                }
                Step::Create { packet, payer, total, count, mode, lasts } => {
                    let packing = packing(packet, payer, total, count, mode, lasts);
                    let balance = book.account(&user(payer)).map_or(0, |a| a.balance_fen);
                    match book.create(&packing, now) {
                        Created::Funded(made) => {
                            prop_assert!(balance >= total && total >= u64::from(count) && count > 0);
                            prop_assert_eq!(made.packing, packing);
                        }
                        Created::Unfunded => prop_assert!(balance < total),
                        _ => prop_assert_eq!(&book.totals(), &before),
                    }
                }
                Step::Open { packet, openers: all } => {
                    let opens = book.open(&packet_id(packet), &openers(&all), now);
                    prop_assert_eq!(opens.each.len(), all.len());
                    for (opened, (n, _)) in opens.each.into_iter().zip(all) {
                        match opened {
                            Opened::Share(share) => {
                                prop_assert_eq!(share.order_no, number(packet, n));
                                prop_assert!(told.insert((packet, n), share).is_none(), "I3: a second share");
                            }
                            Opened::Already(share) => {
                                let first = told.get(&(packet, n));
                                prop_assert_eq!(first.map(|s| (s.amount_fen, s.rank)), Some((share.amount_fen, share.rank)));
                            }
                            Opened::KeyConflict => {}
                            _ => prop_assert!(!told.contains_key(&(packet, n)), "who has a share is told of it"),
                        }
                    }
                }
                Step::Sweep { limit } => {
                    let swept = book.sweep(limit, now);
                    prop_assert!(swept.len() <= limit);
                    for packet in swept {
                        prop_assert!(packet.expires() <= now && packet.refund_fen > 0, "a refund of something, after the end");
                    }
                }
                Step::Lease { limit, hold } => {
                    let leased = book.lease(limit, now + std::time::Duration::from_millis(hold), now);
                    prop_assert!(leased.len() <= limit);
                }
                Step::Settle { packet, user, attempt, verdict } => {
                    let order_no = number(packet, user);
                    let before = book.shares.get(&order_no).map(|s| s.booking.state);
                    book.settle(Settlement { order_no, attempt, verdict }, now);
                    let after = book.shares.get(&order_no).map(|s| s.booking.state);
                    prop_assert!(before != Some(State::Delivered) || after == before, "I5: delivered is delivered");
                }
            }
            counted(&book)?;
            prop_assert_eq!(book.totals().deposited_fen, paid);
            prop_assert_eq!(book.shares.len(), told.len(), "I7");
        }
    }
}
