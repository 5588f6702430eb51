//! Reconciliation (I7): orders, what was tried of them, and what the game gave, side by side; what does not fit is named.
//!
//! Both sides come in pages by order number and are merged, so that 10^7 orders need no more memory than two pages. Orders
//! may move meanwhile: what looks wrong is looked at once more before it is reported, and sums are compared only where they
//! stood still. It changes nothing, and decides nothing: that is a person's part.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::ledger::{Stats, Store, StoreError};
use super::model::{GiftId, OrderNo, State, Trail};
use super::peer::Peer;
use super::request::PAGE;
use super::store::deliveries::{Deliveries, Entry};

/// Differences that are kept by name; more are counted.
const NAMED: usize = 1_000;
/// How long a page from another process may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Where orders are.
pub enum Orders {
    /// In a store of this process.
    Store(Arc<dyn Store>),
    /// In a claim process elsewhere.
    Claims(Peer),
}

/// Where the game's ledger is.
pub enum Game {
    /// In a file of this process.
    Ledger(Deliveries),
    /// In a game that answers.
    Peer(Peer),
}

/// What is wrong about an order, or about a gift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Delivered, says the order; the game knows nothing of it.
    Lost,
    /// The game gave something for it more than once.
    GivenTwice,
    /// The game gave something for an order that there is not.
    NoSuchOrder,
    /// Two stores have an order of this number.
    TwoOrders,
    /// Compensated in another way, and given all the same.
    GivenAndCompensated,
    /// The order is dead, and the game has given it: the news has not come through.
    GivenAndDead,
    /// What the log says of the deliveries and where the order stands do not fit.
    LogDiffers,
    /// The gift's stock says another number than there are orders.
    StockDiffers,
    /// The store's sums say another number than there are orders in this state.
    SumsDiffer,
}

