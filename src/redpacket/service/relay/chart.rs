//! Whose home is where, and how each is reached: what a relay goes by until a newer file takes its place, whole.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::Notify;

use crate::config::homes::{Home, Homes, Sets};
use crate::redpacket::ledger::Hold;
use crate::redpacket::pace::Breaker;
use crate::redpacket::peer::{CallError, Origin, Peer, Reply};

/// A file of homes that a process cannot make use of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The file does not name this process.
    #[error("the file names no home `{name}`")]
    Unknown {
        /// The process's name.
        name: String,
    },
    /// A home's URL cannot be called.
    #[error("`{url}` is no origin that can be called")]
    Url {
        /// What stands there.
        url: String,
    },
}

/// The way to one home.
pub(super) struct Reach {
    /// Its processes.
    peers: Vec<Peer>,
    /// Which of them is asked first: the one that answered last.
    first: AtomicUsize,
    pub(super) breaker: Mutex<Breaker>,
    pub(super) wake: Notify,
}

impl Reach {
    fn new(home: &Home, token: Option<&str>) -> Result<Self, RelayError> {
        let mut peers = Vec::with_capacity(home.doors.len());
        for door in &home.doors {
            let origin: Origin = door.url.parse().map_err(|_| RelayError::Url { url: door.url.clone() })?;
            let peer = Peer::new(origin);
            peers.push(match token {
                Some(token) => peer.bearing(token),
                None => peer,
            });
        }
        Ok(Self { peers, first: AtomicUsize::new(0), breaker: Mutex::default(), wake: Notify::new() })
    }

    /// Asks one of its processes; another where nothing was sent. Who did not answer well is asked last the next time.
    pub(super) async fn call(
        &self,
        method: &Method,
        path: &str,
        body: &Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
    ) -> Result<Reply, CallError> {
        let first = self.first.load(Ordering::Relaxed);
        let mut outcome = Err(CallError::Timeout);
        for turn in 0..self.peers.len() {
            let Some(peer) = self.peers.get(first.wrapping_add(turn) % self.peers.len()) else { break };
            outcome = peer.call(method.clone(), path, body.clone(), headers, within).await;
            let is_good = outcome.as_ref().is_ok_and(|reply| !reply.status.is_server_error());
            if !is_good {
                self.first.store(first.wrapping_add(turn + 1), Ordering::Relaxed);
            }
            if !matches!(outcome, Err(CallError::Connect(_))) {
                break;
            }
        }
        outcome
    }
}

/// Whose home is where, under one epoch, as one of the homes sees it.
pub struct Chart {
    pub(super) homes: Homes,
    /// This one's place; none where the file has left it out: then it decides for nobody.
    pub(super) here: Option<usize>,
    pub(super) hold: Hold,
    /// The way to each home, in their order.
    pub(super) reaches: Vec<Reach>,
}

impl Chart {
    pub(super) fn draw(homes: Homes, name: &str, token: Option<&str>) -> Result<Self, RelayError> {
        let here = homes.place(name);
        let reaches = homes.all().iter().map(|home| Reach::new(home, token)).collect::<Result<_, _>>()?;
        let sets = here.map_or_else(Sets::default, |place| homes.sets_of(place));
        let hold = Hold { epoch: homes.epoch(), sets };
        Ok(Self { homes, here, hold, reaches })
    }

    /// What the store has to be held as, before this may be gone by ([`Relay::adopt`]).
    pub const fn hold(&self) -> Hold {
        self.hold
    }
}
