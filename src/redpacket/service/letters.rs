//! Dead letters over HTTP, orders of gifts and shares of packets alike: how many are listed, and what a person may say.

use serde::Deserialize;

use crate::net::stage::Body;
use crate::redpacket::model::{OrderNo, Resolution};
use crate::redpacket::reply::Envelope;
use crate::redpacket::request::json;

/// Letters on a list, and in a word, at most: what fits in a body.
pub(super) const LETTERS: usize = 256;

/// A person's word on dead letters.
#[derive(Deserialize)]
pub(super) struct Word {
    pub(super) order_nos: Vec<OrderNo>,
    pub(super) resolution: Resolution,
}

impl Word {
    /// The word in `body`, which is noted in the log: somebody answers for it.
    pub(super) async fn read(body: Body, trace: &str) -> Result<Self, Box<Envelope>> {
        let mut word: Self = json(body, trace).await?;
        word.order_nos.truncate(LETTERS);
        tracing::warn!(letters = word.order_nos.len(), resolution = ?word.resolution, trace, "a person's word on dead letters");
        Ok(word)
    }
}
