//! The ledger of cash as a plain value: the laws of [`PacketStore`](super::PacketStore) without IO, locks or clocks.
//!
//! The memory store is a book behind a lock; every other store is held against it, step by step.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::{
    Account, Created, Deposit, Deposited, MAX_PAID_FEN, Making, OPENERS, Opened, Opener, Opening, Opens, Totals,
    judge_create, judge_open,
};
use crate::base::clock::Wall;
use crate::redpacket::model::cash::{Packet, Packing, Phase, Share};
use crate::redpacket::model::{IdempotencyKey, OrderNo, PacketId, Resolution, Settled, Settlement, State, UserId};

/// Accounts, packets, shares, keys and the queue for booking.
#[derive(Clone, Debug, Default)]
pub struct CashBook {
    accounts: BTreeMap<UserId, Account>,
    deposits: HashMap<(UserId, IdempotencyKey), u64>,
    packets: BTreeMap<PacketId, Packet>,
    /// Packets that may still be opened, by when that ends.
    ends: BTreeSet<(Wall, PacketId)>,
    shares: BTreeMap<OrderNo, Share>,
    ranks: BTreeMap<(PacketId, u32), OrderNo>,
    keys: HashMap<(UserId, IdempotencyKey), PacketId>,
    /// Open bookings by when they are due.
    due: BTreeSet<(Wall, OrderNo)>,
    /// Open bookings by when their share was opened.
    open: BTreeSet<(Wall, OrderNo)>,
    /// Bookings that were given up, by when.
    dead: BTreeSet<(Wall, OrderNo)>,
}

impl CashBook {
    /// See [`PacketStore::deposit`](super::PacketStore::deposit).
    pub fn deposit(&mut self, deposit: Deposit) -> Deposited {
        let Deposit { payer, idempotency_key, amount_fen } = deposit;
        let account = self.accounts.get(&payer).copied().unwrap_or_default();
        let paid: u64 = self.accounts.values().map(|a| a.deposited_fen).sum();
        let key = (payer, idempotency_key);
        match self.deposits.get(&key) {
            Some(known) if *known == amount_fen => Deposited::Already(account),
            Some(_) => Deposited::KeyConflict,
            None if amount_fen == 0 || paid.saturating_add(amount_fen) > MAX_PAID_FEN => Deposited::Refused,
            None => {
                let account = Account {
                    deposited_fen: account.deposited_fen + amount_fen,
                    balance_fen: account.balance_fen + amount_fen,
                };
                self.accounts.insert(key.0.clone(), account);
                self.deposits.insert(key, amount_fen);
                Deposited::Done(account)
            }
        }
    }

    /// See [`PacketStore::account`](super::PacketStore::account).
    pub fn account(&self, payer: &UserId) -> Option<Account> {
        self.accounts.get(payer).copied()
    }

    /// See [`PacketStore::create`](super::PacketStore::create).
    pub fn create(&mut self, packing: &Packing, now: Wall) -> Created {
        let balance = self.account(&packing.payer).map_or(0, |a| a.balance_fen);
        match judge_create(packing, self.packets.get(&packing.packet_id), balance, now) {
            Making::Stand(created) => created,
            Making::Fund(packet) => {
                if let Some(account) = self.accounts.get_mut(&packing.payer) {
                    account.balance_fen -= packing.terms.total_fen;
                }
                self.ends.insert((packet.expires(), packet.id().clone()));
                self.packets.insert(packet.id().clone(), packet.clone());
                Created::Funded(packet)
            }
        }
    }

    /// See [`PacketStore::open`](super::PacketStore::open).
    pub fn open(&mut self, packet_id: &PacketId, openers: &[Opener], now: Wall) -> Opens {
        let openers = openers.iter().take(OPENERS);
        let Some(mut packet) = self.packets.get(packet_id).cloned() else {
            return Opens { packet: None, each: openers.map(|_| Opened::NoSuchPacket).collect() };
        };
        let each = openers.map(|opener| self.open_one(&mut packet, opener, now)).collect();
        if !packet.phase.live() {
            self.ends.remove(&(packet.expires(), packet_id.clone()));
        }
        self.packets.insert(packet_id.clone(), packet.clone());
        Opens { packet: Some(packet), each }
    }

    fn open_one(&mut self, packet: &mut Packet, opener: &Opener, now: Wall) -> Opened {
        let key = opener.idempotency_key.clone().map(|key| (opener.user_id.clone(), key));
        let under_key = key.as_ref().and_then(|key| self.keys.get(key));
        let under_number = self.shares.get(&packet.number(&opener.user_id));
        match judge_open(opener, packet, under_number, under_key, now) {
            Opening::Stand(opened) => opened,
            Opening::Take(left, share) => {
                *packet = left;
                if let Some(key) = key {
                    self.keys.insert(key, share.packet_id.clone());
                }
                self.ranks.insert((share.packet_id.clone(), share.rank), share.order_no);
                self.put(share.clone());
                Opened::Share(share)
            }
        }
    }

    /// See [`PacketStore::find`](super::PacketStore::find).
    pub fn find(&self, packet_id: &PacketId) -> Option<&Packet> {
        self.packets.get(packet_id)
    }

    /// See [`PacketStore::share`](super::PacketStore::share).
    pub fn share(&self, packet_id: &PacketId, user_id: &UserId) -> Option<&Share> {
        let share = self.shares.get(&self.packets.get(packet_id)?.number(user_id))?;
        (share.user_id == *user_id && share.packet_id == *packet_id).then_some(share)
    }

