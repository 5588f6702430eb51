//! The cash that one node keeps on its own disk: accounts, packets, shares and bookings in one redb file.
//!
//! Opening for a crowd is one op: the packet is read and written once, each opener costs a share. Many ops share a commit
//! (see `commit`), so a hot packet costs a few fsyncs, and a hundred packets at once no more. There is no recovery step.
//!
//! ```text
//!   accounts  payer -> (deposited, balance)     packets  name -> record            shares  number -> record
//!   deposits  (payer, key) -> fen               ends     (when over, name) live    ranks   (packet, rank) -> number
//!   keys      (user, key) -> packet             due      (when due, number) open   open    (when opened, number)
//!   sums      name -> fen or count              dead     (when it died, number)
//! ```

use std::ops::Bound;
use std::path::Path;

use ::redb::{Error, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use self::tables::Tables;
use crate::base::clock::Wall;
use crate::redpacket::ledger::cash::{
    Account, Created, Deposit, Deposited, Opener, Opens, PacketStore, Totals, damaged,
};
use crate::redpacket::ledger::{Answer, StoreError};
use crate::redpacket::model::cash::{Packet, Packing, Phase, Share};
use crate::redpacket::model::{OrderNo, PacketId, Resolution, Settled, Settlement, State, UserId};
use crate::redpacket::store::commit::{Applied, Committer, Engine, OpenError, Opener as Open, file};

mod tables;

type Number = &'static [u8; 17];

const ACCOUNTS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("accounts");
const DEPOSITS: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("deposits");
const PACKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("packets");
const ENDS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ends");
const SHARES: TableDefinition<'_, Number, &[u8]> = TableDefinition::new("shares");
const RANKS: TableDefinition<'_, (&str, u32), Number> = TableDefinition::new("ranks");
const KEYS: TableDefinition<'_, (&str, &str), &str> = TableDefinition::new("keys");
const DUE: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("due");
const OPEN: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("open");
const DEAD: TableDefinition<'_, (u64, Number), ()> = TableDefinition::new("dead");
const SUMS: TableDefinition<'_, &str, u64> = TableDefinition::new("sums");

/// Names in the table of sums, beside those of phases and states. Part of the format.
mod sum {
    pub(super) const DEPOSITED: &str = "deposited_fen";
    pub(super) const BALANCES: &str = "balances_fen";
    pub(super) const LEFT: &str = "left_fen";
    pub(super) const OPENED: &str = "opened_fen";
    pub(super) const REFUNDED: &str = "refunded_fen";
}

/// The name under which packets of a phase are counted; states of bookings have their own.
fn counted(phase: Phase) -> String {
    format!("packets {}", phase.as_str())
}

/// Cash on disk, in one file, for one process.
pub struct RedbPackets(Committer<Cash>);

impl RedbPackets {
    /// Opens the store in the file at `path`, made where there is none.
    ///
    /// # Errors
    /// The file is another process's, or no store, or of a newer release, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::with(path, file(path)?)
    }

    fn with(path: &Path, open: Open) -> Result<Self, OpenError> {
        Committer::start(Cash, path, open).map(Self)
    }
}

/// Does one op and takes its answer out, or finds that the store has stopped making sense.
macro_rules! op {
    ($how:ident, $store:expr, $op:expr, $out:path) => {
        Box::pin(async move {
            match $store.0.$how($op).await? {
                $out(out) => Ok(out),
                _ => Err(StoreError::Stopped),
            }
        })
    };
}

