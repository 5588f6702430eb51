//! What a tick of the health core costs by the number of steered names: in the calm, while evidence about one datacenter
//! changes with every tick, and where every name is derived anew. `cargo bench --bench steers [NAMES]`
//!
//! There are ten ticks a second: 1,000 us a tick are 1 % of a core.

#![allow(clippy::print_stdout, reason = "the figures are the output")]
#![allow(clippy::disallowed_methods, reason = "a bench measures with the system's clock")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use springtide::base::clock::{Mono, Wall};
use springtide::base::ids::TargetId;
use springtide::config::check;
use springtide::config::diag::Findings;
use springtide::control::event::Event;
use springtide::control::step;
use springtide::snapshot::health::{ProbeFailure, ProbeOutcome};
use springtide::snapshot::topology::Assets;
use springtide::snapshot::{Snapshot, Topology};

const DATACENTERS: usize = 8;
const SERVICES: usize = 100;
const TICKS: u32 = 100;

/// Names spread over services; each service has a backend in each datacenter, and each name all datacenters.
fn config(names: usize) -> String {
    let mut text = String::new();
    for dc in 0..DATACENTERS {
        let _ =
            writeln!(text, "[[datacenter]]\nname = \"dc{dc}\"\nweight = {}\naddresses = [\"192.0.2.{dc}\"]", dc + 1);
    }
    for service in 0..SERVICES {
        let backend = |dc: usize| format!("dc{dc} = [\"10.{dc}.{service}.1:80\"]");
        let backends = (0..DATACENTERS).map(backend).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "[[service]]\nname = \"s{service}\"\nprobe = {{ http = \"/\" }}\nbackends = {{ {backends} }}"
        );
    }
    let _ =
        writeln!(text, "[dns]\nlisten = \"127.0.0.1:5300\"\n[[dns.zone]]\nname = \"example.test.\"\nfile = \"zone\"");
    for name in 0..names {
        let service = name % SERVICES;
        let _ = writeln!(
            text,
            "[[dns.steer]]\nname = \"n{name}.example.test.\"\nservices = [\"s{service}\"]\npolicy = \"weighted\""
        );
    }
    text
}

struct World {
    snapshot: Snapshot,
    now: Mono,
}

impl World {
    fn event(&mut self, event: Event) -> Duration {
        let wall = Wall(1_700_000_000_000 + self.now.nanos() / 1_000_000);
        let began = Instant::now();
        self.snapshot = step::step(&self.snapshot, event, self.now, wall);
        began.elapsed()
    }

    fn probe(&mut self, target: usize, outcome: ProbeOutcome) {
        let (target, serial) = (TargetId::new(target), self.snapshot.topology.serial);
        self.event(Event::Probed { target, outcome, took: Duration::from_millis(1), serial });
    }

    /// Mean time of a tick, with what comes before each.
    fn ticks(&mut self, mut before: impl FnMut(&mut Self, u32)) -> f64 {
        let mut spent = Duration::ZERO;
        for tick in 0..TICKS {
            self.now = self.now + Duration::from_millis(100);
            before(self, tick);
            spent += self.event(Event::Tick);
        }
        spent.as_secs_f64() * 1e6 / f64::from(TICKS)
    }
}

fn main() -> Result<(), Findings> {
    let asked = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    println!("names   calm us  one place us  all anew us  (a tick; ten a second)");
    for names in asked.map_or_else(|| vec![100, 1_000, 10_000], |names| vec![names]) {
        let config = check::parse(&config(names), Path::new("steers.toml"))?;
        let topology = Topology::build(Arc::new(config), Assets::default(), None);
        let now = Mono::from_millis(100_000);
        let snapshot = step::first(topology, None, now, Wall(1_700_000_000_000));
        let mut world = World { snapshot, now };
        for target in 0..world.snapshot.targets.len() {
            world.probe(target, ProbeOutcome::Ok);
        }
        let calm = world.ticks(|_, _| ());
        let failed = ProbeOutcome::Failed(ProbeFailure::Refused);
        let place = world.ticks(|world, tick| world.probe(0, if tick % 2 == 0 { failed } else { ProbeOutcome::Ok }));
        let anew = world.ticks(|world, _| world.snapshot.steered_from = Arc::default());
        println!("{names:<7} {calm:>7.0}  {place:>12.0}  {anew:>11.0}");
    }
    Ok(())
}
