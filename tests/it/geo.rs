//! Files that say where clients are, on a running node: they decide, they are explained, and a change of theirs takes effect
//! by itself, while a broken one changes nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::mmdb_writer::{Value as Record, country, write};
use crate::support::{Node, client, eventually, said, springtide};

const SOON: Duration = Duration::from_secs(20);

fn database(path: &Path, networks: &[(&str, &str)]) {
    let networks: Vec<(ipnet::IpNet, Record)> =
        networks.iter().map(|(net, code)| (net.parse().unwrap(), country("AS", code))).collect();
    // As those who fetch databases do it: whole, and then in its place.
    let beside = path.with_extension("new");
    fs::write(&beside, write("Test-Country", true, 24, &networks)).unwrap();
    fs::rename(beside, path).unwrap();
}

fn node(folder: &Path) -> Node {
    let site = |name: &str, octet: u8, near: &str| {
        format!("[[datacenter]]\nname = \"{name}\"\naddresses = [\"192.0.2.{octet}\"]\nnear = [{near}]\n\n")
    };
    let text = [
        "[node]\nname = \"n1\"\nworkers = 1\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n",
        "[geo]\ndatabases = [\"country.mmdb\"]\ncidr = [\"map.txt\"]\npoll = \"100ms\"\n\n",
        &site("sz", 1, "\"class:office\", \"country:CN\""),
        &site("fra", 2, "\"country:DE\""),
        "[[service]]\nname = \"web\"\nbackends.sz = [\"127.0.0.1:9\"]\nbackends.fra = [\"127.0.0.2:9\"]\n\n",
        "[dns]\nlisten = \"127.0.0.1:0\"\nthreads = 1\necs_max_classes = 1000\n\n[[dns.zone]]\nname = \"example.test.\"\nfile = \"z.zone\"\n\n",
        "[[dns.steer]]\nname = \"www.example.test.\"\nservices = [\"web\"]\npolicy = [\"near\", \"failover\"]\nanswers = 1\n",
    ];
    fs::write(
        folder.join("z.zone"),
        "@ 60 IN SOA ns1 host 1 3600 900 604800 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n",
    )
    .unwrap();
    let path = folder.join("node.toml");
    fs::write(&path, text.concat()).unwrap();
    Node::start(&path)
}

fn dig(node: &Node, subnet: &str) -> (String, String) {
    let at = node.dns();
    let out = client(
        "dig",
        &[
            "@127.0.0.1",
            "-p",
            &at.port().to_string(),
            "www.example.test.",
            "A",
            &format!("+subnet={subnet}"),
            "+noall",
            "+answer",
            "+comments",
        ],
    );
    let address =
        out.lines().find(|l| l.contains("IN\tA\t")).and_then(|l| l.split_whitespace().last()).unwrap_or_default();
    let scope =
        out.lines().find(|l| l.contains("CLIENT-SUBNET")).and_then(|l| l.rsplit('/').next()).unwrap_or_default();
    (address.to_owned(), scope.to_owned())
}

