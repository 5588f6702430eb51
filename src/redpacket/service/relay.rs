//! The way to users' homes: from a claim process to the one that owns the user (RED_PACKET I8).
//!
//! A claim that reaches another process is passed on once, in bounded time, and home's answer goes back as it is. Where
//! home cannot be reached, the caller writes an intent, and [`Relay::settle`] takes intents there later: the oldest
//! first, many in one request, at a bounded rate, after a jittered wait where home still does not answer. Whatever is lost
//! on the way may be sent again, as home knows it by its number. It never decides about a claim.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use metrics::{Counter, Gauge};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, SystemClock, Wall};
use crate::base::entropy::Rng;
use crate::base::task::{Task, spawn};
use crate::config::homes::{Homes, Sets};
use crate::observe::names::redpacket as names;
use crate::redpacket::intents::{Intent, Intents, Opened, Outcome, Sums};
use crate::redpacket::ledger::{Hold, StoreError};
use crate::redpacket::model::{Claim, Code, OrderNo, UserId};
use crate::redpacket::pace::{Backoff, Breaker, Bucket};
use crate::redpacket::peer::Reply;
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::{TRACE_HEADER, USER_HEADER};

mod chart;
mod quota;

pub use chart::{Chart, RelayError};
pub(super) use quota::{Given, Wish};

use chart::Reach;

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

/// The homes as one of them sees them, and the intents that it keeps for the others.
pub struct Relay {
    name: String,
    token: Option<String>,
    chart: watch::Sender<Arc<Chart>>,
    intents: Arc<dyn Intents>,
    clock: Arc<dyn Clock>,
    pace: SettlePace,
    seekers: Semaphore,
    open: AtomicU64,
    meters: Meters,
}

struct Meters {
    epoch: Gauge,
    open: Gauge,
    age: Gauge,
    settled: Vec<(Outcome, Counter)>,
}

