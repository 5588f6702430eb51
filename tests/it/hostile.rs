//! Hostile input: the corpus of tests/corpus/http, sent through an edge to nginx, HAProxy and hyper, and played at it by a
//! backend. What arrives is what was meant or nothing; nothing desynchronises; nothing hangs.
//!
//! `cargo test --test it hostile -- --nocapture` tells where backends differ.

mod backend;
mod corpus;
mod h2;
mod talk;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use backend::{Player, Recorder, Seen, Server};
use corpus::{Case, Expect};
use h2::Fate;
use talk::{Answer, Client, Gone};

use crate::support::Node;

/// Files of requests over HTTP/1.
const REQUESTS: [&str; 7] = ["framing", "chunks", "lines", "heads", "targets", "hops", "connections"];
/// What issue 4 asks for.
const EXCHANGES: usize = 300;

/// A node whose only service is `backend`.
fn edge(dir: &Path, name: &str, backend: SocketAddr) -> Node {
    let text = format!(
        "[node]\nname = \"{name}\"\nworkers = 1\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [[datacenter]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\n\
         [[service]]\nname = \"web\"\nretry = {{ tries = 1 }}\nbackends.here = [\"{backend}\"]\n\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n\n\
         [[route]]\nmatch = {{ path_prefix = \"/\" }}\nservice = \"web\"\n"
    );
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

fn all(files: &[&str]) -> Vec<Case> {
    files.iter().flat_map(|file| corpus::read(file)).collect()
}

#[test]
fn the_corpus_is_large_and_its_names_are_unique() {
    let cases = all(&[&REQUESTS[..], &["h2", "responses"]].concat());
    let names: std::collections::BTreeSet<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "a name stands twice");
    assert!(cases.len() >= EXCHANGES, "{} exchanges", cases.len());
    println!("{} exchanges", cases.len());
}

#[test]
fn requests_arrive_as_one_message_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let cases = all(&[&REQUESTS[..], &["h2"]].concat());
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs = ["hyper", "nginx", "haproxy"].map(|name| {
            let (cases, dir) = (&cases, dir.path().join(name));
            scope.spawn(move || {
                fs::create_dir(&dir).unwrap();
                through(name, &dir, cases)
            })
        });
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// Sends all `cases` to one backend; what was wrong.
fn through(name: &str, dir: &Path, cases: &[Case]) -> Vec<String> {
    let recorder = Recorder::start();
    let server = match name {
        "nginx" => Some(Server::nginx(dir, recorder.address)),
        "haproxy" => Some(Server::haproxy(dir, recorder.address)),
        _ => None,
    };
    let node = edge(dir, name, server.as_ref().map_or(recorder.address, |s| s.address));
    let address = node.http("public");
    let mut failures = Vec::new();
    for case in cases {
        let done = if case.is_h2 { request_h2(name, address, case) } else { request(name, address, case) };
        let done = done.and_then(|()| sentinel(&mut Client::to(address), case, "new"));
        if let Err(why) = done {
            failures.push(format!("{name}: {}: {why}", case.name));
        }
    }
    failures.extend(arrivals(name, cases, &recorder.seen()).into_iter().map(|why| format!("{name}: {why}")));
    failures
}

/// What is expected of `name` in the first place, and then.
fn expected(name: &str, case: &Case) -> Vec<Expect> {
    let mut expects = case.expects.clone();
    if let Some((_, differs)) = case.differs.iter().find(|(who, _)| who == name) {
        expects[0] = differs.clone();
    }
    expects
}

/// Sends one case over HTTP/1. An honest request behind it, on the same connection where it goes on, gets its own answer.
fn request(name: &str, address: SocketAddr, case: &Case) -> Result<(), String> {
    let mut client = Client::to(address);
    for octets in &case.sends {
        client.send(octets);
    }
    if case.ends {
        client.end();
    }
    let mut goes_on = true;
    for (at, expect) in expected(name, case).iter().enumerate() {
        let method = case.arrives.get(at).map_or(&*case.method, |a| a.line.split(' ').next().unwrap());
        let answer = client.answer(method);
        check(expect, &answer)?;
        let Ok(answer) = answer else { return Ok(()) };
        goes_on = !answer.closes;
    }
    if goes_on && !case.ends {
        return sentinel(&mut client, case, "same");
    }
    client.ends().map_err(|gone| format!("behind the last answer: {gone:?}"))
}

