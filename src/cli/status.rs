//! `springtide status`: what a node holds to be true, and whether its fleet agrees.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;

use super::client::{Admin, Ask, Client, ClientError, fleet};
use super::table::{Cell, Paint, Table, Tone, cell, clean, percent};
use crate::admin::evidence::ago;
use crate::admin::report::{Edge, IntentReport, State};
use crate::snapshot::DcState;
use crate::snapshot::health::BackendState;

/// Shows services by datacenter, what is not healthy and why, intents, and the nodes of the fleet.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: Admin,
    /// Prints the state of the node as JSON.
    #[arg(long)]
    json: bool,
}

/// What one node of the fleet said.
type Told = (String, Result<State, ClientError>);

impl StatusArgs {
    pub(super) fn run(self) -> ExitCode {
        super::finish(self.show())
    }

    #[expect(clippy::print_stdout, reason = "the status is the output")]
    fn show(&self) -> Result<ExitCode, ClientError> {
        let client = Client::new(&self.admin)?;
        if self.json {
            let (_, state) = client.ask::<serde_json::Value>(&Ask::get("/v1/state"))?;
            println!("{state:#}");
            return Ok(ExitCode::SUCCESS);
        }
        let (address, state) = client.state()?;
        let nodes = fleet(&address, &state);
        let told = client.ask_all(&nodes, &Ask::get("/v1/state"));
        let told: Vec<Told> = nodes.into_iter().zip(told).collect();
        print!("{}", render(&state, &told, Paint::for_stdout()));
        Ok(ExitCode::SUCCESS)
    }
}

