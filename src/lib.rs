//! Springtide: a name server and an L7 edge that share one health core.
//!
//! Data flows one way. A file becomes a [`config`], that and all evidence become one [`snapshot`], pure functions in
//! `decide` read it, and the edges do what they say; facts come back as events to `control`, the only writer.
//!
//! ```text
//!   file -> config -> Snapshot (one ArcSwap) -> decide (pure) -> dns, proxy do it
//!                        ^                                          |
//!                        +--- control (the only writer) <- events --+
//! ```
//!
//! Floors, lowest first; a module imports only from floors below its own (`tests/house.rs` holds it to that):
//! `base` 0 · `wire`, `config` 1 · `snapshot` 2 · `decide` 3 · `observe`, `net` 4 · `control` 5 · `dns`, `proxy`,
//! `redpacket`, `admin` 6 · `router` 7 · `cli` 9. The last floor but one is kept for drills.

pub mod admin;
pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod decide;
pub mod dns;
pub mod net;
pub mod observe;
pub mod proxy;
pub mod redpacket;
pub mod router;
pub mod snapshot;
pub mod wire;