#[test]
fn files_decide_are_explained_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (mmdb, list) = (folder.path().join("country.mmdb"), folder.path().join("map.txt"));
    database(&mmdb, &[("10.0.0.0/8", "CN"), ("10.128.0.0/9", "DE")]);
    fs::write(&list, "10.200.0.0/16\toffice\n").unwrap();
    let node = node(folder.path());
    assert_eq!(dig(&node, "10.1.2.0/24"), ("192.0.2.1".into(), "9".into()));
    assert_eq!(dig(&node, "10.129.0.0/24"), ("192.0.2.2".into(), "10".into()));
    assert_eq!(dig(&node, "10.200.0.0/24"), ("192.0.2.1".into(), "16".into()));

    assert_eq!(dig(&node, "192.168.0.0/24").0, "192.0.2.1", "near to nobody: the first in order");

    let admin = node.admin().to_string();
    let metric = |name: &str, labels: &[&str]| -> Option<f64> {
        let all = client("curl", &["-sS", &format!("http://{admin}/metrics")]);
        let of = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
        all.lines().find(of)?.rsplit(' ').next()?.parse().ok()
    };
    let answers = |reason: &str, near: &str| {
        let labels = [format!("reason=\"{reason}\""), format!("near=\"{near}\"")];
        metric("springtide_dns_geo_answers_total", &labels.each_ref().map(String::as_str))
    };
    eventually("answers are counted by what the map said", SOON, || {
        (answers("near", "somebody") == Some(3.0) && answers("failover", "nobody") == Some(1.0)).then_some(())
    });
    assert_eq!(metric("springtide_dns_geo_networks", &["country.mmdb"]), Some(2.0), "two halves");
    assert_eq!(metric("springtide_dns_geo_accepted", &["map.txt"]), Some(1.0));
    assert!(metric("springtide_dns_geo_made_timestamp_seconds", &["map.txt"]).is_some_and(|at| at > 1.6e9));
    assert!(metric("springtide_dns_geo_file_bytes", &["map.txt"]) == Some(21.0));
    assert!(metric("springtide_dns_geo_read_seconds", &["country.mmdb"]).is_some_and(|s| s > 0.0 && s < 10.0));
    assert!(metric("springtide_dns_geo_map_bytes", &[]).is_some_and(|bytes| bytes > 0.0));
    let explained =
        springtide(&["explain", "dns", "www.example.test", "--client", "10.200.0.1", "--admin", &admin, "--json"]);
    let explained: Value = serde_json::from_str(&said(&explained)).unwrap();
    // Nobody probes here, and nothing is unwell: a file alone is explained in the same words.
    let file = folder.path().join("node.toml").display().to_string();
    let offline = ["explain", "dns", "www.example.test", "A", "--subnet", "10.200.0.1", "--config", &file, "--json"];
    let offline: Value = serde_json::from_str(&said(&springtide(&offline))).unwrap();
    let without_generation = |said: &Value| {
        let mut said = said.clone();
        said["generation"] = Value::Null;
        said
    };
    assert_eq!(without_generation(&offline), without_generation(&explained));
    let near = &explained["steering"]["near"];
    assert_eq!((near[0]["said"].as_str(), near[0]["counts"].as_bool()), (Some("class:office"), Some(true)), "{near}");
    assert!(near[0]["by"].as_str().unwrap().ends_with("map.txt"), "{near}");
    assert_eq!((near[1]["said"].as_str(), near[1]["near_to"][0].as_str()), (Some("country:DE"), Some("fra")), "{near}");

    database(&mmdb, &[("10.0.0.0/8", "DE")]);
    eventually("the new database decides", SOON, || (dig(&node, "10.1.2.0/24").0 == "192.0.2.2").then_some(()));
    eventually("the log says what has moved", SOON, || node.log().contains("0.20 %").then_some(()));

    fs::write(&list, "10.200.0.0/16\toffice\n10.201.0.1/16\toffice\n").unwrap();
    eventually("the refusal is said with its line", SOON, || node.log().contains("map.txt:2:").then_some(()));
    assert_eq!(dig(&node, "10.200.0.0/24").0, "192.0.2.1", "the old list stays in force");
    assert_eq!(metric("springtide_dns_geo_accepted", &["map.txt"]), Some(0.0));
    assert_eq!(metric("springtide_dns_geo_readings_total", &["map.txt", "refused"]), Some(1.0));
    let refused = springtide(&["reload", "--admin", &admin]);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("did you mean 10.201.0.0/16?"), "{}", said(&refused));

    fs::write(&list, "10.1.0.0/16\toffice\n").unwrap();
    eventually("the mended list decides", SOON, || (dig(&node, "10.1.2.0/24").0 == "192.0.2.1").then_some(()));
    assert_eq!(metric("springtide_dns_geo_accepted", &["map.txt"]), Some(1.0));
    // 10.0.0.0/8 is German now: every second block of it is another class.
    let classes = || metric("springtide_dns_ecs_classes", &["www.example.test."]);
    let before = classes();
    assert!(before.is_some_and(|classes| classes > 10.0 && classes < 1_000.0), "{before:?}");
    let fine = (0..4_000).step_by(2).map(|block| format!("10.{}.{}.0/24\toffice\n", block / 256, block % 256));
    fs::write(&list, fine.collect::<String>()).unwrap();
    eventually("what divides too far is refused", SOON, || {
        node.log().contains("more than the 1000 of `dns.ecs_max_classes`").then_some(())
    });
    assert_eq!(dig(&node, "10.1.2.0/24").0, "192.0.2.1", "the mended list stays in force");
    assert_eq!(classes(), before);
    fs::write(&list, "10.1.0.0/16\toffice\n").unwrap();
    let reloaded = client("curl", &["-sS", "-X", "POST", &format!("http://{admin}/v1/reload")]);
    let reloaded: Value = serde_json::from_str(&reloaded).unwrap();
    assert!(reloaded["generation"].is_u64() && reloaded["shifts"].is_array(), "{reloaded}");
}
