//! The book under random use: whatever is asked of it in whatever order, the invariants hold after every step.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::redpacket::model::{ActivityId, Failure, PacketId, RoleId, Verdict, ZoneId};

/// How long an order may be open; a story lasts up to 400 ms.
const PROMISE: Duration = Duration::from_millis(60);

/// Something that may happen to a store.
#[derive(Clone, Debug)]
enum Step {
    Provision(u8, u64),
    Claim { user: u8, packet: u8, gift: u8, role: u8, key: Option<u8> },
    Lease { limit: usize, hold: u64 },
    Settle { user: u8, packet: u8, attempt: u32, verdict: Verdict },
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        3 => Just(Verdict::Delivered),
        2 => (0u64..400).prop_map(|at| Verdict::Retry { at: Wall(at), why: Failure::Timeout }),
        1 => (0u64..400).prop_map(|at| Verdict::Defer { at: Wall(at) }),
        1 => Just(Verdict::Dead { why: Failure::Refused }),
    ]
}

/// Few users, packets and gifts, so that everything meets everything.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let claim = (0u8..6, 0u8..3, 0u8..3, 0u8..2, prop::option::weighted(0.4, 0u8..3));
    let step = prop_oneof![
        1 => (0u8..3, 0u64..8).prop_map(|(gift, total)| Step::Provision(gift, total)),
        6 => claim.prop_map(|(user, packet, gift, role, key)| Step::Claim { user, packet, gift, role, key }),
        2 => (0usize..5, 0u64..40).prop_map(|(limit, hold)| Step::Lease { limit, hold }),
        3 => (0u8..6, 0u8..3, 0u32..4, verdict())
            .prop_map(|(user, packet, attempt, verdict)| Step::Settle { user, packet, attempt, verdict }),
    ];
    prop::collection::vec(step, 1..80)
}

fn gift(gift: u8) -> GiftId {
    GiftId::parse(&format!("gift-{gift}")).unwrap()
}

fn claim(user: u8, packet: u8, gift_no: u8, role: u8, key: Option<u8>) -> Claim {
    Claim {
        activity_id: ActivityId::parse("a").unwrap(),
        packet_id: PacketId::parse(&format!("packet-{packet}")).unwrap(),
        user_id: UserId::parse(&format!("user-{user}")).unwrap(),
        gift_id: gift(gift_no),
        zone_id: ZoneId::parse("z").unwrap(),
        role_id: RoleId::parse(&format!("role-{role}")).unwrap(),
        idempotency_key: key.map(|key| IdempotencyKey::parse(&format!("key-{key}")).unwrap()),
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(steps in steps()) {
        let mut book = Book::default();
        let mut made = HashSet::new();
        for (at, step) in steps.into_iter().enumerate() {
            let now = Wall(at as u64 * 5);
            match step {
                Step::Provision(g, total) => book.provision(gift(g), total),
                Step::Claim { user, packet, gift, role, key } => {
                    let wish = claim(user, packet, gift, role, key);
                    let left = book.stock.get(&wish.gift_id).map_or(0, |s| s.left());
                    match book.claim(wish.clone(), now) {
                        Claimed::Accepted(order) => {
                            prop_assert!(left > 0, "I1: given with nothing left");
                            prop_assert!(made.insert((user, packet)), "I2: a second order");
                            prop_assert_eq!(order.claim, wish);
                        }
                        Claimed::Already(order) => {
                            prop_assert!(made.contains(&(user, packet)));
                            prop_assert_eq!(order.order_no, wish.number());
                        }
                        Claimed::SoldOut => prop_assert!(left == 0 && !made.contains(&(user, packet))),
                        Claimed::NoSuchGift => prop_assert!(!book.stock.contains_key(&wish.gift_id)),
                        Claimed::KeyConflict => {}
                    }
                }
                Step::Lease { limit, hold } => {
                    let leased = book.lease(limit, now + Duration::from_millis(hold), now);
                    prop_assert!(leased.len() <= limit);
                }
                Step::Settle { user, packet, attempt, verdict } => {
                    let order_no = claim(user, packet, 0, 0, None).number();
                    let before = book.find(order_no).map(|o| o.state);
                    book.settle(Settlement { order_no, attempt, verdict }, now);
                    let after = book.find(order_no).map(|o| o.state);
                    prop_assert!(before != Some(State::Delivered) || after == before, "I5: delivered is delivered");
                }
            }
            let stats = book.stats();
            prop_assert_eq!(stats.orders() as usize, made.len(), "I7");
            prop_assert_eq!(stats.stock.iter().map(|(_, s)| s.issued).sum::<u64>(), stats.orders(), "I7");
            let waits = |state: State| state.open() || state == State::Dead;
            let forgotten = made.iter().filter_map(|(user, packet)| book.find(claim(*user, *packet, 0, 0, None).number()));
            let told = stats.alarms(now, PROMISE).into_iter().any(|(_, on)| on);
            for order in forgotten.filter(|o| waits(o.state) && now.since(o.created) > PROMISE) {
                prop_assert!(told, "I6: {order:?} is {:?} old, and nobody is told", now.since(order.created));
            }
            prop_assert_eq!((book.due.len() as u64, book.open.len() as u64), (stats.open(), stats.open()));
        }
    }
}
