//! The way to users' homes: from a claim process to the one that owns the user (RED_PACKET I8).
//!
//! A claim that reaches another process is passed on once, in bounded time, and home's answer goes back as it is. Where
//! home cannot be reached, the caller writes an intent, and [`Relay::settle_home`] takes intents there later: the oldest
//! first, many in one request, at a bounded rate, after a jittered wait where home still does not answer. Whatever is lost
//! on the way may be sent again, as home knows it by its number. It never decides about a claim.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::{Counter, Gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, SystemClock, Wall};
use crate::base::entropy::Rng;
use crate::config::homes::{Homes, Sets};
use crate::observe::names::redpacket as names;
use crate::redpacket::intents::{Intent, Intents, Opened, Outcome, Sums};
use crate::redpacket::ledger::{Hold, StoreError};
use crate::redpacket::model::{Claim, Code, OrderNo, UserId};
use crate::redpacket::pace::{Backoff, Breaker, Bucket};
use crate::redpacket::peer::{Origin, Peer, Reply};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{TRACE_HEADER, USER_HEADER};

/// How long home may take for a claim that was passed on; the rest of the deadline is for the intent.
const FORWARD: Duration = Duration::from_millis(600);
/// How long others may take to say whether they have an intent.
const SEEK: Duration = Duration::from_millis(300);
/// Users at home who are looked for elsewhere at the same time: a number that nobody has must not cost much.
const SEEKERS: usize = 8;
/// Intents in one request to home; all of them fit in a body.
pub(super) const BATCH: usize = 64;
/// How long home may take for that.
const SETTLE: Duration = Duration::from_secs(3);
/// How often a settler looks for intents when nobody wakes it.
const LOOK: Duration = Duration::from_secs(1);

/// A claim on its way to its home.
#[derive(Deserialize, Serialize)]
pub(super) struct Passed {
    /// Under which epoch the sender takes this process for the home.
    pub(super) epoch: u64,
    /// The claim.
    pub(super) claim: Claim,
}

/// Intents on their way to their home.
#[derive(Deserialize, Serialize)]
pub(super) struct Batch {
    /// As in [`Passed`].
    pub(super) epoch: u64,
    /// The oldest first.
    pub(super) intents: Vec<Late>,
}

/// A claim that was asked for before now.
#[derive(Deserialize, Serialize)]
pub(super) struct Late {
    /// The claim.
    pub(super) claim: Claim,
    /// When.
    pub(super) asked: Wall,
}

/// What home says to a batch, one code for each.
#[derive(Deserialize, Serialize)]
pub(super) struct Decided {
    /// In the order of the batch.
    pub(super) codes: Vec<Code>,
}

/// Why home gave no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// It was not asked: it did not answer a moment ago.
    Shut,
    /// No connection, silence, or a connection that broke; the label says which.
    Silent(&'static str),
    /// It says that it cannot (5xx).
    Unable,
    /// Its answer makes no sense.
    Garbage,
}

impl Away {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Shut => "shut",
            Self::Silent(how) => how,
            Self::Unable => "unable",
            Self::Garbage => "garbage",
        }
    }
}

/// How intents are taken home.
#[derive(Clone, Copy, Debug)]
pub struct SettlePace {
    /// So many a second, at most, to each home.
    pub rate: f64,
    /// The waits while home does not answer.
    pub backoff: Backoff,
}

impl Default for SettlePace {
    /// 500 a second, as orders are delivered; 250 ms to 5 s (ours), for ever.
    fn default() -> Self {
        let backoff = Backoff {
            first: Duration::from_millis(250),
            most: Duration::from_secs(5),
            attempts: u32::MAX,
            within: Duration::MAX,
        };
        Self { rate: 500.0, backoff }
    }
}

struct Reach {
    peer: Peer,
    breaker: Mutex<Breaker>,
    wake: Notify,
}

