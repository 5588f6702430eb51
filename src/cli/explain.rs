//! `springtide explain`: why a node answers a DNS question as it does, and where it would send a request.
//!
//! The edges tell as JSON what they saw and decided; here it is laid out, and the outcome is put at the end in a sentence.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Admin, Ask, Client, ClientError, encode};
use super::table::{Paint, Tone, clean};
use super::tree;
use crate::admin;
use crate::base::clock::{Clock as _, SystemClock};
use crate::router::{Outage, RehearsalError, rehearse};

/// Explains an answer to a DNS question, or the way of a request: the same code that serves, asked to show its reasons.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Why this name gets this answer.
    Dns(DnsQuestion),
    /// Where this request goes, and why.
    Http(HttpQuestion),
}

#[derive(Debug, Args)]
struct DnsQuestion {
    /// The name.
    name: String,
    /// The record type [default: A].
    #[arg(value_name = "TYPE", conflicts_with = "rtype")]
    kind: Option<String>,
    /// The record type, by name.
    #[arg(long = "type", value_name = "TYPE")]
    rtype: Option<String>,
    /// Who asks: an address, or a subnet as a resolver tells it.
    #[arg(long, visible_alias = "subnet", value_name = "IP|SUBNET", value_parser = client)]
    client: Option<String>,
    /// Explains what a node with this configuration would answer, without one; everything is well there.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// With --config: this service has failed in this datacenter; as often as wanted.
    #[arg(long, value_name = "DC/SERVICE", value_parser = outage, requires = "config")]
    down: Vec<Outage>,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Args)]
struct HttpQuestion {
    /// What is asked for: https://www.example/v1/gifts, or www.example/v1/gifts.
    url: String,
    /// The method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// Who the user is, where the route asks for one.
    #[arg(long)]
    user: Option<String>,
    /// A header of the request, `name: value`; as often as wanted.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<String>,
    /// Where it comes from.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Args)]
struct Way {
    #[command(flatten)]
    admin: Admin,
    /// Prints the explanation as JSON.
    #[arg(long)]
    json: bool,
}

fn client(text: &str) -> Result<String, String> {
    let known = text.parse::<IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok();
    if known { Ok(text.to_owned()) } else { Err("neither an address nor a subnet, such as 203.0.113.0/24".into()) }
}

fn outage(text: &str) -> Result<Outage, String> {
    let (datacenter, service) = text.split_once('/').ok_or("what is down is written DATACENTER/SERVICE")?;
    Ok(Outage { datacenter: datacenter.to_owned(), service: service.to_owned() })
}

fn header(text: &str) -> Result<String, String> {
    if text.contains(':') { Ok(text.to_owned()) } else { Err("a header is written `name: value`".into()) }
}

impl ExplainArgs {
    pub(super) fn run(self) -> ExitCode {
        super::finish(match &self.what {
            What::Dns(question) => match &question.config {
                Some(file) => return super::finish(question.rehearsed(file).map(|v| question.way.print(&v, answer))),
                None => question.way.show(question.path(), answer),
            },
            What::Http(question) => question.way.show(question.path(), outcome),
        })
    }
}

impl Way {
    fn show(&self, path: String, verdict: impl Fn(&Value) -> Vec<String>) -> Result<ExitCode, ClientError> {
        let (_, value) = Client::new(&self.admin)?.ask::<Value>(&Ask::get(path))?;
        Ok(self.print(&value, verdict))
    }

