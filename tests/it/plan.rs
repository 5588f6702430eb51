//! `springtide plan`: between two files, and against a node that runs with its drains.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Node, said, springtide};

fn write(path: &Path, weight: u32, extra: &str) {
    let zone = "$TTL 60\n@ SOA ns h 1 3600 900 604800 60\n@ NS ns\nns A 192.0.2.53\n";
    fs::write(path.with_file_name("plan.zone"), zone).unwrap();
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [[datacenter]]\nname = \"east\"\nweight = {weight}\naddresses = [\"192.0.2.1\"]\n\n\
         [[datacenter]]\nname = \"west\"\nweight = 50\naddresses = [\"192.0.2.2\"]\ncapacity = \"100 rps\"\n\n\
         [[service]]\nname = \"web\"\nbackends = {{ east = [\"127.0.0.1:9\"], west = [\"127.0.0.1:19\"] }}\n\n\
         [dns]\nlisten = \"127.0.0.1:0\"\n[[dns.zone]]\nname = \"plan.test.\"\nfile = \"plan.zone\"\n\n\
         [[dns.steer]]\nname = \"www.plan.test.\"\nservices = \"web\"\npolicy = \"weighted\"\n{extra}"
    );
    fs::write(path, text).unwrap();
}

fn outlook(args: &[&str]) -> (Option<i32>, Value) {
    let output = springtide(&[&["plan", "--json"], args].concat());
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&output)));
    (output.status.code(), value)
}

#[test]
fn a_plan_says_what_a_file_would_move_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.toml"), dir.path().join("new.toml"));
    write(&old, 50, "");
    write(&new, 150, "");
    let (old_text, new_text) = (old.to_str().unwrap(), new.to_str().unwrap());

    let (code, same) = outlook(&[old_text, "--old", old_text, "--max-moved", "0%"]);
    assert_eq!((code, same["moved"].as_f64()), (Some(0), Some(0.0)));
    // Half and half becomes three quarters and one: a quarter moves, and only from west to east.
    let (code, grown) = outlook(&[new_text, "--old", old_text, "--max-moved", "20%"]);
    let moved = grown["moved"].as_f64().unwrap();
    assert!(code == Some(3) && (0.23..0.27).contains(&moved), "{code:?} {grown}");
    assert_eq!(grown["names"][0]["flows"].as_array().unwrap().len(), 1);
    let (code, breach) = outlook(&[old_text, "--old", new_text, "--rate", "1000 rps"]);
    assert_eq!((code, &breach["breaches"][0]["datacenter"]), (Some(3), &"west".into()));
    let shown = springtide(&["plan", new_text, "--old", old_text]);
    assert!(said(&shown).contains("west -> east"), "{}", said(&shown));

    // Against a node in which east is drained: all are in the west now, and stay there.
    let node = Node::start(&old);
    let admin = node.admin().to_string();
    let drained = springtide(&["drain", "east", "--admin", &admin]);
    assert!(drained.status.success(), "{}", said(&drained));
    let (code, live) = outlook(&[new_text, "--admin", &admin]);
    assert_eq!(
        (code, live["moved"].as_f64(), live["names"][0]["after"]["west"].as_f64()),
        (Some(0), Some(0.0), Some(1.0))
    );
    let population = dir.path().join("population");
    fs::write(&population, "10.0.0.0/8 3\n{\"client\": \"192.0.2.7\"}\n").unwrap();
    let (_, few) = outlook(&[new_text, "--admin", &admin, "--population", population.to_str().unwrap()]);
    assert_eq!(few["clients"].as_u64(), Some(257));

    write(&new, 150, "polcy = 1\n");
    let wrong = springtide(&["plan", new_text, "--admin", &admin]);
    assert!(wrong.status.code() == Some(1) && said(&wrong).contains("policy"), "{}", said(&wrong));
}

/// A configuration in which clients of `near` belong to `west`, by the classes of the list `map`.
fn write_near(path: &Path, near: &str, map: &str) {
    write(path, 50, "policy = [\"near\", \"weighted\"]\n");
    let text = fs::read_to_string(path).unwrap();
    let text = text.replacen("policy = \"weighted\"\n", "", 1);
    let text = text.replacen("name = \"east\"\n", "name = \"east\"\nnear = [\"class:a\"]\n", 1);
    let text = text.replacen("name = \"west\"\n", &format!("name = \"west\"\nnear = [{near}]\n"), 1);
    fs::write(path, format!("[geo]\ncidr = [\"{map}\"]\n\n{text}")).unwrap();
}

#[test]
fn a_plan_for_places_that_the_node_never_asked_for_is_right_too() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old.toml"), dir.path().join("new.toml"));
    let list = "10.0.0.0/8 a\n11.0.0.0/8 b\n12.0.0.0/7 b\n";
    fs::write(dir.path().join("map.txt"), list).unwrap();
    fs::write(dir.path().join("other.txt"), list).unwrap();
    write_near(&old, "", "map.txt");
    write_near(&new, "\"class:b\"", "map.txt");
    let (old_text, new_text) = (old.to_str().unwrap(), new.to_str().unwrap());
    let (_, between) = outlook(&[new_text, "--old", old_text]);
    assert!(between["moved"].as_f64().unwrap() > 0.004, "those of class b who went east: {between}");

    let node = Node::start(&old);
    let admin = node.admin().to_string();
    let (_, live) = outlook(&[new_text, "--admin", &admin]);
    assert_eq!((&live["moved"], &live["names"]), (&between["moved"], &between["names"]));
    let still = springtide(&["plan", old_text, "--admin", &admin]);
    assert!(said(&still).contains("moves 0.0%"), "{}", said(&still));

    // A file that the node does not have in force is not read for whoever asks.
    write_near(&new, "\"class:b\"", "other.txt");
    let other = springtide(&["plan", new_text, "--admin", &admin]);
    assert!(other.status.code() == Some(1) && said(&other).contains("--old FILE"), "{}", said(&other));
}
