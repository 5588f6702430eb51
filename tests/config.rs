//! Configurations as operators write them: broken ones with what they are told, good ones, and anything at all.
//!
//! `GOLDEN=write cargo test --test config` writes what is said now beside the files of `tests/golden/config`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use springtide::config::check;

#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.retain(|path| is_of_this_build(path));
    files.sort();
    files
}

/// Whether what a configuration is told is for builds such as this one.
fn is_of_this_build(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    let (needs, lacks) = (name == "otlp" || name.starts_with("otlp-"), name == "without-otlp");
    if cfg!(feature = "otlp") { !lacks } else { !needs }
}

fn said(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    match check::parse(&text, Path::new(path.file_name().unwrap())) {
        Ok(config) if config.warnings.is_empty() => "good\n".into(),
        Ok(config) => format!("{}good, with warnings\n", config.warnings),
        Err(findings) => findings.to_string(),
    }
}

#[test]
fn every_configuration_is_told_what_stands_beside_it() {
    let mut differ = Vec::new();
    let files = files("tests/golden/config", "toml");
    for path in &files {
        let (said, beside) = (said(path), path.with_extension("txt"));
        if std::env::var_os("GOLDEN").is_some_and(|v| v == "write") {
            fs::write(&beside, &said).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if said != expected {
            differ.push(format!("{}\n--- expected\n{expected}--- said\n{said}", path.display()));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    let broken = files.iter().filter(|p| said(p).contains("error[")).count();
    assert!(broken >= 30, "only {broken} broken configurations");
}

#[test]
fn the_configurations_that_we_ship_are_good() {
    let files = files("configs", "toml");
    assert!(files.len() >= 4, "{files:?}");
    for path in files {
        let config = check::load(&path).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
    }
}

/// What the guide's examples stand on, where they show a part only.
const GROUND: &str = "
[dns]
listen = '127.0.0.1:5300'
[[dns.zone]]
name = 'hongbao.test.'
file = 'zone'
[[service]]
name = 'claim'
backends.shenzhen = ['10.1.0.1:7000']
backends.guangzhou = []
backends.shanghai = []
backends.tianjin = []
backends.singapore = []
";

#[test]
fn the_steering_that_the_guide_shows_is_good() {
    let guide = fs::read_to_string(root().join("docs/GUIDE.md")).unwrap();
    let examples: Vec<&str> = guide
        .split("```toml\n")
        .skip(1)
        .map(|t| t.split("```").next().unwrap())
        .filter(|t| t.contains("[[dns.steer]]"))
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        let places = ["shenzhen", "guangzhou", "shanghai", "tianjin", "singapore"];
        let place = |(i, name): (usize, &&str)| {
            format!("[[datacenter]]\nname = '{name}'\naddresses = ['192.0.2.{i}']\nnear = ['10.{i}.0.0/16']\n")
        };
        let places: String = places.iter().enumerate().map(place).collect();
        let text = format!("{places}{GROUND}{example}");
        let config = check::parse(&text, Path::new("guide.toml")).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
    }
}

#[test]
fn the_routes_that_the_guide_shows_are_good() {
    let guide = fs::read_to_string(root().join("docs/GUIDE.md")).unwrap();
    let examples = guide.split("```toml\n").skip(1).map(|t| t.split("```").next().unwrap());
    let examples: Vec<&str> = examples.filter(|t| t.contains("[[route]]") && !t.contains("[[service]]")).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let service = |name: &str| format!("[[service]]\nname = '{name}'\nbackends.shenzhen = ['10.1.0.1:7000']\n");
        let mut text = String::from("[[datacenter]]\nname = 'shenzhen'\n");
        for name in ["gift-list", "gift-list-next", "gift-list-shadow"] {
            text += if example.contains(&format!("\"{name}\"")) { service(name) } else { String::new() }.as_str();
        }
        if !example.contains("[[listener]]") {
            text += "[[listener]]\nname = 'public'\nlisten = '127.0.0.1:8080'\n";
        }
        text += example;
        let config = check::parse(&text, Path::new("guide.toml")).unwrap_or_else(|findings| panic!("{findings}"));
        assert!(config.warnings.is_empty(), "{}", config.warnings);
    }
}

#[test]
fn the_generated_pages_are_those_of_this_program() {
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name)).unwrap_or_default();
    let hint = |what: &str, name: &str| format!("run: springtide docs {what} > docs/{name}");
    assert!(page("CONFIG.md") == springtide::config::schema::markdown(), "{}", hint("config", "CONFIG.md"));
    assert!(
        page("springtide.schema.json") == springtide::config::schema::json_schema(),
        "{}",
        hint("schema", "springtide.schema.json")
    );
}