/// An honest request on `client`.
fn sentinel(client: &mut Client, case: &Case, which: &str) -> Result<(), String> {
    let target = format!("/sentinel{}/{which}", case.path);
    client.send(format!("GET {target} HTTP/1.1\r\nhost: sentinel.test\r\n\r\n").as_bytes());
    match client.answer("GET") {
        Ok(Answer { status, body, .. }) if status == "200" && body == format!("GET {target} 0").as_bytes() => Ok(()),
        other => Err(format!("the request after it, on the {which} connection, got {other:?}")),
    }
}

fn check(expect: &Expect, answer: &Result<Answer, Gone>) -> Result<(), String> {
    let is_met = match (expect, answer) {
        (Expect::Closed, Err(Gone::Closed)) | (Expect::Cut | Expect::Broken, Err(Gone::Cut)) => true,
        (Expect::Broken, Ok(answer)) => answer.status == "502",
        (Expect::Status { status, octets, keeps }, Ok(answer)) => {
            is_like(status, &answer.status)
                && octets.is_none_or(|octets| answer.body.len() == octets)
                && keeps.is_none_or(|keeps| keeps != answer.closes)
        }
        _ => false,
    };
    let said = || match answer {
        Ok(Answer { status, body, closes, .. }) => {
            format!("{status} closes={closes} {} octets {:.120}", body.len(), String::from_utf8_lossy(body))
        }
        Err(gone) => format!("{gone:?}"),
    };
    if is_met { Ok(()) } else { Err(format!("expected {expect:?}, got {}", said())) }
}

fn is_like(pattern: &str, status: &str) -> bool {
    pattern.len() == status.len() && pattern.bytes().zip(status.bytes()).all(|(p, s)| p == b'x' || p == s)
}

/// Sends one case over HTTP/2. To reset a stream, or the connection, is as good as a 400.
fn request_h2(name: &str, address: SocketAddr, case: &Case) -> Result<(), String> {
    let mut client = h2::Client::to(address);
    case.sends.iter().for_each(|octets| client.send(octets));
    for (at, expect) in expected(name, case).iter().enumerate() {
        let fate = client.fate(2 * at as u32 + 1);
        let is_met = match (expect, &fate) {
            (Expect::Closed, Fate::Reset) => true,
            (Expect::Status { status, octets, .. }, Fate::Answered(got, body)) => {
                is_like(status, got) && octets.is_none_or(|octets| body.len() == octets)
            }
            (Expect::Status { status, .. }, Fate::Reset) => matches!(&**status, "4xx" | "xxx"),
            _ => false,
        };
        if !is_met {
            return Err(format!("expected {expect:?}, got {fate:?}"));
        }
        if fate == Fate::Reset {
            return Ok(());
        }
    }
    let target = format!("/sentinel{}/h2", case.path);
    client.get(1_001, &target);
    match client.fate(1_001) {
        Fate::Answered(status, body) if status == "200" && body == format!("GET {target} 0").as_bytes() => Ok(()),
        other => Err(format!("the request after it got {other:?}")),
    }
}