    /// See [`PacketStore::shares`](super::PacketStore::shares).
    pub fn shares(&self, packet_id: &PacketId, after: u32, limit: usize) -> Vec<Share> {
        let from = Bound::Excluded((packet_id.clone(), after));
        let page = self.ranks.range((from, Bound::Included((packet_id.clone(), u32::MAX)))).take(limit);
        page.filter_map(|(_, no)| self.shares.get(no)).cloned().collect()
    }

    /// See [`PacketStore::sweep`](super::PacketStore::sweep).
    pub fn sweep(&mut self, limit: usize, now: Wall) -> Vec<Packet> {
        let over: Vec<(Wall, PacketId)> =
            self.ends.iter().take_while(|(at, _)| *at <= now).take(limit).cloned().collect();
        let mut swept = Vec::with_capacity(over.len());
        for place in over {
            if let Some(packet) = self.packets.get(&place.1).and_then(|packet| packet.refund(now)) {
                if let Some(account) = self.accounts.get_mut(&packet.packing.payer) {
                    account.balance_fen += packet.refund_fen;
                }
                self.packets.insert(place.1.clone(), packet.clone());
                swept.push(packet);
            }
            self.ends.remove(&place);
        }
        swept
    }

    /// See [`PacketStore::lease`](super::PacketStore::lease).
    pub fn lease(&mut self, limit: usize, until: Wall, now: Wall) -> Vec<Share> {
        let due: Vec<OrderNo> =
            self.due.iter().take_while(|(at, _)| *at <= now).take(limit).map(|(_, no)| *no).collect();
        let mut leased = Vec::with_capacity(due.len());
        for order_no in due {
            let share = self.shares.get(&order_no);
            if let Some(share) = share.and_then(|share| Some(share.booked(share.booking.lease(until, now)?))) {
                self.put(share.clone());
                leased.push(share);
            }
        }
        leased
    }

    /// See [`PacketStore::settle`](super::PacketStore::settle).
    pub fn settle(&mut self, word: Settlement, now: Wall) -> Settled {
        let share = self.shares.get(&word.order_no);
        let moved = share.and_then(|s| Some(s.booked(s.booking.settle(word.attempt, word.verdict, now)?)));
        moved.map_or(Settled::Stale, |share| {
            let state = share.booking.state;
            self.put(share);
            Settled::Moved(state)
        })
    }

    /// See [`PacketStore::dead`](super::PacketStore::dead).
    pub fn dead(&self, limit: usize) -> Vec<Share> {
        self.dead.iter().take(limit).filter_map(|(_, no)| self.shares.get(no)).cloned().collect()
    }

    /// See [`PacketStore::resolve`](super::PacketStore::resolve).
    pub fn resolve(&mut self, order_no: OrderNo, resolution: Resolution, now: Wall) -> Settled {
        let moved = self.shares.get(&order_no).and_then(|s| Some(s.booked(s.booking.resolve(resolution, now)?)));
        moved.map_or(Settled::Stale, |share| {
            let state = share.booking.state;
            self.put(share);
            Settled::Moved(state)
        })
    }

    /// See [`PacketStore::scan_shares`](super::PacketStore::scan_shares).
    pub fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Vec<Share> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.shares.range((from, Bound::Unbounded)).take(limit).map(|(_, share)| share.clone()).collect()
    }

    /// See [`PacketStore::scan`](super::PacketStore::scan).
    pub fn scan(&self, after: Option<PacketId>, limit: usize) -> Vec<Packet> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.packets.range((from, Bound::Unbounded)).take(limit).map(|(_, packet)| packet.clone()).collect()
    }

    /// See [`PacketStore::totals`](super::PacketStore::totals). Counts everything each time: the plainest reading of what
    /// cleverer stores keep up to date.
    pub fn totals(&self) -> Totals {
        let packets = self.packets.values();
        let phases = Phase::ALL.map(|phase| (phase, packets.clone().filter(|p| p.phase == phase).count() as u64));
        let states =
            State::ALL.map(|state| (state, self.shares.values().filter(|s| s.booking.state == state).count() as u64));
        Totals {
            deposited_fen: self.accounts.values().map(|a| a.deposited_fen).sum(),
            balances_fen: self.accounts.values().map(|a| a.balance_fen).sum(),
            left_fen: packets.clone().map(|p| p.left_fen).sum(),
            opened_fen: self.shares.values().map(|s| s.amount_fen).sum(),
            refunded_fen: packets.map(|p| p.refund_fen).sum(),
            packets: phases.into_iter().filter(|(_, n)| *n > 0).collect(),
            shares: states.into_iter().filter(|(_, n)| *n > 0).collect(),
            oldest_open: self.open.first().map(|(at, _)| *at),
        }
    }

    /// Puts `share` as it stands now in the place of what was known of it, and where it is to be found.
    fn put(&mut self, share: Share) {
        let (number, booking, opened) = (share.order_no, share.booking, share.opened);
        if let Some(old) = self.shares.insert(number, share) {
            self.due.remove(&(old.booking.due, number));
            self.open.remove(&(opened, number));
            self.dead.remove(&(old.booking.updated, number));
        }
        if booking.state.open() {
            self.due.insert((booking.due, number));
            self.open.insert((opened, number));
        }
        if booking.state == State::Dead {
            self.dead.insert((booking.updated, number));
        }
    }
}

#[cfg(test)]
pub(in crate::redpacket) mod tests;
