//! Any octets as `Range`.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::files_range(data));
