//! `springtide check`: everything that is wrong with a configuration, or what it means.

use std::fmt::Write as _;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::table::{Cell, Paint, Table, Tone};
use crate::base::ids::ServiceId;
use crate::config::{Action, Config, Listener, PathMatch, Route, Service, ValueMatch, check};
use crate::router;

/// Checks a configuration: reports all findings, or what it means. Exits with 0 (good), 1 (errors) or 2 (cannot be read).
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The configuration.
    file: PathBuf,
    /// Print findings and summary as JSON.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "findings and summary are the output")]
    pub(super) fn run(self) -> ExitCode {
        let checked = check::load(&self.file);
        // Zones, certificates and authorities are read as a start would read them.
        let unfit = checked.as_ref().ok().and_then(|config| router::prepare(config.clone(), None).err());
        let findings = checked.as_ref().map_or_else(|findings| findings, |config| &config.warnings);
        if self.json {
            let mut report = findings.to_json();
            if let (Ok(config), Some(report)) = (&checked, report.as_object_mut()) {
                report.insert("summary".into(), json(config));
                report.insert("files".into(), unfit.as_ref().map(ToString::to_string).into());
            }
            println!("{report:#}");
        } else if !findings.is_empty() {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            eprint!("{}", findings.render(stderr().is_terminal() && !plain));
        }
        if let Some(unfit) = &unfit {
            eprintln!("{unfit}");
        }
        match &checked {
            Ok(_) if unfit.is_some() => return ExitCode::FAILURE,
            Ok(config) if !self.json => print!("{}", summary(config, Paint::for_stdout())),
            Ok(_) => {}
            Err(findings) => return ExitCode::from(if findings.unreadable() { 2 } else { 1 }),
        }
        ExitCode::SUCCESS
    }
}

/// What a configuration means, for a person.
fn summary(config: &Config, paint: Paint) -> String {
    let mut out = String::new();
    let mut section = |title: String, header: &[&str], rows: Vec<Vec<String>>| {
        let mut table = Table::new(header);
        for row in rows {
            table.row(row.iter().map(Cell::from));
        }
        if !table.is_empty() {
            let lines = table.lines(paint).join("\n  ");
            let _ = writeln!(out, "{}\n  {lines}\n", paint.paint(Tone::Strong, &title));
        }
    };
    section(
        "Datacenters".into(),
        &["name", "weight", "addresses", "near", "capacity"],
        config
            .datacenters
            .iter()
            .map(|d| {
                let capacity = d.capacity_rps.map_or_else(|| "-".into(), |c| format!("{c} rps"));
                vec![d.name.clone(), d.weight.to_string(), joined(&d.addresses), d.near.len().to_string(), capacity]
            })
            .collect(),
    );
    section("Services, with their backends by datacenter".into(), &header(config), services(config));
    let dns = config.dns.iter().flat_map(|dns| {
        let zones = dns.zones.iter().map(|z| vec!["zone".into(), z.origin.clone(), z.file.display().to_string()]);
        let steers = dns.steers.iter().map(|s| {
            let services: Vec<_> = s.services.iter().map(|id| service_name(config, *id)).collect();
            vec!["steered".into(), s.name.clone(), services.join(", ")]
        });
        zones.chain(steers).collect::<Vec<_>>()
    });
    let listen = config.dns.as_ref().map(|d| joined(&d.listen)).unwrap_or_default();
    section(format!("Names, on {listen}"), &["kind", "name", "from"], dns.collect());
    let listener = |l: &Listener| {
        let http3 = if l.http3.is_some() { ", HTTP/3" } else { "" };
        let tls = l.tls.as_ref().map_or_else(|| "-".into(), |tls| format!("{} certificates{http3}", tls.pairs.len()));
        vec![l.name.clone(), joined(&l.listen), tls]
    };
    section("Listeners".into(), &["name", "listens on", "TLS"], config.listeners.iter().map(listener).collect());
    section("Routes".into(), &["name", "matches", "does"], config.routes.iter().map(|r| route(config, r)).collect());
    let _ = writeln!(out, "{}: {}", config.path.display(), paint.paint(Tone::Good, "good"));
    out
}

fn header(config: &Config) -> Vec<&str> {
    let mut header = vec!["name", "class", "balance"];
    header.extend(config.datacenters.iter().map(|d| d.name.as_str()));
    header
}

