//! Keeps what ALIAS names stand for: asks each target again at 80 % of its TTL, and says so when it can't.
//!
//! One task for all targets; so many questions at once, no more. A target that fails is tried again with growing pauses: its
//! last answer is given on for at most an hour beyond its time, then none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{self, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{CEILING, FLOOR, Known, STALE, STALE_TTL, Target};
use crate::base::clock::{Clock as _, Mono, SystemClock};
use crate::dns::table::Table;
use crate::net::stub;
use crate::observe::names::dns as metric;
use crate::snapshot::Published;
use crate::wire::dns::rtype;
use crate::wire::lookup::Found;
use crate::wire::name;
use crate::wire::zone::{RrSet, WireName};

/// How many addresses of one family are given on: an answer of ours has to have room for them.
const MOST_ADDRESSES: usize = 64;
/// How many targets are asked at once.
const AT_ONCE: usize = 16;
/// The longest pause between tries of a target that fails.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long to wait at most before the list is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How one target stands.
#[derive(Debug)]
struct Care {
    target: Arc<Target>,
    /// When it is asked again.
    due: Mono,
    /// When its answer has served its time; `None` while there is none.
    expires: Option<Mono>,
    failures: u32,
    asking: bool,
}

/// Asks for the targets of every topology that is published, until `shutdown`.
pub(crate) async fn refresh(published: Arc<Published>, shutdown: CancellationToken) {
    let mut generations = published.subscribe();
    let mut cares: HashMap<WireName, Care> = HashMap::new();
    let mut asking = Asking::default();
    let mut serial = 0;
    loop {
        let now = SystemClock.mono();
        let snapshot = published.full();
        if serial != snapshot.topology.serial {
            serial = snapshot.topology.serial;
            if let Some(table) = Table::of(&snapshot) {
                follow(&mut cares, table.aliases(), now);
            }
        }
        let configured = snapshot.topology.config.dns.as_ref().map(|d| d.resolver.clone()).unwrap_or_default();
        for care in cares.values_mut().filter(|c| !c.asking && c.due <= now) {
            if asking.is_full() {
                break;
            }
            care.asking = true;
            let (name, configured) = (care.target.name.clone(), configured.clone());
            asking.ask(care.target.name.clone(), async move { look_up(&configured, &name).await });
        }
        drop(snapshot);
        let pause = pause(&cares, asking.is_full(), now);
        tokio::select! {
            Some((name, answer)) = asking.answered() => {
                if let Some(care) = cares.get_mut(&name) {
                    care.settle(answer, SystemClock.mono());
                }
            }
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// How long nothing is to be done: until the next target is due, or, where so many are asked that no other can be, until one of
/// them has answered, which is not waited for here.
fn pause(cares: &HashMap<WireName, Care>, full: bool, now: Mono) -> Duration {
    let next = cares.values().filter(|c| !c.asking && !full).map(|c| c.due).min();
    next.map_or(LOOK_AGAIN, |due| due.since(now).min(LOOK_AGAIN)).max(Duration::from_millis(10))
}

/// The addresses of a target, and the seconds that all of them hold; `None` where they cannot be had.
type Answer = Option<([RrSet; 2], u32)>;

/// The questions that are out.
#[derive(Default)]
struct Asking {
    tasks: JoinSet<Answer>,
    names: HashMap<task::Id, WireName>,
}

impl Asking {
    fn is_full(&self) -> bool {
        self.tasks.len() >= AT_ONCE
    }

    fn ask(&mut self, name: WireName, question: impl Future<Output = Answer> + Send + 'static) {
        self.names.insert(self.tasks.spawn(question).id(), name);
    }

    /// The next target with its answer; one that broke has none. `None` where no question is out.
    async fn answered(&mut self) -> Option<(WireName, Answer)> {
        let (id, answer) = match self.tasks.join_next_with_id().await? {
            Ok(answered) => answered,
            Err(broken) => (broken.id(), None),
        };
        Some((self.names.remove(&id)?, answer))
    }
}

/// Takes up the targets that are new, and lets go of those that have gone.
fn follow(cares: &mut HashMap<WireName, Care>, targets: &[Arc<Target>], now: Mono) {
    let named: HashSet<&WireName> = targets.iter().map(|t| &t.name).collect();
    cares.retain(|name, _| named.contains(name));
    for target in targets {
        let fresh = || Care { target: Arc::clone(target), due: now, expires: None, failures: 0, asking: false };
        // The same cell, unless the target was away for a while.
        let care = cares.entry(target.name.clone()).or_insert_with(fresh);
        if !Arc::ptr_eq(&care.target, target) {
            *care = fresh();
        }
    }
}

async fn look_up(configured: &[std::net::SocketAddr], name: &[u8]) -> Answer {
    let resolvers = stub::resolvers(configured).await;
    let mut least = u32::MAX;
    let mut sets = [rtype::A, rtype::AAAA].map(|rtype| RrSet { rtype, ttl: 0, rdatas: Vec::new() });
    for set in &mut sets {
        match stub::ask(&resolvers, name, set.rtype).await? {
            Found::Records { ttl, mut rdatas } => {
                rdatas.truncate(MOST_ADDRESSES);
                (set.ttl, set.rdatas) = (ttl, rdatas);
                least = least.min(ttl);
            }
            Found::Nothing { ttl } => least = least.min(ttl),
            Found::Truncated | Found::Failed => return None,
        }
    }
    Some((sets, least))
}

impl Care {
    /// Takes what came of a question: publishes it, or lets what is there grow old.
    fn settle(&mut self, answer: Answer, now: Mono) {
        self.asking = false;
        match answer {
            Some((sets, ttl)) => {
                metric::ALIAS.counter(&["found"]).increment(1);
                let holds = Duration::from_secs(ttl.into());
                self.failures = 0;
                self.target.failed.store(false, Ordering::Relaxed);
                self.due = now + (holds * 4 / 5).clamp(FLOOR, CEILING);
                self.expires = Some(now + holds);
                let known = Known::new(sets);
                if self.target.look().as_deref() != Some(&known) {
                    self.target.publish(Some(known));
                }
            }
            None => self.fail(now),
        }
    }

    fn fail(&mut self, now: Mono) {
        metric::ALIAS.counter(&["failed"]).increment(1);
        self.failures = self.failures.saturating_add(1);
        self.target.failed.store(true, Ordering::Relaxed);
        self.due = now + (FLOOR * (1 << (self.failures - 1).min(4))).min(LONGEST_PAUSE);
        let target = name::show(&self.target.name);
        if self.failures == 1 {
            tracing::warn!(target: "dns", alias = target.as_str(), "the target of an ALIAS cannot be looked up: what was known of it is given on");
        }
        match self.expires {
            Some(expires) if now > expires + STALE => {
                self.expires = None;
                tracing::error!(target: "dns", alias = target.as_str(), "the target of an ALIAS could not be looked up for an hour: SERVFAIL");
                self.target.publish(None);
            }
            Some(expires) if now > expires => {
                let known = self.target.look().as_deref().map(|known| known.aged(STALE_TTL));
                self.target.publish(known);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn care() -> Care {
        let mut aliases = super::super::Aliases::default();
        aliases.place(b"\x01t\0", None);
        let target = Arc::clone(&aliases.targets()[0]);
        Care { target, due: Mono::ZERO, expires: None, failures: 0, asking: true }
    }

    fn sets(ttl: u32) -> [RrSet; 2] {
        [rtype::A, rtype::AAAA].map(|rtype| RrSet {
            rtype,
            ttl,
            rdatas: vec![vec![1; if rtype == rtype::A { 4 } else { 16 }].into()],
        })
    }

    fn ttl(care: &Care) -> Option<u32> {
        care.target.look().as_ref().and_then(|known| Some(known.sets().first()?.ttl))
    }

    #[test]
    fn an_answer_is_refreshed_grows_old_and_ends() {
        let at = |s: u64| Mono::from_millis(s * 1_000);
        let mut care = care();
        care.settle(Some((sets(100), 100)), at(1_000));
        assert_eq!((care.due, ttl(&care)), (at(1_080), Some(100)));
        care.settle(None, at(1_080));
        assert_eq!((care.due, ttl(&care)), (at(1_085), Some(100)), "within its time it is as good as ever");
        care.settle(None, at(1_101));
        assert_eq!((care.due, ttl(&care)), (at(1_111), Some(STALE_TTL)));
        assert!(care.target.has_failed() && care.target.look().as_deref().is_some_and(|k| k.stale));
        care.settle(None, at(1_100 + 3_600));
        assert_eq!(ttl(&care), Some(STALE_TTL));
        care.settle(None, at(1_101 + 3_600));
        assert_eq!(ttl(&care), None, "an hour beyond its time");
        care.settle(Some((sets(1), 1)), at(9_000));
        assert_eq!((care.due, ttl(&care), care.failures), (at(9_005), Some(1), 0), "no sooner than the floor");
        assert!(!care.target.has_failed() && care.target.look().as_deref().is_some_and(|k| !k.stale));
    }

    #[test]
    fn targets_come_and_go_and_keep_what_is_known() {
        let mut first = super::super::Aliases::default();
        first.place(b"\x01a\0", None);
        assert_eq!(first.place(b"\x01a\0", None), 0);
        let mut cares = HashMap::new();
        follow(&mut cares, first.targets(), Mono::from_millis(5));
        if let Some(care) = cares.get_mut(&b"\x01a\0"[..]) {
            care.settle(Some((sets(60), 60)), Mono::from_millis(5));
        }
        let mut second = super::super::Aliases::default();
        second.place(b"\x01b\0", Some(&first));
        second.place(b"\x01a\0", Some(&first));
        assert!(second.get(1).is_some_and(|t| t.look().is_some()), "known at once");
        follow(&mut cares, second.targets(), Mono::from_millis(9));
        assert_eq!(cares.len(), 2);
        assert_eq!(cares[&b"\x01a\0"[..]].due, Mono::from_millis(48_005), "it goes on as it was");
        follow(&mut cares, &[], Mono::from_millis(9));
        assert!(cares.is_empty());
    }

    #[tokio::test]
    async fn a_question_that_breaks_is_one_without_an_answer() {
        let mut asking = Asking::default();
        assert!(asking.answered().await.is_none());
        asking.ask(b"\x01t\0"[..].into(), async { panic!("a test breaks it") });
        assert_eq!(asking.answered().await, Some((b"\x01t\0"[..].into(), None)));
        assert!(asking.answered().await.is_none());
        let mut care = care();
        care.settle(None, Mono::ZERO);
        assert!(!care.asking && care.due > Mono::ZERO, "it is asked again, later");
    }

    #[test]
    fn where_no_more_may_be_asked_nobody_looks_every_moment() {
        let now = Mono::from_millis(50_000);
        let waiting = |care: Care| HashMap::from([(care.target.name.clone(), care)]);
        let due = waiting(Care { asking: false, ..care() });
        assert_eq!(pause(&due, false, now), Duration::from_millis(10));
        assert_eq!(pause(&due, true, now), LOOK_AGAIN);
        assert_eq!(pause(&waiting(care()), false, now), LOOK_AGAIN, "it is asked already");
    }
}
