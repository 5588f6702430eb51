//! The two sides of a reconciliation, each read in pages by order number, here or over HTTP.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::ReconcileError;
use crate::redpacket::ledger::cash::audit::{self, audit};
use crate::redpacket::ledger::cash::{PacketStore, Totals};
use crate::redpacket::ledger::{Stats, Stock, Store};
use crate::redpacket::model::cash::Share;
use crate::redpacket::model::{GiftId, OrderNo, State, Trail};
use crate::redpacket::peer::Peer;
use crate::redpacket::request::PAGE;
use crate::redpacket::store::deliveries::{Deliveries, Entry};

/// How long a page from another process may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long counting every fen may take there.
const AUDIT: Duration = Duration::from_mins(10);

/// Where orders, or shares of packets, are.
pub enum Orders {
    /// Orders, in a store of this process.
    Store(Arc<dyn Store>),
    /// Orders, in a claim process elsewhere.
    Claims(Peer),
    /// Shares, in a store of this process.
    Till(Arc<dyn PacketStore>),
    /// Shares, in a packet process elsewhere.
    Packets(Peer),
}

/// Where the ledger of what was given is: the game's, or the wallet's.
pub enum Game {
    /// In a file of this process.
    Ledger(Deliveries),
    /// In a process that answers.
    Peer(Peer),
}

/// What was promised.
pub enum Promise {
    /// A gift, with what was tried.
    Order(Trail),
    /// Money out of a packet.
    Share(Share),
}

impl Promise {
    /// The number under which it is given.
    pub const fn order_no(&self) -> OrderNo {
        match self {
            Self::Order(trail) => trail.order.order_no,
            Self::Share(share) => share.order_no,
        }
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        match self {
            Self::Order(trail) => trail.order.state,
            Self::Share(share) => share.booking.state,
        }
    }

    /// How many words in its log say delivered; shares have no log.
    pub(super) fn said(&self) -> Option<usize> {
        match self {
            Self::Order(trail) => Some(trail.delivered()),
            Self::Share(_) => None,
        }
    }

    /// Who gives it.
    pub(super) const fn giver(&self) -> &'static str {
        match self {
            Self::Order(_) => "game",
            Self::Share(_) => "wallet",
        }
    }
}

/// What a source says that it has.
#[derive(PartialEq, Eq)]
pub(super) enum Sums {
    Orders(Stats),
    Shares(Totals),
}

impl Sums {
    pub(super) fn of(&self, state: State) -> u64 {
        match self {
            Self::Orders(stats) => stats.of(state),
            Self::Shares(totals) => totals.shares_in(state),
        }
    }

    pub(super) fn stock(&self) -> &[(GiftId, Stock)] {
        match self {
            Self::Orders(stats) => &stats.stock,
            Self::Shares(_) => &[],
        }
    }

    pub(super) const fn opened_fen(&self) -> u64 {
        match self {
            Self::Orders(_) => 0,
            Self::Shares(totals) => totals.opened_fen,
        }
    }
}

impl Orders {
    pub(super) async fn sums(&self) -> Result<Sums, ReconcileError> {
        Ok(match self {
            Self::Store(store) => Sums::Orders(store.stats().await?),
            Self::Claims(peer) => Sums::Orders(ask(peer, "/internal/stats").await?),
            Self::Till(store) => Sums::Shares(store.totals().await?),
            Self::Packets(peer) => Sums::Shares(ask(peer, "/internal/totals").await?),
        })
    }

    /// Every fen, counted; nothing where there is no money.
    pub(super) async fn audit(&self) -> Result<Option<audit::Report>, ReconcileError> {
        Ok(match self {
            Self::Store(_) | Self::Claims(_) => None,
            Self::Till(store) => Some(audit(&**store).await?),
            Self::Packets(peer) => Some(ask_within(peer, "/internal/audit", AUDIT).await?),
        })
    }
}

/// Something that is read in pages by order number.
pub(super) trait Paged {
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
    type Item = Promise;

    async fn page(&self, after: Option<OrderNo>, limit: usize) -> Result<Vec<Promise>, ReconcileError> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default)]
            trails: Vec<Trail>,
            #[serde(default)]
            shares: Vec<Share>,
        }
        let page = match self {
            Self::Store(store) => Page { trails: store.scan(after, limit).await?, shares: Vec::new() },
            Self::Claims(peer) => ask(peer, &path("/internal/orders", after, limit)).await?,
            Self::Till(store) => Page { trails: Vec::new(), shares: store.scan_shares(after, limit).await? },
            Self::Packets(peer) => ask(peer, &path("/internal/shares", after, limit)).await?,
        };
        let orders = page.trails.into_iter().map(Promise::Order);
        Ok(orders.chain(page.shares.into_iter().map(Promise::Share)).collect())
    }

    fn number(promise: &Promise) -> OrderNo {
        promise.order_no()
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
    ask_within(peer, path, LIMIT).await
}

async fn ask_within<T: for<'de> Deserialize<'de>>(
    peer: &Peer,
    path: &str,
    limit: Duration,
) -> Result<T, ReconcileError> {
    let error = |reason: String| ReconcileError::Peer { origin: peer.origin().to_string(), path: path.into(), reason };
    let reply = peer.get(path, limit).await.map_err(|e| error(e.to_string()))?;
    if reply.status != StatusCode::OK {
        return Err(error(format!("answered {}", reply.status)));
    }
    serde_json::from_slice(&reply.body).map_err(|e| error(e.to_string()))
}

/// A place in a list that is read in pages.
pub(super) struct Cursor<'a, P: Paged> {
    source: &'a P,
    page: VecDeque<P::Item>,
    after: Option<OrderNo>,
    over: bool,
}

impl<'a, P: Paged> Cursor<'a, P> {
    pub(super) fn new(source: &'a P) -> Self {
        Self { source, page: VecDeque::new(), after: None, over: false }
    }

    pub(super) async fn peek(&mut self) -> Result<Option<&P::Item>, ReconcileError> {
        if self.page.is_empty() && !self.over {
            self.page = self.source.page(self.after, PAGE).await?.into();
            self.over = self.page.is_empty();
            self.after = self.page.back().map(P::number).or(self.after);
        }
        Ok(self.page.front())
    }

    /// The item in front, where it is of this number.
    pub(super) fn take(&mut self, order_no: OrderNo) -> Option<P::Item> {
        self.page.pop_front_if(|item| P::number(item) == order_no)
    }
}
