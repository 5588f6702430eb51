//! What must hold whatever the bytes are: one body for each target.
//!
//! `fuzz_targets/NAME.rs` lets a fuzzer look for bytes that break a body; `tests/fuzz_corpus.rs` replays
//! `corpus/NAME/*` with every test run, so that a target cannot rot and a finding stays found.

#![allow(unreachable_pub, reason = "a module of each target and of the tests, with no crate of its own")]

use std::path::Path;

use springtide::config::check;
use springtide::config::diag::Severity;

/// What a fuzzer calls with its bytes.
pub type Body = fn(&[u8]);

/// Every target by its name, which is also its folder in the corpus.
pub const ALL: &[(&str, Body)] = &[("config", config)];

/// Any text as a configuration: it is refused with a reason or accepted with warnings at most, every finding stands in
/// the text, in order, and can be rendered in every way.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let findings = match check::parse(&text, Path::new("any.toml")) {
        Ok(config) => {
            assert!(config.warnings.iter().all(|f| f.severity == Severity::Warning), "an error was passed over");
            config.warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(|f| f.severity == Severity::Error), "refused without a reason");
            findings
        }
    };
    let lines = text.split('\n').count();
    for finding in findings.iter() {
        assert!(finding.span.is_none_or(|s| s.start <= s.end && s.end <= text.len()), "{finding:?}");
        assert!(finding.line <= lines && (finding.span.is_none() || finding.column >= 1), "{finding:?}");
    }
    assert!(findings.iter().is_sorted_by_key(|f| f.span.map(|s| s.start)), "out of order");
    assert!(findings.render(true).len() >= findings.to_string().len(), "colours take nothing away");
    assert_eq!(findings.to_json()["findings"].as_array().map(Vec::len), Some(findings.iter().len()));
}
