//! The stores that several processes share, in one PostgreSQL database: orders, stock and delivery queue of one set, and the
//! cash that is packed there (`cash`).
//!
//! Claims are merged (`claims`); everything else is an errand on a bounded pool (`pool`). A lost connection, a failover, a
//! deadlock or a serialisation failure is tried again, until nobody waits: the numbers are the same, so nothing is done
//! twice. Where the outcome of a commit is not known when time is up, the answer says so. The tables come with the program
//! (`schema`). It wants a server that keeps what it confirms: `fsync` and `full_page_writes` off are refused, and
//! `synchronous_commit` off is overruled.
//!
//! ```text
//!   claim --> desk: hands, a connection each --> one statement = order + stock + outbox
//!   find, lease, settle, ... --> pool --> errand, again where that helps
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::base::clock::{Clock, SystemClock, Wall};
use crate::base::task::{Task, spawn};
use crate::redpacket::ledger::{Answer, Claimed, Fenced, Hold, Stats, Store, Transfer};
use crate::redpacket::model::{Claim, GiftId, Order, OrderNo, Resolution, Settled, Settlement, Trail};

mod cash;
mod claims;
mod fault;
mod fence;
mod intents;
mod line;
mod moves;
mod place;
mod pool;
mod reads;
mod rows;
mod schema;
mod stock;
mod tls;
mod transfers;

pub use cash::PostgresPackets;
pub use intents::PostgresIntents;
pub use place::{ConnectError, Options};

use claims::Desk;
use fault::Fault;
use fence::{Fence, Held};
use line::Line;
use moves::{Dead, Lease, Resolve, Settle};
use place::Place;
use pool::{Pool, Rest};
use reads::{Find, Scan};
use schema::Trouble;
use stock::{Provision, Sums};
use transfers::{Give, Take, Turn};

/// How long a start waits for the database.
const START: Duration = Duration::from_secs(15);
/// How often it is tried whether writing works again.
const PULSE: Duration = Duration::from_millis(250);

/// Orders in a database that several processes share.
pub struct PostgresStore {
    desk: Desk,
    pool: Arc<Pool>,
    held: Arc<Held>,
    writable: Arc<AtomicBool>,
    _pulse: Task,
}

impl PostgresStore {
    /// Opens the store in the database of `options`, whose tables are made where there are none. Waits 15 s for it.
    ///
    /// # Errors
    /// The options make no sense, the database is not there, is set up to forget, or belongs to a newer release.
    pub async fn open(options: &Options) -> Result<Self, ConnectError> {
        let place = reach(options).await?;
        let hands = (options.connections / 2).max(1);
        let writable = Arc::new(AtomicBool::new(true));
        // Each hand keeps its connection while it has work; the pool's bound is for the errands.
        let errands = options.connections.saturating_sub(hands).max(1);
        let pool = Arc::new(Pool::new(place.clone(), errands, writable.clone()));
        let held = Arc::new(Held::default());
        let desk = Desk::open(&pool, hands, &writable, &held);
        let pulse = spawn("postgres-pulse", pulse(place, writable.clone()));
        Ok(Self { desk, pool, held, writable, _pulse: pulse })
    }
}

/// The database of `options`, once it answers and its tables are up to date. Waits 15 s for that.
async fn reach(options: &Options) -> Result<Arc<Place>, ConnectError> {
    let place = Arc::new(Place::new(options)?);
    let (clock, mut rest) = (SystemClock, Rest::new());
    let until = clock.mono() + START;
    loop {
        let fault = match prepare(&place).await {
            Ok(()) => return Ok(place),
            Err(Trouble::Error(error)) => return Err(error),
            Err(Trouble::Fault(Fault::Refused(reason))) => return Err(ConnectError::Refused { reason }),
            Err(Trouble::Fault(fault)) => fault,
        };
        if clock.mono() > until {
            return Err(ConnectError::Unreachable { reason: format!("{}: {}", place.hosts(), fault.reason()) });
        }
        rest.take().await;
    }
}

