//! The whole health core against real servers on loopback: killed, silenced, reloaded, restarted.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::base::clock::{ManualClock, SystemClock, Wall};
use crate::base::ids::DatacenterId;
use crate::base::task::{self, Task};
use crate::config::{BackendSpec, Config, Datacenter, Health, Passive, Probe, ProbeKind, Protocol, Retry, Service};
use crate::control::probe::{Asking, Trouble};
use crate::snapshot::health::{BackendState, DcState, ProbeFailure, Verdict};
use crate::snapshot::intent::{Intent, Subject, Wish};
use crate::snapshot::load::Outcome;
use crate::snapshot::topology::{Assets, Target};

/// Far beyond every bound that is asserted; only a hang meets it.
const DEADLINE: Duration = Duration::from_mins(1);
const MS: Duration = Duration::from_millis(1);
/// A millisecond of a bound by arithmetic, on a machine that is busy with something else.
const SLACK: Duration = Duration::from_millis(10);

/// A server that says 200 to everything, or nothing at all.
struct Upstream {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _accepting: Task,
}

impl Upstream {
    async fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (silent, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (quiet, count) = (Arc::clone(&silent), Arc::clone(&asked));
        let address = listener.local_addr().unwrap();
        let accepting = task::spawn("test-upstream", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let quiet = quiet.load(SeqCst);
                task::spawn("test-connection", async move {
                    let mut sink = [0; 1024];
                    while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {
                        if !quiet {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                        }
                    }
                })
                .detach();
            }
        });
        Self { address, silent, asked, _accepting: accepting }
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn http() -> Probe {
    Probe {
        kind: ProbeKind::Http { path: "/healthz".into(), host: None, expect: (200, 299), tls: None },
        interval: 1_000 * MS,
        timeout: 500 * MS,
        fall: 2,
        rise: 2,
        port: None,
        proxy_protocol: None,
    }
}

/// One service; datacenter `n` has the `n`th of these backends.
fn config(backends: &[&[SocketAddr]], probe: Probe) -> Config {
    let spec = |dc: usize, address: SocketAddr| BackendSpec { datacenter: DatacenterId::new(dc), address, weight: 1 };
    let service = Service {
        name: "gifts".into(),
        class: crate::config::Class::Critical,
        balance: crate::config::Balance::P2c,
        probe: Some(probe),
        passive: Passive::default(),
        deadline: 500 * MS,
        retry: Retry::default(),
        slow_start: 500 * MS,
        panic_below: 0.5,
        homing: crate::config::Homing::default(),
        limits: crate::config::Limits::default(),
        session: None,
        protocol: Protocol::Http1,
        tls: None,
        proxy_protocol: None,
        backends: backends.iter().enumerate().flat_map(|(dc, all)| all.iter().map(move |a| spec(dc, *a))).collect(),
    };
    let datacenter = |dc: usize| Datacenter {
        name: format!("dc{dc}"),
        weight: 10,
        addresses: Vec::new(),
        near: Vec::new(),
        capacity_rps: None,
    };
    let health = Health { ramp: 500 * MS, ..Health::default() };
    let datacenters = (0..backends.len()).map(datacenter).collect();
    Config { health, datacenters, services: vec![service], ..Config::default() }
}

fn topology(config: Config, before: Option<&Topology>) -> Topology {
    Topology::build(Arc::new(config), Assets::default(), before)
}

fn begin(config: Config, state_dir: Option<std::path::PathBuf>) -> Running {
    start(topology(config, None), state_dir, Arc::new(SystemClock), Box::new(|_, _| {})).unwrap()
}

/// Waits until `what` holds of the published snapshot; how long that took.
async fn until(handle: &Handle, what: impl Fn(&Snapshot) -> bool) -> Duration {
    let began = SystemClock.mono();
    let waiting = async {
        while !what(&handle.published.load()) {
            tokio::time::sleep(MS).await;
        }
    };
    let state = tokio::time::timeout(DEADLINE, waiting).await;
    assert!(state.is_ok(), "it never came to be: {:#?}", handle.published.load().backends);
    SystemClock.mono().since(began)
}

fn all_up(snapshot: &Snapshot) -> bool {
    snapshot.targets.iter().all(|t| t.verdict == Verdict::Up)
}

