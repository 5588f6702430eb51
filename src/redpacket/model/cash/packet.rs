//! A packet of money, and the only ways in which it may move.
//!
//! ```text
//!   FUNDED --share--> OPEN --share--> OPEN ... --last share--> EXHAUSTED
//!     |  \--last share (a packet for one)--------------------^
//!     \------ time ----> EXPIRED <--- time ------ OPEN
//!                           \---- refund ---> REFUNDED
//! ```
//!
//! A packet is funded when it exists: the payer's account is debited in the commit that makes it. What nobody opened in
//! time goes back there, once: the one edge into REFUNDED is taken once, by the commit that credits the account.

use serde::{Deserialize, Serialize};

use super::share::{Booking, Share};
use super::split::Terms;
use crate::base::clock::Wall;
use crate::redpacket::model::{ActivityId, IdempotencyKey, OrderNo, PacketId, UserId};

/// Where a packet stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Paid for; nobody has opened it.
    Funded,
    /// Some have a share, and there is more.
    Open,
    /// Every share is somebody's.
    Exhausted,
    /// Out of time, with money left.
    Expired,
    /// What was left is back with the payer.
    Refunded,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 5] = [Self::Funded, Self::Open, Self::Exhausted, Self::Expired, Self::Refunded];

    /// As on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Funded => "FUNDED",
            Self::Open => "OPEN",
            Self::Exhausted => "EXHAUSTED",
            Self::Expired => "EXPIRED",
            Self::Refunded => "REFUNDED",
        }
    }

    /// Whether there may be another share.
    pub const fn live(self) -> bool {
        matches!(self, Self::Funded | Self::Open)
    }
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody gets a share, not the last.
    Share,
    /// Somebody gets the last one.
    LastShare,
    /// Its time is over.
    Time,
    /// The payer has the rest back.
    Refund,
}

/// Every way in which a packet may move; what is not here does not happen.
pub const EDGES: &[(Phase, Event, Phase)] = &[
    (Phase::Funded, Event::Share, Phase::Open),
    (Phase::Open, Event::Share, Phase::Open),
    (Phase::Funded, Event::LastShare, Phase::Exhausted),
    (Phase::Open, Event::LastShare, Phase::Exhausted),
    (Phase::Funded, Event::Time, Phase::Expired),
    (Phase::Open, Event::Time, Phase::Expired),
    (Phase::Expired, Event::Refund, Phase::Refunded),
];

/// Where `event` takes a packet in `phase`, if it may happen at all.
pub fn advance(phase: Phase, event: Event) -> Option<Phase> {
    EDGES.iter().find(|(from, on, _)| (*from, *on) == (phase, event)).map(|(_, _, to)| *to)
}

/// A packet as somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Its name, which its maker chose: the same name is the same packet.
    pub packet_id: PacketId,
    /// The campaign that it belongs to.
    pub activity_id: ActivityId,
    /// Whose account pays, and gets back what nobody opens.
    pub payer: UserId,
    /// Money, shares, and how they are cut.
    pub terms: Terms,
    /// How long it may be opened, in ms.
    pub lasts_ms: u64,
}

/// Why nobody gets another share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// All are taken.
    SoldOut,
    /// Its time is over.
    Expired,
}

/// A packet, durable before anybody hears of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What was wanted.
    pub packing: Packing,
    /// Where it stands.
    pub phase: Phase,
    /// What nobody has yet, in fen.
    pub left_fen: u64,
    /// Shares that nobody has yet.
    pub left_count: u32,
    /// What went back to the payer, in fen.
    pub refund_fen: u64,
    /// When it was made.
    pub created: Wall,
    /// When it moved last.
    pub updated: Wall,
}

impl Packet {
    /// The packet that `packing` makes. Its terms must have been checked.
    pub fn fund(packing: Packing, now: Wall) -> Self {
        let Terms { total_fen, count, .. } = packing.terms;
        Self {
            packing,
            phase: Phase::Funded,
            left_fen: total_fen,
            left_count: count,
            refund_fen: 0,
            created: now,
            updated: now,
        }
    }

    /// Its name.
    pub const fn id(&self) -> &PacketId {
        &self.packing.packet_id
    }

    /// Until when it may be opened.
    pub const fn expires(&self) -> Wall {
        Wall(self.created.0.saturating_add(self.packing.lasts_ms))
    }

    /// What openers have, in fen.
    pub const fn opened_fen(&self) -> u64 {
        self.packing.terms.total_fen.saturating_sub(self.left_fen).saturating_sub(self.refund_fen)
    }

    /// How many have a share.
    pub const fn opened_count(&self) -> u32 {
        self.packing.terms.count.saturating_sub(self.left_count)
    }

    /// Why nobody gets another share; nothing where somebody may.
    pub fn closed(&self, now: Wall) -> Option<Closed> {
        match self.phase {
            Phase::Exhausted => Some(Closed::SoldOut),
            Phase::Expired | Phase::Refunded => Some(Closed::Expired),
            Phase::Funded | Phase::Open => (now >= self.expires()).then_some(Closed::Expired),
        }
    }

    /// As it looks at `now`: a packet whose time is over is EXPIRED before anybody has swept it.
    pub fn phase_at(&self, now: Wall) -> Phase {
        let over = self.phase.live() && now >= self.expires();
        if over { Phase::Expired } else { self.phase }
    }

