//! What each op does to the tables, inside one transaction. An op's own error leaves no trace: everything is read and
//! judged before anything is written.

use std::collections::BTreeMap;

use redb::{Error, ReadableTable, Table, WriteTransaction};

use super::{
    ACCOUNTS, DEAD, DEPOSITS, DUE, ENDS, KEYS, Number, OPEN, PACKETS, RANKS, SHARES, SUMS, Seen, counted, packet,
    share, sum,
};
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::{
    Account, Created, Deposit, Deposited, MAX_PAID_FEN, Making, OPENERS, Opened, Opener, Opening, Opens, judge_create,
    judge_open,
};
use crate::redpacket::model::cash::{Booking, Packet, Packing, Share};
use crate::redpacket::model::{OrderNo, PacketId, Resolution, Settled, Settlement, State, UserId};

pub(super) struct Tables<'txn> {
    accounts: Table<'txn, &'static str, (u64, u64)>,
    deposits: Table<'txn, (&'static str, &'static str), u64>,
    packets: Table<'txn, &'static str, &'static [u8]>,
    ends: Table<'txn, (u64, &'static str), ()>,
    shares: Table<'txn, Number, &'static [u8]>,
    ranks: Table<'txn, (&'static str, u32), Number>,
    keys: Table<'txn, (&'static str, &'static str), &'static str>,
    due: Table<'txn, (u64, Number), ()>,
    open: Table<'txn, (u64, Number), ()>,
    dead: Table<'txn, (u64, Number), ()>,
    sums: Table<'txn, &'static str, u64>,
    /// What the sums grow by in this transaction; written once, at its end.
    grown: BTreeMap<String, i64>,
    wrote: bool,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            accounts: txn.open_table(ACCOUNTS)?,
            deposits: txn.open_table(DEPOSITS)?,
            packets: txn.open_table(PACKETS)?,
            ends: txn.open_table(ENDS)?,
            shares: txn.open_table(SHARES)?,
            ranks: txn.open_table(RANKS)?,
            keys: txn.open_table(KEYS)?,
            due: txn.open_table(DUE)?,
            open: txn.open_table(OPEN)?,
            dead: txn.open_table(DEAD)?,
            sums: txn.open_table(SUMS)?,
            grown: BTreeMap::new(),
            wrote: false,
        })
    }

    /// Format 1 had no list of dead letters.
    pub(super) fn leave_format_1(&mut self) -> Result<(), Error> {
        for entry in self.shares.iter()? {
            let (number, record) = entry?;
            let share = Share::decode(OrderNo::from_bytes(*number.value()), record.value());
            if let Some(share) = share.filter(|s| s.booking.state == State::Dead) {
                self.dead.insert((share.booking.updated.0, share.order_no.bytes()), ())?;
            }
        }
        Ok(())
    }

    /// Writes the sums. Says whether anything was written at all.
    pub(super) fn finish(mut self) -> Result<bool, Error> {
        for (name, by) in std::mem::take(&mut self.grown) {
            let old = self.sums.get(name.as_str())?.map(|v| v.value()).unwrap_or_default();
            self.sums.insert(name.as_str(), old.saturating_add_signed(by))?;
        }
        Ok(self.wrote)
    }

    fn grow(&mut self, name: &str, by: i64) {
        *self.grown.entry(name.to_owned()).or_default() += by;
    }

    fn sum(&self, name: &str) -> Result<u64, Error> {
        let old = self.sums.get(name)?.map(|v| v.value()).unwrap_or_default();
        Ok(old.saturating_add_signed(self.grown.get(name).copied().unwrap_or_default()))
    }

    fn account(&self, payer: &UserId) -> Result<Option<Account>, Error> {
        let found = self.accounts.get(payer.as_str())?.map(|v| v.value());
        Ok(found.map(|(deposited_fen, balance_fen)| Account { deposited_fen, balance_fen }))
    }

    pub(super) fn deposit(&mut self, deposit: &Deposit) -> Seen<Deposited> {
        let Deposit { payer, idempotency_key, amount_fen } = deposit;
        let key = (payer.as_str(), idempotency_key.as_str());
        let known = self.deposits.get(key)?.map(|v| v.value());
        let account = self.account(payer)?.unwrap_or_default();
        if let Some(known) = known {
            let same = known == *amount_fen;
            return Ok(Ok(if same { Deposited::Already(account) } else { Deposited::KeyConflict }));
        }
        if *amount_fen == 0 || self.sum(sum::DEPOSITED)?.saturating_add(*amount_fen) > MAX_PAID_FEN {
            return Ok(Ok(Deposited::Refused));
        }
        let grown = amount_fen.cast_signed();
        let deposited_fen = account.deposited_fen.saturating_add(*amount_fen);
        let balance_fen = account.balance_fen.saturating_add(*amount_fen);
        self.deposits.insert(key, amount_fen)?;
        self.accounts.insert(payer.as_str(), (deposited_fen, balance_fen))?;
        self.grow(sum::DEPOSITED, grown);
        self.grow(sum::BALANCES, grown);
        self.wrote = true;
        Ok(Ok(Deposited::Done(Account { deposited_fen, balance_fen })))
    }

    /// Moves `fen` between packets and an account: out of it where that is negative.
    fn credit(&mut self, payer: &UserId, fen: i64) -> Result<(), Error> {
        let Account { deposited_fen, balance_fen } = self.account(payer)?.unwrap_or_default();
        self.accounts.insert(payer.as_str(), (deposited_fen, balance_fen.saturating_add_signed(fen)))?;
        self.grow(sum::BALANCES, fen);
        Ok(())
    }

    pub(super) fn create(&mut self, packing: &Packing, now: Wall) -> Seen<Created> {
        let under_name = match packet(&self.packets, &packing.packet_id)? {
            Ok(found) => found,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let balance = self.account(&packing.payer)?.map_or(0, |a| a.balance_fen);
        let made = match judge_create(packing, under_name.as_ref(), balance, now) {
            Making::Stand(created) => return Ok(Ok(created)),
            Making::Fund(packet) => packet,
        };
        // At most MAX_TOTAL_FEN.
        let total = packing.terms.total_fen.cast_signed();
        self.credit(&packing.payer, -total)?;
        self.grow(sum::LEFT, total);
        self.ends.insert((made.expires().0, made.id().as_str()), ())?;
        self.put_packet(&made, None)?;
        Ok(Ok(Created::Funded(made)))
    }

    pub(super) fn open_for(&mut self, packet_id: &PacketId, openers: &[Opener], now: Wall) -> Seen<Opens> {
        let openers = openers.get(..OPENERS).unwrap_or(openers);
        let before = match packet(&self.packets, packet_id)? {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                let each = openers.iter().map(|_| Opened::NoSuchPacket).collect();
                return Ok(Ok(Opens { packet: None, each }));
            }
            Err(damaged) => return Ok(Err(damaged)),
        };
        // A damaged share is found before any other is written: the op leaves no trace.
        for opener in openers {
            if let Err(damaged) = share(&self.shares, before.number(&opener.user_id))? {
                return Ok(Err(damaged));
            }
        }
        let (mut packet, mut each) = (before.clone(), Vec::with_capacity(openers.len()));
        for opener in openers {
            each.push(self.open_one(&mut packet, opener, now)?);
        }
        if packet != before {
            let opened = before.left_fen.saturating_sub(packet.left_fen).cast_signed();
            self.grow(sum::LEFT, -opened);
            self.grow(sum::OPENED, opened);
            if !packet.phase.live() {
                self.ends.remove((packet.expires().0, packet_id.as_str()))?;
            }
            self.put_packet(&packet, Some(&before))?;
        }
        Ok(Ok(Opens { packet: Some(packet), each }))
    }

    fn open_one(&mut self, packet: &mut Packet, opener: &Opener, now: Wall) -> Result<Opened, Error> {
        let key = opener.idempotency_key.as_ref().map(|key| (opener.user_id.as_str(), key.as_str()));
        let under_key = match key {
            Some(key) => self.keys.get(key)?.and_then(|v| PacketId::parse(v.value()).ok()),
            None => None,
        };
        let under_number = share(&self.shares, packet.number(&opener.user_id))?.ok().flatten();
        match judge_open(opener, packet, under_number.as_ref(), under_key.as_ref(), now) {
            Opening::Stand(opened) => Ok(opened),
            Opening::Take(left, share) => {
                *packet = left;
                if let Some(key) = key {
                    self.keys.insert(key, share.packet_id.as_str())?;
                }
                self.ranks.insert((share.packet_id.as_str(), share.rank), share.order_no.bytes())?;
                self.put_share(&share, None)?;
                Ok(Opened::Share(share))
            }
        }
    }

    pub(super) fn sweep(&mut self, limit: usize, now: Wall) -> Seen<Vec<Packet>> {
        let mut over = Vec::new();
        for entry in self.ends.iter()?.take(limit) {
            let (at, name) = entry.map(|(key, _)| (key.value().0, key.value().1.to_owned()))?;
            if at > now.0 {
                break;
            }
            over.push((at, name));
        }
        let mut swept = Vec::with_capacity(over.len());
        for (at, name) in over {
            let before = PacketId::parse(&name).ok().map(|id| packet(&self.packets, &id)).transpose()?;
            let before = before.and_then(Result::ok).flatten();
            self.ends.remove((at, name.as_str()))?;
            self.wrote = true;
            if let Some((before, after)) = before.as_ref().and_then(|b| Some((b, b.refund(now)?))) {
                let refund = after.refund_fen.cast_signed();
                self.credit(&after.packing.payer, refund)?;
                self.grow(sum::LEFT, -refund);
                self.grow(sum::REFUNDED, refund);
                self.put_packet(&after, Some(before))?;
                swept.push(after);
            } else {
                // Damaged, or not what the list says: it must not block those behind it.
                tracing::error!(packet = name, "a packet that is over cannot be given back");
                self.ends.insert((u64::MAX, name.as_str()), ())?;
            }
        }
        Ok(Ok(swept))
    }

    pub(super) fn lease(&mut self, limit: usize, until: Wall, now: Wall) -> Seen<Vec<Share>> {
        let mut numbers = Vec::new();
        for entry in self.due.iter()?.take(limit) {
            let (at, number) = entry.map(|(key, _)| (key.value().0, *key.value().1))?;
            if at > now.0 {
                break;
            }
            numbers.push((at, OrderNo::from_bytes(number)));
        }
        let mut leased = Vec::with_capacity(numbers.len());
        for (at, order_no) in numbers {
            let before = share(&self.shares, order_no)?.ok().flatten();
            let after = before.as_ref().and_then(|s| Some(s.booked(s.booking.lease(until, now)?)));
            if let Some(after) = after {
                self.put_share(&after, before.as_ref())?;
                leased.push(after);
            } else {
                tracing::error!(%order_no, "the queue names a share that cannot be leased");
                self.due.remove((at, order_no.bytes()))?;
                self.due.insert((u64::MAX, order_no.bytes()), ())?;
                self.wrote = true;
            }
        }
        Ok(Ok(leased))
    }

    pub(super) fn settle(&mut self, words: &[Settlement], now: Wall) -> Seen<Vec<Settled>> {
        let mut all = Vec::with_capacity(words.len());
        for word in words {
            all.push(self.book(word.order_no, |booking| booking.settle(word.attempt, word.verdict, now))?);
        }
        Ok(Ok(all))
    }

    pub(super) fn resolve(&mut self, numbers: &[OrderNo], resolution: Resolution, now: Wall) -> Seen<Vec<Settled>> {
        let mut all = Vec::with_capacity(numbers.len());
        for order_no in numbers {
            all.push(self.book(*order_no, |booking| booking.resolve(resolution, now))?);
        }
        Ok(Ok(all))
    }

    /// Takes the booking of one share a step further, where there is such a step.
    fn book(&mut self, order_no: OrderNo, step: impl Fn(Booking) -> Option<Booking>) -> Result<Settled, Error> {
        let before = share(&self.shares, order_no)?.ok().flatten();
        let Some(after) = before.as_ref().and_then(|s| Some(s.booked(step(s.booking)?))) else {
            return Ok(Settled::Stale);
        };
        self.put_share(&after, before.as_ref())?;
        Ok(Settled::Moved(after.booking.state))
    }

    fn put_packet(&mut self, packet: &Packet, old: Option<&Packet>) -> Result<(), Error> {
        self.packets.insert(packet.id().as_str(), packet.encode().as_slice())?;
        if let Some(old) = old {
            self.grow(&counted(old.phase), -1);
        }
        self.grow(&counted(packet.phase), 1);
        self.wrote = true;
        Ok(())
    }

    /// Writes `share` in the place of `old`, with all that follows from it.
    fn put_share(&mut self, share: &Share, old: Option<&Share>) -> Result<(), Error> {
        let (number, booking) = (share.order_no.bytes(), share.booking);
        self.shares.insert(number, share.encode().as_slice())?;
        if let Some(old) = old {
            self.grow(old.booking.state.as_str(), -1);
            self.due.remove((old.booking.due.0, number))?;
            self.open.remove((old.opened.0, number))?;
            self.dead.remove((old.booking.updated.0, number))?;
        }
        if booking.state.open() {
            self.due.insert((booking.due.0, number), ())?;
            self.open.insert((share.opened.0, number), ())?;
        }
        if booking.state == State::Dead {
            self.dead.insert((booking.updated.0, number), ())?;
        }
        self.grow(booking.state.as_str(), 1);
        self.wrote = true;
        Ok(())
    }
}
