//! Any octets as an HTTP/3 client's control stream.
#![no_main]

#[path = "../src/targets.rs"]
#[allow(dead_code, reason = "one body of them all")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::h3_control(data));
