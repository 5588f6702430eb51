//! What this process knows of packets without asking the store: where each stands and who has which share of it.
//!
//! So that "sold out", "you have one" and "there is no such packet" cost no read, however many ask. A packet whose every
//! share is here answers for itself; one that is not must be read first. Bounded, in two generations: when the young one
//! is full it becomes the old one, and what nobody asked for since then is forgotten.

use std::collections::HashMap;

use crate::base::clock::{Mono, Wall};
use crate::redpacket::model::cash::{Closed, Packet, Share};
use crate::redpacket::model::{OrderNo, PacketId, UserId};

/// Packets and shares that are remembered, at most; a share takes about 150 bytes.
const ROOM: usize = 262_144;
/// Names of nothing that are remembered, at most.
const STRANGERS: usize = 16_384;
/// For how long (ms): another process of a shared store may make the packet meanwhile.
const STRANGE_MS: u64 = 1_000;

/// What an opener has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) amount_fen: u64,
    pub(super) rank: u32,
    pub(super) order_no: OrderNo,
    pub(super) opened: Wall,
}

impl From<&Share> for Taken {
    fn from(share: &Share) -> Self {
        let Share { amount_fen, rank, order_no, opened, .. } = *share;
        Self { amount_fen, rank, order_no, opened }
    }
}

/// What the shelf says to somebody who wants a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance {
    /// Ask the store.
    Unknown,
    /// There is no such packet.
    Nothing,
    /// They have one.
    Taken(Taken),
    /// They have none, and nobody gets another.
    Closed(Closed),
    /// They have none, and there are so many, until then.
    Left(u32, Wall),
}

struct Known {
    packet: Packet,
    takers: HashMap<UserId, Taken>,
}

impl Known {
    /// Whether everybody who has a share is here.
    fn whole(&self) -> bool {
        self.takers.len() >= self.packet.opened_count() as usize
    }

    fn weight(&self) -> usize {
        1 + self.takers.len()
    }
}

/// The shelf.
#[derive(Default)]
pub(super) struct Shelf {
    young: HashMap<PacketId, Known>,
    old: HashMap<PacketId, Known>,
    /// Of the young.
    weight: usize,
    strangers: HashMap<PacketId, Mono>,
}

impl Shelf {
    /// What is known for `user` of the packet `id`.
    pub(super) fn glance(&mut self, id: &PacketId, user: &UserId, now: (Mono, Wall)) -> Glance {
        if let Some(since) = self.strangers.get(id) {
            let fresh = now.0.since(*since).as_millis() < u128::from(STRANGE_MS);
            return if fresh { Glance::Nothing } else { Glance::Unknown };
        }
        let Some(known) = self.find(id) else { return Glance::Unknown };
        if let Some(taken) = known.takers.get(user) {
            return Glance::Taken(*taken);
        }
        match known.packet.closed(now.1) {
            _ if !known.whole() => Glance::Unknown,
            Some(closed) => Glance::Closed(closed),
            None => Glance::Left(known.packet.left_count, known.packet.expires()),
        }
    }

