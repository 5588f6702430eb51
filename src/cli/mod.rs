//! Floor 9: the command line. Each command is a file of its own with its arguments and its `run`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod backends;
mod check;
mod client;
#[cfg(feature = "postgres")]
mod database;
mod demo;
mod dns;
mod docs;
mod down;
mod drain;
mod explain;
mod fleet;
mod keys;
mod letters;
mod plan;
mod reconcile;
mod reload;
mod run;
mod status;
mod table;
mod ticket_keys;
mod tree;
mod undrain;
mod upgrade;
mod upstream;
mod weight;

/// Multi-datacenter traffic router: a GSLB name server and an L7 edge on one health core.
#[derive(Debug, Parser)]
#[command(name = "springtide", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backends(backends::BackendsArgs),
    Check(check::CheckArgs),
    Demo(demo::DemoArgs),
    Dns(dns::DnsArgs),
    Docs(docs::DocsArgs),
    Down(down::DownArgs),
    Drain(drain::DrainArgs),
    Explain(explain::ExplainArgs),
    Keys(keys::KeysArgs),
    Letters(letters::LettersArgs),
    Plan(plan::PlanArgs),
    Reconcile(Box<reconcile::ReconcileArgs>),
    Reload(reload::ReloadArgs),
    Run(run::RunArgs),
    Status(status::StatusArgs),
    #[command(visible_alias = "up")]
    Undrain(undrain::UndrainArgs),
    Upgrade(upgrade::UpgradeArgs),
    Upstream(Box<upstream::UpstreamArgs>),
    Weight(weight::WeightArgs),
}

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Backends(args) => args.run(),
        Command::Check(args) => args.run(),
        Command::Demo(args) => args.run(),
        Command::Dns(args) => args.run(),
        Command::Docs(args) => args.run(),
        Command::Down(args) => args.run(),
        Command::Drain(args) => args.run(),
        Command::Explain(args) => args.run(),
        Command::Keys(args) => args.run(),
        Command::Letters(args) => args.run(),
        Command::Plan(args) => args.run(),
        Command::Reconcile(args) => args.run(),
        Command::Reload(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Status(args) => args.run(),
        Command::Undrain(args) => args.run(),
        Command::Upgrade(args) => args.run(),
        Command::Upstream(args) => args.run(),
        Command::Weight(args) => args.run(),
    }
}

/// The exit code of a command; where it has failed, why goes to standard error.
#[expect(clippy::print_stderr, reason = "errors of a command go to standard error")]
fn finish<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Reads a duration argument.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::base::units::duration(text).map_err(|e| e.to_string())
}