fn services(config: &Config) -> Vec<Vec<String>> {
    let row = |service: &Service| {
        let mut row = vec![service.name.clone(), word(&service.class), word(&service.balance)];
        row.extend((0..config.datacenters.len()).map(|dc| backends(config, service, dc)));
        row
    };
    config.services.iter().map(row).collect()
}

/// How many backends are written there, and how many sources tell of others: `2 + 1 source`.
fn backends(config: &Config, service: &Service, dc: usize) -> String {
    let written = service.backends.iter().filter(|b| b.datacenter.index() == dc).count();
    let is_ours = |id: ServiceId| config.services.get(id.index()).is_some_and(|s| s.name == service.name);
    let sources = config.discovery.sources.iter().filter(|s| s.datacenter.index() == dc && is_ours(s.service)).count();
    match sources {
        0 => written.to_string(),
        1 => format!("{written} + 1 source"),
        more => format!("{written} + {more} sources"),
    }
}

fn route(config: &Config, route: &Route) -> Vec<String> {
    let m = &route.matches;
    let path = match &m.path {
        PathMatch::Exact(path) => path.clone(),
        PathMatch::Prefix(path) => format!("{}/*", path.trim_end_matches('/')),
    };
    let said = |mark: &'static str| {
        move |(name, value): &(String, ValueMatch)| match value {
            ValueMatch::Any => format!("{mark}{name}"),
            ValueMatch::Exact(value) => format!("{mark}{name}={value}"),
            ValueMatch::Prefix(value) => format!("{mark}{name}={value}*"),
        }
    };
    let headers = m.headers.iter().map(said("")).chain(m.query.iter().map(said("?")));
    let headers = headers.chain(m.cookies.iter().map(said("cookie:")));
    let methods = (!m.methods.is_empty()).then(|| m.methods.join("|"));
    let parts = methods.into_iter().chain([format!("{}{path}", m.host.as_deref().unwrap_or("*"))]).chain(headers);
    let does = match &route.action {
        Action::Forward(id) => format!("-> {}", service_name(config, *id)),
        Action::Split(split) => {
            let side = |(id, weight): &(ServiceId, u32)| format!("{} ({weight})", service_name(config, *id));
            format!("-> {}", split.sides.iter().map(side).collect::<Vec<_>>().join(" | "))
        }
        Action::Respond { status, .. } => format!("answers {status}"),
        Action::Files(files) => format!("files of {}", files.root.display()),
        Action::Redirect(redirect) => format!("redirects {}", redirect.status),
    };
    vec![route.name.clone(), parts.collect::<Vec<_>>().join(" "), does]
}

fn service_name(config: &Config, id: ServiceId) -> String {
    config.services.get(id.index()).map(|s| s.name.clone()).unwrap_or_default()
}

/// A closed choice as it is written in the configuration.
fn word<T: serde::Serialize>(choice: &T) -> String {
    serde_json::to_value(choice).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn joined<T: ToString>(list: &[T]) -> String {
    if list.is_empty() { "-".into() } else { list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") }
}

fn json(config: &Config) -> serde_json::Value {
    let names = |list: Vec<&str>| serde_json::Value::from(list);
    serde_json::json!({
        "datacenters": names(config.datacenters.iter().map(|d| d.name.as_str()).collect()),
        "services": config.services.iter().map(|s| {
            let count = |dc: usize| s.backends.iter().filter(|b| b.datacenter.index() == dc).count();
            let backends = config.datacenters.iter().enumerate().map(|(i, d)| (d.name.clone(), count(i).into()));
            serde_json::json!({
                "name": s.name, "class": s.class, "balance": s.balance,
                "backends": backends.collect::<serde_json::Map<_, _>>(),
            })
        }).collect::<Vec<_>>(),
        "zones": names(config.dns.iter().flat_map(|d| &d.zones).map(|z| z.origin.as_str()).collect()),
        "steered": names(config.dns.iter().flat_map(|d| &d.steers).map(|s| s.name.as_str()).collect()),
        "listeners": config.listeners.iter().map(|l| serde_json::json!({
            "name": l.name, "listen": l.listen, "tls": l.tls.is_some(), "http3": l.http3.is_some(),
        })).collect::<Vec<_>>(),
        "routes": names(config.routes.iter().map(|r| r.name.as_str()).collect()),
    })
}
