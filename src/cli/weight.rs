//! `springtide weight`: another weight than the configured one, on every node of the fleet.

use std::process::ExitCode;

use clap::Args;

use super::fleet::{Nodes, Terms, wish};
use crate::snapshot::intent::{Subject, Wish};

/// Gives a datacenter, a service in one, or a backend another weight; `undrain` takes it back.
#[derive(Debug, Args)]
pub(super) struct WeightArgs {
    /// A datacenter (shanghai), a service in one (gift-list@shanghai), an address (10.0.0.1:7000), or an address of one
    /// service (gift-list/10.0.0.1:7000).
    subject: Subject,
    /// The weight: 0 to 1000000, in the unit of the configuration.
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    weight: u32,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    nodes: Nodes,
}

impl WeightArgs {
    pub(super) fn run(self) -> ExitCode {
        wish(&self.nodes, &self.subject, Wish::Weight(self.weight), self.terms)
    }
}