impl Relay {
    /// The way from the home by the name of `here` to all others, bearing `token` where they ask for one.
    ///
    /// # Errors
    /// The homes do not have that name, or one of them has no URL that can be called.
    pub fn new(homes: Homes, here: &str, intents: Arc<dyn Intents>, token: Option<&str>) -> Result<Self, RelayError> {
        let chart = Chart::draw(homes, here, token)?;
        if chart.here.is_none() {
            return Err(RelayError::Unknown { name: here.to_owned() });
        }
        let meters = Meters {
            epoch: names::HOMES_EPOCH.gauge(&[]),
            open: names::INTENTS.gauge(&[]),
            age: names::INTENT_AGE_SECONDS.gauge(&[]),
            settled: Outcome::ALL.iter().map(|o| (*o, names::INTENTS_SETTLED_TOTAL.counter(&[o.as_str()]))).collect(),
        };
        meters.epoch.set(chart.hold.epoch as f64);
        Ok(Self {
            name: here.to_owned(),
            token: token.map(str::to_owned),
            chart: watch::Sender::new(Arc::new(chart)),
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

    fn chart(&self) -> Arc<Chart> {
        Arc::clone(&self.chart.borrow())
    }

    /// Whether `homes` is what it goes by.
    pub fn goes_by(&self, homes: &Homes) -> bool {
        self.chart.borrow().homes == *homes
    }

    /// What changed `homes` mean for this process. Where they no longer name it, it decides for nobody.
    ///
    /// # Errors
    /// One of them has no URL that can be called.
    pub fn draw(&self, homes: Homes) -> Result<Chart, RelayError> {
        Chart::draw(homes, &self.name, self.token.as_deref())
    }

    /// Goes by `chart` from now on. The store must be held as it says by now ([`Store::fence`](crate::redpacket::ledger::Store::fence)):
    /// so what began by the old one is refused there where it is no longer this home's.
    pub fn adopt(&self, chart: Chart) {
        self.meters.epoch.set(chart.hold.epoch as f64);
        self.chart.send_replace(Arc::new(chart));
    }

    /// For whom this process decides.
    pub fn hold(&self) -> Hold {
        self.chart.borrow().hold
    }

    /// Whether this process is the home of that set.
    pub fn is_home(&self, set: u8) -> bool {
        self.hold().sets.has(set)
    }

    /// Whether a claim may be decided here, for a sender under `epoch`: this process is the user's home by its own file,
    /// and that file is not older than the sender's.
    pub(super) fn decides(&self, set: u8, epoch: u64) -> bool {
        let hold = self.hold();
        hold.sets.has(set) && epoch <= hold.epoch
    }

    /// Asks the claim's home, once.
    pub(super) async fn forward(&self, claim: &Claim, trace: &str, left: Duration) -> Result<Envelope, Away> {
        let chart = self.chart();
        let place = chart.homes.owner(OrderNo::set_of(&claim.user_id));
        let passed = Passed { epoch: chart.hold.epoch, claim: claim.clone() };
        let body = Bytes::from(serde_json::to_vec(&passed).map_err(|_| Away::Garbage)?);
        let within = FORWARD.min(left / 2);
        let headers = [(TRACE_HEADER, trace)];
        let said = self.ask(&chart, place, Method::POST, "/internal/claims", body, &headers, within).await?;
        // No claim is answered so: it is what somebody says who does not take us for one of the homes.
        if said.code == Code::NotFound { Err(Away::Garbage) } else { Ok(said) }
    }

    /// Asks home for an order.
    pub(super) async fn look(&self, order_no: OrderNo, user: &UserId, trace: &str) -> Result<Envelope, Away> {
        let path = format!("/internal/claims/{order_no}");
        let headers = [(TRACE_HEADER, trace), (USER_HEADER, user.as_str())];
        let chart = self.chart();
        let place = chart.homes.owner(order_no.set());
        self.ask(&chart, place, Method::GET, &path, Bytes::new(), &headers, FORWARD).await
    }

    /// Asks the others for an intent of a user whose home is here: it may have been written while this could not be
    /// reached, and not have come yet.
    pub(super) async fn seek(self: &Arc<Self>, order_no: OrderNo, user: &UserId, trace: &str) -> Option<Envelope> {
        let _permit = self.seekers.try_acquire().ok()?;
        let mut asked = tokio::task::JoinSet::new();
        let chart = self.chart();
        for place in (0..chart.reaches.len()).filter(|place| Some(*place) != chart.here) {
            let (relay, chart, user, trace) = (self.clone(), chart.clone(), user.clone(), trace.to_owned());
            asked.spawn(async move {
                let path = format!("/internal/intents/{order_no}");
                let headers = [(TRACE_HEADER, trace.as_str()), (USER_HEADER, user.as_str())];
                relay.ask(&chart, place, Method::GET, &path, Bytes::new(), &headers, SEEK).await
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

    #[expect(clippy::too_many_arguments, reason = "what a call is made of, nothing hidden")]
    async fn ask(
        &self,
        chart: &Chart,
        place: usize,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
    ) -> Result<Envelope, Away> {
        let reply = self.call(chart, place, method, path, body, headers, within, false).await;
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
        chart: &Chart,
        place: usize,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
        within: Duration,
        insists: bool,
    ) -> Result<Reply, Away> {
        let reach = chart.reaches.get(place).ok_or(Away::Garbage)?;
        if !insists && !breaker(reach).allow(self.clock.mono()) {
            return Err(Away::Shut);
        }
        match reach.call(&method, path, &body, headers, within).await {
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
        let chart = self.chart();
        let place = chart.homes.owner(OrderNo::set_of(&claim.user_id));
        let opened = self.intents.open(claim, now).await?;
        if let Opened::New(_) = &opened {
            let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
            self.meters.open.set(open as f64);
            if let Some(reach) = chart.reaches.get(place) {
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

    /// Takes intents to their homes, until `stop`, by whatever chart it goes by.
    pub async fn settle(self: Arc<Self>, stop: CancellationToken) {
        let mut charts = self.chart.subscribe();
        loop {
            let chart = Arc::clone(&charts.borrow_and_update());
            let over = stop.child_token();
            // To this one as well: it may have been given users for whom it kept intents before.
            let settle = |place| spawn("settle", self.clone().settle_home(chart.clone(), place, over.clone()));
            let settlers: Vec<Task> = (0..chart.reaches.len()).map(settle).collect();
            tokio::select! {
                _ = charts.changed() => {}
                () = stop.cancelled() => {}
            }
            over.cancel();
            for settler in settlers {
                settler.ended().await;
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    /// Takes intents to the home at `place`.
    async fn settle_home(self: Arc<Self>, chart: Arc<Chart>, place: usize, stop: CancellationToken) {
        let Some(reach) = chart.reaches.get(place) else { return };
        let sets = chart.homes.sets_of(place);
        let mut bucket = Bucket::new(self.pace.rate, BATCH as u32);
        let (mut rng, mut failures) = (Rng::from_os(), 0u32);
        loop {
            let wait = match self.carry(&chart, place, sets, &mut bucket).await {
                Carried::All => {
                    failures = 0;
                    Duration::ZERO
                }
                Carried::Nothing => LOOK,
                Carried::Stuck(why) => {
                    failures = failures.saturating_add(1);
                    let home = chart.homes.all().get(place).map(|home| home.name.as_str());
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
    async fn carry(&self, chart: &Chart, place: usize, sets: Sets, bucket: &mut Bucket) -> Carried {
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
        let batch = Batch { epoch: chart.hold.epoch, intents: late };
        let Ok(body) = serde_json::to_vec(&batch) else { return Carried::Stuck("unwritable") };
        let reply = self.call(chart, place, Method::POST, "/internal/intents", body.into(), &[], SETTLE, true).await;
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
