//! The page of gifts and red packets, served by the edge, in a real browser: in the calm, and with its services failing.

use std::fs;
use std::path::Path;

use crate::support::{Node, Upstream, client, root};

fn edge(dir: &Path, services: &[(&str, &Upstream)]) -> Node {
    let mut text = String::from(
        "[node]\nname = \"page\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[datacenter]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\
         [[listener]]\nname = \"public\"\nlisten = [\"127.0.0.1:0\"]\n",
    );
    for (name, upstream) in services {
        let address = upstream.address;
        text += &format!("[[service]]\nname = \"{name}\"\ndeadline = \"1s\"\nbackends.here = [\"{address}\"]\n");
        let path = format!("/v1/{}", if *name == "gift-list" { "gifts" } else { name });
        text += &format!("[[route]]\nmatch = {{ path_prefix = \"{path}\" }}\nservice = \"{name}\"\n");
    }
    let www = root().join("www");
    text += &format!(
        "[[route]]\nmatch = {{ path_prefix = \"/\" }}\nfiles = {{ root = {www:?}, index = \"index.html\" }}\n"
    );
    let path = dir.join("edge.toml");
    fs::write(&path, text).unwrap();
    Node::start(&path)
}

#[test]
fn a_person_finds_their_way_in_the_calm_and_in_faults() {
    let dir = tempfile::tempdir().unwrap();
    let data = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let game = Upstream::start("game", &["--data", &data("game")]);
    let recommend = Upstream::start("recommend", &[]);
    let gifts = Upstream::start("gift-list", &["--recommend", &recommend.url()]);
    let zones = Upstream::start("zones", &["--game", &game.url()]);
    let claims = Upstream::start("claim", &["--data", &data("claims"), "--game", &game.url()]);
    let packets =
        Upstream::start("packet", &["--data", &data("packets"), "--wallet", &game.url(), "--grant", "100000"]);
    let services = [("gift-list", &gifts), ("zones", &zones), ("claims", &claims), ("packets", &packets)];
    let node = edge(dir.path(), &services);
    // Pictures for people, where they ask for them.
    let pictures = std::env::var("PICTURES").unwrap_or_else(|_| data("pictures"));
    fs::create_dir_all(&pictures).unwrap();
    let script = root().join("tests/it/page/visit.py");
    let arguments = [
        node.http("public").to_string(),
        recommend.address.to_string(),
        game.address.to_string(),
        claims.process().to_string(),
        node.process().to_string(),
        packets.process().to_string(),
        pictures.clone(),
    ];
    let arguments: Vec<&str> =
        [script.to_str().unwrap()].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let said = client("/usr/bin/python3", &arguments);
    assert!(said.ends_with("all good\n"), "{said}");
    assert_eq!(fs::read_dir(&pictures).unwrap().count(), 12);
}
