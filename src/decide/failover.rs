//! The decisions together, against backends that fall silent or die: a simulation on a hand-turned clock.
//!
//! Open loop: requests arrive whatever becomes of the earlier ones, as at a real edge. What is asserted is the bar that
//! least-request proxies set in the same scenario: at most 16 of 20,000 requests slower than 100 ms, none failed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::balance::{self, Choice, Turn, Wanted};
use super::retry::{self, Budgets, Case, Failure};
use super::tried::Tried;
use super::world::{SERVICE, set_backend, set_datacenter, world};
use crate::base::clock::Mono;
use crate::base::entropy::Rng;
use crate::base::ids::{BackendId, DatacenterId};
use crate::config::Balance;
use crate::snapshot::health::BackendState;
use crate::snapshot::load::Outcome;
use crate::snapshot::{DcState, Snapshot};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const RATE_PER_S: u64 = 2_000;
const SERVICE_TIME: Duration = Duration::from_millis(2);
const PENALTY: Duration = Duration::from_secs(1);
const BEGIN: Mono = Mono::from_millis(10_000);
/// As long as the scenario of the bench runs after the fault.
const AFTER: Duration = Duration::from_secs(7);

/// What happens to the backends of one datacenter, or to one backend.
#[derive(Clone, Copy)]
struct Fault {
    hits: fn(usize) -> bool,
    /// When, after the beginning.
    at: Duration,
    /// Nothing comes back; otherwise connections are refused.
    silent: bool,
    /// When the health core notices.
    noticed_after: Duration,
    /// Whether a whole datacenter is gone.
    datacenter: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Noticed,
    Done { request: usize, backend: BackendId, outcome: Option<bool> },
}

struct Request {
    began: Mono,
    tried: Tried,
    choice: Option<Choice>,
    tried_at: Mono,
}

#[derive(Debug, Default)]
struct Report {
    slow: usize,
    failed: usize,
    worst: Duration,
}

fn run(mut world: Snapshot, fault: Fault, seed: u64) -> Report {
    let begins = BEGIN + fault.at;
    let ends = begins + AFTER;
    let policy = world.topology.service(SERVICE).retry.clone();
    let limit = world.topology.service(SERVICE).deadline;
    let wanted = Wanted { service: SERVICE, local: Some(DatacenterId::new(0)), user: None, seat: None };
    let (mut turn, mut rng, mut budgets) = (Turn::new(), Rng::seeded(seed), Budgets::default());
    let mut queue = BinaryHeap::from([Reverse((BEGIN, 0, Event::Arrival))]);
    queue.push(Reverse((begins + fault.noticed_after, 1, Event::Noticed)));
    let (mut requests, mut serial, mut report): (Vec<Request>, u64, Report) = (Vec::new(), 2, Report::default());
    while let Some(Reverse((now, _, event))) = queue.pop() {
        let at = match event {
            Event::Noticed => {
                for id in 0..world.topology.backends.len() {
                    if (fault.hits)(id) {
                        set_backend(&mut world, BackendId::new(id), BackendState::Down);
                    }
                }
                if fault.datacenter {
                    set_datacenter(&mut world, 0, DcState::Failed, 0);
                }
                continue;
            }
            Event::Arrival => {
                if now < ends {
                    let gap = Duration::from_nanos(1_000_000_000 / RATE_PER_S);
                    serial += 1;
                    queue.push(Reverse((now + gap, serial, Event::Arrival)));
                }
                budgets.of(1, SERVICE, 1).earn(policy.budget, now);
                requests.push(Request { began: now, tried: Tried::new(), choice: None, tried_at: now });
                requests.len() - 1
            }
            Event::Done { request, backend, outcome } => {
                let Request { began, tried, choice, tried_at } = &mut requests[request];
                let load = &world.topology.backend(backend).load;
                let took = now.since(*tried_at);
                let Some(is_refused) = outcome else {
                    load.end(Outcome::Ok, took, PENALTY, now);
                    let whole = now.since(*began);
                    report.slow += usize::from(whole > 100 * MS);
                    report.worst = report.worst.max(whole);
                    continue;
                };
                let (outcome, failure) = if is_refused {
                    (Outcome::Refused, Failure::Connect)
                } else {
                    (Outcome::Timeout, Failure::Timeout)
                };
                load.end(outcome, took, PENALTY, now);
                tried.note(backend, choice.unwrap().datacenter, outcome);
                let case = Case {
                    failure,
                    tries: tried.count(),
                    repeatable: true,
                    replayable: true,
                    home: false,
                    remaining: limit.saturating_sub(now.since(*began)),
                    expected: Duration::ZERO,
                };
                if retry::judge(&policy, &case).is_err() || !budgets.of(1, SERVICE, 1).spend(now) {
                    report.failed += 1;
                    continue;
                }
                request
            }
        };
        let request = &mut requests[at];
        let choice = balance::choose(&world, &wanted, &mut request.tried, &mut turn, now, &mut rng).unwrap();
        (request.choice, request.tried_at) = (Some(choice), now);
        let load = &world.topology.backend(choice.backend).load;
        let remaining = limit.saturating_sub(now.since(request.began));
        let more = request.tried.count() + 1 < policy.tries;
        let patience = retry::per_try_timeout(&policy, choice.expected_ns, more, remaining);
        load.begin();
        let (after, outcome) = if now < begins || !(fault.hits)(choice.backend.index()) {
            let took = SERVICE_TIME.mul_f64(-(1.0 - rng.unit()).ln());
            if took < patience { (took, None) } else { (patience, Some(false)) }
        } else if fault.silent {
            (patience, Some(false))
        } else {
            (Duration::from_micros(100), Some(true))
        };
        serial += 1;
        let done = Event::Done { request: at, backend: choice.backend, outcome };
        queue.push(Reverse((now + after, serial, done)));
    }
    report
}

