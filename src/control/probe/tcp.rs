//! The TCP probe: the connection is accepted, and closed again.
//!
//! It proves a listening kernel, not a working process: a stopped process still accepts until its queue is full.

use super::Answer;
use crate::snapshot::topology::Target;

pub(super) async fn ask(target: &Target) -> Answer {
    super::dial(target).await?;
    Ok(())
}
