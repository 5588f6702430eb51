//! One line for each packet: those who open it at the same time go to the store together, up to 256 in one commit.
//!
//! ```text
//!   openers -> the packet's line -> [commit of those who waited] -> answers; meanwhile the next ones gather
//! ```
//!
//! So a packet that thousands want costs the store as many ops as commits take turns, and never two at once (RED_PACKET
//! 2.7: serialise a packet, let few pass). A line exists while somebody stands in it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Histogram;
use tokio::sync::oneshot;

use super::shelf::Shelf;
use crate::base::clock::Clock;
use crate::base::task::spawn;
use crate::observe::names::redpacket as names;
use crate::redpacket::ledger::StoreError;
use crate::redpacket::ledger::cash::{OPENERS, Opened, Opener, PacketStore};
use crate::redpacket::model::PacketId;

/// The longest line; more are refused. Ours: 16 commits of a slow disk, which is about as long as anybody waits.
const LONGEST: usize = 16 * OPENERS;

struct Waiter {
    opener: Opener,
    reply: oneshot::Sender<Result<Opened, StoreError>>,
}

/// All lines.
pub(super) struct Lines {
    store: Arc<dyn PacketStore>,
    shelf: Arc<Mutex<Shelf>>,
    clock: Arc<dyn Clock>,
    waiting: Mutex<HashMap<PacketId, VecDeque<Waiter>>>,
    sizes: Histogram,
}

impl Lines {
    pub(super) fn new(store: Arc<dyn PacketStore>, shelf: Arc<Mutex<Shelf>>, clock: Arc<dyn Clock>) -> Self {
        Self { store, shelf, clock, waiting: Mutex::default(), sizes: names::OPEN_BATCH_SIZE.histogram(&[]) }
    }

    /// Opens `packet_id` for `opener`, together with whoever waits for the same. Who stops waiting before their turn is
    /// left out; who stops in it may have a share all the same.
    pub(super) async fn open(self: &Arc<Self>, packet_id: PacketId, opener: Opener) -> Result<Opened, StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.join(&packet_id, Waiter { opener, reply })? {
            spawn("packet-line", self.clone().serve(packet_id)).detach();
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown { reason: "the line broke off".into() }))
    }

    /// Puts `waiter` at the end of the line. Says whether there was none before, so that somebody must begin to serve it.
    fn join(&self, packet_id: &PacketId, waiter: Waiter) -> Result<bool, StoreError> {
        let mut waiting = self.waiting();
        let Some(line) = waiting.get_mut(packet_id) else {
            waiting.insert(packet_id.clone(), VecDeque::from([waiter]));
            return Ok(true);
        };
        if line.len() >= LONGEST {
            return Err(StoreError::Overloaded);
        }
        line.push_back(waiter);
        Ok(false)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<PacketId, VecDeque<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, packet_id: PacketId) {
        // However this ends, the next opener must find no line without somebody who serves it.
        let _close = Close { lines: &self, packet_id: &packet_id };
        while let Some(batch) = self.next(&packet_id) {
            self.commit(&packet_id, batch).await;
        }
    }

    /// Those whose turn it is; nothing, and no line, where nobody waits.
    fn next(&self, packet_id: &PacketId) -> Option<Vec<Waiter>> {
        let mut waiting = self.waiting();
        let line = waiting.get_mut(packet_id).filter(|line| !line.is_empty());
        let Some(line) = line else {
            waiting.remove(packet_id);
            return None;
        };
        let turn = line.len().min(OPENERS);
        Some(line.drain(..turn).filter(|waiter| !waiter.reply.is_closed()).collect())
    }

    async fn commit(&self, packet_id: &PacketId, batch: Vec<Waiter>) {
        if batch.is_empty() {
            return;
        }
        self.sizes.record(batch.len() as f64);
        let (openers, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|w| (w.opener, w.reply)).unzip();
        let outcome = self.store.open(packet_id.clone(), openers, self.clock.wall()).await;
        let each = match outcome {
            Ok(opens) => {
                if let Some(packet) = &opens.packet {
                    let shares = opens.each.iter().filter_map(|opened| match opened {
                        Opened::Share(share) | Opened::Already(share) => Some(share),
                        _ => None,
                    });
                    self.shelf().learn(packet, shares);
                }
                opens.each.into_iter().map(Ok).collect::<Vec<_>>()
            }
            Err(error) => {
                self.shelf().forget(packet_id);
                replies.iter().map(|_| Err(error.clone())).collect()
            }
        };
        for (reply, opened) in replies.into_iter().zip(each) {
            // Whoever stopped waiting finds their share when they ask again.
            let _ = reply.send(opened);
        }
    }
}

struct Close<'a> {
    lines: &'a Lines,
    packet_id: &'a PacketId,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lines.waiting().remove(self.packet_id);
        }
    }
}