    #[expect(clippy::print_stdout, reason = "the explanation is the output")]
    fn print(&self, value: &Value, verdict: impl Fn(&Value) -> Vec<String>) -> ExitCode {
        if self.json {
            println!("{value:#}");
        } else {
            print!("{}", render(value, verdict(value), Paint::for_stdout()));
        }
        ExitCode::SUCCESS
    }
}

/// The tree, and the verdict under it.
fn render(value: &Value, verdict: Vec<String>, paint: Paint) -> String {
    let mut lines = tree::lines(value, paint);
    lines.push(String::new());
    let marks = std::iter::once("=> ").chain(std::iter::repeat("   "));
    lines.extend(marks.zip(verdict).map(|(mark, line)| paint.paint(Tone::Strong, &(mark.to_owned() + &clean(&line)))));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// What a client gets, from `dns::explain`.
fn answer(value: &Value) -> Vec<String> {
    let text = |at: &str| value.pointer(at).and_then(Value::as_str);
    if let Some(error) = text("/error") {
        return vec![error.to_owned()];
    }
    let records = value.pointer("/answer/answer").and_then(Value::as_array);
    let records: Vec<String> = records.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let why = [text("/found"), text("/steering/reason")].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let rcode = text("/answer/rcode").unwrap_or("no answer").to_uppercase();
    let empty = if records.is_empty() { ", no records" } else { "" };
    [vec![format!("{rcode}{empty} ({why})")], records].concat()
}

/// Where a request ends, from `proxy::explain`.
fn outcome(value: &Value) -> Vec<String> {
    let text = |at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_default();
    let status = |at: &str| value.pointer(at).and_then(Value::as_u64).unwrap_or_default();
    let required = value.get("requires").map(|requires| match requires["san"].as_array() {
        None => "only for clients with a certificate: others get 403".to_owned(),
        Some(names) => {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            format!("only for clients with a certificate for {}: others get 403", names.join(" or "))
        }
    });
    let line = if value.get("refused").is_some() {
        format!("refused with {}: {}", status("/refused/status"), text("/refused/because"))
    } else if value.get("answers").is_some() {
        format!("route {} answers {} by itself", text("/route/name"), status("/answers/status"))
    } else if value.pointer("/pick/backend").is_some() {
        let (backend, datacenter) = (text("/pick/backend"), text("/pick/datacenter"));
        let why = [text("/pick/placed"), text("/pick/reason"), text("/pick/tier")].join(", ");
        format!("{} at {backend} in {datacenter} ({why})", text("/service/name"))
    } else if value.pointer("/pick/none").is_some() {
        let home = value.pointer("/pick/home").and_then(Value::as_str).map(|h| format!(" at {h}")).unwrap_or_default();
        format!("503: {}{home}", text("/pick/none"))
    } else {
        "no outcome".to_owned()
    };
    std::iter::once(line).chain(required).collect()
}

impl DnsQuestion {
    /// What a node with the configuration in `file` would say: the same code is asked as on a node.
    fn rehearsed(&self, file: &Path) -> Result<Value, RehearsalError> {
        let world = rehearse(file, &self.down, SystemClock.mono(), SystemClock.wall())?;
        let client = self.client.as_ref().and_then(|text| admin::client_of(text)).unwrap_or(admin::NOBODY);
        Ok(crate::dns::explain(&world, &self.name, self.wanted().map_or("A", String::as_str), client))
    }

    fn wanted(&self) -> Option<&String> {
        self.kind.as_ref().or(self.rtype.as_ref())
    }

    fn path(&self) -> String {
        let asked = [("name", Some(&self.name)), ("type", self.wanted()), ("client", self.client.as_ref())];
        query("/v1/explain/dns", asked.into_iter().filter_map(|(key, value)| Some((key, value?.clone()))))
    }
}

impl HttpQuestion {
    fn path(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(at);
        let slash = if path.starts_with('/') { "" } else { "/" };
        let mut asked =
            vec![("method", self.method.clone()), ("host", host.to_owned()), ("path", format!("{slash}{path}"))];
        asked.extend(self.user.iter().map(|user| ("user", user.clone())));
        asked.extend(self.client.iter().map(|client| ("client", client.to_string())));
        asked.extend(self.header.iter().map(|header| ("header", header.clone())));
        asked.extend((scheme == "https").then(|| ("tls", "true".to_owned())));
        query("/v1/explain/http", asked.into_iter())
    }
}

fn query(path: &str, asked: impl Iterator<Item = (&'static str, String)>) -> String {
    let pairs: Vec<String> = asked.map(|(key, value)| format!("{key}={}", encode(&value))).collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin::world::snapshot;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        explain: ExplainArgs,
    }

    fn path(line: &[&str]) -> String {
        match Line::parse_from([&["explain"], line].concat()).explain.what {
            What::Dns(question) => question.path(),
            What::Http(question) => question.path(),
        }
    }

    #[test]
    fn a_question_becomes_a_query() {
        let dns = path(&["dns", "www.hongbao.test", "--type", "HTTPS", "--client", "10.2.0.0/16"]);
        assert_eq!(dns, "/v1/explain/dns?name=www.hongbao.test&type=HTTPS&client=10.2.0.0%2F16");
        let http = path(&["http", "https://www.hongbao.test:8443?a=b", "--user", "alice", "--header", "x-a: 1"]);
        assert_eq!(
            http,
            "/v1/explain/http?method=GET&host=www.hongbao.test%3A8443&path=%2F%3Fa%3Db&user=alice&header=x-a%3A%201&tls=true"
        );
        assert_eq!(
            path(&["http", "a.test/v1", "--method", "POST"]),
            "/v1/explain/http?method=POST&host=a.test&path=%2Fv1"
        );
    }

    #[test]
    fn a_request_reads_from_the_question_to_its_backend() {
        let snapshot = snapshot();
        let question = crate::proxy::Question {
            method: "GET".into(),
            host: "www.hongbao.test".into(),
            path: "/v1/gifts".into(),
            headers: vec![],
            client: [10, 2, 3, 4].into(),
            user: Some("alice".into()),
            tls: false,
        };
        let value = crate::proxy::explain(&snapshot, &question);
        insta::assert_snapshot!(render(&value, outcome(&value), Paint(false)), @r#"
        generation  12
        request     method GET, scheme http, host www.hongbao.test, path /v1/gifts, client 10.2.3.4
        route       name gifts, matched exact host, longest prefix
        user        key header:x-user-id, hash c5dee43e52b78237
        service     name gift-list, class critical, balance p2c
        pick        backend 10.1.0.11:7000, datacenter shenzhen, reason cheapest, placed local, tier fresh
        retry       repeatable yes, tries 3, per try from observed latency, budget 0.2
        deadline    ms 500, by service
        routes
          NAME    HOST              PATH        PATH MATCH  FATE
          claims  www.hongbao.test  /v1/claims  prefix      other path
          gifts   www.hongbao.test  /v1/gifts   prefix      taken
        datacenters
          DATACENTER  LOCAL  STATE    HEALTH  FACTOR  EFFECTIVE  SHARE  BECAUSE
          shenzhen    yes    serving  1       1       40         100%   local
          shanghai           serving  0.5     0.7     28         0%
          tianjin            failed   0       0       0          0%
        backends
          BACKEND         DATACENTER  STATE    WEIGHT  CONFIGURED WEIGHT  IN FLIGHT  HOME  SHARE  EXCLUDED
          10.1.0.11:7000  shenzhen    healthy  1       1                  0                52%
          10.1.0.12:7000  shenzhen    healthy  1       1                  0                48%
          10.2.0.11:7000  shanghai    ejected  0       1                  0                0%     ejected: consecutive-failures
          10.2.0.12:7000  shanghai    healthy  1       1                  0                0%
          10.3.0.11:7000  tianjin     down     0       1                  0          yes   0%     down
          10.3.0.12:7000  tianjin     down     0       1                  0                0%     down

        => gift-list at 10.1.0.11:7000 in shenzhen (local, cheapest, fresh)
        "#);
        let lost = crate::proxy::explain(&snapshot, &crate::proxy::Question { host: "nobody.test".into(), ..question });
        assert_eq!(outcome(&lost), ["refused with 404: no route matches"]);
        assert_eq!(
            outcome(&serde_json::json!({"pick": {"none": "home-down", "home": "a:1"}})),
            ["503: home-down at a:1"]
        );
        assert_eq!(outcome(&Value::Null), ["no outcome"]);
    }

    #[test]
    fn an_answer_is_the_last_word_on_a_name() {
        let value = serde_json::json!({
            "found": "steered",
            "steering": {"reason": "near"},
            "answer": {"rcode": "noerror", "answer": ["a. 5 IN A 10.0.0.1", "a. 5 IN A 10.0.0.2"]}
        });
        let text = render(&value, answer(&value), Paint(false));
        assert!(
            text.ends_with("\n\n=> NOERROR (steered: near)\n   a. 5 IN A 10.0.0.1\n   a. 5 IN A 10.0.0.2\n"),
            "{text}"
        );
        let none = serde_json::json!({"found": "no such name", "answer": {"rcode": "nxdomain", "answer": []}});
        assert_eq!(answer(&none), ["NXDOMAIN, no records (no such name)"]);
        assert_eq!(answer(&serde_json::json!({"error": "`X` is no type"})), ["`X` is no type"]);
    }

    #[test]
    fn a_file_is_explained_without_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gslb.toml");
        let zone = "@ 60 IN SOA ns1 host 1 3600 900 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n";
        std::fs::write(folder.path().join("z.zone"), zone).unwrap();
        let text = r#"
            datacenter = [
                { name = "sz", weight = 40, addresses = ["192.0.2.1"], near = ["10.1.0.0/16"] },
                { name = "tj", weight = 20, addresses = ["192.0.2.2", "2001:db8::2"], near = ["10.2.0.0/16"] },
            ]
            service = [
                { name = "edge", probe = { http = "/" }, backends = { sz = ["127.0.0.1:1"], tj = ["127.0.0.2:1"] } },
                { name = "idle", backends = { sz = ["127.0.0.1:1"] } },
            ]
            [dns]
            listen = "127.0.0.1:0"
            zone = [{ name = "example.test.", file = "z.zone" }]
            steer = [{ name = "www.example.test.", services = ["edge"], policy = ["near", "failover"], answers = 1 }]
        "#;
        std::fs::write(&file, text).unwrap();
        let path = file.display().to_string();
        let said = |more: &[&str]| -> Result<String, String> {
            let line =
                [&["explain", "dns", "www.example.test", "A", "--subnet", "10.1.2.0/24", "--config", &path], more];
            let What::Dns(question) = Line::parse_from(line.concat()).explain.what else { return Err("http".into()) };
            let value = question.rehearsed(&file).map_err(|e| e.to_string())?;
            Ok(render(&value, answer(&value), Paint(false)))
        };
        insta::assert_snapshot!(said(&[]).unwrap(), @r"
        generation  1
        name        www.example.test.
        type        A
        client      address 10.1.2.0, network 10.1.2.0, passed on by resolver yes
        found       steered
        answer
          rcode          noerror
          flags          aa
          client subnet  scope 16, source 24
          octets         72
          answer
            www.example.test. 20 IN A 192.0.2.1
        steering
          policy       near, failover
          reason       near
          near leaf    10.1.0.0/16
          scope        16
          answers      1
          ttl          seconds 20, base 20, min 5, why calm
          all down     no
          on all down  serve-all
          near
            BY             COUNTS  NEAR TO  SAID
            configuration  yes     sz       10.1.0.0/16
          candidates
            RANK  DATACENTER  NEAR  STATE    WEIGHT  EFFECTIVE  GROUP  CHOSEN  EXCLUDED               ADDRESSES               SHED
            1     sz          yes   serving  40      40         first  yes                            192.0.2.1               0
            2     tj                serving  20      20         rest           others rank before it  192.0.2.2, 2001:db8::2  0

        => NOERROR (steered: near)
           www.example.test. 20 IN A 192.0.2.1
        ");
        let down = said(&["--down", "sz/edge"]).unwrap();
        assert!(down.contains("too little of it is healthy"), "{down}");
        assert!(down.ends_with("=> NOERROR (steered: failover)\n   www.example.test. 20 IN A 192.0.2.2\n"), "{down}");
        assert_eq!(
            said(&["--down", "tj/idle"]).unwrap_err(),
            "no service `idle` has a backend in a datacenter `tj`: there are sz/edge, sz/idle, tj/edge"
        );
        assert_eq!(said(&["--down", "sz/idle"]), said(&[]), "another service at the same address decides nothing");
    }

    #[test]
    fn what_makes_no_sense_is_not_sent() {
        for line in [
            vec!["dns", "a", "--client", "b"],
            vec!["dns", "a", "A", "--type", "A"],
            vec!["dns", "a", "--down", "b/c"],
            vec!["dns", "a", "--config", "b", "--down", "c"],
            vec!["http", "a", "--header", "b"],
            vec!["http"],
        ] {
            assert!(Line::try_parse_from([vec!["explain"], line].concat()).is_err());
        }
    }
}