impl Kind {
    /// As in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::GivenTwice => "given_twice",
            Self::NoSuchOrder => "no_such_order",
            Self::TwoOrders => "two_orders",
            Self::GivenAndCompensated => "given_and_compensated",
            Self::GivenAndDead => "given_and_dead",
            Self::LogDiffers => "log_differs",
            Self::StockDiffers => "stock_differs",
            Self::SumsDiffer => "sums_differ",
        }
    }
}

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is wrong.
    pub kind: Kind,
    /// About which order, gift or state.
    pub of: String,
    /// What each side says.
    pub found: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Orders read.
    pub orders: u64,
    /// Orders that say delivered.
    pub delivered: u64,
    /// Entries of the game's ledger read.
    pub applied: u64,
    /// Given by the game and still open here: on its way to being settled, no difference.
    pub on_the_way: u64,
    /// Sums that moved while they were read, and were not compared.
    pub moving: bool,
    /// How many differences there are of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first 1,000 of them.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Whether everything fits.
    pub fn clean(&self) -> bool {
        self.counts.is_empty()
    }

    fn note(&mut self, kind: Kind, of: &impl ToString, found: String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.differences.len() < NAMED {
            self.differences.push(Difference { kind, of: of.to_string(), found });
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// A store or the game's ledger cannot be read.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A process cannot be asked.
    #[error("{origin}{path}: {reason}")]
    Peer {
        /// Which.
        origin: String,
        /// What was asked for.
        path: String,
        /// What was said.
        reason: String,
    },
}

/// Compares all orders with what the game gave.
///
/// # Errors
/// A side cannot be read.
pub async fn reconcile(orders: &[Orders], game: &Game) -> Result<Report, ReconcileError> {
    let mut report = Report::default();
    let before = sums(orders).await?;
    let mut counted = Counted::default();
    let mut left = Vec::with_capacity(orders.len());
    for source in orders {
        left.push(Cursor { source, page: VecDeque::new(), after: None, over: false });
    }
    let mut right = Cursor { source: game, page: VecDeque::new(), after: None, over: false };
    let mut suspects = Vec::new();
    loop {
        let mut lowest: Option<OrderNo> = None;
        for cursor in &mut left {
            let next = cursor.peek().await?.map(|trail: &Trail| trail.order.order_no);
            lowest = lowest.into_iter().chain(next).min();
        }
        let entry = right.peek().await?.map(|entry: &Entry| entry.order_no);
        let Some(order_no) = lowest.into_iter().chain(entry).min() else { break };
        let mut trails: Vec<Trail> = left.iter_mut().filter_map(|c| c.take(order_no)).collect();
        let entry = right.take(order_no);
        report.orders += trails.len() as u64;
        report.applied += u64::from(entry.is_some());
        for trail in &trails {
            counted.count(trail);
        }
        if trails.len() > 1 {
            report.note(Kind::TwoOrders, &order_no, format!("{} stores have it", trails.len()));
        }
        let trail = trails.pop();
        report.delivered += u64::from(trail.as_ref().is_some_and(|t| t.order.state == State::Delivered));
        if !judge(trail.as_ref(), entry.as_ref()).is_empty() {
            suspects.push(order_no);
        } else if let (Some(trail), Some(_)) = (&trail, &entry) {
            report.on_the_way += u64::from(trail.order.state.open());
        }
        if suspects.len() >= NAMED {
            look_again(orders, game, std::mem::take(&mut suspects), &mut report).await?;
        }
    }
    look_again(orders, game, suspects, &mut report).await?;
    report.moving = sums(orders).await? != before;
    if !report.moving {
        counted.compare(&before, &mut report);
    }
    Ok(report)
}

/// What is wrong about one order, given both sides.
pub fn judge(trail: Option<&Trail>, entry: Option<&Entry>) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    if let Some(entry) = entry.filter(|entry| entry.given != 1) {
        found.push((Kind::GivenTwice, format!("the game gave it {} times", entry.given)));
    }
    let Some(trail) = trail else {
        if let Some(entry) = entry {
            found.push((
                Kind::NoSuchOrder,
                format!("the game gave it at {}, told {} times", entry.applied_at.0, entry.received),
            ));
        }
        return found;
    };
    let state = trail.order.state;
    let said = trail.delivered();
    if said != usize::from(state == State::Delivered) {
        found.push((Kind::LogDiffers, format!("{}, and {said} words in the log say delivered", state.as_str())));
    }
    match (state, entry) {
        (State::Delivered, None) => found.push((Kind::Lost, "DELIVERED, and the game does not know it".into())),
        (State::Dead, Some(_)) => found.push((Kind::GivenAndDead, "DEAD, and the game has given it".into())),
        (State::Compensated, Some(_)) => {
            found.push((Kind::GivenAndCompensated, "COMPENSATED, and the game has given it".into()));
        }
        _ => {}
    }
    found
}

/// Looks at orders once more: the first look was at two pages of two moments. The order before the game, for what the game
/// has it tells before the order moves.
async fn look_again(
    orders: &[Orders],
    game: &Game,
    suspects: Vec<OrderNo>,
    report: &mut Report,
) -> Result<(), ReconcileError> {
    for order_no in suspects {
        let mut trail = None;
        for source in orders {
            trail = trail.or(source.one(order_no).await?);
        }
        let entry = game.one(order_no).await?;
        for (kind, found) in judge(trail.as_ref(), entry.as_ref()) {
            report.note(kind, &order_no, found);
        }
    }
    Ok(())
}

async fn sums(orders: &[Orders]) -> Result<Vec<Stats>, ReconcileError> {
    let mut all = Vec::with_capacity(orders.len());
    for source in orders {
        all.push(match source {
            Orders::Store(store) => store.stats().await?,
            Orders::Claims(peer) => ask(peer, "/internal/stats").await?,
        });
    }
    Ok(all)
}

/// Orders as they were counted by reading all of them.
#[derive(Default)]
struct Counted {
    states: BTreeMap<State, u64>,
    gifts: BTreeMap<GiftId, u64>,
}

impl Counted {
    fn count(&mut self, trail: &Trail) {
        *self.states.entry(trail.order.state).or_default() += 1;
        *self.gifts.entry(trail.order.claim.gift_id.clone()).or_default() += 1;
    }

