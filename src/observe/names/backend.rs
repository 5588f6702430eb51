//! Metrics of each backend. They are written at each scrape for the backends that are there, the first 1,000 of them.

use super::{Kind, table};

table! {
    TRIES: Kind::Counter, "springtide_backend_tries_total", ["service", "datacenter", "backend", "outcome"],
        "Tries at a backend, by how they ended; copies of requests (mirror) among them.";
    SECONDS: Kind::Counter, "springtide_backend_tries_seconds_total", ["service", "datacenter", "backend"],
        "Latencies of tries at a backend, added up, those left out that were given up: over their number, the mean.";
    SENT: Kind::Counter, "springtide_backend_sent_bytes_total", ["service", "datacenter", "backend"],
        "Octets of bodies that a backend was sent.";
    RECEIVED: Kind::Counter, "springtide_backend_received_bytes_total", ["service", "datacenter", "backend"],
        "Octets of bodies that came from a backend.";
    IN_FLIGHT: Kind::Gauge, "springtide_backend_in_flight", ["service", "datacenter", "backend"],
        "Tries under way.";
    CONNECTIONS: Kind::Gauge, "springtide_backend_connections", ["service", "datacenter", "backend"],
        "Connections that are open or being made, idle ones among them.";
    PENDING: Kind::Gauge, "springtide_backend_pending", ["service", "datacenter", "backend"],
        "Tries that wait for a connection to be made.";
    LATENCY: Kind::Gauge, "springtide_backend_latency_seconds", ["service", "datacenter", "backend"],
        "The latency that the balancer reckons with: moves up at once and down over ten seconds; failures count as slow.";
    WEIGHT: Kind::Gauge, "springtide_backend_weight", ["service", "datacenter", "backend"],
        "The weight that the balancer uses, in the configured unit; 0 where the backend is not used.";
    UNTOLD: Kind::Gauge, "springtide_backend_untold", [],
        "Backends beyond the first 1,000, which no series tells of.";
}