/// The homes as one of them sees them, and the intents that it keeps for the others.
pub struct Relay {
    homes: Homes,
    here: usize,
    hold: Hold,
    /// One for each home, in their order; none for this one.
    reaches: Vec<Option<Reach>>,
    intents: Arc<dyn Intents>,
    clock: Arc<dyn Clock>,
    pace: SettlePace,
    seekers: Semaphore,
    open: AtomicU64,
    meters: Meters,
}

struct Meters {
    open: Gauge,
    age: Gauge,
    settled: Vec<(Outcome, Counter)>,
}

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

impl Relay {
    /// The way from the home by the name of `here` to all others, bearing `token` where they ask for one.
    ///
    /// # Errors
    /// The homes do not have that name, or one of them has no URL that can be called.
    pub fn new(homes: Homes, here: &str, intents: Arc<dyn Intents>, token: Option<&str>) -> Result<Self, RelayError> {
        let place = homes.place(here).ok_or_else(|| RelayError::Unknown { name: here.to_owned() })?;
        let mut reaches = Vec::with_capacity(homes.all().len());
        for (at, home) in homes.all().iter().enumerate() {
            let origin: Origin = home.url.parse().map_err(|_| RelayError::Url { url: home.url.clone() })?;
            let peer = Peer::new(origin);
            let peer = match token {
                Some(token) => peer.bearing(token),
                None => peer,
            };
            let reach = Reach { peer, breaker: Mutex::default(), wake: Notify::new() };
            reaches.push((at != place).then_some(reach));
        }
        let hold = Hold { epoch: homes.epoch(), sets: homes.sets_of(place) };
        let meters = Meters {
            open: names::INTENTS.gauge(&[]),
            age: names::INTENT_AGE_SECONDS.gauge(&[]),
            settled: Outcome::ALL.iter().map(|o| (*o, names::INTENTS_SETTLED_TOTAL.counter(&[o.as_str()]))).collect(),
        };
        Ok(Self {
            homes,
            here: place,
            hold,
            reaches,
            intents,
            clock: Arc::new(SystemClock),
            pace: SettlePace::default(),
            seekers: Semaphore::new(SEEKERS),
            open: AtomicU64::new(0),
            meters,
        })
    }

    /// With another pace for taking intents home.
    #[must_use]
    pub fn paced(mut self, pace: SettlePace) -> Self {
        self.pace = pace;
        self
    }

    /// For whom this process decides.
    pub const fn hold(&self) -> Hold {
        self.hold
    }

    /// Whether this process is the home of that set.
    pub const fn is_home(&self, set: u8) -> bool {
        self.hold.sets.has(set)
    }

