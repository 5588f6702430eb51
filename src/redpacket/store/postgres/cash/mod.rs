//! Cash that several processes share: accounts, packets, shares and bookings in one PostgreSQL database.
//!
//! Everything is an errand on the pool, in a transaction of its own. To open a packet its row is locked, so that whoever
//! comes after decides on what is left; up to 256 openers share a commit, and different packets do not wait for each other.
//! What was done and not answered is found under the same names by the next try: an account is not credited twice, a packet
//! not paid for twice, a user has one share. The tables themselves refuse a balance or a rest below zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Row;

use self::money::{Look, Make, Pay};
use self::opens::{Open, Sweep};
use self::reads::{Find, GrabKey, Mine, Scan, ScanShares, Shares};
use self::till::Sums;
use super::fault::Fault;
use super::moves::{Dead, Lease, Resolve, Settle};
use super::pool::Pool;
use super::{ConnectError, Options, pulse, reach};
use crate::base::clock::Wall;
use crate::base::task::{Task, spawn};
use crate::redpacket::ledger::cash::{Account, Created, Deposit, Deposited, Opener, Opens, PacketStore, Totals};
use crate::redpacket::ledger::{Answer, StoreError};
use crate::redpacket::model::cash::{Packet, Packing, Share};
use crate::redpacket::model::{OrderNo, PacketId, Resolution, Settled, Settlement, UserId};

mod money;
mod opens;
mod reads;
mod rows;
mod till;

/// Cash in a database that several processes share.
pub struct PostgresPackets {
    pool: Pool,
    writable: Arc<AtomicBool>,
    _pulse: Task,
}

impl PostgresPackets {
    /// Opens the store in the database of `options`, whose tables are made where there are none. Waits 15 s for it.
    ///
    /// # Errors
    /// The options make no sense, the database is not there, is set up to forget, or belongs to a newer release.
    pub async fn open(options: &Options) -> Result<Self, ConnectError> {
        let place = reach(options).await?;
        let writable = Arc::new(AtomicBool::new(true));
        let pool = Pool::new(place.clone(), options.connections, writable.clone());
        let pulse = spawn("postgres-pulse", pulse(place, writable.clone()));
        Ok(Self { pool, writable, _pulse: pulse })
    }

    /// The secret that grabs are signed with: one for all processes on this database, made with its tables.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn grab_key(&self) -> Result<[u8; 32], StoreError> {
        self.pool.run(&GrabKey).await
    }
}

/// The one row of a statement that gives one; none where another did the same at the same moment, which the next try sees.
fn first(rows: &[Row]) -> Result<&Row, Fault> {
    rows.first().ok_or_else(|| Fault::Undone("another of the same name came first".into()))
}

/// Runs an errand that owns what it needs.
macro_rules! run {
    ($store:expr, $errand:expr) => {
        Box::pin(async move { $store.pool.run(&$errand).await })
    };
}

impl PacketStore for PostgresPackets {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn deposit(&self, deposit: Deposit) -> Answer<'_, Deposited> {
        run!(self, Pay(deposit))
    }

    fn account(&self, payer: UserId) -> Answer<'_, Option<Account>> {
        run!(self, Look(payer))
    }

    fn create(&self, packing: Packing, now: Wall) -> Answer<'_, Created> {
        run!(self, Make { packing, now })
    }

    fn open(&self, packet_id: PacketId, openers: Vec<Opener>, now: Wall) -> Answer<'_, Opens> {
        run!(self, Open { packet_id, openers, now })
    }

    fn find(&self, packet_id: PacketId) -> Answer<'_, Option<Packet>> {
        run!(self, Find(packet_id))
    }

    fn share(&self, packet_id: PacketId, user_id: UserId) -> Answer<'_, Option<Share>> {
        run!(self, Mine { packet_id, user_id })
    }

    fn shares(&self, packet_id: PacketId, after: u32, limit: usize) -> Answer<'_, Vec<Share>> {
        run!(self, Shares { packet_id, after, limit })
    }

    fn sweep(&self, limit: usize, now: Wall) -> Answer<'_, Vec<Packet>> {
        run!(self, Sweep { limit, now })
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Share>> {
        run!(self, Lease::<Share>::new(limit, until, now))
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        run!(self, Settle::<Share>::new(words, now))
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Share>> {
        run!(self, Dead::<Share>::new(limit))
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        run!(self, Resolve::<Share>::new(order_nos, resolution, now))
    }

    fn scan_shares(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Share>> {
        run!(self, ScanShares { after, limit })
    }

    fn scan(&self, after: Option<PacketId>, limit: usize) -> Answer<'_, Vec<Packet>> {
        run!(self, Scan { after, limit })
    }

    fn totals(&self) -> Answer<'_, Totals> {
        run!(self, Sums)
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}
