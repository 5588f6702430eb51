//! `springtide undrain`: takes back what was wanted of a subject, on every node of the fleet.

use std::process::ExitCode;

use clap::Args;

use super::fleet::{Nodes, recall};
use crate::snapshot::intent::Subject;

/// Takes back every intent for a subject: it serves again as its health allows (the same as `up`).
#[derive(Debug, Args)]
pub(super) struct UndrainArgs {
    /// The subject, as it stands under Intents in `springtide status`.
    subject: Subject,
    /// Who wants it.
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "unknown")]
    by: String,
    #[command(flatten)]
    nodes: Nodes,
}

impl UndrainArgs {
    pub(super) fn run(self) -> ExitCode {
        recall(&self.nodes, &self.subject, self.by)
    }
}