fn render(state: &State, told: &[Told], paint: Paint) -> String {
    let strong = |text: &str| paint.paint(Tone::Strong, text);
    let node = &state.node;
    let place = node.datacenter.as_ref().map(|dc| format!(" in {}", clean(dc))).unwrap_or_default();
    let up = seconds(node.uptime_s);
    let mut lines = vec![
        format!("{}{place}, version {}, up {up}", strong(&clean(&node.name)), clean(&node.version)),
        format!("generation {}; {}", state.generation, edges(&state.edges)),
    ];
    if let Some(since) = state.isolated_s {
        let text =
            "isolated: everything looks dead at once, so this node distrusts itself and has held its verdicts for";
        lines.push(paint.paint(Tone::Bad, &format!("{text} {}", seconds(since))));
    }
    if let Some(refused) = &state.refused {
        let text = "the last reload was refused, what was in force before it still is; for";
        lines.push(paint.paint(Tone::Bad, &format!("{text} {}:", seconds(refused.for_s))));
        lines.extend(refused.findings.lines().map(|line| format!("  {}", clean(line))));
    }
    if let Some(failed) = &state.failed_upgrade {
        let text = "the last upgrade failed, this process serves on;";
        lines.push(paint.paint(Tone::Bad, &format!("{text} {} ago:", seconds(failed.for_s))));
        lines.extend(failed.findings.lines().map(|line| format!("  {}", clean(line))));
    }
    if !node.old_processes.is_empty() {
        let pids: Vec<String> = node.old_processes.iter().map(u32::to_string).collect();
        lines.push(paint.paint(Tone::Watch, &format!("old processes that finish their work: {}", pids.join(" "))));
    }
    let sections = [
        ("", services(state)),
        ("", steers(state)),
        ("Where backends are found", super::backends::sources(&state.sources)),
        ("Not healthy", unhealthy(state)),
        ("Intents", intents(state, told)),
        ("Nodes", if told.len() > 1 { nodes(told) } else { Table::new(&[]) }),
        ("Nodes that see it otherwise", disagreements(state, told)),
    ];
    for (title, table) in sections.iter().filter(|(_, table)| !table.is_empty()) {
        lines.push(String::new());
        lines.extend((!title.is_empty()).then(|| strong(title)));
        lines.extend(table.lines(paint));
    }
    if state.unhealthy.is_empty() && state.isolated_s.is_none() {
        lines.extend([String::new(), paint.paint(Tone::Good, "all backends are healthy")]);
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Both edges read one snapshot: where they say the same number, they act on the same verdicts.
fn edges(edges: &[Edge]) -> String {
    let used: Vec<Option<u64>> = edges.iter().map(|e| e.generation).collect();
    match used.as_slice() {
        [] => "no edges".into(),
        [Some(a), Some(b)] if a == b => format!("both edges: generation {a}"),
        _ => {
            let one = |e: &Edge| match (e.serving, e.generation) {
                (false, _) => format!("{}: not serving", clean(&e.name)),
                (true, None) => format!("{}: not asked yet", clean(&e.name)),
                (true, Some(generation)) => format!("{}: generation {generation} when last asked", clean(&e.name)),
            };
            edges.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

fn services(state: &State) -> Table {
    let mut table = Table::new(&["SERVICE", "DATACENTER", "STATE", "WEIGHT", "SHARE", "BACKENDS", "FOR"]);
    for service in &state.services {
        for c in service.datacenters.iter().filter(|c| c.state != DcState::Absent) {
            let word = if c.panic { format!("{}, panic", c.state.as_str()) } else { c.state.as_str().to_owned() };
            let backends =
                cell(if c.usable < c.backends { Tone::Watch } else { Tone::Plain }, of(c.usable, c.backends));
            table.row([
                Cell::from(&service.name),
                Cell::from(&c.datacenter),
                cell(if c.panic { Tone::Bad } else { tone(c.state) }, word),
                number(c.effective).into(),
                percent(c.share).into(),
                backends,
                seconds(c.since_s).into(),
            ]);
        }
    }
    table
}

fn steers(state: &State) -> Table {
    let mut table = Table::new(&["NAME", "TTL", "DATACENTER", "STATE", "SHARE", "HELD DOWN BY"]);
    for steer in &state.steers {
        for c in &steer.candidates {
            table.row([
                Cell::from(&steer.name),
                format!("{}s", steer.ttl_s).into(),
                Cell::from(&c.datacenter),
                cell(tone(c.state), c.state.as_str()),
                percent(c.share).into(),
                c.held_by.clone().unwrap_or_default().into(),
            ]);
        }
    }
    table
}

fn unhealthy(state: &State) -> Table {
    let mut table = Table::new(&["SERVICE", "DATACENTER", "BACKEND", "STATE", "FOR", "WHY"]);
    for b in &state.unhealthy {
        let tone = match b.state {
            BackendState::Healthy => Tone::Good,
            BackendState::Ejected | BackendState::Down => Tone::Bad,
            BackendState::Suspect | BackendState::HalfOpen | BackendState::SlowStart => Tone::Watch,
            BackendState::Drained | BackendState::AdminDown => Tone::Aside,
            BackendState::Unknown | BackendState::Joining => Tone::Soft,
        };
        table.row([
            Cell::from(&b.service),
            Cell::from(&b.datacenter),
            Cell::from(&b.address),
            cell(tone, b.state.as_str()),
            seconds(b.since_s).into(),
            Cell::from(&b.why),
        ]);
    }
    table
}

/// What operators want anywhere in the fleet. Each node counts its own requests, so a drain is through when the sum is 0;
/// and an intent that stands on a part of the nodes only is one to say again.
fn intents(state: &State, told: &[Told]) -> Table {
    let others: Vec<&State> = told.iter().filter_map(|(_, told)| told.as_ref().ok()).collect();
    let all = if others.is_empty() { vec![state] } else { others };
    let mut wanted: Vec<(&IntentReport, usize, u32)> = Vec::new();
    for intent in all.iter().flat_map(|state| &state.intents) {
        let same =
            |(known, ..): &&mut (&IntentReport, _, _)| known.subject == intent.subject && known.wish == intent.wish;
        match wanted.iter_mut().find(same) {
            Some((_, nodes, under_way)) => (*nodes, *under_way) = (*nodes + 1, *under_way + intent.under_way),
            None => wanted.push((intent, 1, intent.under_way)),
        }
    }
    let mut table = Table::new(&["SUBJECT", "WISH", "ENDS IN", "NODES", "BACKENDS", "UNDER WAY", "BY", "REASON"]);
    for (i, nodes, under_way) in wanted {
        table.row([
            Cell::from(&i.subject),
            cell(Tone::Aside, &i.wish),
            i.left_s.map_or_else(|| "when taken back".to_owned(), |s| seconds(s as f64)).into(),
            cell(if nodes < all.len() { Tone::Bad } else { Tone::Plain }, of(nodes, all.len())),
            i.backends.to_string().into(),
            if i.wish.starts_with("weight") { "".into() } else { under_way.to_string().into() },
            Cell::from(&i.by),
            Cell::from(&i.reason),
        ]);
    }
    table
}

fn nodes(told: &[Told]) -> Table {
    let mut table = Table::new(&["ADMIN", "NODE", "DATACENTER", "VERSION", "UP", "GENERATION", "EDGES"]);
    for (address, state) in told {
        match state {
            Ok(state) => table.row([
                Cell::from(address),
                Cell::from(&state.node.name),
                state.node.datacenter.clone().unwrap_or_default().into(),
                Cell::from(&state.node.version),
                seconds(state.node.uptime_s).into(),
                state.generation.to_string().into(),
                edges(&state.edges).into(),
            ]),
            Err(error) => {
                table.row([Cell::from(address), cell(Tone::Bad, error.brief())]);
            }
        }
    }
    table
}

/// Nodes judge for themselves. Where one sees a service in a datacenter otherwise than the node that was asked, that is
/// worth a look: it may be on its way, or a network that is torn.
fn disagreements(state: &State, told: &[Told]) -> Table {
    let cells = |state: &State| -> BTreeMap<(String, String), DcState> {
        let all = state.services.iter().flat_map(|s| s.datacenters.iter().map(move |c| (s, c)));
        all.map(|(s, c)| ((s.name.clone(), c.datacenter.clone()), c.state)).collect()
    };
    let here = cells(state);
    let mut table = Table::new(&["NODE", "SERVICE", "DATACENTER", "SEES", "HERE"]);
    for other in told.iter().filter_map(|(_, told)| told.as_ref().ok()) {
        for ((service, dc), sees) in cells(other) {
            match here.get(&(service.clone(), dc.clone())) {
                Some(state) if *state != sees => table.row([
                    Cell::from(&other.node.name),
                    service.into(),
                    dc.into(),
                    cell(tone(sees), sees.as_str()),
                    cell(tone(*state), state.as_str()),
                ]),
                _ => {}
            }
        }
    }
    table
}

fn tone(state: DcState) -> Tone {
    match state {
        DcState::Serving => Tone::Good,
        DcState::Returning => Tone::Watch,
        DcState::Failed => Tone::Bad,
        DcState::Drained | DcState::AdminDown => Tone::Aside,
        DcState::Absent => Tone::Soft,
    }
}

pub(super) fn seconds(s: f64) -> String {
    ago(std::time::Duration::try_from_secs_f64(s).unwrap_or_default())
}

fn of(part: usize, whole: usize) -> String {
    format!("{part} of {whole}")
}

pub(super) fn number(n: f64) -> String {
    let text = format!("{n:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::report::{Asked, state};
    use crate::admin::world::{NOW, WALL, snapshot};
    use crate::base::clock::Mono;
    use crate::snapshot::intent::{Intent, Intents, Wish};

    fn seen(edit: impl FnOnce(&mut crate::snapshot::Snapshot)) -> State {
        let mut snapshot = snapshot();
        edit(&mut snapshot);
        let edge = |name: &str| Edge {
            name: name.into(),
            serving: true,
            generation: Some(snapshot.generation),
            addresses: vec![],
        };
        let asked = Asked {
            now: NOW,
            wall: WALL,
            started: NOW - std::time::Duration::from_mins(10),
            edges: vec![edge("dns"), edge("proxy")],
            refused: None,
            upgraded: (Vec::new(), None),
            sources: Vec::new(),
            fleet: vec!["127.0.0.1:9900".parse().unwrap(), "127.0.0.2:9900".parse().unwrap()],
        };
        state(&snapshot, asked)
    }

    #[test]
    fn the_status_of_a_bad_day() {
        let here = seen(|snapshot| {
            let intent = Intent {
                subject: "claim@tianjin".parse().unwrap(),
                wish: Wish::Weight(5),
                since: WALL,
                until: Some(WALL + std::time::Duration::from_mins(10)),
                by: "alice".into(),
                reason: "new disks".into(),
            };
            snapshot.intents = std::sync::Arc::new(Intents { entries: vec![intent] });
        });
        let mut there = seen(|snapshot| snapshot.isolated_since = Some(Mono::ZERO));
        there.node.name = "sh-edge-1".into();
        there.services[0].datacenters[2].state = DcState::Serving;
        there.intents = vec![IntentReport { wish: "drain".into(), under_way: 3, ..here.intents[0].clone() }];
        let absent = ClientError::Absent { address: "127.0.0.3:9900".into(), cause: "connection refused".into() };
        let told = vec![
            ("127.0.0.1:9900".to_owned(), Ok(here.clone())),
            ("127.0.0.2:9900".to_owned(), Ok(there)),
            ("127.0.0.3:9900".to_owned(), Err(absent)),
        ];
        insta::assert_snapshot!(render(&here, &told, Paint(false)), @r#"
        sz-edge-1 in shenzhen, version 0.1.0, up 10m
        generation 12; both edges: generation 12

        SERVICE    DATACENTER  STATE    WEIGHT  SHARE  BACKENDS  FOR
        gift-list  shenzhen    serving  40      59%    2 of 2    60s
        gift-list  shanghai    serving  28      41%    1 of 2    60s
        gift-list  tianjin     failed   0       0%     0 of 2    5.0s
        claim      shenzhen    serving  40      40%    2 of 2    60s
        claim      shanghai    serving  40      40%    2 of 2    60s
        claim      tianjin     serving  20      20%    2 of 2    60s

        NAME               TTL  DATACENTER  STATE    SHARE  HELD DOWN BY
        www.hongbao.test.  5s   shenzhen    serving  59%
        www.hongbao.test.  5s   shanghai    serving  41%
        www.hongbao.test.  5s   tianjin     failed   0%     gift-list

        Not healthy
        SERVICE    DATACENTER  BACKEND         STATE    FOR   WHY
        gift-list  shanghai    10.2.0.11:7000  ejected  2.0s  live traffic: connections failed in a row; 8.0s left, ejection 2
        gift-list  tianjin     10.3.0.11:7000  down     5.0s  probe: refused, 6 in a row, last 200ms ago
        gift-list  tianjin     10.3.0.12:7000  down     5.0s  probe: refused, 6 in a row, last 200ms ago

        Intents
        SUBJECT        WISH      ENDS IN  NODES   BACKENDS  UNDER WAY  BY     REASON
        claim@tianjin  weight 5  10m      1 of 2  2                    alice  new disks
        claim@tianjin  drain     10m      1 of 2  2         3          alice  new disks

        Nodes
        ADMIN           NODE       DATACENTER  VERSION  UP   GENERATION  EDGES
        127.0.0.1:9900  sz-edge-1  shenzhen    0.1.0    10m  12          both edges: generation 12
        127.0.0.2:9900  sh-edge-1  shenzhen    0.1.0    10m  12          both edges: generation 12
        127.0.0.3:9900  connection refused

        Nodes that see it otherwise
        NODE       SERVICE    DATACENTER  SEES     HERE
        sh-edge-1  gift-list  tianjin     serving  failed
        "#);
    }

    #[test]
    fn the_status_of_a_good_day_is_short() {
        let mut here = seen(|_| ());
        here.unhealthy.clear();
        here.services.truncate(1);
        here.steers.clear();
        here.edges.truncate(1);
        let text = render(&here, &[("a".to_owned(), Ok(here.clone()))], Paint(false));
        assert!(text.ends_with("\nall backends are healthy\n"), "{text}");
        assert!(text.contains("; dns: generation 12 when last asked\n") && !text.contains("Nodes"), "{text}");
    }

    #[test]
    fn a_refused_reload_is_told_with_every_finding() {
        let mut here = seen(|_| ());
        let findings = "a.zone:6: `x` stands where an address should\nb.zone:1: \u{1b}[31m".to_owned();
        here.refused = Some(crate::admin::RefusalReport { for_s: 90.0, findings });
        let text = render(&here, &[], Paint(false));
        assert!(text.contains("the last reload was refused") && text.contains("\n  a.zone:6: `x` stands"), "{text}");
        assert!(text.contains("\n  b.zone:1: ") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn an_isolated_node_says_so_first() {
        let text =
            render(&seen(|s| s.isolated_since = Some(NOW - std::time::Duration::from_secs(30))), &[], Paint(false));
        assert!(text.lines().nth(2).unwrap().starts_with("isolated:"), "{text}");
    }
}
