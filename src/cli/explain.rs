//! `springtide explain`: why a node answers a DNS question as it does, and where it would send a request.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Admin, Ask, Client, ClientError, encode};
use super::table::Paint;
use super::tree;

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
    /// The record type.
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    rtype: String,
    /// Who asks: an address, or a subnet as a resolver tells it.
    #[arg(long, value_name = "IP|SUBNET", value_parser = client)]
    client: Option<String>,
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

fn header(text: &str) -> Result<String, String> {
    if text.contains(':') { Ok(text.to_owned()) } else { Err("a header is written `name: value`".into()) }
}

impl ExplainArgs {
    pub(super) fn run(self) -> ExitCode {
        let (path, way) = match &self.what {
            What::Dns(question) => (question.path(), &question.way),
            What::Http(question) => (question.path(), &question.way),
        };
        super::finish(way.show(path))
    }
}

impl Way {
    #[expect(clippy::print_stdout, reason = "the explanation is the output")]
    fn show(&self, path: String) -> Result<ExitCode, ClientError> {
        let (_, value) = Client::new(&self.admin)?.ask::<Value>(&Ask::get(path))?;
        if self.json {
            println!("{value:#}");
        } else {
            print!("{}", tree::render(&value, Paint::for_stdout()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl DnsQuestion {
    fn path(&self) -> String {
        let asked = [("name", Some(&self.name)), ("type", Some(&self.rtype)), ("client", self.client.as_ref())];
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
    fn what_makes_no_sense_is_not_sent() {
        for line in [vec!["dns", "a", "--client", "b"], vec!["http", "a", "--header", "b"], vec!["http"]] {
            assert!(Line::try_parse_from([vec!["explain"], line].concat()).is_err());
        }
    }
}
