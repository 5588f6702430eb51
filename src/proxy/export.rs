//! Exports spans by OTLP over HTTP, on a thread of its own: no worker waits for it, and no request.
//!
//! ```text
//!   workers' pages --10 times a second--> queue --512 spans, or 1 s--> batch --POST--> collector
//!        | full: lost, counted              | full: lost, counted        | no: dropped, counted; later: again
//! ```
//!
//! Everything is bounded: pages ([`Spans`]), the queue, the tries of a batch and the time between them. One batch is under way
//! at a time, so a collector that is slow gets no more connections than one. Where to send follows the published
//! configuration. At the end each batch that waits has one more try.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::deliver::{Courier, Fate, Told};
use self::target::Target;
use super::spans::{Page, Spans};
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::observe::names::proxy as names;
use crate::snapshot::Published;

mod deliver;
mod target;

/// How often workers' pages are taken; and where nothing is exported.
const TURN: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(1);
/// Octets that may wait to be sent: some 15,000 spans (ours).
const QUEUE: usize = 8 << 20;
/// So many spans are worth a request at once (the SDKs' default), and so long others wait (ours).
const BATCH: u32 = 512;
const WAIT: Duration = Duration::from_secs(1);
/// Octets of one request, and a page more: collectors take 20 MiB by default.
const REQUEST: usize = 1 << 20;

/// Starts the exporter of `spans`, which ends once nobody holds the other end of `working` and all is sent or given up.
pub(super) fn start(
    spans: Vec<Arc<Spans>>,
    published: Arc<Published>,
    working: mpsc::Receiver<Infallible>,
) -> std::io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    let body = move || {
        runtime.block_on(Exporter::new(spans, published).run(working));
        let _ = done.send(());
    };
    std::thread::Builder::new().name("otlp".into()).spawn(body).map(|_| ended)
}

/// Counts what became of spans.
struct Fates {
    exported: Counter,
    /// There was no room for them.
    full: Counter,
    /// The collector could not be reached, or not in time.
    failed: Counter,
    /// The collector does not want them.
    refused: Counter,
}

impl Fates {
    fn new() -> Self {
        let [exported, full, failed, refused] =
            ["exported", "full", "failed", "refused"].map(|outcome| names::SPANS.counter(&[outcome]));
        Self { exported, full, failed, refused }
    }

    fn count(&self, told: &Told) {
        match told.fate {
            Fate::Taken { rejected } => {
                let rejected = rejected.min(u64::from(told.spans));
                self.exported.increment(u64::from(told.spans) - rejected);
                self.refused.increment(rejected);
            }
            Fate::Refused => self.refused.increment(u64::from(told.spans)),
            Fate::Failed => self.failed.increment(u64::from(told.spans)),
        }
    }
}

/// Spans that wait.
#[derive(Default)]
struct Queue {
    pages: VecDeque<Page>,
    octets: usize,
    spans: u32,
    /// When the first of them came.
    since: Option<Mono>,
}

impl Queue {
    /// Takes `page`, if there is room; gives how many spans found none.
    fn put(&mut self, page: Page, now: Mono) -> u64 {
        if page.count == 0 {
            return page.lost;
        }
        if self.octets + page.octets.len() > QUEUE {
            return page.lost + u64::from(page.count);
        }
        self.since.get_or_insert(now);
        self.octets += page.octets.len();
        self.spans += page.count;
        let lost = page.lost;
        self.pages.push_back(page);
        lost
    }

    /// Whether there is enough for a request, or it has waited for long enough.
    fn is_ripe(&self, now: Mono) -> bool {
        self.spans >= BATCH || self.since.is_some_and(|since| now.since(since) >= WAIT)
    }

    /// As many pages as go into one request.
    fn take(&mut self, now: Mono) -> Vec<Page> {
        let (mut taken, mut octets) = (Vec::new(), 0);
        while octets < REQUEST
            && let Some(page) = self.pages.pop_front()
        {
            octets += page.octets.len();
            self.octets -= page.octets.len();
            self.spans -= page.count;
            taken.push(page);
        }
        self.since = (!self.pages.is_empty()).then_some(now);
        taken
    }
}

