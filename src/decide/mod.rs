//! Floor 3: decisions as pure functions. Time and entropy come in as arguments; out come an action and a reason.

pub mod balance;
pub mod deadline;
pub mod discover;
pub mod eject;
pub mod files;
pub mod glitch;
pub mod guard;
pub mod hedge;
pub mod movement;
pub mod near;
pub mod orders;
pub mod place;
pub mod requirement;
pub mod retry;
pub mod route;
pub mod schedule;
pub mod spill;
pub mod split;
pub mod standing;
pub mod steer;
pub mod tried;
pub mod ttl;
pub mod verdict;
pub mod weight;

#[cfg(test)]
mod failover;
#[cfg(test)]
pub(crate) mod world;
