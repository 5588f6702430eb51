//! Homes of users at the edge: who says where they are, and what happens while one is down.

use std::sync::Arc;

use crate::config::homes::Homes;

/// What an edge does with the request of a user whose home is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HomeDown {
    /// It is refused kindly.
    #[default]
    Refuse,
    /// It goes to the nearest healthy backend of the same service, which can take a note for home (an intent).
    Elsewhere,
}

/// How a service's users have their homes.
#[derive(Clone, Debug, Default)]
pub struct Homing {
    /// The file that says it. `None`: rendezvous over the service's backends by their weights.
    pub homes: Option<Arc<Homes>>,
    /// What happens while a home is down.
    pub down: HomeDown,
}
