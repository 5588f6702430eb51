//! What operators want, whatever the evidence says: drain, down, another weight; each with an end and an author.

use serde::{Deserialize, Serialize};

use crate::base::clock::Wall;

/// What an intent speaks of, by name, so that it outlives a reload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A whole datacenter.
    Datacenter(String),
    /// One service within a datacenter.
    Service {
        /// The service.
        service: String,
        /// The datacenter.
        datacenter: String,
    },
    /// One backend by its address; of one service, or of all that use the address.
    Backend {
        /// The address, `ip:port`.
        address: String,
        /// The service; `None`: all.
        service: Option<String>,
    },
}

/// What is wanted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Nothing new: no answers, no new requests; what runs may finish, and owners of data (`user-home`) are still reached.
    Drain,
    /// Nothing at all, whatever happens: not even when everything else has failed.
    Down,
    /// This weight instead of the configured one.
    Weight(u32),
}

/// One intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Of what.
    pub subject: Subject,
    /// What.
    pub wish: Wish,
    /// When it was said.
    pub since: Wall,
    /// When it ends by itself. `None`: when somebody takes it back.
    pub until: Option<Wall>,
    /// Who said it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// All intents in force: at most one of each kind (state, weight) for a subject; the newest wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intents {
    /// Sorted by subject, state before weight.
    pub entries: Vec<Intent>,
}
