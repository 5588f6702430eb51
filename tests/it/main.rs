//! The real binary with real clients: dig, curl, h2load, openssl. Ports are asked of the system, waits have deadlines,
//! and a client that is missing fails its test with the package that has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, dead_code, clippy::pedantic, clippy::print_stdout, reason = "a test program")]
#![allow(clippy::disallowed_methods, reason = "tests measure with the system's clock")]

mod abuse;
mod clients;
mod contract;
#[path = "../../benches/failover/demo.rs"]
mod demo;
mod differential;
mod discovery;
mod dnssec;
mod docs;
mod files;
mod flood;
#[path = "../../benches/flood/flood.rs"]
mod floods;
mod geo;
mod guard;
mod hostile;
mod journey;
mod letters;
#[path = "../../benches/failover/load.rs"]
mod load;
mod mmdb_writer;
mod node;
mod page;
mod peers;
mod plan;
mod secondaries;
mod signed;
mod steering;
mod steering_gdnsd;
mod support;
mod tls;
mod transports;
mod upgrade;
mod websocket;
mod zones;