fn worst_of(datacenters: &[(u32, &[u32])], fault: Fault) -> Report {
    (0..4).map(|seed| run(world(Balance::P2c, datacenters), fault, seed)).fold(Report::default(), |a, b| Report {
        slow: a.slow.max(b.slow),
        failed: a.failed.max(b.failed),
        worst: a.worst.max(b.worst),
    })
}

#[test]
fn a_silent_backend_catches_few_and_fails_none() {
    for hosts in [&[1u32; 2][..], &[1; 3], &[1; 8]] {
        let fault = Fault {
            hits: |id| id == 0,
            at: 3 * SECOND,
            silent: true,
            noticed_after: Duration::from_millis(1_700),
            datacenter: false,
        };
        let report = worst_of(&[(1, hosts)], fault);
        assert!(report.failed == 0 && report.slow <= 16 && report.worst < 300 * MS, "{hosts:?}: {report:?}");
    }
}

#[test]
fn a_dead_backend_costs_nobody_anything() {
    let fault = Fault {
        hits: |id| id == 0,
        at: 3 * SECOND,
        silent: false,
        noticed_after: Duration::from_millis(1_200),
        datacenter: false,
    };
    let report = worst_of(&[(1, &[1, 1, 1])], fault);
    assert!(report.failed == 0 && report.slow == 0, "{report:?}");
}

/// With nobody else to tell, each request has to find out for itself, inside the budget that ten calm seconds have earned.
#[test]
fn a_dead_datacenter_fails_nobody() {
    for silent in [false, true] {
        let fault = Fault {
            hits: |id| id < 2,
            at: 10 * SECOND,
            silent,
            noticed_after: Duration::from_millis(1_700),
            datacenter: true,
        };
        let report = worst_of(&[(40, &[1, 1]), (40, &[1, 1]), (20, &[1, 1])], fault);
        assert!(report.failed == 0 && report.worst < 400 * MS, "silent: {silent}: {report:?}");
    }
}
