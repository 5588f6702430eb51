//! The loop around `step`: events in, snapshots out, probes launched when they are due.
//!
//! One thread with a runtime of its own, so that no load on the data path can delay a verdict. A turn takes everything that
//! waits (bounded), applies it event by event, and publishes once; what follows (log, gauges, disk) hangs on a generation
//! that has moved. The loop decides nothing: verdicts are `step`'s, times of probes too.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::event::{Event, QUEUE};
use super::keeper::Keeper;
use super::past::Past;
use super::probe::schedule::{MAX_IN_FLIGHT, Schedule};
use super::probe::{self, Prober, Sockets};
use super::report::Report;
use super::step;
use crate::base::clock::{Clock, Mono};
use crate::base::ids::{BackendId, TargetId};
use crate::observe::names;
use crate::snapshot::health::ProbeOutcome;
use crate::snapshot::{Alarm, Published, Snapshot, Topology};

/// How often the counters of live traffic are looked at, and ramps and expiries move (ours: a tenth of the shortest
/// window that anything is judged by).
const TICK: Duration = Duration::from_millis(100);
/// How soon after a look an alarm may cause another.
const BREATH: Duration = Duration::from_millis(10);
/// Events of one turn: a flood does not keep what is known already from being published (ours: some milliseconds' work).
const BATCH: usize = 256;
/// How long a stop waits for the disk.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The health core could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No thread or no runtime to run on: out of threads, memory or descriptors.
    #[error("the control thread cannot be started: {source}")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// The loop has stopped; nothing that is sent to it comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control loop has stopped")]
pub struct Stopped;

/// What everybody else has of the health core. Cheap to clone; outliving the core is harmless.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Where snapshots appear.
    pub published: Arc<Published>,
    /// Where events go. The data path uses [`Handle::offer`].
    pub events: mpsc::Sender<Event>,
}

impl Handle {
    /// Offers evidence without waiting; false, and counted, where the queue is full. Evidence comes again.
    pub fn offer(&self, event: Event) -> bool {
        let taken = self.events.try_send(event).is_ok();
        if !taken {
            names::control::EVENTS_DROPPED.counter(&[]).increment(1);
        }
        taken
    }

    /// Sends `event` and waits until what follows from it is published; gives that generation.
    ///
    /// # Errors
    /// The loop has stopped.
    pub async fn apply(&self, event: Event) -> Result<u64, Stopped> {
        let (tell, told) = oneshot::channel();
        self.events.send(event).await.map_err(|_| Stopped)?;
        self.events.send(Event::Flush(tell)).await.map_err(|_| Stopped)?;
        told.await.map_err(|_| Stopped)
    }

    /// Rung by the data path at a local-origin failure, it has the counters looked at within milliseconds.
    pub fn alarm(&self) -> &Alarm {
        self.published.alarm()
    }
}

