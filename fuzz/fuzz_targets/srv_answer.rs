//! Any octets as an answer with SRV records.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::srv_answer(data));
