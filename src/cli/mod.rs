//! Floor 9: the command line. Each command is a file of its own with its arguments and its `run`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod docs;

/// Multi-datacenter traffic router: a GSLB name server and an L7 edge on one health core.
#[derive(Debug, Parser)]
#[command(name = "springtide", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Docs(docs::DocsArgs),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Docs(args) => args.run(),
    }
}
