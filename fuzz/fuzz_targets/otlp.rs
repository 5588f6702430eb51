//! Any bytes as a collector's answer, and as a text of a span.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::otlp(data));
