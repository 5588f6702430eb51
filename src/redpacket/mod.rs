//! Floor 6: the red-packet upstreams that ship with the router: domain, ledger, stores, services.
//!
//! Every service is a [`Stage`](crate::net::stage::Stage): it runs in a process of its own (`springtide upstream NAME`),
//! or inside an embedder's, through [`serve()`] or as an in-process upstream of the proxy. What may be replaced are
//! traits: `Stage` (an upstream of your own) and the stores, [`ledger::Store`] for gifts and
//! [`ledger::cash::PacketStore`] for cash packets. A user's claims are decided at the user's home; elsewhere they are
//! passed on, or kept as [`intents`].

pub mod catalogue;
pub mod contract;
pub mod intents;
pub mod ledger;
pub mod model;
pub mod pace;
pub mod page;
pub mod peer;
pub mod reconcile;
pub mod reply;
pub mod request;
mod serve;
pub mod service;
pub mod store;

pub use serve::{Remote, Running, serve};