fn state(snapshot: &Snapshot, backend: usize) -> BackendState {
    snapshot.backends[backend].state
}

#[tokio::test]
async fn a_killed_backend_is_found_within_the_bound_and_comes_back_slowly() {
    let (a, b, c) = (Upstream::new().await, Upstream::new().await, Upstream::new().await);
    let mut running = begin(config(&[&[a.address, b.address], &[c.address]], http()), None);
    let handle = running.handle();
    until(&handle, all_up).await;

    let address = b.address;
    drop(b);
    let took = until(&handle, |s| state(s, 1) == BackendState::Down).await;
    println!("refused: found after {took:?}; 1.2 s by arithmetic");
    assert!(took < SLACK * 1_200, "{took:?}");
    assert_eq!(handle.published.load().backends[1].weight, 0);

    let _back = Upstream::at(address).await;
    let took = until(&handle, |s| state(s, 1) == BackendState::SlowStart).await;
    let weight = handle.published.load().backends[1].weight;
    assert!(weight < 1_000, "it begins below its full weight: {weight}");
    let ramp = until(&handle, |s| state(s, 1) == BackendState::Healthy).await;
    println!("returned: used again after {took:?}, in full {ramp:?} later");
    assert_eq!(handle.published.load().backends[1].weight, 1_000);
    running.stop();
}

#[tokio::test]
async fn a_silent_datacenter_is_found_within_the_bound() {
    let (a, b) = (Upstream::new().await, Upstream::new().await);
    let running = begin(config(&[&[a.address], &[b.address]], http()), None);
    let handle = running.handle();
    until(&handle, all_up).await;

    b.silent.store(true, SeqCst);
    let took = until(&handle, |s| s.weights[1].state == DcState::Failed).await;
    println!("silent: datacenter failed after {took:?}; 2.2 s by arithmetic");
    assert!(took < SLACK * 2_200, "{took:?}");
    assert_eq!(handle.published.load().weights[1].effective, 0);
    b.silent.store(false, SeqCst);
    until(&handle, |s| s.weights[1].effective == 10_000).await;
}