/// A batch on its way.
type Carrying = Pin<Box<dyn Future<Output = (Courier, Told)> + Send>>;

/// Waits for what is under way, where something is.
async fn arrived(under_way: &mut Option<Carrying>) -> (Courier, Told) {
    match under_way {
        Some(carrying) => carrying.await,
        None => std::future::pending().await,
    }
}

struct Exporter {
    spans: Vec<Arc<Spans>>,
    published: Arc<Published>,
    queue: Queue,
    fates: Fates,
    /// Where spans go, by the topology of this serial.
    target: (u64, Option<Arc<Target>>),
    ending: CancellationToken,
}

impl Exporter {
    fn new(spans: Vec<Arc<Spans>>, published: Arc<Published>) -> Self {
        let (queue, fates, ending) = (Queue::default(), Fates::new(), CancellationToken::new());
        Self { spans, published, queue, fates, target: (0, None), ending }
    }

    async fn run(mut self, mut working: mpsc::Receiver<Infallible>) {
        let (mut is_last, mut courier) = (false, Some(Courier::new(self.ending.clone())));
        let mut under_way: Option<Carrying> = None;
        loop {
            let pause = if self.target().is_some() { TURN } else { IDLE };
            tokio::select! {
                () = tokio::time::sleep(pause), if !is_last => {}
                _ = working.recv(), if !is_last => {
                    is_last = true;
                    self.ending.cancel();
                }
                (back, told) = arrived(&mut under_way) => {
                    self.fates.count(&told);
                    (courier, under_way) = (Some(back), None);
                }
            }
            let now = SystemClock.mono();
            self.collect(now);
            let target = self.target();
            if target.is_none() {
                // They were made for a collector that is not wanted any more.
                let waiting: u32 = self.queue.take(now).iter().map(|page| page.count).sum();
                self.fates.full.increment(u64::from(waiting));
            }
            if let Some(target) = target.filter(|_| self.queue.is_ripe(now) || (is_last && self.queue.spans > 0))
                && let Some(courier) = courier.take()
            {
                under_way = Some(Box::pin(courier.carry(target, self.queue.take(now))));
            }
            if is_last && under_way.is_none() {
                return;
            }
        }
    }

    /// Takes what workers have.
    fn collect(&mut self, now: Mono) {
        for spans in &self.spans {
            let lost = self.queue.put(spans.take(), now);
            self.fates.full.increment(lost);
        }
    }

    /// Where spans go.
    fn target(&mut self) -> Option<Arc<Target>> {
        let snapshot = self.published.load();
        if snapshot.topology.serial != self.target.0 {
            self.target = (snapshot.topology.serial, Target::of(&snapshot.topology).map(Arc::new));
        }
        self.target.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(octets: usize, count: u32) -> Page {
        Page { octets: vec![0; octets], count, lost: 1 }
    }

    #[test]
    fn what_waits_is_bounded_and_goes_by_number_or_time() {
        let at = |ms: u64| Mono::from_millis(10_000 + ms);
        let mut queue = Queue::default();
        assert_eq!((queue.put(page(0, 0), at(0)), queue.is_ripe(at(5_000))), (1, false), "nothing is there");
        assert_eq!(queue.put(page(100, 2), at(0)), 1);
        assert_eq!((queue.is_ripe(at(999)), queue.is_ripe(at(1_000))), (false, true));
        queue.put(page(100, BATCH - 2), at(1));
        assert!(queue.is_ripe(at(1)), "many do not wait");
        assert_eq!(queue.take(at(2)).iter().map(|page| page.count).sum::<u32>(), BATCH);
        assert_eq!((queue.spans, queue.octets, queue.is_ripe(at(9_000))), (0, 0, false));
        let room = QUEUE / REQUEST;
        let lost: u64 = (0..room + 2).map(|_| queue.put(page(REQUEST, 7), at(3))).sum();
        assert_eq!(lost, (room as u64 + 2) + 2 * 7, "those two found no room, and what workers had lost before");
        let mut requests = 0;
        while !queue.take(at(4)).is_empty() {
            requests += 1;
        }
        assert_eq!(requests, room);
    }
}
