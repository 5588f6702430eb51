//! Reconciliation (I7): orders, what was tried of them, and what the game gave, side by side; or shares of packets and what
//! the wallet booked, with every fen counted. What does not fit is named.
//!
//! Both sides come in pages by order number (`sides`) and are merged, so that 10^7 orders need no more memory than two pages. Orders
//! may move meanwhile: what looks wrong is looked at once more before it is reported, and sums are compared only where they
//! stood still. It changes nothing, and decides nothing: that is a person's part.

use std::collections::BTreeMap;

use serde::Serialize;

use self::sides::{Cursor, Paged, Sums};
use super::ledger::StoreError;
use super::ledger::cash::audit;
use super::model::{GiftId, OrderNo, State};
use super::store::deliveries::Entry;

mod sides;

pub use sides::{Game, Orders, Promise};

/// Differences that are kept by name; more are counted.
const NAMED: usize = 1_000;

/// What is wrong about an order, a share, or a gift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Delivered, says the order; the game, or the wallet, knows nothing of it.
    Lost,
    /// Something was given for it more than once.
    GivenTwice,
    /// Something was given for an order that there is not.
    NoSuchOrder,
    /// Two stores have an order of this number.
    TwoOrders,
    /// Compensated in another way, and given all the same.
    GivenAndCompensated,
    /// The order is dead, and was given: the news has not come through.
    GivenAndDead,
    /// What the log says of the deliveries and where the order stands do not fit.
    LogDiffers,
    /// The gift's stock says another number than there are orders.
    StockDiffers,
    /// The store's sums say another number than there are orders in this state.
    SumsDiffer,
    /// Packets, their shares and accounts do not come to what was paid in, to the fen.
    CashDiffers,
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
            Self::CashDiffers => "cash_differs",
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
    /// Orders, or shares, read.
    pub orders: u64,
    /// Those that say delivered.
    pub delivered: u64,
    /// Entries of the game's, or the wallet's, ledger read.
    pub applied: u64,
    /// Given there and still open here: on its way to being settled, no difference.
    pub on_the_way: u64,
    /// Sums that moved while they were read, and were not compared.
    pub moving: bool,
    /// How many differences there are of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first 1,000 of them.
    pub differences: Vec<Difference>,
    /// Packets and shares, counted to the fen; none where there are no packets, or sums moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cash: Option<audit::Report>,
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

    /// Takes up what an audit found.
    fn note_cash(&mut self, found: &audit::Report) {
        for words in &found.told {
            let (of, words) = words.split_once(": ").unwrap_or(("all packets", words));
            self.note(Kind::CashDiffers, &of, words.to_owned());
        }
        let untold = found.differences.saturating_sub(found.told.len() as u64);
        if untold > 0 {
            *self.counts.entry(Kind::CashDiffers).or_default() += untold;
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

/// Compares all that was promised with what was given for it.
///
/// # Errors
/// A side cannot be read.
pub async fn reconcile(orders: &[Orders], game: &Game) -> Result<Report, ReconcileError> {
    let mut report = Report::default();
    let before = sums(orders).await?;
    let mut counted = Counted::default();
    let mut left = Vec::with_capacity(orders.len());
    for source in orders {
        left.push(Cursor::new(source));
    }
    let mut right = Cursor::new(game);
    let mut suspects = Vec::new();
    loop {
        let mut lowest: Option<OrderNo> = None;
        for cursor in &mut left {
            let next = cursor.peek().await?.map(Promise::order_no);
            lowest = lowest.into_iter().chain(next).min();
        }
        let entry = right.peek().await?.map(|entry: &Entry| entry.order_no);
        let Some(order_no) = lowest.into_iter().chain(entry).min() else { break };
        let mut promises: Vec<Promise> = left.iter_mut().filter_map(|c| c.take(order_no)).collect();
        let entry = right.take(order_no);
        report.orders += promises.len() as u64;
        report.applied += u64::from(entry.is_some());
        for promise in &promises {
            counted.count(promise);
        }
        if promises.len() > 1 {
            report.note(Kind::TwoOrders, &order_no, format!("{} stores have it", promises.len()));
        }
        let promise = promises.pop();
        report.delivered += u64::from(promise.as_ref().is_some_and(|p| p.state() == State::Delivered));
        if !judge(promise.as_ref(), entry.as_ref()).is_empty() {
            suspects.push(order_no);
        } else if let (Some(promise), Some(_)) = (&promise, &entry) {
            report.on_the_way += u64::from(promise.state().open());
        }
        if suspects.len() >= NAMED {
            look_again(orders, game, std::mem::take(&mut suspects), &mut report).await?;
        }
    }
    look_again(orders, game, suspects, &mut report).await?;
    // Fen are counted packet by packet, which is right only while nobody opens any.
    let cash = audits(orders).await?;
    report.moving = sums(orders).await? != before;
    if !report.moving {
        counted.compare(&before, &mut report);
        for found in &cash {
            report.note_cash(found);
        }
        report.cash = cash.into_iter().reduce(audit::Report::and);
    }
    Ok(report)
}

async fn sums(orders: &[Orders]) -> Result<Vec<Sums>, ReconcileError> {
    let mut all = Vec::with_capacity(orders.len());
    for source in orders {
        all.push(source.sums().await?);
    }
    Ok(all)
}

async fn audits(orders: &[Orders]) -> Result<Vec<audit::Report>, ReconcileError> {
    let mut all = Vec::new();
    for source in orders {
        all.extend(source.audit().await?);
    }
    Ok(all)
}

/// What is wrong about one order or share, given both sides.
pub fn judge(promise: Option<&Promise>, entry: Option<&Entry>) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    if let Some(entry) = entry.filter(|entry| entry.given != 1) {
        found.push((Kind::GivenTwice, format!("given {} times", entry.given)));
    }
    let Some(promise) = promise else {
        if let Some(entry) = entry {
            let words = format!("given at {}, told {} times", entry.applied_at.0, entry.received);
            found.push((Kind::NoSuchOrder, words));
        }
        return found;
    };
    let (state, giver) = (promise.state(), promise.giver());
    if let Some(said) = promise.said().filter(|said| *said != usize::from(state == State::Delivered)) {
        found.push((Kind::LogDiffers, format!("{}, and {said} words in the log say delivered", state.as_str())));
    }
    match (state, entry) {
        (State::Delivered, None) => found.push((Kind::Lost, format!("DELIVERED, and the {giver} does not know it"))),
        (State::Dead, Some(_)) => found.push((Kind::GivenAndDead, format!("DEAD, and the {giver} has given it"))),
        (State::Compensated, Some(_)) => {
            found.push((Kind::GivenAndCompensated, format!("COMPENSATED, and the {giver} has given it")));
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
        let mut promise = None;
        for source in orders {
            promise = promise.or(source.one(order_no).await?);
        }
        let entry = game.one(order_no).await?;
        for (kind, found) in judge(promise.as_ref(), entry.as_ref()) {
            report.note(kind, &order_no, found);
        }
    }
    Ok(())
}

/// Orders and shares as they were counted by reading all of them.
#[derive(Default)]
struct Counted {
    states: BTreeMap<State, u64>,
    gifts: BTreeMap<GiftId, u64>,
    fen: u64,
}

impl Counted {
    fn count(&mut self, promise: &Promise) {
        *self.states.entry(promise.state()).or_default() += 1;
        match promise {
            Promise::Order(trail) => *self.gifts.entry(trail.order.claim.gift_id.clone()).or_default() += 1,
            Promise::Share(share) => self.fen = self.fen.saturating_add(share.amount_fen),
        }
    }

    fn compare(&self, sums: &[Sums], report: &mut Report) {
        for state in State::ALL {
            let (said, read) =
                (sums.iter().map(|s| s.of(state)).sum::<u64>(), self.states.get(&state).copied().unwrap_or_default());
            if said != read {
                report.note(Kind::SumsDiffer, &state.as_str(), format!("the sums say {said}, there are {read}"));
            }
        }
        let mut issued: BTreeMap<&GiftId, u64> = self.gifts.keys().map(|gift| (gift, 0)).collect();
        for (gift, stock) in sums.iter().flat_map(Sums::stock) {
            *issued.entry(gift).or_default() += stock.issued;
        }
        for (gift, said) in issued {
            let read = self.gifts.get(gift).copied().unwrap_or_default();
            if said != read {
                report.note(Kind::StockDiffers, gift, format!("{said} issued by its stock, {read} orders"));
            }
        }
        let opened: u64 = sums.iter().map(Sums::opened_fen).sum();
        if opened != self.fen {
            let found = format!("the sums say {opened} were opened, the shares come to {}", self.fen);
            report.note(Kind::SumsDiffer, &"fen", found);
        }
    }
}

#[cfg(test)]
mod tests;
