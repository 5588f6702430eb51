//! Floor 3: decisions as pure functions. Time and entropy come in as arguments; out come an action and a reason.

pub mod balance;
pub mod deadline;
pub mod place;
pub mod retry;
pub mod route;
pub mod tried;

#[cfg(test)]
pub(crate) mod world;
