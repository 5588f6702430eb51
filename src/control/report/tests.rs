//! What is shown and told, with a real recorder and a real log.

use std::io::{self, Write};
use std::sync::Mutex;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;
use crate::base::ids::TargetId;
use crate::control::step::tests::{MS, REFUSED, World, config};

/// The metrics and the log lines that `work` leaves.
fn seen(work: impl FnOnce()) -> (String, Vec<serde_json::Value>) {
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);
    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let recorder = PrometheusBuilder::new().build_recorder();
    let memory = Memory::default();
    let writer = memory.clone();
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, || metrics::with_local_recorder(&recorder, work));
    let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    (recorder.handle().render(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn has(metrics: &str, line: &str) -> bool {
    metrics.lines().any(|l| l == line)
}

#[test]
fn a_failure_is_on_the_gauges_and_in_the_log_with_its_fields() {
    let mut world = World::up(config(2, 2));
    let before = Arc::new(world.snapshot.clone());
    for target in [0, 1, 0, 1] {
        world.probe(target, REFUSED);
    }
    let after = Arc::new(world.snapshot.clone());
    let (metrics, log) = seen(|| {
        let mut report = Report::new(&before);
        report.moved(&after);
        let probe = &after.topology.targets[0].probe.kind;
        report.probed(Some(probe), Some(ProbeOutcome::Ok), MS);
        report.probed(Some(probe), Some(REFUSED), MS);
        report.probed(Some(probe), None, MS);
        report.event(&Event::Tick);
        report.turned(Wall(1_500), MS);
    });
    for line in [
        format!("springtide_control_generation {}", after.generation),
        r#"springtide_control_targets{verdict="down"} 2"#.into(),
        r#"springtide_control_targets{verdict="up"} 2"#.into(),
        r#"springtide_control_backends{service="gifts",datacenter="dc0",state="down"} 2"#.into(),
        r#"springtide_control_backends{service="gifts",datacenter="dc0",state="healthy"} 0"#.into(),
        r#"springtide_control_datacenter_weight{service="gifts",datacenter="dc0"} 0"#.into(),
        r#"springtide_control_datacenter_weight{service="gifts",datacenter="dc1"} 10"#.into(),
        r#"springtide_control_datacenter_health_ratio{service="gifts",datacenter="dc1"} 1"#.into(),
        r#"springtide_control_probes_total{kind="tcp",outcome="ok"} 1"#.into(),
        r#"springtide_control_probes_total{kind="tcp",outcome="refused"} 1"#.into(),
        r#"springtide_control_probes_total{kind="tcp",outcome="unasked"} 1"#.into(),
        r#"springtide_control_events_total{kind="tick"} 1"#.into(),
        "springtide_control_published_timestamp_seconds 1.5".into(),
    ] {
        assert!(has(&metrics, &line), "{line} in\n{metrics}");
    }
    let one = |change: &str| log.iter().filter(|line| line["change"] == change).collect::<Vec<_>>();
    let backend = one("backend")[0];
    assert_eq!((&backend["level"], &backend["service"]), (&"WARN".into(), &"gifts".into()));
    assert_eq!((&backend["from"], &backend["to"]), (&"healthy".into(), &"down".into()));
    assert_eq!(backend["generation"], after.generation);
    assert_eq!(one("target")[0]["message"], "probes of 10.0.0.1:80: up -> down (refused)");
    assert_eq!(
        one("datacenter")[0]["message"],
        "gifts in dc0: serving -> failed, weight 10 -> 0 (0 % healthy), panic: balance ignores health"
    );
    assert_eq!(one("steer").len(), 0, "one datacenter of two is not all");
}

#[test]
fn what_a_reload_takes_away_stands_at_zero() {
    let mut world = World::up(config(2, 2));
    let before = Arc::new(world.snapshot.clone());
    let next =
        Topology::build(Arc::new(config(1, 2)), crate::snapshot::topology::Assets::default(), Some(&before.topology));
    world.event(Event::Reload(Box::new(next)));
    let (metrics, log) = seen(|| Report::new(&before).moved(&Arc::new(world.snapshot.clone())));
    assert!(has(&metrics, r#"springtide_control_datacenter_weight{service="gifts",datacenter="dc1"} 0"#));
    assert!(has(&metrics, r#"springtide_control_datacenter_weight{service="gifts",datacenter="dc0"} 10"#));
    assert!(has(&metrics, r#"springtide_control_backends{service="gifts",datacenter="dc1",state="healthy"} 0"#));
    assert_eq!(log[0]["message"], "configuration 2 is in force: 0 backends more, 2 fewer");
}

#[test]
fn a_landslide_is_told_by_its_first_lines_and_its_size() {
    let mut world = World::up(config(2, 250));
    let before = Arc::new(world.snapshot.clone());
    for round in 0..2 {
        (0..250).for_each(|target| world.probe(target, REFUSED));
        world.now = world.now + MS * round;
    }
    let (_, log) = seen(|| Report::new(&before).moved(&Arc::new(world.snapshot.clone())));
    assert_eq!(log.len(), LINES + 1);
    assert_eq!(log[LINES]["more"], 250 + 250 + 1 - LINES, "targets, backends and a datacenter");
    assert_eq!(world.snapshot.target(TargetId::new(0)).verdict, Verdict::Down);
}

#[test]
fn every_word_has_its_place() {
    let failures = [
        ProbeOutcome::Ok,
        REFUSED,
        ProbeOutcome::Failed(crate::snapshot::health::ProbeFailure::Status(503)),
        ProbeOutcome::Failed(crate::snapshot::health::ProbeFailure::Garbage),
    ];
    assert!(failures.into_iter().all(|outcome| OUTCOMES.contains(&outcome_word(Some(outcome)))));
    assert!(OUTCOMES.contains(&outcome_word(None)) && KINDS.contains(&kind_word(&ProbeKind::Tcp)));
}
