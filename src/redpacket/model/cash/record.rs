//! Packets and shares as bytes, for stores that keep them: compact, versioned, and total to read.
//!
//! Numbers are little endian; a text is a length byte and its bytes; an empty key is no key. What follows from the rest is
//! not stored: when a packet expires, and the number of a share's order is the key under which it stands.

use super::packet::{Packet, Packing, Phase};
use super::share::{Booking, Share};
use super::split::{Mode, Seed, Terms};
use crate::base::clock::Wall;
use crate::redpacket::model::order::{Failure, State};
use crate::redpacket::model::{ActivityId, IdempotencyKey, OrderNo, PacketId, UserId};

const PACKET: u8 = 1;
const SHARE: u8 = 1;

impl Packet {
    /// The packet as a record.
    pub fn encode(&self) -> Vec<u8> {
        let Packing { packet_id, activity_id, payer, terms, lasts_ms } = &self.packing;
        let mode = place(&Mode::ALL, terms.mode);
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(&[PACKET, place(&Phase::ALL, self.phase), mode]);
        for count in [terms.count, self.left_count] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for number in [terms.total_fen, self.left_fen, self.refund_fen, *lasts_ms, self.created.0, self.updated.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(terms.seed.bytes());
        for text in [packet_id.as_str(), activity_id.as_str(), payer.as_str()] {
            put(&mut out, text);
        }
        out
    }

    /// The packet in a record; nothing where the bytes are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version, phase, mode] = *take::<3>(&mut rest)?;
        if version != PACKET {
            return None;
        }
        let (count, left_count) = (u32::from_le_bytes(*take(&mut rest)?), u32::from_le_bytes(*take(&mut rest)?));
        let mut number = || take(&mut rest).map(|b| u64::from_le_bytes(*b));
        let (total_fen, left_fen, refund_fen) = (number()?, number()?, number()?);
        let (lasts_ms, created, updated) = (number()?, Wall(number()?), Wall(number()?));
        let seed = Seed::new(*take(&mut rest)?);
        let packet_id = PacketId::parse(text(&mut rest)?).ok()?;
        let activity_id = ActivityId::parse(text(&mut rest)?).ok()?;
        let payer = UserId::parse(text(&mut rest)?).ok()?;
        let terms = Terms { total_fen, count, mode: *Mode::ALL.get(usize::from(mode))?, seed };
        terms.check().ok()?;
        let phase = *Phase::ALL.get(usize::from(phase))?;
        let sane = left_count <= count && left_fen.checked_add(refund_fen)? <= total_fen && rest.is_empty();
        let packing = Packing { packet_id, activity_id, payer, terms, lasts_ms };
        sane.then_some(Self { packing, phase, left_fen, left_count, refund_fen, created, updated })
    }
}

impl Share {
    /// The share as a record.
    pub fn encode(&self) -> Vec<u8> {
        let Booking { state, attempts, spent, due, failure, updated } = self.booking;
        let failure = failure.map_or(0, |f| place(&Failure::ALL, f) + 1);
        let mut out = Vec::with_capacity(112);
        out.extend_from_slice(&[SHARE, place(&State::ALL, state), failure]);
        for count in [attempts, spent, self.rank] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for number in [self.amount_fen, due.0, updated.0, self.opened.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let key = self.idempotency_key.as_ref().map_or("", IdempotencyKey::as_str);
        for text in [self.packet_id.as_str(), self.user_id.as_str(), key] {
            put(&mut out, text);
        }
        out
    }

    /// The share in a record that stood under `order_no`; nothing where the bytes are not one.
    pub fn decode(order_no: OrderNo, bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [version, state, failure] = *take::<3>(&mut rest)?;
        if version != SHARE {
            return None;
        }
        let failure = match failure {
            0 => None,
            n => Some(*Failure::ALL.get(usize::from(n) - 1)?),
        };
        let mut count = || take(&mut rest).map(|b| u32::from_le_bytes(*b));
        let (attempts, spent, rank) = (count()?, count()?, count()?);
        let mut number = || take(&mut rest).map(|b| u64::from_le_bytes(*b));
        let (amount_fen, due, updated, opened) = (number()?, Wall(number()?), Wall(number()?), Wall(number()?));
        let packet_id = PacketId::parse(text(&mut rest)?).ok()?;
        let user_id = UserId::parse(text(&mut rest)?).ok()?;
        let idempotency_key = match text(&mut rest)? {
            "" => None,
            key => Some(IdempotencyKey::parse(key).ok()?),
        };
        let state = *State::ALL.get(usize::from(state))?;
        let booking = Booking { state, attempts, spent, due, failure, updated };
        rest.is_empty().then_some(Self {
            order_no,
            packet_id,
            user_id,
            idempotency_key,
            rank,
            amount_fen,
            booking,
            opened,
        })
    }
}

/// Where `value` stands among `all`, as a byte. The order of those lists is part of the format: they only grow.
fn place<T: PartialEq + Copy>(all: &[T], value: T) -> u8 {
    all.iter().position(|v| *v == value).unwrap_or_default() as u8
}

fn put(out: &mut Vec<u8>, text: &str) {
    // Identifiers are at most 64 bytes.
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(head)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [len] = *take::<1>(rest)?;
    let (text, tail) = rest.split_at_checked(usize::from(len))?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::packet::tests::packing;
    use super::*;

    proptest! {
        #[test]
        fn records_read_back(name in "[a-z0-9]{1,64}", mode in 0usize..3, phase in 0usize..5, opened in 0u32..7, wait: u64,
                             key in prop::option::of("[a-z]{1,64}"), failure in prop::option::of(0usize..5),
                             state in 0usize..6, attempts: u32) {
            let mut packet = Packet::fund(packing(&name, "payer", 700, 7, Mode::ALL[mode]), Wall(5));
            let mut share = None;
            for at in 0..=opened {
                let user = UserId::parse(&format!("u{at}")).unwrap();
                let key = key.as_deref().map(|k| IdempotencyKey::parse(k).unwrap());
                let (next, made) = packet.open(&user, key, Wall(6)).unwrap();
                (packet, share) = (next, Some(made));
            }
            packet.phase = Phase::ALL[phase];
            packet.packing.lasts_ms = wait;
            prop_assert_eq!(Packet::decode(&packet.encode()), Some(packet));
            let mut share = share.unwrap();
            share.booking = Booking {
                state: State::ALL[state], attempts, spent: attempts / 2, due: Wall(wait), failure: failure.map(|f| Failure::ALL[f]), updated: Wall(9),
            };
            prop_assert_eq!(Share::decode(share.order_no, &share.encode()), Some(share));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Packet::decode(&bytes), Share::decode(OrderNo::from_bytes([0; 17]), &bytes));
        }

        #[test]
        fn a_broken_record_is_nothing(cut in 0usize..120) {
            let packet = Packet::fund(packing("packet", "payer", 700, 7, Mode::Fixed), Wall(5));
            let (_, share) = packet.open(&UserId::parse("user").unwrap(), None, Wall(6)).unwrap();
            let (whole, part) = (packet.encode(), share.encode());
            prop_assert!(cut >= whole.len() || Packet::decode(&whole[..cut]).is_none());
            prop_assert!(cut >= part.len() || Share::decode(share.order_no, &part[..cut]).is_none());
        }
    }

    #[test]
    fn a_packet_that_does_not_add_up_is_damaged() {
        let mut packet = Packet::fund(packing("packet", "payer", 700, 7, Mode::Fixed), Wall(5));
        packet.refund_fen = 1;
        assert_eq!(Packet::decode(&packet.encode()), None, "more than the total");
    }
}
