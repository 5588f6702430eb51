//! Floods of a name server: honest clients lose nearly nothing, and memory stays bounded. Small enough for two busy cores;
//! `cargo bench --bench flood` gives the figures.

use std::time::Duration;

use crate::floods::{Flood, Strength, Target, run};
use crate::guard::{NAME, named};
use crate::support::{Node, client};

const STRENGTH: Strength = Strength { rate: 4_000, connections: 1_500, lasts: Duration::from_secs(3) };
/// What a flood may add to the server's memory, in KiB: buffers of a thousand connections, and some.
const MAY_GROW: u64 = 96 * 1024;

#[test]
fn floods_cost_honest_clients_nearly_nothing() {
    springtide::net::sys::raise_descriptor_limit().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = named(dir.path(), "rate_limit = { per_prefix = \"50 rps\", exempt = \"127.0.0.0/24\" }\n");
    let node = Node::start(&path);
    let target = Target { address: node.dns(), process: node.process(), name: NAME };
    for flood in [Flood::Forged, Flood::Reflected, Flood::Garbage, Flood::Idle, Flood::SlowReaders, Flood::Fragments] {
        let damage = run(target, flood, STRENGTH);
        assert!(damage.sent > 500 && damage.udp[0] > 50 && damage.tcp[0] > 10, "{flood:?}: {damage:?}");
        assert!(damage.lost() < 0.01, "{flood:?}: {damage:?}");
        let [before, peak, _] = damage.resident;
        assert!(peak < before + MAY_GROW, "{flood:?}: {damage:?}");
    }
    let metrics = client("curl", &["-sS", &format!("http://{}/metrics", node.admin())]);
    for needle in [
        "springtide_dns_limited_total{class=\"answers\",fate=\"dropped\"}",
        "springtide_dns_limited_total{class=\"answers\",fate=\"truncated\"}",
        "springtide_dns_dropped_total{reason=\"short\"}",
    ] {
        let line = metrics.lines().find(|l| l.starts_with(needle)).unwrap_or_else(|| panic!("{needle}"));
        assert!(!line.ends_with(" 0"), "{line}");
    }
}
