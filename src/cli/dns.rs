//! `springtide dns top`: who and what the name server of a node is busy with.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Admin, Ask, Client, ClientError, encode};
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
    /// What comes by this transport alone: udp, tcp, tls, https or quic.
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
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
        let only = self.transport.as_ref().map(|t| format!("&transport={}", encode(t))).unwrap_or_default();
        let ask = Ask::get(format!("/v1/dns/top?rows={}{only}", self.rows));
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
    let over = report.get("transport").and_then(Value::as_str).map(|t| format!(" over {t}")).unwrap_or_default();
    let heading = format!(
        "{address}: {:.1} queries a second{over} (of the last {:.0} s; at most, at least)",
        number("queries_per_second"),
        number("remembers_seconds")
    );
    let mut lines = vec![paint.paint(Tone::Strong, &heading)];
    let by = transports(report, |rate| format!("{rate:.1}"));
    lines.extend((!by.is_empty()).then(|| paint.paint(Tone::Soft, &format!("by transport: {by}"))));
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

/// What `value` says of each transport that it tells apart, the largest first.
fn transports(value: &Value, show: impl Fn(f64) -> String) -> String {
    let said = value.get("transports").and_then(Value::as_object).into_iter().flatten();
    let mut said: Vec<(&str, f64)> = said.filter_map(|(t, n)| Some((t.as_str(), n.as_f64()?))).collect();
    said.sort_by(|a, b| b.1.total_cmp(&a.1));
    said.into_iter().map(|(t, n)| format!("{t} {}", show(n))).collect::<Vec<_>>().join("  ")
}

fn table(rows: &[Value], title: &str, key: &str, tone: Tone) -> Table {
    let limited = rows.iter().any(|row| row.get("fate").is_some());
    // Where everything comes by one transport, the heading has said so.
    let mixed = rows.iter().any(|row| row.get("transports").and_then(Value::as_object).is_some_and(|t| t.len() > 1));
    let mut titles = vec!["PER SECOND", "AT LEAST", title];
    if limited {
        titles.extend(["LIMIT", "FATE"]);
    }
    titles.extend(mixed.then_some("BY"));
    let mut table = Table::new(&titles);
    for row in rows {
        let rate = |at: &str| Cell::from(format!("{:.1}", row.get(at).and_then(Value::as_f64).unwrap_or_default()));
        let text = |at: &str| row.get(at).and_then(Value::as_str).unwrap_or_default();
        let mut cells = vec![rate("per_second"), rate("at_least"), cell(tone, text(key))];
        if limited {
            cells.extend([text("class").into(), text("fate").into()]);
        }
        cells.extend(mixed.then(|| Cell::from(transports(row, |share| format!("{:.0}%", share * 100.0)))));
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
            "transport": null, "transports": {"udp": 1_200.0, "tcp": 34.5},
            "names": [{"name": "www.hongbao.test.", "per_second": 1000.0, "at_least": 990.0, "transports": {"tcp": 0.03, "udp": 0.97}}, {"name": "a\x1b[2J.test.", "per_second": 2.0, "at_least": 0.0, "transports": {"udp": 1.0}}],
            "clients": [{"network": "192.0.2.0", "per_second": 1234.5, "at_least": 1234.5}],
            "types": [],
            "limited": [{"network": "198.51.100.0", "class": "answers", "fate": "dropped", "per_second": 50.0, "at_least": 50.0}],
        });
        insta::assert_snapshot!(render(&report, "127.0.0.1:9900", Paint(false)), @r"
        127.0.0.1:9900: 1234.5 queries a second (of the last 16 s; at most, at least)
        by transport: udp 1200.0  tcp 34.5

        PER SECOND  AT LEAST  NAME               BY
        1000.0      990.0     www.hongbao.test.  udp 97%  tcp 3%
        2.0         0.0       a·[2J.test.        udp 100%

        PER SECOND  AT LEAST  CLIENTS
        1234.5      1234.5    192.0.2.0

        PER SECOND  AT LEAST  LIMITED       LIMIT    FATE
        50.0        50.0      198.51.100.0  answers  dropped

        one of each batch
        ");
        let over = json!({"queries_per_second": 34.5, "remembers_seconds": 16, "transport": "tcp"});
        let page = render(&over, "a:1", Paint(false));
        assert!(
            page.starts_with("a:1: 34.5 queries a second over tcp (of the last 16 s; at most, at least)\n\n"),
            "{page}"
        );
    }
}