    fn compare(&self, sums: &[Stats], report: &mut Report) {
        for state in State::ALL {
            let (said, read) =
                (sums.iter().map(|s| s.of(state)).sum::<u64>(), self.states.get(&state).copied().unwrap_or_default());
            if said != read {
                report.note(Kind::SumsDiffer, &state.as_str(), format!("the sums say {said}, there are {read}"));
            }
        }
        let mut issued: BTreeMap<&GiftId, u64> = self.gifts.keys().map(|gift| (gift, 0)).collect();
        for (gift, stock) in sums.iter().flat_map(|s| &s.stock) {
            *issued.entry(gift).or_default() += stock.issued;
        }
        for (gift, said) in issued {
            let read = self.gifts.get(gift).copied().unwrap_or_default();
            if said != read {
                report.note(Kind::StockDiffers, gift, format!("{said} issued by its stock, {read} orders"));
            }
        }
    }
}

/// Something that is read in pages by order number.
trait Paged {
    type Item;
    async fn page(&self, after: Option<OrderNo>, limit: usize) -> Result<Vec<Self::Item>, ReconcileError>;
    fn number(item: &Self::Item) -> OrderNo;

    /// The item of exactly this number.
    async fn one(&self, order_no: OrderNo) -> Result<Option<Self::Item>, ReconcileError> {
        // The page that begins after the number before it.
        let mut before = *order_no.bytes();
        for byte in before.iter_mut().rev() {
            let borrowed = *byte == 0;
            *byte = byte.wrapping_sub(1);
            if !borrowed {
                break;
            }
        }
        let first = order_no.bytes().iter().all(|b| *b == 0);
        let page = self.page((!first).then(|| OrderNo::from_bytes(before)), 1).await?;
        Ok(page.into_iter().find(|item| Self::number(item) == order_no))
    }
}

impl Paged for Orders {
    type Item = Trail;

    async fn page(&self, after: Option<OrderNo>, limit: usize) -> Result<Vec<Trail>, ReconcileError> {
        #[derive(Deserialize)]
        struct Page {
            trails: Vec<Trail>,
        }
        match self {
            Self::Store(store) => Ok(store.scan(after, limit).await?),
            Self::Claims(peer) => Ok(ask::<Page>(peer, &path("/internal/orders", after, limit)).await?.trails),
        }
    }

    fn number(trail: &Trail) -> OrderNo {
        trail.order.order_no
    }
}

impl Paged for Game {
    type Item = Entry;

    async fn page(&self, after: Option<OrderNo>, limit: usize) -> Result<Vec<Entry>, ReconcileError> {
        #[derive(Deserialize)]
        struct Page {
            entries: Vec<Entry>,
        }
        match self {
            Self::Ledger(ledger) => Ok(ledger.scan(after, limit).await?),
            Self::Peer(peer) => Ok(ask::<Page>(peer, &path("/ledger", after, limit)).await?.entries),
        }
    }

    fn number(entry: &Entry) -> OrderNo {
        entry.order_no
    }
}

fn path(list: &str, after: Option<OrderNo>, limit: usize) -> String {
    let after = after.map(|no| format!("&after={no}")).unwrap_or_default();
    format!("{list}?limit={limit}{after}")
}

async fn ask<T: for<'de> Deserialize<'de>>(peer: &Peer, path: &str) -> Result<T, ReconcileError> {
    let error = |reason: String| ReconcileError::Peer { origin: peer.origin().to_string(), path: path.into(), reason };
    let reply = peer.get(path, LIMIT).await.map_err(|e| error(e.to_string()))?;
    if reply.status != StatusCode::OK {
        return Err(error(format!("answered {}", reply.status)));
    }
    serde_json::from_slice(&reply.body).map_err(|e| error(e.to_string()))
}

/// A place in a list that is read in pages.
struct Cursor<'a, P: Paged> {
    source: &'a P,
    page: VecDeque<P::Item>,
    after: Option<OrderNo>,
    over: bool,
}

impl<P: Paged> Cursor<'_, P> {
    async fn peek(&mut self) -> Result<Option<&P::Item>, ReconcileError> {
        if self.page.is_empty() && !self.over {
            self.page = self.source.page(self.after, PAGE).await?.into();
            self.over = self.page.is_empty();
            self.after = self.page.back().map(P::number).or(self.after);
        }
        Ok(self.page.front())
    }

    /// The item in front, where it is of this number.
    fn take(&mut self, order_no: OrderNo) -> Option<P::Item> {
        self.page.pop_front_if(|item| P::number(item) == order_no)
    }
}

#[cfg(test)]
mod tests;
