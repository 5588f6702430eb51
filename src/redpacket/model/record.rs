//! An order as bytes, for stores that keep it: compact, versioned, and total to read.
//!
//! Layout, version 2: version, state, failure (0 = none), attempts u32, spent u32, due u64, created u64, updated u64, then
//! seven texts, each a length byte and its bytes (an empty key is no key). Little endian. The number is not stored: it
//! follows from the claim. Version 1 has no `spent`, and is read.

use super::{ActivityId, Claim, Failure, GiftId, IdempotencyKey, Order, PacketId, RoleId, State, UserId, ZoneId};
use crate::base::clock::Wall;

const VERSION: u8 = 2;

impl Order {
    /// The order as a record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let state = State::ALL.iter().position(|s| *s == self.state).unwrap_or_default() as u8;
        let failure = self.failure.and_then(|f| Failure::ALL.iter().position(|g| *g == f)).map_or(0, |at| at as u8 + 1);
        out.extend_from_slice(&[VERSION, state, failure]);
        out.extend_from_slice(&self.attempts.to_le_bytes());
        out.extend_from_slice(&self.spent.to_le_bytes());
        for time in [self.due, self.created, self.updated] {
            out.extend_from_slice(&time.0.to_le_bytes());
        }
        for text in self.claim.texts() {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// The order in a record; nothing where the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version, state, failure] = *take::<3>(&mut rest)?;
        if !(1..=VERSION).contains(&version) {
            return None;
        }
        let failure = match failure {
            0 => None,
            n => Some(*Failure::ALL.get(usize::from(n) - 1)?),
        };
        let attempts = u32::from_le_bytes(*take(&mut rest)?);
        let spent = if version == 1 { 0 } else { u32::from_le_bytes(*take(&mut rest)?) };
        let mut time = || take(&mut rest).map(|b| Wall(u64::from_le_bytes(*b)));
        let (due, created, updated) = (time()?, time()?, time()?);
        let mut text = || {
            let [len] = *take::<1>(&mut rest)?;
            let (text, tail) = rest.split_at_checked(usize::from(len))?;
            rest = tail;
            std::str::from_utf8(text).ok()
        };
        let claim = Claim {
            activity_id: ActivityId::parse(text()?).ok()?,
            packet_id: PacketId::parse(text()?).ok()?,
            user_id: UserId::parse(text()?).ok()?,
            gift_id: GiftId::parse(text()?).ok()?,
            zone_id: ZoneId::parse(text()?).ok()?,
            role_id: RoleId::parse(text()?).ok()?,
            idempotency_key: match text()? {
                "" => None,
                key => Some(IdempotencyKey::parse(key).ok()?),
            },
        };
        let state = *State::ALL.get(usize::from(state))?;
        rest.is_empty().then(|| Self {
            order_no: claim.number(),
            claim,
            state,
            attempts,
            spent,
            due,
            failure,
            created,
            updated,
        })
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::order::tests::claim;
    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back(user in "[a-z0-9]{1,64}", key in prop::option::of("[a-z]{1,64}"), state in 0usize..6,
                               failure in prop::option::of(0usize..5), attempts: u32, spent: u32, times: [u64; 3]) {
            let mut claim = claim(&user, "p1");
            claim.idempotency_key = key.map(|k| IdempotencyKey::parse(&k).unwrap());
            let order = Order {
                state: State::ALL[state],
                attempts,
                spent,
                failure: failure.map(|f| Failure::ALL[f]),
                due: Wall(times[0]),
                updated: Wall(times[2]),
                ..Order::accept(claim, Wall(times[1]))
            };
            prop_assert_eq!(Order::decode(&order.encode()), Some(order));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Order::decode(&bytes);
        }

        #[test]
        fn a_record_of_the_first_release_is_read(user in "[a-z0-9]{1,64}", attempts: u32) {
            let order = Order { attempts, ..Order::accept(claim(&user, "p1"), Wall(5)) };
            let mut old = order.encode();
            old[0] = 1;
            old.drain(7..11);
            prop_assert_eq!(Order::decode(&old), Some(order));
        }

        #[test]
        fn a_broken_record_is_no_order(cut in 0usize..80) {
            let whole = Order::accept(claim("user", "packet"), Wall(5)).encode();
            prop_assume!(cut < whole.len());
            prop_assert_eq!(Order::decode(&whole[..cut]), None);
        }
    }
}