/// Owns the health core: it stops with [`Running::stop`], or when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the health core"]
pub struct Running {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// A handle for whoever reads snapshots or sends events.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops probing, writes the last-known-good to disk (for at most two seconds), and returns when that is done.
    pub fn stop(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in the loop was reported by the hook; there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What makes the views of a snapshot before it is published, given the one before it: so that no reader pays for it.
pub type Prepare = Box<dyn Fn(Option<&Snapshot>, &Snapshot) + Send>;

/// Starts the health core for `topology`, from what the `past` remembers. A first snapshot is published
/// when it returns. Install the metrics recorder before: handles that are made without one stay silent.
pub fn start(
    topology: Topology,
    past: impl Into<Past>,
    clock: Arc<dyn Clock>,
    prepare: Prepare,
) -> Result<Running, StartError> {
    start_with(topology, past, clock, Arc::new(Sockets), prepare)
}

/// As [`start`], with a prober of one's own.
pub fn start_with(
    topology: Topology,
    past: impl Into<Past>,
    clock: Arc<dyn Clock>,
    prober: Arc<dyn Prober>,
    prepare: Prepare,
) -> Result<Running, StartError> {
    let mut past = past.into();
    // All probes that have news get their turn before the loop gets its own: its turns cost by the turn, not by the probe.
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_all().event_interval(MAX_IN_FLIGHT as u32).max_blocking_threads(2).build();
    let runtime = runtime.map_err(|source| StartError::Thread { source })?;
    let first = step::first(topology, past.memory().as_ref(), clock.mono(), clock.wall());
    prepare(None, &first);
    let published = Arc::new(Published::new(first));
    let (events, arriving) = mpsc::channel(QUEUE);
    let stop = CancellationToken::new();
    let turning = Loop::new(Arc::clone(&published), arriving, stop.clone(), past, clock, prober, prepare);
    let body = move || drive(runtime, turning);
    let thread = std::thread::Builder::new().name("control".into()).spawn(body);
    let thread = thread.map_err(|source| StartError::Thread { source })?;
    Ok(Running { handle: Handle { published, events }, stop, thread: Some(thread) })
}

fn drive(runtime: Runtime, turning: Loop) {
    runtime.block_on(turning.run());
    // A disk that hangs must not keep the process: its write is left to itself.
    runtime.shutdown_background();
}

struct Loop {
    published: Arc<Published>,
    current: Arc<Snapshot>,
    arriving: mpsc::Receiver<Event>,
    stop: CancellationToken,
    clock: Arc<dyn Clock>,
    prober: Arc<dyn Prober>,
    prepare: Prepare,
    schedule: Schedule,
    flights: JoinSet<Landing>,
    /// Whose flight each task is: the target and the serial of its topology.
    aboard: HashMap<Id, (TargetId, u64)>,
    keeper: Keeper,
    report: Report,
    tick_at: Mono,
    sampled_at: Mono,
    alarmed: bool,
}

/// How a probe ended, and how long it took.
type Landing = (Option<ProbeOutcome>, Duration);

/// What one turn has to do.
#[derive(Default)]
struct Turn {
    events: Vec<Event>,
    landed: Vec<(TargetId, u64, bool)>,
    flushes: Vec<oneshot::Sender<u64>>,
}

impl Loop {
    fn new(
        published: Arc<Published>,
        arriving: mpsc::Receiver<Event>,
        stop: CancellationToken,
        past: Past,
        clock: Arc<dyn Clock>,
        prober: Arc<dyn Prober>,
        prepare: Prepare,
    ) -> Self {
        let current = published.full();
        let now = clock.mono();
        let mut schedule = Schedule::default();
        schedule.rebuild(current.topology.serial, &current.targets);
        Self {
            keeper: Keeper::new(past, now),
            report: Report::new(&current),
            published,
            current,
            arriving,
            stop,
            clock,
            prober,
            prepare,
            schedule,
            flights: JoinSet::new(),
            aboard: HashMap::new(),
            tick_at: now + TICK,
            sampled_at: now,
            alarmed: false,
        }
    }

    async fn run(mut self) {
        loop {
            let mut turn = Turn::default();
            if !self.wait(&mut turn).await {
                break;
            }
            let began = self.clock.mono();
            self.gather(&mut turn, began);
            self.take(turn, began);
            self.launch(began);
            self.keeper.turn(&self.current, began, self.clock.wall()).await;
            self.report.turned(self.clock.wall(), self.clock.mono().since(began));
        }
        let last = self.keeper.last(&self.current, self.clock.mono(), self.clock.wall());
        if tokio::time::timeout(LAST_WRITE, last).await.is_err() {
            tracing::warn!("the disk takes too long: stopping without the last write");
        }
    }

    /// Waits until there is something to do; false where that is to stop.
    async fn wait(&mut self, turn: &mut Turn) -> bool {
        let now = self.clock.mono();
        let look = if self.alarmed { self.sampled_at + BREATH } else { Mono::NEVER };
        let wake = self.tick_at.min(look).min(self.schedule.next().unwrap_or(Mono::NEVER));
        tokio::select! {
            () = self.stop.cancelled() => return false,
            Some(event) = self.arriving.recv() => turn.take_in(event),
            Some(landing) = self.flights.join_next_with_id() => self.land(landing, turn),
            () = self.published.alarm().rung() => self.alarmed = true,
            () = tokio::time::sleep(wake.since(now).min(TICK)) => {}
        }
        true
    }

    /// Takes what else is there by now, and what time asks for.
    fn gather(&mut self, turn: &mut Turn, now: Mono) {
        while turn.events.len() < BATCH {
            let Ok(event) = self.arriving.try_recv() else { break };
            turn.take_in(event);
        }
        while let Some(landing) = self.flights.try_join_next_with_id() {
            self.land(landing, turn);
        }
        let tick = now >= self.tick_at;
        if tick || (self.alarmed && now >= self.sampled_at + BREATH) {
            turn.events.extend(self.sample(now));
        }
        if tick {
            self.tick_at = now + TICK;
            turn.events.push(Event::Tick);
        }
    }

    /// What live traffic has to say.
    fn sample(&mut self, now: Mono) -> Option<Event> {
        self.published.alarm().hush();
        (self.alarmed, self.sampled_at) = (false, now);
        let topology = &self.current.topology;
        let taken = topology.backends.iter().enumerate().map(|(i, b)| (BackendId::new(i), b.load.take()));
        let samples: Vec<_> = taken.filter(|(_, sample)| sample.total() > 0).collect();
        (!samples.is_empty()).then_some(Event::Sampled { samples, serial: topology.serial })
    }

    fn land(&mut self, landing: Result<(Id, Landing), JoinError>, turn: &mut Turn) {
        let (id, (outcome, took)) = landing.unwrap_or_else(|error| {
            tracing::error!(%error, "a probe broke: a mistake of ours, and no evidence");
            (error.id(), (None, Duration::ZERO))
        });
        let Some((target, serial)) = self.aboard.remove(&id) else { return };
        if serial == self.current.topology.serial {
            let kind = self.current.topology.targets.get(target.index()).map(|t| &t.probe.kind);
            self.report.probed(kind, outcome, took);
        }
        turn.landed.push((target, serial, outcome.is_some()));
        turn.events.extend(outcome.map(|outcome| Event::Probed { target, outcome, took, serial }));
    }

    /// Applies a turn's events and publishes what comes of them.
    fn take(&mut self, turn: Turn, now: Mono) {
        let wall = self.clock.wall();
        let mut touched = Touched::default();
        if !turn.events.is_empty() {
            for event in &turn.events {
                self.report.event(event);
                self.keeper.audit(event, self.current.generation, wall);
                touched.add(event, &self.current.topology);
            }
            let next = step::steps(&self.current, turn.events, now, wall);
            let before = std::mem::replace(&mut self.current, Arc::new(next));
            if before.generation != self.current.generation {
                (self.prepare)(Some(&before), &self.current);
            }
            self.published.publish(Arc::clone(&self.current));
            // Evidence alone moves no generation; what it has turned is told with the next tick.
            if touched.all || before.generation != self.current.generation {
                self.report.moved(&self.current);
            }
        }
        for flush in turn.flushes {
            // Who asked may have gone.
            let _ = flush.send(self.current.generation);
        }
        self.reschedule(&touched, &turn.landed, now);
    }

    fn reschedule(&mut self, touched: &Touched, landed: &[(TargetId, u64, bool)], now: Mono) {
        let (topology, targets) = (&self.current.topology, &self.current.targets);
        for &(target, serial, asked) in landed {
            let due = targets.get(target.index()).map(|health| health.due);
            self.schedule.landed(serial, target, due.filter(|_| asked), now);
        }
        if self.schedule.serial() != topology.serial {
            self.schedule.rebuild(topology.serial, targets);
        } else if touched.all {
            targets.iter().enumerate().for_each(|(i, health)| self.schedule.follow(TargetId::new(i), health.due));
        } else {
            for &target in &touched.some {
                if let Some(health) = targets.get(target.index()) {
                    self.schedule.follow(target, health.due);
                }
            }
        }
    }

    /// Launches what is due, as far as there is room in the air.
    fn launch(&mut self, now: Mono) {
        let serial = self.current.topology.serial;
        while let Some(target) = self.schedule.take(now) {
            let due = self.current.targets.get(target.index()).map_or(now, |health| health.due);
            self.report.launched(now.since(due));
            let flight = fly(&self.current.topology, &self.prober, &self.clock, target);
            let task = self.flights.spawn(flight.instrument(tracing::trace_span!("probe")));
            self.aboard.insert(task.id(), (target, serial));
        }
        self.report.in_flight(self.schedule.in_flight());
    }
}

/// One probe, from its launch to its landing.
fn fly(
    topology: &Arc<Topology>,
    prober: &Arc<dyn Prober>,
    clock: &Arc<dyn Clock>,
    target: TargetId,
) -> impl Future<Output = Landing> + Send + 'static {
    let (topology, prober, clock) = (Arc::clone(topology), Arc::clone(prober), Arc::clone(clock));
    async move {
        let began = clock.mono();
        let outcome = match topology.targets.get(target.index()) {
            Some(target) => probe::ask(&*prober, target, &topology.assets).await,
            None => None,
        };
        (outcome, clock.mono().since(began))
    }
}

impl Turn {
    fn take_in(&mut self, event: Event) {
        match event {
            Event::Flush(tell) => self.flushes.push(tell),
            event => self.events.push(event),
        }
    }
}

/// Targets whose due time may have moved.
#[derive(Default)]
struct Touched {
    all: bool,
    some: Vec<TargetId>,
}

impl Touched {
    fn add(&mut self, event: &Event, topology: &Topology) {
        match event {
            Event::Probed { target, .. } => self.some.push(*target),
            Event::Sampled { samples, .. } => {
                let backends = samples.iter().filter_map(|(id, _)| topology.backends.get(id.index()));
                self.some.extend(backends.filter_map(|backend| backend.target));
            }
            Event::Tick | Event::Reload(_) | Event::Wish(_) | Event::Revoke { .. } | Event::Flush(_) => self.all = true,
        }
    }
}

#[cfg(test)]
mod tests;
