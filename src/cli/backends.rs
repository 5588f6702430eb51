//! `springtide backends`: the backends of a service, written and found; those that announce themselves come and go by it.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;

use super::client::{Admin, Ask, Client, encode};
use super::fleet::{Done, Nodes};
use super::status::{number, seconds};
use super::table::{Cell, Paint, Table, Tone, cell};
use crate::admin::backends::{Backends, CallOutcome, CallReport, Registered};
use crate::control::discover::{SourceReport, Standing};
use crate::snapshot::health::BackendState;

/// Backends of a service: lists them, registers one or takes it out, tells how one has answered, confirms what a source says.
#[derive(Debug, Args)]
pub(super) struct BackendsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every backend of a service with its state, its source and, where it is registered, how long that still holds.
    List {
        /// The service.
        service: String,
        /// Print the answer of the admin API.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Registers a backend on every node of the fleet, or renews it: to be said again before its time is over.
    Add {
        /// The service.
        service: String,
        /// Where the backend listens.
        address: SocketAddr,
        /// Where it stands; needed where several datacenters take registrations.
        #[arg(long, value_name = "NAME")]
        datacenter: Option<String>,
        /// Its share beside the others.
        #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        weight: Option<u32>,
        /// What it is called.
        #[arg(long)]
        name: Option<String>,
        /// How long it is there without being registered again: 2s to 10m.
        #[arg(long, value_name = "DURATION", default_value = "10s")]
        ttl: String,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Takes a registered backend out on every node of the fleet: what it has is finished, it gets nothing new.
    Remove {
        /// The service.
        service: String,
        /// Where the backend listens.
        address: SocketAddr,
        /// Where it stands.
        #[arg(long, value_name = "NAME")]
        datacenter: Option<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Tells one node how a backend answered a call that was made without it.
    Report {
        /// The service.
        service: String,
        /// Where the backend listens.
        address: SocketAddr,
        /// How the call ended.
        outcome: Ended,
        /// How long it took, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 0.0)]
        latency_ms: f64,
        #[command(flatten)]
        admin: Admin,
    },
    /// Believes what sources of a service say, though most of its backends go by it; on every node of the fleet.
    Confirm {
        /// The service.
        service: String,
        /// In this datacenter alone.
        #[arg(long, value_name = "NAME")]
        datacenter: Option<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
}

/// How a call ended.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Ended {
    Ok,
    Refused,
    Reset,
    Timeout,
    Error,
    Pressure,
}

impl BackendsArgs {
    pub(super) fn run(self) -> ExitCode {
        match self.what {
            What::List { service, json, admin } => list(&service, json, &admin),
            What::Add { service, address, datacenter, weight, name, ttl, nodes } => {
                let weight = weight.map(|weight| weight.to_string());
                let said = [("datacenter", datacenter), ("weight", weight), ("name", name), ("ttl", Some(ttl))];
                let ask = Ask::bare(Method::PUT, &path(&service, address, &said));
                nodes.each(&ask, |it: &Registered| Done {
                    text: format!("{address} in {}: weight {}, for {} s", it.datacenter, it.weight, it.ttl_s),
                    tone: Tone::Good,
                    generation: it.generation,
                })
            }
            What::Remove { service, address, datacenter, nodes } => {
                let ask = Ask::bare(Method::DELETE, &path(&service, address, &[("datacenter", datacenter)]));
                nodes.each(&ask, |gone: &Gone| Done {
                    text: format!("{address} of {}: taken out", gone.datacenter),
                    tone: Tone::Good,
                    generation: gone.generation,
                })
            }
            What::Report { service, address, outcome, latency_ms, admin } => {
                let outcome = match outcome {
                    Ended::Ok => CallOutcome::Ok,
                    Ended::Refused => CallOutcome::Refused,
                    Ended::Reset => CallOutcome::Reset,
                    Ended::Timeout => CallOutcome::Timeout,
                    Ended::Error => CallOutcome::Error,
                    Ended::Pressure => CallOutcome::Pressure,
                };
                let ask = format!("{}/report", path(&service, address, &[]));
                let ask = Ask::send(Method::POST, &ask, &CallReport { outcome, latency_ms });
                super::finish(Client::new(&admin).and_then(|client| {
                    client.ask::<serde_json::Value>(&ask)?;
                    Ok(ExitCode::SUCCESS)
                }))
            }
            What::Confirm { service, datacenter, nodes } => {
                let at = datacenter.map(|at| format!("?datacenter={}", encode(&at))).unwrap_or_default();
                let ask = format!("/v1/services/{}/sources/confirm{at}", encode(&service));
                nodes.each(&Ask::bare(Method::POST, &ask), |it: &Confirmed| Done {
                    text: format!("believed: {}", it.confirmed.join(", ")),
                    tone: Tone::Good,
                    generation: it.generation,
                })
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Gone {
    datacenter: String,
    generation: u64,
}

#[derive(serde::Deserialize)]
struct Confirmed {
    confirmed: Vec<String>,
    generation: u64,
}

fn path(service: &str, address: SocketAddr, said: &[(&str, Option<String>)]) -> String {
    let said = said.iter().filter_map(|(key, value)| Some(format!("{key}={}", encode(value.as_deref()?))));
    let said: Vec<String> = said.collect();
    let query = if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) };
    format!("/v1/services/{}/backends/{}{query}", encode(service), encode(&address.to_string()))
}

#[expect(clippy::print_stdout, reason = "the table is the output")]
fn list(service: &str, json: bool, admin: &Admin) -> ExitCode {
    let ask = Ask::get(format!("/v1/services/{}/backends", encode(service)));
    super::finish(Client::new(admin).and_then(|client| {
        let (_, backends): (String, Backends) = client.ask(&ask)?;
        if json {
            println!("{}", serde_json::to_string_pretty(&backends).unwrap_or_default());
        } else {
            print!("{}", render(&backends, Paint::for_stdout()));
        }
        Ok(ExitCode::SUCCESS)
    }))
}

fn render(told: &Backends, paint: Paint) -> String {
    let titles = ["DATACENTER", "ADDRESS", "NAME", "STATE", "WEIGHT", "UNDER WAY", "SOURCE", "LEASE", "WHY"];
    let mut table = Table::new(&titles);
    for it in &told.backends {
        table.row([
            Cell::from(&it.datacenter),
            Cell::from(&it.address),
            Cell::from(it.name.as_deref().unwrap_or_default()),
            cell(tone(it.state), it.state.as_str()),
            number(it.weight).into(),
            it.in_flight.to_string().into(),
            Cell::from(it.source.as_deref().unwrap_or("written")),
            it.lease_s.map_or_else(String::new, |left| format!("{left:.0}s")).into(),
            Cell::from(&it.why),
        ]);
    }
    let mut lines = table.lines(paint);
    let sources = sources(&told.sources);
    if !sources.is_empty() {
        lines.push(String::new());
        lines.extend(sources.lines(paint));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

const fn tone(state: BackendState) -> Tone {
    match state {
        BackendState::Healthy => Tone::Good,
        BackendState::Ejected | BackendState::Down => Tone::Bad,
        BackendState::Suspect | BackendState::HalfOpen | BackendState::SlowStart => Tone::Watch,
        BackendState::Drained | BackendState::AdminDown => Tone::Aside,
        BackendState::Unknown | BackendState::Joining => Tone::Soft,
    }
}

/// How sources stand; for `status`, too.
pub(super) fn sources(sources: &[SourceReport]) -> Table {
    let mut table = Table::new(&["SERVICE", "DATACENTER", "SOURCE", "STATE", "BACKENDS", "AGE", "WHY"]);
    for it in sources {
        let tone = match it.state {
            Standing::Followed => Tone::Good,
            Standing::Waiting => Tone::Soft,
            Standing::Held | Standing::Failing => Tone::Bad,
        };
        table.row([
            Cell::from(&it.service),
            Cell::from(&it.datacenter),
            Cell::from(&it.source),
            cell(tone, it.state.as_str()),
            it.backends.to_string().into(),
            it.age_s.map_or_else(|| "never".to_owned(), seconds).into(),
            Cell::from(&it.why),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::backends::BackendRow;

    #[test]
    fn a_list_tells_where_each_was_found() {
        let row = |address: &str, source: Option<&str>, state| BackendRow {
            datacenter: "shenzhen".into(),
            address: address.into(),
            name: source.map(|_| "gift-2".into()),
            source: source.map(str::to_owned),
            state,
            why: "probe ok".into(),
            configured: 1,
            weight: 1.0,
            in_flight: 3,
            lease_s: source.map(|_| 7.4),
        };
        let source = SourceReport {
            service: "gifts".into(),
            datacenter: "shenzhen".into(),
            source: "srv:_gifts._tcp.x.".into(),
            state: Standing::Held,
            backends: 2,
            age_s: Some(3.0),
            due_s: Some(2.0),
            why: "says that there is none".into(),
        };
        let backends = vec![
            row("10.0.0.1:80", None, BackendState::Healthy),
            row("10.0.0.2:80", Some("register"), BackendState::Joining),
        ];
        let told = Backends { service: "gifts".into(), generation: 7, sources: vec![source], backends };
        insta::assert_snapshot!(render(&told, Paint(false)));
        assert_eq!(
            path("a b", "[::1]:80".parse().unwrap(), &[("ttl", Some("5s".into())), ("name", None)]),
            "/v1/services/a%20b/backends/%5B%3A%3A1%5D%3A80?ttl=5s"
        );
    }
}
