//! Any octets as conditions of a request for a file.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::files_conditions(data));
