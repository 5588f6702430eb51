//! `springtide drain`: nothing new goes there, on any node of the fleet.

use std::process::ExitCode;

use clap::Args;

use super::fleet::{Nodes, Terms, wish};
use crate::snapshot::intent::{Subject, Wish};

/// Drains a datacenter, a service in one, or a backend: nothing new goes there, what runs may finish.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// A datacenter (shanghai), a service in one (gift-list@shanghai), an address (10.0.0.1:7000), or an address of one
    /// service (gift-list/10.0.0.1:7000).
    subject: Subject,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    nodes: Nodes,
}

impl DrainArgs {
    pub(super) fn run(self) -> ExitCode {
        wish(&self.nodes, &self.subject, Wish::Drain, self.terms)
    }
}