/// Checks the server and brings the tables up to date.
async fn prepare(place: &Place) -> Result<(), Trouble> {
    let line = Line::dial(place).await?;
    for setting in ["fsync", "full_page_writes"] {
        let rows = line.look(&format!("SHOW {setting}")).await?;
        let value: Option<&str> = rows.first().map(|row| row.try_get(0)).transpose().map_err(Fault::from)?;
        if value == Some("off") {
            return Err(Trouble::Error(ConnectError::Forgetful { setting }));
        }
    }
    schema::bring_up(&line).await
}

/// While the store cannot write: tries to, and says when it can. Otherwise nobody would try, once health checks keep the
/// claims away.
async fn pulse(place: Arc<Place>, writable: Arc<AtomicBool>) {
    loop {
        sleep(PULSE).await;
        if writable.load(Ordering::Relaxed) {
            continue;
        }
        let beat = async {
            let line = Line::dial(&place).await?;
            line.say(&format!("UPDATE pulse SET at = {}", SystemClock.wall().0)).await
        };
        if beat.await.is_ok() {
            writable.store(true, Ordering::Relaxed);
            tracing::info!(store = "postgres", "the store can write again");
        }
    }
}

impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn provision(&self, gift: GiftId, total: u64) -> Answer<'_, ()> {
        Box::pin(async move { self.pool.run(&Provision { gift, total }).await })
    }

    fn claim(&self, claim: Claim, now: Wall) -> Answer<'_, Claimed> {
        Box::pin(self.desk.claim(claim, now))
    }

    fn find(&self, order_no: OrderNo) -> Answer<'_, Option<Order>> {
        Box::pin(async move { self.pool.run(&Find(order_no)).await })
    }

    fn lease(&self, limit: usize, until: Wall, now: Wall) -> Answer<'_, Vec<Order>> {
        Box::pin(async move { self.pool.run(&Lease::<Order>::new(limit, until, now)).await })
    }

    fn settle(&self, words: Vec<Settlement>, now: Wall) -> Answer<'_, Vec<Settled>> {
        Box::pin(async move { self.pool.run(&Settle::<Order>::new(words, now)).await })
    }

    fn dead(&self, limit: usize) -> Answer<'_, Vec<Order>> {
        Box::pin(async move { self.pool.run(&Dead::<Order>::new(limit)).await })
    }

    fn resolve(&self, order_nos: Vec<OrderNo>, resolution: Resolution, now: Wall) -> Answer<'_, Vec<Settled>> {
        Box::pin(async move { self.pool.run(&Resolve::<Order>::new(order_nos, resolution, now)).await })
    }

    fn scan(&self, after: Option<OrderNo>, limit: usize) -> Answer<'_, Vec<Trail>> {
        Box::pin(async move { self.pool.run(&Scan { after, limit }).await })
    }

    fn stats(&self) -> Answer<'_, Stats> {
        Box::pin(async move { self.pool.run(&Sums).await })
    }

    fn fence(&self, hold: Hold, take_over: bool) -> Answer<'_, Fenced> {
        Box::pin(async move {
            let _turn = self.held.turn.lock().await;
            let coming = self.held.expect(hold);
            let fenced = self.pool.run(&Fence { hold, take_over }).await?;
            if fenced == Fenced::Held {
                coming.came();
            }
            Ok(fenced)
        })
    }

    fn give(&self, to: Transfer, most: u64) -> Answer<'_, Option<u64>> {
        Box::pin(async move { self.pool.run(&Give { to, most }).await })
    }

    fn take(&self, from: Transfer, amount: u64) -> Answer<'_, bool> {
        Box::pin(async move { self.pool.run(&Take { from, amount }).await })
    }

    fn turn(&self, home: String, gift: GiftId) -> Answer<'_, u64> {
        Box::pin(async move { self.pool.run(&Turn { home, gift }).await })
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}