    /// The places of the other homes, for [`Relay::settle_home`].
    pub fn others(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.reaches.len()).filter(|place| *place != self.here)
    }

    /// Whether a claim may be decided here, for a sender under `epoch`: this process is the user's home by its own file,
    /// and that file is not older than the sender's.
    pub(super) const fn decides(&self, set: u8, epoch: u64) -> bool {
        self.is_home(set) && epoch <= self.hold.epoch
    }

    /// Asks the claim's home, once.
    pub(super) async fn forward(&self, claim: &Claim, trace: &str, left: Duration) -> Result<Envelope, Away> {
        let place = self.homes.owner(OrderNo::set_of(&claim.user_id));
        let passed = Passed { epoch: self.hold.epoch, claim: claim.clone() };
        let body = Bytes::from(serde_json::to_vec(&passed).map_err(|_| Away::Garbage)?);
        let within = FORWARD.min(left / 2);
        let said = self.ask(place, Method::POST, "/internal/claims", body, &[(TRACE_HEADER, trace)], within).await?;
        // No claim is answered so: it is what somebody says who does not take us for one of the homes.
        if said.code == Code::NotFound { Err(Away::Garbage) } else { Ok(said) }
    }

    /// Asks home for an order.
    pub(super) async fn look(&self, order_no: OrderNo, user: &UserId, trace: &str) -> Result<Envelope, Away> {
        let path = format!("/internal/claims/{order_no}");
        let headers = [(TRACE_HEADER, trace), (USER_HEADER, user.as_str())];
        self.ask(self.homes.owner(order_no.set()), Method::GET, &path, Bytes::new(), &headers, FORWARD).await
    }

    /// Asks the others for an intent of a user whose home is here: it may have been written while this could not be
    /// reached, and not have come yet.
    pub(super) async fn seek(self: &Arc<Self>, order_no: OrderNo, user: &UserId, trace: &str) -> Option<Envelope> {
        let _permit = self.seekers.try_acquire().ok()?;
        let mut asked = tokio::task::JoinSet::new();
        for place in self.others() {
            let (relay, user, trace) = (self.clone(), user.clone(), trace.to_owned());
            asked.spawn(async move {
                let path = format!("/internal/intents/{order_no}");
                let headers = [(TRACE_HEADER, trace.as_str()), (USER_HEADER, user.as_str())];
                relay.ask(place, Method::GET, &path, Bytes::new(), &headers, SEEK).await
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(found)) = answer
                && found.code != Code::NotFound
            {
                return Some(found);
            }
        }
        None
    }

    async fn ask(
        &self,
        place: usize,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
    ) -> Result<Envelope, Away> {
        let reply = self.call(place, method, path, body, headers, within, false).await;
        let answer = reply.and_then(|reply| {
            let envelope = Envelope::read(&reply.body).filter(|envelope| envelope.code.status() == reply.status);
            envelope.ok_or(Away::Garbage)
        });
        let result = answer.as_ref().err().map_or("answered", |away| away.as_str());
        names::FORWARDS_TOTAL.counter(&[result]).increment(1);
        answer
    }

    /// `insists`: also where the breaker is open; for a settler, which has waits of its own.
    #[expect(clippy::too_many_arguments, reason = "what a call is made of, nothing hidden")]
    async fn call(
        &self,
        place: usize,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
        insists: bool,
    ) -> Result<Reply, Away> {
        let reach = self.reaches.get(place).and_then(Option::as_ref).ok_or(Away::Garbage)?;
        if !insists && !breaker(reach).allow(self.clock.mono()) {
            return Err(Away::Shut);
        }
        match reach.peer.call(method, path, body, headers, within).await {
            Ok(reply) => {
                // Who says that it cannot is there: what it says next may be another thing.
                breaker(reach).succeeded();
                let status: StatusCode = reply.status;
                if status.is_server_error() { Err(Away::Unable) } else { Ok(reply) }
            }
            Err(error) => {
                breaker(reach).failed(self.clock.mono());
                Err(Away::Silent(error.as_str()))
            }
        }
    }

    /// Writes an intent for `claim`.
    pub(super) async fn note(&self, claim: Claim, now: Wall) -> Result<Opened, StoreError> {
        let place = self.homes.owner(OrderNo::set_of(&claim.user_id));
        let opened = self.intents.open(claim, now).await?;
        if let Opened::New(_) = &opened {
            let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
            self.meters.open.set(open as f64);
            if let Some(reach) = self.reaches.get(place).and_then(Option::as_ref) {
                reach.wake.notify_one();
            }
        }
        Ok(opened)
    }

    /// The intent of that number, where it is this user's.
    pub(super) async fn intent(&self, order_no: OrderNo, user: &UserId) -> Result<Option<Intent>, StoreError> {
        let found = self.intents.find(order_no).await?;
        Ok(found.filter(|intent| intent.claim.user_id == *user))
    }

    /// Reads the sums of the intents into the metrics. To be called about once a second.
    ///
    /// # Errors
    /// The store cannot read.
    pub async fn measure(&self) -> Result<Sums, StoreError> {
        let sums = self.intents.sums().await?;
        self.open.store(sums.open, Ordering::Relaxed);
        self.meters.open.set(sums.open as f64);
        let age = sums.oldest.map_or(Duration::ZERO, |at| self.clock.wall().since(at));
        self.meters.age.set(age.as_secs_f64());
        Ok(sums)
    }

    /// Takes intents to the home at `place`, until `stop`. One of these for each of the others.
    pub async fn settle_home(self: Arc<Self>, place: usize, stop: CancellationToken) {
        let Some(reach) = self.reaches.get(place).and_then(Option::as_ref) else { return };
        let sets = self.homes.sets_of(place);
        let mut bucket = Bucket::new(self.pace.rate, BATCH as u32);
        let (mut rng, mut failures) = (Rng::from_os(), 0u32);
        loop {
            let wait = match self.carry(place, sets, &mut bucket).await {
                Carried::All => {
                    failures = 0;
                    Duration::ZERO
                }
                Carried::Nothing => LOOK,
                Carried::Stuck(why) => {
                    failures = failures.saturating_add(1);
                    let home = self.homes.all().get(place).map(|home| home.name.as_str());
                    tracing::debug!(home, why, failures, "intents wait for their home");
                    self.pace.backoff.wait(failures, Duration::ZERO, rng.next_u64()).unwrap_or(self.pace.backoff.most)
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                // Only who waits for work is woken by it; who waits for home waits on.
                () = reach.wake.notified(), if failures == 0 => {}
                () = stop.cancelled() => return,
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// One batch.
    async fn carry(&self, place: usize, sets: Sets, bucket: &mut Bucket) -> Carried {
        let due = match self.intents.due(sets, BATCH).await {
            Ok(due) if due.is_empty() => return Carried::Nothing,
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "intents cannot be read");
                return Carried::Stuck("unreadable");
            }
        };
        for _ in &due {
            while let Err(wait) = bucket.take(self.clock.mono()) {
                sleep(wait).await;
            }
        }
        let late = due.iter().map(|intent| Late { claim: intent.claim.clone(), asked: intent.asked }).collect();
        let batch = Batch { epoch: self.hold.epoch, intents: late };
        let Ok(body) = serde_json::to_vec(&batch) else { return Carried::Stuck("unwritable") };
        let reply = self.call(place, Method::POST, "/internal/intents", body.into(), &[], SETTLE, true).await;
        let decided = reply.and_then(|reply| {
            let decided =
                serde_json::from_slice::<Decided>(&reply.body).ok().filter(|_| reply.status == StatusCode::OK);
            decided.filter(|decided| decided.codes.len() == due.len()).ok_or(Away::Garbage)
        });
        let decided = match decided {
            Ok(decided) => decided,
            Err(away) => return Carried::Stuck(away.as_str()),
        };
        let words: Vec<(OrderNo, Outcome)> = due
            .iter()
            .zip(&decided.codes)
            .filter_map(|(intent, code)| Some((intent.number(), Outcome::of(*code)?)))
            .collect();
        let all = words.len() == due.len();
        match self.intents.settle(words.clone(), self.clock.wall()).await {
            Ok(moved) => {
                for ((_, outcome), _) in words.iter().zip(moved).filter(|(_, moved)| *moved) {
                    if let Some((_, counter)) = self.meters.settled.iter().find(|(o, _)| o == outcome) {
                        counter.increment(1);
                    }
                }
            }
            Err(error) => {
                // Home has decided; asked again, it says the same.
                tracing::warn!(%error, "what home said cannot be written");
                return Carried::Stuck("unwritable");
            }
        }
        if all { Carried::All } else { Carried::Stuck("undecided") }
    }
}

/// What came of a batch.
enum Carried {
    /// Home has decided about all of it; perhaps there is more.
    All,
    /// There is nothing to take.
    Nothing,
    /// Some or all of it is still to be decided.
    Stuck(&'static str),
}

fn breaker(reach: &Reach) -> MutexGuard<'_, Breaker> {
    reach.breaker.lock().unwrap_or_else(PoisonError::into_inner)
}
