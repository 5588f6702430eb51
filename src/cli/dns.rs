//! `springtide dns top`: who and what the name server of a node is busy with.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Admin, Ask, Client, ClientError};
use super::table::{Cell, Paint, Table, Tone, cell};

/// Clears the screen and goes to its top (ECMA-48).
const AGAIN: &str = "\x1b[2J\x1b[H";

/// Looks at the name server of a node while it works.
#[derive(Debug, Args)]
pub(super) struct DnsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The busiest names, clients' networks and types, and the networks that are limited; refreshes until interrupted.
    Top(TopArgs),
}

#[derive(Debug, Args)]
struct TopArgs {
    /// Rows of each kind.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rows: usize,
    /// Prints once, for scripts.
    #[arg(long)]
    once: bool,
    /// How often it is refreshed.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = super::duration)]
    every: Duration,
    /// Prints the report as JSON, once.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: Admin,
}

impl DnsArgs {
    pub(super) fn run(self) -> ExitCode {
        match self.what {
            What::Top(args) => super::finish(args.run()),
        }
    }
}

impl TopArgs {
    #[expect(clippy::print_stdout, reason = "the report is the output")]
    fn run(&self) -> Result<ExitCode, ClientError> {
        let client = Client::new(&self.admin)?;
        let ask = Ask::get(format!("/v1/dns/top?rows={}", self.rows));
        loop {
            let (address, report) = client.ask::<Value>(&ask)?;
            if self.json {
                println!("{report:#}");
                return Ok(ExitCode::SUCCESS);
            }
            let page = render(&report, &address, Paint::for_stdout());
            if self.once {
                print!("{page}");
                return Ok(ExitCode::SUCCESS);
            }
            print!("{AGAIN}{page}");
            let _ = std::io::Write::flush(&mut std::io::stdout());
            std::thread::park_timeout(self.every.max(Duration::from_millis(100)));
        }
    }
}

/// The report as a page.
fn render(report: &Value, address: &str, paint: Paint) -> String {
    let number = |at: &str| report.get(at).and_then(Value::as_f64).unwrap_or_default();
    let heading = format!(
        "{address}: {:.1} queries a second (of the last {:.0} s; at most, at least)",
        number("queries_per_second"),
        number("remembers_seconds")
    );
    let mut lines = vec![paint.paint(Tone::Strong, &heading)];
    for (kind, title, key, tone) in [
        ("names", "NAME", "name", Tone::Plain),
        ("clients", "CLIENTS", "network", Tone::Plain),
        ("types", "TYPE", "type", Tone::Plain),
        ("limited", "LIMITED", "network", Tone::Bad),
    ] {
        let rows = report.get(kind).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let table = table(rows, title, key, tone);
        if !table.is_empty() {
            lines.push(String::new());
            lines.extend(table.lines(paint));
        }
    }
    lines.push(String::new());
    let sampling = report.get("sampling").and_then(Value::as_str).unwrap_or_default();
    lines.push(paint.paint(Tone::Soft, sampling));
    lines.into_iter().map(|line| line + "\n").collect()
}

fn table(rows: &[Value], title: &str, key: &str, tone: Tone) -> Table {
    let limited = rows.iter().any(|row| row.get("fate").is_some());
    let mut titles = vec!["PER SECOND", "AT LEAST", title];
    if limited {
        titles.extend(["LIMIT", "FATE"]);
    }
    let mut table = Table::new(&titles);
    for row in rows {
        let rate = |at: &str| Cell::from(format!("{:.1}", row.get(at).and_then(Value::as_f64).unwrap_or_default()));
        let text = |at: &str| row.get(at).and_then(Value::as_str).unwrap_or_default();
        let mut cells = vec![rate("per_second"), rate("at_least"), cell(tone, text(key))];
        if limited {
            cells.extend([text("class").into(), text("fate").into()]);
        }
        table.row(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_reads_from_the_busiest_down() {
        let report = json!({
            "queries_per_second": 1_234.5, "remembers_seconds": 16, "sampling": "one of each batch",
            "names": [{"name": "www.hongbao.test.", "per_second": 1000.0, "at_least": 990.0}, {"name": "a\x1b[2J.test.", "per_second": 2.0, "at_least": 0.0}],
            "clients": [{"network": "192.0.2.0", "per_second": 1234.5, "at_least": 1234.5}],
            "types": [],
            "limited": [{"network": "198.51.100.0", "class": "answers", "fate": "dropped", "per_second": 50.0, "at_least": 50.0}],
        });
        insta::assert_snapshot!(render(&report, "127.0.0.1:9900", Paint(false)), @r"
        127.0.0.1:9900: 1234.5 queries a second (of the last 16 s; at most, at least)

        PER SECOND  AT LEAST  NAME
        1000.0      990.0     www.hongbao.test.
        2.0         0.0       a·[2J.test.

        PER SECOND  AT LEAST  CLIENTS
        1234.5      1234.5    192.0.2.0

        PER SECOND  AT LEAST  LIMITED       LIMIT    FATE
        50.0        50.0      198.51.100.0  answers  dropped

        one of each batch
        ");
    }
}
