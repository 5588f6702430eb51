//! One thing done on every node of a fleet, and a table of what came of it.

use std::cell::Cell;
use std::process::ExitCode;

use http::Method;
use serde::de::DeserializeOwned;

use super::client::{Admin, Ask, Client, ClientError, fleet};
use super::table::{Paint, Table, Tone, cell, clean};
use crate::admin::{Applied, Order, Recall};
use crate::snapshot::intent::{Subject, Wish};

/// Which nodes.
#[derive(Debug, clap::Args)]
pub(super) struct Nodes {
    #[command(flatten)]
    admin: Admin,
    /// Only the node that answers at --admin, not its whole fleet.
    #[arg(long)]
    only: bool,
}

/// What a command does on every node.
pub(super) struct Done {
    /// What it says in the table.
    pub(super) text: String,
    /// How that is meant.
    pub(super) tone: Tone,
    /// Generation that has it in force.
    pub(super) generation: u64,
}

/// What a node came to.
type Came = (String, Result<Done, ClientError>);

impl Nodes {
    /// Asks every node for `ask`; `judge` says what an answer means. Fails if one of them does.
    #[expect(clippy::print_stdout, reason = "the table is the output")]
    pub(super) fn each<T: DeserializeOwned>(&self, ask: &Ask, judge: impl Fn(&T) -> Done) -> ExitCode {
        super::finish(self.came(ask, judge).map(|came| {
            print!("{}", render(&came, Paint::for_stdout()));
            if came.iter().any(|(_, result)| result.is_err()) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }))
    }

    fn came<T: DeserializeOwned>(&self, ask: &Ask, judge: impl Fn(&T) -> Done) -> Result<Vec<Came>, ClientError> {
        let client = Client::new(&self.admin)?;
        let (address, state) = client.state()?;
        let nodes = if self.only { vec![address] } else { fleet(&address, &state) };
        let answers = client.ask_all::<T>(&nodes, ask);
        Ok(nodes.into_iter().zip(answers).map(|(node, answer)| (node, answer.map(|a| judge(&a)))).collect())
    }
}

fn render(came: &[Came], paint: Paint) -> String {
    let mut table = Table::new(&["NODE", "RESULT", "GENERATION"]);
    let mut said: Vec<String> = Vec::new();
    for (node, result) in came {
        match result {
            Ok(done) => table.row([node.into(), cell(done.tone, &done.text), done.generation.to_string().into()]),
            Err(error) => {
                table.row([node.into(), cell(Tone::Bad, format!("failed: {}", error.brief()))]);
                // Nodes tend to object for the same reason: it is said once.
                if let Some(rest) = error.rest().filter(|rest| !said.contains(rest)) {
                    said.push(rest);
                }
            }
        }
    }
    let failed = came.iter().filter(|(_, result)| result.is_err()).count();
    if failed > 0 && failed < came.len() {
        said.push(format!("failed on {failed} of {} nodes: say it again once they can do it", came.len()));
    }
    let said = said.iter().flat_map(|text| text.lines()).map(clean);
    table.lines(paint).into_iter().chain(said).map(|line| line + "\n").collect()
}

/// Until when and why: what an operator says with a wish.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// For how long, with its unit (10m, 2h); without it, until it is taken back.
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasting: Option<String>,
    /// Why: for the log and for whoever looks at `springtide status`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who wants it.
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "unknown")]
    by: String,
    /// Even where it leaves too little to serve.
    #[arg(long)]
    force: bool,
}