/// The clock stands still but for what the test gives it, so neither a tick nor a planned probe can do the alarm's work.
#[tokio::test]
async fn an_alarm_ejects_and_has_the_target_probed_before_its_time() {
    let all = [Upstream::new().await, Upstream::new().await, Upstream::new().await];
    let clock = Arc::new(ManualClock::new(Mono::from_millis(1_000), Wall(1_000_000)));
    let addresses = [all[0].address, all[1].address, all[2].address];
    let slow = Probe { interval: 100_000 * MS, ..http() };
    let running =
        start(topology(config(&[&addresses], slow), None), None, Arc::clone(&clock) as _, Box::new(|_, _| {})).unwrap();
    let handle = running.handle();
    clock.advance(300 * MS);
    until(&handle, all_up).await;
    assert_eq!(all.each_ref().map(Upstream::asked), [1, 1, 1]);

    // Three refusals in a row, as the proxy would see them; 99 ms are less than a tick and more than a breath.
    clock.advance(99 * MS);
    let load = Arc::clone(&handle.published.load().topology.backends[1].load);
    for _ in 0..3 {
        load.begin();
        load.end(Outcome::Refused, MS, 1_000 * MS, clock.mono());
        handle.alarm().ring();
    }
    let mut generations = handle.published.subscribe();
    let waiting = async {
        while state(&handle.published.load(), 1) != BackendState::Ejected {
            generations.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("ejected without a tick");

    clock.advance(2 * MS);
    until(&handle, |_| all[1].asked() == 2).await;
    assert_eq!((all[0].asked(), all[2].asked()), (1, 1), "the others are asked when it is their time");
}

#[tokio::test]
async fn a_reload_swaps_targets_and_the_gone_are_left_alone() {
    let (old, kept, new) = (Upstream::new().await, Upstream::new().await, Upstream::new().await);
    let quick = || Probe { interval: 20 * MS, ..http() };
    let running = begin(config(&[&[old.address, kept.address]], quick()), None);
    let handle = running.handle();
    until(&handle, all_up).await;
    let load = Arc::clone(&handle.published.load().topology.backends[1].load);

    let next = config(&[&[kept.address, new.address]], quick());
    let next = topology(next, Some(&handle.published.load().topology));
    handle.apply(Event::Reload(Box::new(next))).await.unwrap();
    let snapshot = handle.published.full();
    assert_eq!(snapshot.targets[0].verdict, Verdict::Up, "what is known of a target outlives the reload");
    assert!(Arc::ptr_eq(&snapshot.topology.backends[0].load, &load));

    // What was in the air at the reload may still arrive; after a round of the others nothing more may.
    let rounds = |upstream: &Upstream, n: usize| upstream.asked() + n;
    let (a, b) = (rounds(&kept, 3), rounds(&new, 3));
    until(&handle, |_| kept.asked() >= a && new.asked() >= b).await;
    let left = old.asked();
    let (a, b) = (rounds(&kept, 10), rounds(&new, 10));
    until(&handle, |_| kept.asked() >= a && new.asked() >= b).await;
    assert_eq!(old.asked(), left);
}

#[tokio::test]
async fn a_restart_serves_what_was_known_before_its_first_probe() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("made/when/needed");
    let (a, b) = (Upstream::new().await, Upstream::new().await);
    let (addresses, dead) = ([[a.address], [b.address]], b.address);
    let config = || config(&[&addresses[0], &addresses[1]], http());
    let mut running = begin(config(), Some(state_dir.clone()));
    let handle = running.handle();
    drop(b);
    until(&handle, |s| s.weights[1].state == DcState::Failed && s.targets[0].verdict == Verdict::Up).await;
    let drain = Intent {
        subject: Subject::Backend { address: a.address.to_string(), service: None },
        wish: Wish::Drain,
        since: SystemClock.wall(),
        until: None,
        by: "ann".into(),
        reason: "a new kernel".into(),
    };
    let generation = handle.apply(Event::Wish(drain)).await.unwrap();
    running.stop();
    assert_eq!(handle.apply(Event::Tick).await, Err(Stopped));

    let running = start_with(
        topology(config(), None),
        Some(state_dir.clone()),
        Arc::new(SystemClock),
        Arc::new(Mute),
        Box::new(|_, _| {}),
    );
    let first = running.unwrap().handle().published.full();
    assert!(first.generation > generation, "generations go on over a restart");
    assert_eq!((state(&first, 0), state(&first, 1)), (BackendState::Drained, BackendState::Down));
    assert_eq!(first.weights[1].effective, 0, "{dead} is dead, and was known to be");
    let audit = std::fs::read_to_string(state_dir.join("audit.log")).unwrap();
    assert!(audit.contains("a new kernel") && audit.contains("ann"), "{audit}");
}

/// Never answers.
struct Mute;

impl Prober for Mute {
    fn ask<'a>(&'a self, _: &'a Target, _: &'a Assets) -> Asking<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_disk_that_refuses_stops_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let a = Upstream::new().await;
    let mut running = begin(config(&[&[a.address]], http()), Some(file.path().join("no-folder")));
    let handle = running.handle();
    until(&handle, all_up).await;
    drop(a);
    until(&handle, |s| s.targets[0].verdict == Verdict::Down).await;
    running.stop();
}

/// Breaks on one target, and lacks the means to ask another.
struct Broken;

impl Prober for Broken {
    fn ask<'a>(&'a self, target: &'a Target, _: &'a Assets) -> Asking<'a> {
        Box::pin(async move {
            match target.address.port() {
                1 => panic!("on purpose"),
                2 => Err(Trouble::Unasked),
                _ => Ok(()),
            }
        })
    }
}

#[tokio::test]
async fn our_own_mistakes_and_shortages_are_no_evidence() {
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let quick = Probe { interval: 10 * MS, ..http() };
    let topology = topology(config(&[&[at(1), at(2), at(3)]], quick), None);
    let running = start_with(topology, None, Arc::new(SystemClock), Arc::new(Broken), Box::new(|_, _| {})).unwrap();
    until(&running.handle(), |s| s.targets[2].round >= 20).await;
    let snapshot = running.handle().published.full();
    assert!(snapshot.targets[..2].iter().all(|t| t.verdict == Verdict::Unknown && t.round == 0));
    assert!(snapshot.backends.iter().all(|b| b.state.usable()), "what can't be asked stays in use");
}

