//! Metrics of discovery: of backends that are found, by the source that finds them.

use super::{Kind, table};

table! {
    BACKENDS: Kind::Gauge, "springtide_discovery_backends", ["service", "datacenter", "source"],
        "Backends of a source that are in force.";
    ANSWERED_AT: Kind::Gauge, "springtide_discovery_answered_timestamp_seconds", ["service", "datacenter", "source"],
        "When a source last gave an answer that could be read, in Unix time: alert where `time()` runs away from it.";
    ASKS: Kind::Counter, "springtide_discovery_asks_total", ["service", "datacenter", "source", "outcome"],
        "Questions to sources: `heard`; `unanswered` by any resolver, `unreadable` or a `mistake` in a file, which change nothing.";
    HELD: Kind::Gauge, "springtide_discovery_held", ["service", "datacenter", "source"],
        "1 while a source would take most of its backends away, which is not believed yet: `springtide status` says why.";
    DOUBTED: Kind::Counter, "springtide_discovery_doubted_total", ["service", "datacenter", "source", "doubt"],
        "Times that an answer was not believed at once: `empty`, `shrunk`, `replaced` by others that had not been seen to work.";
    EXPIRED: Kind::Counter, "springtide_discovery_expired_total", ["service", "datacenter"],
        "Registered backends that went because their heartbeats were missing.";
    KEPT: Kind::Gauge, "springtide_discovery_kept", ["service", "datacenter"],
        "Registered backends that are kept without heartbeats, because those of most others are missing, too.";
    PUBLISHES: Kind::Counter, "springtide_discovery_publishes_total", ["outcome"],
        "Times that another set of backends was put in force: `ok` or `failed`, which is tried again.";
    WRITES: Kind::Counter, "springtide_discovery_writes_total", ["outcome"],
        "Writes of the backends that are known to disk: `ok` or `failed`.";
    REPORTS: Kind::Counter, "springtide_discovery_reports_total", ["outcome"],
        "Reports of tries that others made: `ok`, `failed`, or `refused` because there were too many.";
}
