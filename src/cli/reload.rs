//! `springtide reload`: every node of the fleet reads its configuration anew; a bad file changes nothing.

use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::client::Ask;
use super::fleet::{Done, Nodes};
use super::table::Tone;

/// Has every node of the fleet read its configuration anew. A node whose file is bad keeps the old one and says why.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(serde::Deserialize)]
struct Reloaded {
    generation: u64,
}

impl ReloadArgs {
    pub(super) fn run(self) -> ExitCode {
        self.nodes.each(&Ask::send(Method::POST, "/v1/reload", &()), |reloaded: &Reloaded| Done {
            text: "reloaded".into(),
            tone: Tone::Good,
            generation: reloaded.generation,
        })
    }
}