    /// The number of the order that books `user`'s share, whether there is one or not.
    pub fn number(&self, user: &UserId) -> OrderNo {
        OrderNo::of(&self.packing.activity_id, self.id(), user, "cash")
    }

    /// The next share for `user`, and the packet without it.
    ///
    /// # Errors
    /// There is none: it is sold out, or its time is over.
    pub fn open(&self, user: &UserId, key: Option<IdempotencyKey>, now: Wall) -> Result<(Self, Share), Closed> {
        if let Some(closed) = self.closed(now) {
            return Err(closed);
        }
        let terms = &self.packing.terms;
        let at = self.opened_count();
        let amount_fen = terms.share(at, self.left_fen);
        let event = if self.left_count <= 1 { Event::LastShare } else { Event::Share };
        let phase = advance(self.phase, event).ok_or(Closed::SoldOut)?;
        let share = Share {
            order_no: self.number(user),
            packet_id: self.id().clone(),
            user_id: user.clone(),
            idempotency_key: key,
            rank: at + 1,
            amount_fen,
            booking: Booking::due(now),
            opened: now,
        };
        let left_fen = self.left_fen.saturating_sub(amount_fen);
        let left_count = self.left_count.saturating_sub(1);
        Ok((Self { phase, left_fen, left_count, updated: now, ..self.clone() }, share))
    }

    /// The packet with its rest given back; nothing where its time is not over or that was done.
    #[must_use]
    pub fn refund(&self, now: Wall) -> Option<Self> {
        if now < self.expires() {
            return None;
        }
        let expired = if self.phase == Phase::Expired { Phase::Expired } else { advance(self.phase, Event::Time)? };
        let phase = advance(expired, Event::Refund)?;
        let refund_fen = self.left_fen;
        Some(Self { phase, left_fen: 0, refund_fen, updated: now, ..self.clone() })
    }
}

#[cfg(test)]
pub(in crate::redpacket) mod tests {
    use proptest::prelude::*;

    use super::super::split::{Mode, Seed};
    use super::*;

    pub(crate) fn packing(packet: &str, payer: &str, total_fen: u64, count: u32, mode: Mode) -> Packing {
        Packing {
            packet_id: PacketId::parse(packet).unwrap(),
            activity_id: ActivityId::parse("spring").unwrap(),
            payer: UserId::parse(payer).unwrap(),
            terms: Terms { total_fen, count, mode, seed: Seed::new([count as u8; 16]) },
            lasts_ms: 1_000,
        }
    }

    #[test]
    fn every_edge_goes_forward() {
        for (from, event, to) in EDGES {
            assert!(from <= to, "{from:?} --{event:?}--> {to:?}");
            assert!(!matches!(from, Phase::Exhausted | Phase::Refunded), "{from:?} is an end");
            assert_eq!(*to == Phase::Refunded, *event == Event::Refund);
        }
        for phase in Phase::ALL {
            assert_eq!(phase.live(), advance(phase, Event::LastShare).is_some(), "{phase:?}");
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }

    proptest! {
        /// I3 at every step: whoever comes and whenever, shares and the rest and the refund are the total; moves follow the
        /// table; the refund happens once.
        #[test]
        fn packets_walk_the_table_and_lose_no_fen(
            extra in 0u64..3_000, count in 1u32..20, mode in 0usize..3,
            steps in prop::collection::vec(prop_oneof![5 => (0u64..120).prop_map(Some), 1 => Just(None)], 1..60))
        {
            let mut packet = Packet::fund(packing("p", "payer", extra + u64::from(count), count, Mode::ALL[mode]), Wall(0));
            let (mut now, mut shares, mut refunds) = (Wall(0), Vec::new(), 0);
            for (n, step) in steps.into_iter().enumerate() {
                let next = if let Some(pause) = step {
                    now = Wall(now.0 + pause);
                    let user = UserId::parse(&format!("u{n}")).unwrap();
                    match packet.open(&user, None, now) {
                        Ok((next, share)) => {
                            prop_assert!(now < packet.expires());
                            prop_assert_eq!(share.rank as usize, shares.len() + 1);
                            prop_assert!(share.amount_fen >= 1);
                            shares.push(share.amount_fen);
                            next
                        }
                        Err(Closed::SoldOut) => {
                            prop_assert_eq!(shares.len() as u32, count);
                            continue;
                        }
                        Err(Closed::Expired) => {
                            prop_assert!(now >= packet.expires() || packet.phase == Phase::Refunded);
                            continue;
                        }
                    }
                } else {
                    let Some(next) = packet.refund(now) else { continue };
                    refunds += 1;
                    next
                };
                let direct = EDGES.iter().any(|(from, _, to)| (*from, *to) == (packet.phase, next.phase));
                prop_assert!(direct || (packet.phase.live() && next.phase == Phase::Refunded));
                packet = next;
                let total = packet.packing.terms.total_fen;
                prop_assert_eq!(shares.iter().sum::<u64>() + packet.left_fen + packet.refund_fen, total, "I3");
                prop_assert_eq!(packet.opened_fen(), shares.iter().sum::<u64>());
                prop_assert!(shares.len() as u32 <= count && refunds <= 1, "I3");
                prop_assert_eq!(packet.phase == Phase::Refunded, refunds == 1);
            }
        }
    }
}