/// As much of JSON schema as ours uses.
fn fits(schema: &Value, value: &Value, root: &Value) -> Result<(), String> {
    let no = |why: &str| Err(format!("{value}: {why} of {schema}"));
    if let Some(name) = schema["$ref"].as_str() {
        return fits(&root["$defs"][name.trim_start_matches("#/$defs/")], value, root);
    }
    if let Some(some) = schema["anyOf"].as_array() {
        return some.iter().find_map(|s| fits(s, value, root).ok()).map_or_else(|| no("none"), Ok);
    }
    if schema.get("enum").is_some_and(|e| !e.as_array().unwrap().contains(value)) {
        return no("not one");
    }
    if schema.get("const").is_some_and(|c| c != value) {
        return no("not the value");
    }
    let number = value.as_f64().unwrap_or_default();
    let typed = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other}"),
    };
    if !typed
        || schema["minimum"].as_f64().is_some_and(|m| number < m)
        || schema["maximum"].as_f64().is_some_and(|m| number > m)
    {
        return no("not the type, or not the range");
    }
    for item in value.as_array().into_iter().flatten() {
        fits(&schema["items"], item, root)?;
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => return no(&format!("no `{key}`")),
            (Value::Null, every) => fits(every, item, root)?,
            (property, _) => fits(property, item, root)?,
        }
    }
    let missing = |key: &&Value| value.is_object() && value.get(key.as_str().unwrap()).is_none();
    match schema["required"].as_array().into_iter().flatten().find(missing) {
        Some(key) => no(&format!("{key} is missing")),
        None => Ok(()),
    }
}

#[test]
fn the_schema_takes_what_the_check_takes() {
    let schema: Value = serde_json::from_str(&springtide::config::schema::json_schema()).unwrap();
    let good = files("tests/golden/config", "toml").into_iter().filter(|p| !said(p).contains("error["));
    let good: Vec<_> = files("configs", "toml").into_iter().chain(good).collect();
    assert!(good.len() > 6, "{good:?}");
    for path in good {
        let value: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        let value = serde_json::to_value(value).unwrap();
        fits(&schema, &value, &schema).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
    for broken in
        [r#"{"nod": {}}"#, r#"{"node": {"workers": 0}}"#, r#"{"datacenter": [{}]}"#, r#"{"dns": {"listen": 53}}"#]
    {
        let value = serde_json::from_str(broken).unwrap();
        assert!(fits(&schema, &value, &schema).is_err(), "{broken}");
    }
}

/// A configuration with something to read in every section, changed in places.
fn mutated() -> impl Strategy<Value = String> {
    let seeds: Vec<String> = files("tests/golden/config", "toml")
        .iter()
        .chain(&files("configs", "toml"))
        .map(|p| fs::read_to_string(p).unwrap())
        .collect();
    let pieces = prop_oneof![
        Just(String::new()),
        prop::sample::select(vec![
            "[",
            "]",
            "[[",
            "{",
            "}",
            "\"",
            "\"\"\"",
            "'",
            "=",
            ".",
            ",",
            "#",
            "\n",
            "\r\n",
            "\\",
            "红",
            "0",
            "-1",
            "1e999",
            "true",
            "[service]",
            "[[dns.steer]]",
            "[service.backends]\n",
            "= 5\n",
            "1979-05-27T07:32:00Z",
            "\0",
            "\u{feff}",
            "\t",
        ])
        .prop_map(String::from),
        ".{0,8}",
    ];
    let change = (any::<prop::sample::Index>(), 0_usize..40, pieces);
    (prop::sample::select(seeds), prop::collection::vec(change, 1..6)).prop_map(|(mut text, changes)| {
        for (at, remove, insert) in changes {
            let from = text.floor_char_boundary(at.index(text.len() + 1));
            let to = text.floor_char_boundary((from + remove).min(text.len()));
            text.replace_range(from..to.max(from), &insert);
        }
        text
    })
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        targets::config(text.as_bytes());
    }

    #[test]
    fn any_toml_like_text_is_survived(text in "([a-z\\[\\]{}=\"'.,#0-9 \n:/*-]|dns|service|route|match){0,120}") {
        targets::config(text.as_bytes());
    }

    #[test]
    fn any_change_to_a_configuration_is_survived(text in mutated()) {
        targets::config(text.as_bytes());
    }
}
