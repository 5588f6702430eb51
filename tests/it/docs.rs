//! The pages: commands that they name exist, configurations that they show are good, generated pages are up to date.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{root, said, springtide};

fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("README.md".to_owned(), fs::read_to_string(root().join("README.md")).unwrap())];
    for entry in fs::read_dir(root().join("docs")).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "md") {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            pages.push((name, fs::read_to_string(entry).unwrap()));
        }
    }
    pages
}

#[test]
fn every_command_that_a_page_names_exists() {
    let mut commands = BTreeSet::new();
    for (page, text) in pages() {
        for piece in text.split("springtide ").skip(1).chain(text.split("cargo run --release -- ").skip(1)) {
            let command: String = piece.chars().take_while(|c| c.is_ascii_lowercase()).collect();
            let next = piece[command.len()..].chars().next();
            // Prose may go on after the name; a command is followed by an argument, a quote or the end of its line.
            let shown =
                text.contains(&format!("`springtide {command}")) || text.contains(&format!("    springtide {command}"));
            if shown && !command.is_empty() && matches!(next, Some(' ' | '`' | '\n')) {
                commands.insert((page.clone(), command));
            }
        }
    }
    assert!(commands.len() > 5, "{commands:?}");
    for (page, command) in commands {
        let output = springtide(&[&command, "--help"]);
        assert!(output.status.success(), "{page} names `springtide {command}`: {}", said(&output));
    }
}

#[test]
fn generated_pages_are_what_the_program_says() {
    for (page, file) in [("metrics", "METRICS.md"), ("config", "CONFIG.md"), ("schema", "springtide.schema.json")] {
        let output = springtide(&["docs", page]);
        assert!(output.status.success(), "{}", said(&output));
        let kept = fs::read_to_string(root().join("docs").join(file)).unwrap();
        assert!(kept == said(&output), "docs/{file} is old: springtide docs {page} > docs/{file}");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for (page, text) in pages() {
        let folder = if page == "README.md" { root().to_owned() } else { root().join("docs") };
        for target in text.split("](").skip(1).filter_map(|t| t.split(')').next()) {
            if !target.starts_with("http") && !target.starts_with('#') {
                let file = target.split('#').next().unwrap();
                assert!(folder.join(file).exists(), "{page} links to {target}");
            }
        }
    }
}