    /// Takes up what a read or a commit showed. Shares add up; of two states of a packet, the later one stays.
    pub(super) fn learn<'a>(&mut self, packet: &Packet, shares: impl IntoIterator<Item = &'a Share>) {
        self.strangers.remove(packet.id());
        let new = || Known { packet: packet.clone(), takers: HashMap::new() };
        let mut known = self.take(packet.id()).unwrap_or_else(new);
        let progress = |p: &Packet| (p.opened_count(), p.phase);
        if progress(packet) > progress(&known.packet) {
            known.packet.clone_from(packet);
        }
        known.takers.extend(shares.into_iter().map(|share| (share.user_id.clone(), Taken::from(share))));
        self.put(known);
    }

    /// As [`Self::learn`], where the packet is known at all.
    pub(super) fn update(&mut self, packet: &Packet) {
        if self.young.contains_key(packet.id()) || self.old.contains_key(packet.id()) {
            self.learn(packet, []);
        }
    }

    /// There is no packet of this name.
    pub(super) fn strange(&mut self, id: PacketId, now: Mono) {
        if self.strangers.len() >= STRANGERS {
            self.strangers.clear();
        }
        self.strangers.insert(id, now);
    }

    /// Nobody knows what became of it: the store is to be asked again.
    pub(super) fn forget(&mut self, id: &PacketId) {
        drop(self.take(id));
    }

    fn find(&mut self, id: &PacketId) -> Option<&Known> {
        if !self.young.contains_key(id) {
            let known = self.old.remove(id)?;
            self.put(known);
        }
        self.young.get(id)
    }

    fn take(&mut self, id: &PacketId) -> Option<Known> {
        let young = self.young.remove(id);
        if let Some(known) = &young {
            self.weight = self.weight.saturating_sub(known.weight());
        }
        young.or_else(|| self.old.remove(id))
    }

    fn put(&mut self, known: Known) {
        if self.weight + known.weight() > ROOM / 2 && !self.young.is_empty() {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += known.weight();
        self.young.insert(known.packet.id().clone(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redpacket::model::cash::{Mode, Packing, Phase, Seed, Terms};
    use crate::redpacket::model::{ActivityId, PacketId};

    const NOW: (Mono, Wall) = (Mono::from_millis(1), Wall(10));

    fn packet(name: &str, count: u32) -> Packet {
        let terms = Terms { total_fen: 100_000, count, mode: Mode::Fixed, seed: Seed::new([0; 16]) };
        let packing = Packing {
            packet_id: PacketId::parse(name).unwrap(),
            activity_id: ActivityId::parse("a").unwrap(),
            payer: UserId::parse("payer").unwrap(),
            terms,
            lasts_ms: 1_000,
        };
        Packet::fund(packing, Wall(5))
    }

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("u{n}")).unwrap()
    }

    #[test]
    fn it_answers_for_what_it_knows_whole_and_for_nothing_else() {
        let mut shelf = Shelf::default();
        let fresh = packet("p", 2);
        let id = fresh.id().clone();
        assert_eq!(shelf.glance(&id, &user(1), NOW), Glance::Unknown);
        shelf.strange(id.clone(), NOW.0);
        assert_eq!(shelf.glance(&id, &user(1), NOW), Glance::Nothing);
        assert_eq!(shelf.glance(&id, &user(1), (Mono::from_millis(1_001), Wall(10))), Glance::Unknown, "for a second");
        shelf.learn(&fresh, []);
        assert_eq!(shelf.glance(&id, &user(1), NOW), Glance::Left(2, Wall(1_005)));
        let (one, first) = fresh.open(&user(1), None, Wall(10)).unwrap();
        let (two, second) = one.open(&user(2), None, Wall(10)).unwrap();
        shelf.learn(&two, [&first]);
        assert_eq!(shelf.glance(&id, &user(1), NOW), Glance::Taken(Taken::from(&first)));
        assert_eq!(shelf.glance(&id, &user(3), NOW), Glance::Unknown, "sold out, but perhaps they have the second");
        shelf.learn(&one, [&second]);
        assert_eq!(shelf.glance(&id, &user(3), NOW), Glance::Closed(Closed::SoldOut), "an older state changes nothing");
        shelf.forget(&id);
        assert_eq!(shelf.glance(&id, &user(3), NOW), Glance::Unknown);
        shelf.learn(&fresh, []);
        assert_eq!(shelf.glance(&id, &user(3), (NOW.0, Wall(1_005))), Glance::Closed(Closed::Expired));
        let back = fresh.refund(Wall(1_005)).unwrap();
        assert_eq!(back.phase, Phase::Refunded);
        shelf.update(&back);
        assert_eq!(shelf.glance(&id, &user(3), NOW), Glance::Closed(Closed::Expired), "also on a slow clock");
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let mut shelf = Shelf::default();
        let hot = packet("hot", 2);
        shelf.learn(&hot, []);
        for n in 0..ROOM * 2 {
            shelf.learn(&packet(&format!("p{n}"), 2), []);
            if n % 1_000 == 0 {
                assert_ne!(shelf.glance(hot.id(), &user(1), NOW), Glance::Unknown, "after {n}");
            }
            assert!(shelf.young.len() + shelf.old.len() <= ROOM);
        }
        for n in 0..STRANGERS * 2 {
            shelf.strange(PacketId::parse(&format!("s{n}")).unwrap(), NOW.0);
            assert!(shelf.strangers.len() <= STRANGERS);
        }
    }

    #[test]
    fn shares_weigh_too() {
        let mut shelf = Shelf::default();
        for n in 0..60 {
            let mut packet = packet(&format!("p{n}"), 10_000);
            let mut shares = Vec::new();
            for at in 0..10_000 {
                let (next, share) = packet.open(&user(at), None, Wall(10)).unwrap();
                packet = next;
                shares.push(share);
            }
            shelf.learn(&packet, &shares);
            let kept: usize = shelf.young.values().chain(shelf.old.values()).map(Known::weight).sum();
            assert!(kept <= ROOM, "{kept}");
        }
    }
}