fn lasting(text: &str) -> Result<String, String> {
    crate::base::units::duration(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

/// Puts a wish in force on every node.
pub(super) fn wish(nodes: &Nodes, subject: &Subject, wish: Wish, terms: Terms) -> ExitCode {
    let (ask, judge) = wished(subject, wish, terms);
    nodes.each(&ask, judge)
}

fn wished(subject: &Subject, wish: Wish, terms: Terms) -> (Ask, impl Fn(&Applied) -> Done + use<>) {
    let subject = subject.to_string();
    let Terms { lasting, reason, by, force } = terms;
    let order = Order { subject: subject.clone(), wish, lasting, by, reason, force };
    let done = move |applied: &Applied| {
        let least = applied.left.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let leaves = least.map(|(service, left)| match applied.left.len() - 1 {
            0 => format!(", leaves {left:.0}% of {service}"),
            more => format!(", leaves {left:.0}% of {service} (the least of {})", more + 1),
        });
        let leaves = leaves.unwrap_or_default();
        Done { text: format!("{subject}: {wish}{leaves}"), tone: Tone::Good, generation: applied.generation }
    };
    (Ask::send(Method::POST, "/v1/intents", &order), done)
}

/// Takes back every intent for a subject on every node.
///
/// Where it was in force nowhere, that is a mistake in the subject more likely than not, and so a failure.
pub(super) fn recall(nodes: &Nodes, subject: &Subject, by: String) -> ExitCode {
    let (ask, judge) = recalled(subject, by);
    let changed = Cell::new(false);
    let code = nodes.each(&ask, |applied: &Applied| {
        changed.set(changed.get() || applied.changed);
        judge(applied)
    });
    if changed.get() { code } else { ExitCode::FAILURE }
}

fn recalled(subject: &Subject, by: String) -> (Ask, impl Fn(&Applied) -> Done + use<>) {
    let subject = subject.to_string();
    let recall = Recall { subject: subject.clone(), by };
    let done = move |applied: &Applied| {
        let (text, tone) = if applied.changed {
            ("as configured", Tone::Good)
        } else {
            ("nothing was in force (see springtide status)", Tone::Watch)
        };
        Done { text: format!("{subject}: {text}"), tone, generation: applied.generation }
    };
    (Ask::send(Method::DELETE, "/v1/intents", &recall), done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin::report::State;
    use crate::admin::world::{Wanted, World, open};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        nodes: Nodes,
        #[command(flatten)]
        terms: Terms,
    }

    fn line(admin: &str, more: &[&str]) -> Line {
        Line::parse_from([&["x", "--by", "alice", "--admin", admin], more].concat())
    }

    /// Two nodes of one fleet, each with a runtime of its own to run on, and a third that is not there.
    fn nodes() -> (tokio::runtime::Runtime, World, World) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let second = open(Wanted::default());
        let nobody = "127.0.0.1:1".parse().unwrap();
        let first = open(Wanted { fleet: vec![second.server.address(), nobody], ..Wanted::default() });
        drop(guard);
        (runtime, first, second)
    }

    #[test]
    fn an_intent_reaches_the_whole_fleet_and_who_is_not_there_is_named() {
        let (_runtime, first, second) = nodes();
        let Line { nodes, terms } = line(&first.server.address().to_string(), &["--for", "10m", "--reason", "disks"]);
        let subject: Subject = "shanghai".parse().unwrap();
        let (ask, judge) = wished(&subject, Wish::Drain, terms);
        let came = nodes.came(&ask, judge).unwrap();
        assert_eq!(first.published.load().generation, 12, "it names a fleet without itself");
        assert_eq!(second.published.load().intents.entries[0].by, "alice");
        let named =
            came.into_iter().zip(["127.0.0.2:9900", "127.0.0.3:9900"]).map(|((_, done), name)| (name.into(), done));
        insta::assert_snapshot!(render(&named.collect::<Vec<_>>(), Paint(false)), @r#"
        NODE            RESULT                                                 GENERATION
        127.0.0.2:9900  shanghai: drain, leaves 60% of claim (the least of 2)  13
        127.0.0.3:9900  failed: connection refused
        failed on 1 of 2 nodes: say it again once they can do it
        "#);
        let (ask, judge) = recalled(&subject, "alice".into());
        let text = render(&nodes.came(&ask, judge).unwrap(), Paint(false));
        assert!(text.contains("shanghai: as configured  14"), "{text}");
    }

    #[test]
    fn only_one_node_where_that_is_wanted_and_an_objection_is_said_once() {
        let (_runtime, first, _second) = nodes();
        let Line { nodes, terms } = line(&first.server.address().to_string(), &["--only"]);
        let (ask, judge) = wished(&"gifts@shanghai".parse().unwrap(), Wish::Down, terms);
        let mut came = nodes.came(&ask, judge).unwrap();
        assert_eq!(came.len(), 1);
        came[0].0 = "127.0.0.1:9900".into();
        insta::assert_snapshot!(render(&came, Paint(false)), @r#"
        NODE            RESULT  GENERATION
        127.0.0.1:9900  failed: there is no service "gifts"; there are: gift-list, claim
        hint: springtide status lists datacenters and services, GET /v1/health every backend
        "#);
    }

    #[test]
    fn the_second_address_is_asked_where_the_first_is_silent() {
        let (_runtime, first, _second) = nodes();
        let nodes = line(&format!("127.0.0.1:1,{}", first.server.address()), &["--only"]).nodes;
        assert_eq!(nodes.came(&Ask::get("/v1/state"), done).unwrap().len(), 1);
        let error = line("127.0.0.1:1", &[]).nodes.came(&Ask::get("/v1/state"), done).err().unwrap();
        assert_eq!(
            error.to_string(),
            "no admin API at 127.0.0.1:1 (connection refused): is the node running? --admin ADDR asks another one"
        );
    }

    fn done(state: &State) -> Done {
        Done { text: String::new(), tone: Tone::Good, generation: state.generation }
    }

    #[test]
    fn a_token_is_read_from_its_file() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let guard = runtime.enter();
        let world = open(Wanted { token: Some("sesame".into()), ..Wanted::default() });
        drop(guard);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sesame\n").unwrap();
        let address = world.server.address().to_string();
        let with = line(&address, &["--token-file", file.path().to_str().unwrap()]).nodes;
        assert!(with.came(&Ask::get("/v1/state"), done).is_ok());
        let without = line(&address, &[]).nodes.came(&Ask::get("/v1/state"), done).err().unwrap().to_string();
        assert!(without.contains("wants a token\nhint: ") && without.contains("--token-file"), "{without}");
        let missing = line(&address, &["--token-file", "/nowhere"]).nodes.came(&Ask::get("/v1/state"), done);
        assert!(matches!(missing, Err(ClientError::Token { .. })));
    }
}