#[tokio::test]
async fn a_flood_of_evidence_starves_neither_probes_nor_time() {
    let (a, b) = (Upstream::new().await, Upstream::new().await);
    let running = begin(config(&[&[a.address], &[b.address]], http()), None);
    let handle = running.handle();
    until(&handle, all_up).await;
    let (flooding, flood) = (Arc::new(AtomicBool::new(true)), handle.clone());
    let (on, refused) = (Arc::clone(&flooding), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&refused);
    let thread = std::thread::spawn(move || {
        while on.load(SeqCst) {
            if !flood.offer(Event::Sampled { samples: Vec::new(), serial: 1 }) {
                count.fetch_add(1, SeqCst);
                std::thread::yield_now();
            }
        }
    });
    drop(b);
    let took = until(&handle, |s| state(s, 1) == BackendState::Down).await;
    flooding.store(false, SeqCst);
    thread.join().unwrap();
    println!("under a flood ({} events refused): found after {took:?}", refused.load(SeqCst));
    assert!(refused.load(SeqCst) > 0, "the queue was full all along");
    assert!(took < 2 * SLACK * 1_200, "{took:?}");
}

#[tokio::test]
async fn stopping_is_prompt_whatever_is_in_the_air() {
    let all: Vec<SocketAddr> = (1..500).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
    let patient = Probe { timeout: 100_000 * MS, ..http() };
    let topology = topology(config(&[&all], patient), None);
    let running = start_with(topology, None, Arc::new(SystemClock), Arc::new(Mute), Box::new(|_, _| {})).unwrap();
    until(&running.handle(), |s| s.at > Mono::ZERO).await;
    let began = SystemClock.mono();
    drop(running);
    assert!(SystemClock.mono().since(began) < DEADLINE / 4);
}

/// Answers at once, and counts.
struct Counting {
    asked: Vec<AtomicUsize>,
    dead_from: AtomicUsize,
}

impl Prober for Counting {
    fn ask<'a>(&'a self, target: &'a Target, _: &'a Assets) -> Asking<'a> {
        let which = usize::from(target.address.port());
        self.asked[which].fetch_add(1, SeqCst);
        let dead = which >= self.dead_from.load(SeqCst);
        Box::pin(async move { if dead { Err(Trouble::Failed(ProbeFailure::Refused)) } else { Ok(()) } })
    }
}

#[tokio::test]
async fn ten_thousand_targets_are_each_asked_in_their_turn() {
    const N: usize = 10_000;
    let prober = Arc::new(Counting {
        asked: (0..=N).map(|_| AtomicUsize::new(0)).collect(),
        dead_from: AtomicUsize::new(N + 1),
    });
    let all: Vec<SocketAddr> = (1..=N).map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16))).collect();
    let (a, b) = all.split_at(N / 2);
    let topology = topology(config(&[a, b], http()), None);
    let clock = Arc::new(SystemClock);
    let began = clock.mono();
    let running = start_with(topology, None, clock, Arc::clone(&prober) as _, Box::new(|_, _| {})).unwrap();
    let handle = running.handle();
    until(&handle, all_up).await;
    println!("10,000 targets up after {:?}", SystemClock.mono().since(began));
    until(&handle, |s| s.targets.iter().all(|t| t.round >= 2)).await;
    let took = SystemClock.mono().since(began);
    let asked: Vec<usize> = prober.asked[1..].iter().map(|n| n.load(SeqCst)).collect();
    println!("2 rounds after {took:?}; asked {} to {} times", asked.iter().min().unwrap(), asked.iter().max().unwrap());
    let most = 2 + (took.as_secs_f64() / 0.9) as usize;
    assert!(asked.iter().all(|&n| n <= most), "nobody more often than the interval allows");

    prober.dead_from.store(N / 2 + 1, SeqCst);
    let took = until(&handle, |s| s.weights[1].effective == 0).await;
    println!("half of them dead: failed after {took:?}");
    let took = until(&handle, |s| s.targets[N / 2..].iter().all(|t| t.verdict == Verdict::Down)).await;
    println!("and the last of them {took:?} later");
}