impl PacketStore for RedbPackets {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn deposit(&self, deposit: Deposit) -> Answer<'_, Deposited> {
        op!(now, self, Op::Deposit(deposit), Out::Deposited)
    }

    fn account(&self, payer: UserId) -> Answer<'_, Option<Account>> {
        Box::pin(self.0.read(move |txn| {
            let found = txn.open_table(ACCOUNTS)?.get(payer.as_str())?.map(|v| v.value());
            Ok(Ok(found.map(|(deposited_fen, balance_fen)| Account { deposited_fen, balance_fen })))
        }))
    }

    fn create(&self, packing: Packing, now: Wall) -> Answer<'_, Created> {
        op!(now, self, Op::Create(Box::new(packing), now), Out::Created)
    }

    fn open(&self, packet_id: PacketId, openers: Vec<Opener>, now: Wall) -> Answer<'_, Opens> {
        op!(now, self, Op::Open(packet_id, openers, now), Out::Opened)
    }

    fn find(&self, packet_id: PacketId) -> Answer<'_, Option<Packet>> {
        Box::pin(self.0.read(move |txn| packet(&txn.open_table(PACKETS)?, &packet_id)))
    }

    fn share(&self, packet_id: PacketId, user_id: UserId) -> Answer<'_, Option<Share>> {
        Box::pin(self.0.read(move |txn| {
            let found = match packet(&txn.open_table(PACKETS)?, &packet_id)? {
                Ok(Some(packet)) => share(&txn.open_table(SHARES)?, packet.number(&user_id))?,
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            Ok(found.map(|share| share.filter(|s| s.user_id == user_id && s.packet_id == packet_id)))
        }))
    }

    fn shares(&self, packet_id: PacketId, after: u32, limit: usize) -> Answer<'_, Vec<Share>> {
        Box::pin(self.0.read(move |txn| shares(txn, &packet_id, after, limit)))
    }

    fn sweep(&self, limit: usize, now: Wall) -> Answer<'_, Vec<Packet>> {
        Box::pin(async move {
            // Most sweeps find nothing; they must not take a place in the writer's queue.
            if !self.0.read(move |txn| over(txn, now)).await? {
                return Ok(Vec::new());
            }
            match self.0.soon(Op::Sweep(limit, now)).await? {
                Out::Swept(packets) => Ok(packets),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Share>> {
        Box::pin(async move {
            if !self.0.read(move |txn| due(txn, now)).await? {
                return Ok(Vec::new());
            }
            match self.0.soon(Op::Lease { limit, until, now }).await? {
                Out::Leased(shares) => Ok(shares),
                _ => Err(StoreError::Stopped),
            }
        })
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        op!(soon, self, Op::Settle(words, now), Out::Settled)
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Share>> {
        Box::pin(self.0.read(move |txn| dead(txn, limit)))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        op!(soon, self, Op::Resolve(order_nos, resolution, now), Out::Settled)
    }

    fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Share>> {
        Box::pin(self.0.read(move |txn| scan_shares(txn, after, limit)))
    }

    fn scan(&self, after: Option<PacketId>, limit: usize) -> Answer<'_, Vec<Packet>> {
        Box::pin(self.0.read(move |txn| scan(txn, after.as_ref(), limit)))
    }

    fn totals(&self) -> Answer<'_, Totals> {
        Box::pin(self.0.read(totals))
    }

    fn writable(&self) -> bool {
        self.0.writable()
    }
}

type Seen<T> = Result<Result<T, StoreError>, Error>;

fn packet(packets: &impl ReadableTable<&'static str, &'static [u8]>, id: &PacketId) -> Seen<Option<Packet>> {
    let Some(record) = packets.get(id.as_str())? else { return Ok(Ok(None)) };
    Ok(Packet::decode(record.value()).map(Some).ok_or_else(|| damaged("packet", id)))
}

fn share(shares: &impl ReadableTable<Number, &'static [u8]>, order_no: OrderNo) -> Seen<Option<Share>> {
    let Some(record) = shares.get(order_no.bytes())? else { return Ok(Ok(None)) };
    Ok(Share::decode(order_no, record.value()).map(Some).ok_or(StoreError::Damaged { order_no }))
}

fn shares(txn: &ReadTransaction, id: &PacketId, after: u32, limit: usize) -> Seen<Vec<Share>> {
    let (ranks, records) = (txn.open_table(RANKS)?, txn.open_table(SHARES)?);
    let Some(first) = after.checked_add(1) else { return Ok(Ok(Vec::new())) };
    let mut page = Vec::new();
    for entry in ranks.range((id.as_str(), first)..=(id.as_str(), u32::MAX))?.take(limit) {
        let order_no = OrderNo::from_bytes(*entry?.1.value());
        match share(&records, order_no)? {
            Ok(Some(share)) => page.push(share),
            Ok(None) | Err(_) => return Ok(Err(StoreError::Damaged { order_no })),
        }
    }
    Ok(Ok(page))
}

fn dead(txn: &ReadTransaction, limit: usize) -> Seen<Vec<Share>> {
    let (records, mut all) = (txn.open_table(SHARES)?, Vec::new());
    for entry in txn.open_table(DEAD)?.iter()?.take(limit) {
        let order_no = OrderNo::from_bytes(*entry?.0.value().1);
        match share(&records, order_no)? {
            Ok(Some(share)) => all.push(share),
            Ok(None) | Err(_) => return Ok(Err(StoreError::Damaged { order_no })),
        }
    }
    Ok(Ok(all))
}

fn scan_shares(txn: &ReadTransaction, after: Option<OrderNo>, limit: usize) -> Seen<Vec<Share>> {
    let (records, mut page) = (txn.open_table(SHARES)?, Vec::new());
    let from = after.as_ref().map_or(Bound::Unbounded, |no| Bound::Excluded(no.bytes()));
    for entry in records.range::<&[u8; 17]>((from, Bound::Unbounded))?.take(limit) {
        let (number, record) = entry?;
        let order_no = OrderNo::from_bytes(*number.value());
        match Share::decode(order_no, record.value()) {
            Some(share) => page.push(share),
            None => return Ok(Err(StoreError::Damaged { order_no })),
        }
    }
    Ok(Ok(page))
}

fn scan(txn: &ReadTransaction, after: Option<&PacketId>, limit: usize) -> Seen<Vec<Packet>> {
    let packets = txn.open_table(PACKETS)?;
    let mut page = Vec::new();
    let from = after.map_or("", PacketId::as_str);
    for entry in packets.range(from..)? {
        let (name, record) = entry?;
        if after.is_some_and(|id| id.as_str() == name.value()) {
            continue;
        }
        if page.len() >= limit {
            break;
        }
        match Packet::decode(record.value()) {
            Some(packet) => page.push(packet),
            None => return Ok(Err(damaged("packet", name.value()))),
        }
    }
    Ok(Ok(page))
}

fn over(txn: &ReadTransaction, now: Wall) -> Seen<bool> {
    let first = txn.open_table(ENDS)?.first()?.map(|(key, _)| key.value().0);
    Ok(Ok(first.is_some_and(|at| at <= now.0)))
}

fn due(txn: &ReadTransaction, now: Wall) -> Seen<bool> {
    let first = txn.open_table(DUE)?.first()?.map(|(key, _)| key.value().0);
    Ok(Ok(first.is_some_and(|at| at <= now.0)))
}

fn totals(txn: &ReadTransaction) -> Seen<Totals> {
    let sums = txn.open_table(SUMS)?;
    let read = |name: &str| Ok::<_, Error>(sums.get(name)?.map(|v| v.value()).unwrap_or_default());
    let mut totals = Totals {
        deposited_fen: read(sum::DEPOSITED)?,
        balances_fen: read(sum::BALANCES)?,
        left_fen: read(sum::LEFT)?,
        opened_fen: read(sum::OPENED)?,
        refunded_fen: read(sum::REFUNDED)?,
        oldest_open: txn.open_table(OPEN)?.first()?.map(|(key, _)| Wall(key.value().0)),
        ..Totals::default()
    };
    for phase in Phase::ALL {
        let count = read(&counted(phase))?;
        totals.packets.extend((count > 0).then_some((phase, count)));
    }
    for state in State::ALL {
        let count = read(state.as_str())?;
        totals.shares.extend((count > 0).then_some((state, count)));
    }
    Ok(Ok(totals))
}

struct Cash;

enum Op {
    Deposit(Deposit),
    Create(Box<Packing>, Wall),
    Open(PacketId, Vec<Opener>, Wall),
    Sweep(usize, Wall),
    Lease { limit: usize, until: Wall, now: Wall },
    Settle(Vec<Settlement>, Wall),
    Resolve(Vec<OrderNo>, Resolution, Wall),
}

enum Out {
    Deposited(Deposited),
    Created(Created),
    Opened(Opens),
    Swept(Vec<Packet>),
    Leased(Vec<Share>),
    Settled(Vec<Settled>),
}

impl Engine for Cash {
    type Op = Op;
    type Out = Out;
    const FORMAT: u64 = 2;
    const NAME: &'static str = "packets";

    fn prepare(&self, txn: &WriteTransaction, found: u64) -> Result<(), Error> {
        let mut tables = Tables::open(txn)?;
        if found < 2 {
            tables.leave_format_1()?;
        }
        Ok(())
    }

    fn apply(&self, txn: &WriteTransaction, ops: &[Op]) -> Result<Applied<Out>, Error> {
        let mut tables = Tables::open(txn)?;
        let mut outs = Vec::with_capacity(ops.len());
        for op in ops {
            outs.push(match op {
                Op::Deposit(deposit) => tables.deposit(deposit)?.map(Out::Deposited),
                Op::Create(packing, now) => tables.create(packing, *now)?.map(Out::Created),
                Op::Open(packet_id, openers, now) => tables.open_for(packet_id, openers, *now)?.map(Out::Opened),
                Op::Sweep(limit, now) => tables.sweep(*limit, *now)?.map(Out::Swept),
                Op::Lease { limit, until, now } => tables.lease(*limit, *until, *now)?.map(Out::Leased),
                Op::Settle(words, now) => tables.settle(words, *now)?.map(Out::Settled),
                Op::Resolve(numbers, resolution, now) => tables.resolve(numbers, *resolution, *now)?.map(Out::Settled),
            });
        }
        let wrote = tables.finish()?;
        Ok((outs, wrote))
    }
}

#[cfg(test)]
mod tests;
