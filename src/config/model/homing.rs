//! Homes of users at the edge: who says where they are, and what happens while one is down.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::BackendSpec;
use crate::config::homes::{Door, Home, Homes};

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
    /// Where that file is: it is followed.
    pub file: Option<PathBuf>,
    /// What happens while a home is down.
    pub down: HomeDown,
}

/// Processes of homes that are none of `backends`: an edge cannot send anybody there.
pub fn strangers<'a>(homes: &'a Homes, backends: &'a [BackendSpec]) -> impl Iterator<Item = (&'a Home, &'a Door)> {
    let all = homes.all().iter().flat_map(|home| home.doors.iter().map(move |door| (home, door)));
    all.filter(|(_, door)| !backends.iter().any(|backend| Some(backend.address) == door.address))
}
