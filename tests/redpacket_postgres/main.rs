//! Red packets on PostgreSQL: real servers that are killed, cut off, frozen and misused, and real processes beside them.

#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "figures of a run")]

mod blows;
mod cash;
mod cluster;
#[path = "../crowd/mod.rs"]
mod crowd;
mod faults;
mod homes;
mod intents;
mod lossy;
mod processes;
