//! `springtide down`: nothing at all goes there, on any node of the fleet.

use std::process::ExitCode;

use clap::Args;

use super::fleet::{Nodes, Terms, wish};
use crate::snapshot::intent::{Subject, Wish};

/// Takes a datacenter, a service in one, or a backend down: nothing goes there, not even when all else has failed.
#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// A datacenter (shanghai), a service in one (gift-list@shanghai), an address (10.0.0.1:7000), or an address of one
    /// service (gift-list/10.0.0.1:7000).
    subject: Subject,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    nodes: Nodes,
}

impl DownArgs {
    pub(super) fn run(self) -> ExitCode {
        wish(&self.nodes, &self.subject, Wish::Down, self.terms)
    }
}