/// Compares what has arrived with what should have.
fn arrivals(name: &str, cases: &[Case], seen: &[Seen]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut by_case: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for message in seen {
        let target = message.what.split(' ').nth(1).unwrap_or_default();
        let target = target.strip_prefix("/?").unwrap_or(target);
        let path =
            |case: &&Case| target.strip_prefix(&*case.path).is_some_and(|r| r.is_empty() || "/?;".contains(&r[..1]));
        match cases.iter().find(path) {
            _ if target.starts_with("/sentinel/") => {}
            Some(case) => by_case.entry(&case.path).or_default().push(message),
            None => failures.push(format!("nobody sent {message:?}")),
        }
        failures.extend(flaws(message).into_iter().map(|flaw| format!("{flaw}: {message:?}")));
    }
    for case in cases {
        let arrived = by_case.remove(&*case.path).unwrap_or_default();
        let whole: Vec<String> =
            arrived.iter().filter_map(|m| m.octets.map(|octets| format!("{} {octets}", m.what))).collect();
        let meant: Vec<&str> = case.arrives.iter().map(|a| a.line.as_str()).collect();
        let refuses = case.differs.iter().any(|(who, _)| who == name);
        if whole != meant && !(refuses && whole.is_empty()) {
            failures.push(format!("{}: {meant:?} should have arrived, and {whole:?} has", case.name));
            continue;
        }
        // Others than hyper edit fields themselves.
        for (arrival, message) in case.arrives.iter().zip(arrived).filter(|_| name == "hyper") {
            for (has, field) in &arrival.fields {
                let found = message.fields.iter().any(|f| f == field || (!has && f.starts_with(&format!("{field}:"))));
                if found != *has {
                    failures.push(format!("{}: `{field}`: {found} in {:?}", case.name, message.fields));
                }
            }
        }
    }
    failures
}

/// What no message may have, whatever was sent.
fn flaws(message: &Seen) -> Vec<String> {
    let count = |name: &str| message.fields.iter().filter(|f| f.starts_with(&format!("{name}: "))).count();
    let mut flaws = Vec::new();
    if count("content-length") + count("transfer-encoding") > 1 {
        flaws.push("framed twice".to_owned());
    }
    if count("host") != 1 {
        flaws.push("not one host".to_owned());
    }
    // Ours, and nobody else's beside them.
    for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-id", "x-deadline-ms"] {
        if count(name) != 1 {
            flaws.push(format!("not one {name}"));
        }
    }
    let names = message.fields.iter().filter_map(|f| f.split(':').next());
    flaws.extend(names.filter(|n| n.contains('_')).map(|n| format!("{n} has passed")));
    if !message.what.split(' ').nth(1).is_some_and(|target| target.starts_with('/')) {
        flaws.push("no path".to_owned());
    }
    flaws
}

#[test]
fn responses_reach_the_client_whole_or_visibly_not() {
    let dir = tempfile::tempdir().unwrap();
    let cases = all(&["responses"]);
    let plays = cases.iter().map(|c| (c.path.clone(), c.sends.clone(), c.ends)).collect();
    let player = Player::start(plays);
    let node = edge(dir.path(), "edge", player.address);
    let mut failures = Vec::new();
    for (case, version) in cases.iter().flat_map(|case| ["1.1", "1.0"].map(|version| (case, version))) {
        if let Err(why) = response(node.http("public"), case, version) {
            failures.push(format!("{} to {version}: {why}", case.name));
        }
    }
    for targets in player.connections.lock().unwrap().iter() {
        for pair in targets.windows(2) {
            let case = cases.iter().find(|case| case.path == pair[0]);
            if let Some(case) = case.filter(|case| !case.is_reused) {
                failures.push(format!("{}: its connection was used again for {}", case.name, pair[1]));
            }
        }
    }
    for case in cases.iter().filter(|case| case.is_reused) {
        let all = player.connections.lock().unwrap();
        if !all.iter().any(|targets| targets.windows(2).any(|pair| pair[0] == case.path)) {
            failures.push(format!("{}: its connection was not used again", case.name));
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// Has the backend play one case to a client that speaks `version`.
fn response(address: SocketAddr, case: &Case, version: &str) -> Result<(), String> {
    let mut client = Client::to(address);
    let head = format!("{} {} HTTP/{version}\r\nhost: a.test\r\n\r\n", case.method, case.path);
    client.send(head.as_bytes());
    let answer = client.answer(&case.method);
    check(&case.expects[0], &answer)?;
    if answer.as_ref().is_ok_and(|answer| !answer.closes) {
        sentinel(&mut client, case, "same")?;
    } else if answer.is_ok() {
        client.ends().map_err(|gone| format!("behind the answer: {gone:?}"))?;
    }
    sentinel(&mut Client::to(address), case, "new")
}
