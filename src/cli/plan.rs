//! `springtide plan`: what share of the clients a new configuration would send elsewhere, before it is put in force.
//!
//! Against a running node, with its health; or against another file, all well. For CI: `--max-moved` and capacity breaches
//! decide the exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use http::Method;

use super::client::{Admin, Ask, Client, ClientError};
use super::table::{Cell, Paint, Table, Tone, cell};
use crate::base::clock::{Clock, SystemClock};
use crate::base::units;
use crate::decide::movement::Movement;
use crate::router::{Outlook, Question, RehearsalError, movement, rehearse};

/// Tells what share of the clients a configuration would move, by steered name: from the running node's, or from --old.
/// Exits with 0 (within the limits), 1 (wrong) or 3 (moves more than --max-moved, or exceeds a capacity).
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The configuration that would be put in force.
    new: PathBuf,
    /// Compare with this configuration instead of a running node; everything is well in both.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// Who asks: a file with a prefix and a weight on each line, or a query log in JSON. By default every IPv4 /16.
    #[arg(long, value_name = "FILE")]
    population: Option<PathBuf>,
    /// This steered name alone.
    #[arg(long)]
    name: Option<String>,
    /// The most that may move of the clients of any name, such as 5%.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_moved: Option<f64>,
    /// Requests in all, such as "100k rps": datacenters that would get more than their capacity are told.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<f64>,
    /// Prints the comparison as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
enum PlanError {
    #[error("{file}: {cause}")]
    File { file: String, cause: String },
    #[error(transparent)]
    Load(#[from] RehearsalError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// More moves than was allowed, or goes where it cannot be carried.
const BEYOND: u8 = 3;

fn share(text: &str) -> Result<f64, String> {
    units::share(text).map_err(|e| e.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    units::rate(text).map_err(|e| e.to_string())
}

impl PlanArgs {
    pub(super) fn run(self) -> ExitCode {
        super::finish(self.compare())
    }

    #[expect(clippy::print_stdout, reason = "the comparison is the output")]
    fn compare(&self) -> Result<ExitCode, PlanError> {
        let outlook = self.outlook()?;
        if self.json {
            println!("{:#}", serde_json::to_value(&outlook).unwrap_or_default());
        } else {
            print!("{}", render(&outlook, self.max_moved, Paint::for_stdout()));
        }
        let beyond = self.max_moved.is_some_and(|most| outlook.moved > most) || !outlook.breaches.is_empty();
        Ok(if beyond { ExitCode::from(BEYOND) } else { ExitCode::SUCCESS })
    }

    fn outlook(&self) -> Result<Outlook, PlanError> {
        let population = self.population.as_deref().map(read).transpose()?;
        let Some(old) = &self.old else {
            let question =
                Question { config: read(&self.new)?, population, name: self.name.clone(), rate_rps: self.rate };
            let (_, outlook) = Client::new(&self.admin)?.ask(&Ask::send(Method::POST, "/v1/plan", &question))?;
            return Ok(outlook);
        };
        let (now, wall) = (SystemClock.mono(), SystemClock.wall());
        let (before, after) = (rehearse(old, &[], now, wall)?, rehearse(&self.new, &[], now, wall)?);
        let wrong = |cause| PlanError::File {
            file: self.population.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
            cause,
        };
        let population = movement::population(population.as_deref()).map_err(wrong)?;
        Ok(movement::outlook(&before, &after, population, self.name.as_deref(), self.rate))
    }
}

fn read(file: &Path) -> Result<String, PlanError> {
    let wrong = |e: std::io::Error| PlanError::File { file: file.display().to_string(), cause: e.to_string() };
    std::fs::read_to_string(file).map_err(wrong)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn render(outlook: &Outlook, most: Option<f64>, paint: Paint) -> String {
    let mut lines = Vec::new();
    for name in &outlook.names {
        let tone = match most {
            Some(most) if name.moved > most => Tone::Bad,
            _ if name.moved > 0.0 => Tone::Watch,
            _ => Tone::Good,
        };
        let what = match (name.before.is_empty(), name.after.is_empty()) {
            (true, _) => "is new".to_owned(),
            (_, true) => "is steered no more".to_owned(),
            _ => format!("moves {}", percent(name.moved)),
        };
        lines.push(format!("{} {}", paint.paint(Tone::Strong, &name.name), paint.paint(tone, &what)));
        lines.extend(shares(name).lines(paint).into_iter().map(|line| format!("  {line}")));
        lines.extend(flows(name).lines(paint).into_iter().map(|line| format!("  {line}")));
        lines.push(String::new());
    }
    for breach in &outlook.breaches {
        let text = format!(
            "{} would get {:.0} rps and can carry {:.0}",
            breach.datacenter, breach.expected_rps, breach.capacity_rps
        );
        lines.push(paint.paint(Tone::Bad, &text));
    }
    let limit = most.map(|most| format!(", {} are allowed", percent(most))).unwrap_or_default();
    lines.push(format!("at most {} of {} networks move{limit}", percent(outlook.moved), outlook.clients));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What each datacenter has before and after.
fn shares(name: &Movement) -> Table {
    let mut table = Table::new(&["datacenter", "before", "after", "change"]);
    let all: std::collections::BTreeSet<&String> = name.before.keys().chain(name.after.keys()).collect();
    for datacenter in all {
        let (before, after) = (name.before.get(datacenter), name.after.get(datacenter));
        let change = after.unwrap_or(&0.0) - before.unwrap_or(&0.0);
        let show = |share: Option<&f64>| share.map_or_else(|| "-".to_owned(), |s| percent(*s));
        let tone = if change.abs() < 0.000_5 { Tone::Soft } else { Tone::Plain };
        table.row([
            Cell::from(datacenter),
            Cell::from(show(before)),
            Cell::from(show(after)),
            cell(tone, format!("{:+.1}", change * 100.0)),
        ]);
    }
    table
}

/// Who goes from where to where; without titles.
fn flows(name: &Movement) -> Table {
    let mut table = Table::new(&[]);
    for flow in &name.flows {
        table.row([Cell::from(format!("{} -> {}", flow.from, flow.to)), Cell::from(percent(flow.share))]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::movement::Flow;

    #[test]
    fn a_comparison_is_readable() {
        let side = |shares: &[(&str, f64)]| shares.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect();
        let flow = Flow { from: "shenzhen".into(), to: "tianjin".into(), share: 0.101 };
        let name = Movement {
            name: "www.hongbao.test.".into(),
            moved: 0.101,
            before: side(&[("shenzhen", 0.5), ("shanghai", 0.5)]),
            after: side(&[("shenzhen", 0.399), ("shanghai", 0.5), ("tianjin", 0.101)]),
            flows: vec![flow],
        };
        let breach = movement::Breach { datacenter: "tianjin".into(), expected_rps: 1_010.0, capacity_rps: 1_000.0 };
        let outlook = Outlook { names: vec![name], clients: 56_832, moved: 0.101, breaches: vec![breach] };
        assert_eq!(
            render(&outlook, Some(0.05), Paint(false)),
            "www.hongbao.test. moves 10.1%\n  \
               datacenter  before  after  change\n  \
               shanghai    50.0%   50.0%  +0.0\n  \
               shenzhen    50.0%   39.9%  -10.1\n  \
               tianjin     -       10.1%  +10.1\n  \
               shenzhen -> tianjin  10.1%\n\
             \n\
             tianjin would get 1010 rps and can carry 1000\n\
             at most 10.1% of 56832 networks move, 5.0% are allowed\n"
        );
    }
}
