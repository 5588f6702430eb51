//! Metrics of the health core.

use super::{Kind, SECONDS, table};

table! {
    GENERATION: Kind::Gauge, "springtide_control_generation", [], "Generation of the snapshot that is in force.";
    PUBLISHED_AT: Kind::Gauge, "springtide_control_published_timestamp_seconds", [],
        "When the control loop last looked at the world, in Unix time: alert where `time()` runs away from it.";
    EVENTS: Kind::Counter, "springtide_control_events_total", ["kind"], "Events that the control loop took into account.";
    EVENTS_DROPPED: Kind::Counter, "springtide_control_events_dropped_total", [],
        "Events that found the queue full. Evidence comes again; what an operator wants waits instead.";
    TURN_SECONDS: Kind::Histogram(SECONDS), "springtide_control_turn_seconds", [],
        "How long the control loop takes for one batch of events, publishing included.";
    PROBES: Kind::Counter, "springtide_control_probes_total", ["kind", "outcome"],
        "Probes that ended. `unasked` is no evidence: this node lacked descriptors, ports or the means to ask.";
    PROBE_SECONDS: Kind::Histogram(SECONDS), "springtide_control_probe_seconds", ["kind"],
        "How long probes took that were answered as expected.";
    PROBES_IN_FLIGHT: Kind::Gauge, "springtide_control_probes_in_flight", [], "Probes under way.";
    PROBE_LAG_SECONDS: Kind::Histogram(SECONDS), "springtide_control_probe_lag_seconds", [],
        "How much later than due probes are launched: grows when too many targets are silent or this node is starved.";
    TARGETS: Kind::Gauge, "springtide_control_targets", ["verdict"], "Probed targets by verdict.";
    BACKENDS: Kind::Gauge, "springtide_control_backends", ["service", "datacenter", "state"], "Backends by state.";
    EJECTIONS: Kind::Counter, "springtide_control_ejections_total", ["service", "reason"],
        "Backends that live traffic shut out, by why: consecutive-failures, consecutive-errors, success-rate, success-below-peers, slower-than-peers.";
    WEIGHT: Kind::Gauge, "springtide_control_datacenter_weight", ["service", "datacenter"],
        "Effective weight of a service in a datacenter, which both edges act on; in the configured unit.";
    HEALTH: Kind::Gauge, "springtide_control_datacenter_health_ratio", ["service", "datacenter"],
        "Healthy share of a service's weight in a datacenter, 0 to 1, without what operators took out.";
    PANIC: Kind::Gauge, "springtide_control_panic", ["service", "datacenter"],
        "1 while so little is healthy there that balance ignores health.";
    ISOLATED: Kind::Gauge, "springtide_control_isolated", [],
        "1 while this node has reason to believe that it is the one cut off, and holds its verdicts.";
    REFUSED: Kind::Gauge, "springtide_control_reload_refused", [],
        "1 while the last reload was refused: what is in force is older than the files. `springtide status` says why.";
    UPGRADES: Kind::Counter, "springtide_control_upgrades_total", ["outcome"],
        "Attempts at having a new process take this one's place: `ok` or `failed`; `springtide status` says why.";
    INTENTS: Kind::Gauge, "springtide_control_intents", [], "Intents of operators in force.";
    SHED: Kind::Gauge, "springtide_control_datacenter_shed_ratio", ["datacenter"],
        "Share of clients, 0 to 1, that DNS sends elsewhere because the datacenter is short of its `capacity`.";
    LOAD: Kind::Gauge, "springtide_control_datacenter_load_rps", ["datacenter"],
        "Requests a second that this node's edge sends to a datacenter, as spill by `capacity` sees them.";
    MEMORY_WRITES: Kind::Counter, "springtide_control_memory_writes_total", ["outcome"],
        "Writes of the last-known-good state to disk: `ok` or `failed`.";
}
